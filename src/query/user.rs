//! A user's baseline in human terms: what `sg-run` has learned if it keeps the store, else the
//! same counts made from the stored events.

mod lately;

use anyhow::Context as _;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Filter, Parts, Wanted, search};
use crate::detect::classic::{self, Baseline, Summary};
use crate::io::position::PartitionPosition;
use crate::schema;
use crate::store::{Order, View};
use crate::time::format_time;
use lately::Newest;

pub use lately::{Raised, RaisedEvent, Week};

/// Values that are shown of each kind.
const VALUES_SHOWN_MAX: usize = 20;

/// What is usual for a user.
#[derive(Debug, Serialize, ToSchema)]
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
    /// By day of the week, from the stored events.
    pub week: Week,
    /// What was out of character, from the stored events.
    pub anomalies: Raised,
}

/// Values with how often they were seen, the most frequent first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Usual {
    pub distinct: usize,
    pub top: Vec<UsualValue>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct UsualValue {
    pub value: String,
    pub events: u32,
    pub share: f64,
}

/// The profile of a user, or none if the databases know nothing of them.
///
/// # Errors
/// If a database cannot be read.
pub fn profile(parts: Parts<'_>, user: &str) -> anyhow::Result<Option<Profile>> {
    if let Some(summary) = learned(parts, user)? {
        let week = Newest::of(parts, user)?.week();
        let raised = lately::raised(parts, user)?;
        let profile = Profile::of(user, "baseline", &summary, week, raised);
        return Ok(Some(profile));
    }
    let filter = Filter {
        user: Some(user.to_owned()),
        order: Order::OldestFirst,
        ..Filter::default()
    };
    let mut baseline = Baseline::default();
    let mut newest = Newest::default();
    search(parts, Wanted::Events, &filter, |found| {
        newest.add(found);
        baseline.learn_event(&found.block.view(&found.block.events[0]));
        Ok(true)
    })?;
    let summary = baseline.summary();
    if summary.n_events == 0 {
        return Ok(None);
    }
    let raised = lately::raised(parts, user)?;
    let profile = Profile::of(user, "events", &summary, newest.week(), raised);
    Ok(Some(profile))
}

/// A baseline of a user.
struct Learned<'a> {
    view: &'a View<'a>,
    task: String,
    /// How far the task was read, if that is a partition: elsewhere it has left older baselines.
    position: Option<PartitionPosition>,
    record: Vec<u8>,
    summary: Summary,
}

/// The baseline of a user, if there is one that says all: one that can be shown, the newest of the only
/// task that has seen the user, and other databases have nothing of before or after it.
fn learned(parts: Parts<'_>, user: &str) -> anyhow::Result<Option<Summary>> {
    let mut found: Vec<Learned<'_>> = Vec::new();
    for view in parts.views() {
        for task in view.tasks()? {
            let Some(record) = view.baseline(&task, user)? else {
                continue;
            };
            // The adaptive detector keeps no texts to show.
            if view.detector()?.as_deref() != Some(classic::NAME) {
                return Ok(None);
            }
            // Some of it is of another time than the rest.
            if view.is_restoring(&task)? {
                continue;
            }
            let shown = view.path().display();
            let baseline = Baseline::from_record(&record)
                .with_context(|| format!("the baseline of {user} in {shown}"))?;
            found.push(Learned {
                view,
                position: view.task_position(&task)?,
                summary: baseline.summary(),
                record,
                task,
            });
        }
    }
    // A user of several tasks has as many baselines. What is not from a partition was read from as
    // many inputs as there are databases.
    let is_one_task = found.windows(2).all(|pair| {
        let cluster = |learned: &Learned<'_>| Some(learned.position.as_ref()?.cluster.clone());
        let both = cluster(&pair[0]).zip(cluster(&pair[1]));
        pair[0].task == pair[1].task && both.is_some_and(|(one, other)| one == other)
    });
    if !is_one_task {
        return Ok(None);
    }
    let newest = found.into_iter().max_by_key(|learned| {
        let offset = learned.position.as_ref().map(|position| position.offset);
        // Of as many lines: an analyst may have corrected one of them.
        (offset, learned.summary.n_events, learned.record.clone())
    });
    let Some(newest) = newest else {
        return Ok(None);
    };
    let (first_ms, last_ms) = (newest.summary.first_ms, newest.summary.last_ms);
    for view in parts.views() {
        // Its own database has what its detector has seen, or will see once it runs again.
        if !std::ptr::eq(view, newest.view)
            && let Some(first_stored_ms) = end_ms(view, user, Order::OldestFirst)?
            && let Some(last_stored_ms) = end_ms(view, user, Order::NewestFirst)?
            && (first_stored_ms < first_ms || last_stored_ms > last_ms)
        {
            return Ok(None);
        }
    }
    Ok(Some(newest.summary))
}

/// When the first event of a user in a database is, in an order of time.
fn end_ms(view: &View<'_>, user: &str, order: Order) -> anyhow::Result<Option<i64>> {
    let filter = Filter {
        user: Some(user.to_owned()),
        order,
        ..Filter::default()
    };
    let mut end_ms = None;
    let parts = Parts::of(std::slice::from_ref(view));
    search(parts, Wanted::Events, &filter, |found| {
        end_ms = schema::split_event_key(&found.key).map(|(ms, _)| ms);
        Ok(false)
    })?;
    Ok(end_ms)
}

impl Profile {
    fn of(
        user: &str,
        source: &'static str,
        summary: &Summary,
        week: Week,
        anomalies: Raised,
    ) -> Self {
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
            week,
            anomalies,
        }
    }
}

fn rounded(share: f64) -> f64 {
    (share * 10_000.0).round() / 10_000.0
}
