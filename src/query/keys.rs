//! Candidate events for a question, in order of time, from the family or index that has the
//! fewest of them, of all databases.

use super::high::High;
use super::{Filter, Parts, Wanted};
use crate::record::anomaly::Severity;
use crate::schema;
use crate::store::{Order, View, Walk};

/// Entries that a walk passes over until it looks whether the question is to go on.
const STEPS_UNCHECKED: usize = 1_024;

/// Event keys in order of time.
pub(super) struct Keys<'a> {
    parts: Parts<'a>,
    walks: Vec<Ahead<'a>>,
    /// Of each part, if only high scores are asked for and it knows where they are.
    highs: Vec<Option<High<'a>>>,
    filter: &'a Filter,
}

/// An event that may match.
pub(super) struct Candidate {
    pub(super) key: Vec<u8>,
    /// Who may hold the copy of it that counts, by the place among the parts; the event, if it was read
    /// already. None if it can be anybody.
    pub(super) holders: Option<Vec<(usize, Option<Vec<u8>>)>>,
}

/// A walk, and what it gives next.
struct Ahead<'a> {
    walk: Walk<'a>,
    /// Whose it is, by the place among the parts.
    part: usize,
    kind: Kind,
    next: Option<Next>,
    has_ended: bool,
    /// The stretch that the walk is in, where scores are high enough.
    high: Option<i64>,
}

/// The key of an event, and the event if it stood beside it.
type Next = (Vec<u8>, Option<Vec<u8>>);

#[derive(Clone, Copy)]
enum Kind {
    /// All events.
    Events,
    /// All anomalies. Who has none does not have the copy that counts.
    Anomalies,
    /// All analyses. Another copy may count for another reason.
    Analyses,
    User {
        prefix: [u8; 8],
        only_anomalies: bool,
    },
    Severity(Severity),
}

impl<'a> Keys<'a> {
    pub(super) fn open(
        parts: Parts<'a>,
        wanted: Wanted,
        filter: &'a Filter,
    ) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        let mut highs = Vec::new();
        for (part, view) in parts.views().iter().enumerate() {
            let walks = walks(view, wanted, filter);
            let severities = walks.iter().filter_map(|(_, kind)| match kind {
                Kind::Severity(severity) => Some(*severity),
                _ => None,
            });
            let severities: Vec<Severity> = severities.collect();
            highs.push(match filter.min_score {
                Some(min) if !severities.is_empty() => {
                    High::open(view, &severities, (start_ms(filter), filter.order), min)?
                }
                _ => None,
            });
            all.extend(walks.into_iter().map(|(walk, kind)| Ahead {
                walk,
                part,
                kind,
                next: None,
                has_ended: false,
                high: None,
            }));
        }
        Ok(Self {
            parts,
            walks: all,
            highs,
            filter,
        })
    }

    /// The next key within the range of time and beyond the cursor, once however many have it.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Candidate>> {
        loop {
            self.parts.check()?;
            for ahead in &mut self.walks {
                if ahead.next.is_none() && !ahead.has_ended {
                    let high = self.highs[ahead.part].as_mut();
                    ahead.next = ahead.step(self.parts, self.filter, high)?;
                    ahead.has_ended = ahead.next.is_none();
                }
            }
            let nexts = self.walks.iter().enumerate();
            let nexts = nexts.filter_map(|(i, ahead)| Some((&ahead.next.as_ref()?.0, i)));
            let first = match self.filter.order {
                Order::OldestFirst => nexts.min(),
                Order::NewestFirst => nexts.max(),
            };
            let Some((_, first)) = first else {
                return Ok(None);
            };
            let first = &mut self.walks[first];
            let (key, event) = first.next.take().expect("it was chosen for it");
            let is_known = matches!(first.kind, Kind::Events | Kind::Anomalies);
            let mut holders = vec![(first.part, event)];
            // Several databases may have it.
            for ahead in &mut self.walks {
                if let Some((_, event)) = ahead.next.take_if(|(next, _)| *next == key) {
                    holders.push((ahead.part, event));
                }
            }
            let timestamp_ms = schema::split_event_key(&key).map_or(0, |(ms, _)| ms);
            if is_past(self.filter, timestamp_ms) {
                return Ok(None);
            }
            let is_before = match self.filter.order {
                Order::OldestFirst => timestamp_ms < self.filter.since_ms,
                Order::NewestFirst => timestamp_ms > self.filter.until_ms,
            };
            let is_seen = self
                .filter
                .after
                .as_ref()
                .is_some_and(|after| match self.filter.order {
                    Order::OldestFirst => key <= *after,
                    Order::NewestFirst => key >= *after,
                });
            if !is_before && !is_seen {
                let holders = is_known.then_some(holders);
                return Ok(Some(Candidate { key, holders }));
            }
        }
    }
}

/// Where to begin in time; what the cursor or the range excludes is skipped later.
fn start_ms(filter: &Filter) -> i64 {
    let start_ms = match filter.order {
        Order::OldestFirst => filter.since_ms,
        Order::NewestFirst => filter.until_ms,
    };
    let after = filter.after.as_deref();
    let after_ms = after.and_then(schema::split_event_key).map(|(ms, _)| ms);
    match (filter.order, after_ms) {
        (Order::OldestFirst, Some(after_ms)) => start_ms.max(after_ms),
        (Order::NewestFirst, Some(after_ms)) => start_ms.min(after_ms),
        (_, None) => start_ms,
    }
}

