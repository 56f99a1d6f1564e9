//! The source over partitions, and the commits that follow when what they brought is kept.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rdkafka::Message;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::changelog::Changelog;
use super::client::{ANSWER_TIMEOUT, Ear, Rebalance, reach};
use super::{Cluster, Start, Subscription, partition_of, source_of};
use crate::batch::{Block, Learned, Medium, Origin};
use crate::engine::{Keeper, Logged, Source};
use crate::io::position::Positions;
use crate::report::say;
use crate::shutdown::Shutdown;

/// Bytes of messages that make a block, if that many are waiting.
const BLOCK_BYTES: usize = 256 << 10;
/// How long to wait for a message before other things are looked at.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// How long partitions that are to be given up wait for what was read of them to be kept.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a consumer may take to leave its group.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

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
/// How often it is looked at whether partitions were read to their end, in ms.
const END_INTERVAL_MS: &str = "200";

/// The source over the partitions that are assigned to this program.
struct Subscribed {
    consumer: Arc<BaseConsumer<Ear>>,
    cluster: Cluster,
    cluster_id: Arc<str>,
    subscription: Subscription,
    positions: Positions,
    changelog: Option<Arc<Changelog>>,
    shutdown: Shutdown,
    /// Partitions that are assigned.
    partitions: HashMap<(String, i32), Partition>,
    /// The one that the last message came from.
    current: Option<(String, i32)>,
    /// A message that belongs into the next block.
    carry: Option<Carried>,
    /// An error to be told once what was read before it has gone its way.
    failure: Option<anyhow::Error>,
    /// Partitions to be given up once what was read of them is kept, and since when.
    releasing: Option<(Vec<(String, i32)>, Instant)>,
    /// There is an assignment, if only of nothing.
    is_assigned: bool,
    is_over: bool,
}

struct Partition {
    source: Arc<str>,
    /// The next offset, if anything was read.
    next: Option<i64>,
    /// Where to end.
    end: Option<i64>,
    is_at_end: bool,
}

