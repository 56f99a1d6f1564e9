//! What every client of a cluster needs: its settings, and an ear for its troubles.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataPartition, MetadataTopic};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::Cluster;
use crate::report::{say, warn};
use crate::shutdown::Shutdown;

/// How long a cluster may take to answer at the start.
const REACH_TIMEOUT: Duration = Duration::from_secs(30);
/// How many pieces of news a client may have waiting.
const N_NEWS: usize = 8;
/// How long one answer may take; a request to stop is heard in between.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

impl Cluster {
    /// Settings for a client; what the user has set goes before them.
    pub(super) fn config(&self, settings: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "streamguard")
            // A broker that is gone is tried again soon, and then less and less often.
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "5000")
            .set("retry.backoff.ms", "100")
            .set("retry.backoff.max.ms", "1000")
            // Idle connections are closed by brokers and firewalls: no news.
            .set("log.connection.close", "false")
            .set_log_level(RDKafkaLogLevel::Warning);
        for (key, value) in settings {
            config.set(*key, *value);
        }
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config
    }
}

/// What to say of settings that no client can have. A value may be a secret, even that of a name that is none.
pub(super) fn unusable(error: KafkaError) -> anyhow::Error {
    let error = match error {
        KafkaError::ClientConfig(_, why, key, value) if !value.is_empty() => {
            anyhow!("{key}: {}", why.replace(&format!("\"{value}\""), "\"...\""))
        }
        other => other.into(),
    };
    error.context("Kafka cannot be used like this")
}

/// A change in which partitions are read here.
pub(super) enum Rebalance {
    Assigned(Vec<(String, i32)>),
    Revoked(Vec<(String, i32)>),
}

/// Where a partition ends.
pub(super) struct Tail {
    pub(super) place: (String, i32),
    /// The offset behind the last message that can be read.
    pub(super) end: i64,
    /// All up to there was handed over: what is left of it are marks that are no messages.
    pub(super) is_read: bool,
}

fn tails_of(statistics: &Statistics) -> Vec<Tail> {
    let mut tails = Vec::new();
    for topic in statistics.topics.values() {
        for (number, partition) in &topic.partitions {
            // Of transactions only what is decided can be read.
            let end = partition.hi_offset.min(partition.ls_offset);
            if end >= 0 {
                tails.push(Tail {
                    place: (topic.topic.clone(), *number),
                    end,
                    is_read: partition.fetchq_cnt == 0 && partition.next_offset >= end,
                });
            }
        }
    }
    tails
}

/// Numbers of the partitions of the topic that was asked for; none if the broker knows no such topic.
pub(super) fn partitions_of(metadata: &Metadata) -> Vec<i32> {
    let found = metadata.topics().first().filter(|it| it.error().is_none());
    let partitions = found.into_iter().flat_map(MetadataTopic::partitions);
    partitions.map(MetadataPartition::id).collect()
}

/// What librdkafka tells on its own account.
#[derive(Default)]
pub(super) struct Ear {
    name: &'static str,
    quiet: bool,
    /// Changes that have not been followed yet.
    rebalances: Mutex<VecDeque<Rebalance>>,
    /// The last trouble with a broker.
    trouble: Mutex<Option<String>>,
    /// Told already, and not over.
    is_told: AtomicBool,
    /// The cluster has refused who we say we are.
    is_refused: AtomicBool,
    /// Nobody follows changes any more.
    is_closing: AtomicBool,
    /// No broker has been heard of since all were found to be down.
    is_away: AtomicBool,
    /// Where partitions end, by the last statistics.
    tails: Mutex<Vec<Tail>>,
    /// Where partitions ended when they were read to their end.
    ends: Mutex<Vec<((String, i32), i64)>>,
    /// How far each source is kept.
    kept: Mutex<HashMap<Arc<str>, i64>>,
}

