//! A full disk where answers and batches are kept.

use std::time::Duration;

use super::{Desk, anomaly, outcomes};
use crate::faults::disk::{GROW, with_disk};
use crate::llm_stub::{Reply, verdict};
use crate::tools::Ran;

/// Runs `sg-analyze` twice, first without room at `$d` until it has said some words, and gives what it has said.
#[track_caller]
fn without_room(desk: &Desk, kib: u32, until: &str, args: &[&str], input: &str) -> [Ran; 2] {
    std::fs::write(desk.path("in"), input).unwrap();
    let command = format!("sg-analyze {} <$f/in", desk.args(args).join(" "));
    let script = format!(
        ">$f/err0; (for i in {{1..900}}; do ! grep -q '{until}' $f/err0 || break; sleep 0.01; done; {GROW}) & watch=$!
         for i in 0 1; do code=0; {command} >$f/out$i 2>$f/err$i || code=$?; echo $code; [ $i = 1 ] || wait $watch; done"
    );
    let ran = with_disk(desk.folder.path(), kib, &script).expect_code(0);
    let codes: Vec<i32> = ran
        .text()
        .lines()
        .map(|code| code.parse().unwrap())
        .collect();
    [0, 1].map(|i| Ran {
        code: codes[i],
        stdout: std::fs::read(desk.path(&format!("out{i}"))).unwrap(),
        stderr: std::fs::read_to_string(desk.path(&format!("err{i}"))).unwrap(),
    })
}

/// Events get their answers all the same. What is kept of them is whole, also once there is room again, and the others
/// are asked again.
#[test]
fn answers_that_find_no_room_are_given_all_the_same() {
    let late = Duration::from_millis(20);
    let desk = Desk::new(move |_, _| Reply::Late(late, verdict("high").into()));
    let input: String = (0..60)
        .map(|i| anomaly(&i.to_string(), &format!("K{i}"), "low"))
        .collect();
    let ran = without_room(
        &desk,
        8,
        "not kept",
        &["--concurrency=1", "--cache", "$d/cache"],
        &input,
    );
    let [first, second] = ran.map(|ran| ran.expect_code(0));
    assert_eq!(outcomes(&first), ["ok"; 60]);
    let told: Vec<_> = first
        .stderr
        .lines()
        .filter(|line| line.contains("not kept"))
        .collect();
    assert_eq!(told.len(), 1, "{}", first.stderr);
    assert!(told[0].contains("No space left on device"), "{}", told[0]);
    let n_kept = outcomes(&second)
        .iter()
        .filter(|outcome| *outcome == "cached")
        .count();
    assert!((1..60).contains(&n_kept), "{n_kept}: {}", second.stderr);
    assert_eq!(desk.stub.n_asked(), 60 + 60 - n_kept);
    assert!(!second.stderr.contains("damaged"), "{}", second.stderr);
}

/// A batch costs money, and nobody could collect one that was not noted.
#[test]
fn a_batch_that_cannot_be_noted_is_not_submitted() {
    let desk = Desk::new(|_, _| verdict("high"));
    let input: String = (0..200)
        .map(|i| anomaly(&i.to_string(), &format!("K{i}"), "low"))
        .collect();
    let args = ["--batch", "submit", "--batch-state", "$d/batches"];
    let [first, second] = without_room(&desk, 4, "No space", &args, &input);
    assert_eq!(first.code, 2, "{}", first.stderr);
    assert!(
        first.stderr.contains("No space left on device"),
        "{}",
        first.stderr
    );
    assert!(first.stdout.is_empty());
    let second = second.expect_code(0);
    assert_eq!(
        second.text(),
        "{\"batch\":\"msgbatch_0\",\"requests\":200}\n"
    );
    assert_eq!(desk.stub.n_batches(), 1);
}
