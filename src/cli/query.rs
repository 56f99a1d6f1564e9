//! `sg-query`: questions to a database.

use std::path::PathBuf;

use anyhow::{anyhow, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::Ended;
use super::output::{
    FeedbackWriter, Format, FoundWriter, print_incidents, print_json, print_pairs, print_profile,
};
use crate::query::{self, FeedbackFilter, Filter, Wanted};
use crate::record::anomaly::Severity;
use crate::report::say;
use crate::store::{Access, Order, Store, Tuning};
use crate::time::{format_time, now_ms, parse_time};

pub const NAME: &str = "sg-query";

/// Ask a database about events, anomalies and users
///
/// Answers are tables on a terminal and NDJSON in a pipe; --format decides otherwise.
#[derive(Parser, Debug)]
#[command(name = NAME, version, after_help = EXAMPLES, after_long_help = EXAMPLES)]
pub struct QueryArgs {
    /// The database folder
    #[arg(
        long,
        value_name = "DIR",
        env = "SG_DB",
        global = true,
        default_value = "db"
    )]
    db: PathBuf,

    /// Form of the answer [default: table on a terminal, else ndjson]
    #[arg(short, long, value_enum, global = true)]
    format: Option<Format>,

    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand, Debug)]
enum Question {
    /// Events, the newest first
    Events(FilterArgs),
    /// One event by its id, with its anomaly and the verdict on it
    Event {
        /// The event's id
        #[arg(value_name = "ID")]
        event_id: String,
    },
    /// Events that are out of character, the newest first
    Anomalies {
        #[command(flatten)]
        filter: FilterArgs,
        /// What comes first
        #[arg(long, value_enum, default_value_t = Sort::Time)]
        sort: Sort,
    },
    /// What anomalies were folded into, the newest first
    Incidents(WhichArgs),
    /// What is usual for a user: hours, addresses, places, types
    User {
        /// The user's name
        #[arg(value_name = "NAME")]
        user: String,
    },
    /// What analysts have found of events, that of the newest event first
    ///
    /// --since and --until say when it was found, not when the event was.
    Feedback {
        #[command(flatten)]
        range: RangeArgs,
        /// At most this many [default: 100]
        #[arg(short = 'n', long, value_name = "N", default_value_t = LIMIT, hide_default_value = true)]
        limit: usize,
    },
    /// How much there is of what
    Stats,
    /// Everything, the oldest first, as NDJSON or CSV
    Export {
        #[command(flatten)]
        filter: FilterArgs,
        /// What to export
        #[arg(long, value_enum, default_value_t = What::Events)]
        what: What,
    },
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

/// When, and of whom.
#[derive(Args, Debug)]
struct RangeArgs {
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
struct WhichArgs {
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

