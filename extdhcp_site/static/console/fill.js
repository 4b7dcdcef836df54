// A button with data-fill writes its value into the field of that id: what was found out need not be typed.
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("button[data-fill]");
  const field = button && document.getElementById(button.dataset.fill);
  if (!field) return;
  for (let around = field.closest("details"); around; around = around.parentElement.closest("details")) around.open = true;
  field.value = button.value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  field.focus();
});
