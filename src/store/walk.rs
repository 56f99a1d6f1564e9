//! Walks through families and users, here or by the program that has the database open: that one is
//! asked for more and more entries at a time.

use std::collections::VecDeque;
use std::path::Path;

use rocksdb::{DB, DBRawIteratorWithThreadMode};
use serde_bytes::Bytes;

use super::protocol::{Answer, Ask};
use super::remote::{Borrowed, family_number, unexpected};
use super::view::{Entry, Order, walk_options};
use super::{Store, read_error};
use crate::schema;

/// Entries that are asked for first, and by how many times more each time, up to so many.
const N_FIRST: u32 = 32;
const GROWTH: u32 = 4;
const N_MAX: u32 = 4_096;

type Iterator<'a> = DBRawIteratorWithThreadMode<'a, DB>;

/// A walk through a family.
pub struct Walk<'a>(Way<'a>);

enum Way<'a> {
    Local {
        path: &'a Path,
        iterator: Iterator<'a>,
        order: Order,
    },
    Remote {
        remote: &'a Borrowed<'a>,
        family: u8,
        order: Order,
        /// The last key that was given, or where to begin.
        last: Vec<u8>,
        has_begun: bool,
        n_next: u32,
        entries: VecDeque<Entry>,
        has_ended: bool,
    },
}

impl Store {
    /// Walks a family as [`super::View::walk`] does.
    pub(super) fn walk(&self, family: &str, from: &[u8], order: Order) -> Walk<'_> {
        let iterator = (self.db).raw_iterator_cf_opt(self.family(family), walk_options());
        Walk::local(&self.path, iterator, from, order)
    }
}

impl<'a> Walk<'a> {
    pub(super) fn local(
        path: &'a Path,
        mut iterator: Iterator<'a>,
        from: &[u8],
        order: Order,
    ) -> Self {
        match order {
            Order::OldestFirst => iterator.seek(from),
            Order::NewestFirst => iterator.seek_for_prev(from),
        }
        Self(Way::Local {
            path,
            iterator,
            order,
        })
    }

    pub(super) fn remote(
        remote: &'a Borrowed<'a>,
        family: &str,
        from: &[u8],
        order: Order,
    ) -> Self {
        Self(Way::Remote {
            remote,
            family: family_number(family),
            order,
            last: from.to_vec(),
            has_begun: false,
            n_next: N_FIRST,
            entries: VecDeque::new(),
            has_ended: false,
        })
    }

    /// The next entry, or none at the end.
    ///
    /// # Errors
    /// If the store cannot be read on.
    pub fn next_entry(&mut self) -> anyhow::Result<Option<Entry>> {
        match &mut self.0 {
            Way::Local {
                path,
                iterator,
                order,
            } => next_of(iterator, *order, path),
            Way::Remote {
                remote,
                family,
                order,
                last,
                has_begun,
                n_next,
                entries,
                has_ended,
            } => {
                if entries.is_empty() && !*has_ended {
                    let asked = remote.ask(&Ask::Walk {
                        family: *family,
                        from: Bytes::new(last),
                        is_newest_first: *order == Order::NewestFirst,
                        is_after: *has_begun,
                        n_max: *n_next,
                    })?;
                    let Answer::Entries {
                        entries: more,
                        has_ended: is_all,
                    } = asked
                    else {
                        return Err(unexpected());
                    };
                    let more = more.into_iter();
                    entries.extend(more.map(|(key, value)| (key.into_vec(), value.into_vec())));
                    if let Some((key, _)) = entries.back() {
                        last.clone_from(key);
                    }
                    *has_begun = true;
                    *has_ended = is_all || entries.is_empty();
                    *n_next = n_next.saturating_mul(GROWTH).min(N_MAX);
                }
                Ok(entries.pop_front())
            }
        }
    }
}

fn next_of(
    iterator: &mut Iterator<'_>,
    order: Order,
    path: &Path,
) -> anyhow::Result<Option<Entry>> {
    let entry = iterator
        .item()
        .map(|(key, value)| (key.to_vec(), value.to_vec()));
    if entry.is_none() {
        let status = iterator.status();
        status.map_err(|error| read_error(path, &error))?;
        return Ok(None);
    }
    step(iterator, order);
    Ok(entry)
}

fn step(iterator: &mut Iterator<'_>, order: Order) {
    match order {
        Order::OldestFirst => iterator.next(),
        Order::NewestFirst => iterator.prev(),
    }
}

/// A walk through users, each by what its keys in the index begin with. Users whose hashes are equal
/// are one.
pub struct UserWalk<'a>(UserWay<'a>);

enum UserWay<'a> {
    Local {
        store: &'a Store,
        iterator: Iterator<'a>,
    },
    Remote {
        remote: &'a Borrowed<'a>,
        last: Option<[u8; 8]>,
        users: VecDeque<[u8; 8]>,
        has_ended: bool,
    },
}

impl<'a> UserWalk<'a> {
    pub(super) fn local(store: &'a Store, iterator: Option<Iterator<'a>>) -> Self {
        let all = || store.db.raw_iterator_cf(store.family(schema::BY_USER));
        let mut iterator = iterator.unwrap_or_else(all);
        iterator.seek_to_first();
        Self(UserWay::Local { store, iterator })
    }

    pub(super) fn remote(remote: &'a Borrowed<'a>) -> Self {
        Self(UserWay::Remote {
            remote,
            last: None,
            users: VecDeque::new(),
            has_ended: false,
        })
    }

    /// Goes to the first user behind `user`.
    pub(super) fn skip_to_after(&mut self, user: [u8; 8]) {
        match &mut self.0 {
            UserWay::Local { iterator, .. } => iterator.seek(schema::hash_end(user)),
            UserWay::Remote { last, .. } => *last = Some(user),
        }
    }

    /// The next user, or none at the end.
    ///
    /// # Errors
    /// If the store cannot be read on.
    pub fn next_user(&mut self) -> anyhow::Result<Option<[u8; 8]>> {
        match &mut self.0 {
            UserWay::Local { store, iterator } => {
                let Some(user) = iterator.key().and_then(|key| key.first_chunk()) else {
                    let status = iterator.status();
                    status.map_err(|error| read_error(&store.path, &error))?;
                    return Ok(None);
                };
                let user = *user;
                iterator.seek(schema::hash_end(user));
                Ok(Some(user))
            }
            UserWay::Remote {
                remote,
                last,
                users,
                has_ended,
            } => {
                if users.is_empty() && !*has_ended {
                    let ask = Ask::Users {
                        after: *last,
                        n_max: N_MAX,
                    };
                    let Answer::Users(more) = remote.ask(&ask)? else {
                        return Err(unexpected());
                    };
                    *has_ended = more.is_empty();
                    *last = more.last().copied().or(*last);
                    users.extend(more);
                }
                Ok(users.pop_front())
            }
        }
    }
}
