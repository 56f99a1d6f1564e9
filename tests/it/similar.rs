//! How `sg-query similar` answers: as a slow reader would who compares with every line, one by one.

use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;
use tempfile::TempDir;

use crate::database::{lines_of, store};
use crate::query_model::{HOSTILE, Item, Question, ask, hostile_lines, items_of, odd_lines};
use crate::tools::{Ran, event, event_and, run};

/// The numbers of an embedding, by its description in `embed/record.rs`.
pub(crate) fn numbers(embedding: &Value) -> Vec<f64> {
    let bytes = embedding["vector"].as_str().unwrap();
    let bytes = BASE64_STANDARD.decode(bytes).unwrap();
    match embedding["encoding"].as_str().unwrap() {
        "i8" => bytes.iter().map(|byte| f64::from(*byte as i8)).collect(),
        "f32" => {
            let numbers = bytes.chunks_exact(4);
            let number = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()));
            numbers.map(number).collect()
        }
        other => panic!("{other}"),
    }
}

pub(crate) fn embedded(lines: &[u8], args: &[&str]) -> Vec<u8> {
    run("sg-embed", &[&["-q"], args].concat(), lines)
        .expect_code(0)
        .stdout
}

/// A database in which all events have an embedding, and its model.
pub(crate) struct Model {
    _folder: TempDir,
    pub(crate) db: PathBuf,
    pub(crate) items: Vec<Item>,
    vectors: Vec<Vec<f64>>,
}

impl Model {
    pub(crate) fn of(lines: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = folder.path().join("db");
        store(&db, lines).expect_code(0);
        let mut model = Self {
            _folder: folder,
            db,
            items: Vec::new(),
            vectors: Vec::new(),
        };
        model.now_is(lines);
        model
    }

    /// What the database is to hold now.
    pub(crate) fn now_is(&mut self, lines: &[u8]) {
        self.items = items_of(lines);
        let vectors = self
            .items
            .iter()
            .map(|item| numbers(&item.fields["embedding"]));
        self.vectors = vectors.collect();
    }

    /// Scores and places of the events that are most like one, the most alike first, of equals the newest.
    pub(crate) fn answer(&self, of: usize, question: &Question) -> Vec<(f64, usize)> {
        let all = (0..self.items.len()).filter(|i| *i != of);
        let matching = all.filter(|i| question.matches(&self.items[*i]));
        let mut answer: Vec<(f64, usize)> = matching
            .map(|i| (cosine(&self.vectors[of], &self.vectors[i]), i))
            .collect();
        answer.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
        answer
    }

    /// Asks, and compares with the model, by bytes.
    #[track_caller]
    pub(crate) fn check(&self, of: usize, question: &Question) -> usize {
        self.check_in(&[&self.db], of, question)
    }

    #[track_caller]
    pub(crate) fn check_in(&self, dbs: &[&Path], of: usize, question: &Question) -> usize {
        let id = self.items[of].text("event_id");
        let mut args: Vec<String> = dbs
            .iter()
            .map(|db| format!("--db={}", db.display()))
            .collect();
        args.push("similar".to_owned());
        args.extend(question.args().into_iter().skip(1));
        args.extend(["--".to_owned(), id.to_owned()]);
        let ran = run(
            "sg-query",
            &args.iter().map(String::as_str).collect::<Vec<_>>(),
            b"",
        );
        let mut expected = self.answer(of, question);
        expected.truncate(question.limit.unwrap_or(10));
        let found: Vec<(f64, &str)> = (ran.text().lines())
            .map(|line| {
                let (score, event) = line.split_once(",\"event\":").unwrap();
                let score = score.strip_prefix("{\"score\":").unwrap();
                (score.parse().unwrap(), event.strip_suffix('}').unwrap())
            })
            .collect();
        let expected: Vec<(f64, String)> = (expected.into_iter())
            .map(|(score, i)| (score, without_embedding(&self.items[i].line)))
            .collect();
        assert_eq!(found.len(), expected.len(), "{args:?}: {}", ran.stderr);
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (found.0 - expected.0).abs() < 1e-5,
                "{args:?}: {found:?}, {expected:?}"
            );
            assert_eq!(found.1, expected.1, "{args:?}");
        }
        assert_eq!(ran.code, i32::from(expected.is_empty()), "{args:?}");
        assert_eq!(ran.stderr, "", "{args:?}");
        expected.len()
    }
}

