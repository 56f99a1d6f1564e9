//! Lines of syslog, as objects: RFC 5424, RFC 3164 (the BSD form), and the latter with a time of RFC 3339, as newer
//! rsyslogs write it, or as `log` of macOS, `journalctl` and `logread` of routers write it.

use crate::record::text::{push_integer, push_json_string};
use crate::time::{Zone, parse_iso};

/// Times that a line may say that it happened before it is no longer unfolded: sshd closes a connection after
/// six attempts (`MaxAuthTries`), and lines must not multiply without end.
const TIMES_MAX: u32 = 8;

/// The object of a line, and how many times it happened; none if the line is not of syslog. Times that say no zone
/// are of `zone`, and of the latest year in which they are not after `latest_ms`.
pub(super) fn parse(line: &str, zone: &Zone, latest_ms: i64) -> Option<(String, u32)> {
    let (priority, rest) = priority(line);
    let mut entry = match (priority, rest.strip_prefix("1 ")) {
        (Some(_), Some(rest)) => rfc_5424(rest)?,
        _ => bsd(rest, zone, latest_ms)?,
    };
    entry.priority = priority;
    let mut n_times = 1;
    if let Some((n, message)) = repeated(entry.message) {
        (n_times, entry.message) = (n.min(TIMES_MAX), message);
        entry.repeated = Some(n);
    }
    Some((entry.to_json(), n_times))
}

/// What a line says.
#[derive(Default)]
struct Entry<'a> {
    priority: Option<u8>,
    time_ms: Option<i64>,
    is_year_assumed: bool,
    host: &'a str,
    program: &'a str,
    pid: &'a str,
    msgid: &'a str,
    structured_data: &'a str,
    message: &'a str,
    repeated: Option<u32>,
}

impl Entry<'_> {
    fn to_json(&self) -> String {
        let mut json = Vec::with_capacity(self.message.len() + 128);
        json.extend_from_slice(b"{\"message\":");
        push_json_string(&mut json, self.message);
        for (name, text) in [
            ("host", self.host),
            ("program", self.program),
            ("pid", self.pid),
            ("msgid", self.msgid),
            ("structured_data", self.structured_data),
        ] {
            if !text.is_empty() && text != "-" {
                json.extend_from_slice(b",\"");
                json.extend_from_slice(name.as_bytes());
                json.extend_from_slice(b"\":");
                push_json_string(&mut json, text);
            }
        }
        let priority = self.priority.map(i64::from);
        for (name, number) in [
            ("time", self.time_ms),
            ("priority", priority),
            ("facility", priority.map(|priority| priority / 8)),
            ("severity", priority.map(|priority| priority % 8)),
            ("repeated", self.repeated.map(i64::from)),
        ] {
            if let Some(number) = number {
                json.extend_from_slice(b",\"");
                json.extend_from_slice(name.as_bytes());
                json.extend_from_slice(b"\":");
                push_integer(&mut json, number);
            }
        }
        if self.is_year_assumed {
            json.extend_from_slice(b",\"year_assumed\":true");
        }
        json.push(b'}');
        String::from_utf8(json).expect("it is made of texts")
    }
}

/// `<13>` before a line, which files rarely keep.
fn priority(line: &str) -> (Option<u8>, &str) {
    let Some((digits, rest)) = line.strip_prefix('<').and_then(|rest| rest.split_once('>')) else {
        return (None, line);
    };
    match digits.parse::<u8>() {
        Ok(priority) if priority <= 191 && digits.len() <= 3 && !digits.starts_with('+') => {
            (Some(priority), rest)
        }
        _ => (None, line),
    }
}

/// What follows the version: `TIMESTAMP HOST PROGRAM PID MSGID STRUCTURED-DATA [MESSAGE]`.
fn rfc_5424(rest: &str) -> Option<Entry<'_>> {
    let mut words = rest.splitn(6, ' ');
    let time = words.next()?;
    let mut entry = Entry {
        // A dash is a time that the sender does not know.
        time_ms: if time == "-" {
            None
        } else {
            Some(parse_iso(time)?)
        },
        host: words.next()?,
        program: words.next()?,
        pid: words.next()?,
        msgid: words.next()?,
        ..Entry::default()
    };
    let rest = words.next()?;
    let end = structured_data_end(rest)?;
    entry.structured_data = &rest[..end];
    let message = rest[end..].strip_prefix(' ').unwrap_or(&rest[end..]);
    entry.message = message.strip_prefix('\u{feff}').unwrap_or(message);
    Some(entry)
}

