//! What `sg-score --explain` promises: the pieces add up to the score that the event got.

use serde_json::Value;

use crate::tools::{DETECTORS, generated, run};

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-4 * a.abs().max(1.0)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// Evidence times weight, by component.
fn products(explanation: &Value) -> Vec<f64> {
    let pieces = explanation["components"].as_array().unwrap().iter();
    pieces
        .map(|piece| number(&piece["evidence"]) * number(&piece["weight"]))
        .collect()
}

#[test]
fn the_pieces_add_up() {
    let lines = generated(12_000, 30, 81);
    for (detector, threshold) in [(DETECTORS[0], "0.65"), (DETECTORS[1], "0.99")] {
        let args = ["-q", detector, "--threshold", threshold, "--emit=anomalies"];
        let anomalies = run("sg-score", &args, &lines).expect_code(0).json_lines();
        assert!(anomalies.len() >= 10, "{detector}: {}", anomalies.len());
        for event in anomalies.iter().step_by(anomalies.len() / 8) {
            let id = event["event_id"].as_str().unwrap();
            let ran = run("sg-score", &["-q", detector, "--explain", id], &lines);
            let explained = ran.expect_code(0).json_lines();
            let [explanation] = &explained[..] else {
                panic!("{explained:?}");
            };
            let anomaly = &event["anomaly"];
            for field in ["event_id", "user", "timestamp", "detector"] {
                assert_eq!(explanation[field], anomaly[field], "{field}");
            }
            for field in ["anomaly_score", "risk"] {
                assert!(close(number(&explanation[field]), number(&anomaly[field])));
            }
            assert_eq!(
                explanation["baseline_events"],
                anomaly["baseline"]["events"]
            );
            let sum: f64 = products(explanation).iter().sum();
            let risk = number(&explanation["risk"]);
            let archetypes = explanation["archetypes"].as_array().unwrap();
            if archetypes.is_empty() {
                assert!(close(sum, risk), "{explanation}");
                continue;
            }
            // All kinds of attack together are the risk; the likeliest is the one whose weights
            // are shown. Two of them leave out what speaks against an attack by place.
            let total: f64 = archetypes.iter().map(|kind| number(&kind[1]).exp()).sum();
            assert!(close(total.ln(), risk), "{explanation}");
            let likeliest = archetypes
                .iter()
                .max_by(|a, b| number(&a[1]).total_cmp(&number(&b[1])));
            let likeliest = likeliest.unwrap();
            assert_eq!(likeliest[0], anomaly["archetype"]);
            let (prior, n_positive) = match likeliest[0].as_str().unwrap() {
                "account takeover" => (0.0, 0),
                "insider / lateral" => (-3.0, 2),
                "guessing / stuffing" => (-1.5, 0),
                "automation / flood" => (-2.5, 3),
                other => panic!("{other}"),
            };
            let products = products(explanation).into_iter().enumerate();
            let counted = products.filter(|(i, product)| *i >= n_positive || *product > 0.0);
            let sum: f64 = counted.map(|(_, product)| product).sum();
            assert!(close(prior + sum, number(&likeliest[1])), "{explanation}");
            // Whatever is a reason was found.
            let findings = explanation["components"].as_array().unwrap();
            for reason in anomaly["reasons"].as_array().unwrap() {
                assert!(
                    findings.iter().any(|piece| piece["finding"] == *reason),
                    "{reason}"
                );
            }
        }
    }
}

/// What is assumed of new users passed for their history.
#[test]
fn a_user_without_events_has_no_history() {
    let line = |id: &str, at: i64| {
        format!(
            r#"{{"event_id":"{id}","user":"u","timestamp":{at},"type":"LOGIN","source_ip":"10.0.0.1","geo_location":"Bonn, DE","metadata":{{"user_agent":"ua"}}}}"#
        ) + "\n"
    };
    let lines = line("first", 1_735_800_000_000) + &line("second", 1_735_800_060_000);
    for (id, is_first) in [("first", true), ("second", false)] {
        let args = ["-q", "--detector=adaptive", "--explain", id];
        let ran = run("sg-score", &args, lines.as_bytes()).expect_code(0);
        let text = ran.text();
        assert_eq!(
            text.matches("as is assumed").count(),
            if is_first { 4 } else { 0 },
            "{text}"
        );
        assert_eq!(
            text.matches("this user's").count(),
            if is_first { 0 } else { 4 },
            "{text}"
        );
    }
}

#[test]
fn an_event_that_is_not_there_is_told_by_the_code() {
    let lines = generated(100, 3, 83);
    for detector in DETECTORS {
        let ran = run("sg-score", &["-q", detector, "--explain", "none"], &lines);
        assert_eq!((ran.code, ran.text(), &*ran.stderr), (1, "", ""));
        let ran = run("sg-score", &[detector, "--explain", "no\u{1b}ne"], &lines);
        let expected = "sg-score: there is no event no<001B>ne\n\
                        sg-score: in 100 = out 0 + rejected 0 + filtered 100\n";
        assert_eq!((ran.code, ran.text(), &*ran.stderr), (1, "", expected));
    }
}
