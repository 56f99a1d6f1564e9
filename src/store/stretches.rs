//! What there is in each stretch of time: how many events and failures, and how high scores are. Who asks
//! how many there were need not walk events, and who asks for high scores passes over stretches without.
//!
//! The writer keeps these records, in the same write as the events. Numbers are exact; a score may be too
//! high, once an event has been scored anew or was pruned, and never too low.

use std::collections::hash_map::Entry;

use anyhow::Context as _;
use foldhash::HashMap;
use rocksdb::WriteBatch;

use super::admin::{Verified, parse_event, show};
use super::writer::anomaly_of;
use super::{Order, Store, View, Walk};
use crate::record::anomaly::Severity;
use crate::schema;

/// Stretches that a writer remembers; beyond it they are read again.
const STRETCHES_MAX: usize = 4_096;
/// Records that go into one write when they are made anew.
const RECORDS_MAX: usize = 1_000;

/// What there is in a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stretch {
    pub n_events: u64,
    pub n_failed: u64,
    /// Of anomalies that had that severity when they came.
    highest: [f64; Severity::ALL.len()],
}

impl Stretch {
    /// No anomaly of that severity has a higher score. What was raised to it had a lower one before.
    #[must_use]
    pub fn highest(&self, severity: Severity) -> f64 {
        let upto = &self.highest[..=severity as usize];
        upto.iter().copied().fold(0.0, f64::max)
    }

    fn add(&mut self, is_failure: bool) {
        self.n_events += 1;
        self.n_failed += u64::from(is_failure);
    }

    fn raise(&mut self, severity: Severity, score: f64) -> bool {
        let highest = &mut self.highest[severity as usize];
        let is_higher = score > *highest;
        *highest = highest.max(score);
        is_higher
    }

    fn read(value: &[u8]) -> Option<Self> {
        let (words, []) = value.as_chunks::<8>() else {
            return None;
        };
        let [n_events, n_failed, highest @ ..] = words else {
            return None;
        };
        let highest: &[[u8; 8]; Severity::ALL.len()] = highest.try_into().ok()?;
        Some(Self {
            n_events: u64::from_be_bytes(*n_events),
            n_failed: u64::from_be_bytes(*n_failed),
            highest: highest.map(f64::from_be_bytes),
        })
    }

    fn value(&self) -> Vec<u8> {
        let counts = [self.n_events, self.n_failed].map(u64::to_be_bytes);
        let highest = self.highest.map(f64::to_be_bytes);
        [counts.as_flattened(), highest.as_flattened()].concat()
    }
}

/// Keeps the records right while events come and go. What it says goes into the same write as they do.
#[derive(Default)]
pub(super) struct StretchKeeper {
    /// With whether it has changed since the last write.
    known: HashMap<i64, (Stretch, bool)>,
    changed: Vec<i64>,
}

impl StretchKeeper {
    /// Takes in an event.
    pub(super) fn add(
        &mut self,
        store: &Store,
        timestamp_ms: i64,
        is_failure: bool,
    ) -> anyhow::Result<()> {
        self.change(store, timestamp_ms, |stretch| {
            stretch.add(is_failure);
            true
        })
    }

    /// Takes in that an event has a severity and a score.
    pub(super) fn raise(
        &mut self,
        store: &Store,
        timestamp_ms: i64,
        (severity, to): (Severity, f64),
    ) -> anyhow::Result<()> {
        self.change(store, timestamp_ms, |stretch| stretch.raise(severity, to))
    }

    /// Takes out an event.
    pub(super) fn remove(
        &mut self,
        store: &Store,
        timestamp_ms: i64,
        is_failure: bool,
    ) -> anyhow::Result<()> {
        self.change(store, timestamp_ms, |stretch| {
            stretch.n_events = stretch.n_events.saturating_sub(1);
            stretch.n_failed = stretch.n_failed.saturating_sub(u64::from(is_failure));
            true
        })
    }

