//! A mapping as it is written: TOML. What the parts mean is in docs/formats.md.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) name: String,
    #[serde(default)]
    pub(super) title: String,
    /// Where the vendor describes the records.
    #[serde(default)]
    pub(super) source: String,
    #[serde(default)]
    pub(super) fold_case: bool,
    /// Texts that stand for nothing.
    #[serde(default)]
    pub(super) empty: Vec<String>,
    /// Members that hold records where they are an array.
    #[serde(default)]
    pub(super) records: Vec<String>,
    /// Members that hold the record itself where they are there, as an object or as JSON text.
    #[serde(default)]
    pub(super) inside: Vec<String>,
    /// Those of them that nothing has but an export of records: such an object is asked for the record in it, if it is
    /// of no known format.
    #[serde(default)]
    pub(super) wrappers: Vec<String>,
    /// The array of which each element is an event.
    pub(super) each: Option<String>,
    #[serde(default)]
    pub(super) input: Input,
    #[serde(default)]
    pub(super) detect: Vec<Sign>,
    #[serde(default)]
    pub(super) reject: Vec<Refusal>,
    #[serde(default)]
    pub(super) pattern: Vec<Pattern>,
    pub(super) fields: BTreeMap<String, Rules>,
    #[serde(default)]
    pub(super) metadata: toml::Table,
    /// What `~NAME.rest` stands for in paths: each of the texts, with the rest for `*`, or for `%` with a
    /// small first letter.
    #[serde(default)]
    pub(super) aliases: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub(super) tables: BTreeMap<String, BTreeMap<String, Scalar>>,
}

#[derive(Deserialize, Debug)]
#[serde(untagged)]
pub(super) enum Input {
    One(InputKind),
    Some(Vec<InputKind>),
}

impl Default for Input {
    fn default() -> Self {
        Self::One(InputKind::Json)
    }
}

impl Input {
    pub(super) fn has(&self, kind: InputKind) -> bool {
        match self {
            Self::One(one) => *one == kind,
            Self::Some(some) => some.contains(&kind),
        }
    }
}

#[derive(Clone, Copy, Deserialize, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum InputKind {
    Json,
    Syslog,
}

/// What tells that a record is of a format.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Sign {
    #[serde(default)]
    pub(super) has: Vec<String>,
    #[serde(default)]
    pub(super) is: BTreeMap<String, Texts>,
    #[serde(default)]
    pub(super) lacks: Vec<String>,
    /// Whether the names of `has` count in just these letters.
    #[serde(default)]
    pub(super) exact: bool,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Refusal {
    pub(super) when: BTreeMap<String, Condition>,
    pub(super) reason: String,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Pattern {
    pub(super) of: String,
    pub(super) regex: String,
    #[serde(default)]
    pub(super) set: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(super) enum Rules {
    One(Rule),
    Some(Vec<Rule>),
}

impl Rules {
    pub(super) fn all(&self) -> &[Rule] {
        match self {
            Self::One(rule) => std::slice::from_ref(rule),
            Self::Some(rules) => rules,
        }
    }
}

#[derive(Debug)]
pub(super) enum Rule {
    /// A path, or a template if it has braces.
    Text(String),
    Table(Box<RuleTable>),
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleTable {
    #[serde(default)]
    pub(super) when: BTreeMap<String, Condition>,
    pub(super) from: Option<String>,
    pub(super) text: Option<String>,
    #[serde(rename = "match")]
    pub(super) pattern: Option<String>,
    #[serde(rename = "as")]
    pub(super) form: Option<Form>,
    pub(super) map: Option<Map>,
    pub(super) time: Option<Texts>,
}

#[derive(Clone, Copy, Deserialize, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Form {
    Ip,
    Lower,
    /// With `/` for `\\`.
    Slashes,
    Number,
}

#[derive(Deserialize, Debug)]
#[serde(untagged)]
pub(super) enum Map {
    Named(String),
    Inline(BTreeMap<String, Scalar>),
}

/// One text or several. Numbers and booleans are texts as JSON writes them.
#[derive(Deserialize, Debug)]
#[serde(untagged)]
pub(super) enum Texts {
    One(Scalar),
    Some(Vec<Scalar>),
}

impl Texts {
    pub(super) fn all(&self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one.text()],
            Self::Some(some) => some.iter().map(Scalar::text).collect(),
        }
    }
}

#[derive(Deserialize, Debug)]
#[serde(untagged)]
pub(super) enum Scalar {
    Text(String),
    Bool(bool),
    Integer(i64),
    Number(f64),
}

impl Scalar {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
        }
    }
}

#[derive(Debug)]
pub(super) enum Condition {
    Is(Texts),
    Other(Comparison),
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Comparison {
    pub(super) not: Option<Texts>,
    pub(super) matches: Option<String>,
    pub(super) exists: Option<bool>,
    pub(super) blank: Option<bool>,
}

// Not untagged: what is wrong within a table would not be said.
impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::Array(rules) => {
                let rules: Result<_, _> = rules.into_iter().map(Rule::of).collect();
                rules.map(Self::Some)
            }
            rule => Rule::of(rule).map(Self::One),
        }
        .map_err(D::Error::custom)
    }
}

impl Rule {
    fn of(value: toml::Value) -> Result<Self, toml::de::Error> {
        match value {
            toml::Value::String(text) => Ok(Self::Text(text)),
            table => table.try_into().map(|table| Self::Table(Box::new(table))),
        }
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            table @ toml::Value::Table(_) => table.try_into().map(Self::Other),
            texts => texts.try_into().map(Self::Is),
        }
        .map_err(D::Error::custom)
    }
}
