//! Webhooks: what they hold, and what becomes of them when the other side fails.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::stub::{Message, OK, Reply, SECRET, Stub};
use super::{Site, emitted, once};
use crate::database::{admin, lines_of};
use crate::kills::kill_and_repeat;
use crate::tools::{Running, digest, generated, n_lines, run, testdata, wait_within, write_secret};

/// A log of which that many alerts come, and more lines after them; the lines of the alerts.
fn site(n_alerts: usize) -> (Site, Vec<String>) {
    let lines = generated(20_000, 40, 301);
    let pieces = lines_of(&lines);
    let expected = emitted(&lines, "incidents");
    let last: Value = serde_json::from_slice(lines_of(&expected)[n_alerts - 1]).unwrap();
    let id = format!("\"{}\"", last["event_id"].as_str().unwrap());
    let has_id = |line: &&[u8]| String::from_utf8_lossy(line).contains(&id);
    let end = pieces.iter().position(has_id).unwrap() + 1;
    let site = Site::new(&pieces[..end].concat());
    write_secret(site.path("secret"), SECRET);
    (
        site,
        as_values(lines_of(&expected)[..n_alerts].iter().copied()),
    )
}

/// Lines as a JSON library writes them, since messages are read by one.
fn as_values<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let values = lines.into_iter();
    values
        .map(|line| format!("{}\n", serde_json::from_slice::<Value>(line).unwrap()))
        .collect()
}

fn webhook_args<'a>(target: &'a str, secret: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args = ["--alerts-to", target, "--webhook-secret-file", secret];
    [&args[..], more].concat()
}

impl Site {
    /// Starts `sg-run`; it ends by itself once all is read and told.
    fn start(&self, target: &str, more: &[&str]) -> Running {
        let secret = self.text("secret");
        let args = self.args("db", &webhook_args(target, &secret, more));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Running::start("sg-run", &args)
    }
}

#[track_caller]
fn end(mut running: Running, code: i32) -> String {
    assert!(wait_within(Duration::from_secs(25), || running.has_ended()));
    let ran = running.end().expect_code(code);
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    let control = ran
        .stderr
        .bytes()
        .find(|&byte| byte < b' ' && byte != b'\n');
    assert_eq!(control, None, "{}", ran.stderr);
    ran.stderr
}

#[test]
fn messages_are_signed_and_in_order() {
    let (site, expected) = site(60);
    let stub = Stub::start(|_, _| OK);
    let said = end(site.start(&stub.target(), &[]), 0);
    let address = stub.address;
    let told = format!("sg-run: alerts to webhook:http://{address}: sent 60\n");
    assert!(said.contains(&told), "{said}");
    assert_eq!(stub.lines(), expected);
    let messages = stub.messages();
    let ids = once(messages.iter().map(|message| message.id.clone()));
    assert_eq!(ids.len(), 60);
    let Message { head, body, id, .. } = &messages[0];
    assert!(
        head.starts_with("POST /hunter2?token=hunter2 HTTP/1.1\r\n"),
        "{head}"
    );
    let head = head.to_lowercase();
    for line in [
        &format!("user-agent: streamguard/{}\r\n", env!("CARGO_PKG_VERSION")),
        "content-type: application/json\r\n",
        "authorization: basic dxnlcjpodw50zxiy\r\n",
    ] {
        assert!(head.contains(line), "{head}");
    }
    assert!(id.starts_with("alert_") && id.len() == 38, "{id}");
    assert_eq!(body["type"], "anomaly");
    let timestamp_ms = body["data"]["timestamp"].as_i64().unwrap();
    let timestamp = body["timestamp"].as_str().unwrap();
    assert!(
        timestamp.starts_with("20") && timestamp.ends_with('Z'),
        "{timestamp}"
    );
    assert!(
        timestamp.contains(&format!(".{:03}", timestamp_ms % 1_000)),
        "{timestamp}"
    );
    // What the database knows of it is no secret.
    let text = super::entries(&site.path("db"));
    assert_eq!(text.len(), 1);
    assert!(!text[0].0.contains("hunter2"), "{text:?}");
}

