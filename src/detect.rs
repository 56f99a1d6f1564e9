//! How unusual is an event for its user? A detector says how to look at an event and what to
//! remember of a user. It knows nothing of lines, threads or files.

pub mod adaptive;
pub mod classic;
mod correct;
mod silence;
mod table;
mod users;

pub use correct::{Correction, Corrector};
pub use silence::Silences;
pub use table::Seen;
pub use users::{UserKey, Users};

use std::cmp::Ordering;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::record::anomaly::Severity;
use crate::record::text::rounded;
use crate::record::{EventView, Values};

/// What a detector says of one event: JSON values to be appended to its line.
#[derive(Default)]
pub struct Verdict {
    /// The anomaly record, empty if the event is not anomalous.
    pub anomaly: Vec<u8>,
    /// What an analyst needs to know of the baseline, empty if nobody will ask.
    pub context: Vec<u8>,
    /// What the anomaly comes to, if it is one.
    pub raised: Option<Raised>,
    /// The event's score, anomaly or not, if there is enough to score it by.
    pub score: Option<f64>,
}

impl Verdict {
    pub fn clear(&mut self) {
        self.score = None;
        self.anomaly.clear();
        self.context.clear();
        self.raised = None;
    }
}

/// What tells anomalies of one user apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raised {
    pub severity: Severity,
    /// The number of the likeliest kind of attack, if the detector knows kinds.
    pub archetype: Option<u8>,
}

impl Raised {
    /// The kind of attack that tries passwords.
    pub const GUESSING: u8 = 2;

    #[must_use]
    pub fn is_guessing(self) -> bool {
        self.archetype == Some(Self::GUESSING)
    }
}

/// Steps in which states are fetched.
pub const PREFETCH_STEPS: usize = 3;

/// The first ones of an order in which no two are equal, sorted: so many at the most.
fn first_of<T>(mut all: Vec<T>, n_max: usize, order: impl Fn(&T, &T) -> Ordering) -> Vec<T> {
    if n_max < all.len() {
        all.select_nth_unstable_by(n_max, &order);
        all.truncate(n_max);
    }
    all.sort_unstable_by(order);
    all
}

/// An event that is observed.
pub trait Observed<'a> {
    /// All of it, for the rare one that has to be told of.
    fn view(&self) -> EventView<'a>;

    /// What the classic detector keeps of it.
    fn values(&self) -> Values<'a>;
}

/// A streaming detector: how to look at an event, and at one user's state.
///
/// The states of users are kept elsewhere, see [`Users`], spread over shards. `observe` is called
/// once for every event, for each user in the order of the input. What it says may depend on the
/// user's events so far and on what all users share as of the last epoch's end, and on nothing
/// else, so that any split of the users over shards and threads gives the same answers.
pub trait Detector: Send + Sync + 'static {
    /// What is looked at in an event. Made beforehand, in no order.
    type Features: Send + Sync + 'static;
    /// What is known of a user.
    type User: Send + Sync;
    /// What events of an epoch change in what users share; its sums must not depend on order.
    type Deltas: Send + Sync + Default;

    /// About the most bytes that a state takes.
    const USER_BYTES_MAX: usize;
    /// Whether [`Observed::values`] are asked of every event.
    const READS_VALUES: bool;

    fn features(event: &EventView<'_>) -> Self::Features;

    /// A user's state before the first event, which has these features.
    fn new_user(&self, features: &Self::Features) -> Self::User;

    /// Bytes that a state takes beside its own size.
    fn user_bytes(user: &Self::User) -> usize;

    /// Scores the event, then learns from it. `verdict` comes cleared.
    fn observe<'a>(
        &self,
        key: UserKey,
        user: &mut Self::User,
        deltas: &mut Self::Deltas,
        features: &Self::Features,
        event: &impl Observed<'a>,
        verdict: &mut Verdict,
    );

    /// Fetches a state from memory some events before one of its own comes, in [`PREFETCH_STEPS`]
    /// steps, each of which may look at what the one before has fetched. It changes nothing.
    fn prefetch(&self, user: &Self::User, features: &Self::Features, step: usize);

    /// Whether the event is the first of a new epoch, if `n_events` more of the current one come
    /// before it. It is asked of every event in input order, and then, if so, of it again once the
    /// epoch was turned.
    fn begins_epoch(&mut self, key: UserKey, features: &Self::Features, n_events: u64) -> bool;

    /// The current epoch has `n_events` more, and is over if so it is: the one of the event that was
    /// asked about last begins.
    fn turn_epoch(&mut self, deltas: &mut Self::Deltas, n_events: u64, is_over: bool);

    /// Events that came an hour or more later than others that came before them.
    fn n_late(&self) -> u64;

    /// Moves what `from` holds into `into`.
    fn merge(into: &mut Self::Deltas, from: &mut Self::Deltas);

    /// Appends the record of a user.
    fn write_user(&self, user: &Self::User, record: &mut Vec<u8>);

    /// Reads what [`Self::write_user`] has written.
    ///
    /// # Errors
    /// If the record is of another version or damaged.
    fn read_user(&self, record: &[u8]) -> Result<Self::User, RecordError>;

    /// The record of what users share, empty if that is nothing.
    fn write_shared(&self, deltas: &Self::Deltas) -> Vec<u8>;

    /// Takes over what [`Self::write_shared`] has written.
    ///
    /// # Errors
    /// If the record is of another version or damaged.
    fn read_shared(&mut self, record: &[u8]) -> Result<Self::Deltas, RecordError>;
}

