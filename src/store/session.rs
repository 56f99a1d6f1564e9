//! One connection of a program that asks about a database, from the side that has it open.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_bytes::ByteBuf;

use super::feed::News;
use super::live::{Follow, Live};
use super::protocol::{ASK_BYTES_MAX, Answer, Ask, PROTOCOL, Wire, WriterInfo};
use super::view::{Order, View};
use crate::schema;

/// Who looks at the database and says nothing for so long is given up: what it sees cannot be cleared away
/// meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of entries in one answer, if there are several.
const ENTRIES_BYTES_MAX: usize = 256 << 10;
/// Entries in one answer.
const ENTRIES_MAX: u32 = 4_096;
/// How long a question for news waits.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// What the two sides of the program know of a session.
#[derive(Default)]
pub(super) struct Control {
    /// It is being asked something.
    pub(super) is_looking: AtomicBool,
    /// No new question is to be begun.
    pub(super) is_ending: AtomicBool,
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// Somebody who may read the database's files.
    Neighbour,
    /// Somebody from another machine, who is told what questions need.
    Guest,
}

/// What a guest is told of what is kept by name: these names, and what begins like those.
const NAMES: [&str; 5] = [
    schema::META_COUNTERS,
    schema::META_STRETCHES,
    schema::META_RAISED,
    schema::META_DETECTOR,
    schema::META_VECTORS,
];
const PREFIXES: [&str; 5] = [
    "position:kafka:",
    schema::META_STRETCH_PREFIX,
    schema::META_RESTORING_PREFIX,
    schema::META_FEEDBACK_PREFIX,
    schema::META_VECTORS_PREFIX,
];

impl Asker {
    /// Whether it may see a key.
    fn may_see(self, family: &str, key: &[u8]) -> bool {
        self == Self::Neighbour
            || family != schema::META
            || NAMES.iter().any(|name| key == name.as_bytes())
            || PREFIXES
                .iter()
                .any(|prefix| key.starts_with(prefix.as_bytes()))
    }
}

/// Answers until whoever asks has gone, or is to go.
pub(super) fn serve(
    live: &Live,
    wire: &mut dyn Wire,
    writer: WriterInfo,
    control: &Control,
    asker: Asker,
) {
    let hello = Answer::Hello {
        protocol: PROTOCOL,
        schema: schema::SCHEMA_VERSION,
        writer,
        epoch: live.epoch(),
    };
    let mut view = None;
    let mut follow = None;
    let mut frame = Vec::new();
    let mut answer = hello;
    loop {
        let Ok(bytes) = postcard::to_extend(&answer, std::mem::take(&mut frame)) else {
            return;
        };
        frame = bytes;
        let is_over = matches!(answer, Answer::Ending);
        if wire.send(&frame).is_err() || is_over {
            return;
        }
        let patience = view.as_ref().map(|_| PATIENCE);
        frame.clear();
        let received =
            (wire.set_patience(patience)).and_then(|()| wire.receive(&mut frame, ASK_BYTES_MAX));
        let Ok(true) = received else {
            return;
        };
        let Ok(ask) = postcard::from_bytes::<Ask<'_>>(&frame) else {
            return;
        };
        answer = match ask {
            Ask::Look => match look(live, &mut view, control) {
                Ok(answer) => answer,
                Err(error) => Answer::Failed(format!("{error:#}")),
            },
            Ask::Checkpoint if asker == Asker::Neighbour => match live.lend_checkpoint() {
                Ok(()) => Answer::Done,
                Err(error) => Answer::Failed(format!("{error:#}")),
            },
            Ask::Rest => {
                view = None;
                control.is_looking.store(false, Ordering::SeqCst);
                Answer::Done
            }
            Ask::News {
                after,
                only_anomalies,
                wait_ms,
            } => {
                let wait = Duration::from_millis(wait_ms.into()).min(WAIT_MAX);
                let news = live.news(after, only_anomalies, wait);
                // Others write: their numbers are not those that are asked with.
                let news = news.unwrap_or_else(|| {
                    let follow = follow.get_or_insert_with(|| live.follow(only_anomalies));
                    next_news(follow, wait)
                });
                Answer::News(news)
            }
            ask => match &view {
                None => return,
                Some(view) => answer_of(view, &ask, asker)
                    .unwrap_or_else(|error| Answer::Failed(format!("{error:#}"))),
            },
        };
        frame.clear();
    }
}