fn without_embedding(line: &str) -> String {
    let (before, _) = line.split_once(",\"embedding\":{\"model\":").unwrap();
    format!("{before}}}")
}

/// As the product of numbers that are whole: of equals the sums are equal.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
}

/// Numbers by chance, the same each time (`SplitMix64`).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).unwrap()
    }
}

/// A question with filters by chance.
pub(crate) fn question(random: &mut Random, items: &[Item]) -> Question {
    let mut some = |share: usize| {
        let item = &items[random.below(items.len())];
        (random.below(share) == 0).then_some(item)
    };
    let since = some(4).map(Item::timestamp_ms);
    let until = some(4).map(Item::timestamp_ms);
    let user = some(6).map(|item| item.text("user").to_owned());
    let kind = some(3).map(|item| item.text("type").to_owned());
    let ip = some(5).map(|item| item.text("source_ip").to_owned());
    let min_score = some(8).and_then(Item::score);
    let severity = some(8).and_then(Item::severity_rank);
    Question {
        since,
        until,
        user,
        kind,
        ip: ip.filter(|ip| !ip.is_empty()),
        min_score,
        severity,
        limit: [None, Some(1), Some(7), Some(100)][random.below(4)],
        ..Question::default()
    }
}

#[test]
fn answers_are_those_of_a_comparison_with_every_line() {
    let model = Model::of(&embedded(&odd_lines(), &["--all"]));
    let mut random = Random(81);
    let mut n_found = [0; 2];
    for _ in 0..150 {
        let of = random.below(model.items.len());
        let question = question(&mut random, &model.items);
        let n_answers = model.check(of, &question);
        n_found[usize::from(n_answers > 0)] += 1;
    }
    assert!(n_found[0] > 10 && n_found[1] > 60, "{n_found:?}");
}

#[test]
fn several_databases_answer_as_one() {
    let lines = embedded(&odd_lines(), &["--all"]);
    let model = Model::of(&lines);
    let folder = tempfile::tempdir().unwrap();
    let dbs = ["a", "b", "c"].map(|name| folder.path().join(name));
    // A third each, and some in two of them.
    for (n, db) in dbs.iter().enumerate() {
        let part = lines_of(&lines).into_iter().enumerate();
        let part = part.filter(|(i, _)| i % 3 == n || i % 7 == n);
        let part: Vec<u8> = part.flat_map(|(_, line)| line).copied().collect();
        store(db, &part).expect_code(0);
    }
    let mut random = Random(82);
    for i in 0..40 {
        let of = random.below(model.items.len());
        let mut dbs: Vec<&Path> = dbs.iter().map(PathBuf::as_path).collect();
        dbs.rotate_left(i % 3);
        model.check_in(&dbs, of, &question(&mut random, &model.items));
    }
}

/// Many that are equally alike: which of them are shown does not depend on anything.
#[test]
fn of_equals_the_newest_come_first() {
    let lines: String = (0..20_000)
        .map(|i| {
            event(
                &format!("e{}", i * 7_919 % 20_000),
                "u",
                1_735_689_600_000 + i / 3,
            ) + "\n"
        })
        .collect();
    let model = Model::of(&embedded(lines.as_bytes(), &["--all"]));
    for of in [0, 19_999, 7] {
        model.check(of, &Question::default());
        let question = Question {
            kind: Some("LOGIN_SUCCESS".to_owned()),
            until: Some(1_735_689_600_100),
            ..Question::default()
        };
        model.check(of, &question);
    }
}

