// The dialog that asks for a key. What is typed goes to the session's storage and the server, nowhere else.

import { onKeyNeeded, storedKey, storeKey } from "./api.js";

/** Prepares the dialog. `onForgotten` is called once a key is not kept any more. */
export function prepareKey(onForgotten) {
  const dialog = document.getElementById("key-dialog");
  const form = document.getElementById("key-form");
  const input = document.getElementById("key");
  const why = document.getElementById("key-why");
  const forget = document.getElementById("forget-key");
  let answer = null;

  const close = (key) => {
    input.value = "";
    dialog.close();
    forget.hidden = key === null && storedKey() === null;
    answer?.(key);
    answer = null;
  };
  onKeyNeeded((wasRefused) => {
    why.textContent = wasRefused
      ? "The server does not take this key. It may be wrong, or have been revoked."
      : "";
    storeKey(null);
    forget.hidden = true;
    dialog.showModal();
    input.focus();
    return new Promise((resolve) => {
      answer = resolve;
    });
  });
  form.addEventListener("submit", (submit) => {
    submit.preventDefault();
    const key = input.value.trim();
    // Headers take no other characters; no key has any.
    if (/^[\x21-\x7e]+$/.test(key)) close(key);
    else why.textContent = "A key has no spaces and no letters with accents.";
  });
  document.getElementById("key-cancel").addEventListener("click", () => close(null));
  dialog.addEventListener("cancel", (cancel) => {
    cancel.preventDefault();
    close(null);
  });
  forget.hidden = storedKey() === null;
  forget.addEventListener("click", () => {
    storeKey(null);
    forget.hidden = true;
    onForgotten();
  });
}
