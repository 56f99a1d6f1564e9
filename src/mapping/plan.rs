//! How events are written of records that are alike. Which rules give a value depends on where values are, and on a few
//! texts such as the name of an action: what follows from those is found out once for all such records, and what is left
//! is to copy what stands at places.
//!
//! Texts that are others in most records, such as addresses, are told from those few by counting: rules that look at them
//! are tried with each record.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;

use hashbrown::HashTable;

use super::event::push_member;
use super::format::{self, Format};
use super::rule::{Condition, Lookup, Origin, Part, Rule, Rules, View};
use super::slots::{Kind, places_of, union_of};
use crate::record::Fields;
use crate::record::scan::Value;
use crate::record::text::push_part;

/// Plans that one thread keeps, at the most: all go when there are more.
pub(super) const PLANS_MAX: usize = 2_048;
/// After so many new ones it is looked whether they are worth it.
const LOOKED_AFTER: usize = 256;
/// They are if each is used so many times as often as it is made.
const WORTH: usize = 4;
/// Bytes of what a plan is found by, at the most.
const KEY_BYTES_MAX: usize = 2_048;

/// The places on which it depends how a record of a format is written, as bits of slots.
#[derive(Default)]
pub(super) struct Deciding {
    /// Of these it matters whether a value is there.
    bits: Box<[(u16, u64)]>,
    /// Of these also what kind of value.
    kinds: Box<[(u16, u64)]>,
    /// Of these also its text.
    texts: Box<[(u16, u64)]>,
}

impl Deciding {
    /// Of conditions and lists of rules.
    pub(super) fn new<'a>(
        conditions: impl Iterator<Item = &'a Condition>,
        lists: impl Iterator<Item = &'a Rules>,
    ) -> Self {
        let (mut bits, mut kinds, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        let rules: Vec<&Rule> = lists.flat_map(|list| &list.all).collect();
        let of_rules = rules.iter().flat_map(|rule| &rule.conditions);
        for condition in conditions.chain(of_rules) {
            let places = if condition.test.is_of_text() {
                &mut texts
            } else {
                &mut kinds
            };
            places.extend_from_slice(&condition.lookup.bits);
        }
        for rule in rules {
            let places = if rule.changes() {
                &mut texts
            } else {
                &mut bits
            };
            for lookup in rule.origin.lookups() {
                places.extend_from_slice(&lookup.bits);
            }
        }
        bits.extend(kinds.iter().chain(&texts).copied());
        Self {
            bits: union_of(bits.into_iter()),
            kinds: union_of(kinds.into_iter()),
            texts: union_of(texts.into_iter()),
        }
    }
}

/// The plans of one thread.
#[derive(Default)]
pub(super) struct Plans {
    all: HashTable<Entry>,
    made: Vec<Plan>,
    hasher: foldhash::fast::RandomState,
    key: Vec<u8>,
    /// By the number of a format's tree: words of bits of the places whose texts are others in most records.
    fickle: Vec<Vec<u64>>,
    /// Plans that were there already, and those that were not, since it was looked whether they are worth it.
    n_found: usize,
    n_new: usize,
    /// All that were made.
    pub(super) n_made: usize,
}

struct Entry {
    hash: u64,
    /// The number of the format's tree, the texts that matter, and at which places there are values, and of what kind.
    key: Box<[u8]>,
    /// The number of the plan.
    number: usize,
}

/// How the event of a record is written.
pub(super) struct Plan {
    refusal: Refused,
    ways: [Way; Field::N],
    metadata: Vec<Step>,
    /// Steps of ways.
    steps: Vec<Step>,
    tries: Vec<Tried>,
    text: Vec<u8>,
}

/// Whether a record is no event.
#[derive(Clone, Copy)]
enum Refused {
    No,
    /// For the reason of that number.
    Yes(usize),
    /// It is to be tried from that number on.
    From(usize),
}

/// A field of an event whose value rules give as they give those of metadata.
#[derive(Clone, Copy)]
pub(super) enum Field {
    EventId,
    User,
    Kind,
    SourceIp,
    GeoLocation,
    ThreatScore,
    Status,
}

impl Field {
    const N: usize = 7;
    pub(super) const ALL: [Self; Self::N] = [
        Self::EventId,
        Self::User,
        Self::Kind,
        Self::SourceIp,
        Self::GeoLocation,
        Self::ThreatScore,
        Self::Status,
    ];

