//! Alerts that wait: which events somebody is to be told of, in the order in which they were stored. An
//! entry is written together with its event, so an event that is stored once is told of, however the
//! program ends; what has become of the telling is kept by target. It knows nothing of what targets are.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rocksdb::{ColumnFamily, WriteBatch};

use super::admin::{Verified, show};
use super::{Order, Store};
use crate::record::anomaly::{AnomalyRecord, IncidentRecord};
use crate::schema;

/// Nobody is told of so many: a higher number is a damaged one, and above it there is room to count on.
const NUMBER_MAX: u64 = u64::MAX >> 1;
/// Alerts that are taken out one by one.
const REMOVED_MAX: u64 = 1_000;

/// Which anomalies are alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Alerting {
    /// Those that open an incident or make it worse
    Incidents,
    /// All of them
    Anomalies,
}

/// Where the writer puts alerts.
pub struct Outbox {
    alerting: Alerting,
    /// The number of the next alert.
    next: u64,
    bell: Arc<Bell>,
}

/// Tells those who wait for alerts that there are some.
#[derive(Default)]
pub struct Bell {
    state: Mutex<Rung>,
    rung: Condvar,
}

#[derive(Clone, Copy, Default)]
struct Rung {
    /// The number of the last alert that can be read.
    last: u64,
    /// No more come; those that wait are given up then.
    deadline: Option<Instant>,
    /// Whoever gets through may go on after that.
    is_patient: bool,
}

/// How far each target has come, of those that are told.
pub struct Progress {
    store: Arc<Store>,
    state: Mutex<Passed>,
}

struct Passed {
    /// By target: its key in the store, and the number of the last alert that it has.
    targets: Vec<(String, u64)>,
    /// The number of the last alert that was taken out, since all have it.
    removed: u64,
}

/// A target, and what it has not been told of.
pub struct Waiting {
    pub target: String,
    pub n_waiting: u64,
}

/// An outbox that is open: for the writer, for those who send, and what was left behind.
pub struct Opened {
    pub outbox: Outbox,
    pub bell: Arc<Bell>,
    pub progress: Arc<Progress>,
    /// Targets of earlier runs that are told no more.
    pub dropped: Vec<Waiting>,
}

impl Outbox {
    /// Puts an alert into a write if the anomaly of the event with that key is one.
    pub(super) fn put(
        &mut self,
        key: &[u8],
        anomaly: &AnomalyRecord,
        meta: &ColumnFamily,
        writes: &mut WriteBatch,
    ) {
        let is_news = || {
            let incident = anomaly.incident.as_ref();
            incident.is_some_and(IncidentRecord::is_news)
        };
        if self.alerting == Alerting::Anomalies || is_news() {
            writes.put_cf(meta, schema::alert_key(self.next), key);
            self.next += 1;
        }
    }

    /// What tells of all that was put so far, once it is written: with the number of the last alert.
    pub(super) fn bell(&self) -> (Arc<Bell>, u64) {
        (Arc::clone(&self.bell), self.next - 1)
    }
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, Rung> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ring(&self, last: u64) {
        let mut state = self.lock();
        if state.last < last {
            state.last = last;
            self.rung.notify_all();
        }
    }

    /// No more come; those that wait have until then. With `is_patient` whoever gets through may go on.
    pub fn end_by(&self, deadline: Instant, is_patient: bool) {
        let mut state = self.lock();
        state.deadline = Some(deadline);
        state.is_patient = is_patient;
        self.rung.notify_all();
    }

    /// When what waits is given up, if no more come; by somebody who has got through until `after`.
    #[must_use]
    pub fn deadline(&self, after: Instant) -> Option<Instant> {
        let state = self.lock();
        let deadline = state.deadline?;
        Some(if state.is_patient {
            deadline.max(after)
        } else {
            deadline
        })
    }

