//! States against a model in memory, whatever is put, committed, rolled back and reopened.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use proptest::prelude::*;

use super::{Label, OLD_FILE, State, layout};
use crate::batch::{Learned, Records};

/// What is kept, by task and user.
type Kept = BTreeMap<(String, String), Vec<u8>>;

fn learned(task: &str, user: &str, record: &[u8]) -> Vec<Learned> {
    let mut learned = Learned {
        task: task.into(),
        baselines: Vec::new(),
        shared: Vec::new(),
    };
    if user.is_empty() {
        learned.shared = record.to_vec();
    } else {
        let mut records = Records::default();
        records.push(user, |bytes| bytes.extend_from_slice(record));
        learned.baselines.push(records);
    }
    vec![learned]
}

fn label(database: &str, checkpoint: u64) -> Label {
    Label {
        database: database.to_owned(),
        checkpoint,
    }
}

fn kept(state: &State) -> Kept {
    let mut kept = Kept::new();
    let mut last = None;
    let read = state.baselines(&mut |task, user, record| {
        let key = (task.to_owned(), user.to_owned());
        assert!(last.as_ref() < Some(&key), "they come sorted");
        last = Some(key.clone());
        kept.insert(key, record.to_vec());
        Ok(ControlFlow::Continue(()))
    });
    read.expect("it can be read");
    kept
}

fn opened(path: &Path) -> State {
    State::open(path).expect("it opens")
}

/// Keys in the undo log.
fn n_undo(state: &State) -> usize {
    let mut iterator = state.iterator(layout::UNDO);
    iterator.seek_to_first();
    let mut n_keys = 0;
    while iterator.valid() {
        n_keys += 1;
        iterator.next();
    }
    n_keys
}

#[derive(Clone, Debug)]
enum Step {
    Put {
        task: usize,
        user: usize,
        size: usize,
    },
    Commit {
        database: usize,
        checkpoint: u64,
        n_mib: u64,
    },
    RollBack {
        database: usize,
        checkpoint: u64,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let sizes = prop_oneof![8 => 0..300_usize, 1 => Just(1_200_000)];
    let n_mib = prop_oneof![3 => Just(0_u64), 3 => 0..12_u64, 1 => Just(40)];
    prop_oneof![
        8 => (0..3_usize, 0..6_usize, sizes)
            .prop_map(|(task, user, size)| Step::Put { task, user, size }),
        6 => (0..2_usize, 0..6_u64, n_mib)
            .prop_map(|(database, checkpoint, n_mib)| Step::Commit { database, checkpoint, n_mib }),
        2 => (0..2_usize, 0..8_u64)
            .prop_map(|(database, checkpoint)| Step::RollBack { database, checkpoint }),
        1 => Just(Step::Reopen),
    ]
}

/// What a state has to be.
#[derive(Default)]
struct Model {
    now: Kept,
    is_changed: bool,
    commits: Vec<(Label, u64, Kept)>,
    /// As few commits can be left: what was trimmed once does not come back with a rollback.
    n_left_min: usize,
}

impl Model {
    fn last(&self) -> Kept {
        let last = self.commits.last();
        last.map_or_else(Kept::new, |(_, _, kept)| kept.clone())
    }

    /// How many commits a rollback leaves, if the label is known.
    fn target(&self, to: &Label) -> Option<usize> {
        if to.checkpoint > 0 {
            let at = self.commits.iter().rposition(|(label, _, _)| label == to);
            return at.map(|at| at + 1);
        }
        let of_database = |label: &Label| label.checkpoint > 0 && label.database == to.database;
        let began = self
            .commits
            .iter()
            .position(|(label, _, _)| of_database(label));
        Some(began.unwrap_or(self.commits.len()))
    }

