//! What has just been stored, for those who watch: keys of events, as they were committed. The last of
//! them are remembered for whoever comes a moment late; who is later than that is told how many there were.
//! A program that ends leaves them in a file, so that who was behind, or has not even noticed it, still
//! learns of them; the next program goes on with its numbers. Without that file, since a program was killed,
//! numbers begin anew, under another epoch.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::schema;

/// Bytes of keys that are remembered of all events, and of anomalies.
const EVENTS_BYTES_MAX: usize = 4 << 20;
const ANOMALIES_BYTES_MAX: usize = 1 << 20;
/// Events of one answer.
const NEWS_MAX: usize = 1_000;
/// No program stores so many: a higher number is a damaged one, and above it there is room to count on.
const NUMBER_MAX: u64 = u64::MAX >> 1;
/// What a program that ends leaves in the database's folder.
const FILE: &str = "streamguard.news";

/// What was stored lately.
#[derive(Default)]
pub(super) struct Feed {
    state: Mutex<Stored>,
    more: Condvar,
}

/// What was stored lately, as it is left.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Stored {
    /// Whose numbers these are.
    pub(super) epoch: u64,
    events: Lane,
    anomalies: Lane,
    #[serde(skip)]
    is_over: bool,
}

/// Keys of one kind, in the order of commits.
#[derive(Default, Serialize, Deserialize)]
struct Lane {
    chunks: VecDeque<Chunk>,
    n_bytes: usize,
    /// The number of the last one.
    last: u64,
}

/// Keys of one commit, or the last of them.
#[derive(Default, Serialize, Deserialize)]
struct Chunk {
    /// The number of the first one.
    first: u64,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    /// Where each key ends, with its severity.
    keys: Vec<(u32, u8)>,
}

/// What came after a number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Keys of events, with what [`schema::severity_byte`] gives, in the order of commits.
    pub keys: Vec<(ByteBuf, u8)>,
    /// How many more there were before them: too many to be remembered.
    pub n_skipped: u64,
    /// The number to ask with next.
    pub last: u64,
    /// No more come of this program.
    pub is_over: bool,
    /// A program was killed before it had told all: nobody knows what else it has stored.
    pub is_broken: bool,
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, Stored> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These were stored, and can be read.
    pub(super) fn add<'a>(&self, keys: impl DoubleEndedIterator<Item = (&'a [u8], u8)> + Clone) {
        let no_anomaly = schema::severity_byte(None);
        let anomalies = keys.clone().filter(|(_, severity)| *severity != no_anomaly);
        // Made without the lock: who watches does not hold up the writer.
        let anomalies = Chunk::of_last(anomalies, ANOMALIES_BYTES_MAX);
        let events = Chunk::of_last(keys, EVENTS_BYTES_MAX);
        let mut state = self.lock();
        state.events.add(events, EVENTS_BYTES_MAX);
        state.anomalies.add(anomalies, ANOMALIES_BYTES_MAX);
        drop(state);
        self.more.notify_all();
    }

    /// Nothing is stored any more.
    pub(super) fn end(&self) {
        self.lock().is_over = true;
        self.more.notify_all();
    }

    /// What came after that number, if something does in time; after none, the number of the last one.
    pub(super) fn after(
        &self,
        after: Option<u64>,
        only_anomalies: bool,
        patience: Duration,
    ) -> News {
        let state = self.lock();
        let has_none = |state: &mut Stored| {
            let last = state.lane(only_anomalies).last;
            after.is_some_and(|after| last <= after) && !state.is_over
        };
        let waited = self.more.wait_timeout_while(state, patience, has_none);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let mut news = state.after(after, only_anomalies);
        news.is_over = state.is_over && news.keys.is_empty();
        news
    }

    /// Whose numbers these are.
    pub(super) fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// Goes on with what the program before has left in the folder, which nobody else reads from now on.
    pub(super) fn take_over(&self, folder: &Path) -> anyhow::Result<()> {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let left = Stored::left_in(folder);
        // It is not there while we can be killed.
        let _ = fs::remove_file(folder.join(FILE));
        *self.lock() = left.unwrap_or_else(|| Stored {
            // Never that of nobody.
            epoch: u64::from_le_bytes(random) | 1,
            ..Stored::default()
        });
        Ok(())
    }

    /// Leaves what was stored lately to whoever has not heard of it, and to the next program.
    pub(super) fn leave(&self, folder: &Path) -> anyhow::Result<()> {
        let bytes = postcard::to_stdvec(&*self.lock())?;
        let part = folder.join(format!("{FILE}.part"));
        fs::write(&part, bytes)?;
        Ok(fs::rename(part, folder.join(FILE))?)
    }
}

