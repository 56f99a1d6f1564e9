// One event: why it was raised, what is usual for its user beside each reason, what it belongs to, what a
// model and what people say of it, what is like it, and the event itself.

import { get, getText } from "./api.js";
import { severity, strip } from "./figures.js";
import { empty, eventRow, eventTable, fill, isFailed, kindOf, placeOf, text } from "./parts.js";
import { exact, itemTexts, rawEvent } from "./raw.js";
import { endOf, eventLink, link, MS_MAX, NOTHING_OPEN, SEVERITIES, userLink } from "./state.js";
import { brief, count, duration, el, number, percent, score, short, time, value } from "./text.js";
import { why } from "./why.js";

const HOUR = 3_600_000,
  DAY = 24 * HOUR;
const AROUND_MS = 2 * HOUR;
const SIMILAR = 8;

/** Shows the event that the state names. */
export async function showEvent(place, state, signal) {
  const answer = await getText(["events", state.event], {}, signal);
  const events = exact(answer).items;
  const texts = itemTexts(answer);
  // An id can have been used at several times.
  const at = events.findIndex((event) => event.timestamp === state.at);
  const index = at >= 0 ? at : events.length - 1;
  const event = events[index];
  const section = (title, what, load) => {
    const body = el("div");
    fill(body, what, signal, load);
    return card(title, body);
  };
  const habits = el("div", { class: "habits" });
  const user = text(event.user);
  place.replaceChildren(
    head(state, event),
    events.length > 1 ? others(state, events, index) : "",
    card(event.anomaly ? "Why it was raised" : "What is usual for this user", habits),
    section("Around it", "what else this user did", () => around(state, event, signal)),
    ...(event.anomaly?.incident
      ? [section("Incident", "the incident", () => incident(state, event, signal))]
      : []),
    ...(event.analysis ? [analysis(event)] : []),
    ...(event.feedback ? [feedback(event.feedback)] : []),
    section("Seen before", "events like it", () => similar(state, event, signal)),
    card("The event", fields(event), rawEvent(texts[index] ?? JSON.stringify(event))),
  );
  fill(habits, "what is usual for this user", signal, () => why(event, signal));
  return `${event.anomaly ? `${brief(text(event.anomaly.severity))} anomaly` : "event"} of ${brief(user, 64)}`;
}

function card(title, ...children) {
  return el(
    "section",
    { class: "card", "aria-label": title },
    el("div", { class: "card-head" }, el("h2", {}, title)),
    children,
  );
}

function head(state, event) {
  const { anomaly } = event;
  const tags = [
    text(event.status) &&
      el("span", { class: isFailed(event) ? "tag failed" : "tag" }, value(text(event.status), 24)),
    anomaly?.archetype && el("span", { class: "tag" }, "looks like ", value(text(anomaly.archetype), 48)),
    anomaly?.incident &&
      el(
        "span",
        { class: "tag" },
        `${brief(text(anomaly.incident.kind), 20)} incident, ${count(anomaly.incident.alerts, "alert")} so far`,
      ),
    event.feedback && el("span", { class: "tag" }, "judged ", value(text(event.feedback.verdict), 24)),
  ];
  const facts = [
    ["User", el("a", { href: userLink(state, text(event.user)) }, short(text(event.user), 80))],
    ["Time (UTC)", time(event.timestamp)],
    ["Address", value(text(event.source_ip) || "–", 80)],
    ["Place", value(placeOf(event) || "–", 80)],
    ["Event", value(text(event.event_id), 80)],
  ];
  return el(
    "header",
    { class: "card lead" },
    el(
      "nav",
      { class: "back", "aria-label": "Where to go from here" },
      el("a", { href: link(state, NOTHING_OPEN) }, "← Overview"),
      neighbours(state, event),
    ),
    el(
      "h1",
      { tabindex: -1 },
      el("span", { class: "hidden" }, anomaly ? "Anomaly: " : "Event: "),
      value(kindOf(event), 120),
    ),
    el(
      "p",
      { class: "lead-line" },
      severity(anomaly?.severity),
      anomaly
        ? el("span", { class: "big-score" }, "score ", el("strong", {}, score(anomaly.anomaly_score)))
        : null,
      tags.filter(Boolean),
    ),
    el(
      "dl",
      { class: "facts" },
      facts.map(([name, what]) => el("div", {}, el("dt", {}, name), el("dd", {}, what))),
    ),
  );
}

/** The anomalies before and after it in the list that it was opened from. */
function neighbours(state, event) {
  const links = [...document.querySelectorAll("#list-body a.open")].map((each) => each.getAttribute("href"));
  const index = links.indexOf(eventLink(state, event));
  if (index < 0) return null;
  return el(
    "span",
    {},
    links[index - 1] ? el("a", { href: links[index - 1] }, "‹ Previous") : null,
    el("span", { class: "note" }, `${number(index + 1)} of the ${number(links.length)} listed`),
    links[index + 1] ? el("a", { href: links[index + 1] }, "Next ›") : null,
  );
}

