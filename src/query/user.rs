//! A user's baseline in human terms: what `sg-run` has learned if it keeps the store, else the
//! same counts made from the stored events.

use serde::Serialize;

use super::{Filter, Wanted, search};
use crate::detect::classic::{self, Baseline, Summary};
use crate::store::{Order, Store};
use crate::time::format_time;

/// Values that are shown of each kind.
const VALUES_SHOWN_MAX: usize = 20;

/// What is usual for a user.
#[derive(Debug, Serialize)]
pub struct Profile {
    pub user: String,
    /// `baseline`: as the detector has it. `events`: counted from the stored events.
    pub source: &'static str,
    pub events: u64,
    pub failed: u64,
    pub failure_share: f64,
    pub first: String,
    pub last: String,
    pub avg_threat_score: Option<f64>,
    /// Events by hour of the day, UTC.
    pub hours: [u32; 24],
    pub addresses: Usual,
    pub locations: Usual,
    pub types: Usual,
}

/// Values with how often they were seen, the most frequent first.
#[derive(Debug, Serialize)]
pub struct Usual {
    pub distinct: usize,
    pub top: Vec<UsualValue>,
}

#[derive(Debug, Serialize)]
pub struct UsualValue {
    pub value: String,
    pub events: u32,
    pub share: f64,
}

/// The profile of a user, or none if the store knows nothing of them.
///
/// # Errors
/// If the store cannot be read.
pub fn profile(store: &Store, user: &str) -> anyhow::Result<Option<Profile>> {
    // The adaptive detector keeps no texts to show. A user of several tasks has as many baselines.
    if store.detector()?.is_some_and(|name| name == classic::NAME)
        && let [task] = &store.tasks()?[..]
        && let Some(record) = store.baseline(task, user)?
    {
        let summary = Baseline::from_record(&record)?.summary();
        return Ok(Some(Profile::of(user, "baseline", &summary)));
    }
    let filter = Filter {
        user: Some(user.to_owned()),
        order: Order::OldestFirst,
        ..Filter::default()
    };
    let mut baseline = Baseline::default();
    search(store, Wanted::Events, &filter, |found| {
        baseline.learn_event(&found.block.view(&found.block.events[0]));
        Ok(true)
    })?;
    let summary = baseline.summary();
    Ok((summary.n_events > 0).then(|| Profile::of(user, "events", &summary)))
}

impl Profile {
    fn of(user: &str, source: &'static str, summary: &Summary) -> Self {
        let total = summary.n_events.max(1) as f64;
        let usual = |seen: &[crate::detect::Seen]| Usual {
            distinct: seen.len(),
            top: seen
                .iter()
                .take(VALUES_SHOWN_MAX)
                .map(|seen| UsualValue {
                    value: seen.value.to_string(),
                    events: seen.n_events,
                    share: rounded(f64::from(seen.n_events) / total),
                })
                .collect(),
        };
        let n_threat_scores = summary.n_threat_scores;
        Self {
            user: user.to_owned(),
            source,
            events: summary.n_events,
            failed: summary.n_failed,
            failure_share: rounded(summary.n_failed as f64 / total),
            first: format_time(summary.first_ms),
            last: format_time(summary.last_ms),
            avg_threat_score: (n_threat_scores > 0)
                .then(|| rounded(summary.threat_score_sum / n_threat_scores as f64)),
            hours: summary.hours,
            addresses: usual(&summary.ips),
            locations: usual(&summary.locations),
            types: usual(&summary.types),
        }
    }
}

fn rounded(share: f64) -> f64 {
    (share * 10_000.0).round() / 10_000.0
}
