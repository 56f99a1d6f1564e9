// The page: it reads from its address what to show, and asks for it.

import { askAgain, get, isAborted } from "./api.js";
import { showEvent } from "./anomaly.js";
import { showIncidents, showUsers } from "./asides.js";
import { severity } from "./figures.js";
import { showFound } from "./find.js";
import { prepareKey } from "./key.js";
import { Live } from "./live.js";
import { failed, fill, loading } from "./parts.js";
import { link, NOTHING_OPEN, RANGES, read, SEVERITIES, times } from "./state.js";
import { count, el, number, time } from "./text.js";
import { prepareTheme } from "./theme.js";
import { bucketsFor, showTimeline } from "./timeline.js";
import { paged, showUser } from "./user.js";

const ROWS = 50;
const REFRESH_MS = 30_000;
const at = (id) => document.getElementById(id);

let state = read();
let summary = null;
let sums = null;
// What the overview shows, and the answers that are still to come.
let shown = null;
let overviewStopper = new AbortController();
let detailStopper = new AbortController();
let scrolledTo = 0;
const live = new Live(
  () => state,
  ({ anomaly }) => {
    const isShown = SEVERITIES.indexOf(anomaly.severity) >= SEVERITIES.indexOf(state.severity);
    if (isShown) noteNews();
  },
);

/** The whole page, for the state that the address says. */
async function show() {
  const before = state;
  state = read();
  showControls();
  const isOpen = state.event !== null || state.user !== null || state.find !== null;
  if (isOpen) showDetail(before);
  else closeDetail();
  await showOverview();
}

function showControls() {
  for (const radio of at("ranges").querySelectorAll("input")) {
    radio.checked = state.since === null && radio.value === state.range;
  }
  at("severity").value = state.severity;
  at("sort").value = state.sort;
  if (state.find !== null) at("query").value = state.find.slice(0, 20_000);
  at("widen").hidden = state.since === null;
}

/** Goes to another state. */
function go(changes, isReplaced = false) {
  const url = link(state, changes);
  if (isReplaced) location.replace(url);
  else location.hash = url;
}

async function showDetail(before) {
  detailStopper.abort();
  detailStopper = new AbortController();
  const { signal } = detailStopper;
  if (before.event === null && before.user === null && before.find === null) scrolledTo = scrollY;
  const detail = at("detail");
  at("overview").hidden = true;
  detail.hidden = false;
  document.body.classList.add("has-detail");
  detail.replaceChildren(el("div", { class: "card" }, loading("it")));
  scrollTo(0, 0);
  const view = state.event !== null ? showEvent : state.user !== null ? showUser : showFound;
  try {
    const result = await view(detail, state, signal);
    if (signal.aborted) return;
    if (result?.go) {
      location.replace(result.go);
      return;
    }
    named(result?.title ?? result);
    detail.querySelector("h1")?.focus({ preventScroll: true });
  } catch (error) {
    if (signal.aborted || isAborted(error)) return;
    const words =
      error.status === 404
        ? new Error(
            state.event !== null
              ? "There is no event with this id here."
              : "There is no user of this name here.",
          )
        : error;
    detail.replaceChildren(
      el(
        "div",
        { class: "card" },
        el("p", { class: "back" }, el("a", { href: link(state, NOTHING_OPEN) }, "← Overview")),
        failed(words, error.status === 404 ? null : () => showDetail(state)),
      ),
    );
    named("not found");
    detail.querySelector("a")?.focus({ preventScroll: true });
  }
}

function closeDetail() {
  detailStopper.abort();
  named(null);
  if (at("detail").hidden) return;
  at("detail").hidden = true;
  at("detail").replaceChildren();
  at("overview").hidden = false;
  document.body.classList.remove("has-detail");
  scrollTo(0, scrolledTo);
  at("overview-title").focus({ preventScroll: true });
}

function named(what) {
  document.title = what ? `${what} · StreamGuard` : "StreamGuard";
}

/** The overview, if what it shows is not what it should. */
async function showOverview(isForced = false) {
  const wanted = link({ ...state, ...NOTHING_OPEN });
  if (wanted === shown && !isForced) return;
  shown = wanted;
  overviewStopper.abort();
  overviewStopper = new AbortController();
  const { signal } = overviewStopper;
  at("news").hidden = true;
  await fill(
    at("summary"),
    "the summary",
    signal,
    async () => {
      summary = await loadSummary(signal);
      return summaryTiles(null);
    },
    () => showOverview(true),
  );
  if (signal.aborted) return;
  if (summary === null) {
    // Without it nobody knows which times to ask for: it is shown what went wrong, once.
    shown = null;
    return;
  }
  const range = times(state, summary);
  at("timeline-range").replaceChildren(time(range.since, 16), " to ", time(range.until, 16), " UTC");
  showList(range, signal);
  showUsers(at("users-body"), state, range, signal);
  showIncidents(at("incidents-body"), state, range, signal);
  fill(at("timeline-body"), "the timeline", signal, async () => {
    const width = at("timeline-body").clientWidth || 800;
    const answer = await get(["stats", "timeline"], { ...range, buckets: bucketsFor(width) }, signal);
    sums = sumsOf(answer);
    at("summary").replaceChildren(summaryTiles(sums));
    const place = el("div");
    showTimeline(place, answer, state.severity, (since, until) => go({ ...NOTHING_OPEN, since, until }));
    return place;
  });
}

