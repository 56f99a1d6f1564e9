//! What scoring finds, and what it remembers for that.

use std::sync::Mutex;

use prometheus::local::LocalHistogram;
use prometheus::{Histogram, IntCounterVec, IntGaugeVec};

use super::make::Maker;
use super::top::Top;
use super::{Gauge, lock};
use crate::record::anomaly::Severity;

const SCORE_BUCKETS: [f64; 11] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99];

pub struct Scores {
    detected: [super::Counter; Severity::ALL.len()],
    histogram: Histogram,
    /// Users whose baselines are in memory, and the bytes of those.
    pub n_users: Gauge,
    pub n_bytes: Gauge,
    top: Option<Users>,
}

/// The users with the most anomalies.
struct Users {
    n_named: usize,
    top: Mutex<Top>,
    anomalies: IntGaugeVec,
}

/// Scores of one thread that have not been told yet.
pub struct Seen(LocalHistogram);

impl Scores {
    pub(super) fn new(maker: &Maker<'_>, n_users: usize) -> Self {
        let severities = Severity::ALL.map(Severity::name);
        let detected: IntCounterVec = maker.counters(
            (
                "streamguard_anomalies_detected_total",
                "Events that were raised as anomalies, by how severe they are.",
            ),
            "severity",
            &severities,
        );
        Self {
            detected: severities.map(|severity| detected.with_label_values(&[severity])),
            histogram: maker.histogram(
                "streamguard_anomaly_score",
                "Scores of all events that were scored, anomalies or not.",
                &SCORE_BUCKETS,
            ),
            n_users: maker.gauge(
                "streamguard_state_users",
                "Users whose baselines are in memory.",
            ),
            n_bytes: maker.gauge(
                "streamguard_state_bytes",
                "Memory that baselines take, in bytes.",
            ),
            top: (n_users > 0).then(|| Users {
                n_named: n_users,
                top: Mutex::default(),
                anomalies: maker.gauges(
                    "streamguard_user_anomalies",
                    "Anomalies of the users with the most of them since the program started, at least.",
                    &["user"],
                ),
            }),
        }
    }

    /// For a thread that scores.
    #[must_use]
    pub fn seen(&self) -> Seen {
        Seen(self.histogram.local())
    }

    /// Anomalies of a batch, with their users, who are only asked for if they matter.
    pub fn detect<'a>(
        &self,
        anomalies: impl Iterator<Item = (Severity, impl FnOnce() -> &'a str)>,
    ) {
        let mut top = self.top.as_ref().map(|users| lock(&users.top));
        let mut n_detected = [0; Severity::ALL.len()];
        for (severity, user) in anomalies {
            n_detected[severity as usize] += 1;
            if let Some(top) = &mut top {
                top.add(user());
            }
        }
        for (counter, n) in self.detected.iter().zip(n_detected) {
            counter.inc_by(n);
        }
    }

    /// Brings the series of users up to date: those who are no longer among the first go.
    pub(super) fn name_users(&self) {
        let Some(users) = &self.top else {
            return;
        };
        let top = lock(&users.top);
        users.anomalies.reset();
        for (user, n_anomalies) in top.first(users.n_named) {
            users
                .anomalies
                .with_label_values(&[user])
                .set(n_anomalies as i64);
        }
    }
}

impl Seen {
    /// Tells of scores.
    pub fn tell(&mut self, scores: impl Iterator<Item = f64>) {
        scores.for_each(|score| self.0.observe(score));
        self.0.flush();
    }
}