    fn commit(&mut self, label: Label, n_mib: u64) {
        self.commits.push((label, n_mib, self.now.clone()));
        self.is_changed = false;
        let is_needed = |after: &[(Label, u64, Kept)]| {
            let n_mib: u64 = after.iter().map(|(_, n_mib, _)| n_mib).sum();
            after.len() <= 2 || n_mib < 31
        };
        while !is_needed(&self.commits[self.n_left_min..]) {
            self.n_left_min += 1;
        }
    }
}

const TASKS: [&str; 3] = ["", "kafka:t/0", "kafka:t/1"];
const USERS: [&str; 6] = ["", "alice", "bob", "bob\u{10FFFF}", "c", "\u{0}"];
const DATABASES: [&str; 2] = ["db", "other"];

fn check(steps: &[Step]) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = opened(folder.path());
    let mut model = Model::default();
    for (i, step) in steps.iter().enumerate() {
        match *step {
            Step::Put { task, user, size } => {
                let (task, user) = (TASKS[task], USERS[user]);
                let record = [&i.to_be_bytes()[..], &vec![i as u8; size]].concat();
                let put = state.put(learned(task, user, &record));
                put.expect("it can be written");
                model.now.insert((task.to_owned(), user.to_owned()), record);
                model.is_changed = true;
            }
            Step::Commit {
                database,
                checkpoint,
                n_mib,
            } => {
                let label = label(DATABASES[database], checkpoint);
                let commit = state.commit(&label, n_mib << 20);
                commit.expect("it can be written");
                if checkpoint > 0 || model.is_changed {
                    model.commit(label, n_mib);
                }
            }
            Step::RollBack {
                database,
                checkpoint,
            } => {
                let label = label(DATABASES[database], checkpoint);
                let target = model.target(&label);
                match state.roll_back(&label) {
                    Ok(n_epochs) => {
                        let target = target.expect("only known labels are found");
                        assert_eq!(n_epochs as usize, model.commits.len() - target);
                        model.commits.truncate(target);
                        // More were left than there had to be.
                        model.n_left_min = model.n_left_min.min(target);
                        model.now = model.last();
                        model.is_changed = false;
                    }
                    Err(why) => {
                        let is_there = target.is_some_and(|target| target >= model.n_left_min);
                        assert!(!is_there, "{why:#}");
                    }
                }
            }
            Step::Reopen => {
                drop(state);
                state = opened(folder.path());
                model.now = model.last();
                model.is_changed = false;
            }
        }
        assert!(kept(&state) == model.now, "after step {i}, {step:?}");
    }
    drop(state);
    assert!(kept(&opened(folder.path())) == model.last());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 16,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_state_is_what_the_model_says(steps in prop::collection::vec(step(), 1..60)) {
        check(&steps);
    }
}

/// A state with one user's record for each of the checkpoints 1 to `n_epochs`.
fn with_epochs(path: &Path, n_epochs: u64, n_line_bytes: u64) -> State {
    let state = opened(path);
    state.claim("classic").expect("it is new");
    for checkpoint in 1..=n_epochs {
        let put = state.put(learned("", "u", &checkpoint.to_be_bytes()));
        put.expect("it can be written");
        let commit = state.commit(&label("db", checkpoint), n_line_bytes);
        commit.expect("it can be written");
    }
    state
}

#[test]
fn what_is_too_long_ago_is_trimmed() {
    let folder = tempfile::tempdir().expect("a folder");
    // Two epochs if they are large; otherwise those of the last 32 MiB.
    for (n_line_bytes, n_kept) in [(32 << 20, 2), (1 << 20, 32), (3 << 20, 11)] {
        let path = folder.path().join(n_line_bytes.to_string());
        let state = with_epochs(&path, 50, n_line_bytes);
        assert_eq!(n_undo(&state), n_kept, "{n_line_bytes}");
        let oldest = 50 - n_kept as u64;
        let error = state
            .roll_back(&label("db", oldest - 1))
            .expect_err("it is gone");
        let error = format!("{error:#}");
        assert!(error.contains("gone on too far since"), "{error}");
        let error = state.roll_back(&label("db", 0)).expect_err("it is gone");
        let error = format!("{error:#}");
        assert!(error.contains("since the database's beginning"), "{error}");
        let record = state.baseline("", "u").expect("it can be read");
        assert_eq!(record, Some(50_u64.to_be_bytes().to_vec()));

        let n_epochs = state.roll_back(&label("db", oldest)).expect("it is there");
        assert_eq!(n_epochs, n_kept as u64);
        let record = state.baseline("", "u").expect("it can be read");
        assert_eq!(record, Some(oldest.to_be_bytes().to_vec()));
        assert_eq!((n_undo(&state), state.label()), (0, label("db", oldest)));
    }
}

