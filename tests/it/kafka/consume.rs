//! `sg-consume` and `sg-gen` on topics.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use super::broker::{make_topic, send, send_messages, shared, topic, wait_long};
use crate::database::lines_of;
use crate::tools::{Ran, Running, event, generated, n_lines, run};

fn consume(topic: &str, args: &[&str]) -> Ran {
    let args = [&["-b", shared(), "-t", topic, "-e"], args].concat();
    run("sg-consume", &args, b"")
}

/// Lines by user, each user's in their order.
fn by_user(lines: &[u8]) -> BTreeMap<String, Vec<&[u8]>> {
    let mut users: BTreeMap<String, Vec<&[u8]>> = BTreeMap::new();
    for line in lines_of(lines) {
        let event: Value = serde_json::from_slice(line).unwrap();
        let user = event["user"].as_str().unwrap().to_owned();
        users.entry(user).or_default().push(line);
    }
    users
}

#[test]
fn messages_are_lines_byte_for_byte() {
    let lines = generated(20_000, 50, 201);
    let one = topic(1);
    send(&one, &lines);
    let ran = consume(&one, &[]).expect_code(0);
    assert_eq!(ran.stdout, lines);
    assert!(
        ran.stderr
            .contains("in 20000 = out 20000 + rejected 0 + filtered 0")
    );
    let four = topic(4);
    send(&four, &lines);
    let ran = consume(&four, &[]).expect_code(0);
    assert_ne!(ran.stdout, lines);
    assert_eq!(by_user(&ran.stdout), by_user(&lines));
}

#[test]
fn generated_events_go_to_a_topic() {
    let topic = topic(3);
    let to = format!("kafka:{topic}");
    let common = ["--events=5000", "--users=20", "--seed=9"];
    for acks in ["all", "1"] {
        let args = [&common[..], &["--to", &to, "--acks", acks, "-b", shared()]].concat();
        let ran = run("sg-gen", &args, b"").expect_code(0);
        assert!(ran.stdout.is_empty());
    }
    let expected = run("sg-gen", &common, b"").expect_code(0).stdout;
    let found = consume(&topic, &[]).expect_code(0).stdout;
    let twice: Vec<u8> = by_user(&expected)
        .into_values()
        .flat_map(|of_user| [of_user.concat(), of_user.concat()].concat())
        .collect();
    let found: Vec<u8> = by_user(&found)
        .into_values()
        .flatten()
        .flatten()
        .copied()
        .collect();
    assert_eq!(found, twice);
}

#[test]
fn where_to_begin_and_to_end_is_chosen() {
    let topic = topic(1);
    let lines = generated(100, 5, 203);
    send(&topic, &lines);
    let lines = lines_of(&lines);
    for (offset, expected) in [
        ("start", &lines[..]),
        ("0", &lines[..]),
        ("97", &lines[97..]),
        ("1000", &[]),
        ("-3", &lines[97..]),
        ("-1000", &lines[..]),
        ("end", &[]),
        ("@1h", &lines[..]),
        ("@2h:1h", &[]),
        ("@:end", &lines[..]),
        ("@2200-01-01", &[]),
    ] {
        let ran = consume(&topic, &["-q", "-o", offset]).expect_code(0);
        assert_eq!(ran.stdout, expected.concat(), "{offset}");
    }
    for wrong in ["middle", "@noon", "1.5", ""] {
        let ran = consume(&topic, &["-o", wrong]).expect_code(2);
        assert!(
            ran.stderr.contains("expected start, end, stored"),
            "{}",
            ran.stderr
        );
    }
    let ran = consume(&topic, &["-o", "stored"]).expect_code(2);
    assert!(ran.stderr.contains("needs a group"), "{}", ran.stderr);
}

#[test]
fn a_group_goes_on_where_it_was() {
    let topic = topic(2);
    let (first, second) = (generated(3_000, 30, 205), generated(2_000, 30, 207));
    let group = ["-q", "-G", &topic];
    send(&topic, &first);
    assert_eq!(
        n_lines(&consume(&topic, &group).expect_code(0).stdout),
        3_000
    );
    assert_eq!(n_lines(&consume(&topic, &group).expect_code(0).stdout), 0);
    send(&topic, &second);
    let found = consume(&topic, &group).expect_code(0).stdout;
    assert_eq!(by_user(&found), by_user(&second));
    let again = consume(&topic, &[&group[..], &["--reset", "-o", "start"]].concat());
    assert_eq!(n_lines(&again.expect_code(0).stdout), 5_000);
}

