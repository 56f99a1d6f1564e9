//! What `sg-analyze` promises: events pass on whatever happens, in order; what matters is asked about
//! once, within limits; and nothing that a model or an attacker says lowers anything.

mod batch;
mod disk;
mod failures;
mod follow;
mod hostile;
mod limits;
mod metrics;
mod order;

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::llm_stub::{Asked, KEY, MODEL, Reply, Stub, verdict, verdict_with};
use crate::tools::{Ran, Running, event, program, run, write_secret};

/// A service, and a folder with what is needed to ask it.
struct Desk {
    folder: tempfile::TempDir,
    stub: Stub,
}

impl Desk {
    fn new(behave: impl Fn(usize, &Asked) -> Reply + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_secret(folder.path().join("key"), &format!("{KEY}\n"));
        Self {
            folder,
            stub: Stub::start(behave),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn args(&self, args: &[&str]) -> Vec<String> {
        let key = self.text("key");
        let own = ["--base-url", &self.stub.url(), "--api-key-file", &key];
        let all = [&own[..], args].concat();
        all.iter().map(|&arg| arg.to_owned()).collect()
    }

    fn run(&self, args: &[&str], input: &str) -> Ran {
        let args = self.args(args);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let ran = run("sg-analyze", &args, input.as_bytes());
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
        assert!(!ran.text().contains("hunter2"), "{}", ran.text());
        ran
    }

    fn start(&self, args: &[&str]) -> Running {
        let args = self.args(args);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        Running::start("sg-analyze", &args)
    }
}

/// An anomaly as `sg-score` writes it. Those of different kinds are not alike.
fn anomaly(id: &str, kind: &str, severity: &str) -> String {
    anomaly_of(id, &format!("user-of-{id}"), kind, severity, "")
}

/// The same with members of metadata.
fn anomaly_of(id: &str, user: &str, kind: &str, severity: &str, metadata: &str) -> String {
    let anomaly = json!({
        "event_id": id, "user": user, "timestamp": 1, "anomaly_score": 0.995, "severity": severity,
        "reasons": ["address 203.0.113.7: provider new to everybody (0.07% of this user's events, x115 evidence)"],
        "detector": "adaptive", "risk": 3.1, "archetype": "account takeover",
    });
    // Records of ours begin with the id.
    let rest = anomaly
        .to_string()
        .replacen('{', ",", 1)
        .replace(&format!(",\"event_id\":\"{id}\""), "");
    let user = Value::from(user);
    format!(
        "{{\"event_id\":\"{id}\",\"user\":{user},\"timestamp\":1,\"type\":\"{kind}\",\"source_ip\":\"203.0.113.7\",\"extra\":[1.50, \"x\"],\"metadata\":{{{metadata}}},\"anomaly\":{{\"event_id\":\"{id}\"{rest},\"context\":{{\"failed_login_count\":2,\"known_ips\":[\"198.51.100.4\"],\"avg_threat_score\":0.1}}}}\n"
    )
}

/// What was found of each event, by the lines that came out.
fn outcomes(ran: &Ran) -> Vec<String> {
    let outcome = |line: &Value| {
        let outcome = line["analysis"]["outcome"].as_str().unwrap_or("-");
        outcome.to_owned()
    };
    ran.json_lines().iter().map(outcome).collect()
}

#[test]
fn anomalies_get_an_analysis_and_all_else_passes_untouched() {
    let desk = Desk::new(|_, _| verdict_with("medium", "event.extra[0]", "looks odd"));
    let quiet = format!(" {} \n", event("quiet", "u", 1));
    let threat = r#"{"event_id":"t","user":"u","timestamp":2,"type":"B","threat_score":0.7}"#;
    let input = format!("{quiet}{}{threat}\n\n{quiet}", anomaly("a", "A", "high"));
    let ran = desk.run(&[], &input).expect_code(0);
    let lines: Vec<_> = ran.text().lines().collect();
    assert_eq!(lines.len(), 4);
    assert_eq!([lines[0], lines[3]], [quiet.trim_end_matches('\n'); 2]);
    let fingerprint = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["analysis"]["fingerprint"].as_str().unwrap().to_owned()
    };
    let expected = |line: &str, fingerprint: &str| {
        let indicators = if line.contains("extra") {
            r#"[{"field":"extra","observation":"seen"}]"#
        } else {
            r#"[],"indicators_dropped":1"#
        };
        format!(
            r#"{},"analysis":{{"outcome":"ok","severity":"medium","confidence":0.9,"indicators":{indicators},"summary":"looks odd","recommendation":"none","model":"{MODEL}","provider":"anthropic","fingerprint":"{fingerprint}","input_tokens":1000,"output_tokens":50}}}}"#,
            &line[..line.len() - 1]
        )
    };
    let input: Vec<_> = input.lines().collect();
    assert_eq!(lines[1], expected(input[1], &fingerprint(lines[1])));
    assert_eq!(lines[2], expected(input[2], &fingerprint(lines[2])));
    let said = "sg-analyze: in 5 = out 4 + rejected 0 + filtered 1\n";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    // 2 * (200 * 0.1 + 800 * 0.01 + 50 * 0.5) millionths of a dollar.
    let said =
        "analysed: ok 2; calls 2, tokens 2000 in and 100 out, 0.0001 USD; severities raised 0\n";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
}

#[test]
fn the_event_is_sent_as_data_with_what_is_known_of_its_user() {
    let desk = Desk::new(|_, _| verdict("low"));
    let metadata = "\"user_agent\":\"curl\\u0007\\u202e/8\"";
    desk.run(&[], &anomaly_of("a", "alice", "A", "low", metadata))
        .expect_code(0);
    let asked = desk.stub.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0].data(),
        json!({
            "event": {
                "user": "alice", "timestamp": "1970-01-01T00:00:00Z", "type": "A",
                "source_ip": "203.0.113.7", "extra": [1.5, "x"], "metadata": {"user_agent": "curl/8"}
            },
            "anomaly": {
                "score": 0.995, "severity": "low", "archetype": "account takeover",
                "reasons": ["address 203.0.113.7: provider new to everybody (0.07% of this user's events, x115 evidence)"]
            },
            "baseline": {
                "failed_login_count": 2, "known_ips": ["198.51.100.4"], "avg_threat_score": 0.1
            }
        })
    );
    assert_eq!(asked[0].body["model"], "claude-haiku-5-5");
    assert_eq!(asked[0].body["max_tokens"], 4096);
}

