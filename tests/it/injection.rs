//! The detector of injections against fields that talk to a model and fields that only look like it.
//! A third of both was held out while phrases were chosen, see `testdata/README.md`.

use serde_json::Value;
use streamguard::llm::injection;

use crate::tools::testdata;

/// Events whose fields are flagged, of all, and of those held out.
#[derive(Default)]
struct Counts {
    n_flagged: [usize; 2],
    n_events: [usize; 2],
    /// Flagged or not: not what it should be.
    wrong: Vec<String>,
}

impl Counts {
    fn share(&self, is_held_out: bool) -> f64 {
        let part = usize::from(is_held_out);
        self.n_flagged[part] as f64 / self.n_events[part] as f64
    }

    fn say(&self, name: &str) {
        for wrong in &self.wrong {
            println!("{name}: {wrong}");
        }
        println!(
            "{name}: flagged {} of {}, and {} of {} held out",
            self.n_flagged[0], self.n_events[0], self.n_flagged[1], self.n_events[1]
        );
    }
}

/// All strings but the label.
fn strings<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
        Value::Object(members) => members
            .iter()
            .filter(|(name, _)| *name != "injection")
            .for_each(|(_, value)| strings(value, found)),
        _ => {}
    }
}

fn count(name: &str, is_hostile: bool) -> Counts {
    let text = std::fs::read_to_string(testdata(name)).unwrap();
    let mut counts = Counts::default();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let label = &event["metadata"]["injection"];
        assert_eq!(label != "none", is_hostile, "{line}");
        let part = usize::from(event["metadata"]["held_out"].as_bool().unwrap());
        let mut texts = Vec::new();
        strings(&event, &mut texts);
        let is_flagged = texts.iter().any(|text| injection::find(text).is_some());
        counts.n_events[part] += 1;
        counts.n_flagged[part] += usize::from(is_flagged);
        if is_flagged != is_hostile {
            counts.wrong.push(line.chars().take(400).collect());
        }
    }
    counts
}

#[test]
fn most_hostile_fields_are_found() {
    let counts = count("injection/hostile.ndjson", true);
    counts.say("missed");
    assert!(counts.n_events[0] + counts.n_events[1] >= 150);
    assert!(counts.share(false) >= 0.95, "run with --nocapture");
    assert!(counts.share(true) >= 0.95, "run with --nocapture");
}

#[test]
fn harmless_twins_are_left_alone() {
    let counts = count("injection/benign.ndjson", false);
    counts.say("flagged");
    assert!(counts.n_events[0] + counts.n_events[1] >= 150);
    assert!(counts.share(false) <= 0.02, "run with --nocapture");
    assert!(counts.share(true) <= 0.02, "run with --nocapture");
}
