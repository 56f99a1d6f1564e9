// The event as it is stored. JSON.parse would round its large numbers and drop what is there twice, so its
// text is laid out as it is.

import { el, number, value } from "./text.js";

// A string, a sign, or a number or word. Strings first: signs within them are none.
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;
const CHARS_MAX = 200_000;

/** The texts of the objects in the list `items` of an answer. */
export function itemTexts(answer) {
  const texts = [];
  let depth = 0,
    start = -1,
    isKey = false,
    isItems = false;
  for (const { 0: token, index } of answer.matchAll(TOKEN)) {
    if (token === "{" || token === "[") {
      depth += 1;
      if (depth === 3 && isItems && token === "{") start = index;
      if (depth === 2 && isKey) isItems = token === "[";
    } else if (token === "}" || token === "]") {
      if (depth === 3 && start >= 0) texts.push(answer.slice(start, index + 1));
      if (depth === 3) start = -1;
      if (depth === 2) isItems = false;
      depth -= 1;
    } else if (depth === 1 && token !== ":" && token !== ",") {
      isKey = token === '"items"';
    }
  }
  return texts;
}

/** What an answer says, with numbers that a browser would round as they are written, if it can tell. */
export function exact(json) {
  const isRounded = (number) =>
    typeof number === "number" &&
    !Number.isSafeInteger(number) &&
    (Number.isInteger(number) || !Number.isFinite(number));
  return JSON.parse(json, (_, found, context) => (isRounded(found) ? (context?.source ?? found) : found));
}

/** JSON with a line for each member, every token as it was. */
export function pretty(json) {
  let out = "",
    depth = 0,
    before = "";
  const line = () => `\n${"  ".repeat(depth)}`;
  for (const [token] of json.matchAll(TOKEN)) {
    if (token === "}" || token === "]") {
      depth -= 1;
      if (before !== "{" && before !== "[") out += line();
    } else if (before === "{" || before === "[" || before === ",") {
      out += line();
    }
    out += token === ":" ? ": " : token;
    if (token === "{" || token === "[") depth += 1;
    before = token;
  }
  return out;
}

/** The event as text that can be taken along. */
export function rawEvent(json) {
  const laid = pretty(json);
  const status = el("span", { class: "note", role: "status", "aria-live": "polite" });
  const code = el(
    "pre",
    { class: "raw", tabindex: 0, role: "region", "aria-label": "The event as JSON" },
    value(laid, CHARS_MAX, true),
  );
  const copy = el("button", { type: "button", click: () => copyText(laid, code, status) }, "Copy");
  return el(
    "details",
    { class: "raw-event" },
    el("summary", {}, `The event as it is stored (JSON, ${number(json.length)} characters)`),
    el("p", { class: "buttons" }, copy, status),
    code,
  );
}

async function copyText(text, shown, status) {
  try {
    await navigator.clipboard.writeText(text);
    status.textContent = "Copied.";
  } catch {
    // Browsers give the clipboard only to pages of HTTPS and of this machine.
    getSelection().selectAllChildren(shown);
    status.textContent = "Selected: copy it with the keyboard. What cannot be seen is copied as its mark.";
  }
}
