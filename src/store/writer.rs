//! Writes batches: events, indexes, anomalies, alerts and counters of what was gathered go into one
//! `WriteBatch`; baselines and positions follow now and then in another one. What is there already is
//! not written or counted again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rocksdb::{ColumnFamily, WriteBatch};

use super::counters::Counters;
use super::pending::Pending;
use super::recent::Recent;
use super::vectors::SumKeeper;
use super::{Outbox, Pipe, Store};
use crate::batch::{Batch, Block, Learned, Marker, Medium, Records};
use crate::engine::{Ends, Flow, Keeper, Logged, Sink};
use crate::io::ndjson::NdjsonSink;
use crate::io::position::{self, Position};
use crate::record::anomaly::{AnomalyRecord, Severity};
use crate::record::{Event, StageField};
use crate::report::say;
use crate::schema;

/// Room that a write is given at first: growing by doubling would need three times as much.
const WRITES_BYTES: usize = 4 << 20;

/// Bytes from which it is written, whatever else is waiting: what is said of an event can be longer than
/// its line.
const WRITES_BYTES_MAX: usize = 8 << 20;

/// How to write.
pub struct WriterOptions {
    /// Wait until each batch is on the disk, not only in the system's cache.
    pub sync: bool,
    /// The detector whose baselines come along, if any do.
    pub detector: Option<&'static str>,
    /// Keep how far the sources were read, so that the next run goes on there.
    pub with_positions: bool,
    /// Told how many checkpoints have been kept.
    pub n_kept: Arc<AtomicU32>,
    /// Told how far sources were read in them.
    pub keeper: Option<Box<dyn Keeper>>,
    /// Replace what stages said of an event that is stored already. Else it stays as it is.
    pub rescore: bool,
    /// The pipe that ends here, if its programs go on where they were.
    pub pipe: Option<Pipe>,
    /// Put alerts there, if somebody is told of them.
    pub outbox: Option<Outbox>,
    /// Pass the lines on once they are stored.
    pub tee: Option<NdjsonSink>,
}

/// The sink that stores.
pub struct Writer {
    store: Arc<Store>,
    options: WriterOptions,
    counters: Counters,
    sums: SumKeeper,
    /// Keys that the store may hold; others are new without looking.
    recent: Recent,
    pending: Pending,
    /// What has been gathered since the last commit.
    writes: WriteBatch,
    /// How far each source has been read in what was gathered.
    ends: Ends,
    scratch: Vec<u8>,
}

impl Writer {
    /// A writer for an open store.
    ///
    /// # Errors
    /// If the store's counters cannot be read.
    pub fn new(store: Arc<Store>, options: WriterOptions) -> anyhow::Result<Self> {
        store.make_vector_sums()?;
        let counters = store.counters()?;
        let recent = Recent::new(store.last_event_key()?.unwrap_or_default());
        let pending = Pending::default();
        Ok(Self {
            store,
            options,
            counters,
            sums: SumKeeper::default(),
            recent,
            pending,
            writes: WriteBatch::with_capacity_bytes(WRITES_BYTES),
            ends: Ends::default(),
            scratch: Vec::new(),
        })
    }

    fn put_block(
        &mut self,
        block: &Block,
        families: &Families<'_>,
        writes: &mut WriteBatch,
    ) -> anyhow::Result<u64> {
        let mut n_duplicates = 0;
        let mut key = Vec::new();
        for event in &block.events {
            key.clear();
            schema::push_event_key(&mut key, event.timestamp_ms, block.text(event.event_id));
            let hash = self.pending.hash(&key);
            if self.is_known(&key, hash)? {
                n_duplicates += 1;
                if self.options.rescore {
                    self.update(block, event, (&key, hash), families, writes)?;
                }
            } else {
                self.recent.insert(&key, hash);
                self.insert(block, event, (&key, hash), families, writes)?;
            }
        }
        Ok(n_duplicates)
    }

    fn is_known(&self, key: &[u8], hash: u64) -> anyhow::Result<bool> {
        if !self.recent.may_hold(key, hash) {
            return Ok(false);
        }
        if self.pending.find(key, hash).is_some() {
            return Ok(true);
        }
        Ok(self.store.get(schema::EVENTS, key)?.is_some())
    }