/// Walks of one database in which every event that can match is found.
fn walks<'a>(view: &'a View<'_>, wanted: Wanted, filter: &Filter) -> Vec<(Walk<'a>, Kind)> {
    let only_anomalies =
        wanted == Wanted::Anomalies || filter.severity.is_some() || filter.min_score.is_some();
    let order = filter.order;
    let start_ms = start_ms(filter);
    let from_time = |family| match order {
        Order::OldestFirst => view.walk(family, &schema::time_prefix(start_ms), order),
        Order::NewestFirst => view.walk(
            family,
            &schema::time_prefix(start_ms.saturating_add(1)),
            order,
        ),
    };
    if let Some(user) = &filter.user {
        let mut from = Vec::new();
        schema::push_user_prefix(&mut from, user, start_ms.max(0));
        let prefix = *from.first_chunk().expect("a hash comes first");
        if order == Order::NewestFirst {
            from.push(0xFF);
        }
        let walk = view.walk(schema::BY_USER, &from, order);
        let kind = Kind::User {
            prefix,
            only_anomalies,
        };
        vec![(walk, kind)]
    } else if filter.severity.is_some() || filter.min_score.is_some() {
        Severity::ALL
            .into_iter()
            .filter(|severity| filter.severity.is_none_or(|min| *severity >= min))
            .map(|severity| {
                let walk = view.walk_severity(severity, start_ms.max(0), order);
                (walk, Kind::Severity(severity))
            })
            .collect()
    } else if only_anomalies {
        vec![(from_time(schema::ANOMALIES), Kind::Anomalies)]
    } else if wanted == Wanted::Analyses {
        vec![(from_time(schema::AI_ANALYSIS), Kind::Analyses)]
    } else {
        vec![(from_time(schema::EVENTS), Kind::Events)]
    }
}

impl<'a> Ahead<'a> {
    /// The event of the next entry that can match; none at the end of the walk, or once all that comes is
    /// out of the range of time.
    fn step(
        &mut self,
        parts: Parts<'_>,
        filter: &Filter,
        mut high: Option<&mut High<'a>>,
    ) -> anyhow::Result<Option<Next>> {
        let mut n_steps: usize = 0;
        while let Some((key, value)) = self.walk.next_entry()? {
            n_steps += 1;
            if n_steps.is_multiple_of(STEPS_UNCHECKED) {
                parts.check()?;
            }
            let split = match self.kind {
                Kind::Events => return Ok(Some((key, Some(value)))),
                Kind::Anomalies | Kind::Analyses => return Ok(Some((key, None))),
                Kind::User {
                    prefix,
                    only_anomalies,
                } => {
                    if !key.starts_with(&prefix) {
                        return Ok(None);
                    }
                    let split = schema::split_user_key(&key);
                    if only_anomalies && value == [0] {
                        if split.is_some_and(|(ms, _)| is_past(filter, ms)) {
                            return Ok(None);
                        }
                        continue;
                    }
                    split
                }
                Kind::Severity(severity) => {
                    let split = schema::split_severity_key(&key);
                    let ms = split.map(|(ms, _)| ms);
                    if key.first() != Some(&(severity as u8))
                        || ms.is_some_and(|ms| is_past(filter, ms))
                    {
                        break;
                    }
                    if let (Some(high), Some(ms)) = (&mut high, ms)
                        && self.high != Some(schema::stretch_at(ms))
                    {
                        let number = schema::stretch_at(ms);
                        let Some(next) = high.next(severity, number)? else {
                            return Ok(None);
                        };
                        self.high = Some(next);
                        if next != number {
                            self.walk = high.walk_from(severity, next);
                            continue;
                        }
                    }
                    let score = value.try_into().map_or(1.0, f64::from_be_bytes);
                    if filter.min_score.is_some_and(|min| score < min) {
                        continue;
                    }
                    split
                }
            };
            if let Some((timestamp_ms, event_id)) = split {
                let mut event_key = Vec::new();
                schema::push_event_key(&mut event_key, timestamp_ms, event_id);
                return Ok(Some((event_key, None)));
            }
        }
        if let (Kind::Severity(severity), Some(high)) = (self.kind, high) {
            high.leave(severity);
        }
        Ok(None)
    }
}

/// Whether a walk in order of time has left the range that is asked for.
fn is_past(filter: &Filter, timestamp_ms: i64) -> bool {
    match filter.order {
        Order::OldestFirst => timestamp_ms > filter.until_ms,
        Order::NewestFirst => timestamp_ms < filter.since_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::{Stop, Stopped};
    use crate::store::{Access, Store, Tuning};

    /// A user who has very many events, and no anomaly, held a question up far beyond its time.
    #[test]
    fn a_walk_that_finds_nothing_ends_when_the_question_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), Access::Write, &Tuning::default());
        let store = store.expect("it opens");
        for timestamp_ms in 0..2_000 {
            let mut key = Vec::new();
            schema::push_user_key(&mut key, "u", timestamp_ms, "e");
            store.put(schema::BY_USER, &key, &[0]);
        }
        let views = [store.view()];
        let filter = Filter {
            user: Some("u".to_owned()),
            ..Filter::default()
        };
        let step = |stop: &Stop| {
            let parts = Parts::of(&views).until(stop);
            let mut keys = Keys::open(parts, Wanted::Anomalies, &filter).expect("it opens");
            let [ahead] = &mut keys.walks[..] else {
                panic!("it is one walk");
            };
            ahead.step(parts, &filter, None)
        };
        let patience = Stop::within(std::time::Duration::from_secs(3_600));
        assert!(step(&patience).expect("it has time").is_none());
        patience.request();
        assert!(step(&patience).is_err_and(|error| error.is::<Stopped>()));
    }
}
