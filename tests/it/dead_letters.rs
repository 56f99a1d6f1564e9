//! Rejected lines, kept with their bytes and where they came from. `replay.rs` has the way back.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tools::{Ran, event, run, shell};

/// Line, offset and bytes of a rejected line.
pub(crate) type Place = (u64, u64, Vec<u8>);

/// A folder with files to consume.
pub(crate) struct Fixture {
    pub(crate) folder: TempDir,
}

impl Fixture {
    pub(crate) fn new(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Runs `sg-consume`; an argument that begins with `@` is a file of the folder.
    pub(crate) fn consume(&self, args: &[&str], stdin: &[u8]) -> Ran {
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

    pub(crate) fn letters(&self, name: &str) -> Vec<Value> {
        fs::read_to_string(self.path(name))
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Source, without its folder, and place of each letter.
    pub(crate) fn places(&self, name: &str) -> Vec<(String, Place)> {
        self.letters(name)
            .iter()
            .map(|letter| {
                let source = Path::new(letter["source"].as_str().unwrap());
                let position = &letter["position"];
                let place = (
                    position["line"].as_u64().unwrap(),
                    position["offset"].as_u64().unwrap(),
                    raw(letter),
                );
                (
                    source.file_name().unwrap().to_str().unwrap().to_owned(),
                    place,
                )
            })
            .collect()
    }
}

pub(crate) fn raw(letter: &Value) -> Vec<u8> {
    BASE64_STANDARD
        .decode(letter["raw_b64"].as_str().unwrap())
        .unwrap()
}

/// A good line, three bad ones of every sort, and their places.
pub(crate) fn mixed() -> (Vec<u8>, Vec<Place>) {
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
    let expected = |name: &str, shift: u64| -> Vec<(String, Place)> {
        places
            .iter()
            .map(|(line, offset, raw)| (name.to_owned(), (*line, offset + shift, raw.clone())))
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
        for (_, (line, found, raw)) in fixture.places("dead") {
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
        let mut found: Vec<u64> = fixture
            .places("dead")
            .iter()
            .map(|(_, place)| place.0)
            .collect();
        found.dedup();
        assert_eq!(found, [1, 2, 3, 4]);
    }
}

#[test]
fn what_cannot_work_is_refused() {
    let (lines, _) = mixed();
    let text = b"a letter\n".to_vec();
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
