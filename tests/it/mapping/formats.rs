//! What the mappings that are built in make of vendors' records, as `testdata/mapping` shows them: `NAME.jsonl` or
//! `NAME.log` has the records, `NAME.expected` the events they become, and the reasons of those that are
//! rejected. `SG_MAPPING=write` puts what comes there, to be looked at before it is committed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::dead_letters::{Fixture, raw};
use crate::tools::run;

/// Samples, by the name of their format.
fn samples() -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/mapping");
    let mut samples: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension != "expected" && extension != "md")
        })
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            (name.split('.').next().unwrap().to_owned(), path)
        })
        .collect();
    samples.sort();
    samples
}

/// Events and reasons, one a line.
fn mapped(format: &str, path: &Path) -> String {
    let fixture = Fixture::new(&[]);
    let path = path.to_str().unwrap();
    let args = [
        "--format",
        format,
        "--log-end",
        "2026-11-30",
        "--dead-letter",
        "@dead",
        path,
    ];
    let ran = fixture.consume(&args, b"");
    assert!(matches!(ran.code, 0 | 1), "{}", ran.stderr);
    let mut lines = ran.text().to_owned();
    for letter in fixture.letters("dead") {
        let raw = String::from_utf8_lossy(&raw(&letter)).into_owned();
        let begins: String = raw.chars().take(200).collect();
        let rejected = json!({"rejected": letter["reason"], "line": letter["position"]["line"], "raw": begins});
        writeln!(lines, "{rejected}").unwrap();
    }
    lines
}

#[test]
fn records_become_the_events_that_are_shown() {
    let samples = samples();
    assert!(samples.len() >= 24, "the samples were not found");
    for (name, path) in samples {
        let found = mapped(&name, &path);
        let expected = path.with_extension("expected");
        if std::env::var_os("SG_MAPPING").is_some_and(|what| what == "write") {
            fs::write(&expected, &found).unwrap();
        }
        let shown = fs::read_to_string(&expected).unwrap();
        for (found, shown) in found.lines().zip(shown.lines()) {
            assert_eq!(found, shown, "of {}", path.display());
        }
        assert_eq!(
            found.lines().count(),
            shown.lines().count(),
            "of {}",
            path.display()
        );
    }
}

/// Each record is told by its members, and by one format only. What no format can be told by is in `auto.jsonl`.
#[test]
fn records_are_told_by_their_members() {
    for (name, path) in samples() {
        let of_format = mapped(&name, &path);
        let events = |lines: &str| -> Vec<Value> {
            let values = lines
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap());
            values
                .filter(|value| value["event_id"].is_string())
                .collect()
        };
        assert_eq!(
            events(&mapped("auto", &path)),
            events(&of_format),
            "of {}",
            path.display()
        );
    }
}

#[test]
fn every_format_has_samples_and_is_listed() {
    let listed = run("sg-consume", &["--list-formats"], b"").expect_code(0);
    let samples = samples();
    let mut n_formats = 0;
    for line in listed.text().lines() {
        let name = line.split_whitespace().next().unwrap();
        assert!(line.contains("https://"), "{line}");
        assert!(
            samples.iter().any(|(sample, _)| sample == name),
            "{name} has no sample"
        );
        n_formats += 1;
    }
    assert!(n_formats >= 24);
}
