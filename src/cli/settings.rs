//! What an option is if nobody has typed it: a variable's value, a line of a file in TOML, or its
//! default. What is found is put into the command line, so that clap judges it as if it were typed.

mod choose;
mod file;
mod given;
mod print;
mod typed;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command, Parser};

use super::{Ended, log, manual};
use crate::report::fail;
use file::ConfigFile;
use given::{Given, Origin};
use typed::Typed;

/// Holds the name of the file, if none is typed.
const CONFIG_VARIABLE: &str = "SG_CONFIG";
/// Options that are about the command line itself: they have no variable, and are no key of a file.
pub(super) const RESERVED: [&str; 5] = ["config", "print-config", "generate", "help", "version"];
/// Options that mean another thing than those of the same name in other programs. Their variables begin
/// otherwise, such as `SG_EMBED_MODEL`, and keys that are for all programs do not reach them.
const OWN: [(&str, &str, &[&str]); 5] = [
    ("sg-analyze", "SG_ANALYZE_", &["batch", "db"]),
    ("sg-embed", "SG_EMBED_", &EMBEDDER),
    ("sg-gen", "SG_GEN_", &["labels"]),
    ("sg-query", "SG_EMBED_", &EMBEDDER),
    ("sg-store", "SG_STORE_", &["keep", "to"]),
];
/// The server that makes vectors is not the one that analyses events.
const EMBEDDER: [&str; 8] = [
    "api-key-file",
    "base-url",
    "batch",
    "dimensions",
    "model",
    "provider",
    "retries",
    "timeout",
];
/// Options whose variable is named otherwise than they are.
const RENAMED: [(&str, &str); 2] = [("brokers", "SG_KAFKA_BROKERS"), ("by", "SG_AUTHOR")];

/// What is to become of a run.
pub(super) enum Start<A> {
    /// It has its arguments.
    Run(A),
    /// All that was asked for is done, or something was wrong and is said.
    End(Ended),
}

/// The arguments of a program. `programs` are all that share the file.
///
/// # Errors
/// If the file, or a value in it or in a variable, cannot be used.
pub(super) fn parse<A: Parser>(
    name: &'static str,
    programs: impl Fn() -> Vec<Command>,
) -> anyhow::Result<Start<A>> {
    let command = with_settings(A::command());
    let argv: Vec<OsString> = std::env::args_os().collect();
    let typed = match Typed::parse(&command, argv.clone()) {
        Ok(typed) => typed,
        // Clap says it about the real thing; and shows the help, if that is what was asked for.
        Err(error) => {
            let of_command = command.try_get_matches_from(argv).err();
            let ended = log::tell_usage(name, &of_command.unwrap_or(error));
            return Ok(Start::End(ended));
        }
    };
    if let Some(what) = typed.first("generate") {
        manual::generate(command, &what.to_string_lossy())?;
        return Ok(Start::End(Ended::Done));
    }
    let path = typed
        .first("config")
        .map(PathBuf::from)
        .or_else(|| Some(given::variable(CONFIG_VARIABLE)?.into()));
    let file = match path.as_deref() {
        Some(path) => Some(ConfigFile::read(path, &programs())?),
        None => None,
    };
    let mut built = command.clone();
    built.build();
    let path = typed.path();
    let leaf = find(&built, &path);
    let given = given::all(leaf, &path, file.as_ref())?;
    let given = choose::choose(&command, leaf, &typed, given)?;
    let used: Vec<&Given> = given.iter().filter(|given| given.is_used()).collect();
    let matches = match command.clone().try_get_matches_from(typed.argv(&used)) {
        Ok(matches) => matches,
        Err(error) => {
            let ended = log::tell_usage(name, &error);
            tell_origins(name, &error, &used);
            return Ok(Start::End(ended));
        }
    };
    log::set(&matches);
    let parsed = A::from_arg_matches(&matches)?;
    if typed.has("print_config") {
        print::print(leaf, &typed, &given)?;
        return Ok(Start::End(Ended::Done));
    }
    if let Some(path) = file.filter(|_| used.iter().any(|given| given.may_be_secret())) {
        super::secret::check(name, Path::new(path.path()));
    }
    Ok(Start::Run(parsed))
}

