//! Pipes from topics that go on where they were.

use super::broker::{send, shared, topic};
use crate::database::stats;
use crate::resume::{Pipe, assert_same};
use crate::tools::{digest, generated, run};

/// Each partition has baselines of its own, over a pipe too, whatever the order in which they come.
#[test]
fn a_killed_pipe_goes_on_as_if_nothing_had_happened() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let topic = topic(3);
    send(&topic, &generated(100_000, 60, 311));
    let input = ["-b", shared(), "-t", &topic, "-e"];
    let detector = "--detector=adaptive";
    let quiet = Pipe::new(at("quiet"), &input, detector);
    let killed = Pipe::new(at("killed"), &input, detector);
    quiet.run();
    let n_killed = killed.kill_and_repeat(9, 997);
    assert!(n_killed >= 6, "it was too fast to be killed: {n_killed}");
    killed.run();
    assert_same(&quiet, &killed);
    assert_eq!(stats(&killed.db())["events"], 100_000);
    let fused = at("fused");
    let args = ["-q", "--threshold=0.5", detector, "--db"];
    let args = [&input[..], &args, &[fused.to_str().unwrap()]].concat();
    run("sg-run", &args, b"").expect_code(0);
    assert_eq!(digest(&fused), digest(&killed.db()));
}

/// A member of a group keeps what it has come to in the database at the end of its pipe.
#[test]
fn a_group_goes_on_where_its_database_is() {
    let folder = tempfile::tempdir().unwrap();
    let topic = topic(2);
    let lines = generated(6_000, 40, 313);
    let cut = lines.len() / 2;
    let cut = cut + memchr::memchr(b'\n', &lines[cut..]).unwrap() + 1;
    send(&topic, &lines[..cut]);
    let input = ["-b", shared(), "-t", &topic, "-G", &topic, "-e"];
    let pipe = Pipe::new(folder.path().join("pipe"), &input, "--detector=classic");
    pipe.run();
    send(&topic, &lines[cut..]);
    // Whoever reads along in the group moves nothing.
    run("sg-consume", &[&input[..], &["-q"]].concat(), b"").expect_code(0);
    pipe.run();
    assert_eq!(stats(&pipe.db())["events"], 6_000);
    let once = Pipe::new(
        folder.path().join("once"),
        &["-b", shared(), "-t", &topic, "-e"],
        "--detector=classic",
    );
    once.run();
    assert_same(&once, &pipe);
}
