//! Makes of a mapping's document what records are read by.

mod holders;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail, ensure};

use super::document::{self, Document};
use super::expression::{Expression, regex_set};
use super::format::{Extra, Fields, Format, Pattern, Refusal, Sign};
use super::memo::next_list;
use super::path::{Path, Start, Step, parse_paths};
use super::plan::{Deciding, Field};
use super::rule::{Condition, Lookup, Origin, Part, Rule, Rules, Test, push_inside};
use super::signs::{NATIVE_MEMBERS, SignNames};
use super::slots::{Empty, bits_of, union_of};
use super::table::Table;
use super::time::TimeForm;
use super::tree::{ROOT, Tree, sign_place};
use crate::record::in_metadata;
pub(super) use holders::Holders;

/// A format as its document says; tables may be those of another one.
///
/// # Errors
/// What is wrong with the document.
pub(super) fn compile<'a>(
    document: &'a Document,
    names: &SignNames,
    document_of: &'a dyn Fn(&str) -> Option<&'a Document>,
) -> anyhow::Result<Format> {
    let mut compiler = Compiler::new(document, document_of);
    let format = compiler.format(document, names);
    format.with_context(|| format!("in the mapping {}", document.name))
}

/// What is gathered while a document is compiled.
struct Compiler<'a> {
    /// Documents by the names of their formats.
    document_of: &'a dyn Fn(&str) -> Option<&'a Document>,
    tree: Tree,
    /// The places of what patterns find.
    found: HashMap<String, u16>,
    /// The place of an element of `each`.
    element: Option<u16>,
    each: Option<u16>,
    tables: HashMap<String, Arc<Table>>,
    aliases: BTreeMap<String, Vec<String>>,
}

impl<'a> Compiler<'a> {
    fn new(document: &Document, document_of: &'a dyn Fn(&str) -> Option<&'a Document>) -> Self {
        let tables = document.tables.iter();
        let tables = tables.map(|(name, entries)| (name.clone(), Arc::new(Table::new(entries))));
        Self {
            document_of,
            tree: Tree::new(document.fold_case, Empty::new(&document.empty)),
            found: HashMap::new(),
            element: None,
            each: None,
            tables: tables.collect(),
            aliases: document.aliases.clone(),
        }
    }

    fn each(&mut self, path: &str) -> anyhow::Result<()> {
        let paths = parse_paths(path).map_err(|error| anyhow!(error))?;
        let [path] = &paths[..] else {
            bail!("'each' takes one path");
        };
        let place = self
            .members(path)
            .context("'each' takes names of members")?;
        self.element = Some(self.tree.element_of(place));
        self.each = Some(place);
        Ok(())
    }

    /// The place of a path that is nothing but names.
    fn members(&mut self, path: &Path) -> Option<u16> {
        let is_member = |step: &Step| matches!(step, Step::Member(_));
        let is_plain = path.start == Start::Record && path.steps.iter().all(is_member);
        is_plain.then(|| self.tree.add(ROOT, &path.steps))
    }

    fn all_members(&mut self, paths: &[String]) -> anyhow::Result<Vec<u16>> {
        let mut places = Vec::new();
        for text in paths {
            for path in parse_paths(text).map_err(|error| anyhow!(error))? {
                let place = self.members(&path);
                places.push(
                    place.with_context(|| format!("'{text}' is more than names of members"))?,
                );
            }
        }
        Ok(places)
    }