    /// At most this many [default: 100; export: all]
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<usize>,
}

/// One question reads few blocks twice.
const CACHE_BYTES: usize = 32 << 20;
/// Types that the table of `stats` names.
const TYPES_SHOWN_MAX: usize = 20;
/// Items in an answer for a person.
const LIMIT: usize = 100;
/// Said where an answer has no cursor to go on with.
const MORE: &str = "there is more: use a greater --limit";

const EXAMPLES: &str = "Examples:
  sg-query anomalies --db db --sort score --limit 10
  sg-query anomalies --db db --since 24h --severity high | jq -r '[.user, .reasons[0]] | @tsv'
  sg-query incidents --db db --since 7d
  sg-query events --db db --user alice --type LOGIN_FAILED
  sg-query user alice --db db
  sg-query feedback --db db --since 7d
  sg-query export --db db --what anomalies --format csv > anomalies.csv

Exit codes:
  0  done
  1  nothing was found
  2  trouble: wrong usage, a database in use or damaged, a failure
";

/// Runs the program.
///
/// # Errors
/// What ends it early.
pub fn run(args: &QueryArgs) -> anyhow::Result<Ended> {
    let format = args.format.unwrap_or_else(Format::automatic);
    if matches!(args.question, Question::User { .. } | Question::Stats) {
        ensure!(
            format != Format::Csv,
            "there is no CSV of this: use --format table or ndjson"
        );
    }
    let tuning = Tuning {
        cache_bytes: CACHE_BYTES,
        ..Tuning::default()
    };
    let store = Store::open(&args.db, Access::Read, &tuning)?;
    match &args.question {
        Question::Events(filter) => list(&store, Wanted::Events, &filter.filter(LIMIT)?, format),
        Question::Anomalies {
            filter,
            sort: Sort::Time,
        } => list(&store, Wanted::Anomalies, &filter.filter(LIMIT)?, format),
        Question::Anomalies {
            filter,
            sort: Sort::Score,
        } => {
            ensure!(
                filter.cursor.is_none(),
                "--cursor goes with --sort time: use --limit"
            );
            print_all(
                &query::top_anomalies(&store, &filter.filter(LIMIT)?)?,
                format,
                true,
            )
        }
        Question::Incidents(which) => {
            let (found, has_more) = query::incidents(&store, &which.filter(LIMIT)?)?;
            print_incidents(&found, format)?;
            if has_more {
                say(NAME, MORE);
            }
            Ok(found_or_not(found.len() as u64))
        }
        Question::Event { event_id } => {
            let found = query::event(&store, event_id)?;
            let ended = print_all(&found, format, false)?;
            if format == Format::Table {
                let mut writer = FeedbackWriter::new(format)?;
                for feedback in found.iter().filter_map(|found| found.feedback.as_ref()) {
                    writer.write(feedback)?;
                }
                writer.finish()?;
            }
            Ok(ended)
        }
        Question::Feedback { range, limit } => feedback(&store, range, *limit, format),
        Question::User { user } => match query::profile(&store, user)? {
            None => Ok(Ended::Partly),
            Some(profile) if format == Format::Table => {
                print_profile(&profile)?;
                Ok(Ended::Done)
            }
            Some(profile) => {
                print_json(&serde_json::to_string(&profile)?)?;
                Ok(Ended::Done)
            }
        },
        Question::Stats => stats(&store, format),
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
            list(&store, wanted, &filter, format)
        }
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
    fn filter(&self, limit: usize) -> anyhow::Result<Filter> {
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

fn list(store: &Store, wanted: Wanted, filter: &Filter, format: Format) -> anyhow::Result<Ended> {
    let mut writer = FoundWriter::new(format, wanted == Wanted::Anomalies);
    let mut n_found: u64 = 0;
    let more = query::search(store, wanted, filter, |found| {
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
    store: &Store,
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
    let has_more = query::feedback(store, &filter, |feedback| {
        n_found += 1;
        writer.write(feedback)
    })?;
    writer.finish()?;
    if has_more {
        say(NAME, MORE);
    }
    Ok(found_or_not(n_found))
}

fn print_all(found: &[query::Found], format: Format, is_anomalies: bool) -> anyhow::Result<Ended> {
    let mut writer = FoundWriter::new(format, is_anomalies);
    for found in found {
        writer.write(found)?;
    }
    writer.finish()?;
    Ok(found_or_not(found.len() as u64))
}

fn found_or_not(n_found: u64) -> Ended {
    if n_found == 0 {
        Ended::Partly
    } else {
        Ended::Done
    }
}

fn stats(store: &Store, format: Format) -> anyhow::Result<Ended> {
    let counters = store.counters()?;
    let time_of = |key: Option<Vec<u8>>| {
        key.and_then(|key| crate::schema::split_event_key(&key).map(|(ms, _)| format_time(ms)))
    };
    let first = time_of(store.first_event_key()?);
    let last = time_of(store.last_event_key()?);
    let n_users = store.n_users()?;
    let disk_bytes: u64 = store.disk_bytes()?.values().sum();
    if format == Format::Table {
        let mut pairs = vec![
            ("events".to_owned(), counters.events.to_string()),
            (
                "  failed or blocked".to_owned(),
                counters.failures.to_string(),
            ),
            ("users".to_owned(), n_users.to_string()),
            ("first event".to_owned(), first.unwrap_or_default()),
            ("last event".to_owned(), last.unwrap_or_default()),
            (
                "anomalies".to_owned(),
                counters.anomalies.total().to_string(),
            ),
            (
                "  critical".to_owned(),
                counters.anomalies.critical.to_string(),
            ),
            ("  high".to_owned(), counters.anomalies.high.to_string()),
            ("  medium".to_owned(), counters.anomalies.medium.to_string()),
            ("  low".to_owned(), counters.anomalies.low.to_string()),
            ("bytes in files".to_owned(), disk_bytes.to_string()),
        ];
        let mut types: Vec<_> = counters.types_present().into_iter().collect();
        types.sort_by_key(|&(name, n_events)| (std::cmp::Reverse(n_events), name));
        pairs.push(("types".to_owned(), "events".to_owned()));
        let n_shown = types.len().min(TYPES_SHOWN_MAX);
        let (shown, others) = types.split_at(n_shown);
        for (name, n_events) in shown {
            pairs.push((format!("  {name}"), n_events.to_string()));
        }
        let n_others =
            others.iter().map(|(_, n_events)| n_events).sum::<u64>() + counters.other_types;
        if n_others > 0 {
            pairs.push(("  all others".to_owned(), n_others.to_string()));
        }
        print_pairs(&pairs)?;
        return Ok(Ended::Done);
    }
    let stats = serde_json::json!({
        "events": counters.events,
        "failures": counters.failures,
        "users": n_users,
        "first": first,
        "last": last,
        "anomalies": counters.anomalies,
        "types": counters.types_present(),
        "other_types": counters.other_types,
        "disk_bytes": disk_bytes,
    });
    print_json(&stats.to_string())?;
    Ok(Ended::Done)
}
