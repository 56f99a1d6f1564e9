//! `sg-query serve`: what it answers, who may ask, what it does not put up with.

mod answers;
mod beside;
mod keys;
mod limits;
mod live;
mod manners;
mod stats;
mod tls;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;

use crate::database::store;
use crate::tools::{Running, run, wait_for};

/// A server and the folder that it serves.
struct Served {
    running: Running,
    url: String,
    agent: Agent,
}

/// What it has answered.
struct Reply {
    status: u16,
    headers: ureq::http::HeaderMap,
    body: String,
}

impl Reply {
    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// The sentence of a problem, which has to be well formed.
    #[track_caller]
    fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], "about:blank");
        assert!(!problem["title"].as_str().unwrap().is_empty());
        problem["detail"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}", self.body);
        self
    }

    /// Its items, each as it is written.
    #[track_caller]
    fn items(&self) -> Vec<String> {
        #[derive(serde::Deserialize)]
        struct List {
            items: Vec<Box<serde_json::value::RawValue>>,
        }
        let list: List = serde_json::from_str(&self.body).unwrap();
        let items = list.items.into_iter();
        items.map(|item| item.get().to_owned()).collect()
    }
}

impl Served {
    fn start(db: &Path, args: &[&str]) -> Self {
        let is_limited = args.iter().any(|arg| arg.starts_with("--rate"));
        // Tests ask faster than people do.
        let rate: &[&str] = if is_limited { &[] } else { &["--rate=100000"] };
        let args = [&["serve", "--db", db.to_str().unwrap()], rate, args].concat();
        let listen = ["--listen", "127.0.0.1:0"];
        let is_said = args.iter().any(|arg| arg.starts_with("--listen"));
        let args = if is_said {
            args
        } else {
            [&args[..], &listen].concat()
        };
        Self::of(Running::start("sg-query", &args), "sg-query")
    }

    /// What a program serves.
    fn of(running: Running, program: &str) -> Self {
        let begin = format!("{program}: listening on ");
        let said = || {
            let stderr = running.stderr();
            let line = stderr.lines().find_map(|line| line.strip_prefix(&*begin));
            line.filter(|_| stderr.ends_with('\n')).map(str::to_owned)
        };
        assert!(
            wait_for(|| said().is_some()),
            "it does not listen: {}",
            running.stderr()
        );
        Self {
            url: said().unwrap(),
            agent: agent(),
            running,
        }
    }

    fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    #[track_caller]
    fn get(&self, path: &str) -> Reply {
        self.get_with(path, &[])
    }

    #[track_caller]
    fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        reply(request.call())
    }

    #[track_caller]
    fn with_key(&self, path: &str, key: &str) -> Reply {
        self.get_with(path, &[("Authorization", &format!("Bearer {key}"))])
    }

    /// All items, page after page.
    #[track_caller]
    fn all(&self, path: &str) -> Vec<String> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let reply = self.get(&format!("{path}{cursor}")).ok();
            items.extend(reply.items());
            match reply.json()["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }
}

fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into()
}

#[track_caller]
fn reply(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Reply {
    let mut answer = answer.unwrap();
    Reply {
        status: answer.status().as_u16(),
        headers: answer.headers().clone(),
        body: answer.body_mut().read_to_string().unwrap(),
    }
}

/// A database with anomalies, analyses of some, vectors, incidents and verdicts.
fn filled(folder: &Path) -> std::path::PathBuf {
    let db = folder.join("db");
    let scored = crate::database::scored(3_000, 12, 7);
    let embedded = run("sg-embed", &["-q"], &scored).expect_code(0).stdout;
    // A model's word on every third anomaly.
    let mut n_anomalies = 0;
    let mut lines = String::new();
    for line in String::from_utf8(embedded).unwrap().lines() {
        lines.push_str(line);
        if line.contains(r#""anomaly":{"event_id":"#) {
            n_anomalies += 1;
            if n_anomalies % 3 == 0 {
                lines.pop();
                lines.push_str(
                    r#","analysis":{"outcome":"ok","severity":"high","summary":"It is new."}}"#,
                );
            }
        }
        lines.push('\n');
    }
    assert!(n_anomalies > 60, "{n_anomalies} anomalies");
    store(&db, lines.as_bytes()).expect_code(0);
    db
}
