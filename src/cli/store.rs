//! `sg-store`: events into the store, and the care of a store.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand};

use super::backup::{self, BackupArgs, BackupsArgs, RestoreArgs};
use super::feedback::{self, FeedbackArgs};
use super::metrics::MetricsArgs;
use super::{EVENTS, Ended, LineArgs, conclude};
use crate::engine::{self, Options};
use crate::io::marked::{self, Resume};
use crate::io::ndjson::NdjsonSink;
use crate::metrics::Plan;
use crate::progress::Work;
use crate::query::similar;
use crate::report::{self, fail, say, warn};
use crate::shutdown::Shutdown;
use crate::store::{Access, Digest, Pipe, Shared, Store, Tuning, Verified, Writer, WriterOptions};
use crate::time::{format_time, now_ms, parse_span, parse_time};

pub const NAME: &str = "sg-store";

/// Keep events and their anomalies in a database
///
/// Reads lines from standard input, as sg-consume and sg-score write them. An event that the
/// database holds already is not stored or counted again, so that running the same command
/// twice changes nothing.
#[derive(Parser, Debug)]
#[command(name = NAME, version, args_conflicts_with_subcommands = true,
          subcommand_negates_reqs = true, after_help = EXAMPLES, after_long_help = EXAMPLES)]
pub struct StoreArgs {
    #[command(subcommand)]
    command: Option<StoreCommand>,

    /// The database folder; it is made if it is not there
    #[arg(long, value_name = "DIR", required = true)]
    db: Option<PathBuf>,

    /// Pass the lines on to standard output once they are stored
    #[arg(long)]
    tee: bool,

    /// Replace the anomalies and embeddings of events that are stored already by those that come in
    #[arg(long)]
    rescore: bool,

    #[command(flatten)]
    tuning: TuningArgs,
    #[command(flatten)]
    lines: LineArgs,
    #[command(flatten)]
    metrics: MetricsArgs,
}

#[derive(Subcommand, Debug)]
enum StoreCommand {
    /// Check everything in the database; exit code 1 if something is wrong
    #[command(after_help = VERIFY_EXAMPLES, after_long_help = VERIFY_EXAMPLES)]
    Verify {
        /// The database folder; with several, sums are those of all as if they were one
        #[arg(long, value_name = "DIR", required = true)]
        db: Vec<PathBuf>,
        /// Also print SHA-256 sums of the contents; equal contents give equal sums
        #[arg(long)]
        digest: bool,
    },
    /// Remove old events and all that belongs to them
    #[command(after_help = PRUNE_EXAMPLES, after_long_help = PRUNE_EXAMPLES)]
    Prune {
        #[command(flatten)]
        database: DatabaseArgs,
        /// Keep the events of this span before now, such as 90d
        #[arg(long, value_name = "SPAN", conflicts_with = "before")]
        retain: Option<String>,
        /// Remove events before this time
        #[arg(long, value_name = "TIME")]
        before: Option<String>,
    },
    /// Keep what was found of events, and correct the baselines of their users by it
    ///
    /// A benign event was the user's own: what it came with is known at once, and its hour and type
    /// count in full. Another one like it may still be a burst, or a change of place within hours. A
    /// malicious one was not the user's: what it has taught is forgotten. The same verdict given
    /// again changes note, author and time, and no baseline.
    #[command(after_help = feedback::EXAMPLES, after_long_help = feedback::EXAMPLES)]
    Feedback(FeedbackArgs),
    /// Back the database up, also while other programs write to it
    ///
    /// Only what earlier backups in the folder do not have is copied. The backup is of one moment, and holds
    /// all that the database does: events, anomalies, analyses, vectors, verdicts, baselines, and how far
    /// topics and files were read. It needs to write to the database's folder, where the program that has the
    /// database open links the files to be copied.
    #[command(after_help = backup::BACKUP_EXAMPLES, after_long_help = backup::BACKUP_EXAMPLES)]
    Backup(BackupArgs),
    /// List the backups in a folder; exit code 1 if there is none, or one is damaged
    #[command(after_help = backup::BACKUPS_EXAMPLES, after_long_help = backup::BACKUPS_EXAMPLES)]
    Backups(BackupsArgs),
    /// Make a database of a backup
    ///
    /// Every file is compared with its checksum. The database is there when it is whole. Then run the same
    /// sg-run again: it goes on with what was read after the backup.
    #[command(after_help = backup::RESTORE_EXAMPLES, after_long_help = backup::RESTORE_EXAMPLES)]
    Restore(RestoreArgs),
    /// Rewrite the database's files so that they take the least room
    #[command(after_help = COMPACT_EXAMPLES, after_long_help = COMPACT_EXAMPLES)]
    Compact {
        #[command(flatten)]
        database: DatabaseArgs,
    },
}

#[derive(Args, Debug)]
pub(super) struct DatabaseArgs {
    /// The database folder
    #[arg(long, value_name = "DIR")]
    pub(super) db: PathBuf,
}

