//! Alerts to topics, and alerts of what comes from topics.

use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rustix::process::Signal;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::broker::{Cluster, make_topic_with, send, shared, topic, topic_at, wait_long};
use crate::alerts::{Site, emitted, once};
use crate::database::lines_of;
use crate::kills::kill_and_repeat;
use crate::tools::{Ran, Running, digest, generated, n_lines, run};

/// Keys and lines of the messages in the only partition of a topic.
fn messages(address: &str, topic: &str) -> Vec<(String, String)> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address)
        .set("group.id", "nobody")
        .set("isolation.level", "read_committed");
    let consumer: BaseConsumer = config.create().unwrap();
    let timeout = Duration::from_secs(30);
    let (_, end) = consumer.fetch_watermarks(topic, 0, timeout).unwrap();
    let mut place = TopicPartitionList::new();
    place
        .add_partition_offset(topic, 0, Offset::Beginning)
        .unwrap();
    consumer.assign(&place).unwrap();
    let mut messages = Vec::new();
    while (messages.len() as i64) < end {
        let message = consumer.poll(timeout).unwrap().unwrap();
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        messages.push((
            text(message.key()),
            format!("{}\n", text(message.payload())),
        ));
    }
    messages
}

fn lines(address: &str, topic: &str) -> Vec<String> {
    messages(address, topic)
        .into_iter()
        .map(|(_, line)| line)
        .collect()
}

fn as_lines(bytes: &[u8]) -> Vec<String> {
    let lines = lines_of(bytes).into_iter();
    lines
        .map(|line| String::from_utf8(line.to_vec()).unwrap())
        .collect()
}

#[test]
fn a_topic_gets_the_lines_that_sg_score_emits() {
    let events = generated(20_000, 40, 301);
    let expected = as_lines(&emitted(&events, "incidents"));
    let alerts = topic(1);
    let to = format!("kafka:{alerts}");
    // From a file.
    let site = Site::new(&events);
    let args = ["-b", shared(), "--alerts-to", &to];
    let ran = site.run("db", &args).expect_code(0);
    let told = format!("alerts to kafka:{alerts}: sent {}\n", expected.len());
    assert!(ran.stderr.contains(&told), "{}", ran.stderr);
    let found = messages(shared(), &alerts);
    assert_eq!(lines(shared(), &alerts), expected);
    for (key, line) in found {
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["user"], key);
    }
    site.run("db", &args).expect_code(0);
    assert_eq!(lines(shared(), &alerts).len(), expected.len());
    // From a topic.
    let (input, alerts) = (topic(1), topic(1));
    send(&input, &events);
    let to = format!("kafka:{alerts}");
    let db = site.text("db2");
    let from_topic = ["-b", shared(), "-t", &input, "-e", "--db", &db];
    let args = ["--threshold=0.5", "--min-events=20", "--alerts-to", &to];
    run("sg-run", &[&from_topic[..], &args].concat(), b"").expect_code(0);
    assert_eq!(lines(shared(), &alerts), expected);
    // What is not there is told at the start.
    let check = |to: &str, words: &str| {
        let args = [&from_topic[..], &["--alerts-to", to]].concat();
        let ran = run("sg-run", &args, b"").expect_code(2);
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
    };
    check("kafka:no-such-topic", "there is no topic no-such-topic");
    check(
        &format!("kafka:{input}"),
        "is read: name another one for --alerts-to",
    );
}

#[test]
fn a_killed_run_has_sent_everything_in_the_end() {
    let events = generated(150_000, 60, 317);
    let expected = as_lines(&emitted(&events, "incidents"));
    let alerts = topic(1);
    let site = Site::new(&events);
    let to = format!("kafka:{alerts}");
    let small = ["--memtable-mib=1", "--checkpoint-mib=2"];
    let args = ["-q", "-b", shared(), "--alerts-to", &to, small[0], small[1]];
    let n_killed = kill_and_repeat(&|| site.command("db", &args).spawn().unwrap(), 10, 251);
    assert!(n_killed >= 8, "it was too fast to be killed: {n_killed}");
    site.run("db", &args).expect_code(0);
    let found = lines(shared(), &alerts);
    assert!(expected.len() > 100, "{}", expected.len());
    assert!(once(found) == expected);
    site.run("quiet", &["-q"]).expect_code(0);
    assert_eq!(digest(&site.path("db")), digest(&site.path("quiet")));
}

/// The broker goes away while alerts come, and again before the end.
#[test]
fn a_broker_may_be_away() {
    let cluster = Cluster::up(&[]);
    let alerts = topic_at(&cluster.address, 1, 1);
    let events = generated(30_000, 40, 319);
    let pieces = lines_of(&events);
    let site = Site::new(&pieces[..10_000].concat());
    let to = format!("kafka:{alerts}");
    let more = ["-b", &cluster.address, "--alerts-to", &to, "--follow"];
    let args = site.args("db", &more);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let running = Running::start("sg-run", &args);
    let expect = |n_events: usize| as_lines(&emitted(&pieces[..n_events].concat(), "incidents"));
    let append = |range: std::ops::Range<usize>| {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(&site.log)
            .unwrap();
        std::io::Write::write_all(&mut file, &pieces[range].concat()).unwrap();
    };
    let expected = expect(10_000);
    assert!(
        wait_long(|| lines(&cluster.address, &alerts) == expected),
        "{}",
        running.stderr()
    );
    cluster.stop(&["--kill"]);
    append(10_000..20_000);
    let has_said = wait_long(|| running.stderr().contains("trying again"));
    assert!(has_said, "{}", running.stderr());
    cluster.start(&[]);
    let has_said = wait_long(|| running.stderr().contains("Kafka is back"));
    assert!(has_said, "{}", running.stderr());
    let expected = expect(20_000);
    assert!(
        wait_long(|| lines(&cluster.address, &alerts) == expected),
        "{}",
        running.stderr()
    );
    cluster.stop(&[]);
    append(20_000..30_000);
    std::thread::sleep(Duration::from_secs(2));
    let start = Instant::now();
    running.signal(Signal::TERM);
    let mut running = running;
    assert!(wait_long(|| running.has_ended()));
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    let ran = running.end().expect_code(1);
    let n_waiting = expect(30_000).len() - expected.len();
    let words = format!("waiting {n_waiting}: they go out with the next run");
    assert!(ran.stderr.contains(&words), "{}", ran.stderr);
    cluster.start(&[]);
    site.run("db", &more[..4]).expect_code(0);
    assert_eq!(once(lines(&cluster.address, &alerts)), expect(30_000));
}

