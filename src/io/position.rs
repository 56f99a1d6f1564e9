//! How far a file has been read, and whether a file is still the one that was read.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::lines::start_of;
use crate::batch::Origin;

/// Bytes at the start of a file that tell it from another one of the same name.
const HEAD_BYTES_MAX: u64 = 1024;

/// The first line of a file that has not been taken yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Number of the line, from 1.
    pub line: u64,
    /// Offset of its first byte, after decompression.
    pub offset: u64,
    /// Length of the head that `head_sha256` covers, in bytes of the file.
    pub head_bytes: u64,
    pub head_sha256: String,
}

/// Positions by source name: the absolute path of a file.
#[derive(Clone, Debug, Default)]
pub struct Positions(HashMap<String, Position>);

impl Positions {
    #[must_use]
    pub fn new(positions: impl IntoIterator<Item = (String, Position)>) -> Self {
        Self(positions.into_iter().collect())
    }

    /// Where to go on in a file: after what was taken, if it is still the same file, else at
    /// its start.
    ///
    /// # Errors
    /// If the file's head cannot be read.
    pub fn start_of(&self, input: &str, file: &File) -> anyhow::Result<Origin> {
        let start = Origin {
            file: Some(Arc::new(file.try_clone()?)),
            ..start_of(input)
        };
        let Some(position) = self.0.get(&key(input)) else {
            return Ok(start);
        };
        let head =
            head(file, position.head_bytes).with_context(|| format!("cannot read {input}"))?;
        // An empty head is that of any file.
        if head.0 == 0 || head.0 != position.head_bytes || head.1 != position.head_sha256 {
            return Ok(start);
        }
        Ok(Origin {
            line: position.line,
            offset: position.offset,
            ..start
        })
    }
}

/// The name under which a file's position is kept: its absolute path.
#[must_use]
pub fn key(input: &str) -> String {
    std::fs::canonicalize(Path::new(input)).map_or_else(
        |_| input.to_owned(),
        |path| path.to_string_lossy().into_owned(),
    )
}

/// The position at `end` of a file, or none if it is no regular file that can be read again.
#[must_use]
pub fn of(end: &Origin) -> Option<Position> {
    let file = end.file.as_deref()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let (head_bytes, head_sha256) = head(file, HEAD_BYTES_MAX).ok()?;
    Some(Position {
        line: end.line,
        offset: end.offset,
        head_bytes,
        head_sha256,
    })
}

fn head(file: &File, n_bytes: u64) -> std::io::Result<(u64, String)> {
    let mut head = vec![0; n_bytes.min(HEAD_BYTES_MAX) as usize];
    let mut n_read = 0;
    while n_read < head.len() {
        match file.read_at(&mut head[n_read..], n_read as u64)? {
            0 => break,
            n => n_read += n,
        }
    }
    let hash = Sha256::digest(&head[..n_read]);
    let hash = hash
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    Ok((n_read as u64, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_head() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.ndjson");
        std::fs::write(&path, "one\ntwo\n").expect("a file");
        let name = path.to_str().expect("a name");
        let end = Origin {
            source: Arc::from(name),
            line: 2,
            offset: 4,
            file: Some(Arc::new(File::open(&path).expect("the file"))),
        };
        let position = of(&end).expect("a regular file");
        let positions = Positions::new([(key(name), position)]);
        let start = |positions: &Positions| {
            let file = File::open(&path).expect("the file");
            let start = positions.start_of(name, &file).expect("a start");
            (start.line, start.offset)
        };
        assert_eq!(start(&positions), (2, 4));
        std::fs::write(&path, "one\ntwo\nthree\n").expect("it grows");
        assert_eq!(start(&positions), (2, 4));
        std::fs::write(&path, "new\ntwo\n").expect("another file of that name");
        assert_eq!(start(&positions), (1, 0));
        assert_eq!(start(&Positions::default()), (1, 0));
        assert_eq!(
            of(&Origin {
                source: Arc::from("-"),
                line: 1,
                offset: 0,
                file: None,
            }),
            None
        );
    }
}
