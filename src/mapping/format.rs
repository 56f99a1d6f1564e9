//! A mapping as it is used: compiled from its document.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail, ensure};
use regex::{CaptureLocations, Regex};

use super::document::{self, Document, Rules};
use super::path::{Start, Step, parse_paths};
use super::rule::{Condition, Lookup, Origin, Part, Rule, Test, View, push_inside};
use super::slots::{Kind, SIGNS_MAX, Slot, Slots, Texts};
use super::table::Table;
use super::time::TimeForm;
use super::walk::{ROOT, Tree};

/// A format and how its records become events.
pub(super) struct Format {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) tree: Tree,
    signs: Vec<Sign>,
    /// Members that hold records where they are an array, of this format and of any.
    pub(super) envelopes: Vec<u16>,
    pub(super) envelopes_of_any: Vec<u16>,
    /// Members by which an event of ours is told.
    pub(super) natives: Vec<u8>,
    /// The array of which each element is an event.
    pub(super) each: Option<u16>,
    pub(super) refusals: Vec<Refusal>,
    patterns: Vec<Pattern>,
    /// The places of what patterns find.
    found: Vec<u16>,
    pub(super) fields: Fields,
    /// Names as they stand in a JSON string.
    pub(super) metadata: Vec<(String, Vec<Rule>)>,
    pub(super) empty: Vec<String>,
}

/// The rules for each of our fields.
pub(super) struct Fields {
    pub(super) event_id: Vec<Rule>,
    pub(super) user: Vec<Rule>,
    pub(super) timestamp: Vec<Rule>,
    pub(super) kind: Vec<Rule>,
    pub(super) source_ip: Vec<Rule>,
    pub(super) geo_location: Vec<Rule>,
    pub(super) threat_score: Vec<Rule>,
    pub(super) status: Vec<Rule>,
}

/// A kind of records that are no events.
pub(super) struct Refusal {
    pub(super) conditions: Vec<Condition>,
    pub(super) reason: String,
}

struct Pattern {
    of: Lookup,
    regex: Regex,
    /// Groups of the expression, and the places of what they find.
    groups: Vec<(usize, u16)>,
    /// Places of constants, and where those stand in `constants`.
    set: Vec<(u16, usize, usize)>,
    constants: String,
}

/// One way to tell a format: members that have to be there and those that must not, by their numbers.
struct Sign {
    has: Vec<u8>,
    lacks: Vec<u8>,
    is: Vec<(u16, Vec<String>)>,
}

/// Numbers of the members by which any of the formats is told.
pub(super) struct SignNames {
    names: Vec<String>,
}

/// Members that all events of ours have under these names.
const NATIVE_MEMBERS: [&str; 3] = ["event_id", "user", "timestamp"];

impl SignNames {
    /// Those of our own events.
    pub(super) fn new() -> Self {
        Self {
            names: NATIVE_MEMBERS.map(str::to_owned).into(),
        }
    }

    /// Adds those of a document.
    ///
    /// # Errors
    /// If there are too many of them.
    pub(super) fn add(&mut self, document: &Document) -> anyhow::Result<()> {
        for sign in &document.detect {
            let named = sign.has.iter().chain(sign.is.keys()).chain(&sign.lacks);
            for name in named.chain(&document.records) {
                if self.number(name).is_none() {
                    ensure!(
                        self.names.len() < SIGNS_MAX,
                        "too many members to tell formats by"
                    );
                    self.names.push(name.clone());
                }
            }
        }
        Ok(())
    }

    fn number(&self, name: &str) -> Option<u8> {
        let same = |other: &String| other.eq_ignore_ascii_case(name);
        self.names.iter().position(same).map(|number| number as u8)
    }
}

impl Format {
    /// # Errors
    /// What is wrong with the document.
    pub(super) fn compile(
        document: &Document,
        names: &SignNames,
        envelopes: &[String],
    ) -> anyhow::Result<Self> {
        let mut compiler = Compiler::new(document)?;
        let format = compiler.format(document, names, envelopes);
        format.with_context(|| format!("in the mapping {}", document.name))
    }

    /// Whether what was found is of this format.
    pub(super) fn is_told_by(&self, slots: &Slots, texts: &Texts<'_>) -> bool {
        self.signs.iter().any(|sign| {
            sign.has.iter().all(|&number| slots.has_seen(number))
                && !sign.lacks.iter().any(|&number| slots.has_seen(number))
                && sign.is.iter().all(|(place, wanted)| {
                    let slot = slots.get(*place);
                    let text = slot.is_scalar().then(|| texts.get(slot)).flatten();
                    text.is_some_and(|text| wanted.iter().any(|wanted| *wanted == text))
                })
        })
    }

