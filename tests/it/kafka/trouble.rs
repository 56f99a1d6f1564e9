//! Brokers that are gone, away for a while, or will not have us.

use std::time::Duration;

use rustix::process::Signal;

use super::broker::{Cluster, send_to, shared, topic, topic_at, wait_long};
use crate::database::stats;
use crate::tools::{Running, digest, event, generated, n_lines, run};

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

/// The broker goes away twice, once by being killed, and comes back; so does its one partition.
#[test]
fn a_broker_may_go_away_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::up(&[]);
    let topic = topic_at(&cluster.address, 2, 1);
    let (db, expected) = (folder.path().join("db"), folder.path().join("expected"));
    let common = [
        "-b",
        &cluster.address,
        "-t",
        &topic,
        "--threshold=0.5",
        "--db",
    ];
    let args = [&common[..], &[db.to_str().unwrap(), "-G", "g"]].concat();
    let running = Running::start("sg-run", &args);
    for (seed, how) in [(241, &["--kill"][..]), (243, &[])] {
        send_to(&cluster.address, &topic, &generated(5_000, 30, seed));
        cluster.stop(how);
        assert!(
            wait_long(|| running.stderr().contains("trying again")),
            "{}",
            running.stderr()
        );
        std::thread::sleep(Duration::from_secs(1));
        cluster.start(&[]);
    }
    send_to(&cluster.address, &topic, &generated(5_000, 30, 245));
    assert!(
        wait_long(|| running.stderr().contains("Kafka is back")),
        "{}",
        running.stderr()
    );
    std::thread::sleep(Duration::from_secs(2));
    running.signal(Signal::TERM);
    let ran = running.end().expect_code(0);
    assert!(
        ran.stderr.contains("in 15000 = out 15000 "),
        "{}",
        ran.stderr
    );
    let args = [&common[..], &[expected.to_str().unwrap(), "-q", "-e"]].concat();
    run("sg-run", &args, b"").expect_code(0);
    assert_eq!(digest(&db), digest(&expected));
}

/// Each node of three goes away once, so that every partition's leader moves at least once, and so does
/// the one that keeps the group.
#[test]
fn leaders_of_partitions_may_move() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::up(&["--nodes", "3"]);
    let topic = topic_at(&cluster.address, 4, 3);
    let (db, expected) = (folder.path().join("db"), folder.path().join("expected"));
    let common = [
        "-b",
        &cluster.address,
        "-t",
        &topic,
        "--threshold=0.5",
        "--db",
    ];
    let changelog = ["-G", "g", "--changelog", "c"];
    let args = [&common[..], &[db.to_str().unwrap()], &changelog].concat();
    let running = Running::start("sg-run", &args);
    for (seed, node, how) in [
        (251, "1", &[][..]),
        (253, "2", &["--kill"]),
        (255, "3", &[]),
    ] {
        send_to(&cluster.address, &topic, &generated(4_000, 30, seed));
        cluster.stop(&[&["--node", node], how].concat());
        send_to(&cluster.address, &topic, &generated(4_000, 30, seed + 1));
        std::thread::sleep(Duration::from_secs(2));
        cluster.start(&["--node", node]);
    }
    std::thread::sleep(Duration::from_secs(3));
    running.signal(Signal::TERM);
    running.end().expect_code(0);
    // Whatever was still to come.
    run("sg-run", &[&args[..], &["-e", "-q"]].concat(), b"").expect_code(0);
    let args = [&common[..], &[expected.to_str().unwrap(), "-q", "-e"]].concat();
    run("sg-run", &args, b"").expect_code(0);
    assert_eq!(digest(&db), digest(&expected));
    assert_eq!(stats(&db)["events"], 24_000);
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
