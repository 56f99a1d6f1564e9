//! Whether a program works, and takes events; and who may ask it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use super::Watched;
use crate::tools::{event, run, wait_for};

#[test]
fn a_program_is_ready_from_its_first_line_until_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db").to_str().unwrap().to_owned();
    for (program, args) in [("sg-score", &[][..]), ("sg-store", &["--db", &db])] {
        let mut watched = Watched::start(program, args);
        assert_eq!(watched.get("/health"), (200, "ok\n".to_owned()));
        assert_eq!(watched.get("/ready"), (503, "it is starting\n".to_owned()));
        let mut stdin = watched.running.stdin.take().unwrap();
        writeln!(stdin, "{}", event("a", "u", 1)).unwrap();
        watched.wait_until("streamguard_events_processed_total", 1.0);
        assert_eq!(watched.get("/ready"), (200, "ready\n".to_owned()));
        // It waits for a while for what is on its way.
        watched.running.signal(Signal::TERM);
        assert!(wait_for(|| watched.get("/ready").0 == 503));
        let (_, why) = watched.get("/ready");
        assert_eq!(why, "it is at its end, and finishes what it holds\n");
        assert_eq!(watched.get("/health").0, 200);
        writeln!(stdin, "{}", event("b", "u", 2)).unwrap();
        watched.wait_until("streamguard_events_processed_total", 2.0);
        drop(stdin);
        watched.running.end().expect_code(0);
    }
}

#[test]
fn nothing_else_is_answered_and_nobody_else() {
    let watched = Watched::start("sg-consume", &[]);
    assert_eq!(watched.get("/").0, 404);
    assert_eq!(watched.get("/metrics/x").0, 404);
    let ask = |head: &str| {
        let mut stream = TcpStream::connect(watched.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
            .write_all(format!("{head}connection: close\r\n\r\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = ask("GET /metrics HTTP/1.1\r\nhost: localhost\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        answer.contains("content-type: text/plain; version=0.0.4\r\n"),
        "{answer}"
    );
    let answer = ask("GET /metrics HTTP/1.1\r\nhost: elsewhere.example\r\n");
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    let answer = ask("POST /metrics HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n");
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

/// Whoever holds connections keeps others from asking for a while, and nobody from working.
#[test]
fn connections_are_bounded() {
    let mut watched = Watched::start("sg-consume", &[]);
    let mut held = Vec::new();
    let is_full = wait_for(|| {
        let mut stream = TcpStream::connect(watched.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let mut answer = [0; 12];
        let is_refused = stream.read_exact(&mut answer).is_ok() && &answer == b"HTTP/1.1 503";
        held.push(stream);
        is_refused
    });
    assert!(is_full);
    assert!(held.len() <= 18, "{}", held.len());
    let mut stdin = watched.running.stdin.take().unwrap();
    writeln!(stdin, "{}", event("a", "u", 1)).unwrap();
    watched
        .running
        .expect_stdout(&format!("{}\n", event("a", "u", 1)));
    drop(held);
    assert!(wait_for(|| {
        let asked = watched.agent.get(format!("{}/health", watched.url)).call();
        asked.is_ok_and(|response| response.status() == 200)
    }));
    drop(stdin);
    watched.running.end().expect_code(0);
}

#[test]
fn an_address_that_is_taken_is_refused_before_anything_happens() {
    let watched = Watched::start("sg-consume", &[]);
    let listen = ["--metrics-listen", watched.address()];
    let ran = run("sg-consume", &listen, event("a", "u", 1).as_bytes()).expect_code(2);
    let words = format!("cannot serve metrics at {}", watched.address());
    assert!(ran.stderr.contains(&words), "{}", ran.stderr);
    assert_eq!(ran.stdout, b"");
    let ran = run("sg-consume", &["--metrics-listen", "somewhere"], b"").expect_code(2);
    assert!(
        ran.stderr.contains("expected an address and a port"),
        "{}",
        ran.stderr
    );
    // A port alone is of this machine alone.
    let ran = run("sg-consume", &["--metrics-listen", "0"], b"").expect_code(0);
    assert!(
        ran.stderr.contains("metrics at http://127.0.0.1:"),
        "{}",
        ran.stderr
    );
}
