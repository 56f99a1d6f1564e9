//! A user and their habits. Everything follows from a hash of the seed and the user's number, so
//! that a million users take no memory and any of them can be met in any order.

use super::device::{DESK, Device, PHONE, SECOND_DESK};
use super::place::{Address, CITIES, City, CityIndex, N_HOME_CITIES, N_TRAVEL_CITIES};
use super::random::{Random, mix, reduce};
use super::role::{ROLES, Role, WorkDays};

pub(super) const HOUR_MS: i64 = 3_600_000;

/// A user.
#[derive(Clone, Copy)]
pub(super) struct User {
    pub(super) index: u32,
    pub(super) role: &'static Role,
    pub(super) home: CityIndex,
    key: u64,
}

/// Where and on what a user is at work.
pub(super) struct Whereabouts {
    pub(super) address: Address,
    pub(super) city: &'static City,
    pub(super) device: Device,
    /// The address is none of the user's usual ones.
    pub(super) is_new: bool,
}

/// A user's trait: each is a hash of its own, so that traits do not depend on each other.
#[derive(Clone, Copy)]
enum Trait {
    Home = 1,
    Failures,
    Travel,
    Late,
    Office,
    Commute,
    Guest,
    Phone,
    Connection,
    Device,
    Favourite,
}

/// An hour as the user sees it.
struct LocalHour {
    day: i64,
    week: i64,
    hour_of_shift: usize,
    is_work_day: bool,
    /// The city of a journey.
    away: Option<CityIndex>,
}

impl User {
    pub(super) fn new(population_key: u64, index: u32) -> Self {
        let key = mix(population_key, u64::from(index));
        let mut percent = (key % 100) as u32;
        let mut role = &ROLES[0];
        for candidate in &ROLES {
            role = candidate;
            if percent < candidate.share_percent {
                break;
            }
            percent -= candidate.share_percent;
        }
        // The lesser of two draws: companies have large sites and small ones.
        let (one, other) = (reduce(key, N_HOME_CITIES), reduce(key << 16, N_HOME_CITIES));
        Self {
            index,
            role,
            home: one.min(other) as CityIndex,
            key,
        }
    }

    /// How active the user is in an hour since the epoch, 1 being the mean over a week.
    pub(super) fn activity(&self, epoch_hour: i64) -> f64 {
        let local = self.local_hour(epoch_hour);
        let mut share = self.role.shift[local.hour_of_shift];
        if (12..16).contains(&local.hour_of_shift) && self.is_late_day(local.day) {
            share += 0.4;
        }
        if !local.is_work_day {
            share *= self.role.day_off_share;
        }
        share * self.role.scale
    }

    /// Where the user is when an event happens.
    pub(super) fn whereabouts(&self, timestamp_ms: i64, random: &mut Random) -> Whereabouts {
        let local = self.local_hour(timestamp_ms.div_euclid(HOUR_MS));
        if !self.role.is_human {
            return Whereabouts {
                address: Address::data_center(self.trait_key(Trait::Office)),
                city: &CITIES[usize::from(self.home)],
                device: Device::of_service(self.index, self.trait_key(Trait::Device)),
                is_new: false,
            };
        }
        let city = local.away.unwrap_or(self.home);
        let uses_phone = random.below(100) < self.phone_percent();
        let is_guest = reduce(self.day_key(Trait::Guest, local.day), 1000) < 7;
        let address = if uses_phone {
            // A phone's address lasts for some hours.
            let lease = (timestamp_ms / (6 * HOUR_MS)).cast_unsigned();
            Address::dynamic(
                city,
                mix(self.trait_key(Trait::Phone), u64::from(city)),
                lease,
            )
        } else if is_guest {
            Address::guest(city, self.day_key(Trait::Guest, local.day + 1))
        } else if local.away.is_some() {
            Address::guest(city, self.day_key(Trait::Travel, local.week))
        } else if self.is_at_office(&local) {
            Address::office(city, self.trait_key(Trait::Office))
        } else {
            self.home_address(local.day)
        };
        let has_second_desk = self.trait_key(Trait::Device).is_multiple_of(4);
        let ordinal = if uses_phone {
            PHONE
        } else if has_second_desk && random.chance(250) {
            SECOND_DESK
        } else {
            DESK
        };
        Whereabouts {
            address,
            city: &CITIES[usize::from(city)],
            device: Device::of_human(
                self.index,
                self.trait_key(Trait::Device),
                ordinal,
                local.day,
            ),
            is_new: is_guest || local.away.is_some(),
        }
    }

