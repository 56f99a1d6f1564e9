//! What crashes leave of large writes, and what others see of them.

use std::ops::Range;
use std::sync::mpsc::{TryRecvError, channel};
use std::thread;
use std::time::Duration;

use super::*;
use crate::batch::{Learned, Records};
use crate::store::checkpoint;
use crate::store::gathered::Gathered;
use crate::store::{Access, Order, Tuning};

fn gathered(numbers: Range<i64>) -> Gathered {
    let mut gathered = Gathered::new(1 << 20);
    // A thousand in no order, then those of the next second; with ids and users that come again.
    for number in numbers {
        let timestamp_ms = 1_000_000 + number / 1_000 * 1_000 + number * 7_919 % 1_000;
        let (event_id, user) = (
            format!("evt_{}", number / 2),
            format!("user_{}", number % 5),
        );
        let mut key = Vec::new();
        schema::push_event_key(&mut key, timestamp_ms, &event_id);
        let hash = gathered.hash(&key);
        let line = format!("{{\"line\":{number}}} ");
        let names = (&event_id[..], &user[..]);
        gathered.insert((&key, hash), timestamp_ms, names, line.len(), |bytes| {
            bytes.extend_from_slice(line.as_bytes());
        });
    }
    gathered
}

fn open(path: &Path, access: Access) -> Store {
    Store::open(path, access, &Tuning::default()).expect("it opens")
}

fn n_entries(store: &Store, family: &str) -> usize {
    let mut walk = store.walk(family, b"", Order::OldestFirst);
    let mut n_entries = 0;
    while walk.next_entry().expect("it can be read").is_some() {
        n_entries += 1;
    }
    n_entries
}

/// All events are there, and what was written with them, and nothing else.
fn check(path: &Path, access: Access, n_events: usize) {
    let store = open(path, access);
    for family in [schema::EVENTS, schema::BY_ID, schema::BY_USER] {
        assert_eq!(n_entries(&store, family), n_events, "{family}");
    }
    let others = store.get(schema::META, b"others").expect("it can be read");
    assert_eq!(others.is_some(), n_events > 0);
    assert!(!store.has_unfinished_bulk().expect("it can be read"));
    assert!(!path.join(FOLDER).exists() || access == Access::Read);
}

/// Takes in some of the files that are named, as a program that is killed then; the last of them may still
/// be there under its name, too.
fn take_in_some(store: &Store, n_taken: usize, is_left: bool) {
    let names = store.get(schema::META, schema::META_BULK.as_bytes());
    let names = names.expect("it can be read").expect("files are named");
    let names: Vec<Named> = serde_json::from_slice(&names).expect("they are readable");
    let mut options = IngestExternalFileOptions::default();
    options.set_move_files(true);
    for (i, named) in names.iter().rev().take(n_taken).enumerate() {
        let file = store.path().join(FOLDER).join(&named.file);
        let aside = store.path().join("aside");
        fs::hard_link(&file, &aside).expect("it is linked");
        store.take_in(named, &options).expect("it is taken in");
        if is_left && i + 1 == n_taken {
            fs::rename(aside, file).expect("it is put back");
        } else {
            fs::remove_file(aside).expect("it is removed");
        }
    }
}

fn others(store: &Store) -> WriteBatch {
    let mut writes = WriteBatch::default();
    writes.put_cf(store.family(schema::META), "others", "1");
    writes
}

#[test]
fn what_a_crash_has_left_is_taken_in_by_whoever_opens_next() {
    for access in [Access::Read, Access::Write, Access::WriteExisting] {
        for (n_taken, is_left) in [
            (0, false),
            (1, false),
            (1, true),
            (2, false),
            (2, true),
            (3, false),
            (3, true),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let store = open(folder.path(), Access::Write);
            let gathered = gathered(0..700);
            let begun = store.begin_events(&gathered, others(&store), true);
            drop(begun.expect("it is written"));
            take_in_some(&store, n_taken, is_left);
            drop(store);
            check(folder.path(), access, 700);
            check(folder.path(), Access::Write, 700);
        }
    }
}

#[test]
fn files_that_nobody_names_are_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), Access::Write);
    let files = store.name_files(events::FAMILIES);
    fs::create_dir(folder.path().join(FOLDER)).expect("a folder");
    store
        .build_events(&gathered(0..100), &files, false)
        .expect("it is built");
    drop(store);
    check(folder.path(), Access::Write, 0);
}

/// The next write has other files, also when the last word on the one before it got lost.
#[test]
fn writes_follow_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    for numbers in [0..300, 300..600] {
        let store = open(folder.path(), Access::Write);
        for from in [numbers.start, numbers.start + 150] {
            let gathered = gathered(from..from + 150);
            (store.write_bulk(&gathered, others(&store), false)).expect("it is written");
        }
    }
    check(folder.path(), Access::Write, 600);
}

const TASKS: [&str; 3] = ["kafka:t/10", "", "kafka:t/1"];

/// What tasks have learned at a checkpoint: `n_users` of each task, spread over shards in no order.
fn learned(checkpoint: usize, n_users: usize) -> Vec<Learned> {
    let of_task = |task: &&str| {
        let mut baselines = Vec::new();
        baselines.resize_with(3, Records::default);
        for i in 0..n_users {
            let user = format!("user_{}", i * 7_919 % n_users);
            baselines[i % 3].push(&user, |record| {
                record.extend_from_slice(format!("{checkpoint} {task} {user}").as_bytes());
            });
        }
        Learned {
            task: (*task).into(),
            baselines,
            shared: format!("{checkpoint} {task} ").into_bytes(),
        }
    };
    TASKS.iter().map(of_task).collect()
}

