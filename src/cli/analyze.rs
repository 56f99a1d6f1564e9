//! `sg-analyze`: asks a language model about the few events that matter.

mod batch;
mod question;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use clap::{Parser, ValueEnum};

use super::metrics::{Exporter, MetricsArgs};
use super::model::{ModelArgs, end, tell};
use super::{Ended, LineArgs, PIPE_BATCH_BYTES, conclude};
use crate::analyze::{Analyst, Ask, Attach, Gate};
use crate::batch::Batch;
use crate::engine::{self, Flow, Options, Sink};
use crate::io::marked;
use crate::io::ndjson::NdjsonSink;
use crate::metrics::Plan;
use crate::record::THREAT_SCORE_HIGH;
use crate::record::anomaly::Severity;
use crate::shutdown::Shutdown;
use crate::stage::Stage;
use crate::store::{Access, Shared, Store, Tuning};
use question::{Estimate, Prompts};

pub const NAME: &str = "sg-analyze";

/// Have a language model judge the events that matter
///
/// Reads lines from standard input, as sg-score writes them, and appends `analysis` to those that are
/// anomalies or have a high threat score: how severe the model thinks it is, what speaks for that, and
/// what to do. Every event passes on, whatever becomes of its analysis, in input order. An anomaly's
/// severity can be raised by it, and is never lowered. Events that are alike are asked about once.
#[derive(Parser, Debug)]
#[command(name = NAME, version, after_help = EXAMPLES, after_long_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct AnalyzeArgs {
    /// Analyse events with this threat score at least, anomalies or not
    #[arg(long, value_name = "SCORE", default_value_t = THREAT_SCORE_HIGH, value_parser = super::parse_score)]
    min_threat_score: f64,

    /// Analyse anomalies from this severity on
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t = Severity::Low)]
    min_severity: Severity,

    /// Leave events alone that have an analysis which is final: only for lines that nobody else has
    /// written
    #[arg(long)]
    keep: bool,

    /// Let events pass those that wait for their answer; lines of a pipe's checkpoints stay where they are
    #[arg(long)]
    unordered: bool,

    /// Send nothing: events pass on as they are
    #[arg(long)]
    dry_run: bool,

    /// With --dry-run: tell how many calls, tokens and dollars it would be, in place of the events
    #[arg(long, requires = "dry_run")]
    estimate: bool,

    /// Send nothing, but print the bodies of the requests, one a line
    #[arg(long, conflicts_with_all = ["dry_run", "batch"])]
    show_prompt: bool,

    /// Ask at half the price and within a day: submit the events, see what their status is, and collect
    /// the answers into the same events
    #[arg(
        long,
        value_enum,
        value_name = "STEP",
        requires = "batch_state",
        conflicts_with = "dry_run"
    )]
    batch: Option<Step>,

    /// With --batch: the file that keeps what was submitted
    #[arg(long, value_name = "FILE")]
    batch_state: Option<PathBuf>,

    /// Analyse what waits in a database, in place of lines: events that came while the service was away,
    /// or a limit was reached. No other program may use the database meanwhile
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["keep", "unordered", "dry_run", "show_prompt", "batch", "cache", "min_severity", "min_threat_score"]
    )]
    db: Option<PathBuf>,

    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    lines: LineArgs,
    #[command(flatten)]
    metrics: MetricsArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    Submit,
    Status,
    Collect,
}

const EXAMPLES: &str = "Examples:
  sg-consume events.ndjson | sg-score | sg-analyze --cache answers --budget-usd 2 | sg-store --db db
  sg-score < events.ndjson | sg-analyze --dry-run --estimate
  sg-score < events.ndjson | sg-analyze --show-prompt --redact user,ip | head -n 1 | jq .
  sg-score < events.ndjson | sg-analyze --provider openai --base-url http://localhost:11434 --model llama3
  sg-score < events.ndjson > scored && sg-analyze --batch submit --batch-state batches < scored
  sg-analyze --db db --budget-usd 2
  sg-analyze --batch status --batch-state batches
  sg-analyze --batch collect --batch-state batches < scored | sg-store --db db

Exit codes:
  0  done (also when the reader of the output goes away)
  1  ran, but lines were rejected, or events still wait; batches that have not ended, or not all of whose answers came
  2  trouble: wrong usage, a failure
";