function others(state, events, index) {
  const links = events.map((event, i) =>
    el(
      "a",
      { href: eventLink(state, event), "aria-current": i === index ? "true" : null },
      time(event.timestamp),
    ),
  );
  return el(
    "nav",
    { class: "card others", "aria-label": "Events with this id" },
    `${count(events.length, "event")} have this id: `,
    links,
  );
}

/** What the user did within some hours. */
async function around(state, event, signal) {
  const since = Math.max(0, event.timestamp - AROUND_MS),
    until = Math.min(MS_MAX, event.timestamp + AROUND_MS);
  const ask = (range) => get(["events"], { user: event.user, limit: 100, ...range }, signal);
  const [before, after] = await Promise.all([
    ask({ since, until: event.timestamp, order: "newest" }),
    event.timestamp < until
      ? ask({ since: event.timestamp + 1, until, order: "oldest" })
      : { items: [], next: null },
  ]);
  const events = [...before.items.toReversed(), ...after.items];
  const isHere = (other) => other.event_id === event.event_id && other.timestamp === event.timestamp;
  const n = events.length;
  const nFailed = events.filter(isFailed).length;
  const nAnomalies = events.filter((other) => other.anomaly).length;
  const hasMore = before.next || after.next;
  const words = [
    `${hasMore ? "More than " : ""}${count(n, "event")} of this user within two hours before and after:`,
    `${number(nFailed)} failed or blocked, ${count(nAnomalies, "anomaly", "anomalies")}.`,
  ].join(" ");
  const { table, body } = eventTable("Events around it", ["who", "num"]);
  body.append(
    ...events.map((other) => {
      const row = eventRow(state, other, ["who", "num"]);
      if (isHere(other)) {
        row.classList.add("here");
        row.setAttribute("aria-current", "true");
      }
      return row;
    }),
  );
  const rows =
    n > 1
      ? el(
          "details",
          {},
          el("summary", {}, "These events"),
          el(
            "div",
            { class: "scroll", tabindex: 0, role: "region", "aria-label": "Events around it" },
            table,
          ),
        )
      : null;
  // Closer, if all of it is close together.
  const times = events.map((other) => other.timestamp);
  const room = Math.max(60_000, (Math.max(...times) - Math.min(...times)) * 0.05);
  const [first, last] = [
    Math.max(since, Math.min(...times) - room),
    Math.min(until, Math.max(...times) + room),
  ];
  return [strip(events, first, last, isHere, words), el("p", { class: "said" }, words), rows];
}

/** The incident that it is part of. */
async function incident(state, event, signal) {
  const mine = event.anomaly.incident;
  const answer = await get(
    ["incidents"],
    {
      since: Math.max(0, event.timestamp - DAY),
      until: Math.min(MS_MAX, event.timestamp + DAY),
      limit: 1000,
      user: mine.kind === "user" ? event.user : null,
    },
    signal,
  );
  const found = answer.items.find((each) => each.incident === mine.id);
  if (!found)
    return empty(
      `It belongs to an incident of ${count(mine.alerts, "alert")} that is not in the database any more.`,
    );
  const since = Date.parse(found.first),
    until = endOf(found.last);
  const members = await get(
    ["anomalies"],
    {
      what: "events",
      since,
      until,
      limit: 200,
      user: mine.kind === "user" ? event.user : null,
      order: "oldest",
    },
    signal,
  );
  const events = members.items.filter((other) => other.anomaly?.incident?.id === mine.id);
  const isHere = (other) => other.event_id === event.event_id && other.timestamp === event.timestamp;
  const kinds = { user: "one user", address: "one address", campaign: "a campaign against several users" };
  const states = { opened: "opened it", worse: "made it worse" };
  const looks = found.archetype ? `, and looks like ${brief(text(found.archetype), 64)}` : "";
  const words = [
    `${count(found.alerts, "anomaly", "anomalies")} of ${count(found.users, "user")} in ${duration(until - since)},`,
    `${kinds[found.kind] ?? "of one kind"}; the worst is ${brief(found.severity)}${looks}.`,
    `This one ${states[mine.state] ?? "is more of the same"}.`,
  ].join(" ");
  const { table, body } = eventTable(
    "Anomalies of the incident",
    found.users > 1 ? ["where"] : ["who", "where"],
  );
  body.append(
    ...events.map((other) => {
      const row = eventRow(state, other, found.users > 1 ? ["where"] : ["who", "where"]);
      if (isHere(other)) row.classList.add("here");
      return row;
    }),
  );
  return [
    el("p", { class: "lead-text" }, words),
    until > since ? strip(events, since, until, isHere, words) : null,
    events.length > 0
      ? el(
          "div",
          { class: "scroll", tabindex: 0, role: "region", "aria-label": "Anomalies of the incident" },
          table,
        )
      : null,
    members.next ? el("p", { class: "note" }, "The first of them are shown.") : null,
  ];
}

const OUTCOMES = {
  refused: "The model did not want to answer. That says nothing about the event.",
  truncated: "The model's answer was cut off.",
  invalid: "The model has answered with something that is no answer.",
  timeout: "The model has not answered in time.",
  unavailable: "The model could not be reached.",
  over_budget: "The model was not asked: the budget was used up.",
  breaker_open: "The model was not asked: it had failed too often.",
};