    pub(super) fn view<'r, 'a>(&'r self, slots: &'r Slots, texts: &'r Texts<'a>) -> View<'r, 'a> {
        View {
            slots,
            texts,
            empty: &self.empty,
        }
    }

    /// Looks for the first pattern that matches, and notes what it finds.
    pub(super) fn find_patterns(&self, slots: &mut Slots, texts: &mut Texts<'_>) {
        slots.forget(&self.found);
        for pattern in &self.patterns {
            let view = self.view(slots, texts);
            let text = view.look(&pattern.of).and_then(|slot| view.text(slot));
            let Some(text) = text else { continue };
            let mut locations: CaptureLocations = pattern.regex.capture_locations();
            if pattern.regex.captures_read(&mut locations, &text).is_none() {
                continue;
            }
            let text = text.into_owned();
            let n_bytes = text.len();
            if texts.is_full() {
                return;
            }
            let (number, mut made) = texts.take();
            made.push_str(&text);
            made.push_str(&pattern.constants);
            texts.put(number, made);
            for &(group, place) in &pattern.groups {
                if let Some((start, end)) = locations.get(group) {
                    slots.set(place, Slot::new(Kind::Raw, number, start, end));
                }
            }
            for &(place, start, end) in &pattern.set {
                let slot = Slot::new(Kind::Raw, number, n_bytes + start, n_bytes + end);
                slots.set(place, slot);
            }
            return;
        }
    }
}

/// What is gathered while a document is compiled.
struct Compiler {
    tree: Tree,
    /// The places of what patterns find.
    found: HashMap<String, u16>,
    /// The place of an element of `each`.
    element: Option<u16>,
    each: Option<u16>,
    tables: HashMap<String, Arc<Table>>,
}

impl Compiler {
    fn new(document: &Document) -> anyhow::Result<Self> {
        let mut tree = Tree::new(document.fold_case);
        let mut each = None;
        let mut element = None;
        if let Some(path) = &document.each {
            let paths = parse_paths(path).map_err(|error| anyhow!(error))?;
            let [path] = &paths[..] else {
                bail!("'each' takes one path");
            };
            ensure!(
                path.start == Start::Record
                    && path
                        .steps
                        .iter()
                        .all(|step| matches!(step, Step::Member(_))),
                "'each' takes names of members"
            );
            let place = tree.add(ROOT, &path.steps);
            element = Some(tree.element_of(place));
            each = Some(place);
        }
        let tables = document.tables.iter();
        let tables = tables.map(|(name, entries)| (name.clone(), Arc::new(Table::new(entries))));
        Ok(Self {
            tree,
            found: HashMap::new(),
            element,
            each,
            tables: tables.collect(),
        })
    }

    fn format(
        &mut self,
        document: &Document,
        names: &SignNames,
        envelopes_of_any: &[String],
    ) -> anyhow::Result<Format> {
        for (number, name) in names.names.iter().enumerate() {
            self.tree.add_sign(name, number as u8);
        }
        let mut place_of = |name: &String| self.tree.add(ROOT, &[Step::Member(name.clone())]);
        let envelopes = document.records.iter().map(&mut place_of).collect();
        let envelopes_of_any = envelopes_of_any.iter().map(&mut place_of).collect();
        let signs = document.detect.iter().map(|sign| {
            let number = |name: &String| names.number(name).context("a member without a number");
            let numbers = |names: &[String]| names.iter().map(number).collect::<Result<_, _>>();
            let mut has: Vec<u8> = numbers(&sign.has)?;
            has.extend(sign.is.keys().map(number).collect::<Result<Vec<_>, _>>()?);
            let is = sign.is.iter();
            Ok(Sign {
                has,
                lacks: numbers(&sign.lacks)?,
                is: is
                    .map(|(name, texts)| (place_of(name), texts.all()))
                    .collect(),
            })
        });
        let signs = signs.collect::<anyhow::Result<_>>()?;
        let patterns = document.pattern.iter();
        let patterns: anyhow::Result<_> = patterns.map(|pattern| self.pattern(pattern)).collect();
        let patterns = patterns?;
        let refusals = document.reject.iter().map(|refusal| {
            Ok(Refusal {
                conditions: self.conditions(&refusal.when)?,
                reason: refusal.reason.clone(),
            })
        });
        let refusals = refusals.collect::<anyhow::Result<_>>()?;
        let fields = self.fields(&document.fields)?;
        let metadata = document.metadata.iter().map(|(name, rules)| {
            let rules: Rules = rules.clone().try_into()?;
            let mut escaped = Vec::new();
            push_inside(name, &mut escaped);
            let rules = self.rules(&rules, false);
            let rules = rules.with_context(|| format!("in metadata.{name}"))?;
            Ok((String::from_utf8(escaped)?, rules))
        });
        let metadata = metadata.collect::<anyhow::Result<_>>()?;
        self.tree.finish();
        Ok(Format {
            name: document.name.clone(),
            title: document.title.clone(),
            tree: std::mem::replace(&mut self.tree, Tree::new(false)),
            signs,
            envelopes,
            envelopes_of_any,
            natives: NATIVE_MEMBERS
                .iter()
                .filter_map(|name| names.number(name))
                .collect(),
            each: self.each,
            refusals,
            patterns,
            found: self.found.values().copied().collect(),
            fields,
            metadata,
            empty: document.empty.clone(),
        })
    }

