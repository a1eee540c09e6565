// Keeps the session of somebody who works in an open page, says so when it has ended, and loses nothing that was typed.
(() => {
  "use strict";

  const script = document.currentScript;
  const seenUrl = script?.dataset.seen;
  const signInUrl = script?.dataset.signIn;
  const EVERY_MS = 5 * 60 * 1000;
  let said = Date.now();

  const token = () => document.cookie.match(/(?:^|; )csrftoken=([^;]+)/)?.[1] ?? "";

  const sayEnded = () => {
    const place = document.getElementById("messages");
    if (!place || place.querySelector("[data-ended]")) return;
    const notice = document.createElement("div");
    notice.className = "notice notice-caution";
    notice.dataset.ended = "";
    const words = document.createElement("div");
    words.className = "notice-text";
    const link = document.createElement("a");
    link.href = signInUrl;
    link.target = "_blank";
    link.rel = "noopener";
    link.textContent = "Sign in again in a new tab";
    words.append("Your session has ended. ", link, ", then go on here: what you typed is still in this page.");
    notice.append(words);
    place.append(notice);
  };
  const sayNothing = () => document.querySelector("#messages [data-ended]")?.remove();

  const seen = async () => {
    if (!seenUrl) return;
    said = Date.now();
    const answer = await fetch(seenUrl, { method: "POST", headers: { "X-CSRFToken": token() } }).catch(() => null);
    if (answer?.status === 401) sayEnded();
    if (answer?.ok) sayNothing();
  };
  const active = (event) => {
    if (event.isTrusted && Date.now() - said > EVERY_MS) seen();
  };
  for (const name of ["input", "keydown", "pointerdown"]) document.addEventListener(name, active, { passive: true });
  // Back from the tab in which somebody signed in again.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && document.querySelector("#messages [data-ended]")) seen();
  });

  document.addEventListener("htmx:configRequest", (event) => {
    // What a person started counts as use of the session; what the page asks for by itself does not.
    if (event.detail.triggeringEvent?.isTrusted) event.detail.headers["X-Commons-Active"] = "1";
    if (token()) event.detail.headers["X-CSRFToken"] = token();
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.xhr?.getResponseHeader("X-Commons-Session") === "ended") sayEnded();
  });

  // Signing in elsewhere changed the token that this page was drawn with.
  document.addEventListener(
    "submit",
    (event) => {
      const field = event.target instanceof HTMLFormElement ? event.target.elements.namedItem("csrfmiddlewaretoken") : null;
      if (field instanceof HTMLInputElement && token()) field.value = token();
    },
    { capture: true },
  );
})();
