// What comes in right now: /api/live, read with fetch(), since EventSource can send no key. A reader who
// points at the list can read in peace: what comes meanwhile waits.

import { address, ApiError, askAgain, open, problem } from "./api.js";
import { severity } from "./figures.js";
import { kindOf, placeOf, reasonsOf, text } from "./parts.js";
import { eventLink, SEVERITIES } from "./state.js";
import { brief, count, el, number, score, short, time } from "./text.js";

const ROWS_MAX = 300;
const WAITING_MAX = 300;
// Longer than the server is ever silent: it says something every ten seconds.
const SILENCE_MS = 35_000;
// A connection that has held for so long was a good one.
const HELD_MS = 60_000;
const BACKOFF_MS = [1_000, 2_000, 5_000, 10_000, 30_000];
// So that nobody is read a list of hundreds.
const ANNOUNCE_MS = 5_000;
// A line that is longer is no event.
const LINE_CHARS_MAX = 4_000_000;
const ID_MAX = 2_000;

/** Messages of an event stream, as they come in pieces (HTML Standard, 9.2.6). */
export class Messages {
  constructor(each) {
    this.each = each;
    this.rest = "";
    this.isOver = false;
    this.clear();
  }

  clear() {
    this.type = "";
    this.data = [];
    this.id = null;
  }

  push(piece) {
    let textNow = this.rest + piece;
    // The other half of a line end may be in the next piece.
    const held = textNow.endsWith("\r") ? "\r" : "";
    if (held) textNow = textNow.slice(0, -1);
    const lines = textNow.split(/\r\n|\n|\r/);
    this.rest = lines.pop() + held;
    for (const line of lines) this.line(line);
    if (this.rest.length > LINE_CHARS_MAX) {
      this.rest = "";
      this.isOver = true;
    }
  }

  line(line) {
    if (this.isOver) {
      // The end of what was too long to be kept.
      this.isOver = false;
      this.clear();
      return;
    }
    if (line === "") {
      if (this.data.length > 0)
        this.each({ type: this.type || "message", data: this.data.join("\n"), id: this.id });
      this.clear();
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const what = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.type = what;
    else if (name === "data") this.data.push(what);
    else if (name === "id") this.id = what;
  }
}

/** The part of the page that shows it. `current()` is the state, for links; `onAnomaly` hears of each. */
export class Live {
  constructor(current, onAnomaly) {
    this.current = current;
    this.onAnomaly = onAnomaly;
    this.body = document.getElementById("live-body");
    this.note = document.getElementById("live-note");
    this.news = document.getElementById("live-news");
    this.toggle = document.getElementById("live-switch");
    this.what = document.getElementById("live-what");
    this.waiting = [];
    this.unsaid = [];
    this.seen = new Set();
    this.isHeld = false;
    this.list = el("ol", { class: "live" });
    this.hint = el("p", { class: "message" });
    this.body.append(this.hint, this.list);
    this.toggle.addEventListener("click", () => {
      askAgain();
      if (this.stopper) this.stop();
      else this.start();
    });
    this.what.addEventListener("change", () => {
      this.list.replaceChildren();
      this.waiting = [];
      this.seen.clear();
      if (this.stopper) {
        this.stop();
        this.start();
      }
    });
    for (const [event, isHeld] of [
      ["pointerenter", true],
      ["pointerleave", false],
      ["focusin", true],
      ["focusout", false],
    ]) {
      this.body.addEventListener(event, () =>
        this.hold(isHeld || this.body.matches(":focus-within, :hover")),
      );
    }
    this.say("off");
    this.hint.textContent = "Switch it on to see what comes in.";
  }

  start() {
    const stopper = new AbortController();
    this.stopper = stopper;
    this.toggle.setAttribute("aria-checked", "true");
    this.run(stopper.signal);
  }

  stop(words = "off") {
    this.stopper?.abort();
    this.stopper = null;
    this.toggle.setAttribute("aria-checked", "false");
    this.say(words);
    this.flush();
  }

  say(words) {
    this.words = words;
    const waits =
      this.isHeld && this.waiting.length > 0 ? `paused, ${number(this.waiting.length)} waiting` : null;
    this.note.textContent = waits ?? (this.isHeld && this.stopper ? `${words}, paused` : words);
  }