/// Each of the first users is as a checkpoint has left it, the others as another one has.
fn check_baselines(
    store: &Store,
    (checkpoint, n_users): (usize, usize),
    (other, n_all): (usize, usize),
) {
    let view = store.view();
    assert_eq!(view.tasks().expect("it can be read").len(), TASKS.len());
    for task in TASKS {
        let mut n_found = 0;
        let each = |user: &str, record: &[u8]| {
            let number = user.strip_prefix("user_").map(str::parse::<usize>);
            let is_first = number.is_none_or(|number| number.is_ok_and(|number| number < n_users));
            let last = if is_first { checkpoint } else { other };
            assert_eq!(record, format!("{last} {task} {user}").as_bytes());
            n_found += 1;
            Ok(())
        };
        view.baselines(task, each).expect("it can be read");
        assert_eq!(n_found, n_all + 1, "{task}");
    }
    assert_eq!(
        n_entries(store, schema::BASELINES),
        TASKS.len() * (n_all + 1)
    );
}

/// Large checkpoints and small ones replace each other's baselines in the order in which they were
/// written, whatever is killed between them.
#[test]
fn baselines_are_those_of_the_last_checkpoint() {
    for (n_taken, is_left) in [(0, false), (1, false), (1, true)] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let store = open(path, Access::Write);
        let write_few = |store: &Store, checkpoint, n_users| {
            let learned = learned(checkpoint, n_users);
            let written = store.write_learned(&learned, others(store), false);
            written.expect("it is written");
        };
        write_few(&store, 1, 400);
        check_baselines(&store, (1, 400), (1, 400));
        let written = store.write_many_baselines(&learned(2, 300), others(&store));
        written.expect("it is written");
        check_baselines(&store, (2, 300), (1, 400));
        // Most of them are replaced soon: they are packed the fast way, as each file says at its end.
        let files = store.db.live_files().expect("it can be read");
        let of_baselines = |file: &&rocksdb::LiveFile| file.column_family_name == schema::BASELINES;
        assert_eq!(files.iter().filter(of_baselines).count(), 2);
        for file in files.iter().filter(of_baselines) {
            let bytes = fs::read(path.join(file.name.trim_start_matches('/'))).expect("it is read");
            let says = |packing| memchr::memmem::find(&bytes, packing).is_some();
            assert!(says(b"LZ4") && !says(b"ZSTD"));
        }
        let begun = store.begin_baselines(&learned(3, 400), others(&store));
        drop(begun.expect("it is written"));
        take_in_some(&store, n_taken, is_left);
        drop(store);
        drop(open(path, Access::Read));
        let store = open(path, Access::Write);
        check_baselines(&store, (3, 400), (3, 400));
        write_few(&store, 4, 200);
        drop(store);
        let store = open(path, Access::Write);
        check_baselines(&store, (4, 200), (3, 400));
        let written = store.write_many_baselines(&learned(5, 100), others(&store));
        written.expect("it is written");
        write_few(&store, 6, 0);
        drop(store);
        let store = open(path, Access::Read);
        let shared = store.view().baseline("", "").expect("it can be read");
        assert_eq!(shared.as_deref(), Some(&b"6  "[..]));
        let user = store.view().baseline("kafka:t/1", "user_99");
        let user = user.expect("it can be read");
        assert_eq!(user.as_deref(), Some(&b"5 kafka:t/1 user_99"[..]));
    }
}

/// Neither who writes nor who copies notices that files are merged meanwhile.
#[test]
fn files_are_merged_beside_writes_and_copies() {
    const N_PARTS: usize = 80;
    const N_EVENTS: usize = 100;
    let folder = tempfile::tempdir().expect("a folder");
    let open_one = open(folder.path(), Access::Write);
    let store = &open_one;
    let n_files = || {
        let files = store.db.live_files().expect("it can be read");
        let names = files.iter().map(|file| &file.column_family_name);
        names.filter(|name| *name == schema::EVENTS).count()
    };
    let (running, ends) = channel::<()>();
    thread::scope(|scope| {
        let running = running;
        scope.spawn(move || {
            let is_over = || ends.try_recv() == Err(TryRecvError::Disconnected);
            while !is_over() {
                store.merge_neighbours(&is_over).expect("it can be read");
                thread::sleep(Duration::from_millis(2));
            }
        });
        let mut n_most = 0;
        for part in 0..N_PARTS {
            let from = (part * 1_000) as i64;
            let gathered = gathered(from..from + N_EVENTS as i64);
            (store.write_bulk(&gathered, others(store), true)).expect("it is written");
            n_most = n_most.max(n_files());
            if part % 8 == 7 {
                store.make_checkpoint().expect("it is copied");
                let copy = folder.path().join(checkpoint::FOLDER);
                check(&copy, Access::Write, (part + 1) * N_EVENTS);
                store.clear_checkpoint();
            }
        }
        drop(running);
        assert!(n_most < N_PARTS, "nothing was merged: {n_most} files");
    });
    drop(open_one);
    check(folder.path(), Access::Write, N_PARTS * N_EVENTS);
}

#[test]
fn a_name_that_leads_elsewhere_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), Access::Write);
    for (family, file) in [
        ("default", "../../x.sst"),
        ("nobody", "0.sst"),
        ("default", "/x"),
    ] {
        let (family, file) = (family.to_owned(), file.to_owned());
        let names = serde_json::to_vec(&[Named { family, file }]).expect("it is JSON");
        let meta = store.family(schema::META);
        store
            .db
            .put_cf(meta, schema::META_BULK, names)
            .expect("it is written");
        assert!(store.finish_bulk().is_err());
    }
}