    fn fields(&mut self, fields: &BTreeMap<String, Rules>) -> anyhow::Result<Fields> {
        const NAMES: [&str; 8] = [
            "event_id",
            "user",
            "timestamp",
            "type",
            "source_ip",
            "geo_location",
            "threat_score",
            "status",
        ];
        for name in fields.keys() {
            ensure!(NAMES.contains(&&**name), "there is no field '{name}'");
        }
        let mut compiled = NAMES.map(|name| {
            let Some(rules) = fields.get(name) else {
                let is_required = matches!(name, "user" | "timestamp" | "type");
                ensure!(!is_required, "the field '{name}' is missing");
                return Ok(Vec::new());
            };
            self.rules(rules, name == "timestamp")
                .with_context(|| format!("in {name}"))
        });
        let mut next = compiled
            .iter_mut()
            .map(|rules| std::mem::replace(rules, Ok(Vec::new())));
        let mut next = || next.next().context("a field without rules")?;
        Ok(Fields {
            event_id: next()?,
            user: next()?,
            timestamp: next()?,
            kind: next()?,
            source_ip: next()?,
            geo_location: next()?,
            threat_score: next()?,
            status: next()?,
        })
    }

    fn rules(&mut self, rules: &Rules, is_time: bool) -> anyhow::Result<Vec<Rule>> {
        rules
            .all()
            .iter()
            .map(|rule| self.rule(rule, is_time))
            .collect()
    }

    fn rule(&mut self, rule: &document::Rule, is_time: bool) -> anyhow::Result<Rule> {
        let table = match rule {
            document::Rule::Text(text) => {
                ensure!(
                    !is_time,
                    "a time needs its form: {{ from = '{text}', time = \"iso\" }}"
                );
                let origin = if text.contains('{') {
                    Origin::Template(self.template(text)?)
                } else {
                    Origin::Path(self.lookup(text)?)
                };
                return Ok(Rule {
                    conditions: Vec::new(),
                    origin,
                    pattern: None,
                    form: None,
                    table: None,
                    times: Vec::new(),
                });
            }
            document::Rule::Table(table) => table,
        };
        let origin = match (&table.from, &table.text) {
            (Some(path), None) => Origin::Path(self.lookup(path)?),
            (None, Some(text)) => Origin::Template(self.template(text)?),
            _ => bail!("a rule needs one of 'from' and 'text'"),
        };
        let pattern = table.pattern.as_ref().map(|text| regex(text)).transpose()?;
        if let Some(pattern) = &pattern {
            ensure!(
                pattern.captures_len() > 1,
                "'match' needs a group in brackets"
            );
        }
        let forms = table
            .time
            .as_ref()
            .map(document::Texts::all)
            .unwrap_or_default();
        ensure!(
            forms.is_empty() != is_time,
            "'time' is for the timestamp, which needs it"
        );
        let forms = forms.iter().map(|form| TimeForm::parse(form));
        Ok(Rule {
            conditions: self.conditions(&table.when)?,
            origin,
            pattern,
            form: table.form,
            table: table.map.as_ref().map(|map| self.table(map)).transpose()?,
            times: forms
                .collect::<Result<_, _>>()
                .map_err(|error| anyhow!(error))?,
        })
    }

