//! `sg-store feedback`: what an analyst has found of events is kept, and corrects the baselines of
//! their users.

mod baselines;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;

use super::Ended;
use super::enrich::EnrichmentArgs;
use super::store::{DatabaseArgs, NAME};
use crate::query::{self, Found, Parts};
use crate::record::feedback::{Feedback, Judgement, parse_name, parse_note};
use crate::report::{say, warn};
use crate::store::{Access, Order, Store, Tuning};
use crate::time::now_ms;
use baselines::Baselines;

#[derive(Args, Debug)]
pub(super) struct FeedbackArgs {
    /// Ids of the events
    #[arg(value_name = "EVENT_ID", required = true)]
    event_ids: Vec<String>,

    #[command(flatten)]
    database: DatabaseArgs,

    /// What was found of them
    #[arg(long, value_enum)]
    verdict: Judgement,

    /// Why, in at most 4096 bytes
    #[arg(long, value_name = "TEXT", value_parser = parse_note)]
    note: Option<String>,

    /// Who says so [default: the login name]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    by: Option<String>,

    /// Correct the baselines in this folder of sg-score, instead of those that sg-run keeps in
    /// the database
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    #[command(flatten)]
    enrichment: EnrichmentArgs,
}

pub(super) const EXAMPLES: &str = "Examples:
  sg-store feedback evt_1738247260748_0011757 --db db --verdict benign --note 'new laptop'
  sg-store feedback evt_41 evt_42 evt_43 --db db --verdict malicious --by alice
  sg-store feedback evt_41 --db db --verdict benign --state state
  sg-query feedback --db db --since 7d

Exit codes:
  0  done
  1  there is no event with one of the ids; the others are done
  2  trouble: wrong usage, a database or state folder in use or damaged, a failure
";

/// What events take in memory that are judged at once: their lines, and so much more for each. Whoever writes events may
/// give all of them one id.
const PIECE_BYTES: usize = 64 << 20;
const EVENT_BYTES: usize = 1 << 10;
/// Who has given a verdict if neither they nor the system say.
const NOBODY: &str = "unknown";

pub(super) fn run(args: &FeedbackArgs) -> anyhow::Result<Ended> {
    let store = Store::open(&args.database.db, Access::WriteExisting, &Tuning::default())?;
    let enrichment = args.enrichment.open()?;
    let mut n_verdicts = 0;
    let n_missing = each_piece(&store, &args.event_ids, |mut events| {
        for event in &mut events {
            // Baselines have learned what was looked up.
            enrichment.fill(&mut event.block);
        }
        n_verdicts += events.len();
        args.judge(&store, &events)
    })?;
    if n_verdicts > 0 {
        let events = if n_verdicts == 1 { "event" } else { "events" };
        say(NAME, &format!("kept the verdict on {n_verdicts} {events}"));
    }
    Ok(if n_missing > 0 {
        Ended::Partly
    } else {
        Ended::Done
    })
}

impl FeedbackArgs {
    fn judge(&self, store: &Store, events: &[Found]) -> anyhow::Result<()> {
        let users: BTreeSet<&str> = events.iter().map(user_of).collect();
        let mut baselines = match &self.state {
            None => Baselines::of_database(store, &users)?,
            Some(path) => Baselines::of_folder(path, &users)?,
        };
        let mut given = Vec::new();
        for event in events {
            let feedback = self.feedback(event, event.feedback.as_ref());
            let feedback = baselines.correct(event, feedback)?;
            given.push((event.key.clone(), feedback));
        }
        baselines.say_missing(&users);
        // Baselines in a folder first: should the verdict not be kept, it can be given again.
        let of_database = baselines.save()?;
        store.put_feedback(&given, &of_database)
    }

    fn feedback(&self, event: &Found, before: Option<&Feedback>) -> Feedback {
        let view = event.block.view(&event.block.events[0]);
        let (mut corrected, mut otherwise) = before.map_or_else(Default::default, |before| {
            (before.corrected.clone(), before.corrected_otherwise.clone())
        });
        if before.is_some_and(|before| before.verdict != self.verdict) {
            std::mem::swap(&mut corrected, &mut otherwise);
        }
        let by = self.by.clone().or_else(login_name);
        Feedback {
            event_id: view.event_id.to_owned(),
            user: view.user.to_owned(),
            timestamp: view.timestamp_ms,
            verdict: self.verdict,
            note: self.note.clone(),
            by: by.unwrap_or_else(|| NOBODY.to_owned()),
            given: now_ms(),
            corrected,
            corrected_otherwise: otherwise,
        }
    }
}

fn login_name() -> Option<String> {
    let names = ["USER", "LOGNAME"].into_iter();
    let mut names = names.filter_map(|name| std::env::var(name).ok());
    names.find_map(|name| parse_name(&name).ok())
}

/// Calls `judge` with the events with these ids, the oldest first, in pieces that fit into memory; how many ids there is
/// no event of.
fn each_piece(
    store: &Store,
    event_ids: &[String],
    mut judge: impl FnMut(Vec<Found>) -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    let view = store.view();
    let parts = Parts::of(std::slice::from_ref(&view));
    let mut events = BTreeMap::new();
    let (mut n_missing, mut n_bytes) = (0, 0);
    for event_id in event_ids {
        let mut is_missing = true;
        query::events_of_id(parts, event_id, Order::OldestFirst, |event| {
            is_missing = false;
            n_bytes += event.block.lines.len() + EVENT_BYTES;
            events.insert(event.key.clone(), event);
            if n_bytes > PIECE_BYTES {
                n_bytes = 0;
                judge(std::mem::take(&mut events).into_values().collect())?;
            }
            Ok(true)
        })?;
        if is_missing {
            n_missing += 1;
            warn(NAME, &format!("there is no event {event_id}"));
        }
    }
    if !events.is_empty() {
        judge(events.into_values().collect())?;
    }
    Ok(n_missing)
}

fn user_of(event: &Found) -> &str {
    event.block.view(&event.block.events[0]).user
}