/// Sizes that trade memory for speed.
#[derive(Args, Debug)]
#[command(next_help_heading = "Tuning")]
pub struct TuningArgs {
    /// MiB of events gathered in memory before they become a file
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    memtable_mib: u16,

    /// MiB of blocks kept in memory for reads [default: 512; in sg-run an eighth of --memory-limit, if
    /// that is less]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u16).range(1..))]
    cache_mib: Option<u16>,

    /// Threads that flush and compact
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    background_jobs: u8,

    /// Do not wait for the disk after each batch: a power cut may lose the newest events, a
    /// crash of the program does not
    #[arg(long)]
    no_sync: bool,
}

/// MiB of blocks that are kept if nobody says how many.
const CACHE_MIB: u16 = 512;

impl TuningArgs {
    pub(crate) fn tuning(&self) -> Tuning {
        Tuning {
            memtable_bytes: usize::from(self.memtable_mib) << 20,
            cache_bytes: usize::from(self.cache_mib.unwrap_or(CACHE_MIB)) << 20,
            n_background_jobs: i32::from(self.background_jobs),
            ..Tuning::default()
        }
    }

    /// Whether somebody has said how many blocks to keep.
    pub(crate) fn names_cache(&self) -> bool {
        self.cache_mib.is_some()
    }

    pub(crate) fn sync(&self) -> bool {
        !self.no_sync
    }
}

const EXAMPLES: &str = "Examples:
  sg-consume events.ndjson | sg-score | sg-store --db db
  sg-consume events.ndjson | sg-score | sg-store --db db --tee | jq -c 'select(.anomaly)'
  sg-consume events.ndjson --resume-from db | sg-score --state state | sg-store --db db
  sg-store verify --db db --digest
  sg-store prune --db db --retain 90d && sg-store compact --db db
  sg-store backup --db db --to /backups/db --keep 30
  sg-store restore --from /backups/db --db db
  sg-store feedback evt_1738247260748_0011757 --db db --verdict benign --note 'new laptop'

Exit codes:
  0  done (also when the reader of the output goes away)
  1  ran, but lines were rejected, verify or backups found something wrong, or feedback no such event
  2  trouble: wrong usage, a database in use or too damaged to be read on, a failure
";

const VERIFY_EXAMPLES: &str = "Examples:
  sg-store verify --db db
  sg-store verify --db host1/db --db host2/db --digest

Exit codes:
  0  all is as it should be
  1  something is wrong
  2  trouble: wrong usage, a database missing, in use or too damaged to be read on, a failure
";

const PRUNE_EXAMPLES: &str = "Examples:
  sg-store prune --db db --retain 90d && sg-store compact --db db
  sg-store prune --db db --before 2026-01-01

Exit codes:
  0  done
  2  trouble: wrong usage, a database missing, in use or damaged, a failure
";

const COMPACT_EXAMPLES: &str = "Examples:
  sg-store compact --db db

Exit codes:
  0  done
  2  trouble: wrong usage, a database missing, in use or damaged, a failure
";

/// Bytes of lines that go to the store together, when that much is waiting.
pub(crate) const STORE_BATCH_BYTES: usize = 512 << 10;

/// Runs the program.
///
/// # Errors
/// What ends it early.
pub fn run(args: &StoreArgs) -> anyhow::Result<Ended> {
    let tuning = args.tuning.tuning();
    let open = |database: &DatabaseArgs, access| Store::open(&database.db, access, &tuning);
    match &args.command {
        None => store(args),
        Some(StoreCommand::Verify { db, digest }) => {
            let stores: anyhow::Result<Vec<Store>> = db
                .iter()
                .map(|db| Store::open(db, Access::Read, &tuning))
                .collect();
            verify(&stores?, *digest)
        }
        Some(StoreCommand::Prune {
            database,
            retain,
            before,
        }) => {
            let now_ms = now_ms();
            let before_ms = match (retain, before) {
                (Some(span), _) => {
                    now_ms - parse_span(span).context("--retain takes a span such as 90d or 12h")?
                }
                (None, Some(time)) => parse_time(time, now_ms).map_err(anyhow::Error::msg)?,
                (None, None) => anyhow::bail!("prune needs --retain or --before"),
            };
            let store = Arc::new(open(database, Access::WriteExisting)?);
            let _shared = Shared::start(&store, NAME);
            let shown = report::show(false, EVENTS, false);
            let pruned = store.prune(before_ms)?;
            drop(shown);
            similar::tidy(&store)?;
            let text = format!(
                "removed {} events and {} anomalies before {}",
                pruned.n_events,
                pruned.n_anomalies,
                format_time(before_ms)
            );
            say(NAME, &text);
            Ok(Ended::Done)
        }
        Some(StoreCommand::Feedback(args)) => feedback::run(args),
        Some(StoreCommand::Backup(args)) => backup::run(args, &tuning),
        Some(StoreCommand::Backups(args)) => backup::list(args),
        Some(StoreCommand::Restore(args)) => backup::restore(args, &tuning),
        Some(StoreCommand::Compact { database }) => {
            let store = Arc::new(open(database, Access::WriteExisting)?);
            let _shared = Shared::start(&store, NAME);
            let before: u64 = store.view().disk_bytes()?.values().sum();
            let shown = report::show(false, Work::Bytes { n_bytes: before }, false);
            store.compact()?;
            drop(shown);
            let after: u64 = store.view().disk_bytes()?.values().sum();
            say(NAME, &format!("{before} bytes of files became {after}"));
            Ok(Ended::Done)
        }
    }
}

