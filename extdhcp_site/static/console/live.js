// The page's one stream: says "live", asks again when it was refused, and lets fragments be fetched anew.
// A fragment listens by hx-trigger="changed from:#live throttle:1s".
const live = document.getElementById("live");
const words = { live: "Live", reconnecting: "Reconnecting…" };
// Also what leaves no event, such as a host's health; and all there is where no stream is let in. Milliseconds.
const REFRESHED_EVERY = 15000;
// After a change the server may still tell what it counted just before (console/kept.py): later than that it is asked once
// more. Milliseconds.
const ASKED_AGAIN_AFTER = 600;
let asked = false;
let again = 0;

function say(state) {
  live.dataset.state = state;
  live.textContent = words[state];
}

// A page that nobody looks at holds no stream.
function connect() {
  if (asked || document.hidden) return;
  asked = true;
  htmx.trigger(live, "seen");
}

function later() {
  asked = false;
  if (live.isConnected) say("reconnecting");
  setTimeout(connect, 2000 + 1000 * Math.random());
}

if (live) {
  document.addEventListener("htmx:after:process", connect);
  document.addEventListener("visibilitychange", connect);
  live.addEventListener("htmx:sse:after:connection", () => {
    say("live");
    htmx.trigger(live, "changed"); // what was missed meanwhile
  });
  live.addEventListener("htmx:sse:before:connection", () => { if (!document.hidden) say("reconnecting"); });
  live.addEventListener("htmx:sse:error", () => say("reconnecting"));
  live.addEventListener("htmx:sse:close", later);
  live.addEventListener("htmx:finally:request", (event) => {
    if (!event.detail.ctx.response?.headers.get("Content-Type")?.includes("event-stream")) later();
  });
  live.addEventListener("changed", () => {
    if (again) return; // this is it, or it is yet to come
    again = setTimeout(() => {
      htmx.trigger(live, "changed");
      again = 0;
    }, ASKED_AGAIN_AFTER);
  });
  setInterval(() => { if (!document.hidden) htmx.trigger(live, "changed"); }, REFRESHED_EVERY);
}