/// What others have stored, also if nobody writes for a while.
fn next_news(follow: &mut Follow<'_>, wait: Duration) -> News {
    let start = Instant::now();
    loop {
        let left = wait.saturating_sub(start.elapsed());
        let news = follow.next(left);
        if !news.keys.is_empty() || news.n_skipped > 0 || left.is_zero() {
            return news;
        }
    }
}

fn look<'a>(
    live: &'a Live,
    view: &mut Option<View<'a>>,
    control: &Control,
) -> anyhow::Result<Answer> {
    // The one before is let go first.
    *view = None;
    control.is_looking.store(true, Ordering::SeqCst);
    if control.is_ending.load(Ordering::SeqCst) {
        return Ok(Answer::Ending);
    }
    let looking = live.view()?;
    let as_of_ms = looking.as_of_ms();
    *view = Some(looking);
    Ok(Answer::Looking { as_of_ms })
}

fn answer_of(view: &View<'_>, ask: &Ask<'_>, asker: Asker) -> anyhow::Result<Answer> {
    match ask {
        Ask::Values(keys) => {
            let mut values = Vec::with_capacity(keys.len());
            for (number, key) in keys {
                let family = family(*number)?;
                let value = if asker.may_see(family, key) {
                    view.value(family, key)?
                } else {
                    None
                };
                values.push(value.map(ByteBuf::from));
            }
            Ok(Answer::Values(values))
        }
        Ask::Walk {
            family: number,
            from,
            is_newest_first,
            is_after,
            n_max,
        } => {
            let order = if *is_newest_first {
                Order::NewestFirst
            } else {
                Order::OldestFirst
            };
            let family = family(*number)?;
            let mut walk = view.walk(family, from, order);
            let mut entries = Vec::new();
            let mut n_bytes = 0;
            let mut has_ended = false;
            while entries.len() < (*n_max).clamp(1, ENTRIES_MAX) as usize
                && n_bytes < ENTRIES_BYTES_MAX
            {
                let Some((key, value)) = walk.next_entry()? else {
                    has_ended = true;
                    break;
                };
                if *is_after && *key == ***from || !asker.may_see(family, &key) {
                    continue;
                }
                n_bytes += key.len() + value.len();
                entries.push((ByteBuf::from(key), ByteBuf::from(value)));
            }
            Ok(Answer::Entries { entries, has_ended })
        }
        Ask::Users { after, n_max } => {
            let mut walk = view.walk_users();
            if let Some(after) = after {
                walk.skip_to_after(*after);
            }
            let mut users = Vec::new();
            while users.len() < (*n_max).min(ENTRIES_MAX) as usize
                && let Some(user) = walk.next_user()?
            {
                users.push(user);
            }
            Ok(Answer::Users(users))
        }
        Ask::DiskBytes => {
            let sizes = view.disk_bytes()?;
            let of = |family: &&str| sizes.get(*family).copied().unwrap_or(0);
            Ok(Answer::DiskBytes(schema::FAMILIES.iter().map(of).collect()))
        }
        Ask::Look | Ask::Rest | Ask::News { .. } | Ask::Checkpoint => {
            anyhow::bail!("that is no question")
        }
    }
}

fn family(number: u8) -> anyhow::Result<&'static str> {
    let name = schema::FAMILIES.get(usize::from(number)).copied();
    name.ok_or_else(|| anyhow::anyhow!("there is no such family"))
}
