//! How answers of `sg-query` look: tables on a terminal and NDJSON in a pipe, the statistics; and that no text from an event is obeyed by a terminal.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::database::store;
use crate::query_model::{
    HOSTILE, Item, ask, hostile_lines, is_failure, items_of, odd_database, utc,
};
use crate::tools::{Ran, event, shell};

/// Asks on a pseudo-terminal; `"$NAME"` in the question stands for `name`.
pub(crate) fn ask_on_terminal(db: &Path, setup: &str, question: &str, name: &str) -> Ran {
    let program = env!("CARGO_BIN_EXE_sg-query");
    let command = format!("{setup}exec {program} --db \"$DB\" {question}");
    let mut child = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .envs([("SHELL", "/bin/sh"), ("NAME", name)])
        .env("DB", db)
        .env_remove("NO_COLOR")
        // An input that ends would be echoed.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let input = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(input);
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// No line is wrapped there.
const WIDE: &str = "stty cols 900; ";

/// Control characters, and what reorders or hides text.
fn is_obeyed(character: char) -> bool {
    let code = character as u32;
    code < 0x20
        || (0x7F..0xA0).contains(&code)
        || [0xAD, 0x61C, 0xFEFF].contains(&code)
        || (0x200B..=0x200F).contains(&code)
        || (0x2028..=0x202E).contains(&code)
        || (0x2060..=0x206F).contains(&code)
        || (0xE0000..=0xE007F).contains(&code)
}

/// What is shown instead of a text.
fn shown(text: &str) -> String {
    let show = |character| {
        if is_obeyed(character) {
            format!("<{:04X}>", character as u32)
        } else {
            character.to_string()
        }
    };
    text.chars().map(show).collect()
}

/// The lines that a terminal has got, after a look at every byte.
#[track_caller]
fn lines_on_terminal(ran: &Ran) -> Vec<&str> {
    assert_eq!((ran.code, &*ran.stderr), (0, ""));
    // A terminal makes a line end of two characters.
    let lines: Vec<&str> = ran.text().split_terminator("\r\n").collect();
    for line in &lines {
        assert!(!line.contains(is_obeyed), "{line:?}");
    }
    lines
}

const EVENTS_HEADER: [&str; 9] = [
    "TIME", "(UTC)", "EVENT", "USER", "TYPE", "STATUS", "ADDRESS", "LOCATION", "SEVERITY",
];
const ANOMALIES_HEADER: [&str; 9] = [
    "TIME", "(UTC)", "SEVERITY", "SCORE", "USER", "TYPE", "ADDRESS", "LOCATION", "REASONS",
];

#[test]
fn answers_are_tables_on_a_terminal_and_json_in_a_pipe() {
    let (_folder, db, items) = odd_database();
    let anomalies: Vec<&Item> = items.iter().filter(|item| item.score().is_some()).collect();
    let events: Vec<&Item> = items.iter().collect();
    for (question, items, header) in [
        ("events", &events, EVENTS_HEADER),
        ("anomalies", &anomalies, ANOMALIES_HEADER),
    ] {
        let newest: Vec<&&Item> = items.iter().rev().take(40).collect();
        let limit = "--limit=40";
        let on_terminal =
            ask_on_terminal(&db, WIDE, &format!("{question} {limit} 2>/dev/null"), "");
        let table = lines_on_terminal(&on_terminal);
        let in_pipe = ask(&db, &[question, limit, "--format=table"]);
        for line in [table[0], in_pipe.text().lines().next().unwrap()] {
            assert_eq!(line.split_whitespace().collect::<Vec<_>>(), header);
        }
        assert_eq!(table.len(), 1 + 40);
        for (row, item) in table[1..].iter().zip(&newest) {
            let score = format!("{:.3}", item.score().unwrap_or_default());
            let own = if question == "events" {
                item.text("event_id")
            } else {
                &score
            };
            for text in [
                own,
                item.text("user"),
                item.text("type"),
                item.text("geo_location"),
            ] {
                assert!(row.contains(&format!(" {text} ")), "{text} is not in {row}");
            }
            assert_eq!(
                row.contains(" high "),
                item.severity() == Some("high"),
                "{row}"
            );
        }
        // In a pipe without a word, on a terminal on demand.
        let plain = ask(&db, &[question, limit]);
        let demanded = format!("{question} {limit} --format ndjson 2>/dev/null");
        let demanded = ask_on_terminal(&db, WIDE, &demanded, "");
        assert_eq!(demanded.text().replace("\r\n", "\n"), plain.text());
        assert_eq!(plain.json_lines().len(), 40);
        // There are no colours, whoever asks for them.
        for setup in [
            "export NO_COLOR=1; ",
            "export CLICOLOR_FORCE=1 TERM=xterm-256color; ",
        ] {
            let setup = format!("{WIDE}{setup}");
            let ran = ask_on_terminal(&db, &setup, &format!("{question} {limit} 2>/dev/null"), "");
            assert_eq!(ran.text(), on_terminal.text());
        }
    }
}

/// A terminal that told a width of 0 (a serial line, a container) got one letter a line.
#[test]
fn tables_fit_the_terminal() {
    let (_folder, db, _) = odd_database();
    for (columns, is_whole) in [(0, true), (80, false), (160, true), (300, true)] {
        let setup = format!("stty cols {columns}; ");
        let ran = ask_on_terminal(&db, &setup, "anomalies --limit 30 2>/dev/null", "");
        let lines = lines_on_terminal(&ran);
        let width = if columns == 0 { 160 } else { columns };
        for line in &lines {
            assert!(line.chars().count() <= width, "{columns}: {line}");
        }
        let header: Vec<&str> = lines[0].split_whitespace().collect();
        assert!(
            !is_whole || header == ANOMALIES_HEADER,
            "{columns}: {header:?}"
        );
    }
}

/// NDJSON and CSV that were asked for on a terminal had the characters as they came.
#[test]
fn a_terminal_gets_nothing_that_it_would_obey() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let lines = hostile_lines();
    store(&db, lines.as_bytes()).expect_code(0);
    let items = items_of(lines.as_bytes());
    // User, type and place, and the reasons.
    for (question, n_texts) in [("events", 3), ("anomalies", 4)] {
        let ran = ask_on_terminal(&db, WIDE, question, "");
        let table = lines_on_terminal(&ran);
        assert_eq!(table.len(), 1 + HOSTILE.len());
        for (row, item) in table[1..].iter().zip(items.iter().rev()) {
            let text = shown(item.text("user"));
            let n_found = row.matches(&text).count();
            assert!(n_found >= n_texts, "{text} is {n_found} times in {row}");
        }
        // On demand it is the same JSON, with escapes.
        for question in [
            format!("{question} -f ndjson"),
            format!("export --what {question}"),
        ] {
            let ran = ask_on_terminal(&db, WIDE, &question, "");
            let mut found: Vec<Value> = lines_on_terminal(&ran)
                .into_iter()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            if !question.starts_with("export") {
                found.reverse();
            }
            let is_of_events = question.contains("events");
            let expected = items.iter().map(|item| {
                if is_of_events {
                    &item.fields
                } else {
                    &item.fields["anomaly"]
                }
            });
            assert!(found.iter().eq(expected), "{question}");
        }
        let ran = ask_on_terminal(&db, WIDE, &format!("{question} -f csv"), "");
        assert_eq!(lines_on_terminal(&ran).len(), 1 + HOSTILE.len());
    }
    let ran = ask_on_terminal(&db, WIDE, "stats", "");
    let table = lines_on_terminal(&ran).concat();
    // Twenty types are listed, those of equal counts by name.
    let mut types = HOSTILE;
    types.sort_unstable();
    for kind in &types[..20] {
        assert!(table.contains(&shown(kind)), "{kind:?} is not in {table}");
    }
    let ran = ask_on_terminal(&db, WIDE, "stats -f ndjson", "");
    let stats: Value = serde_json::from_str(lines_on_terminal(&ran)[0]).unwrap();
    assert_eq!(
        stats["types"],
        ask(&db, &["stats"]).json_lines()[0]["types"]
    );
    // A program cannot be told a name with a NUL.
    for user in HOSTILE.iter().filter(|user| !user.contains('\0')) {
        let plain = format!("{WIDE}export NO_COLOR=1 LC_ALL=C.UTF-8; ");
        let ran = ask_on_terminal(&db, &plain, "user -- \"$NAME\"", user);
        let profile = lines_on_terminal(&ran);
        assert_eq!(profile[0], shown(user));
        let ran = ask_on_terminal(&db, WIDE, "user -f ndjson -- \"$NAME\"", user);
        let profile: Value = serde_json::from_str(lines_on_terminal(&ran)[0]).unwrap();
        assert_eq!(profile["user"], **user);
        let none = ask_on_terminal(&db, WIDE, "user -- \"$NAME\"", &format!("{user} "));
        let says = none.text().trim_end();
        assert!(!says.contains(is_obeyed), "{says:?}");
        let words = "sg-query: there is no event of user";
        assert!(none.code == 1 && says.starts_with(words), "{says:?}");
    }
}