    pub(super) fn rules(self, fields: &format::Fields) -> &Rules {
        match self {
            Self::EventId => &fields.event_id,
            Self::User => &fields.user,
            Self::Kind => &fields.kind,
            Self::SourceIp => &fields.source_ip,
            Self::GeoLocation => &fields.geo_location,
            Self::ThreatScore => &fields.threat_score,
            Self::Status => &fields.status,
        }
    }
}

/// How a value is come by.
#[derive(Clone, Copy)]
enum Way {
    Nothing,
    /// By steps from one to before another.
    Steps(u32, u32),
    /// By what is tried under that number.
    Try(u16),
}

/// Rules that are tried with each record: the number of each, and whether its conditions are known to hold.
type Tried = Vec<(u16, bool)>;

/// What is written.
enum Step {
    /// The text of the plan from one offset to another.
    Text(u32, u32),
    /// The value at a place within a string.
    Inside(u16),
    /// The value at a place as a string.
    Quoted(u16),
    /// The value at a place; numbers and booleans are written as such.
    Whole(u16),
    /// The member of that number, if what is tried under another number gives a value.
    Member(u16, u16),
    /// What has come since is the value of a known member.
    Begin,
    End(u8),
}

impl Plans {
    /// The plan for a record in which everything has been found.
    #[inline]
    pub(super) fn of(&mut self, format: &Format, view: &View<'_, '_>) -> &Plan {
        self.make_key(format, view);
        let key = &self.key[..];
        let hash = self.hasher.hash_one(key);
        let found = self.all.find(hash, |entry| *entry.key == *key);
        let number = if let Some(entry) = found {
            self.n_found += 1;
            entry.number
        } else {
            self.make(format, view)
        };
        &self.made[number]
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
                let text = match slot.kind {
                    Kind::Null | Kind::Array | Kind::Object => &[],
                    _ => view.texts.bytes(slot),
                };
                let [low, high] = (place + 1).to_le_bytes();
                key.extend_from_slice(&[low, high, slot.kind as u8]);
                key.extend_from_slice(&(text.len() as u32).to_le_bytes());
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
            key.extend(places_of(word, found).map(|place| slots.get(place).kind as u8));
        }
    }

    /// Makes the plan for a record, whose key was made: its number.
    #[cold]
    fn make(&mut self, format: &Format, view: &View<'_, '_>) -> usize {
        self.n_new += 1;
        self.n_made += 1;
        let is_full = self.made.len() >= PLANS_MAX;
        if is_full || self.n_new >= LOOKED_AFTER {
            let is_worth = self.n_found >= self.n_new * WORTH;
            let has_changed = !is_worth && self.find_fickle(format, is_full);
            if has_changed || is_full {
                self.all.clear();
                self.made.clear();
            }
            (self.n_found, self.n_new) = (0, 0);
            if has_changed {
                self.make_key(format, view);
            }
        }
        while self.key.len() > KEY_BYTES_MAX {
            // Nobody writes so much where little is said.
            let longest = texts_of(&self.key).max_by_key(|(_, text)| text.len());
            let Some((place, _)) = longest else { break };
            self.set_fickle(format, place);
            self.all.clear();
            self.made.clear();
            self.make_key(format, view);
        }
        let planner = Planner {
            format,
            view,
            fickle: &self.fickle[format.tree.number as usize],
            steps: Vec::new(),
            tries: Vec::new(),
            text: Vec::new(),
        };
        let number = self.made.len();
        self.made.push(planner.plan());
        let key: Box<[u8]> = self.key[..].into();
        let hash = self.hasher.hash_one(&self.key[..]);
        let entry = Entry { hash, key, number };
        self.all.insert_unique(hash, entry, |entry| entry.hash);
        number
    }

    fn set_fickle(&mut self, format: &Format, place: u16) {
        let words = &mut self.fickle[format.tree.number as usize];
        words[place as usize / 64] |= 1 << (place % 64);
    }

    /// Looks at which places the texts of the plans differ most; whether there is such a place. If one has to be found
    /// it is that of most texts, else those with another one in most plans.
    fn find_fickle(&mut self, format: &Format, has_to: bool) -> bool {
        let tree = format.tree.number.to_le_bytes();
        let (mut texts, mut n_plans) = (HashMap::<u16, HashSet<&[u8]>>::new(), 0);
        for entry in self.all.iter().filter(|entry| entry.key.starts_with(&tree)) {
            n_plans += 1;
            for (place, text) in texts_of(&entry.key) {
                texts.entry(place).or_default().insert(text);
            }
        }
        let counts = texts.into_iter().map(|(place, texts)| (texts.len(), place));
        let mut counts: Vec<(usize, u16)> = counts.collect();
        counts.sort_unstable();
        let is_fickle = |(n_texts, _): &&(usize, u16)| n_texts * 2 > n_plans.max(2);
        let mut fickle: Vec<u16> = counts.iter().filter(is_fickle).map(|it| it.1).collect();
        if has_to && fickle.is_empty() && n_plans * 2 > PLANS_MAX {
            fickle.extend(counts.last().map(|it| it.1));
        }
        for &place in &fickle {
            self.set_fickle(format, place);
        }
        !fickle.is_empty()
    }
}

