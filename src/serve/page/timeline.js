// The timeline: anomalies by severity as bars, below them how many events there were at all. A stretch of
// it that is drawn over, or chosen with the keyboard, becomes the range.

import { SEVERITIES } from "./state.js";
import { severityWords } from "./figures.js";
import { count, el, number, svg, time, utc } from "./text.js";

const HEIGHT = 168,
  BARS = 104,
  GAP = 10,
  AREA = 34,
  LEFT = 40,
  RIGHT = 8;
const HOUR = 3_600_000,
  DAY = 24 * HOUR;
const STEPS = [
  60_000,
  300_000,
  600_000,
  1_800_000,
  HOUR,
  3 * HOUR,
  6 * HOUR,
  12 * HOUR,
  DAY,
  2 * DAY,
  7 * DAY,
  14 * DAY,
  30 * DAY,
  90 * DAY,
  365 * DAY,
];

/** How many buckets fit, so that a bar can be seen and met. */
export function bucketsFor(width) {
  return Math.max(24, Math.min(120, Math.floor((width - LEFT - RIGHT) / 9)));
}

/** Shows an answer of /api/stats/timeline in `place`. `narrow(since, until)` is called with a choice. */
export function showTimeline(place, answer, least, narrow) {
  const from = SEVERITIES.indexOf(least || "low");
  const shown = SEVERITIES.slice(from);
  const buckets = answer.buckets.map((bucket) => ({
    ...bucket,
    anomalies: shown.reduce((sum, name) => sum + (bucket[name] ?? 0), 0),
    until_ms: bucket.start_ms + answer.bucket_ms - 1,
  }));
  if (!buckets.some((bucket) => bucket.events > 0)) {
    place.replaceChildren(el("p", { class: "message" }, "There is nothing in this range."));
    return;
  }
  const holder = el("div", { class: "timeline" });
  const said = el("p", { class: "said", "aria-live": "polite" });
  place.replaceChildren(legend(shown), holder, el("div", { class: "under" }, said, tableOf(buckets, shown)));
  const chart = new Chart(holder, said, answer, buckets, shown, narrow);
  const observer = new ResizeObserver(() => {
    if (holder.isConnected) chart.draw();
    else observer.disconnect();
  });
  observer.observe(holder);
  chart.draw();
}

class Chart {
  constructor(holder, said, answer, buckets, shown, narrow) {
    Object.assign(this, { holder, said, answer, buckets, shown, narrow });
    // The bucket at which the keyboard or the pointer is, and where a stretch began.
    this.cursor = null;
    this.anchor = null;
    this.most = Math.max(1, ...buckets.map((bucket) => bucket.anomalies));
    this.mostEvents = Math.max(1, ...buckets.map((bucket) => bucket.events));
    this.say();
  }

  draw() {
    const width = Math.max(240, this.holder.clientWidth);
    if (width === this.width) return;
    this.width = width;
    this.step = (width - LEFT - RIGHT) / this.buckets.length;
    const n = this.buckets.reduce((sum, bucket) => sum + bucket.anomalies, 0);
    this.brush = svg("rect", { class: "brush", y: 0, height: BARS + GAP + AREA, width: 0 });
    const picture = svg(
      "svg",
      {
        width,
        height: HEIGHT,
        viewBox: `0 0 ${width} ${HEIGHT}`,
        tabindex: 0,
        role: "application",
        "aria-roledescription": "timeline",
        "aria-label": [
          `Timeline, ${count(n, "anomaly", "anomalies")} in ${this.buckets.length} steps.`,
          "Arrow keys move, with Shift they select, Enter narrows the range to it.",
        ].join(" "),
      },
      this.axes(),
      this.area(),
      this.bars(),
      this.brush,
    );
    picture.addEventListener("pointerdown", (press) => this.press(press, picture));
    picture.addEventListener("pointermove", (move) => this.move(move));
    picture.addEventListener("pointerleave", () => this.leave());
    picture.addEventListener("pointerup", (release) => this.release(release));
    picture.addEventListener("pointercancel", () => this.cancel());
    picture.addEventListener("keydown", (key) => this.key(key));
    picture.addEventListener("focus", () => this.focus(picture));
    picture.addEventListener("blur", () => this.cancel());
    this.holder.replaceChildren(picture);
    this.mark();
  }

