//! What `sg-embed` promises: the same event gets the same vector, whatever the jobs and whether through a
//! pipe or fused; nothing else of a line changes; and a server that fails holds nothing up.

pub(crate) mod stub;

use std::path::Path;

use serde_json::Value;

use crate::database::{SCORE, scored};
use crate::mmdb::{city, database, provider};
use crate::tools::{
    DETECTORS, Ran, Running, digest, event, event_and, generated, program, run, shell,
};
use stub::{Reply, Stub};

fn embed(args: &[&str], lines: &[u8]) -> Ran {
    run("sg-embed", args, lines)
}

/// The line without its embedding.
fn without_embedding(line: &str) -> String {
    match line.split_once(",\"embedding\":{\"model\":") {
        Some((before, _)) => format!("{before}}}"),
        None => line.to_owned(),
    }
}

#[test]
fn anomalies_get_an_embedding_and_nothing_else_changes() {
    let lines = scored(6_000, 10, 71);
    let text = String::from_utf8(lines.clone()).unwrap();
    for (args, which) in [(&[][..], "anomaly"), (&["--all"], "")] {
        let ran = embed(args, &lines).expect_code(0);
        assert_eq!(
            ran.stderr,
            "sg-embed: in 6000 = out 6000 + rejected 0 + filtered 0\n"
        );
        let mut n_embedded = 0;
        for (before, after) in text.lines().zip(ran.text().lines()) {
            assert_eq!(without_embedding(after), before);
            let event: Value = serde_json::from_str(after).unwrap();
            let is_wanted = which.is_empty() || event.get(which).is_some();
            assert_eq!(event.get("embedding").is_some(), is_wanted, "{after}");
            n_embedded += u32::from(is_wanted);
            let Some(embedding) = event.get("embedding") else {
                continue;
            };
            assert_eq!(embedding["model"], "local-1");
            assert_eq!(embedding["dim"], 256);
            assert_eq!(embedding["encoding"], "i8");
            assert_eq!(embedding["text_hash"].as_str().unwrap().len(), 16);
            let length = length(embedding) * embedding["scale"].as_f64().unwrap();
            assert!((length - 1.0).abs() < 1e-5, "{length}");
        }
        assert!(n_embedded > 50, "{n_embedded}");
        // Again, and by any number of jobs, it is the same.
        for jobs in ["-j1", "-j2", "-j7"] {
            let again = embed(&[args, &["-q", jobs]].concat(), &ran.stdout).expect_code(0);
            assert!(again.stdout == ran.stdout, "{jobs}");
        }
    }
}

fn length(embedding: &Value) -> f64 {
    let numbers = crate::similar::numbers(embedding);
    numbers
        .iter()
        .map(|number| number * number)
        .sum::<f64>()
        .sqrt()
}

