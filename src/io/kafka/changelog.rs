//! What tasks have learned, in a compacted topic: whoever gets a partition goes on with its baselines
//! where the program that had it has come to. It is the model of Kafka Streams.
//!
//! A task's records are in one partition of the topic, under the keys that they have in the store. Each
//! checkpoint is a transaction, so that one is read as a whole or not at all; and each task has a
//! transactional id of its own, so that a program that has lost a task without having noticed cannot
//! write to it any more.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rdkafka::Message as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::Cluster;
use super::client::{Ear, partitions_of, reach, unusable};
use super::deliveries::Deliveries;
use super::partition_of;
use super::transaction::{Send, Writer, send_checkpoint};
use crate::batch::{Learned, Origin, Records};
use crate::engine::{Logged, TaskStore};
use crate::io::position::{PartitionPosition, Position, read_number};
use crate::schema;
use crate::shutdown::Shutdown;

/// Librdkafka's settings for writing, besides those that go with a transactional id.
const WRITER_SETTINGS: [(&str, &str); 5] = [
    // Baselines are half hashes, and half numbers that resemble each other.
    ("compression.type", "zstd"),
    ("linger.ms", "5"),
    ("batch.size", "524288"),
    ("queue.buffering.max.kbytes", "65536"),
    // A checkpoint that was not ended within this never will be, and those who read wait for it.
    ("transaction.timeout.ms", "30000"),
];
/// And for reading.
const READER_SETTINGS: [(&str, &str); 7] = [
    ("group.id", "streamguard-without-a-group"),
    ("enable.auto.commit", "false"),
    ("auto.offset.reset", "earliest"),
    ("isolation.level", "read_committed"),
    // All of it is wanted at once.
    ("fetch.queue.backoff.ms", "10"),
    ("enable.partition.eof", "true"),
    ("statistics.interval.ms", "100"),
];
/// How long the brokers may take to make a topic.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages at the end of a partition among which its last checkpoint is looked for first.
const NEAR_END: i64 = 4_096;
/// Records restored in one write.
const RESTORE_BYTES: usize = 4 << 20;

/// The record under which a task's position is kept; behind it come the parts of what users share.
pub(super) const POSITION: &[u8] = b"position";
pub(super) const SHARED: &[u8] = b"shared";

/// How far a task has come, as of its last checkpoint in the topic.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    pub(super) cluster: String,
    #[serde(deserialize_with = "read_number")]
    pub(super) offset: u64,
    /// Parts of the record of what users share.
    pub(super) shared_parts: usize,
}

/// The topic, and the tasks that this program has.
pub(super) struct Changelog {
    name: &'static str,
    quiet: bool,
    cluster: Cluster,
    pub(super) topic: String,
    group: String,
    n_partitions: i32,
    store: Arc<dyn TaskStore>,
    pub(super) shutdown: Shutdown,
    writers: Mutex<HashMap<Arc<str>, Arc<Writer>>>,
}

