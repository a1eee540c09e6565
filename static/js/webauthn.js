// Security keys and passkeys: hands the portal's challenge to the browser and sends back what the key answered.
(() => {
  "use strict";

  const bytes = (text) => {
    const plain = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    return Uint8Array.from(plain, (letter) => letter.charCodeAt(0));
  };
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  const withBytes = (keys) => (keys ?? []).map((key) => ({ ...key, id: bytes(key.id) }));

  const create = async (options) => {
    const publicKey = {
      ...options,
      challenge: bytes(options.challenge),
      user: { ...options.user, id: bytes(options.user.id) },
      excludeCredentials: withBytes(options.excludeCredentials),
    };
    const made = await navigator.credentials.create({ publicKey });
    return {
      id: made.id,
      rawId: text(made.rawId),
      type: made.type,
      response: {
        clientDataJSON: text(made.response.clientDataJSON),
        attestationObject: text(made.response.attestationObject),
      },
      clientExtensionResults: {},
    };
  };

  const get = async (options) => {
    const publicKey = {
      ...options,
      challenge: bytes(options.challenge),
      allowCredentials: withBytes(options.allowCredentials),
    };
    const used = await navigator.credentials.get({ publicKey });
    return {
      id: used.id,
      rawId: text(used.rawId),
      type: used.type,
      response: {
        clientDataJSON: text(used.response.clientDataJSON),
        authenticatorData: text(used.response.authenticatorData),
        signature: text(used.response.signature),
        userHandle: used.response.userHandle ? text(used.response.userHandle) : null,
      },
      clientExtensionResults: {},
    };
  };

  const reasons = {
    NotAllowedError: "Nothing came from the key, or it took too long. Try again.",
    InvalidStateError: "This key is registered already.",
    SecurityError: "Keys work at the portal's own address only. Open it there and try again.",
  };

  const wire = (place) => {
    const button = place.querySelector("[data-key-button]");
    const status = place.querySelector("[data-key-status]");
    const answer = document.getElementById(place.dataset.keyAnswer);
    const data = document.getElementById(place.dataset.keyOptions);
    if (!button || !answer || !data || !window.PublicKeyCredential) return;
    place.hidden = false;
    button.addEventListener("click", async () => {
      button.disabled = true;
      status.textContent = "Follow what your browser says.";
      try {
        const options = JSON.parse(data.textContent).publicKey;
        const given = place.dataset.key === "create" ? await create(options) : await get(options);
        answer.value = JSON.stringify(given);
        status.textContent = "";
        answer.form.requestSubmit();
      } catch (error) {
        status.textContent = reasons[error.name] ?? "The browser could not use the key. Try again.";
        button.disabled = false;
      }
    });
  };

  for (const place of document.querySelectorAll("[data-key]")) wire(place);
})();
