//! `sg-score`: scores every event against its user's baseline.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand};

use super::baselines;
use super::enrich::EnrichmentArgs;
use super::memory::MemoryArgs;
use super::metrics::ScoreMetricsArgs;
use super::output::{ExplanationSink, print_report};
use super::{Ended, LineArgs, PIPE_BATCH_BYTES, conclude};
use crate::detect::{DetectorConfig, DetectorKind, SeverityScale, Silences};
use crate::engine::{self, Options, Outcome, Sink};
use crate::enrich::Enrichment;
use crate::evaluate::{Evaluation, Labels, Quality, Report};
use crate::io::marked::{self, Resume};
use crate::io::ndjson::NdjsonSink;
use crate::metrics::Plan;
use crate::record::CHECKED_LINE_BYTES_MAX;
use crate::record::text::printable;
use crate::report::{say, warn};
use crate::shutdown::Shutdown;
use crate::stage::{Emit, ScoreConfig, Scoring, Tasks};
use crate::store::{Keeping, Label, State};
use crate::time::{now_ms, parse_span, parse_time};

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

    /// Pass nothing on, but report what each threshold would have raised: a table on a terminal,
    /// JSON in a pipe
    #[arg(long, conflicts_with = "emit")]
    report: bool,

    /// With --report: which events were attacks, as NDJSON with `event_id`, `scenario`
    /// and `episode`
    #[arg(long, value_name = "FILE", requires = "report")]
    labels: Option<PathBuf>,

    /// With --report: learn from events before TIME, but do not count them
    #[arg(long, value_name = "TIME", requires = "report")]
    report_since: Option<String>,

    /// Pass nothing on, but tell how the event of this id was scored, piece by piece: a table on a
    /// terminal, JSON in a pipe
    #[arg(long, value_name = "EVENT_ID", conflicts_with_all = ["emit", "report"])]
    explain: Option<String>,

    /// Keep baselines in DIR: what a run has learned is there for the next, once it has come to its end,
    /// or with each checkpoint of a pipe from sg-consume --resume-from; with --report and --explain they
    /// are only read
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    #[command(flatten)]
    memory: MemoryArgs,
    #[command(flatten)]
    lines: LineArgs,
    #[command(flatten)]
    metrics: ScoreMetricsArgs,
}

/// The detector's settings, for every program that scores.
#[derive(Args, Debug)]
#[command(next_help_heading = "Detector")]
pub struct DetectorArgs {
    /// How to tell what is out of character
    #[arg(long, value_enum, default_value_t = DetectorKind::Adaptive)]
    detector: DetectorKind,

    /// Score from which an event is an anomaly [default: adaptive 0.99, classic 0.7]
    #[arg(long, value_name = "SCORE", value_parser = super::parse_score)]
    threshold: Option<f64>,

    /// Events a user must have had before the next one can be an anomaly [default: adaptive 0,
    /// classic 100]
    #[arg(long, value_name = "N")]
    min_events: Option<u64>,

    /// Raise no anomaly that FILE silences: NDJSON with `user`, `ip`, `type`, `until`, `reason`, `by`
    #[arg(long, value_name = "FILE")]
    silences: Option<PathBuf>,

    #[command(flatten)]
    enrichment: EnrichmentArgs,

    /// Anomalies of one user, or from one address, with less than SPAN between them are one incident;
    /// guessing at many users is one campaign; 0 folds nothing
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = parse_incident)]
    suppress: i64,

    /// Scores from which an anomaly is medium, high and critical; below it is low [default:
    /// adaptive 0.995,0.999,0.9999, classic 0.75,0.8,0.9]
    #[arg(long, value_name = "M,H,C", value_parser = parse_severities)]
    severities: Option<SeverityScale>,
}

