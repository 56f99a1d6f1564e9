//! The states of some users, found by what stands for their names.

use std::hash::BuildHasher;

use compact_str::CompactString;
use hashbrown::HashTable;
use prefetch_index::prefetch_index;
use siphasher::sip::SipHasher13;

/// What stands for a user's name. To pass for another user takes 2^64 tries at a name, so names need
/// not be compared, which would fetch them from where they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserKey {
    /// SipHash-1-3 of the name, the same for ever.
    pub stable: u64,
    /// Of the other one, with a key that nobody knows: names cannot be made up for one place in a
    /// table.
    pub table: u64,
}

impl UserKey {
    #[must_use]
    pub fn of(name: &str, hasher: &impl BuildHasher) -> Self {
        let stable = SipHasher13::new_with_keys(SALT, 0).hash(name.as_bytes());
        Self {
            stable,
            table: hasher.hash_one(stable),
        }
    }
}

/// Tells names from other texts that are hashed.
const SALT: u64 = 12;

/// States by user.
pub struct Users<T> {
    /// Indexes into `slots`, found by the hash of the name.
    index: HashTable<u32>,
    slots: Vec<Slot<T>>,
    /// Indexes of users whose states have changed, each once.
    changed: Vec<u32>,
}

struct Slot<T> {
    key: UserKey,
    name: CompactString,
    is_changed: bool,
    state: T,
}

impl<T> Default for Users<T> {
    fn default() -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            changed: Vec::new(),
        }
    }
}

impl<T> Users<T> {
    /// Where the state of a user is, if there is one.
    #[must_use]
    pub fn find(&self, key: UserKey) -> Option<u32> {
        let is_same = |&i: &u32| self.slots[i as usize].key == key;
        self.index.find(key.table, is_same).copied()
    }

    /// Fetches what stands at a place.
    pub fn prefetch(&self, i: u32) {
        prefetch_index(&self.slots, i as usize);
    }

    /// The state at a place.
    #[must_use]
    pub fn get(&self, i: u32) -> &T {
        &self.slots[i as usize].state
    }

    /// The state of a user, which is about to change. It may be known where it is.
    pub fn get_mut<'a>(
        &mut self,
        found: Option<u32>,
        key: UserKey,
        new: impl FnOnce() -> (&'a str, T),
    ) -> &mut T {
        let i = found.unwrap_or_else(|| self.find_or_add(key, new));
        let slot = &mut self.slots[i as usize];
        if !slot.is_changed {
            slot.is_changed = true;
            self.changed.push(i);
        }
        &mut slot.state
    }

    /// Puts a state that was saved in place of what is there.
    pub fn insert(&mut self, key: UserKey, name: &str, state: T) {
        let mut state = Some(state);
        let i = self.find_or_add(key, || (name, state.take().expect("it is called once")));
        if let Some(state) = state {
            self.slots[i as usize].state = state;
        }
    }

    /// Calls `each` with the users whose states have changed since the last call, in no order.
    pub fn take_changed(&mut self, mut each: impl FnMut(&str, &T)) {
        for i in self.changed.drain(..) {
            let slot = &mut self.slots[i as usize];
            slot.is_changed = false;
            each(&slot.name, &slot.state);
        }
    }

    /// All users, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.slots
            .iter()
            .map(|slot| (slot.name.as_str(), &slot.state))
    }

    #[must_use]
    pub fn n_users(&self) -> usize {
        self.slots.len()
    }

    fn find_or_add<'a>(&mut self, key: UserKey, new: impl FnOnce() -> (&'a str, T)) -> u32 {
        if let Some(i) = self.find(key) {
            return i;
        }
        let i = self.slots.len() as u32;
        let (name, state) = new();
        self.slots.push(Slot {
            key,
            name: name.into(),
            is_changed: false,
            state,
        });
        let slots = &self.slots;
        self.index
            .insert_unique(key.table, i, |&i| slots[i as usize].key.table);
        i
    }
}
