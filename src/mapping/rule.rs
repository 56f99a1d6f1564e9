//! How a value of ours is made of what was found in a record.

use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::address::parse_address;
use super::document::Form;
use super::expression::Expression;
use super::slots::{Kind, Slot, Slots, Texts};
use super::table::Table;
use super::time::TimeForm;
use crate::record::text::push_json_string;

/// A place to look at, and where else if nothing is there.
#[derive(Clone)]
pub(super) struct Lookup {
    pub(super) places: Box<[u16]>,
    /// The same as bits of slots.
    pub(super) bits: Box<[(u16, u64)]>,
    /// The path of each.
    pub(super) paths: Box<[String]>,
    /// As the mapping writes it.
    pub(super) shown: String,
}

impl Lookup {
    /// The first of the places at which a value is.
    #[inline]
    pub(super) fn place(&self, slots: &Slots) -> Option<u16> {
        if !slots.has_any(&self.bits) {
            return None;
        }
        let mut places = self.places.iter().copied();
        places.find(|&place| slots.is_value(place))
    }
}

/// Ways to a value, of which the first that gives one counts.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) all: Vec<Rule>,
}

/// One way to a value.
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) origin: Origin,
    pub(super) pattern: Option<Expression>,
    pub(super) form: Option<Form>,
    pub(super) table: Option<Arc<Table>>,
    pub(super) times: Vec<TimeForm>,
}

impl Rule {
    /// Whether it gives something else than what stands at its places.
    pub(super) fn changes(&self) -> bool {
        self.pattern.is_some() || self.form.is_some() || self.table.is_some()
    }
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

    /// The same with the paths at which values are.
    pub(super) fn found(&self, view: &View<'_, '_>) -> String {
        let path = |lookup: &Lookup| {
            let at = lookup
                .places
                .iter()
                .position(|&place| view.slots.is_value(place));
            at.map_or_else(|| lookup.shown.clone(), |at| lookup.paths[at].clone())
        };
        match self {
            Self::Path(lookup) => path(lookup),
            Self::Template(parts) => {
                let shown = parts.iter().map(|part| match part {
                    Part::Text { plain, .. } => plain.clone(),
                    Part::Path(lookup) => format!("{{{}}}", path(lookup)),
                });
                shown.collect()
            }
        }
    }

    /// The paths in it.
    pub(super) fn lookups(&self) -> impl Iterator<Item = &Lookup> {
        let (path, parts) = match self {
            Self::Path(lookup) => (Some(lookup), &[][..]),
            Self::Template(parts) => (None, &parts[..]),
        };
        let of_parts = parts.iter().filter_map(|part| match part {
            Part::Text { .. } => None,
            Part::Path(lookup) => Some(lookup),
        });
        path.into_iter().chain(of_parts)
    }

    /// Whether it is more than a constant.
    pub(super) fn is_looked_up(&self) -> bool {
        self.lookups().next().is_some()
    }
}

impl Part {
    pub(super) fn of_text(plain: String) -> Self {
        let mut escaped = Vec::new();
        push_inside(&plain, &mut escaped);
        let escaped = String::from_utf8(escaped).expect("escapes of text are text");
        Self::Text { plain, escaped }
    }

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
    Matches(Expression),
    Exists(bool),
    /// A string without a text, or with one that stands for nothing.
    Blank(bool),
}

impl Test {
    /// Whether it looks at a text, and not only at whether anything is there.
    pub(super) fn is_of_text(&self) -> bool {
        matches!(self, Self::Is(_) | Self::IsNot(_) | Self::Matches(_))
    }
}

/// What was found in a record, as rules see it.
pub(super) struct View<'r, 'a> {
    pub(super) slots: &'r Slots,
    pub(super) texts: &'r Texts<'a>,
}

