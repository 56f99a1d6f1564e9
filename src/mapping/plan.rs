//! How metadata is written of records that have values at the same places. Most members are copies of what stands
//! there: which ones, and what stands between them, is found out once for all such records.

use std::hash::BuildHasher as _;

use hashbrown::HashTable;

use super::event::push_member;
use super::format::Format;
use super::rule::{Lookup, Origin, Part, Rule, View};
use super::slots::Slots;
use crate::record::Fields;
use crate::record::scan::Value;
use crate::record::text::push_part;

/// Plans that one thread keeps, at the most: all go when there are more.
pub(super) const PLANS_MAX: usize = 512;

/// The plans of one thread.
#[derive(Default)]
pub(super) struct Plans {
    all: HashTable<Entry>,
    hasher: foldhash::fast::RandomState,
    key: Vec<u64>,
    /// All that were made.
    pub(super) n_made: usize,
}

struct Entry {
    hash: u64,
    /// The number of the format's tree, at which of the places that are copied are values, and which of the other members may have
    /// one.
    key: Box<[u64]>,
    plan: Plan,
}

/// What is written one after the other.
#[derive(Default)]
struct Plan {
    steps: Vec<Step>,
    text: Vec<u8>,
}

enum Step {
    /// So many more bytes of the plan's text.
    Text(u32),
    /// The value at a place within a string.
    Inside(u16),
    /// The value at a place; numbers and booleans are written as such.
    Whole(u16),
    /// The member of that number, if its rules give a value.
    Member(u16),
    /// What has come since is the value of a known member.
    Begin,
    End(u8),
}

impl Plans {
    /// Appends the members of metadata, each with a comma before it, to an event that begins at `start`.
    pub(super) fn write(
        &mut self,
        format: &Format,
        view: &View<'_, '_>,
        start: usize,
        output: &mut Vec<u8>,
        members: &mut Fields,
    ) {
        self.key.clear();
        self.key.push(u64::from(format.tree.number));
        let words = format.copied_bits.iter();
        self.key
            .extend(words.map(|&(word, mask)| view.slots.values(word, mask)));
        // A bit for each of the other members.
        for members in format.ruled.chunks(64) {
            let bits = members.iter().rev().fold(0, |bits, &member| {
                let rules = &format.metadata[member as usize].rules;
                bits << 1 | u64::from(view.may_give(rules))
            });
            self.key.push(bits);
        }
        let key = &self.key[..];
        let hash = self.hasher.hash_one(key);
        let found = self.all.find(hash, |entry| *entry.key == *key);
        if let Some(entry) = found {
            entry.plan.write(format, view, start, output, members);
            return;
        }
        if self.all.len() >= PLANS_MAX {
            self.all.clear();
        }
        self.n_made += 1;
        let plan = Plan::new(format, view);
        plan.write(format, view, start, output, members);
        let key = key.into();
        let entry = Entry { hash, key, plan };
        self.all.insert_unique(hash, entry, |entry| entry.hash);
    }
}

impl Plan {
    fn new(format: &Format, view: &View<'_, '_>) -> Self {
        let mut plan = Self::default();
        for (number, extra) in format.metadata.iter().enumerate() {
            let rules = &extra.rules;
            if !view.may_give(rules) {
                continue;
            }
            if !rules.are_copies() {
                plan.steps.push(Step::Member(number as u16));
                continue;
            }
            let slots = view.slots;
            let is_given = |lookup: &Lookup| slots.has_any(&lookup.bits);
            let mut rules = rules.all.iter();
            let Some(rule) = rules.find(|rule| rule.origin.lookups().all(is_given)) else {
                continue;
            };
            plan.text(&extra.before);
            if extra.known.is_some() {
                plan.steps.push(Step::Begin);
            }
            plan.value(rule, slots);
            plan.steps
                .extend(extra.known.map(|known| Step::End(known as u8)));
        }
        plan
    }

    fn text(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
        let n_bytes = text.len() as u32;
        match self.steps.last_mut() {
            Some(Step::Text(before)) => *before += n_bytes,
            _ => self.steps.push(Step::Text(n_bytes)),
        }
    }

    /// Plans the value of a rule that gives one.
    fn value(&mut self, rule: &Rule, slots: &Slots) {
        match &rule.origin {
            Origin::Path(lookup) => {
                let place = lookup.place(slots);
                self.steps.extend(place.map(Step::Whole));
            }
            Origin::Template(parts) => {
                self.text("\"");
                for part in parts {
                    match part {
                        Part::Text { escaped, .. } => self.text(escaped),
                        Part::Path(lookup) => {
                            let place = lookup.place(slots);
                            self.steps.extend(place.map(Step::Inside));
                        }
                    }
                }
                self.text("\"");
            }
        }
    }

    fn write(
        &self,
        format: &Format,
        view: &View<'_, '_>,
        start: usize,
        output: &mut Vec<u8>,
        members: &mut Fields,
    ) {
        let (mut at, mut begin) = (0, 0);
        for step in &self.steps {
            match *step {
                Step::Text(n_bytes) => {
                    let end = at + n_bytes as usize;
                    push_part(output, &self.text, at..end);
                    at = end;
                }
                Step::Inside(place) => view.push_inside(view.slots.get(place), output),
                Step::Whole(place) => view.push_slot(view.slots.get(place), true, output),
                Step::Member(number) => {
                    let extra = &format.metadata[number as usize];
                    let at = push_member(view, &extra.before, &extra.rules, true, output);
                    if let (Some(at), Some(known)) = (at, extra.known) {
                        members.of_metadata[known] = Value::at(&output[start..], at - start);
                    }
                }
                Step::Begin => begin = output.len(),
                Step::End(known) => {
                    members.of_metadata[known as usize] =
                        Value::at(&output[start..], begin - start);
                }
            }
        }
    }
}
