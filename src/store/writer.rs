//! Writes batches: events, indexes, anomalies, alerts and counters of what was gathered go into one
//! write; baselines and positions follow now and then in another one. What is there already is not
//! written or counted again.

mod behind;
mod stages;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rocksdb::{ColumnFamily, WriteBatch};

use super::bulk::BULK_BYTES_MIN;
use super::counters::Counters;
use super::gathered::Gathered;
use super::recent::Recent;
use super::stretches::StretchKeeper;
use super::vectors::SumKeeper;
use super::{Bell, Notice, Outbox, Pipe, Store};
use crate::batch::{Batch, Block, Marker, Medium};
use crate::engine::{Ends, Flow, Keeper, Logged, Sink};
use crate::io::ndjson::NdjsonSink;
use crate::io::position::{self, Position};
use crate::record::anomaly::AnomalyRecord;
use crate::record::{Event, StageField};
use crate::report::warn;
use crate::schema;
use behind::Behind;
use stages::analysis_of_event;

/// Room that a write is given at first: growing by doubling would need three times as much.
const WRITES_BYTES: usize = 1 << 20;
/// Events whose keys are made before the first of them is looked for.
const KEYS_AHEAD: usize = 64;

/// How to write.
pub struct WriterOptions {
    /// Wait until each batch is on the disk, not only in the system's cache.
    pub sync: bool,
    /// The detector whose baselines come along, if any do.
    pub detector: Option<&'static str>,
    /// Keep how far the sources were read, so that the next run goes on there.
    pub with_positions: bool,
    /// Bytes of events from which they are written, whatever else is waiting.
    pub gathered_bytes_max: usize,
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
    /// Told when there may be events that wait for their analysis, if somebody waits for those.
    pub notice: Option<Arc<Notice>>,
    /// Pass the lines on once they are stored.
    pub tee: Option<NdjsonSink>,
}

