//! Events from topics of Apache Kafka. This module and those below it are the only ones that name
//! `rdkafka`.
//!
//! A message is a line. Offsets are never committed before what they stand for is kept, and where a
//! program goes on is what its own store says; what it commits to Kafka serves whoever watches its lag.

mod changelog;
mod client;
mod committer;
mod consumer;
mod deliveries;
mod lag;
mod producer;
mod range;
mod start;
mod transaction;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};

use crate::batch::PARTITION_PREFIX;
use crate::engine::TaskStore;
use crate::metrics::Metrics;

pub use committer::Committer;
pub use consumer::open;
pub use producer::{Acks, ByUser, Producer, is_of_message};
pub use start::Start;

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// `HOST:PORT`, several with commas between them.
    pub brokers: String,
    /// Properties of librdkafka, which go before what is set here.
    pub properties: Vec<(String, String)>,
}

/// What to read of a cluster.
#[derive(Clone)]
pub struct Subscription {
    /// Names, or patterns that begin with `^`.
    pub topics: Vec<String>,
    /// The consumer group that shares partitions; without one all partitions are read.
    pub group: Option<String>,
    /// Where to begin in partitions of which no position is kept.
    pub start: Start,
    /// Begin there whatever is kept.
    pub is_reset: bool,
    /// What the group has committed is what is kept: the program keeps no positions itself.
    pub follows_group: bool,
    /// The topic through which baselines move with their partitions.
    pub changelog: Option<String>,
    /// Where that keeps them here.
    pub store: Option<Arc<dyn TaskStore>>,
    /// End where the partitions ended when they were opened.
    pub stops_at_end: bool,
    /// Where it is told how far behind it is, if anybody wants to know.
    pub metrics: Option<Arc<Metrics>>,
}

impl Subscription {
    /// Whether there is an end to be reached.
    fn is_bounded(&self) -> bool {
        self.stops_at_end || matches!(self.start, Start::Time { until: Some(_), .. })
    }
}

/// The topic that a text such as `kafka:alerts` names, if it is one.
#[must_use]
pub fn topic_of(text: &str) -> Option<&str> {
    text.strip_prefix(PARTITION_PREFIX)
}

/// The name of a partition as a source, and as a task.
fn source_of(topic: &str, partition: i32) -> String {
    format!("{PARTITION_PREFIX}{topic}/{partition}")
}

/// The topic and partition that a source is, if it is one.
fn partition_of(source: &str) -> Option<(&str, i32)> {
    let (topic, partition) = source.strip_prefix(PARTITION_PREFIX)?.rsplit_once('/')?;
    Some((topic, partition.parse().ok()?))
}

/// A property and its value.
///
/// # Errors
/// If the text is not `KEY=VALUE`.
pub fn parse_property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("expected KEY=VALUE, such as security.protocol=ssl".to_owned()),
    }
}

/// Properties from a file: `KEY=VALUE` lines, blank ones, and comments that begin with `#`.
///
/// # Errors
/// If it cannot be read, or a line is none of these.
pub fn read_properties(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let mut properties = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse_property(line) {
            Ok(property) => properties.push(property),
            // The line may hold a secret.
            Err(why) => bail!("{shown}:{}: {why}", i + 1),
        }
    }
    Ok(properties)
}