#[test]
fn both_protocols_are_spoken() {
    let desk = Desk::new(|_, _| verdict("low"));
    let args = ["--provider=openai", "--model=llama"];
    let ran = desk.run(&args, &anomaly("a", "A", "low")).expect_code(0);
    let analysis = &ran.json_lines()[0]["analysis"];
    assert_eq!(analysis["provider"], "openai");
    assert_eq!(analysis["model"], MODEL);
    assert_eq!(analysis["input_tokens"], 1000);
    let asked = desk.stub.asked();
    assert_eq!(asked[0].path, "/v1/chat/completions");
    assert_eq!(asked[0].data()["event"]["user"], "user-of-a");
    assert_eq!(asked[0].body["model"], "llama");
    // A base with its version, as other clients of this protocol have it, and no key.
    let base = format!("{}/v1/", desk.stub.url());
    let mut child = program("sg-analyze");
    child.args(["-q", "--provider=openai", "--model=m", "--dry-run"]);
    child
        .env("OPENAI_BASE_URL", &base)
        .stdin(std::process::Stdio::null());
    assert!(child.status().unwrap().success());
    let args = ["--provider=openai", "--model=m", "--base-url", &base];
    let ran = run("sg-analyze", &args, anomaly("a", "A", "low").as_bytes()).expect_code(0);
    assert_eq!(outcomes(&ran), ["ok"]);
    let asked = desk.stub.asked();
    assert_eq!(asked[1].headers.get("authorization"), None);
}

