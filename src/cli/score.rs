//! `sg-score`: scores every event against its user's baseline.

use std::io::{self, BufRead, BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{Ended, LineArgs, PIPE_BATCH_BYTES, conclude};
use crate::detect::classic::{self, Baseline, Summary};
use crate::detect::{DetectorConfig, SeverityScale};
use crate::engine;
use crate::io::ndjson::NdjsonSink;
use crate::io::state::StateFolder;
use crate::shutdown::Shutdown;
use crate::stage::{Score, ScoreConfig};

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
    /// Score from which an event is an anomaly
    #[arg(long, value_name = "SCORE", default_value_t = 0.7, value_parser = super::parse_score)]
    threshold: f64,

    /// Events a user must have had before the next one is scored
    #[arg(long, value_name = "N", default_value_t = 100)]
    min_events: u64,

    /// Scores from which an anomaly is medium, high and critical; below it is low
    #[arg(long, value_name = "M,H,C", default_value = "0.75,0.8,0.9", value_parser = parse_severities)]
    severities: SeverityScale,
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
    pub(crate) fn config(&self) -> DetectorConfig {
        DetectorConfig {
            threshold: self.threshold,
            n_events_min: self.min_events,
            severities: self.severities,
        }
    }
}

/// Runs the program.
///
/// # Errors
/// What ends it early.
pub fn run(args: &ScoreArgs) -> anyhow::Result<Ended> {
    match &args.command {
        Some(StateCommand::Export { state }) => export(state),
        Some(StateCommand::Import { state }) => import(state, args),
        None => score(args),
    }
}

fn score(args: &ScoreArgs) -> anyhow::Result<Ended> {
    let lines = args.lines.clone().after_others();
    let shutdown = Shutdown::install()?;
    let mut dead_letters = lines.dead_letters()?;
    let folder = args.state.as_deref().map(StateFolder::open).transpose()?;
    let mut score = Score::new(ScoreConfig {
        detector: args.detector.config(),
        only_anomalies: args.emit == Emit::Anomalies,
        with_baselines: false,
    });
    if let Some(folder) = &folder {
        folder.load(classic::NAME, |user, record| Ok(score.load(user, record)?))?;
    }
    let source = lines.stdin(&shutdown)?;
    let options = lines.options(NAME, PIPE_BATCH_BYTES);
    let mut sink = NdjsonSink::stdout();
    let outcome = engine::run(
        source,
        &mut [&mut score],
        &mut sink,
        &mut dead_letters,
        &shutdown,
        &options,
    )?;
    // What a strict run has learned before it stopped is learned again when it is repeated.
    if let Some(folder) = &folder
        && !outcome.is_stopped
    {
        save(folder, &score)?;
    }
    conclude(&options, &outcome)
}

fn save(folder: &StateFolder, score: &Score) -> anyhow::Result<()> {
    folder.save(classic::NAME, score.n_users(), |each| score.save(each))
}

/// One line of an export.
#[derive(Serialize, Deserialize)]
struct ExportLine {
    user: String,
    detector: String,
    version: u8,
    baseline: Summary,
}

fn export(state: &std::path::Path) -> anyhow::Result<Ended> {
    ensure!(
        state.is_dir(),
        "there is no state folder at {}",
        state.display()
    );
    let folder = StateFolder::open(state)?;
    let mut output = BufWriter::new(io::stdout().lock());
    let mut n_users: u64 = 0;
    folder.load(classic::NAME, |user, record| {
        let line = ExportLine {
            user: user.to_owned(),
            detector: classic::NAME.to_owned(),
            version: classic::RECORD_VERSION,
            baseline: Baseline::from_record(record)?.summary(),
        };
        n_users += 1;
        serde_json::to_writer(&mut output, &line).map_err(io::Error::from)?;
        Ok(output.write_all(b"\n")?)
    })?;
    output.flush()?;
    Ok(if n_users == 0 {
        Ended::Partly
    } else {
        Ended::Done
    })
}

fn import(state: &std::path::Path, args: &ScoreArgs) -> anyhow::Result<Ended> {
    let folder = StateFolder::open(state)?;
    let mut score = Score::new(ScoreConfig {
        detector: args.detector.config(),
        only_anomalies: false,
        with_baselines: false,
    });
    folder.load(classic::NAME, |user, record| Ok(score.load(user, record)?))?;
    let mut record = Vec::new();
    for (i, line) in io::stdin().lock().lines().enumerate() {
        let number = i + 1;
        let line: ExportLine = serde_json::from_str(&line.context("cannot read standard input")?)
            .with_context(|| {
            format!("line {number} is not an exported baseline; nothing was changed")
        })?;
        ensure!(
            line.detector == classic::NAME && line.version == classic::RECORD_VERSION,
            "line {number} is of detector {} version {}, not {} version {}; nothing was changed",
            crate::record::text::printable(&line.detector),
            line.version,
            classic::NAME,
            classic::RECORD_VERSION
        );
        ensure!(
            !line.user.is_empty(),
            "line {number} names no user; nothing was changed"
        );
        record.clear();
        let baseline = Baseline::from_summary(line.baseline)
            .with_context(|| format!("line {number} cannot be used; nothing was changed"))?;
        baseline.write_record(&mut record);
        score.load(&line.user, &record)?;
    }
    save(&folder, &score)?;
    Ok(Ended::Done)
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
