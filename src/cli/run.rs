//! `sg-run`: the stages of the pipe fused in one process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::ensure;
use clap::Parser;

use super::alerts::AlertArgs;
use super::kafka::KafkaArgs;
use super::mapping::MappingArgs;
use super::memory::MemoryArgs;
use super::metrics::{Exporter, ScoreMetricsArgs};
use super::model::{self, ModelArgs};
use super::score::{DetectorArgs, tell};
use super::serve::{self, ServingArgs};
use super::store::{STORE_BATCH_BYTES, TuningArgs};
use super::{Ended, FileArgs, LineArgs, conclude};
use crate::engine::{self, Keeper, Source, TaskStore};
use crate::io::ndjson::NdjsonSink;
use crate::io::position::Positions;
use crate::mapping::Mapping;
use crate::metrics::Plan;
use crate::record::{CHECKED_LINE_BYTES_MAX, LINE_BYTES_MAX};
use crate::shutdown::Shutdown;
use crate::stage::{Embed, Embedded, Emit, ScoreConfig, Scoring, Stage};
use crate::store::{Access, Shared, Store, Writer, WriterOptions};

pub const NAME: &str = "sg-run";

/// Read, score and store events in one process
///
/// Does what `sg-consume FILE... | sg-score | sg-store --db DIR` does. Baselines live in
/// the database, and so does how far each file was read: run the same command again, and only
/// what has been appended since is read.
#[derive(Parser, Debug)]
#[command(name = NAME, version, after_help = EXAMPLES, after_long_help = EXAMPLES)]
#[command(mut_arg("keys", |arg| arg.requires("serve")))]
#[command(mut_arg("tls_cert", |arg| arg.requires("serve")))]
#[command(mut_arg("host_name", |arg| arg.requires("serve")))]
pub struct RunArgs {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    kafka: KafkaArgs,

    /// The database folder; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    db: PathBuf,

    /// Pass the lines on to standard output once they are stored
    #[arg(long)]
    tee: bool,

    /// Have a language model judge the events that matter once they are stored; nothing waits for it, and
    /// what gets no answer is asked again later, also by the next run
    #[arg(long)]
    analyze: bool,

    /// Give events embeddings, by which sg-query similar finds others like them: those that are anomalies,
    /// or --embed=all. They are the same as those of sg-embed
    #[arg(long, value_enum, value_name = "WHICH", num_args = 0..=1, require_equals = true,
          default_missing_value = "anomalies")]
    embed: Option<Embedded>,

    /// Answer questions over HTTP at this address as long as the program runs, as sg-query serve does
    #[arg(long, value_name = "ADDRESS:PORT")]
    serve: Option<SocketAddr>,

    #[command(flatten)]
    serving: ServingArgs,
    #[command(flatten)]
    mapping: MappingArgs,
    #[command(flatten)]
    detector: DetectorArgs,
    #[command(flatten)]
    alerts: AlertArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    tuning: TuningArgs,

    /// Make a checkpoint, which keeps baselines and positions, after so many MiB of lines at the latest;
    /// there is one every five seconds, too. What came after the last one is read again after a crash
    #[arg(long, value_name = "MIB", default_value_t = 512, help_heading = "Tuning",
          value_parser = clap::value_parser!(u16).range(1..))]
    checkpoint_mib: u16,

    #[command(flatten)]
    memory: MemoryArgs,
    #[command(flatten)]
    lines: LineArgs,
    #[command(flatten)]
    metrics: ScoreMetricsArgs,
}

const EXAMPLES: &str = "Examples:
  sg-run events.ndjson --db db && sg-query anomalies --db db
  sg-run 'logs/*.ndjson.zst' --db db --dead-letter dead.ndjson
  sg-run -b localhost:9092 -t events -G streamguard --db db
  sg-run --follow /var/log/app/events.ndjson --db db
  sg-run -b localhost:9092 -t events --db db --tee | jq -c 'select(.anomaly)'
  sg-run --follow events.ndjson --db db --serve 127.0.0.1:8081
  sg-run --follow events.ndjson --db db --analyze --api-key-file key --budget-usd 2
  sg-run events.ndjson --db db --embed && sg-query similar evt_41 --db db
  sg-run --follow events.ndjson --db db --alerts-to alerts.ndjson --alerts-to kafka:alerts -b localhost:9092
  sg-run --follow events.ndjson --db db --alerts-to webhook:https://example.org/hook --webhook-secret-file secret

Exit codes:
  0  done (also when the reader of the output goes away)
  1  ran, but lines were rejected, alerts refused or not delivered yet, or events wait for their analysis:
     the next run goes on with them
  2  trouble: wrong usage, unreadable input, a database in use or damaged, a failure
";