/// What a record holds. Bytes that follow it are none of ours.
pub(crate) fn read_whole<T: DeserializeOwned>(record: &[u8]) -> Result<T, RecordError> {
    match postcard::take_from_bytes(record) {
        Ok((found, [])) => Ok(found),
        Ok(_) => Err(RecordError::Damaged("more bytes than it has".to_owned())),
        Err(error) => Err(RecordError::Damaged(error.to_string())),
    }
}

/// Why a saved baseline cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("baseline has version {found}, this build reads version {known}")]
    Version { found: u8, known: u8 },
    #[error("baseline is damaged: {0}")]
    Damaged(String),
}

/// The detectors there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DetectorKind {
    /// How much likelier than the user is an attacker to be where the event is
    Adaptive,
    /// How rare are hour, address, place and type for the user: a weighted sum
    Classic,
}

impl DetectorKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Adaptive => adaptive::NAME,
            Self::Classic => classic::NAME,
        }
    }
}

/// Which detector, and what it needs to know.
#[derive(Clone, Debug)]
pub struct DetectorConfig {
    pub kind: DetectorKind,
    /// Score from which an event is an anomaly.
    pub threshold: f64,
    /// Events that a user must have had before the next one can be an anomaly.
    pub n_events_min: u64,
    pub severities: SeverityScale,
    /// Nothing is an anomaly but the event of this id, and that comes with an [`Explanation`] in
    /// place of its record.
    pub explain: Option<String>,
    /// Events below the threshold come with their score, too, without being raised.
    pub with_all_scores: bool,
}

/// How an event was scored, piece by piece.
#[derive(Debug, Serialize, Deserialize)]
pub struct Explanation {
    pub event_id: String,
    pub user: String,
    pub timestamp: i64,
    pub detector: String,
    pub anomaly_score: f64,
    pub risk: f64,
    /// Events of the user before this one.
    pub baseline_events: u64,
    /// The risk by kind of attack, if there are kinds.
    pub archetypes: Vec<(String, f64)>,
    pub components: Vec<Piece>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize, Deserialize)]
pub struct Piece {
    pub component: String,
    /// Adaptive: the logarithm of how much likelier an attacker is. Classic: how rare it is.
    pub evidence: f64,
    /// How much it counts, for the likeliest kind of attack.
    pub weight: f64,
    /// What was found, if the event says anything about it.
    pub finding: Option<String>,
}

impl Explanation {
    /// Appends it as one JSON object, numbers as in anomaly records.
    pub(crate) fn write(mut self, output: &mut Vec<u8>) {
        let pieces = self.components.iter_mut().map(|piece| &mut piece.evidence);
        let risks = self.archetypes.iter_mut().map(|(_, risk)| risk);
        for number in [&mut self.anomaly_score, &mut self.risk]
            .into_iter()
            .chain(pieces)
            .chain(risks)
        {
            *number = rounded(*number);
        }
        serde_json::to_writer(output, &self).expect("memory takes every write");
    }
}

impl DetectorConfig {
    /// What a detector is set to if nobody says otherwise.
    #[must_use]
    pub fn standard(kind: DetectorKind) -> Self {
        let (threshold, n_events_min, [medium, high, critical]) = match kind {
            DetectorKind::Adaptive => (0.99, 0, [0.995, 0.999, 0.9999]),
            DetectorKind::Classic => (0.7, 100, [0.75, 0.8, 0.9]),
        };
        Self {
            kind,
            threshold,
            n_events_min,
            severities: SeverityScale {
                medium,
                high,
                critical,
            },
            explain: None,
            with_all_scores: false,
        }
    }
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
