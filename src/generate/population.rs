//! The users as a whole: who is heavy, and who acts in a given hour.

use super::random::{Random, mix, reduce};
use super::role::ACTIVITY_MAX;
use super::user::User;

/// The share of all events that is spread evenly, which gives the lightest user enough for a
/// baseline; the rest goes by rank, to rank r as 1/sqrt(r), which makes the tail.
const EVEN_SHARE: f64 = 0.8;
/// In expectation a draw is accepted at one try in `ACTIVITY_MAX`, so that this ends only draws in
/// hours when hardly anybody works.
const TRIES_MAX: u32 = 400;
/// How many evaluations of activity the curve may cost: some 0.1 s.
const EVALUATIONS_MAX: usize = 8_000_000;

/// All users; none is stored.
#[derive(Clone, Copy)]
pub(super) struct Population {
    n_users: u32,
    key: u64,
    /// A bijection between ranks and users: multiply, add, take the remainder.
    multiplier: u64,
    shift: u64,
}

impl Population {
    pub(super) fn new(n_users: u32, key: u64) -> Self {
        let mut multiplier = 1 + u64::from(reduce(mix(key, 0), n_users));
        while greatest_common_divisor(multiplier, u64::from(n_users)) != 1 {
            multiplier += 1;
        }
        let shift = u64::from(reduce(mix(key, 1), n_users));
        Self {
            n_users,
            key: mix(key, 2),
            multiplier,
            shift,
        }
    }

    pub(super) fn n_users(&self) -> u32 {
        self.n_users
    }

    pub(super) fn user(&self, index: u32) -> User {
        User::new(self.key, index)
    }

    /// The user of a rank, 0 being the heaviest; different ranks are different users.
    pub(super) fn user_of_rank(&self, rank: u32) -> User {
        let scattered = (u64::from(rank) * self.multiplier + self.shift) % u64::from(self.n_users);
        self.user(scattered as u32)
    }

    /// Draws a user in proportion to weight and to activity in that hour.
    ///
    /// By rejection, because tables of weights for every hour would grow with the users.
    pub(super) fn draw(&self, epoch_hour: i64, random: &mut Random) -> User {
        let mut user = self.draw_by_weight(random);
        for _ in 0..TRIES_MAX {
            if random.fraction() * ACTIVITY_MAX < user.activity(epoch_hour) {
                break;
            }
            user = self.draw_by_weight(random);
        }
        user
    }

    /// The activity of everybody in each of some hours: of all users if they are few, else of a
    /// sample that takes one of every so many ranks.
    pub(super) fn total_activity(&self, epoch_hours: std::ops::Range<i64>) -> Vec<f64> {
        let n_hours = epoch_hours.clone().count().max(1);
        let n_sampled = (EVALUATIONS_MAX / n_hours)
            .clamp(64, 4096)
            .min(self.n_users as usize);
        let n_users = f64::from(self.n_users);
        let mut totals = vec![0.0; n_hours];
        let rank_at = |sample: usize| self.n_users as usize * sample / n_sampled;
        for sample in 0..n_sampled {
            let (from, to) = (rank_at(sample), rank_at(sample + 1));
            let user = self.user_of_rank((from + (to - from) / 2) as u32);
            let (from, to) = (from as f64 / n_users, to as f64 / n_users);
            let weight = EVEN_SHARE * (to - from) + (1.0 - EVEN_SHARE) * (to.sqrt() - from.sqrt());
            for (total, epoch_hour) in totals.iter_mut().zip(epoch_hours.clone()) {
                *total += weight * user.activity(epoch_hour);
            }
        }
        totals
    }

    fn draw_by_weight(&self, random: &mut Random) -> User {
        let fraction = random.fraction();
        if fraction < EVEN_SHARE {
            return self.user(random.below(self.n_users));
        }
        let within_tail = (fraction - EVEN_SHARE) / (1.0 - EVEN_SHARE);
        let rank = (within_tail * within_tail * f64::from(self.n_users)) as u32;
        self.user_of_rank(rank.min(self.n_users - 1))
    }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_user_has_one_rank() {
        for n_users in [1, 2, 10, 1000, 65_536] {
            let population = Population::new(n_users, 99);
            let users: HashSet<u32> = (0..n_users)
                .map(|rank| population.user_of_rank(rank).index)
                .collect();
            assert_eq!(users.len(), n_users as usize);
        }
    }
}
