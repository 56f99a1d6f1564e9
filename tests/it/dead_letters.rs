//! Rejected lines: kept with their bytes and where they came from, and given back.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tools::{Ran, event, run, shell};

/// A folder with files to consume.
struct Fixture {
    folder: TempDir,
}

impl Fixture {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Runs `sg-consume`; an argument that begins with `@` is a file of the folder.
    fn consume(&self, args: &[&str], stdin: &[u8]) -> Ran {
        let args: Vec<String> = args
            .iter()
            .map(|arg| match arg.strip_prefix('@') {
                Some(name) => self.path(name),
                None => (*arg).to_owned(),
            })
            .collect();
        let args: Vec<&str> = args.iter().map(|arg| &**arg).collect();
        run("sg-consume", &args, stdin)
    }

    fn letters(&self, name: &str) -> Vec<Value> {
        fs::read_to_string(self.path(name))
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Source without its folder, line, offset and bytes of each letter.
    fn places(&self, name: &str) -> Vec<(String, u64, u64, Vec<u8>)> {
        self.letters(name)
            .iter()
            .map(|letter| {
                let source = Path::new(letter["source"].as_str().unwrap());
                (
                    source.file_name().unwrap().to_str().unwrap().to_owned(),
                    letter["position"]["line"].as_u64().unwrap(),
                    letter["position"]["offset"].as_u64().unwrap(),
                    raw(letter),
                )
            })
            .collect()
    }
}

fn raw(letter: &Value) -> Vec<u8> {
    BASE64_STANDARD
        .decode(letter["raw_b64"].as_str().unwrap())
        .unwrap()
}

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
    letters
        .iter()
        .map(|letter| format!("{letter}\n"))
        .collect::<String>()
        .into_bytes()
}

/// A good line, three bad ones of every sort, and their places.
fn mixed() -> (Vec<u8>, Vec<(u64, u64, Vec<u8>)>) {
    let good = event("e", "u", 1);
    let bad: [&[u8]; 3] = [b"{\"a\": 1}  ", b"\xFF\x00\r", b"  no"];
    let mut lines = format!("{good}\n").into_bytes();
    let mut places = Vec::new();
    for (line, bad) in [(2, bad[0]), (4, bad[1]), (5, bad[2])] {
        if line == 4 {
            lines.push(b'\n');
        }
        places.push((line, lines.len() as u64, bad.to_vec()));
        lines.extend_from_slice(bad);
        lines.push(b'\n');
    }
    // The last line has no end.
    lines.pop();
    (lines, places)
}