/// Where `-` or `[id name="value"][...]` ends.
fn structured_data_end(text: &str) -> Option<usize> {
    if text == "-" || text.starts_with("- ") {
        return Some(1);
    }
    let mut is_quoted = false;
    let mut is_escaped = false;
    let mut depth = 0_u32;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' if depth > 0 => is_quoted = !is_quoted,
            _ if is_quoted => {}
            b'[' => depth += 1,
            b']' => depth = depth.checked_sub(1)?,
            b' ' if depth == 0 => return (at > 0).then_some(at),
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    (depth == 0 && !text.is_empty()).then_some(text.len())
}

/// `Nov  9 08:01:02 host program[pid]: message`, or with another form of the time.
fn bsd<'a>(line: &'a str, zone: &Zone, latest_ms: i64) -> Option<Entry<'a>> {
    let weekday = line.split_once(' ').filter(|(name, _)| is_weekday(name));
    let dated = weekday.map_or(line, |(_, dated)| dated);
    let (time_ms, is_year_assumed, rest) = if dated.bytes().next()?.is_ascii_digit() {
        let (time_ms, rest) = numeric_time(dated, weekday.is_some(), zone)?;
        (time_ms, false, rest)
    } else {
        bsd_time(dated, weekday.is_some(), zone, latest_ms)?
    };
    let (host, rest) = host(rest, weekday.is_some())?;
    let rest = without_facility(rest.trim_start_matches(' '));
    let mut entry = Entry {
        time_ms: Some(time_ms),
        is_year_assumed,
        host,
        message: rest,
        ..Entry::default()
    };
    if host.is_empty()
        && let Some((program, message)) = rest.strip_prefix('[').and_then(|it| it.split_once("] "))
    {
        entry.program = program;
        entry.message = message;
        return Some(entry);
    }
    if let Some(message) = of_old_login(rest) {
        entry.program = "login";
        entry.message = message;
        return Some(entry);
    }
    let is_name = |sign: char| !matches!(sign, ' ' | '[' | ':');
    let name_end = rest.find(|sign| !is_name(sign)).unwrap_or(rest.len());
    let (program, after) = rest.split_at(name_end);
    let (pid, after) = match after
        .strip_prefix('[')
        .and_then(|after| after.split_once(']'))
    {
        Some((pid, after)) if pid.len() <= 20 && !pid.contains(' ') => (pid, after),
        _ => ("", after),
    };
    // Without a colon it is no name, but the message.
    if let Some(message) = after.strip_prefix(':')
        && !program.is_empty()
    {
        entry.program = program;
        entry.pid = pid;
        entry.message = message.trim_start_matches(' ');
    }
    Some(entry)
}

fn is_weekday(name: &str) -> bool {
    matches!(name, "Mon" | "Tue" | "Wed" | "Thu" | "Fri" | "Sat" | "Sun")
}

/// A time that begins with a digit, and what follows: of RFC 3339; as `log show --style syslog` of macOS writes it,
/// with a blank for the `T`, and another one before the host; `2025-01-01 08:01:02 CET` of `journalctl -o short-full`,
/// which says the day of the week before it: a name of a zone but UTC's does not tell how far from UTC it is, so that it
/// is taken for `zone`; and the seconds of `journalctl -o short-unix`.
fn numeric_time<'a>(line: &'a str, has_weekday: bool, zone: &Zone) -> Option<(i64, &'a str)> {
    let (first, rest) = line.split_once(' ')?;
    if let Some((seconds, micros)) = first.split_once('.')
        && matches!(seconds.len(), 9 | 10)
        && micros.len() == 6
    {
        let (seconds, micros): (i64, u32) = (seconds.parse().ok()?, micros.parse().ok()?);
        return Some((seconds * 1_000 + i64::from(micros / 1_000), rest));
    }
    if first.len() != 10 {
        return Some((parse_iso(first)?, rest));
    }
    let (clock, rest) = rest.split_once(' ')?;
    let rest = rest.trim_start_matches(' ');
    if clock.contains(['Z', 'z', '+', '-']) {
        let time = &line[..first.len() + 1 + clock.len()];
        return Some((parse_iso(time)?, rest));
    }
    let mut date = first.split('-');
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    let day = (number(month, 2)?, number(day, 2)?);
    let (clock, ms) = clock_of(clock)?;
    let utc = Zone::default();
    let (zone, rest) = match rest.split_once(' ')? {
        ("UTC" | "GMT", rest) if has_weekday => (&utc, rest),
        (_, rest) if has_weekday => (zone, rest),
        _ => (zone, rest),
    };
    let time_ms = zone.ms_of(year.parse().ok()?, day, clock, ms)?;
    Some((time_ms, rest))
}