    /// Writes an event that the store does not hold.
    fn insert(
        &mut self,
        block: &Block,
        event: &Event,
        (key, hash): (&[u8], u64),
        families: &Families<'_>,
        writes: &mut WriteBatch,
    ) -> anyhow::Result<()> {
        let i = self.pending.insert(key, hash);
        let embedding = block.stage_value(event, StageField::Embedding);
        self.sums.change(&self.store, key, None, embedding)?;
        if self.options.rescore
            && let Some(embedding) = embedding
        {
            self.pending.embeddings.insert(i, embedding.to_vec());
        }
        let anomaly = anomaly_of_event(block, event);
        if self.options.rescore
            && let Some(value) = block.stage_value(event, StageField::Anomaly)
        {
            self.pending.anomalies.insert(i, value.to_vec());
        }
        let line = &mut self.scratch;
        line.clear();
        if anomaly.is_none() && block.stage_value(event, StageField::Anomaly).is_some() {
            // Not a record of ours after all: it stays a part of the event.
            line.extend_from_slice(block.bytes(event.line));
        } else {
            block.push_bare_line(event, line);
        }
        writes.put_cf(families.events, key, line.trim_ascii_end());

        let (event_id, user) = (block.text(event.event_id), block.text(event.user));
        let index_key = line;
        index_key.clear();
        schema::push_id_key(index_key, event_id, event.timestamp_ms);
        writes.put_cf(families.by_id, &index_key, b"");

        let severity = self.put_stage_values(block, event, key, families, writes);
        let index_key = &mut self.scratch;
        index_key.clear();
        schema::push_user_key(index_key, user, event.timestamp_ms, event_id);
        writes.put_cf(
            families.by_user,
            &index_key,
            [schema::severity_byte(severity)],
        );

        self.counters
            .add_event(block.text(event.kind), event.is_failure);
        if let Some(severity) = severity {
            *self.counters.anomalies.of_mut(severity) += 1;
        }
        if let (Some(outbox), Some(anomaly)) = (&mut self.options.outbox, anomaly) {
            outbox.put(key, &anomaly, families.meta, writes);
        }
        Ok(())
    }

    /// Brings an event that the store holds up to date: the event itself stays as it came
    /// first, what stages say of it is replaced by what they say now.
    fn update(
        &mut self,
        block: &Block,
        event: &Event,
        (key, hash): (&[u8], u64),
        families: &Families<'_>,
        writes: &mut WriteBatch,
    ) -> anyhow::Result<()> {
        self.update_embedding(block, event, (key, hash), families, writes)?;
        let Some(value) = block.stage_value(event, StageField::Anomaly) else {
            return Ok(());
        };
        if anomaly_of_event(block, event).is_none() {
            return Ok(());
        }
        let pending = self.pending.find(key, hash);
        let old = match pending.and_then(|i| self.pending.anomalies.get(&i)) {
            Some(old) => Some(old.clone()),
            None => self.store.get(schema::ANOMALIES, key)?,
        };
        if old.as_deref() == Some(value) {
            return Ok(());
        }
        let (event_id, user) = (block.text(event.event_id), block.text(event.user));
        if let Some(old) = old.and_then(|old| anomaly_of(&old)) {
            let n_anomalies = self.counters.anomalies.of_mut(old.severity);
            *n_anomalies = n_anomalies.saturating_sub(1);
            let index_key = &mut self.scratch;
            index_key.clear();
            schema::push_severity_key(index_key, old.severity, event.timestamp_ms, event_id);
            writes.delete_cf(families.by_severity, &index_key);
        }
        let severity = self.put_stage_values(block, event, key, families, writes);
        if let Some(severity) = severity {
            *self.counters.anomalies.of_mut(severity) += 1;
        }
        let index_key = &mut self.scratch;
        index_key.clear();
        schema::push_user_key(index_key, user, event.timestamp_ms, event_id);
        writes.put_cf(
            families.by_user,
            &index_key,
            [schema::severity_byte(severity)],
        );
        let i = self
            .pending
            .find(key, hash)
            .unwrap_or_else(|| self.pending.insert(key, hash));
        self.pending.anomalies.insert(i, value.to_vec());
        Ok(())
    }

    /// The same for its embedding.
    fn update_embedding(
        &mut self,
        block: &Block,
        event: &Event,
        (key, hash): (&[u8], u64),
        families: &Families<'_>,
        writes: &mut WriteBatch,
    ) -> anyhow::Result<()> {
        let Some(value) = block.stage_value(event, StageField::Embedding) else {
            return Ok(());
        };
        let i = self.pending.find(key, hash);
        let i = i.unwrap_or_else(|| self.pending.insert(key, hash));
        let old = match self.pending.embeddings.get(&i) {
            Some(old) => Some(old.clone()),
            None => self.store.get(schema::EMBEDDINGS, key)?,
        };
        self.sums
            .change(&self.store, key, old.as_deref(), Some(value))?;
        writes.put_cf(families.embeddings, key, value);
        self.pending.embeddings.insert(i, value.to_vec());
        Ok(())
    }

