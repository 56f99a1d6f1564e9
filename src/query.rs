//! Questions to one database or to several as if they were one, the same for every way of asking:
//! events, anomalies, one event, one user. Answers come one by one, so that an export of any size
//! needs no memory.

mod feedback;
mod high;
mod incidents;
mod keys;
mod parts;
pub mod similar;
mod stats;
mod stop;
mod timeline;
mod troubled;
mod user;
mod watch;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use anyhow::Context as _;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::Deserialize;
use serde::de::IgnoredAny;

pub use feedback::{FeedbackFilter, feedback};
pub use incidents::{Incident, incidents};
pub use parts::Parts;
pub use stats::{Stats, Summary, counters, stats};
pub use stop::{Stop, Stopped};
pub use timeline::{BUCKETS_MAX, Bucket, Timeline, timeline};
pub use troubled::{TroubledUser, troubled_users};
pub use user::{Profile, Raised, RaisedEvent, Usual, UsualValue, Week, profile};
pub use watch::{Seen, Watch};

use crate::batch::Block;
use crate::record::StageField;
use crate::record::analysis::AnalysisRecord;
use crate::record::anomaly::{AnomalyRecord, Severity};
use crate::record::feedback::Feedback;
use crate::schema;
use crate::store::{Order, View};
use keys::Keys;

/// What to look for. Times are in ms, both ends included.
#[derive(Clone, Debug)]
pub struct Filter {
    pub since_ms: i64,
    pub until_ms: i64,
    pub user: Option<String>,
    pub kind: Option<String>,
    pub source_ip: Option<String>,
    pub min_score: Option<f64>,
    /// This severity or a higher one.
    pub severity: Option<Severity>,
    pub order: Order,
    /// Go on after the item that this key belongs to.
    pub after: Option<Vec<u8>>,
    pub limit: usize,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            since_ms: 0,
            until_ms: crate::record::TIMESTAMP_MS_MAX,
            user: None,
            kind: None,
            source_ip: None,
            min_score: None,
            severity: None,
            order: Order::NewestFirst,
            after: None,
            limit: usize::MAX,
        }
    }
}

/// Which items are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Events,
    Anomalies,
    /// Events that have been analysed.
    Analyses,
}

/// An event that was found, with its anomaly if it is one.
pub struct Found {
    pub key: Vec<u8>,
    pub block: Block,
    pub anomaly: Option<AnomalyRecord>,
    /// The anomaly record as it is stored.
    pub anomaly_json: Option<Vec<u8>>,
    /// An analyst's verdict, if the question was for this one event.
    pub feedback: Option<Feedback>,
    /// What the line says of it, if it has to say anything.
    pub feedback_json: Option<Vec<u8>>,
}

impl Found {
    /// What became of having the event analysed, if it was.
    #[must_use]
    pub fn analysis(&self) -> Option<AnalysisRecord> {
        let value = (self.block).stage_value(&self.block.events[0], StageField::Analysis)?;
        serde_json::from_slice(value).ok()
    }

    /// The event's line with a line end and all that stages have added, as they would write it.
    pub fn push_line(&self, output: &mut Vec<u8>) {
        self.block.push_line(&self.block.events[0], output);
        if let Some(json) = &self.feedback_json {
            let close = output.trim_ascii_end().len() - 1;
            output.truncate(close);
            output.extend_from_slice(b",\"feedback\":");
            output.extend_from_slice(json);
            output.extend_from_slice(b"}\n");
        }
    }
}

/// Calls `each` with the items that match, in order, until it returns false or the limit is
/// reached. Returns the key to go on after, if there is more.
///
/// # Errors
/// If a database cannot be read, or as `each` says.
pub fn search(
    parts: Parts<'_>,
    wanted: Wanted,
    filter: &Filter,
    mut each: impl FnMut(&Found) -> anyhow::Result<bool>,
) -> anyhow::Result<Option<Vec<u8>>> {
    let mut keys = Keys::open(parts, wanted, filter)?;
    let mut n_found = 0;
    let mut last = None;
    while let Some(met) = keys.next()? {
        let Some(found) = parts.choose(met)? else {
            continue;
        };
        if !matches(&found, wanted, filter) {
            continue;
        }
        if n_found == filter.limit {
            return Ok(last);
        }
        n_found += 1;
        let goes_on = each(&found)?;
        last = Some(found.key);
        if !goes_on {
            return Ok(last);
        }
    }
    Ok(None)
}

