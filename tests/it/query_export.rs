//! What `sg-query export` promises: the stored lines to the byte, CSV that comes back as it was and
//! runs nowhere, and a quiet end if nobody reads on.

use crate::database::{admin, store};
use crate::query_model::{Item, Question, ask, hostile_lines, items_of, odd_database};
use crate::tools::{Ran, shell};

#[test]
fn an_export_is_what_was_stored_and_can_be_stored_again() {
    let (folder, db, items) = odd_database();
    let ran = ask(&db, &["export"]).expect_code(0);
    let expected: String = items.iter().map(|item| &*item.line).collect();
    assert!(ran.text() == expected);
    assert_eq!(ran.stderr, "");
    let anomalies = ask(&db, &["export", "--what=anomalies"]).expect_code(0);
    let expected = items.iter().filter_map(|item| item.anomaly_line.clone());
    assert!(anomalies.text() == expected.collect::<String>());
    // With filters, and always the oldest first.
    let user = Question {
        user: Some(items[0].text("user").to_owned()),
        is_oldest_first: true,
        ..Question::default()
    };
    let args = ["export", "--user", items[0].text("user")];
    let some = ask(&db, &args).expect_code(0);
    assert!(some.text() == user.answer(&items).concat());

    let copy = folder.path().join("copy");
    store(&copy, &ran.stdout).expect_code(0);
    let families = |db| {
        let ran = admin("verify", db, &["--digest"]).expect_code(0);
        ran.json_lines().remove(0)["families"].take()
    };
    let (original, copied) = (families(&db), families(&copy));
    assert_eq!(original, copied);
    assert_eq!(original["default"].as_str().unwrap().len(), 64);
}

#[test]
fn lines_are_kept_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let lines = [
        r#"{ "event_id" : "1", "user":"\u0061\/é", "timestamp":1 ,"type":"T", "n":1.50e+3 }"#,
        r#"  {"type":"T","timestamp":2,"user":"u","event_id":"2","metadata":{"b":1,"a":[ ]}}"#,
        r#"{"event_id":"3","user":"u","timestamp":3,"type":"T","anomaly":"of others","x":1,"x":2}"#,
    ];
    store(&db, (lines.join("\r\n") + "\r\n\n").as_bytes()).expect_code(0);
    let ran = ask(&db, &["export"]).expect_code(0);
    assert_eq!(ran.text(), lines.join("\n") + "\n");
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let (_folder, db, _) = odd_database();
    let db = db.display();
    for question in [
        "export",
        "export --format csv",
        "export --what anomalies",
        "events --limit 9999",
        "events --limit 9999 --format table",
        "anomalies --sort score --limit 9999 --format csv",
    ] {
        let command = format!("timeout -s KILL 20 sg-query {question} --db {db}");
        let ran = shell(&format!(
            "{command} | head -1 | wc -l; echo ${{PIPESTATUS[@]}}"
        ));
        assert_eq!((ran.text(), &*ran.stderr), ("1\n0 0 0\n", ""), "{question}");
        // It is another matter if there is no room for the answer.
        let ran = shell(&format!("{command} > /dev/full"));
        assert_eq!(ran.code, 2, "{question}");
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.contains("No space left"), "{}", ran.stderr);
    }
}

const CSV_HEADER: [&str; 12] = [
    "time",
    "timestamp",
    "event_id",
    "user",
    "type",
    "source_ip",
    "geo_location",
    "status",
    "threat_score",
    "anomaly_score",
    "severity",
    "reasons",
];

/// What a spreadsheet may see of a text.
fn as_no_formula(text: &str) -> String {
    let is_formula = ["=", "+", "-", "@", "\t", "\r"]
        .iter()
        .any(|beginning| text.starts_with(beginning));
    if is_formula {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

/// The record of an event; numbers are left to be compared as numbers.
fn record_of(item: &Item, time: &str) -> [String; 12] {
    let reasons = item.fields["anomaly"]["reasons"].as_array();
    let reasons: Vec<&str> = reasons
        .into_iter()
        .flatten()
        .filter_map(|reason| reason.as_str())
        .collect();
    [
        time.to_owned(),
        item.timestamp_ms().to_string(),
        as_no_formula(item.text("event_id")),
        as_no_formula(item.text("user")),
        as_no_formula(item.text("type")),
        item.ip().map(|ip| ip.to_string()).unwrap_or_default(),
        as_no_formula(item.text("geo_location")),
        item.text("status").to_owned(),
        String::new(),
        String::new(),
        item.severity().unwrap_or_default().to_owned(),
        as_no_formula(&reasons.join("; ")),
    ]
}

/// All of a CSV answer is what the events say.
#[track_caller]
fn check_csv(ran: &Ran, items: &[&Item]) {
    assert_eq!((ran.code, &*ran.stderr), (0, ""));
    let mut reader = csv::Reader::from_reader(&*ran.stdout);
    assert_eq!(reader.headers().unwrap(), &CSV_HEADER[..]);
    let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), items.len());
    // Another program's idea of time.
    let seconds: Vec<String> = items
        .iter()
        .map(|item| (item.timestamp_ms() / 1_000).to_string())
        .collect();
    let times = shell(&format!(
        "printf '@%s\\n' {} | date -u -f - +%Y-%m-%dT%H:%M:%SZ",
        seconds.join(" ")
    ))
    .expect_code(0);
    for ((record, item), time) in records.iter().zip(items).zip(times.text().lines()) {
        let number = |i: usize| record[i].parse::<f64>().ok();
        assert_eq!(
            number(8),
            item.fields["threat_score"].as_f64(),
            "{record:?}"
        );
        assert_eq!(number(9), item.score(), "{record:?}");
        for (i, expected) in record_of(item, time).iter().enumerate() {
            if i != 8 && i != 9 {
                assert_eq!(&record[i], expected, "{}", CSV_HEADER[i]);
            }
        }
    }
}

#[test]
fn csv_says_what_the_events_say() {
    let (_folder, db, items) = odd_database();
    let all: Vec<&Item> = items.iter().collect();
    check_csv(&ask(&db, &["export", "--format=csv"]), &all);
    let mut anomalies = all.clone();
    anomalies.retain(|item| item.score().is_some());
    let args = ["export", "--what=anomalies", "-fcsv"];
    check_csv(&ask(&db, &args), &anomalies);
    // Everywhere else, too.
    anomalies.reverse();
    check_csv(&ask(&db, &["anomalies", "-fcsv", "-n9999"]), &anomalies);
    let one = ["event", "-fcsv", items[7].text("event_id")];
    check_csv(&ask(&db, &one), &all[7..8]);
}

/// Whatever stands in a field, it is text in that field, and no formula.
#[test]
fn csv_holds_hostile_text() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let lines = hostile_lines();
    store(&db, lines.as_bytes()).expect_code(0);
    let items = items_of(lines.as_bytes());
    let ran = ask(&db, &["export", "--format=csv"]);
    check_csv(&ran, &items.iter().collect::<Vec<_>>());
    let mut reader = csv::Reader::from_reader(&*ran.stdout);
    let mut n_apostrophes = 0;
    for record in reader.records() {
        for field in &record.unwrap() {
            let begins_formula = field.starts_with(['=', '+', '-', '@', '\t', '\r']);
            assert!(!begins_formula, "{field:?}");
            n_apostrophes += u32::from(field.starts_with('\''));
        }
    }
    assert!(n_apostrophes > 20);
}
