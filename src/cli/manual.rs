//! Manual pages, and what shells need to complete options, made of what the programs parse.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use clap::{Arg, Command, ValueHint};
use clap_complete::Shell;
use clap_mangen::Man;
use roff::{Roff, bold, roman};

use super::settings;

/// What can be made.
pub(super) const KINDS: [&str; 4] = ["man", "complete-bash", "complete-zsh", "complete-fish"];

/// Variables that are no options: who looks at them, and for what.
const VARIABLES: [(&[&str], &str, &str); 7] = [
    (
        &[],
        "SG_CONFIG",
        "the file of --config, if none is typed: no other is read",
    ),
    (
        &["sg-analyze", "sg-run"],
        "ANTHROPIC_API_KEY, OPENAI_API_KEY",
        "the key to the service, without --api-key-file",
    ),
    (
        &["sg-analyze", "sg-run"],
        "ANTHROPIC_BASE_URL, OPENAI_BASE_URL",
        "where the service is, without --base-url",
    ),
    (
        &["sg-embed", "sg-query"],
        "OPENAI_API_KEY",
        "the key to the server that makes vectors, without --api-key-file",
    ),
    (
        &["sg-run"],
        "SG_WEBHOOK_SECRET",
        "the secret that webhooks are signed with, without --webhook-secret-file",
    ),
    (
        &["sg-query"],
        "SG_PEER_KEY",
        "the key for the servers of --peer, without --peer-key-file",
    ),
    (
        &["sg-score", "sg-run"],
        "TMPDIR",
        "where users go that do not fit into --memory-limit, if nothing else is named for them",
    ),
];

const ENVIRONMENT: &str = "Each option can be given by a variable, too: SG_ and its long name in capitals, \
with _ for -, such as SG_MEMORY_LIMIT for --memory-limit. A flag is set by 1, true, yes or on, and not by 0, \
false, no or off. What is typed comes first, then the variable, then the file of --config. These have \
other names, or are no options:";

const FILES: &str = "What --config names, in TOML. Keys are the long names of options. Those at the top are \
for all programs, those in a table such as [sg-run] or [sg-query.serve] for one, and come first. \
--print-config prints one. The Debian package's services use this one; no program reads it unless it is \
named.";

/// Prints what is asked for, one of [`KINDS`].
///
/// # Errors
/// If it cannot be written.
pub(super) fn generate(command: Command, what: &str) -> anyhow::Result<()> {
    let name = command.get_name().to_owned();
    let mut command = with_hints(command).disable_help_subcommand(true);
    let shell = match what {
        "complete-bash" => Some(Shell::Bash),
        "complete-zsh" => Some(Shell::Zsh),
        "complete-fish" => Some(Shell::Fish),
        "man" => None,
        _ => anyhow::bail!("--generate makes {}", KINDS.join(", ")),
    };
    let mut output = Vec::new();
    match shell {
        Some(shell) => {
            clap_complete::generate(shell, &mut command, &name, &mut output);
            if shell == Shell::Bash {
                // It names the states of a program with a hyphen in two ways, so that nothing is completed
                // after a subcommand: https://github.com/clap-rs/clap/issues/6421
                let (one, other) = (name.replace('-', "__subcmd__"), name.replace('-', "__"));
                output = String::from_utf8(output)?.replace(&one, &other).into();
            }
        }
        None => page(command, &mut output)?,
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(&output)?;
    stdout.flush()?;
    Ok(())
}

/// Tells shells which values are files.
fn with_hints(command: Command) -> Command {
    let hint = |arg: Arg| {
        let name = arg.get_value_names().and_then(<[_]>::first);
        match name.map(clap::builder::Str::as_str) {
            Some("FILE" | "DEAD") => arg.value_hint(ValueHint::FilePath),
            Some("DIR") => arg.value_hint(ValueHint::DirPath),
            _ => arg,
        }
    };
    command.mut_args(hint).mut_subcommands(with_hints)
}

/// One page for a program with all its subcommands.
fn page(mut command: Command, output: &mut Vec<u8>) -> anyhow::Result<()> {
    command.build();
    let name = command.get_name().to_owned();
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .manual("StreamGuard")
        .source(format!("StreamGuard {}", env!("CARGO_PKG_VERSION")));
    man.render_title(output)?;
    man.render_name_section(output)?;
    synopsis(&command, output)?;
    man.render_description_section(output)?;
    man.render_options_section(output)?;
    let mut subcommands = Roff::new();
    if command.has_subcommands() {
        subcommands.control("SH", ["SUBCOMMANDS"]);
        subcommands.to_writer(output)?;
        for subcommand in command.get_subcommands() {
            describe(subcommand, &name, output)?;
        }
    }
    let mut page = Roff::new();
    let help = help_of(&command);
    examples(&mut page, &help);
    page.control("SH", ["EXIT STATUS"]);
    for (code, words) in exit_codes(&help) {
        page.control("TP", []);
        page.text([bold(code)]);
        page.text([roman(words)]);
    }
    environment(&mut page, &command);
    page.control("SH", ["FILES"]);
    page.control("TP", []);
    page.text([bold("/etc/streamguard/streamguard.toml")]);
    page.text([roman(FILES)]);
    page.control("SH", ["SEE ALSO"]);
    let programs = super::commands();
    let others = programs.iter().map(Command::get_name);
    let others = others.filter(|other| *other != name);
    let others: Vec<String> = others.map(|other| format!("{other}(1)")).collect();
    page.text([roman(others.join(", "))]);
    page.to_writer(output)?;
    Ok(())
}

fn synopsis(command: &Command, output: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut page = Roff::new();
    page.control("SH", ["SYNOPSIS"]);
    lines(&mut page, &usage(command));
    page.to_writer(output)?;
    Ok(())
}

/// Lines that are not filled into one.
fn lines(page: &mut Roff, lines: &[String]) {
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            page.control("br", []);
        }
        page.text([bold(line)]);
    }
}

