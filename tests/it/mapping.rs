//! Records of other formats become our events: the engine, by a mapping of the test's own. What the mappings
//! that are built in make of vendors' records is in `mapping/formats.rs`.

mod formats;
mod hostile;
mod kills;

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};

use crate::dead_letters::{Fixture, raw};
use crate::tools::{run, shell};

/// Has a bit of everything.
const APP: &str = r#"
name = "app"
title = "Application"
empty = ["-"]
records = ["batch"]
inside = ["wrapped"]
each = "acts"
input = ["json", "syslog"]

[[detect]]
has = ["app_version", "who"]

[[reject]]
when = { "what | @.what" = "heartbeat" }
reason = "a heartbeat is not an act of a user"

[[pattern]]
of = "message"
regex = '''^(?<name>.*) did (?<verb>\w+)$'''
set = { kind = "DONE" }

[fields]
event_id = "id"
user = [
    { when = { "who.kind" = "service" }, text = "service/{who.name}" },
    "who.name | who.mail | $name",
]
timestamp = { from = "at | time", time = ["iso", "ms"] }
type = [
    { from = "what | @.what | $verb", map = "types" },
    { when = { ok = true }, text = "FINE" },
    "$kind",
]
source_ip = { from = "from", as = "ip" }
geo_location = "{city}, {country}"
threat_score = [
    { from = "risk", map = { high = "0.75" } },
    { from = "risk", as = "number" },
]
status = { from = "ok", map = { true = "success", false = "failed" } }

[metadata]
action = "what | @.what | $verb"
n = "n"
flag = "ok"
first = "tags[0]"
owner = "labels[key=owner].value"
nested = "detail:json.inner"
size = { from = "size", match = '^(\d+) bytes$', as = "number" }
"key \" quoted" = '"a.b"'
host = "host"
"odd" = "~odd.X | ~all"
path = { from = "path", as = "slashes" }

[aliases]
odd = ["a.*", "\"b.*\"", "c.%", 'd[name=*].value']
all = ["e", "f"]

[tables.types]
login = "LOGIN_SUCCESS"
"file.*" = "FILE_ACCESS"
"#;

fn fixture(files: &[(&str, &[u8])]) -> Fixture {
    let mut all = vec![("app.toml", APP.as_bytes())];
    all.extend_from_slice(files);
    Fixture::new(&all)
}

/// The events that lines become.
#[track_caller]
fn mapped(lines: &str) -> Vec<Value> {
    let ran = fixture(&[]).consume(&["--map", "@app.toml"], lines.as_bytes());
    ran.expect_code(0).json_lines()
}

/// One record, which says all that is needed, with what is given besides.
fn record(more: &Value) -> String {
    let mut record =
        json!({"id": "e1", "who": {"name": "ann"}, "at": "2025-01-01T00:00:00Z", "what": "login"});
    for (name, value) in more.as_object().unwrap() {
        record[name] = value.clone();
    }
    record.to_string() + "\n"
}

#[test]
fn values_come_from_where_the_mapping_says() {
    let check = |more: Value, path: &str, expected: Value| {
        let events = mapped(&record(&more));
        assert_eq!(events.len(), 1);
        let found = events[0].pointer(path).cloned().unwrap_or(Value::Null);
        assert_eq!(found, expected, "{path} of {more}");
    };
    check(json!({}), "/event_id", json!("e1"));
    check(json!({}), "/user", json!("ann"));
    check(json!({}), "/timestamp", json!(1_735_689_600_000_i64));
    check(json!({}), "/type", json!("LOGIN_SUCCESS"));
    check(json!({}), "/metadata/format", json!("app"));
    check(json!({}), "/source_ip", Value::Null);
    // Alternatives, and what stands for nothing.
    check(
        json!({"who": {"name": "-", "mail": "ann@example.com"}}),
        "/user",
        json!("ann@example.com"),
    );
    check(json!({"who": {"name": "", "mail": 7}}), "/user", json!("7"));
    check(
        json!({"who": {"name": null, "mail": "a"}}),
        "/user",
        json!("a"),
    );
    check(
        json!({"who": {"kind": "service", "name": "cron"}}),
        "/user",
        json!("service/cron"),
    );
    // Tables, conditions, constants.
    check(json!({"what": "file.open"}), "/type", json!("FILE_ACCESS"));
    check(json!({"what": "other", "ok": true}), "/type", json!("FINE"));
    check(json!({"ok": true}), "/status", json!("success"));
    check(json!({"ok": false}), "/status", json!("failed"));
    // Times in another form.
    check(
        json!({"at": 1_735_689_600_042_i64}),
        "/timestamp",
        json!(1_735_689_600_042_i64),
    );
    // Addresses with what is no part of them.
    check(
        json!({"from": "203.0.113.7:4711"}),
        "/source_ip",
        json!("203.0.113.7"),
    );
    check(
        json!({"from": "[2001:DB8::1]:443"}),
        "/source_ip",
        json!("2001:db8::1"),
    );
    check(json!({"from": "internal"}), "/source_ip", Value::Null);
    // A template needs all its parts.
    check(
        json!({"city": "Bonn", "country": "DE"}),
        "/geo_location",
        json!("Bonn, DE"),
    );
    check(json!({"city": "Bonn"}), "/geo_location", Value::Null);
    check(json!({"risk": "0.5"}), "/threat_score", json!(0.5));
    check(json!({"risk": "0.5 "}), "/threat_score", json!(0.5));
    check(json!({"risk": "high"}), "/threat_score", json!(0.75));
    // Aliases.
    for more in [
        json!({"a": {"X": "1"}}),
        json!({"b.X": "1"}),
        json!({"c": {"x": "1"}}),
        json!({"d": [{"name": "X", "value": "1"}]}),
        json!({"f": "1"}),
    ] {
        check(more, "/metadata/odd", json!("1"));
    }
    check(
        json!({"path": "C:\\a\\b"}),
        "/metadata/path",
        json!("C:/a/b"),
    );
}