  x(index) {
    return LEFT + index * this.step;
  }

  axes() {
    const lines = [];
    for (const y of [0, BARS])
      lines.push(svg("line", { class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: y + 0.5, y2: y + 0.5 }));
    const base = BARS + GAP + AREA;
    lines.push(
      svg("line", { class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: base + 0.5, y2: base + 0.5 }),
    );
    const label = (y, text) => svg("text", { class: "tick", x: LEFT - 6, y, "text-anchor": "end" }, text);
    lines.push(
      label(10, compact(this.most)),
      label(BARS, "0"),
      label(BARS + GAP + 10, compact(this.mostEvents)),
    );
    const { since_ms, bucket_ms } = this.answer;
    const end = since_ms + bucket_ms * this.buckets.length;
    const room = Math.max(1, (this.width - LEFT - RIGHT) / 96);
    const tick =
      STEPS.find((ms) => (end - since_ms) / ms <= room) ?? Math.ceil((end - since_ms) / room / DAY) * DAY;
    for (let ms = Math.ceil(since_ms / tick) * tick; ms < end; ms += tick) {
      const x = LEFT + ((ms - since_ms) / bucket_ms) * this.step;
      if (x > this.width - 36) break;
      lines.push(svg("line", { class: "grid tick-line", x1: x, x2: x, y1: 0, y2: base + 4 }));
      lines.push(
        svg(
          "text",
          { class: "tick", x, y: HEIGHT - 3, "text-anchor": x < LEFT + 24 ? "start" : "middle" },
          tickLabel(ms, tick),
        ),
      );
    }
    return lines;
  }

  /** All events, quietly. */
  area() {
    const base = BARS + GAP + AREA;
    let path = `M${LEFT} ${base}`;
    this.buckets.forEach((bucket, i) => {
      const y = base - (bucket.events / this.mostEvents) * AREA;
      path += `L${this.x(i).toFixed(1)} ${y.toFixed(1)}L${this.x(i + 1).toFixed(1)} ${y.toFixed(1)}`;
    });
    return svg("path", { class: "area", d: `${path}L${this.x(this.buckets.length).toFixed(1)} ${base}Z` });
  }

  bars() {
    const width = Math.max(1, this.step - (this.step > 5 ? 2 : 0.5));
    return this.buckets.map((bucket, i) => {
      let y = BARS;
      return this.shown.map((name) => {
        if (!bucket[name]) return null;
        // One among thousands can still be seen.
        const height = Math.max(2, (bucket[name] / this.most) * BARS);
        y -= height;
        return svg("rect", {
          class: `fill ${name}`,
          x: this.x(i) + (this.step - width) / 2,
          y: Math.max(0, y),
          width,
          height,
        });
      });
    });
  }

  at(pointer) {
    const box = pointer.currentTarget.getBoundingClientRect();
    const index = Math.floor((pointer.clientX - box.left - LEFT) / this.step);
    return Math.min(this.buckets.length - 1, Math.max(0, index));
  }

  press(press, picture) {
    if (press.button !== 0) return;
    picture.setPointerCapture(press.pointerId);
    this.cursor = this.anchor = this.at(press);
    this.isDrawing = true;
    this.mark();
  }

  move(move) {
    this.cursor = this.at(move);
    if (!this.isDrawing) this.anchor = this.cursor;
    this.mark();
  }

  leave() {
    if (this.isDrawing || this.isByKey) return;
    this.cancel();
  }

  release(release) {
    if (!this.isDrawing) return;
    this.isDrawing = false;
    this.cursor = this.at(release);
    this.choose();
  }

  cancel() {
    this.cursor = this.anchor = null;
    this.isDrawing = this.isByKey = false;
    this.mark();
  }