struct Carried {
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
    if subscription.stops_at_end || matches!(subscription.start, Start::Time { until: Some(_), .. })
    {
        config.set("enable.partition.eof", "true");
        config.set("statistics.interval.ms", END_INTERVAL_MS);
    }
    let consumer = BaseConsumer::from_config_and_context(&config, Ear::new(name, quiet))
        .context("Kafka cannot be used like this")?;
    let consumer = Arc::new(consumer);
    let ear = Arc::clone(consumer.context());
    let listen = || drop(consumer.poll(Duration::from_millis(5)));
    let topics = subscription.topics.iter();
    let mut partitions = Vec::new();
    for topic in topics.filter(|topic| !topic.starts_with('^')) {
        let ask = |timeout| consumer.fetch_metadata(Some(topic), timeout);
        let metadata = reach(&ear, cluster, shutdown, listen, ask)?;
        let found = metadata.topics().first();
        let found = found.filter(|topic| topic.error().is_none() && !topic.partitions().is_empty());
        let found = found.with_context(|| format!("there is no topic {topic} that can be read"))?;
        partitions.extend(found.partitions().iter().map(|it| (topic.clone(), it.id())));
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
        partitions: HashMap::new(),
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
        name,
        quiet,
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
            if !self.release()? {
                continue;
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
                None => {}
                Some(Ok(message)) => self.receive(&message, block),
                Some(Err(error)) => self.judge(&error),
            }
            match self.follow_rebalances() {
                Ok(()) => {}
                // Whoever gets the partition begins anew with what was interrupted.
                Err(_) if self.shutdown.is_requested() => self.is_over = true,
                Err(failure) => self.failure = Some(failure),
            }
            let is_full = self.carry.is_some() || block.lines.len() >= BLOCK_BYTES;
            let is_waiting = is_nothing || self.failure.is_some() || self.releasing.is_some();
            if !block.lines.is_empty() && (is_full || is_waiting) {
                return Ok(true);
            }
            if let Some((places, _)) = &self.releasing {
                block.is_mark = true;
                // What has been lost to others is theirs, and was not kept.
                block.wants_checkpoint = !consumer.assignment_lost();
                let partitions = places.iter().filter_map(|place| self.partitions.get(place));
                block.released = partitions.map(|it| Arc::clone(&it.source)).collect();
                return Ok(true);
            }
            if is_nothing && self.is_at_end() {
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
                    self.releasing = Some((places, Instant::now()));
                }
            }
        }
        Ok(())
    }

    /// Gives up partitions once what was read of them is kept; false while it is not. Others go on
    /// where this program has come to.
    fn release(&mut self) -> anyhow::Result<bool> {
        let Some((places, since)) = &self.releasing else {
            return Ok(true);
        };
        let ear = self.consumer.context();
        let is_kept = |place: &(String, i32)| {
            let partition = self.partitions.get(place);
            let next = partition.and_then(|it| Some((&it.source, it.next?)));
            next.is_none_or(|(source, next)| ear.is_kept(source, next))
        };
        // Whoever has it now has not waited.
        let is_lost = self.consumer.assignment_lost();
        let is_late = since.elapsed() > RELEASE_TIMEOUT;
        if !is_lost && !is_late && !places.iter().all(is_kept) {
            thread::sleep(Duration::from_millis(5));
            return Ok(false);
        }
        let Some((places, _)) = self.releasing.take() else {
            return Ok(true);
        };
        self.revoke(&places)?;
        Ok(true)
    }

    fn assign(&mut self, places: Vec<(String, i32)>) -> anyhow::Result<()> {
        self.is_assigned = true;
        let mut list = TopicPartitionList::new();
        for place in places {
            let source: Arc<str> = source_of(&place.0, place.1).into();
            if let Some(changelog) = &self.changelog {
                changelog.take_over(&source)?;
            }
            let (start, end) = self.range_of(&place)?;
            list.add_partition_offset(&place.0, place.1, Offset::Offset(start))?;
            let partition = Partition {
                source,
                next: None,
                end,
                is_at_end: end.is_some_and(|end| start >= end),
            };
            self.partitions.insert(place, partition);
        }
        match self.subscription.group {
            Some(_) => self.consumer.incremental_assign(&list)?,
            None => self.consumer.assign(&list)?,
        }
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

    /// Asks the cluster, for as long as it takes it to answer.
    fn ask<T>(
        &self,
        ask: impl Fn(&BaseConsumer<Ear>, Duration) -> rdkafka::error::KafkaResult<T>,
    ) -> anyhow::Result<T> {
        let ear = self.consumer.context();
        let ask = |timeout| ask(&self.consumer, timeout);
        reach(ear, &self.cluster, &self.shutdown, || (), ask)
    }

    /// Where to begin in a partition, and where to end.
    fn range_of(&self, place: &(String, i32)) -> anyhow::Result<(i64, Option<i64>)> {
        let (topic, partition) = (place.0.as_str(), place.1);
        let source = source_of(topic, partition);
        let ask = |consumer: &BaseConsumer<Ear>, timeout| {
            consumer.fetch_watermarks(topic, partition, timeout)
        };
        let (low, high) = self.ask(ask)?;
        let subscription = &self.subscription;
        let end = match subscription.start {
            Start::Time {
                until: Some(until), ..
            } => Some(self.offset_at(place, until)?.unwrap_or(high)),
            _ => subscription.stops_at_end.then_some(high),
        };
        // What this program has kept already, it goes on behind.
        if let Some(kept) = self.consumer.context().kept_of(&source)
            && self.changelog.is_none()
        {
            return Ok((kept, end));
        }
        let of_task = match (&self.changelog, &subscription.store) {
            (Some(_), Some(store)) => store.task(&source)?.position,
            _ => None,
        };
        let kept = of_task
            .as_ref()
            .or_else(|| self.positions.of_partition(&source));
        if let Some(kept) = kept.filter(|_| !subscription.is_reset) {
            ensure!(
                kept.cluster == *self.cluster_id,
                "{source} was read from another cluster (of id {}, this one is {}): use another \
                 database, or --reset to begin in this cluster where -o says",
                kept.cluster,
                self.cluster_id
            );
            let next = kept.offset as i64;
            ensure!(
                next <= high,
                "{source} was read up to offset {next}, but ends at {high}: was the topic made anew? \
                 --reset begins where -o says"
            );
            if next < low {
                let n_lost = low - next;
                let ear = self.consumer.context();
                ear.say(&format!(
                    "{source}: {n_lost} messages from offset {next} on were deleted before they were \
                     read: keep them for longer in Kafka"
                ));
            }
            return Ok((next.max(low), end));
        }
        if subscription.follows_group
            && subscription.group.is_some()
            && !subscription.is_reset
            && let Some(offset) = self.committed(place)?
        {
            return Ok((offset.clamp(low, high), end));
        }
        let start = match self.subscription.start {
            Start::Beginning | Start::Time { from: None, .. } => low,
            Start::End => high,
            Start::Offset(offset) => offset.clamp(low, high),
            Start::Last(n) => (high - n).max(low),
            Start::Stored => self
                .committed(place)?
                .map_or(low, |offset| offset.clamp(low, high)),
            Start::Time {
                from: Some(from), ..
            } => self.offset_at(place, from)?.unwrap_or(high),
        };
        Ok((start, end))
    }

    /// The first message of a time or later.
    fn offset_at(
        &self,
        (topic, partition): &(String, i32),
        at_ms: i64,
    ) -> anyhow::Result<Option<i64>> {
        let offsets = self.ask(|consumer, timeout| {
            let mut times = TopicPartitionList::new();
            times.add_partition_offset(topic, *partition, Offset::Offset(at_ms))?;
            consumer.offsets_for_times(times, timeout)
        })?;
        Ok(offset_of(&offsets))
    }

    /// Where the group has committed.
    fn committed(&self, (topic, partition): &(String, i32)) -> anyhow::Result<Option<i64>> {
        if self.subscription.group.is_none() {
            bail!("-o stored needs a group (-G) that has stored something");
        }
        let offsets = self.ask(|consumer, timeout| {
            let mut list = TopicPartitionList::new();
            list.add_partition(topic, *partition);
            consumer.committed_offsets(list, timeout)
        })?;
        Ok(offset_of(&offsets))
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
        let is_bounded = self.subscription.stops_at_end
            || matches!(self.subscription.start, Start::Time { until: Some(_), .. });
        is_bounded
            && ours.all(|partition| {
                let is_read = |end| partition.next.is_some_and(|next| next >= end);
                partition.is_at_end || partition.end.is_some_and(is_read)
            })
    }
}

