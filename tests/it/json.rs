//! `JSONTestSuite`: its files as whole inputs, and as values within an event.

use std::collections::HashMap;

use crate::tools::{event, run, testdata};

/// The files of `JSONTestSuite` by name.
fn suite() -> Vec<(String, Vec<u8>)> {
    let folder = testdata("json_test_suite/test_parsing");
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    assert_eq!(files.len(), 318);
    files
}

#[test]
fn any_input_is_survived_and_counted() {
    for (name, bytes) in suite() {
        let ran = run("sg-consume", &[], &bytes);
        assert!(matches!(ran.code, 0 | 1), "{name}: {}", ran.stderr);
        // None of them is an event.
        assert_eq!(ran.text(), "", "{name}");
        let summary = ran.stderr.lines().last().unwrap_or_default();
        let number = |after: &str| -> u64 {
            let rest = summary.split(after).nth(1).unwrap();
            rest.split(' ').next().unwrap().parse().unwrap()
        };
        let n_in = number("in ");
        let n_lines = bytes.split_inclusive(|&byte| byte == b'\n').count() as u64;
        // A mark alone is no line.
        let n_expected = if bytes == "\u{feff}".as_bytes() {
            0
        } else {
            n_lines
        };
        assert_eq!(n_in, n_expected, "{name}");
        assert_eq!(n_in, number("rejected ") + number("filtered "), "{name}");
        assert_eq!(ran.code, i32::from(number("rejected ") > 0), "{name}");
    }
}

#[test]
fn as_values_of_unknown_fields_they_are_judged_alike() {
    let files: Vec<(String, Vec<u8>)> = suite()
        .into_iter()
        .filter(|(_, bytes)| !bytes.contains(&b'\n'))
        .collect();
    let line = |name: &str, bytes: &[u8]| {
        let event = event(name, "u", 1);
        let before = format!("{},\"other\":", &event[..event.len() - 1]);
        [before.as_bytes(), bytes, b"}"].concat()
    };
    let lines: HashMap<&str, Vec<u8>> = files
        .iter()
        .map(|(name, bytes)| (&**name, line(name, bytes)))
        .collect();
    let mut input = Vec::new();
    for (name, _) in &files {
        input.extend_from_slice(&lines[&**name]);
        input.push(b'\n');
    }
    let ran = run("sg-consume", &["-q"], &input).expect_code(1);
    let mut accepted = HashMap::new();
    for line in ran.stdout.split_inclusive(|&byte| byte == b'\n') {
        let rest = line.strip_prefix(b"{\"event_id\":\"").unwrap();
        let n_bytes = rest.iter().position(|&byte| byte == b'"').unwrap();
        let name = String::from_utf8(rest[..n_bytes].to_vec()).unwrap();
        accepted.insert(name, &line[..line.len() - 1]);
    }
    let mut n_judged = [0; 3];
    for (name, _) in &files {
        let found = accepted.get(name);
        if let Some(found) = found {
            assert!(*found == lines[&**name], "{name} was changed");
        }
        let judged = match name.split('_').next().unwrap() {
            "y" => {
                assert!(found.is_some(), "{name} was rejected");
                0
            }
            "n" => {
                assert!(found.is_none(), "{name} was accepted");
                1
            }
            _ => 2,
        };
        n_judged[judged] += 1;
    }
    assert!(
        n_judged[0] > 80 && n_judged[1] > 170 && n_judged[2] > 30,
        "{n_judged:?}"
    );
}
