//! Words for people, and for programs that gather what people are told, on standard error. They may quote
//! file names and messages that others chose, so a terminal gets nothing it would obey; and a closed
//! standard error stops nobody's work.

use std::io::{self, Write as _};
use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::progress::{self, Shown, Work};
use crate::record::text::{json_for_terminal, printable, push_json_string};
use crate::time::{format_time_ms, now_ms};

/// How much something matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What has been done.
    Info,
    /// Something is lost, waits, or is not as it should be; the work goes on.
    Warning,
    /// Something that was asked for could not be done.
    Error,
}

/// The form of all lines: JSON, or the program's name and the text.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Writes all that is said from now on as JSON, an object a line, or as text.
pub fn set_json(is_json: bool) {
    IS_JSON.store(is_json, Ordering::Relaxed);
}

/// Whether all that is said is JSON.
#[must_use]
pub fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// Says what has been done.
pub fn say(program: &str, text: &str) {
    tell(Level::Info, program, text, &[]);
}

/// Says that something is lost, waits, or is not as it should be.
pub fn warn(program: &str, text: &str) {
    tell(Level::Warning, program, text, &[]);
}

/// Says that something could not be done.
pub fn fail(program: &str, text: &str) {
    tell(Level::Error, program, text, &[]);
}

/// Writes one line. `fields` are what the text says, for programs: JSON has them, text has not.
pub fn tell(level: Level, program: &str, text: &str, fields: &[(&str, Value)]) {
    let line = if is_json() {
        json_line(now_ms(), level, program, text, fields)
    } else {
        format!("{program}: {}\n", printable(text))
    };
    // In one piece, or other programs' lines come between. There is nobody left to tell that nobody
    // listens.
    let _ = progress::without_line(|| io::stderr().write_all(line.as_bytes()));
}

/// Shows on a terminal how far work has come, unless little is wanted to be heard, or programs listen.
pub fn show(is_quiet: bool, work: Work, writes_output: bool) -> Shown {
    if is_quiet || is_json() {
        return progress::nothing();
    }
    progress::show(work, writes_output)
}

/// Panics are said as all else is.
pub fn take_panics(program: &'static str) {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if is_json() {
            tell(Level::Error, program, &panic_text(info), &[]);
        } else {
            progress::without_line(|| usual(info));
        }
    }));
}

fn panic_text(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    let what = text.unwrap_or("for an unknown reason");
    match info.location() {
        Some(place) => format!("panicked at {place}: {what}"),
        None => format!("panicked: {what}"),
    }
}

fn json_line(
    time_ms: i64,
    level: Level,
    program: &str,
    text: &str,
    fields: &[(&str, Value)],
) -> String {
    let level = match level {
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    let mut line = Vec::new();
    let mut member = |name: &str, before: &str| {
        line.extend_from_slice(before.as_bytes());
        push_json_string(&mut line, name);
    };
    member("time", "{");
    member(&format_time_ms(time_ms), ":");
    member("level", ",");
    member(level, ":");
    member("program", ",");
    member(program, ":");
    member("message", ",");
    member(text, ":");
    for (name, value) in fields {
        line.push(b',');
        push_json_string(&mut line, name);
        line.push(b':');
        line.extend_from_slice(value.to_string().as_bytes());
    }
    line.extend_from_slice(b"}\n");
    json_for_terminal(&String::from_utf8_lossy(&line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_is_one_object_whatever_it_says() {
        let text = "a\nb\r\t\"\\\u{1b}[31m\u{202e}\u{9b}\0é";
        let fields = [("line", 3.into()), ("file", Value::from("x\n\u{1b}"))];
        let line = json_line(1_738_238_060_748, Level::Warning, "sg-run", text, &fields);
        assert!(line.ends_with("}\n"));
        assert_eq!(line.matches('\n').count(), 1);
        assert!(
            !line
                .trim_end()
                .chars()
                .any(|c| c.is_control() || c == '\u{202e}')
        );
        let start = "{\"time\":\"2025-01-30T11:54:20.748Z\",\"level\":\"warning\",\"program\":\"sg-run\",\"message\":\"a\\nb";
        assert!(line.starts_with(start), "{line}");
        let value: Value = serde_json::from_str(&line).expect("it is JSON");
        assert_eq!(value["message"], text);
        assert_eq!((&value["line"], &value["file"]), (&3.into(), &fields[1].1));
    }
}