/// What an event says of itself is no word of ours.
#[test]
fn an_embedding_that_an_event_brings_is_replaced_or_taken_away() {
    let own = r#""embedding":{"model":"local-1","dim":1,"text_hash":"0000000000000000","encoding":"i8","vector":"AQ=="}"#;
    let plain = event("e", "u", 1);
    let line = event_and(own);
    assert_eq!(embed(&["-q"], line.as_bytes()).text(), format!("{plain}\n"));
    let expected = embed(&["-q", "--all"], plain.as_bytes()).stdout;
    assert!(expected.len() > plain.len() + 300);
    assert!(embed(&["-q", "--all"], line.as_bytes()).stdout == expected);
    // Somebody else's field of that name stays until there is one of ours.
    let line = event_and(r#""embedding":[1,2]"#);
    assert_eq!(embed(&["-q"], line.as_bytes()).text(), format!("{line}\n"));
    assert!(embed(&["-q", "--all"], line.as_bytes()).stdout == expected);
}

#[test]
fn bytes_of_vectors_never_change() {
    // They are stored: another value here needs another name of the model.
    let line = r#"{"event_id":"e","user":"alice","timestamp":1735689600000,"type":"LOGIN_FAILED","source_ip":"203.0.113.7","geo_location":"Berlin, DE","threat_score":0.4,"status":"failed","metadata":{"device":"laptop-7"},"anomaly":{"event_id":"e","user":"alice","timestamp":1735689600000,"anomaly_score":0.99,"risk":2,"severity":"low","reasons":["3 failures in 30 min"],"archetype":"guessing / stuffing"}}"#;
    let ran = embed(&["-q"], line.as_bytes()).expect_code(0);
    let embedding = &ran.json_lines()[0]["embedding"];
    assert_eq!(embedding["text_hash"], "ab4adbd970de36e4");
    let numbers = crate::similar::numbers(embedding);
    let sum: f64 = numbers
        .iter()
        .zip(1_i32..)
        .map(|(a, i)| a * f64::from(i))
        .sum();
    assert_eq!(sum.to_string(), "-33320");
}

#[test]
fn pipe_and_fused_give_the_same_vectors() {
    for detector in DETECTORS {
        check_pipe_and_fused(detector, "", "");
        check_pipe_and_fused(detector, "=all", "--all");
    }
}

fn check_pipe_and_fused(detector: &str, which: &str, all: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    // Without places and providers, so that they are looked up, which shows in no vector.
    let lines = String::from_utf8(generated(8_000, 20, 72)).unwrap();
    let lines = lines
        .replace("\"geo_location\"", "\"was\"")
        .replace("\"asn\"", "\"was\"");
    std::fs::write(path("events"), lines).unwrap();
    let networks = ["100.64.0.0/10", "198.51.100.0/24", "203.0.113.0/24"];
    let place = city("Berlin", "DE");
    let places = networks.map(|network| (network, place.clone()));
    std::fs::write(path("places"), database("GeoLite2-City", &places)).unwrap();
    let asn = provider(64_620);
    let providers = networks.map(|network| (network, asn.clone()));
    std::fs::write(path("providers"), database("GeoLite2-ASN", &providers)).unwrap();
    let score = format!(
        "{detector} --threshold 0.5 --geoip {} --asn {}",
        path("places"),
        path("providers")
    );
    let (piped, fused, bare) = (path("piped"), path("fused"), path("bare"));
    shell(&format!(
        "sg-consume {events} | sg-score {score} | sg-embed -j3 {all} | sg-store --db {piped}
         sg-run {score} -j1 {events} --embed{which} --db {fused}
         sg-run {score} {events} --db {bare}",
        events = path("events")
    ))
    .expect_code(0);
    let sum = |db: &str| digest(Path::new(db));
    assert_eq!(sum(&piped), sum(&fused), "{detector} {all}");
    assert_ne!(sum(&fused), sum(&bare), "{detector} {all}");
    let looked_up = run("sg-query", &["export", "--db", &fused], b"");
    assert!(
        looked_up
            .text()
            .contains("\"embedding\":{\"model\":\"local-1\"")
    );
}

/// Lines of ours pass, in their place, and a pipe with it goes on where it was.
#[test]
fn checkpoints_of_a_pipe_pass() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let lines = generated(12_000, 20, 73);
    std::fs::write(path("events"), &lines).unwrap();
    let pipe = format!(
        "sg-consume -q --checkpoint-mib 1 {} --resume-from {db} | sg-score -q --threshold 0.5 --state {} | \
         tee {} | sg-embed -q --all | tee {} | sg-store -q --db {db}",
        path("events"),
        path("state"),
        path("before"),
        path("after"),
        db = path("db")
    );
    shell(&pipe).expect_code(0);
    let lines_of = |name: &str| {
        let text = std::fs::read_to_string(path(name)).unwrap();
        text.lines().map(without_embedding).collect::<Vec<_>>()
    };
    let (before, after) = (lines_of("before"), lines_of("after"));
    let n_ours = before
        .iter()
        .filter(|line| line.starts_with("{\"sg\":"))
        .count();
    assert!(n_ours > 3, "{n_ours}");
    assert!(before == after);
    // Nothing is read again.
    shell(&pipe).expect_code(0);
    assert_eq!(lines_of("after").len(), 1);
    let fused = path("fused");
    shell(&format!(
        "sg-run -q --threshold 0.5 --embed=all {} --db {fused}",
        path("events")
    ))
    .expect_code(0);
    let sum = |db: &str| digest(Path::new(db));
    assert_eq!(sum(&path("db")), sum(&fused));
}

