//! Events as they are stored: those that match a question, one after the other.

use std::time::Duration;

use super::{Filter, Found, Wanted, find, matches};
use crate::schema;
use crate::store::{Follow, Live};

/// Whoever watches a database.
pub struct Watch<'a> {
    live: &'a Live,
    follow: Follow<'a>,
    wanted: Wanted,
    filter: Filter,
}

/// What was seen.
#[derive(Default)]
pub struct Seen {
    /// In the order in which they were stored.
    pub found: Vec<Found>,
    /// How many more events there were, whether they match or not: too many to be looked at.
    pub n_skipped: u64,
    /// A program was killed before it had told all: what it stored last may not be here.
    pub is_broken: bool,
}

impl<'a> Watch<'a> {
    /// Watches for events that match, from now on. Their number has no limit.
    #[must_use]
    pub fn begin(live: &'a Live, wanted: Wanted, filter: Filter) -> Self {
        let only_anomalies =
            wanted == Wanted::Anomalies || filter.severity.is_some() || filter.min_score.is_some();
        Self {
            live,
            follow: live.follow(only_anomalies),
            wanted,
            filter,
        }
    }

    /// What was stored since. Waits for a while until there is something.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn next(&mut self, patience: Duration) -> anyhow::Result<Seen> {
        let news = self.follow.next(patience);
        let may_match = |severity: u8| {
            let severity = schema::severity_of_byte(severity);
            (self.filter.severity).is_none_or(|min| severity.is_some_and(|it| it >= min))
        };
        let keys = news.keys.into_iter();
        let keys = keys.filter(|(_, severity)| may_match(*severity));
        let keys: Vec<Vec<u8>> = keys.map(|(key, _)| key.into_vec()).collect();
        if keys.is_empty() {
            return Ok(Seen {
                found: Vec::new(),
                n_skipped: news.n_skipped,
                is_broken: news.is_broken,
            });
        }
        let found = Live::ask(std::slice::from_ref(self.live), |views| {
            let mut found = Vec::new();
            for key in &keys {
                let one = find(&views[0], key.clone())?;
                found.extend(one.filter(|it| matches(it, self.wanted, &self.filter)));
            }
            Ok(found)
        })?;
        Ok(Seen {
            found,
            n_skipped: news.n_skipped,
            is_broken: news.is_broken,
        })
    }
}