/// The variable, and two secrets while one is replaced.
#[test]
fn secrets_may_be_replaced() {
    let (site, expected) = site(5);
    let stub = Stub::start(|_, _| OK);
    let other = "whsec_b3RoZXItdGVzdC1zZWNyZXQtMDEyMzQ1Njc4OQ==";
    let mut command = site.command("db", &["-q", "--alerts-to", &stub.target()]);
    let status = command
        .env("SG_WEBHOOK_SECRET", format!("{other}\n{SECRET}\n"))
        .status();
    assert!(status.unwrap().success());
    assert_eq!(stub.lines(), expected);
    assert!(stub.messages()[0].head.matches("v1,").count() == 2);
}

/// Whoever is not trusted gets nothing.
#[test]
fn certificates_are_checked() {
    let (site, expected) = site(5);
    let stub = Stub::start_tls();
    let said = end(site.start(&stub.target(), &[]), 1);
    assert!(
        said.contains(": invalid peer certificate: UnknownIssuer; trying again"),
        "{said}"
    );
    assert!(said.contains("waiting 5: they go out"), "{said}");
    assert!(stub.messages().is_empty());
    let mut command = site.command("db", &["-q", "--alerts-to", &stub.target()]);
    command.env("SG_WEBHOOK_SECRET", SECRET);
    let status = command
        .env("SSL_CERT_FILE", testdata("tls/cert.pem"))
        .status();
    assert!(status.unwrap().success());
    assert_eq!(stub.lines(), expected);
    let mut command = site.command("db", &["-q", "--alerts-to", &stub.target()]);
    command.env("SG_WEBHOOK_SECRET", SECRET);
    let ran = command
        .env("SSL_CERT_FILE", "/no/such/file")
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(2));
}