    fn change(
        &mut self,
        store: &Store,
        timestamp_ms: i64,
        change: impl FnOnce(&mut Stretch) -> bool,
    ) -> anyhow::Result<()> {
        let number = schema::stretch_at(timestamp_ms);
        let (stretch, is_changed) = match self.known.entry(number) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let stretch = store.stretch(number)?.unwrap_or_default();
                vacant.insert((stretch, false))
            }
        };
        if change(stretch) && !std::mem::replace(is_changed, true) {
            self.changed.push(number);
        }
        Ok(())
    }

    /// Puts what has changed into a write, after which the store holds so many events. What is in it is
    /// remembered until the next one: until then it may not be in the store yet.
    pub(super) fn put(&mut self, store: &Store, n_events: u64, writes: &mut WriteBatch) {
        let meta = store.family(schema::META);
        if self.known.len() > STRETCHES_MAX {
            self.known.retain(|_, (_, is_changed)| *is_changed);
        }
        for number in self.changed.drain(..) {
            let Some((stretch, is_changed)) = self.known.get_mut(&number) else {
                continue;
            };
            *is_changed = false;
            let key = schema::stretch_key(number);
            if stretch.n_events == 0 {
                writes.delete_cf(meta, key);
            } else {
                writes.put_cf(meta, key, stretch.value());
            }
        }
        writes.put_cf(meta, schema::META_STRETCHES, n_events.to_string());
    }
}

impl View<'_> {
    /// Whether there are records of all stretches: not if an earlier release was the last to write.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn has_stretches(&self) -> anyhow::Result<bool> {
        let n_events = self.value(schema::META, schema::META_STRETCHES.as_bytes())?;
        let Some(n_events) = n_events else {
            return Ok(false);
        };
        let digits = self.counters()?.events.to_string();
        Ok(n_events == digits.as_bytes())
    }

    /// Walks the stretches that have events, from that of a time on, in an order.
    #[must_use]
    pub fn walk_stretches(&self, from_ms: i64, order: Order) -> StretchWalk<'_> {
        let from = schema::stretch_key(schema::stretch_at(from_ms.max(0)));
        StretchWalk(self.walk(schema::META, &from, order))
    }
}

/// A walk through stretches.
pub struct StretchWalk<'a>(Walk<'a>);

impl StretchWalk<'_> {
    /// The next stretch with its number, or none at the end.
    ///
    /// # Errors
    /// If the database cannot be read on, or a record is damaged.
    pub fn next_stretch(&mut self) -> anyhow::Result<Option<(i64, Stretch)>> {
        let Some((key, value)) = self.0.next_entry()? else {
            return Ok(None);
        };
        if !key.starts_with(schema::META_STRETCH_PREFIX.as_bytes()) {
            return Ok(None);
        }
        let number = schema::split_stretch_key(&key);
        let stretch = number.zip(Stretch::read(&value));
        let stretch =
            stretch.with_context(|| format!("{} is damaged: run sg-store verify", show(&key)))?;
        Ok(Some(stretch))
    }
}

impl Store {
    fn stretch(&self, number: i64) -> anyhow::Result<Option<Stretch>> {
        let value = self.get(schema::META, &schema::stretch_key(number))?;
        Ok(value.and_then(|value| Stretch::read(&value)))
    }

    /// Makes the records of what an earlier release has stored, once.
    pub(super) fn make_stretches(&self) -> anyhow::Result<()> {
        if self.view().has_stretches()? {
            return Ok(());
        }
        let meta = self.family(schema::META);
        let mut writes = WriteBatch::default();
        writes.delete_cf(meta, schema::META_STRETCHES);
        let range = (schema::META_STRETCH_PREFIX, schema::META_STRETCH_END);
        writes.delete_range_cf(meta, range.0, range.1);
        let mut recount = Recount::of(self)?;
        while let Some((number, stretch)) = recount.next()? {
            writes.put_cf(meta, schema::stretch_key(number), stretch.value());
            if writes.len() > RECORDS_MAX {
                self.write(std::mem::take(&mut writes), false)?;
            }
        }
        let n_events = self.view().counters()?.events.to_string();
        writes.put_cf(meta, schema::META_STRETCHES, n_events);
        self.write(writes, true)
    }

