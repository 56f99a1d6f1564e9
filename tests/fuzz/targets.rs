//! What reads bytes that others have written, each as a function of those bytes that panics where a promise does not
//! hold. `scripts/fuzz` runs them for as long as it is told to, guided by coverage; `tests/it/fuzz.rs` briefly.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::hint::black_box;
use std::path::Path;
use std::sync::LazyLock;

use serde::de::IgnoredAny;
use streamguard::batch::{Block, Origin};
use streamguard::detect::adaptive::Adaptive;
use streamguard::detect::classic::Classic;
use streamguard::detect::{Detector, DetectorConfig, DetectorKind, Observed, UserKey, Verdict};
use streamguard::embed::{self, Embedding, embed_event, embed_text};
use streamguard::engine::Source;
use streamguard::io::dead_letter::Replay;
use streamguard::io::{marked, position};
use streamguard::llm::clean::clean;
use streamguard::llm::wire::End;
use streamguard::llm::{Provider, Redact, Subject, injection, reply};
use streamguard::mapping::{AUTO, Mapping, MappingConfig};
use streamguard::query::parse_cursor;
use streamguard::record::analysis::AnalysisRecord;
use streamguard::record::anomaly::AnomalyRecord;
use streamguard::record::feedback::{parse_name, parse_note};
use streamguard::record::{Event, EventView, LINE_BYTES_MAX, Values};
use streamguard::shutdown::Shutdown;
use streamguard::{schema, time};

/// A target; it panics where a promise does not hold.
pub type Target = fn(&[u8]);

/// All of them by their names, which are also those of the programs in `fuzz_targets`.
pub const TARGETS: [(&str, Target); 8] = [
    ("lines", lines),
    ("mapping", mapping),
    ("mapping_document", mapping_document),
    ("baselines", baselines),
    ("stored", stored),
    ("replies", replies),
    ("parameters", parameters),
    ("dead_letters", dead_letters),
];

/// The moment that times without a year are before: results must not depend on the day.
const NOW_MS: i64 = 1_750_000_000_000;

fn block_of(lines: &[u8]) -> Block {
    let mut block = Block::new();
    block.lines.extend_from_slice(lines);
    if !lines.ends_with(b"\n") {
        block.lines.push(b'\n');
    }
    block
}

/// Lines are events or rejects, none is lost, and what passes is what an ordinary parser reads, too.
pub fn lines(bytes: &[u8]) {
    let mut block = block_of(bytes);
    block.parse(LINE_BYTES_MAX);
    check_events(&block);
}

fn check_events(block: &Block) {
    let n_all = block.events.len() as u64 + block.rejects.len() as u64 + block.n_blank;
    assert_eq!(n_all, block.n_lines, "lines are lost");
    let mut line = Vec::new();
    for event in &block.events {
        let view = block.view(event);
        line.clear();
        block.push_bare_line(event, &mut line);
        serde_json::from_slice::<IgnoredAny>(&line).expect("what passes is JSON for everybody");
        // Half of a pair of surrogates is let pass where nobody looks, and is none for others.
        if let Ok(json) = serde_json::from_slice::<serde_json::Value>(&line) {
            assert_eq!(json["user"], view.user, "another user");
        }
        assert!(!view.user.is_empty() && !view.event_id.is_empty() && !view.kind.is_empty());
        assert!(view.threat_score.is_none_or(|it| (0.0..=1.0).contains(&it)));
        assert!(view.bytes.is_none_or(|it| it >= 0.0 && it.is_finite()));
        look(block, event, &line);
    }
}

/// What is made of an event by those who look at all of it.
fn look(block: &Block, event: &Event, line: &[u8]) {
    let subject = Subject::of_event(
        block,
        event,
        Redact {
            user: true,
            ip: true,
        },
    );
    for provider in [Provider::Anthropic, Provider::Openai] {
        let body = provider.body(&subject, "m", true);
        serde_json::from_slice::<serde_json::Value>(&body).expect("a request is JSON");
    }
    let embedding = embed_event(&embed::Subject::new(event, block.view(event), None));
    assert!(embedding.vector.is_valid());
    black_box(injection::find(&String::from_utf8_lossy(line)));
}

