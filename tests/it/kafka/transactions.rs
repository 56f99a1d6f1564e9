//! Transactions of others that are aborted or not ended yet: in the topic of events, and in that of what tasks have learned.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use streamguard::schema;

use super::broker::{shared, topic, wait_long};
use super::scale::{Group, sums};
use crate::tools::{Running, generated, n_lines, run};

const PATIENCE: Duration = Duration::from_secs(30);

/// A producer that has begun a transaction.
fn begun(id: &str) -> BaseProducer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", shared())
        .set("transactional.id", id);
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
    let n_stored = || {
        let ran = run("sg-query", &["stats", "--db", db.to_str().unwrap()], b"");
        ran.expect_code(0).json_lines()[0]["events"].clone()
    };
    let committed = [&batches[0][..], &batches[2]].concat();
    assert_eq!(consume().expect_code(0).stdout, committed);
    run("sg-run", &to_end, b"").expect_code(0);
    assert_eq!(n_stored(), 400);

    producer.begin_transaction().unwrap();
    put_lines(&producer, &topic, &batches[4]);
    assert_eq!(consume().expect_code(0).stdout, committed);
    run("sg-run", &to_end, b"").expect_code(0);
    assert_eq!(n_stored(), 400);
    let running = Running::start("sg-run", &follow);
    std::thread::sleep(Duration::from_secs(1));
    producer.commit_transaction(PATIENCE).unwrap();
    assert!(wait_long(|| n_stored() == 600), "{}", n_stored());
    running.signal(rustix::process::Signal::TERM);
    running.end().expect_code(0);
    let all = [&committed[..], &batches[4]].concat();
    let ran = consume().expect_code(0);
    assert_eq!(ran.stdout, all);
    assert_eq!(n_lines(&ran.stdout), 600);
}

/// A program that ends in the middle of a checkpoint has written nothing, whoever comes after it.
#[test]
fn a_checkpoint_that_was_not_ended_does_not_count() {
    for is_aborted in [true, false] {
        let group = Group::new(2, "--detector=adaptive");
        super::broker::send(&group.topic, &generated(3_000, 40, 431));
        group.finish("a").expect_code(0);
        let changelog = format!("{}-changelog", group.topic);
        // What could not be read, and a position beyond all that there is.
        let mut writers = Vec::new();
        for partition in 0..2 {
            let task = format!("kafka:{}/{partition}", group.topic);
            let writer = begun(&format!("streamguard-{}-{task}", group.topic));
            let position = [&schema::task_end(&task)[..], b"position"].concat();
            let of_user = schema::baseline_key(&task, "user00001");
            let ahead = br#"{"cluster":"another","offset":1000000,"shared_parts":7}"#;
            let messages = [(&of_user[..], &b"no baseline"[..]), (&position, ahead)];
            put(&writer, &changelog, partition, messages);
            if is_aborted {
                writer.abort_transaction(PATIENCE).unwrap();
            }
            writers.push(writer);
        }
        super::broker::send(&group.topic, &generated(3_000, 40, 433));
        let b = group.finish("b").expect_code(0);
        let (a, b_db) = (group.db("a"), group.db("b"));
        assert_eq!(sums(&[&a, &b_db]), group.expected(), "{}", b.stderr);
        // Who had them open cannot end them any more.
        if !is_aborted {
            for writer in &writers {
                writer.commit_transaction(PATIENCE).unwrap_err();
            }
        }
        super::broker::send(&group.topic, &generated(1_000, 40, 435));
        std::fs::remove_dir_all(group.db("alone")).unwrap();
        group.finish("a").expect_code(0);
        assert_eq!(sums(&[&b_db, &a]), group.expected());
    }
}
