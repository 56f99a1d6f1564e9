//! How long `similar` takes within a process, and how many of the right answers it finds:
//! `cargo bench --bench similar -- DB IDS`, where IDS is a file with the ids of events to ask for, one a
//! line. The right answers come of a comparison with every stored vector in the same run. An answer
//! counts as right if its score is that of the true tenth or higher: made-up events have many that are
//! equally alike, and any of those is as good. Prints one JSON object.

use std::path::Path;
use std::time::Instant;

use rayon::prelude::*;
use serde_json::json;
use streamguard::embed::Embedding;
use streamguard::query::similar::{Indexes, similar, stored_embedding};
use streamguard::query::{self, Filter, Parts};
use streamguard::schema;
use streamguard::store::{Live, Order, Tuning, View};

const N_ANSWERS: usize = 10;

fn main() {
    let arguments = std::env::args().skip(1).filter(|it| !it.starts_with("--"));
    let [db, ids] = &arguments.collect::<Vec<_>>()[..] else {
        println!("give a database and a file with ids: see scripts/bench similar");
        return;
    };
    let ids = std::fs::read_to_string(ids).expect("the file can be read");
    let live = Live::open(Path::new(db), &Tuning::default()).expect("it is there");
    let views = [live.view().expect("it opens")];
    let parts = Parts::of(&views);
    let mut indexed = Indexes::default();
    let start = Instant::now();
    indexed.refresh(parts).expect("the store can be read");
    let load_ms = start.elapsed().as_secs_f64() * 1e3;

    let mut times_ms = Vec::new();
    let mut answers = Vec::new();
    for id in ids.lines() {
        let event = query::newest_event(parts, id).expect("it can be asked for");
        let event = event.expect("there is such an event");
        let embedding = stored_embedding(&event).expect("it has a vector");
        let filter = Filter {
            limit: N_ANSWERS,
            ..Filter::default()
        };
        let start = Instant::now();
        let mut alike = Vec::new();
        let but = Some(&event.key[..]);
        let asked = similar(parts, &mut indexed, &embedding, but, &filter, |it| {
            alike.push(it.score);
            Ok(true)
        });
        times_ms.push(start.elapsed().as_secs_f64() * 1e3);
        asked.expect("it is answered");
        answers.push((event.key, embedding, alike));
    }

    let all = vectors(&views[0]);
    let mut brute_ms = Vec::new();
    let mut n_right = 0;
    let mut n_wanted = 0;
    for (key, embedding, alike) in &answers {
        let start = Instant::now();
        let truth = brute_force(&all, key, embedding);
        brute_ms.push(start.elapsed().as_secs_f64() * 1e3);
        let worst = truth.last().copied().unwrap_or(f64::NEG_INFINITY);
        n_wanted += truth.len();
        n_right += alike.iter().filter(|score| **score >= worst).count();
    }
    let percentiles = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        let at = |p: usize| {
            (times[(times.len() * p / 100).min(times.len() - 1)] * 100.0).round() / 100.0
        };
        json!({"p50": at(50), "p95": at(95), "p99": at(99)})
    };
    let report = json!({
        "vectors": all.len(),
        "questions": answers.len(),
        "load_ms": load_ms.round(),
        "similar_ms": percentiles(&mut times_ms),
        "brute_force_ms": percentiles(&mut brute_ms),
        "recall_at_10": n_right as f64 / n_wanted as f64,
    });
    println!("{report}");
}

/// All vectors of the database, as they are stored.
fn vectors(view: &View<'_>) -> Vec<(Vec<u8>, Embedding)> {
    let mut vectors = Vec::new();
    let mut walk = view.walk(schema::EMBEDDINGS, &[], Order::OldestFirst);
    while let Some((key, value)) = walk.next_entry().expect("the store can be read") {
        vectors.extend(Embedding::read(&value).map(|embedding| (key, embedding)));
    }
    vectors
}

/// The highest scores, the highest first.
fn brute_force(all: &[(Vec<u8>, Embedding)], but: &[u8], embedding: &Embedding) -> Vec<f64> {
    let compared = all.par_iter().filter(|(key, _)| key != but);
    let mut scores: Vec<f64> = compared
        .map(|(_, other)| embedding.vector.cosine(&other.vector))
        .collect();
    scores.sort_unstable_by(|a, b| b.total_cmp(a));
    scores.truncate(N_ANSWERS);
    scores
}
