//! How much has happened when: events and anomalies by buckets of time of one length. Very many events are
//! counted by stretches, whose records the database keeps; others one by one.

use serde::Serialize;
use utoipa::ToSchema;

use super::Parts;
use super::stats::{each_copy, ends};
use crate::record::TIMESTAMP_MS_MAX;
use crate::record::anomaly::Severity;
use crate::schema;
use crate::store::{BySeverity, Order, View, parse_event};

/// Buckets at the most.
pub const BUCKETS_MAX: usize = 500;
/// Events that are counted one by one, so that buckets may begin at any time.
const EVENTS_MAX: u64 = 50_000;

/// Counts of one bucket after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Timeline {
    /// Both ends are included, in ms. With very many events between them they are those of stretches of
    /// 2^20 ms, and a little beyond what was asked for.
    pub since_ms: i64,
    pub until_ms: i64,
    /// Length of each bucket but the last one, which ends with the range.
    pub bucket_ms: i64,
    pub buckets: Vec<Bucket>,
}

/// What has happened in one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Bucket {
    pub start_ms: i64,
    pub events: u64,
    /// Events that have failed or were blocked.
    pub failed: u64,
    #[serde(flatten)]
    pub anomalies: BySeverity,
}

/// Counts events and anomalies between two times in ms, both included, in `n_buckets` buckets at the
/// most. Without a time it is from the first event on or up to the last one; without events there are no
/// buckets. If there are more than 50,000 events buckets begin and end with stretches.
///
/// # Errors
/// If a database cannot be read, or the question is ended.
pub fn timeline(
    parts: Parts<'_>,
    since_ms: Option<i64>,
    until_ms: Option<i64>,
    n_buckets: usize,
) -> anyhow::Result<Timeline> {
    let views = parts.views();
    let ends = ends(views)?;
    // No event is out of this range.
    let since_ms = since_ms.or(ends.first_ms()).unwrap_or(0).max(0);
    let until_ms = until_ms.or(ends.last_ms()).unwrap_or(-1);
    let until_ms = until_ms.min(TIMESTAMP_MS_MAX);
    let mut timeline = Timeline::new(since_ms, until_ms, n_buckets, 1);
    if timeline.buckets.is_empty() {
        return Ok(timeline);
    }
    let by_stretches = timeline.has_many(views)?;
    if by_stretches {
        let (since_ms, _) = schema::stretch_ms(schema::stretch_at(since_ms));
        let (_, end_ms) = schema::stretch_ms(schema::stretch_at(until_ms));
        timeline = Timeline::new(since_ms, end_ms - 1, n_buckets, schema::STRETCH_MS);
    }
    for view in views {
        if by_stretches {
            timeline.add_stretches(parts, view)?;
        } else {
            timeline.add_events(parts, view)?;
        }
        timeline.add_anomalies(parts, view)?;
    }
    let (from_ms, to_ms) = ends.shared();
    let shared = (from_ms.max(timeline.since_ms), to_ms.min(timeline.until_ms));
    if shared.0 > shared.1 {
        // Else all users would be looked at for nothing.
        return Ok(timeline);
    }
    each_copy(parts, shared, |_, found| {
        let view = found.block.view(&found.block.events[0]);
        let Some(bucket) = timeline.bucket_at(view.timestamp_ms) else {
            return;
        };
        bucket.events = bucket.events.saturating_sub(1);
        bucket.failed = (bucket.failed).saturating_sub(u64::from(view.is_failure));
        if let Some(anomaly) = &found.anomaly {
            let n_anomalies = bucket.anomalies.of_mut(anomaly.severity);
            *n_anomalies = n_anomalies.saturating_sub(1);
        }
    })?;
    Ok(timeline)
}

impl Timeline {
    /// Buckets whose length is a multiple of `unit_ms`.
    fn new(since_ms: i64, until_ms: i64, n_buckets: usize, unit_ms: i64) -> Self {
        let range_ms = until_ms.saturating_sub(since_ms).saturating_add(1).max(0);
        let n_buckets = n_buckets.clamp(1, BUCKETS_MAX) as i64;
        let n_units = range_ms / unit_ms + i64::from(range_ms % unit_ms > 0);
        let units_each = (n_units / n_buckets + i64::from(n_units % n_buckets > 0)).max(1);
        let bucket_ms = units_each.saturating_mul(unit_ms);
        let starts = (0..n_buckets).map(|i| i.saturating_mul(bucket_ms));
        let starts = starts.take_while(|start_ms| *start_ms < range_ms);
        let buckets = starts.map(|start_ms| Bucket {
            start_ms: since_ms + start_ms,
            ..Bucket::default()
        });
        Self {
            since_ms,
            until_ms,
            bucket_ms,
            buckets: buckets.collect(),
        }
    }

