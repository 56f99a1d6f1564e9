//! Events as they are stored, told by the server; and questions of other machines.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;

use rustix::process::Signal;

use super::{Served, filled};
use crate::database::{scored, store};
use crate::tools::{Ran, Running, event, generated, run, wait_for};

/// What comes of a stream of server-sent events, line by line.
struct Listener(BufReader<TcpStream>);

impl Listener {
    fn start(served: &Served, path: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(served.address()).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let time = std::time::Duration::from_secs(20);
        stream.set_read_timeout(Some(time)).unwrap();
        let mut listener = Self(BufReader::new(stream));
        assert_eq!(listener.next_line(), "HTTP/1.1 200 OK");
        listener.until("content-type: text/event-stream");
        listener.until(": listening");
        listener
    }

    fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    #[track_caller]
    fn until(&mut self, expected: &str) -> String {
        for _ in 0..100 {
            let line = self.next_line();
            if line.starts_with(expected) {
                return line;
            }
        }
        panic!("{expected} does not come");
    }
}

#[test]
fn events_are_told_as_they_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let (file, db) = (folder.path().join("events"), folder.path().join("db"));
    fs::write(&file, generated(50, 5, 1)).unwrap();
    store(&db, b"").expect_code(0);
    let served = Served::start(&db, &["--quiet"]);
    let mut of_all = Listener::start(&served, "/api/live?what=events", "");
    let mut of_me = Listener::start(&served, "/api/live?what=events&user=me", "");
    // A program that comes later is heard of from its start.
    let args = [
        file.to_str().unwrap(),
        "--follow",
        "--db",
        db.to_str().unwrap(),
    ];
    let running = Running::start("sg-run", &args);
    for line in generated(50, 5, 1).split(|byte| *byte == b'\n').take(50) {
        assert_eq!(of_all.until("event: "), "event: event");
        let data = of_all.until("data: ");
        assert_eq!(&data.as_bytes()["data: ".len()..], line);
    }
    // Line ends between values are blanks where a line end means something.
    let mine = event("mine", "me", 1).replacen(',', ",\r", 1);
    let mut events = OpenOptions::new().append(true).open(&file).unwrap();
    writeln!(events, "{}\n{mine}", event("other", "you", 1)).unwrap();
    let data = of_me.until("data: ");
    assert_eq!(
        data["data: ".len()..],
        event("mine", "me", 1).replacen(',', ", ", 1)
    );
    running.signal(Signal::TERM);
    running.end().expect_code(0);
    // Those who listen do not hold up the end.
    served.running.signal(Signal::TERM);
    served.running.end().expect_code(0);
}

#[test]
fn anomalies_are_told_by_severity() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, b"").expect_code(0);
    let served = Served::start(&db, &["--quiet"]);
    let mut listener = Listener::start(&served, "/api/live?severity=high", "");
    let lines = scored(3_000, 12, 7);
    store(&db, &lines).expect_code(0);
    let is_severe = |line: &&str| {
        line.contains(r#""severity":"high""#) || line.contains(r#""severity":"critical""#)
    };
    let lines = String::from_utf8(lines).unwrap();
    let severe: Vec<&str> = lines.lines().filter(is_severe).collect();
    assert!(severe.len() > 5, "{}", severe.len());
    for line in severe {
        assert_eq!(listener.until("event: "), "event: anomaly");
        assert_eq!(listener.until("data: ")["data: ".len()..], *line);
    }
}

#[test]
fn those_who_listen_ask_as_others_do() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, event("e", "u", 1).as_bytes()).expect_code(0);
    let keys = folder.path().join("keys");
    let keys = keys.to_str().unwrap();
    let key = run("sg-query", &["keys", "add", "me", "--keys", keys], b"").expect_code(0);
    let key = key.text().trim();
    let served = Served::start(&db, &["--quiet", "--keys", keys]);
    served.get("/api/live").problem(401);
    for path in [
        "/api/live?what=users",
        "/api/live?severity=bad",
        "/api/live?x=1",
        "/api/live?user=",
    ] {
        served.with_key(path, key).problem(400);
    }
    let headers = format!("Authorization: Bearer {key}\r\n");
    let mut listener = Listener::start(&served, "/api/live", &headers);
    // A key that is revoked is good for nothing more.
    let revoked = run("sg-query", &["keys", "revoke", "me", "--keys", keys], b"");
    revoked.expect_code(0);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut listener.0, &mut rest).unwrap();
    assert!(!rest.contains("data: "), "{rest}");
}