/// Every way to fail that passes: each message is tried until it is taken, those behind it wait.
#[test]
fn what_fails_is_tried_again() {
    let (site, expected) = site(10);
    let replies = [
        Reply::Status(500, ""),
        OK,
        Reply::Cut,
        Reply::Status(404, ""),
        OK,
        Reply::Status(503, "Retry-After: 2\r\n"),
        OK,
        Reply::Status(302, "Location: http://127.0.0.1:9/\r\n"),
        OK,
        Reply::Gibberish,
        OK,
        Reply::Endless,
        Reply::Status(429, "Retry-After: Wed, 01 Jan 2025 00:00:00 GMT\r\n"),
    ];
    let stub = Stub::start(move |n_before, _| *replies.get(n_before).unwrap_or(&OK));
    // Without an end, so that there is all the time that it takes.
    let running = site.start(&stub.target(), &["--follow"]);
    let is_told = || stub.lines().len() >= expected.len();
    assert!(
        wait_within(Duration::from_secs(60), is_told),
        "{}",
        running.stderr()
    );
    running.signal(Signal::TERM);
    let said = end(running, 0);
    assert_eq!(stub.lines(), expected);
    let messages = stub.messages();
    // The same message under the same id, each time signed anew.
    assert_eq!(messages[0].id, messages[1].id);
    assert_eq!(messages[2].id, messages[4].id);
    assert_eq!(messages[2].body, messages[4].body);
    let waited = messages[6].at - messages[5].at;
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
    for words in [
        "answered 500; trying again\n",
        "answered 404; trying again\n",
        "answered 503; trying again\n",
        "answered 302, and redirects are not followed; trying again\n",
        "the answer is not HTTP; trying again\n",
        "answered 429; trying again\n",
        "they get through again\n",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// One that is never taken does not block those behind it.
#[test]
fn a_message_that_is_refused_is_put_aside() {
    let (site, mut expected) = site(8);
    let bad: Value = serde_json::from_str(&expected[3]).unwrap();
    let bad_id = bad["event_id"].as_str().unwrap().to_owned();
    let id = bad_id.clone();
    let stub = Stub::start(move |_, message| {
        if message.event_id() == id {
            Reply::Status(422, "")
        } else {
            OK
        }
    });
    let dead = site.text("dead");
    let said = end(site.start(&stub.target(), &["--dead-letter", &dead]), 1);
    let refused = expected.remove(3);
    assert_eq!(stub.lines(), expected);
    assert_eq!(stub.messages().len(), 10);
    assert!(said.contains(": sent 7, refused 1\n"), "{said}");
    assert!(
        said.contains(&format!(
            "the one on event {bad_id} is refused (answered 422)"
        )),
        "{said}"
    );
    let letter: Value = serde_json::from_slice(&site.read("dead")).unwrap();
    assert_eq!(letter["reason"]["code"], "alert_refused");
    assert!(!letter.to_string().contains("hunter2"), "{letter}");
    // It can be read again, and is known.
    let read = run("sg-consume", &["-q", "--replay", &dead], b"").expect_code(0);
    assert_eq!(as_values(lines_of(&read.stdout)), [refused]);
    let args = ["--db", &site.text("db"), "--replay", &dead];
    let ran = run("sg-run", &args, b"").expect_code(0);
    assert!(
        ran.stderr
            .contains("in 1 = out 0 + rejected 0 + filtered 1"),
        "{}",
        ran.stderr
    );
}

/// Nobody waits for a target that is away, and nothing is lost for it.
#[test]
fn a_dead_webhook_holds_up_nothing() {
    let lines = generated(60_000, 60, 311);
    let site = Site::new(&lines);
    write_secret(site.path("secret"), SECRET);
    let expected = as_values(lines_of(&emitted(&lines, "incidents")));
    let stub = Stub::start(|_, _| OK);
    let (address, target) = (stub.address, stub.target());
    drop(stub);
    let start = Instant::now();
    let running = site.start(&target, &["--alerts-to", &site.text("file")]);
    let is_told = || n_lines(&site.read("file")) == expected.len();
    assert!(
        wait_within(Duration::from_secs(20), is_told),
        "{}",
        running.stderr()
    );
    let said = end(running, 1);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    let n = expected.len();
    for words in [
        "sg-run: in 60000 = out 60000 + rejected 0 + filtered 0\n".to_owned(),
        format!("file: sent {n}\n"),
        format!("webhook:http://{address}: sent 0, waiting {n}: they go out with the next run\n"),
    ] {
        assert!(said.contains(&words), "{words}: {said}");
    }
    assert_eq!(said.matches("onnection refused").count(), 1, "{said}");
    digest(&site.path("db"));
    // It comes back, some events go, and the rest is told in order.
    let oldest: Value = serde_json::from_str(&expected[9]).unwrap();
    let before = format!("--before={}", oldest["timestamp"]);
    admin("prune", &site.path("db"), &[&before]).expect_code(0);
    let stub = Stub::start_at(&address, |_, _| OK);
    let running = site.start(&target, &["--alerts-to", &site.text("file")]);
    let said = end(running, 0);
    assert_eq!(stub.lines(), expected[9..]);
    assert!(
        said.contains(&format!(
            "sent {}, removed from the store before 9\n",
            n - 9
        )),
        "{said}"
    );
    assert_eq!(n_lines(&site.read("file")), n);
}

/// Whoever is slow is waited for at the end, unless somebody wants it to stop.
#[test]
fn a_slow_webhook_is_told_everything() {
    let (site, expected) = site(30);
    let slow = |_: usize, _: &Message| {
        std::thread::sleep(Duration::from_millis(500));
        OK
    };
    let stub = Stub::start(slow);
    end(site.start(&stub.target(), &["-q"]), 0);
    assert_eq!(stub.lines(), expected);
    std::fs::remove_dir_all(site.path("db")).unwrap();
    let stub = Stub::start(slow);
    let running = site.start(&stub.target(), &["--follow"]);
    assert!(wait_within(Duration::from_secs(7), || !stub
        .messages()
        .is_empty()));
    running.signal(Signal::TERM);
    let start = Instant::now();
    let said = end(running, 1);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(13), "{took:?}");
    assert!(said.contains("they go out with the next run"), "{said}");
    let n_told = stub.lines().len();
    assert!(
        n_told > 10 && stub.lines() == expected[..n_told],
        "{n_told}"
    );
}

/// A second signal does not wait for anybody.
#[test]
fn a_second_signal_ends_it_at_once() {
    let (site, _) = site(3);
    let stub = Stub::start(|_, _| Reply::Hang);
    let running = site.start(&stub.target(), &["--follow"]);
    assert!(wait_within(Duration::from_secs(7), || !stub
        .messages()
        .is_empty()));
    running.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    running.signal(Signal::TERM);
    assert_eq!(running.end().code, 143);
    assert!(start.elapsed() < Duration::from_secs(2));
    // They are told the next time, first the one that may have come.
    let first = stub.messages()[0].id.clone();
    let address = stub.address;
    drop(stub);
    let stub = Stub::start_at(&address, |_, _| OK);
    end(site.start(&stub.target(), &[]), 0);
    assert_eq!(stub.lines().len(), 3);
    assert_eq!(stub.messages()[0].id, first);
}

/// A server that says nothing costs ten seconds at the end.
#[test]
fn a_webhook_that_hangs_does_not_hold_up_the_end() {
    let (site, _) = site(3);
    let stub = Stub::start(|_, _| Reply::Hang);
    let start = Instant::now();
    let said = end(site.start(&stub.target(), &[]), 1);
    let took = start.elapsed();
    assert!(
        Duration::from_secs(8) < took && took < Duration::from_secs(14),
        "{took:?}"
    );
    assert!(said.contains("waiting 3: they go out"), "{said}");
}

#[test]
fn a_killed_run_tells_every_webhook_in_the_end() {
    let lines = generated(150_000, 60, 313);
    let site = Site::new(&lines);
    write_secret(site.path("secret"), SECRET);
    let expected = as_values(lines_of(&emitted(&lines, "incidents")));
    // It fails now and then, too.
    let stub = Stub::start(|n_before, _| match n_before % 40 {
        39 => Reply::Cut,
        _ => OK,
    });
    let (target, secret) = (stub.target(), site.text("secret"));
    let args = webhook_args(
        &target,
        &secret,
        &["-q", "--memtable-mib=1", "--checkpoint-mib=2"],
    );
    let n_killed = kill_and_repeat(&|| site.command("db", &args).spawn().unwrap(), 10, 211);
    assert!(n_killed >= 8, "it was too fast to be killed: {n_killed}");
    // Whoever is slow needs several runs.
    for _ in 0..20 {
        if site.run("db", &args).code == 0 {
            break;
        }
    }
    site.run("db", &args).expect_code(0);
    let found = stub.lines();
    assert!(expected.len() > 100, "{}", expected.len());
    assert!(
        found.len() <= expected.len() + 12 + found.len() / 30,
        "{}",
        found.len()
    );
    assert!(once(found) == expected);
    site.run("quiet", &["-q"]).expect_code(0);
    assert_eq!(digest(&site.path("db")), digest(&site.path("quiet")));
}

/// What somebody puts into an event stays a value of the message, and does nothing to a terminal.
#[test]
fn hostile_values_stay_values() {
    let hostile = r#"\"}],\u0000\n\r\n\r\nHTTP/1.1 200 OK\u001b[2J\u202e"#;
    let user = "a\\n\\u001b]0;x\\u0007";
    let line = |i: i64| {
        let usual = ("LOGIN_SUCCESS", "203.0.113.7");
        let unusual = ("X\\n\\u001b[2J", "198.51.100.9");
        let (kind, ip) = if i < 290 { usual } else { unusual };
        let time = 1_735_689_600_000 + i * 600_000;
        let rest = format!("\"source_ip\":\"{ip}\",\"metadata\":{{\"n\":\"{hostile}\"}}");
        format!(
            "{{\"event_id\":\"e.{i}\u{202e}\",\"user\":\"{user}\",\"timestamp\":{time},\
             \"type\":\"{kind}\",{rest}}}\n"
        )
    };
    let lines: String = (0..300).map(line).collect();
    let site = Site::new(lines.as_bytes());
    write_secret(site.path("secret"), SECRET);
    let expected = as_values(lines_of(&emitted(lines.as_bytes(), "anomalies")));
    assert!(expected.len() > 1, "{}", expected.len());
    let stub = Stub::start(|n_before, _| {
        if n_before == 0 {
            OK
        } else {
            Reply::Status(400, "")
        }
    });
    let said = end(site.start(&stub.target(), &["--alerts=anomalies"]), 1);
    assert!(said.contains("is refused"), "{said}");
    assert_eq!(stub.lines(), expected[..1]);
}
