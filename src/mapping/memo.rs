//! What patterns have found in the same texts before: many records have the same ones, and regular expressions cost more
//! than it takes to remember.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashTable;

use super::slots::{Kind, Slot, Texts};

/// Bytes remembered for one list of patterns, at the most: all go when there are more.
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

/// What is remembered by one thread, for each list of patterns.
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

/// A number for another list of patterns.
pub(super) fn next_list() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Appends what a value is to what is remembered by it; false if it is too long.
pub(super) fn push_key(slot: &Slot, texts: &Texts<'_>, key: &mut Vec<u8>) -> bool {
    key.push(slot.kind as u8);
    if !matches!(slot.kind, Kind::Null | Kind::Array | Kind::Object) {
        let raw = texts.bytes(slot);
        if raw.len() + key.len() > ENTRY_BYTES_MAX {
            return false;
        }
        key.extend_from_slice(&(raw.len() as u16).to_le_bytes());
        texts.push(slot, key);
    }
    true
}

/// Appends what `make` does for a key, which is appended by `push_key`; by `make` if it is not known yet, or the key is too
/// long; false if that says so.
pub(super) fn remembered(
    memos: &mut Memos,
    list: u32,
    push_key: impl FnOnce(&mut Vec<u8>) -> bool,
    output: &mut Vec<u8>,
    make: impl FnOnce(&mut Vec<u8>) -> bool,
) -> bool {
    let Memos {
        lists,
        n_bytes,
        key,
    } = memos;
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
    if !push_key(key) {
        return make(output);
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
    use super::*;

    /// Asks a list for a text; what it gives is the text in brackets.
    fn ask(memos: &mut Memos, list: u32, text: &str) -> (String, bool) {
        let slot = Slot::new(Kind::Plain, 0, 0, text.len());
        let mut texts = Texts::new();
        texts.begin(text);
        let mut output = Vec::new();
        let mut is_made = false;
        let key = |key: &mut Vec<u8>| push_key(&slot, &texts, key);
        let is_given = remembered(memos, list, key, &mut output, |output| {
            is_made = true;
            output.extend_from_slice(format!("<{text}>").as_bytes());
            true
        });
        assert!(is_given);
        (String::from_utf8(output).expect("it is text"), is_made)
    }

    #[test]
    fn what_comes_twice_is_remembered_within_bounds() {
        let mut memos = Memos::default();
        for list in [3, 0] {
            assert_eq!(ask(&mut memos, list, "ann"), ("<ann>".to_owned(), true));
            assert_eq!(ask(&mut memos, list, "ann"), ("<ann>".to_owned(), false));
            assert_eq!(ask(&mut memos, list, "bob"), ("<bob>".to_owned(), true));
        }
        // Texts that come once fill it, and are then not remembered for a while.
        let (mut n_skipped, mut bytes_max) = (0, 0);
        for i in 0..6_000 {
            for list in 0..12 {
                let text = format!("{i:0400}");
                assert_eq!(ask(&mut memos, list, &text).0, format!("<{text}>"));
            }
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
            ask(&mut memos, 0, "ann");
        }
        assert_eq!(ask(&mut memos, 0, "ann"), ("<ann>".to_owned(), false));
    }
}