/// Records of any format are events or rejects; what they become is read as any line.
pub fn mapping(bytes: &[u8]) {
    static AUTOMATIC: LazyLock<Mapping> = LazyLock::new(|| {
        let config = MappingConfig {
            format: Some(AUTO.to_owned()),
            latest_ms: Some(NOW_MS),
            keeps_raw: true,
            ..MappingConfig::default()
        };
        Mapping::new(config).expect("the known formats are whole")
    });
    let mut block = block_of(bytes);
    let ahead = AUTOMATIC.look_ahead(std::slice::from_ref(&block));
    AUTOMATIC.parse(&mut block, &ahead[0], LINE_BYTES_MAX);
    let mut line = Vec::new();
    for event in &block.events {
        line.clear();
        block.push_bare_line(event, &mut line);
        let mut again = block_of(&line);
        again.parse(LINE_BYTES_MAX);
        assert!(
            again.rejects.is_empty() && again.events.len() == 1,
            "it is no event of ours"
        );
        check_events(&again);
    }
}

/// A mapping of a user's own is refused with a reason, or it maps without trouble.
pub fn mapping_document(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // The record comes after the document.
    let (document, records) = text.split_once("\n---\n").unwrap_or((text, "{}"));
    let file = tempfile::NamedTempFile::new().expect("there is room for a file");
    std::fs::write(file.path(), document).expect("there is room for a file");
    let config = MappingConfig {
        files: vec![file.path().to_owned()],
        latest_ms: Some(NOW_MS),
        ..MappingConfig::default()
    };
    let mapping = match Mapping::new(config) {
        Ok(mapping) => mapping,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let mut block = block_of(records.as_bytes());
    let ahead = mapping.look_ahead(std::slice::from_ref(&block));
    mapping.parse(&mut block, &ahead[0], LINE_BYTES_MAX);
    for event in &block.events {
        black_box(block.view(event));
    }
}

/// An event that is observed, as by `sg-score`.
struct InBlock<'a>(&'a Block, &'a Event);

impl<'a> Observed<'a> for InBlock<'a> {
    fn view(&self) -> EventView<'a> {
        self.0.view(self.1)
    }

    fn values(&self) -> Values<'a> {
        self.0.values(self.1)
    }
}

/// Records of baselines are refused, or they are states that can be scored by and written again.
pub fn baselines(bytes: &[u8]) {
    let Some((&which, record)) = bytes.split_first() else {
        return;
    };
    match which % 4 {
        0 => user(
            &Adaptive::new(DetectorConfig::standard(DetectorKind::Adaptive)),
            record,
        ),
        1 => user(
            &Classic::new(DetectorConfig::standard(DetectorKind::Classic)),
            record,
        ),
        2 => shared(
            Adaptive::new(DetectorConfig::standard(DetectorKind::Adaptive)),
            record,
        ),
        _ => shared(
            Classic::new(DetectorConfig::standard(DetectorKind::Classic)),
            record,
        ),
    }
}

/// Events of one user that differ in everything.
static EVENTS: LazyLock<Block> = LazyLock::new(|| {
    let mut lines = Vec::new();
    for (i, at) in [
        0_i64,
        1_700_000_000_000,
        1_700_000_100_000,
        253_402_300_799_999,
    ]
    .iter()
    .enumerate()
    {
        let line = format!(
            r#"{{"event_id":"e{i}","user":"u","timestamp":{at},"type":"LOGIN_FAILED","source_ip":"203.0.113.{i}","geo_location":"Oslo, NO","threat_score":0.{i},"status":"failed","metadata":{{"asn":"{i}","device":"d{i}","user_agent":"a","endpoint":"/{i}","bytes":{i}}}}}"#
        );
        lines.extend_from_slice(line.as_bytes());
        lines.push(b'\n');
    }
    let mut block = block_of(&lines);
    block.parse(LINE_BYTES_MAX);
    assert_eq!(block.events.len(), 4, "the events are none");
    block
});

fn user<D: Detector>(detector: &D, record: &[u8]) {
    let Ok(mut user) = detector.read_user(record) else {
        return;
    };
    assert!(
        D::user_bytes(&user) <= D::USER_BYTES_MAX,
        "a state beyond its limit"
    );
    let mut written = Vec::new();
    detector.write_user(&user, &mut written);
    let again = detector
        .read_user(&written)
        .expect("what was written can be read");
    let mut twice = Vec::new();
    detector.write_user(&again, &mut twice);
    assert_eq!(written, twice, "it is another state once it was stored");
    observe(detector, &mut user);
    written.clear();
    detector.write_user(&user, &mut written);
    detector
        .read_user(&written)
        .expect("a state that has learned can be stored");
}

