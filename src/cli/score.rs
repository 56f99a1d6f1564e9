//! `sg-score`: scores every event against its user's baseline.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::baselines::{self, load, save};
use super::{Ended, LineArgs, PIPE_BATCH_BYTES, conclude};
use crate::detect::{DetectorConfig, DetectorKind, SeverityScale};
use crate::engine;
use crate::io::ndjson::NdjsonSink;
use crate::io::state::StateFolder;
use crate::shutdown::Shutdown;
use crate::stage::{ScoreConfig, Scoring};

pub const NAME: &str = "sg-score";

/// Score each event against what is usual for its user
///
/// Reads events from standard input, learns a baseline for every user as it goes, and appends
/// `anomaly` (scores and reasons) and `context` to the lines of events that are out of
/// character. All other bytes of a line stay as they are.
#[derive(Parser, Debug)]
#[command(name = NAME, version, args_conflicts_with_subcommands = true,
          after_help = EXAMPLES, after_long_help = EXAMPLES)]
pub struct ScoreArgs {
    #[command(subcommand)]
    command: Option<StateCommand>,
    #[command(flatten)]
    detector: DetectorArgs,

    /// Which events to pass on
    #[arg(long, value_enum, default_value_t = Emit::All)]
    emit: Emit,

    /// Keep baselines in DIR: read at the start, replaced at the end
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    #[command(flatten)]
    lines: LineArgs,
}

/// The detector's settings, for every program that scores.
#[derive(Args, Debug)]
#[command(next_help_heading = "Detector")]
pub struct DetectorArgs {
    /// How to tell what is out of character
    #[arg(long, value_enum, default_value_t = DetectorKind::Adaptive, env = "SG_DETECTOR")]
    detector: DetectorKind,

    /// Score from which an event is an anomaly [default: adaptive 0.99, classic 0.7]
    #[arg(long, value_name = "SCORE", value_parser = super::parse_score)]
    threshold: Option<f64>,

    /// Events a user must have had before the next one can be an anomaly [default: adaptive 0,
    /// classic 100]
    #[arg(long, value_name = "N")]
    min_events: Option<u64>,

    /// Scores from which an anomaly is medium, high and critical; below it is low [default:
    /// adaptive 0.995,0.999,0.9999, classic 0.75,0.8,0.9]
    #[arg(long, value_name = "M,H,C", value_parser = parse_severities)]
    severities: Option<SeverityScale>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Emit {
    /// Every event
    All,
    /// Only events that are anomalies
    Anomalies,
}

#[derive(Subcommand, Debug)]
enum StateCommand {
    /// Write the baselines of a state folder to standard output as NDJSON
    Export {
        /// The state folder
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
    /// Read baselines as NDJSON from standard input into a state folder, replacing those of
    /// the same users
    Import {
        /// The state folder
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
}

const EXAMPLES: &str = "Examples:
  sg-consume events.ndjson | sg-score --emit anomalies | jq -c '.anomaly | [.user, .reasons[0]]'
  sg-consume today.ndjson | sg-score --state /var/lib/streamguard/state | sg-store --db db
  sg-score export --state /var/lib/streamguard/state > baselines.ndjson

Exit codes:
  0  done (also when the reader of the output goes away)
  1  ran, but lines were rejected
  2  trouble: wrong usage, damaged state, a failure
";

impl DetectorArgs {
    /// The detector's name.
    pub(crate) fn name(&self) -> &'static str {
        self.detector.name()
    }

    pub(crate) fn config(&self) -> DetectorConfig {
        let standard = DetectorConfig::standard(self.detector);
        DetectorConfig {
            kind: self.detector,
            threshold: self.threshold.unwrap_or(standard.threshold),
            n_events_min: self.min_events.unwrap_or(standard.n_events_min),
            severities: self.severities.unwrap_or(standard.severities),
        }
    }
}

/// Runs the program.
///
/// # Errors
/// What ends it early.
pub fn run(args: &ScoreArgs) -> anyhow::Result<Ended> {
    match &args.command {
        Some(StateCommand::Export { state }) => baselines::export(state),
        Some(StateCommand::Import { state }) => baselines::import(state),
        None => score(args),
    }
}

fn score(args: &ScoreArgs) -> anyhow::Result<Ended> {
    let lines = args.lines.clone().after_others();
    let shutdown = Shutdown::install()?;
    let mut dead_letters = lines.dead_letters()?;
    let folder = args.state.as_deref().map(StateFolder::open).transpose()?;
    let Scoring {
        mut look,
        score: mut scorer,
    } = Scoring::new(ScoreConfig {
        detector: args.detector.config(),
        only_anomalies: args.emit == Emit::Anomalies,
        with_baselines: false,
    });
    let name = args.detector.name();
    if let Some(folder) = &folder {
        folder.load(name, |user, record| Ok(load(&mut *scorer, user, record)?))?;
    }
    let source = lines.stdin(&shutdown)?;
    let options = lines.options(NAME, PIPE_BATCH_BYTES);
    let mut sink = NdjsonSink::stdout();
    let outcome = engine::run(
        source,
        &mut [&mut *look, &mut *scorer],
        &mut sink,
        &mut dead_letters,
        &shutdown,
        &options,
    )?;
    // What a strict run has learned before it stopped is learned again when it is repeated.
    if let Some(folder) = &folder
        && !outcome.is_stopped
    {
        save(folder, name, &*scorer)?;
    }
    conclude(&options, &outcome)
}

fn parse_severities(text: &str) -> Result<SeverityScale, String> {
    let scores: Result<Vec<f64>, String> = text.split(',').map(super::parse_score).collect();
    match scores?[..] {
        [medium, high, critical] if medium <= high && high <= critical => Ok(SeverityScale {
            medium,
            high,
            critical,
        }),
        _ => Err("expected three rising scores, such as 0.75,0.8,0.9".to_owned()),
    }
}
