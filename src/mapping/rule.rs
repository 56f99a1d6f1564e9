//! How a value of ours is made of what was found in a record.

use std::borrow::Cow;
use std::sync::Arc;

use regex::Regex;

use super::address::parse_address;
use super::document::Form;
use super::slots::{Kind, Slot, Slots, Texts};
use super::table::Table;
use super::time::TimeForm;
use crate::record::text::push_json_string;

/// A place to look at, and where else if nothing is there.
#[derive(Clone)]
pub(super) struct Lookup {
    pub(super) places: Box<[u16]>,
    /// As the mapping writes it.
    pub(super) shown: String,
}

/// One way to a value.
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) origin: Origin,
    pub(super) pattern: Option<Regex>,
    pub(super) form: Option<Form>,
    pub(super) table: Option<Arc<Table>>,
    pub(super) times: Vec<TimeForm>,
}

pub(super) enum Origin {
    Path(Lookup),
    Template(Vec<Part>),
}

pub(super) enum Part {
    /// Text as it is, and as it stands in a JSON string.
    Text {
        plain: String,
        escaped: String,
    },
    Path(Lookup),
}

impl Origin {
    /// As the mapping writes it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Path(lookup) => lookup.shown.clone(),
            Self::Template(parts) => parts.iter().map(Part::shown).collect(),
        }
    }

    /// Whether it is more than a constant.
    pub(super) fn is_looked_up(&self) -> bool {
        match self {
            Self::Path(_) => true,
            Self::Template(parts) => parts.iter().any(|part| matches!(part, Part::Path(_))),
        }
    }
}

impl Part {
    fn shown(&self) -> String {
        match self {
            Self::Text { plain, .. } => plain.clone(),
            Self::Path(lookup) => format!("{{{}}}", lookup.shown),
        }
    }
}

/// Something that has to hold.
pub(super) struct Condition {
    pub(super) lookup: Lookup,
    pub(super) test: Test,
}

pub(super) enum Test {
    Is(Vec<String>),
    IsNot(Vec<String>),
    Matches(Regex),
    Exists(bool),
    /// A string without a text, or with one that stands for nothing.
    Blank(bool),
}

/// What was found in a record, as rules see it.
pub(super) struct View<'r, 'a> {
    pub(super) slots: &'r Slots,
    pub(super) texts: &'r Texts<'a>,
    /// Texts that stand for nothing.
    pub(super) empty: &'r [String],
}

