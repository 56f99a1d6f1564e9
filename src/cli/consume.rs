//! `sg-consume`: events from Kafka, files or standard input, checked, to standard output.

use clap::Parser;

use super::kafka::KafkaArgs;
use super::{Ended, FileArgs, LineArgs, PIPE_BATCH_BYTES, conclude};
use crate::engine;
use crate::io::ndjson::NdjsonSink;
use crate::io::position::Positions;
use crate::shutdown::Shutdown;

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
    lines: LineArgs,
}

const EXAMPLES: &str = "Examples:
  sg-consume events.ndjson | sg-score --emit anomalies | jq .
  sg-consume 'logs/*.ndjson.gz' --dead-letter dead.ndjson | sg-score | sg-store --db db
  sg-consume --follow /var/log/app/events.ndjson | sg-score | sg-store --db db
  sg-consume -b localhost:9092 -t events -G streamguard | sg-score | sg-store --db db
  sg-consume -b localhost:9092 -t events -o @24h -e | sg-score --emit anomalies
  sg-consume --replay dead.ndjson --line-bytes-max 8388608 | sg-score | sg-store --db db

Exit codes:
  0  done (also when the reader of the output goes away)
  1  ran, but lines were rejected
  2  trouble: wrong usage, unreadable input, a failure
";

/// Runs the program.
///
/// # Errors
/// What ends it early.
pub fn run(args: &ConsumeArgs) -> anyhow::Result<Ended> {
    let shutdown = Shutdown::install()?;
    let mut dead_letters = args.kafka.dead_letters(NAME, &args.lines, &shutdown)?;
    let (source, keeper) = if args.kafka.is_wanted() {
        let (source, keeper) = (args.kafka).open(NAME, &args.lines, None, None, &shutdown)?;
        (source, Some(keeper))
    } else {
        let source = (args.files).open(NAME, &args.lines, Positions::default(), &shutdown)?;
        (source, None)
    };
    let options = args.lines.options(NAME, PIPE_BATCH_BYTES);
    let mut sink = NdjsonSink::stdout().with_keeper(keeper);
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
