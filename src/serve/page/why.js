// Why an event was raised: each reason, and beside it a picture of what is usual for the user. What the
// profile does not hold is counted from the user's events before this one.

import { get } from "./api.js";
import { bars, hours, parts, shares, strip } from "./figures.js";
import { empty, isFailed, kindOf, placeOf, reasonsOf, text } from "./parts.js";
import { count, duration, el, number, time, utc, value } from "./text.js";

const HOUR = 3_600_000;
const BEFORE = 300;

/** Which pictures a reason is about: the sentences of both detectors begin or speak like that. */
const TOPICS = [
  ["hours", /^hour \d/],
  ["types", /^type /],
  ["resources", /^resource |never-used resources/],
  ["devices", /^(known |new |no )?(browser|device)|^new version of a known browser/],
  ["bytes", /^[\d.]+ MB in /],
  [
    "burst",
    /^failures: |^\d+ (failures|events) in |^\d+ other users failed|^many failures|^unusual actions|^first activity after/,
  ],
  ["places", /^address |^location |^active in another place|network|provider/],
];

/** The reasons of an event with their pictures; then the pictures that no reason has asked for. */
export async function why(event, signal) {
  const [profile, seen, before] = await Promise.all([
    usual(event, signal),
    known(event, signal),
    earlier(event, signal),
  ]);
  const pictures = picturesOf(event, profile, seen, before);
  const used = new Set();
  const rows = reasonsOf(event).map((reason) => {
    const topic = TOPICS.find(([, pattern]) => pattern.test(reason))?.[0];
    const shown = topic && !used.has(topic) ? (pictures[topic] ?? []).filter(Boolean) : [];
    used.add(topic);
    return el(
      "li",
      {},
      el("p", { class: "reason" }, value(reason, 400)),
      shown.length > 0 ? el("div", { class: "pictures" }, shown) : null,
    );
  });
  const rest = ["hours", "places", "types"]
    .filter((topic) => !used.has(topic))
    .flatMap((topic) => pictures[topic] ?? []);
  const nothing = event.anomaly ? empty("The detector has given no reason.") : null;
  return [
    rows.length > 0 ? el("ol", { class: "reasons" }, rows) : nothing,
    el("div", { class: "pictures rest" }, event.anomaly ? parts(event.anomaly) : null, rest),
    profile
      ? el("p", { class: "note" }, baselineWords(event, profile))
      : empty("Nothing is known of this user."),
  ];
}

function baselineWords(event, profile) {
  const baseline = event.anomaly?.baseline;
  const words = `Usual is what ${count(profile.events, "event")} of this user say, this one and later ones included.`;
  if (!baseline) return words;
  const learning = baseline.state === "learning" ? ", and was still learning" : "";
  return `${words} The detector had seen ${number(baseline.events)} when it judged${learning}.`;
}

