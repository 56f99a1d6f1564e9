//! What parsing a line costs here, and with `serde_json` and `sonic-rs` reading the same fields
//! into borrowed values. `cargo bench --bench parse [FILE]`; rounds are interleaved, the best of
//! each counts. Ours also finds where members stand and bounds nesting.

mod blocks;

use std::borrow::Cow;
use std::hint::black_box;
use std::time::Instant;

use blocks::{blocks, take};
use serde::Deserialize;
use streamguard::batch::Block;
use streamguard::generate::{GenerateConfig, generate};
use streamguard::record::LINE_BYTES_MAX;

/// The fields that the stages need.
#[derive(Deserialize)]
#[expect(
    dead_code,
    clippy::struct_field_names,
    reason = "fields of the format, read to be measured"
)]
struct Event<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    user: Cow<'a, str>,
    timestamp: i64,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    source_ip: Option<Cow<'a, str>>,
    #[serde(borrow)]
    geo_location: Option<Cow<'a, str>>,
    threat_score: Option<f64>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
}

const N_ROUNDS: usize = 15;

fn main() {
    let file = std::env::args()
        .nth(1)
        .filter(|argument| !argument.starts_with("--"));
    let lines = match file {
        Some(path) => std::fs::read(path).expect("the file can be read"),
        None => {
            let config = GenerateConfig {
                n_events: 50_000,
                n_users: 1_000,
                ..GenerateConfig::default()
            };
            let mut lines = Vec::new();
            generate(&config, &mut lines, None).expect("memory takes every write");
            lines
        }
    };
    let n_lines = memchr::memchr_iter(b'\n', &lines).count();
    println!(
        "{n_lines} lines, {} bytes each on average",
        lines.len() / n_lines
    );
    let text = std::str::from_utf8(&lines).expect("events are UTF-8");

    let mut block = Block::new();
    let mut best = [f64::INFINITY; 3];
    for _ in 0..N_ROUNDS {
        let rounds: [&mut dyn FnMut() -> usize; 3] = [
            &mut || {
                let each = blocks(&lines).map(|lines| {
                    take(&mut block, lines);
                    block.parse(LINE_BYTES_MAX);
                    block.events.len()
                });
                each.sum()
            },
            &mut || {
                text.lines()
                    .filter(|line| parses(serde_json::from_str::<Event>(line)))
                    .count()
            },
            &mut || {
                text.lines()
                    .filter(|line| parses(sonic_rs::from_str::<Event>(line)))
                    .count()
            },
        ];
        for (best, round) in best.iter_mut().zip(rounds) {
            let start = Instant::now();
            assert_eq!(round(), n_lines, "every line is an event");
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    for (name, seconds) in ["streamguard", "serde_json", "sonic-rs"].iter().zip(best) {
        let ns = seconds * 1e9 / n_lines as f64;
        let ratio = seconds / best[0];
        println!("{name:12} {ns:7.0} ns a line, {ratio:.2} times ours");
    }
}

fn parses<E>(result: Result<Event<'_>, E>) -> bool {
    black_box(result).is_ok()
}
