//! What rules have given for the same values before: most records differ in little, and rules with regular
//! expressions cost more than it takes to remember.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashTable;

use super::rule::{Keys, View};
use super::slots::{Kind, places_of};

/// Bytes remembered for one list of rules, at the most: all go when there are more.
const LIST_BYTES_MAX: usize = 4 << 20;
/// The same for all lists together.
const BYTES_MAX: usize = 32 << 20;
/// What an entry takes besides its texts, about: the table is half empty, and each text is an allocation.
const ENTRY_BYTES: usize = 2 * size_of::<Entry>() + 32;
/// Where too few came twice, so many times as many questions are not remembered, then it is tried again.
const SKIPPED: usize = 16;
const SKIPPED_MAX: usize = 1 << 17;
/// Bytes of what is remembered of one, at the most: long texts come once.
const ENTRY_BYTES_MAX: usize = 512;

/// What is remembered by one thread, for each list of rules that asks for it.
#[derive(Default)]
pub(super) struct Memos {
    lists: Vec<Memo>,
    n_bytes: usize,
    key: Vec<u8>,
}

#[derive(Default)]
struct Memo {
    entries: HashTable<Entry>,
    n_bytes: usize,
    hasher: foldhash::fast::RandomState,
    /// Answers found since entries were thrown away.
    n_found: usize,
    /// Questions not to be remembered, since too few came twice.
    n_skipped: usize,
}

impl Memo {
    /// Gives all memory back, and says whether it was worth it.
    fn forget(&mut self) {
        let n_entries = self.entries.len();
        self.entries = HashTable::new();
        self.n_bytes = 0;
        if std::mem::take(&mut self.n_found) < n_entries {
            self.n_skipped = (n_entries * SKIPPED).min(SKIPPED_MAX);
        }
    }
}

struct Entry {
    hash: u64,
    key: Box<[u8]>,
    value: Option<Box<[u8]>>,
}

/// A number for another list of rules.
pub(super) fn next_list() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Appends what rules give for what stands at the places, by `make` if it is not known yet; false if they give
/// nothing.
pub(super) fn remembered(
    view: &View<'_, '_>,
    list: u32,
    keys: &Keys,
    output: &mut Vec<u8>,
    make: impl FnOnce(&mut Vec<u8>) -> bool,
) -> bool {
    let mut memos = view.memos.borrow_mut();
    let Memos {
        lists,
        n_bytes,
        key,
    } = &mut *memos;
    let number = list as usize;
    if lists.len() <= number {
        lists.resize_with(number + 1, Memo::default);
    }
    let memo = &mut lists[number];
    if memo.n_skipped > 0 {
        memo.n_skipped -= 1;
        return make(output);
    }
    key.clear();
    for &(word, mask) in &keys.flags {
        let found = view.slots.found(word, mask);
        key.extend_from_slice(&found.to_le_bytes());
        for place in places_of(word, found) {
            let slot = view.slots.get(place);
            key.push(slot.kind as u8 | u8::from(view.slots.is_value(place)) << 7);
        }
    }
    for &(word, mask) in &keys.texts {
        let found = view.slots.found(word, mask);
        key.extend_from_slice(&found.to_le_bytes());
        for place in places_of(word, found) {
            let slot = view.slots.get(place);
            key.push(slot.kind as u8);
            if !matches!(slot.kind, Kind::Null | Kind::Array | Kind::Object) {
                let raw = view.texts.bytes(slot);
                if raw.len() + key.len() > ENTRY_BYTES_MAX {
                    return make(output);
                }
                key.extend_from_slice(&(raw.len() as u16).to_le_bytes());
                view.texts.push(slot, key);
            }
        }
    }
    let hash = memo.hasher.hash_one(&key[..]);
    if let Some(entry) = memo.entries.find(hash, |entry| *entry.key == key[..]) {
        memo.n_found += 1;
        return entry.value.as_ref().is_some_and(|value| {
            output.extend_from_slice(value);
            true
        });
    }
    let start = output.len();
    let is_given = make(output);
    let value = &output[start..];
    if value.len() <= ENTRY_BYTES_MAX {
        let bytes = ENTRY_BYTES + key.len() + value.len();
        memo.n_bytes += bytes;
        *n_bytes += bytes;
        let entry = Entry {
            hash,
            key: key[..].into(),
            value: is_given.then(|| value.into()),
        };
        memo.entries.insert_unique(hash, entry, |entry| entry.hash);
        if memo.n_bytes > LIST_BYTES_MAX {
            *n_bytes -= memo.n_bytes;
            memo.forget();
        } else if *n_bytes > BYTES_MAX {
            // Those too that nobody asks any more.
            *n_bytes = 0;
            lists.iter_mut().for_each(Memo::forget);
        }
    }
    is_given
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::slots::{Slot, Slots, Texts, bits_of};
    use super::*;

    /// Asks a list of rules whose only place has that text; what it gives is the text in brackets.
    fn ask(memos: &RefCell<Memos>, list: u32, text: &str) -> (String, bool) {
        let keys = Keys {
            texts: bits_of(&[7]),
            flags: bits_of(&[70]),
        };
        let mut slots = Slots::new();
        slots.begin(128);
        slots.set(7, Slot::new(Kind::Plain, 0, 0, text.len()), true);
        let mut texts = Texts::new();
        texts.begin(text);
        let view = View {
            slots: &slots,
            texts: &texts,
            memos,
        };
        let mut output = Vec::new();
        let mut is_made = false;
        let is_given = remembered(&view, list, &keys, &mut output, |output| {
            is_made = true;
            output.extend_from_slice(format!("<{text}>").as_bytes());
            true
        });
        assert!(is_given);
        (String::from_utf8(output).expect("it is text"), is_made)
    }

    #[test]
    fn what_comes_twice_is_remembered_within_bounds() {
        let memos = RefCell::default();
        for list in [3, 0] {
            assert_eq!(ask(&memos, list, "ann"), ("<ann>".to_owned(), true));
            assert_eq!(ask(&memos, list, "ann"), ("<ann>".to_owned(), false));
            assert_eq!(ask(&memos, list, "bob"), ("<bob>".to_owned(), true));
        }
        // Texts that come once fill it, and are then not remembered for a while.
        let (mut n_skipped, mut bytes_max) = (0, 0);
        for i in 0..6_000 {
            for list in 0..12 {
                let text = format!("{i:0400}");
                assert_eq!(ask(&memos, list, &text).0, format!("<{text}>"));
            }
            let memos = memos.borrow();
            bytes_max = bytes_max.max(memos.n_bytes);
            n_skipped = n_skipped.max(memos.lists[0].n_skipped);
            assert_eq!(
                memos.n_bytes,
                memos.lists.iter().map(|memo| memo.n_bytes).sum::<usize>()
            );
        }
        assert!(bytes_max > BYTES_MAX / 2 && bytes_max < BYTES_MAX + 2 * ENTRY_BYTES_MAX);
        assert!(n_skipped > 0 && n_skipped <= SKIPPED_MAX);
        // It is tried again.
        for _ in 0..=SKIPPED_MAX {
            ask(&memos, 0, "ann");
        }
        assert_eq!(ask(&memos, 0, "ann"), ("<ann>".to_owned(), false));
    }
}
