//! `sg-query tail`: events as they are stored, by whoever stores them.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::Ended;
use super::output::{Format, TailWriter};
use super::query::{NAME, WhichArgs};
use crate::query::{self, Filter, Found, Parts, Seen, Wanted, Watch};
use crate::report::warn;
use crate::shutdown::Shutdown;
use crate::store::Live;

#[derive(Args, Debug)]
pub(super) struct TailArgs {
    #[command(flatten)]
    pub(super) which: WhichArgs,

    /// What to show
    #[arg(long, value_enum, default_value_t = What::Anomalies)]
    what: What,

    /// End after that many have come, those that were there before not counted
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Anomalies,
    Events,
}

/// Those that were stored last are shown first: so many, if nobody says how many.
const LIMIT: usize = 10;
/// How long to wait for something new before looking whether the end is asked for.
const PATIENCE: Duration = Duration::from_millis(200);
/// What several databases have told of and was not shown yet.
const CHANNEL: usize = 4;

/// Said where something may be missing.
const BROKEN: &str =
    "a program that stored events was killed: what it stored last may not be shown";

/// Shows events until somebody asks for the end.
///
/// # Errors
/// If a database cannot be read.
pub(super) fn run(lives: &[Live], args: &TailArgs, format: Format) -> anyhow::Result<Ended> {
    let shutdown = Shutdown::install()?;
    let wanted = match args.what {
        What::Anomalies => Wanted::Anomalies,
        What::Events => Wanted::Events,
    };
    let filter = args.which.filter(LIMIT)?;
    let mut writer = TailWriter::new(format, wanted);
    // Begun before the last ones are looked up, so that nothing is between them.
    let watches: Vec<Watch<'_>> = lives
        .iter()
        .map(|live| Watch::begin(live, wanted, filter.clone()))
        .collect();
    let last = last_ones(lives, wanted, &filter)?;
    let mut shown: HashSet<Vec<u8>> = last.iter().map(|found| found.key.clone()).collect();
    writer.write(&last)?;
    drop(last);
    thread::scope(|scope| {
        let (sender, seen) = sync_channel(CHANNEL);
        for watch in watches {
            let (sender, shutdown) = (sender.clone(), &shutdown);
            scope.spawn(move || watch_until_end(watch, &sender, shutdown));
        }
        drop(sender);
        let written = write_seen(&seen, &mut shown, args.count, &mut writer);
        // Those that watch have nobody to tell any more.
        shutdown.request();
        drop(seen);
        written
    })?;
    Ok(Ended::Done)
}

/// The newest that match, the oldest of them first.
fn last_ones(lives: &[Live], wanted: Wanted, filter: &Filter) -> anyhow::Result<Vec<Found>> {
    Live::ask(lives, |views| {
        let mut last = Vec::new();
        let parts = Parts::of(views);
        if filter.limit == 0 {
            return Ok(last);
        }
        query::search(parts, wanted, filter, |found| {
            last.extend(parts.find(found.key.clone())?);
            Ok(true)
        })?;
        last.reverse();
        Ok(last)
    })
}

fn watch_until_end(
    mut watch: Watch<'_>,
    sender: &SyncSender<anyhow::Result<Seen>>,
    shutdown: &Shutdown,
) {
    while !shutdown.is_requested() {
        let seen = watch.next(PATIENCE);
        let is_news = !matches!(&seen, Ok(seen)
            if seen.found.is_empty() && seen.n_skipped == 0 && !seen.is_broken);
        let has_failed = seen.is_err();
        if is_news && sender.send(seen).is_err() || has_failed {
            return;
        }
    }
}

fn write_seen(
    seen: &Receiver<anyhow::Result<Seen>>,
    shown: &mut HashSet<Vec<u8>>,
    count: Option<u64>,
    writer: &mut TailWriter,
) -> anyhow::Result<()> {
    let mut n_left = count.unwrap_or(u64::MAX);
    while n_left > 0
        && let Ok(seen) = seen.recv()
    {
        let mut seen = seen?;
        // It was among the last ones of before.
        seen.found.retain(|found| !shown.remove(&found.key));
        seen.found.truncate(n_left.try_into().unwrap_or(usize::MAX));
        n_left -= seen.found.len() as u64;
        if seen.is_broken {
            warn(NAME, BROKEN);
        }
        if seen.n_skipped > 0 {
            let text = format!("{} events came too fast to be looked at", seen.n_skipped);
            warn(NAME, &text);
        }
        writer.write(&seen.found)?;
    }
    Ok(())
}
