//! What stages have learned, on its way to where it is kept.

use std::sync::Arc;

/// What a task has learned: events of one task are scored against its own baselines.
pub struct Learned {
    /// See [`super::Block::task`].
    pub task: Arc<str>,
    /// Records of the users whose baselines have changed.
    pub baselines: Vec<Records>,
    /// The record of what all users share; empty if that is nothing.
    pub shared: Vec<u8>,
}

impl Learned {
    /// Users, each with the record, in the order of their names; what all share is before them, under no
    /// name.
    #[must_use]
    pub fn in_order(&self) -> Vec<(&[u8], &[u8])> {
        let n_users: usize = self.baselines.iter().map(Records::len).sum();
        let mut records = Vec::with_capacity(n_users + 1);
        if !self.shared.is_empty() {
            records.push((&[][..], &self.shared[..]));
        }
        let n_shared = records.len();
        records.extend(self.baselines.iter().flat_map(Records::iter));
        records[n_shared..].sort_unstable_by_key(|(user, _)| *user);
        records
    }

    /// Bytes of all that there is to keep.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        self.shared.len() + self.baselines.iter().map(Records::n_bytes).sum::<usize>()
    }
}

/// Records of some users, in one piece of memory.
#[derive(Default)]
pub struct Records {
    bytes: Vec<u8>,
    /// Where each name and each record end.
    ends: Vec<(usize, usize)>,
}

impl Records {
    /// Adds a user's record, which `write` appends.
    pub fn push(&mut self, user: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.extend_from_slice(user.as_bytes());
        let name_end = self.bytes.len();
        write(&mut self.bytes);
        self.ends.push((name_end, self.bytes.len()));
    }

    /// Gives back memory that was made room in.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// Users, each with the record.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.ends.iter().scan(0, |start, &(name_end, end)| {
            let name = &self.bytes[*start..name_end];
            *start = end;
            Some((name, &self.bytes[name_end..end]))
        })
    }

    /// Bytes of all names and records.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        self.bytes.len()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}