#[derive(Subcommand, Debug)]
enum StateCommand {
    /// Write the baselines of a state folder to standard output as NDJSON
    #[command(after_help = EXPORT_EXAMPLES, after_long_help = EXPORT_EXAMPLES)]
    Export {
        /// The state folder
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
    /// Read baselines as NDJSON from standard input into a state folder, replacing those of
    /// the same users
    #[command(after_help = IMPORT_EXAMPLES, after_long_help = IMPORT_EXAMPLES)]
    Import {
        /// The state folder
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
}

const EXAMPLES: &str = "Examples:
  sg-consume events.ndjson | sg-score --emit anomalies | jq -c '.anomaly | [.user, .reasons[0]]'
  sg-consume today.ndjson | sg-score --state /var/lib/streamguard/state | sg-store --db db
  sg-consume events.ndjson --resume-from db | sg-score --state state | sg-store --db db
  sg-consume events.ndjson | sg-score --emit incidents | jq -c '.anomaly | [.user, .incident]'
  sg-score --report --labels attacks.ndjson < events.ndjson
  sg-score --explain evt_1738247260748_0011757 < events.ndjson
  sg-score export --state /var/lib/streamguard/state > baselines.ndjson

Exit codes:
  0  done (also when the reader of the output goes away)
  1  ran, but lines were rejected; nothing to --explain or to --report
  2  trouble: wrong usage, damaged state, a failure
";

const EXPORT_EXAMPLES: &str = "Examples:
  sg-score export --state /var/lib/streamguard/state > baselines.ndjson

Exit codes:
  0  done
  1  there are no baselines
  2  trouble: wrong usage, a folder missing, in use or damaged, a failure
";

const IMPORT_EXAMPLES: &str = "Examples:
  sg-score import --state state < baselines.ndjson

Exit codes:
  0  done
  2  trouble: wrong usage, a line that is no baseline, a folder in use or damaged, a failure
";

impl DetectorArgs {
    /// What is not to be raised; `program` says what of it is over.
    pub(crate) fn silences(&self, program: Option<&str>) -> anyhow::Result<Arc<Silences>> {
        let Some(path) = &self.silences else {
            return Ok(Arc::default());
        };
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
        let silences = Silences::read(&text)
            .map_err(|why| anyhow::anyhow!("{shown} cannot be used: {why}"))?;
        let (n_silences, n_expired) = silences.n_expired(now_ms());
        if let Some(program) = program.filter(|_| n_expired > 0) {
            let text = format!(
                "{n_expired} of {n_silences} silences in {shown} have expired: they silence earlier \
                 events only"
            );
            say(program, &text);
        }
        Ok(Arc::new(silences))
    }

    /// What can be looked up.
    pub(crate) fn enrichment(&self) -> anyhow::Result<Arc<Enrichment>> {
        Ok(Arc::new(self.enrichment.open()?))
    }

    /// The time without anomalies that ends an incident.
    pub(crate) fn incident_ms(&self) -> i64 {
        self.suppress
    }

    /// The detector's name.
    pub(crate) fn name(&self) -> &'static str {
        self.detector.name()
    }

    /// Thresholds that a report compares, the chosen one among them.
    fn report_thresholds(&self) -> Vec<f64> {
        let mut thresholds = match self.detector {
            DetectorKind::Adaptive => vec![0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999],
            DetectorKind::Classic => vec![0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9],
        };
        thresholds.push(self.config().threshold);
        thresholds.sort_by(f64::total_cmp);
        thresholds.dedup();
        thresholds
    }

    pub(crate) fn config(&self) -> DetectorConfig {
        let standard = DetectorConfig::standard(self.detector);
        DetectorConfig {
            kind: self.detector,
            threshold: self.threshold.unwrap_or(standard.threshold),
            n_events_min: self.min_events.unwrap_or(standard.n_events_min),
            severities: self.severities.unwrap_or(standard.severities),
            explain: None,
            with_all_scores: false,
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
    ensure!(
        args.emit != Emit::Incidents || args.detector.suppress > 0,
        "--suppress 0 folds nothing, so there are no incidents to emit: use --emit anomalies"
    );
    // Lines were checked against a limit that is not known here, and have grown since.
    let lines = args.memory.lines(&args.lines, CHECKED_LINE_BYTES_MAX)?;
    let shutdown = Shutdown::install()?;
    let plan = Plan {
        stages: vec!["read", "score"],
        database: args.state.is_some(),
        ..Plan::default()
    };
    let exporter = args
        .metrics
        .start(NAME, plan, args.state.as_deref(), &shutdown)?;
    let mut dead_letters = lines.dead_letters()?;
    exporter.count_letters(&dead_letters);
    let state = args.state.as_deref().map(State::open).transpose()?;
    let state = state.map(Arc::new);
    if let Some(state) = &state {
        state.claim(args.detector.name())?;
    }
    let mut detector = args.detector.config();
    if args.report {
        detector.with_all_scores = true;
    }
    detector.explain.clone_from(&args.explain);
    // What is to be explained has to be heard of.
    let silences = match &args.explain {
        None => args.detector.silences((!lines.quiet).then_some(NAME))?,
        Some(_) => Arc::default(),
    };
    let enrichment = args.detector.enrichment()?;
    let is_question = args.is_question();
    let (source, resume) = marked::open(lines.stdin(&shutdown)?, &shutdown);
    args.begin(state.as_deref(), resume.as_ref(), &lines)?;
    let memory = match &state {
        Some(state) => args.memory.with_state(state, &enrichment)?,
        None => args.memory.with_scratch(&enrichment)?,
    };
    let n_kept = memory.n_kept.clone().unwrap_or_default();
    let Scoring {
        mut look,
        mut tasks,
    } = Scoring::new(ScoreConfig {
        name: Some(NAME),
        detector,
        silences: Arc::clone(&silences),
        enrichment,
        emit: match &args.explain {
            Some(_) => Emit::Anomalies,
            None => args.emit,
        },
        metrics: exporter.metrics(),
        // A report folds by itself: every event comes as an anomaly there.
        incident_ms: if args.report {
            0
        } else {
            args.detector.incident_ms()
        },
        with_baselines: state.is_some(),
        memory,
    });
    let mut output = args.output(resume.as_ref())?;
    let options = Options {
        metrics: exporter.metrics(),
        writes_output: !is_question,
        ..args.memory.options(&lines, NAME, PIPE_BATCH_BYTES)
    };
    let run = |sink: &mut dyn Sink| {
        engine::run(
            source,
            &mut [&mut *look, &mut tasks],
            sink,
            &mut dead_letters,
            &shutdown,
            &options,
        )
    };
    let outcome = match &state {
        None => run(output.sink())?,
        Some(state) => {
            let mut sink = Keeping::new(output.sink(), Arc::clone(state), n_kept);
            let outcome = run(&mut sink)?;
            // A pipe that goes on where it was has its checkpoints.
            // What a strict run has learned before it stopped is learned again when it is repeated;
            // whoever has closed the output has not seen all of it; and whoever has asked about
            // events has not fed them.
            if !outcome.is_stopped && !outcome.is_closed && !is_question && resume.is_none() {
                state.commit(&Label::default(), sink.n_line_bytes())?;
                // They are kept whether or not that succeeds: to run again would learn them twice.
                if let Err(error) = state.flush() {
                    say(NAME, &format!("{error:#}"));
                }
            }
            outcome
        }
    };
    tell(&options, &outcome, &tasks, &silences);
    let missing = output.tell(args, &outcome)?;
    if let Some(text) = missing.as_ref().filter(|_| !options.quiet) {
        say(NAME, text);
    }
    Ok(match conclude(&options, &outcome)? {
        Ended::Done if missing.is_some() => Ended::Partly,
        ended => ended,
    })
}

/// Makes the state what it was at the checkpoint that the pipe goes on after.
fn go_back(state: Option<&State>, resume: &Resume, quiet: bool) -> anyhow::Result<()> {
    let state = state.context(
        "a pipe from sg-consume --resume-from goes on where it was: give --state DIR, so that baselines \
         do too",
    )?;
    let label = state.label();
    ensure!(
        label.checkpoint == 0 || label.database == resume.database,
        "the state folder {} belongs to a pipe into another database, or this one was made anew: name \
         another one, or remove it, to begin without baselines",
        state.path().display()
    );
    let n_epochs = state.roll_back(&Label {
        database: resume.database.clone(),
        checkpoint: resume.checkpoint,
    })?;
    if n_epochs > 0 && !quiet {
        let text = format!(
            "{n_epochs} of the last checkpoints did not arrive in the database: their events come again"
        );
        say(NAME, &text);
    }
    Ok(())
}

/// Says what a report has left out, and whether its labels are of these events.
fn tell_of_report(report: &Report) {
    if report.days_left_out > 0 {
        let text = format!(
            "{} days are not counted: nothing has happened for more than a week then, or a clock \
             was wrong",
            report.days_left_out
        );
        warn(NAME, &text);
    }
    let Some(Quality {
        labels,
        labels_matched,
        ..
    }) = report.quality
    else {
        return;
    };
    let what = if labels_matched == 0 {
        "these are labels of other events"
    } else if labels_matched < labels / 2 {
        "most are labels of other events"
    } else {
        return;
    };
    warn(
        NAME,
        &format!("{labels_matched} of {labels} labels name an event: {what}"),
    );
}

/// Says how many anomalies were silenced, and why; and if events came in no order to learn from.
pub(crate) fn tell(options: &Options, outcome: &Outcome, tasks: &Tasks, silences: &Silences) {
    for (reason, n_used) in silences.used().into_iter().filter(|_| !options.quiet) {
        let text = format!("silenced {n_used} anomalies: {reason}");
        say(options.name, &text);
    }
    let n_moved = tasks.n_moved();
    if n_moved > 0 && !options.quiet {
        let text = format!(
            "baselines were moved out of memory {n_moved} times: with a higher --memory-limit it \
             goes faster"
        );
        say(options.name, &text);
    }
    let n_late = tasks.n_late();
    if n_late * LATE_SHARE_MIN > outcome.n_in {
        let text = format!(
            "{n_late} events came an hour or more later than others before them: scores are \
             right in order of time only; give files in that order, or sort them into one"
        );
        warn(options.name, &text);
    }
}

/// One in so many events may be late.
const LATE_SHARE_MIN: u64 = 50;

/// What becomes of scored events.
enum Output {
    Lines(NdjsonSink),
    Report(Box<Evaluation>),
    Explained(ExplanationSink),
}

impl Output {
    fn sink(&mut self) -> &mut dyn Sink {
        match self {
            Self::Lines(lines) => lines,
            Self::Report(evaluation) => &mut **evaluation,
            Self::Explained(sink) => sink,
        }
    }

    /// Answers what was asked; what there is no answer to.
    fn tell(self, args: &ScoreArgs, outcome: &Outcome) -> anyhow::Result<Option<String>> {
        Ok(match self {
            Self::Report(evaluation) => {
                let report = evaluation.report();
                print_report(&report)?;
                tell_of_report(&report);
                (report.events == 0).then(|| "there are no events to report on".to_owned())
            }
            Self::Explained(_) => {
                let event_id = args.explain.as_deref().filter(|_| outcome.n_out == 0);
                event_id.map(|event_id| format!("there is no event {}", printable(event_id)))
            }
            Self::Lines(_) => None,
        })
    }
}

impl ScoreArgs {
    /// Whether it answers a question, and passes nothing on.
    fn is_question(&self) -> bool {
        self.report || self.explain.is_some()
    }

    /// Makes the state what it has to be for these events, or says why it cannot be.
    fn begin(
        &self,
        state: Option<&State>,
        resume: Option<&Resume>,
        lines: &LineArgs,
    ) -> anyhow::Result<()> {
        if let Some(resume) = resume {
            ensure!(
                !self.is_question(),
                "--report and --explain do not go with sg-consume --resume-from"
            );
            return go_back(state, resume, lines.quiet);
        }
        if let Some(state) = state.filter(|_| !self.is_question()) {
            ensure!(
                state.label().checkpoint == 0,
                "the state folder {} belongs to a pipe from sg-consume --resume-from, which would take back what \
                 is learned here: name another one, or export it into another one",
                state.path().display()
            );
        }
        Ok(())
    }

    /// Where scored events go, in a pipe that goes on where it was if there is a `resume`.
    fn output(&self, resume: Option<&Resume>) -> anyhow::Result<Output> {
        if self.explain.is_some() {
            return Ok(Output::Explained(ExplanationSink));
        }
        if !self.report {
            let mut lines = NdjsonSink::stdout();
            if let Some(resume) = resume {
                lines.begin(&resume.line)?;
            }
            return Ok(Output::Lines(lines));
        }
        let since_ms = match &self.report_since {
            None => i64::MIN,
            Some(time) => parse_time(time, now_ms())
                .map_err(|why| anyhow::anyhow!("--report-since {time:?}: {why}"))?,
        };
        let labels = match &self.labels {
            None => None,
            Some(path) => {
                let shown = path.display();
                let file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
                let labels = Labels::read(BufReader::new(file));
                Some(labels.with_context(|| format!("{shown} cannot be used"))?)
            }
        };
        let thresholds = self.detector.report_thresholds();
        let evaluation = Evaluation::new(&thresholds, since_ms, self.detector.suppress, labels);
        Ok(Output::Report(Box::new(evaluation)))
    }
}

fn parse_incident(text: &str) -> Result<i64, String> {
    let span_ms = if text == "0" {
        Some(0)
    } else {
        parse_span(text)
    };
    span_ms.ok_or_else(|| "expected a span in s, m, h, d or w, such as 15m or 1h, or 0".to_owned())
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
