//! The file that `sg-query similar` derives from a database: whatever happens to it or to the database,
//! answers are those of the database.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::database::{admin, lines_of, raw, store};
use crate::kills::kill_and_repeat;
use crate::query_model::{Question, ask, odd_lines};
use crate::similar::{Model, Random, embedded, question};
use crate::tools::{event, generated, program, run, shell};

fn file_of(db: &Path) -> PathBuf {
    db.join("streamguard.similar")
}

fn read(db: &Path) -> Vec<u8> {
    std::fs::read(file_of(db)).unwrap()
}

/// Some questions without a filter that does without the file.
#[track_caller]
fn check(model: &Model) {
    let n_items = model.items.len();
    for of in [0, n_items / 2, n_items - 1] {
        model.check(of, &Question::default());
        let item = &model.items[n_items / 3];
        let question = Question {
            kind: Some(item.text("type").to_owned()),
            since: Some(item.timestamp_ms()),
            ..Question::default()
        };
        model.check(of, &question);
    }
}

#[test]
fn the_file_is_made_once_and_grows_with_the_database() {
    let lines = embedded(&odd_lines(), &["--all"]);
    let pieces = lines_of(&lines);
    let mut model = Model::of(&pieces[..2_000].concat());
    assert!(!file_of(&model.db).exists());
    check(&model);
    let first = read(&model.db);
    assert!(first.len() > 2_000 * (32 + 256));
    check(&model);
    assert!(read(&model.db) == first);
    // What comes later is put behind it.
    store(&model.db, &pieces[2_000..2_400].concat()).expect_code(0);
    model.now_is(&pieces[..2_400].concat());
    check(&model);
    let second = read(&model.db);
    assert!(second.len() > first.len() && second.starts_with(&first));
    // What comes between takes the place of what was there.
    store(&model.db, &lines).expect_code(0);
    model.now_is(&lines);
    check(&model);
    let third = read(&model.db);
    check(&model);
    assert!(read(&model.db) == third);
}

#[test]
fn the_file_follows_a_prune() {
    let lines = embedded(&odd_lines(), &["--all"]);
    let mut model = Model::of(&lines);
    check(&model);
    let n_bytes = read(&model.db).len();
    for share in [3, 2] {
        let before = model.items[model.items.len() / share].timestamp_ms() + 1;
        admin("prune", &model.db, &[&format!("--before={before}")]).expect_code(0);
        let rest: String = (model.items.iter())
            .filter(|item| item.timestamp_ms() >= before)
            .map(|item| item.line.clone())
            .collect();
        // Nothing of what was removed is left in it.
        let old = model.items[0].text("event_id").to_owned();
        let file = read(&model.db);
        let key = format!(":{old}");
        let first = format!("{:015}{key}", model.items[0].timestamp_ms());
        assert!(
            memchr::memmem::find(&file, first.as_bytes()).is_none(),
            "{share}"
        );
        assert!(file.len() < n_bytes);
        model.now_is(rest.as_bytes());
        check(&model);
        admin("verify", &model.db, &[]).expect_code(0);
    }
    let last = model.items.last().unwrap().timestamp_ms() + 1;
    admin("prune", &model.db, &[&format!("--before={last}")]).expect_code(0);
    assert!(read(&model.db).is_empty());
    let ran = ask(&model.db, &["similar", "failures"]).expect_code(1);
    assert_eq!(ran.text(), "");
}

#[test]
fn the_file_follows_other_vectors_of_the_same_events() {
    let lines = odd_lines();
    let mut model = Model::of(&embedded(&lines, &["--all"]));
    check(&model);
    // Scored by another threshold events have other anomalies, and so other vectors.
    let scored = run(
        "sg-score",
        &["-q", "--threshold=0.4", "--min-events=20"],
        &lines,
    );
    let others = embedded(&scored.expect_code(0).stdout, &["--all"]);
    let db = model.db.display().to_string();
    run("sg-store", &["--rescore", "--db", &db], &others).expect_code(0);
    let all = ask(&model.db, &["export"]).expect_code(0).stdout;
    assert!(all != embedded(&lines, &["--all"]));
    model.now_is(&all);
    check(&model);
    admin("verify", &model.db, &[]).expect_code(0);
}