/// A value that a rule gives.
pub(super) enum Value<'r> {
    /// It stands in the record.
    Found(&'r Slot),
    Text(Cow<'r, str>),
    /// As JSON writes it.
    Number(String),
}

impl<'r> View<'r, '_> {
    /// The first of the places at which a value is.
    pub(super) fn look(&self, lookup: &Lookup) -> Option<&'r Slot> {
        let slots = lookup.places.iter().map(|&place| self.slots.get(place));
        slots.into_iter().find(|slot| self.is_value(slot))
    }

    fn is_value(&self, slot: &Slot) -> bool {
        if !slot.is_scalar() {
            return false;
        }
        self.empty.is_empty() || {
            let raw = self.texts.raw(slot);
            self.empty.iter().all(|empty| empty != raw)
        }
    }

    fn is_there(&self, lookup: &Lookup) -> bool {
        lookup.places.iter().any(|&place| {
            let slot = self.slots.get(place);
            matches!(slot.kind, Kind::Array | Kind::Object) || self.is_value(slot)
        })
    }

    fn is_blank(&self, lookup: &Lookup) -> bool {
        lookup.places.iter().any(|&place| {
            let slot = self.slots.get(place);
            matches!(slot.kind, Kind::Plain | Kind::Escaped | Kind::Raw) && !self.is_value(slot)
        })
    }

    pub(super) fn text(&self, slot: &Slot) -> Option<Cow<'r, str>> {
        self.texts.get(slot)
    }

    pub(super) fn all_hold(&self, conditions: &[Condition]) -> bool {
        conditions.iter().all(|condition| self.holds(condition))
    }

    fn holds(&self, condition: &Condition) -> bool {
        let lookup = &condition.lookup;
        let test = |test: &dyn Fn(&str) -> bool| {
            let text = self.look(lookup).and_then(|slot| self.text(slot));
            text.is_some_and(|text| test(&text))
        };
        match &condition.test {
            Test::Is(texts) => test(&|found| texts.iter().any(|text| text == found)),
            Test::IsNot(texts) => !test(&|found| texts.iter().any(|text| text == found)),
            Test::Matches(regex) => test(&|found| regex.is_match(found)),
            Test::Exists(wanted) => self.is_there(lookup) == *wanted,
            Test::Blank(wanted) => self.is_blank(lookup) == *wanted,
        }
    }

    /// The first value that rules give, and the rule's number.
    pub(super) fn first(&self, rules: &[Rule]) -> Option<(usize, Value<'r>)> {
        rules
            .iter()
            .enumerate()
            .find_map(|(i, rule)| self.value(rule).map(|value| (i, value)))
    }

    fn value(&self, rule: &Rule) -> Option<Value<'r>> {
        if !self.all_hold(&rule.conditions) {
            return None;
        }
        let is_plain = rule.pattern.is_none() && rule.form.is_none() && rule.table.is_none();
        let mut text = match &rule.origin {
            Origin::Path(lookup) => {
                let slot = self.look(lookup)?;
                if is_plain {
                    return Some(Value::Found(slot));
                }
                self.text(slot)?
            }
            Origin::Template(parts) => Cow::Owned(self.fill(parts)?),
        };
        if let Some(pattern) = &rule.pattern {
            let group = pattern.captures(&text)?.get(1)?.range();
            if group.is_empty() {
                return None;
            }
            text = Cow::Owned(text[group].to_owned());
        }
        match rule.form {
            Some(Form::Ip) => text = Cow::Owned(parse_address(&text)?.to_string()),
            Some(Form::Lower) => text.to_mut().make_ascii_lowercase(),
            Some(Form::Number) => return number(&text).map(Value::Number),
            None => {}
        }
        if let Some(table) = &rule.table {
            text = Cow::Owned(table.get(&text)?.to_owned());
        }
        Some(Value::Text(text))
    }

    fn fill(&self, parts: &[Part]) -> Option<String> {
        let mut filled = String::new();
        for part in parts {
            match part {
                Part::Text { plain, .. } => filled.push_str(plain),
                Part::Path(lookup) => filled.push_str(&self.text(self.look(lookup)?)?),
            }
        }
        Some(filled)
    }

    /// Appends the first value that rules give as a JSON string, or a number or boolean as it is if
    /// those are `kept`; false if there is none.
    pub(super) fn push_first(&self, rules: &[Rule], is_kept: bool, output: &mut Vec<u8>) -> bool {
        let start = output.len();
        for rule in rules {
            if self.push(rule, is_kept, output) {
                return true;
            }
            output.truncate(start);
        }
        false
    }

    fn push(&self, rule: &Rule, is_kept: bool, output: &mut Vec<u8>) -> bool {
        let is_plain = rule.pattern.is_none() && rule.form.is_none() && rule.table.is_none();
        if let Origin::Template(parts) = &rule.origin
            && is_plain
        {
            if !self.all_hold(&rule.conditions) {
                return false;
            }
            output.push(b'"');
            for part in parts {
                match part {
                    Part::Text { escaped, .. } => output.extend_from_slice(escaped.as_bytes()),
                    Part::Path(lookup) => match self.look(lookup) {
                        Some(slot) => self.push_inside(slot, output),
                        None => return false,
                    },
                }
            }
            output.push(b'"');
            return true;
        }
        match self.value(rule) {
            None => return false,
            Some(Value::Found(slot)) => {
                let is_bare = is_kept && matches!(slot.kind, Kind::Number | Kind::Bool);
                if !is_bare {
                    output.push(b'"');
                }
                self.push_inside(slot, output);
                if !is_bare {
                    output.push(b'"');
                }
            }
            Some(Value::Text(text)) => push_json_string(output, &text),
            Some(Value::Number(number)) => output.extend_from_slice(number.as_bytes()),
        }
        true
    }

    /// A value as it stands within a JSON string.
    fn push_inside(&self, slot: &Slot, output: &mut Vec<u8>) {
        let raw = self.texts.raw(slot);
        if slot.kind == Kind::Raw {
            push_inside(raw, output);
        } else {
            output.extend_from_slice(raw.as_bytes());
        }
    }
}

/// Appends text as it stands within a JSON string.
pub(super) fn push_inside(text: &str, output: &mut Vec<u8>) {
    let start = output.len();
    push_json_string(output, text);
    output.pop();
    output.remove(start);
}

/// A number as JSON writes it, if the text is one.
fn number(text: &str) -> Option<String> {
    let text = text.trim_ascii();
    let number: serde_json::Number = serde_json::from_str(text).ok()?;
    number.as_f64()?.is_finite().then(|| text.to_owned())
}
