//! The states of some users, found by what stands for their names.

use std::hash::BuildHasher;

use compact_str::CompactString;
use hashbrown::HashTable;
use hashbrown::hash_table::OccupiedEntry;
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
///
/// Places of states stay the same until some are taken out.
pub struct Users<T> {
    /// Indexes into `slots`, found by the hash of the name.
    index: HashTable<u32>,
    slots: Vec<Slot<T>>,
    /// Changes up to now belong to the checkpoint of this number.
    checkpoint: u32,
    /// Bytes of the states that have changed since the last checkpoint.
    n_bytes_changed: usize,
    /// Bytes of all states and what is around them.
    n_bytes: usize,
    /// Where the search for states that nobody needs goes on.
    hand: usize,
}

struct Slot<T> {
    key: UserKey,
    name: CompactString,
    /// The checkpoint that the last change belongs to.
    changed_in: u32,
    /// Looked at since the hand came by.
    is_recent: bool,
    state: T,
}

impl<T> Slot<T> {
    /// Bytes besides the state's own: the slot, its place in the index, a name of its own.
    fn overhead_bytes(&self) -> usize {
        let of_name = if self.name.is_heap_allocated() {
            self.name.capacity()
        } else {
            0
        };
        // Tables grow by doubling: half of one is empty on the average.
        size_of::<Self>() * 3 / 2 + 10 + of_name
    }
}

impl<T> Default for Users<T> {
    fn default() -> Self {
        Self::after(0)
    }
}

impl<T> Users<T> {
    /// No states, before so many checkpoints have been made.
    #[must_use]
    pub fn after(n_checkpoints: u32) -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            checkpoint: n_checkpoints + 1,
            n_bytes_changed: 0,
            n_bytes: 0,
            hand: 0,
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

    /// The state of a user, which is about to change; made if there is none. It may be known where
    /// it is. `n_bytes` tells how many bytes a state takes.
    pub fn change<'a, R>(
        &mut self,
        found: Option<u32>,
        key: UserKey,
        new: impl FnOnce() -> (&'a str, T),
        n_bytes: impl Fn(&T) -> usize,
        change: impl FnOnce(&mut T) -> R,
    ) -> R {
        let i = found.or_else(|| self.find(key)).unwrap_or_else(|| {
            let (name, state) = new();
            self.add(key, name, state, &n_bytes)
        });
        let slot = &mut self.slots[i as usize];
        slot.is_recent = true;
        let before = n_bytes(&slot.state);
        if slot.changed_in != self.checkpoint {
            slot.changed_in = self.checkpoint;
            self.n_bytes_changed += before + slot.overhead_bytes();
        }
        let result = change(&mut slot.state);
        let after = n_bytes(&slot.state);
        self.n_bytes = self.n_bytes + after - before;
        self.n_bytes_changed = self.n_bytes_changed + after - before;
        result
    }

    /// Counts the state at a place as changed: it is about to be.
    pub fn mark_changed(&mut self, i: u32, n_bytes: impl Fn(&T) -> usize) {
        let slot = &mut self.slots[i as usize];
        if slot.changed_in != self.checkpoint {
            slot.changed_in = self.checkpoint;
            self.n_bytes_changed += n_bytes(&slot.state) + slot.overhead_bytes();
        }
    }

    /// Puts a state that was saved in place of what is there.
    pub fn insert(
        &mut self,
        key: UserKey,
        name: &str,
        state: T,
        n_bytes: impl Fn(&T) -> usize,
    ) -> u32 {
        match self.find(key) {
            None => self.add(key, name, state, &n_bytes),
            Some(i) => {
                let slot = &mut self.slots[i as usize];
                let (before, after) = (n_bytes(&slot.state), n_bytes(&state));
                self.n_bytes = self.n_bytes + after - before;
                if slot.changed_in == self.checkpoint {
                    self.n_bytes_changed = self.n_bytes_changed + after - before;
                }
                slot.state = state;
                i
            }
        }
    }

    /// Begins another checkpoint, and calls `each` with the users whose states have changed in the
    /// one that ends, in no order.
    pub fn take_changed(&mut self, mut each: impl FnMut(&str, &T)) {
        let ended = self.checkpoint;
        let changed = |slot: &&Slot<T>| slot.changed_in == ended;
        for slot in self.slots.iter().filter(changed) {
            each(&slot.name, &slot.state);
        }
        self.checkpoint += 1;
        self.n_bytes_changed = 0;
    }

    /// Takes out the state of a user.
    pub fn take(&mut self, key: UserKey, n_bytes: impl Fn(&T) -> usize) -> Option<T> {
        let i = self.find(key)?;
        Some(self.take_out(i as usize, n_bytes).state)
    }

    /// Takes out a state that nobody has looked at for long: whose it was, and the state. None if all that are left
    /// have changed after the checkpoint `kept`.
    pub fn take_idle(
        &mut self,
        kept: u32,
        n_bytes: impl Fn(&T) -> usize,
    ) -> Option<(UserKey, CompactString, T)> {
        // The first round may do no more than forget who was looked at.
        for _ in 0..self.slots.len() * 2 {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let slot = &mut self.slots[self.hand];
            if slot.is_recent || slot.changed_in > kept {
                slot.is_recent = false;
                self.hand += 1;
                continue;
            }
            let slot = self.take_out(self.hand, n_bytes);
            return Some((slot.key, slot.name, slot.state));
        }
        None
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

    /// Bytes of the states that have changed since the last checkpoint, and of what is around them.
    #[must_use]
    pub fn n_bytes_changed(&self) -> usize {
        self.n_bytes_changed
    }

    /// Bytes of all states and what is around them.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    fn add(&mut self, key: UserKey, name: &str, state: T, n_bytes: impl Fn(&T) -> usize) -> u32 {
        let i = self.slots.len() as u32;
        let slot = Slot {
            key,
            name: name.into(),
            // Saved states are loaded as unchanged: they belong to a checkpoint before the first.
            changed_in: 0,
            is_recent: true,
            state,
        };
        self.n_bytes += n_bytes(&slot.state) + slot.overhead_bytes();
        self.slots.push(slot);
        let slots = &self.slots;
        self.index
            .insert_unique(key.table, i, |&i| slots[i as usize].key.table);
        i
    }

