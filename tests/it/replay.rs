//! Rejected lines, given back: whole, with their first place, and never mixed up.

use std::fs;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::dead_letters::{Fixture, mixed, raw};
use crate::tools::event;

fn letter(source: &str, line: u64, raw: &[u8]) -> Value {
    json!({
        "source": source,
        "position": {"line": line, "offset": 7},
        "reason": {"code": "invalid_json", "message": "m"},
        "raw_b64": BASE64_STANDARD.encode(raw),
    })
}

fn part(source: &str, line: u64, raw: &[u8], index: u64, is_last: bool) -> Value {
    let mut letter = letter(source, line, raw);
    letter["part"] = json!({"index": index, "is_last": is_last});
    letter
}

fn text_of(letters: &[Value]) -> Vec<u8> {
    let lines: Vec<String> = letters.iter().map(Value::to_string).collect();
    (lines.join("\n") + "\n").into_bytes()
}

#[test]
fn a_replay_keeps_the_first_place() {
    let (lines, places) = mixed();
    let fixture = Fixture::new(&[("in", &lines)]);
    fixture.consume(&["@in", "--dead-letter", "@dead1", "-q"], b"");
    let ran = fixture.consume(&["--replay", "@dead1", "--dead-letter", "@dead2"], b"");
    assert!(
        ran.stderr
            .contains("in 3 = out 0 + rejected 3 + filtered 0"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("/in:4: rejected, invalid_utf8: "),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.code, 1);
    assert_eq!(
        fs::read(fixture.path("dead2")).unwrap(),
        fs::read(fixture.path("dead1")).unwrap()
    );
    assert_eq!(places.len(), 3);

    // A limit that was too small is the reason that a replay can cure.
    let good = event("e", "u", 1);
    let args = ["--line-bytes-max", "10", "--dead-letter", "@dead3", "-q"];
    fixture.consume(&args, format!("{good}\r\n{good}").as_bytes());
    let ran = fixture.consume(&["--replay", "@dead3"], b"");
    assert_eq!(ran.text(), format!("{good}\r\n{good}\n"));
    assert!(
        ran.stderr
            .contains("in 2 = out 2 + rejected 0 + filtered 0"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.code, 0);
}

/// A good event that is far longer than the usual limit.
fn long_event(n_bytes: usize) -> String {
    let event = event("long", "u", 1);
    let filler: Vec<String> = (0..n_bytes / 8).map(|i| format!("{i:08}")).collect();
    format!(
        "{},\"other\":\"{}\"}}",
        &event[..event.len() - 1],
        filler.concat()
    )
}

#[test]
fn a_long_line_comes_in_parts_and_is_whole_again() {
    let long = long_event(50_000_000);
    let (before, after) = (event("before", "u", 1), event("after", "u", 2));
    let lines = format!("{before}\n{long}\r\n{after}\n");
    let fixture = Fixture::new(&[("in", lines.as_bytes())]);
    let ran = fixture.consume(&["@in", "--dead-letter", "@dead"], b"");
    assert_eq!(ran.text(), format!("{before}\n{after}\n"));
    assert_eq!(
        ran.stderr,
        format!(
            "sg-consume: {}:2: rejected, line_too_long: line is longer than 1048576 bytes\n\
             sg-consume: in 3 = out 2 + rejected 1 + filtered 0 (rejected: line_too_long 1)\n",
            fixture.path("in")
        )
    );
    assert_eq!(ran.code, 1);
    let letters = fixture.letters("dead");
    let mut bytes = Vec::new();
    for (i, letter) in letters.iter().enumerate() {
        let is_last = i + 1 == letters.len();
        assert_eq!(letter["part"], json!({"index": i, "is_last": is_last}));
        assert_eq!(letter["position"]["line"], 2);
        let offset = before.len() + 1 + bytes.len();
        assert_eq!(letter["position"]["offset"], offset);
        let raw = raw(letter);
        assert!(raw.len() < 2 << 20, "a part is no line");
        bytes.extend(raw);
    }
    assert!(bytes == format!("{long}\r").as_bytes(), "bytes are missing");

    // With the limit as it was, any smaller one and a larger one, it stays one line.
    for limit in ["1", "1000", "1048576", "3000000"] {
        let dead = format!("@dead.{limit}");
        let args = [
            "--replay",
            "@dead",
            "--dead-letter",
            &dead,
            "--line-bytes-max",
            limit,
        ];
        let ran = fixture.consume(&args, b"");
        let counts = "in 1 = out 0 + rejected 1 + filtered 0 (rejected: line_too_long 1)\n";
        assert!(ran.stderr.ends_with(counts), "{limit}: {}", ran.stderr);
        assert_eq!(ran.code, 1);
        let letters = fixture.letters(&dead[1..]);
        assert!(letters.iter().all(|letter| letter["position"]["line"] == 2));
        assert!(letters.iter().flat_map(raw).eq(bytes.iter().copied()));
        let args = ["--replay", &dead, "--line-bytes-max", "60000000"];
        let ran = fixture.consume(&args, b"");
        assert_eq!(
            ran.stderr,
            "sg-consume: in 1 = out 1 + rejected 0 + filtered 0\n"
        );
        assert!(ran.stdout == format!("{long}\r\n").as_bytes());
        assert_eq!(ran.code, 0);
    }
}

#[test]
fn letters_of_a_larger_limit_can_be_read_with_the_usual_one() {
    let bad = vec![b'x'; 5_000_000];
    let fixture = Fixture::new(&[("in", &bad)]);
    let args = [
        "@in",
        "--dead-letter",
        "@dead",
        "--line-bytes-max",
        "8000000",
    ];
    fixture.consume(&args, b"").expect_code(1);
    let ran = fixture.consume(&["--replay", "@dead", "--dead-letter", "@again"], b"");
    assert!(
        ran.stderr
            .ends_with("in 1 = out 0 + rejected 1 + filtered 0 (rejected: line_too_long 1)\n"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.code, 1);
    assert!(fixture.letters("again").iter().flat_map(raw).eq(bad));
}

/// A run that is stopped within a long line leaves parts without an end; what the next run
/// appends is another line.
#[test]
fn parts_of_different_lines_are_never_joined() {
    let good = event("e", "u", 1);
    let (head, tail) = good.as_bytes().split_at(20);
    let unfinished = "is not whole";
    let first = part("f", 1, head, 0, false);
    let second = part("f", 1, tail, 1, true);
    let other = letter("g", 9, good.as_bytes());
    let lost = part("f", 1, tail, 1, false);
    let lost_end = part("f", 1, tail, 2, true);
    let elsewhere = part("f", 2, tail, 1, true);
    // Letters, lines that come out, complaints.
    for (letters, n_out, n_complaints) in [
        (vec![&first, &second], 1, 0),
        (vec![&first], 0, 1),
        (vec![&first, &other], 1, 1),
        (vec![&first, &first, &second], 1, 1),
        (vec![&second, &other], 1, 1),
        (vec![&lost, &lost_end, &first, &second], 1, 1),
        (vec![&first, &lost_end, &other], 1, 1),
        (vec![&first, &elsewhere, &first, &second], 1, 1),
    ] {
        let letters: Vec<Value> = letters.into_iter().cloned().collect();
        let text = text_of(&letters);
        let fixture = Fixture::new(&[("dead", &text)]);
        for limit in ["1000", "10"] {
            let args = ["--replay", "@dead", "--line-bytes-max", limit];
            let ran = fixture.consume(&args, b"");
            let shown = String::from_utf8_lossy(&text);
            let n_found = ran.stderr.matches(unfinished).count();
            assert_eq!(n_found, n_complaints, "{limit}\n{shown}\n{}", ran.stderr);
            let counts = if limit == "10" {
                format!("in {n_out} = out 0 + rejected {n_out} + filtered 0")
            } else {
                assert_eq!(ran.text(), format!("{good}\n").repeat(n_out));
                format!("in {n_out} = out {n_out} + rejected 0 + filtered 0")
            };
            assert!(ran.stderr.contains(&counts), "{shown}\n{}", ran.stderr);
            let code = match (n_complaints, limit) {
                (0, "10") => 1,
                (0, _) => 0,
                _ => 2,
            };
            assert_eq!(ran.code, code, "{}", ran.stderr);
        }
    }
}

#[test]
fn a_damaged_letter_spares_the_others() {
    let good = event("e", "u", 1);
    let whole = letter("g", 9, good.as_bytes()).to_string();
    for damaged in [
        "",
        "text",
        "{}",
        "[1]",
        &whole[..whole.len() / 2],
        &whole.replace("\"line\":9", "\"line\":-9"),
        &whole.replace("raw_b64", "raw"),
        &whole.replace("\"raw_b64\":\"", "\"raw_b64\":\"*"),
        &letter("g", 9, b"two\nlines").to_string(),
    ] {
        let text = format!("{whole}\n{damaged}\n{whole}\n");
        let fixture = Fixture::new(&[("dead", text.as_bytes())]);
        let ran = fixture.consume(&["--replay", "@dead"], b"");
        assert_eq!(ran.text(), format!("{good}\n{good}\n"), "{damaged}");
        let complaint = format!("{}:2 is not a dead letter: ", fixture.path("dead"));
        assert!(ran.stderr.contains(&complaint), "{}", ran.stderr);
        assert!(
            ran.stderr
                .ends_with("in 2 = out 2 + rejected 0 + filtered 0\n"),
            "{}",
            ran.stderr
        );
        assert_eq!(ran.code, 2);
    }
}
