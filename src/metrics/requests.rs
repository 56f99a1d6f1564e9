//! What is asked over HTTP.

use prometheus::IntCounterVec;

use super::make::Maker;

/// Classes of answers.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

pub struct Requests {
    answered: IntCounterVec,
}

impl Requests {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            answered: maker.counters(
                (
                    "streamguard_http_requests_total",
                    "Requests that were answered, by the class of the answer's status.",
                ),
                "code",
                &CLASSES,
            ),
        }
    }

    /// A request was answered with this status.
    pub fn answer(&self, status: u16) {
        let class = usize::from(status / 100).saturating_sub(1);
        let class = CLASSES[class.min(CLASSES.len() - 1)];
        self.answered.with_label_values(&[class]).inc();
    }
}