impl Stored {
    /// What the last program has left in a folder, if it has.
    pub(super) fn left_in(folder: &Path) -> Option<Self> {
        let bytes = fs::read(folder.join(FILE)).ok()?;
        let left: Self = postcard::from_bytes(&bytes).ok()?;
        // What is damaged is as if there were none.
        (left.events.is_sound() && left.anomalies.is_sound()).then_some(left)
    }

    /// What tells one of these from the next.
    pub(super) fn mark_in(folder: &Path) -> Option<(u64, std::time::SystemTime)> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = fs::metadata(folder.join(FILE)).ok()?;
        Some((metadata.ino(), metadata.modified().ok()?))
    }

    fn lane(&self, only_anomalies: bool) -> &Lane {
        if only_anomalies {
            &self.anomalies
        } else {
            &self.events
        }
    }

    /// What came after that number; after none, the number of the last one.
    pub(super) fn after(&self, after: Option<u64>, only_anomalies: bool) -> News {
        let lane = self.lane(only_anomalies);
        match after {
            Some(after) => lane.after(after),
            None => News {
                last: lane.last,
                ..News::default()
            },
        }
    }
}

impl Chunk {
    /// The last keys, as many as have room, and how many there were before them.
    fn of_last<'a>(
        keys: impl DoubleEndedIterator<Item = (&'a [u8], u8)> + Clone,
        n_bytes_max: usize,
    ) -> (Self, u64) {
        let mut n_bytes = 0;
        let last = keys.clone().rev().take_while(|(key, _)| {
            n_bytes += key.len();
            n_bytes <= n_bytes_max
        });
        let n_last = last.count();
        let mut chunk = Self::default();
        let mut n_before = 0;
        let n_keys = keys.clone().count();
        for (i, (key, severity)) in keys.enumerate() {
            if i + n_last < n_keys {
                n_before += 1;
                continue;
            }
            chunk.bytes.extend_from_slice(key);
            chunk.keys.push((chunk.bytes.len() as u32, severity));
        }
        (chunk, n_before)
    }

    /// Whether each key is where it is said to be.
    fn is_sound(&self) -> bool {
        let mut ends = self.keys.iter().map(|(end, _)| *end);
        ends.clone().is_sorted()
            && ends.next_back().map(|end| end as usize) == Some(self.bytes.len())
    }

    fn key(&self, i: usize) -> &[u8] {
        let start = if i == 0 {
            0
        } else {
            self.keys[i - 1].0 as usize
        };
        &self.bytes[start..self.keys[i].0 as usize]
    }
}

impl Lane {
    /// Whether it is one that [`Lane::add`] can have made.
    fn is_sound(&self) -> bool {
        let mut next = 1;
        let mut n_bytes = 0;
        for chunk in &self.chunks {
            if !chunk.is_sound() || chunk.first < next || chunk.first > NUMBER_MAX {
                return false;
            }
            next = chunk.first + chunk.keys.len() as u64;
            n_bytes += chunk.bytes.len();
        }
        (next - 1..=NUMBER_MAX).contains(&self.last) && n_bytes == self.n_bytes
    }

    fn add(&mut self, (mut chunk, n_before): (Chunk, u64), n_bytes_max: usize) {
        self.last += n_before;
        if chunk.keys.is_empty() {
            return;
        }
        chunk.first = self.last + 1;
        self.last += chunk.keys.len() as u64;
        self.n_bytes += chunk.bytes.len();
        self.chunks.push_back(chunk);
        while self.n_bytes > n_bytes_max
            && let Some(oldest) = self.chunks.pop_front()
        {
            self.n_bytes -= oldest.bytes.len();
        }
    }

