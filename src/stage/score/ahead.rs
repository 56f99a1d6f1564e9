//! Fetches states from memory some events before they are needed: there are more of them than caches hold,
//! and to wait for each takes longer than to score its event.

use crate::batch::Block;
use crate::detect::{Detector, PREFETCH_STEPS, UserKey, Users};
use crate::stage::look::Place;

/// Events between the steps in which a state is fetched.
const DISTANCE: usize = 2;
/// Events between the first step and the one that is scored.
const FIRST: usize = (PREFETCH_STEPS + 1) * DISTANCE;
/// Users whose states are looked for at once: looked for one right after the other, they are waited for
/// together.
const FIND_AT_ONCE: usize = 16;

/// Fetches the values of events that come later, of those at `places`: they were read by another thread, and one line of
/// the cache holds a few texts only.
pub(super) fn fetch_values(blocks: &[Block], places: &[Place]) {
    if let Some(place) = places.get(2 * FIRST) {
        blocks[place.block].prefetch(place.event);
    }
    if let Some(place) = places.get(FIRST) {
        blocks[place.block].prefetch_values(place.event);
    }
}

/// Takes the next steps before the event of that number is scored, one of `n_events` that come in a row.
/// `found` says where the states of their users are, as far as was looked ahead, and `of` who that is.
pub(super) fn fetch<'a, D: Detector>(
    detector: &D,
    found: &mut Vec<Option<u32>>,
    event: usize,
    n_events: usize,
    of: impl Fn(usize) -> (&'a Users<D::User>, UserKey, &'a D::Features),
) where
    D::User: 'a,
    D::Features: 'a,
{
    if found.len() <= event + FIRST {
        let end = (event + FIRST + FIND_AT_ONCE).min(n_events);
        found.extend((found.len()..end).map(|next| {
            let (users, key, _) = of(next);
            users.find(key)
        }));
    }
    for step in 0..=PREFETCH_STEPS {
        let event = event + (PREFETCH_STEPS + 1 - step) * DISTANCE;
        let Some(Some(found)) = found.get(event) else {
            continue;
        };
        let (users, _, features) = of(event);
        match step.checked_sub(1) {
            None => users.prefetch(*found),
            Some(step) => detector.prefetch(users.get(*found), features, step),
        }
    }
}
