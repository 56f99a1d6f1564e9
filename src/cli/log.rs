//! `--log-format`, which all programs have: how they say what they say on standard error.

use clap::{Arg, ArgMatches, Command, ValueEnum, value_parser};

use super::Ended;
use crate::report;

/// The form of what is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// The program's name and a sentence
    Text,
    /// One JSON object a line, with time, level, program and message
    Json,
}

const ID: &str = "log_format";
const LONG: &str = "log-format";
const VARIABLE: &str = "SG_LOG_FORMAT";

/// A program's command with the option.
pub(super) fn with_log_format(command: Command) -> Command {
    let arg = Arg::new(ID)
        .long(LONG)
        .value_name("FORMAT")
        .value_parser(value_parser!(LogFormat))
        .global(true)
        .help("How messages on stderr look [default: text]");
    command.arg(arg)
}

/// Looks for the option before all others are understood, for what is to be said if they are not.
pub(super) fn foresee() {
    let mut args = std::env::args_os().skip(1);
    let mut format = std::env::var(VARIABLE).ok();
    while let Some(arg) = args.next() {
        let Some(arg) = arg.to_str() else {
            continue;
        };
        let Some(value) = arg.strip_prefix("--").and_then(|it| it.strip_prefix(LONG)) else {
            if arg == "--" {
                break;
            }
            continue;
        };
        format = match value.strip_prefix('=') {
            Some(value) => Some(value.to_owned()),
            None => args.next().and_then(|value| value.into_string().ok()),
        };
    }
    report::set_json(format.as_deref() == Some("json"));
}

/// Says all from now on as the arguments want it.
pub(super) fn set(matches: &ArgMatches) {
    report::set_json(matches.get_one(ID) == Some(&LogFormat::Json));
}

/// Says what is wrong with the arguments, or shows the help that was asked for.
pub(super) fn tell_usage(name: &str, error: &clap::Error) -> Ended {
    if error.use_stderr() && report::is_json() {
        let text = error.render().to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        report::fail(name, text.trim_end());
    } else {
        // There is nobody left to tell that nobody listens.
        let _ = error.print();
    }
    if error.exit_code() == 0 {
        Ended::Done
    } else {
        Ended::Failed
    }
}
