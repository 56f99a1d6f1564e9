//! What was typed and what it means: arguments shared by the programs, their exit codes, and
//! how they end. Each program's own module is below.

mod alerts;
pub mod analyze;
mod backup;
mod baselines;
pub mod consume;
mod databases;
pub mod embed;
mod enrich;
mod feedback;
pub mod generate;
mod kafka;
mod log;
mod manual;
mod mapping;
mod memory;
mod metrics;
mod model;
mod output;
pub mod query;
pub mod run;
pub mod score;
mod secret;
mod serve;
mod settings;
mod similar;
pub mod store;
mod tail;

use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory as _, Parser};
use serde_json::Value;

use crate::engine::{Options, Outcome, Source};
use crate::io::dead_letter::{DeadLetters, Replay};
use crate::io::files;
use crate::io::position::Positions;
use crate::progress::Work;
use crate::record::{CHECKED_LINE_BYTES_MAX, LINE_BYTES_MAX};
use crate::report::{self, Level};
use crate::shutdown::Shutdown;

/// How a program ended, if it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// Ran, but lines were rejected or nothing was found.
    Partly,
    /// Ran to its end, but some input could not be read. The message is out already.
    Failed,
}

/// A whole program: takes its arguments from the command line, variables and a file, runs it, and says
/// how it ended.
#[must_use]
pub fn main<A: Parser>(name: &'static str, run: fn(&A) -> anyhow::Result<Ended>) -> ExitCode {
    log::foresee();
    report::take_panics(name);
    let start = settings::parse(name, commands);
    exit(
        name,
        start.and_then(|start| match start {
            settings::Start::Run(args) => run(&args),
            settings::Start::End(ended) => Ok(ended),
        }),
    )
}

/// What all programs parse, in the order of their names.
#[must_use]
pub fn commands() -> Vec<Command> {
    let commands = [
        analyze::AnalyzeArgs::command(),
        consume::ConsumeArgs::command(),
        embed::EmbedArgs::command(),
        generate::GenArgs::command(),
        query::QueryArgs::command(),
        run::RunArgs::command(),
        score::ScoreArgs::command(),
        store::StoreArgs::command(),
    ];
    commands.into_iter().map(settings::with_settings).collect()
}

