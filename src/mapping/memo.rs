//! What rules have given for the same values before: most records differ in little, and rules with regular
//! expressions cost more than it takes to remember.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashTable;

use super::rule::{Keys, View};
use super::slots::Kind;

/// Values remembered for one list of rules, at the most: all go when there are more.
const ENTRIES_MAX: usize = 1_024;
/// Questions after which it is tried again whether they come twice.
const SKIPPED_MAX: usize = 16_384;
/// Bytes of what is remembered of one, at the most: long texts come once.
const ENTRY_BYTES_MAX: usize = 512;

/// What is remembered by one thread, for each list of rules that asks for it.
#[derive(Default)]
pub(super) struct Memos {
    lists: Vec<Memo>,
    key: Vec<u8>,
}

#[derive(Default)]
struct Memo {
    entries: HashTable<Entry>,
    hasher: foldhash::fast::RandomState,
    /// Answers found since the entries were thrown away.
    n_found: usize,
    /// Questions not to be remembered, since too few came twice.
    n_skipped: usize,
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
    let Memos { lists, key } = &mut *memos;
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
    for &place in &keys.flags {
        let slot = view.slots.get(place);
        key.push(slot.kind as u8 | u8::from(view.is_value(slot)) << 7);
    }
    for &place in &keys.texts {
        let slot = view.slots.get(place);
        key.push(slot.kind as u8);
        if !matches!(
            slot.kind,
            Kind::Absent | Kind::Null | Kind::Array | Kind::Object
        ) {
            let raw = view.texts.bytes(slot);
            if raw.len() + key.len() > ENTRY_BYTES_MAX {
                return make(output);
            }
            key.extend_from_slice(&(raw.len() as u16).to_le_bytes());
            key.extend_from_slice(raw);
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
        if memo.entries.len() == ENTRIES_MAX {
            memo.entries.clear();
            if std::mem::take(&mut memo.n_found) < ENTRIES_MAX {
                memo.n_skipped = SKIPPED_MAX;
            }
        }
        let entry = Entry {
            hash,
            key: key[..].into(),
            value: is_given.then(|| value.into()),
        };
        memo.entries.insert_unique(hash, entry, |entry| entry.hash);
    }
    is_given
}
