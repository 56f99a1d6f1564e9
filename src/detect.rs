//! How unusual is an event for its user? A detector sees the events of some users, each user's
//! in order, and keeps what it has learned of them. It knows nothing of lines, threads or files.

pub mod classic;
mod table;

pub use table::Seen;

use crate::record::EventView;
use crate::record::anomaly::Severity;

/// What a detector says of one event: JSON values to be appended to its line.
#[derive(Default)]
pub struct Verdict {
    /// The anomaly record, empty if the event is not anomalous.
    pub anomaly: Vec<u8>,
    /// What an analyst needs to know of the baseline, empty if nobody will ask.
    pub context: Vec<u8>,
}

impl Verdict {
    pub fn clear(&mut self) {
        self.anomaly.clear();
        self.context.clear();
    }
}

/// A streaming detector over a share of the users.
///
/// `observe` is called once for every event, for each user in the order of the input. What it
/// says must depend on nothing but the events of that user so far, so that any split of the
/// users over detectors gives the same answers.
pub trait Detector: Send + Sync {
    /// Scores the event, then learns from it. `verdict` comes cleared.
    fn observe(&mut self, event: &EventView<'_>, verdict: &mut Verdict);

    /// Appends the record of what is known of a user, and returns false if that is nothing.
    fn save(&self, user: &str, record: &mut Vec<u8>) -> bool;

    /// Calls `each` with the user and record of every baseline that has changed since the last
    /// call, in no order.
    fn take_changed(&mut self, each: &mut dyn FnMut(&str, Vec<u8>));

    /// Takes over a record made by `save`, in place of what is known of the user.
    ///
    /// # Errors
    /// If the record is of another version or damaged.
    fn load(&mut self, user: &str, record: &[u8]) -> Result<(), RecordError>;

    /// The users something is known of, in no order.
    fn users(&self) -> Box<dyn Iterator<Item = &str> + '_>;
}

/// Why a saved baseline cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("baseline has version {found}, this build reads version {known}")]
    Version { found: u8, known: u8 },
    #[error("baseline is damaged: {0}")]
    Damaged(String),
}

/// Which detector, and what it needs to know.
#[derive(Clone, Debug)]
pub struct DetectorConfig {
    pub threshold: f64,
    pub n_events_min: u64,
    pub severities: SeverityScale,
}

/// The score from which an anomaly is medium, high and critical; below it is low.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeverityScale {
    pub medium: f64,
    pub high: f64,
    pub critical: f64,
}

impl SeverityScale {
    #[must_use]
    pub fn of(&self, score: f64) -> Severity {
        match score {
            _ if score >= self.critical => Severity::Critical,
            _ if score >= self.high => Severity::High,
            _ if score >= self.medium => Severity::Medium,
            _ => Severity::Low,
        }
    }
}

/// Threat score from which an event is worth an analyst's look whatever its anomaly score.
pub const THREAT_SCORE_HIGH: f64 = 0.7;