#[test]
fn a_letter_says_all_there_is() {
    let fixture = Fixture::new(&[("in", br#"{"event_id":"e","user":"u","timestamp":"1"}"#)]);
    let ran = fixture.consume(&["@in", "--dead-letter", "@dead"], b"");
    assert_eq!((ran.text(), ran.code), ("", 1));
    let reason = "expected an integer (ms since 1970), got a string";
    assert_eq!(
        ran.stderr,
        format!(
            "sg-consume: {in_}:1: rejected, wrong_type: timestamp: {reason}\n\
             sg-consume: in 1 = out 0 + rejected 1 + filtered 0 (rejected: wrong_type 1)\n",
            in_ = fixture.path("in")
        )
    );
    assert_eq!(
        fixture.letters("dead"),
        [json!({
            "source": fixture.path("in"),
            "position": {"line": 1, "offset": 0},
            "reason": {"code": "wrong_type", "field": "timestamp", "message": reason},
            "raw_b64": BASE64_STANDARD.encode(br#"{"event_id":"e","user":"u","timestamp":"1"}"#),
        })]
    );
}

#[test]
fn places_are_right_whatever_the_input_comes_in() {
    let (lines, places) = mixed();
    let marked = [b"\xEF\xBB\xBF", &*lines].concat();
    let fixture = Fixture::new(&[("plain.gz", &lines), ("marked", &marked)]);
    let folder = fixture.folder.path().display();
    // By content: the names lie.
    shell(&format!(
        "cd {folder} && gzip -c plain.gz > gzip.txt && zstd -q -c plain.gz > zstd.gz"
    ))
    .expect_code(0);
    let expected = |name: &str, shift: u64| -> Vec<(String, u64, u64, Vec<u8>)> {
        places
            .iter()
            .map(|(line, offset, raw)| (name.to_owned(), *line, offset + shift, raw.clone()))
            .collect()
    };
    let counts = "in 5 = out 1 + rejected 3 + filtered 1";
    for (name, shift) in [
        ("plain.gz", 0),
        ("gzip.txt", 0),
        ("zstd.gz", 0),
        ("marked", 3),
    ] {
        let dead = format!("@dead.{name}");
        let ran = fixture.consume(&[&format!("@{name}"), "--dead-letter", &dead], b"");
        assert!(ran.stderr.contains(counts), "{}", ran.stderr);
        assert_eq!(ran.text(), format!("{}\n", event("e", "u", 1)));
        assert_eq!(ran.code, 1);
        assert_eq!(fixture.places(&dead[1..]), expected(name, shift));
    }
    // Also compressed ones on standard input; a second run appends.
    let ran = fixture.consume(&["--dead-letter", "@dead"], &lines);
    assert!(ran.stderr.contains(counts), "{}", ran.stderr);
    let compressed = fs::read(fixture.path("gzip.txt")).unwrap();
    fixture.consume(&["-", "--dead-letter", "@dead"], &compressed);
    assert_eq!(
        fixture.places("dead"),
        [expected("-", 0), expected("-", 0)].concat()
    );
    // Several inputs: lines are counted for each.
    let args = ["@marked", "-", "@zstd.gz", "--dead-letter", "@dead3"];
    let ran = fixture.consume(&args, &lines);
    let counts = "in 15 = out 3 + rejected 9 + filtered 3";
    assert!(ran.stderr.contains(counts), "{}", ran.stderr);
    let all = [
        expected("marked", 3),
        expected("-", 0),
        expected("zstd.gz", 0),
    ];
    assert_eq!(fixture.places("dead3"), all.concat());
}

#[test]
fn places_after_a_long_line_are_right() {
    for n_bytes in [200, 700_000] {
        let long = vec![b'x'; n_bytes];
        let lines = [b"a\n", &*long, b"\r\nb\n", &*long].concat();
        let fixture = Fixture::new(&[("in", &lines)]);
        let args = ["@in", "--line-bytes-max", "100", "--dead-letter", "@dead"];
        let ran = fixture.consume(&args, b"");
        let counts = "in 4 = out 0 + rejected 4 + filtered 0 \
                      (rejected: line_too_long 2, invalid_json 2)\n";
        assert!(ran.stderr.ends_with(counts), "{}", ran.stderr);
        let after = n_bytes as u64 + 4;
        let mut offset = 0;
        for (_, line, found, raw) in fixture.places("dead") {
            let expected = match line {
                2 => 2 + offset,
                3 => after,
                4 => after + 2 + offset,
                _ => 0,
            };
            assert_eq!(found, expected, "line {line} of {n_bytes} bytes");
            let is_long = raw.starts_with(b"x") || line == 2;
            offset = if is_long {
                offset + raw.len() as u64
            } else {
                0
            };
        }
        let mut found: Vec<u64> = fixture.places("dead").iter().map(|place| place.1).collect();
        found.dedup();
        assert_eq!(found, [1, 2, 3, 4]);
    }
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
    assert_eq!(ran.text(), format!("{good}\n{good}\n"));
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
    let filler: String = (0..n_bytes / 8).map(|i| format!("{i:08}")).collect();
    format!("{},\"other\":\"{filler}\"}}", &event[..event.len() - 1])
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
        assert!(ran.stdout == format!("{long}\n").as_bytes());
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

#[test]
fn what_cannot_work_is_refused() {
    let (lines, _) = mixed();
    let text = text_of(&[letter("g", 9, b"x")]);
    let fixture = Fixture::new(&[("in", &lines), ("dead", &text)]);
    shell(&format!(
        "cd {} && ln -s dead link && ln dead twin && mkdir folder",
        fixture.folder.path().display()
    ))
    .expect_code(0);
    for (args, message) in [
        (
            &["--replay", "@dead", "--dead-letter", "@dead"][..],
            "it would never end",
        ),
        (
            &["--replay", "@link", "--dead-letter", "@dead"],
            "it would never end",
        ),
        (
            &["--replay", "@dead", "--dead-letter", "@twin"],
            "it would never end",
        ),
        (
            &["@in", "@dead", "--dead-letter", "@link"],
            "it would never end",
        ),
        (&["@[d]ead", "--dead-letter", "@dead"], "it would never end"),
        (
            &["--follow", "@dead", "--dead-letter", "@dead"],
            "it would never end",
        ),
        (&["--replay", "@none"], "cannot read"),
        (&["--replay", "@folder"], "is a directory"),
        (&["--replay", "/proc/self/mem"], "cannot read"),
        (
            &["@in", "--dead-letter", "@folder"],
            "cannot write dead letters to",
        ),
        (
            &["@in", "--dead-letter", "@none/x"],
            "cannot write dead letters to",
        ),
        (
            &["@in", "--dead-letter", "/dev/full"],
            "cannot write dead letters to",
        ),
        (&["@in", "--replay", "@dead"], "cannot be used with"),
        (&["--follow", "--replay", "@dead"], "cannot be used with"),
    ] {
        let ran = fixture.consume(&[args, &["-q"]].concat(), b"");
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
        let stderr = ran.stderr.to_lowercase();
        assert!(stderr.contains(message), "{args:?}: {stderr}");
        if !stderr.starts_with("error: ") {
            assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
        }
    }
    assert_eq!(fs::read(fixture.path("dead")).unwrap(), text);
}

#[test]
fn letters_can_go_to_another_program() {
    let (lines, _) = mixed();
    let fixture = Fixture::new(&[("in", &lines)]);
    let ran = shell(&format!(
        "sg-consume -q {in_} --dead-letter >(cat > {in_}.dead); code=$?; wait $!; exit $code",
        in_ = fixture.path("in")
    ));
    assert_eq!((ran.code, &*ran.stderr), (1, ""));
    assert_eq!(fixture.letters("in.dead").len(), 3);
    // One that goes away takes rejects with it: that is not the end of standard output.
    let ran = shell("yes no | head -100000 | sg-consume -q --dead-letter >(true)");
    assert!(
        ran.stderr.contains("cannot write dead letters to"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.code, 2);
}
