//! How many calls, and how much money. What a call may cost is set aside before it is made, so that
//! calls that are made at the same time cannot spend it twice.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Limits; none is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    pub calls_per_minute: Option<u32>,
    pub calls_per_day: Option<u64>,
    /// A day, in millionths of a dollar.
    pub micro_usd_per_day: Option<u64>,
}

impl Limits {
    /// Whether a day's sums have to be known.
    #[must_use]
    pub fn are_of_days(&self) -> bool {
        self.calls_per_day.is_some() || self.micro_usd_per_day.is_some()
    }
}

/// What a day has come to. Days are those of UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// Since 1970.
    pub day: i64,
    pub calls: u64,
    /// What is set aside counts.
    pub micro_usd: u64,
}

const DAY_MS: i64 = 86_400_000;
const MINUTE_MS: i64 = 60_000;

#[derive(Debug)]
pub(super) struct Spending {
    limits: Limits,
    /// When calls of the last minute were made; as many as the limit at the most.
    minute: VecDeque<i64>,
    day: Day,
}

impl Spending {
    pub(super) fn new(limits: Limits, day: Day) -> Self {
        Self {
            limits,
            minute: VecDeque::new(),
            day,
        }
    }

    pub(super) fn day(&self) -> Day {
        self.day
    }

    /// What the day that it is has come to, in millionths of a dollar.
    pub(super) fn spent(&self, now_ms: i64) -> u64 {
        if self.day.day < now_ms.div_euclid(DAY_MS) {
            return 0;
        }
        self.day.micro_usd
    }

    /// Whether a call may be made that costs so much at the most, which is set aside then. `now_ms` is the
    /// time of day, `uptime_ms` that of a clock that nobody sets.
    pub(super) fn admits(&mut self, now_ms: i64, uptime_ms: i64, micro_usd: u64) -> bool {
        let day = now_ms.div_euclid(DAY_MS);
        // A clock that is set back gives nobody another budget.
        if day > self.day.day {
            self.day = Day {
                day,
                ..Day::default()
            };
        }
        while self
            .minute
            .front()
            .is_some_and(|at| uptime_ms - at >= MINUTE_MS)
        {
            self.minute.pop_front();
        }
        let is_within = |limit: Option<u64>, sum: u64| limit.is_none_or(|limit| sum <= limit);
        let Limits {
            calls_per_minute,
            calls_per_day,
            micro_usd_per_day,
        } = self.limits;
        let sum = self.day.micro_usd.saturating_add(micro_usd);
        if !is_within(
            calls_per_minute.map(u64::from),
            self.minute.len() as u64 + 1,
        ) || !is_within(calls_per_day, self.day.calls + 1)
            || !is_within(micro_usd_per_day, sum)
        {
            return false;
        }
        if calls_per_minute.is_some() {
            self.minute.push_back(uptime_ms);
        }
        self.day.calls += 1;
        self.day.micro_usd = sum;
        true
    }

    /// What was set aside on a day has come to less, or more.
    pub(super) fn settle(&mut self, day: i64, set_aside: u64, micro_usd: u64) {
        if day == self.day.day {
            let rest = self.day.micro_usd.saturating_sub(set_aside);
            self.day.micro_usd = rest.saturating_add(micro_usd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold() {
        let limits = Limits {
            calls_per_minute: Some(2),
            calls_per_day: Some(4),
            micro_usd_per_day: Some(100),
        };
        let mut spending = Spending::new(limits, Day::default());
        let day = 3 * DAY_MS;
        assert!(spending.admits(day, 0, 60));
        assert!(!spending.admits(day, 1, 60), "it is set aside");
        spending.settle(3, 60, 10);
        assert!(spending.admits(day, 2, 60));
        spending.settle(3, 60, 0);
        assert!(!spending.admits(day, 59_999, 0), "two a minute");
        assert!(spending.admits(day, 60_000, 0));
        assert!(spending.admits(day, 120_000, 0));
        assert!(!spending.admits(day, 200_000, 0), "four a day");
        assert!(
            !spending.admits(day - DAY_MS, 200_000, 0),
            "a clock that is set back"
        );
        let kept = spending.day();
        assert_eq!((kept.calls, kept.micro_usd), (4, 10));
        let mut again = Spending::new(limits, kept);
        assert!(!again.admits(day + DAY_MS - 1, 0, 0), "another run");
        assert!(again.admits(day + DAY_MS, 0, 100), "another day");
        again.settle(3, 100, 0);
        assert!(
            !again.admits(day + DAY_MS, 1, 1),
            "what is of yesterday changes nothing"
        );
    }
}