    /// The number of the last alert that can be read.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.lock().last
    }

    /// Waits for alerts after that number; false if there are none and no more come.
    #[must_use]
    pub fn wait_after(&self, number: u64) -> bool {
        let state = self.lock();
        let has_none = |state: &mut Rung| state.last <= number && state.deadline.is_none();
        let waited = self.rung.wait_while(state, has_none);
        waited.unwrap_or_else(PoisonError::into_inner).last > number
    }

    /// Lets a time go by, or less if meanwhile it turns out that no more come.
    pub fn pause(&self, time: Duration) {
        let state = self.lock();
        let before = state.deadline;
        let is_so = |state: &mut Rung| state.deadline == before;
        // What has happened is asked for elsewhere.
        let _ = self.rung.wait_timeout_while(state, time, is_so);
    }
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, Passed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the last alert that a target has.
    #[must_use]
    pub fn of(&self, target: usize) -> u64 {
        self.lock().targets[target].1
    }

    /// The next alerts of a target, up to that number: their numbers and the keys of their events. What
    /// comes after the last one that [`Bell::last`] tells of may be there before its event.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn next_alerts(
        &self,
        target: usize,
        last: u64,
        n_max: usize,
    ) -> anyhow::Result<Vec<(u64, Vec<u8>)>> {
        let mut alerts = self.store.alerts_after(self.of(target), n_max)?;
        alerts.retain(|(number, _)| *number <= last);
        Ok(alerts)
    }

    /// Keeps that a target has all alerts up to a number, and takes out those that all have. Not synced:
    /// after a power cut some may be told again.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn pass(&self, target: usize, number: u64) -> anyhow::Result<()> {
        let mut state = self.lock();
        let mut writes = WriteBatch::default();
        let meta = self.store.family(schema::META);
        writes.put_cf(meta, &state.targets[target].0, number.to_string());
        state.targets[target].1 = number;
        let numbers = state.targets.iter().map(|(_, number)| *number);
        let all_have = numbers.min().unwrap_or(0);
        if all_have.saturating_sub(state.removed) > REMOVED_MAX {
            let range = [state.removed + 1, all_have + 1].map(schema::alert_key);
            writes.delete_range_cf(meta, &range[0], &range[1]);
        } else {
            for number in state.removed + 1..=all_have {
                writes.delete_cf(meta, schema::alert_key(number));
            }
        }
        state.removed = all_have.max(state.removed);
        self.store.write(writes, false)
    }
}

impl Store {
    /// Opens the outbox for these targets. One that is new begins with what comes from now on; those
    /// of earlier runs that are not among them are given up.
    ///
    /// # Errors
    /// If the store cannot be read or written.
    pub fn open_outbox(
        self: &Arc<Self>,
        alerting: Alerting,
        targets: &[String],
    ) -> anyhow::Result<Opened> {
        let meta = self.family(schema::META);
        let known = self.alert_targets()?;
        let last = self.last_alert()?;
        let last = known
            .iter()
            .fold(last, |last, (_, number)| last.max(*number));
        let mut writes = WriteBatch::default();
        let mut dropped = Vec::new();
        for (target, number) in &known {
            if !targets.contains(target) {
                writes.delete_cf(meta, schema::alert_target_key(target));
                dropped.push(Waiting {
                    target: target.clone(),
                    n_waiting: last - number,
                });
            }
        }
        let place = |target: &String| {
            let found = known.iter().find(|(known, _)| known == target);
            let number = found.map_or(last, |(_, number)| *number);
            (schema::alert_target_key(target), number)
        };
        let targets: Vec<(String, u64)> = targets.iter().map(place).collect();
        for (key, number) in &targets {
            writes.put_cf(meta, key, number.to_string());
        }
        // What has waited for others alone goes with them.
        let all_have = targets.iter().map(|(_, number)| *number).min();
        let all_have = all_have.unwrap_or(last);
        let first = self.alerts_after(0, 1)?;
        if first.first().is_some_and(|(number, _)| *number <= all_have) {
            let (from, to) = (schema::alert_key(0), schema::alert_key(all_have + 1));
            writes.delete_range_cf(meta, from, to);
        }
        self.write(writes, true)?;
        let bell = Arc::new(Bell::default());
        bell.ring(last);
        Ok(Opened {
            outbox: Outbox {
                alerting,
                next: last + 1,
                bell: Arc::clone(&bell),
            },
            bell,
            progress: Arc::new(Progress {
                store: Arc::clone(self),
                state: Mutex::new(Passed {
                    targets,
                    removed: all_have,
                }),
            }),
            dropped,
        })
    }

