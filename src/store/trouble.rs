//! What helps against an error of RocksDB.

use std::borrow::Cow;
use std::path::Path;

use anyhow::anyhow;
use rocksdb::{Error, ErrorKind};

/// What the system says where there is no room for more.
const NO_ROOM: [&str; 3] = [
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
];

/// What to say when something cannot be opened or read; `restore` tells how to get back what is lost.
pub(super) fn cannot(what: &str, path: &Path, error: &Error, restore: &str) -> anyhow::Error {
    anyhow!(
        "cannot {what} {} ({}): {}",
        path.display(),
        error.to_string().trim(),
        advice(error, restore)
    )
}

/// What to do; `restore` tells how to get back what is lost.
pub(super) fn advice<'a>(error: &Error, restore: &'a str) -> Cow<'a, str> {
    let text = error.to_string();
    let says = |words: &str| text.contains(words);
    if error.kind() == ErrorKind::Corruption {
        format!("it is damaged; {restore}").into()
    } else if says("No such file or directory") && !says("mkdir") {
        format!("files are missing; {restore}").into()
    } else if NO_ROOM.iter().any(|words| says(words)) {
        "make room, then run the same command again".into()
    } else {
        "mend the disk or the folder, then run the same command again".into()
    }
}