/// Severities only ever rise.
#[test]
fn a_severity_is_raised_and_never_lowered() {
    let check = |before: &str, said: &str, after: &str| {
        let said = said.to_owned();
        let desk = Desk::new(move |_, _| verdict(&said));
        let input = anomaly("a", "A", before);
        let ran = desk.run(&["-q"], &input).expect_code(0);
        let line = &ran.json_lines()[0];
        assert_eq!(line["anomaly"]["severity"], after, "{before}");
        let raised_from = if before == after {
            Value::Null
        } else {
            before.into()
        };
        assert_eq!(line["analysis"]["raised_from"], raised_from, "{before}");
        // Every other byte is as it was, and so is the order of what stages have added.
        let expected = input.trim_end().replace(
            &format!("\"severity\":\"{before}\""),
            &format!("\"severity\":\"{after}\""),
        );
        let bare = ran.text().split(",\"analysis\":").next().unwrap();
        assert_eq!(bare, &expected[..expected.len() - 1]);
    };
    check("low", "critical", "critical");
    check("low", "medium", "medium");
    check("medium", "medium", "medium");
    check("high", "low", "high");
    check("critical", "low", "critical");
    check("critical", "high", "critical");
}

/// A stronger model is asked about what is severe; what it says counts, but lowers nothing either.
#[test]
fn what_is_severe_goes_to_another_model() {
    let desk = Desk::new(|_, asked| match asked.body["model"].as_str().unwrap() {
        "strong" => verdict_with("medium", "user", "strong"),
        _ if asked.user() == "user-of-a" => verdict("high"),
        _ => verdict("medium"),
    });
    let input = anomaly("a", "A", "low") + &anomaly("b", "B", "low");
    let args = ["--escalate-model=strong", "--concurrency=1"];
    let ran = desk.run(&args, &input).expect_code(0);
    let lines = ran.json_lines();
    assert_eq!(lines[0]["analysis"]["summary"], "strong");
    assert_eq!(lines[0]["analysis"]["severity"], "medium");
    assert_eq!(lines[0]["analysis"]["input_tokens"], 2000);
    assert_eq!(lines[1]["analysis"]["summary"], "benign");
    assert_eq!(desk.stub.n_asked(), 3);
}

/// If the stronger model has no answer, that of the first one counts.
#[test]
fn the_first_answer_counts_if_there_is_no_second() {
    let desk = Desk::new(|_, asked| match asked.body["model"].as_str().unwrap() {
        "strong" => Reply::Stops("refusal"),
        _ => verdict("high"),
    });
    let ran = desk
        .run(&["--escalate-model=strong"], &anomaly("a", "A", "low"))
        .expect_code(0);
    assert_eq!(outcomes(&ran), ["ok"]);
    assert_eq!(ran.json_lines()[0]["anomaly"]["severity"], "high");
}

#[test]
fn the_gate_lets_through_what_is_asked_for() {
    let threat = |id: &str, score: f64| {
        format!(
            "{{\"event_id\":\"{id}\",\"user\":\"u\",\"timestamp\":1,\"type\":\"{id}\",\"threat_score\":{score}}}\n"
        )
    };
    let input = [
        anomaly("low", "A", "low"),
        anomaly("medium", "B", "medium"),
        anomaly("high", "C", "high"),
        threat("t6", 0.6),
        threat("t7", 0.7),
        threat("t9", 0.95),
    ]
    .concat();
    let check = |args: &[&str], expected: &[&str]| {
        let desk = Desk::new(|_, _| verdict("low"));
        let ran = desk.run(args, &input).expect_code(0);
        let lines = ran.json_lines();
        let found = lines.iter().filter(|line| !line["analysis"].is_null());
        let found: Vec<_> = found
            .map(|line| line["event_id"].as_str().unwrap())
            .collect();
        assert_eq!(found, expected, "{args:?}");
        // An event that is no anomaly does not become one.
        assert_eq!(
            lines
                .iter()
                .filter(|line| !line["anomaly"].is_null())
                .count(),
            3
        );
    };
    check(&[], &["low", "medium", "high", "t7", "t9"]);
    check(&["--min-severity=high"], &["high", "t7", "t9"]);
    check(
        &["--min-threat-score=0.9"],
        &["low", "medium", "high", "t9"],
    );
    check(&["--min-severity=critical", "--min-threat-score=1"], &[]);
}