/// Every piece of the file is told from what it was, or does not matter.
#[test]
fn a_damaged_file_changes_no_answer() {
    let model = Model::of(&embedded(&odd_lines(), &["--all"]));
    check(&model);
    let good = read(&model.db);
    let check = |what: &str, bytes: &[u8]| {
        std::fs::write(file_of(&model.db), bytes).unwrap();
        let mut random = Random(bytes.len() as u64);
        for _ in 0..3 {
            let of = random.below(model.items.len());
            model.check(of, &Question::default());
        }
        assert!(!what.is_empty());
    };
    let mut random = Random(91);
    for _ in 0..25 {
        let mut bytes = good.clone();
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
        check("a bit", &bytes);
    }
    for at in (0..64).step_by(3) {
        let mut bytes = good.clone();
        bytes[at] ^= 0xFF;
        check("the first head", &bytes);
    }
    for _ in 0..12 {
        check("its end is missing", &good[..random.below(good.len())]);
    }
    let mut other = good.clone();
    for at in memchr::memmem::find_iter(&good, b"SGSIMIL1") {
        other[at + 7] = b'2';
    }
    check("another version", &other);
    let mut zeros = good.clone();
    zeros[good.len() / 2..].fill(0);
    check("never written", &zeros);
    check("twice", &[&good[..], &good[..]].concat());
    check("none of ours", b"{}\n");
    check("nothing", b"");
    // Another database's.
    let others = Model::of(&embedded(&generated(3_000, 10, 92), &["--all"]));
    others.check(0, &Question::default());
    check("another's", &read(&others.db));
    check("both", &[read(&others.db), good].concat());
}

/// A database that was put back to what it was before has a file that knows more.
#[test]
fn a_database_that_was_put_back_is_answered_from() {
    let lines = embedded(&odd_lines(), &["--all"]);
    let pieces = lines_of(&lines);
    let mut model = Model::of(&pieces[..1_500].concat());
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    let copied = |from: &Path, to: &Path| {
        shell(&format!(
            "rm -rf {to} && cp -r {from} {to}",
            from = from.display(),
            to = to.display()
        ))
        .expect_code(0);
    };
    copied(&model.db, &copy);
    store(&model.db, &pieces[1_500..].concat()).expect_code(0);
    model.now_is(&lines);
    check(&model);
    let file = read(&model.db);
    copied(&copy, &model.db);
    std::fs::write(file_of(&model.db), file).unwrap();
    model.now_is(&pieces[..1_500].concat());
    check(&model);
    // And goes another way from there, by as many writes.
    let others = embedded(&generated(1_500, 6, 93), &["--all"]);
    store(&model.db, &others).expect_code(0);
    model.now_is(&[pieces[..1_500].concat(), others].concat());
    check(&model);
}

/// Where the file cannot be written everything is as it was, but slower.
#[test]
fn without_a_file_it_is_answered_too() {
    let model = Model::of(&embedded(&odd_lines(), &["--all"]));
    std::fs::create_dir(file_of(&model.db)).unwrap();
    check(&model);
    std::fs::remove_dir(file_of(&model.db)).unwrap();
    // Files may not grow beyond 64 KiB, as on a disk that is full.
    let id = model.items[5].text("event_id");
    let command = |limit: &str| {
        let db = model.db.display();
        let ran = shell(&format!("{limit} sg-query similar --db {db} -- '{id}'"));
        ran.expect_code(0).stdout
    };
    let limited = command("trap '' XFSZ; ulimit -f 64;");
    assert!(file_of(&model.db).metadata().unwrap().len() <= 64 << 10);
    assert!(limited == command(""));
    check(&model);
}

#[test]
fn killed_while_the_file_is_written_it_goes_on() {
    let model = Model::of(&embedded(&generated(25_000, 40, 94), &["--all"]));
    let id = model.items[77].text("event_id");
    let start = || {
        let mut query = program("sg-query");
        query.args(["similar", id, "--db"]).arg(&model.db);
        let query = query.stdin(Stdio::null()).stdout(Stdio::null());
        query.stderr(Stdio::null()).spawn().unwrap()
    };
    let n_killed = kill_and_repeat(&start, 10, 250);
    assert!(n_killed > 3, "{n_killed}");
    // Far more vectors than are compared one by one: what is found is what is there.
    let ran = ask(&model.db, &["similar", id]).expect_code(0);
    std::fs::remove_file(file_of(&model.db)).unwrap();
    assert!(ask(&model.db, &["similar", id]).expect_code(0).stdout == ran.stdout);
    assert!(!model.db.join("streamguard.similar.new").exists());
}

