// <button class="copy" data-copy="10.0.0.7">: copies the text, and says so for a moment.
const SAID_FOR = 2000; // milliseconds

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.dataset.done = "copied";
  } catch {
    button.dataset.done = "failed"; // no https, or not allowed
  }
  setTimeout(() => { delete button.dataset.done; }, SAID_FOR);
});
