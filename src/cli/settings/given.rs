//! Values that nobody has typed, of variables and of the file, and where each comes from.

use std::ffi::OsString;
use std::fmt;

use anyhow::{anyhow, bail, ensure};
use clap::{Arg, ArgAction, Command, Id};

use super::file::{ConfigFile, Entry, Value};
use super::{own_prefix, variable_of};
use crate::cli::secret;

/// A value that was not typed.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) id: Id,
    pub(super) long: String,
    /// None for a flag, and for an option whose value may be left out.
    pub(super) values: Vec<OsString>,
    pub(super) fate: Fate,
    pub(super) origin: Origin,
    /// Of two for one option the smaller one counts.
    pub(super) rank: usize,
}

/// What becomes of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Used,
    /// A flag that is off.
    Off,
    /// It is the default anyway.
    Default,
    /// It changes nothing, for this reason.
    Idle(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Typed,
    Variable(String),
    File { path: String, line: usize },
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Typed => formatter.write_str("flag"),
            Self::Variable(name) => formatter.write_str(name),
            Self::File { path, line } => write!(formatter, "{path}:{line}"),
            Self::Default => formatter.write_str("default"),
        }
    }
}

impl Given {
    pub(super) fn is_used(&self) -> bool {
        self.fate == Fate::Used
    }

    /// Whether others should not see it.
    pub(super) fn may_be_secret(&self) -> bool {
        matches!(self.origin, Origin::File { .. })
            && self.values.iter().any(|value| secret::may_be_in(value))
    }
}

/// How an option is typed.
pub(super) fn tokens(long: &str, values: &[OsString]) -> Vec<OsString> {
    if values.is_empty() {
        return vec![format!("--{long}").into()];
    }
    let token = |value: &OsString| {
        let mut token = OsString::from(format!("--{long}="));
        token.push(value);
        token
    };
    values.iter().map(token).collect()
}

/// A variable that is set; one without anything in it is not.
pub(super) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// All that is given for the options of a command: by its variables, and by the tables of the file that
/// are for it.
///
/// # Errors
/// If an option cannot have such a value.
pub(super) fn all(
    command: &Command,
    path: &[String],
    file: Option<&ConfigFile>,
) -> anyhow::Result<Vec<Given>> {
    let mut all = Vec::new();
    for arg in command.get_arguments() {
        let Some((long, name)) = variable_of(&path[0], arg) else {
            continue;
        };
        if let Some(value) = variable(&name) {
            let given = new(arg, Origin::Variable(name), 0);
            all.push(of_variable(arg, given, value)?);
        }
        for table in file.into_iter().flat_map(ConfigFile::tables) {
            if !path.starts_with(&table.path)
                || table.path.is_empty() && own_prefix(&path[0], long).is_some()
            {
                continue;
            }
            // The most special table first.
            let rank = 1 + path.len() - table.path.len();
            for entry in table.entries.iter().filter(|entry| entry.key == long) {
                let origin = Origin::File {
                    path: file.map(|file| file.path().to_owned()).unwrap_or_default(),
                    line: entry.line,
                };
                all.push(of_entry(arg, new(arg, origin, rank), entry)?);
            }
        }
    }
    Ok(all)
}

fn new(arg: &Arg, origin: Origin, rank: usize) -> Given {
    Given {
        id: arg.get_id().clone(),
        long: arg.get_long().unwrap_or_default().to_owned(),
        values: Vec::new(),
        fate: Fate::Used,
        origin,
        rank,
    }
}

fn of_variable(arg: &Arg, mut given: Given, value: OsString) -> anyhow::Result<Given> {
    if arg.get_action().takes_values() {
        given.values.push(value);
        return Ok(given.or_default(arg));
    }
    let text = value.to_string_lossy().to_lowercase();
    match &*text {
        "1" | "true" | "yes" | "on" => {}
        "0" | "false" | "no" | "off" => given.fate = Fate::Off,
        _ => bail!(
            "{}: invalid value '{}' for '--{}': expected true or false",
            given.origin,
            value.to_string_lossy(),
            given.long
        ),
    }
    Ok(given)
}

fn of_entry(arg: &Arg, mut given: Given, entry: &Entry) -> anyhow::Result<Given> {
    let wrong = |expected: &str| {
        anyhow!(
            "{}: {}: expected {expected}, not {}",
            given.origin,
            entry.key,
            entry.value.kind()
        )
    };
    let takes_value = arg.get_action().takes_values();
    let is_optional = (arg.get_num_args()).is_some_and(|n_values| n_values.min_values() == 0);
    let takes_several =
        matches!(arg.get_action(), ArgAction::Append) || arg.get_value_delimiter().is_some();
    match &entry.value {
        Value::Switch(is_on) if !takes_value || is_optional => {
            if !is_on {
                given.fate = Fate::Off;
            }
        }
        _ if !takes_value => return Err(wrong("true or false")),
        Value::One(value) => given.values.push(value.into()),
        Value::Several(values) if takes_several => {
            given.values.extend(values.iter().map(OsString::from));
            if values.is_empty() {
                given.fate = Fate::Off;
            }
        }
        _ if takes_several => return Err(wrong("a string, a number, or a list of them")),
        _ => return Err(wrong("a string or a number")),
    }
    for value in &given.values {
        let value = value.to_string_lossy();
        ensure!(
            given.long != "property" || !secret::is_secret_property(&value),
            "{}: {} is a secret: put it into a file of its own that kafka-config names",
            given.origin,
            value.split('=').next().unwrap_or_default()
        );
    }
    Ok(given.or_default(arg))
}

impl Given {
    /// A default that somebody repeats is no reason for anything.
    fn or_default(mut self, arg: &Arg) -> Self {
        let defaults = arg.get_default_values();
        if self.is_used() && !defaults.is_empty() && self.values == defaults {
            self.fate = Fate::Default;
        }
        self
    }
}