    /// How many alerts wait for which targets.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn alerts_waiting(&self) -> anyhow::Result<Vec<Waiting>> {
        let last = self.last_alert()?;
        let targets = self.alert_targets()?.into_iter();
        Ok(targets
            .map(|(target, number)| Waiting {
                target,
                n_waiting: last.saturating_sub(number),
            })
            .filter(|waiting| waiting.n_waiting > 0)
            .collect())
    }

    /// Every alert must be one on an event, though not on one that is still there.
    pub(super) fn verify_alerts(&self, verified: &mut Verified) -> anyhow::Result<()> {
        let mut walk = self.walk(
            schema::META,
            schema::META_ALERT_PREFIX.as_bytes(),
            Order::OldestFirst,
        );
        while let Some((key, value)) = walk.next_entry()?
            && key.starts_with(schema::META_ALERT_PREFIX.as_bytes())
        {
            if read_alert_key(&key).is_none() || schema::split_event_key(&value).is_none() {
                verified.find(format!("{}: is not an alert on an event", show(&key)));
            }
        }
        if self.alert_targets().is_err() {
            verified.find("how far a target of alerts has come is not readable".to_owned());
        }
        Ok(())
    }

    /// Alerts after a number. The walk is over when this returns: an open one pins memtables.
    fn alerts_after(&self, number: u64, n_max: usize) -> anyhow::Result<Vec<(u64, Vec<u8>)>> {
        let from = schema::alert_key(number + 1);
        let mut walk = self.walk(schema::META, from.as_bytes(), Order::OldestFirst);
        let mut alerts = Vec::new();
        while alerts.len() < n_max
            && let Some((key, event_key)) = walk.next_entry()?
            && let Some(number) = read_alert_key(&key)
        {
            alerts.push((number, event_key));
        }
        Ok(alerts)
    }

    /// The number of the last alert that waits; 0 if none does.
    fn last_alert(&self) -> anyhow::Result<u64> {
        let from = schema::alert_key(u64::MAX);
        let mut walk = self.walk(schema::META, from.as_bytes(), Order::NewestFirst);
        match walk.next_entry()? {
            Some((key, _)) if key.starts_with(schema::META_ALERT_PREFIX.as_bytes()) => {
                read_alert_key(&key).context("which alerts wait is damaged: run sg-store verify")
            }
            _ => Ok(0),
        }
    }

    /// Targets and the numbers of the last alerts that they have.
    fn alert_targets(&self) -> anyhow::Result<Vec<(String, u64)>> {
        let prefix = schema::META_ALERT_TARGET_PREFIX.as_bytes();
        let mut targets = Vec::new();
        let mut walk = self.walk(schema::META, prefix, Order::OldestFirst);
        while let Some((key, value)) = walk.next_entry()?
            && let Some(target) = key.strip_prefix(prefix)
        {
            let number = std::str::from_utf8(&value).ok();
            let number = number.and_then(|number| number.parse().ok());
            let number = number.filter(|number| *number <= NUMBER_MAX);
            targets.push((
                String::from_utf8(target.to_vec())?,
                number.context("how far a target of alerts has come is not readable")?,
            ));
        }
        Ok(targets)
    }
}

/// The number in the key of an alert, if it can be one.
fn read_alert_key(key: &[u8]) -> Option<u64> {
    schema::split_alert_key(key).filter(|number| *number <= NUMBER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Access, Tuning};

    /// The number after it was 0, whose alert is before those that everybody has: nobody was told.
    #[test]
    fn numbers_that_cannot_be_are_damage() {
        let event = b"000000000000001:e";
        let target = |number: &str| (schema::alert_target_key("t"), number.to_owned());
        let alert = |number| (schema::alert_key(number), "000000000000001:e".to_owned());
        for (key, value) in [
            target("18446744073709551615"),
            target("9223372036854775808"),
            alert(u64::MAX),
            alert(NUMBER_MAX + 1),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let store = Store::open(folder.path(), Access::Write, &Tuning::default());
            let store = Arc::new(store.expect("it opens"));
            store.put(schema::META, schema::alert_key(1).as_bytes(), event);
            store.put(schema::META, key.as_bytes(), value.as_bytes());
            let opened = store.open_outbox(Alerting::Anomalies, &["t".to_owned()]);
            assert!(opened.is_err(), "{key}");
            let verified = store.verify().expect("it can be read");
            assert_eq!(verified.n_findings, 1, "{key}: {:?}", verified.findings);
        }
    }

    /// A number far ahead kept whoever had been told of it from ever coming back.
    #[test]
    fn any_number_of_alerts_is_taken_out_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), Access::Write, &Tuning::default());
        let store = Arc::new(store.expect("it opens"));
        let targets = ["t".to_owned()];
        let opened = store.open_outbox(Alerting::Anomalies, &targets);
        let progress = opened.expect("it opens").progress;
        for number in [1, NUMBER_MAX] {
            let key = schema::alert_key(number);
            store.put(schema::META, key.as_bytes(), b"000000000000001:e");
        }
        progress.pass(0, NUMBER_MAX).expect("it can be written");
        assert_eq!(store.alerts_after(0, 9).expect("it can be read"), []);
    }
}
