//! How far behind a program is, and whether brokers are there, as metrics tell it.

use std::io::Read as _;
use std::process::Stdio;

use rustix::process::Signal;

use super::broker::{Cluster, send, send_messages, shared, topic, topic_at, wait_long};
use crate::metrics::Watched;
use crate::tools::{Running, event, generated, program};

fn lag_of(topic: &str, partition: i32) -> String {
    format!("streamguard_kafka_lag{{partition=\"{partition}\",topic=\"{topic}\"}}")
}

impl Watched {
    fn lag(&self, topic: &str, partition: i32) -> Option<f64> {
        self.samples().get(&lag_of(topic, partition)).copied()
    }
}

/// A partition's series is there while it is read here.
#[test]
fn lag_is_told_of_partitions_that_are_read_here() {
    let topic = topic(2);
    send(&topic, &generated(2_000, 30, 441));
    let args = ["-b", shared(), "-t", &topic, "-G", "lag", "-o", "start"];
    let first = Watched::start("sg-consume", &args);
    let is_read = |watched: &Watched, partition| watched.lag(&topic, partition) == Some(0.0);
    assert!(wait_long(|| is_read(&first, 0) && is_read(&first, 1)));
    first.wait_until("streamguard_events_processed_total", 2_000.0);
    assert_eq!(first.get("/ready").0, 200);

    let second = Watched::start("sg-consume", &args);
    let n_series = |watched: &Watched| {
        let series = [watched.lag(&topic, 0), watched.lag(&topic, 1)];
        series.into_iter().flatten().count()
    };
    assert!(wait_long(|| (n_series(&first), n_series(&second)) == (1, 1)));
    second.running.signal(Signal::TERM);
    second.running.end().expect_code(0);
    assert!(wait_long(|| n_series(&first) == 2));
}

/// What a program that is held up has not come to yet is its lag.
#[test]
fn who_is_held_up_falls_behind() {
    const N_MESSAGES: usize = 2_500;
    let folder = tempfile::tempdir().unwrap();
    let topic = topic(1);
    let pad = "x".repeat(20_000);
    let line = |i: usize| {
        let event = event(&format!("e{i}"), "u", i as i64);
        format!("{},\"pad\":\"{pad}\"}}", &event[..event.len() - 1])
    };
    let lines: Vec<String> = (0..N_MESSAGES).map(line).collect();
    let messages = lines.iter().map(|line| ("u".to_owned(), line.as_bytes()));
    send_messages(shared(), &topic, messages);
    let mut child = program("sg-run")
        .args([
            "-b",
            shared(),
            "-t",
            &topic,
            "--tee",
            "--memory-limit=256MiB",
        ])
        .args(["--metrics-listen", "127.0.0.1:0", "--db"])
        .arg(folder.path().join("db"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let watched = Watched::of(Running::of(child), "sg-run");
    let mut piece = vec![0; 64 << 10];
    let mut n_read = 0;
    let is_behind = wait_long(|| {
        n_read += stdout.read(&mut piece).unwrap();
        watched.lag(&topic, 0).is_some_and(|lag| lag > 100.0)
    });
    assert!(is_behind, "{n_read} bytes were read");
    let reading = std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    assert!(wait_long(|| watched.lag(&topic, 0) == Some(0.0)));
    watched.wait_until("streamguard_events_processed_total", N_MESSAGES as f64);
    watched.running.signal(Signal::TERM);
    watched.running.end().expect_code(0);
    reading.join().unwrap().unwrap();
}

#[test]
fn who_has_no_broker_is_not_ready() {
    let cluster = Cluster::up(&[]);
    let topic = topic_at(&cluster.address, 1, 1);
    let watched = Watched::start("sg-consume", &["-b", &cluster.address, "-t", &topic]);
    assert!(wait_long(|| watched.get("/ready").0 == 200));
    cluster.stop(&["--kill"]);
    assert!(wait_long(|| watched.get("/ready").0 == 503));
    assert_eq!(watched.get("/ready").1, "no broker of Kafka answers\n");
    assert_eq!(watched.get("/health").0, 200);
    // No message has to come for it to be well again.
    cluster.start(&[]);
    assert!(wait_long(|| watched.get("/ready").0 == 200));
}