/// The message without the `authpriv.notice` that busybox writes before the name of the program.
fn without_facility(rest: &str) -> &str {
    match rest.split_once(' ') {
        Some((word, after)) if is_facility(word) => after.trim_start_matches(' '),
        _ => rest,
    }
}

/// Whether a word is a facility with a severity.
fn is_facility(word: &str) -> bool {
    let Some((facility, severity)) = word.split_once('.') else {
        return false;
    };
    let is_facility = matches!(
        facility,
        "kern" | "user" | "mail" | "daemon" | "auth" | "syslog" | "lpr" | "news" | "uucp" | "cron"
    ) || matches!(facility, "authpriv" | "ftp")
        || facility.strip_prefix("local").is_some_and(|n| n.len() == 1);
    let is_severity = matches!(
        severity,
        "emerg" | "panic" | "alert" | "crit" | "err" | "error" | "warn" | "warning" | "notice"
    ) || matches!(severity, "info" | "debug");
    is_facility && is_severity
}

/// `-- root[2421]: ROOT LOGIN ON tty2`: `login` of former Red Hat systems has the name of who signs in for its own.
fn of_old_login(rest: &str) -> Option<&str> {
    let (_, message) = rest.strip_prefix("-- ")?.split_once("]: ")?;
    message.contains("LOGIN").then_some(message)
}

/// The host and what follows. Some leave it out: `sshd[123]: message` of busybox, `authpriv.info sshd[123]: message` of
/// `logread`, `[sshd] message` of metalog. A host may look so, too, but a program follows it.
fn host(rest: &str, has_weekday: bool) -> Option<(&str, &str)> {
    let (first, after) = rest.split_once(' ')?;
    let is_of_busybox = first.ends_with("]:") && !first.starts_with('[');
    let is_of_metalog = first.starts_with('[') && first.ends_with(']');
    let next = after.trim_start_matches(' ').split(' ').next();
    let is_program = is_of_busybox
        || has_weekday && is_facility(first)
        || is_of_metalog && !next.is_some_and(|it| it.ends_with(':'));
    Some(if is_program {
        ("", rest)
    } else {
        (first, after)
    })
}

/// The time `Nov  9 08:01:02`, with or without a year and a fraction, whether the year is assumed, and what
/// follows. The year stands before the clock, and behind it where a day of the week came first.
fn bsd_time<'a>(
    line: &'a str,
    has_weekday: bool,
    zone: &Zone,
    latest_ms: i64,
) -> Option<(i64, bool, &'a str)> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (name, rest) = line.split_once(' ')?;
    let month = MONTHS.iter().position(|month| *month == name)? as i8 + 1;
    let (day, rest) = rest.trim_start_matches(' ').split_once(' ')?;
    let day = number(day, 2)?;
    let mut rest = rest.trim_start_matches(' ');
    let year_of = |rest: &'a str| {
        let (text, after) = rest.split_once(' ')?;
        let year: i16 = text.parse().ok().filter(|_| text.len() == 4)?;
        Some((year, after))
    };
    let mut year = year_of(rest);
    if let Some((_, after)) = year {
        rest = after.trim_start_matches(' ');
    }
    let (time, mut rest) = rest.split_once(' ')?;
    let (clock, ms) = clock_of(time.strip_suffix(':').unwrap_or(time))?;
    if has_weekday && year.is_none() {
        year = year_of(rest);
        if let Some((_, after)) = year {
            rest = after;
        }
    }
    let year = year.map(|(year, _)| year);
    let time_ms = match year {
        Some(year) => zone.ms_of(year, (month, day), clock, ms)?,
        None => zone.ms_of_some_year((month, day), clock, ms, latest_ms)?,
    };
    Some((time_ms, year.is_none(), rest))
}

