//! The adaptive detector against the vectors of its reference, written in another language by other
//! people: every component and the risk within 1e-6, the same kind of attack, on every event. Scores
//! differ: here they follow the risks seen so far from epoch to epoch, there every 1,000 events.

use std::collections::HashMap;
use std::hash::RandomState;

use streamguard::batch::Block;
use streamguard::detect::adaptive::{Adaptive, Deltas, User};
use streamguard::detect::{Detector, DetectorConfig, DetectorKind, UserKey};
use streamguard::record::LINE_BYTES_MAX;

use crate::tools::testdata;

fn lines(name: &str) -> Vec<u8> {
    let file = std::fs::File::open(testdata(name)).unwrap();
    zstd::decode_all(file).unwrap()
}

#[test]
fn components_and_risk_are_those_of_the_reference() {
    let mut block = Block::new();
    block.lines = lines("detector/golden_events.ndjson.zst");
    block.parse(LINE_BYTES_MAX);
    let expected = lines("detector/golden_expected.ndjson.zst");
    let expected: Vec<serde_json::Value> = serde_json::Deserializer::from_slice(&expected)
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!((block.events.len(), block.rejects.len()), (6_000, 0));
    assert_eq!(expected.len(), 6_000);

    let config = DetectorConfig::standard(DetectorKind::Adaptive);
    let mut detector = Adaptive::new(config).without_floods();
    let mut deltas = Deltas::default();
    let mut users: HashMap<String, Box<User>> = HashMap::new();
    let mut worst = [0.0_f64; 15];
    let mut n_other_archetypes = 0;
    for (event, expected) in block.events.iter().zip(&expected) {
        let view = block.view(event);
        assert_eq!(expected["event_id"], view.event_id);
        let features = Adaptive::features(&view);
        let key = UserKey::of(view.user, &RandomState::new());
        if detector.begins_epoch(key, &features, 0) {
            detector.turn_epoch(&mut deltas, 0, true);
        }
        let user = users
            .entry(view.user.to_owned())
            .or_insert_with(|| detector.new_user(&features));
        let risk = detector.risk(key, user, &mut deltas, &features);
        detector.turn_epoch(&mut deltas, 1, false);
        for (i, evidence) in risk.evidence.iter().enumerate() {
            let difference = (evidence - expected["L"][i].as_f64().unwrap()).abs();
            worst[i] = worst[i].max(difference);
        }
        worst[14] = worst[14].max((risk.risk - expected["R"].as_f64().unwrap()).abs());
        n_other_archetypes += u32::from(risk.archetype as u64 != expected["arch"]);
    }
    assert!(worst.iter().all(|worst| *worst < 1e-6), "{worst:?}");
    assert_eq!(n_other_archetypes, 0);
}
