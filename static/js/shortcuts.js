// Single keys on the inbox and on a request: j/k move, Enter follows the focused link by itself, ? shows the help.
// Elements with data-key are clicked by that key. The switch in the help turns single keys off (WCAG 2.1.4).
(() => {
  "use strict";

  const KEY = "commons.shortcuts";
  const on = () => {
    try { return localStorage.getItem(KEY) !== "off"; } catch { return true; }
  };
  const typing = (target) =>
    target instanceof Element && target.closest("input, textarea, select, [contenteditable]") !== null;

  const move = (step) => {
    const links = [...document.querySelectorAll("#list [data-row-link]")];
    if (!links.length) return;
    const row = document.activeElement?.closest("tr");
    const here = links.findIndex((link) => link.closest("tr") === row);
    const next = here < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(Math.max(here + step, 0), links.length - 1);
    links[next].focus();
    links[next].closest("tr").scrollIntoView({ block: "nearest" });
  };

  const show = (button) => {
    button.hidden = false;
    button.setAttribute("aria-pressed", String(on()));
    button.textContent = `Single-key shortcuts are ${on() ? "on" : "off"}`;
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || typing(event.target) || !on()) return;
    const help = document.getElementById("shortcuts");
    if (event.key === "?" && help) {
      help.open = !help.open;
      if (help.open) help.querySelector("summary").focus();
    } else if (event.key === "j" || event.key === "k") {
      move(event.key === "j" ? 1 : -1);
    } else if (event.key === "/") {
      const field = document.querySelector(".filters input[type=search]");
      if (!field) return;
      field.focus();
    } else {
      const wanted = /^[a-z]$/.test(event.key) && document.querySelector(`[data-key="${event.key}"]`);
      if (!wanted) return;
      if (wanted.matches("textarea, input, select")) wanted.focus();
      else wanted.click();
    }
    event.preventDefault();
  });

  document.addEventListener("DOMContentLoaded", () => {
    for (const button of document.querySelectorAll("[data-shortcuts-switch]")) {
      show(button);
      button.addEventListener("click", () => {
        try { localStorage.setItem(KEY, on() ? "off" : "on"); } catch { /* Storage is closed: the keys stay on. */ }
        show(button);
      });
    }
  });
})();
