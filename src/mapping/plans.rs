//! Finds the plan for a record: by where values are in it, and by the few texts that say what happened. Texts that are others
//! in most records, such as addresses, are told from those by counting.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;

use hashbrown::HashTable;

use super::format::Format;
use super::plan::{Plan, text_of};
use super::rule::View;
use super::slots::{Kind, places_of};
use crate::record::text::push_part;

/// Plans that one thread keeps, and their bytes, at the most: all go when there are more.
pub(super) const PLANS_MAX: usize = 2_048;
const PLANS_BYTES_MAX: usize = 8 << 20;
/// After so many new plans it is looked for the first time whether they are worth it, then after twice as many.
const LOOKED_AFTER: usize = 256;
/// They are if each is used so many times as often as it is made.
const WORTH: usize = 4;
/// What is known of a place from fewer plans is not enough.
const JUDGED_BY: usize = 64;
/// A place is not left out for fewer texts: it would not make fewer plans.
const TEXTS_MIN: usize = 16;
/// After so many records what was found out about texts is found out again.
const RECORDS_MAX: usize = 1 << 20;

/// The plans of one thread.
pub(super) struct Plans {
    index: HashTable<Entry>,
    list: Vec<Plan>,
    n_bytes: usize,
    hasher: foldhash::fast::RandomState,
    key: Vec<u8>,
    /// By the number of a format's tree: words of bits of the places whose texts are others in most records.
    fickle: Vec<Vec<u64>>,
    /// Plans that were there already, and those that were not, since it was looked whether they are worth it.
    n_found: usize,
    n_new: usize,
    looked_after: usize,
    /// Records since all was begun anew.
    n_records: usize,
    /// All that were ever made.
    pub(super) n_made: usize,
}

impl Default for Plans {
    fn default() -> Self {
        Self {
            index: HashTable::new(),
            list: Vec::new(),
            n_bytes: 0,
            hasher: foldhash::fast::RandomState::default(),
            key: Vec::new(),
            fickle: Vec::new(),
            n_found: 0,
            n_new: 0,
            looked_after: LOOKED_AFTER,
            n_records: 0,
            n_made: 0,
        }
    }
}

struct Entry {
    hash: u64,
    /// The number of the format's tree, the texts that matter, and at which places there are values, and of what kind.
    key: Box<[u8]>,
    /// The number of the plan.
    number: usize,
}

impl Plans {
    /// The plan for a record in which everything has been found.
    #[inline]
    pub(super) fn of(&mut self, format: &Format, view: &View<'_, '_>) -> &Plan {
        self.n_records += 1;
        self.make_key(format, view);
        let key = &self.key[..];
        let hash = self.hasher.hash_one(key);
        let found = self.index.find(hash, |entry| *entry.key == *key);
        let number = if let Some(entry) = found {
            self.n_found += 1;
            entry.number
        } else {
            self.make(format, view)
        };
        &self.list[number]
    }

    fn make_key(&mut self, format: &Format, view: &View<'_, '_>) {
        let tree = format.tree.number;
        let number = tree as usize;
        if self.fickle.len() <= number {
            self.fickle.resize_with(number + 1, Vec::new);
        }
        if self.fickle[number].is_empty() {
            self.fickle[number] = vec![0; format.tree.n_places().div_ceil(64)];
        }
        let slots = view.slots;
        let key = &mut self.key;
        key.clear();
        key.extend_from_slice(&tree.to_le_bytes());
        for &(word, mask) in &format.deciding.texts {
            let mask = mask & !self.fickle[number][word as usize];
            for place in places_of(word, slots.found(word, mask)) {
                let slot = slots.get(place);
                let text = text_of(slot, view);
                // That it is too long has a length of its own.
                let length = text.map_or(u16::MAX, |text| text.len() as u16);
                let [low, high] = (place + 1).to_le_bytes();
                let [short, long] = length.to_le_bytes();
                key.extend_from_slice(&[low, high, slot.kind as u8, short, long]);
                let text = text.unwrap_or_default();
                push_part(key, text, 0..text.len());
            }
        }
        key.extend_from_slice(&[0; 2]);
        for &(word, mask) in &format.deciding.bits {
            key.extend_from_slice(&slots.values(word, mask).to_le_bytes());
        }
        for &(word, mask) in &format.deciding.kinds {
            let found = slots.found(word, mask);
            key.extend_from_slice(&found.to_le_bytes());
            key.extend(
                places_of(word, found).map(|place| match slots.get(place).kind {
                    Kind::Array | Kind::Object => 0,
                    Kind::Plain | Kind::Escaped | Kind::Raw => 1,
                    _ => 2,
                }),
            );
        }
    }