/// Alerts are for people, to whom a vector says nothing.
#[test]
fn alerts_tell_no_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("events"), generated(8_000, 12, 74)).unwrap();
    for (name, embed) in [("with", "--embed"), ("without", "")] {
        shell(&format!(
            "sg-run -q --threshold 0.5 --min-events 20 {} {embed} --db {} --alerts-to {}",
            path("events"),
            path(&format!("db-{name}")),
            path(name)
        ))
        .expect_code(0);
    }
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap();
    assert!(read("with").len() > 1_000);
    assert_eq!(read("with"), read("without"));
}

/// What a server is asked: the arguments without those that name it.
fn ask(stub: &Stub, args: &[&str], lines: &[u8]) -> Ran {
    let url = format!("{}/v1/", stub.url());
    let common = [
        "--provider=openai",
        "--base-url",
        &url,
        "--model=m",
        "--batch=8",
    ];
    embed(&[&common[..], args].concat(), lines)
}

#[test]
fn a_server_is_asked_in_batches_and_answers_in_any_order() {
    for is_shuffled in [false, true] {
        let reply = if is_shuffled {
            Reply::Shuffled
        } else {
            Reply::Right
        };
        let stub = Stub::start(move |_| reply);
        let lines = scored(6_000, 10, 71);
        let ran = ask(&stub, &["-q", "-j2"], &lines).expect_code(0);
        let text = String::from_utf8(lines).unwrap();
        let mut n_embedded = 0;
        for (before, after) in text.lines().zip(ran.text().lines()) {
            assert_eq!(without_embedding(after), before);
            let event: Value = serde_json::from_str(after).unwrap();
            let Some(embedding) = event.get("embedding") else {
                assert!(event.get("anomaly").is_none());
                continue;
            };
            assert_eq!(
                (&embedding["model"], &embedding["dim"]),
                (&"m".into(), &4.into())
            );
            // Each has the vector of its own sentence.
            let sentence = stub.sentences().into_iter().find(|sentence| {
                stub::vector_of(sentence).map(f64::from).to_vec()
                    == crate::similar::numbers(embedding)
            });
            let sentence = sentence.unwrap();
            assert!(
                sentence.contains(event["user"].as_str().unwrap()),
                "{sentence}"
            );
            assert!(
                sentence.contains(event["type"].as_str().unwrap()),
                "{sentence}"
            );
            n_embedded += 1;
        }
        assert!(n_embedded > 50);
        let requests = stub.requests();
        assert_eq!(
            requests.iter().map(|it| it.texts.len()).sum::<usize>(),
            n_embedded
        );
        for request in requests {
            assert!(request.texts.len() <= 8);
            assert!(request.head.starts_with("POST /v1/embeddings HTTP/1.1\r\n"));
            assert_eq!(request.body["model"], "m");
            assert_eq!(request.body["encoding_format"], "float");
            assert!(!request.head.to_lowercase().contains("authorization"));
        }
    }
}

/// Events with an anomaly of their own.
fn few(n_events: usize) -> String {
    let line = |i: usize| {
        let member = format!(
            r#""anomaly":{{"event_id":"e{i}","user":"u{i}","timestamp":{i},"anomaly_score":1,"severity":"low"}}}}"#
        );
        let event = event(&format!("e{i}"), &format!("u{i}"), i as i64);
        format!("{},{member}\n", &event[..event.len() - 1])
    };
    (0..n_events).map(line).collect()
}

