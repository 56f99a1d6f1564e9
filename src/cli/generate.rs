//! `sg-gen`: made-up events to try, test and measure with.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;

use super::Ended;
use super::kafka::ClusterArgs;
use crate::generate::{GenerateConfig, Paced, generate};
use crate::io::kafka::{Acks, ByUser, Producer, topic_of};
use crate::progress::Work;
use crate::report;
use crate::shutdown::Shutdown;
use crate::time::parse_time;

pub const NAME: &str = "sg-gen";

/// Make up events: users with habits, and attacks that break them
///
/// The same options give the same bytes on every machine. Users keep shifts and weekends, come
/// from several addresses, travel, and mistype passwords; about one event in 200 belongs to an
/// attack, and --labels says which.
#[derive(Parser, Debug)]
#[command(name = NAME, version, after_help = EXAMPLES, after_long_help = EXAMPLES)]
pub struct GenArgs {
    /// Events to make
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    events: u64,

    /// Users to make them for
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    users: u32,

    /// Another seed gives other users and events
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Days the events are spread over
    #[arg(long, value_name = "N", default_value_t = 30)]
    days: u32,

    /// Time of the first event
    #[arg(long, value_name = "TIME", default_value = "2025-01-01")]
    start: String,

    /// Write the labels of attack events to FILE: `event_id`, `scenario`, `episode`
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,

    /// Make no attacks
    #[arg(long)]
    no_attacks: bool,

    /// Send the events to kafka:TOPIC, keyed by user, instead of standard output
    #[arg(long, value_name = "WHERE", value_parser = parse_topic)]
    to: Option<String>,

    /// Make so many a second, as a source that is live would, and not as many as it can
    #[arg(long, value_name = "N")]
    per_second: Option<NonZeroU32>,

    /// Brokers that must have an event before it counts as sent
    #[arg(long, value_enum, default_value_t = Acks::All, requires = "to")]
    acks: Acks,

    #[command(flatten)]
    cluster: ClusterArgs,
}

const EXAMPLES: &str = "Examples:
  sg-gen --events 100000 --users 200 --seed 7 --labels labels.ndjson > events.ndjson
  sg-gen --events 1000000 --to kafka:events -b localhost:9092
  sg-gen --per-second 2000 --to kafka:events -b localhost:9092
  sg-gen --events 1000000 | sg-score --emit anomalies | jq -c .anomaly.reasons

Exit codes:
  0  done (also when the reader of the output goes away)
  2  trouble: wrong usage, a failure
";

/// Runs the program.
///
/// # Errors
/// What ends it early.
pub fn run(args: &GenArgs) -> anyhow::Result<Ended> {
    let config = GenerateConfig {
        n_events: args.events,
        n_users: args.users,
        seed: args.seed,
        days: args.days,
        start_ms: parse_time(&args.start, crate::time::now_ms()).map_err(anyhow::Error::msg)?,
        attacks: !args.no_attacks,
    };
    let labels_path = args.labels.as_deref();
    let labels_file = labels_path
        .map(|path| File::create(path).with_context(|| format!("cannot write {}", path.display())));
    let mut labels = labels_file.transpose()?.map(BufWriter::new);
    let mut output: Box<dyn Write> = match &args.to {
        None => {
            let stdout = io::stdout();
            crate::io::files::widen_pipe(&stdout);
            Box::new(stdout.lock())
        }
        Some(topic) => {
            let shutdown = Shutdown::install()?;
            let cluster = args.cluster.cluster(NAME)?;
            let producer = Producer::open(NAME, false, &cluster, topic, args.acks, &shutdown)?;
            Box::new(ByUser(producer))
        }
    };
    if let Some(per_second) = args.per_second {
        output = Box::new(Paced::new(output, per_second));
    }
    let work = Work::Things {
        what: "events",
        n_things: Some(args.events),
    };
    let shown = report::show(false, work, args.to.is_none());
    generate(
        &config,
        &mut *output,
        labels.as_mut().map(|labels| labels as &mut dyn Write),
    )
    .context("cannot generate events")?;
    drop(shown);
    if let Some(mut labels) = labels {
        labels.flush().context("cannot write the labels")?;
    }
    Ok(Ended::Done)
}

fn parse_topic(text: &str) -> Result<String, String> {
    match topic_of(text) {
        Some(topic) if !topic.is_empty() => Ok(topic.to_owned()),
        _ => Err("expected kafka:TOPIC".to_owned()),
    }
}