#[test]
fn runs_on_their_own_keep_nothing_to_undo() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = opened(folder.path());
    for i in 0..3_u8 {
        state
            .put(learned("", "u", &[i]))
            .expect("it can be written");
        assert_eq!(n_undo(&state), 1);
        state
            .commit(&Label::default(), 1)
            .expect("it can be written");
        assert_eq!(n_undo(&state), 0);
    }
    // From the first checkpoint on there is something to go back to, and before it.
    state
        .put(learned("", "u", &[3]))
        .expect("it can be written");
    state.commit(&label("db", 1), 1).expect("it can be written");
    state
        .put(learned("", "u", &[4]))
        .expect("it can be written");
    state
        .commit(&Label::default(), 1)
        .expect("it can be written");
    assert_eq!(n_undo(&state), 2);
    assert_eq!(state.roll_back(&label("db", 0)).expect("it is there"), 2);
    assert_eq!(state.baseline("", "u").expect("a record"), Some(vec![2]));
    // The next beginning is another one.
    for (record, checkpoint) in [(5, 0), (6, 1)] {
        let put = state.put(learned("", "u", &[record]));
        put.and_then(|()| state.commit(&label("db", checkpoint), 1))
            .expect("it can be written");
    }
    assert_eq!(state.roll_back(&label("db", 0)).expect("it is there"), 1);
    assert_eq!(state.baseline("", "u").expect("a record"), Some(vec![5]));
}

#[test]
fn an_unknown_checkpoint_is_told_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = with_epochs(folder.path(), 3, 1);
    for unknown in [label("db", 4), label("other", 3)] {
        let error = state.roll_back(&unknown).expect_err("it is unknown");
        let error = format!("{error:#}");
        let words = format!(
            "does not know checkpoint {} of the database",
            unknown.checkpoint
        );
        assert!(
            error.contains(&words) && error.contains("run the pipe"),
            "{error}"
        );
    }
    assert_eq!(state.roll_back(&label("other", 0)).expect("nothing is"), 0);
    assert_eq!(state.roll_back(&label("db", 3)).expect("it is there"), 0);
    let record = state.baseline("", "u").expect("it can be read");
    assert_eq!(record, Some(3_u64.to_be_bytes().to_vec()));
}

/// A rollback to nothing leaves nothing: not even the detector, or another one would be refused.
#[test]
fn a_state_that_has_learned_nothing_is_of_no_detector() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = opened(folder.path());
    state.claim("classic").expect("it is new");
    state
        .put(learned("", "u", b"r"))
        .expect("it can be written");
    drop(state);
    let state = opened(folder.path());
    assert_eq!((state.detector(), kept(&state).len()), (None, 0));
    drop(state);
    let state = with_epochs(folder.path(), 3, 1);
    let refused = state.claim("adaptive").expect_err("it is another one");
    assert!(format!("{refused:#}").contains("of the classic detector, not adaptive"));
    assert_eq!(state.roll_back(&label("db", 0)).expect("it is there"), 3);
    state.claim("adaptive").expect("it is new again");
    drop(state);
    let state = opened(folder.path());
    assert_eq!((state.detector(), kept(&state).len()), (None, 0));
}

