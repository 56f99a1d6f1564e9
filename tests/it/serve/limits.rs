//! What a server does not put up with.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::Served;
use crate::database::store;
use crate::tools::{event, wait_within};

fn served(args: &[&str]) -> (tempfile::TempDir, Served) {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, event("e", "u", 1).as_bytes()).expect_code(0);
    let served = Served::start(&db, args);
    (folder, served)
}

fn connect(served: &Served) -> TcpStream {
    let stream = TcpStream::connect(served.address()).unwrap();
    let patience = Some(Duration::from_secs(30));
    stream.set_read_timeout(patience).unwrap();
    stream
}

/// Sends bytes and reads until the server closes the connection.
fn raw(served: &Served, bytes: &[u8]) -> String {
    let mut stream = connect(served);
    stream.write_all(bytes).unwrap();
    rest(&mut stream)
}

fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A connection that is reset has ended, too.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_slow_client_loses_its_connection() {
    let (_folder, served) = served(&[]);
    let mut idle = connect(&served);
    let mut slow = connect(&served);
    slow.write_all(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        .unwrap();
    // A byte now and then does not help.
    let sender = slow.try_clone().unwrap();
    let trickle = std::thread::spawn(move || {
        let mut sender = sender;
        wait_within(Duration::from_secs(20), || {
            std::thread::sleep(Duration::from_millis(500));
            sender.write_all(b"a").is_err()
        })
    });
    assert!(!rest(&mut slow).contains("200 OK"));
    assert_eq!(rest(&mut idle), "");
    assert!(trickle.join().unwrap(), "the server still listens");
    served.get("/api/health").ok();
}

#[test]
fn what_is_too_large_is_refused() {
    let (_folder, served) = served(&[]);
    let head = "GET /api/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let answer = raw(
        &served,
        format!("{head}Content-Length: 20000\r\n\r\n").as_bytes(),
    );
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("application/problem+json"));
    let long = "a".repeat(40 << 10);
    let answer = raw(&served, format!("{head}X-Long: {long}\r\n\r\n").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many = "X: y\r\n".repeat(100);
    let answer = raw(&served, format!("{head}{many}\r\n").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let answer = raw(&served, b"nonsense\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    // A body without an announced end is not read.
    let body = format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\naaaaa\r\n");
    assert!(raw(&served, body.as_bytes()).starts_with("HTTP/1.1 200 "));
    served.get("/api/health").ok();
}

#[test]
fn connections_are_counted() {
    let (_folder, served) = served(&["--rate", "10000"]);
    // Those that have spoken are there for sure.
    let mut connections: Vec<_> = (0..256)
        .map(|_| {
            let mut stream = connect(&served);
            stream
                .write_all(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .unwrap();
            let mut first = [0; 12];
            stream.read_exact(&mut first).unwrap();
            assert_eq!(&first, b"HTTP/1.1 200");
            stream
        })
        .collect();
    let answer = rest(&mut connect(&served));
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after: 1") && answer.contains("too many connections"));
    connections.truncate(200);
    let is_there = || {
        let answer = raw(
            &served,
            b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        );
        answer.starts_with("HTTP/1.1 200 ")
    };
    assert!(wait_within(Duration::from_secs(7), is_there));
}

#[test]
fn who_asks_too_often_has_to_wait() {
    let (_folder, served) = served(&["--rate", "2"]);
    let replies: Vec<_> = (0..50).map(|_| served.get("/api/health")).collect();
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status == 429).collect();
    assert!(refused.len() > 30, "{} were refused", refused.len());
    assert!(replies.iter().filter(|reply| reply.status == 200).count() >= 4);
    assert!(refused[0].header("retry-after").parse::<u64>().unwrap() >= 1);
    assert!(refused[0].problem(429).contains("too many requests"));
}

#[test]
fn answers_have_a_size() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let long = "x".repeat(500 << 10);
    let lines: Vec<_> = (0..20)
        .map(|i| {
            let event = event(&format!("e{i:02}"), "u", i);
            format!("{},\"long\":\"{long}\"}}\n", &event[..event.len() - 1])
        })
        .collect();
    store(&db, lines.concat().as_bytes()).expect_code(0);
    let served = Served::start(&db, &[]);
    let reply = served.get("/api/events?limit=1000").ok();
    assert!(reply.body.len() < 6 << 20, "{} bytes", reply.body.len());
    let found = served.all("/api/events?limit=1000&order=oldest");
    assert_eq!(found.len(), 20);
    assert!(
        found
            .iter()
            .zip(&lines)
            .all(|(found, line)| found == line.trim_end())
    );
}

/// A body that did not say how long it was passed as one of no bytes.
#[test]
fn a_body_is_bounded_whether_or_not_its_length_is_announced() {
    let (_folder, served) = served(&[]);
    let status = |path: &str, n_bytes: usize, is_announced: bool| {
        let length = if is_announced {
            format!("Content-Length: {n_bytes}\r\n\r\n")
        } else {
            format!("Transfer-Encoding: chunked\r\n\r\n{n_bytes:x}\r\n")
        };
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        let end: &[u8] = if is_announced { b"" } else { b"\r\n0\r\n\r\n" };
        let bytes = [
            head.as_bytes(),
            length.as_bytes(),
            &vec![b'a'; n_bytes],
            end,
        ]
        .concat();
        let mut stream = connect(&served);
        // It may be refused before all of it was sent.
        let _ = stream.write_all(&bytes);
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        String::from_utf8_lossy(&status[9..]).into_owned()
    };
    for is_announced in [true, false] {
        // A frame of a peer is as long as a question can be; this session has ended.
        assert_eq!(status("/api/peer/none", 100_000, is_announced), "404");
        assert_eq!(status("/api/peer/none", (1 << 20) + 1, is_announced), "413");
    }
    assert_eq!(status("/api/peer", 20_000, true), "413");
    assert_eq!(status("/api/events", 20_000, true), "413");
}