fn offset_of(list: &TopicPartitionList) -> Option<i64> {
    match list.elements().first()?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

/// A message is one line: line ends within it are white space, or it is no JSON.
fn push_line(lines: &mut Vec<u8>, message: &[u8]) {
    let message = message.trim_ascii_end();
    let start = lines.len();
    lines.extend_from_slice(message);
    if memchr::memchr(b'\n', message).is_some() {
        for byte in &mut lines[start..] {
            if *byte == b'\n' {
                *byte = b' ';
            }
        }
    }
    lines.push(b'\n');
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.consumer.context().close();
    }
}

/// Commits offsets to the group, for whoever watches its lag.
pub struct Committer {
    consumer: Arc<BaseConsumer<Ear>>,
    changelog: Option<Arc<Changelog>>,
    has_group: bool,
    name: &'static str,
    quiet: bool,
}

impl Keeper for Committer {
    fn keep(
        &mut self,
        learned: &[Learned],
        ends: &BTreeMap<Arc<str>, Origin>,
    ) -> anyhow::Result<Vec<(Arc<str>, Logged)>> {
        match &self.changelog {
            Some(changelog) => changelog.keep(learned, ends),
            None => Ok(Vec::new()),
        }
    }

    fn kept(&mut self, ends: &BTreeMap<Arc<str>, Origin>) {
        let mut list = TopicPartitionList::new();
        for (source, end) in ends {
            if let Some((topic, partition)) = partition_of(source) {
                let offset = Offset::Offset(end.offset as i64);
                // Offsets of messages are valid ones.
                let _ = list.add_partition_offset(topic, partition, offset);
            }
        }
        if self.has_group
            && list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
            && !self.quiet
        {
            say(
                self.name,
                &format!("Kafka: offsets could not be committed: {error}"),
            );
        }
        // Committed first: partitions are given up once this is heard.
        for (source, end) in ends {
            self.consumer.context().hear_kept(source, end.offset as i64);
        }
    }

    /// Leaves the group now, so that others need not wait until it is found out.
    fn finish(&mut self) {
        self.consumer.context().close();
        let start = Instant::now();
        if self.consumer.close_queue().is_ok() {
            while !self.consumer.closed() && start.elapsed() < CLOSE_TIMEOUT {
                let _ = self.consumer.poll(ANSWER_TIMEOUT.min(POLL_TIMEOUT));
            }
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.consumer.context().close();
    }
}
