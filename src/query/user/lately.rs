//! What the stored events say of a user's last time, whatever a baseline remembers from before: which
//! days and hours they were at, and what was out of character.

use std::collections::VecDeque;

use serde::Serialize;
use utoipa::ToSchema;

use super::super::{Filter, Found, Parts, Wanted, search};
use crate::record::anomaly::Severity;
use crate::store::BySeverity;
use crate::time::{format_time, hour_of_day, weekday};
use crate::{record, schema};

/// Events that a week is drawn of: a robot's are too many to read all of them.
const EVENTS_MAX: usize = 10_000;
/// Anomalies that are counted.
const ANOMALIES_MAX: usize = 1_000;
/// Anomalies that are shown.
const ANOMALIES_SHOWN_MAX: usize = 5;

/// When events were, by day and hour.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Week {
    /// How many: the newest 10,000 at most.
    pub events: u32,
    /// By day of the week, Monday first, and hour of the day, UTC.
    pub hours: [[u32; 24]; 7],
}

/// Times of the newest events, met in order of time.
#[derive(Default)]
pub(super) struct Newest(VecDeque<i64>);

/// Anomalies of a user: the newest 1,000 at most.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Raised {
    #[serde(flatten)]
    pub by_severity: BySeverity,
    /// There are older ones, which are not counted.
    pub more: bool,
    /// The last five, the newest first.
    pub last: Vec<RaisedEvent>,
}

/// An event that was out of character.
#[derive(Debug, Serialize, ToSchema)]
pub struct RaisedEvent {
    pub event_id: String,
    pub time: String,
    pub timestamp: i64,
    #[serde(rename = "type")]
    pub kind: String,
    pub severity: Severity,
    pub anomaly_score: f64,
    pub reasons: Vec<String>,
}

impl Newest {
    /// Of a user, as they are stored.
    pub(super) fn of(parts: Parts<'_>, user: &str) -> anyhow::Result<Self> {
        let filter = Filter {
            user: Some(user.to_owned()),
            limit: EVENTS_MAX,
            ..Filter::default()
        };
        let mut newest = Self::default();
        search(parts, Wanted::Events, &filter, |found| {
            newest.0.extend(time_of(found));
            Ok(true)
        })?;
        Ok(newest)
    }

    /// Takes in an event that is newer than all others.
    pub(super) fn add(&mut self, found: &Found) {
        self.0.extend(time_of(found));
        if self.0.len() > EVENTS_MAX {
            self.0.pop_front();
        }
    }

    pub(super) fn week(&self) -> Week {
        let mut week = Week::default();
        for &timestamp_ms in &self.0 {
            week.events += 1;
            week.hours[weekday(timestamp_ms)][hour_of_day(timestamp_ms)] += 1;
        }
        week
    }
}

fn time_of(found: &Found) -> Option<i64> {
    schema::split_event_key(&found.key).map(|(timestamp_ms, _)| timestamp_ms)
}

/// The anomalies of a user.
pub(super) fn raised(parts: Parts<'_>, user: &str) -> anyhow::Result<Raised> {
    let filter = Filter {
        user: Some(user.to_owned()),
        limit: ANOMALIES_MAX,
        ..Filter::default()
    };
    let mut raised = Raised::default();
    let rest = search(parts, Wanted::Anomalies, &filter, |found| {
        let Some(anomaly) = &found.anomaly else {
            return Ok(true);
        };
        *raised.by_severity.of_mut(anomaly.severity) += 1;
        if raised.last.len() < ANOMALIES_SHOWN_MAX {
            let view = found.block.view(&found.block.events[0]);
            raised.last.push(RaisedEvent {
                event_id: view.event_id.to_owned(),
                time: format_time(view.timestamp_ms),
                timestamp: view.timestamp_ms,
                kind: view.kind.to_owned(),
                severity: anomaly.severity,
                anomaly_score: record::text::rounded(anomaly.anomaly_score),
                reasons: anomaly.reasons.clone(),
            });
        }
        Ok(true)
    })?;
    raised.more = rest.is_some();
    Ok(raised)
}
