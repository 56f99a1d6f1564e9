//! Brokers that are gone, away for a while, or will not have us.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use super::broker::{Cluster, make_topic, send_to, shared, topic, topic_at, wait_long};
use crate::database::stats;
use crate::tools::{Ran, Running, digest, event, generated, n_lines, run};

#[test]
fn what_cannot_be_reached_is_told() {
    let mut running = Running::start("sg-consume", &["-b", "127.0.0.1:9", "-t", "t"]);
    assert!(wait_long(|| running
        .stderr()
        .contains("Connection refused")));
    assert!(!running.has_ended());
    running.signal(Signal::TERM);
    let ran = running.end().expect_code(2);
    assert!(
        ran.stderr.contains("cannot reach Kafka at 127.0.0.1:9: "),
        "{}",
        ran.stderr
    );
    let ran = run("sg-consume", &["-b", shared(), "-t", "no-such-topic"], b"").expect_code(2);
    assert!(
        ran.stderr.contains("there is no topic no-such-topic"),
        "{}",
        ran.stderr
    );
    let to = ["--events=1", "--to=kafka:no-such-topic", "-b", shared()];
    let ran = run("sg-gen", &to, b"").expect_code(2);
    assert!(
        ran.stderr.contains("there is no topic no-such-topic"),
        "{}",
        ran.stderr
    );
    let topic = topic(1);
    let wrong = ["-b", shared(), "-t", &topic, "-X", "no.such.property=1"];
    let ran = run("sg-consume", &wrong, b"").expect_code(2);
    assert!(ran.stderr.contains("no.such.property"), "{}", ran.stderr);
    let ran = run("sg-consume", &["-t", &topic], b"").expect_code(2);
    assert!(ran.stderr.contains("-b HOST:PORT"), "{}", ran.stderr);
}

/// A cluster of its own with a topic, and `sg-run` on it.
struct Site {
    folder: tempfile::TempDir,
    cluster: Cluster,
    topic: String,
}

impl Site {
    fn new(up: &[&str], n_partitions: i32, replicas: i32) -> Self {
        let cluster = Cluster::up(up);
        Self {
            folder: tempfile::tempdir().unwrap(),
            topic: topic_at(&cluster.address, n_partitions, replicas),
            cluster,
        }
    }

