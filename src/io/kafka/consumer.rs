//! The source over partitions, and the commits that follow when what they brought is kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rdkafka::Message;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::changelog::Changelog;
use super::client::{Ear, Rebalance, partitions_of, reach, unusable};
use super::committer::{Committer, commit};
use super::{Cluster, Subscription, source_of};
use crate::batch::{Block, Medium, Origin};
use crate::engine::Source;
use crate::io::position::Positions;
use crate::metrics::Lag;
use crate::progress;
use crate::shutdown::Shutdown;

/// Bytes of messages that make a block, if that many are waiting.
const BLOCK_BYTES: usize = 256 << 10;
/// How long to wait for a message before other things are looked at.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// Brokers hear of a new topic one after the other: how long one may not know it yet.
const NEWS_TIMEOUT: Duration = Duration::from_secs(2);
const NEWS_INTERVAL: Duration = Duration::from_millis(50);
/// How long partitions that are to be given up wait for what was read of them to be kept.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(60);

/// Librdkafka's settings. What is as its default is written out, since it matters here.
const SETTINGS: [(&str, &str); 15] = [
    // Offsets are committed by us, once what they stand for is kept.
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // A position that is no longer there must be told, not replaced by another one.
    ("auto.offset.reset", "error"),
    // What stays with an instance goes on while others move.
    ("partition.assignment.strategy", "cooperative-sticky"),
    // Transactions that were aborted are no events.
    ("isolation.level", "read_committed"),
    // An answer of the broker waits for 1 KiB or 100 ms: at a high rate answers are full, at a low
    // one an event is here within the tenth of a second that it may take.
    ("fetch.min.bytes", "1024"),
    ("fetch.wait.max.ms", "100"),
    ("max.partition.fetch.bytes", "1048576"),
    // Messages read ahead; the memory of a program that falls behind ends here.
    ("queued.max.messages.kbytes", "16384"),
    // And goes on soon after some of them were taken, not after a second.
    ("fetch.queue.backoff.ms", "10"),
    // Sums of messages are checked: what is broken on its way is fetched again.
    ("check.crcs", "true"),
    // An instance that has died is found out within this, also by itself when it starts again.
    ("session.timeout.ms", "10000"),
    ("heartbeat.interval.ms", "2000"),
    // A pipe that is not read from for as long loses its partitions to others.
    ("max.poll.interval.ms", "300000"),
    // New topics that a pattern names are found within this.
    ("topic.metadata.refresh.interval.ms", "10000"),
];
/// How often it is looked at whether partitions were read to their end, in ms; and where that is, for those
/// who read metrics.
const END_INTERVAL_MS: &str = "200";
const TAIL_INTERVAL_MS: &str = "1000";

/// The source over the partitions that are assigned to this program.
pub(super) struct Subscribed {
    pub(super) consumer: Arc<BaseConsumer<Ear>>,
    pub(super) cluster: Cluster,
    pub(super) cluster_id: Arc<str>,
    pub(super) subscription: Subscription,
    pub(super) positions: Positions,
    pub(super) changelog: Option<Arc<Changelog>>,
    pub(super) shutdown: Shutdown,
    /// Partitions that are assigned.
    pub(super) partitions: HashMap<(String, i32), Partition, foldhash::fast::RandomState>,
    /// The one that the last message came from.
    pub(super) current: Option<(String, i32)>,
    /// A message that belongs into the next block.
    pub(super) carry: Option<Carried>,
    /// An error to be told once what was read before it has gone its way.
    pub(super) failure: Option<anyhow::Error>,
    /// Partitions to be given up once what was read of them is kept.
    pub(super) releasing: Option<Release>,
    /// There is an assignment, if only of nothing.
    pub(super) is_assigned: bool,
    pub(super) is_over: bool,
}

pub(super) struct Partition {
    source: Arc<str>,
    /// The next offset, if anything was read.
    next: Option<i64>,
    /// Where to begin.
    start: i64,
    /// Where to end.
    end: Option<i64>,
    is_at_end: bool,
    /// Where it ends for now, if that is known.
    pub(super) tail: Option<i64>,
    /// How far behind that this program is, if anybody wants to know.
    pub(super) lag: Option<Lag>,
}

impl Partition {
    /// The next offset to be read.
    pub(super) fn position(&self) -> i64 {
        self.next.unwrap_or(self.start)
    }
}

pub(super) struct Release {
    places: Vec<(String, i32)>,
    since: Instant,
    /// The mark behind the last of what was read has gone its way.
    is_marked: bool,
}

pub(super) struct Carried {
    place: (String, i32),
    offset: i64,
    line: Vec<u8>,
}