/// Two members, one of which is stopped: what it had goes to the other.
#[test]
fn members_of_a_group_share_partitions() {
    let topic = topic(4);
    let args = ["-b", shared(), "-t", &topic, "-G", &topic, "-q"];
    let (one, two) = (
        Running::start("sg-consume", &args),
        Running::start("sg-consume", &args),
    );
    let n_read = |of: &Running| n_lines(of.stdout().as_bytes());
    // Both have some of it once both read something.
    let mut sent = Vec::new();
    let are_both_reading = wait_long(|| {
        let seed = 300 + sent.len() as u64;
        let lines = generated(200, 40, seed);
        send(&topic, &lines);
        sent.push(lines);
        n_read(&one) > 0 && n_read(&two) > 0
    });
    assert!(are_both_reading, "{}{}", one.stderr(), two.stderr());
    one.signal(Signal::TERM);
    let first = one.end().expect_code(0).stdout;
    let last = generated(500, 40, 999);
    send(&topic, &last);
    sent.push(last);
    let n_sent: usize = sent.iter().map(|lines| n_lines(lines)).sum();
    assert!(wait_long(|| n_lines(&first) + n_read(&two) >= n_sent));
    two.signal(Signal::TERM);
    let second = two.end().expect_code(0).stdout;
    let mut found: Vec<&[u8]> = lines_of(&first);
    found.extend(lines_of(&second));
    found.sort_unstable();
    let sent = sent.concat();
    let mut expected = lines_of(&sent);
    expected.sort_unstable();
    assert!(found == expected, "{} of {}", found.len(), expected.len());
}