fn ids(ran: &Ran) -> Vec<String> {
    let lines = ran.json_lines().into_iter();
    lines
        .map(|line| line["event"]["event_id"].as_str().unwrap().to_owned())
        .collect()
}

/// An event without a vector can be asked for, and is found by nobody.
#[test]
fn an_event_without_a_vector_is_embedded_for_the_question() {
    let lines = odd_lines();
    let all = Model::of(&embedded(&lines, &["--all"]));
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, &embedded(&lines, &[])).expect_code(0);
    let is_anomaly = |item: &Item| item.score().is_some();
    let mut n_checked = 0;
    for of in (0..all.items.len()).step_by(211) {
        let id = all.items[of].text("event_id");
        let found = ids(&ask(&db, &["similar", "--", id]).expect_code(0));
        let answer = all.answer(of, &Question::default()).into_iter();
        let expected = answer.filter(|(_, i)| is_anomaly(&all.items[*i])).take(10);
        let expected: Vec<_> = expected
            .map(|(_, i)| all.items[i].text("event_id"))
            .collect();
        assert_eq!(found, expected, "{id}");
        n_checked += u32::from(!is_anomaly(&all.items[of]));
    }
    assert!(n_checked > 5);
}

/// What is stored already gets embeddings, or others, by another run.
#[test]
fn what_is_stored_already_gets_embeddings() {
    let folder = tempfile::tempdir().unwrap();
    let (db, expected) = (folder.path().join("db"), folder.path().join("expected"));
    let lines = odd_lines();
    store(&db, &lines).expect_code(0);
    let none = ask(&db, &["similar", "failures"]).expect_code(1);
    assert!(
        none.stderr.contains("events get some by sg-embed"),
        "{}",
        none.stderr
    );
    let args = ["--rescore", "--db", db.to_str().unwrap()];
    let rescore = |args: &[&str], embed: &[&str]| {
        let all = ask(&db, &["export"]).expect_code(0).stdout;
        run("sg-store", args, &embedded(&all, embed)).expect_code(0);
    };
    rescore(&args, &[]);
    store(&expected, &embedded(&lines, &[])).expect_code(0);
    assert_eq!(crate::tools::digest(&db), crate::tools::digest(&expected));
    ask(&db, &["similar", "failures"]).expect_code(0);
    rescore(&args, &["--all"]);
    let model = Model::of(&embedded(&lines, &["--all"]));
    assert_eq!(crate::tools::digest(&db), crate::tools::digest(&model.db));
    for of in [3, 700, 2_999] {
        model.check_in(&[&db], of, &Question::default());
    }
    // Without --rescore what is stored stays.
    store(&db, &embedded(&lines, &[])).expect_code(0);
    assert_eq!(crate::tools::digest(&db), crate::tools::digest(&model.db));
}

