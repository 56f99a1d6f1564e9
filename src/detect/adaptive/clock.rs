//! What time it is, by the events of all users together. Some clocks are wrong and some people lie, and
//! sources that come one after the other are hours apart: nobody alone moves the time of all others.
//!
//! The clock follows whoever is ahead at once, since a quiet weekend ends with one event, and keeps the
//! word of the three users who are furthest. While those do not agree, any other user's word sets it
//! back. More than a week takes several users, or one whom nobody contradicts, in either direction.

use serde::{Deserialize, Serialize};

use super::EPOCH_MS;
use crate::record::TIMESTAMP_MS_MAX;

/// Users whose word is kept, and who have to agree.
const USERS_MAX: usize = 3;
/// Minutes between clocks that agree.
const NEAR: i64 = 1;
/// Minutes behind the clock from which an event is late.
const LATE: i64 = 60;
/// Minutes of a week.
const FAR: i64 = 7 * 24 * 60;
/// Events in a row that it takes to go further ahead than a week, by as many users as there are, and to
/// go back from where three agree; and events of fewer users.
const AHEAD_EVENTS_MIN: u32 = 3;
const BEHIND_EVENTS_MIN: u32 = 8;
const EVENTS_OF_FEW_MIN: u32 = 64;

/// The clock, in epochs since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Clock {
    /// None before the first event.
    epoch: Option<i64>,
    /// The last words of the users who are furthest, the furthest first.
    leaders: Words,
    /// Events in a row that are far ahead, and that are late.
    ahead: Run,
    behind: Run,
    /// Where the event that was heard last moves it.
    #[serde(skip)]
    next: Option<i64>,
    /// Three agree on the current epoch, and nobody has said otherwise.
    #[serde(skip)]
    is_settled: bool,
    /// The last epoch before it went back for good.
    #[serde(skip)]
    latest: Option<i64>,
    #[serde(skip)]
    n_late: u64,
}

/// When it is, in the words of a user.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Word {
    user: u64,
    epoch: i64,
}

/// Words of up to three users, the latest epoch first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Words(Vec<Word>);

impl Words {
    fn has(&self, user: u64) -> bool {
        self.0.iter().any(|word| word.user == user)
    }

    fn are_all_there(&self) -> bool {
        self.0.len() == USERS_MAX
    }

    /// Whether they are those of so many users, each once and in order.
    fn are_whole(&self) -> bool {
        let is_first =
            |(i, word): (usize, &Word)| self.0[..i].iter().all(|other| other.user != word.user);
        self.0.len() <= USERS_MAX
            && self.0.is_sorted_by(|a, b| a.epoch >= b.epoch)
            && self.0.iter().enumerate().all(is_first)
            && self.0.iter().all(|word| is_of_event(word.epoch))
    }

    fn first(&self) -> Option<i64> {
        self.0.first().map(|word| word.epoch)
    }

    fn last(&self) -> Option<i64> {
        self.0.last().map(|word| word.epoch)
    }

    /// Takes the word of a user, in place of its last one or of one that is further behind.
    fn add(&mut self, word: Word) {
        if let Some(i) = self.0.iter().position(|other| other.user == word.user) {
            self.0[i] = word;
        } else if !self.are_all_there() {
            self.0.push(word);
        } else if let Some(last) = self.0.last_mut().filter(|last| last.epoch <= word.epoch) {
            *last = word;
        }
        self.0.sort_by_key(|word| std::cmp::Reverse(word.epoch));
    }
}

/// Whether an event may have taken place then.
fn is_of_event(epoch: i64) -> bool {
    (0..=TIMESTAMP_MS_MAX / EPOCH_MS).contains(&epoch)
}

/// Events in a row that say the same.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Run {
    n_events: u32,
    words: Words,
}

impl Run {
    fn add(&mut self, word: Word) {
        let is_same = |other: &Word| (other.epoch - word.epoch).abs() <= FAR;
        if !self.words.0.iter().all(is_same) {
            self.clear();
        }
        self.n_events = self.n_events.saturating_add(1);
        self.words.add(word);
    }

    fn clear(&mut self) {
        self.n_events = 0;
        self.words.0.clear();
    }

