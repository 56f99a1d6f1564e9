//! `sg-consume`: events from Kafka, files or standard input, checked, to standard output.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::{Args, Parser};

use super::kafka::KafkaArgs;
use super::mapping::{self, MappingArgs};
use super::metrics::MetricsArgs;
use super::{Ended, FileArgs, LineArgs, PIPE_BATCH_BYTES, conclude};
use crate::engine;
use crate::io::files::STDIN;
use crate::io::marked::Marking;
use crate::io::ndjson::NdjsonSink;
use crate::io::position::Positions;
use crate::metrics::Plan;
use crate::report::say;
use crate::shutdown::Shutdown;
use crate::store::{self, Access, Store, Tuning};

pub const NAME: &str = "sg-consume";

/// Read events, check them, and pass the valid ones on
///
/// An event is one JSON object a line with at least `event_id`, `user`, `timestamp` (ms since
/// 1970) and `type`. Valid lines leave byte for byte; every other line is counted, explained on stderr
/// and, with --dead-letter, kept.
#[derive(Parser, Debug)]
#[command(name = NAME, version, after_help = EXAMPLES, after_long_help = EXAMPLES)]
pub struct ConsumeArgs {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    resume: ResumeArgs,
    #[command(flatten)]
    mapping: MappingArgs,

    /// Tell for each line which value comes from where and what is missing, instead of passing it on
    #[arg(long, conflicts_with_all = ["resume_from", "follow", "topics", "dead_letter"], help_heading = "Other formats")]
    explain_mapping: bool,

    /// Print the names of all formats, and where their records are described
    #[arg(long, exclusive = true, help_heading = "Other formats")]
    list_formats: bool,

    #[command(flatten)]
    lines: LineArgs,
    #[command(flatten)]
    metrics: MetricsArgs,
}

/// How the pipe goes on where it was.
#[derive(Args, Debug)]
#[command(next_help_heading = "Resuming")]
struct ResumeArgs {
    /// Go on after the last checkpoint that has arrived in the database DIR, and send checkpoints along
    /// with the lines: run the pipe again after a crash, and it is as if nothing had happened. DIR is
    /// that of sg-store at the end of the pipe; sg-score needs --state
    #[arg(long, value_name = "DIR", conflicts_with = "replay")]
    resume_from: Option<PathBuf>,

    /// MiB of lines between two checkpoints at the most; they come every five seconds, too
    #[arg(long, value_name = "MIB", default_value_t = 128, requires = "resume_from",
          value_parser = clap::value_parser!(u16).range(1..))]
    checkpoint_mib: u16,
}

const EXAMPLES: &str = "Examples:
  sg-consume events.ndjson | sg-score --emit anomalies | jq .
  sg-consume 'logs/*.ndjson.gz' --dead-letter dead.ndjson | sg-score | sg-store --db db
  sg-consume --follow /var/log/app/events.ndjson | sg-score | sg-store --db db
  sg-consume -b localhost:9092 -t events -G streamguard | sg-score | sg-store --db db
  sg-consume -b localhost:9092 -t events -o @24h -e | sg-score --emit anomalies
  sg-consume events.ndjson --resume-from db | sg-score --state state | sg-store --db db
  sg-consume --replay dead.ndjson --line-bytes-max 8388608 | sg-score | sg-store --db db

Exit codes:
  0  done (also when the reader of the output goes away)
  1  ran, but lines were rejected
  2  trouble: wrong usage, unreadable input, a failure
";

/// Little is read of the database.
const CACHE_BYTES: usize = 8 << 20;

/// Runs the program.
///
/// # Errors
/// What ends it early.
pub fn run(args: &ConsumeArgs) -> anyhow::Result<Ended> {
    if args.list_formats {
        return mapping::list();
    }
    let shutdown = Shutdown::install()?;
    let mapping = args.mapping.mapping()?;
    let lines = if mapping.is_some() {
        // Several records may stand in one line.
        args.lines.clone().after_others()
    } else {
        args.lines.clone()
    };
    if args.explain_mapping {
        let mapping = mapping.context("--explain-mapping needs --format or --map")?;
        return mapping::explain(NAME, &mapping, &args.files, &lines, &shutdown);
    }
    let plan = Plan {
        stages: vec!["read"],
        topics: args.kafka.is_wanted(),
        ..Plan::default()
    };
    let exporter = args.metrics.start(NAME, &plan, None, &shutdown)?;
    let mut dead_letters = args.kafka.dead_letters(NAME, &lines, &shutdown)?;
    exporter.count_letters(&dead_letters);
    let mut sink = NdjsonSink::stdout();
    let positions = match &args.resume.resume_from {
        None => None,
        Some(db) => Some(args.resume(db, &mut sink)?),
    };
    let (source, keeper) = if args.kafka.is_wanted() {
        let (source, keeper) = (args.kafka).open(
            NAME,
            &lines,
            positions,
            (None, exporter.metrics()),
            &shutdown,
        )?;
        (source, Some(keeper))
    } else {
        let positions = positions.unwrap_or_default();
        let source = (args.files).open(NAME, &lines, positions, &shutdown)?;
        (source, None)
    };
    let mut options = lines.options(NAME, PIPE_BATCH_BYTES);
    options.metrics = exporter.metrics();
    options.mapping = mapping;
    options.work = args.kafka.work().unwrap_or_else(|| args.files.work());
    options.checkpoint_bytes = usize::from(args.resume.checkpoint_mib) << 20;
    let mut sink = sink.with_keeper(keeper);
    let outcome = engine::run(
        source,
        &mut [],
        &mut sink,
        &mut dead_letters,
        &shutdown,
        &options,
    )?;
    conclude(&options, &outcome)
}

impl ConsumeArgs {
    /// Lets the pipe go on after the last checkpoint in a database: where to read on.
    fn resume(&self, db: &Path, sink: &mut NdjsonSink) -> anyhow::Result<Positions> {
        let inputs = &self.files.inputs;
        ensure!(
            self.kafka.is_wanted() || !inputs.is_empty() && inputs.iter().all(|it| it != STDIN),
            "standard input cannot be read again: --resume-from takes files or topics"
        );
        let tuning = Tuning {
            cache_bytes: CACHE_BYTES,
            ..Tuning::default()
        };
        if !store::is_at(db) && !self.lines.quiet {
            // It holds what tells this pipe from others, from the first line on. A name may be mistyped.
            let text = format!(
                "there was no database at {}: this is its first pipe",
                db.display()
            );
            say(NAME, &text);
        }
        // Whoever stores what is left of another run has to come to an end first.
        let store = Store::open(db, Access::Write, &tuning)?;
        let pipe = match store.pipe()? {
            Some(pipe) => pipe,
            None => store.begin_pipe()?,
        };
        let positions = Positions::new(store.pipe_positions()?);
        // Closed before anybody behind us in the pipe hears of it.
        drop(store);
        sink.mark(Marking::new(&pipe.database, pipe.checkpoint))?;
        Ok(positions)
    }
}