/// Opens topics for reading, and what commits their offsets.
///
/// # Errors
/// If a setting is not one, the cluster cannot be reached, or there is no such topic.
pub fn open(
    name: &'static str,
    quiet: bool,
    cluster: &Cluster,
    subscription: Subscription,
    positions: Positions,
    shutdown: &Shutdown,
) -> anyhow::Result<(Box<dyn Source>, Committer)> {
    let mut config = cluster.config(&SETTINGS);
    // Without a group of that name it is never joined, and nothing is committed.
    let group = subscription.group.as_deref();
    config.set("group.id", group.unwrap_or("streamguard-without-a-group"));
    if subscription.is_bounded() {
        config.set("enable.partition.eof", "true");
        config.set("statistics.interval.ms", END_INTERVAL_MS);
    } else if subscription.metrics.is_some() {
        config.set("statistics.interval.ms", TAIL_INTERVAL_MS);
    }
    let consumer =
        BaseConsumer::from_config_and_context(&config, Ear::new(name, quiet)).map_err(unusable)?;
    let consumer = Arc::new(consumer);
    let ear = Arc::clone(consumer.context());
    if let Some(metrics) = &subscription.metrics {
        let ear = Arc::clone(&ear);
        metrics.ask(move || {
            ear.is_away()
                .then(|| "no broker of Kafka answers".to_owned())
        });
    }
    let listen = || drop(consumer.poll(Duration::from_millis(5)));
    let topics = subscription.topics.iter();
    let mut partitions = Vec::new();
    for topic in topics.filter(|topic| !topic.starts_with('^')) {
        let ask = |timeout| consumer.fetch_metadata(Some(topic), timeout);
        let deadline = Instant::now() + NEWS_TIMEOUT;
        let mut found = Vec::new();
        while found.is_empty() {
            found = partitions_of(&reach(&ear, cluster, shutdown, listen, ask)?);
            let is_there = !found.is_empty() || Instant::now() < deadline;
            ensure!(is_there, "there is no topic {topic} that can be read");
            if found.is_empty() {
                thread::sleep(NEWS_INTERVAL);
            }
        }
        partitions.extend(found.into_iter().map(|number| (topic.clone(), number)));
    }
    let cluster_id = {
        let ask = |timeout| {
            consumer
                .client()
                .fetch_cluster_id(timeout)
                .ok_or(KafkaError::Canceled)
        };
        reach(&ear, cluster, shutdown, listen, ask)?
    };
    let changelog = match (&subscription.changelog, group, &subscription.store) {
        (Some(topic), Some(group), Some(store)) => {
            let (program, names) = ((name, quiet), (&topic[..], group));
            let n_partitions = partitions.iter().map(|(_, partition)| partition + 1).max();
            let n_partitions = n_partitions.context("--changelog needs a topic's own name (-t)")?;
            let store = Arc::clone(store);
            let changelog =
                Changelog::open(program, cluster, names, n_partitions, store, shutdown)?;
            Some(Arc::new(changelog))
        }
        _ => None,
    };
    let mut source = Subscribed {
        consumer: Arc::clone(&consumer),
        cluster: cluster.clone(),
        cluster_id: cluster_id.into(),
        positions,
        changelog: changelog.clone(),
        shutdown: shutdown.clone(),
        partitions: HashMap::default(),
        current: None,
        carry: None,
        failure: None,
        releasing: None,
        is_assigned: false,
        is_over: false,
        subscription,
    };
    let has_group = source.subscription.group.is_some();
    if has_group {
        let topics: Vec<&str> = source
            .subscription
            .topics
            .iter()
            .map(String::as_str)
            .collect();
        consumer.subscribe(&topics)?;
    } else {
        ensure!(
            !source
                .subscription
                .topics
                .iter()
                .any(|topic| topic.starts_with('^')),
            "a pattern of topics needs a group (-G), which is told of new ones"
        );
        source.assign(partitions)?;
    }
    let committer = Committer {
        consumer,
        changelog,
        has_group,
    };
    Ok((Box::new(source), committer))
}

