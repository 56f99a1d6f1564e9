//! Lines out to a topic: each is a message, and none counts as sent before the brokers have it.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::bail;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde::Deserialize;

use super::Cluster;
use super::client::{Ear, reach, unusable};
use super::deliveries::{Deliveries, Undelivered, is_about_message};
use crate::shutdown::Shutdown;

/// Librdkafka's settings.
const SETTINGS: [(&str, &str); 8] = [
    // Sent again as often as it takes, and in the topic once and in order all the same.
    ("enable.idempotence", "true"),
    ("message.timeout.ms", "0"),
    // Messages that come within 10 ms travel together, up to 256 KiB.
    ("linger.ms", "10"),
    ("batch.size", "262144"),
    ("compression.type", "lz4"),
    // Memory for what the brokers do not have yet; then sending waits.
    ("queue.buffering.max.kbytes", "32768"),
    ("queue.buffering.max.messages", "100000"),
    // Keys go to the partitions that all other clients of Kafka would choose.
    ("partitioner", "murmur2_random"),
];
/// How long a program that is asked to stop waits for brokers that do not answer.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How many brokers must have a message before it counts as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Acks {
    /// All replicas that are in sync
    All,
    /// The leader alone: faster, and lost with it
    #[value(name = "1")]
    One,
}

/// Sends to one topic.
pub struct Producer {
    client: BaseProducer<Deliveries>,
    topic: String,
    shutdown: Shutdown,
}

impl Producer {
    /// For a topic, which has to be there.
    ///
    /// # Errors
    /// If a setting is not one, the cluster cannot be reached, or there is no such topic.
    pub fn open(
        name: &'static str,
        quiet: bool,
        cluster: &Cluster,
        topic: &str,
        acks: Acks,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Self> {
        let mut config = cluster.config(&SETTINGS);
        match acks {
            Acks::All => config.set("acks", "all"),
            // Order and once cannot be had of one broker alone.
            Acks::One => config.set("acks", "1").set("enable.idempotence", "false"),
        };
        let context = Deliveries::new(Ear::new(name, quiet));
        let producer = BaseProducer::from_config_and_context(&config, context).map_err(unusable)?;
        let listen = || producer.poll(Duration::ZERO);
        let ask = |timeout| producer.client().fetch_metadata(Some(topic), timeout);
        let ear = &producer.context().ear;
        let metadata = reach(ear, cluster, shutdown, listen, ask)?;
        let found = metadata.topics().first();
        let is_there = found.is_some_and(|it| it.error().is_none() && !it.partitions().is_empty());
        if !is_there {
            bail!("there is no topic {topic} that can be written to: make it first");
        }
        Ok(Self {
            client: producer,
            topic: topic.to_owned(),
            shutdown: shutdown.clone(),
        })
    }

    /// Sends a message; waits while too much is on its way already.
    ///
    /// # Errors
    /// If this or an earlier one cannot be delivered.
    pub fn send(&self, key: Option<&str>, payload: &[u8]) -> anyhow::Result<()> {
        let mut record = BaseRecord::<str, [u8]>::to(&self.topic).payload(payload);
        if let Some(key) = key {
            record = record.key(key);
        }
        let mut deadline = None;
        loop {
            self.client.poll(Duration::ZERO);
            record = match self.client.send(record) {
                Ok(()) => return self.check(),
                Err((error, record)) => {
                    let code = error.rdkafka_error_code();
                    if code != Some(RDKafkaErrorCode::QueueFull) {
                        let is_message = is_about_message(&error);
                        return Err(self.undelivered(error.to_string(), is_message).into());
                    }
                    record
                }
            };
            self.wait(&mut deadline)?;
        }
    }

    /// Waits until the brokers have all messages.
    ///
    /// # Errors
    /// If one cannot be delivered.
    pub fn flush(&self) -> anyhow::Result<()> {
        let mut deadline = None;
        while self.client.in_flight_count() > 0 {
            self.wait(&mut deadline)?;
        }
        self.check()
    }

    /// Lets some time go by in which messages are delivered.
    fn wait(&self, deadline: &mut Option<Instant>) -> anyhow::Result<()> {
        // Sent now, instead of waiting for others to travel with.
        let _ = self.client.flush(Duration::from_millis(20));
        if self.shutdown.is_requested() {
            let deadline = deadline.get_or_insert_with(|| Instant::now() + STOP_TIMEOUT);
            if Instant::now() > *deadline {
                let why = "the brokers do not answer".to_owned();
                return Err(self.undelivered(why, false).into());
            }
        }
        self.check()
    }

    /// Waits until it is clear what becomes of each message, and forgets those that were not delivered.
    ///
    /// # Errors
    /// If it does not become clear.
    pub fn forgive(&self) -> anyhow::Result<()> {
        let mut deadline = None;
        loop {
            self.client.context().forgive();
            if self.client.in_flight_count() == 0 {
                return Ok(());
            }
            match self.wait(&mut deadline) {
                Err(error) if !is_of_message(&error) => return Err(error),
                _ => {}
            }
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        let context = self.client.context();
        if let Some(why) = context.ear.is_refused() {
            return Err(self.undelivered(why, false).into());
        }
        match context.failure_and_kind() {
            Some((why, is_message)) => Err(self.undelivered(why, is_message).into()),
            None => Ok(()),
        }
    }

    fn undelivered(&self, why: String, is_message: bool) -> Undelivered {
        Undelivered {
            topic: self.topic.clone(),
            why,
            is_message,
        }
    }
}

/// Whether an error of a producer is about a message that no broker will ever take.
#[must_use]
pub fn is_of_message(error: &anyhow::Error) -> bool {
    let undelivered = error.downcast_ref::<Undelivered>();
    undelivered.is_some_and(|undelivered| undelivered.is_message)
}

/// Takes whole lines, each an event, and sends them under their user's name.
pub struct ByUser(pub Producer);

impl Write for ByUser {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        #[derive(Deserialize)]
        struct Event<'a> {
            #[serde(borrow)]
            user: std::borrow::Cow<'a, str>,
        }
        for line in lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let event: Event<'_> = serde_json::from_slice(line)?;
            self.0
                .send(Some(&event.user), line)
                .map_err(io::Error::other)?;
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(io::Error::other)
    }
}