/// The places and texts in a key.
fn texts_of(key: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = key.get(size_of::<u32>()..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (&[low, high, _], after) = rest.split_first_chunk()?;
        let place = u16::from_le_bytes([low, high]).checked_sub(1)?;
        let (n_bytes, after) = after.split_first_chunk()?;
        let n_bytes = u32::from_le_bytes(*n_bytes);
        let (text, after) = after.split_at_checked(n_bytes as usize)?;
        rest = after;
        Some((place, text))
    })
}

/// Finds out how a record is written.
struct Planner<'p, 'r, 'a> {
    format: &'p Format,
    view: &'p View<'r, 'a>,
    fickle: &'p [u64],
    steps: Vec<Step>,
    tries: Vec<Tried>,
    text: Vec<u8>,
}

impl Planner<'_, '_, '_> {
    fn plan(mut self) -> Plan {
        let format = self.format;
        let refusal = self.refusal();
        let ways = Field::ALL.map(|field| self.way(field.rules(&format.fields), false));
        let steps = std::mem::take(&mut self.steps);
        for (member, extra) in format.metadata.iter().enumerate() {
            // Taken back if there is no value.
            let (n_steps, n_bytes) = (self.steps.len(), self.text.len());
            self.text(extra.before.as_bytes());
            self.steps.extend(extra.known.map(|_| Step::Begin));
            let way = self.way(&extra.rules, true);
            match way {
                Way::Steps(..) => {
                    let end = extra.known.map(|known| Step::End(known as u8));
                    self.steps.extend(end);
                }
                Way::Nothing | Way::Try(_) => {
                    self.steps.truncate(n_steps);
                    self.text.truncate(n_bytes);
                }
            }
            if let Way::Try(number) = way {
                self.steps.push(Step::Member(member as u16, number));
            }
        }
        Plan {
            refusal,
            ways,
            metadata: joined(self.steps),
            steps,
            tries: self.tries,
            text: self.text,
        }
    }

    fn refusal(&self) -> Refused {
        for (number, refusal) in self.format.refusals.iter().enumerate() {
            match self.all_hold(&refusal.conditions) {
                Some(true) => return Refused::Yes(number),
                Some(false) => {}
                None => return Refused::From(number),
            }
        }
        Refused::No
    }

    /// Whether all conditions hold; none if that depends on texts that are others in most records.
    fn all_hold(&self, conditions: &[Condition]) -> Option<bool> {
        let mut all = Some(true);
        for condition in conditions {
            if condition.test.is_of_text() && !self.is_known(&condition.lookup) {
                all = None;
            } else if !self.view.holds(condition) {
                return Some(false);
            }
        }
        all
    }

    /// Whether the text that is found is the same in all records of the plan.
    fn is_known(&self, lookup: &Lookup) -> bool {
        let place = lookup.place(self.view.slots);
        place.is_none_or(|place| self.fickle[place as usize / 64] >> (place % 64) & 1 == 0)
    }

    fn way(&mut self, rules: &Rules, is_kept: bool) -> Way {
        let view = self.view;
        let mut tried = Vec::new();
        for (number, rule) in rules.all.iter().enumerate() {
            let is_given = |lookup: &Lookup| view.slots.has_any(&lookup.bits);
            if !rule.origin.lookups().all(is_given) {
                continue;
            }
            let holds = self.all_hold(&rule.conditions);
            if holds == Some(false) {
                continue;
            }
            let gives = holds == Some(true) && !rule.changes();
            if gives && tried.is_empty() {
                let first = self.steps.len() as u32;
                self.copy(rule, is_kept);
                return Way::Steps(first, self.steps.len() as u32);
            }
            if holds == Some(true)
                && rule.origin.lookups().all(|it| self.is_known(it))
                && rule.changes()
            {
                let mut made = Vec::new();
                if !view.push(rule, is_kept, &mut made) {
                    continue;
                }
                if tried.is_empty() {
                    let first = self.steps.len() as u32;
                    self.text(&made);
                    return Way::Steps(first, self.steps.len() as u32);
                }
            }
            tried.push((number as u16, holds.is_some()));
            if gives {
                break;
            }
        }
        if tried.is_empty() {
            return Way::Nothing;
        }
        self.tries.push(tried);
        Way::Try(self.tries.len() as u16 - 1)
    }

    /// Plans the value of a rule that gives what stands at its places.
    fn copy(&mut self, rule: &Rule, is_kept: bool) {
        let slots = self.view.slots;
        match &rule.origin {
            Origin::Path(lookup) => {
                let step = if is_kept { Step::Whole } else { Step::Quoted };
                self.steps.extend(lookup.place(slots).map(step));
            }
            Origin::Template(parts) => {
                self.text(b"\"");
                for part in parts {
                    match part {
                        Part::Text { escaped, .. } => self.text(escaped.as_bytes()),
                        Part::Path(lookup) => {
                            self.steps.extend(lookup.place(slots).map(Step::Inside));
                        }
                    }
                }
                self.text(b"\"");
            }
        }
    }

    fn text(&mut self, text: &[u8]) {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(text);
        self.steps.push(Step::Text(start, self.text.len() as u32));
    }
}