#[test]
fn texts_find_what_they_name() {
    let lines = crate::tools::generated(30_000, 200, 83);
    let scored = run("sg-score", &["-q", "--detector=adaptive"], &lines).expect_code(0);
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, &embedded(&scored.stdout, &[])).expect_code(0);
    let top = |text: &str| {
        let ran = ask(&db, &["similar", text, "-n3"]).expect_code(0);
        ran.json_lines()
            .into_iter()
            .map(|line| line["event"].clone())
            .collect::<Vec<_>>()
    };
    // Each kind of reason is found by the words that it is told in.
    let reasons: Vec<String> = (scored.json_lines().iter())
        .filter_map(|event| event["anomaly"]["reasons"].as_array().cloned())
        .flatten()
        .map(|reason| reason.as_str().unwrap().to_owned())
        .collect();
    let mut n_found = 0;
    for words in [
        "provider new to everybody",
        "browser new to everybody",
        "country new to everybody",
        "other users failed from this address or network, new to them",
        "many failures from networks new to everybody",
        "never-used resources",
        "first activity after",
        "active in another place within hours",
        "folder new to everybody",
        "new device with a known browser",
        "failures",
    ] {
        if !reasons.iter().any(|reason| reason.contains(words)) {
            continue;
        }
        n_found += 1;
        let reasons = top(words)[0]["anomaly"]["reasons"].to_string();
        assert!(reasons.contains(words), "{words}: {reasons}");
    }
    assert!(n_found > 7, "{n_found}");
    for event in top("password guessing") {
        assert_eq!(event["anomaly"]["archetype"], "guessing / stuffing");
    }
    let event = &scored
        .json_lines()
        .into_iter()
        .find(|it| it.get("anomaly").is_some())
        .unwrap();
    let user = event["user"].as_str().unwrap();
    assert_eq!(top(&format!("user:{user}"))[0]["user"], user);
    let address = event["source_ip"].as_str().unwrap();
    assert_eq!(top(address)[0]["source_ip"], address);
    let ran = ask(&db, &["similar", " ,;."]).expect_code(2);
    assert!(
        ran.stderr.contains("as a text it says nothing"),
        "{}",
        ran.stderr
    );
}

/// Vectors of other models and dimensions stand beside them and are never compared.
#[test]
fn models_are_never_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let line = |id: &str, model: &str, vector: &[f32]| {
        let bytes: Vec<u8> = vector
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        let (dim, vector) = (vector.len(), BASE64_STANDARD.encode(bytes));
        let event = event(id, "u", 1_735_689_600_000);
        format!(
            "{},\"embedding\":{{\"model\":\"{model}\",\"dim\":{dim},\"text_hash\":\"0123456789abcdef\",\
             \"encoding\":\"f32\",\"scale\":1,\"vector\":\"{vector}\"}}}}\n",
            &event[..event.len() - 1]
        )
    };
    let mut lines = String::new();
    for i in 0..40_u8 {
        let x = f32::from(i);
        lines += &line(&format!("m{i:02}"), "m", &[100.0, x, 0.5]);
        lines += &line(&format!("n{i:02}"), "n", &[100.0, x, 0.5]);
        lines += &line(&format!("k{i:02}"), "m", &[100.0, x]);
    }
    // What passes for an embedding and is none.
    for (i, value) in [
        r#"{"model":"m"}"#,
        r#"{"model":"m","dim":3,"text_hash":"0123456789abcdef","encoding":"f32","vector":"AAAA"}"#,
        r#"{"model":"m","dim":3,"text_hash":"0123456789abcdef","encoding":"i8","vector":"AAAA"}"#,
        r#"{"model":7}"#,
    ]
    .iter()
    .enumerate()
    {
        let event = event_and(&format!("\"embedding\":{value}"));
        lines += &event.replacen("\"e\"", &format!("\"bad{i}\""), 1);
        lines.push('\n');
    }
    store(&db, lines.as_bytes()).expect_code(0);
    crate::tools::digest(&db);
    let check = |args: &[&str], expected: &[&str]| {
        let ran = ask(&db, &[&["similar", "-n3"], args].concat()).expect_code(0);
        assert_eq!(ids(&ran), expected, "{args:?}");
    };
    check(&["m05"], &["m06", "m04", "m07"]);
    check(&["n05"], &["n06", "n04", "n07"]);
    check(&["k05"], &["k06", "k04", "k07"]);
    check(&["k05", "--model=m"], &["k06", "k04", "k07"]);
    let ran = ask(&db, &["similar", "m05", "--model=n"]).expect_code(2);
    assert!(
        ran.stderr.contains("the event has no vector of model n"),
        "{}",
        ran.stderr
    );
    let ran = ask(&db, &["similar", "some text", "--model=n"]).expect_code(2);
    assert!(
        ran.stderr.contains("a text has no vector of model n"),
        "{}",
        ran.stderr
    );
    for args in [&["some text"][..], &["bad0"], &["m05", "--model=local-1"]] {
        let ran = ask(&db, &[&["similar"], args].concat()).expect_code(1);
        assert_eq!(
            ran.stderr,
            "sg-query: there are no vectors of model local-1 with 256 numbers, but 40 of m with 2, 40 of m \
             with 3, 40 of n with 3\n"
        );
    }
}