    /// Makes the plan for a record, whose key was made: its number.
    #[cold]
    fn make(&mut self, format: &Format, view: &View<'_, '_>) -> usize {
        self.n_new += 1;
        self.n_made += 1;
        let is_full = self.list.len() >= PLANS_MAX || self.n_bytes >= PLANS_BYTES_MAX;
        let is_old = self.n_records >= RECORDS_MAX;
        if is_full || is_old || self.n_new >= self.looked_after {
            let is_worth = self.n_found >= self.n_new * WORTH;
            let has_changed = !is_old && !is_worth && self.find_fickle(is_full);
            if is_old {
                self.fickle.iter_mut().for_each(|words| words.fill(0));
                self.n_records = 0;
            }
            if has_changed || is_full || is_old {
                self.index.clear();
                self.list.clear();
                self.n_bytes = 0;
            }
            self.looked_after = if has_changed || is_old {
                LOOKED_AFTER
            } else {
                (self.looked_after * 2).min(PLANS_MAX)
            };
            (self.n_found, self.n_new) = (0, 0);
            self.make_key(format, view);
        }
        let fickle = &self.fickle[format.tree.number as usize];
        let plan = Plan::new(format, view, fickle);
        let number = self.list.len();
        self.n_bytes += self.key.len() + plan.n_bytes();
        self.list.push(plan);
        let key: Box<[u8]> = self.key[..].into();
        let hash = self.hasher.hash_one(&self.key[..]);
        let entry = Entry { hash, key, number };
        self.index.insert_unique(hash, entry, |entry| entry.hash);
        number
    }

    /// Looks for places with another text in most plans that have one there; if there is none and there are too many
    /// plans, for the place with the most texts. They are left out of keys from now on; false if there is no such place.
    fn find_fickle(&mut self, is_full: bool) -> bool {
        type Texts<'k> = HashSet<&'k [u8], foldhash::fast::RandomState>;
        // Of each place of each tree the plans that have a text there, and those texts.
        let mut places = HashMap::<(u32, u16), (usize, Texts<'_>)>::new();
        for entry in &self.index {
            let Some((tree, _)) = entry.key.split_first_chunk() else {
                continue;
            };
            let tree = u32::from_le_bytes(*tree);
            for (place, text) in texts_of(&entry.key) {
                let (n_plans, texts) = places.entry((tree, place)).or_default();
                *n_plans += 1;
                texts.insert(text);
            }
        }
        let counts = places
            .into_iter()
            .map(|(place, (n_plans, texts))| (texts.len(), n_plans, place));
        let counts: Vec<_> = counts.collect();
        let is_fickle = |(n_texts, n_plans, _): &&(usize, usize, (u32, u16))| {
            *n_plans >= JUDGED_BY && n_texts * 2 > *n_plans
        };
        let mut fickle: Vec<_> = counts.iter().filter(is_fickle).collect();
        if is_full && fickle.is_empty() {
            let most = counts.iter().max();
            fickle.extend(most.filter(|(n_texts, ..)| *n_texts >= TEXTS_MIN));
        }
        for &&(_, _, (tree, place)) in &fickle {
            self.fickle[tree as usize][place as usize / 64] |= 1 << (place % 64);
        }
        !fickle.is_empty()
    }
}

/// The places and texts in a key; not those that are too long.
fn texts_of(key: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = key.get(size_of::<u32>()..).unwrap_or_default();
    let texts = std::iter::from_fn(move || {
        let (&[low, high, _, short, long], after) = rest.split_first_chunk()?;
        let place = u16::from_le_bytes([low, high]).checked_sub(1)?;
        let length = u16::from_le_bytes([short, long]);
        let n_bytes = if length == u16::MAX { 0 } else { length };
        let (text, after) = after.split_at_checked(n_bytes.into())?;
        rest = after;
        Some((place, length, text))
    });
    let texts = texts.filter(|(_, length, _)| *length != u16::MAX);
    texts.map(|(place, _, text)| (place, text))
}