/// The promise is 0.95 of the ten that are most alike. An answer that is as alike as the true tenth
/// counts: made-up events have many that are equally alike.
#[test]
fn of_many_vectors_nearly_all_of_the_best_are_found() {
    let lines = run(
        "sg-score",
        &["-q", "--detector=adaptive"],
        &generated(60_000, 600, 95),
    );
    let model = Model::of(&embedded(&lines.expect_code(0).stdout, &["--all"]));
    let mut random = Random(96);
    let (mut n_right, mut n_wanted) = (0, 0);
    for _ in 0..30 {
        let of = random.below(model.items.len());
        let ran = ask(&model.db, &["similar", model.items[of].text("event_id")]).expect_code(0);
        let expected = model.answer(of, &Question::default());
        let tenth = expected[9].0 - 1e-5;
        let scores = ran
            .json_lines()
            .into_iter()
            .map(|line| line["score"].as_f64().unwrap());
        n_right += scores.filter(|score| *score >= tenth).count();
        n_wanted += 10;
    }
    assert!(n_right * 100 >= n_wanted * 95, "{n_right} of {n_wanted}");
}

/// Several programs ask at once, and all would make the file.
#[test]
fn several_that_ask_at_once_do_not_disturb_each_other() {
    let model = Model::of(&embedded(&generated(12_000, 20, 97), &["--all"]));
    let id = model.items[99].text("event_id");
    let db = model.db.display();
    let ran = shell(&format!(
        "for i in 1 2 3 4 5 6; do sg-query similar {id} --db {db} & done | sort | uniq -c | \
         awk '$1 != 6 {{ exit 1 }} END {{ print NR }}'"
    ));
    assert_eq!(ran.expect_code(0).text(), "10\n");
    let mut random = Random(98);
    let few = question(&mut random, &model.items);
    model.check(99, &few);
}

#[test]
fn sums_of_embeddings_are_verified() {
    let lines = embedded(&odd_lines(), &[]);
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("db");
    store(&db, &lines).expect_code(0);
    admin("verify", &db, &[]).expect_code(0);
    let opened = raw(&db);
    let family = opened.cf_handle("embeddings").unwrap();
    let mut walk = opened.raw_iterator_cf(family);
    walk.seek_to_first();
    let key = walk.key().unwrap().to_vec();
    drop(walk);
    opened.put_cf(family, &key, b"{\"model\":\"m\"}").unwrap();
    drop(opened);
    let ran = admin("verify", &db, &[]).expect_code(1);
    assert!(
        ran.stderr.contains("is not the sum of the embeddings"),
        "{}",
        ran.stderr
    );
}

/// A database of a release that did not sum up embeddings is answered from, and summed up when it is
/// written to.
#[test]
fn embeddings_without_sums_are_found() {
    let mut model = Model::of(&embedded(&odd_lines(), &["--all"]));
    let opened = raw(&model.db);
    let meta = opened.cf_handle("meta").unwrap();
    let mut walk = opened.raw_iterator_cf(meta);
    walk.seek(b"vectors");
    let mut n_sums = 0;
    while let Some(key) = walk.key().filter(|key| key.starts_with(b"vectors")) {
        opened.delete_cf(meta, key).unwrap();
        n_sums += 1;
        walk.next();
    }
    drop(walk);
    drop(opened);
    assert!(n_sums > 10, "{n_sums}");
    admin("verify", &model.db, &[]).expect_code(0);
    check(&model);
    let line = embedded(event("new", "u", 1_735_689_600_000).as_bytes(), &["--all"]);
    store(&model.db, &line).expect_code(0);
    admin("verify", &model.db, &[]).expect_code(0);
    let all = ask(&model.db, &["export"]).expect_code(0).stdout;
    model.now_is(&all);
    check(&model);
}