/// What somebody asks with words of a remote model is embedded by the server.
#[test]
fn a_server_makes_the_vector_of_a_text() {
    use crate::embed::stub::{Reply, Stub};
    let stub = Stub::start(|_| Reply::Right);
    let url = stub.url();
    let server = ["--provider=openai", "--model=m", "--base-url", &url];
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    let lines = embedded(&odd_lines(), &server);
    store(&db, &lines).expect_code(0);
    let ran = ask(&db, &[&["similar", "anything"], &server[..]].concat()).expect_code(0);
    assert_eq!(ids(&ran).len(), 10);
    assert_eq!(stub.sentences().last().unwrap(), "anything");
    // A stored event needs no server, and one without a vector is told as a sentence.
    let n_before = stub.requests().len();
    let id = ids(&ran).remove(0);
    assert_eq!(
        ids(&ask(&db, &["similar", "--", &id]).expect_code(0)).len(),
        10
    );
    assert_eq!(stub.requests().len(), n_before);
    let plain = items_of(&odd_lines())
        .into_iter()
        .find(|item| item.score().is_none())
        .unwrap();
    let id = plain.text("event_id");
    ask(&db, &[&["similar"], &server[..], &["--", id]].concat()).expect_code(0);
    let sentence = stub.sentences().pop().unwrap();
    assert!(sentence.contains(plain.text("user")), "{sentence}");
    let failing = Stub::start(|_| Reply::Status(401, ""));
    let url = failing.url();
    let args = [
        "similar",
        "x",
        "--provider=openai",
        "--model=m",
        "--base-url",
        &url,
    ];
    let ran = ask(&db, &args).expect_code(2);
    assert!(
        ran.stderr.contains("the server has given no vector"),
        "{}",
        ran.stderr
    );
}

#[test]
fn hostile_texts_are_embedded_and_asked_for() {
    let lines = embedded(hostile_lines().as_bytes(), &[]);
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, &lines).expect_code(0);
    for item in items_of(&lines) {
        let id = item.text("event_id");
        for format in ["table", "ndjson"] {
            let ran = ask(&db, &["similar", "-f", format, "-n99", "--", id]).expect_code(0);
            if format == "table" {
                let control = |c: char| c.is_control() && c != '\n';
                assert!(!ran.text().contains(control), "{id:?}: {}", ran.text());
            } else {
                assert_eq!(ran.json_lines().len(), HOSTILE.len() - 1);
            }
        }
    }
    let long = "x ".repeat(20_000);
    for text in HOSTILE
        .iter()
        .chain(&[&*long])
        .filter(|text| !text.contains('\0'))
    {
        let ran = ask(&db, &["similar", "--", text]);
        assert!([0, 2].contains(&ran.code), "{text:?}: {}", ran.stderr);
        let ran = ask(
            &db,
            &[
                "similar",
                "--",
                &format!("user:{text} type={text} ip:{text}"),
            ],
        );
        assert_eq!(ran.code, 0, "{text:?}: {}", ran.stderr);
    }
}

#[test]
fn wrong_usage_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, event("e", "u", 1).as_bytes()).expect_code(0);
    for (args, words) in [
        (&[][..], "EVENT_ID|TEXT"),
        (&["e", "-f", "csv"], "there is no CSV of this"),
        (&["e", "--since", "x"], "--since"),
        (&["e", "--provider=openai"], "needs --model"),
    ] {
        let ran = ask(&db, &[&["similar"], args].concat()).expect_code(2);
        assert!(ran.stderr.contains(words), "{args:?}: {}", ran.stderr);
    }
    ask(&db, &["similar", "e", "-n0"]).expect_code(1);
}
