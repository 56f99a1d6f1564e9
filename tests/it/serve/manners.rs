//! How a server begins, what it says and how it ends.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use rustix::process::Signal;
use serde_json::Value;

use super::{Served, reply};
use crate::database::store;
use crate::tools::{event, run, wait_for};

fn one_event() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, event("e", "u", 1).as_bytes()).expect_code(0);
    (folder, db)
}

#[test]
fn a_server_says_that_it_is_there() {
    let (_folder, db) = one_event();
    let served = Served::start(&db, &[]);
    let health = served.get("/api/health").ok().json();
    assert_eq!(health["status"], "ok");
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    for path in ["/api/ready", "/api/health/ready"] {
        let ready = served.get(path).ok().json();
        assert_eq!(ready["status"], "ready");
        assert!(ready["as_of"].as_str().unwrap().ends_with('Z'));
        assert_eq!(ready["writer"], Value::Null);
    }
}

#[test]
fn what_cannot_be_served_is_told() {
    let (folder, db) = one_event();
    let db = db.to_str().unwrap();
    let check = |args: &[&str], said: &str| {
        let ran = run("sg-query", &[&["serve"], args].concat(), b"");
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty());
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    check(
        &["--db", db, "--listen", &address],
        "cannot listen on 127.0.0.1:",
    );
    check(&["--db", db, "--listen", "192.0.2.1:1"], "without a key");
    check(&["--db", db, "--listen", "somewhere"], "invalid value");
    check(&["--db", db, "--rate", "0"], "invalid value");
    let nowhere = folder.path().join("nowhere");
    check(
        &["--db", nowhere.to_str().unwrap()],
        "there is no database at",
    );
    check(&["--db", db, "--tls-cert", "c"], "--tls-key");
}

#[test]
fn every_answer_has_what_browsers_need_to_know() {
    let (_folder, db) = one_event();
    let served = Served::start(&db, &[]);
    for path in [
        "/",
        "/api/events",
        "/api/nothing",
        "/api/docs/",
        "/api/events?x",
        "/assets/none.js",
    ] {
        let reply = served.get(path);
        assert!(
            reply
                .header("content-security-policy")
                .starts_with("default-src 'none'; script-src 'self'")
        );
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("referrer-policy"), "no-referrer");
        assert_eq!(reply.header("cross-origin-opener-policy"), "same-origin");
        assert_eq!(reply.header("cross-origin-resource-policy"), "same-origin");
        assert_eq!(reply.header("access-control-allow-origin"), "");
        let is_kept = reply.header("cache-control") != "no-store";
        assert_eq!(is_kept, !path.starts_with("/api"), "{path}");
    }
}

#[test]
fn only_our_own_names_are_answered() {
    let (_folder, db) = one_event();
    let served = Served::start(&db, &["--host-name", "siem.example"]);
    for host in [
        "localhost",
        "localhost:1",
        "127.0.0.1",
        "[::1]:9",
        "siem.example",
        "SIEM.example:8081",
    ] {
        served.get_with("/api/events", &[("Host", host)]).ok();
    }
    for host in ["evil.example", "127.0.0.1.evil.example", "203.0.113.7", ""] {
        let detail = served
            .get_with("/api/events", &[("Host", host)])
            .problem(421);
        assert!(detail.contains("--host-name"), "{detail}");
    }
    let raw = |head: &str| {
        let mut stream = TcpStream::connect(served.address()).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = raw(
        "GET http://evil.example/api/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    let answer = raw("GET /api/events HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 421 "), "{answer}");
}

#[test]
fn methods_are_what_the_document_says() {
    let (_folder, db) = one_event();
    let served = Served::start(&db, &[]);
    let url = |path: &str| format!("{}{path}", served.url);
    for path in ["/api/events", "/", "/api/openapi.json", "/api/events/e"] {
        let head = reply(served.agent.head(url(path)).call());
        assert_eq!(head.status, 200);
        assert_eq!(head.body, "");
        let get = served.get(path).ok();
        assert_eq!(head.header("content-type"), get.header("content-type"));
        let refused = reply(served.agent.post(url(path)).send("x"));
        assert_eq!(refused.header("allow"), "GET,HEAD");
        refused.problem(405);
        reply(served.agent.delete(url(path)).call()).problem(405);
        reply(served.agent.options(url(path)).call()).problem(405);
    }
    let refused = served.get("/api/admin/keys/a");
    assert_eq!(refused.header("allow"), "DELETE");
    refused.problem(405);
}

#[test]
fn the_document_and_its_page_are_ours() {
    let (_folder, db) = one_event();
    let served = Served::start(&db, &[]);
    let document = served.get("/api/openapi.json").ok().json();
    assert_eq!(document["openapi"].as_str().unwrap()[..3], *"3.1");
    assert_eq!(document["security"], Value::Null, "no key is asked for");
    for (path, of_path) in document["paths"].as_object().unwrap() {
        for (method, operation) in of_path.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            for (status, response) in responses {
                let content = response["content"].as_object();
                let media_type = content.and_then(|content| content.keys().next());
                let expected = match status.as_str() {
                    "200" => Some("application/json"),
                    "204" => None,
                    _ => Some("application/problem+json"),
                };
                assert_eq!(
                    media_type.map(String::as_str),
                    expected,
                    "{method} {path} {status}"
                );
            }
            for status in ["400", "401", "429", "503"] {
                assert!(
                    responses.contains_key(status),
                    "{method} {path} has no {status}"
                );
            }
        }
    }
    assert_eq!(served.get("/api/docs").header("location"), "/api/docs/");
    let page = served.get("/api/docs/").ok();
    assert!(page.header("content-type").starts_with("text/html"));
    // All that the page loads, and nothing of it from elsewhere.
    let mut n_loaded = 0;
    for attribute in ["src=\"", "href=\""] {
        for rest in page.body.split(attribute).skip(1) {
            let name = rest.split('"').next().unwrap().trim_start_matches("./");
            assert!(!name.contains("//"), "{name} is elsewhere");
            let loaded = served
                .agent
                .get(format!("{}/api/docs/{name}", served.url))
                .call()
                .unwrap();
            assert_eq!(loaded.status(), 200, "{name}");
            n_loaded += 1;
        }
    }
    assert!(n_loaded > 4, "{n_loaded} files");
    assert!(
        !page.body.contains("<style"),
        "browsers are told not to take it"
    );
    let scripts = page.body.split("<script").skip(1);
    assert!(
        scripts
            .clone()
            .all(|script| script.trim_start().starts_with("src="))
    );
    let initializer = served.get("/api/docs/swagger-initializer.js").ok();
    assert!(initializer.body.contains("/api/openapi.json"));
    assert!(!initializer.body.contains("petstore"));
}

#[test]
fn the_page_is_asked_for_again_only_if_it_has_changed() {
    let (_folder, db) = one_event();
    let served = Served::start(&db, &[]);
    let page = served.get("/").ok();
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.header("cache-control"), "no-cache");
    let tag = page.header("etag");
    let again = served.get_with("/", &[("If-None-Match", tag)]);
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    served.get_with("/", &[("If-None-Match", "\"other\"")]).ok();
    served.get("/assets/index.html").ok();
    served.get("/assets/none.css").problem(404);
    served.get("/assets/..%2fpage.rs").problem(404);
}