impl Source for Subscribed {
    fn fill(&mut self, block: &mut Block) -> anyhow::Result<bool> {
        let consumer = Arc::clone(&self.consumer);
        loop {
            if let Some(failure) = self.failure.take() {
                self.is_over = true;
                return Err(failure);
            }
            if self.is_over || self.shutdown.is_requested() {
                return Ok(false);
            }
            if self.mark_release(block) {
                return Ok(true);
            }
            match self.release() {
                Ok(true) => {}
                Ok(false) => continue,
                Err(failure) => {
                    self.failure = Some(failure);
                    continue;
                }
            }
            if let Some(Carried {
                place,
                offset,
                line,
            }) = self.carry.take()
            {
                self.take(&place, offset, &line, block);
            }
            let timeout = if block.lines.is_empty() {
                POLL_TIMEOUT
            } else {
                Duration::ZERO
            };
            let polled = consumer.poll(timeout);
            let is_nothing = polled.is_none();
            match polled {
                // A change of the group comes without a message.
                None => match self.follow_rebalances() {
                    Ok(()) => {}
                    // Whoever gets the partition begins anew with what was interrupted.
                    Err(_) if self.shutdown.is_requested() => self.is_over = true,
                    Err(failure) => self.failure = Some(failure),
                },
                Some(Ok(message)) => self.receive(&message, block),
                Some(Err(error)) => self.judge(&error),
            }
            let is_full = self.carry.is_some() || block.lines.len() >= BLOCK_BYTES;
            if is_nothing || is_full {
                self.tell_lag();
            }
            let is_waiting = is_nothing || self.failure.is_some() || self.releasing.is_some();
            if !block.lines.is_empty() && (is_full || is_waiting) {
                return Ok(true);
            }
            if self.releasing.is_some() {
                continue;
            }
            // Partitions that could not be taken over are not at their end.
            if is_nothing && self.failure.is_none() && self.is_at_end() {
                return Ok(false);
            }
        }
    }
}

impl Subscribed {
    /// Takes a message into the block, or keeps it for the next one.
    fn receive(&mut self, message: &BorrowedMessage<'_>, block: &mut Block) {
        let (topic, partition) = (message.topic(), message.partition());
        let is_current = (self.current.as_ref())
            .is_some_and(|current| current.1 == partition && current.0 == topic);
        let line = message.payload().unwrap_or_default();
        let fits =
            block.lines.is_empty() || is_current && block.end.offset == message.offset() as u64;
        self.consumer.context().hear_all_is_well();
        if !is_current {
            self.current = Some((topic.to_owned(), partition));
        }
        if fits {
            let place = self.current.take().unwrap_or_default();
            self.take(&place, message.offset(), line, block);
            self.current = Some(place);
        } else {
            self.carry = Some(Carried {
                place: (topic.to_owned(), partition),
                offset: message.offset(),
                line: line.to_owned(),
            });
        }
    }

    fn take(&mut self, place: &(String, i32), offset: i64, line: &[u8], block: &mut Block) {
        let Some(partition) = self.partitions.get_mut(place) else {
            return;
        };
        if partition.end.is_some_and(|end| offset >= end) {
            partition.is_at_end = true;
            return;
        }
        let at = |offset: i64| Origin {
            source: Arc::clone(&partition.source),
            line: offset as u64,
            offset: offset as u64,
            record: 0,
            medium: Medium::Partition(Arc::clone(&self.cluster_id)),
        };
        if block.lines.is_empty() {
            block.origin = at(offset);
            block.task = Arc::clone(&partition.source);
            block.end = at(offset + 1);
        } else {
            block.end.line = offset as u64 + 1;
            block.end.offset = offset as u64 + 1;
        }
        partition.next = Some(offset + 1);
        push_line(&mut block.lines, line);
    }

