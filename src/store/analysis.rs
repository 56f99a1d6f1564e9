//! Analyses in the store: which events wait for theirs, and what becomes of an event when it comes. They
//! may be kept beside the writer, so what they change of the counters is kept apart until the store
//! is opened next.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rocksdb::WriteBatch;
use serde::{Deserialize, Serialize};

use super::writer::anomaly_of;
use super::{Counters, Order, Store, View};
use crate::record::anomaly::{Severity, with_severity};
use crate::schema;

/// An event that waits for its analysis.
pub struct PendingEvent {
    pub key: Vec<u8>,
    /// The event; none while it is being written.
    pub line: Option<Vec<u8>>,
    pub anomaly: Option<Vec<u8>>,
    /// What the detector knows of its user.
    pub context: Vec<u8>,
}

/// What has become of one that waited.
pub struct Analysed<'a> {
    pub key: &'a [u8],
    /// The analysis record, if it is final: then the event waits no longer.
    pub record: Option<&'a [u8]>,
    /// The anomaly record with a severity that may be higher than the one that is stored.
    pub anomaly: Option<&'a [u8]>,
}

/// How many anomalies of each severity there are more than the counters say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Raised([i64; Severity::ALL.len()]);

/// Tells whoever has events analysed that there may be some.
#[derive(Default)]
pub struct Notice {
    state: Mutex<Given>,
    given: Condvar,
}

#[derive(Clone, Copy, Default)]
struct Given {
    n_times: u64,
    is_over: bool,
}

impl Notice {
    fn lock(&self) -> MutexGuard<'_, Given> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something new.
    pub(super) fn give(&self) {
        self.lock().n_times += 1;
        self.given.notify_all();
    }

    /// Nothing new comes any more.
    pub fn end(&self) {
        self.lock().is_over = true;
        self.given.notify_all();
    }

    #[must_use]
    pub fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// How often there was something new.
    #[must_use]
    pub fn n_times(&self) -> u64 {
        self.lock().n_times
    }

    /// Waits until there is something new after so many times, or nothing comes any more.
    pub fn wait_after(&self, n_times: u64, timeout: Duration) {
        let is_same = |given: &mut Given| given.n_times == n_times && !given.is_over;
        // What has happened is asked for elsewhere.
        let _ = self.given.wait_timeout_while(self.lock(), timeout, is_same);
    }

    /// Lets a time go by, or less if nothing comes any more.
    pub fn pause(&self, time: Duration) {
        let is_on = |given: &mut Given| !given.is_over;
        let _ = self.given.wait_timeout_while(self.lock(), time, is_on);
    }
}

