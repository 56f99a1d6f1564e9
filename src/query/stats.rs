//! How much there is of what. Databases keep counts of their own; what several of them hold is counted
//! once, which takes more than adding up.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::parts::{compare, copy_in};
use super::{Found, Parts};
use crate::schema;
use crate::store::{BySeverity, Counters, Merge, UserWalk, View};
use crate::time::format_time;

/// Events that are looked up together, in order of time: neighbours are read from the disk at once.
const COPIES_MAX: usize = 1 << 16;

/// How much there is of what.
pub struct Stats {
    pub counters: Counters,
    pub n_users: u64,
    /// When the first event was, in ms.
    pub first_ms: Option<i64>,
    pub last_ms: Option<i64>,
    pub disk_bytes: u64,
}

/// The same as programs read it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Summary {
    pub events: u64,
    /// Events that have failed or were blocked.
    pub failures: u64,
    pub users: u64,
    /// When the first event was; none if there are no events.
    #[schema(format = DateTime)]
    pub first: Option<String>,
    #[schema(format = DateTime)]
    pub last: Option<String>,
    pub anomalies: BySeverity,
    /// Events of each type that is counted by itself.
    pub types: BTreeMap<String, u64>,
    /// Events of all other types.
    pub other_types: u64,
    pub disk_bytes: u64,
}

impl Stats {
    #[must_use]
    pub fn summary(&self) -> Summary {
        let counters = &self.counters;
        let types = counters.types_present().into_iter();
        Summary {
            events: counters.events,
            failures: counters.failures,
            users: self.n_users,
            first: self.first_ms.map(format_time),
            last: self.last_ms.map(format_time),
            anomalies: counters.anomalies,
            types: types.map(|(name, n)| (name.to_owned(), n)).collect(),
            other_types: counters.other_types,
            disk_bytes: self.disk_bytes,
        }
    }
}

/// Counts what the databases hold together of events and anomalies, without looking at anything else.
///
/// # Errors
/// If a database cannot be read.
pub fn counters(parts: Parts<'_>) -> anyhow::Result<Counters> {
    match parts.views() {
        [view] => view.counters(),
        _ => Ok(stats(parts)?.counters),
    }
}

/// Counts what the databases hold together.
///
/// # Errors
/// If a database cannot be read.
pub fn stats(parts: Parts<'_>) -> anyhow::Result<Stats> {
    let views = parts.views();
    let mut counts = Vec::new();
    let mut disk_bytes = 0;
    for view in views {
        counts.push(view.counters()?);
        disk_bytes += view.disk_bytes()?.values().sum::<u64>();
    }
    let ends = ends(views)?;
    let n_users = each_copy(parts, ends.shared(), |i, found| {
        let view = found.block.view(&found.block.events[0]);
        let severity = found.anomaly.as_ref().map(|anomaly| anomaly.severity);
        counts[i].remove_copy(view.kind, view.is_failure, severity);
    })?;
    let mut counters = Counters::default();
    for count in &counts {
        counters.add(count);
    }
    Ok(Stats {
        counters,
        n_users,
        first_ms: ends.first_ms(),
        last_ms: ends.last_ms(),
        disk_bytes,
    })
}

/// When the first and the last event of each database are, those of the most extreme first.
pub(super) struct Ends {
    firsts: Vec<i64>,
    lasts: Vec<i64>,
}

pub(super) fn ends(views: &[View<'_>]) -> anyhow::Result<Ends> {
    let (mut firsts, mut lasts) = (Vec::new(), Vec::new());
    for view in views {
        firsts.extend(time_of(view.first_event_key()?));
        lasts.extend(time_of(view.last_event_key()?));
    }
    firsts.sort_unstable();
    lasts.sort_unstable_by(|one, other| other.cmp(one));
    Ok(Ends { firsts, lasts })
}

impl Ends {
    pub(super) fn first_ms(&self) -> Option<i64> {
        self.firsts.first().copied()
    }

    pub(super) fn last_ms(&self) -> Option<i64> {
        self.lasts.first().copied()
    }

    /// From when until when two databases can hold the same event; the other way round if they cannot.
    pub(super) fn shared(&self) -> (i64, i64) {
        let from_ms = self.firsts.get(1).copied().unwrap_or(i64::MAX);
        (from_ms, self.lasts.get(1).copied().unwrap_or(i64::MIN))
    }
}

/// Calls `each` with every copy between two times that does not count, since another database has the same
/// event, and with the place of its database. Returns how many users there are.
///
/// # Errors
/// If a database cannot be read, or the question is ended.
pub(super) fn each_copy(
    parts: Parts<'_>,
    (from_ms, until_ms): (i64, i64),
    each: impl FnMut(usize, &Found),
) -> anyhow::Result<u64> {
    let views = parts.views();
    let mut copies = Copies {
        views,
        from_ms,
        until_ms,
        keys: Vec::new(),
        each,
    };
    let n_users = count_users(views, |user, holders| {
        parts.check()?;
        copies.find(user, holders)
    })?;
    copies.take_out()?;
    Ok(n_users)
}

fn time_of(key: Option<Vec<u8>>) -> Option<i64> {
    schema::split_event_key(&key?).map(|(ms, _)| ms)
}

/// Counts users; tells of each which databases have events of them.
fn count_users(
    views: &[View<'_>],
    mut each: impl FnMut([u8; 8], &[usize]) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let mut walks: Vec<(UserWalk<'_>, Option<[u8; 8]>)> = Vec::new();
    for view in views {
        let mut walk = view.walk_users();
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

/// Events that several databases have counted.
struct Copies<'a, Each> {
    views: &'a [View<'a>],
    from_ms: i64,
    until_ms: i64,
    /// Those that nobody has been told of.
    keys: Vec<Vec<u8>>,
    /// Told of each copy that does not count.
    each: Each,
}

impl<Each: FnMut(usize, &Found)> Copies<'_, Each> {
    /// Finds those of a user whom these databases have events of.
    fn find(&mut self, user: [u8; 8], holders: &[usize]) -> anyhow::Result<()> {
        if holders.len() < 2 || self.from_ms > self.until_ms {
            return Ok(());
        }
        let mut from = user.to_vec();
        from.extend_from_slice(&self.from_ms.to_be_bytes());
        let views = holders.iter().map(|&i| &self.views[i]);
        let mut entries = Merge::open(views, schema::BY_USER, &from)?;
        while let Some(((index_key, _), n_stores)) = entries.next_of_all()? {
            let Some((timestamp_ms, event_id)) = schema::split_user_key(&index_key) else {
                continue;
            };
            if !index_key.starts_with(&user) || timestamp_ms > self.until_ms {
                break;
            }
            if n_stores < 2 {
                continue;
            }
            let mut key = Vec::new();
            schema::push_event_key(&mut key, timestamp_ms, event_id);
            self.keys.push(key);
            if self.keys.len() == COPIES_MAX {
                self.take_out()?;
            }
        }
        Ok(())
    }

    /// Tells of the copies that do not count.
    fn take_out(&mut self) -> anyhow::Result<()> {
        self.keys.sort_unstable();
        for key in self.keys.drain(..) {
            let mut copies = Vec::new();
            for (i, view) in self.views.iter().enumerate() {
                copies.extend(copy_in(view, &key)?.map(|found| (found, i)));
            }
            copies.sort_by(|(one, _), (other, _)| compare(other, one));
            for (found, i) in copies.into_iter().skip(1) {
                (self.each)(i, &found);
            }
        }
        Ok(())
    }
}