    pub(super) fn verify_stretches(&self, verified: &mut Verified) -> anyhow::Result<()> {
        let view = self.view();
        if !view.has_stretches()? {
            return Ok(());
        }
        let mut find = |number: i64, text: &str| {
            let key = schema::stretch_key(number);
            verified.find(format!("{}: {text}", show(&key)));
        };
        let mut walk = view.walk_stretches(0, Order::OldestFirst);
        let mut recount = Recount::of(self)?;
        let (mut kept, mut found) = (walk.next_stretch()?, recount.next()?);
        loop {
            let number = match (kept, found) {
                (None, None) => return Ok(()),
                (Some((kept, _)), Some((found, _))) => kept.min(found),
                (Some((number, _)), None) | (None, Some((number, _))) => number,
            };
            let of = |it: Option<(i64, Stretch)>| it.filter(|it| it.0 == number).map(|it| it.1);
            let (is_kept, is_found) = (of(kept), of(found));
            let counts = |stretch: Stretch| (stretch.n_events, stretch.n_failed);
            if is_kept.map(counts) != is_found.map(counts) {
                find(number, "is not the number of its events and failures");
            } else if let Some((kept, found)) = is_kept.zip(is_found) {
                let is_low =
                    |severity: &Severity| kept.highest(*severity) < found.highest(*severity);
                if Severity::ALL.iter().any(is_low) {
                    find(number, "says less than its highest score");
                }
            }
            if is_kept.is_some() {
                kept = walk.next_stretch()?;
            }
            if is_found.is_some() {
                found = recount.next()?;
            }
        }
    }
}

/// Counts the events of one stretch after the other.
struct Recount<'a> {
    events: Walk<'a>,
    anomalies: Walk<'a>,
    /// The stretch that is being counted.
    counting: Option<(i64, Stretch)>,
    /// The next anomaly: its stretch, its severity, its score.
    anomaly: Option<(i64, Severity, f64)>,
}

impl<'a> Recount<'a> {
    fn of(store: &'a Store) -> anyhow::Result<Self> {
        let mut recount = Self {
            events: store.walk(schema::EVENTS, &[], Order::OldestFirst),
            anomalies: store.walk(schema::ANOMALIES, &[], Order::OldestFirst),
            counting: None,
            anomaly: None,
        };
        recount.anomaly = recount.next_anomaly()?;
        Ok(recount)
    }

    fn next(&mut self) -> anyhow::Result<Option<(i64, Stretch)>> {
        while let Some((key, value)) = self.events.next_entry()? {
            let number = schema::stretch_of(&key);
            let block = parse_event(value);
            let is_failure = match block.events.first() {
                Some(event) => block.view(event).is_failure,
                // The counters pass it over, too.
                None => continue,
            };
            let is_next = self
                .counting
                .is_some_and(|(counting, _)| counting != number);
            let complete = self.counting.take_if(|_| is_next);
            let (_, stretch) = self.counting.get_or_insert((number, Stretch::default()));
            stretch.add(is_failure);
            if let Some((number, stretch)) = complete {
                return Ok(Some((number, self.scored(number, stretch)?)));
            }
        }
        match self.counting.take() {
            Some((number, stretch)) => Ok(Some((number, self.scored(number, stretch)?))),
            None => Ok(None),
        }
    }

    /// A stretch with its scores.
    fn scored(&mut self, number: i64, mut stretch: Stretch) -> anyhow::Result<Stretch> {
        while let Some((_, severity, score)) = self.anomaly.filter(|(of, ..)| *of <= number) {
            stretch.raise(severity, score);
            self.anomaly = self.next_anomaly()?;
        }
        Ok(stretch)
    }

    fn next_anomaly(&mut self) -> anyhow::Result<Option<(i64, Severity, f64)>> {
        while let Some((key, value)) = self.anomalies.next_entry()? {
            if let Some(anomaly) = anomaly_of(&value) {
                let number = schema::stretch_of(&key);
                return Ok(Some((number, anomaly.severity, anomaly.anomaly_score)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut stretch = Stretch::default();
        stretch.add(true);
        stretch.add(false);
        assert!(stretch.raise(Severity::Medium, 0.994_984));
        assert!(!stretch.raise(Severity::Medium, 0.1));
        assert!(stretch.raise(Severity::Critical, 0.1 + 0.2));
        assert_eq!(Stretch::read(&stretch.value()), Some(stretch));
        assert_eq!(
            stretch.value()[..16],
            [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1]
        );
        // An anomaly of medium severity may be critical by now.
        let highest = Severity::ALL.map(|severity| stretch.highest(severity));
        assert!(highest.iter().eq(&[0.0, 0.994_984, 0.994_984, 0.994_984]));
        for n_bytes in [0, 1, 40, 47, 49, 56] {
            assert_eq!(Stretch::read(&vec![0; n_bytes]), None);
        }
    }
}