fn observe<D: Detector>(detector: &D, user: &mut D::User) {
    let key = UserKey::of("u", &BuildHasherDefault::<DefaultHasher>::default());
    let mut deltas = D::Deltas::default();
    let mut verdict = Verdict::default();
    for event in &EVENTS.events {
        let view = EVENTS.view(event);
        verdict.clear();
        let features = D::features(&view);
        detector.observe(
            key,
            user,
            &mut deltas,
            &features,
            &InBlock(&EVENTS, event),
            &mut verdict,
        );
        assert!(
            verdict
                .score
                .is_none_or(|score| (0.0..=1.0).contains(&score)),
            "no score"
        );
        if !verdict.anomaly.is_empty() {
            serde_json::from_slice::<AnomalyRecord>(&verdict.anomaly).expect("an anomaly is JSON");
        }
    }
}

fn shared<D: Detector>(mut detector: D, record: &[u8]) {
    let Ok(deltas) = detector.read_shared(record) else {
        return;
    };
    let written = detector.write_shared(&deltas);
    if !written.is_empty() {
        let deltas = detector
            .read_shared(&written)
            .expect("what was written can be read");
        assert_eq!(
            detector.write_shared(&deltas),
            written,
            "it is another one once it was stored"
        );
    }
    let view = EVENTS.view(&EVENTS.events[1]);
    let mut user = detector.new_user(&D::features(&view));
    observe(&detector, &mut user);
}

/// Keys and values of a database, of which some may be damaged: nothing panics, and what is read is written alike.
pub fn stored(bytes: &[u8]) {
    black_box(schema::split_id_key(bytes));
    black_box(schema::split_user_key(bytes));
    black_box(schema::split_severity_key(bytes));
    black_box(schema::split_feedback_key(bytes));
    black_box(schema::split_alert_key(bytes));
    black_box(schema::split_vector_sum_key(bytes));
    black_box(schema::split_stretch_key(bytes));
    if let Some((at, id)) = schema::split_event_key(bytes) {
        let mut key = Vec::new();
        schema::push_event_key(&mut key, at, id);
        assert_eq!(key, bytes, "another key");
    }
    if let Some((task, user)) = schema::split_baseline_key(bytes) {
        assert_eq!(schema::baseline_key(task, user), bytes, "another key");
    }
    if let Some(embedding) = Embedding::read(bytes) {
        assert!(embedding.vector.is_valid());
        let mut written = Vec::new();
        embedding.write(&mut written);
        let again = Embedding::read(&written).expect("what was written can be read");
        let mut twice = Vec::new();
        again.write(&mut twice);
        assert_eq!(written, twice, "another vector");
        black_box(embedding.vector.cosine(&again.vector));
    }
    if let Ok(record) = serde_json::from_slice::<AnalysisRecord>(bytes) {
        black_box(record.to_json());
    }
    black_box(serde_json::from_slice::<AnomalyRecord>(bytes).is_ok());
    black_box(serde_json::from_slice::<position::Position>(bytes).is_ok());
    black_box(marked::positions(bytes).is_ok());
    black_box(Subject::read(
        bytes,
        Some(bytes),
        Some(bytes),
        Redact::default(),
    ));
}

/// What services answer is refused, or it is clean and within its limits.
pub fn replies(bytes: &[u8]) {
    static SUBJECT: LazyLock<Subject> = LazyLock::new(|| {
        let line = br#"{"event_id":"e","user":"ann@example.org","timestamp":1,"type":"LOGIN_FAILED","source_ip":"203.0.113.1","metadata":{"device":"d"}}"#;
        Subject::read(
            line,
            None,
            None,
            Redact {
                user: true,
                ip: true,
            },
        )
        .expect("it is an event")
    });
    for provider in [Provider::Anthropic, Provider::Openai] {
        black_box(provider.fault(400, None, bytes));
        black_box(provider.fault(529, Some(true), bytes));
        let said = match provider.read(bytes) {
            Some(said) => match said.end {
                End::Said(text) => text,
                _ => continue,
            },
            // What it would have said.
            None => String::from_utf8_lossy(bytes).into_owned(),
        };
        let Some(verdict) = reply::read(&said, &SUBJECT) else {
            continue;
        };
        assert!((0.0..=1.0).contains(&verdict.confidence));
        assert!(
            verdict.summary.chars().all(|it| !it.is_control()),
            "{:?}",
            verdict.summary
        );
        assert_eq!(
            clean(&verdict.summary, usize::MAX),
            verdict.summary,
            "it is not clean"
        );
        let text = serde_json::to_vec(&verdict).expect("it can be stored");
        let again: reply::Verdict = serde_json::from_slice(&text).expect("it can be read again");
        assert_eq!(again, verdict);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Some(embedding) = embed_text(text) {
            assert!(embedding.vector.is_valid());
        }
        black_box(injection::find(text));
    }
}

