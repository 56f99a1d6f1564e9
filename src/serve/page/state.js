// What is looked at, as the address of the page says it: to be shared, and to be gone back to.

const HOUR = 3_600_000;

export const RANGES = [
  { id: "1h", label: "1 h", name: "last hour", ms: HOUR },
  { id: "24h", label: "24 h", name: "last 24 hours", ms: 24 * HOUR },
  { id: "7d", label: "7 d", name: "last 7 days", ms: 7 * 24 * HOUR },
  { id: "30d", label: "30 d", name: "last 30 days", ms: 30 * 24 * HOUR },
  { id: "all", label: "All", name: "everything", ms: Infinity },
];
export const SEVERITIES = ["low", "medium", "high", "critical"];
const DEFAULTS = { range: "7d", severity: "", sort: "time" };

/** From the address. What it cannot mean is passed over: anybody may have written it. */
export function read() {
  const query = new URLSearchParams(location.hash.slice(1));
  const one = (name, allowed) => {
    const given = query.get(name);
    return allowed.includes(given) ? given : DEFAULTS[name];
  };
  const ms = (name) => {
    const given = query.get(name);
    return given !== null && /^\d{1,15}$/.test(given) ? Number(given) : null;
  };
  const state = {
    range: one(
      "range",
      RANGES.map((range) => range.id),
    ),
    severity: one("severity", SEVERITIES.slice(1)),
    sort: one("sort", ["time", "score"]),
    since: ms("since"),
    until: ms("until"),
    event: query.get("event"),
    at: ms("at"),
    user: query.get("user"),
    find: query.get("find"),
  };
  if (state.since === null || state.until === null || state.since > state.until) {
    state.since = state.until = null;
  }
  return state;
}

/** The address that says it, with changes. */
export function link(state, changes = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...state, ...changes })) {
    if (value !== null && value !== undefined && value !== "" && value !== DEFAULTS[name]) {
      query.set(name, String(value).toWellFormed?.() ?? String(value));
    }
  }
  return `#${query}`;
}

/** The same, but of what is looked at in the list. */
export const NOTHING_OPEN = { event: null, at: null, user: null, find: null };

export function eventLink(state, event) {
  return link(state, { ...NOTHING_OPEN, event: event.event_id, at: event.timestamp });
}

export function userLink(state, user) {
  return link(state, { ...NOTHING_OPEN, user });
}

/** No event is later. */
export const MS_MAX = 999_999_999_999_999;

/** The last millisecond that a time can mean, which may be said without its fraction. */
export function endOf(text) {
  const ms = Date.parse(text ?? "");
  return Math.min(MS_MAX, ms % 1000 === 0 ? ms + 999 : ms);
}

/** The times that a state is about. Ranges end at the newest event, so that there is something to see. */
export function times(state, summary) {
  if (state.since !== null) return { since: state.since, until: state.until };
  const now = Date.now();
  const first = Date.parse(summary.first ?? "") || now;
  const last = endOf(summary.last) || now;
  const { ms } = RANGES.find((range) => range.id === state.range);
  if (ms === Infinity) return { since: first, until: last };
  // A clock that is wrong by years must not move the range there, unless there is nothing else.
  const until = first > now ? last : Math.min(last, now);
  return { since: Math.max(0, until - ms + 1), until };
}
