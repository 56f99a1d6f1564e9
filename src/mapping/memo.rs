//! What rules have given for the same values before: most records differ in little, and rules with regular
//! expressions cost more than it takes to remember.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashTable;

use super::rule::{Keys, View};
use super::slots::{Kind, places_of};

/// Bytes remembered for one list of rules, and for all together, at the most: all of a list go when there are more.
const LIST_BYTES_MAX: usize = 4 << 20;
const BYTES_MAX: usize = 32 << 20;
/// Where too few came twice, so many times as many questions are not remembered, then it is tried again.
const SKIPPED: usize = 16;
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
                key.extend_from_slice(raw);
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
        if memo.n_bytes > LIST_BYTES_MAX || *n_bytes > BYTES_MAX {
            let n_entries = memo.entries.len();
            memo.entries.clear();
            *n_bytes -= std::mem::take(&mut memo.n_bytes);
            if std::mem::take(&mut memo.n_found) < n_entries {
                memo.n_skipped = n_entries * SKIPPED;
            }
        }
        let bytes = size_of::<Entry>() + key.len() + value.len();
        memo.n_bytes += bytes;
        *n_bytes += bytes;
        let entry = Entry {
            hash,
            key: key[..].into(),
            value: is_given.then(|| value.into()),
        };
        memo.entries.insert_unique(hash, entry, |entry| entry.hash);
    }
    is_given
}
