//! The file: tables for programs and their subcommands, with keys that are the long names of options. A
//! key that no program has is a mistake, since its author thinks that it does something.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail, ensure};
use clap::Command;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{own_prefix, variable_of};

/// No configuration is longer.
const BYTES_MAX: u64 = 1 << 20;
/// How alike a name has to be to what is there to be meant; clap's measure.
const ALIKE: f64 = 0.7;

/// A file that was read.
pub(super) struct ConfigFile {
    path: String,
    tables: Vec<Table>,
}

/// Keys for a program or one of its subcommands, or, without a path, for all programs.
pub(super) struct Table {
    pub(super) path: Vec<String>,
    pub(super) entries: Vec<Entry>,
}

pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Value,
    pub(super) line: usize,
}

pub(super) enum Value {
    Switch(bool),
    /// A number or a time is what it would be if it were typed.
    One(String),
    Several(Vec<String>),
}

impl Value {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Switch(_) => "true or false",
            Self::One(_) => "a single value",
            Self::Several(_) => "a list",
        }
    }
}

impl ConfigFile {
    /// Reads a file for these programs.
    ///
    /// # Errors
    /// If it cannot be read, is not TOML, or has a key that none of the programs has.
    pub(super) fn read(path: &Path, programs: &[Command]) -> anyhow::Result<Self> {
        let shown = path.display().to_string();
        let cannot = || format!("cannot read {shown}");
        let file = File::open(path).with_context(cannot)?;
        let mut text = String::new();
        // Of a device that has no end there is enough, too.
        let n_read = file.take(BYTES_MAX + 1).read_to_string(&mut text);
        let n_read = n_read.with_context(cannot)?;
        ensure!(
            n_read as u64 <= BYTES_MAX,
            "{shown} has more than {BYTES_MAX} bytes: that is no configuration"
        );
        let lines = Lines {
            path: &shown,
            text: &text,
        };
        let root = DeTable::parse(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| lines.number(span.start));
            anyhow!("{shown}:{line}: {}", error.message())
        })?;
        let mut all = Command::new("all");
        for program in programs {
            all = all.subcommand(program.clone());
        }
        // Then subcommands know the options that all have.
        all.build();
        let mut tables = Vec::new();
        lines.read(&all, &mut Vec::new(), root.get_ref(), &mut tables)?;
        Ok(Self {
            path: shown,
            tables,
        })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn tables(&self) -> &[Table] {
        &self.tables
    }
}

/// A text whose lines have numbers.
struct Lines<'a> {
    path: &'a str,
    text: &'a str,
}

impl Lines<'_> {
    fn number(&self, at: usize) -> usize {
        let before = self.text.as_bytes().iter().take(at);
        1 + before.filter(|&&byte| byte == b'\n').count()
    }

    /// Reads a table for a command, and those within it for its subcommands.
    fn read(
        &self,
        command: &Command,
        path: &mut Vec<String>,
        table: &DeTable<'_>,
        tables: &mut Vec<Table>,
    ) -> anyhow::Result<()> {
        let mut entries = Vec::new();
        for (key, value) in table {
            let line = self.number(key.span().start);
            let key = key.get_ref().to_string();
            if let DeValue::Table(table) = value.get_ref() {
                let Some(subcommand) = command.find_subcommand(&key) else {
                    let known = command.get_subcommands().map(|it| it.get_name().to_owned());
                    return Err(self.unknown("table", path, &key, line, known));
                };
                path.push(key);
                self.read(subcommand, path, table, tables)?;
                path.pop();
                continue;
            }
            let mut known = Vec::new();
            match path.first() {
                Some(program) => keys(program, command, false, &mut known),
                None => {
                    for program in command.get_subcommands() {
                        keys(program.get_name(), program, true, &mut known);
                    }
                }
            }
            if !known.contains(&key) {
                if path.is_empty()
                    && let Some(program) = command.get_subcommands().find(|it| has_key(it, &key))
                {
                    bail!(
                        "{}:{line}: {key} means different things in different programs: put it into a table, \
                         such as [{}]",
                        self.path,
                        program.get_name()
                    );
                }
                return Err(self.unknown("key", path, &key, line, known.into_iter()));
            }
            let value = self.value(&key, value)?;
            entries.push(Entry { key, value, line });
        }
        tables.push(Table {
            path: path.clone(),
            entries,
        });
        Ok(())
    }

    fn value(&self, key: &str, value: &Spanned<DeValue<'_>>) -> anyhow::Result<Value> {
        let one = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(number) => Ok(number.to_string()),
            DeValue::Float(number) => Ok(number.to_string()),
            DeValue::Datetime(time) => Ok(time.to_string()),
            DeValue::Boolean(_) | DeValue::Array(_) | DeValue::Table(_) => {
                let line = self.number(value.span().start);
                let path = self.path;
                bail!("{path}:{line}: {key}: expected a list of strings or numbers")
            }
        };
        Ok(match value.get_ref() {
            DeValue::Boolean(is_on) => Value::Switch(*is_on),
            DeValue::Array(values) => {
                let values: anyhow::Result<_> = values.iter().map(one).collect();
                Value::Several(values?)
            }
            _ => Value::One(one(value)?),
        })
    }

    fn unknown(
        &self,
        what: &str,
        path: &[String],
        key: &str,
        line: usize,
        known: impl Iterator<Item = String>,
    ) -> anyhow::Error {
        let shown = self.path;
        let place = if path.is_empty() {
            "any program".to_owned()
        } else {
            path.join(" ")
        };
        let how_alike = |known: String| (strsim::jaro(key, &known), known);
        let nearest = known
            .map(how_alike)
            .filter(|(alike, _)| *alike > ALIKE)
            .max_by(|one, other| one.0.total_cmp(&other.0));
        match nearest {
            Some((_, nearest)) => {
                anyhow!("{shown}:{line}: unknown {what} \"{key}\": did you mean \"{nearest}\"?")
            }
            None => anyhow!(
                "{shown}:{line}: unknown {what} \"{key}\": {place} has no such {}",
                if what == "key" { "option" } else { "command" }
            ),
        }
    }
}

/// The keys of a command and all below it; only those that mean the same everywhere, if asked for.
fn keys(program: &str, command: &Command, only_shared: bool, known: &mut Vec<String>) {
    let args = command.get_arguments();
    for (long, _) in args.filter_map(|arg| variable_of(program, arg)) {
        if !only_shared || own_prefix(program, long).is_none() {
            known.push(long.to_owned());
        }
    }
    for subcommand in command.get_subcommands() {
        keys(program, subcommand, only_shared, known);
    }
}

fn has_key(command: &Command, key: &str) -> bool {
    let mut known = Vec::new();
    keys(command.get_name(), command, false, &mut known);
    known.iter().any(|known| known == key)
}