#[test]
fn values_keep_what_they_are() {
    let check = |more: Value, path: &str, expected: Value| {
        let events = mapped(&record(&more));
        let found = events[0].pointer(path).cloned().unwrap_or(Value::Null);
        assert_eq!(found, expected, "{path} of {more}");
    };
    // Numbers and booleans stay what they are.
    check(json!({"n": 1.50}), "/metadata/n", json!(1.5));
    check(json!({"n": "1.50"}), "/metadata/n", json!("1.50"));
    check(json!({"ok": true}), "/metadata/flag", json!(true));
    // Arrays, and JSON within strings.
    check(json!({"tags": ["x", "y"]}), "/metadata/first", json!("x"));
    check(json!({"tags": []}), "/metadata/first", Value::Null);
    let labels = json!([{"key": "a", "value": "1"}, {"value": "2", "key": "owner"}, {"key": "owner", "value": "3"}]);
    check(json!({"labels": labels}), "/metadata/owner", json!("2"));
    check(
        json!({"detail": "{\"inner\": \"a \\\"b\\\"\"}"}),
        "/metadata/nested",
        json!("a \"b\""),
    );
    check(
        json!({"detail": {"inner": "c"}}),
        "/metadata/nested",
        json!("c"),
    );
    check(
        json!({"detail": "{\"inner\": \"c\", "}),
        "/metadata/nested",
        Value::Null,
    );
    check(json!({"size": "512 bytes"}), "/metadata/size", json!(512));
    check(json!({"size": "many"}), "/metadata/size", Value::Null);
    check(json!({"a.b": "x"}), "/metadata/key \" quoted", json!("x"));
    // A record within another one, which says nothing then.
    let inner = record(&json!({"who": {"name": "bob"}}));
    check(
        json!({"wrapped": serde_json::from_str::<Value>(&inner).unwrap()}),
        "/user",
        json!("bob"),
    );
    check(json!({"wrapped": inner}), "/user", json!("bob"));
    check(json!({"wrapped": null}), "/user", json!("ann"));
    // Text passes as it is, whatever is in it.
    let hostile = "a\"b\\c\u{1b}[31m\u{202e}\n{}";
    check(json!({"who": {"name": hostile}}), "/user", json!(hostile));
    check(
        json!({"city": hostile, "country": "é"}),
        "/geo_location",
        json!(format!("{hostile}, é")),
    );
}