impl Changelog {
    /// For a group's tasks; the topic is made if it is not there, with as many partitions.
    pub(super) fn open(
        (name, quiet): (&'static str, bool),
        cluster: &Cluster,
        (topic, group): (&str, &str),
        n_partitions: i32,
        store: Arc<dyn TaskStore>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Self> {
        let mut changelog = Self {
            name,
            quiet,
            cluster: cluster.clone(),
            topic: topic.to_owned(),
            group: group.to_owned(),
            n_partitions,
            store,
            shutdown: shutdown.clone(),
            writers: Mutex::default(),
        };
        let reader = changelog.reader()?;
        let listen = || drop(reader.poll(Duration::from_millis(5)));
        let count = |timeout| {
            let metadata = reader.fetch_metadata(Some(topic), timeout)?;
            Ok(partitions_of(&metadata).len())
        };
        let count = || reach(reader.context(), cluster, shutdown, listen, count);
        let mut n_found = count()?;
        if n_found == 0 {
            changelog.make_topic(n_partitions)?;
            // Brokers hear of it one after the other.
            let deadline = Instant::now() + STEP_TIMEOUT;
            while n_found == 0 && Instant::now() < deadline {
                n_found = count()?;
                thread::sleep(Duration::from_millis(50));
            }
        }
        ensure!(
            n_found > 0,
            "there is no topic {topic}, and it cannot be made"
        );
        changelog.n_partitions = n_found as i32;
        Ok(changelog)
    }

    fn make_topic(&self, n_partitions: i32) -> anyhow::Result<()> {
        let config = self.cluster.config(&[]);
        let admin = AdminClient::from_config_and_context(&config, Ear::new(self.name, self.quiet))?;
        // As many copies as the cluster gives a topic of which nobody has said how many.
        let topic = NewTopic::new(&self.topic, n_partitions, TopicReplication::Fixed(-1))
            .set("cleanup.policy", "compact")
            // Old records go soon: whoever restores reads all that are left.
            .set("min.cleanable.dirty.ratio", "0.2")
            .set("segment.bytes", "67108864");
        let options = AdminOptions::new().operation_timeout(Some(STEP_TIMEOUT));
        let made = pollster::block_on(admin.create_topics([&topic], &options))?;
        match made.first() {
            // Another program of the group may have been first.
            Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | None => Ok(()),
            Some(Err((topic, why))) => bail!("cannot make topic {topic}: {why}"),
        }
    }

    fn reader(&self) -> anyhow::Result<BaseConsumer<Ear>> {
        let config = self.cluster.config(&READER_SETTINGS);
        let ear = Ear::new(self.name, self.quiet);
        BaseConsumer::from_config_and_context(&config, ear).map_err(unusable)
    }

    /// The partition of the topic that a task's records are in.
    pub(super) fn partition_of(&self, task: &str) -> i32 {
        partition_of(task).map_or(0, |(_, partition)| partition % self.n_partitions)
    }

    /// Takes a task over: whoever had it cannot write any more, and what it has kept is kept here.
    pub(super) fn take_over(&self, task: &Arc<str>) -> anyhow::Result<()> {
        let id = format!("streamguard-{}-{task}", self.group);
        let mut config = self.cluster.config(&WRITER_SETTINGS);
        config.set("transactional.id", &id);
        let context = Deliveries::new(Ear::new(self.name, self.quiet));
        let client = BaseProducer::from_config_and_context(&config, context).map_err(unusable)?;
        let listen = || client.poll(Duration::from_millis(5));
        let begin = |timeout| client.init_transactions(timeout);
        let ear = &client.context().ear;
        reach(ear, &self.cluster, &self.shutdown, listen, begin)?;
        let restored = self.restore(task)?;
        let writer = Writer {
            client,
            n_shared_parts: restored.unwrap_or(0).into(),
        };
        if restored.is_none() {
            self.seed(task, &writer)?;
        }
        let writer = Arc::new(writer);
        if let Ok(mut writers) = self.writers.lock() {
            writers.insert(Arc::clone(task), writer);
        }
        Ok(())
    }

    /// Lets a task go.
    pub(super) fn let_go(&self, task: &str) {
        if let Ok(mut writers) = self.writers.lock() {
            writers.remove(task);
        }
    }

    /// Brings what is kept of a task here, if others have come further with it; gives the parts of the
    /// record of what users share, or none if what is here is not in the topic.
    fn restore(&self, task: &str) -> anyhow::Result<Option<usize>> {
        let here = self.store.task(task)?;
        let reader = self.reader()?;
        let partition = self.partition_of(task);
        let ask = |timeout| reader.fetch_watermarks(&self.topic, partition, timeout);
        let listen = || drop(reader.poll(Duration::from_millis(5)));
        let (low, high) = reach(reader.context(), &self.cluster, &self.shutdown, listen, ask)?;
        let known = here.position.map(|position| position.offset);
        // What was written up to there is here, unless the topic is another one by now.
        let log_end = here
            .log_end
            .filter(|end| known.is_some() && (low..=high).contains(end));
        // The last checkpoint is at the end, or nearly so if several tasks share the partition.
        let near = low.max(high - NEAR_END);
        let mut found = self.read(task, near..high, None)?;
        if found.is_none() && near > low {
            found = self.read(task, low..high, None)?;
        }
        let Some(checkpoint) = found else {
            return Ok(None);
        };
        if known.is_some_and(|known| known >= checkpoint.offset) {
            let is_in_topic = log_end.is_some() && known == Some(checkpoint.offset);
            return Ok(is_in_topic.then_some(checkpoint.shared_parts));
        }
        self.store.begin_restore(task, log_end.is_none())?;
        let is_whole = log_end.is_none();
        let mut store = |records: &mut Vec<(Vec<u8>, Vec<u8>)>| {
            self.store.restore(records)?;
            records.clear();
            Ok(())
        };
        let range = log_end.unwrap_or(low)..high;
        let checkpoint = self.read(task, range, Some((&mut store, is_whole)))?;
        let checkpoint = checkpoint.context("what was in the changelog is gone")?;
        let position = PartitionPosition {
            cluster: checkpoint.cluster,
            offset: checkpoint.offset,
        };
        self.store.end_restore(task, &position, high)?;
        Ok(Some(checkpoint.shared_parts))
    }

    /// Reads a task's records from a range of the topic, and gives the last checkpoint in it. Records go
    /// to `store`, if there is one; with whether the range is all that there is of the task.
    fn read(
        &self,
        task: &str,
        range: Range<i64>,
        mut store: Option<(&mut Store<'_>, bool)>,
    ) -> anyhow::Result<Option<Checkpoint>> {
        if range.is_empty() {
            return Ok(None);
        }
        // A new one each time: what one has heard of the end of an earlier range does not count.
        let reader = self.reader()?;
        let mut list = TopicPartitionList::new();
        let from = Offset::Offset(range.start);
        list.add_partition_offset(&self.topic, self.partition_of(task), from)?;
        reader.assign(&list)?;
        let (prefix, end_key) = (schema::task_prefix(task), schema::task_end(task));
        let mut records = Vec::new();
        let mut n_bytes = 0;
        let mut shared: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let mut checkpoint: Option<Checkpoint> = None;
        let mut next = range.start;
        while next < range.end {
            if self.shutdown.is_requested() {
                bail!(
                    "stopped while {task} was being restored from topic {}",
                    self.topic
                );
            }
            match reader.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    next = message.offset() + 1;
                    let key = message.key().unwrap_or_default();
                    let value = message.payload().unwrap_or_default();
                    if let Some(name) = key.strip_prefix(&end_key[..]) {
                        if name == POSITION {
                            let read = serde_json::from_slice(value);
                            checkpoint = Some(read.with_context(|| self.damaged(task))?);
                        } else if let Some(part) = name.strip_prefix(SHARED) {
                            let part = part.try_into().with_context(|| self.damaged(task))?;
                            shared.insert(u32::from_be_bytes(part), value.to_owned());
                        }
                    } else if key.starts_with(&prefix) && store.is_some() {
                        ensure!(is_record(key, value), self.damaged(task));
                        n_bytes += key.len() + value.len();
                        records.push((key.to_owned(), value.to_owned()));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) | None => {
                    let ends = reader.context().take_ends();
                    if ends.iter().any(|(_, end)| *end >= range.end) {
                        // The last offsets are those of marks that are no messages.
                        next = range.end;
                    }
                }
                Some(Err(error)) => reader.context().tell_trouble(&error.to_string()),
            }
            if n_bytes > RESTORE_BYTES
                && let Some((store, _)) = &mut store
            {
                store(&mut records)?;
                n_bytes = 0;
            }
        }
        let Some(checkpoint) = checkpoint else {
            return Ok(None);
        };
        if let Some((store, is_whole)) = &mut store {
            let shared = join_parts(shared, checkpoint.shared_parts, *is_whole);
            let shared = shared.with_context(|| self.damaged(task))?;
            if !shared.is_empty() {
                records.push((schema::baseline_key(task, schema::SHARED_BASELINE), shared));
            }
            store(&mut records)?;
        }
        Ok(Some(checkpoint))
    }

    fn damaged(&self, task: &str) -> String {
        format!(
            "topic {} does not hold what {task} has learned as it was written: restore the topic, or \
             begin anew with another --changelog and another database",
            self.topic
        )
    }

    /// Writes all that is here of a task, which the topic does not have.
    fn seed(&self, task: &Arc<str>, writer: &Writer) -> anyhow::Result<()> {
        let Some(position) = self.store.task(task)?.position else {
            return Ok(());
        };
        let mut fill = |send: &mut Send<'_>| {
            let mut shared = Vec::new();
            self.store.each_record(task, &mut |user, record| {
                if user == schema::SHARED_BASELINE {
                    record.clone_into(&mut shared);
                    return Ok(());
                }
                send(&schema::baseline_key(task, user), record)
            })?;
            let n_parts = &writer.n_shared_parts;
            send_checkpoint(task, &position, Some(&shared), n_parts, send)
        };
        match self.transact(task, writer, &mut fill)? {
            Some(end) => self.store.put_log_end(task, end),
            None => bail!("{task} was taken over by another program while it was taken over here"),
        }
    }

    /// Writes what tasks have learned and how far they have come, before it is kept here.
    pub(super) fn keep(
        &self,
        learned: &[Learned],
        ends: &BTreeMap<Arc<str>, Origin>,
    ) -> anyhow::Result<Vec<(Arc<str>, Logged)>> {
        let mut logged = Vec::new();
        for (task, end) in ends {
            let Some(Position::Partition(position)) = Position::of(end) else {
                continue;
            };
            let writer = self
                .writers
                .lock()
                .ok()
                .and_then(|it| it.get(task).cloned());
            let Some(writer) = writer else {
                logged.push((Arc::clone(task), Logged::Lost));
                continue;
            };
            let learned = learned.iter().find(|learned| learned.task == *task);
            let mut fill = |send: &mut Send<'_>| {
                let mut shared = None;
                if let Some(learned) = learned {
                    let mut key = schema::task_prefix(task);
                    let n_prefix = key.len();
                    let records = learned.baselines.iter().flat_map(Records::iter);
                    for (user, record) in records {
                        key.truncate(n_prefix);
                        key.extend_from_slice(user);
                        send(&key, record)?;
                    }
                    shared = Some(&learned.shared[..]);
                }
                let n_parts = &writer.n_shared_parts;
                send_checkpoint(task, &position, shared, n_parts, send)
            };
            let end = self.transact(task, &writer, &mut fill)?;
            logged.push((Arc::clone(task), end.map_or(Logged::Lost, Logged::UpTo)));
        }
        Ok(logged)
    }
}