/// A value that a rule gives.
pub(super) enum Given<'r> {
    /// It stands in the record.
    Found(&'r Slot),
    Text(Cow<'r, str>),
    /// As JSON writes it.
    Number(String),
}

impl<'r> View<'r, '_> {
    /// The first of the places at which a value is.
    pub(super) fn look(&self, lookup: &Lookup) -> Option<&'r Slot> {
        let place = lookup.place(self.slots)?;
        Some(self.slots.get(place))
    }

    fn is_there(&self, lookup: &Lookup) -> bool {
        lookup.places.iter().any(|&place| {
            let slot = self.slots.get(place);
            matches!(slot.kind, Kind::Array | Kind::Object) || self.slots.is_value(place)
        })
    }

    fn is_blank(&self, lookup: &Lookup) -> bool {
        lookup.places.iter().any(|&place| {
            let slot = self.slots.get(place);
            matches!(slot.kind, Kind::Plain | Kind::Escaped | Kind::Raw)
                && !self.slots.is_value(place)
        })
    }

    pub(super) fn text(&self, slot: &Slot) -> Option<Cow<'r, str>> {
        self.texts.get(slot)
    }

    pub(super) fn all_hold(&self, conditions: &[Condition]) -> bool {
        conditions.iter().all(|condition| self.holds(condition))
    }

    pub(super) fn holds(&self, condition: &Condition) -> bool {
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
    pub(super) fn first<'v>(&self, rules: &'v Rules) -> Option<(usize, Given<'v>)>
    where
        'r: 'v,
    {
        let rules = rules.all.iter().enumerate();
        rules
            .into_iter()
            .filter(|(_, rule)| self.all_hold(&rule.conditions))
            .find_map(|(i, rule)| self.value(rule).map(|value| (i, value)))
    }

    /// What a rule gives whose conditions hold.
    fn value<'v>(&self, rule: &'v Rule) -> Option<Given<'v>>
    where
        'r: 'v,
    {
        let mut text = match &rule.origin {
            Origin::Path(lookup) => {
                let slot = self.look(lookup)?;
                if !rule.changes() {
                    return Some(Given::Found(slot));
                }
                self.text(slot)?
            }
            Origin::Template(parts) => Cow::Owned(self.fill(parts)?),
        };
        if let Some(pattern) = &rule.pattern {
            let group = pattern.first_group(&text)?;
            if group.is_empty() {
                return None;
            }
            text = match text {
                Cow::Borrowed(text) => Cow::Borrowed(&text[group]),
                Cow::Owned(text) => Cow::Owned(text[group].to_owned()),
            };
        }
        match rule.form {
            // An IPv4 address has one spelling.
            Some(Form::Ip) if text.parse::<Ipv4Addr>().is_ok() => {}
            Some(Form::Ip) => text = Cow::Owned(parse_address(&text)?.to_string()),
            Some(Form::Lower) => text.to_mut().make_ascii_lowercase(),
            Some(Form::Slashes) => text = Cow::Owned(with_slashes(&text)),
            Some(Form::Number) => return number(&text).map(Given::Number),
            None => {}
        }
        if let Some(table) = &rule.table {
            text = Cow::Borrowed(table.get(&text)?);
        }
        Some(Given::Text(text))
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

    /// Appends the value that a rule whose conditions hold gives, as a JSON string, or a number or boolean as it is if
    /// those are `kept`; false, and maybe a part of it, if it gives none.
    pub(super) fn push(&self, rule: &Rule, is_kept: bool, output: &mut Vec<u8>) -> bool {
        if let Origin::Template(parts) = &rule.origin
            && !rule.changes()
        {
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
            Some(Given::Found(slot)) => self.push_slot(slot, is_kept, output),
            Some(Given::Text(text)) => push_json_string(output, &text),
            Some(Given::Number(number)) => output.extend_from_slice(number.as_bytes()),
        }
        true
    }

    pub(super) fn push_slot(&self, slot: &Slot, is_kept: bool, output: &mut Vec<u8>) {
        if matches!(slot.kind, Kind::Plain | Kind::Escaped) {
            self.texts.push_quoted(slot, output);
            return;
        }
        // What no reader can read as a number is text.
        let is_number = || {
            let text = self.texts.raw(slot);
            let is_small = text.len() <= PLAIN_BYTES_MAX && !text.contains(['e', 'E']);
            is_small || number(text).is_some()
        };
        if is_kept && (slot.kind == Kind::Bool || slot.kind == Kind::Number && is_number()) {
            self.texts.push(slot, output);
            return;
        }
        output.push(b'"');
        self.push_inside(slot, output);
        output.push(b'"');
    }

    /// A value as it stands within a JSON string.
    pub(super) fn push_inside(&self, slot: &Slot, output: &mut Vec<u8>) {
        if slot.kind == Kind::Raw {
            push_inside(self.texts.raw(slot), output);
        } else {
            self.texts.push(slot, output);
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

/// A path with `/` for `\`, and for several in a row: some double all of them, and some join what already has one. Two at its
/// beginning name a server, or four where all are doubled.
fn with_slashes(text: &str) -> String {
    let is_slash = |sign: char| matches!(sign, '/' | '\\');
    let behind = text.trim_start_matches('\\');
    let n_first = text.len() - behind.len();
    let mut runs = behind
        .split(|sign| !is_slash(sign))
        .filter(|run| !run.is_empty());
    let is_doubled = behind.contains('\\') && runs.all(|run| run.len() > 1);
    let mut path = String::with_capacity(text.len());
    if n_first >= if is_doubled { 4 } else { 2 } {
        path.push('/');
    }
    let mut rest = text;
    while let Some(start) = rest.find(is_slash) {
        let run = rest[start..].len() - rest[start..].trim_start_matches(is_slash).len();
        let (slashes, after) = rest[start..].split_at(run);
        path.push_str(&rest[..start]);
        path.push_str(if slashes.contains('\\') { "/" } else { slashes });
        rest = after;
    }
    path.push_str(rest);
    path
}

/// However its digits are, a number without an exponent that is so long is one to every reader.
const PLAIN_BYTES_MAX: usize = 300;

/// A number as JSON writes it, if the text is one.
fn number(text: &str) -> Option<String> {
    let text = text.trim_ascii();
    let number: serde_json::Number = serde_json::from_str(text).ok()?;
    number.as_f64()?.is_finite().then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_slash_where_they_had_any() {
        for (text, expected) in [
            (r"C:\Windows\a.exe", "C:/Windows/a.exe"),
            (r"C:\\Windows\\a.exe", "C:/Windows/a.exe"),
            (r"\\srv\share\a", "//srv/share/a"),
            (r"\\srv\share\\a", "//srv/share/a"),
            (r"\\srv/share\\a", "//srv/share/a"),
            (r"\\srv", "//srv"),
            (r"\\\\srv\\share", "//srv/share"),
            (r"\\Backup\\Nightly", "/Backup/Nightly"),
            (r"\Backup\Nightly", "/Backup/Nightly"),
            ("https://a//b", "https://a//b"),
            ("", ""),
        ] {
            assert_eq!(with_slashes(text), expected, "for {text}");
        }
    }
}