#[test]
fn what_cannot_be_mapped_is_rejected_with_the_reason() {
    let check = |line: &str, code: &str, field: Value, message: &str| {
        let fixture = fixture(&[]);
        let args = ["--map", "@app.toml", "--dead-letter", "@dead"];
        let ran = fixture.consume(&args, format!("{line}\n").as_bytes());
        assert_eq!(ran.expect_code(1).text(), "", "for {line}");
        let letters = fixture.letters("dead");
        assert_eq!(letters.len(), 1, "for {line}");
        let reason = &letters[0]["reason"];
        assert_eq!(
            (&reason["code"], &reason["field"]),
            (&json!(code), &field),
            "for {line}"
        );
        let found = reason["message"].as_str().unwrap();
        assert!(found.contains(message), "for {line}: {found}");
        assert_eq!(raw(&letters[0]), line.trim_matches(['[', ']']).as_bytes());
    };
    let without = |name: &str| {
        let mut record: Value = serde_json::from_str(&record(&json!({}))).unwrap();
        record.as_object_mut().unwrap().remove(name);
        record.to_string()
    };
    let looked_for = "the Application record has none: looked for in who.name | who.mail | $name, service/{who.name}";
    check(&without("who"), "missing_field", json!("user"), looked_for);
    check(
        &without("at"),
        "missing_field",
        json!("timestamp"),
        "at | time",
    );
    check(
        &without("what"),
        "missing_field",
        json!("type"),
        "what | @.what | $verb",
    );
    let wrong_time = record(&json!({"at": "yesterday"}));
    check(
        wrong_time.trim(),
        "invalid_value",
        json!("timestamp"),
        "not a time of the form iso or ms",
    );
    let unknown = record(&json!({"what": "other"}));
    check(unknown.trim(), "missing_field", json!("type"), "has none");
    let beat = record(&json!({"what": "heartbeat"}));
    check(
        beat.trim(),
        "no_event",
        Value::Null,
        "a heartbeat is not an act of a user",
    );
    let twice =
        r#"{"who":{"name":"a"},"at":"2025-01-01T00:00:00Z","what":"login","who":{"name":"b"}}"#;
    check(twice, "duplicate_field", Value::Null, "stands twice");
    let long = record(&json!({"who": {"name": "x".repeat(1_025)}}));
    check(
        long.trim(),
        "out_of_range",
        json!("user"),
        "longer than 1024 bytes",
    );
    let many =
        json!({"who": {"name": "ann"}, "at": 1, "acts": vec![json!({"what": "login"}); 1_001]});
    check(
        &many.to_string(),
        "out_of_range",
        Value::Null,
        "more than 1000 events",
    );
    let wrapped = record(&json!({"wrapped": "no JSON"}));
    check(
        wrapped.trim(),
        "not_an_object",
        Value::Null,
        "the record that it holds as text",
    );
    check("{\"who\":", "invalid_json", Value::Null, "");
    check(
        "hello",
        "unknown_format",
        Value::Null,
        "neither JSON nor a line of syslog",
    );
    // Of several records the one.
    check("[1]", "not_an_object", Value::Null, "");
}

#[test]
fn lines_may_hold_several_records() {
    let [one, two] = ["e1", "e2"].map(|id| record(&json!({"id": id})).trim().to_owned());
    let bad = r#"{"id":"e3","who":{}}"#;
    let input = format!(
        "{{\"batch\":[{one}, {bad} ,{two}],\"more\":1}}\n\n[{one},{bad}]\n{{\"batch\":[]}}\n[]\n"
    );
    let fixture = fixture(&[]);
    let args = ["--map", "@app.toml", "--dead-letter", "@dead"];
    let ran = fixture.consume(&args, input.as_bytes()).expect_code(1);
    let ids = |ran: &[Value]| {
        ran.iter()
            .map(|event| event["event_id"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&ran.json_lines()), ["e1", "e2", "e1"]);
    let summary = "in 8 = out 3 + rejected 2 + filtered 3 (rejected: missing_field 2)";
    assert!(ran.stderr.contains(summary), "{}", ran.stderr);
    // Letters hold the record alone, and say where its line stands.
    let first = input.find("\n\n").unwrap() as u64;
    let bad = bad.as_bytes().to_vec();
    assert_eq!(
        fixture.places("dead"),
        [
            ("-".to_owned(), (1, 0, bad.clone())),
            ("-".to_owned(), (3, first + 2, bad))
        ]
    );
    // And come again as they were.
    let again = fixture.consume(&["--map", "@app.toml", "--replay", "@dead"], b"");
    assert!(
        again
            .expect_code(1)
            .stderr
            .contains("in 2 = out 0 + rejected 2")
    );
}

#[test]
fn a_record_may_be_several_events() {
    let acts = json!({"id": "e1", "who": {"name": "ann"}, "at": "2025-01-01T00:00:00Z", "acts": [
        {"what": "login"}, {"what": "file.open"}, {"what": "login"},
    ]});
    let events = mapped(&format!("{acts}\n"));
    let found: Vec<_> = events
        .iter()
        .map(|event| (event["event_id"].clone(), event["type"].clone()))
        .collect();
    assert_eq!(
        found,
        [
            ("e1", "LOGIN_SUCCESS"),
            ("e1#1", "FILE_ACCESS"),
            ("e1#2", "LOGIN_SUCCESS")
        ]
        .map(|(id, kind)| (json!(id), json!(kind)))
    );
    // What is no act leaves the others.
    let mut some = acts.clone();
    some["acts"][1]["what"] = json!("heartbeat");
    let fixture = fixture(&[]);
    let args = ["--map", "@app.toml", "--dead-letter", "@dead"];
    let ran = fixture
        .consume(&args, format!("{some}\n").as_bytes())
        .expect_code(1);
    let ids: Vec<_> = ran
        .json_lines()
        .iter()
        .map(|event| event["event_id"].clone())
        .collect();
    assert_eq!(ids, ["e1", "e1#2"]);
    assert_eq!(
        fixture.letters("dead")[0]["reason"]["code"],
        json!("no_event")
    );
    assert!(
        ran.stderr.contains("in 3 = out 2 + rejected 1"),
        "{}",
        ran.stderr
    );
    // All others are there, or none.
    let mut half = acts;
    half["acts"][1]["what"] = json!("unknown");
    let ran = fixture.consume(&["--map", "@app.toml"], format!("{half}\n").as_bytes());
    assert_eq!(ran.expect_code(1).text(), "");
}

#[test]
fn text_is_taken_apart() {
    let lines = "Jan  1 00:00:00 h app[1]: ann did login\n\
                 <13>1 2025-01-01T00:00:00Z h app - - - bob did file\n\
                 Jan  1 00:00:01 h app[1]: message repeated 3 times: [ eve did login]\n";
    let fixture = fixture(&[]);
    let args = [
        "--map",
        "@app.toml",
        "--log-end",
        "2025-06-01",
        "--log-zone",
        "+01:00",
    ];
    let events = fixture
        .consume(&args, lines.as_bytes())
        .expect_code(0)
        .json_lines();
    let found: Vec<_> = events
        .iter()
        .map(|event| {
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            (
                text("user"),
                text("type"),
                event["timestamp"].as_i64().unwrap() - 1_735_689_600_000,
            )
        })
        .collect();
    let expected = [
        ("ann", "LOGIN_SUCCESS", -3_600_000),
        ("bob", "DONE", 0),
        ("eve", "LOGIN_SUCCESS", -3_599_000),
        ("eve", "LOGIN_SUCCESS", -3_599_000),
        ("eve", "LOGIN_SUCCESS", -3_599_000),
    ];
    assert_eq!(
        found,
        expected.map(|(user, kind, ms)| (user.to_owned(), kind.to_owned(), ms))
    );
    let mut ids: Vec<_> = events
        .iter()
        .map(|event| event["event_id"].to_string())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5, "each event has an id of its own");
}

