//! How long to wait before something that has failed is tried again.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The wait after so many tries in a row, at least one: `min` after the first, doubled with each up to `max`.
/// Of it a share is taken off by chance, `by_chance` at the most: those who were turned away together do not
/// come back together.
#[must_use]
pub fn backoff(n_tries: u32, (min, max): (Duration, Duration), by_chance: f64) -> Duration {
    let doubled = min.saturating_mul(1 << (n_tries - 1).min(16));
    let chance = RandomState::new().hash_one(n_tries) >> 32;
    let share = chance as f64 / f64::from(u32::MAX);
    doubled.min(max).mul_f64(1.0 - share * by_chance)
}
