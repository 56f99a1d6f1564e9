//! Who may ask.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Served, reply};
use crate::database::store;
use crate::tools::{Ran, event, run, wait_for};

/// A database and a file of keys in a folder.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        store(&folder.path().join("db"), event("e", "u", 1).as_bytes()).expect_code(0);
        Self { folder }
    }

    fn keys(&self) -> String {
        self.folder.path().join("keys").to_str().unwrap().to_owned()
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(
            "sg-query",
            &[&["keys"], args, &["--keys", &self.keys()]].concat(),
            b"",
        )
    }

    fn add(&self, name: &str, role: &str) -> String {
        let added = self.run(&["add", name, "--role", role]).expect_code(0);
        let key = added.text().trim_end().to_owned();
        assert!(key.starts_with("sgk_") && key.len() == 47, "{key}");
        assert!(!added.stderr.contains(&key));
        key
    }

    fn serve(&self) -> Served {
        let db = self.folder.path().join("db");
        Served::start(&db, &["--keys", &self.keys()])
    }
}

#[test]
fn a_key_is_shown_once_and_kept_as_a_hash() {
    let desk = Desk::new();
    let key = desk.add("alice", "read");
    assert_ne!(desk.add("bob", "admin"), key);
    let path = desk.keys();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains(&key[4..]));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = desk.run(&["add", "alice"]);
    assert_eq!(again.code, 2);
    assert!(
        again.stderr.contains("there is a key alice already"),
        "{}",
        again.stderr
    );
    let listed = desk.run(&["list"]).expect_code(0).json_lines();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0]["name"], "alice");
    assert_eq!(listed[1]["role"], "admin");
    assert_eq!(listed[0]["revoked"], serde_json::Value::Null);
    assert_eq!(
        listed[0].as_object().unwrap().len(),
        4,
        "nothing else is shown"
    );
    desk.run(&["revoke", "alice"]).expect_code(0);
    assert!(desk.run(&["list"]).json_lines()[0]["revoked"].is_string());
    let unknown = desk.run(&["revoke", "carol"]);
    assert_eq!(unknown.code, 2);
    assert!(
        unknown.stderr.contains("there is no key carol"),
        "{}",
        unknown.stderr
    );
    for name in ["", "a\nb", &"n".repeat(65)] {
        assert_eq!(desk.run(&["add", name]).code, 2, "{name:?}");
    }
    assert!(!Path::new(&format!("{path}.new")).exists());
}

#[test]
fn many_can_make_keys_at_once() {
    let desk = Desk::new();
    std::thread::scope(|scope| {
        for i in 0..8 {
            let desk = &desk;
            scope.spawn(move || desk.add(&i.to_string(), "read"));
        }
    });
    assert_eq!(desk.run(&["list"]).json_lines().len(), 8);
}

#[test]
fn who_has_no_key_gets_nothing() {
    let desk = Desk::new();
    let key = desk.add("alice", "read");
    let served = desk.serve();
    for headers in [
        &[][..],
        &[("Authorization", "Bearer sgk_wrong")],
        &[("Authorization", "Bearer ")],
        &[("Authorization", key.as_str())],
        &[("Authorization", "Basic YTpi")],
        &[("X-API-Key", "")],
        &[("X-API-Key", "sgk_wrong")],
        &[("Authorization", &format!("Bearer {key}x"))],
        &[("Authorization", &format!("Bearer {}", &key[..46]))],
    ] {
        for path in [
            "/api/events",
            "/api/stats/summary",
            "/api/admin/keys",
            "/api/events/e",
        ] {
            let refused = served.get_with(path, headers);
            assert_eq!(refused.header("www-authenticate"), "Bearer");
            refused.problem(401);
        }
    }
    // Not in the address, where it would be written down.
    served.get(&format!("/api/events?key={key}")).problem(401);
    for headers in [
        ("Authorization", format!("Bearer {key}")),
        ("Authorization", format!("bearer  {key}")),
        ("X-API-Key", key.clone()),
    ] {
        served
            .get_with("/api/events", &[(headers.0, &headers.1)])
            .ok();
    }
    // What holds no data.
    for path in [
        "/",
        "/api/health",
        "/api/ready",
        "/api/health/ready",
        "/api/openapi.json",
        "/api/docs/",
    ] {
        served.get(path).ok();
    }
}

