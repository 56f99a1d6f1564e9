// Pictures of what is usual, with what was unusual marked. Each says in words what it shows, and lengths
// are set as properties, since the policy of the page takes no styles from markup.

import { brief, count, duration, el, number, percent, short, svg, time, utc } from "./text.js";
import { SEVERITIES } from "./state.js";

/** A severity as a word and as a number of bars, so that nobody has to tell colours apart. */
export function severity(name) {
  const level = SEVERITIES.indexOf(name) + 1;
  if (level === 0) return el("span", { class: "severity none" }, "usual");
  const bars = SEVERITIES.map((_, i) =>
    svg("rect", { x: i * 4, y: 9 - i * 3, width: 3, height: 3 + i * 3, class: i < level ? "on" : "off" }),
  );
  const picture = svg("svg", { viewBox: "0 0 15 12", width: 15, height: 12, "aria-hidden": "true" }, bars);
  return el("span", { class: `severity ${name}` }, picture, el("span", {}, name));
}

/** How many of each severity, as one bar. `most` is the length of the longest one. */
export function severityBar(counts, most) {
  const parts = SEVERITIES.toReversed().filter((name) => counts[name] > 0);
  return el(
    "span",
    { class: "stack", "aria-hidden": "true" },
    parts.map((name) => el("span", { class: name, "--share": counts[name] / Math.max(most, 1) })),
  );
}

/** `2 critical, 5 low`. */
export function severityWords(counts) {
  const parts = SEVERITIES.toReversed().filter((name) => counts[name] > 0);
  return parts.map((name) => `${number(counts[name])} ${name}`).join(", ") || "none";
}

/** Bars in a row, one of them marked. `ends` are what stands under them. */
export function bars(title, about, values, at, titles, ends, said) {
  const most = Math.max(...values, Number.MIN_VALUE);
  return el(
    "figure",
    { class: "figure hours" },
    el("figcaption", {}, el("strong", {}, title), about),
    el(
      "div",
      { class: "bars", role: "img", "aria-label": `${title}. ${said}` },
      values.map((each, i) =>
        el("span", { class: i === at ? "bar here" : "bar", "--share": each / most, title: titles[i] }),
      ),
    ),
    el(
      "div",
      { class: "hour-axis", "aria-hidden": "true" },
      ends.map((end) => el("span", {}, end)),
    ),
    el("p", { class: "said" }, said),
  );
}

/** A user's 24 hours, with the hour of an event marked. */
export function hours(profile, atMs = null) {
  const most = Math.max(1, ...profile.hours);
  const total = Math.max(
    1,
    profile.hours.reduce((sum, n) => sum + n, 0),
  );
  const at = atMs === null ? null : new Date(atMs).getUTCHours();
  const name = (hour) => `${String(hour).padStart(2, "0")}:00`;
  const share = at === null ? null : percent(profile.hours[at] / total);
  const titles = profile.hours.map((n, hour) => `${name(hour)} UTC: ${count(n, "event")}`);
  const said =
    at === null
      ? `Most active at ${name(profile.hours.indexOf(most))} UTC, with ${percent(most / total)} of ${count(total, "event")}.`
      : `This event: ${name(at)} UTC, where ${number(profile.hours[at])} of ${count(total, "event")} are (${share}).`;
  return bars("Hours of the day", " (UTC)", profile.hours, at, titles, ["00", "06", "12", "18", "24"], said);
}

const DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/** The hours of each day of the week; the darker, the more events. */
export function week(week) {
  const most = Math.max(1, ...week.hours.flat());
  const totals = week.hours.map((hours) => hours.reduce((sum, n) => sum + n, 0));
  const said = DAYS.map((day, i) => `${day} ${number(totals[i])}`).join(", ");
  const cells = week.hours.flatMap((hours, day) => [
    el("span", { class: "day" }, DAYS[day].slice(0, 2)),
    hours.map((n, hour) =>
      el("span", {
        class: n > 0 ? "cell" : "cell none",
        "--share": n > 0 ? 0.15 + 0.85 * Math.sqrt(n / most) : 0,
        title: `${DAYS[day]}, ${String(hour).padStart(2, "0")}:00 UTC: ${count(n, "event")}`,
      }),
    ),
  ]);
  return el(
    "figure",
    { class: "figure" },
    el("figcaption", {}, el("strong", {}, "Hours of the week"), ` (UTC, newest ${count(week.events, "event")})`),
    el("div", { class: "week", role: "img", "aria-label": `Events by day of the week: ${said}` }, cells),
    el(
      "div",
      { class: "hour-axis week-axis", "aria-hidden": "true" },
      ["00", "06", "12", "18", "24"].map((hour) => el("span", {}, hour)),
    ),
  );
}