#[test]
fn a_line_is_written_for_each_request_and_holds_no_secret() {
    let (folder, db) = one_event();
    let keys = folder.path().join("keys");
    let keys = keys.to_str().unwrap();
    let key = run("sg-query", &["keys", "add", "my key", "--keys", keys], b"");
    let key = key.text().trim_end();
    let served = Served::start(&db, &["--keys", keys]);
    served.with_key("/api/events?user=u&limit=5", key).ok();
    served
        .with_key(&format!("/api/events?token={key}&user={key}"), key)
        .problem(400);
    served
        .get(&format!("/{key}/%1b%5b2J?password=hunter2"))
        .problem(404);
    served
        .get_with("/api/events", &[("X-API-Key", "sgk_guess")])
        .problem(401);
    served.get("/api/health").ok();
    let lines = || {
        let stderr = served.running.stderr();
        stderr
            .lines()
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert!(wait_for(|| lines().len() >= 5));
    let lines = lines();
    assert!(
        lines[0].starts_with("sg-query: 127.0.0.1 my+key GET /api/events?user=u&limit=5 200 "),
        "{}",
        lines[0]
    );
    assert!(lines[0].contains(" bytes ") && lines[0].ends_with(" ms"));
    assert!(
        lines[1].contains(" GET /api/events?token=...&user=sgk_... 400 "),
        "{}",
        lines[1]
    );
    assert!(
        lines[2].contains(" - GET /sgk_.../%1b%5b2J?password=... 404 "),
        "{}",
        lines[2]
    );
    assert!(lines[3].contains(" - GET /api/events 401 "), "{}", lines[3]);
    let all = lines.concat();
    assert!(!all.contains(&key[4..]) && !all.contains("guess") && !all.contains("hunter2"));

    let quiet = Served::start(&db, &["-q"]);
    quiet.get("/api/health").ok();
    quiet.running.signal(Signal::TERM);
    let ran = quiet.running.end();
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
}

#[test]
fn a_signal_ends_it_after_what_is_under_way() {
    let (_folder, db) = one_event();
    for signal in [Signal::TERM, Signal::INT] {
        let served = Served::start(&db, &[]);
        // A connection whose request is not whole yet, and one that is kept, which was accepted later.
        let mut half = TcpStream::connect(served.address()).unwrap();
        half.write_all(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n")
            .unwrap();
        served.get("/api/health").ok();
        let address = served.address().to_owned();
        served.running.signal(signal);
        assert!(
            wait_for(|| TcpStream::connect(&address).is_err()),
            "it still listens"
        );
        half.write_all(b"\r\n").unwrap();
        let mut answer = String::new();
        half.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        let ran = served.running.end();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (_folder, db) = one_event();
    let served = Served::start(&db, &[]);
    let mut half = TcpStream::connect(served.address()).unwrap();
    half.write_all(b"GET /api/events HTTP/1.1\r\n").unwrap();
    // Accepted later, so the other one was accepted.
    served.get("/api/health").ok();
    let address = served.address().to_owned();
    served.running.signal(Signal::TERM);
    assert!(wait_for(|| TcpStream::connect(&address).is_err()));
    let mut running = served.running;
    let has_ended = wait_for(|| {
        running.signal(Signal::TERM);
        running.has_ended()
    });
    assert!(has_ended);
    // By its exit code, or by the signal itself.
    assert_ne!(running.end().code, 0);
}