#[test]
fn what_a_server_does_wrong_holds_no_event_up() {
    let lines = few(20);
    // What it does, what is said, and how many requests it takes: one for each batch of eight, and one
    // more for each try. What is about one text is asked for by halves.
    for (reply, words, n_requests) in [
        (
            Reply::Status(401, ""),
            "answered 401: look after the key",
            3,
        ),
        (
            Reply::Status(403, ""),
            "answered 403: look after the key",
            3,
        ),
        (Reply::Status(404, ""), "answered 404", 3),
        (
            Reply::Status(302, "Location: /elsewhere\r\n"),
            "answered 302",
            3,
        ),
        (Reply::Status(429, "Retry-After: 0\r\n"), "answered 429", 6),
        (Reply::Status(500, ""), "answered 500", 6),
        (Reply::Status(400, ""), "answered 400", 15 + 15 + 7),
        (Reply::Garbage, "is not one with embeddings", 6),
        (Reply::WrongCount, "8 texts got 7 vectors", 3),
        (Reply::WrongIndex, "not numbered as the texts", 3),
        (Reply::WrongDim, "a vector has 5 numbers, not 4", 3),
        (Reply::Endless, "is not one with embeddings", 6),
        (
            Reply::NotFinite,
            "is not one with embeddings|have numbers that are none|has numbers",
            3,
        ),
        (Reply::Cut, "no embeddings from", 6),
        (Reply::Hang, "no answer within 1 s", 6),
    ] {
        let stub = Stub::start(move |_| reply);
        let args = ["--retries=1", "--dimensions=4", "--timeout=1", "-j1"];
        let ran = ask(&stub, &args, lines.as_bytes()).expect_code(1);
        assert_eq!(ran.text(), lines, "{reply:?}");
        let is_said = words.split('|').any(|words| ran.stderr.contains(words));
        assert!(is_said, "{reply:?}: {}", ran.stderr);
        assert!(
            ran.stderr
                .contains("20 events have passed on without embedding, 0 have got one"),
            "{}",
            ran.stderr
        );
        assert!(
            ran.stderr
                .contains("in 20 = out 20 + rejected 0 + filtered 0")
        );
        let n_found = stub.requests().len();
        if !matches!(reply, Reply::NotFinite | Reply::Endless) {
            assert_eq!(n_found, n_requests, "{reply:?}: {}", ran.stderr);
        }
        assert!(!ran.stderr.contains("no secrets here"), "{}", ran.stderr);
    }
}

