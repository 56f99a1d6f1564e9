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
/// Bytes of entries or values in one answer, if there are several.
const ENTRIES_BYTES_MAX: usize = 256 << 10;
/// Entries or values in one answer.
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
            let mut values = Vec::new();
            let mut n_bytes = 0;
            // Whoever wants the rest asks again: one question can name half a million keys.
            for (number, key) in keys.iter().take(ENTRIES_MAX as usize) {
                if n_bytes >= ENTRIES_BYTES_MAX {
                    break;
                }
                let family = family(*number)?;
                let value = if asker.may_see(family, key) {
                    view.value(family, key)?
                } else {
                    None
                };
                n_bytes += value.as_ref().map_or(0, Vec::len);
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::store::remote::{Borrowed, Remote};
    use crate::store::view::Source;
    use crate::store::{Access, Store, Tuning};

    /// Bytes of each value.
    const VALUE_BYTES: usize = 100_000;

    fn stored(folder: &Path, n_values: usize) -> (Arc<Store>, Vec<Vec<u8>>) {
        let store = Store::open(folder, Access::Write, &Tuning::default()).expect("it opens");
        let keys: Vec<Vec<u8>> = (0..n_values).map(|i| format!("{i:08}").into()).collect();
        for (i, key) in keys.iter().enumerate() {
            store.put(schema::EVENTS, key, &vec![i as u8; VALUE_BYTES]);
        }
        (Arc::new(store), keys)
    }

    /// A question of 1 MiB could name half a million keys, each of a value of many MiB.
    #[test]
    fn an_answer_holds_no_more_values_than_have_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, keys) = stored(folder.path(), 1);
        let view = store.view();
        let n_values = |key: &[u8], n_keys: usize| {
            let family = crate::store::remote::family_number(schema::EVENTS);
            let ask = Ask::Values(vec![(family, serde_bytes::Bytes::new(key)); n_keys]);
            match answer_of(&view, &ask, Asker::Guest).expect("it is answered") {
                Answer::Values(values) => values.len(),
                answer => panic!("{answer:?}"),
            }
        };
        assert_eq!(n_values(&keys[0], 2), 2);
        assert_eq!(n_values(&keys[0], 300), 3);
        assert_eq!(n_values(b"none", 300_000), ENTRIES_MAX as usize);
    }

    #[test]
    fn who_asks_for_more_values_than_have_room_gets_them_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, mut keys) = stored(folder.path(), 20);
        keys.insert(10, b"none".to_vec());
        let (near, mut far) = UnixStream::pair().expect("a pair");
        let live = Live::of(store, "test");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let control = Control::default();
                serve(
                    &live,
                    &mut far,
                    WriterInfo::default(),
                    &control,
                    Asker::Neighbour,
                );
            });
            let mut remote = Remote::open(Box::new(near), "db".to_owned()).expect("it answers");
            assert!(matches!(remote.ask(&Ask::Look), Ok(Answer::Looking { .. })));
            let idle = Mutex::default();
            let view = View {
                path: folder.path(),
                source: Source::Remote(Borrowed::new(remote, &idle)),
                as_of_ms: 0,
                writer: None,
            };
            let named: Vec<_> = keys.iter().map(|key| (schema::EVENTS, &key[..])).collect();
            let values = view.values(&named).expect("they can be read");
            let expected = keys
                .iter()
                .map(|key| live.view().ok()?.value(schema::EVENTS, key).ok()?);
            assert!(values.iter().cloned().eq(expected));
            assert_eq!(values.iter().flatten().count(), 20);
            assert!(view.values(&[]).expect("it is nothing").is_empty());
            drop(view);
            idle.lock().expect("it is free").clear();
        });
    }
}