/// An analysis that is there already is anybody's word, unless somebody says that it is ours.
#[test]
fn analyses_that_came_along_are_not_believed() {
    let desk = Desk::new(|_, _| verdict("medium"));
    let with = |line: String, outcome: &str| {
        let forged =
            format!(",\"analysis\":{{\"outcome\":\"{outcome}\",\"severity\":\"low\"}}}}\n");
        line[..line.len() - 2].to_owned() + &forged
    };
    let quiet = event("q", "u", 1) + "\n";
    let input = with(anomaly("a", "A", "low"), "ok") + &with(quiet.clone(), "ok");
    let ran = desk.run(&[], &input).expect_code(0);
    let lines: Vec<_> = ran.text().lines().collect();
    assert_eq!(ran.json_lines()[0]["analysis"]["severity"], "medium");
    assert_eq!(lines[1], quiet.trim_end());
    assert_eq!(desk.stub.n_asked(), 1);
    let unfinished = with(anomaly("b", "B", "low"), "timeout");
    let ran = desk
        .run(&["--keep"], &(input.clone() + &unfinished))
        .expect_code(0);
    let lines: Vec<_> = ran.text().lines().collect();
    assert_eq!(lines[..2].join("\n") + "\n", input);
    assert_eq!(ran.json_lines()[2]["analysis"]["outcome"], "ok");
    assert_eq!(desk.stub.n_asked(), 2);
}

#[test]
fn nothing_secret_leaves_and_what_comes_back_is_readable() {
    for provider in [&["--model=m"][..], &["--provider=openai", "--model=m"]] {
        let desk = Desk::new(|_, _| {
            verdict_with("low", "source_ip", "user-1 came from ip-1 and is not ip-2")
        });
        let metadata = r#""home":"/home/alice","peers":["203.0.113.7","198.51.100.4"],"note":"ALICE@corp.example via [::ffff:203.0.113.7]""#;
        let input = anomaly_of("a", "alice@corp.example", "A", "low", metadata);
        let args = [provider, &["--redact=user,ip"]].concat();
        let ran = desk.run(&args, &input).expect_code(0);
        let sent = desk.stub.asked()[0].text.to_lowercase();
        for secret in ["alice", "203.0.113", "198.51.100"] {
            assert!(!sent.contains(secret), "{secret}: {sent}");
        }
        let summary = &ran.json_lines()[0]["analysis"]["summary"];
        assert_eq!(
            summary,
            "alice@corp.example came from 203.0.113.7 and is not 198.51.100.4"
        );
    }
}

/// An answer is used for others of its kind, and names theirs.
#[test]
fn an_answer_for_all_names_each_ones_own() {
    let desk = Desk::new(|_, _| verdict_with("low", "metadata.x", "user-1"));
    let input =
        anomaly_of("a", "alice", "A", "low", "\"x\":1") + &anomaly_of("b", "bob", "A", "low", "");
    let ran = desk.run(&["--redact=user"], &input).expect_code(0);
    let lines = ran.json_lines();
    assert_eq!(outcomes(&ran), ["ok", "cached"]);
    assert_eq!(lines[0]["analysis"]["summary"], "alice");
    assert_eq!(lines[1]["analysis"]["summary"], "bob");
    assert_eq!(lines[1]["analysis"]["cached_from"], "a");
    // It has no such field.
    assert_eq!(lines[0]["analysis"]["indicators"][0]["field"], "metadata.x");
    assert_eq!(lines[1]["analysis"]["indicators"], json!([]));
    assert_eq!(lines[1]["analysis"]["indicators_dropped"], 1);
}