    /// Writes what stages have added; the severity of the anomaly, if it is one.
    fn put_stage_values(
        &mut self,
        block: &Block,
        event: &Event,
        key: &[u8],
        families: &Families<'_>,
        writes: &mut WriteBatch,
    ) -> Option<Severity> {
        if event.stage_fields == 0 {
            return None;
        }
        for (field, family) in [
            (StageField::Context, families.pending),
            (StageField::Analysis, families.ai_analysis),
            (StageField::Embedding, families.embeddings),
        ] {
            if let Some(value) = block.stage_value(event, field) {
                writes.put_cf(family, key, value);
            }
        }
        let value = block.stage_value(event, StageField::Anomaly)?;
        let anomaly = anomaly_of_event(block, event)?;
        writes.put_cf(families.anomalies, key, value);
        let index_key = &mut self.scratch;
        index_key.clear();
        let event_id = block.text(event.event_id);
        schema::push_severity_key(index_key, anomaly.severity, event.timestamp_ms, event_id);
        writes.put_cf(
            families.by_severity,
            &index_key,
            anomaly.anomaly_score.to_be_bytes(),
        );
        Some(anomaly.severity)
    }

    /// Keeps what stages have learned and how far sources were read, in one write after the events:
    /// another run goes on there, and learns again what came later. It finds those events stored.
    fn keep_checkpoint(
        &mut self,
        batch: &mut Batch,
        families: &Families<'_>,
    ) -> anyhow::Result<()> {
        // Growing by doubling would take three times as much; a dozen bytes go with each record.
        let mut ends = self.ends.take();
        let logged = match &mut self.options.keeper {
            None => Vec::new(),
            Some(keeper) => keeper.keep(&batch.learned, &ends)?,
        };
        for (task, _) in logged.iter().filter(|(_, logged)| *logged == Logged::Lost) {
            ends.remove(task);
            batch.learned.retain(|learned| learned.task != *task);
        }
        let of_records = |records: &Records| records.n_bytes() + 16 * records.len();
        let of_task = |learned: &Learned| {
            learned.shared.len() + learned.baselines.iter().map(of_records).sum::<usize>()
        };
        let n_bytes: usize = batch.learned.iter().map(of_task).sum();
        let mut writes = WriteBatch::with_capacity_bytes(n_bytes + (64 << 10));
        for learned in batch.learned.drain(..) {
            let mut key = schema::task_prefix(&learned.task);
            let n_prefix = key.len();
            // One group after the other is let go: all of them are not needed twice.
            for records in learned.baselines {
                for (user, record) in records.iter() {
                    key.truncate(n_prefix);
                    key.extend_from_slice(user);
                    writes.put_cf(families.baselines, &key, record);
                }
            }
            if !learned.shared.is_empty() {
                let key = schema::baseline_key(&learned.task, schema::SHARED_BASELINE);
                writes.put_cf(families.baselines, key, &learned.shared);
            }
        }
        for (source, end) in &ends {
            if let Some(position) = Position::of(end) {
                let key = schema::position_key(&position::key(source));
                writes.put_cf(families.meta, key, serde_json::to_vec(&position)?);
            }
            if let Medium::Partition(_) = end.medium {
                let key = schema::log_end_key(source);
                match logged.iter().find(|(task, _)| task == source) {
                    Some((_, Logged::UpTo(log_end))) => {
                        writes.put_cf(families.meta, key, log_end.to_string());
                    }
                    // What is here is no longer what is there.
                    _ => writes.delete_cf(families.meta, key),
                }
            }
        }
        if !writes.is_empty() {
            self.put_detector(families, &mut writes);
            self.store.write(writes, self.options.sync)?;
        }
        if let Some(keeper) = &mut self.options.keeper {
            keeper.kept(&ends);
        }
        Ok(())
    }

    /// Keeps a checkpoint of the pipe: another run goes on there. Without the one before it, it is not
    /// known what came between.
    fn keep_pipe(&mut self, marker: &Marker) -> anyhow::Result<()> {
        let Some(pipe) = &mut self.options.pipe else {
            return Ok(());
        };
        if marker.checkpoint == pipe.checkpoint + 1 {
            pipe.checkpoint = marker.checkpoint;
            return self.store.put_pipe(pipe, marker, self.options.sync);
        }
        let (found, last) = (marker.checkpoint, pipe.checkpoint);
        say(
            "sg-store",
            &format!(
                "checkpoint {found} has come after {last}, those between them are lost: something in \
                 the pipe does not pass on all lines that begin with {{\"sg\":. The next run goes on \
                 after {last}"
            ),
        );
        self.options.pipe = None;
        Ok(())
    }

