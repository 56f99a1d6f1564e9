//! How much there is of what. Databases keep counts of their own; what several of them hold is counted
//! once, which takes more than adding up.

use super::Parts;
use super::parts::{compare, copy_in};
use crate::schema;
use crate::store::{Counters, Merge, Store, UserWalk};

/// How much there is of what.
pub struct Stats {
    pub counters: Counters,
    pub n_users: u64,
    /// When the first event was, in ms.
    pub first_ms: Option<i64>,
    pub last_ms: Option<i64>,
    pub disk_bytes: u64,
}

/// Counts what the databases hold together.
///
/// # Errors
/// If a database cannot be read.
pub fn stats(parts: Parts<'_>) -> anyhow::Result<Stats> {
    let stores = parts.stores();
    let mut counts = Vec::new();
    let mut disk_bytes = 0;
    let (mut firsts, mut lasts) = (Vec::new(), Vec::new());
    for store in stores {
        counts.push(store.counters()?);
        disk_bytes += store.disk_bytes()?.values().sum::<u64>();
        firsts.extend(time_of(store.first_event_key()?));
        lasts.extend(time_of(store.last_event_key()?));
    }
    firsts.sort_unstable();
    lasts.sort_unstable_by(|one, other| other.cmp(one));
    // Two databases can hold the same event between these times only.
    let shared_ms = firsts.get(1).copied().zip(lasts.get(1).copied());
    let n_users = count_users(stores, |user, holders| match shared_ms {
        Some((from_ms, until_ms)) if holders.len() > 1 && from_ms <= until_ms => {
            remove_copies(stores, holders, user, (from_ms, until_ms), &mut counts)
        }
        _ => Ok(()),
    })?;
    let mut counters = Counters::default();
    for count in &counts {
        counters.add(count);
    }
    Ok(Stats {
        counters,
        n_users,
        first_ms: firsts.first().copied(),
        last_ms: lasts.first().copied(),
        disk_bytes,
    })
}

fn time_of(key: Option<Vec<u8>>) -> Option<i64> {
    schema::split_event_key(&key?).map(|(ms, _)| ms)
}

/// Counts users; tells of each which stores have events of them.
fn count_users(
    stores: &[Store],
    mut each: impl FnMut([u8; 8], &[usize]) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let mut walks: Vec<(UserWalk<'_>, Option<[u8; 8]>)> = Vec::new();
    for store in stores {
        let mut walk = store.walk_users();
        let first = walk.next_user()?;
        walks.push((walk, first));
    }
    let mut n_users = 0;
    let mut holders = Vec::new();
    while let Some(user) = walks.iter().filter_map(|(_, next)| *next).min() {
        n_users += 1;
        holders.clear();
        for (i, (walk, next)) in walks.iter_mut().enumerate() {
            if *next == Some(user) {
                *next = walk.next_user()?;
                holders.push(i);
            }
        }
        each(user, &holders)?;
    }
    Ok(n_users)
}

/// Takes the copies of a user's events that do not count out of the counts of their stores.
fn remove_copies(
    stores: &[Store],
    holders: &[usize],
    user: [u8; 8],
    (from_ms, until_ms): (i64, i64),
    counts: &mut [Counters],
) -> anyhow::Result<()> {
    let mut from = user.to_vec();
    from.extend_from_slice(&from_ms.to_be_bytes());
    let of_holders = holders.iter().map(|&i| &stores[i]);
    let mut entries = Merge::open(of_holders, schema::BY_USER, &from)?;
    while let Some(((index_key, _), n_stores)) = entries.next_of_all()? {
        let Some((timestamp_ms, event_id)) = schema::split_user_key(&index_key) else {
            continue;
        };
        if !index_key.starts_with(&user) || timestamp_ms > until_ms {
            break;
        }
        if n_stores < 2 {
            continue;
        }
        let mut key = Vec::new();
        schema::push_event_key(&mut key, timestamp_ms, event_id);
        let mut copies = Vec::new();
        for &i in holders {
            copies.extend(copy_in(&stores[i], &key)?.map(|found| (i, found)));
        }
        copies.sort_by(|(_, one), (_, other)| compare(other, one));
        for (i, found) in copies.iter().skip(1) {
            let view = found.block.view(&found.block.events[0]);
            let severity = found.anomaly.as_ref().map(|anomaly| anomaly.severity);
            counts[*i].remove_copy(view.kind, view.is_failure, severity);
        }
    }
    Ok(())
}