/// Takes records that are to be kept here.
type Store<'a> = dyn FnMut(&mut Vec<(Vec<u8>, Vec<u8>)>) -> anyhow::Result<()> + 'a;

/// Whether a record is one of a user, as we write them.
fn is_record(key: &[u8], value: &[u8]) -> bool {
    let user = schema::split_baseline_key(key).map(|(_, user)| user);
    user.is_some_and(|user| user != schema::SHARED_BASELINE) && !value.is_empty()
}

/// What users share, of its parts; none if some are missing. What was not written since the range began is
/// here already, unless the range is all that there is.
fn join_parts(parts: BTreeMap<u32, Vec<u8>>, n_parts: usize, is_whole: bool) -> Option<Vec<u8>> {
    // Those behind were of a longer record, before.
    let parts = parts.into_iter().filter(|(i, _)| (*i as usize) < n_parts);
    let parts: Vec<Vec<u8>> = parts.map(|(_, part)| part).collect();
    let is_complete = parts.len() == n_parts || parts.is_empty() && !is_whole;
    (is_complete && !parts.iter().any(Vec::is_empty)).then(|| parts.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_we_have_not_written_are_not_restored() {
        let key = |user: &[u8]| [&schema::task_prefix("kafka:t/3")[..], user].concat();
        assert!(is_record(&key("ål".as_bytes()), b"r"));
        for (user, value) in [(&b"u"[..], &b""[..]), (b"", b"r"), (b"u\xFE", b"r")] {
            assert!(!is_record(&key(user), value), "{user:?}");
        }
    }

    /// What was left of it was taken for the record.
    #[test]
    fn a_shared_record_has_all_its_parts() {
        let check = |parts: &[(u32, &str)], n_parts, is_whole, expected: Option<&str>| {
            let parts = parts.iter().map(|(i, part)| (*i, part.as_bytes().to_vec()));
            let joined = join_parts(parts.collect(), n_parts, is_whole);
            assert_eq!(joined, expected.map(|text| text.as_bytes().to_vec()));
        };
        let all = [(0, "a"), (1, "b"), (2, "c")];
        check(&all, 3, true, Some("abc"));
        check(&all, 2, false, Some("ab"));
        check(&all, 4, false, None);
        check(&all[1..], 3, true, None);
        check(&[(0, "a"), (2, "c")], 3, false, None);
        check(&[(0, "a"), (1, "")], 2, false, None);
        check(&[], 3, false, Some(""));
        check(&[], 3, true, None);
        check(&[], 0, true, Some(""));
        check(&all, 0, true, Some(""));
    }
}