    /// Whether there are more events in it than are counted one by one. Nobody knows if one of the databases
    /// has no records of stretches.
    fn has_many(&self, views: &[View<'_>]) -> anyhow::Result<bool> {
        let mut n_events = 0;
        for view in views {
            if !view.has_stretches()? {
                return Ok(false);
            }
            let mut stretches = view.walk_stretches(self.since_ms, Order::OldestFirst);
            while n_events <= EVENTS_MAX
                && let Some((number, stretch)) = stretches.next_stretch()?
                && schema::stretch_ms(number).0 <= self.until_ms
            {
                n_events += stretch.n_events;
            }
        }
        Ok(n_events > EVENTS_MAX)
    }

    fn add_stretches(&mut self, parts: Parts<'_>, view: &View<'_>) -> anyhow::Result<()> {
        let mut stretches = view.walk_stretches(self.since_ms, Order::OldestFirst);
        while let Some((number, stretch)) = stretches.next_stretch()?
            && let Some(bucket) = self.bucket_at(schema::stretch_ms(number).0)
        {
            parts.check()?;
            bucket.events += stretch.n_events;
            bucket.failed += stretch.n_failed;
        }
        Ok(())
    }

    fn add_events(&mut self, parts: Parts<'_>, view: &View<'_>) -> anyhow::Result<()> {
        let from = schema::time_prefix(self.since_ms);
        let mut events = view.walk(schema::EVENTS, &from, Order::OldestFirst);
        while let Some((key, event)) = events.next_entry()? {
            parts.check()?;
            let Some((timestamp_ms, _)) = schema::split_event_key(&key) else {
                continue;
            };
            let Some(bucket) = self.bucket_at(timestamp_ms) else {
                break;
            };
            bucket.events += 1;
            let block = parse_event(event);
            let is_failure = block.events.first().is_some_and(|event| event.is_failure);
            bucket.failed += u64::from(is_failure);
        }
        Ok(())
    }

    fn add_anomalies(&mut self, parts: Parts<'_>, view: &View<'_>) -> anyhow::Result<()> {
        for severity in Severity::ALL {
            let from_ms = self.since_ms.max(0);
            let mut entries = view.walk_severity(severity, from_ms, Order::OldestFirst);
            while let Some((key, _)) = entries.next_entry()?
                && key.first() == Some(&(severity as u8))
            {
                parts.check()?;
                let Some((timestamp_ms, _)) = schema::split_severity_key(&key) else {
                    continue;
                };
                let Some(bucket) = self.bucket_at(timestamp_ms) else {
                    break;
                };
                *bucket.anomalies.of_mut(severity) += 1;
            }
        }
        Ok(())
    }

    /// The bucket of a time; none behind the range.
    fn bucket_at(&mut self, timestamp_ms: i64) -> Option<&mut Bucket> {
        if timestamp_ms > self.until_ms {
            return None;
        }
        let place = (timestamp_ms - self.since_ms) / self.bucket_ms;
        self.buckets.get_mut(usize::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_the_range_and_no_more() {
        let check = |since_ms, until_ms, n_buckets, unit_ms, expected: (i64, usize)| {
            let timeline = Timeline::new(since_ms, until_ms, n_buckets, unit_ms);
            let buckets = &timeline.buckets;
            assert_eq!((timeline.bucket_ms, buckets.len()), expected);
            if let (Some(first), Some(last)) = (buckets.first(), buckets.last()) {
                assert_eq!(first.start_ms, since_ms);
                assert!(last.start_ms <= until_ms);
                assert!(last.start_ms + timeline.bucket_ms > until_ms);
            }
        };
        check(0, 99, 10, 1, (10, 10));
        check(0, 100, 10, 1, (11, 10));
        check(5, 7, 10, 1, (1, 3));
        check(5, 5, 1, 1, (1, 1));
        check(7, 5, 10, 1, (1, 0));
        check(-10, 10, 2, 1, (11, 2));
        check(0, 999_999_999_999_999, 500, 1, (2_000_000_000_000, 500));
        check(0, 10_000, 1_000_000, 1, (21, 477));
        check(0, 99, 10, 20, (20, 5));
        check(0, 99, 3, 20, (40, 3));
        check(0, TIMESTAMP_MS_MAX, 500, 1 << 20, (1_907_349 << 20, 500));
    }
}
