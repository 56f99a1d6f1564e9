//! Input from Kafka, as it is typed. Flags mean what they mean to kcat.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::ensure;
use clap::Args;

use super::{LineArgs, secret};
use crate::engine::{Keeper, Source, TaskStore};
use crate::io::dead_letter::DeadLetters;
use crate::io::kafka::{self, Acks, Cluster, Producer, Start, Subscription};
use crate::io::position::Positions;
use crate::metrics::Metrics;
use crate::progress::Work;
use crate::shutdown::Shutdown;
use crate::time::now_ms;

/// Events from topics.
#[derive(Args, Debug)]
#[command(next_help_heading = "Kafka")]
pub(super) struct KafkaArgs {
    /// Read topics instead of files: names with commas between them, or patterns that begin with ^
    #[arg(short, long = "topic", value_name = "TOPIC", value_delimiter = ',',
          conflicts_with_all = ["inputs", "follow", "replay"])]
    topics: Vec<String>,

    /// Share the partitions with all programs of this consumer group; without one all are read
    #[arg(short = 'G', long, value_name = "GROUP", requires = "topics")]
    group: Option<String>,

    /// Where to begin in partitions of which no position is kept, by sg-run in its database, by
    /// sg-consume in its group: start, end, stored (where the group has committed), an offset, -N for
    /// the last N, @FROM:UNTIL with times [default: start]
    #[arg(short, long, value_name = "WHERE", requires = "topics", allow_hyphen_values = true,
          value_parser = parse_start)]
    offset: Option<Start>,

    /// Begin where -o says, whatever is kept; in a group of one member only
    #[arg(long, requires = "topics")]
    reset: bool,

    /// Let baselines move with their partitions through this compacted topic, which is made if it is not
    /// there: for several sg-run in one group
    #[arg(long, value_name = "TOPIC", requires = "group")]
    changelog: Option<String>,

    /// End where the partitions end now, instead of waiting for more
    #[arg(short, long, requires = "topics")]
    exit_at_end: bool,

    #[command(flatten)]
    cluster: ClusterArgs,
}

/// How to reach a cluster.
#[derive(Args, Debug)]
#[command(next_help_heading = "Kafka")]
pub(super) struct ClusterArgs {
    /// Brokers to ask first: HOST:PORT, several with commas between them
    #[arg(short, long, value_name = "BROKERS")]
    brokers: Option<String>,

    /// A property of librdkafka, such as `security.protocol=sasl_ssl`; secrets belong into
    /// --kafka-config
    #[arg(short = 'X', long = "property", value_name = "KEY=VALUE",
          value_parser = kafka::parse_property)]
    properties: Vec<(String, String)>,

    /// A file with a property of librdkafka on each line
    #[arg(short = 'F', long, value_name = "FILE")]
    kafka_config: Option<PathBuf>,
}

impl ClusterArgs {
    /// How to reach the cluster.
    pub(super) fn cluster(&self, program: &str) -> anyhow::Result<Cluster> {
        let mut properties = match &self.kafka_config {
            None => Vec::new(),
            Some(path) => {
                let properties = kafka::read_properties(path)?;
                if (properties.iter()).any(|(key, _)| secret::is_secret_property(key)) {
                    secret::check(program, path);
                }
                properties
            }
        };
        if let Some((key, _)) =
            (self.properties.iter()).find(|it| secret::is_secret_property(&it.0))
        {
            let text = format!(
                "{key} is a secret, and others can read command lines: put it into a file, for -F"
            );
            secret::warn_once(program, &text);
        }
        properties.extend(self.properties.iter().cloned());
        let has_brokers = |(key, _): &&(String, String)| {
            key == "bootstrap.servers" || key == "metadata.broker.list"
        };
        let named = properties.iter().find(has_brokers);
        let brokers = self.brokers.clone().or_else(|| Some(named?.1.clone()));
        ensure!(
            brokers.is_some(),
            "which Kafka? Name its brokers with -b HOST:PORT, or in SG_KAFKA_BROKERS"
        );
        Ok(Cluster {
            brokers: brokers.unwrap_or_default(),
            properties,
        })
    }
}

impl KafkaArgs {
    /// Whether events are to come from topics.
    /// What there is to read, if anything is of topics.
    pub(super) fn work(&self) -> Option<Work> {
        // How many messages there are is known when partitions are.
        let n_things = self.exit_at_end.then_some(0);
        self.is_wanted().then_some(Work::Things {
            what: "messages",
            n_things,
        })
    }

    pub(super) fn is_wanted(&self) -> bool {
        !self.topics.is_empty()
    }

    /// Where rejected lines go.
    pub(super) fn dead_letters(
        &self,
        name: &'static str,
        lines: &LineArgs,
        shutdown: &Shutdown,
    ) -> anyhow::Result<DeadLetters> {
        let Some(topic) = lines.dead_letter_topic() else {
            return lines.dead_letters();
        };
        ensure!(
            !self.topics.iter().any(|input| input == topic),
            "topic {topic} is read and the --dead-letter topic too: it would never end"
        );
        let producer = self.producer(name, lines.quiet, topic, shutdown)?;
        Ok(DeadLetters::send(producer()?))
    }

    /// What opens a producer for a topic that is not read.
    pub(super) fn producer(
        &self,
        name: &'static str,
        quiet: bool,
        topic: &str,
        shutdown: &Shutdown,
    ) -> anyhow::Result<impl Fn() -> anyhow::Result<Producer> + Send + 'static> {
        let cluster = self.cluster.cluster(name)?;
        let (topic, shutdown) = (topic.to_owned(), shutdown.clone());
        Ok(move || Producer::open(name, quiet, &cluster, &topic, Acks::All, &shutdown))
    }

    /// What else is done with a topic, if it is not one to write alerts to.
    pub(super) fn use_of(&self, topic: &str) -> Option<&'static str> {
        let is_input = self.topics.iter().any(|input| input == topic);
        let is_changelog = self.changelog.as_deref() == Some(topic);
        is_input
            .then_some("is read")
            .or(is_changelog.then_some("is the --changelog"))
    }

    /// The source over the topics. Where it goes on is in `positions`, or else in what the group has
    /// committed.
    pub(super) fn open(
        &self,
        name: &'static str,
        lines: &LineArgs,
        positions: Option<Positions>,
        (store, metrics): (Option<Arc<dyn TaskStore>>, Option<Arc<Metrics>>),
        shutdown: &Shutdown,
    ) -> anyhow::Result<(Box<dyn Source>, Box<dyn Keeper>)> {
        ensure!(
            self.changelog.is_none() || store.is_some(),
            "--changelog is for sg-run, which keeps baselines"
        );
        let subscription = Subscription {
            topics: self.topics.clone(),
            group: self.group.clone(),
            start: self.offset.unwrap_or(Start::Beginning),
            is_reset: self.reset,
            follows_group: positions.is_none(),
            changelog: self.changelog.clone(),
            store,
            stops_at_end: self.exit_at_end,
            metrics,
        };
        let cluster = self.cluster.cluster(name)?;
        let (source, committer) = kafka::open(
            name,
            lines.quiet,
            &cluster,
            subscription,
            positions.unwrap_or_default(),
            shutdown,
        )?;
        Ok((source, Box::new(committer)))
    }
}

fn parse_start(text: &str) -> Result<Start, String> {
    Start::parse(text, now_ms())
}
