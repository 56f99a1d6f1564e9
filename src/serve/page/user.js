// One user: what is usual for them, and what they did last.

import { get } from "./api.js";
import { hours, shares, week } from "./figures.js";
import { empty, eventRow, eventTable, fill } from "./parts.js";
import { link, NOTHING_OPEN } from "./state.js";
import { brief, count, el, number, percent, time, value } from "./text.js";

const ROWS = 20;

/** Shows the user that the state names. */
export async function showUser(place, state, signal) {
  const { user } = state;
  const answer = await get(["users", user], {}, signal);
  const profile = answer.items?.[0] ?? answer;
  const facts = [
    ["Events", number(profile.events)],
    ["Failed or blocked", `${number(profile.failed)} (${percent(profile.failure_share)})`],
    ["First seen (UTC)", time(Date.parse(profile.first), 16)],
    ["Last seen (UTC)", time(Date.parse(profile.last), 16)],
    [
      "Mean threat score",
      Number.isFinite(profile.avg_threat_score) ? profile.avg_threat_score.toFixed(2) : "–",
    ],
  ];
  const source =
    profile.source === "baseline" ? "as the detector has learned it" : "counted from the stored events";
  const anomalies = el("div"),
    events = el("div");
  place.replaceChildren(
    el(
      "header",
      { class: "card lead" },
      el("p", { class: "back" }, el("a", { href: link(state, NOTHING_OPEN) }, "← Overview")),
      el("h1", { tabindex: -1 }, el("span", { class: "kind" }, "User "), value(user, 120)),
      el(
        "dl",
        { class: "facts" },
        facts.map(([name, what]) => el("div", {}, el("dt", {}, name), el("dd", {}, what))),
      ),
    ),
    el(
      "section",
      { class: "card", "aria-label": "What is usual" },
      el("div", { class: "card-head" }, el("h2", {}, "What is usual"), el("p", { class: "note" }, source)),
      el(
        "div",
        { class: "pictures rest profile" },
        hours(profile),
        profile.week?.events > 0 ? week(profile.week) : null,
        shares("Types", profile.types),
        shares("Addresses", profile.addresses),
        shares("Places", profile.locations),
      ),
    ),
    section("Latest anomalies", anomalies),
    section("Latest events", events),
  );
  paged(
    anomalies,
    "anomalies",
    state,
    signal,
    (cursor) => get(["anomalies"], { what: "events", user, limit: ROWS, cursor }, signal),
    ["who"],
    "This user has no anomalies.",
  );
  paged(
    events,
    "events",
    state,
    signal,
    (cursor) => get(["events"], { user, limit: ROWS, cursor }, signal),
    ["who", "num", "why"],
    "This user has no events.",
  );
  return `user ${brief(user, 64)}`;
}

function section(title, body) {
  return el(
    "section",
    { class: "card", "aria-label": title },
    el("div", { class: "card-head" }, el("h2", {}, title)),
    body,
  );
}

/** Rows of a list, and more of them on demand. */
export function paged(place, what, state, signal, ask, without, nothing) {
  return fill(place, what, signal, async () => {
    const { table, body } = eventTable(what, without);
    const more = el("button", { type: "button", class: "more" }, "Show more");
    const note = el("p", { class: "note", role: "status" });
    let cursor = null,
      n = 0;
    const add = async () => {
      const answer = await ask(cursor);
      const rows = answer.items.map((event) => eventRow(state, event, without));
      body.append(...rows);
      n += rows.length;
      cursor = answer.next;
      more.hidden = !cursor;
      note.textContent = cursor
        ? `The first ${number(n)} are shown.`
        : n > ROWS
          ? `${count(n, "row")}, that is all.`
          : "";
      return rows[0];
    };
    more.addEventListener("click", async () => {
      more.disabled = true;
      try {
        const first = await add();
        // Whoever came by keyboard goes on where the new rows begin.
        if (document.activeElement === more || document.activeElement === document.body)
          first?.querySelector("a")?.focus({ preventScroll: true });
      } catch (error) {
        if (!signal.aborted) note.textContent = error.message;
      } finally {
        more.disabled = false;
      }
    });
    await add();
    if (n === 0) return empty(nothing);
    return [table, el("div", { class: "list-foot" }, more, note)];
  });
}