  /** Connects, again and again. */
  async run(signal) {
    for (let n_failed = 0; !signal.aborted;) {
      let started = null;
      this.hasTaken = false;
      try {
        this.say(n_failed === 0 ? "connecting …" : "connecting again …");
        await this.read(signal, () => {
          started = Date.now();
          this.say("on");
          this.hint.textContent = this.list.hasChildNodes() ? "" : "Connected. Nothing has come in yet.";
        });
        // The server has ended it, and says so by doing it.
      } catch (error) {
        if (signal.aborted) return;
        if (error.status === 401) {
          this.hint.textContent = "This server asks for a key.";
          this.stop("off: no key");
          return;
        }
        if (error.status === 404) {
          this.hint.textContent = "This server has no live feed.";
          this.stop("not there");
          return;
        }
      }
      if (signal.aborted) return;
      // One that has brought something, or has held for a while, starts from the shortest wait.
      const hasWorked = this.hasTaken || (started !== null && Date.now() - started > HELD_MS);
      n_failed = hasWorked ? 1 : n_failed + 1;
      const wait = BACKOFF_MS[Math.min(n_failed, BACKOFF_MS.length) - 1] * (0.75 + Math.random() / 2);
      this.say(`no connection, again in ${count(Math.ceil(wait / 1000), "second")}`);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, wait);
        signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
      });
    }
  }

  async read(signal, onOpen) {
    const silence = new AbortController();
    const stop = () => silence.abort();
    signal.addEventListener("abort", stop, { once: true });
    let timer = null;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE_MS);
    };
    try {
      heard();
      const response = await open(
        address(["live"], { what: this.what.value }),
        silence.signal,
        "text/event-stream",
      );
      if (!response.ok) throw new ApiError(response.status, problem(response, await response.text()));
      onOpen();
      heard();
      const messages = new Messages((message) => this.take(message));
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value: piece, done } = await reader.read();
        if (done) return;
        heard();
        messages.push(piece);
      }
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
      silence.abort();
    }
  }

  take({ type, data, id }) {
    if (!this.stopper) return;
    this.hasTaken = true;
    let found;
    try {
      found = JSON.parse(data);
    } catch {
      return;
    }
    if (type === "skipped") {
      this.add({ skipped: Number(found.skipped) || 0 });
      return;
    }
    if (type !== "anomaly" && type !== "event") return;
    if (found === null || typeof found !== "object") return;
    // After a break some may come again.
    const key = id ?? `${found.timestamp} ${found.event_id}`;
    if (this.seen.has(key)) return;
    this.seen.add(key);
    if (this.seen.size > ID_MAX) this.seen.delete(this.seen.values().next().value);
    this.add(found);
    if (found.anomaly) {
      this.announce(found);
      this.onAnomaly(found);
    }
  }

  add(found) {
    this.waiting.push(found);
    if (this.waiting.length > WAITING_MAX) this.waiting.shift();
    if (this.isHeld) this.say(this.words);
    else this.schedule();
  }

  /** Many at once are drawn together. */
  schedule() {
    this.frame ??= setTimeout(() => {
      this.frame = null;
      if (!this.isHeld) this.flush();
    }, 100);
  }

  hold(isHeld) {
    if (isHeld === this.isHeld) return;
    this.isHeld = isHeld;
    if (!isHeld) this.flush();
    this.say(this.words);
  }

  flush() {
    if (this.waiting.length === 0) return;
    const rows = this.waiting.map((found) => this.row(found)).reverse();
    this.waiting = [];
    this.list.prepend(...rows);
    while (this.list.children.length > ROWS_MAX) this.list.lastElementChild.remove();
    this.hint.textContent = "";
  }

  row(found) {
    if (found.skipped !== undefined)
      return el(
        "li",
        { class: "skipped" },
        `${number(found.skipped)} left out: more came than could be sent`,
      );
    const { anomaly } = found;
    const reason = reasonsOf(found)[0];
    return el(
      "li",
      { class: anomaly ? text(anomaly.severity).replace(/[^a-z]/g, "") : null },
      el(
        "a",
        { href: eventLink(this.current(), found) },
        el(
          "span",
          { class: "live-head" },
          anomaly ? severity(anomaly.severity) : null,
          el("span", { class: "live-who" }, short(text(found.user), 28)),
          time(found.timestamp),
        ),
        el(
          "span",
          { class: "live-text" },
          short(kindOf(found), 32),
          ...[text(found.source_ip), placeOf(found)].filter(Boolean).map((what) => [" · ", short(what, 40)]),
        ),
        reason ? el("span", { class: "live-text why" }, short(reason, 140)) : null,
      ),
    );
  }

  /** Says it to who does not see the list, politely and not too often. */
  announce(found) {
    this.unsaid.push(found);
    this.announcer ??= setTimeout(
      () => {
        this.announcer = null;
        const worst = this.unsaid.reduce((a, b) =>
          SEVERITIES.indexOf(b.anomaly.severity) > SEVERITIES.indexOf(a.anomaly.severity) ? b : a,
        );
        const n = this.unsaid.length;
        this.unsaid = [];
        const words = [
          brief(text(worst.anomaly.severity)),
          `user ${brief(text(worst.user))}`,
          brief(kindOf(worst)),
          `score ${score(worst.anomaly.anomaly_score)}`,
        ].join(", ");
        this.news.textContent =
          n === 1 ? `New anomaly: ${words}` : `${number(n)} new anomalies, the worst: ${words}`;
      },
      this.news.textContent === "" ? 300 : ANNOUNCE_MS,
    );
  }
}
