/* Renewcast: what makes the pages quicker to use. Each of them works without this file. */
"use strict";

document.documentElement.classList.add("js");

/* Filters leave the address short: what is empty is not asked for. */
document.addEventListener("htmx:configRequest", (event) => {
  const asked = event.detail.formData;
  if (event.detail.verb === "get") for (const name of [...asked.keys()]) if (asked.get(name) === "") asked.delete(name);
});

/* A session that ended, or a server that cannot answer, is shown as the whole page that it sends to whoever opens the address. */
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.status < 400) return;
  if (event.detail.xhr.status === 422) { // what was refused is said at its field
    event.detail.shouldSwap = true;
    event.detail.isError = false;
    return;
  }
  event.detail.shouldSwap = false;
  event.detail.isError = false;
  location.assign(event.detail.pathInfo.finalRequestPath);
});

/* Keys: j and k go through the list, / searches, ? shows the keys. Nothing happens while somebody types. */
const typing = (element) => element.matches("input:not([type=range]), select, textarea, [contenteditable]");
const rows = () => [...document.querySelectorAll("[data-keys] tbody th a")];

function step(by) {
  const links = rows();
  const at = links.indexOf(document.activeElement);
  const next = links[at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + by, 0), links.length - 1)];
  if (next) {
    next.focus();
    next.closest("tr").scrollIntoView({ block: "nearest" });
  }
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  "/": () => document.querySelector("input[type=search]")?.focus(),
  "?": () => document.querySelector("dialog.help")?.showModal(),
  u: () => document.querySelector(".crumb a")?.click(),
};

document.addEventListener("keydown", (event) => {
  const list = rows().includes(document.activeElement);
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape" && document.activeElement.matches("input[type=search]")) document.activeElement.blur();
  if (typing(document.activeElement)) return;
  if (list && event.key === "ArrowDown") step(1);
  else if (list && event.key === "ArrowUp") step(-1);
  else if (KEYS[event.key]) KEYS[event.key]();
  else return;
  event.preventDefault();
});

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-help]")) document.querySelector("dialog.help")?.showModal();
});

/* What is typed into a note outlives a session that ends: it is kept in this tab until it was sent. */
const draft = (field) => `draft:${field.form.getAttribute("action")}:${field.name}`;

document.addEventListener("input", (event) => {
  const field = event.target;
  if (field.matches("textarea[data-draft]")) sessionStorage.setItem(draft(field), field.value);
  if (field.matches("input[type=range]")) field.closest(".lever").querySelector("input[type=number]").value = field.value;
  if (field.matches(".lever input[type=number]")) field.closest(".lever").querySelector("input[type=range]").value = field.value;
});

for (const field of document.querySelectorAll("textarea[data-draft]")) {
  if (document.querySelector(`[data-sent="${field.name}"]`)) sessionStorage.removeItem(draft(field));
  else field.value ||= sessionStorage.getItem(draft(field)) ?? "";
}