/// The sink that stores.
pub struct Writer {
    store: Arc<Store>,
    options: WriterOptions,
    counters: Counters,
    sums: SumKeeper,
    stretches: StretchKeeper,
    /// Keys that the store may hold; others are new without looking.
    recent: Recent,
    /// The last key that the store holds.
    last_key: Vec<u8>,
    /// New events since the last commit.
    gathered: Gathered,
    /// The large write that is on its way, and where the events after it are gathered next.
    behind: Option<Behind>,
    spare: Option<Gathered>,
    /// What else is to be written with them.
    writes: WriteBatch,
    /// Anomalies in that write by key, for a rescore.
    anomalies: HashMap<Vec<u8>, Vec<u8>>,
    /// Embeddings, the same.
    embeddings: HashMap<Vec<u8>, Vec<u8>>,
    /// Events that waited for their analysis, and whose analysis is in that write.
    analysed: HashSet<Vec<u8>>,
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
        store.make_stretches()?;
        // What a thread has raised that keeps analyses stands beside them.
        let counters = store.view().written_counters()?;
        let last_key = store.view().last_event_key()?.unwrap_or_default();
        Ok(Self {
            store,
            counters,
            sums: SumKeeper::default(),
            stretches: StretchKeeper::default(),
            recent: Recent::new(last_key.clone()),
            last_key,
            gathered: Gathered::new(options.gathered_bytes_max),
            options,
            behind: None,
            spare: None,
            anomalies: HashMap::new(),
            embeddings: HashMap::new(),
            analysed: HashSet::new(),
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
        let mut keys = Vec::new();
        let mut ends = Vec::with_capacity(KEYS_AHEAD);
        for events in block.events.chunks(KEYS_AHEAD) {
            keys.clear();
            ends.clear();
            for event in events {
                let start = keys.len();
                schema::push_event_key(&mut keys, event.timestamp_ms, block.text(event.event_id));
                let hash = self.gathered.hash(&keys[start..]);
                self.recent.prefetch(&keys[start..], hash);
                ends.push((keys.len(), hash));
            }
            let mut start = 0;
            for (event, &(end, hash)) in events.iter().zip(&ends) {
                let key = (&keys[start..end], hash);
                start = end;
                n_duplicates += u64::from(self.put_event(block, event, key, families, writes)?);
            }
        }
        Ok(n_duplicates)
    }

    /// Takes an event; whether the store holds it already.
    fn put_event(
        &mut self,
        block: &Block,
        event: &Event,
        (key, hash): (&[u8], u64),
        families: &Families<'_>,
        writes: &mut WriteBatch,
    ) -> anyhow::Result<bool> {
        let is_known = self.is_known(key, hash)?;
        if is_known {
            if self.options.rescore {
                self.update(block, event, (key, hash), families, writes)?;
            }
            if event.stage_fields != 0
                && let Some((record, true)) = analysis_of_event(block, event)
            {
                self.put_late_analysis(block, event, (key, hash), record, families, writes)?;
            }
        } else {
            self.recent.insert(key, hash);
            self.insert(block, event, (key, hash), families, writes)?;
        }
        if self.n_bytes_gathered(writes) >= self.options.gathered_bytes_max {
            self.commit(families, writes)?;
        }
        Ok(is_known)
    }

    fn is_known(&self, key: &[u8], hash: u64) -> anyhow::Result<bool> {
        if !self.recent.may_hold(key, hash) {
            return Ok(false);
        }
        let is_behind = |behind: &Behind| behind.holds(key, hash);
        if self.gathered.find(key, hash).is_some() || self.behind.as_ref().is_some_and(is_behind) {
            return Ok(true);
        }
        Ok(self.store.get(schema::EVENTS, key)?.is_some())
    }

    fn n_bytes_gathered(&self, writes: &WriteBatch) -> usize {
        self.gathered.n_bytes() + writes.size_in_bytes()
    }

    /// Takes an event that the store does not hold.
    fn insert(
        &mut self,
        block: &Block,
        event: &Event,
        (key, hash): (&[u8], u64),
        families: &Families<'_>,
        writes: &mut WriteBatch,
    ) -> anyhow::Result<()> {
        let embedding = block.stage_value(event, StageField::Embedding);
        self.sums.change(&self.store, key, None, embedding)?;
        if self.options.rescore
            && let Some(embedding) = embedding
        {
            self.embeddings.insert(key.to_vec(), embedding.to_vec());
        }
        let anomaly = anomaly_of_event(block, event);
        let value = block.stage_value(event, StageField::Anomaly);
        let line_bytes_max = block.bytes(event.line).len();
        let names = (block.text(event.event_id), block.text(event.user));
        (self.gathered).insert(
            (key, hash),
            event.timestamp_ms,
            names,
            line_bytes_max,
            |line| {
                if anomaly.is_none() && value.is_some() {
                    // Not a record of ours after all: it stays a part of the event.
                    line.extend_from_slice(block.bytes(event.line));
                } else {
                    block.push_bare_line(event, line);
                }
            },
        );
        if self.options.rescore
            && let Some(value) = value
        {
            self.anomalies.insert(key.to_vec(), value.to_vec());
        }
        let severity = self.put_stage_values(block, event, (key, None), families, writes);
        let i = self.gathered.last();
        (self.gathered).set_severity(i, schema::severity_byte(severity));
        self.counters
            .add_event(block.text(event.kind), event.is_failure);
        let (store, timestamp_ms) = (&self.store, event.timestamp_ms);
        (self.stretches).add(store, timestamp_ms, event.is_failure)?;
        if let (Some(severity), Some(anomaly)) = (severity, &anomaly) {
            *self.counters.anomalies.of_mut(severity) += 1;
            let raised = (severity, anomaly.anomaly_score);
            (self.stretches).raise(store, timestamp_ms, raised)?;
        }
        if let (Some(outbox), Some(anomaly)) = (&mut self.options.outbox, anomaly) {
            outbox.put(key, &anomaly, families.meta, writes);
        }
        Ok(())
    }

    /// Keeps what stages have learned and how far sources were read, in one write after the events:
    /// another run goes on there, and learns again what came later. It finds those events stored.
    fn keep_checkpoint(
        &mut self,
        batch: &mut Batch,
        families: &Families<'_>,
    ) -> anyhow::Result<()> {
        let mut ends = self.ends.take();
        let mut learned = std::mem::take(&mut batch.learned);
        let logged = match &mut self.options.keeper {
            None => Vec::new(),
            Some(keeper) => keeper.keep(&learned, &ends)?,
        };
        for (task, _) in logged.iter().filter(|(_, logged)| *logged == Logged::Lost) {
            ends.remove(task);
            learned.retain(|learned| learned.task != *task);
        }
        let mut writes = WriteBatch::default();
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
        if !learned.is_empty() || !writes.is_empty() {
            self.put_detector(families, &mut writes);
            (self.store).write_learned(&learned, writes, self.options.sync)?;
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
        warn(
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
        if let Some(detector) = self.options.detector {
            writes.put_cf(families.meta, schema::META_DETECTOR, detector);
        }
    }

    /// Writes what was gathered, all of it or nothing; much of it behind the writer's back.
    fn commit(&mut self, families: &Families<'_>, writes: &mut WriteBatch) -> anyhow::Result<()> {
        if self.gathered.is_empty() && writes.is_empty() {
            return Ok(());
        }
        self.put_detector(families, writes);
        let counters = serde_json::to_vec(&self.counters)?;
        writes.put_cf(families.meta, schema::META_COUNTERS, counters);
        self.sums.put(&self.store, writes);
        (self.stretches).put(&self.store, self.counters.events, writes);
        let mut writes = std::mem::replace(writes, WriteBatch::with_capacity_bytes(WRITES_BYTES));
        let are_newest = match self.gathered.end_keys() {
            Some((first, last)) => {
                let are_newest = *first > *self.last_key;
                if *last > *self.last_key {
                    self.last_key = last.to_vec();
                }
                are_newest
            }
            None => true,
        };
        let told = Told {
            bell: self.options.outbox.as_ref().map(Outbox::bell),
            notice: self.options.notice.clone(),
        };
        if self.gathered.n_bytes() >= BULK_BYTES_MIN {
            self.write_behind(writes, are_newest, told)?;
        } else {
            self.settle()?;
            self.put_gathered(families, &mut writes);
            self.store.write(writes, self.options.sync)?;
            told.tell(&self.store, &self.gathered);
            self.gathered.clear();
        }
        self.analysed.clear();
        self.anomalies.clear();
        self.embeddings.clear();
        Ok(())
    }

    /// Puts events into a write: the way for few of them.
    fn put_gathered(&mut self, families: &Families<'_>, writes: &mut WriteBatch) {
        let index_key = &mut self.scratch;
        for entry in self.gathered.entries() {
            writes.put_cf(
                families.events,
                self.gathered.key(entry),
                self.gathered.line(entry),
            );
            index_key.clear();
            schema::push_hashed_id_key(index_key, entry.id, entry.timestamp_ms);
            writes.put_cf(families.by_id, &index_key, b"");
            index_key.clear();
            let event_id = self.gathered.event_id(entry);
            schema::push_hashed_user_key(index_key, entry.user, entry.timestamp_ms, event_id);
            writes.put_cf(families.by_user, &index_key, [entry.severity]);
        }
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
        }
        if self.options.with_positions {
            self.ends.add(batch);
        }
        // Lines are passed on only when they are kept.
        if batch.is_commit || self.options.tee.is_some() {
            self.commit(&families, &mut writes)?;
        }
        if batch.is_checkpoint || marker.is_some() || self.options.tee.is_some() {
            self.settle()?;
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

    fn name(&self) -> Option<&'static str> {
        Some("store")
    }

    fn gathers(&self) -> bool {
        // Lines are passed on only when they are kept.
        self.options.tee.is_none()
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        self.settle()?;
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

/// Those who are told when events are stored.
struct Told {
    /// With the number of the last alert among them.
    bell: Option<(Arc<Bell>, u64)>,
    notice: Option<Arc<Notice>>,
}

impl Told {
    fn tell(&self, store: &Store, gathered: &Gathered) {
        if let Some((bell, last)) = &self.bell {
            bell.ring(*last);
        }
        if let Some(notice) = &self.notice {
            notice.give();
        }
        let stored = gathered.entries().iter();
        (store.feed).add(stored.map(|it| (gathered.key(it), it.severity)));
    }
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
            meta: store.family(schema::META),
        }
    }
}