/// One that the brokers find too long does not block those behind it.
#[test]
fn a_message_that_is_too_long_is_put_aside() {
    let events = generated(6_000, 40, 301);
    let expected = as_lines(&emitted(&events, "incidents"));
    // Some get longer than the topic takes, and one longer than any message may be.
    let filler = |n_bytes: usize| -> String {
        let blocks = (0..n_bytes / 64).map(|i| format!("{:064x}", Sha256::digest(i.to_le_bytes())));
        blocks.collect()
    };
    let longer = |i: usize, line: &str| {
        let n_bytes = match i {
            5 | 6 | 300 => 150_000,
            9 => 1_020_000,
            _ => return line.to_owned(),
        };
        format!(
            "{},\"x\":\"{}\"}}\n",
            &line[..line.len() - 2],
            filler(n_bytes)
        )
    };
    let id_of = |line: &str| serde_json::from_str::<Value>(line).unwrap()["event_id"].clone();
    let ids: Vec<Value> = expected.iter().map(|line| id_of(line)).collect();
    let events = as_lines(&events).into_iter().map(|line| {
        let alert = ids.iter().position(|id| *id == id_of(&line));
        alert.map_or(line.clone(), |i| longer(i, &line))
    });
    let events: String = events.collect();
    let site = Site::new(events.as_bytes());
    let alerts = format!("{}-short", topic(1));
    make_topic_with(shared(), &alerts, 1, 1, ("max.message.bytes", "100000"));
    let (to, dead) = (format!("kafka:{alerts}"), site.text("dead"));
    let args = ["-b", shared(), "--alerts-to", &to, "--dead-letter", &dead];
    let ran = site.run("db", &args).expect_code(1);
    assert!(ran.stderr.contains(", refused "), "{}", ran.stderr);
    // Each of them takes a while, which may be longer than a run waits at its end.
    let mut said = ran.stderr;
    for _ in 0..5 {
        if !said.contains("waiting") {
            break;
        }
        said = site.run("db", &args).stderr;
    }
    assert!(!said.contains("waiting"), "{said}");
    let found = once(lines(shared(), &alerts));
    let short = |i: &usize| ![5, 6, 9, 300].contains(i);
    let expected: Vec<String> = (0..expected.len())
        .filter(short)
        .map(|i| expected[i].clone())
        .collect();
    assert_eq!(found, expected);
    assert_eq!(n_lines(&site.read("dead")), 4);
}

/// Partitions move between programs: each tells of what it has stored, and together of everything.
#[test]
fn a_group_tells_of_everything() {
    let site = Site::new(b"");
    let (input, changelog) = (topic(4), format!("changelog-{}", std::process::id()));
    let start = |name: &str, more: &[&str]| {
        let (db, file) = (site.text(name), site.text(&format!("{name}.alerts")));
        let args = [
            "-b",
            shared(),
            "-t",
            &input,
            "--threshold=0.5",
            "--min-events=20",
        ];
        let args = [&args[..], &["--db", &db, "--alerts-to", &file], more].concat();
        Running::start("sg-run", &args)
    };
    let soon = [
        "-X",
        "session.timeout.ms=1500",
        "-X",
        "heartbeat.interval.ms=300",
    ];
    let group = [&["-G", &input, "--changelog", &changelog][..], &soon].concat();
    let finish = |mut running: Running| -> Ran {
        assert!(wait_long(|| running.has_ended()), "{}", running.stderr());
        running.end().expect_code(0)
    };
    send(&input, &generated(10_000, 60, 321));
    let a = start("a", &group);
    let has_some = |name: &str| wait_long(|| n_lines(&site.read(name)) > 20);
    assert!(has_some("a.alerts"), "{}", a.stderr());
    let b = start("b", &group);
    std::thread::sleep(Duration::from_secs(4));
    send(&input, &generated(10_000, 60, 323));
    assert!(has_some("b.alerts"), "{}", b.stderr());
    a.signal(Signal::KILL);
    a.end();
    send(&input, &generated(10_000, 60, 325));
    std::thread::sleep(Duration::from_secs(5));
    b.signal(Signal::TERM);
    finish(b);
    finish(start("b", &[&group[..], &["-e"]].concat()));
    // What the killed one had stored and not told.
    finish(start("a", &[&group[..], &["-e"]].concat()));
    finish(start("alone", &["-e"]));
    let mut expected = as_lines(&site.read("alone.alerts"));
    let both = [site.read("a.alerts"), site.read("b.alerts")].concat();
    let mut found = once(as_lines(&both));
    expected.sort();
    found.sort();
    assert!(expected.len() > 100, "{}", expected.len());
    assert_eq!(found.len(), expected.len());
    assert!(found == expected);
}