/// What `sg-query` answers about these databases and servers.
fn query(args: &[&str], databases: &[(&str, &str)], key: Option<&str>) -> Ran {
    let databases = databases
        .iter()
        .flat_map(|(option, place)| [*option, *place]);
    let mut command = crate::tools::program("sg-query");
    command.args(args).args(databases);
    if let Some(key) = key {
        command.env("SG_PEER_KEY", key);
    }
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_server_answers_as_its_databases_would() {
    let folder = tempfile::tempdir().unwrap();
    let one = filled(folder.path());
    let other = folder.path().join("other");
    // Some events are in both.
    store(&other, &scored(4_000, 12, 7)).expect_code(0);
    let [one, other] = [&one, &other].map(|path| path.to_str().unwrap());
    let served = Served::start(Path::new(other), &["--quiet"]);
    let both = Served::start(Path::new(one), &["--quiet", "--db", other]);
    let newest = query(&["anomalies", "-n1"], &[("--db", one)], None).json_lines();
    let id = newest[0]["event_id"].as_str().unwrap();
    let user = newest[0]["user"].as_str().unwrap();
    let questions: [&[&str]; 13] = [
        &["events"],
        &["events", "--user", user, "-n1000"],
        &["event", id],
        &["event", "nobody"],
        &["anomalies", "--sort=score"],
        &["anomalies", "--severity=high", "-n7"],
        &["analyses"],
        &["incidents"],
        &["similar", id],
        &["user", user],
        &["feedback"],
        &["stats"],
        &["export"],
    ];
    for args in questions {
        let here = query(args, &[("--db", one), ("--db", other)], None);
        assert!(here.code < 2, "{args:?}: {}", here.stderr);
        for there in [
            &[("--db", one), ("--peer", &served.url[..])][..],
            &[("--peer", &both.url)],
        ] {
            let ran = query(args, there, None);
            assert!(
                ran.stdout == here.stdout,
                "{args:?}: {}{}",
                ran.stderr,
                ran.text()
            );
            assert_eq!(
                (ran.code, ran.stderr),
                (here.code, here.stderr.clone()),
                "{args:?}"
            );
        }
    }
    // Sessions end with their questions: there is room for the next ones.
    for _ in 0..100 {
        query(&["event", id], &[("--peer", &both.url)], None).expect_code(0);
    }
}

#[test]
fn a_server_that_does_not_answer_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, event("e", "u", 1).as_bytes()).expect_code(0);
    let keys = folder.path().join("keys");
    let keys = keys.to_str().unwrap();
    let key = run("sg-query", &["keys", "add", "me", "--keys", keys], b"").expect_code(0);
    let key = key.text().trim();
    let served = Served::start(&db, &["--quiet", "--keys", keys]);
    let url = &served.url[..];
    let stats = |url: &str, key| query(&["stats"], &[("--peer", url)], key);
    assert_eq!(
        stats(url, Some(key)).expect_code(0).json_lines()[0]["events"],
        1
    );
    let check = |ran: Ran, said: &str| {
        assert_eq!((ran.code, ran.text()), (2, ""));
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
        assert!(!ran.stderr.contains(key), "{}", ran.stderr);
    };
    check(stats(url, None), "--peer-key-file");
    check(stats(url, Some("sgk_wrong")), "--peer-key-file");
    check(
        stats(&format!("{url}/elsewhere"), Some(key)),
        "no server of StreamGuard",
    );
    check(stats("ftp://localhost", Some(key)), "https://");
    let revoked = run("sg-query", &["keys", "revoke", "me", "--keys", keys], b"");
    revoked.expect_code(0);
    assert!(wait_for(|| stats(url, Some(key)).code == 2));
    served.running.signal(Signal::TERM);
    let url = url.to_owned();
    served.running.end().expect_code(0);
    check(stats(&url, Some(key)), "cannot ask");
}

/// What a server tells others leaves out how pipes are signed and where files are.
#[test]
fn a_guest_is_not_told_what_questions_do_not_need() {
    let folder = tempfile::tempdir().unwrap();
    let (file, db) = (folder.path().join("events"), folder.path().join("db"));
    fs::write(&file, generated(50, 5, 1)).unwrap();
    let args = [file.to_str().unwrap(), "--db", db.to_str().unwrap(), "-q"];
    run("sg-run", &args, b"").expect_code(0);
    let served = Served::start(&db, &["--quiet"]);
    let peer = streamguard::store::Peer::new(&served.url, None).unwrap();
    let lives = streamguard::store::Live::at_peer(peer).unwrap();
    let view = lives[0].view().unwrap();
    let here = streamguard::store::Live::open(&db, &streamguard::store::Tuning::default()).unwrap();
    let here = here.view().unwrap();
    assert_eq!(here.positions().unwrap().len(), 1);
    assert!(view.positions().unwrap().is_empty());
    let mut walk = view.walk("meta", b"", streamguard::store::Order::OldestFirst);
    let mut names = Vec::new();
    while let Some((key, _)) = walk.next_entry().unwrap() {
        names.push(String::from_utf8(key).unwrap());
    }
    assert!(names.contains(&"counters".to_owned()), "{names:?}");
    assert!(
        !names.iter().any(|name| name.contains("position:/")),
        "{names:?}"
    );
    assert_eq!(view.counters().unwrap().events, 50);
}