/// Where an element of an array stands goes with it to the dead letters: two that are alike stay two, and what is
/// read again is not another event.
#[test]
fn rejected_elements_come_back_as_what_they_were() {
    let strict = APP.replace("login = \"LOGIN_SUCCESS\"", "");
    let one = r#"{"who":{"name":"ann"},"at":"2025-01-01T00:00:00Z","what":"login"}"#;
    let input = format!("[{one},{one},{one}]\n");
    let fixture = fixture(&[
        ("strict.toml", strict.as_bytes()),
        ("in.json", input.as_bytes()),
    ]);
    let args = [
        "--map",
        "@strict.toml",
        "--dead-letter",
        "@dead",
        "@in.json",
    ];
    fixture.consume(&args, b"").expect_code(1);
    let ids = |args: &[&str]| {
        let events = fixture.consume(args, b"").expect_code(0).json_lines();
        events
            .iter()
            .map(|event| event["event_id"].to_string())
            .collect::<Vec<_>>()
    };
    let replayed = ids(&["--map", "@app.toml", "--replay", "@dead"]);
    assert_eq!(replayed, ids(&["--map", "@app.toml", "@in.json"]));
    assert!(replayed[0] != replayed[1] && replayed[1] != replayed[2]);
}

/// A record that is small makes no more than that large, and what cannot be mapped is not multiplied either.
#[test]
fn what_is_written_of_a_line_is_bounded() {
    let wide = json!({"who": {"name": "ann"}, "at": 1, "n": "x".repeat(100_000),
        "acts": vec![json!({"what": "login"}); 900]});
    let input = format!("{wide}\n[{}0]\n", "0,".repeat(100_000));
    let fixture = fixture(&[]);
    let args = ["--map", "@app.toml", "--dead-letter", "@dead"];
    let ran = fixture.consume(&args, input.as_bytes()).expect_code(1);
    assert!(
        ran.stderr.contains("in 2 = out 0 + rejected 2"),
        "{}",
        ran.stderr
    );
    let letters = fixture.letters("dead");
    for (letter, message) in letters
        .iter()
        .zip(["16 times its bytes", "more than 1000 of its records"])
    {
        assert_eq!(letter["reason"]["code"], json!("out_of_range"));
        let found = letter["reason"]["message"].as_str().unwrap();
        assert!(found.contains(message), "{found}");
    }
}

