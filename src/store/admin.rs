//! Care of a store: check it, sum it up, take old events out, put its files in order.

use std::collections::BTreeMap;

use rocksdb::WriteBatch;

use super::counters::Counters;
use super::stretches::StretchKeeper;
use super::vectors::SumKeeper;
use super::writer::anomaly_of;
use super::{Entry, Order, Store, write_error};
use crate::batch::Block;
use crate::detect::{Corrector, DetectorKind, RecordError, adaptive, classic};
use crate::io::position::Position;
use crate::progress;
use crate::record::LINE_BYTES_MAX;
use crate::record::anomaly::AnomalyRecord;
use crate::{schema, stage};

/// Events taken out in one write.
const PRUNE_BATCH: usize = 4_000;
/// Events after which it is shown how far a check has come.
const SHOWN_EVENTS: u64 = 1_024;
/// Findings that are told one by one.
const FINDINGS_MAX: usize = 20;

/// What `verify` found.
#[derive(Debug, Default)]
pub struct Verified {
    pub n_events: u64,
    pub n_anomalies: u64,
    /// Sentences about what is wrong; at most 20 of them.
    pub findings: Vec<String>,
    pub n_findings: u64,
}

/// What `prune` took out.
#[derive(Debug, Default)]
pub struct Pruned {
    pub n_events: u64,
    pub n_anomalies: u64,
}

/// What is kept right while events are taken out.
struct Pruning {
    counters: Counters,
    sums: SumKeeper,
    stretches: StretchKeeper,
    pruned: Pruned,
}