/// Texts of options, of parameters of the API and of headers.
pub fn parameters(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // Years of four digits, and a day for zones.
    let in_range = |ms: i64| (-62_167_305_600_000..=253_402_387_199_999).contains(&ms);
    if let Ok(ms) = time::parse_time(text, NOW_MS) {
        black_box(time::format_time(ms));
    }
    black_box(time::parse_span(text));
    black_box(time::parse_http_date(text));
    if let Some(ms) = time::parse_iso(text) {
        assert!(in_range(ms), "{ms}");
        black_box(time::format_time_ms(ms));
    }
    let (format, value) = text
        .split_once('\n')
        .unwrap_or((text, "2025-01-31 12:00:00"));
    black_box(time::parse_formatted(format, value));
    if let Ok(key) = parse_cursor(text) {
        assert_eq!(streamguard::query::cursor(&key), text, "another cursor");
    }
    if let Ok(name) = parse_name(text) {
        assert!(!name.is_empty());
    }
    black_box(parse_note(text).is_ok());
    black_box(clean(text, 100));
}

/// Dead letters come back as the lines that they hold; what is none is told, and costs no other one.
pub fn dead_letters(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().expect("there is room for a file");
    std::fs::write(file.path(), bytes).expect("there is room for a file");
    let mut replay = Replay::open(file.path(), &Shutdown::default(), 1 << 16).expect("it is there");
    let mut n_turns = 0_usize;
    loop {
        let mut block = Block::new();
        match replay.fill(&mut block) {
            Ok(true) if block.part.is_none() => {
                block.parse(1 << 16);
                check_events(&block);
                black_box::<&Origin>(&block.origin);
            }
            Ok(true) | Err(_) => {}
            Ok(false) => break,
        }
        n_turns += 1;
        assert!(n_turns <= 2 * bytes.len() + 2, "it does not end");
    }
}

/// What is good input, to begin with: the shipped samples, and what the programs write themselves. `root` is the
/// project's folder.
pub fn seeds(root: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    let files = |folder: &str, endings: &[&str]| {
        let found = std::fs::read_dir(root.join(folder)).expect("the samples are there");
        let mut paths: Vec<_> = found
            .map(|entry| entry.expect("it can be read").path())
            .collect();
        paths.retain(|path| {
            let ending = path
                .extension()
                .and_then(|it| it.to_str())
                .unwrap_or_default();
            path.is_file() && endings.contains(&ending)
        });
        paths.sort();
        let read = |path: &std::path::PathBuf| std::fs::read(path).expect("it can be read");
        paths.iter().map(read).collect::<Vec<_>>()
    };
    for json in files("testdata/json_test_suite", &["json"]) {
        seeds.push(("lines", json));
    }
    for sample in files("testdata/mapping", &["expected"]) {
        seeds.extend(
            sample
                .split_inclusive(|&it| it == b'\n')
                .take(20)
                .map(|line| ("lines", line.to_vec())),
        );
    }
    for sample in files("testdata/mapping", &["jsonl", "log"]) {
        let whole = String::from_utf8_lossy(&sample).into_owned();
        seeds.extend(
            whole
                .lines()
                .map(|line| ("mapping", line.as_bytes().to_vec())),
        );
        seeds.push(("mapping", sample));
    }
    for document in files("src/mapping/formats", &["toml"]) {
        seeds.push(("mapping_document", document));
    }
    seeds.push(("mapping_document", SMALL_DOCUMENT.as_bytes().to_vec()));
    for which in 0..4 {
        seeds.push(("baselines", baseline(which)));
    }
    seeds.extend(
        STORED
            .iter()
            .map(|text| ("stored", text.as_bytes().to_vec())),
    );
    seeds.extend(
        REPLIES
            .iter()
            .map(|text| ("replies", text.as_bytes().to_vec())),
    );
    seeds.extend(
        PARAMETERS
            .iter()
            .map(|text| ("parameters", text.as_bytes().to_vec())),
    );
    seeds.push(("dead_letters", LETTERS.as_bytes().to_vec()));
    seeds
}

