//! A format as records are read by it.

use std::borrow::Cow;

use regex::RegexSet;

use super::expression::Expression;
use super::memo::{Memos, push_key, remembered};
use super::plan::Deciding;
use super::rule::{Condition, Lookup, Rules, View};
use super::slots::{Kind, Slot, Slots, Texts, places_of};
use super::tree::Tree;

/// A format and how its records become events.
pub(super) struct Format {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) tree: Tree,
    pub(super) signs: Vec<Sign>,
    /// Members that hold records where they are an array.
    pub(super) envelopes: Vec<u16>,
    /// Members by which an event of ours is told.
    pub(super) natives: Vec<u16>,
    /// Members that hold the record itself.
    pub(super) inside: Vec<u16>,
    /// The array of which each element is an event.
    pub(super) each: Option<u16>,
    pub(super) refusals: Vec<Refusal>,
    pub(super) patterns: Vec<Pattern>,
    /// The places that they look at, and the number under which is remembered what they find.
    pub(super) pattern_bits: Box<[(u16, u64)]>,
    pub(super) pattern_memo: u32,
    /// The places of what patterns find.
    pub(super) found: Vec<u16>,
    pub(super) fields: Fields,
    pub(super) metadata: Vec<Extra>,
    /// The places on which it depends which rules give values.
    pub(super) deciding: Deciding,
}

/// A member of metadata.
pub(super) struct Extra {
    pub(super) name: String,
    /// What stands before its value, with a comma.
    pub(super) before: String,
    pub(super) rules: Rules,
    /// Its number, if detectors look at it.
    pub(super) known: Option<usize>,
}

/// The rules for each of our fields.
pub(super) struct Fields {
    pub(super) event_id: Rules,
    pub(super) user: Rules,
    pub(super) timestamp: Rules,
    pub(super) kind: Rules,
    pub(super) source_ip: Rules,
    pub(super) geo_location: Rules,
    pub(super) threat_score: Rules,
    pub(super) status: Rules,
}

/// A kind of records that are no events.
pub(super) struct Refusal {
    pub(super) conditions: Vec<Condition>,
    pub(super) reason: String,
}

pub(super) struct Pattern {
    pub(super) of: Lookup,
    pub(super) regex: Expression,
    /// All patterns from this one on that look at the same place, if it is the first of several.
    pub(super) set: Option<RegexSet>,
    /// Groups of the expression, and the places of what they find.
    pub(super) groups: Vec<(usize, u16)>,
    /// Places of constants, and where those stand in `constants`.
    pub(super) constants_at: Vec<(u16, usize, usize)>,
    pub(super) constants: String,
}

/// One way to tell a format: members that have to be there and those that must not, by their numbers.
pub(super) struct Sign {
    pub(super) has: Vec<u16>,
    pub(super) lacks: Vec<u16>,
    pub(super) is: Vec<(u16, Vec<String>)>,
    /// Places of members whose letters count, and whether they are those of the list of all names.
    pub(super) exact: Vec<(u16, bool)>,
}

impl Format {
    /// Whether what was found is of this format; `asks_more` is set if that does not follow from which members are there.
    pub(super) fn is_told_by(
        &self,
        slots: &Slots,
        texts: &Texts<'_>,
        asks_more: &mut bool,
    ) -> bool {
        self.signs.iter().any(|sign| {
            let has_members = sign.has.iter().all(|&number| slots.has_seen(number))
                && !sign.lacks.iter().any(|&number| slots.has_seen(number));
            if !has_members {
                return false;
            }
            *asks_more |= !sign.exact.is_empty() || !sign.is.is_empty();
            sign.exact
                .iter()
                .all(|(place, is_listed)| slots.get(*place).is_exact == *is_listed)
                && sign.is.iter().all(|(place, wanted)| {
                    let slot = slots.get(*place);
                    let text = slot.is_scalar().then(|| texts.get(slot)).flatten();
                    text.is_some_and(|text| wanted.iter().any(|wanted| *wanted == text))
                })
        })
    }

    /// Why a record is no event, if it is of one of those kinds from one on.
    pub(super) fn refusal_from(&self, first: usize, view: &View<'_, '_>) -> Option<&str> {
        let mut refusals = self.refusals[first..].iter();
        let found = refusals.find(|refusal| view.all_hold(&refusal.conditions));
        found.map(|refusal| &*refusal.reason)
    }

    /// Looks for the first pattern that matches, and notes what it finds.
    pub(super) fn find_patterns(
        &self,
        slots: &mut Slots,
        texts: &mut Texts<'_>,
        memos: &mut Memos,
    ) {
        if self.patterns.is_empty() {
            return;
        }
        slots.forget(&self.found);
        let mut spans = Vec::new();
        let view = View { slots, texts };
        let key = |key: &mut Vec<u8>| {
            self.pattern_bits.iter().all(|&(word, mask)| {
                let found = view.slots.found(word, mask);
                key.extend_from_slice(&found.to_le_bytes());
                places_of(word, found).all(|place| push_key(view.slots.get(place), view.texts, key))
            })
        };
        let find = |spans: &mut Vec<u8>| self.push_spans(&view, spans);
        if !remembered(memos, self.pattern_memo, key, &mut spans, find) {
            return;
        }
        let mut numbers = spans
            .chunks_exact(4)
            .map(|it| u32::from_le_bytes([it[0], it[1], it[2], it[3]]));
        let Some(pattern) = numbers.next().map(|number| &self.patterns[number as usize]) else {
            return;
        };
        let text = view.look(&pattern.of).and_then(|slot| view.text(slot));
        let Some(text) = text.map(Cow::into_owned).filter(|_| !texts.is_full()) else {
            return;
        };
        let (number, mut made) = texts.take();
        made.push_str(&text);
        made.push_str(&pattern.constants);
        texts.put(number, made);
        for &(_, place) in &pattern.groups {
            if let (Some(start), Some(end)) = (numbers.next(), numbers.next())
                && start <= end
            {
                let slot = Slot::new(Kind::Raw, number, start as usize, end as usize);
                self.tree.note(slots, texts, place, slot);
            }
        }
        for &(place, start, end) in &pattern.constants_at {
            let slot = Slot::new(Kind::Raw, number, text.len() + start, text.len() + end);
            self.tree.note(slots, texts, place, slot);
        }
    }

    /// Appends the number of the first pattern that matches, and where each of its groups stands; `u32::MAX, 0` if
    /// it has found nothing.
    fn push_spans(&self, view: &View<'_, '_>, spans: &mut Vec<u8>) -> bool {
        let mut next = 0;
        while let Some(first) = self.patterns.get(next) {
            // Those that follow and look at the same place are tried together.
            let n_same = first.set.as_ref().map_or(1, RegexSet::len);
            let text = view.look(&first.of).and_then(|slot| view.text(slot));
            let found = text.as_ref().and_then(|text| {
                let number = match &first.set {
                    Some(set) => set.matches(text).iter().next()?,
                    None => 0,
                };
                let pattern = &self.patterns[next + number];
                Some((next + number, pattern, pattern.regex.captures(text)?))
            });
            if let Some((number, pattern, captures)) = found {
                spans.extend_from_slice(&(number as u32).to_le_bytes());
                for &(group, _) in &pattern.groups {
                    let place = captures.get_group(group);
                    let (start, end) =
                        place.map_or((u32::MAX, 0), |it| (it.start as u32, it.end as u32));
                    spans.extend_from_slice(&start.to_le_bytes());
                    spans.extend_from_slice(&end.to_le_bytes());
                }
                return true;
            }
            next += n_same;
        }
        false
    }
}
