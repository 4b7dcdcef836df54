// Shows times in the viewer's zone: the server writes them in UTC, as text or as the title of "3 min ago".
const WRITTEN = /^\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)? UTC$/;

function two(number) {
  return String(number).padStart(2, "0");
}

function local(moment, withSeconds) {
  const day = [moment.getFullYear(), two(moment.getMonth() + 1), two(moment.getDate())].join("-");
  const parts = [moment.getHours(), moment.getMinutes(), ...(withSeconds ? [moment.getSeconds()] : [])];
  return `${day} ${parts.map(two).join(":")}`;
}

function show(time) {
  const moment = new Date(time.dateTime);
  if (Number.isNaN(moment.getTime())) return;
  const text = time.textContent.trim();
  if (WRITTEN.test(text)) {
    time.textContent = local(moment, text.length > "2026-01-01 00:00 UTC".length);
    time.title = text;
  } else if (WRITTEN.test(time.title)) {
    time.title = local(moment, true);
  }
}

function showAll(root) {
  for (const time of root.querySelectorAll("time[datetime]")) show(time);
}

showAll(document);
// Also in what a live page puts in later.
new MutationObserver((changes) => {
  for (const change of changes) if (change.target.isConnected && change.addedNodes.length) showAll(change.target);
}).observe(document.body, { childList: true, subtree: true });
