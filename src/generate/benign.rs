//! Ordinary events: what users do by habit, with the failures that happen to everybody.

use super::curve::Curve;
use super::event::{Endpoint, Event, EventType};
use super::population::Population;
use super::random::{Random, mix};
use super::role::BENIGN_TYPES;
use super::user::{HOUR_MS, User, Whereabouts};
use std::ops::Range;

/// How many slots of 100,000 begin a burst of mistyped passwords.
const BURSTS_PER_100_000: u32 = 180;
/// Leaves more than enough for six mistyped passwords, 3 to 9 s apart, and the right one.
const BURST_MS: i64 = 55_000;

/// The benign events: a time, a user and a reason for each number below `n_events`.
pub(super) struct Benign {
    pub(super) population: Population,
    pub(super) curve: Curve,
    pub(super) n_events: u64,
    pub(super) key: u64,
}

/// One benign event before it is spelt out.
pub(super) struct Slot {
    pub(super) timestamp_ms: i64,
    user: User,
    key: u64,
    reason: Reason,
}

#[derive(Clone, Copy)]
enum Reason {
    Habit,
    Mistyped,
    /// The success that ends a burst of mistyped passwords.
    TypedAgain,
}

impl Benign {
    /// The time that separates the events before number `index` from those after.
    pub(super) fn boundary_ms(&self, index: u64) -> i64 {
        self.curve.time_ms(index as f64 / self.n_events as f64)
    }

    /// The events of these numbers, sorted by time and between the boundaries of the range.
    pub(super) fn slots(&self, numbers: Range<u64>) -> Vec<Slot> {
        let mut slots = Vec::with_capacity((numbers.end - numbers.start) as usize);
        let end_ms = self.boundary_ms(numbers.end);
        let mut number = numbers.start;
        let mut is_sorted = true;
        while number < numbers.end {
            let key = mix(self.key, number);
            let mut random = Random::new(key);
            let share = (number as f64 + random.fraction()) / self.n_events as f64;
            let timestamp_ms = self.curve.time_ms(share).min(end_ms);
            let user = self
                .population
                .draw(timestamp_ms.div_euclid(HOUR_MS), &mut random);
            let n_burst = u64::from(4 + random.below(4));
            let fits = timestamp_ms + BURST_MS <= end_ms && number + n_burst <= numbers.end;
            if random.below(100_000) < BURSTS_PER_100_000 && user.role.is_human && fits {
                push_burst(&mut slots, n_burst, user, timestamp_ms, &mut random);
                number += n_burst;
                is_sorted = false;
            } else {
                slots.push(Slot {
                    timestamp_ms,
                    user,
                    key: random.next(),
                    reason: Reason::Habit,
                });
                number += 1;
            }
        }
        if !is_sorted {
            slots.sort_by_key(|slot| slot.timestamp_ms);
        }
        slots
    }
}

/// Lets a burst take the place of as many events. It stays in its block, so that blocks need not
/// know of each other; a burst that does not fit does not happen.
fn push_burst(
    slots: &mut Vec<Slot>,
    n_events: u64,
    user: User,
    start_ms: i64,
    random: &mut Random,
) {
    // All from one device: the same key gives every event the same whereabouts.
    let key = random.next();
    let mut timestamp_ms = start_ms;
    for remaining in (0..n_events).rev() {
        let reason = if remaining == 0 {
            Reason::TypedAgain
        } else {
            Reason::Mistyped
        };
        slots.push(Slot {
            timestamp_ms,
            user,
            key,
            reason,
        });
        timestamp_ms += i64::from(random.between(3_000, 9_000));
    }
}

impl Slot {
    /// Spells the event out.
    pub(super) fn event(&self) -> Event {
        let mut random = Random::new(self.key);
        let whereabouts = self.user.whereabouts(self.timestamp_ms, &mut random);
        let event_type = match self.reason {
            Reason::Mistyped => EventType::LoginFailed,
            Reason::TypedAgain => EventType::LoginSuccess,
            Reason::Habit => self.habitual_type(&mut random),
        };
        let is_call = matches!(event_type, EventType::ApiCall | EventType::DbQuery);
        let has_failed = is_call && random.chance(6);
        Event {
            timestamp_ms: self.timestamp_ms,
            user: self.user.index,
            kind: event_type,
            threat_percent: self.threat_percent(&whereabouts, event_type.is_failure(), &mut random),
            has_failed,
            endpoint: endpoint(&self.user, event_type, &mut random),
            size_bytes: size_bytes(event_type, &mut random),
            address: whereabouts.address,
            city: whereabouts.city,
            device: whereabouts.device,
        }
    }