impl Store {
    /// Writes everything that is in memory into sorted files.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn flush(&self) -> anyhow::Result<()> {
        for family in schema::FAMILIES {
            let flushed = self.db.flush_cf(self.family(family));
            flushed.map_err(|error| write_error(&self.path, &error))?;
        }
        Ok(())
    }

    /// Rewrites the files so that each key is in one of them, and removed ones take no room.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn compact(&self) -> anyhow::Result<()> {
        self.flush()?;
        let sizes = self.disk_bytes()?;
        for family in schema::FAMILIES {
            self.db
                .compact_range_cf(self.family(family), None::<&[u8]>, None::<&[u8]>);
            // The call does not say how it went, but leaves no file at the first level.
            let n_left = self.property(family, "rocksdb.num-files-at-level0")?;
            anyhow::ensure!(
                n_left == 0,
                "cannot rewrite the files of {family} in {}: make room on the disk (as much as \
                 they take), then run it again; nothing is lost",
                self.path.display()
            );
            progress::bytes(sizes[family]);
        }
        Ok(())
    }

    /// Reads everything: checksums, that events are events and are found by every index, that
    /// indexes, anomalies and verdicts belong to events, that baselines, positions and alerts are such, and that the
    /// counters are right.
    ///
    /// # Errors
    /// If the store cannot be read on; what was found until then is lost.
    pub fn verify(&self) -> anyhow::Result<Verified> {
        let mut verified = Verified::default();
        let kept = self.view().counters()?;
        let mut counters = kept.for_recount();
        self.verify_events(&mut verified, &mut counters)?;
        self.verify_anomalies(&mut verified, &mut counters)?;
        for family in [schema::AI_ANALYSIS, schema::EMBEDDINGS, schema::PENDING] {
            self.verify_owned(family, &mut verified)?;
        }
        self.verify_vector_sums(&mut verified)?;
        self.verify_stretches(&mut verified)?;
        self.verify_index_sizes(&mut verified)?;
        self.verify_baselines(&mut verified)?;
        self.verify_positions(&mut verified)?;
        self.verify_feedback(&mut verified)?;
        self.verify_alerts(&mut verified)?;
        if kept != counters {
            verified.find(format!(
                "the counters say {} events and {} anomalies, there are {} and {}; \
                 or those of failures or types are wrong",
                kept.events,
                kept.anomalies.total(),
                counters.events,
                counters.anomalies.total()
            ));
        }
        Ok(verified)
    }

    fn verify_events(
        &self,
        verified: &mut Verified,
        counters: &mut Counters,
    ) -> anyhow::Result<()> {
        let mut walk = self.walk(schema::EVENTS, &[], Order::OldestFirst);
        let mut index_key = Vec::new();
        while let Some((key, value)) = walk.next_entry()? {
            let shown = show(&key);
            verified.n_events += 1;
            if verified.n_events.is_multiple_of(SHOWN_EVENTS) {
                progress::things(SHOWN_EVENTS);
            }
            let block = parse_event(value);
            let Some(event) = block.events.first() else {
                verified.find(format!("{shown}: is not a valid event"));
                continue;
            };
            let view = block.view(event);
            if schema::split_event_key(&key) != Some((view.timestamp_ms, view.event_id)) {
                verified.find(format!("{shown}: holds an event with another key"));
                continue;
            }
            counters.recount_event(view.kind, view.is_failure);
            index_key.clear();
            schema::push_id_key(&mut index_key, view.event_id, view.timestamp_ms);
            if self.get(schema::BY_ID, &index_key)?.is_none() {
                verified.find(format!("{shown}: is not in the index by id"));
            }
            index_key.clear();
            schema::push_user_key(&mut index_key, view.user, view.timestamp_ms, view.event_id);
            let severity = self
                .get(schema::ANOMALIES, &key)?
                .and_then(|value| anomaly_of(&value));
            let expected = [schema::severity_byte(
                severity.map(|anomaly| anomaly.severity),
            )];
            if self.get(schema::BY_USER, &index_key)?.as_deref() != Some(&expected) {
                verified.find(format!(
                    "{shown}: is not in the index by user as it should be"
                ));
            }
        }
        Ok(())
    }

    fn verify_anomalies(
        &self,
        verified: &mut Verified,
        counters: &mut Counters,
    ) -> anyhow::Result<()> {
        self.verify_owned(schema::ANOMALIES, verified)?;
        let mut walk = self.walk(schema::ANOMALIES, &[], Order::OldestFirst);
        let mut index_key = Vec::new();
        while let Some((key, value)) = walk.next_entry()? {
            verified.n_anomalies += 1;
            let Some(anomaly) = anomaly_of(&value) else {
                verified.find(format!("{}: has an anomaly that is not valid", show(&key)));
                continue;
            };
            *counters.anomalies.of_mut(anomaly.severity) += 1;
            index_key.clear();
            let AnomalyRecord {
                severity,
                timestamp,
                event_id,
                ..
            } = &anomaly;
            schema::push_severity_key(&mut index_key, *severity, *timestamp, event_id);
            let score = anomaly.anomaly_score.to_be_bytes();
            if self.get(schema::BY_SEVERITY, &index_key)?.as_deref() != Some(&score) {
                verified.find(format!("{}: is not in the index by severity", show(&key)));
            }
        }
        Ok(())
    }

    /// Every key of the family must be an event's.
    fn verify_owned(&self, family: &str, verified: &mut Verified) -> anyhow::Result<()> {
        let mut walk = self.walk(family, &[], Order::OldestFirst);
        while let Some((key, _)) = walk.next_entry()? {
            if self.get(schema::EVENTS, &key)?.is_none() {
                verified.find(format!(
                    "{}: is in {family}, but there is no such event",
                    show(&key)
                ));
            }
        }
        Ok(())
    }

    /// Every event is in its indexes, as was checked: so equal sizes leave no strays.
    fn verify_index_sizes(&self, verified: &mut Verified) -> anyhow::Result<()> {
        for (family, expected) in [
            (schema::BY_ID, verified.n_events),
            (schema::BY_USER, verified.n_events),
            (schema::BY_SEVERITY, verified.n_anomalies),
        ] {
            let mut walk = self.walk(family, &[], Order::OldestFirst);
            let mut n_entries: u64 = 0;
            while walk.next_entry()?.is_some() {
                n_entries += 1;
            }
            if n_entries > expected {
                let n_strays = n_entries - expected;
                verified.find(format!("{family}: {n_strays} entries belong to no event"));
            }
        }
        Ok(())
    }

    /// Every baseline must be one that its detector can read, and so must what all share.
    fn verify_baselines(&self, verified: &mut Verified) -> anyhow::Result<()> {
        let detector = self.view().detector()?.unwrap_or_default();
        let mut verify = |user: &str, record: &[u8]| {
            let read = match &*detector {
                adaptive::NAME if user == schema::SHARED_BASELINE => {
                    verify_shared(DetectorKind::Adaptive, record)
                }
                classic::NAME if user == schema::SHARED_BASELINE => {
                    verify_shared(DetectorKind::Classic, record)
                }
                adaptive::NAME => adaptive::User::from_record(record).map(drop),
                classic::NAME => classic::Baseline::from_record(record).map(drop),
                _ => return Ok(()),
            };
            if let Err(error) = read {
                let whose = match user {
                    schema::SHARED_BASELINE => "what all users share".to_owned(),
                    _ => format!("baseline of {}", show(user.as_bytes())),
                };
                verified.find(format!("{whose}: {error}"));
            }
            Ok(())
        };
        for task in self.view().tasks()? {
            self.view().baselines(&task, &mut verify)?;
        }
        Ok(())
    }

    /// Whoever writes next goes on behind what is said of each source.
    fn verify_positions(&self, verified: &mut Verified) -> anyhow::Result<()> {
        for prefix in [
            schema::META_POSITION_PREFIX,
            schema::META_PIPE_POSITION_PREFIX,
        ] {
            let prefix = prefix.as_bytes();
            let mut walk = self.walk(schema::META, prefix, Order::OldestFirst);
            while let Some((key, value)) = walk.next_entry()? {
                let Some(source) = key.strip_prefix(prefix) else {
                    break;
                };
                if serde_json::from_slice::<Position>(&value).is_err() {
                    let source = show(source);
                    verified.find(format!("how far {source} was read is damaged"));
                }
            }
        }
        Ok(())
    }

    /// Takes out all events before a time, with everything that belongs to them.
    ///
    /// # Errors
    /// If the store cannot be read or written; what was taken out until then stays out, and
    /// the rest is whole.
    pub fn prune(&self, before_ms: i64) -> anyhow::Result<Pruned> {
        self.make_vector_sums()?;
        self.make_stretches()?;
        let mut pruning = Pruning {
            counters: self.view().counters()?,
            sums: SumKeeper::default(),
            stretches: StretchKeeper::default(),
            pruned: Pruned::default(),
        };
        let end = schema::time_prefix(before_ms);
        let mut from = Vec::new();
        loop {
            let old = self.events_between(&from, &end, PRUNE_BATCH)?;
            let Some((last, _)) = old.last() else {
                return Ok(pruning.pruned);
            };
            // Behind the last one: what was taken out leaves marks that a walk would step over.
            from.clone_from(last);
            from.push(0);
            progress::things(old.len() as u64);
            let mut writes = WriteBatch::default();
            self.prune_feedback(last, &mut writes)?;
            for (key, value) in old {
                self.prune_event(&key, value, &mut pruning, &mut writes)?;
            }
            pruning.sums.put(self, &mut writes);
            let n_events = pruning.counters.events;
            pruning.stretches.put(self, n_events, &mut writes);
            let meta = self.family(schema::META);
            writes.put_cf(
                meta,
                schema::META_COUNTERS,
                serde_json::to_vec(&pruning.counters)?,
            );
            self.write(writes, true)?;
        }
    }

    /// The first events in a range of keys. The walk is over when this returns: an open one pins
    /// memtables.
    fn events_between(&self, from: &[u8], end: &[u8], n_max: usize) -> anyhow::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut walk = self.walk(schema::EVENTS, from, Order::OldestFirst);
        while entries.len() < n_max
            && let Some((key, value)) = walk.next_entry()?
            && *key < *end
        {
            entries.push((key, value));
        }
        Ok(entries)
    }

    fn prune_event(
        &self,
        key: &[u8],
        value: Vec<u8>,
        pruning: &mut Pruning,
        writes: &mut WriteBatch,
    ) -> anyhow::Result<()> {
        let Pruning {
            counters,
            sums,
            stretches,
            pruned,
        } = pruning;
        pruned.n_events += 1;
        let embedding = self.get(schema::EMBEDDINGS, key)?;
        sums.change(self, key, embedding.as_deref(), None)?;
        let mut index_key = Vec::new();
        if let Some(anomaly) = self
            .get(schema::ANOMALIES, key)?
            .and_then(|value| anomaly_of(&value))
        {
            pruned.n_anomalies += 1;
            let n_anomalies = counters.anomalies.of_mut(anomaly.severity);
            *n_anomalies = n_anomalies.saturating_sub(1);
            let AnomalyRecord {
                severity,
                timestamp,
                event_id,
                ..
            } = &anomaly;
            schema::push_severity_key(&mut index_key, *severity, *timestamp, event_id);
            writes.delete_cf(self.family(schema::BY_SEVERITY), &index_key);
        }
        let block = parse_event(value);
        if let Some(event) = block.events.first() {
            let view = block.view(event);
            counters.remove_event(view.kind, view.is_failure);
            stretches.remove(self, view.timestamp_ms, view.is_failure)?;
            index_key.clear();
            schema::push_id_key(&mut index_key, view.event_id, view.timestamp_ms);
            writes.delete_cf(self.family(schema::BY_ID), &index_key);
            index_key.clear();
            schema::push_user_key(&mut index_key, view.user, view.timestamp_ms, view.event_id);
            writes.delete_cf(self.family(schema::BY_USER), &index_key);
        }
        for family in [
            schema::EVENTS,
            schema::ANOMALIES,
            schema::AI_ANALYSIS,
            schema::EMBEDDINGS,
            schema::PENDING,
        ] {
            writes.delete_cf(self.family(family), key);
        }
        Ok(())
    }

    /// Bytes on disk by family.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(super) fn disk_bytes(&self) -> anyhow::Result<BTreeMap<&'static str, u64>> {
        let mut bytes = BTreeMap::new();
        for family in schema::FAMILIES {
            let size = self.property(family, "rocksdb.total-sst-files-size")?;
            bytes.insert(family, size);
        }
        Ok(bytes)
    }
}

impl Verified {
    pub(super) fn find(&mut self, finding: String) {
        self.n_findings += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// What all users share must be such that a run can go on from it.
fn verify_shared(kind: DetectorKind, record: &[u8]) -> Result<(), RecordError> {
    Corrector::new(kind, stage::of_detector(record)?).map(drop)
}

/// A block with the event that a value holds, or with none.
pub(crate) fn parse_event(value: Vec<u8>) -> Block {
    let mut block = Block::new();
    block.lines = value;
    block.lines.push(b'\n');
    // It was within the limit when it came in, whatever that was then.
    let line_bytes_max = block.lines.len().max(LINE_BYTES_MAX);
    block.parse(line_bytes_max);
    block
}

pub(super) fn show(key: &[u8]) -> String {
    crate::record::text::printable(&String::from_utf8_lossy(key)).into_owned()
}
