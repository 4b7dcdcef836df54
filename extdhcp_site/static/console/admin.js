// Gives names, for who hears a page, to what the stock admin's scripts leave without one.
function nameAll() {
  for (const icon of document.querySelectorAll(".search-label-icon")) icon.setAttribute("role", "img");
  for (const select of document.querySelectorAll("select.admin-autocomplete")) {
    const [label] = select.labels;
    const box = select.nextElementSibling?.querySelector("[role=combobox]");
    if (!label || !box) continue;
    label.id ||= `${select.id}_label`;
    const chosen = box.querySelector("[role=textbox], [role=searchbox]");
    chosen?.setAttribute("aria-labelledby", label.id);
    box.setAttribute("aria-labelledby", chosen?.id ? `${label.id} ${chosen.id}` : label.id);
  }
}

// After the scripts that wait for the page themselves.
window.addEventListener("load", () => setTimeout(nameAll));
document.addEventListener("formset:added", () => setTimeout(nameAll));
