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

/// Calls `each` with the matching anomalies with the highest scores, the highest first, until it returns
/// false; of equals the riskiest, then the newest.
///
/// # Errors
/// If a database cannot be read, or as `each` says.
pub fn top_anomalies(
    parts: Parts<'_>,
    filter: &Filter,
    mut each: impl FnMut(Found) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
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
    for Reverse((_, _, key)) in best.into_sorted_vec() {
        parts.check()?;
        if let Some(found) = parts.find(key)?
            && !each(found)?
        {
            break;
        }
    }
    Ok(())
}

/// A number that orders like a score or risk, which may be below 0, where bits order backwards.
fn rank(score: f64) -> u64 {
    const SIGN: u64 = 1 << 63;
    // Both zeros are one.
    let bits = (score + 0.0).to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

/// Calls `each` with the events with that id in order, with the verdicts on them, until it returns false.
///
/// # Errors
/// If a database cannot be read, or as `each` says.
pub fn events_of_id(
    parts: Parts<'_>,
    event_id: &str,
    order: Order,
    mut each: impl FnMut(Found) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    parts.keys_of_id(event_id, order, |key| {
        let Some(mut found) = parts.find(key)? else {
            return Ok(true);
        };
        found.feedback = parts.feedback(&found.key)?;
        found.feedback_json = match &found.feedback {
            Some(feedback) => Some(serde_json::to_vec(feedback)?),
            // Or the event's own word would pass for an analyst's.
            None => has_own_feedback(&found).then(|| b"null".to_vec()),
        };
        each(found)
    })
}

/// The newest event with that id: it may have been used at several times.
///
/// # Errors
/// If a database cannot be read.
pub fn newest_event(parts: Parts<'_>, event_id: &str) -> anyhow::Result<Option<Found>> {
    let mut newest = None;
    events_of_id(parts, event_id, Order::NewestFirst, |found| {
        newest = Some(found);
        Ok(false)
    })?;
    Ok(newest)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::store::{Access, Store, Tuning};

    /// Puts an anomaly at each of these times.
    fn stored(folder: &Path, event_id: &str, times_ms: &[i64]) -> Store {
        let store = Store::open(folder, Access::Write, &Tuning::default()).expect("it opens");
        for timestamp in times_ms {
            let start = format!(r#"{{"event_id":"{event_id}","user":"u","timestamp":{timestamp},"#);
            let event = format!(r#"{start}"type":"T"}}"#);
            let anomaly_score = *timestamp as f64 / 1e4;
            let anomaly = format!(r#"{start}"anomaly_score":{anomaly_score},"severity":"high"}}"#);
            let mut key = Vec::new();
            schema::push_event_key(&mut key, *timestamp, event_id);
            store.put(schema::EVENTS, &key, event.as_bytes());
            store.put(schema::ANOMALIES, &key, anomaly.as_bytes());
            key.clear();
            schema::push_id_key(&mut key, event_id, *timestamp);
            store.put(schema::BY_ID, &key, b"");
        }
        store
    }

    fn timestamp_ms(found: &Found) -> i64 {
        found.block.view(&found.block.events[0]).timestamp_ms
    }

    /// Events of one id, or of the highest scores, were all in memory before the first of them was looked
    /// at, however long that took.
    #[test]
    fn no_more_is_read_than_is_taken() {
        let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let stores = [
            stored(folders[0].path(), "e", &[1, 2, 3, 5]),
            stored(folders[1].path(), "e", &[2, 4]),
        ];
        let views = stores.each_ref().map(Store::view);
        let stop = Stop::within(std::time::Duration::from_secs(3_600));
        let parts = Parts::of(&views).until(&stop);
        let of_id = |order, n_taken: usize| {
            let mut times_ms = Vec::new();
            let asked = events_of_id(parts, "e", order, |found| {
                times_ms.push(timestamp_ms(&found));
                Ok(times_ms.len() < n_taken)
            });
            asked.map(|()| times_ms)
        };
        let all = of_id(Order::OldestFirst, 9).expect("it can be read");
        assert_eq!(all, [1, 2, 3, 4, 5]);
        let all = of_id(Order::NewestFirst, 9).expect("it can be read");
        assert_eq!(all, [5, 4, 3, 2, 1]);
        assert_eq!(
            of_id(Order::NewestFirst, 2).expect("it can be read"),
            [5, 4]
        );
        let newest = newest_event(parts, "e").expect("it can be read");
        assert_eq!(newest.as_ref().map(timestamp_ms), Some(5));
        assert!(newest_event(parts, "f").expect("it can be read").is_none());

        let mut top = Vec::new();
        let mut take = |found: Found| {
            top.push(timestamp_ms(&found));
            Ok(top.len() < 3)
        };
        top_anomalies(parts, &Filter::default(), &mut take).expect("it can be read");
        assert_eq!(top, [5, 4, 3]);

        let mut n_read = 0;
        let stopped = events_of_id(parts, "e", Order::OldestFirst, |_| {
            n_read += 1;
            stop.request();
            Ok(true)
        });
        assert!(stopped.is_err_and(|error| error.is::<Stopped>()));
        assert_eq!(n_read, 1);
    }
}
