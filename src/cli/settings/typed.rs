//! What was typed, read for its form alone: which options with which values, and which subcommand. What
//! goes together and what is needed is judged later, when all is known.

use std::ffi::{OsStr, OsString};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, Id, value_parser};

use super::RESERVED;
use super::given::{Given, tokens};

/// A command line taken apart.
pub(super) struct Typed {
    program: OsString,
    /// The program, then its subcommand, and so on.
    levels: Vec<Level>,
    /// Options about the command line itself.
    reserved: Vec<TypedArg>,
}

struct Level {
    name: String,
    args: Vec<TypedArg>,
}

/// An argument that was typed, with its values of all times; a flag has none.
pub(super) struct TypedArg {
    pub(super) id: Id,
    /// None, if it goes by its place.
    long: Option<String>,
    pub(super) values: Vec<OsString>,
}

impl Typed {
    /// # Errors
    /// If there is no such option or subcommand, or a value is missing. Help is an error, too.
    pub(super) fn parse(command: &Command, argv: Vec<OsString>) -> Result<Self, clap::Error> {
        let program = argv.first().cloned().unwrap_or_default();
        let mut shape = shape(command);
        // Then subcommands know the options that all have.
        shape.build();
        let matches = shape.clone().try_get_matches_from(argv)?;
        let mut typed = Self {
            program,
            levels: Vec::new(),
            reserved: Vec::new(),
        };
        typed.push(&shape, &matches);
        Ok(typed)
    }

    fn push(&mut self, command: &Command, matches: &ArgMatches) {
        let below = matches.subcommand();
        let mut args = Vec::new();
        for arg in command.get_arguments() {
            let id = arg.get_id();
            if matches.value_source(id.as_str()) != Some(ValueSource::CommandLine) {
                continue;
            }
            let raw = arg.get_action().takes_values();
            let raw = raw.then(|| matches.get_raw(id.as_str())).flatten();
            let typed = TypedArg {
                id: id.clone(),
                long: arg.get_long().map(str::to_owned),
                values: raw.into_iter().flatten().map(OsStr::to_owned).collect(),
            };
            // What all levels know is told by each of them.
            if arg.is_global_set() && below.is_some() {
                continue;
            }
            if arg.get_long().is_some_and(|long| RESERVED.contains(&long)) {
                self.reserved.push(typed);
            } else {
                args.push(typed);
            }
        }
        let name = command.get_name().to_owned();
        self.levels.push(Level { name, args });
        if let Some((name, matches)) = below
            && let Some(command) = command.find_subcommand(name)
        {
            self.push(command, matches);
        }
    }

    /// The program and its subcommands, down to the one that is meant.
    pub(super) fn path(&self) -> Vec<String> {
        self.levels.iter().map(|level| level.name.clone()).collect()
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.args().any(|arg| arg.id == id)
    }

    /// The value of an option about the command line itself.
    pub(super) fn first(&self, id: &str) -> Option<&OsStr> {
        let mut reserved = self.reserved.iter();
        let option = reserved.find(|arg| arg.id == id)?;
        option.values.first().map(OsString::as_os_str)
    }

    /// All arguments, on whatever level.
    pub(super) fn args(&self) -> impl Iterator<Item = &TypedArg> {
        let levels = self.levels.iter().flat_map(|level| &level.args);
        levels.chain(&self.reserved)
    }

    /// The command line with what nobody has typed.
    pub(super) fn argv(&self, given: &[&Given]) -> Vec<OsString> {
        let mut argv = vec![self.program.clone()];
        for (i, level) in self.levels.iter().enumerate() {
            if i > 0 {
                argv.push(level.name.clone().into());
            }
            for arg in &level.args {
                if let Some(long) = &arg.long {
                    argv.extend(tokens(long, &arg.values));
                }
            }
        }
        argv.extend(given.iter().flat_map(|it| tokens(&it.long, &it.values)));
        let by_place = self.args().filter(|arg| arg.long.is_none());
        let by_place: Vec<&TypedArg> = by_place.collect();
        if !by_place.is_empty() {
            argv.push("--".into());
            argv.extend(by_place.iter().flat_map(|arg| arg.values.iter().cloned()));
        }
        argv
    }
}

/// The same command without what arguments have to do with each other, and with any text for a value.
fn shape(command: &Command) -> Command {
    let mut shape = Command::new(command.get_name().to_owned()).disable_version_flag(true);
    for arg in command.get_arguments() {
        shape = shape.arg(shape_of(arg));
    }
    for subcommand in command.get_subcommands() {
        shape = shape.subcommand(self::shape(subcommand));
    }
    shape
}

fn shape_of(arg: &Arg) -> Arg {
    let mut shape = Arg::new(arg.get_id().clone())
        .action(arg.get_action().clone())
        .global(arg.is_global_set())
        .require_equals(arg.is_require_equals_set())
        .allow_hyphen_values(arg.is_allow_hyphen_values_set());
    if let Some(long) = arg.get_long() {
        shape = shape.long(long.to_owned());
        let aliases = arg.get_all_aliases().unwrap_or_default();
        shape = shape.aliases(aliases.into_iter().map(str::to_owned));
    }
    if let Some(short) = arg.get_short() {
        shape = shape.short(short);
    }
    if let Some(n_values) = arg.get_num_args() {
        shape = shape.num_args(n_values);
    }
    if arg.get_action().takes_values() {
        shape = shape.value_parser(value_parser!(OsString));
    }
    shape
}