async function usual(event, signal) {
  try {
    const answer = await get(["users", text(event.user)], {}, signal);
    return answer.items?.[0] ?? answer;
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

/** Since when the user is known with this address and this type. */
async function known(event, signal) {
  const first = async (filter) => {
    const answer = await get(["events"], { user: event.user, ...filter, order: "oldest", limit: 1 }, signal);
    return answer.items[0] ?? null;
  };
  const [address, kind] = await Promise.all([
    text(event.source_ip) ? first({ ip: event.source_ip }) : null,
    kindOf(event) ? first({ type: kindOf(event) }) : null,
  ]);
  return { address, kind };
}

/** The user's events before this one, the newest first. */
async function earlier(event, signal) {
  const { items } = await get(
    ["events"],
    { user: event.user, until: event.timestamp, order: "newest", limit: BEFORE },
    signal,
  );
  return items.filter((other) => other.event_id !== event.event_id);
}

function picturesOf(event, profile, seen, before) {
  const of = `, ${count(before.length, "event")} before`;
  const { metadata } = event;
  const field = (name) => (other) => text(other.metadata?.[name]);
  const counted = (title, pick) =>
    pick(event) ? shares(title, countsOf(before, pick), pick(event), null, of) : null;
  const pictures = {
    devices: [wordy(counted("Browsers", field("user_agent"))), counted("Devices", field("device"))],
    resources: [counted("Folders", folderOf)],
    bytes: [
      Number.isFinite(metadata?.bytes) || before.some((other) => other.metadata?.bytes)
        ? bytes(event, before)
        : null,
    ],
    burst: [lastHour(event, before)],
  };
  if (profile) {
    pictures.hours = [hours(profile, event.timestamp)];
    pictures.places = [
      shares(
        "Addresses",
        profile.addresses,
        text(event.source_ip),
        firstSeen(event, seen.address, "address"),
      ),
      shares("Places", profile.locations, placeOf(event)),
    ];
    pictures.types = [shares("Types", profile.types, kindOf(event), firstSeen(event, seen.kind, "type"))];
  }
  return pictures;
}

/** Values of several words get the room of two lines. */
function wordy(figure) {
  figure?.classList.add("wordy");
  return figure;
}

function firstSeen(event, found, what) {
  if (!found) return null;
  if (found.event_id === event.event_id && found.timestamp === event.timestamp) {
    return el("p", { class: "said new" }, `First seen with this ${what}: this event.`);
  }
  const ago = duration(event.timestamp - found.timestamp);
  return el(
    "p",
    { class: "said" },
    `First seen with this ${what}: `,
    time(found.timestamp, 16),
    `, ${ago} before.`,
  );
}

/** How often each value was there, as a profile says it. */
function countsOf(events, pick) {
  const counts = new Map();
  let n = 0;
  for (const each of events.map(pick)) {
    if (each === "") continue;
    n += 1;
    counts.set(each, (counts.get(each) ?? 0) + 1);
  }
  const top = [...counts]
    .sort((a, b) => b[1] - a[1])
    .map(([name, found]) => ({ value: name, events: found, share: found / n }));
  return { distinct: top.length, top };
}

function folderOf(event) {
  const path = text(event.metadata?.endpoint);
  return path.slice(0, path.lastIndexOf("/") + 1) || path;
}

/** Bytes an hour, in the day that ends with the event. */
function bytes(event, before) {
  const sums = new Array(24).fill(0);
  for (const each of [event, ...before]) {
    const hoursAgo = Math.floor((event.timestamp - each.timestamp) / HOUR);
    if (hoursAgo < 24 && Number.isFinite(each.metadata?.bytes)) sums[23 - hoursAgo] += each.metadata.bytes;
  }
  const megabytes = sums.map((sum) => sum / 1e6);
  const most = Math.max(...megabytes.slice(0, 23)).toFixed(1);
  const said = `Last hour: ${megabytes[23].toFixed(1)} MB. Most in any of the 23 before: ${most} MB.`;
  const titles = megabytes.map((sum, i) => `${24 - i} h before: ${sum.toFixed(1)} MB`);
  return bars("Megabytes an hour", ", 24 h before", megabytes, 23, titles, ["−24 h", "−12 h", "now"], said);
}

/** The hour that ends with the event. */
function lastHour(event, before) {
  const since = event.timestamp - HOUR;
  const events = before.filter((other) => other.timestamp >= since).reverse();
  const n = events.length + 1,
    nFailed = [...events, event].filter(isFailed).length;
  const said = `${count(n, "event")} with this one, ${number(nFailed)} failed or blocked.`;
  return el(
    "figure",
    { class: "figure" },
    el(
      "figcaption",
      {},
      el("strong", {}, "The hour before"),
      ` (to ${utc(event.timestamp, 16).slice(11)})`,
      el("span", { class: "key", "aria-hidden": "true" }, "▮ this event"),
    ),
    strip([...events, event], since, event.timestamp, (other) => other === event, said),
    el("p", { class: "said" }, said),
  );
}