    fn format(&mut self, document: &Document, names: &SignNames) -> anyhow::Result<Format> {
        // First: their places are to be the same in the tree of every format.
        self.tree.add_signs(&names.names);
        if let Some(path) = &document.each {
            self.each(path)?;
        }
        let envelopes = self.all_members(&document.records)?;
        let inside = self.all_members(&document.inside)?;
        let signs = document.detect.iter().map(|sign| {
            let number = |name: &String| names.number(name).context("a member without a number");
            let numbers = |names: &[String]| names.iter().map(number).collect::<Result<_, _>>();
            let mut has: Vec<u16> = numbers(&sign.has)?;
            has.extend(sign.is.keys().map(number).collect::<Result<Vec<_>, _>>()?);
            let is = sign.is.iter();
            let is = is.map(|(name, texts)| Ok((sign_place(number(name)?), texts.all())));
            let exact = sign.has.iter().filter(|_| sign.exact);
            let exact = exact.map(|name| {
                let number = number(name)?;
                let is_listed = names.names[usize::from(number)] == *name;
                Ok((sign_place(number), is_listed))
            });
            Ok(Sign {
                exact: exact.collect::<anyhow::Result<_>>()?,
                has,
                lacks: numbers(&sign.lacks)?,
                is: is.collect::<anyhow::Result<_>>()?,
            })
        });
        let signs = signs.collect::<anyhow::Result<_>>()?;
        let patterns = document.pattern.iter();
        let patterns: anyhow::Result<Vec<_>> =
            patterns.map(|pattern| self.pattern(pattern)).collect();
        let mut patterns = patterns?;
        join(&mut patterns)?;
        let refusals = document.reject.iter().map(|refusal| {
            Ok(Refusal {
                conditions: self.conditions(&refusal.when)?,
                reason: refusal.reason.clone(),
            })
        });
        let refusals = refusals.collect::<anyhow::Result<Vec<_>>>()?;
        let fields = self.fields(&document.fields)?;
        for name in ["format", "raw"] {
            ensure!(
                !document.metadata.contains_key(name),
                "metadata.{name} is written by the program"
            );
        }
        let metadata = document.metadata.iter().map(|(name, rules)| {
            let rules: document::Rules = rules.clone().try_into()?;
            let mut escaped = Vec::new();
            push_inside(name, &mut escaped);
            let rules = self.rules(&rules, false);
            let rules = rules.with_context(|| format!("in metadata.{name}"))?;
            Ok(Extra {
                name: name.clone(),
                before: format!(",\"{}\":", String::from_utf8(escaped)?),
                rules,
                known: in_metadata(name),
            })
        });
        let metadata = metadata.collect::<anyhow::Result<Vec<Extra>>>()?;
        ensure!(
            self.tree.n_places() + metadata.len() < usize::from(u16::MAX) / 2,
            "it looks at too many places"
        );
        let of_refusals = refusals.iter().flat_map(|refusal| &refusal.conditions);
        let of_metadata = metadata.iter().map(|extra| &extra.rules);
        let of_fields = Field::ALL.map(|field| field.rules(&fields));
        let lists = of_fields.into_iter().chain(of_metadata);
        let deciding = Deciding::new(of_refusals, lists);
        self.tree.finish();
        Ok(Format {
            name: document.name.clone(),
            title: document.title.clone(),
            tree: std::mem::replace(&mut self.tree, Tree::new(false, Empty::default())),
            signs,
            envelopes,
            natives: NATIVE_MEMBERS
                .iter()
                .filter_map(|name| names.number(name))
                .collect(),
            inside,
            each: self.each,
            refusals,
            pattern_bits: union_of(patterns.iter().flat_map(|it| it.of.bits.iter().copied())),
            pattern_memo: next_list(),
            patterns,
            found: self.found.values().copied().collect(),
            fields,
            deciding,
            metadata,
        })
    }

    fn fields(&mut self, fields: &BTreeMap<String, document::Rules>) -> anyhow::Result<Fields> {
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
        let mut of = |name: &str| {
            let Some(rules) = fields.get(name) else {
                let is_required = matches!(name, "user" | "timestamp" | "type");
                ensure!(!is_required, "the field '{name}' is missing");
                return Ok(Rules::default());
            };
            let rules = self.rules(rules, name == "timestamp");
            rules.with_context(|| format!("in {name}"))
        };
        let [
            event_id,
            user,
            timestamp,
            kind,
            source_ip,
            geo_location,
            threat_score,
            status,
        ] = NAMES.map(&mut of);
        Ok(Fields {
            event_id: event_id?,
            user: user?,
            timestamp: timestamp?,
            kind: kind?,
            source_ip: source_ip?,
            geo_location: geo_location?,
            threat_score: threat_score?,
            status: status?,
        })
    }