/// Says in the help which variables are not what one would think.
fn with_variables(program: &str, command: Command) -> Command {
    let tell = |arg: Arg| {
        let named = variable_of(program, &arg);
        let named = named.filter(|(long, _)| is_renamed(program, long));
        match (named.map(|(_, variable)| variable), arg.get_help()) {
            (Some(variable), Some(help)) => {
                let help = format!("{help} [env: {variable}]");
                arg.help(help)
            }
            _ => arg,
        }
    };
    let command = command.mut_args(tell);
    command.mut_subcommands(|subcommand| with_variables(program, subcommand))
}

/// A program's command with what all of them have.
pub(super) fn with_settings(command: Command) -> Command {
    let program = command.get_name().to_owned();
    let command = log::with_log_format(command);
    let command = with_variables(&program, command);
    let argument = |id: &'static str, long: &'static str| {
        Arg::new(id).long(long).help_heading("Configuration")
    };
    command
        .arg(
            argument("config", "config")
                .value_name("FILE")
                .value_hint(clap::ValueHint::FilePath)
                .global(true)
                .help(
                    "Take what is not typed from FILE, in TOML: memory-limit = \"1GiB\" for all programs, or \
                     in a table such as [sg-run]. Variables such as SG_MEMORY_LIMIT come before it \
                     [env: SG_CONFIG]",
                ),
        )
        .arg(
            argument("print_config", "print-config")
                .action(ArgAction::SetTrue)
                .global(true)
                .help(
                    "Check all options, print them as such a file with where each comes from, and end",
                ),
        )
        .arg(
            argument("generate", "generate")
                .value_name("WHAT")
                .value_parser(PossibleValuesParser::new(manual::KINDS))
                .help("Print the manual page, or what a shell needs to complete options"),
        )
}

/// The command at the end of a path that begins with the program.
fn find<'a>(program: &'a Command, path: &[String]) -> &'a Command {
    path[1..].iter().fold(program, |command, name| {
        command
            .find_subcommand(name)
            .expect("what was typed was parsed by the same commands")
    })
}

/// An option's long name and its variable, if it can be set by one.
pub(super) fn variable_of<'a>(program: &str, arg: &'a Arg) -> Option<(&'a str, String)> {
    let long = arg.get_long().filter(|long| !RESERVED.contains(long))?;
    let renamed = RENAMED.iter().find(|(option, _)| *option == long);
    if let Some((_, variable)) = renamed {
        return Some((long, (*variable).to_owned()));
    }
    let prefix = own_prefix(program, long).unwrap_or("SG_");
    let name = long.replace('-', "_").to_uppercase();
    Some((long, format!("{prefix}{name}")))
}

/// Whether an option is named otherwise than its variable.
pub(super) fn is_renamed(program: &str, long: &str) -> bool {
    own_prefix(program, long).is_some() || RENAMED.iter().any(|(option, _)| *option == long)
}

/// What the variable of an option begins with that means another thing in other programs.
pub(super) fn own_prefix(program: &str, long: &str) -> Option<&'static str> {
    let mut own = OWN.iter();
    let own = own.find(|(name, _, options)| *name == program && options.contains(&long));
    own.map(|(_, prefix, _)| *prefix)
}

/// Clap speaks of options as if they were typed.
fn tell_origins(name: &str, error: &clap::Error, used: &[&Given]) {
    let text = error.to_string();
    // What follows names all that was given.
    let text = text.split("\n\nUsage:").next().unwrap_or_default();
    for given in used {
        let option = format!("--{}", given.long);
        let is_named = text.match_indices(&option).any(|(at, _)| {
            !text[at + option.len()..]
                .starts_with(|next: char| next.is_alphanumeric() || next == '-')
        });
        if is_named && given.origin != Origin::Typed {
            fail(name, &format!("{option} is set by {}", given.origin));
        }
    }
}
