//! What becomes of alerts, as metrics tell it.

#![expect(
    clippy::float_cmp,
    reason = "counts are whole, which floats hold exactly"
)]

use super::Site;
use super::stub::{OK, Reply, SECRET, Stub};
use crate::metrics::samples;
use crate::tools::{generated, n_lines};

#[test]
fn what_becomes_of_alerts_is_counted() {
    let stub = Stub::start(|n, _| match n {
        0..3 => Reply::Status(422, ""),
        3 => Reply::Status(500, ""),
        _ => OK,
    });
    let site = Site::new(&generated(2_000, 20, 431));
    std::fs::write(site.path("secret"), SECRET).unwrap();
    let (secret, file, metrics) = (
        site.text("secret"),
        site.text("alerts"),
        site.text("m.prom"),
    );
    let args = [
        "--alerts-to",
        &stub.target(),
        "--webhook-secret-file",
        &secret,
        "--alerts-to",
        &file,
        "--metrics-file",
        &metrics,
    ];
    site.run("db", &args).expect_code(1);
    let counted = samples(&String::from_utf8(site.read("m.prom")).unwrap());
    let n = |name: &str, kind: &str| {
        let labels = format!("file=\"m\",kind=\"{kind}\",program=\"sg-run\"");
        counted[&format!("streamguard_alerts_{name}_total{{{labels}}}")]
    };
    let n_alerts = n_lines(&site.read("alerts")) as f64;
    assert!(n_alerts > 3.0);
    assert_eq!(n("delivered", "file"), n_alerts);
    assert_eq!(n("delivered", "webhook"), n_alerts - 1.0);
    assert_eq!(n("delivered", "kafka"), 0.0);
    assert_eq!((n("failed", "file"), n("failed", "webhook")), (0.0, 4.0));
    assert_eq!((n("refused", "file"), n("refused", "webhook")), (0.0, 1.0));
    let pending = "streamguard_alerts_pending{file=\"m\",program=\"sg-run\"}";
    assert_eq!(counted[pending], 0.0);
}
