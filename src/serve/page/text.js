// Text that somebody else has chosen, made safe to look at: what cannot be seen is shown as a mark, the
// direction of a value ends with it, and what is too long is cut where the reader can ask for the rest.
// Nothing here ever becomes markup: elements are made by name, and text is text.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Attributes that are functions listen; false and null are left out; text stays text. */
export function el(name, attributes = {}, ...children) {
  return build(document.createElement(name), attributes, children);
}

/** The same for pictures. */
export function svg(name, attributes = {}, ...children) {
  return build(document.createElementNS(SVG, name), attributes, children);
}

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    // Properties that CSS computes with. An attribute of style would be refused by the policy.
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

// Controls, formats (directions, zero width, tags), halves of characters, private use, fillers, variants,
// and spaces that are not the usual one. The joiner and the selectors of emoji are marked too: rarely,
// and rightly so in a name.
const UNSEEN =
  /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Co}\u034F\u115F\u1160\u17B4\u17B5\u180B-\u180F\u3164\uFFA0\uFE00-\uFE0F\u{E0100}-\u{E01EF}\u00A0\u1680\u2000-\u200A\u202F\u205F\u3000]|^ +| +$/gu;
// More marks over one letter than any language has would run into the lines around.
const PILED = /(\p{M}{4})\p{M}+/gu;
const CONTROLS =
  "NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US".split(
    " ",
  );
const NAMES = new Map([
  [0x09, "tab"],
  [0x0a, "line feed"],
  [0x0d, "carriage return"],
  [0x1b, "escape"],
  [0x20, "space at the end"],
  [0xa0, "no-break space"],
  [0x200b, "zero width space"],
  [0x200d, "joiner"],
  [0x200e, "left-to-right mark"],
  [0x200f, "right-to-left mark"],
  [0x202a, "left-to-right embedding"],
  [0x202b, "right-to-left embedding"],
  [0x202c, "end of embedding"],
  [0x202d, "left-to-right override"],
  [0x202e, "right-to-left override"],
  [0x2066, "left-to-right isolate"],
  [0x2067, "right-to-left isolate"],
  [0x2068, "isolate"],
  [0x2069, "end of isolate"],
  [0xfeff, "byte order mark"],
]);

/** What stands for a character that cannot be seen. */
function mark(character) {
  const code = character.codePointAt(0);
  if (code === 0x20) return "␣".repeat(character.length);
  if (code < 0x20) return `[${CONTROLS[code]}]`;
  return `[U+${code.toString(16).toUpperCase().padStart(4, "0")}]`;
}

/** Text with marks in place of what cannot be seen, for titles and labels. */
export function plain(text) {
  return String(text).replace(UNSEEN, mark).replace(PILED, "$1…");
}

/** The beginning of a text with marks, for sentences. */
export function brief(text, max = 40) {
  const [start, isCut] = cut(String(text ?? ""), max);
  return plain(start) + (isCut ? "…" : "");
}

/** The same as nodes, in which the marks look different from what was written by somebody. */
function marked(text, hasLines = false) {
  const nodes = [];
  let end = 0;
  const push = (written) => {
    if (written) nodes.push(written.replace(PILED, "$1…"));
  };
  for (const found of text.matchAll(UNSEEN)) {
    // Our own layout.
    if (hasLines && (found[0] === "\n" || /^ +$/.test(found[0]))) continue;
    push(text.slice(end, found.index));
    const code = found[0].codePointAt(0);
    const name = NAMES.get(code) ?? "character that cannot be seen";
    nodes.push(el("span", { class: "mark", title: name }, mark(found[0])));
    end = found.index + found[0].length;
  }
  push(text.slice(end));
  return nodes;
}

/** At most so many characters, and whether that is not all. */
export function cut(text, max) {
  if (text.length <= max) return [text, false];
  // Not through the middle of a character of two halves.
  const code = text.charCodeAt(max - 1);
  return [text.slice(0, code >= 0xd800 && code < 0xdc00 ? max - 1 : max), true];
}

/** A value in a list: cut, without a way to see more, since its row leads there. */
export function short(text, max = 64) {
  const [start, isCut] = cut(String(text ?? ""), max);
  return el("bdi", { class: "value" }, ...marked(start), isCut ? el("span", { class: "cut" }, "…") : null);
}

/** A value where it is looked at: cut, with a button that shows the rest. */
export function value(text, max = 160, hasLines = false) {
  text = String(text ?? "");
  const [start, isCut] = cut(text, max);
  if (!isCut) return el("bdi", { class: "value" }, ...marked(text, hasLines));
  const beginning = () => [...marked(start, hasLines), el("span", { class: "cut" }, "…")];
  const shown = el("bdi", { class: "value" }, beginning());
  const label = `Show all ${number(text.length)} characters`;
  const button = el("button", { type: "button", class: "quiet more-text", "aria-expanded": "false" }, label);
  button.addEventListener("click", () => {
    const isOpen = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!isOpen));
    button.textContent = isOpen ? label : "Show less";
    shown.classList.toggle("long", !isOpen);
    shown.replaceChildren(...(isOpen ? beginning() : marked(text, hasLines)));
  });
  return el("span", { class: "cuttable" }, shown, button);
}

const WHOLE = new Intl.NumberFormat("en");

export function number(n) {
  return Number.isFinite(n) ? WHOLE.format(n) : "–";
}

/** `1 event`, `2 events`. */
export function count(n, one, many = `${one}s`) {
  return `${number(n)} ${n === 1 ? one : many}`;
}

export function percent(share) {
  const value = share * 100;
  if (!Number.isFinite(value)) return "–";
  if (value > 0 && value < 0.01) return "<0.01%";
  return `${value >= 10 || value === 0 ? Math.round(value) : value >= 1 ? value.toFixed(1) : value.toFixed(2)}%`;
}

export function score(value) {
  return Number.isFinite(value) ? value.toFixed(3) : "–";
}

/** `2025-01-17 09:46:39` in UTC. */
export function utc(ms, length = 19) {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return "–";
  // Years have more than four digits from 10000 on, so it is counted from the end.
  const seconds = date.toISOString().slice(0, -5).replace("T", " ");
  return length < 19 ? seconds.slice(0, -3) : seconds;
}

/** A time as an element: UTC, with the local time on demand. */
export function time(ms, length = 19) {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return el("span", {}, "–");
  const local = date.toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
  return el("time", { datetime: date.toISOString(), title: `Local time: ${local}` }, utc(ms, length));
}

const MINUTE = 60_000,
  HOUR = 60 * MINUTE,
  DAY = 24 * HOUR;

/** `3 minutes`, `5 hours`, `12 days`: the one unit that matters. */
export function duration(ms) {
  ms = Math.abs(ms);
  if (ms < 1000) return count(Math.round(ms), "millisecond");
  if (ms < 2 * MINUTE) return count(Math.round(ms / 1000), "second");
  if (ms < 2 * HOUR) return count(Math.round(ms / MINUTE), "minute");
  if (ms < 2 * DAY) return count(Math.round(ms / HOUR), "hour");
  return count(Math.round(ms / DAY), "day");
}