/// A record of what a detector has learned from events, and before it the number of its kind.
fn baseline(which: u8) -> Vec<u8> {
    fn of<D: Detector>(detector: &D, is_shared: bool, record: &mut Vec<u8>) {
        let view = EVENTS.view(&EVENTS.events[1]);
        let mut user = detector.new_user(&D::features(&view));
        observe(detector, &mut user);
        if is_shared {
            record.extend(detector.write_shared(&D::Deltas::default()));
        } else {
            detector.write_user(&user, record);
        }
    }
    let mut record = vec![which];
    let is_shared = which >= 2;
    match which % 2 {
        0 => of(
            &Adaptive::new(DetectorConfig::standard(DetectorKind::Adaptive)),
            is_shared,
            &mut record,
        ),
        _ => of(
            &Classic::new(DetectorConfig::standard(DetectorKind::Classic)),
            is_shared,
            &mut record,
        ),
    }
    record
}

const SMALL_DOCUMENT: &str = r#"name = "own"
records = ["Records"]
each = "actions"
[aliases]
id = ["a.*", "b.%"]
[[detect]]
has = ["when", "who"]
is = { kind = ["x", 1] }
[[pattern]]
of = "who"
regex = '^(?<name>[a-z]+)@'
set = { log = "a" }
[[reject]]
when = { "$log" = { not = "b" }, "n" = { matches = '^\d{9}$' } }
reason = "no"
[fields]
event_id = "id | ~id.x"
user = ["$name", { from = "who", match = '^(.+)@', as = "lower" }]
timestamp = { from = "when", time = ["iso", "s", "ms", "%d/%b/%Y %H:%M:%S"] }
type = [{ when = { "n" = [1, 2] }, text = "LOGIN_{kind}" }, { from = "kind", map = "kinds" }]
source_ip = { from = "ip[0] | ip[*].address | list[name=ip].value", as = "ip" }
[metadata]
bytes = { from = "n", as = "number" }
path = { from = "p", as = "slashes" }
[tables.kinds]
x = "A"
"y*" = "B"
---
{"when":"2025-01-01T00:00:00Z","who":"Ann@x","kind":"x","n":3,"ip":["1.2.3.4:5"],"p":"a\\b"}
{"Records":[{"when":1700000000,"who":"b","kind":"yes","actions":[{},{}]}]}
"#;

const STORED: [&str; 5] = [
    r#"{"outcome":"ok","severity":"high","confidence":0.5,"indicators":[{"field":"user","observation":"o"}],"summary":"s","recommendation":"r","model":"m"}"#,
    r#"{"model":"local-1","dim":4,"text_hash":"00000000000000ff","vector_i8":"AQIDBA==","scale":0.5}"#,
    r#"{"anomaly_score":0.99,"severity":"high","reasons":["new address"],"detector":"adaptive","baseline_events":5}"#,
    r#"{"sg":{"db":"a","checkpoint":3,"positions":{"file:/a":{"line":3,"offset":100}}}}"#,
    "000001700000000:event-1",
];

const REPLIES: [&str; 4] = [
    r#"{"id":"m","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"{\"severity\":\"high\",\"confidence\":0.9,\"indicators\":[{\"field\":\"source_ip\",\"observation\":\"o\"}],\"summary\":\"s\",\"recommendation\":\"r\"}"}],"stop_reason":"end_turn","usage":{"input_tokens":10,"output_tokens":5}}"#,
    r#"{"choices":[{"message":{"content":"{\"severity\":\"low\"}","refusal":null},"finish_reason":"stop"}],"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
    r#"{"severity":"critical","confidence":1,"indicators":[{"field":"event.user","observation":"USER_1"}],"summary":"a\u202eb","recommendation":"r"}"#,
    r#"{"type":"error","error":{"type":"overloaded_error","message":"m","details":{"error_code":"x"}}}"#,
];

const PARAMETERS: [&str; 9] = [
    "24h",
    "1700000000000",
    "2025-02-28T23:59:60.123456789+14:00",
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "%Y-%m-%d %H:%M:%S\n2025-01-01 00:00:00",
    "%a %e %b %I:%M:%S%.f %p %z\nMon  1 Jan 01:02:03.4 PM +0100",
    "MDAwMDAxNzAwMDAwMDAwOmV2ZW50LTE",
    "ann",
    "a note\nof two lines",
];

const LETTERS: &str = concat!(
    r#"{"source":"a","position":{"line":1,"offset":0},"reason":{"code":"not_json","message":"m"},"raw_b64":"bm8="}"#,
    "\n",
    r#"{"source":"a","position":{"line":2,"offset":9},"reason":{"code":"line_too_long","message":"m"},"part":{"index":0,"is_last":false},"raw_b64":"eyJl"}"#,
    "\n",
    r#"{"source":"a","position":{"line":2,"offset":9},"reason":{"code":"line_too_long","message":"m"},"part":{"index":1,"is_last":true},"raw_b64":"fQ=="}"#,
    "\n",
);
