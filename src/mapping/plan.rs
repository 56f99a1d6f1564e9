//! How events are written of records that are alike. Which rules give a value depends on where values are, and on a few
//! texts such as the name of an action: what follows from those is found out once for all such records, and what is left
//! is to copy what stands at places.
//!
//! Texts that are others in most records are none of those (`plans.rs`): rules that look at them are tried with each record.

use super::event::push_member;
use super::format::{self, Format};
use super::rule::{Condition, Lookup, Origin, Part, Rule, Rules, View};
use super::slots::{Kind, Slot, union_of};
use crate::record::Fields;
use crate::record::scan::Value;
use crate::record::text::push_part;

/// Longer texts do not say what happened.
const TEXT_BYTES_MAX: usize = 256;

/// The places on which it depends how a record of a format is written, as bits of slots.
#[derive(Default)]
pub(super) struct Deciding {
    /// Of these it matters whether a value is there.
    pub(super) bits: Box<[(u16, u64)]>,
    /// Of these also what kind of value.
    pub(super) kinds: Box<[(u16, u64)]>,
    /// Of these also its text.
    pub(super) texts: Box<[(u16, u64)]>,
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
type Tried = Vec<(u32, bool)>;

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

/// The text of a value as it stands there, none if it is too long to say what happened.
pub(super) fn text_of<'r>(slot: &Slot, view: &View<'r, '_>) -> Option<&'r [u8]> {
    let text = match slot.kind {
        Kind::Null | Kind::Array | Kind::Object => &[],
        _ => view.texts.bytes(slot),
    };
    (text.len() <= TEXT_BYTES_MAX).then_some(text)
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
        if matches!(refusal, Refused::Yes(_)) {
            return Plan {
                refusal,
                ways: [Way::Nothing; Field::N],
                metadata: Vec::new(),
                steps: Vec::new(),
                tries: Vec::new(),
                text: Vec::new(),
            };
        }
        let ways = Field::ALL.map(|field| self.way(field.rules(&format.fields), false));
        let steps = std::mem::take(&mut self.steps);
        for (member, extra) in format.metadata.iter().enumerate() {
            // Taken back if there is no value.
            let (n_steps, n_bytes) = (self.steps.len(), self.text.len());
            self.text(extra.before.as_bytes());
            self.steps.extend(extra.known.map(|_| Step::Begin));
            let way = self.way(&extra.rules, true);
            if let Way::Steps(..) = way {
                let end = extra.known.map(|known| Step::End(known as u8));
                self.steps.extend(end);
                continue;
            }
            self.steps.truncate(n_steps);
            self.text.truncate(n_bytes);
            if let Way::Try(number) = way {
                self.steps.push(Step::Member(member as u16, number));
            }
        }
        self.text.shrink_to_fit();
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
        lookup.place(self.view.slots).is_none_or(|place| {
            self.fickle[place as usize / 64] >> (place % 64) & 1 == 0
                && text_of(self.view.slots.get(place), self.view).is_some()
        })
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
            let texts_are_known = || rule.origin.lookups().all(|it| self.is_known(it));
            if holds == Some(true) && (!rule.changes() || texts_are_known()) {
                let mut made = Vec::new();
                if rule.changes() && !view.push(rule, is_kept, &mut made) {
                    continue;
                }
                if tried.is_empty() {
                    let first = self.steps.len() as u32;
                    if rule.changes() {
                        self.text(&made);
                    } else {
                        self.copy(rule, is_kept);
                    }
                    return Way::Steps(first, self.steps.len() as u32);
                }
                tried.push((number as u32, true));
                break;
            }
            tried.push((number as u32, holds.is_some()));
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
    /// For all records that are like this one, but for the texts at some places: bits of those.
    pub(super) fn new(format: &Format, view: &View<'_, '_>, fickle: &[u64]) -> Self {
        let planner = Planner {
            format,
            view,
            fickle,
            steps: Vec::new(),
            tries: Vec::new(),
            text: Vec::new(),
        };
        planner.plan()
    }

    /// Memory that it takes, about.
    pub(super) fn n_bytes(&self) -> usize {
        /// An entry of the table, and what each vector takes beside what is in it.
        const FIXED_BYTES: usize = 256;
        let of_tries = |tried: &Tried| size_of::<Tried>() + size_of_val(&tried[..]);
        let of_steps = size_of_val(&self.metadata[..]) + size_of_val(&self.steps[..]);
        FIXED_BYTES + of_steps + self.tries.iter().map(of_tries).sum::<usize>() + self.text.len()
    }

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

    /// Compares what it writes with what all rules give, tried one after the other.
    #[cfg(test)]
    pub(super) fn check(&self, format: &Format, view: &View<'_, '_>) {
        let refusal = self.refusal(format, view);
        assert_eq!(refusal, format.refusal_from(0, view), "{}", format.name);
        if refusal.is_some() {
            return;
        }
        let by_rules = |rules: &Rules, is_kept: bool| {
            rules.all.iter().find_map(|rule| {
                let mut value = Vec::new();
                let holds = view.all_hold(&rule.conditions);
                (holds && view.push(rule, is_kept, &mut value)).then_some(value)
            })
        };
        for field in Field::ALL {
            let mut value = Vec::new();
            let is_given = self.push_field(field, format, view, &mut value);
            let expected = by_rules(field.rules(&format.fields), false);
            assert_eq!(is_given.then_some(value), expected, "{}", format.name);
        }
        let mut metadata = Vec::new();
        self.push_metadata(format, view, 0, &mut metadata, &mut Fields::default());
        let expected = format.metadata.iter().flat_map(|extra| {
            let value = by_rules(&extra.rules, true);
            value.map_or_else(Vec::new, |value| [extra.before.as_bytes(), &value].concat())
        });
        let expected: Vec<u8> = expected.collect();
        let text = String::from_utf8_lossy;
        assert_eq!(text(&metadata), text(&expected), "{}", format.name);
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
