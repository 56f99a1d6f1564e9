// Beside the list: who has most anomalies, and what belongs together.

import { get } from "./api.js";
import { severity, severityBar, severityWords } from "./figures.js";
import { empty, fill, text } from "./parts.js";
import { link, NOTHING_OPEN, SEVERITIES, userLink } from "./state.js";
import { brief, count, el, short, time } from "./text.js";

const USERS = 10,
  INCIDENTS = 8;

/** The users with most anomalies in the range. */
export function showUsers(place, state, range, signal) {
  return fill(place, "users", signal, async () => {
    const { items } = await get(
      ["stats", "users"],
      { ...range, severity: state.severity, limit: USERS },
      signal,
    );
    if (items.length === 0) return empty("Nobody has anomalies here.");
    const total = (each) => SEVERITIES.reduce((sum, name) => sum + (each[name] ?? 0), 0);
    const most = Math.max(...items.map(total));
    return el(
      "ol",
      { class: "users" },
      items.map((each) =>
        el(
          "li",
          {},
          el(
            "a",
            {
              href: userLink(state, each.user),
              "aria-label": `${brief(each.user, 100)}: ${severityWords(each)}`,
              title: severityWords(each),
            },
            short(each.user, 32),
            severityBar(each, most),
            el("span", { class: "count" }, String(each.anomalies)),
          ),
        ),
      ),
    );
  });
}

/** The incidents with the newest anomalies in the range. */
export function showIncidents(place, state, range, signal) {
  return fill(place, "incidents", signal, async () => {
    const { items } = await get(
      ["incidents"],
      { ...range, severity: state.severity, limit: INCIDENTS },
      signal,
    );
    if (items.length === 0) return empty("There are none here.");
    return el(
      "ol",
      { class: "incidents" },
      items.map((each) =>
        el(
          "li",
          {},
          el(
            "a",
            { href: link(state, { ...NOTHING_OPEN, event: each.event_id }) },
            el(
              "span",
              { class: "incident-head" },
              severity(each.severity),
              el(
                "span",
                { class: "incident-who" },
                each.users > 1 ? count(each.users, "user") : short(each.user, 28),
              ),
              time(Date.parse(each.last), 16),
            ),
            el(
              "span",
              { class: "incident-text" },
              `${count(each.alerts, "alert")}${each.kind === "user" ? "" : `, ${brief(text(each.kind), 20)}`}`,
              each.archetype ? [", ", short(text(each.archetype), 40)] : null,
            ),
          ),
        ),
      ),
    );
  });
}