  focus(picture) {
    if (!picture.matches(":focus-visible") || this.cursor !== null) return;
    this.isByKey = true;
    this.cursor = this.anchor = this.buckets.length - 1;
    this.mark();
  }

  key(key) {
    const last = this.buckets.length - 1;
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
    if (key.key in moves) {
      const before = this.cursor ?? last;
      this.isByKey = true;
      this.cursor = Math.min(last, Math.max(0, before + moves[key.key]));
      if (!key.shiftKey || this.anchor === null) this.anchor = this.cursor;
      this.mark();
    } else if (key.key === "Enter" && this.cursor !== null) {
      this.choose();
    } else if (key.key === "Escape") {
      this.cancel();
    } else {
      return;
    }
    key.preventDefault();
  }

  stretch() {
    const [first, last] = [this.anchor, this.cursor].sort((a, b) => a - b);
    return [first, last, this.buckets.slice(first, last + 1)];
  }

  choose() {
    const [first, last] = this.stretch();
    if (this.buckets.length > 1 && last - first + 1 === this.buckets.length) return;
    this.narrow(
      this.buckets[first].start_ms,
      Math.max(this.buckets[last].until_ms, this.buckets[first].start_ms),
    );
  }

  mark() {
    if (!this.brush) return;
    if (this.cursor === null) {
      this.brush.setAttribute("width", 0);
    } else {
      const [first, last] = this.stretch();
      this.brush.setAttribute("x", this.x(first));
      this.brush.setAttribute("width", this.x(last + 1) - this.x(first));
    }
    this.say();
  }

  say() {
    if (this.cursor === null) {
      const n = this.buckets.reduce((sum, bucket) => sum + bucket.events, 0);
      this.said.textContent = `${count(n, "event")} in all. Click a bar, or draw over several, to look closer.`;
      return;
    }
    const [, , chosen] = this.stretch();
    const sums = Object.fromEntries(
      this.shown.map((name) => [name, chosen.reduce((sum, bucket) => sum + (bucket[name] ?? 0), 0)]),
    );
    const events = chosen.reduce((sum, bucket) => sum + bucket.events, 0);
    const range = `${utc(chosen[0].start_ms, 16)} to ${utc(chosen.at(-1).until_ms + 1, 16)}`;
    this.said.textContent = `${range}: ${count(events, "event")}; anomalies: ${severityWords(sums)}`;
  }
}

function compact(n) {
  return new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(n);
}

function tickLabel(ms, step) {
  const date = new Date(ms);
  const day = date.toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
  if (step >= 365 * DAY) return String(date.getUTCFullYear());
  if (step >= DAY) return day;
  return ms % DAY === 0 ? day : utc(ms, 16).slice(11);
}

function legend(shown) {
  return el(
    "ul",
    { class: "legend", "aria-hidden": "true" },
    shown.toReversed().map((name) => el("li", { class: name }, name)),
    el("li", { class: "events-key" }, "all events (below)"),
  );
}

/** The same in words, for whoever does not see the picture. */
function tableOf(buckets, shown) {
  const details = el("details", {}, el("summary", {}, "As a table"));
  details.addEventListener("toggle", () => {
    if (!details.open || details.children.length > 1) return;
    const busy = buckets.filter((bucket) => bucket.events > 0);
    const head = ["From (UTC)", "Events", "Failed", ...shown.toReversed()];
    const row = (bucket) => [
      time(bucket.start_ms, 16),
      ...[bucket.events, bucket.failed, ...shown.toReversed().map((name) => bucket[name])].map((n) =>
        number(n ?? 0),
      ),
    ];
    const table = el(
      "table",
      { class: "plain" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          head.map((name) => el("th", { scope: "col" }, name)),
        ),
      ),
      el(
        "tbody",
        {},
        busy.map((bucket) =>
          el(
            "tr",
            {},
            row(bucket).map((cell) => el("td", {}, cell)),
          ),
        ),
      ),
    );
    details.append(
      el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Timeline as a table" }, table),
    );
  });
  return details;
}
