// Sends files in pieces, so that a broken line costs one piece and not the file. Without it the form sends them whole.
(() => {
  "use strict";

  const RETRIES = 5;
  const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

  const send = async (method, url, token, body, type) => {
    const response = await fetch(url, {
      method, body, credentials: "same-origin",
      headers: { "X-CSRFToken": token, "Content-Type": type, Accept: "application/json" },
    });
    const answer = await response.json().catch(() => ({}));
    if (response.ok) return answer;
    const told = Object.values(answer.errors ?? {}).flat().join(" ");
    const error = new Error(told || answer.detail || answer.title || `HTTP ${response.status}`);
    error.status = response.status;
    error.current = answer.current ?? {};
    throw error;
  };

  const one = async (file, path, place, token, show) => {
    const upload = await send("POST", place.dataset.begin, token, JSON.stringify({ path, size: file.size }), "application/json");
    const size = Number(place.dataset.piece);
    let at = upload.received;
    let failures = 0;
    while (at < file.size) {
      try {
        const piece = file.slice(at, at + size);
        const answer = await send("PUT", `${upload.url}?offset=${at}`, token, piece, "application/octet-stream");
        at = answer.received;
        failures = 0;
        show(at);
      } catch (error) {
        if (error.status === 409 && Number.isInteger(error.current.received)) {
          at = error.current.received;
        } else if (error.status && error.status < 500 && error.status !== 429) {
          throw error;
        }
        failures += 1;
        if (failures > RETRIES) throw error;
        await wait(1000 * 2 ** failures);
      }
    }
    await send("POST", `${upload.url}/finish`, token, "{}", "application/json");
  };

  const line = (list, name, size) => {
    const item = document.createElement("li");
    const label = document.createElement("span");
    label.textContent = name;
    const bar = document.createElement("progress");
    bar.className = "meter meter-accent";
    bar.max = size || 1;
    bar.value = 0;
    bar.setAttribute("aria-label", name);
    const told = document.createElement("p");
    item.append(label, bar, told);
    list.append(item);
    return { show: (at) => { bar.value = at; }, say: (text) => { told.textContent = text; } };
  };

  const run = async (form, place) => {
    const chosen = [...(document.querySelector(place.dataset.files)?.files ?? [])];
    const folder = (document.querySelector(place.dataset.folder)?.value ?? "").replace(/^[/ ]+|[/ ]+$/g, "");
    const token = form.querySelector("[name=csrfmiddlewaretoken]")?.value ?? "";
    const status = place.querySelector("[data-uploads-status]");
    const list = place.querySelector("[data-uploads-list]");
    list.replaceChildren();
    let refused = 0;
    for (const file of chosen) {
      const path = folder ? `${folder}/${file.name}` : file.name;
      const shown = line(list, path, file.size);
      status.textContent = `Sending ${path}`;
      try {
        await one(file, path, place, token, shown.show);
        shown.say("Taken and hashed.");
      } catch (error) {
        refused += 1;
        shown.say(error.message);
      }
    }
    if (refused) {
      status.textContent = `${refused} of ${chosen.length} files were not taken.`;
    } else {
      window.location.assign(place.dataset.done);
    }
  };

  document.addEventListener("DOMContentLoaded", () => {
    for (const place of document.querySelectorAll("[data-uploads]")) {
      const form = place.closest("form");
      const files = document.querySelector(place.dataset.files);
      if (!form || !files || !window.fetch) continue;
      form.addEventListener("submit", (event) => {
        if (!files.files?.length) return;
        event.preventDefault();
        const button = form.querySelector("[type=submit]");
        button?.setAttribute("disabled", "");
        run(form, place).finally(() => button?.removeAttribute("disabled"));
      });
    }
  });
})();
