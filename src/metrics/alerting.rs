//! What becomes of alerts.

use prometheus::IntCounterVec;

use super::Gauge;
use super::make::Maker;

/// Kinds of targets.
const KINDS: [&str; 3] = ["file", "kafka", "webhook"];

pub struct Alerting {
    delivered: IntCounterVec,
    failed: IntCounterVec,
    refused: IntCounterVec,
    /// Alerts that wait, once for each target.
    pub pending: Gauge,
}

impl Alerting {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        let counters = |name, help| maker.counters((name, help), "kind", &KINDS);
        Self {
            delivered: counters(
                "streamguard_alerts_delivered_total",
                "Alerts that a target has, by its kind.",
            ),
            failed: counters(
                "streamguard_alerts_failed_total",
                "Attempts to deliver alerts that have failed, by the target's kind.",
            ),
            refused: counters(
                "streamguard_alerts_refused_total",
                "Alerts that a target will not have, by its kind: they were put aside.",
            ),
            pending: maker.gauge(
                "streamguard_alerts_pending",
                "Alerts that wait for a target, once for each.",
            ),
        }
    }

    pub fn deliver(&self, kind: &str, n_alerts: u64) {
        self.delivered.with_label_values(&[kind]).inc_by(n_alerts);
    }

    pub fn fail(&self, kind: &str) {
        self.failed.with_label_values(&[kind]).inc();
    }

    pub fn refuse(&self, kind: &str) {
        self.refused.with_label_values(&[kind]).inc();
    }
}