fn store(args: &StoreArgs) -> anyhow::Result<Ended> {
    let lines = args.lines.clone().after_others();
    let shutdown = Shutdown::install()?;
    let plan = Plan {
        stages: vec!["read", "store"],
        database: true,
        ..Plan::default()
    };
    let db = args.db.as_deref().context("--db is needed")?;
    let exporter = args.metrics.start(NAME, &plan, Some(db), &shutdown)?;
    let mut dead_letters = lines.dead_letters()?;
    exporter.count_letters(&dead_letters);
    // A pipe that goes on where it was opens the database at both its ends, first at the other one.
    let (source, resume) = marked::open(lines.stdin(&shutdown)?, &shutdown);
    let store = Arc::new(Store::open(db, Access::Write, &args.tuning.tuning())?);
    let _shared = Shared::start(&store, NAME);
    let pipe = pipe(&store, resume)?;
    let options = Options {
        metrics: exporter.metrics(),
        writes_output: args.tee,
        ..lines.options(NAME, STORE_BATCH_BYTES)
    };
    let writer_options = WriterOptions {
        gathered_bytes_max: options.commit_bytes / 4 * 5,
        sync: args.tuning.sync(),
        detector: None,
        with_positions: false,
        n_kept: Arc::default(),
        keeper: None,
        outbox: None,
        notice: None,
        rescore: args.rescore,
        pipe,
        tee: args.tee.then(NdjsonSink::stdout),
    };
    let mut writer = Writer::new(store, writer_options)?;
    let outcome = engine::run(
        source,
        &mut [],
        &mut writer,
        &mut dead_letters,
        &shutdown,
        &options,
    )?;
    conclude(&options, &outcome)
}

/// The pipe that goes on here, if the lines come from one.
fn pipe(store: &Store, resume: Option<Resume>) -> anyhow::Result<Option<Pipe>> {
    let known = store.pipe()?;
    let shown = store.path().display();
    let Some(resume) = resume else {
        if known.is_some() {
            let text = format!(
                "database {shown} was fed by sg-consume --resume-from, but there are no checkpoints among \
                 these lines: what a pipe has in its middle has to pass on lines that begin with {{\"sg\":"
            );
            warn(NAME, &text);
        }
        return Ok(None);
    };
    let known = known.filter(|pipe| pipe.database == resume.database);
    let pipe = known.with_context(|| {
        format!("sg-consume --resume-from has named another database than {shown}")
    })?;
    ensure!(
        pipe.checkpoint == resume.checkpoint,
        "the pipe goes on after checkpoint {}, but database {shown} is at checkpoint {}: another pipe has \
         fed it meanwhile; run this one again",
        resume.checkpoint,
        pipe.checkpoint
    );
    Ok(Some(pipe))
}

fn verify(stores: &[Store], with_digest: bool) -> anyhow::Result<Ended> {
    let mut n_events = 0;
    for store in stores {
        n_events += store.view().counters()?.events;
    }
    let work = Work::Things {
        what: "events",
        n_things: Some(n_events),
    };
    let shown = report::show(false, work, false);
    let mut verified = Verified::default();
    for store in stores {
        let of_store = store.verify()?;
        for finding in &of_store.findings {
            match stores {
                [_] => fail(NAME, finding),
                _ => fail(NAME, &format!("{}: {finding}", store.path().display())),
            }
        }
        verified.n_events += of_store.n_events;
        verified.n_anomalies += of_store.n_anomalies;
        verified.n_findings += of_store.n_findings;
    }
    drop(shown);
    let mut output = io::stdout().lock();
    let is_terminal = output.is_terminal();
    let mut report = serde_json::json!({
        "events": verified.n_events,
        "anomalies": verified.n_anomalies,
        "findings": verified.n_findings,
    });
    if with_digest {
        let digest = Digest::of(&stores.iter().map(Store::view).collect::<Vec<_>>())?;
        let families: serde_json::Map<_, _> = digest
            .parts
            .into_iter()
            .map(|(family, sum)| (family.to_owned(), sum.into()))
            .collect();
        report["digest"] = digest.total.into();
        report["families"] = families.into();
        report["baselines"] = digest.baselines.into();
    }
    if is_terminal {
        writeln!(output, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        writeln!(output, "{report}")?;
    }
    if verified.n_findings > 0 {
        let text = format!(
            "{} findings: restore the database from a backup, or make a new one and read \
             the events again",
            verified.n_findings
        );
        fail(NAME, &text);
        return Ok(Ended::Partly);
    }
    Ok(Ended::Done)
}
