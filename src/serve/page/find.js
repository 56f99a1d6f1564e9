// What somebody looks for: a user or an event of that name, or else events that are like the words.

import { get } from "./api.js";
import { similarTable } from "./anomaly.js";
import { empty, fill } from "./parts.js";
import { eventLink, link, NOTHING_OPEN, userLink } from "./state.js";
import { brief, el, number, time, value } from "./text.js";

const SIMILAR = 20;

/** What the words name exactly. */
export async function lookUp(words, signal) {
  const orNothing = async (ask) => {
    try {
      return await ask;
    } catch (error) {
      // Words that can be no id are refused; they may still be words.
      if (error.status === 404 || error.status === 400 || error.status === 414) return null;
      throw error;
    }
  };
  const [events, user] = await Promise.all([
    orNothing(get(["events", words], {}, signal)),
    orNothing(get(["users", words], {}, signal)),
  ]);
  return { events: events?.items ?? [], user: user?.items?.[0] ?? user };
}

/** Shows what was found, or goes there if it is one thing. */
export async function showFound(place, state, signal) {
  const words = state.find;
  const { events, user } = await lookUp(words, signal);
  if (events.length > 0 && !user) return { go: eventLink(state, events.at(-1)) };
  if (user && events.length === 0) return { go: userLink(state, words) };
  const alike = el("div");
  place.replaceChildren(
    el(
      "header",
      { class: "card lead" },
      el("p", { class: "back" }, el("a", { href: link(state, NOTHING_OPEN) }, "← Overview")),
      el("h1", { tabindex: -1 }, el("span", { class: "kind" }, "Found for "), value(words, 120)),
      user
        ? el(
            "p",
            {},
            el("a", { href: userLink(state, words) }, "The user of this name"),
            ` (${number(user.events)} events)`,
          )
        : null,
      events.map((event) =>
        el(
          "p",
          {},
          el("a", { href: eventLink(state, event) }, "The event with this id"),
          ", ",
          time(event.timestamp),
        ),
      ),
      events.length === 0 && !user
        ? el("p", {}, "There is no user and no event of exactly this name.")
        : null,
    ),
    el(
      "section",
      { class: "card", "aria-label": "Events like these words" },
      el("div", { class: "card-head" }, el("h2", {}, "Events like these words")),
      alike,
    ),
  );
  fill(alike, "events like these words", signal, async () => {
    let items = [];
    try {
      ({ items } = await get(["similar"], { text: words, limit: SIMILAR }, signal));
    } catch (error) {
      if (![400, 404, 422].includes(error.status)) throw error;
    }
    if (items.length === 0) return empty("There are none, or events have no vectors yet (sg-run --embed).");
    return similarTable(state, items);
  });
  return { title: `found for ${brief(words, 64)}` };
}