/// `threat_score = "risk"` wrote ` 0.5`, blank and all; and what no reader can read as a number was one.
#[test]
fn numbers_are_written_as_numbers_are() {
    let app = APP.replace("{ from = \"risk\", as = \"number\" },", "\"risk\",");
    let digits = "1".repeat(400);
    let line = |n: &str| {
        format!(r#"{{"who":{{"name":"ann"}},"at":1,"what":"login","risk":" 0.5","n":{n}}}"#) + "\n"
    };
    let fixture = Fixture::new(&[("app.toml", app.as_bytes())]);
    let input = line(&digits) + &line(&digits[..300]);
    let ran = fixture.consume(&["--map", "@app.toml"], input.as_bytes());
    let ran = ran.expect_code(0);
    let of = |n: &str| format!(r#""n":{n}"#);
    let lines: Vec<&str> = ran.text().lines().collect();
    assert!(
        lines[0].contains(&of(&format!("\"{digits}\""))),
        "{}",
        lines[0]
    );
    assert!(lines[1].contains(&of(&digits[..300])), "{}", lines[1]);
    for line in lines {
        assert!(line.contains(r#""threat_score":0.5,"#), "{line}");
    }
}

#[test]
fn a_record_of_the_format_is_no_envelope() {
    let line = record(&json!({"app_version": 1, "batch": []}));
    assert_eq!(mapped(&line).len(), 1);
}

/// Exports of Splunk and hits of Elasticsearch hold the record, which is told by its own members.
#[test]
fn records_within_others_are_told_too() {
    let records = [
        json!({"ts": 1_735_689_600.5, "uid": "C1", "id.orig_h": "192.0.2.1", "id.orig_p": 1, "id.resp_h": "192.0.2.2",
            "id.resp_p": 88, "request_type": "AS", "client": "ann/EXAMPLE.COM", "service": "krbtgt", "success": true}),
        json!({"eventid": "cowrie.login.failed", "username": "ann", "password": "x", "src_ip": "192.0.2.1",
            "session": "s", "sensor": "h", "timestamp": "2025-01-01T00:00:00.000000Z"}),
    ];
    for record in records {
        let alone = auto(&record.to_string());
        assert_eq!(alone["user"], "ann");
        for wrapped in [
            json!({"_index": "i", "_source": record}),
            json!({"preview": false, "result": {"_raw": record.to_string()}}),
        ] {
            let mut event = auto(&wrapped.to_string());
            // Of a record without one it is made of the whole text.
            event["event_id"] = alone["event_id"].clone();
            assert_eq!(event, alone);
        }
    }
    // Whoever may write a text into a log must not write events.
    let sign_in = json!({"eventVersion": "1.08", "userIdentity": {"type": "IAMUser", "userName": "root"},
        "eventSource": "signin.amazonaws.com", "eventName": "ConsoleLogin", "eventTime": "2025-01-01T00:00:00Z",
        "eventID": "e", "eventType": "AwsConsoleSignIn", "responseElements": {"ConsoleLogin": "Success"}});
    for member in ["message", "event", "data", "detail", "msg"] {
        for text in [sign_in.clone(), sign_in.to_string().into()] {
            let line = json!({"level": "error", "time": 1, "logger": "web", member: text});
            let ran = run(
                "sg-consume",
                &["--format=auto"],
                format!("{line}\n").as_bytes(),
            );
            assert!(
                ran.expect_code(1).stderr.contains("no known format"),
                "{line}"
            );
        }
    }
    // One that no format says to come like this is none.
    let ours = json!({"_source": {"event_id": "e", "user": "u", "timestamp": 1, "type": "T"}});
    let ran = run(
        "sg-consume",
        &["--format=auto"],
        format!("{ours}\n").as_bytes(),
    );
    assert!(ran.expect_code(1).stderr.contains("no known format"));
}

/// The only event of a line.
fn auto(line: &str) -> Value {
    let ran = run(
        "sg-consume",
        &["--format=auto"],
        format!("{line}\n").as_bytes(),
    );
    ran.expect_code(0).json_lines().remove(0)
}

/// The journal writes messages as arrays of bytes that are not all printable: nobody hides by that.
#[test]
fn an_array_of_bytes_is_text() {
    let message = "Accepted password for ann from 192.0.2.1 port 22 ssh2".as_bytes();
    let line = json!({"__REALTIME_TIMESTAMP": "1735689600000000", "MESSAGE": message, "_HOSTNAME": "h",
        "SYSLOG_IDENTIFIER": "sshd"});
    let ran = run(
        "sg-consume",
        &["--format", "auto"],
        format!("{line}\n").as_bytes(),
    );
    let event = &ran.expect_code(0).json_lines()[0];
    assert_eq!(
        (&event["user"], &event["type"]),
        (&json!("ann"), &json!("LOGIN_SUCCESS"))
    );
}

/// Rows are read by the head that stands last before them, also by a run that goes on behind it, and come back
/// from the dead letters without one.
#[test]
fn rows_of_tables_know_their_columns() {
    let head = |columns: &str| {
        format!(
            "#separator \\x09\n#path\tssh\n#fields\t{columns}\n#types\ttime\tstring\taddr\taddr\n"
        )
    };
    let first = format!(
        "{}1.0\tC1\t192.0.2.1\t192.0.2.2\n",
        head("ts\tuid\tid.orig_h\tid.resp_h")
    );
    let second = format!(
        "{}2.0\tC2\t192.0.2.3\t192.0.2.4\n",
        head("ts\tuid\tid.resp_h\tid.orig_h")
    );
    let fixture = fixture(&[("ssh.log", format!("{first}{second}").as_bytes())]);
    let (log, db) = (fixture.path("ssh.log"), fixture.path("db"));
    let sg_run = || {
        run(
            "sg-run",
            &["--format", "zeek", &log, "--db", &db, "-q"],
            b"",
        )
        .expect_code(0)
    };
    sg_run();
    let mut file = fs::OpenOptions::new().append(true).open(&log).unwrap();
    std::io::Write::write_all(&mut file, b"3.0\tC3\t192.0.2.5\t192.0.2.6\n").unwrap();
    sg_run();
    let events = run("sg-query", &["events", "--db", &db, "--oldest-first"], b"").expect_code(0);
    let users: Vec<_> = events
        .json_lines()
        .iter()
        .map(|event| event["user"].clone())
        .collect();
    assert_eq!(users, ["192.0.2.1", "192.0.2.4", "192.0.2.6"]);
    let bad = format!(
        "{}x\tC4\t192.0.2.7\t192.0.2.8\n",
        head("ts\tuid\tid.orig_h\tid.resp_h")
    );
    let args = ["--format", "zeek", "--dead-letter", "@dead"];
    fixture.consume(&args, bad.as_bytes()).expect_code(1);
    let again = fixture
        .consume(&["--format", "zeek", "--replay", "@dead"], b"")
        .expect_code(1);
    assert!(
        again.stderr.contains("invalid_value: timestamp"),
        "{}",
        again.stderr
    );
}

/// An id that is made of a record is the same when the record is read again, from wherever.
#[test]
fn ids_depend_on_the_record_and_where_it_stands() {
    let line = r#"{"who":{"name":"ann"},"at":"2025-01-01T00:00:00Z","what":"login"}"#;
    let input = format!("{line}\n{line}\n");
    let fixture = fixture(&[("a.json", input.as_bytes()), ("b.json", input.as_bytes())]);
    let ids = |file: &str| {
        let events = fixture
            .consume(&["--map", "@app.toml", file], b"")
            .json_lines();
        events
            .iter()
            .map(|event| event["event_id"].clone())
            .collect::<Vec<_>>()
    };
    let found = ids("@a.json");
    assert_ne!(found[0], found[1]);
    assert_eq!(found, ids("@b.json"));
    assert!(found[0].as_str().unwrap().starts_with("sg-"));
}

#[test]
fn what_came_can_be_kept() {
    let line = record(&json!({"n": 1.50}));
    let fixture = fixture(&[]);
    let args = ["--map", "@app.toml", "--keep-raw"];
    let text = "Jan  1 00:00:00 h app[1]: ann did login";
    let input = format!("{line}{text}\n");
    let events = fixture
        .consume(&args, input.as_bytes())
        .expect_code(0)
        .json_lines();
    let before: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(events[0]["metadata"]["raw"], before);
    assert_eq!(events[1]["metadata"]["raw"], json!(text));
}

#[test]
fn auto_tells_each_record_by_its_members() {
    let own = record(&json!({"app_version": 1}));
    let native = r#"{"event_id":"n1","user":"bob","timestamp":1,"type":"X","more":[1, 2]}"#;
    let stranger = r#"{"hello":"world"}"#;
    let input = format!(
        "{native}\n{own}{stranger}\n{native}\n[{},{native}]\n",
        own.trim()
    );
    let fixture = fixture(&[]);
    let args = [
        "--map",
        "@app.toml",
        "--format",
        "auto",
        "--dead-letter",
        "@dead",
    ];
    let ran = fixture.consume(&args, input.as_bytes()).expect_code(1);
    let lines: Vec<&str> = ran.text().lines().collect();
    assert_eq!(lines.len(), 5);
    // Events of ours leave byte for byte.
    assert_eq!([lines[0], lines[2], lines[4]], [native; 3]);
    assert_eq!(lines[1], lines[3]);
    let letters = fixture.letters("dead");
    assert_eq!(letters[0]["reason"]["code"], json!("unknown_format"));
    assert_eq!(raw(&letters[0]), stranger.as_bytes());
}

/// Names by which formats are told may be written in several ways by them.
#[test]
fn which_format_is_tried_first_does_not_matter() {
    let other = |name: &str, member: &str| {
        format!(
            "name = \"{name}\"\ntitle = \"T\"\neach = \"x\"\n[[detect]]\nhas = [\"{member}\"]\nis = {{ kind = \"{name}\" }}\n\
             [fields]\nuser = \"{member}\"\ntimestamp = {{ from = \"at\", time = \"ms\" }}\ntype = \"kind\"\n"
        )
    };
    let (one, two) = (other("one", "WhoAmI"), other("two", "whoami"));
    let fixture = Fixture::new(&[("one.toml", one.as_bytes()), ("two.toml", two.as_bytes())]);
    let mut input = String::new();
    for i in 0..8 {
        let (name, member) = if i % 2 == 0 {
            ("one", "WhoAmI")
        } else {
            ("two", "whoami")
        };
        writeln!(input, r#"{{"{member}":"u{i}","at":{i},"kind":"{name}"}}"#).unwrap();
    }
    for maps in [["@one.toml", "@two.toml"], ["@two.toml", "@one.toml"]] {
        let args = ["--format", "auto", "--map", maps[0], "--map", maps[1]];
        let events = fixture
            .consume(&args, input.as_bytes())
            .expect_code(0)
            .json_lines();
        let found: Vec<_> = events
            .iter()
            .map(|event| event["metadata"]["format"].clone())
            .collect();
        assert_eq!(found, ["one", "two"].repeat(4), "{maps:?}");
    }
}

/// However many threads there are, and wherever reads cut the lines.
#[test]
fn the_same_input_gives_the_same_bytes() {
    let mut input = String::new();
    for i in 0..20_000 {
        let more = json!({"id": format!("e{i}"), "n": i, "app_version": i});
        match i % 50 {
            7 => input.push_str("{\"who\":\n"),
            9 => writeln!(
                input,
                "[{},{}]",
                record(&more).trim(),
                record(&json!({})).trim()
            )
            .unwrap(),
            11 => input
                .push_str("{\"event_id\":\"n\",\"user\":\"u\",\"timestamp\":1,\"type\":\"X\"}\n"),
            _ => input.push_str(&record(&more)),
        }
    }
    let fixture = fixture(&[("in.json", input.as_bytes())]);
    let consume = |format: &str, jobs: &str| {
        let args = [
            "--map",
            "@app.toml",
            "--format",
            format,
            "--jobs",
            jobs,
            "--dead-letter",
            "@dead",
        ];
        let _ = fs::remove_file(fixture.path("dead"));
        let ran = fixture
            .consume(&[&args[..], &["@in.json"]].concat(), b"")
            .expect_code(1);
        let letters = fs::read(fixture.path("dead")).unwrap();
        (ran.stdout, letters, ran.stderr)
    };
    for format in ["app", "auto"] {
        let one = consume(format, "1");
        assert_eq!(one, consume(format, "7"), "--format {format}");
        assert!(one.0.len() > 1 << 20);
    }
}

/// A pipe and one process give the same store, and reading again changes nothing.
#[test]
fn a_database_of_mapped_records_is_the_same_either_way() {
    let mut input = String::new();
    for i in 0..3_000 {
        let user = format!("user{}", i % 7);
        let at = 1_735_689_600_000_i64 + i * 60_000;
        let more = json!({"id": null, "at": at, "who": {"name": user}, "from": format!("203.0.113.{}", i % 9)});
        if i % 10 == 0 {
            let one = record(&more);
            writeln!(input, "{{\"batch\":[{},{}]}}", one.trim(), one.trim()).unwrap();
        } else {
            input.push_str(&record(&more));
        }
    }
    let fixture = fixture(&[("in.json", input.as_bytes())]);
    let (map, input) = (fixture.path("app.toml"), fixture.path("in.json"));
    let (fused, piped) = (fixture.path("fused"), fixture.path("piped"));
    run(
        "sg-run",
        &["--map", &map, &input, "--db", &fused, "-q"],
        b"",
    )
    .expect_code(0);
    let pipe =
        format!("sg-consume -q --map {map} {input} | sg-score -q | sg-store -q --db {piped}");
    shell(&pipe).expect_code(0);
    let digest = |db: &str| {
        let verified = run("sg-store", &["verify", "--db", db, "--digest"], b"").expect_code(0);
        verified.json_lines()[0]["digest"].clone()
    };
    let once = digest(&fused);
    assert_eq!(once, digest(&piped));
    shell(&pipe).expect_code(0);
    assert_eq!(once, digest(&piped));
    // What is appended is all that is read again.
    let more = record(&json!({"id": "last"}));
    let mut file = fs::OpenOptions::new().append(true).open(&input).unwrap();
    std::io::Write::write_all(&mut file, more.as_bytes()).unwrap();
    let ran = run("sg-run", &["--map", &map, &input, "--db", &fused], b"").expect_code(0);
    assert!(ran.stderr.contains("in 1 = out 1"), "{}", ran.stderr);
}

#[test]
fn a_mapping_that_is_wrong_is_refused() {
    let check = |text: &str, expected: &str| {
        let fixture = Fixture::new(&[("app.toml", text.as_bytes())]);
        let ran = fixture.consume(&["--map", "@app.toml"], b"").expect_code(2);
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    };
    check("name = 1", "is no mapping");
    let wrong_key =
        "name = \"a\"\n[fields]\nuser = { form = \"x\" }\ntype = \"t\"\ntimestamp = \"x\"\n";
    check(wrong_key, "unknown field `form`");
    check(
        &APP.replace("n = \"n\"", "raw = \"n\""),
        "metadata.raw is written by the program",
    );
    check(
        &APP.replace("\"id\"", "\"id[\""),
        "in event_id: in 'id[': expected a name at byte 3",
    );
    check(
        &APP.replace("name = \"app\"", "name = \"auto\""),
        "the name auto means something else",
    );
    check(
        &APP.replace("name = \"app\"", "name = \"A b\""),
        "a name is made of a-z, 0-9 and _",
    );
    check(
        &APP.replace("map = \"types\"", "map = \"nothing\""),
        "there is no table 'nothing'",
    );
    check(
        &APP.replace("user = [", "person = ["),
        "there is no field 'person'",
    );
    check(
        &APP.replace("\"ms\"]", "\"minutes\"]"),
        "'minutes' is no form of times",
    );
    check(
        &APP.replace("(\\d+) bytes", "\\d+ bytes"),
        "'match' needs a group",
    );
    check(
        &APP.replace("(\\d+) bytes", "(\\d+ bytes"),
        "is no regular expression",
    );
    check(&APP.replace("each = \"acts\"\n", ""), "needs 'each'");
    check(
        "extends = \"nothing\"",
        "there is no format 'nothing' to build on",
    );
    let ran = run("sg-consume", &["--format", "nothing"], b"").expect_code(2);
    assert!(
        ran.stderr
            .contains("there is no format 'nothing': it is one of auth0, auto, box, "),
        "{}",
        ran.stderr
    );
    let ran = run("sg-consume", &["--explain-mapping"], b"").expect_code(2);
    assert!(
        ran.stderr
            .contains("--explain-mapping needs --format or --map"),
        "{}",
        ran.stderr
    );
}

/// What is not said anew stays: one entry of a table replaced the whole table once.
#[test]
fn a_mapping_may_build_on_a_known_one() {
    let own = "extends = \"okta\"\n[tables.types]\n\"user.account.lock\" = \"ALERT\"\n[metadata]\nmine = \"eventType\"\n";
    let fixture = Fixture::new(&[("own.toml", own.as_bytes())]);
    let mut lines = String::new();
    for kind in [
        "user.account.lock",
        "user.account.privilege.grant",
        "user.session.end",
    ] {
        let record = json!({"uuid": kind, "published": "2025-01-01T00:00:00Z", "eventType": kind,
            "actor": {"alternateId": "ann@example.com"}, "outcome": {"result": "SUCCESS"}});
        writeln!(lines, "{record}").unwrap();
    }
    let types = |args: &[&str]| {
        let events = fixture
            .consume(args, lines.as_bytes())
            .expect_code(0)
            .json_lines();
        events
            .iter()
            .map(|event| event["type"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let known = types(&["--format", "okta"]);
    let own = types(&["--map", "@own.toml"]);
    assert_eq!(known[1..], own[1..]);
    assert_eq!((&*known[0], &*own[0]), ("ACCOUNT_LOCKED", "ALERT"));
}

#[test]
fn a_line_can_be_explained() {
    let lines = format!(
        "{}{}\n",
        record(&json!({"from": "203.0.113.7:80", "n": 5})),
        r#"{"app_version":1,"who":{},"at":"x"}"#
    );
    let ran = fixture(&[]).consume(
        &["--map", "@app.toml", "--explain-mapping"],
        lines.as_bytes(),
    );
    let [first, second] = &ran.expect_code(1).json_lines()[..] else {
        panic!("two lines are explained");
    };
    let field = |name: &str| {
        let fields = first["fields"].as_array().unwrap();
        fields
            .iter()
            .find(|field| field["field"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(
        field("user"),
        json!({"field": "user", "value": "ann", "from": "who.name", "rule": 2})
    );
    assert_eq!(field("source_ip")["value"], json!("203.0.113.7"));
    assert_eq!(field("timestamp")["value"], json!(1_735_689_600_000_i64));
    assert_eq!(first["events"].as_array().unwrap().len(), 1);
    let missing = first["missing"].as_array().unwrap();
    assert!(
        missing.contains(&json!({"field": "geo_location", "looked_for": ["{city}, {country}"]}))
    );
    assert_eq!(second["rejected"][0]["code"], json!("missing_field"));
    assert_eq!(second["format"], json!("app"));
}