/// The matching anomalies with the highest scores, the highest first; of equals the riskiest, then
/// the newest.
///
/// # Errors
/// If a database cannot be read.
pub fn top_anomalies(parts: Parts<'_>, filter: &Filter) -> anyhow::Result<Vec<Found>> {
    let mut best: BinaryHeap<Reverse<(u64, u64, Vec<u8>)>> = BinaryHeap::new();
    let all = Filter {
        limit: usize::MAX,
        ..filter.clone()
    };
    search(parts, Wanted::Anomalies, &all, |found| {
        let ranks = found.anomaly.as_ref().map_or((0, 0), |anomaly| {
            (rank(anomaly.anomaly_score), rank(anomaly.risk))
        });
        best.push(Reverse((ranks.0, ranks.1, found.key.clone())));
        if best.len() > filter.limit {
            best.pop();
        }
        Ok(true)
    })?;
    let mut found = Vec::new();
    for Reverse((_, _, key)) in best.into_sorted_vec() {
        found.extend(parts.find(key)?);
    }
    Ok(found)
}

/// A number that orders like a score or risk, which may be below 0, where bits order backwards.
fn rank(score: f64) -> u64 {
    const SIGN: u64 = 1 << 63;
    // Both zeros are one.
    let bits = (score + 0.0).to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

/// The events with that id, with the verdicts on them.
///
/// # Errors
/// If a database cannot be read.
pub fn event(parts: Parts<'_>, event_id: &str) -> anyhow::Result<Vec<Found>> {
    first_events(parts, event_id, usize::MAX)
}

/// The same, the oldest ones if there are more than `limit`.
///
/// # Errors
/// If a database cannot be read.
pub fn first_events(parts: Parts<'_>, event_id: &str, limit: usize) -> anyhow::Result<Vec<Found>> {
    let mut events = Vec::new();
    for key in parts.keys_of_id(event_id)?.into_iter().take(limit) {
        let Some(mut found) = parts.find(key)? else {
            continue;
        };
        found.feedback = parts.feedback(&found.key)?;
        found.feedback_json = match &found.feedback {
            Some(feedback) => Some(serde_json::to_vec(feedback)?),
            // Or the event's own word would pass for an analyst's.
            None => has_own_feedback(&found).then(|| b"null".to_vec()),
        };
        events.push(found);
    }
    Ok(events)
}

/// Whether the event came with a field of the name that its verdict is shown by.
fn has_own_feedback(found: &Found) -> bool {
    #[derive(Deserialize)]
    struct Own {
        feedback: Option<IgnoredAny>,
    }
    let mut line = Vec::new();
    let event = &found.block.events[0];
    found.block.push_bare_line(event, &mut line);
    // Not readable means that it has it twice.
    serde_json::from_slice::<Own>(&line).map_or(true, |own| own.feedback.is_some())
}

/// The text that stands for a place in an answer.
#[must_use]
pub fn cursor(key: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(key)
}

/// The place that a text from [`cursor`] stands for.
///
/// # Errors
/// If it is not such a text.
pub fn parse_cursor(text: &str) -> anyhow::Result<Vec<u8>> {
    let key = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
    key.filter(|key| is_event_key(key))
        .context("the cursor is not one that an earlier answer gave")
}

/// Whether a key can be one that [`schema::push_event_key`] has made.
fn is_event_key(key: &[u8]) -> bool {
    schema::split_event_key(key).is_some_and(|(_, event_id)| !event_id.is_empty())
}

/// The event with that key in a database, with all that stages have added.
///
/// # Errors
/// If it cannot be read, or what it holds is not an event.
pub fn find(view: &View<'_>, key: Vec<u8>) -> anyhow::Result<Option<Found>> {
    Parts::of(std::slice::from_ref(view)).find(key)
}

fn matches(found: &Found, wanted: Wanted, filter: &Filter) -> bool {
    let view = found.block.view(&found.block.events[0]);
    let score = found.anomaly.as_ref().map(|anomaly| anomaly.anomaly_score);
    let severity = found.anomaly.as_ref().map(|anomaly| anomaly.severity);
    let is_wanted = match wanted {
        Wanted::Events => true,
        Wanted::Anomalies => found.anomaly.is_some(),
        Wanted::Analyses => found.analysis().is_some(),
    };
    is_wanted
        && filter.user.as_deref().is_none_or(|user| user == view.user)
        && filter.kind.as_deref().is_none_or(|kind| kind == view.kind)
        && filter
            .source_ip
            .as_deref()
            .is_none_or(|ip| Some(ip) == view.source_ip)
        && filter
            .min_score
            .is_none_or(|min| score.is_some_and(|score| score >= min))
        && filter
            .severity
            .is_none_or(|min| severity.is_some_and(|severity| severity >= min))
}