async function loadSummary(signal) {
  const answer = await get(["stats", "summary"], {}, signal);
  return answer.items?.[0] ? { ...answer.items[0], as_of: answer.as_of } : answer;
}

/** What there is in the range, as its timeline counts it. */
function sumsOf({ buckets }) {
  const sum = (name) => buckets.reduce((total, bucket) => total + (bucket[name] ?? 0), 0);
  return Object.fromEntries(["events", "failed", ...SEVERITIES].map((name) => [name, sum(name)]));
}

function total(counts) {
  return SEVERITIES.reduce((sum, name) => sum + (counts[name] ?? 0), 0);
}

function summaryTiles(inRange) {
  const tile = (name, what, note = null) =>
    el(
      "div",
      { class: "tile" },
      el("dt", {}, name),
      el("dd", {}, what, note ? el("span", { class: "note" }, note) : null),
    );
  at("as-of").replaceChildren("As of ", time(Date.parse(summary.as_of)), " UTC");
  const shown = (n) => (inRange ? number(n()) : "…");
  return el(
    "dl",
    { class: "tiles" },
    tile(
      "Anomalies in the range",
      shown(() => total(inRange)),
    ),
    el(
      "div",
      { class: "tile wide" },
      el("dt", {}, "By severity"),
      el(
        "dd",
        { class: "by-severity" },
        SEVERITIES.toReversed().map((name) =>
          el(
            "span",
            {},
            severity(name),
            " ",
            el(
              "strong",
              {},
              shown(() => inRange[name]),
            ),
          ),
        ),
      ),
    ),
    tile(
      "Events in the range",
      shown(() => inRange.events),
      inRange ? `${number(inRange.failed)} failed or blocked` : null,
    ),
    el(
      "div",
      { class: "tile times" },
      el("dt", {}, "All that is kept"),
      el(
        "dd",
        {},
        summary.first
          ? [
              `${count(summary.events, "event")} and ${count(total(summary.anomalies), "anomaly", "anomalies")} of ${count(summary.users, "user")}, `,
              el(
                "span",
                { class: "span" },
                time(Date.parse(summary.first), 16),
                " – ",
                time(Date.parse(summary.last), 16),
                " UTC",
              ),
            ]
          : "no events yet",
      ),
    ),
  );
}

function showList(range, signal) {
  const filter = { ...range, severity: state.severity, what: "events" };
  const isByScore = state.sort === "score";
  at("list-note").textContent = isByScore ? "the highest scores of the range" : "";
  const ask = (cursor) =>
    isByScore
      ? get(["anomalies"], { ...filter, sort: "score", limit: ROWS * 2 }, signal)
      : get(["anomalies"], { ...filter, limit: ROWS, cursor }, signal);
  at("list-body").replaceChildren();
  paged(
    at("list-body"),
    "anomalies",
    state,
    signal,
    ask,
    [],
    "There are no anomalies in this range. Try a longer one, or a lower severity.",
  );
}

/** Tells that there is more than is shown; it moves nothing under anybody's pointer. */
function noteNews() {
  if (state.since !== null || shown === null) return;
  at("news").hidden = false;
  at("news").textContent = "New anomalies: show them";
}

/** Looks from time to time whether something has come that the page does not show yet. */
async function refreshSummary() {
  if (document.hidden || summary === null) return;
  const before = summary;
  try {
    summary = await loadSummary(overviewStopper.signal);
  } catch {
    // Whoever looks at something new is told then.
    return;
  }
  at("summary").replaceChildren(summaryTiles(sums));
  if (total(summary.anomalies) > total(before.anomalies)) noteNews();
}

function prepareControls() {
  const ranges = at("ranges");
  for (const range of RANGES) {
    const input = el("input", { type: "radio", name: "range", value: range.id, id: `range-${range.id}` });
    ranges.append(input, el("label", { for: `range-${range.id}`, title: range.name }, range.label));
    input.addEventListener("change", () => go({ range: range.id, since: null, until: null }));
  }
  at("severity").addEventListener("change", (change) => go({ severity: change.target.value }));
  at("sort").addEventListener("change", (change) => go({ sort: change.target.value }));
  at("widen").addEventListener("click", () => go({ since: null, until: null }));
  at("news").addEventListener("click", () => {
    at("list-title").focus();
    showOverview(true);
  });
  at("search").addEventListener("submit", (submit) => {
    submit.preventDefault();
    const words = at("query").value;
    if (words.trim() !== "") go({ ...NOTHING_OPEN, find: words });
  });
  at("home").addEventListener("click", (click) => {
    click.preventDefault();
    go(NOTHING_OPEN);
  });
  // The address says what is shown, so it cannot say where on the page somebody is.
  at("skip").addEventListener("click", (click) => {
    click.preventDefault();
    at("main").focus();
  });
}

prepareTheme();
prepareControls();
prepareKey(() => {
  askAgain();
  summary = null;
  live.stop();
  for (const id of ["summary", "timeline-body", "list-body", "users-body", "incidents-body"])
    at(id).replaceChildren();
  showOverview(true);
});
addEventListener("hashchange", show);
setInterval(refreshSummary, REFRESH_MS);
show().then(() => live.start());