    /// Says whose anomalies and baselines a write holds: no other detector may go on among them.
    fn put_detector(&self, families: &Families<'_>, writes: &mut WriteBatch) {
        if let Some(detector) = self.options.detector
            && !writes.is_empty()
        {
            writes.put_cf(families.meta, schema::META_DETECTOR, detector);
        }
    }

    fn commit(&mut self, families: &Families<'_>, writes: &mut WriteBatch) -> anyhow::Result<()> {
        self.put_detector(families, writes);
        if !self.pending.is_empty() {
            let counters = serde_json::to_vec(&self.counters)?;
            writes.put_cf(families.meta, schema::META_COUNTERS, counters);
        }
        self.sums.put(&self.store, writes);
        if !writes.is_empty() {
            self.store
                .write(std::mem::take(writes), self.options.sync)?;
            *writes = WriteBatch::with_capacity_bytes(WRITES_BYTES);
        }
        if let Some(outbox) = &self.options.outbox {
            outbox.is_written();
        }
        self.pending.clear();
        Ok(())
    }
}

impl Sink for Writer {
    fn write(&mut self, batch: &mut Batch) -> anyhow::Result<Flow> {
        let store = Arc::clone(&self.store);
        let families = Families::of(&store);
        let mut writes = std::mem::take(&mut self.writes);
        // A pipe ends here.
        let marker = batch.marker.take();
        let mut n_out = 0;
        let mut n_duplicates = 0;
        for block in &batch.blocks {
            n_out += block.events.len() as u64;
            n_duplicates += self.put_block(block, &families, &mut writes)?;
            if writes.size_in_bytes() >= WRITES_BYTES_MAX {
                self.commit(&families, &mut writes)?;
            }
        }
        if self.options.with_positions {
            self.ends.add(batch);
        }
        // Lines are passed on only when they are kept.
        if batch.is_commit || self.options.tee.is_some() {
            self.commit(&families, &mut writes)?;
        }
        if batch.is_checkpoint {
            self.keep_checkpoint(batch, &families)?;
            self.options.n_kept.fetch_add(1, Ordering::Release);
        }
        if let Some(marker) = marker {
            self.keep_pipe(&marker)?;
        }
        self.writes = writes;
        if let Some(tee) = &mut self.options.tee {
            // Passed on, known or not: whoever reads them may have missed them last time.
            if tee.write(batch)? == Flow::Closed {
                return Ok(Flow::Closed);
            }
        }
        Ok(Flow::Written {
            n_out: n_out - n_duplicates,
            n_duplicates,
        })
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        // Sorted files open faster than a log that has to be replayed.
        self.store.flush()?;
        if let Some(keeper) = &mut self.options.keeper {
            keeper.finish();
        }
        Ok(())
    }
}

/// The anomaly in a value that passed for one; none if it is damaged.
pub(super) fn anomaly_of(value: &[u8]) -> Option<AnomalyRecord> {
    serde_json::from_slice(value).ok()
}

/// The anomaly record that an event carries, if it is one and speaks of this event.
fn anomaly_of_event(block: &Block, event: &Event) -> Option<AnomalyRecord> {
    let anomaly = anomaly_of(block.stage_value(event, StageField::Anomaly)?)?;
    let is_of_event = anomaly.timestamp == event.timestamp_ms
        && anomaly.event_id == block.text(event.event_id)
        && anomaly.user == block.text(event.user)
        && (0.0..=1.0).contains(&anomaly.anomaly_score);
    is_of_event.then_some(anomaly)
}

/// Handles looked up once a batch.
struct Families<'a> {
    events: &'a ColumnFamily,
    anomalies: &'a ColumnFamily,
    ai_analysis: &'a ColumnFamily,
    embeddings: &'a ColumnFamily,
    pending: &'a ColumnFamily,
    by_id: &'a ColumnFamily,
    by_user: &'a ColumnFamily,
    by_severity: &'a ColumnFamily,
    baselines: &'a ColumnFamily,
    meta: &'a ColumnFamily,
}

impl<'a> Families<'a> {
    fn of(store: &'a Store) -> Self {
        Self {
            events: store.family(schema::EVENTS),
            anomalies: store.family(schema::ANOMALIES),
            ai_analysis: store.family(schema::AI_ANALYSIS),
            embeddings: store.family(schema::EMBEDDINGS),
            pending: store.family(schema::PENDING),
            by_id: store.family(schema::BY_ID),
            by_user: store.family(schema::BY_USER),
            by_severity: store.family(schema::BY_SEVERITY),
            baselines: store.family(schema::BASELINES),
            meta: store.family(schema::META),
        }
    }
}