    fn table(&self, map: &document::Map) -> anyhow::Result<Arc<Table>> {
        match map {
            document::Map::Inline(entries) => Ok(Arc::new(Table::new(entries))),
            document::Map::Named(name) => {
                let table = self.tables.get(name).cloned();
                table.with_context(|| format!("there is no table '{name}'"))
            }
        }
    }

    fn conditions(
        &mut self,
        conditions: &BTreeMap<String, document::Condition>,
    ) -> anyhow::Result<Vec<Condition>> {
        let mut compiled = Vec::new();
        for (path, condition) in conditions {
            let lookup = self.lookup(path)?;
            let mut add = |test| {
                let lookup = lookup.clone();
                compiled.push(Condition { lookup, test });
            };
            match condition {
                document::Condition::Is(texts) => add(Test::Is(texts.all())),
                document::Condition::Other(other) => {
                    if let Some(texts) = &other.not {
                        add(Test::IsNot(texts.all()));
                    }
                    if let Some(text) = &other.matches {
                        add(Test::Matches(regex(text)?));
                    }
                    if let Some(wanted) = other.exists {
                        add(Test::Exists(wanted));
                    }
                    if let Some(wanted) = other.blank {
                        add(Test::Blank(wanted));
                    }
                }
            }
        }
        Ok(compiled)
    }

    /// What stands between braces are paths; two braces are one.
    fn template(&mut self, text: &str) -> anyhow::Result<Vec<Part>> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            if after.starts_with(&rest[at..=at]) {
                plain.push_str(&rest[at..=at]);
                rest = &after[1..];
                continue;
            }
            let end = after.find('}').filter(|_| rest[at..].starts_with('{'));
            let end = end.with_context(|| format!("in '{text}': a brace without the other"))?;
            if !plain.is_empty() {
                parts.push(text_part(std::mem::take(&mut plain)));
            }
            parts.push(Part::Path(self.lookup(&after[..end])?));
            rest = &after[end + 1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(text_part(plain));
        }
        Ok(parts)
    }

    fn lookup(&mut self, text: &str) -> anyhow::Result<Lookup> {
        let paths = parse_paths(text).map_err(|error| anyhow!(error))?;
        let mut places = Vec::new();
        for path in paths {
            let place = match path.start {
                Start::Record => self.tree.add(ROOT, &path.steps),
                Start::Element => {
                    let element = self.element;
                    let element = element.with_context(|| format!("'{text}' needs 'each'"))?;
                    self.tree.add(element, &path.steps)
                }
                Start::Pattern => match &path.steps[..] {
                    [Step::Member(name)] => self.found_place(name),
                    _ => bail!("'{text}' is no name of what a pattern finds"),
                },
            };
            places.push(place);
        }
        Ok(Lookup {
            places: places.into(),
            shown: text.to_owned(),
        })
    }

    fn found_place(&mut self, name: &str) -> u16 {
        if let Some(&place) = self.found.get(name) {
            return place;
        }
        let place = self.tree.add_place();
        self.found.insert(name.to_owned(), place);
        place
    }

    fn pattern(&mut self, pattern: &document::Pattern) -> anyhow::Result<Pattern> {
        let regex = regex(&pattern.regex)?;
        let groups = regex.capture_names().enumerate();
        let groups = groups.filter_map(|(group, name)| Some((group, name?.to_owned())));
        let groups: Vec<_> = groups.collect();
        let mut constants = String::new();
        let mut set = Vec::new();
        for (name, text) in &pattern.set {
            let start = constants.len();
            constants.push_str(text);
            set.push((self.found_place(name), start, constants.len()));
        }
        Ok(Pattern {
            of: self.lookup(&pattern.of)?,
            groups: groups
                .into_iter()
                .map(|(group, name)| (group, self.found_place(&name)))
                .collect(),
            regex,
            set,
            constants,
        })
    }
}

fn text_part(plain: String) -> Part {
    let mut escaped = Vec::new();
    push_inside(&plain, &mut escaped);
    let escaped = String::from_utf8(escaped).expect("escapes of text are text");
    Part::Text { plain, escaped }
}

fn regex(text: &str) -> anyhow::Result<Regex> {
    /// A compiled expression is no larger, so that no mapping takes all memory.
    const REGEX_BYTES_MAX: usize = 4 << 20;
    let mut builder = regex::RegexBuilder::new(text);
    let built = builder.size_limit(REGEX_BYTES_MAX).build();
    built.with_context(|| format!("'{text}' is no regular expression"))
}