#[test]
fn stats_are_a_recount() {
    let (folder, db, items) = odd_database();
    let stats = ask(&db, &["stats"]).expect_code(0).json_lines().remove(0);
    let count = |of: &dyn Fn(&Item) -> Option<String>| {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for value in items.iter().filter_map(of) {
            *counts.entry(value).or_default() += 1;
        }
        counts
    };
    let types = count(&|item| Some(item.text("type").to_owned()));
    let files = shell(&format!("cat {}/*.sst | wc -c", db.display())).expect_code(0);
    let expected = json!({
        "events": items.len(),
        "failures": items.iter().filter(|item| is_failure(&item.fields)).count(),
        "users": count(&|item| Some(item.text("user").to_owned())).len(),
        "first": utc(items[0].timestamp_ms()),
        "last": utc(items.last().unwrap().timestamp_ms()),
        "anomalies": count(&|item| item.severity().map(str::to_owned)),
        "types": types,
        "other_types": 0,
        "disk_bytes": files.text().trim().parse::<u64>().unwrap(),
    });
    assert_eq!(stats, expected);
    let table = ask(&db, &["stats", "--format=table"]).expect_code(0);
    let value = |name: &str| {
        let mut lines = table.text().lines();
        let line = lines.find(|line| line.trim().starts_with(name)).unwrap();
        line.trim().strip_prefix(name).unwrap().trim().to_owned()
    };
    for (name, shown) in [
        ("events", "events"),
        ("users", "users"),
        ("first", "first event"),
    ] {
        assert_eq!(value(shown), expected[name].to_string().replace('"', ""));
    }
    for (kind, n_events) in &types {
        assert_eq!(value(kind), n_events.to_string());
    }
    // Of very many types some are counted together.
    let many: String = (0..400_i64)
        .map(|i| {
            event(&format!("e{i}"), "u", i).replace("LOGIN_SUCCESS", &format!("T{}", i % 300))
                + "\n"
        })
        .collect();
    let db = folder.path().join("many");
    store(&db, many.as_bytes()).expect_code(0);
    let stats = ask(&db, &["stats"]).expect_code(0).json_lines().remove(0);
    let types = stats["types"].as_object().unwrap();
    let mut n_listed = 0;
    for (kind, n_events) in types {
        let n = kind[1..].parse::<u64>().unwrap();
        assert_eq!(*n_events, if n < 100 { 2 } else { 1 }, "{kind}");
        n_listed += n_events.as_u64().unwrap();
    }
    assert_eq!(n_listed + stats["other_types"].as_u64().unwrap(), 400);
    for question in [&["stats"][..], &["user", "u"]] {
        let ran = ask(&db, &[question, &["--format=csv"]].concat());
        assert_eq!((ran.code, ran.text()), (2, ""));
        assert_eq!(
            ran.stderr,
            "sg-query: there is no CSV of this: use --format table or ndjson\n"
        );
    }
}