/// Runs the program.
///
/// # Errors
/// What ends it early.
pub fn run(args: &AnalyzeArgs) -> anyhow::Result<Ended> {
    // Lines were checked against a limit that is not known here, and have grown since.
    let lines = args.lines.clone().after_others();
    let is_asking = !args.dry_run && !args.show_prompt;
    let config = args.model.config(NAME, lines.quiet, is_asking)?;
    let gate = Gate {
        severity_min: args.min_severity,
        threat_score_min: args.min_threat_score,
        keeps: args.keep,
    };
    let shutdown = Shutdown::install()?;
    let plan = Plan {
        stages: match args.db {
            Some(_) => Vec::new(),
            None => vec!["read", "analyze"],
        },
        answers: true,
        database: args.db.is_some(),
        ..Plan::default()
    };
    let exporter = (args.metrics).start(NAME, &plan, args.db.as_deref(), &shutdown)?;
    let metrics = exporter.metrics();
    if let Some(db) = &args.db {
        let store = Arc::new(Store::open(db, Access::WriteExisting, &Tuning::default())?);
        let _shared = Shared::start(&store, NAME);
        let (follower, _) = (args.model).follow(config, &store, &shutdown, metrics.as_ref())?;
        if let Some(metrics) = metrics {
            metrics.begin();
        }
        return end(NAME, lines.quiet, follower);
    }
    let kept = args.model.kept(NAME, is_asking)?;
    let analyst = Arc::new(Analyst::open(config, kept.0, kept.1, &shutdown)?);
    if let Some(metrics) = &metrics {
        analyst.report_to(metrics, true);
    }
    let run = Run {
        exporter: &exporter,
        args,
        lines,
        gate,
        analyst,
        shutdown,
    };
    match args.batch {
        Some(Step::Submit) => run.submit(),
        Some(Step::Status) => run.status(),
        Some(Step::Collect) => run.collect(),
        None if args.show_prompt || args.estimate => run.answer(),
        None => run.analyze(),
    }
}

/// Lines to standard output. Nobody is asked any more once their reader has gone.
struct Output<'a> {
    lines: NdjsonSink,
    analyst: &'a Analyst,
}

impl Sink for Output<'_> {
    fn write(&mut self, batch: &mut Batch) -> anyhow::Result<Flow> {
        let flow = self.lines.write(batch)?;
        if flow == Flow::Closed {
            self.analyst.stop_within(Duration::ZERO);
        }
        Ok(flow)
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        self.lines.finish()
    }
}

/// A run of the program, whatever it does.
struct Run<'a> {
    exporter: &'a Exporter,
    args: &'a AnalyzeArgs,
    lines: LineArgs,
    gate: Gate,
    analyst: Arc<Analyst>,
    shutdown: Shutdown,
}

impl Run<'_> {
    fn options(&self) -> Options {
        let options = self.lines.options(NAME, PIPE_BATCH_BYTES);
        Options {
            // A stage that waits would keep a single thread from reading.
            jobs: options.jobs.max(2),
            metrics: self.exporter.metrics(),
            ..options
        }
    }

    /// The filter.
    fn analyze(&self) -> anyhow::Result<Ended> {
        let mut ask = Ask::new(Arc::clone(&self.analyst), self.gate);
        let mut attach = Attach::new(Arc::clone(&self.analyst), self.args.unordered);
        let mut stages: Vec<&mut dyn Stage> = vec![&mut ask, &mut attach];
        if self.args.dry_run {
            stages.clear();
        }
        let ended = self.pass(&mut stages)?;
        if !self.args.dry_run && !self.lines.quiet {
            tell(NAME, &self.analyst.tally());
        }
        Ok(ended)
    }

    /// Takes lines from standard input through stages to standard output.
    fn pass(&self, stages: &mut [&mut dyn Stage]) -> anyhow::Result<Ended> {
        let mut dead_letters = self.lines.dead_letters()?;
        self.exporter.count_letters(&dead_letters);
        let source = self.lines.stdin(&self.shutdown)?;
        let (source, resume) = marked::open(source, &self.shutdown);
        let mut lines = NdjsonSink::stdout();
        if let Some(resume) = &resume {
            lines.begin(&resume.line)?;
        }
        let mut sink = Output {
            lines,
            analyst: &self.analyst,
        };
        let options = self.options();
        let outcome = engine::run(
            source,
            stages,
            &mut sink,
            &mut dead_letters,
            &self.shutdown,
            &options,
        )?;
        conclude(&options, &outcome)
    }

    /// What would be asked.
    fn answer(&self) -> anyhow::Result<Ended> {
        let mut dead_letters = self.lines.dead_letters()?;
        let source = self.lines.stdin(&self.shutdown)?;
        let (source, resume) = marked::open(source, &self.shutdown);
        ensure!(
            resume.is_none(),
            "--show-prompt and --estimate do not go with sg-consume --resume-from"
        );
        let (analyst, gate) = (&*self.analyst, self.gate);
        let options = self.options();
        let run = |sink: &mut dyn Sink, dead_letters| {
            engine::run(
                source,
                &mut [],
                sink,
                dead_letters,
                &self.shutdown,
                &options,
            )
        };
        let outcome = if self.args.show_prompt {
            run(&mut Prompts::new(analyst, gate), &mut dead_letters)?
        } else {
            let mut estimate = Estimate::new(analyst, gate);
            let outcome = run(&mut estimate, &mut dead_letters)?;
            estimate.print()?;
            outcome
        };
        conclude(&options, &outcome)
    }
}
