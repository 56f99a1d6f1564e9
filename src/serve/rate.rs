//! How often somebody may ask. Those who do are kept in a table of limited size.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::time::uptime_ms;

/// Who is known at once at the most. Beyond it those who come share one rate.
const ASKERS_MAX: usize = 10_000;
/// How often the table is looked through for those who have been quiet, if it is full.
const TIDY_MS: i64 = 1_000;

/// Requests of everybody.
pub(super) struct Rates {
    limiter: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
    tidied_ms: AtomicI64,
}

impl Rates {
    /// So many a second, and twice as many after a silence.
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        let burst = per_second.saturating_mul(NonZeroU32::MIN.saturating_add(1));
        Self {
            limiter: RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst)),
            clock: DefaultClock::default(),
            tidied_ms: AtomicI64::new(i64::MIN),
        }
    }

    /// Counts a request, or tells how long to wait for the next one.
    pub(super) fn count(&self, who: &str) -> Result<(), Duration> {
        let now_ms = uptime_ms();
        let tidied_ms = self.tidied_ms.load(Ordering::Relaxed);
        if self.limiter.len() >= ASKERS_MAX && now_ms.saturating_sub(tidied_ms) >= TIDY_MS {
            self.tidied_ms.store(now_ms, Ordering::Relaxed);
            self.limiter.retain_recent();
        }
        let is_full = self.limiter.len() >= ASKERS_MAX;
        let who = if is_full { "" } else { who };
        let counted = self.limiter.check_key(&who.to_owned());
        counted.map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

/// An address as somebody who asks: a host may have all of a /64 of IPv6.
pub(super) fn asker(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates() -> Rates {
        Rates::new(NonZeroU32::MIN)
    }

    #[test]
    fn everybody_has_a_rate_of_their_own() {
        let rates = rates();
        for who in ["a", "b"] {
            assert!(rates.count(who).is_ok());
            assert!(rates.count(who).is_ok());
            let wait = rates.count(who).expect_err("the third is too many");
            assert!(wait <= Duration::from_secs(1));
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let rates = rates();
        for i in 0..2 * ASKERS_MAX {
            let _ = rates.count(&i.to_string());
        }
        assert!(rates.limiter.len() <= ASKERS_MAX + 1);
        assert!(rates.count("somebody new").is_err());
    }

    #[test]
    fn a_network_is_one_asker() {
        let check = |address: &str, expected: &str| {
            assert_eq!(asker(address.parse().expect("an address")), expected);
        };
        check("203.0.113.7", "203.0.113.7");
        check("::ffff:203.0.113.7", "203.0.113.7");
        check("2001:db8:0:1::7", "2001:db8:0:1::/64");
    }
}
