//! `sg-query`: questions to a database.

pub(super) mod examples;

use std::io::{self, IsTerminal as _};

use anyhow::{anyhow, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::Ended;
use super::databases::{self, DatabaseArgs};
use super::output::{
    FeedbackWriter, Format, FoundWriter, print_incidents, print_json, print_profile, print_stats,
};
use super::serve::{self, KeysCommand, ServeArgs};
use super::similar::{self, SimilarArgs};
use super::tail::{self, TailArgs};
use crate::query::{self, FeedbackFilter, Filter, Parts, Wanted};
use crate::record::anomaly::Severity;
use crate::report::say;
use crate::serve::Databases;
use crate::store::{Live, Order, View};
use crate::time::{now_ms, parse_time};

pub const NAME: &str = "sg-query";

/// Ask a database, or several as one, about events, anomalies and users
///
/// An event that several databases hold is shown and counted once. Answers are tables on a terminal and
/// NDJSON in a pipe; --format decides otherwise.
#[derive(Parser, Debug)]
#[command(name = NAME, version, after_help = EXAMPLES, after_long_help = EXAMPLES)]
pub struct QueryArgs {
    #[command(flatten)]
    databases: DatabaseArgs,

    /// Form of the answer [default: table on a terminal, else ndjson]
    #[arg(short, long, value_enum, global = true)]
    format: Option<Format>,

    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand, Debug)]
enum Question {
    /// Events, the newest first
    #[command(after_help = examples::EVENTS, after_long_help = examples::EVENTS)]
    Events(FilterArgs),
    /// One event by its id, with its anomaly and the verdict on it
    #[command(after_help = examples::EVENT, after_long_help = examples::EVENT)]
    Event {
        /// The event's id
        #[arg(value_name = "ID")]
        event_id: String,
        #[command(flatten)]
        databases: DatabaseArgs,
    },
    /// Events that are out of character, the newest first
    #[command(after_help = examples::ANOMALIES, after_long_help = examples::ANOMALIES)]
    Anomalies {
        #[command(flatten)]
        filter: FilterArgs,
        /// What comes first
        #[arg(long, value_enum, default_value_t = Sort::Time)]
        sort: Sort,
    },
    /// Events that a language model was asked about, the newest first, with what it has said
    #[command(after_help = examples::ANALYSES, after_long_help = examples::ANALYSES)]
    Analyses(FilterArgs),
    /// What anomalies were folded into, the newest first
    #[command(after_help = examples::INCIDENTS, after_long_help = examples::INCIDENTS)]
    Incidents(WhichArgs),
    /// Events that are like one, or like a text: have we seen this before?
    ///
    /// Those that sg-embed, or sg-run --embed, has given an embedding are compared: the same kind of
    /// misbehaviour counts most, then the same person and address. --model says which vectors, if there
    /// are several kinds.
    #[command(after_help = examples::SIMILAR, after_long_help = examples::SIMILAR)]
    Similar(Box<SimilarArgs>),
    /// Events as they are stored, from now on; the last few of before first
    ///
    /// Whoever stores them is asked, one program after the other. It goes on until it is stopped.
    #[command(after_help = examples::TAIL, after_long_help = examples::TAIL)]
    Tail(Box<TailArgs>),
    /// What is usual for a user: hours, addresses, places, types
    #[command(after_help = examples::USER, after_long_help = examples::USER)]
    User {
        /// The user's name
        #[arg(value_name = "NAME")]
        user: String,
        #[command(flatten)]
        databases: DatabaseArgs,
    },
    /// What analysts have found of events, that of the newest event first
    ///
    /// --since and --until say when it was found, not when the event was.
    #[command(after_help = examples::FEEDBACK, after_long_help = examples::FEEDBACK)]
    Feedback {
        #[command(flatten)]
        range: RangeArgs,
        /// At most this many [default: 100]
        #[arg(short = 'n', long, value_name = "N", default_value_t = LIMIT, hide_default_value = true)]
        limit: usize,
    },
    /// How much there is of what
    #[command(after_help = examples::STATS, after_long_help = examples::STATS)]
    Stats(DatabaseArgs),
    /// Everything, the oldest first, as NDJSON or CSV
    #[command(after_help = examples::EXPORT, after_long_help = examples::EXPORT)]
    Export {
        #[command(flatten)]
        filter: FilterArgs,
        /// What to export
        #[arg(long, value_enum, default_value_t = What::Events)]
        what: What,
    },
    /// Answer over HTTP, and show a page
    #[command(after_help = examples::SERVE, after_long_help = examples::SERVE)]
    Serve {
        #[command(flatten)]
        databases: DatabaseArgs,
        #[command(flatten)]
        serve: Box<ServeArgs>,
    },
    /// Who may ask sg-query serve, or sg-run --serve
    #[command(subcommand, after_help = examples::KEYS, after_long_help = examples::KEYS)]
    Keys(KeysCommand),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// The newest
    Time,
    /// The highest score
    Score,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Events,
    Anomalies,
}