    /// The place in the index of the slot at `i`, which has this key.
    fn entry(&mut self, key: UserKey, i: usize) -> OccupiedEntry<'_, u32> {
        let is_it = |&j: &u32| j as usize == i;
        let entry = self.index.find_entry(key.table, is_it);
        entry.expect("all slots are in the index")
    }

    /// Takes out a slot; the last one takes its place.
    fn take_out(&mut self, i: usize, n_bytes: impl Fn(&T) -> usize) -> Slot<T> {
        let last = self.slots.len() - 1;
        self.entry(self.slots[i].key, i).remove();
        if i != last {
            *self.entry(self.slots[last].key, last).get_mut() = i as u32;
        }
        let slot = self.slots.swap_remove(i);
        let n_bytes_freed = n_bytes(&slot.state) + slot.overhead_bytes();
        self.n_bytes -= n_bytes_freed;
        if slot.changed_in == self.checkpoint {
            self.n_bytes_changed -= n_bytes_freed;
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(i: u64) -> UserKey {
        // All in one place of the table, so that only the rest of the key tells them apart.
        UserKey {
            stable: i,
            table: 7,
        }
    }

    fn with_users(n_users: u64) -> Users<Vec<u8>> {
        let mut users = Users::default();
        for i in 0..n_users {
            let name = i.to_string();
            users.change(None, key(i), || (&name, vec![0; 100]), Vec::len, |_| ());
        }
        users
    }

    fn of_slots(users: &Users<Vec<u8>>) -> usize {
        let slots = users.slots.iter();
        slots
            .map(|slot| slot.state.len() + slot.overhead_bytes())
            .sum()
    }

    /// Takes out states until there are no more bytes than that; whose they were.
    fn make_room(users: &mut Users<Vec<u8>>, n_bytes_max: usize, kept: u32) -> Vec<String> {
        let mut taken = Vec::new();
        while users.n_bytes() > n_bytes_max
            && let Some((key_taken, name, _)) = users.take_idle(kept, Vec::len)
        {
            assert_eq!(key_taken, key(name.parse().expect("a number")));
            taken.push(name.into());
        }
        taken
    }

    #[test]
    fn what_was_looked_at_stays() {
        let mut users = with_users(100);
        let n_bytes = users.n_bytes();
        // All are recent: a round of the hand, then the first ones go.
        let mut taken = make_room(&mut users, n_bytes - 1, 1);
        assert_eq!(taken, ["0"]);
        users.change(
            None,
            key(50),
            || unreachable!(),
            Vec::len,
            |state| state.push(1),
        );
        assert_eq!(users.n_bytes(), of_slots(&users));
        taken.extend(make_room(&mut users, n_bytes / 2, 1));
        assert!(taken.len() >= 49, "{}", taken.len());
        assert!(users.n_bytes() <= n_bytes / 2);
        assert_eq!(users.n_bytes(), of_slots(&users));
        assert_eq!(users.n_users() + taken.len(), 100);
        for i in 0..100 {
            let name = i.to_string();
            let found = users.find(key(i));
            assert_eq!(found.is_none(), taken.contains(&name), "{i}");
            if let Some(found) = found {
                assert_eq!(users.slots[found as usize].name, name);
            }
        }
        assert!(users.find(key(50)).is_some());
        assert_eq!(
            users.take(key(50), Vec::len),
            Some([vec![0; 100], vec![1]].concat())
        );
        assert_eq!(users.take(key(50), Vec::len), None);
        assert_eq!(users.n_bytes(), of_slots(&users));
        make_room(&mut users, 0, 1);
        assert_eq!((users.n_users(), users.n_bytes()), (0, 0));
    }

    #[test]
    fn what_no_checkpoint_holds_stays() {
        let mut users = with_users(10);
        assert_eq!(users.n_bytes_changed(), users.n_bytes());
        assert!(make_room(&mut users, 0, 0).is_empty());
        users.take_changed(|_, _| ());
        assert_eq!(users.n_bytes_changed(), 0);
        let before = users.n_bytes();
        let found = users.find(key(3)).expect("it is there");
        for _ in 0..2 {
            users.mark_changed(found, Vec::len);
            assert_eq!(users.n_bytes_changed() * 10, before);
        }
        let grow = |state: &mut Vec<u8>| state.extend([0; 50]);
        users.change(None, key(3), || unreachable!(), Vec::len, grow);
        assert_eq!(users.n_bytes() - before, 50);
        assert_eq!(users.n_bytes_changed(), before / 10 + 50);
        make_room(&mut users, 0, 1);
        let left: Vec<&str> = users.iter().map(|(name, _)| name).collect();
        assert_eq!(left, ["3"]);
        let mut changed = Vec::new();
        users.take_changed(|name, _| changed.push(name.to_owned()));
        assert_eq!(changed, ["3"]);
    }
}
