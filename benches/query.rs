//! How long questions take within a process: `cargo bench --bench query -- DB N`, with N questions of each
//! kind about users, events and times by chance. A view is taken for each, as a server does. Prints one JSON
//! object: percentiles in milliseconds by question, and the events that were asked about.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use streamguard::query::{self, Filter, Parts, Wanted};
use streamguard::store::{Live, Order, Tuning, View};

const N_ANSWERS: usize = 100;
const HOUR_MS: i64 = 3_600_000;
/// Questions that read the whole database are put less often.
const N_WHOLE: usize = 20;

/// An event that is asked about.
struct Asked {
    event_id: String,
    user: String,
    timestamp_ms: i64,
}

fn main() {
    let arguments = std::env::args().skip(1).filter(|it| !it.starts_with("--"));
    let [db, n_questions] = &arguments.collect::<Vec<_>>()[..] else {
        println!("give a database and a number of questions: see scripts/bench query");
        return;
    };
    let n_questions = n_questions.parse().expect("a number of questions");
    let live = Live::open(Path::new(db), &Tuning::default()).expect("it is there");
    let asked = by_chance(&live, n_questions);
    let before = |it: &Asked, threshold: f64| Filter {
        min_score: Some(threshold),
        until_ms: it.timestamp_ms,
        ..limited()
    };
    let whole = &asked[..N_WHOLE.min(asked.len())];
    let report = json!({
        "high-score 0.7": time(&live, &asked, |parts, it| list(parts, Wanted::Anomalies, &before(it, 0.7))),
        "high-score 0.99": time(&live, &asked, |parts, it| list(parts, Wanted::Anomalies, &before(it, 0.99))),
        "events of a user": time(&live, &asked, |parts, it| {
            let user = Some(it.user.clone());
            list(parts, Wanted::Events, &Filter { user, ..limited() })
        }),
        "event by its id": time(&live, &asked, |parts, it| {
            let found = query::newest_event(parts, &it.event_id);
            usize::from(found.expect("it is answered").is_some())
        }),
        "events of an hour": time(&live, &asked, |parts, it| {
            let (since_ms, until_ms) = (it.timestamp_ms, it.timestamp_ms + HOUR_MS);
            list(parts, Wanted::Events, &Filter { since_ms, until_ms, ..limited() })
        }),
        "timeline": time(&live, whole, |parts, _| {
            query::timeline(parts, None, None, N_ANSWERS).expect("it is answered").buckets.len()
        }),
        "stats": time(&live, whole, |parts, _| query::stats(parts).expect("it is answered").n_users as usize),
        "asked": asked.iter().map(|it| json!({
            "event_id": it.event_id, "user": it.user, "timestamp": it.timestamp_ms,
        })).collect::<Vec<_>>(),
    });
    println!("{report}");
}

fn limited() -> Filter {
    Filter {
        limit: N_ANSWERS,
        ..Filter::default()
    }
}

/// Events at times by chance.
fn by_chance(live: &Live, n_questions: usize) -> Vec<Asked> {
    let views = [live.view().expect("it opens")];
    let parts = Parts::of(&views);
    let stats = query::stats(parts).expect("it is answered");
    let (first_ms, last_ms) = stats.first_ms.zip(stats.last_ms).expect("there are events");
    let mut chance = 1_u64;
    let mut asked = Vec::new();
    for _ in 0..n_questions {
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let filter = Filter {
            since_ms: first_ms + (chance >> 20) as i64 % (last_ms - first_ms).max(1),
            order: Order::OldestFirst,
            limit: 1,
            ..Filter::default()
        };
        let searched = query::search(parts, Wanted::Events, &filter, |found| {
            let view = found.block.view(&found.block.events[0]);
            asked.push(Asked {
                event_id: view.event_id.to_owned(),
                user: view.user.to_owned(),
                timestamp_ms: view.timestamp_ms,
            });
            Ok(true)
        });
        searched.expect("it is answered");
    }
    asked
}

/// How many items there are, each as a line.
fn list(parts: Parts<'_>, wanted: Wanted, filter: &Filter) -> usize {
    let mut lines = Vec::new();
    let mut n_found = 0;
    let searched = query::search(parts, wanted, filter, |found| {
        n_found += 1;
        found.push_line(&mut lines);
        Ok(true)
    });
    searched.expect("it is answered");
    n_found
}

/// Percentiles in ms, after a first question that is not counted; how many answers there were on average.
fn time(live: &Live, asked: &[Asked], ask: impl Fn(Parts<'_>, &Asked) -> usize) -> Value {
    let once = |it: &Asked| {
        let start = Instant::now();
        let views: [View<'_>; 1] = [live.view().expect("it opens")];
        let n_found = ask(Parts::of(&views), it);
        (start.elapsed().as_secs_f64() * 1e3, n_found)
    };
    once(&asked[0]);
    let (mut times_ms, counts): (Vec<f64>, Vec<usize>) = asked.iter().map(once).unzip();
    times_ms.sort_by(f64::total_cmp);
    let at = |p: usize| {
        let place = (times_ms.len() * p / 100).min(times_ms.len() - 1);
        (times_ms[place] * 1_000.0).round() / 1_000.0
    };
    let n_found = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    json!({"p50": at(50), "p95": at(95), "p99": at(99), "answers": n_found})
}