fn usage(command: &Command) -> Vec<String> {
    let usage = command.clone().render_usage().to_string();
    let lines = usage.lines().map(|line| line.trim_start_matches("Usage:"));
    lines.map(|line| line.trim().to_owned()).collect()
}

/// A subcommand, and those that it has.
fn describe(command: &Command, parent: &str, output: &mut Vec<u8>) -> anyhow::Result<()> {
    let name = format!("{parent} {}", command.get_name());
    let mut page = Roff::new();
    page.control("SS", [&*name]);
    let about = command.get_long_about().or_else(|| command.get_about());
    for paragraph in about
        .map(ToString::to_string)
        .unwrap_or_default()
        .split("\n\n")
    {
        page.text([roman(paragraph)]);
        page.control("PP", []);
    }
    lines(&mut page, &usage(command));
    page.to_writer(output)?;
    if command.has_subcommands() {
        for subcommand in command.get_subcommands() {
            describe(subcommand, &name, output)?;
        }
        return Ok(());
    }
    // The options that all subcommands have are told of once.
    let command = command.clone().mut_args(|arg| {
        let is_general = arg.is_global_set() || arg.get_id() == "help";
        arg.hide(is_general)
    });
    let mut options = Vec::new();
    Man::new(command.clone()).render_options_section(&mut options)?;
    // They stand within a section.
    for line in String::from_utf8(options)?.lines() {
        if line.starts_with(".SH ") {
            writeln!(output, ".PP")?;
        } else {
            writeln!(output, "{line}")?;
        }
    }
    let mut page = Roff::new();
    let help = help_of(&command);
    page.control("PP", []);
    verbatim(&mut page, examples_in(&help));
    page.to_writer(output)?;
    Ok(())
}

fn help_of(command: &Command) -> String {
    let help = command.get_after_long_help().or(command.get_after_help());
    help.map(ToString::to_string).unwrap_or_default()
}

/// The lines below a heading of the text that stands at the end of each program's help.
fn part<'a>(help: &'a str, heading: &str) -> impl Iterator<Item = &'a str> {
    let after = help.split_once(heading).map_or("", |(_, after)| after);
    after
        .trim_start_matches('\n')
        .lines()
        .take_while(|line| !line.is_empty())
}

fn examples_in(help: &str) -> impl Iterator<Item = &str> {
    part(help, "Examples:").map(str::trim_end)
}

/// Each code with its words.
fn exit_codes(help: &str) -> Vec<(String, String)> {
    let mut codes: Vec<(String, String)> = Vec::new();
    for line in part(help, "Exit codes:") {
        let line = line.trim();
        match line.split_once("  ") {
            Some((code, words)) => codes.push((code.to_owned(), words.trim().to_owned())),
            None => {
                if let Some((_, words)) = codes.last_mut() {
                    let _ = write!(words, " {line}");
                }
            }
        }
    }
    codes
}

fn examples(page: &mut Roff, help: &str) {
    page.control("SH", ["EXAMPLES"]);
    verbatim(page, examples_in(help));
}

fn verbatim<'a>(page: &mut Roff, lines: impl Iterator<Item = &'a str>) {
    page.control("nf", []);
    for line in lines {
        page.text([roman(line)]);
    }
    page.control("fi", []);
}

fn environment(page: &mut Roff, command: &Command) {
    page.control("SH", ["ENVIRONMENT"]);
    page.text([roman(ENVIRONMENT)]);
    let mut named = Vec::new();
    renamed(command.get_name(), command, &mut named);
    for (variable, option) in named {
        page.control("TP", []);
        page.text([bold(variable)]);
        page.text([roman(option)]);
    }
    for (programs, variable, what) in VARIABLES {
        if programs.is_empty() || programs.contains(&command.get_name()) {
            page.control("TP", []);
            page.text([bold(variable)]);
            page.text([roman(what)]);
        }
    }
}

/// Options whose variable is not named as they are.
fn renamed(program: &str, command: &Command, named: &mut Vec<(String, String)>) {
    let args = command.get_arguments();
    for (long, variable) in args.filter_map(|arg| settings::variable_of(program, arg)) {
        let is_known = named.iter().any(|(known, _)| *known == variable);
        if settings::is_renamed(program, long) && !is_known {
            named.push((variable, format!("--{long}")));
        }
    }
    for subcommand in command.get_subcommands() {
        renamed(program, subcommand, named);
    }
}
