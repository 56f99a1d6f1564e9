// Pieces that several views have in common: what is said while there is nothing yet, or nothing at all, or
// something went wrong; the rows of events.

import { severity } from "./figures.js";
import { eventLink, userLink } from "./state.js";
import { brief, el, score, short, time } from "./text.js";
import { askAgain, isAborted } from "./api.js";

export function loading(what) {
  return el("p", { class: "message loading", role: "status" }, `Loading ${what} …`);
}

export function empty(text) {
  return el("p", { class: "message" }, text);
}

/** What went wrong, and a way to try again. */
export function failed(error, retry) {
  return el(
    "div",
    { class: "message error", role: "alert" },
    el("p", {}, error instanceof Error ? brief(error.message, 500) : "Something went wrong."),
    retry
      ? el(
          "button",
          { type: "button", click: () => (askAgain(), retry()) },
          error?.status === 401 ? "Enter a key" : "Try again",
        )
      : null,
  );
}

/** Fills a place with what is loaded, and says so while it is, or if it cannot be; then `retry` or the same
    once more is what a button does. */
export async function fill(place, what, signal, load, retry = null) {
  place.setAttribute("aria-busy", "true");
  // What was there stays until there is something better, if it is of the same kind.
  if (!place.hasChildNodes()) place.replaceChildren(loading(what));
  try {
    const nodes = await load();
    if (!signal.aborted) place.replaceChildren(...[nodes].flat(Infinity).filter(Boolean));
  } catch (error) {
    if (signal.aborted || isAborted(error)) return;
    console.info(`streamguard: ${what}: ${error.message}`);
    const again = () => fill(place, what, signal, load, retry);
    place.replaceChildren(
      failed(error, () => {
        place.replaceChildren();
        (retry ?? again)();
      }),
    );
  } finally {
    if (!signal.aborted) place.removeAttribute("aria-busy");
  }
}

/** Fields that may be anything at all, since only their presence was checked. */
export function text(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "string" ? value : (JSON.stringify(value) ?? "");
}

export function kindOf(event) {
  return text(event.type ?? event.event_type);
}

export function placeOf(event) {
  return text(event.geo_location ?? event.metadata?.geo_location);
}

export function reasonsOf(event) {
  const reasons = event.anomaly?.reasons;
  return Array.isArray(reasons) ? reasons.map(text) : [];
}

export function isFailed(event) {
  return (
    event.status === "failed" || event.status === "blocked" || /_(FAILED|DENIED|FAILURE)$/.test(kindOf(event))
  );
}

const COLUMNS = [
  ["when", "Time (UTC)"],
  ["sev", "Severity"],
  ["num", "Score"],
  ["who", "User"],
  ["what", "Type"],
  ["from", "Address"],
  ["where", "Place"],
  ["why", "First reason"],
];

/** A table of events. The roles are said, since a narrow screen shows the rows as blocks. */
export function eventTable(label, without = []) {
  const body = el("tbody", { role: "rowgroup" });
  const names = COLUMNS.filter(([name]) => !without.includes(name));
  const head = names.map(([name, title]) =>
    el("th", { role: "columnheader", scope: "col", class: name }, title),
  );
  const table = el(
    "table",
    { class: "events", role: "table", "aria-label": label },
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, head)),
    body,
  );
  table.addEventListener("click", openRow);
  table.addEventListener("keydown", walkRows);
  return { table, body, without };
}

/** A row of it. */
export function eventRow(state, event, without = []) {
  const reasons = reasonsOf(event);
  const { anomaly } = event;
  const cells = {
    when: el("a", { href: eventLink(state, event), class: "open" }, time(event.timestamp)),
    sev: severity(anomaly?.severity),
    num: anomaly ? score(anomaly.anomaly_score) : "",
    who: el("a", { href: userLink(state, text(event.user)) }, short(text(event.user), 40)),
    what: [
      short(kindOf(event), 40),
      isFailed(event) ? el("span", { class: "tag failed" }, brief(text(event.status), 20) || "failed") : null,
    ],
    from: short(text(event.source_ip), 45),
    where: short(placeOf(event), 40),
    why:
      reasons.length > 0
        ? [
            el("span", { class: "first" }, short(reasons[0], 160)),
            reasons.length > 1
              ? el("span", { class: "more", title: `${reasons.length - 1} more` }, `+${reasons.length - 1}`)
              : null,
          ]
        : "",
  };
  const names = COLUMNS.filter(([name]) => !without.includes(name));
  return el(
    "tr",
    { role: "row" },
    names.map(([name]) => el("td", { role: "cell", class: name }, cells[name])),
  );
}

/** A click anywhere in a row opens it, unless it was meant for something else. */
function openRow(click) {
  if (click.target.closest("a, button") || String(getSelection())) return;
  click.target.closest("tbody tr")?.querySelector("a.open")?.click();
}

/** Up and down go from row to row. */
function walkRows(key) {
  if (key.key !== "ArrowDown" && key.key !== "ArrowUp") return;
  const row = key.target.closest("tbody tr");
  const next = key.key === "ArrowDown" ? row?.nextElementSibling : row?.previousElementSibling;
  const link = next?.querySelector("a.open");
  if (!link) return;
  key.preventDefault();
  link.focus();
}