    fn db(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn send(&self, n_events: u64, seed: u64) {
        send_to(
            &self.cluster.address,
            &self.topic,
            &generated(n_events, 30, seed),
        );
    }

    /// Hands over the arguments for a database.
    fn with_args<T>(&self, address: &str, db: &str, more: &[&str], f: impl Fn(&[&str]) -> T) -> T {
        let db = self.db(db);
        let args = ["-b", address, "-t", &self.topic, "--threshold=0.5", "--db"];
        f(&[&args[..], &[db.to_str().unwrap()], more].concat())
    }

    fn start(&self, db: &str, more: &[&str]) -> Running {
        let start = |args: &[&str]| Running::start("sg-run", args);
        self.with_args(&self.cluster.address, db, more, start)
    }

    /// Reads to the end.
    fn run_at(&self, address: &str, db: &str, more: &[&str]) -> Ran {
        let more = [more, &["-e", "-q"]].concat();
        self.with_args(address, db, &more, |args| run("sg-run", args, b""))
    }

    fn run(&self, db: &str, more: &[&str]) -> Ran {
        self.run_at(&self.cluster.address, db, more)
    }

    /// A database has to be what an undisturbed run would have made.
    #[track_caller]
    fn check(&self, db: &str, n_events: u64) {
        self.run("undisturbed", &[]).expect_code(0);
        assert_eq!(digest(&self.db(db)), digest(&self.db("undisturbed")));
        assert_eq!(stats(&self.db(db))["events"], n_events);
    }
}

/// The broker goes away twice, once by being killed, and comes back with its partitions.
#[test]
fn a_broker_may_go_away_for_a_while() {
    let site = Site::new(&[], 2, 1);
    let running = site.start("db", &["-G", "g", "--tee"]);
    let says = |words: &str| {
        let has_said = wait_long(|| running.stderr().contains(words));
        assert!(has_said, "{}", running.stderr());
    };
    for (seed, how) in [(241, &["--kill"][..]), (243, &[])] {
        site.send(5_000, seed);
        site.cluster.stop(how);
        says("trying again");
        std::thread::sleep(Duration::from_secs(1));
        site.cluster.start(&[]);
    }
    site.send(5_000, 245);
    says("Kafka is back");
    let n_stored = || n_lines(running.stdout().as_bytes());
    assert!(wait_long(|| n_stored() >= 15_000), "{}", n_stored());
    running.signal(Signal::TERM);
    let ran = running.end().expect_code(0);
    assert!(
        ran.stderr.contains("in 15000 = out 15000 "),
        "{}",
        ran.stderr
    );
    site.check("db", 15_000);
    // Another cluster may have a topic of the same name: offsets mean nothing there.
    make_topic(shared(), &site.topic, 2, 1);
    let ran = site.run_at(shared(), "db", &[]).expect_code(2);
    let told = "was read from another cluster";
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
}

/// Each node of three goes away once, so that every partition's leader moves at least once, and so does
/// the one that keeps the group.
#[test]
fn leaders_of_partitions_may_move() {
    let site = Site::new(&["--nodes", "3"], 4, 3);
    let group = ["-G", "g", "--changelog", "c"];
    let running = site.start("db", &group);
    for (seed, node, how) in [
        (251, "1", &[][..]),
        (253, "2", &["--kill"]),
        (255, "3", &[]),
    ] {
        site.send(4_000, seed);
        site.cluster.stop(&[&["--node", node], how].concat());
        site.send(4_000, seed + 1);
        std::thread::sleep(Duration::from_secs(2));
        site.cluster.start(&["--node", node]);
    }
    std::thread::sleep(Duration::from_secs(3));
    running.signal(Signal::TERM);
    running.end().expect_code(0);
    // Whatever was still to come.
    site.run("db", &group).expect_code(0);
    site.check("db", 24_000);
}

#[test]
fn a_secure_cluster_knows_whom_it_lets_in() {
    let cluster = Cluster::up(&["--secure"]);
    let topic = topic_at(&cluster.address, 1, 1);
    let lines = format!("{}\n{}\n", event("a", "u", 1), event("b", "u", 2));
    send_to(&cluster.address, &topic, lines.as_bytes());
    let address = std::fs::read_to_string(cluster.path("secure")).unwrap();
    let ca = cluster.path("ca.pem");
    let config = cluster.path("client.properties");
    let write = |password: &str| {
        let text = format!(
            "# How to log in\nsecurity.protocol=sasl_ssl\nsasl.mechanisms=SCRAM-SHA-256\n\n\
             sasl.username=streamguard\nsasl.password={password}\n"
        );
        std::fs::write(&config, text).unwrap();
    };
    let ca = format!("ssl.ca.location={}", ca.display());
    let args = [
        "-b",
        address.trim(),
        "-t",
        &topic,
        "-e",
        "-X",
        &ca,
        "-F",
        config.to_str().unwrap(),
    ];
    write("secret");
    let ran = run("sg-consume", &args, b"").expect_code(0);
    assert_eq!(n_lines(&ran.stdout), 2);
    write("hunter2");
    let ran = run("sg-consume", &args, b"").expect_code(2);
    assert!(
        ran.stderr.contains("refuses the connection"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    write("secret");
    let distrusting = [
        "-b",
        address.trim(),
        "-t",
        &topic,
        "-e",
        "-F",
        config.to_str().unwrap(),
    ];
    let running = Running::start("sg-consume", &distrusting);
    assert!(
        wait_long(|| running.stderr().contains("certificate")),
        "{}",
        running.stderr()
    );
    // Names that are none, and values that cannot be: what stands for the secret is not repeated.
    for text in ["sasl.pasword=hunter2\n", "security.protocol=hunter2\n"] {
        std::fs::write(&config, text).unwrap();
        let ran = run("sg-consume", &args, b"").expect_code(2);
        let name = text.split('=').next().unwrap();
        assert!(ran.stderr.contains(name), "{}", ran.stderr);
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    }
    std::fs::write(&config, "sasl.password hunter2").unwrap();
    let ran = run("sg-consume", &args, b"").expect_code(2);
    assert!(
        ran.stderr
            .contains("client.properties:1: expected KEY=VALUE"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
}
