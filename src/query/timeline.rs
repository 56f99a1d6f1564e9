//! How much has happened when: events and anomalies by stretches of time of one length.

use serde::Serialize;
use utoipa::ToSchema;

use super::keys::Keys;
use super::{Filter, Parts, Wanted, search};
use crate::schema;
use crate::store::{BySeverity, Order, parse_event};

/// Buckets at the most.
pub const BUCKETS_MAX: usize = 500;

/// Counts of one stretch of time after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Timeline {
    /// Both ends are included, in ms.
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
/// buckets.
///
/// # Errors
/// If a database cannot be read.
pub fn timeline(
    parts: Parts<'_>,
    since_ms: Option<i64>,
    until_ms: Option<i64>,
    n_buckets: usize,
) -> anyhow::Result<Timeline> {
    let since_ms = match since_ms {
        Some(since_ms) => since_ms,
        None => end_ms(parts, Order::OldestFirst)?.unwrap_or(0),
    };
    let until_ms = match until_ms {
        Some(until_ms) => until_ms,
        None => end_ms(parts, Order::NewestFirst)?.unwrap_or(-1),
    };
    let mut timeline = Timeline::new(since_ms, until_ms, n_buckets);
    if timeline.buckets.is_empty() {
        return Ok(timeline);
    }
    let filter = Filter {
        since_ms,
        until_ms,
        order: Order::OldestFirst,
        ..Filter::default()
    };
    let mut keys = Keys::open(parts, Wanted::Events, &filter);
    while let Some(met) = keys.next()? {
        let Some(bucket) = timeline.bucket_of(&met.key) else {
            continue;
        };
        bucket.events += 1;
        let mut copies = met.holders.into_iter().flatten();
        let event = copies.find_map(|(_, event)| event);
        let block = event.map(parse_event);
        let event = block.as_ref().and_then(|block| block.events.first());
        bucket.failed += u64::from(event.is_some_and(|event| event.is_failure));
    }
    search(parts, Wanted::Anomalies, &filter, |found| {
        let severity = found.anomaly.as_ref().map(|anomaly| anomaly.severity);
        if let (Some(severity), Some(bucket)) = (severity, timeline.bucket_of(&found.key)) {
            *bucket.anomalies.of_mut(severity) += 1;
        }
        Ok(true)
    })?;
    Ok(timeline)
}

/// When the first event in an order of time is.
fn end_ms(parts: Parts<'_>, order: Order) -> anyhow::Result<Option<i64>> {
    let filter = Filter {
        order,
        ..Filter::default()
    };
    let first = Keys::open(parts, Wanted::Events, &filter).next()?;
    let key = first.map(|met| met.key);
    Ok(key.and_then(|key| Some(schema::split_event_key(&key)?.0)))
}

impl Timeline {
    fn new(since_ms: i64, until_ms: i64, n_buckets: usize) -> Self {
        let range_ms = until_ms.saturating_sub(since_ms).saturating_add(1).max(0);
        let n_buckets = n_buckets.clamp(1, BUCKETS_MAX) as i64;
        let bucket_ms = (range_ms / n_buckets + i64::from(range_ms % n_buckets > 0)).max(1);
        let starts = (0..n_buckets).map(|i| i * bucket_ms);
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

    fn bucket_of(&mut self, key: &[u8]) -> Option<&mut Bucket> {
        let (timestamp_ms, _) = schema::split_event_key(key)?;
        let place = usize::try_from((timestamp_ms - self.since_ms) / self.bucket_ms).ok()?;
        self.buckets.get_mut(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_the_range_and_no_more() {
        let check = |since_ms, until_ms, n_buckets, expected: (i64, usize)| {
            let timeline = Timeline::new(since_ms, until_ms, n_buckets);
            let buckets = &timeline.buckets;
            assert_eq!((timeline.bucket_ms, buckets.len()), expected);
            if let (Some(first), Some(last)) = (buckets.first(), buckets.last()) {
                assert_eq!(first.start_ms, since_ms);
                assert!(last.start_ms <= until_ms);
                assert!(last.start_ms + timeline.bucket_ms > until_ms);
            }
        };
        check(0, 99, 10, (10, 10));
        check(0, 100, 10, (11, 10));
        check(5, 7, 10, (1, 3));
        check(5, 5, 1, (1, 1));
        check(7, 5, 10, (1, 0));
        check(-10, 10, 2, (11, 2));
        check(0, 999_999_999_999_999, 500, (2_000_000_000_000, 500));
        check(0, 10_000, 1_000_000, (21, 477));
    }
}
