// Keeps what was typed in a form that came back unsent, because the session or the proof of who one is had run out, and
// gives it back afterwards. It stays in this tab, for half an hour, for the same person; secrets and files are never kept.
(() => {
  "use strict";

  const KEY = "commons-kept";
  const KEEP_MS = 30 * 60 * 1000;
  const SECRET = new Set(["off", "current-password", "new-password", "one-time-code"]);
  const person = document.currentScript?.dataset.person ?? "";
  const asksWho = document.querySelector("[data-asks-who]") !== null;

  const read = () => {
    try {
      const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
      return kept && Date.now() - kept.at < KEEP_MS ? kept : null;
    } catch { return null; }
  };
  const write = (kept) => {
    // A closed or full storage: the form is sent as ever, only without this net.
    try { kept ? sessionStorage.setItem(KEY, JSON.stringify(kept)) : sessionStorage.removeItem(KEY); } catch { /* as said */ }
  };

  const typed = (form) => [...form.elements].filter((field) =>
    field.name && "value" in field && !field.closest("[data-not-kept]") &&
    !["hidden", "password", "file", "submit", "button", "reset", "fieldset", "output"].includes(field.type) &&
    !SECRET.has(field.autocomplete));
  const ownForms = () => [...document.querySelectorAll("main form")].filter((form) => form.method === "post");
  const value = (field) => {
    if (field.type === "checkbox" || field.type === "radio") return field.checked;
    return field instanceof HTMLSelectElement ? [...field.selectedOptions].map((option) => option.value) : field.value;
  };
  const same = (field, kept) => field.name === kept.name && field.type === kept.type &&
    (kept.type !== "radio" && kept.type !== "checkbox" || field.value === kept.of);

  const put = (field, kept) => {
    if (field.type === "checkbox" || field.type === "radio") field.checked = kept.value;
    else if (field instanceof HTMLSelectElement) {
      for (const option of field.options) option.selected = kept.value.includes(option.value);
    } else field.value = kept.value;
    for (const name of ["input", "change"]) field.dispatchEvent(new Event(name, { bubbles: true }));
  };
  const say = (...words) => {
    const place = document.getElementById("messages");
    if (!place) return;
    const notice = document.createElement("div");
    notice.className = "notice notice-info";
    notice.dataset.keptNotice = "";
    const text = document.createElement("div");
    text.className = "notice-text";
    text.append(...words);
    notice.append(text);
    place.append(notice);
  };

  const giveBack = (kept) => {
    const form = ownForms().find((one) => one.getAttribute("action") === kept.action && typed(one).length);
    if (!form) return;
    const left = typed(form);
    for (const one of kept.fields) {
      const index = left.findIndex((field) => same(field, one));
      if (index >= 0) put(left.splice(index, 1)[0], one);
    }
    say("What you had typed is back in the form. Nothing was sent: check it and send it again. Secrets and files have to be given anew.");
  };

  const begin = () => {
    const kept = read();
    if (!kept) return write(null);
    if (asksWho) return write({ ...kept, away: true });
    // Taken, refused with a message of its own, or somebody else's.
    if (!kept.away || kept.person !== person) return write(null);
    if (location.pathname + location.search === kept.path) {
      write(null);
      return giveBack(kept);
    }
    if (kept.offered) return write(null);
    write({ ...kept, offered: true });
    const link = document.createElement("a");
    link.href = kept.path;
    link.textContent = "Go back to it";
    say("What you had typed before is kept for half an hour. ", link, ".");
  };

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (asksWho || !(form instanceof HTMLFormElement) || !ownForms().includes(form)) return;
    const fields = typed(form).map((field) => ({ name: field.name, type: field.type, of: field.value, value: value(field) }));
    if (fields.length) {
      write({ at: Date.now(), person, path: location.pathname + location.search, action: form.getAttribute("action"), fields });
    }
  });
  // After htmx is ready: what is put back is estimated as if it were typed.
  document.addEventListener("DOMContentLoaded", begin);
})();
