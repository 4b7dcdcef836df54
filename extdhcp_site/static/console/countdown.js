// Counts down to what comes next: <time class="countdown" datetime="...">in 42 s</time>.
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

function inWords(seconds) {
  let rest = Math.floor(seconds);
  const first = UNITS.findIndex(([size]) => rest >= size);
  const parts = UNITS.slice(first, first + 2).map(([size, unit]) => {
    const count = Math.floor(rest / size);
    rest %= size;
    return count ? `${count} ${unit}` : "";
  });
  return `in ${parts.filter(Boolean).join(" ")}`;
}

function tick() {
  for (const time of document.querySelectorAll("time.countdown")) {
    const left = (new Date(time.dateTime) - Date.now()) / 1000;
    time.textContent = left < 1 ? "now" : inWords(left);
  }
}

tick();
setInterval(tick, 1000);