/// A rollback that was interrupted after it had begun: its epochs are no commits any more, and some of
/// their changes are taken back.
#[test]
fn an_interrupted_rollback_is_finished() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = with_epochs(folder.path(), 5, 1);
    let meta = state.family(layout::META);
    for epoch in 3..=5 {
        let gone = state.db.delete_cf(meta, layout::epoch_key(epoch));
        gone.expect("it can be written");
    }
    let (baselines, undo) = (state.family(layout::BASELINES), state.family(layout::UNDO));
    let undo_key = layout::undo_key(5, b"u");
    let before = state.db.get_cf(undo, &undo_key).expect("it can be read");
    let before = before.expect("there was a record before");
    let put = state.db.put_cf(baselines, b"u", before);
    put.and_then(|()| state.db.delete_cf(undo, undo_key))
        .expect("it can be written");
    drop(state);
    let state = opened(folder.path());
    let record = state.baseline("", "u").expect("it can be read");
    assert_eq!(record, Some(2_u64.to_be_bytes().to_vec()));
    assert_eq!((n_undo(&state), state.label()), (2, label("db", 2)));
}

/// Numbers that no history has: they were counted on from, and wrapped around.
#[test]
fn numbers_that_cannot_be_are_damage() {
    let is_damaged = |key: &[u8], value: &[u8], is_seen_at_once: bool| {
        let folder = tempfile::tempdir().expect("a folder");
        let state = with_epochs(folder.path(), 5, 1);
        let put = state.db.put_cf(state.family(layout::META), key, value);
        put.expect("it can be written");
        drop(state);
        let opened = State::open(folder.path());
        assert_eq!(opened.is_err(), is_seen_at_once, "{key:?}");
        let committed = opened.and_then(|state| state.commit(&label("db", 6), 64 << 20));
        let why = committed.expect_err("it is damaged");
        assert!(format!("{why:#}").contains("is damaged: "), "{why:#}");
    };
    let number = |number: u64| number.to_be_bytes();
    let of_bytes = |n_bytes: u64| {
        format!(r#"{{"database":"db","checkpoint":1,"line_bytes_total":{n_bytes}}}"#).into_bytes()
    };
    for epoch in [u64::MAX, u64::MAX - 1] {
        is_damaged(&layout::epoch_key(epoch), &of_bytes(1), true);
    }
    for oldest in [0, 7, u64::MAX] {
        is_damaged(layout::META_OLDEST.as_bytes(), &number(oldest), true);
    }
    for began in [0, 6, u64::MAX] {
        is_damaged(&layout::began_key("other"), &number(began), true);
    }
    is_damaged(&layout::epoch_key(5), &of_bytes(u64::MAX), false);
    is_damaged(&layout::epoch_key(1), &of_bytes(u64::MAX), false);
}

/// Whoever asked for the tasks came to the same key for ever.
#[test]
fn a_key_that_is_not_ours_is_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = with_epochs(folder.path(), 1, 1);
    assert_eq!(state.tasks().expect("they can be read"), [""]);
    let baselines = state.family(layout::BASELINES);
    let put = state.db.put_cf(baselines, b"\xFF\xFFu", [0; 9]);
    put.expect("it can be written");
    let why = state.tasks().expect_err("it is damaged");
    assert!(format!("{why:#}").contains("is damaged: "), "{why:#}");
}

#[test]
fn other_versions_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let why = || match State::open(folder.path()) {
        Ok(_) => panic!("it is not refused"),
        Err(why) => format!("{why:#}"),
    };
    let state = opened(folder.path());
    let meta = state.family(layout::META);
    let put = state.db.put_cf(meta, layout::META_VERSION, "2");
    put.expect("it can be written");
    drop(state);
    assert!(why().contains("has version 2, this build reads up to 1: use the newer"));
    std::fs::write(folder.path().join(OLD_FILE), "SGBL").expect("it can be written");
    assert!(why().contains("holds baselines.sg of an earlier build: export it with that build"));
}