#[test]
fn what_is_no_event_is_kept_with_its_offset() {
    let (topic, dead) = (topic(1), topic(1));
    let good = [event("e1", "u", 1), event("e2", "u", 2)];
    let pretty =
        "{\n \"event_id\": \"e3\",\n \"user\": \"u\", \"timestamp\": 3, \"type\": \"T\"\n}\n";
    // Nobody's JSON: a line end within a string.
    let broken = b"{\"event_id\":\"e4\",\"user\":\"a\\\"\nb\",\"timestamp\":3,\"type\":\"T\"}";
    let messages: [&[u8]; 8] = [
        good[0].as_bytes(),
        b"nonsense",
        b"",
        pretty.as_bytes(),
        b"\xFF\xFE",
        b"two\nlines",
        broken,
        good[1].as_bytes(),
    ];
    send_messages(
        shared(),
        &topic,
        messages.map(|message| ("k".to_owned(), message)),
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dead");
    let ran = consume(&topic, &["--dead-letter", file.to_str().unwrap()]).expect_code(1);
    let shown = pretty.trim_end().replace('\n', " ");
    assert_eq!(ran.text(), format!("{}\n{shown}\n{}\n", good[0], good[1]));
    assert!(
        ran.stderr
            .contains("in 8 = out 3 + rejected 4 + filtered 1"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains(&format!("kafka:{topic}/0:1: rejected")),
        "{}",
        ran.stderr
    );
    let to_topic = format!("kafka:{dead}");
    consume(&topic, &["-q", "--dead-letter", &to_topic]).expect_code(1);
    let in_file = std::fs::read_to_string(&file).unwrap();
    let letters: Vec<Value> = in_file
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let places: Vec<_> = letters
        .iter()
        .map(|it| it["position"]["offset"].as_u64())
        .collect();
    assert_eq!(places, [Some(1), Some(4), Some(5), Some(6)]);
    assert_eq!(letters[0]["source"], format!("kafka:{topic}/0"));
    assert_eq!(letters[0]["raw_b64"], "bm9uc2Vuc2U=");
    // A letter is no event: a program that reads letters rejects each, and keeps it as it is.
    assert_eq!(
        letters_in(&dead, folder.path()),
        in_file.lines().collect::<Vec<_>>()
    );
    let ran = consume(&topic, &["--dead-letter", &format!("kafka:{topic}")]).expect_code(2);
    assert!(ran.stderr.contains("it would never end"), "{}", ran.stderr);
}

/// A letter is longer than its line, and a broker takes messages of up to a megabyte: the letter of one
/// that it just took stopped the run.
#[test]
fn a_long_message_is_kept_in_a_topic_in_parts() {
    let (topic, dead) = (topic(1), topic(1));
    let long = vec![b'x'; 900_000];
    let good = event("e", "u", 1);
    let messages: [&[u8]; 3] = [&long, good.as_bytes(), b"short"];
    send_messages(
        shared(),
        &topic,
        messages.map(|message| ("k".to_owned(), message)),
    );
    let to_topic = format!("kafka:{dead}");
    for limit in [&[][..], &["--line-bytes-max=1000"]] {
        let args = [&["--dead-letter", &to_topic], limit].concat();
        let ran = consume(&topic, &args).expect_code(1);
        assert_eq!(ran.text(), format!("{good}\n"));
        assert!(
            ran.stderr.contains("in 3 = out 1 + rejected 2"),
            "{}",
            ran.stderr
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let letters = letters_in(&dead, folder.path());
    assert!(letters.len() > 4, "{}", letters.len());
    // Put together again, they are the lines that they were, twice.
    let again = folder.path().join("again");
    let args = [
        "-q",
        "--replay",
        "-",
        "--dead-letter",
        again.to_str().unwrap(),
    ];
    run("sg-consume", &args, (letters.join("\n") + "\n").as_bytes()).expect_code(1);
    let lines: Vec<Vec<u8>> = std::fs::read_to_string(&again)
        .unwrap()
        .lines()
        .map(raw_of)
        .collect();
    assert_eq!(
        lines,
        [long.clone(), b"short".to_vec(), long, b"short".to_vec()]
    );
}

/// The messages of a topic that are no events.
fn letters_in(topic: &str, folder: &Path) -> Vec<String> {
    let path = folder.join(topic);
    let args = ["-q", "--dead-letter", path.to_str().unwrap()];
    consume(topic, &args).expect_code(1);
    let text = std::fs::read_to_string(path).unwrap();
    let messages = text.lines().map(raw_of);
    messages
        .map(|raw| String::from_utf8(raw).unwrap())
        .collect()
}

/// The line in a letter.
fn raw_of(letter: &str) -> Vec<u8> {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    let letter: Value = serde_json::from_str(letter).unwrap();
    BASE64_STANDARD
        .decode(letter["raw_b64"].as_str().unwrap())
        .unwrap()
}

#[test]
fn an_unread_pipe_does_not_lose_what_it_has_not_taken() {
    let topic = topic(1);
    send(&topic, &generated(5_000, 10, 211));
    let args = format!("-b {} -t {topic} -G {topic} -e -q", shared());
    let head = crate::tools::shell(&format!("sg-consume {args} | head -n 3"));
    assert_eq!(n_lines(&head.stdout), 3);
    // Nothing was committed of what the reader did not want.
    let rest = consume(&topic, &["-q", "-G", &topic]).expect_code(0).stdout;
    assert_eq!(n_lines(&rest), 5_000);
}

/// A group is told of topics that come later, if their names are as asked for.
#[test]
fn a_pattern_names_topics_that_come_later() {
    let first = topic(1);
    let prefix = format!("^{first}.*");
    let args = ["-b", shared(), "-t", &prefix, "-G", &first, "-q"];
    let soon = ["-X", "topic.metadata.refresh.interval.ms=500"];
    let running = Running::start("sg-consume", &[&args[..], &soon].concat());
    let lines = generated(300, 5, 213);
    send(&first, &lines);
    let n_read = || n_lines(running.stdout().as_bytes());
    assert!(wait_long(|| n_read() == 300), "{}", running.stderr());
    let later = format!("{first}-later");
    make_topic(shared(), &later, 2, 1);
    send(&later, &lines);
    assert!(wait_long(|| n_read() == 600), "{}", running.stderr());
    running.signal(Signal::TERM);
    running.end().expect_code(0);
    let ran = run("sg-consume", &["-b", shared(), "-t", &prefix], b"").expect_code(2);
    assert!(
        ran.stderr.contains("a pattern of topics needs a group"),
        "{}",
        ran.stderr
    );
}