impl Ear {
    pub(super) fn new(name: &'static str, quiet: bool) -> Self {
        Self {
            name,
            quiet,
            ..Self::default()
        }
    }

    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        self.rebalances.lock().ok()?.pop_front()
    }

    pub(super) fn warn(&self, text: &str) {
        warn(self.name, text);
    }

    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }

    /// Whether all brokers are down, as far as is known.
    pub(super) fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    /// Where partitions end, if there were statistics since this was asked last.
    pub(super) fn take_tails(&self) -> Vec<Tail> {
        let tails = self.tails.lock();
        tails
            .map(|mut tails| std::mem::take(&mut *tails))
            .unwrap_or_default()
    }

    /// Trouble is over: the next one is told again.
    pub(super) fn hear_all_is_well(&self) {
        if self.is_told.load(Ordering::Relaxed) {
            self.is_told.store(false, Ordering::Relaxed);
            if !self.quiet {
                say(self.name, "Kafka is back");
            }
        }
    }

    /// Whether the cluster has not been heard of since trouble was told.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.is_told.load(Ordering::Relaxed)
    }

    /// Remembers trouble, to be told if it does not pass.
    pub(super) fn hear_trouble(&self, what: &str) {
        if let Ok(mut trouble) = self.trouble.lock() {
            *trouble = Some(what.to_owned());
        }
    }

    /// Tells of trouble that will pass, once.
    pub(super) fn tell_trouble(&self, what: &str) {
        self.hear_trouble(what);
        if !self.is_told.swap(true, Ordering::Relaxed) {
            self.warn(&format!("Kafka: {what}; trying again"));
        }
    }

    pub(super) fn last_trouble(&self) -> Option<String> {
        self.trouble.lock().ok()?.clone()
    }

    /// A source is kept up to an offset.
    pub(super) fn hear_kept(&self, source: &Arc<str>, offset: i64) {
        if let Ok(mut kept) = self.kept.lock() {
            kept.insert(Arc::clone(source), offset);
        }
    }

    /// How far a source is kept, if anything of it was.
    pub(super) fn kept_of(&self, source: &str) -> Option<i64> {
        self.kept.lock().ok()?.get(source).copied()
    }

    /// How far all sources are kept.
    pub(super) fn all_kept(&self) -> Vec<(Arc<str>, i64)> {
        let kept = self.kept.lock();
        kept.map_or_else(
            |_| Vec::new(),
            |kept| kept.iter().map(|(k, v)| (Arc::clone(k), *v)).collect(),
        )
    }

    /// What was read to its end since this was asked last, and where that is.
    pub(super) fn take_ends(&self) -> Vec<((String, i32), i64)> {
        let ends = self.ends.lock();
        ends.map(|mut ends| std::mem::take(&mut *ends))
            .unwrap_or_default()
    }

    /// Why the cluster has refused us, if it has.
    pub(super) fn is_refused(&self) -> Option<String> {
        self.is_refused
            .load(Ordering::Relaxed)
            .then(|| self.last_trouble().unwrap_or_default())
    }
}

impl ClientContext for Ear {
    /// What matters comes as an error too, but only here with its cause.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        if facility == "FAIL" {
            // Before the first of these are the thread and the broker, which the rest names again.
            let cause = text.splitn(3, ": ").last().unwrap_or(text);
            self.hear_trouble(cause);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication) => {
                self.hear_trouble(reason);
                self.is_refused.store(true, Ordering::Relaxed);
            }
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                self.is_away.store(true, Ordering::Relaxed);
                // A broker that wants TLS says nothing to those who come without it, it hangs up.
                let reason = self.last_trouble().unwrap_or_else(|| {
                    format!("{reason}: is it the right port, and does it want TLS or a login?")
                });
                self.tell_trouble(&reason);
            }
            _ => self.hear_trouble(reason),
        }
    }

    fn stats(&self, statistics: Statistics) {
        let mut brokers = statistics.brokers.values();
        if self.is_away() && brokers.any(|broker| broker.state == "UP") {
            self.is_away.store(false, Ordering::Relaxed);
        }
        if let Ok(mut tails) = self.tails.lock() {
            *tails = tails_of(&statistics);
        }
        let Ok(mut ends) = self.ends.lock() else {
            return;
        };
        for topic in statistics.topics.into_values() {
            for (partition, of_partition) in topic.partitions {
                if of_partition.eof_offset >= 0 {
                    let place = (topic.topic.clone(), partition);
                    ends.push((place, of_partition.eof_offset));
                }
            }
        }
    }
}

impl ConsumerContext for Ear {
    /// Changes are followed by the thread that reads, between two messages.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let is_assignment = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.is_closing.load(Ordering::Relaxed) {
            // The consumer is about to leave: all it waits for is that nothing is read any more.
            if !is_assignment {
                let _ = consumer.incremental_unassign(partitions);
            }
            return;
        }
        let places = partitions.elements();
        let places = places
            .iter()
            .map(|it| (it.topic().to_owned(), it.partition()));
        let places = places.collect();
        if let Ok(mut rebalances) = self.rebalances.lock() {
            rebalances.push_back(if is_assignment {
                Rebalance::Assigned(places)
            } else {
                Rebalance::Revoked(places)
            });
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        match result.map_err(|error| error.rdkafka_error_code()) {
            // There is nothing to commit, or it will be committed with what comes next.
            Ok(()) | Err(Some(RDKafkaErrorCode::NoOffset)) => {}
            Err(code) => {
                let what = code.map_or_else(String::new, |code| code.to_string());
                self.hear_trouble(&format!("offsets could not be committed: {what}"));
            }
        }
    }
}

/// Asks until there is an answer; `listen` lets the client tell its troubles.
///
/// # Errors
/// If there is none in time, or the cluster refuses to answer.
pub(super) fn reach<T>(
    ear: &Ear,
    cluster: &Cluster,
    shutdown: &Shutdown,
    listen: impl Fn(),
    ask: impl Fn(Duration) -> KafkaResult<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    let brokers = &cluster.brokers;
    loop {
        let error = match ask(ANSWER_TIMEOUT) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        // One piece of news each, some of which have the cause.
        (0..N_NEWS).for_each(|_| listen());
        if let Some(why) = ear.is_refused() {
            bail!("Kafka at {brokers} refuses the connection: {why}");
        }
        let why = ear.last_trouble().unwrap_or_else(|| error.to_string());
        if shutdown.is_requested() || start.elapsed() > REACH_TIMEOUT {
            bail!("cannot reach Kafka at {brokers}: {why}");
        }
        ear.tell_trouble(&why);
        thread::sleep(Duration::from_millis(100));
    }
}