/// Hours, minutes and seconds of `08:01:02`, and the milliseconds of a fraction.
fn clock_of(time: &str) -> Option<((i8, i8, i8), i32)> {
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = clock.split(':');
    let mut part = || number(parts.next()?, 2);
    // A leap second is the last one here.
    let clock = (part()?, part()?, part()?.min(59));
    if parts.next().is_some() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(3);
    let ms = digits.fold(0, |ms, digit| ms * 10 + i32::from(digit - b'0'));
    Some((clock, ms))
}

/// A number of so many digits at the most.
fn number(text: &str, n_digits_max: usize) -> Option<i8> {
    let is_number = text.len() <= n_digits_max && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

/// `message repeated 3 times: [ Failed password for ... ]` is rsyslog's way to say it three times.
fn repeated(message: &str) -> Option<(u32, &str)> {
    let rest = message.strip_prefix("message repeated ")?;
    let (n_times, rest) = rest.split_once(" times: [")?;
    let n_times = n_times.parse().ok().filter(|n_times| *n_times > 0)?;
    let inner = rest.strip_suffix(']')?;
    Some((n_times, inner.strip_prefix(' ').unwrap_or(inner)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// 2026-03-01.
    const LATEST_MS: i64 = 1_772_323_200_000;

    #[test]
    fn lines_are_taken_apart() {
        let check = |line: &str, expected: Value| {
            let (json, _) = parse(line, &Zone::default(), LATEST_MS).expect("a line of syslog");
            let found: Value = serde_json::from_str(&json).expect("JSON");
            assert_eq!(found, expected, "for {line}");
        };
        check(
            "Jan  1 00:00:00 h sshd[12]: Accepted x",
            json!({"time": 1_767_225_600_000_i64, "host": "h", "program": "sshd", "pid": "12",
                   "message": "Accepted x", "year_assumed": true}),
        );
        // Hosts as relays write them, and none at all.
        for host in ["10.0.0.1:", "h:", "[10.0.0.1]", "[h]", "fe80::1:", ":"] {
            check(
                &format!("2025-01-01T00:00:00Z {host} sshd[12]: Failed x"),
                json!({"time": 1_735_689_600_000_i64, "host": host, "program": "sshd", "pid": "12",
                       "message": "Failed x"}),
            );
        }
        for line in ["sshd[12]: Failed x", "sshd[12]:  Failed x"] {
            check(
                &format!("2025-01-01T00:00:00Z {line}"),
                json!({"time": 1_735_689_600_000_i64, "program": "sshd", "pid": "12", "message": "Failed x"}),
            );
        }
        check(
            "2025-01-01T00:00:00Z [sshd] Failed x",
            json!({"time": 1_735_689_600_000_i64, "program": "sshd", "message": "Failed x"}),
        );
        check(
            "2025-01-01T00:00:00Z h  -- root[2]: ROOT LOGIN ON tty2",
            json!({"time": 1_735_689_600_000_i64, "host": "h", "program": "login",
                   "message": "ROOT LOGIN ON tty2"}),
        );
        check(
            "2025-01-01T00:00:00Z h kernel: [ 12.3] x: y",
            json!({"time": 1_735_689_600_000_i64, "host": "h", "program": "kernel", "message": "[ 12.3] x: y"}),
        );
        // Not in the future, and of a leap year.
        check(
            "Dec 31 00:00:00 h a: b",
            json!({"time": 1_767_139_200_000_i64, "host": "h", "program": "a", "message": "b",
                   "year_assumed": true}),
        );
        check(
            "Feb 29 00:00:00 h a: b",
            json!({"time": 1_709_164_800_000_i64, "host": "h", "program": "a", "message": "b",
                   "year_assumed": true}),
        );
        check(
            "<38>Jan  1 2025 00:00:00.25: h sudo:   ann : x",
            json!({"time": 1_735_689_600_250_i64, "host": "h", "program": "sudo",
                   "message": "ann : x", "priority": 38, "facility": 4, "severity": 6}),
        );
        check(
            "2025-01-01T01:00:00.5+01:00 h sshd-session[1]: x",
            json!({"time": 1_735_689_600_500_i64, "host": "h", "program": "sshd-session", "pid": "1",
                   "message": "x"}),
        );
        check(
            "2025-01-01 01:00:00.512345+0100  h sshd[3186]: x",
            json!({"time": 1_735_689_600_512_i64, "host": "h", "program": "sshd", "pid": "3186",
                   "message": "x"}),
        );
        check(
            "<86>1 2025-01-01T00:00:00Z h sshd 7 - [a@1 b=\"c ]\\\" d\"][e] \u{feff}hello",
            json!({"time": 1_735_689_600_000_i64, "host": "h", "program": "sshd", "pid": "7",
                   "structured_data": "[a@1 b=\"c ]\\\" d\"][e]", "message": "hello",
                   "priority": 86, "facility": 10, "severity": 6}),
        );
        check(
            "<13>1 - - - - - -",
            json!({"message": "", "priority": 13, "facility": 1, "severity": 5}),
        );
        check(
            "Jan  1 00:00:00 h last message repeated 2 times",
            json!({"time": 1_767_225_600_000_i64, "host": "h", "year_assumed": true,
                   "message": "last message repeated 2 times"}),
        );
    }

    /// Busybox and routers, and other forms of the time.
    #[test]
    fn times_have_many_forms() {
        let (of_2025, of_2026) = (1_735_689_600_000_i64, 1_767_225_600_000);
        for (line, time_ms, host) in [
            ("Jan  1  0:00:00 h sshd[12]: Failed x", of_2026, "h"),
            ("Jan  1 2025  0:00:00 h sshd[12]: Failed x", of_2025, "h"),
            (
                "Jan  1 00:00:00 h authpriv.notice sshd[12]: Failed x",
                of_2026,
                "h",
            ),
            (
                "Wed Jan  1 00:00:00 2025 authpriv.warn sshd[12]: Failed x",
                of_2025,
                "",
            ),
            (
                "Wed Jan  1 00:00:00 2025 h sshd[12]: Failed x",
                of_2025,
                "h",
            ),
            ("2025-01-01 00:00:00 h sshd[12]: Failed x", of_2025, "h"),
            (
                "2025-01-01 00:00:00.25 h sshd[12]: Failed x",
                of_2025 + 250,
                "h",
            ),
            (
                "Wed 2025-01-01 00:00:00 UTC h sshd[12]: Failed x",
                of_2025,
                "h",
            ),
            (
                "Wed 2025-01-01 00:00:00 CET h sshd[12]: Failed x",
                of_2025,
                "h",
            ),
            (
                "2025-01-01 00:00:00 mail.info sshd[12]: Failed x",
                of_2025,
                "mail.info",
            ),
            ("1735689600.123456 h sshd[12]: Failed x", of_2025 + 123, "h"),
        ] {
            let parsed = parse(line, &Zone::default(), LATEST_MS);
            let (json, _) = parsed.unwrap_or_else(|| panic!("{line} is a line of syslog"));
            let found: Value = serde_json::from_str(&json).expect("JSON");
            let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
            let told = ["host", "program", "pid", "message"].map(text);
            assert_eq!(found["time"], time_ms, "for {line}");
            assert_eq!(told, [host, "sshd", "12", "Failed x"], "for {line}");
        }
    }

    #[test]
    fn a_repeated_message_is_unfolded() {
        let line = "Jan  1 00:00:00 h a: message repeated 900 times: [ Failed x]";
        let (json, n_times) = parse(line, &Zone::default(), LATEST_MS).expect("a line of syslog");
        assert_eq!(n_times, TIMES_MAX);
        let found: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(
            (&found["message"], &found["repeated"]),
            (&json!("Failed x"), &json!(900))
        );
    }

    #[test]
    fn other_lines_are_not() {
        for line in [
            "",
            "hello",
            "Foo  1 00:00:00 h a: b",
            "Jan 32 00:00:00 h a: b",
            "Jan  1 25:00:00 h a: b",
            "Jan  1 00:00 h a: b",
            "Feb 30 00:00:00 h a: b",
            "<13>1 yesterday h a - - - x",
            "<13>1 2025-01-01T00:00:00Z h a - - [x",
            "2025-01-01 00:00 h a: b",
            "2025-13-01 00:00:00 h a: b",
            "1735689600.1 h a: b",
        ] {
            let parsed = parse(line, &Zone::default(), LATEST_MS);
            assert!(parsed.is_none(), "for {line}");
        }
    }

    #[test]
    fn a_zone_is_assumed() {
        let zone = Zone::parse("+02:00").expect("a zone");
        let (json, _) = parse("Jan  1 02:00:00 h a: b", &zone, LATEST_MS).expect("a line");
        assert!(json.contains("\"time\":1767225600000"), "{json}");
    }
}
