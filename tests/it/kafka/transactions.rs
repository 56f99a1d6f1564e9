//! Transactions of others that are aborted or not ended yet: in the topic of events, and in that of what tasks have learned.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use streamguard::schema;

use super::broker::{send, shared, topic, wait_long};
use super::scale::{Group, sums};
use crate::tools::{Running, generated, run};

const PATIENCE: Duration = Duration::from_secs(30);

/// A producer that has begun a transaction.
fn begun(id: &str) -> BaseProducer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", shared())
        .set("transactional.id", id)
        // Tests that share the machine are slow.
        .set("transaction.timeout.ms", "600000");
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    producer
}

/// Sends messages to a partition within the transaction that is open.
fn put<'a>(
    producer: &BaseProducer,
    topic: &str,
    partition: i32,
    messages: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) {
    for (key, payload) in messages {
        let record = BaseRecord::to(topic).partition(partition);
        producer.send(record.key(key).payload(payload)).unwrap();
        producer.poll(Duration::ZERO);
    }
    producer.flush(PATIENCE).unwrap();
}

/// The end of a partition, with what may yet be aborted.
fn end_of(topic: &str, partition: i32) -> i64 {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", shared())
        .set("isolation.level", "read_uncommitted");
    let consumer: BaseConsumer = config.create().unwrap();
    let ends = consumer.fetch_watermarks(topic, partition, PATIENCE);
    ends.unwrap().1
}

fn put_lines(producer: &BaseProducer, topic: &str, lines: &[u8]) {
    let lines = lines.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    put(producer, topic, 0, lines.map(|line| (&b""[..], line)));
}

/// Aborted ones are passed over, also at the end, and an open one is waited for by who follows and not by who reads what is
/// there.
#[test]
fn what_is_aborted_is_not_there() {
    let topic = topic(1);
    let batches: Vec<Vec<u8>> = (0..5).map(|i| generated(200, 10, 401 + 2 * i)).collect();
    let producer = begun(&topic);
    put_lines(&producer, &topic, &batches[0]);
    producer.commit_transaction(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    put_lines(&producer, &topic, &batches[1]);
    producer.abort_transaction(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    put_lines(&producer, &topic, &batches[2]);
    producer.commit_transaction(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    put_lines(&producer, &topic, &batches[3]);
    producer.abort_transaction(PATIENCE).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let follow = [
        &["-b", shared(), "-t", &topic, "-q"][..],
        &["--db", db.to_str().unwrap()],
    ]
    .concat();
    let to_end = [&follow[..], &["-e"]].concat();
    let consume = || run("sg-consume", &["-b", shared(), "-t", &topic, "-e"], b"");
    // While a program is starting nobody answers.
    let has_stored = |n_events: u64| {
        let ran = run("sg-query", &["stats", "--db", db.to_str().unwrap()], b"");
        ran.code == 0 && ran.json_lines()[0]["events"] == n_events
    };
    let committed = [&batches[0][..], &batches[2]].concat();
    assert_eq!(consume().expect_code(0).stdout, committed);
    run("sg-run", &to_end, b"").expect_code(0);
    assert!(has_stored(400));

    producer.begin_transaction().unwrap();
    put_lines(&producer, &topic, &batches[4]);
    assert_eq!(consume().expect_code(0).stdout, committed);
    run("sg-run", &to_end, b"").expect_code(0);
    assert!(has_stored(400));
    let running = Running::start("sg-run", &follow);
    assert!(wait_long(|| has_stored(400)), "{}", running.stderr());
    // Long enough to read what is there, if it did.
    std::thread::sleep(Duration::from_secs(2));
    assert!(has_stored(400), "{}", running.stderr());
    producer.commit_transaction(PATIENCE).unwrap();
    assert!(wait_long(|| has_stored(600)), "{}", running.stderr());
    running.signal(rustix::process::Signal::TERM);
    running.end().expect_code(0);
    let all = [&committed[..], &batches[4]].concat();
    assert_eq!(consume().expect_code(0).stdout, all);
}

/// How somebody ends a transaction.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Commit,
    Abort,
    Never,
}

/// Begins a checkpoint of each task as a program of the group would, of what could not be read, and a position beyond all that
/// there is.
fn write_nonsense(group: &Group, end: End) -> Vec<BaseProducer> {
    let write = |partition: i32| {
        let task = format!("kafka:{}/{partition}", group.topic);
        let writer = begun(&format!("streamguard-{}-{task}", group.topic));
        let position = [&schema::task_end(&task)[..], b"position"].concat();
        let of_user = schema::baseline_key(&task, "user00001");
        let ahead = br#"{"cluster":"another","offset":1000000,"shared_parts":7}"#;
        let messages = [(&of_user[..], &b"no baseline"[..]), (&position, ahead)];
        let changelog = format!("{}-changelog", group.topic);
        let end_before = end_of(&changelog, partition);
        put(&writer, &changelog, partition, messages);
        assert_eq!(end_of(&changelog, partition), end_before + 2);
        match end {
            End::Commit => writer.commit_transaction(PATIENCE).unwrap(),
            End::Abort => writer.abort_transaction(PATIENCE).unwrap(),
            End::Never => {}
        }
        writer
    };
    (0..2).map(write).collect()
}

/// A group that has learned something, the nonsense, and more events.
fn disturbed(end: End) -> (Group, Vec<BaseProducer>) {
    let group = Group::new(2, "--detector=adaptive");
    send(&group.topic, &generated(3_000, 40, 431));
    group.finish("a").expect_code(0);
    let writers = write_nonsense(&group, end);
    send(&group.topic, &generated(3_000, 40, 433));
    (group, writers)
}

/// Who comes after it goes on as if it had never been.
fn does_not_count(end: End) -> Vec<BaseProducer> {
    let (group, writers) = disturbed(end);
    let ran = group.finish("b").expect_code(0);
    let (a, b) = (group.db("a"), group.db("b"));
    assert_eq!(sums(&[&a, &b]), group.expected(), "{}", ran.stderr);
    writers
}

#[test]
fn an_aborted_checkpoint_does_not_count() {
    does_not_count(End::Abort);
}

/// A program that is killed within a checkpoint, or is away for too long, has written nothing.
#[test]
fn a_checkpoint_that_was_not_ended_does_not_count() {
    for writer in does_not_count(End::Never) {
        let refused = writer.commit_transaction(PATIENCE).unwrap_err();
        let code = refused.rdkafka_error_code();
        assert_eq!(code, Some(RDKafkaErrorCode::Fenced), "{refused}");
    }
}

/// The same would have been taken for a checkpoint otherwise. It once passed for a topic without anything new.
#[test]
fn a_checkpoint_of_nonsense_is_refused() {
    let (group, _writers) = disturbed(End::Commit);
    let ran = group.finish("b").expect_code(2);
    let said = "does not hold what kafka:";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
}