    fn habitual_type(&self, random: &mut Random) -> EventType {
        let role = self.user.role;
        let mut percent = random.below(100);
        if role.is_human && random.chance(200) {
            // Everybody does one thing more than others of their role, and it is not logging in.
            let login_percent: u32 = role.type_shares_percent[..3]
                .iter()
                .map(|&share| u32::from(share))
                .sum();
            percent = login_percent + self.user.favourite(0, 100 - login_percent);
        }
        let mut event_type = EventType::ApiCall;
        for (candidate, share) in BENIGN_TYPES.into_iter().zip(role.type_shares_percent) {
            event_type = candidate;
            if percent < u32::from(share) {
                break;
            }
            percent -= u32::from(share);
        }
        let failures_per_mille = self.user.failures_per_mille();
        match event_type {
            EventType::LoginSuccess if random.chance(failures_per_mille) => EventType::LoginFailed,
            EventType::MfaSuccess if random.chance(failures_per_mille) => EventType::MfaFailed,
            EventType::FileAccess | EventType::ApiCall | EventType::DbQuery
                if random.chance(failures_per_mille / 4) =>
            {
                EventType::AccessDenied
            }
            _ => event_type,
        }
    }

    /// What some upstream product thinks of the event: noisy, and sometimes wrong.
    fn threat_percent(
        &self,
        whereabouts: &Whereabouts,
        is_failure: bool,
        random: &mut Random,
    ) -> u32 {
        let mut percent = 1 + self.user.favourite(1, 8) + random.below(10);
        if is_failure {
            percent += random.between(5, 20);
        }
        if whereabouts.is_new {
            percent += random.between(5, 25);
        }
        if random.chance(8) {
            percent += random.below(50);
        }
        percent
    }
}

/// What an event of a type touches. Users come back to the same few things.
pub(super) fn endpoint(user: &User, event_type: EventType, random: &mut Random) -> Endpoint {
    let path = match event_type {
        EventType::LoginSuccess | EventType::LoginFailed => "/auth/login",
        EventType::Logout => "/auth/logout",
        EventType::MfaSuccess | EventType::MfaFailed => "/auth/mfa",
        EventType::FileAccess | EventType::FileDownload => user.role.file_folder,
        EventType::ApiCall => random.choose(&user.role.api_endpoints),
        EventType::DbQuery => "/db/reports/",
        EventType::EmailSend => "/mail/messages/",
        EventType::ConfigChange => "/settings/profiles/",
        EventType::AccessDenied => "/admin/hosts/",
        EventType::AdminChange => "/admin/roles/",
    };
    let number = path.ends_with('/').then(|| match random.below(4) {
        0 => random.below(1000),
        _ => user.favourite(2 + u64::from(random.below(6)), 1000),
    });
    Endpoint { path, number }
}

/// A size with a heavy tail: every doubling is half as likely.
pub(super) fn size_bytes(event_type: EventType, random: &mut Random) -> u64 {
    let typical = match event_type {
        EventType::FileAccess => 20_000,
        EventType::FileDownload => 150_000,
        EventType::ApiCall => 2_500,
        EventType::DbQuery => 8_000,
        EventType::EmailSend => 12_000,
        _ => 300,
    };
    let doublings = random.next().trailing_zeros().min(8);
    (u64::from(random.between(typical / 2, typical)) << doublings) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At a high rate bursts overlap with what follows them and reach for the end of their block.
    #[test]
    fn blocks_with_bursts_are_sorted_and_stay_within_their_boundaries() {
        let (start_ms, n_events, n_block) = (1_735_689_600_000, 400_000, 4000);
        let population = Population::new(100, 1);
        let curve = Curve::new(&population, start_ms, start_ms + 24 * HOUR_MS);
        let benign = Benign {
            population,
            curve,
            n_events,
            key: 2,
        };
        let mut n_mistyped = 0;
        for start in (0..n_events).step_by(n_block as usize) {
            let slots = benign.slots(start..start + n_block);
            assert_eq!(slots.len() as u64, n_block);
            assert!(slots.is_sorted_by_key(|slot| slot.timestamp_ms));
            assert!(slots[0].timestamp_ms >= benign.boundary_ms(start));
            assert!(slots[slots.len() - 1].timestamp_ms <= benign.boundary_ms(start + n_block));
            let is_mistyped = |slot: &&Slot| matches!(slot.reason, Reason::Mistyped);
            n_mistyped += slots.iter().filter(is_mistyped).count();
        }
        assert!(n_mistyped > 1000, "{n_mistyped}");
    }
}
