// Small behaviour of the shell: theme switch, messages, tooltips, focus after a refusal. Pages work without it.
(() => {
  "use strict";

  const showThemeChoice = () => {
    const chosen = window.commonsTheme.choice();
    for (const button of document.querySelectorAll("[data-theme-choice]")) {
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === chosen));
    }
  };

  const bootstrapOf = () => window.bootstrap ?? window.tabler?.bootstrap;

  const wire = (scope) => {
    const bootstrap = bootstrapOf();
    if (!bootstrap) return;
    for (const element of scope.querySelectorAll('[data-bs-toggle="tooltip"]')) {
      bootstrap.Tooltip.getOrCreateInstance(element, { trigger: "hover focus", container: "body" });
    }
  };

  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    const theme = target?.closest("[data-theme-choice]");
    if (theme) {
      window.commonsTheme.choose(theme.dataset.themeChoice);
      showThemeChoice();
    }
    const copy = target?.closest("[data-copy]");
    if (copy) {
      const text = document.querySelector(copy.dataset.copy)?.textContent ?? "";
      const label = copy.querySelector("[data-copy-label]") ?? copy;
      navigator.clipboard?.writeText(text).then(() => {
        label.textContent = "Copied";
      });
    }
    target?.closest("[data-notice-close]")?.closest("[data-notice]")?.remove();
    for (const open of document.querySelectorAll("details[data-confirm][open]")) {
      if (!open.contains(target)) open.open = false;
    }
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const open of document.querySelectorAll("details[data-confirm][open]")) {
      open.open = false;
      open.querySelector("summary")?.focus();
    }
  });

  // A form sent twice is an action run twice: the second click does nothing while the first is under way.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!(form instanceof HTMLFormElement) || form.method !== "post" || event.defaultPrevented) return;
    if (form.dataset.sending) {
      event.preventDefault();
      return;
    }
    form.dataset.sending = "1";
    form.setAttribute("aria-busy", "true");
  });
  window.addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sending]")) {
      delete form.dataset.sending;
      form.removeAttribute("aria-busy");
    }
  });

  document.addEventListener("DOMContentLoaded", () => {
    showThemeChoice();
    wire(document);
    document.querySelector("main:not(:has([data-sample])) [data-first-error]")?.focus();
    if (!document.querySelector("[data-chart] [data-chart-area]")) document.body.dataset.ready = "1";
  });
  document.addEventListener("htmx:load", (event) => wire(event.target));
  // Live figures are asked for only while somebody looks; coming back to the page asks at once.
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (document.hidden && event.target instanceof Element && event.target.matches("[data-live]")) event.preventDefault();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    for (const element of document.querySelectorAll("[data-live]")) window.htmx?.trigger(element, "live");
  });
  document.addEventListener("htmx:sendError", () => {
    const place = document.getElementById("messages");
    if (!place || place.querySelector("[data-offline]")) return;
    const notice = document.createElement("div");
    notice.className = "notice notice-caution";
    notice.dataset.notice = "";
    notice.dataset.offline = "";
    notice.textContent = "The portal does not answer. What you see may be out of date; reload in a moment.";
    place.append(notice);
  });
})();
