//! A task's checkpoint in its changelog: written as one transaction, however often it takes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::changelog::{Changelog, Checkpoint, POSITION, SHARED};
use super::deliveries::Deliveries;
use crate::io::position::PartitionPosition;
use crate::schema;

/// Records that are longer come in parts of this length: brokers take messages of up to 1 MB.
const PART_BYTES: usize = 512 << 10;
/// How long the brokers may take for a step of a transaction before it is tried again.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a checkpoint is tried, once the program is to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Writes the checkpoints of one task.
pub(super) struct Writer {
    pub(super) client: BaseProducer<Deliveries>,
    /// Parts of the record of what users share that were written last.
    pub(super) n_shared_parts: AtomicUsize,
}

/// How a transaction has ended.
enum Outcome {
    Committed,
    /// To be tried again.
    Aborted(String),
    /// The task is another program's.
    Fenced,
}

impl Changelog {
    /// Does a transaction until it is committed, and gives the offset behind it; none if the task is
    /// another program's.
    pub(super) fn transact(
        &self,
        task: &str,
        writer: &Writer,
        fill: &mut dyn FnMut(&mut Send<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<i64>> {
        let mut deadline = None;
        loop {
            let why = match self.try_transact(task, writer, fill)? {
                Outcome::Committed => {
                    return Ok(Some(writer.client.context().end()));
                }
                Outcome::Fenced => {
                    self.let_go(task);
                    return Ok(None);
                }
                Outcome::Aborted(why) => why,
            };
            writer.client.context().ear.tell_trouble(&why);
            if self.shutdown.is_requested() {
                let deadline = deadline.get_or_insert_with(|| Instant::now() + STOP_TIMEOUT);
                ensure!(
                    Instant::now() < *deadline,
                    "the checkpoint of {task} cannot be written to topic {}: {why}; start again, and \
                     it goes on at the one before",
                    self.topic
                );
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn try_transact(
        &self,
        task: &str,
        writer: &Writer,
        fill: &mut dyn FnMut(&mut Send<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Outcome> {
        let partition = self.partition_of(task);
        let writer = &writer.client;
        writer.context().forgive();
        if let Err(error) = writer.begin_transaction() {
            return judge(writer, &error);
        }
        let mut failed: Option<KafkaError> = None;
        let mut send = |key: &[u8], value: &[u8]| {
            let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic)
                .partition(partition)
                .key(key)
                .payload(value);
            while failed.is_none() {
                writer.poll(Duration::ZERO);
                record = match writer.send(record) {
                    Ok(()) => return Ok(()),
                    Err((error, record)) => {
                        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                            failed = Some(error);
                        }
                        record
                    }
                };
                writer.poll(Duration::from_millis(5));
            }
            Ok(())
        };
        fill(&mut send)?;
        if let Some(error) = failed {
            return judge(writer, &error);
        }
        // Deliveries are heard while it waits, which the commit itself would not do.
        if let Err(error) = writer.flush(STEP_TIMEOUT) {
            return judge(writer, &error);
        }
        if let Some(why) = writer.context().failure() {
            return abort(writer, why);
        }
        let mut committed = writer.commit_transaction(STEP_TIMEOUT);
        // Whether it was committed is not known yet: only asking again can tell.
        while is_retriable(&committed) && !self.shutdown.is_requested() {
            committed = writer.commit_transaction(STEP_TIMEOUT);
        }
        match committed {
            Ok(()) => Ok(Outcome::Committed),
            Err(error) => judge(writer, &error),
        }
    }
}

/// Takes a record to be written.
pub(super) type Send<'a> = dyn FnMut(&[u8], &[u8]) -> anyhow::Result<()> + 'a;

/// Writes how far a task has come, and what its users share if that has changed, in as many parts as
/// it takes.
pub(super) fn send_checkpoint(
    task: &str,
    position: &PartitionPosition,
    shared: Option<&[u8]>,
    n_shared_parts: &AtomicUsize,
    send: &mut Send<'_>,
) -> anyhow::Result<()> {
    let name = |name: &[u8]| [&schema::task_end(task)[..], name].concat();
    if let Some(shared) = shared {
        let parts = shared.chunks(PART_BYTES);
        n_shared_parts.store(parts.len(), Ordering::Relaxed);
        for (i, part) in parts.enumerate() {
            let number = (i as u32).to_be_bytes();
            send(&name(&[SHARED, &number].concat()), part)?;
        }
    }
    let checkpoint = Checkpoint {
        cluster: position.cluster.clone(),
        offset: position.offset,
        shared_parts: n_shared_parts.load(Ordering::Relaxed),
    };
    send(&name(POSITION), &serde_json::to_vec(&checkpoint)?)
}

fn is_retriable(result: &KafkaResult<()>) -> bool {
    matches!(result, Err(KafkaError::Transaction(error)) if error.is_retriable())
}

/// What an error within a transaction means for it.
fn judge(client: &BaseProducer<Deliveries>, error: &KafkaError) -> anyhow::Result<Outcome> {
    if error.rdkafka_error_code().is_some_and(is_fenced) {
        return Ok(Outcome::Fenced);
    }
    abort(client, error.to_string())
}

/// Ends a transaction that cannot be committed, and says why.
fn abort(client: &BaseProducer<Deliveries>, why: String) -> anyhow::Result<Outcome> {
    let why = match client.abort_transaction(STEP_TIMEOUT) {
        Ok(()) => why,
        Err(error) => error.to_string(),
    };
    match client.client().fatal_error() {
        Some((code, _)) if is_fenced(code) => Ok(Outcome::Fenced),
        Some((_, why)) => bail!("Kafka takes no more checkpoints: {why}"),
        None => Ok(Outcome::Aborted(why)),
    }
}

/// Whether another program has claimed the task.
fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
    )
}