/// Steps with texts that follow each other as one.
fn joined(steps: Vec<Step>) -> Vec<Step> {
    let mut joined: Vec<Step> = Vec::with_capacity(steps.len());
    for step in steps {
        match (joined.last_mut(), &step) {
            (Some(Step::Text(_, before)), &Step::Text(start, end)) if *before == start => {
                *before = end;
            }
            _ => joined.push(step),
        }
    }
    joined
}

impl Plan {
    /// Why the record is no event, if it is none.
    pub(super) fn refusal<'f>(&self, format: &'f Format, view: &View<'_, '_>) -> Option<&'f str> {
        match self.refusal {
            Refused::No => None,
            Refused::Yes(number) => Some(&format.refusals[number].reason),
            Refused::From(number) => format.refusal_from(number, view),
        }
    }

    /// Appends the value of a field, if there is one.
    pub(super) fn push_field(
        &self,
        field: Field,
        format: &Format,
        view: &View<'_, '_>,
        output: &mut Vec<u8>,
    ) -> bool {
        match self.ways[field as usize] {
            Way::Nothing => false,
            Way::Steps(start, end) => {
                for step in &self.steps[start as usize..end as usize] {
                    self.step(step, view, output);
                }
                true
            }
            Way::Try(number) => {
                let rules = field.rules(&format.fields);
                self.push_tried(number, rules, view, false, output)
            }
        }
    }

    /// Appends the members of metadata, each with a comma before it, to an event that begins at `start`.
    pub(super) fn push_metadata(
        &self,
        format: &Format,
        view: &View<'_, '_>,
        start: usize,
        output: &mut Vec<u8>,
        members: &mut Fields,
    ) {
        let mut begin = 0;
        for step in &self.metadata {
            match *step {
                Step::Member(member, number) => {
                    let extra = &format.metadata[member as usize];
                    let push = |output: &mut Vec<u8>| {
                        self.push_tried(number, &extra.rules, view, true, output)
                    };
                    let at = push_member(&extra.before, output, push);
                    if let (Some(at), Some(known)) = (at, extra.known) {
                        members.of_metadata[known] = Value::at(&output[start..], at - start);
                    }
                }
                Step::Begin => begin = output.len(),
                Step::End(known) => {
                    members.of_metadata[known as usize] =
                        Value::at(&output[start..], begin - start);
                }
                _ => self.step(step, view, output),
            }
        }
    }

    /// Appends the first value that the rules give which are tried under a number; false if there is none.
    fn push_tried(
        &self,
        number: u16,
        rules: &Rules,
        view: &View<'_, '_>,
        is_kept: bool,
        output: &mut Vec<u8>,
    ) -> bool {
        let start = output.len();
        for &(number, holds) in &self.tries[number as usize] {
            let rule = &rules.all[number as usize];
            if (holds || view.all_hold(&rule.conditions)) && view.push(rule, is_kept, output) {
                return true;
            }
            output.truncate(start);
        }
        false
    }

    #[inline]
    fn step(&self, step: &Step, view: &View<'_, '_>, output: &mut Vec<u8>) {
        match *step {
            Step::Text(start, end) => push_part(output, &self.text, start as usize..end as usize),
            Step::Inside(place) => view.push_inside(view.slots.get(place), output),
            Step::Quoted(place) => view.push_slot(view.slots.get(place), false, output),
            Step::Whole(place) => view.push_slot(view.slots.get(place), true, output),
            Step::Member(..) | Step::Begin | Step::End(_) => {}
        }
    }
}