const SHOWN = 6;
const HERE = () => el("span", { class: "here-mark" }, "▸", el("span", { class: "hidden" }, "this event: "));

/** How often each value was seen, with that of an event marked; it is shown even if it is rare. */
export function shares(title, usual, current = "", more = null, about = "") {
  const top = usual.top.slice(0, SHOWN);
  const most = Math.max(0.0001, ...usual.top.map((each) => each.share));
  const row = (each, isHere) =>
    el(
      "li",
      { class: isHere ? "here" : null },
      el("span", { class: "name" }, isHere ? HERE() : null, short(each.value, 120)),
      el("span", { class: "track", "aria-hidden": "true" }, el("span", { "--share": each.share / most })),
      el("span", { class: "share", title: count(each.events, "event") }, percent(each.share)),
    );
  const rows = top.map((each) => row(each, each.value === current));
  const place = usual.top.findIndex((each) => each.value === current);
  const isMissing = current !== "" && place < 0;
  if (place >= SHOWN) {
    rows.push(row(usual.top[place], true));
  } else if (isMissing) {
    rows.push(
      el(
        "li",
        { class: "here" },
        el("span", { class: "name" }, HERE(), short(current, 120)),
        el("span", { class: "track", "aria-hidden": "true" }),
        el("span", { class: "share" }, usual.distinct > usual.top.length ? "rare" : "new"),
      ),
    );
  }
  const others = usual.distinct - top.length - (place >= SHOWN ? 1 : 0);
  return el(
    "figure",
    { class: "figure shares" },
    el(
      "figcaption",
      {},
      el("strong", {}, title),
      ` (${number(usual.distinct)}${about || " in all"})`,
      current ? el("span", { class: "key", "aria-hidden": "true" }, "▸ this event") : null,
    ),
    rows.length > 0 ? el("ul", {}, rows) : el("p", { class: "said" }, "None seen."),
    others > 0 ? el("p", { class: "said" }, `and ${count(others, "other")}`) : null,
    more,
  );
}

const PARTS = [
  ["time_anomaly", "Time"],
  ["ip_anomaly", "Address"],
  ["location_anomaly", "Place"],
  ["type_anomaly", "Type"],
  ["failure_anomaly", "Failures"],
];
// What each weighs with the classic detector; the adaptive one adds evidence up in another way.
const WEIGHTS = {
  time_anomaly: 0.25,
  ip_anomaly: 0.3,
  location_anomaly: 0.2,
  type_anomaly: 0.15,
  failure_anomaly: 0.1,
};

/** What a score is made of. */
export function parts(anomaly) {
  const isClassic = anomaly.detector === "classic";
  const rows = PARTS.filter(([name]) => Number.isFinite(anomaly[name])).map(([name, label]) => {
    const part = Math.min(1, Math.max(0, anomaly[name]));
    return el(
      "li",
      {},
      el(
        "span",
        { class: "name" },
        label,
        isClassic ? el("span", { class: "weight" }, ` × ${WEIGHTS[name]}`) : null,
      ),
      el("span", { class: "track", "aria-hidden": "true" }, el("span", { "--share": part })),
      el("span", { class: "share" }, part.toFixed(2)),
    );
  });
  return el(
    "figure",
    { class: "figure shares parts" },
    el("figcaption", {}, el("strong", {}, "How unusual each part is"), " (0 usual, 1 never seen)"),
    el("ul", {}, rows),
    isClassic ? el("p", { class: "said" }, "The score is their weighted sum.") : null,
  );
}

/** Events along a line of time, with one of them marked. */
export function strip(events, since, until, isHere, label) {
  const span = Math.max(1, until - since);
  const dots = events.map((event) => {
    const { anomaly } = event;
    const isFailed = event.status === "failed" || event.status === "blocked";
    const kind = isHere(event) ? "here" : anomaly ? anomaly.severity : "";
    return el("span", {
      class: `dot ${SEVERITIES.includes(kind) || kind === "here" ? kind : ""} ${isFailed ? "failed" : ""}`,
      "--at": Math.min(1, Math.max(0, (event.timestamp - since) / span)),
      title: `${utc(event.timestamp)} ${brief(event.type ?? event.event_type, 80)} ${brief(event.status, 20)}`,
    });
  });
  return el(
    "div",
    { class: "strip" },
    el("div", { class: "strip-line", role: "img", "aria-label": label }, dots),
    el("div", { class: "strip-axis" }, time(since, 16), el("span", {}, duration(span)), time(until, 16)),
  );
}
