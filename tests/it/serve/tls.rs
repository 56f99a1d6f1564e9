//! Serving over TLS.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::{Served, reply};
use crate::database::store;
use crate::tools::{event, run};

/// Writes a certificate for localhost and its key.
fn certified(folder: &Path) -> CertifiedKey<rcgen::KeyPair> {
    let names = ["localhost".to_owned()];
    let certified = generate_simple_self_signed(names).unwrap();
    std::fs::write(folder.join("cert.pem"), certified.cert.pem()).unwrap();
    std::fs::write(
        folder.join("key.pem"),
        certified.signing_key.serialize_pem(),
    )
    .unwrap();
    certified
}

#[test]
fn answers_come_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, event("e", "u", 1).as_bytes()).expect_code(0);
    let certified = certified(folder.path());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let args = [
        "--tls-cert",
        &path("cert.pem"),
        "--tls-key",
        &path("key.pem"),
    ];
    let served = Served::start(&db, &args);
    assert!(
        served.url.starts_with("https://127.0.0.1:"),
        "{}",
        served.url
    );
    let port = served.address().rsplit(':').next().unwrap();
    let url = format!("https://localhost:{port}/api/events");
    let trusted = Certificate::from_der(certified.cert.der()).to_owned();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&[trusted]))
        .build();
    let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(tls).build().into();
    assert_eq!(reply(agent.get(&url).call()).ok().items().len(), 1);
    // Not to somebody who does not trust the certificate, nor without TLS.
    assert!(served.agent.get(&url).call().is_err());
    let mut plain = TcpStream::connect(served.address()).unwrap();
    plain
        .write_all(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let _ = std::io::Read::read_to_end(&mut plain, &mut answer);
    assert!(!answer.starts_with(b"HTTP"));
    assert_eq!(reply(agent.get(&url).call()).ok().items().len(), 1);
}

#[test]
fn files_that_cannot_be_used_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, event("e", "u", 1).as_bytes()).expect_code(0);
    certified(folder.path());
    let other = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("other.pem"), other.signing_key.serialize_pem()).unwrap();
    std::fs::write(path("empty.pem"), "").unwrap();
    let check = |certificate: &str, key: &str, said: &str| {
        let (certificate, key) = (path(certificate), path(key));
        let args = [
            "serve",
            "--db",
            db.to_str().unwrap(),
            "--listen=127.0.0.1:0",
            "--tls-cert",
            &certificate,
            "--tls-key",
            &key,
        ];
        let ran = run("sg-query", &args, b"").expect_code(2);
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    };
    check("none.pem", "key.pem", "cannot read the certificate in");
    check("empty.pem", "key.pem", "there is no certificate in");
    check("cert.pem", "none.pem", "cannot read the private key in");
    check("cert.pem", "empty.pem", "cannot read the private key in");
    check("cert.pem", "other.pem", "do not go together");
}