    fn after(&self, after: u64) -> News {
        let mut news = News {
            last: after,
            ..News::default()
        };
        for chunk in &self.chunks {
            let end = chunk.first + chunk.keys.len() as u64;
            // Whoever asks may name any number.
            if end <= after.saturating_add(1) {
                continue;
            }
            let from = chunk.first.max(news.last + 1);
            news.n_skipped += from - (news.last + 1);
            news.last = from - 1;
            for i in (from - chunk.first) as usize..chunk.keys.len() {
                if news.keys.len() == NEWS_MAX {
                    return news;
                }
                let key = ByteBuf::from(chunk.key(i));
                news.keys.push((key, chunk.keys[i].1));
                news.last += 1;
            }
        }
        if news.keys.is_empty() && self.last > news.last {
            // All of it is forgotten.
            news.n_skipped += self.last - news.last;
            news.last = self.last;
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(feed: &Feed, numbers: std::ops::Range<u32>) {
        let keys: Vec<(Vec<u8>, u8)> = numbers
            .map(|number| {
                (
                    format!("{number:08}").into_bytes(),
                    u8::from(number % 10 == 0),
                )
            })
            .collect();
        feed.add(keys.iter().map(|(key, severity)| (&key[..], *severity)));
    }

    fn texts(news: &News) -> Vec<String> {
        let text = |(key, _): &(ByteBuf, u8)| String::from_utf8(key.to_vec()).expect("it is text");
        news.keys.iter().map(text).collect()
    }

    #[test]
    fn all_are_told_once_and_in_order() {
        let feed = Feed::default();
        assert_eq!(feed.after(None, false, Duration::ZERO).last, 0);
        let mut last = 0;
        let mut told = Vec::new();
        for from in [0, 30, 2_000, 2_500] {
            add(&feed, from..from + 30);
            if from == 2_000 {
                // Two commits at once.
                continue;
            }
            let news = feed.after(Some(last), false, Duration::ZERO);
            assert_eq!(news.n_skipped, 0);
            last = news.last;
            told.extend(texts(&news));
        }
        assert_eq!(told.len(), 120);
        assert!(told.is_sorted());
        let news = feed.after(Some(0), true, Duration::ZERO);
        assert_eq!(texts(&news).len(), 12);
        assert_eq!(feed.after(Some(last), false, Duration::ZERO).keys, []);
    }

    #[test]
    fn who_is_too_late_is_told_how_many_there_were() {
        let feed = Feed::default();
        let n_remembered = (EVENTS_BYTES_MAX / 8) as u32;
        add(&feed, 0..n_remembered + 100);
        add(&feed, n_remembered + 100..n_remembered + 200);
        let mut last = 0;
        let (mut n_told, mut n_skipped) = (0, 0);
        loop {
            let news = feed.after(Some(last), false, Duration::ZERO);
            if news.keys.is_empty() && news.n_skipped == 0 {
                break;
            }
            n_told += news.keys.len() as u64;
            n_skipped += news.n_skipped;
            last = news.last;
        }
        assert_eq!(n_told + n_skipped, u64::from(n_remembered) + 200);
        assert!(n_skipped >= 100 && n_told >= 100);
    }

    /// A file that was damaged made the program panic that read it.
    #[test]
    fn what_is_left_damaged_is_as_if_there_were_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let is_read = |spoil: &dyn Fn(&mut Lane)| {
            let feed = Feed::default();
            add(&feed, 0..30);
            add(&feed, 30..60);
            spoil(&mut feed.lock().events);
            feed.leave(folder.path()).expect("it can be written");
            Stored::left_in(folder.path()).is_some()
        };
        assert!(is_read(&|_| {}));
        assert!(is_read(&|lane| lane.last += 5));
        assert!(!is_read(&|lane| lane.chunks[0].keys[3].0 = 7));
        assert!(!is_read(&|lane| lane.chunks[0].keys[29].0 = 999));
        assert!(!is_read(&|lane| lane.chunks[1].bytes.truncate(10)));
        assert!(!is_read(&|lane| lane.chunks[1].keys.clear()));
        assert!(!is_read(&|lane| lane.chunks[0].first = 0));
        assert!(!is_read(&|lane| lane.chunks[1].first = u64::MAX));
        assert!(!is_read(&|lane| lane.chunks[1].first = 7));
        assert!(!is_read(&|lane| lane.last = 59));
        assert!(!is_read(&|lane| lane.last = u64::MAX));
        assert!(!is_read(&|lane| lane.n_bytes = 1));
    }

    #[test]
    fn any_number_can_be_asked_with() {
        let feed = Feed::default();
        add(&feed, 0..30);
        for after in [u64::MAX, u64::MAX - 1, 31] {
            let news = feed.after(Some(after), false, Duration::ZERO);
            assert_eq!((news.keys.len(), news.n_skipped, news.last), (0, 0, after));
        }
    }

    #[test]
    fn whoever_waits_is_woken_at_the_end() {
        let feed = Feed::default();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| feed.after(Some(0), false, Duration::from_secs(60)));
            feed.end();
            assert!(waiting.join().expect("it ends").is_over);
        });
    }
}