/** What a model says, as words of a model. */
function analysis(event) {
  const said = event.analysis;
  const has = said.outcome === "ok" || said.outcome === "cached";
  const indicators = Array.isArray(said.indicators) ? said.indicators : [];
  const raised = SEVERITIES.includes(said.raised_from)
    ? el(
        "p",
        { class: "note" },
        `It was ${said.raised_from} before. A model can only make it more severe, never less.`,
      )
    : null;
  const hostile =
    Array.isArray(said.injection) && said.injection.length > 0
      ? el(
          "p",
          { class: "warning" },
          el("strong", {}, "Careful: "),
          "something in this event talks to the model (",
          said.injection.map((field, i) => [i > 0 ? ", " : "", value(text(field), 80)]),
          ").",
        )
      : null;
  const by = [text(said.model), text(said.provider)].filter(Boolean).join(", ");
  return el(
    "section",
    { class: "card model", "aria-label": "What a language model says" },
    el(
      "div",
      { class: "card-head" },
      el("h2", {}, "What a language model says"),
      el(
        "p",
        { class: "note" },
        "Its words, not a finding of StreamGuard",
        by ? [": ", value(by, 80)] : null,
      ),
    ),
    hostile,
    has
      ? [
          el(
            "p",
            { class: "lead-line" },
            severity(text(said.severity)),
            Number.isFinite(said.confidence)
              ? el("span", {}, `${percent(said.confidence)} sure, it says`)
              : null,
          ),
          el("blockquote", {}, el("p", {}, value(text(said.summary), 800))),
          indicators.length > 0
            ? el(
                "dl",
                { class: "indicators" },
                indicators.map((each) =>
                  el(
                    "div",
                    {},
                    el("dt", {}, value(text(each.field), 80)),
                    el("dd", {}, value(text(each.observation), 400)),
                  ),
                ),
              )
            : null,
          text(said.recommendation)
            ? el(
                "p",
                { class: "advice" },
                el("strong", {}, "It recommends: "),
                value(text(said.recommendation), 800),
              )
            : null,
          said.outcome === "cached"
            ? el(
                "p",
                { class: "note" },
                "It was asked about an event like this one: ",
                value(text(said.cached_from), 80),
              )
            : null,
        ]
      : empty(OUTCOMES[said.outcome] ?? "There is no answer."),
    raised,
  );
}

/** What people have found. */
function feedback(given) {
  return card(
    "Verdict",
    el(
      "p",
      { class: "lead-text" },
      el("strong", { class: given.verdict === "malicious" ? "bad" : "good" }, value(text(given.verdict), 24)),
      ", says ",
      value(text(given.by), 80),
      " at ",
      time(given.given),
    ),
    text(given.note) ? el("blockquote", {}, el("p", {}, value(text(given.note), 600))) : null,
  );
}

/** Events like it. */
async function similar(state, event, signal) {
  const { items } = await get(["similar"], { id: event.event_id, limit: SIMILAR }, signal);
  if (items.length === 0)
    return empty(
      "There is nothing like it. Events can be compared once they have vectors: sg-run --embed, or sg-embed.",
    );
  return similarTable(state, items, await verdicts(signal));
}

/** What people have found of events, which lists of events do not say. Without it there is still the list. */
async function verdicts(signal) {
  const given = new Map();
  try {
    const { items } = await get(["feedback"], { limit: 1000 }, signal);
    for (const each of items) given.set(`${each.timestamp} ${each.event_id}`, text(each.verdict));
  } catch (error) {
    if (signal.aborted) throw error;
  }
  return given;
}

/** Events with how alike they are. */
export function similarTable(state, items, given = new Map()) {
  const { table, body } = eventTable("Events like it, the most alike first", ["num"]);
  body.append(
    ...items.map(({ score: alike, event }) => {
      const row = eventRow(state, event, ["num"]);
      const verdict = given.get(`${event.timestamp} ${event.event_id}`);
      const cell = row.querySelector(".when");
      cell.append(
        el(
          "span",
          { class: "alike", title: `alike: ${score(alike)} of 1`, "--share": Math.max(0, alike) },
          percent(Math.max(0, alike)),
        ),
      );
      if (verdict) cell.append(el("span", { class: "tag" }, value(verdict, 24)));
      return row;
    }),
  );
  table.querySelector("th.when").append(el("span", { class: "alike-head" }, "Alike"));
  return table;
}

/** The event's own fields, as far as they are known. */
function fields(event) {
  const metadata =
    event.metadata !== null && typeof event.metadata === "object" ? Object.entries(event.metadata) : [];
  const own = [
    ["threat_score", event.threat_score],
    ...metadata.slice(0, 40).map(([name, what]) => [`metadata.${name}`, what]),
  ].filter(([, what]) => what !== undefined && what !== null);
  if (own.length === 0) return null;
  return el(
    "dl",
    { class: "indicators" },
    own.map(([name, what]) =>
      el("div", {}, el("dt", {}, value(name, 60)), el("dd", {}, value(text(what), 300))),
    ),
  );
}