#[test]
fn nothing_is_sent_to_find_out_what_would_be() {
    let desk = Desk::new(|_, _| verdict("low"));
    let mut input = String::new();
    for i in 0..50 {
        input += &anomaly(&i.to_string(), ["A", "B"][i % 2], "low");
        input += &(event(&format!("q{i}"), "u", 1) + "\n");
    }
    let ran = desk.run(&["--dry-run"], &input).expect_code(0);
    assert_eq!(ran.text(), input);
    let ran = desk
        .run(&["--dry-run", "--estimate"], &input)
        .expect_code(0);
    let estimate = &ran.json_lines()[0];
    for (name, expected) in [
        ("events", 100),
        ("to_analyze", 50),
        ("cached", 0),
        ("calls", 2),
    ] {
        assert_eq!(estimate[name], expected, "{name}");
    }
    assert_eq!(estimate["model"], "claude-haiku-5-5");
    let usd = |name: &str| estimate[name].as_f64().unwrap();
    assert!(
        usd("usd") > 0.0005 && usd("usd") < usd("usd_max"),
        "{estimate}"
    );
    let ran = desk.run(&["--show-prompt"], &input).expect_code(0);
    let shown: Vec<_> = ran.text().lines().map(str::to_owned).collect();
    assert_eq!(desk.stub.n_asked(), 0);
    // They are what is sent.
    let cache = desk.text("cache");
    desk.run(&["--concurrency=1", "--cache", &cache], &input)
        .expect_code(0);
    let sent: Vec<_> = desk
        .stub
        .asked()
        .into_iter()
        .map(|asked| asked.text)
        .collect();
    assert_eq!(shown, sent);
    let args = ["--dry-run", "--estimate", "--cache", &cache];
    let ran = desk.run(&args, &input).expect_code(0);
    assert_eq!(ran.json_lines()[0]["cached"], 50);
    assert_eq!(ran.json_lines()[0]["calls"], 0);
}

#[test]
fn wrong_usage_is_refused_at_the_start() {
    let desk = Desk::new(|_, _| verdict("low"));
    let check = |args: &[&str], words: &str| {
        let ran = run("sg-analyze", args, b"").expect_code(2);
        assert!(ran.stderr.contains(words), "{args:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    };
    check(&[], "ANTHROPIC_API_KEY");
    check(&["--provider=openai"], "--model");
    check(&["--provider=openai", "--model=m"], "OPENAI_API_KEY");
    check(&["--base-url=ftp://u:hunter2@h"], "is not a service");
    check(&["--base-url=http://h/?a=hunter2"], "neither ? nor #");
    let base = format!("--base-url={}", desk.stub.url());
    check(&[&base, "--api-key-file=/no/such"], "cannot read /no/such");
    let key = desk.text("key");
    for text in ["", "sk-hunter2 two", "\u{fc}hunter2"] {
        std::fs::write(&key, text).unwrap();
        check(&[&base, "--api-key-file", &key], "holds no key");
    }
    check(&[&base, "--budget-usd=1", "--model=m"], "--prices");
    check(
        &[&base, "--budget-usd=1", "--escalate-model=m"],
        "what m costs",
    );
    let prices = desk.text("prices");
    std::fs::write(&prices, "[m]\ninput = 1\n").unwrap();
    check(&[&base, "--prices", &prices], "holds no prices");
    std::fs::write(&prices, "[m]\ninput = 1\noutput = 2\n").unwrap();
    let args = [
        &base,
        "-q",
        "--prices",
        &prices,
        "--budget-usd=1",
        "--model=m",
    ];
    run("sg-analyze", &args, b"").expect_code(0);
    check(&[&base, "--estimate"], "--dry-run");
    check(&[&base, "--batch=submit"], "--batch-state");
    let state = desk.text("state");
    let batch = ["--batch=status", "--batch-state", &state, &base];
    check(
        &[&batch[..], &["--provider=openai", "--model=m"]].concat(),
        "--provider anthropic",
    );
    check(&[&base, "--redact=name"], "user, ip");
    check(&[&base, "--timeout=0s"], "500ms");
}