impl Store {
    /// Events that wait for their analysis, the oldest first, after the one with that key.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn pending_after(&self, key: &[u8], n_max: usize) -> anyhow::Result<Vec<PendingEvent>> {
        // The walk is over before anything else is read: an open one pins memtables.
        let mut waiting = Vec::new();
        let mut walk = self.walk(schema::PENDING, key, Order::OldestFirst);
        while waiting.len() < n_max
            && let Some((found, context)) = walk.next_entry()?
        {
            if found != key {
                waiting.push((found, context));
            }
        }
        drop(walk);
        let read = |(key, context): (Vec<u8>, Vec<u8>)| {
            Ok(PendingEvent {
                line: self.get(schema::EVENTS, &key)?,
                anomaly: self.get(schema::ANOMALIES, &key)?,
                key,
                context,
            })
        };
        waiting.into_iter().map(read).collect()
    }

    /// How many events wait for their analysis.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn n_pending(&self) -> anyhow::Result<u64> {
        let mut walk = self.walk(schema::PENDING, &[], Order::OldestFirst);
        let mut n_pending = 0;
        while walk.next_entry()?.is_some() {
            n_pending += 1;
        }
        Ok(n_pending)
    }

    /// Keeps analyses, all of them or none. Not synced: after a power cut some events may wait again.
    ///
    /// # Errors
    /// If the store cannot be read or written.
    pub fn keep_analyses(self: &Arc<Self>, analysed: &[Analysed<'_>]) -> anyhow::Result<()> {
        let mut writes = WriteBatch::default();
        let mut raised = self.view().raised()?;
        for it in analysed {
            if let Some((from, to)) = self.put_analysis(it, &mut writes)? {
                raised.0[from as usize] -= 1;
                raised.0[to as usize] += 1;
            }
        }
        if raised != Raised::default() {
            let json = serde_json::to_vec(&raised)?;
            writes.put_cf(self.family(schema::META), schema::META_RAISED, json);
        }
        self.write(writes, false)
    }

    /// Puts an analysis into a write. The severities before and after, if the anomaly's was raised.
    pub(super) fn put_analysis(
        &self,
        analysed: &Analysed<'_>,
        writes: &mut WriteBatch,
    ) -> anyhow::Result<Option<(Severity, Severity)>> {
        let key = analysed.key;
        if let Some(record) = analysed.record {
            writes.put_cf(self.family(schema::AI_ANALYSIS), key, record);
            writes.delete_cf(self.family(schema::PENDING), key);
        }
        let Some(severity) = analysed.anomaly.and_then(anomaly_of).map(|it| it.severity) else {
            return Ok(None);
        };
        let Some(json) = self.get(schema::ANOMALIES, key)? else {
            return Ok(None);
        };
        let Some(before) = anomaly_of(&json).filter(|before| before.severity < severity) else {
            return Ok(None);
        };
        let json = String::from_utf8(json).unwrap_or_default();
        let Some(json) = with_severity(&json, severity) else {
            return Ok(None);
        };
        writes.put_cf(self.family(schema::ANOMALIES), key, json);
        let (event_id, user) = (&before.event_id, &before.user);
        let mut index_key = Vec::new();
        schema::push_severity_key(&mut index_key, before.severity, before.timestamp, event_id);
        writes.delete_cf(self.family(schema::BY_SEVERITY), &index_key);
        index_key.clear();
        schema::push_severity_key(&mut index_key, severity, before.timestamp, event_id);
        let score = before.anomaly_score.to_be_bytes();
        writes.put_cf(self.family(schema::BY_SEVERITY), &index_key, score);
        index_key.clear();
        schema::push_user_key(&mut index_key, user, before.timestamp, event_id);
        let byte = [schema::severity_byte(Some(severity))];
        writes.put_cf(self.family(schema::BY_USER), &index_key, byte);
        Ok(Some((before.severity, severity)))
    }

    /// Brings the counters up to what analyses have raised: whoever writes them next begins with them.
    pub(super) fn fold_raised(&self) -> anyhow::Result<()> {
        if self.view().raised()? == Raised::default() {
            return Ok(());
        }
        let mut writes = WriteBatch::default();
        let meta = self.family(schema::META);
        writes.put_cf(
            meta,
            schema::META_COUNTERS,
            serde_json::to_vec(&self.view().counters()?)?,
        );
        writes.delete_cf(meta, schema::META_RAISED);
        self.write(writes, true)
    }

    /// What was noted on analyses, in no order.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn analysis_notes(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let prefix = schema::META_ANALYSIS_PREFIX.as_bytes();
        let mut walk = self.walk(schema::META, prefix, Order::OldestFirst);
        let mut notes = Vec::new();
        while let Some((key, note)) = walk.next_entry()?
            && key.starts_with(prefix)
        {
            notes.push(note);
        }
        Ok(notes)
    }

    /// Keeps a note on analyses under a name, in place of the one before it.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn put_analysis_note(&self, name: &str, note: &[u8]) -> anyhow::Result<()> {
        let mut writes = WriteBatch::default();
        let key = schema::analysis_note_key(name);
        writes.put_cf(self.family(schema::META), key, note);
        self.write(writes, false)
    }

    /// Forgets all notes on analyses but these.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn replace_analysis_notes(
        &self,
        notes: &mut dyn Iterator<Item = (String, Vec<u8>)>,
    ) -> anyhow::Result<()> {
        let meta = self.family(schema::META);
        let mut writes = WriteBatch::default();
        let (from, to) = schema::analysis_note_range();
        writes.delete_range_cf(meta, from, to);
        for (name, note) in notes {
            writes.put_cf(meta, schema::analysis_note_key(&name), note);
        }
        self.write(writes, true)
    }
}

impl View<'_> {
    fn raised(&self) -> anyhow::Result<Raised> {
        let Some(json) = self.value(schema::META, schema::META_RAISED.as_bytes())? else {
            return Ok(Raised::default());
        };
        let shown = self.path.display();
        serde_json::from_slice(&json).with_context(|| {
            format!("the counters of {shown} are damaged: run `sg-store verify --db {shown}`")
        })
    }

    /// What the counters have to be, by what analyses have raised.
    pub(super) fn add_raised(&self, counters: &mut Counters) -> anyhow::Result<()> {
        let raised = self.raised()?;
        for (severity, n_more) in Severity::ALL.into_iter().zip(raised.0) {
            let n_anomalies = counters.anomalies.of_mut(severity);
            *n_anomalies = n_anomalies.saturating_add_signed(n_more);
        }
        Ok(())
    }
}
