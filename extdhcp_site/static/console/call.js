// Shows the API call that a form makes, as it is filled in.
const SECRET = new Set(["password", "currentpassword", "privatekey", "secretkey"]);

function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
}

function base64(text) {
  const bytes = new TextEncoder().encode(text.replaceAll("\r\n", "\n"));
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

function callOf(form) {
  const values = new Map();
  for (const [name, value] of new FormData(form)) {
    if (name.startsWith("_") || name === "csrfmiddlewaretoken" || value === "") continue;
    const sent = "base64" in (form.elements[name].dataset ?? {}) ? base64(value) : value;
    values.set(name, values.has(name) ? `${values.get(name)},${sent}` : sent);
  }
  const isSecret = (name) => SECRET.has(name) || form.elements[name].type === "password";
  const shown = [...values].map(([name, value]) => `${name}=${isSecret(name) ? "…" : quoted(value)}`);
  return [form.dataset.command, ...shown].join(" ");
}

for (const form of document.querySelectorAll("form[data-command]")) {
  const call = form.querySelector(".call");
  if (call) form.addEventListener("input", () => { call.textContent = callOf(form); });
}