    fn is_believed(&self, n_events_min: u32, n_users_min: usize) -> bool {
        self.n_events >= EVENTS_OF_FEW_MIN
            || self.n_events >= n_events_min && self.words.0.len() >= n_users_min
    }
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            epoch: None,
            leaders: Words::default(),
            ahead: Run::default(),
            behind: Run::default(),
            next: None,
            is_settled: false,
            latest: None,
            n_late: 0,
        }
    }

    /// A clock of which nothing is known but the time.
    pub(super) fn at(epoch: i64) -> Self {
        Self {
            epoch: (epoch != i64::MIN).then_some(epoch),
            ..Self::new()
        }
    }

    /// Whether it may have been written by us.
    pub(super) fn is_whole(&self) -> bool {
        let runs = [&self.ahead, &self.behind];
        runs.iter().all(|run| run.n_events <= EVENTS_OF_FEW_MIN)
            && runs.iter().all(|run| run.words.are_whole())
            && self.leaders.are_whole()
            && self.epoch.is_none_or(is_of_event)
    }

    /// When the current epoch began, in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> i64 {
        self.epoch.unwrap_or(0) * EPOCH_MS
    }

    /// The latest time that all of the leaders have reached.
    pub(super) fn sure_ms(&self) -> i64 {
        self.leaders.last().or(self.epoch).unwrap_or(0) * EPOCH_MS
    }

    pub(super) fn epoch(&self) -> Option<i64> {
        self.epoch
    }

    /// Events that came an hour or more later than others before them.
    pub(super) fn n_late(&self) -> u64 {
        self.n_late
    }

    /// Takes the word of an event's user for it; whether the event begins another epoch. The event may
    /// be told again after [`Self::turn`].
    #[inline]
    pub(super) fn hear(&mut self, user: u64, epoch: i64) -> bool {
        if self.is_settled && self.epoch == Some(epoch) {
            return false;
        }
        let n_late = self.n_late;
        self.next = self.moved_by(Word { user, epoch });
        if self.next.is_some() {
            // It counts when it is told again.
            self.n_late = n_late;
        }
        self.is_settled = self.next.is_none()
            && self.leaders.are_all_there()
            && self.leaders.last() == self.epoch
            && self.ahead.n_events == 0
            && self.behind.n_events == 0;
        self.next.is_some()
    }

    /// Moves to where the last event that was heard says.
    pub(super) fn turn(&mut self) {
        if let Some(next) = self.next.take() {
            self.epoch = Some(next);
            self.is_settled = false;
        }
    }

    fn moved_by(&mut self, word: Word) -> Option<i64> {
        let Some(now) = self.epoch else {
            self.leaders.add(word);
            return Some(word.epoch);
        };
        // A user alone goes no further in many steps than in one.
        let others = self
            .leaders
            .0
            .iter()
            .filter(|other| other.user != word.user);
        let base = others.map(|other| other.epoch).max().unwrap_or(now);
        if word.epoch > now && word.epoch - base.min(now) > FAR {
            return self.far_ahead(word);
        }
        self.ahead.clear();
        let is_late = |now: i64| now - word.epoch >= LATE;
        self.n_late += u64::from(is_late(now) || self.latest.is_some_and(is_late));
        if now - word.epoch > NEAR {
            return self.behind(word, now);
        }
        if self.leaders.has(word.user) {
            // Those who are wrong must not drown what all others say.
            self.behind.n_events = self.behind.n_events.saturating_sub(1);
        } else {
            self.behind.n_events = 0;
        }
        if self.behind.n_events == 0 {
            self.behind.clear();
        }
        self.leaders.add(word);
        (word.epoch > now).then_some(word.epoch)
    }

    fn far_ahead(&mut self, word: Word) -> Option<i64> {
        self.ahead.add(word);
        let n_users = self.leaders.0.len();
        if !self.ahead.is_believed(AHEAD_EVENTS_MIN, n_users) {
            return None;
        }
        self.leaders = std::mem::take(&mut self.ahead).words;
        self.behind.clear();
        self.leaders.first()
    }

    fn behind(&mut self, word: Word, now: i64) -> Option<i64> {
        let is_far = now - word.epoch > FAR;
        let least = self.leaders.last().filter(|_| self.leaders.are_all_there());
        let is_sure = least.is_some_and(|least| now - least <= NEAR);
        let says_anything = least.is_none_or(|least| word.epoch >= least - NEAR);
        if !is_far && self.leaders.has(word.user) {
            self.leaders.add(word);
        } else if !is_far && !is_sure && says_anything {
            let level = least.map_or(word.epoch, |least| least.max(word.epoch)) + NEAR;
            self.leaders.0.retain(|other| other.epoch <= level);
            self.leaders.add(word);
        }
        let next = self.leaders.first();
        if next.is_some_and(|next| next < now && now - next <= FAR) {
            self.behind.clear();
            return next;
        }
        if now - word.epoch < LATE {
            return None;
        }
        self.behind.add(word);
        if !self.behind.is_believed(BEHIND_EVENTS_MIN, USERS_MAX) {
            return None;
        }
        self.latest = self.latest.max(self.epoch);
        self.leaders = std::mem::take(&mut self.behind).words;
        self.leaders.first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_no_events_have_set_is_not_whole() {
        let words = |words: &[(u64, i64)]| {
            let words = words.iter();
            Words(words.map(|&(user, epoch)| Word { user, epoch }).collect())
        };
        let is_whole = |leaders: &[(u64, i64)], n_events: u32| {
            let mut clock = Clock::at(9);
            clock.leaders = words(leaders);
            clock.behind.n_events = n_events;
            let is_whole = clock.is_whole();
            if is_whole {
                clock.hear(1, 9);
                clock.hear(2, 0);
            }
            is_whole
        };
        assert!(is_whole(&[(1, 9), (2, 9), (3, 8)], 64));
        assert!(!is_whole(&[(1, 9), (2, 9), (3, 8)], u32::MAX));
        assert!(!is_whole(&[(1, 8), (2, 9)], 0), "not in order");
        assert!(!is_whole(&[(1, 9), (1, 8)], 0), "a user twice");
        assert!(!is_whole(&[(1, 9), (2, 9), (3, 8), (4, 7)], 0));
        assert!(!is_whole(&[(1, i64::MAX)], 0) && !is_whole(&[(1, -1)], 0));
        assert!(!Clock::at(i64::MAX / EPOCH_MS).is_whole());
        assert!(Clock::new().is_whole());
    }
}