#[test]
fn an_empty_database_has_nothing_and_a_missing_one_is_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, missing) = (folder.path().join("empty"), folder.path().join("missing"));
    store(&empty, b"").expect_code(0);
    for question in [
        &["events"][..],
        &["event", "e"],
        &["anomalies"],
        &["anomalies", "--sort=score"],
        &["user", "u"],
        &["export"],
    ] {
        for format in ["ndjson", "table", "csv"] {
            let is_refused = match question[0] {
                "export" => format == "table",
                "user" => format == "csv",
                _ => false,
            };
            let args = [question, &["--format", format]].concat();
            let ran = ask(&empty, &args);
            let expected = if is_refused { 2 } else { 1 };
            // CSV has a header however little it holds.
            let has_header = format == "csv" && !is_refused;
            assert_eq!(ran.code, expected, "{args:?}");
            assert_eq!(ran.text().starts_with("time,timestamp,"), has_header);
            assert_eq!(ran.text().lines().count(), usize::from(has_header));
            assert_eq!(ran.stderr.is_empty(), !is_refused, "{}", ran.stderr);
        }
        let ran = ask(&missing, question);
        assert_eq!((ran.code, ran.text()), (2, ""));
        let expected = format!("sg-query: there is no database at {}\n", missing.display());
        assert_eq!(ran.stderr, expected);
    }
    assert!(!missing.exists());
}