/// Runs the program.
///
/// # Errors
/// What ends it early.
pub fn run(args: &RunArgs) -> anyhow::Result<Ended> {
    let shutdown = Shutdown::install()?;
    let (mapping, lines) = args.lines()?;
    let exporter = (args.metrics).start(NAME, args.plan(), Some(&args.db), &shutdown)?;
    let mut dead_letters = args.kafka.dead_letters(NAME, &lines, &shutdown)?;
    exporter.count_letters(&dead_letters);
    let incident_ms = args.detector.incident_ms();
    let inputs = (&args.files, &args.kafka, &lines);
    let targets = args.alerts.targets(NAME, inputs, incident_ms, &shutdown)?;
    let enrichment = args.detector.enrichment()?;
    let model = args
        .analyze
        .then(|| args.model.config(NAME, args.lines.quiet, true));
    let model = model.transpose()?;
    let tuning = args.memory.tuning(&args.tuning)?;
    let bound = (args.serving).beside(NAME, args.serve, lines.quiet, exporter.metrics())?;
    let store = Arc::new(Store::open(&args.db, Access::Write, &tuning)?);
    let _shared = Shared::start(&store, NAME);
    let server = bound.map(|bound| serve::start_beside(NAME, bound, &store));
    let server = server.transpose()?;
    let memory = args.memory.with_store(&store, &tuning, &enrichment)?;
    let n_kept = memory.n_kept.clone().unwrap_or_default();
    let silences = args.detector.silences((!lines.quiet).then_some(NAME))?;
    let Scoring {
        mut look,
        mut tasks,
    } = Scoring::new(ScoreConfig {
        name: Some(NAME),
        detector: args.detector.config(),
        silences: Arc::clone(&silences),
        enrichment,
        emit: Emit::All,
        incident_ms,
        with_baselines: true,
        memory,
        metrics: exporter.metrics(),
    });
    let detector = args.detector.name();
    args.check_detector(&store)?;
    let (source, keeper) = args.source(&lines, &store, &exporter, &shutdown)?;
    let (alerts, outbox) = (args.alerts).start(
        NAME,
        lines.quiet,
        &store,
        targets,
        &dead_letters,
        exporter.metrics(),
    )?;
    let analysis = model.map(|model| {
        args.model
            .follow(model, &store, &shutdown, exporter.metrics().as_ref())
    });
    let (follower, notice) = analysis.transpose()?.unzip();
    let mut options = args.memory.options(&lines, NAME, STORE_BATCH_BYTES);
    options.checkpoint_bytes = usize::from(args.checkpoint_mib) << 20;
    options.work = args.kafka.work().unwrap_or_else(|| args.files.work());
    options.writes_output = args.tee;
    options.metrics = exporter.metrics();
    options.mapping = mapping;
    let writer_options = WriterOptions {
        gathered_bytes_max: options.commit_bytes / 4 * 5,
        sync: args.tuning.sync(),
        detector: Some(detector),
        with_positions: true,
        n_kept,
        keeper,
        pipe: None,
        outbox,
        notice,
        tee: args.tee.then(NdjsonSink::stdout),
        rescore: false,
    };
    let mut writer = Writer::new(store, writer_options)?;
    let mut embed = args.embed.map(|which| Embed::new(which, None));
    let mut stages: Vec<&mut dyn Stage> = vec![&mut *look, &mut tasks];
    if let Some(embed) = &mut embed {
        stages.push(embed);
    }
    let outcome = engine::run(
        source,
        &mut stages,
        &mut writer,
        &mut dead_letters,
        &shutdown,
        &options,
    );
    let analysed = follower.map_or(Ok(Ended::Done), |follower| {
        model::end(NAME, lines.quiet, follower)
    });
    if let Some(server) = server {
        server.end();
    }
    let are_all_told = alerts.map_or(Ok(true), |alerts| alerts.end(&shutdown));
    let outcome = outcome?;
    tell(&options, &outcome, &tasks, &silences);
    let ended = conclude(&options, &outcome)?;
    let are_all_analysed = analysed? == Ended::Done;
    Ok(match ended {
        Ended::Done if !are_all_told? || !are_all_analysed => Ended::Partly,
        _ => ended,
    })
}

/// Where events come from, and who is told how far they are kept.
type Opened = (Box<dyn Source>, Option<Box<dyn Keeper>>);

impl RunArgs {
    /// What lines are, and how they are read.
    fn lines(&self) -> anyhow::Result<(Option<Arc<Mapping>>, LineArgs)> {
        let mapping = self.mapping.mapping()?;
        // Several records may stand in one line.
        let line_bytes_max = if mapping.is_some() {
            CHECKED_LINE_BYTES_MAX
        } else {
            LINE_BYTES_MAX
        };
        let lines = self.memory.lines(&self.lines, line_bytes_max)?;
        Ok((mapping, lines))
    }

    /// Baselines of one detector say nothing to another.
    fn check_detector(&self, store: &Store) -> anyhow::Result<()> {
        let detector = self.detector.name();
        if let Some(known) = store.view().detector()? {
            ensure!(
                known == detector,
                "database {} holds baselines of the {known} detector: use --detector {known}, or \
                 another database",
                self.db.display()
            );
        }
        Ok(())
    }

    /// Opens the input where the database goes on.
    fn source(
        &self,
        lines: &LineArgs,
        store: &Arc<Store>,
        exporter: &Exporter,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Opened> {
        let positions = Positions::new(store.view().positions()?);
        if !self.kafka.is_wanted() {
            let source = (self.files).open(NAME, lines, positions, shutdown)?;
            return Ok((source, None));
        }
        let tasks: Arc<dyn TaskStore> = Arc::clone(store) as Arc<_>;
        let told = (Some(tasks), exporter.metrics());
        let (source, keeper) = (self.kafka).open(NAME, lines, Some(positions), told, shutdown)?;
        Ok((source, Some(keeper)))
    }

    /// What there is to be counted.
    fn plan(&self) -> Plan {
        let mut stages = vec!["read", "score"];
        if self.embed.is_some() {
            stages.push("embed");
        }
        stages.push("store");
        Plan {
            stages,
            answers: self.analyze,
            database: true,
            alerts: self.alerts.are_wanted(),
            topics: self.kafka.is_wanted(),
            requests: self.serve.is_some(),
            ..Plan::default()
        }
    }
}