/// Turns what a program came to into its exit code, and says once what went wrong.
fn exit(name: &str, result: anyhow::Result<Ended>) -> ExitCode {
    match result {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Partly) => ExitCode::from(1),
        Ok(Ended::Failed) => ExitCode::from(2),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // File names are anybody's text.
            report::fail(name, &format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let error = cause.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Where lines come from, and what becomes of bad ones.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Input")]
pub struct LineArgs {
    /// Append rejected lines to FILE, or send them to kafka:TOPIC, with the reason and where they
    /// came from
    #[arg(long, value_name = "FILE")]
    pub dead_letter: Option<PathBuf>,

    /// Stop at the first rejected line (exit code 2)
    #[arg(long)]
    pub strict: bool,

    /// Reject lines longer than this many bytes [default: 1048576; with --format, and in programs that
    /// read what another has checked, 67108864]
    #[arg(long, value_name = "BYTES", value_parser = parse_line_bytes)]
    pub line_bytes_max: Option<usize>,

    /// Threads that parse and score [default: one a core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,

    /// Print nothing on stderr but warnings and errors
    #[arg(short, long)]
    pub quiet: bool,
}

/// Events from files.
#[derive(Args, Debug)]
#[command(next_help_heading = "Input")]
pub struct FileArgs {
    /// Files or glob patterns, compressed with gzip or zstd or not; - is standard input
    #[arg(value_name = "FILE")]
    pub inputs: Vec<String>,

    /// Wait for more at the end of the files, as tail -F does
    #[arg(long, conflicts_with = "replay")]
    pub follow: bool,

    /// Read the lines in a dead letter file again
    #[arg(long, value_name = "DEAD", conflicts_with = "inputs")]
    pub replay: Option<PathBuf>,
}

impl FileArgs {
    /// What there is to read.
    pub(crate) fn work(&self) -> Work {
        let inputs = files::expand(&self.inputs).unwrap_or_default();
        if self.follow || self.replay.is_some() || inputs.iter().any(|input| input == files::STDIN)
        {
            return EVENTS;
        }
        let n_bytes = |input: &String| std::fs::metadata(input).map_or(0, |file| file.len());
        Work::Bytes {
            n_bytes: inputs.iter().map(n_bytes).sum(),
        }
    }

    pub(crate) fn open(
        &self,
        name: &str,
        lines: &LineArgs,
        positions: Positions,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Box<dyn Source>> {
        let line_bytes_max = lines.line_bytes_max();
        if let Some(path) = &self.replay {
            lines.refuse_as_dead_letter(path)?;
            return Ok(Box::new(Replay::open(path, shutdown, line_bytes_max)?));
        }
        let (inputs, missing) = positions.with_rotated(files::expand(&self.inputs)?);
        for text in missing {
            report::warn(name, &text);
        }
        for input in &inputs {
            let path = if input == files::STDIN {
                "/dev/stdin"
            } else {
                input
            };
            lines.refuse_as_dead_letter(Path::new(path))?;
        }
        files::open(inputs, self.follow, positions, shutdown, line_bytes_max)
    }
}

impl LineArgs {
    /// Where rejected lines go, for a program that has nothing to do with Kafka.
    pub(crate) fn dead_letters(&self) -> anyhow::Result<DeadLetters> {
        let Some(path) = &self.dead_letter else {
            return Ok(DeadLetters::nowhere());
        };
        anyhow::ensure!(
            self.dead_letter_topic().is_none(),
            "--dead-letter kafka:TOPIC is for sg-consume and sg-run, which reject lines first"
        );
        DeadLetters::append(path)
    }

    /// The topic that rejected lines go to, if it is one.
    fn dead_letter_topic(&self) -> Option<&str> {
        crate::io::kafka::topic_of(self.dead_letter.as_deref()?.to_str()?)
    }

    /// Letters about the letters would be read again, without end.
    fn refuse_as_dead_letter(&self, input: &Path) -> anyhow::Result<()> {
        let dead_letter = self.dead_letter.as_deref().and_then(identity);
        anyhow::ensure!(
            dead_letter.is_none() || dead_letter != identity(input),
            "{} is the --dead-letter file too: it would never end",
            input.display()
        );
        Ok(())
    }

    pub(crate) fn options(&self, name: &'static str, batch_bytes: usize) -> Options {
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        Options {
            name,
            jobs: self.jobs.map_or(n_cores, usize::from),
            line_bytes_max: self.line_bytes_max(),
            batch_bytes,
            lines_bytes_max: LINES_BYTES_MAX,
            commit_bytes: COMMIT_BYTES,
            // Programs that keep what they have learned say after how much.
            checkpoint_bytes: usize::MAX,
            strict: self.strict,
            quiet: self.quiet,
            metrics: None,
            mapping: None,
            work: EVENTS,
            writes_output: true,
        }
    }

    fn line_bytes_max(&self) -> usize {
        self.line_bytes_max.unwrap_or(LINE_BYTES_MAX)
    }

    /// For a program that is not the first of its pipe: lines were checked against a limit that it
    /// does not know, and have grown since.
    pub(crate) fn after_others(mut self) -> Self {
        self.line_bytes_max.get_or_insert(CHECKED_LINE_BYTES_MAX);
        self
    }

    /// Reads standard input, as every program of a pipe does that is not its first.
    pub(crate) fn stdin(&self, shutdown: &Shutdown) -> anyhow::Result<Box<dyn Source>> {
        files::open(
            vec![files::STDIN.to_owned()],
            false,
            Positions::default(),
            shutdown,
            self.line_bytes_max(),
        )
    }
}

/// Events of which nobody knows how many there are.
pub(crate) const EVENTS: Work = Work::Things {
    what: "events",
    n_things: None,
};

/// What tells a file from all others, whatever it is called; none if it is no file.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    metadata.is_file().then(|| (metadata.dev(), metadata.ino()))
}

/// Bytes of lines that the pipe programs take through their stages together.
pub(crate) const PIPE_BATCH_BYTES: usize = 1 << 20;

/// Bytes of lines that are on their way through a program at the most, whatever it has to keep to.
const LINES_BYTES_MAX: usize = 128 << 20;

/// Bytes of lines that the store gathers for one write at the most, if they come faster than it writes:
/// the more there are, the less is merged later.
const COMMIT_BYTES: usize = 32 << 20;

/// Tells what became of the input, and how the program has ended.
pub(crate) fn conclude(options: &Options, outcome: &Outcome) -> anyhow::Result<Ended> {
    if outcome.is_closed {
        return Ok(Ended::Done);
    }
    let Outcome {
        n_in,
        n_out,
        n_rejected,
        n_filtered,
        ..
    } = outcome;
    if !options.quiet {
        let mut summary =
            format!("in {n_in} = out {n_out} + rejected {n_rejected} + filtered {n_filtered}");
        for (i, (code, n)) in outcome.rejected_by_code.iter().enumerate() {
            let before = if i == 0 { " (rejected: " } else { ", " };
            write!(summary, "{before}{} {n}", code.name())?;
        }
        if *n_rejected > 0 {
            summary.push(')');
        }
        let by_code = outcome.rejected_by_code.iter();
        let by_code = by_code.map(|(code, n)| (code.name().to_owned(), (*n).into()));
        let mut fields = vec![
            ("in", (*n_in).into()),
            ("out", (*n_out).into()),
            ("rejected", (*n_rejected).into()),
            ("filtered", (*n_filtered).into()),
        ];
        if *n_rejected > 0 {
            fields.push(("rejected_by", Value::Object(by_code.collect())));
        }
        report::tell(Level::Info, options.name, &summary, &fields);
    }
    anyhow::ensure!(
        *n_in == n_out + n_rejected + n_filtered,
        "the counts do not add up: this is a bug in {}, please report it",
        options.name
    );
    anyhow::ensure!(
        !outcome.is_stopped,
        "stopped at the first rejected line, as --strict asks"
    );
    Ok(match outcome {
        Outcome {
            n_failures: 1.., ..
        } => Ended::Failed,
        Outcome {
            n_rejected: 1.., ..
        } => Ended::Partly,
        _ => Ended::Done,
    })
}

pub(crate) fn parse_score(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(score) if (0.0..=1.0).contains(&score) => Ok(score),
        _ => Err("expected a number in 0..=1".to_owned()),
    }
}

fn parse_line_bytes(text: &str) -> Result<usize, String> {
    // Offsets in a block take 31 bits; a line may need as much again for its unescaped text.
    const BYTES_MAX: usize = 512 << 20;
    match text.parse() {
        Ok(n_bytes @ 1..=BYTES_MAX) => Ok(n_bytes),
        _ => Err(format!("expected 1..={BYTES_MAX}")),
    }
}
