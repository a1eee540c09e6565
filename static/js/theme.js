// Runs before the first paint: sets the theme that this browser chose, so that no page flashes in the other one.
(() => {
  "use strict";
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  const choice = () => {
    try {
      const stored = localStorage.getItem("commons-theme");
      return stored === "light" || stored === "dark" ? stored : "auto";
    } catch {
      return "auto"; // storage may be switched off; the theme then follows the system
    }
  };

  const apply = () => {
    const chosen = choice();
    const theme = chosen === "auto" ? (dark.matches ? "dark" : "light") : chosen;
    if (root.dataset.bsTheme !== theme) {
      root.dataset.bsTheme = theme;
      document.dispatchEvent(new CustomEvent("commons:theme", { detail: { theme } }));
    }
  };

  root.classList.add("js");
  apply();
  dark.addEventListener("change", apply);
  window.addEventListener("storage", apply);
  window.commonsTheme = {
    choice,
    choose(next) {
      try {
        if (next === "auto") localStorage.removeItem("commons-theme");
        else localStorage.setItem("commons-theme", next);
      } catch {
        root.dataset.bsTheme = next === "dark" ? "dark" : "light";
      }
      apply();
    },
  };
})();