/// A server that is away is left alone after three requests: the stream goes on at its own pace.
#[test]
fn a_server_that_is_away_is_left_alone() {
    let stub = Stub::start(|_| Reply::Status(503, ""));
    let ran = ask(&stub, &["--retries=0", "-j1"], few(200).as_bytes()).expect_code(1);
    assert_eq!(stub.requests().len(), 3, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("is left alone for 30 s"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("200 events have passed on without"),
        "{}",
        ran.stderr
    );
    // Nobody there at all.
    let url = stub.url();
    drop(stub);
    let args = [
        "--provider=openai",
        "--base-url",
        &url,
        "--model=m",
        "--retries=0",
    ];
    let ran = embed(&args, few(3).as_bytes()).expect_code(1);
    assert_eq!(ran.text(), few(3));
}

#[test]
fn a_request_that_failed_is_made_again() {
    for reply in [
        Reply::Status(429, "Retry-After: 0\r\n"),
        Reply::Status(500, ""),
        Reply::Garbage,
        Reply::Cut,
    ] {
        let stub = Stub::start(move |n_before| if n_before < 2 { reply } else { Reply::Right });
        let ran = ask(&stub, &["-q", "-j1"], few(5).as_bytes()).expect_code(0);
        let n_embedded = ran
            .json_lines()
            .iter()
            .filter(|it| it["embedding"]["dim"] == 4)
            .count();
        assert_eq!((n_embedded, stub.requests().len()), (5, 3), "{reply:?}");
    }
    // One text of eight that it does not like costs the others nothing.
    let stub = Stub::start(|_| Reply::RefuseUser("u3"));
    let ran = ask(&stub, &["-j1"], few(8).as_bytes()).expect_code(1);
    let without: Vec<_> = ran.json_lines();
    let without = without.iter().filter(|it| it.get("embedding").is_none());
    let without: Vec<_> = without.map(|it| it["user"].as_str().unwrap()).collect();
    assert_eq!(without, ["u3"]);
    assert!(
        ran.stderr
            .contains("1 events have passed on without embedding, 7 have got one")
    );
}

#[test]
fn keys_are_sent_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let shown = file.display().to_string();
    std::fs::write(&file, "sk-hunter2\n").unwrap();
    let check = |stub: &Stub, ran: &Ran, key: &str| {
        let expected = format!("authorization: Bearer {key}\r\n");
        for request in stub.requests() {
            assert!(request.head.contains(&expected), "{}", request.head);
        }
        assert!(!stub.requests().is_empty());
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    };
    for (reply, code) in [(Reply::Right, 0), (Reply::Status(401, ""), 1)] {
        let stub = Stub::start(move |_| reply);
        let ran = ask(&stub, &["--api-key-file", &shown], few(2).as_bytes()).expect_code(code);
        check(&stub, &ran, "sk-hunter2");
        let url = stub.url().replace("http://", "http://hunter2:hunter2@");
        let stub = Stub::start(move |_| reply);
        let mut command = program("sg-embed");
        let lines = folder.path().join("lines");
        std::fs::write(&lines, few(2)).unwrap();
        let output = command
            .args(["--provider=openai", "--model=m", "--base-url", &stub.url()])
            .env("OPENAI_API_KEY", "sk-hunter2-of-variable")
            .stdin(std::fs::File::open(&lines).unwrap())
            .output()
            .unwrap();
        let ran = Ran {
            code: output.status.code().unwrap(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        check(&stub, &ran.expect_code(code), "sk-hunter2-of-variable");
        // The base may be named without the version.
        let head = &stub.requests()[0].head;
        assert!(head.starts_with("POST /v1/embeddings "), "{head}");
        let args = [
            "--provider=openai",
            "--model=m",
            "--retries=0",
            "--base-url",
            &url,
        ];
        let ran = embed(&args, few(2).as_bytes());
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    }
    for key in ["", "\n", "a b", "a\r\nHost: x", "ü", "\u{1b}[2J"] {
        std::fs::write(&file, key).unwrap();
        let args = ["--provider=openai", "--model=m", "--api-key-file", &shown];
        let ran = embed(&args, b"").expect_code(2);
        assert!(ran.stderr.contains("is not a key"), "{}", ran.stderr);
    }
}

#[test]
fn wrong_usage_is_told() {
    for (args, words) in [
        (&["--provider=openai"][..], "needs --model"),
        (
            &["--provider=openai", "--model="],
            "--model is to be a model of the server",
        ),
        (&["--provider=openai", "--model=local-1"], "and not local-1"),
        (&["--model=m"], "--model goes with --provider openai"),
        (
            &["--provider=openai", "--model=m", "--base-url=ftp://h"],
            "--base-url is not a URL",
        ),
        (
            &["--provider=openai", "--model=m", "--api-key-file=/nowhere"],
            "cannot read /nowhere",
        ),
        (&["--dimensions=0"], "expected 1..=8192"),
        (&["--batch=0"], "--batch"),
        (&["--provider=x"], "--provider"),
    ] {
        let ran = embed(args, b"").expect_code(2);
        assert!(ran.stderr.contains(words), "{args:?}: {}", ran.stderr);
    }
}

/// Whoever asks it to stop does not wait for a server.
#[test]
fn a_request_to_stop_ends_the_tries() {
    let stub = Stub::start(|_| Reply::Status(503, "Retry-After: 25\r\n"));
    let url = stub.url();
    let args = [
        "--provider=openai",
        "--model=m",
        "--retries=10",
        "--base-url",
        &url,
    ];
    let mut running = Running::start("sg-embed", &args);
    let mut stdin = running.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, few(1).as_bytes()).unwrap();
    assert!(crate::tools::wait_for(|| !stub.requests().is_empty()));
    running.signal(rustix::process::Signal::TERM);
    let ran = running.end();
    assert_eq!((ran.code, ran.text()), (1, &*few(1)), "{}", ran.stderr);
    drop(stdin);
}

#[test]
fn settings_of_scoring_do_not_matter_to_it() {
    // An anomaly that is none of ours is somebody's field.
    let line = event_and(r#""anomaly":{"event_id":7}"#);
    let ran = embed(&["-q"], line.as_bytes()).expect_code(0);
    assert_eq!(ran.text(), format!("{line}\n"));
    let scored = run("sg-score", &SCORE, &generated(10, 2, 1)).expect_code(0);
    assert!(embed(&["-q"], &scored.stdout).expect_code(0).stdout == scored.stdout);
}
