//! Prints what all options come to as a file that gives the same run, with where each comes from.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{self, Write as _};

use anyhow::Context as _;
use clap::{Arg, ArgAction, Command};

use super::given::{Fate, Given, Origin};
use super::typed::Typed;
use super::variable_of;
use crate::cli::secret;
use crate::record::text::printable;

/// What an option comes to.
enum Effective {
    Switch(bool),
    Values(Vec<OsString>),
}

pub(super) fn print(leaf: &Command, typed: &Typed, given: &[Given]) -> anyhow::Result<()> {
    let path = typed.path();
    let mut text = String::new();
    let version = env!("CARGO_PKG_VERSION");
    writeln!(text, "# {} {version}", path.join(" "))?;
    for arg in leaf.get_arguments().filter(|arg| arg.is_positional()) {
        for value in values_of(typed, arg) {
            let names = arg.get_value_names().and_then(<[_]>::first);
            let name = names.map_or(arg.get_id().as_str(), |name| name.as_str());
            let value = value.to_string_lossy();
            writeln!(text, "# {name}: {}", printable(&value))?;
        }
    }
    writeln!(text, "[{}]", path.join("."))?;
    for arg in leaf.get_arguments() {
        if variable_of(&path[0], arg).is_some() {
            line(&mut text, typed, given, arg)?;
        }
    }
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()?;
    Ok(())
}

/// All values of an argument, on whatever level it was typed.
fn values_of(typed: &Typed, arg: &Arg) -> Vec<OsString> {
    let typed = typed.args().filter(|it| it.id == *arg.get_id());
    typed.flat_map(|it| it.values.clone()).collect()
}

fn line(text: &mut String, typed: &Typed, given: &[Given], arg: &Arg) -> anyhow::Result<()> {
    let long = arg.get_long().unwrap_or_default();
    let found = given.iter().find(|given| given.id == *arg.get_id());
    if let Some(given) = found
        && let Fate::Idle(why) = &given.fate
    {
        let value = Effective::of_given(given);
        if !value.is_secret() {
            // All of it is a comment.
            let shown = value.toml(arg)?.replace('\n', "\n# ");
            writeln!(
                text,
                "# {long} = {shown}  # {}, not used: {why}",
                given.origin
            )?;
        }
    }
    let (value, origin) = if typed.has(arg.get_id().as_str()) {
        let values = values_of(typed, arg);
        let value = if values.is_empty() {
            Effective::Switch(true)
        } else {
            Effective::Values(values)
        };
        (value, Origin::Typed)
    } else if let Some(given) = found.filter(|given| !matches!(given.fate, Fate::Idle(_))) {
        (Effective::of_given(given), given.origin.clone())
    } else if !arg.get_default_values().is_empty() {
        let defaults = arg.get_default_values().iter();
        let values = defaults.map(clap::builder::OsStr::to_os_string).collect();
        let value = match arg.get_action() {
            ArgAction::SetTrue => Effective::Switch(false),
            _ => Effective::Values(values),
        };
        (value, Origin::Default)
    } else {
        return Ok(());
    };
    if value.is_secret() {
        writeln!(
            text,
            "# {long} is not shown, since it may hold a secret  # {origin}"
        )?;
        return Ok(());
    }
    writeln!(text, "{long} = {}  # {origin}", value.toml(arg)?)?;
    Ok(())
}

impl Effective {
    fn of_given(given: &Given) -> Self {
        match given.fate {
            Fate::Off => Self::Switch(false),
            _ if given.values.is_empty() => Self::Switch(true),
            _ => Self::Values(given.values.clone()),
        }
    }

    fn is_secret(&self) -> bool {
        match self {
            Self::Switch(_) => false,
            Self::Values(values) => values.iter().any(|value| secret::may_be_in(value)),
        }
    }

    fn toml(&self, arg: &Arg) -> anyhow::Result<String> {
        let is_list = matches!(arg.get_action(), ArgAction::Append);
        match self {
            // A list of which there is nothing.
            Self::Switch(false) if is_list => Ok("[]".to_owned()),
            Self::Switch(is_on) => Ok(is_on.to_string()),
            Self::Values(values) if is_list => {
                let values: anyhow::Result<Vec<_>> = values.iter().map(|it| toml_of(it)).collect();
                Ok(format!("[{}]", values?.join(", ")))
            }
            Self::Values(values) => toml_of(&values[0]),
        }
    }
}

/// A number as a number, anything else as a string.
fn toml_of(value: &OsStr) -> anyhow::Result<String> {
    let text = value
        .to_str()
        .with_context(|| format!("{} is not UTF-8, as TOML is", value.display()))?;
    let is_integer = text.parse::<i64>().is_ok_and(|it| it.to_string() == text);
    let is_float = text.contains('.')
        && (text.parse::<f64>()).is_ok_and(|it| it.is_finite() && it.to_string() == text);
    if is_integer || is_float {
        return Ok(text.to_owned());
    }
    Ok(toml::Value::String(text.to_owned()).to_string())
}
