//! Which of the values that nobody has typed are used: the one of the highest rank for each option, and
//! none that does not go with what ranks higher.

use std::collections::HashSet;

use anyhow::bail;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Id};

use super::given::{Fate, Given, Origin, tokens};
use super::typed::Typed;

/// Pairs of which a lower one has to give way, though they may be typed together: which databases are
/// asked is said in one place.
const TOGETHER: [(&str, &str); 1] = [("db", "peer")];

/// Leaves one value for each option that is not typed, those that have no effect marked.
///
/// # Errors
/// If an option cannot have the value that is given for it, used or not.
pub(super) fn choose(
    program: &Command,
    leaf: &Command,
    typed: &Typed,
    mut given: Vec<Given>,
) -> anyhow::Result<Vec<Given>> {
    let relaxed = relaxed(program.clone());
    let path = typed.path();
    let mut checked = Vec::new();
    for given in &given {
        checked.push(needs(&relaxed, leaf, &path, given)?);
    }
    let typed: HashSet<Id> = typed.args().map(|arg| arg.id.clone()).collect();
    let mut order: Vec<usize> = (0..given.len()).collect();
    order.sort_by_key(|&i| given[i].rank);
    let mut taken: Vec<usize> = Vec::new();
    for i in order {
        let id = &given[i].id;
        if typed.contains(id) || taken.iter().any(|&other| given[other].id == *id) {
            continue;
        }
        let rank = given[i].rank;
        let above = taken.iter().filter(|&&other| given[other].rank < rank);
        let above = above.filter(|&&other| given[other].is_used());
        let above = above.map(|&other| &given[other].id).chain(&typed);
        let rival = above.into_iter().find(|other| is_rival(leaf, id, other));
        if let Some(name) = rival.map(|rival| name_of(leaf, rival))
            && given[i].is_used()
        {
            given[i].fate = Fate::Idle(format!("{name} is given"));
        }
        taken.push(i);
    }
    // What needs something that has no effect has none either.
    loop {
        let is_there = |id: &Id| {
            typed.contains(id)
                || (taken.iter()).any(|&other| given[other].id == *id && given[other].is_used())
        };
        let lacking = taken.iter().copied().find_map(|i| {
            let missing = checked[i].iter().find(|needed| !is_there(needed))?;
            given[i].is_used().then(|| (i, name_of(leaf, missing)))
        });
        let Some((i, name)) = lacking else {
            break;
        };
        given[i].fate = Fate::Idle(format!("it needs {name}"));
    }
    taken.sort_unstable();
    Ok(taken.into_iter().map(|i| given[i].clone()).collect())
}

/// Whether two arguments exclude each other.
fn is_rival(command: &Command, one: &Id, other: &Id) -> bool {
    let excludes = |one: &Id, other: &Id| {
        let arg = command.get_arguments().find(|arg| arg.get_id() == one);
        let rivals = arg.map(|arg| command.get_arg_conflicts_with(arg));
        rivals.is_some_and(|rivals| rivals.iter().any(|rival| rival.get_id() == other))
    };
    let is_pair = |pair: &(&str, &str)| {
        (one == pair.0 && other == pair.1) || (one == pair.1 && other == pair.0)
    };
    excludes(one, other) || excludes(other, one) || TOGETHER.iter().any(is_pair)
}

/// How an argument is spoken of.
fn name_of(command: &Command, id: &Id) -> String {
    let arg = command.get_arguments().find(|arg| arg.get_id() == id);
    match arg.map(|arg| (arg.get_long(), arg.get_value_names())) {
        Some((Some(long), _)) => format!("--{long}"),
        Some((None, Some([name, ..]))) => name.to_string(),
        _ => id.to_string(),
    }
}

/// What an option needs beside it, by trying it alone.
fn needs(
    relaxed: &Command,
    leaf: &Command,
    path: &[String],
    given: &Given,
) -> anyhow::Result<Vec<Id>> {
    if matches!(given.fate, Fate::Off) {
        return Ok(Vec::new());
    }
    let mut argv: Vec<_> = path.iter().map(Into::into).collect();
    argv.extend(tokens(&given.long, &given.values));
    let Err(error) = relaxed.clone().try_get_matches_from(argv) else {
        return Ok(Vec::new());
    };
    if error.kind() != ErrorKind::MissingRequiredArgument {
        let words = words(&error);
        match given.origin {
            Origin::File { .. } => bail!("{}: {}: {words}", given.origin, given.long),
            _ => bail!("{}: {words}", given.origin),
        }
    }
    let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) else {
        return Ok(Vec::new());
    };
    let needed = leaf
        .get_arguments()
        .filter(|arg| missing.contains(&arg.to_string()));
    Ok(needed.map(|arg| arg.get_id().clone()).collect())
}

/// What clap says, on one line and without its advice on how to get help.
fn words(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.split("\n\nFor more information").next();
    let text = text.unwrap_or_default().trim_start_matches("error: ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A command of which nothing has to be there.
fn relaxed(command: Command) -> Command {
    command
        .subcommand_required(false)
        .arg_required_else_help(false)
        .mut_args(|arg| arg.required(false))
        .mut_subcommands(relaxed)
}