/// Where, when, and of whom.
#[derive(Args, Debug)]
pub(super) struct RangeArgs {
    #[command(flatten)]
    databases: DatabaseArgs,

    /// From this time on: 2026-11-24, 2026-11-24T08:00:00Z, ms since 1970, or 24h, 7d ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,

    /// Up to this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,

    /// Of this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

/// Which items are asked for, and from which on.
#[derive(Args, Debug)]
struct FilterArgs {
    #[command(flatten)]
    which: WhichArgs,

    /// Go on where an earlier answer stopped
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,

    /// The oldest first
    #[arg(long)]
    oldest_first: bool,
}

/// Which items are asked for.
#[derive(Args, Debug)]
pub(super) struct WhichArgs {
    #[command(flatten)]
    range: RangeArgs,

    /// Of this type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,

    /// From this address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<std::net::IpAddr>,

    /// With an anomaly score from this on
    #[arg(long, value_name = "SCORE", value_parser = super::parse_score)]
    min_score: Option<f64>,

    /// Of this severity or a higher one
    #[arg(long, value_enum)]
    severity: Option<Severity>,

    /// At most this many [default: 100; similar, tail: 10; export: all]
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<usize>,
}

/// Bytes of blocks kept in memory, of all databases together. One question reads few blocks twice.
const CACHE_BYTES: usize = 32 << 20;
/// The same for many questions.
const SERVER_CACHE_BYTES: usize = 256 << 20;
/// Items in an answer for a person.
const LIMIT: usize = 100;
/// Said where an answer has no cursor to go on with.
const MORE: &str = "there is more: use a greater --limit";

const EXAMPLES: &str = "Examples:
  sg-query anomalies --db db --sort score --limit 10
  sg-query anomalies --db db --since 24h --severity high | jq -r '[.user, .reasons[0]] | @tsv'
  sg-query anomalies --db host1/db --db host2/db --since 24h
  sg-query analyses --db db --since 24h --severity high
  sg-query incidents --db db --since 7d
  sg-query events --db db --user alice --type LOGIN_FAILED
  sg-query similar evt_1738247260748_0011757 --db db
  sg-query similar 'password guessing from 203.0.113.7 country:RO' --db db --since 90d
  sg-query user alice --db db
  sg-query tail --db db --severity high
  sg-query feedback --db db --since 7d
  sg-query serve --db db
  sg-query keys add alice --keys keys && sg-query serve --db db --listen 0.0.0.0:8443 --keys keys \
    --tls-cert cert.pem --tls-key key.pem --host-name siem.example
  sg-query export --db db --what anomalies --format csv > anomalies.csv

Exit codes:
  0  done
  1  nothing was found
  2  trouble: wrong usage, a database missing, in use or damaged, a failure
";

/// Runs the program.
///
/// # Errors
/// What ends it early.
pub fn run(args: &QueryArgs) -> anyhow::Result<Ended> {
    let format = args.format.unwrap_or_else(Format::automatic);
    if matches!(args.question, Question::User { .. } | Question::Stats(_)) {
        ensure!(
            format != Format::Csv,
            "there is no CSV of this: use --format table or ndjson"
        );
    }
    if let Question::Keys(command) = &args.question {
        return serve::run_keys(NAME, command, format);
    }
    let lives = args.open()?;
    match &args.question {
        Question::Tail(args) => return tail::run(&lives, args, format),
        Question::Serve { serve, .. } => return serve::run(NAME, serve, Databases::of(lives)),
        _ => (),
    }
    let views: anyhow::Result<Vec<View<'_>>> = lives.iter().map(Live::view).collect();
    let views = views?;
    let parts = Parts::of(&views);
    match &args.question {
        Question::Events(filter) => list(parts, Wanted::Events, &filter.filter(LIMIT)?, format),
        Question::Anomalies {
            filter,
            sort: Sort::Time,
        } => list(parts, Wanted::Anomalies, &filter.filter(LIMIT)?, format),
        Question::Anomalies {
            filter,
            sort: Sort::Score,
        } => {
            ensure!(
                filter.cursor.is_none(),
                "--cursor goes with --sort time: use --limit"
            );
            let mut writer = FoundWriter::new(format, Wanted::Anomalies);
            let mut n_found = 0;
            query::top_anomalies(parts, &filter.filter(LIMIT)?, |found| {
                n_found += 1;
                writer.write(&found)?;
                Ok(true)
            })?;
            writer.finish()?;
            Ok(found_or_not(n_found))
        }
        Question::Analyses(filter) => {
            ensure!(
                format != Format::Csv,
                "there is no CSV of this: use --format table or ndjson"
            );
            list(parts, Wanted::Analyses, &filter.filter(LIMIT)?, format)
        }
        Question::Incidents(which) => {
            let (found, has_more) = query::incidents(parts, &which.filter(LIMIT)?)?;
            print_incidents(&found, format)?;
            if has_more {
                say(NAME, MORE);
            }
            Ok(found_or_not(found.len() as u64))
        }
        Question::Similar(args) => similar::run(parts, args, format),
        Question::Event { event_id, .. } => event(parts, event_id, format),
        Question::Feedback { range, limit } => feedback(parts, range, *limit, format),
        Question::User { user, .. } => profile(parts, user, format),
        Question::Stats(_) => {
            print_stats(&query::stats(parts)?, format)?;
            Ok(Ended::Done)
        }
        Question::Export { filter, what } => {
            let format = args.format.unwrap_or(Format::Ndjson);
            ensure!(format != Format::Table, "export writes ndjson or csv");
            let filter = Filter {
                order: Order::OldestFirst,
                ..filter.filter(usize::MAX)?
            };
            let wanted = match what {
                What::Events => Wanted::Events,
                What::Anomalies => Wanted::Anomalies,
            };
            list(parts, wanted, &filter, format)
        }
        Question::Tail(_) | Question::Serve { .. } | Question::Keys(_) => {
            unreachable!("these are no questions at one moment")
        }
    }
}

impl QueryArgs {
    /// The databases that are asked, each once.
    fn open(&self) -> anyhow::Result<Vec<Live>> {
        let cache_bytes = match self.question {
            Question::Serve { .. } => SERVER_CACHE_BYTES,
            _ => CACHE_BYTES,
        };
        let named = [Some(&self.databases), self.question.databases()];
        databases::open(NAME, named.into_iter().flatten(), cache_bytes)
    }
}

impl Question {
    fn databases(&self) -> Option<&DatabaseArgs> {
        Some(match self {
            Self::Events(filter)
            | Self::Analyses(filter)
            | Self::Anomalies { filter, .. }
            | Self::Export { filter, .. } => &filter.which.range.databases,
            Self::Incidents(which) => &which.range.databases,
            Self::Similar(args) => &args.which.range.databases,
            Self::Tail(args) => &args.which.range.databases,
            Self::Feedback { range, .. } => &range.databases,
            Self::Event { databases, .. }
            | Self::User { databases, .. }
            | Self::Serve { databases, .. }
            | Self::Stats(databases) => databases,
            Self::Keys(_) => return None,
        })
    }
}

impl RangeArgs {
    /// From and up to when, in ms.
    fn times_ms(&self) -> anyhow::Result<(i64, i64)> {
        let now_ms = now_ms();
        let time = |option: &str, text: &Option<String>, otherwise: i64| match text {
            None => Ok(otherwise),
            Some(text) => {
                parse_time(text, now_ms).map_err(|error| anyhow!("{option} \"{text}\": {error}"))
            }
        };
        let all = Filter::default();
        Ok((
            time("--since", &self.since, all.since_ms)?,
            time("--until", &self.until, all.until_ms)?,
        ))
    }
}

impl FilterArgs {
    fn filter(&self, limit: usize) -> anyhow::Result<Filter> {
        Ok(Filter {
            order: if self.oldest_first {
                Order::OldestFirst
            } else {
                Order::NewestFirst
            },
            after: self
                .cursor
                .as_deref()
                .map(query::parse_cursor)
                .transpose()?,
            ..self.which.filter(limit)?
        })
    }
}

impl WhichArgs {
    /// The newest first.
    pub(super) fn filter(&self, limit: usize) -> anyhow::Result<Filter> {
        let (since_ms, until_ms) = self.range.times_ms()?;
        Ok(Filter {
            since_ms,
            until_ms,
            user: self.range.user.clone(),
            kind: self.kind.clone(),
            source_ip: self.ip.map(|ip| ip.to_string()),
            min_score: self.min_score,
            severity: self.severity,
            order: Order::NewestFirst,
            after: None,
            limit: self.limit.unwrap_or(limit),
        })
    }
}

fn list(
    parts: Parts<'_>,
    wanted: Wanted,
    filter: &Filter,
    format: Format,
) -> anyhow::Result<Ended> {
    let mut writer = FoundWriter::new(format, wanted);
    let mut n_found: u64 = 0;
    let more = query::search(parts, wanted, filter, |found| {
        n_found += 1;
        writer.write(found)?;
        Ok(true)
    })?;
    writer.finish()?;
    if let Some(key) = more {
        let text = format!("there is more: go on with --cursor {}", query::cursor(&key));
        say(NAME, &text);
    }
    Ok(found_or_not(n_found))
}

fn feedback(
    parts: Parts<'_>,
    range: &RangeArgs,
    limit: usize,
    format: Format,
) -> anyhow::Result<Ended> {
    let (since_ms, until_ms) = range.times_ms()?;
    let filter = FeedbackFilter {
        since_ms,
        until_ms,
        user: range.user.clone(),
        limit,
    };
    let mut writer = FeedbackWriter::new(format)?;
    let mut n_found = 0;
    let has_more = query::feedback(parts, &filter, |feedback| {
        n_found += 1;
        writer.write(feedback)
    })?;
    writer.finish()?;
    if has_more {
        say(NAME, MORE);
    }
    Ok(found_or_not(n_found))
}

/// One event, with its anomaly and the verdict on it.
fn event(parts: Parts<'_>, event_id: &str, format: Format) -> anyhow::Result<Ended> {
    let mut writer = FoundWriter::new(format, Wanted::Events);
    let mut n_found = 0;
    let mut verdicts = Vec::new();
    query::events_of_id(parts, event_id, Order::OldestFirst, |found| {
        n_found += 1;
        writer.write(&found)?;
        verdicts.extend(found.feedback);
        Ok(true)
    })?;
    writer.finish()?;
    if n_found == 0 {
        tell_of_nothing(&format!("there is no event {event_id}"));
        return Ok(Ended::Partly);
    }
    if format == Format::Table {
        let mut writer = FeedbackWriter::new(format)?;
        for feedback in &verdicts {
            writer.write(feedback)?;
        }
        writer.finish()?;
    }
    Ok(Ended::Done)
}

/// What is usual for a user.
fn profile(parts: Parts<'_>, user: &str, format: Format) -> anyhow::Result<Ended> {
    let Some(profile) = query::profile(parts, user)? else {
        tell_of_nothing(&format!("there is no event of user {user}"));
        return Ok(Ended::Partly);
    };
    if format == Format::Table {
        print_profile(&profile)?;
    } else {
        print_json(&serde_json::to_string(&profile)?)?;
    }
    Ok(Ended::Done)
}

/// A person has to be told; a program has the exit code.
fn tell_of_nothing(text: &str) {
    if io::stderr().is_terminal() {
        say(NAME, text);
    }
}

fn found_or_not(n_found: u64) -> Ended {
    if n_found == 0 {
        tell_of_nothing("nothing found");
        Ended::Partly
    } else {
        Ended::Done
    }
}