    /// What an error means: it passes, or ends the run.
    fn judge(&mut self, error: &KafkaError) {
        let ear = self.consumer.context();
        if let KafkaError::PartitionEOF(_) = error {
            return;
        }
        let code = error.rdkafka_error_code();
        let why = code.map_or_else(|| error.to_string(), |code| code.to_string());
        let is_fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        let failure = match code {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                "a position is no longer in its partition: see --reset"
            }
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::SaslAuthenticationFailed,
            ) => "Kafka refuses us, and nothing is lost: mend it, then run the same command again",
            _ if is_fatal => "Kafka cannot be read on",
            _ => return ear.tell_trouble(&ear.last_trouble().unwrap_or(why)),
        };
        self.failure = Some(anyhow::anyhow!("{failure} ({why})"));
    }

    /// Reads from what is newly ours, and no longer from what is not.
    fn follow_rebalances(&mut self) -> anyhow::Result<()> {
        while self.releasing.is_none()
            && let Some(rebalance) = self.consumer.context().next_rebalance()
        {
            match rebalance {
                Rebalance::Assigned(places) => self.assign(places)?,
                Rebalance::Revoked(places) => {
                    self.is_assigned = false;
                    self.releasing = Some(Release {
                        places,
                        since: Instant::now(),
                        is_marked: false,
                    });
                }
            }
        }
        Ok(())
    }

    /// Lets a mark go behind the last of what is to be given up; false if that is done.
    fn mark_release(&mut self, block: &mut Block) -> bool {
        match &mut self.releasing {
            Some(release) if !release.is_marked => {
                release.is_marked = true;
                let places = release.places.iter();
                let partitions = places.filter_map(|place| self.partitions.get(place));
                block.is_mark = true;
                // What has been lost to others is theirs, and was not kept.
                block.wants_checkpoint = !self.consumer.assignment_lost();
                block.released = partitions.map(|it| Arc::clone(&it.source)).collect();
                true
            }
            _ => false,
        }
    }

    /// Gives up partitions once what was read of them is kept; false while it is not. Others go on
    /// where this program has come to.
    fn release(&mut self) -> anyhow::Result<bool> {
        let Some(release) = &self.releasing else {
            return Ok(true);
        };
        let ear = self.consumer.context();
        let read_of = |place: &(String, i32)| {
            let partition = self.partitions.get(place)?;
            Some((Arc::clone(&partition.source), partition.next?))
        };
        let read: Vec<(Arc<str>, i64)> = release.places.iter().filter_map(read_of).collect();
        // Whoever has it now has not waited.
        let is_lost = self.consumer.assignment_lost();
        let is_late = release.since.elapsed() > RELEASE_TIMEOUT;
        let is_kept = read
            .iter()
            .all(|(source, next)| ear.kept_of(source) >= Some(*next));
        if !is_lost && !is_late && !is_kept {
            thread::sleep(Duration::from_millis(5));
            return Ok(false);
        }
        if is_kept && !is_lost && self.subscription.group.is_some() {
            commit(&self.consumer, &read);
        }
        if let Some(release) = self.releasing.take() {
            self.revoke(&release.places)?;
        }
        Ok(true)
    }

    fn assign(&mut self, places: Vec<(String, i32)>) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        for place in places {
            let source: Arc<str> = source_of(&place.0, place.1).into();
            if let Some(changelog) = &self.changelog {
                changelog.take_over(&source)?;
            }
            let (start, end) = self.range_of(&place)?;
            progress::expect(end.map_or(0, |end| end.saturating_sub(start).max(0) as u64));
            list.add_partition_offset(&place.0, place.1, Offset::Offset(start))?;
            let partition = Partition {
                source,
                next: None,
                start,
                tail: None,
                lag: None,
                end,
                is_at_end: end.is_some_and(|end| start >= end),
            };
            self.partitions.insert(place, partition);
        }
        match self.subscription.group {
            Some(_) => self.consumer.incremental_assign(&list)?,
            None => self.consumer.assign(&list)?,
        }
        self.is_assigned = true;
        Ok(())
    }

    fn revoke(&mut self, places: &[(String, i32)]) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        for place in places {
            list.add_partition(&place.0, place.1);
            if let (Some(it), Some(changelog)) = (self.partitions.remove(place), &self.changelog) {
                changelog.let_go(&it.source);
            }
        }
        if self
            .carry
            .as_ref()
            .is_some_and(|carry| places.contains(&carry.place))
        {
            self.carry = None;
        }
        Ok(self.consumer.incremental_unassign(&list)?)
    }

    /// Whether all that was to be read has been read.
    fn is_at_end(&mut self) -> bool {
        if !self.is_assigned {
            return false;
        }
        for (place, end) in self.consumer.context().take_ends() {
            if let Some(partition) = self.partitions.get_mut(&place) {
                // The last offsets may be those of marks that are no messages.
                partition.is_at_end |= partition.end.is_some_and(|wanted| end >= wanted);
            }
        }
        let mut ours = self.partitions.values();
        self.subscription.is_bounded()
            && ours.all(|partition| {
                let is_read = |end| partition.next.is_some_and(|next| next >= end);
                partition.is_at_end || partition.end.is_some_and(is_read)
            })
    }
}

/// A message is one line: what ends lines between the parts of a JSON text becomes a blank. Within a string it may not
/// be, and becomes what may not be there either.
fn push_line(lines: &mut Vec<u8>, message: &[u8]) {
    let message = message.trim_ascii_end();
    let start = lines.len();
    lines.extend_from_slice(message);
    if memchr::memchr(b'\n', message).is_some() {
        let (mut is_inside, mut is_escaped) = (false, false);
        for byte in &mut lines[start..] {
            match *byte {
                b'\n' => *byte = if is_inside { b'\r' } else { b' ' },
                b'"' => is_inside ^= !is_escaped,
                _ => {}
            }
            is_escaped = *byte == b'\\' && !is_escaped;
        }
    }
    lines.push(b'\n');
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.consumer.context().close();
    }
}