    fn rules(&mut self, rules: &document::Rules, is_time: bool) -> anyhow::Result<Rules> {
        let rules = rules.all().iter();
        let rules: anyhow::Result<_> = rules.map(|rule| self.rule(rule, is_time)).collect();
        Ok(Rules { all: rules? })
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
        let pattern = table
            .pattern
            .as_ref()
            .map(|text| Expression::new(text))
            .transpose()?;
        if let Some(pattern) = &pattern {
            ensure!(
                pattern.group_names().count() > 1,
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
                let own = self.tables.get(name).cloned();
                let other = || {
                    let (format, table) = name.split_once('.')?;
                    let entries = (self.document_of)(format)?.tables.get(table)?;
                    Some(Arc::new(Table::new(entries)))
                };
                own.or_else(other)
                    .with_context(|| format!("there is no table '{name}'"))
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
                        add(Test::Matches(Expression::new(text)?));
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
                parts.push(Part::of_text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Path(self.lookup(&after[..end])?));
            rest = &after[end + 1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::of_text(plain));
        }
        Ok(parts)
    }

    fn lookup(&mut self, text: &str) -> anyhow::Result<Lookup> {
        let spelled = self.spell(text)?;
        let paths = parse_paths(&spelled).map_err(|error| anyhow!(error))?;
        let mut places = Vec::new();
        let mut shown = Vec::new();
        for path in paths {
            shown.push(path.shown);
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
            paths: shown.into(),
            bits: bits_of(&places),
            places: places.into(),
            shown: text.to_owned(),
        })
    }

    /// A path in which `~NAME.rest` stands for what an alias says: each of its texts with the rest for `*`.
    fn spell<'t>(&self, text: &'t str) -> anyhow::Result<Cow<'t, str>> {
        if !text.contains('~') {
            return Ok(Cow::Borrowed(text));
        }
        let mut spelled = Vec::new();
        for path in text.split(" | ") {
            let Some(path) = path.trim().strip_prefix('~') else {
                spelled.push(path.to_owned());
                continue;
            };
            let end = path.find(['.', '[', ':']).unwrap_or(path.len());
            let (name, rest) = path.split_at(end);
            let rest = rest.strip_prefix('.').unwrap_or(rest);
            let alias = self.aliases.get(name);
            let alias = alias.with_context(|| format!("there is no alias '{name}'"))?;
            let mut first = rest.chars();
            let small: String = first
                .next()
                .map(|sign| sign.to_ascii_lowercase())
                .into_iter()
                .collect();
            let small = small + first.as_str();
            let spell = |form: &String| {
                // A star in brackets is a step of the path.
                let parts = form.split("[*]");
                let parts = parts.map(|part| part.replace('*', rest).replace('%', &small));
                parts.collect::<Vec<_>>().join("[*]")
            };
            spelled.extend(alias.iter().map(spell));
        }
        Ok(Cow::Owned(spelled.join(" | ")))
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
        let regex = Expression::new(&pattern.regex)?;
        let groups = regex.group_names().enumerate();
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
            set: None,
            constants_at: set,
            constants,
        })
    }
}

/// Lets patterns that stand one after the other and look at the same place be tried together.
fn join(patterns: &mut [Pattern]) -> anyhow::Result<()> {
    let mut start = 0;
    while start < patterns.len() {
        let of = &patterns[start].of.shown;
        let same = patterns[start..]
            .iter()
            .take_while(|pattern| pattern.of.shown == *of);
        let n_same = same.clone().count();
        if n_same > 1 {
            let set = regex_set(same.map(|pattern| &pattern.regex))?;
            patterns[start].set = Some(set);
        }
        start += n_same;
    }
    Ok(())
}