    /// How many attempts of 1000 to log in fail: few for most users, many for some.
    pub(super) fn failures_per_mille(&self) -> u32 {
        let key = self.trait_key(Trait::Failures);
        5 + reduce(key, 30) + if key.is_multiple_of(16) { 50 } else { 0 }
    }

    /// Which of some things the user does, reads or calls most.
    pub(super) fn favourite(&self, counter: u64, limit: u32) -> u32 {
        reduce(mix(self.trait_key(Trait::Favourite), counter), limit)
    }

    fn local_hour(&self, epoch_hour: i64) -> LocalHour {
        let home_hour = epoch_hour + utc_offset_hours(self.home);
        // The epoch began on a Thursday, weeks begin on Monday.
        let home_day = home_hour.div_euclid(24);
        let week = (home_day + 3).div_euclid(7);
        let away = if (home_day + 3).rem_euclid(7) < 5 {
            self.journey(week)
        } else {
            None
        };
        let hour = away.map_or(home_hour, |city| epoch_hour + utc_offset_hours(city));
        let turn = if self.role.rotates_weekly {
            week.rem_euclid(3).cast_unsigned()
        } else {
            0
        };
        let start = self.role.start_hours[((self.key >> 8).wrapping_add(turn) % 3) as usize];
        // The hours of a night shift after midnight belong to the day it began on.
        let since_start = hour - i64::from(start);
        let day = since_start.div_euclid(24);
        let weekday = (day + 3).rem_euclid(7).cast_unsigned();
        let is_work_day = match self.role.work_days {
            WorkDays::Weekdays => weekday < 5,
            WorkDays::FourWeekdays => weekday < 5 && weekday != (self.key >> 12) % 5,
            WorkDays::Rolling => (weekday + (self.key >> 12) % 7) % 7 < 5,
            WorkDays::All => true,
        };
        let hour_of_shift = since_start.rem_euclid(24) as usize;
        LocalHour {
            day,
            week,
            hour_of_shift,
            is_work_day,
            away,
        }
    }

    /// The city in which the user spends the working days of a week, if not at home.
    fn journey(&self, week: i64) -> Option<CityIndex> {
        if self.role.travel_per_mille == 0 {
            return None;
        }
        let key = self.day_key(Trait::Travel, week);
        if reduce(key, 1000) >= self.role.travel_per_mille {
            return None;
        }
        let city = reduce(mix(key, 1), N_TRAVEL_CITIES) as CityIndex;
        (city != self.home).then_some(city)
    }

    fn is_late_day(&self, day: i64) -> bool {
        self.role.is_human && reduce(self.day_key(Trait::Late, day), 1000) < 40
    }

    fn is_at_office(&self, local: &LocalHour) -> bool {
        // From those who are at home two days of five to those who always or never come.
        let office_percent = [100, 80, 60, 60, 0][(self.trait_key(Trait::Commute) % 5) as usize];
        let is_there_today = reduce(self.day_key(Trait::Commute, local.day), 100) < office_percent;
        local.is_work_day && local.hour_of_shift < 10 && is_there_today
    }

    fn home_address(&self, day: i64) -> Address {
        let key = self.trait_key(Trait::Home);
        match reduce(self.trait_key(Trait::Connection), 100) {
            0..4 => Address::home_v6(self.home, key),
            4..24 => Address::dynamic(self.home, key, day.cast_unsigned()),
            _ => Address::home(self.home, key),
        }
    }

    fn phone_percent(&self) -> u32 {
        match self.trait_key(Trait::Phone) % 5 {
            0 | 1 => 12,
            2 => 3,
            _ => 0,
        }
    }

    fn trait_key(&self, of: Trait) -> u64 {
        mix(self.key, of as u64)
    }

    fn day_key(&self, of: Trait, day: i64) -> u64 {
        mix(self.trait_key(of), day.cast_unsigned())
    }
}

fn utc_offset_hours(city: CityIndex) -> i64 {
    i64::from(CITIES[usize::from(city)].utc_offset_hours)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The volume of a user must come from the user's weight, not from the shape of the shift.
    #[test]
    fn mean_activity_is_near_one_for_all() {
        for index in 0..500 {
            let user = User::new(7, index);
            let n_hours = 6 * 7 * 24;
            let total: f64 = (480_000..480_000 + n_hours)
                .map(|hour| user.activity(hour))
                .sum();
            let mean = total / n_hours as f64;
            assert!((0.8..1.3).contains(&mean), "user {index}: {mean}");
        }
    }
}