#[test]
fn reading_is_not_administrating() {
    let desk = Desk::new();
    let (read, admin) = (desk.add("reader", "read"), desk.add("admin", "admin"));
    let served = desk.serve();
    let delete = |name: &str, key: &str| {
        let request = served
            .agent
            .delete(format!("{}/api/admin/keys/{name}", served.url));
        reply(
            request
                .header("Authorization", format!("Bearer {key}"))
                .call(),
        )
    };
    served.with_key("/api/admin/keys", &read).problem(403);
    delete("admin", &read).problem(403);
    served.with_key("/api/events", &admin).ok();
    let keys = served.with_key("/api/admin/keys", &admin).ok();
    assert_eq!(keys.items().len(), 2);
    assert!(!keys.body.contains("sha256"));
    delete("nobody", &admin).problem(404);
    delete("admin", &admin).problem(409);
    served.with_key("/api/events", &read).ok();
    assert_eq!(delete("reader", &admin).status, 204);
    served.with_key("/api/events", &read).problem(401);
    assert_eq!(delete("reader", &admin).status, 204, "again is the same");
    assert!(desk.run(&["list"]).json_lines()[0]["revoked"].is_string());
}

#[test]
fn a_running_server_follows_the_file() {
    let desk = Desk::new();
    let first = desk.add("first", "read");
    let served = desk.serve();
    served.with_key("/api/events", &first).ok();
    let second = desk.add("second", "read");
    let status = |key: &str| served.with_key("/api/events", key).status;
    assert!(wait_for(|| status(&second) == 200));
    desk.run(&["revoke", "first"]).expect_code(0);
    assert!(wait_for(|| status(&first) == 401));
    assert_eq!(status(&second), 200);
    // Damaged, it lets nobody in.
    std::fs::write(desk.keys(), "something else\n").unwrap();
    assert!(wait_for(|| status(&second) == 503));
    std::fs::remove_file(desk.keys()).unwrap();
    assert_eq!(status(&second), 503);
}

#[test]
fn keys_that_cannot_be_read_are_told() {
    let desk = Desk::new();
    let db = desk.folder.path().join("db");
    let serve = |keys: &str| {
        let args = [
            "serve",
            "--db",
            db.to_str().unwrap(),
            "--listen=127.0.0.1:0",
            "--keys",
            keys,
        ];
        let ran = run("sg-query", &args, b"");
        assert_eq!(ran.code, 2);
        ran.stderr
    };
    let missing = serve(&desk.keys());
    assert!(missing.contains("cannot read the keys"), "{missing}");
    let secret = "sgk_secret";
    std::fs::write(desk.keys(), secret).unwrap();
    let damaged = serve(&desk.keys());
    assert!(damaged.contains("keys:1: this is not a key"), "{damaged}");
    assert!(!damaged.contains(secret));
}

#[test]
fn others_may_ask_only_with_a_key() {
    let desk = Desk::new();
    let db = desk.folder.path().join("db");
    let args = [
        "serve",
        "--db",
        db.to_str().unwrap(),
        "--listen",
        "0.0.0.0:0",
    ];
    let ran = run("sg-query", &args, b"").expect_code(2);
    assert!(ran.stderr.contains("without a key"), "{}", ran.stderr);
    let key = desk.add("alice", "read");
    let served = Served::start(&db, &["--listen", "0.0.0.0:0", "--keys", &desk.keys()]);
    assert!(served.running.stderr().contains("can be read on their way"));
    let port = served.address().rsplit(':').next().unwrap();
    let url = format!("http://127.0.0.1:{port}/api/events");
    let request = served.agent.get(&url).header("X-API-Key", &key);
    reply(request.call()).ok();
}

/// No way to compare hashes is there but the one that takes the same time whatever they are.
#[test]
fn hashes_of_keys_are_compared_in_constant_time() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/serve/keys.rs");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, of_hash) = text.split_once("struct Hash([u8; 32]);").unwrap();
    let derived = before.rsplit("#[derive(").next().unwrap();
    for forbidden in ["PartialEq", "PartialOrd", "Hash,"] {
        assert!(!derived.contains(forbidden), "Hash derives {forbidden}");
    }
    assert!(!text.contains("PartialEq for Hash"));
    // Its bytes are looked at where they are made, written and compared.
    assert_eq!(of_hash.matches(".0.ct_eq(&other.0)").count(), 1);
    let n_looks = of_hash.matches("self.0").count() + of_hash.matches("hash.0").count();
    assert_eq!(n_looks, 2);
    let holder = of_hash.split("pub fn holder(").nth(1).unwrap();
    let holder = holder.split("\n    }\n").next().unwrap();
    let all = holder.split("for (i, record)").nth(1).unwrap();
    let all = all.split("        }\n").next().unwrap();
    for early in ["break", "return", "?", "if "] {
        assert!(
            !all.contains(early),
            "the comparison of all keys ends early: {early}"
        );
    }
}
