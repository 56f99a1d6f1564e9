//! Events on their way through a program: what came in, what left, how long that took.

use std::time::{Duration, Instant};

use prometheus::local::LocalHistogram;
use prometheus::{Gauge as FloatGauge, Histogram, IntCounterVec};

use super::make::Maker;
use super::{Counter, Gauge};
use crate::record::Code;
use crate::time::now_ms;

/// What passes lines to events.
const READ: &str = "read";

/// From a millisecond to a minute.
const LATENCY_BUCKETS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
];

pub struct Flow {
    processed: Counter,
    filtered: Counter,
    rejected: IntCounterVec,
    /// Counted where letters are kept.
    pub dead_letters: Counter,
    events_in: IntCounterVec,
    events_out: IntCounterVec,
    read: Passed,
    in_progress: Gauge,
    last_progress: FloatGauge,
    latency: Histogram,
}

/// Events that came into a stage, and that left it.
#[derive(Clone)]
pub struct Passed {
    pub n_in: Counter,
    pub n_out: Counter,
}

/// Events that have passed the sink, and may not be where they belong yet. Of one thread.
pub struct Leaving {
    latency: LocalHistogram,
    n_out: u64,
    n_known: u64,
    read_at: Vec<(Instant, usize)>,
}

impl Flow {
    pub(super) fn new(maker: &Maker<'_>, stages: &[&str]) -> Self {
        let events_in = maker.counters(
            (
                "streamguard_events_in_total",
                "Events that came into a stage; for read, lines.",
            ),
            "stage",
            stages,
        );
        let events_out = maker.counters(
            ("streamguard_events_out_total", "Events that left a stage."),
            "stage",
            stages,
        );
        let reasons = Code::OF_LINES.map(Code::name);
        let last_progress = maker.float_gauge(
            "streamguard_last_progress_timestamp_seconds",
            "When a batch last left the program whole, in seconds since 1970; at first, when it started.",
        );
        last_progress.set(now_s());
        Self {
            processed: maker.counter(
                "streamguard_events_processed_total",
                "Events that have left the program whole: stored, or written.",
            ),
            filtered: maker.counter(
                "streamguard_events_filtered_total",
                "Events that were not asked for or were stored already, and blank lines.",
            ),
            rejected: maker.counters(
                (
                    "streamguard_events_rejected_total",
                    "Lines that are no events, by what is wrong with them.",
                ),
                "reason",
                &reasons,
            ),
            dead_letters: maker.counter(
                "streamguard_dead_letters_total",
                "Lines that were kept as dead letters.",
            ),
            read: Passed::of(&events_in, &events_out, READ),
            in_progress: maker.gauge(
                "streamguard_events_in_progress",
                "Events that were read and have not left the program yet.",
            ),
            last_progress,
            latency: maker.histogram(
                "streamguard_processing_latency_seconds",
                "How long each event took from being read to leaving the program whole.",
                &LATENCY_BUCKETS,
            ),
            events_in,
            events_out,
        }
    }

    /// What passes a stage, for its thread.
    #[must_use]
    pub fn stage(&self, name: &str) -> Passed {
        Passed::of(&self.events_in, &self.events_out, name)
    }

    /// Lines were read, and these of them are events.
    pub fn read(&self, n_lines: u64, n_blank: u64, n_events: u64) {
        self.read.n_in.inc_by(n_lines);
        self.read.n_out.inc_by(n_events);
        self.filtered.inc_by(n_blank);
        self.in_progress.add(n_events as i64);
    }

    pub fn reject(&self, code: Code) {
        self.rejected.with_label_values(&[code.name()]).inc();
    }

    /// A stage has taken events out.
    pub fn filter(&self, n_events: u64) {
        self.filtered.inc_by(n_events);
        self.in_progress.sub(n_events as i64);
    }

    /// For the thread of the sink.
    #[must_use]
    pub fn leaving(&self) -> Leaving {
        Leaving {
            latency: self.latency.local(),
            n_out: 0,
            n_known: 0,
            read_at: Vec::new(),
        }
    }

    /// What has passed the sink is where it belongs.
    pub fn leave(&self, leaving: &mut Leaving) {
        let n_events = leaving.n_out + leaving.n_known;
        if n_events == 0 {
            return;
        }
        let now = Instant::now();
        for (read_at, n_events) in leaving.read_at.drain(..) {
            let latency_s = now.saturating_duration_since(read_at).as_secs_f64();
            for _ in 0..n_events {
                leaving.latency.observe(latency_s);
            }
        }
        leaving.latency.flush();
        self.processed.inc_by(leaving.n_out);
        self.filtered.inc_by(leaving.n_known);
        self.in_progress.sub(n_events as i64);
        self.last_progress.set(now_s());
        leaving.n_out = 0;
        leaving.n_known = 0;
    }
}

impl Passed {
    fn of(events_in: &IntCounterVec, events_out: &IntCounterVec, stage: &str) -> Self {
        Self {
            n_in: events_in.with_label_values(&[stage]),
            n_out: events_out.with_label_values(&[stage]),
        }
    }
}

impl Leaving {
    /// Events of a block, and when it was read.
    pub fn add_block(&mut self, read_at: Option<Instant>, n_events: usize) {
        if let Some(read_at) = read_at.filter(|_| n_events > 0) {
            self.read_at.push((read_at, n_events));
        }
    }

    /// What the sink says of a batch: events that were passed on, and that were known already.
    pub fn add(&mut self, n_out: u64, n_known: u64) {
        self.n_out += n_out;
        self.n_known += n_known;
    }
}

/// Seconds since 1970.
fn now_s() -> f64 {
    Duration::from_millis(now_ms().max(0) as u64).as_secs_f64()
}
