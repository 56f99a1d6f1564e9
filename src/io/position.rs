//! How far a file has been read, and which file that was: names change when logs are rotated.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use super::files::{STDIN, is_compressed};
use super::lines::start_of;
use crate::batch::{Medium, Origin};
use crate::record::text::hex;

/// Bytes at the start of a file, and before the position, that tell it from another one.
const SAMPLE_BYTES_MAX: u64 = 1024;

/// The first line of a source that has not been taken yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Position {
    File(FilePosition),
    Partition(PartitionPosition),
}

/// The first message of a partition that has not been taken yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionPosition {
    /// The cluster's own id: another cluster may have a topic of the same name.
    pub cluster: String,
    /// What Kafka can count, as with all numbers that are read here.
    #[serde(deserialize_with = "read_number")]
    pub offset: u64,
}

/// The first line of a file that has not been taken yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePosition {
    /// Number of the line, from 1.
    #[serde(deserialize_with = "read_line")]
    pub line: u64,
    /// Offset of its first byte, after decompression.
    #[serde(deserialize_with = "read_number")]
    pub offset: u64,
    /// Length of the head that `head_sha256` covers, in bytes of the file.
    pub head_bytes: u64,
    pub head_sha256: String,
    /// Of the up to 1,024 bytes before `offset`; none for a compressed file.
    #[serde(default)]
    pub tail_sha256: Option<String>,
    /// Length of the file.
    #[serde(default)]
    pub file_bytes: u64,
}

/// A number that can be counted on from, and that Kafka has a word for: a higher one is damaged.
pub(super) fn read_number<'de, D: Deserializer<'de>>(value: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(value)?;
    i64::try_from(number).map_err(D::Error::custom)?;
    Ok(number)
}

fn read_line<'de, D: Deserializer<'de>>(value: D) -> Result<u64, D::Error> {
    match read_number(value)? {
        0 => Err(D::Error::custom("lines are counted from 1")),
        line => Ok(line),
    }
}

impl Position {
    /// The position at the `end` of what was read, or none if it cannot be read again.
    #[must_use]
    pub fn of(end: &Origin) -> Option<Self> {
        match &end.medium {
            Medium::Stream => None,
            Medium::File(file) => FilePosition::of(file, end).map(Self::File),
            Medium::Partition(cluster) => Some(Self::Partition(PartitionPosition {
                cluster: cluster.to_string(),
                offset: end.offset,
            })),
        }
    }
}

impl FilePosition {
    /// The position at `end` of a file, or none if it is no regular one.
    fn of(file: &File, end: &Origin) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() {
            return None;
        }
        let head = sample(file, 0, SAMPLE_BYTES_MAX).ok()?;
        let tail = if is_compressed(&head) {
            None
        } else {
            Some(hash(&tail(file, end.offset).ok()?))
        };
        Some(Self {
            line: end.line,
            offset: end.offset,
            head_bytes: head.len() as u64,
            head_sha256: hash(&head),
            tail_sha256: tail,
            file_bytes: metadata.len(),
        })
    }

    /// Whether this is the file that was read to here, and whatever was appended since.
    fn is_in(&self, file: &File) -> std::io::Result<bool> {
        let n_bytes = file.metadata()?.len();
        let head = sample(file, 0, self.head_bytes.min(SAMPLE_BYTES_MAX))?;
        // An empty head is that of any file.
        if head.is_empty()
            || head.len() as u64 != self.head_bytes
            || hash(&head) != self.head_sha256
        {
            return Ok(false);
        }
        match &self.tail_sha256 {
            Some(expected) => {
                Ok(n_bytes >= self.offset && hash(&tail(file, self.offset)?) == *expected)
            }
            None => Ok(n_bytes >= self.file_bytes),
        }
    }
}

/// Positions by the name that the source had: the absolute path of a file.
#[derive(Clone, Debug, Default)]
pub struct Positions {
    files: BTreeMap<String, FilePosition>,
    partitions: BTreeMap<String, PartitionPosition>,
}

impl Positions {
    #[must_use]
    pub fn new(positions: impl IntoIterator<Item = (String, Position)>) -> Self {
        let mut all = Self::default();
        for (source, position) in positions {
            match position {
                Position::File(position) => drop(all.files.insert(source, position)),
                Position::Partition(position) => drop(all.partitions.insert(source, position)),
            }
        }
        all
    }

    /// Where to go on in a partition of that name, if anything of it was taken.
    #[must_use]
    pub fn of_partition(&self, source: &str) -> Option<&PartitionPosition> {
        self.partitions.get(source)
    }

    /// Where to go on in a file: after what was taken, whatever its name was then; at its start if
    /// nothing was.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn start_of(&self, input: &str, file: &File) -> anyhow::Result<Origin> {
        let start = Origin {
            medium: Medium::File(Arc::new(file.try_clone()?)),
            ..start_of(input)
        };
        let position = self
            .find(input, file)
            .with_context(|| format!("cannot read {input}"))?;
        Ok(match position {
            None => start,
            Some(position) => Origin {
                line: position.line,
                offset: position.offset,
                ..start
            },
        })
    }

    fn find(&self, input: &str, file: &File) -> std::io::Result<Option<&FilePosition>> {
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let own = self.files.get(&key(input));
        let mut furthest: Option<&FilePosition> = None;
        for position in own.into_iter().chain(self.files.values()) {
            let is_further = furthest.is_none_or(|found| position.offset > found.offset);
            if is_further && position.is_in(file)? {
                furthest = Some(position);
            }
        }
        Ok(furthest)
    }

    /// The inputs, each after the file that had its name when it was read last, if that has been
    /// renamed since (log rotation) and is not among them; and words about those not to be found.
    #[must_use]
    pub fn with_rotated(&self, inputs: Vec<String>) -> (Vec<String>, Vec<String>) {
        let given: Vec<String> = inputs.iter().map(|input| key(input)).collect();
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for input in inputs {
            let replaced = (input != STDIN)
                .then(|| self.files.get(&key(&input)))
                .flatten()
                .filter(|position| !is_at(position, Path::new(&input)));
            if let Some(position) = replaced {
                let siblings = siblings(Path::new(&input));
                match siblings
                    .into_iter()
                    .find(|sibling| is_at(position, Path::new(sibling)))
                {
                    Some(sibling) if given.contains(&key(&sibling)) => {}
                    Some(sibling) => found.push(sibling),
                    None => missing.push(format!(
                        "{input} is not the file that was read up to line {}, and that one is \
                         not beside it: lines appended to it since are not read",
                        position.line - 1
                    )),
                }
            }
            found.push(input);
        }
        (found, missing)
    }
}

/// Whether the file of that name is the one of the position.
fn is_at(position: &FilePosition, path: &Path) -> bool {
    File::open(path).is_ok_and(|file| position.is_in(&file).unwrap_or(false))
}

/// Files in the same folder whose names begin with this one's: `app.log.1`, `app.log-20261124`.
fn siblings(path: &Path) -> Vec<String> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir(folder.unwrap_or(Path::new("."))) else {
        return Vec::new();
    };
    let mut siblings: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.path().to_str().map(str::to_owned))
        .filter(|sibling| {
            let other = Path::new(sibling)
                .file_name()
                .and_then(|name| name.to_str());
            other.is_some_and(|other| other != name && other.starts_with(name))
        })
        .collect();
    siblings.sort();
    siblings
}

/// The name under which a file's position is kept: its absolute path.
#[must_use]
pub fn key(input: &str) -> String {
    fs::canonicalize(Path::new(input)).map_or_else(
        |_| input.to_owned(),
        |path| path.to_string_lossy().into_owned(),
    )
}

/// The bytes before an offset.
fn tail(file: &File, offset: u64) -> std::io::Result<Vec<u8>> {
    let n_bytes = offset.min(SAMPLE_BYTES_MAX);
    sample(file, offset - n_bytes, n_bytes)
}

fn sample(file: &File, offset: u64, n_bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; n_bytes as usize];
    let mut n_read = 0;
    while n_read < bytes.len() {
        match file.read_at(&mut bytes[n_read..], offset + n_read as u64)? {
            0 => break,
            n => n_read += n,
        }
    }
    bytes.truncate(n_read);
    Ok(bytes)
}

fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An offset of this kind became a negative one on its way to Kafka: everything was read again, and
    /// nobody was told.
    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let is_read = |json: &str| serde_json::from_str::<Position>(json).is_ok();
        let partition = |offset: u64| format!(r#"{{"cluster":"c","offset":{offset}}}"#);
        let file = |line: u64, offset: u64| {
            format!(r#"{{"line":{line},"offset":{offset},"head_bytes":1,"head_sha256":"aa"}}"#)
        };
        let last = u64::MAX >> 1;
        assert!(is_read(&partition(0)) && is_read(&partition(last)));
        assert!(is_read(&file(1, 0)) && is_read(&file(last, last)));
        assert!(!is_read(&partition(last + 1)) && !is_read(&partition(u64::MAX)));
        assert!(!is_read(&file(0, 0)) && !is_read(&file(u64::MAX, 0)));
        assert!(!is_read(&file(1, last + 1)));
    }

    #[test]
    fn a_file_is_known_by_its_head() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.ndjson");
        fs::write(&path, "one\ntwo\n").expect("a file");
        let name = path.to_str().expect("a name");
        let end = Origin {
            source: Arc::from(name),
            line: 2,
            offset: 4,
            record: 0,
            medium: Medium::File(Arc::new(File::open(&path).expect("the file"))),
        };
        let position = Position::of(&end).expect("a regular file");
        let positions = Positions::new([(key(name), position)]);
        let start = |positions: &Positions| {
            let file = File::open(&path).expect("the file");
            let start = positions.start_of(name, &file).expect("a start");
            (start.line, start.offset)
        };
        assert_eq!(start(&positions), (2, 4));
        fs::write(&path, "one\ntwo\nthree\n").expect("it grows");
        assert_eq!(start(&positions), (2, 4));
        fs::write(&path, "new\ntwo\n").expect("another file of that name");
        assert_eq!(start(&positions), (1, 0));
        fs::write(&path, "one").expect("it is cut short");
        assert_eq!(start(&positions), (1, 0));
        let moved = folder.path().join("events.ndjson.1");
        fs::write(&moved, "one\ntwo\nthree\n").expect("it was moved");
        let moved = moved.to_str().expect("a name");
        let file = File::open(moved).expect("the file");
        let start_moved = positions.start_of(moved, &file).expect("a start");
        assert_eq!((start_moved.line, start_moved.offset), (2, 4));
        let inputs = vec![name.to_owned()];
        let both = vec![moved.to_owned(), name.to_owned()];
        assert_eq!(
            positions.with_rotated(inputs.clone()),
            (both.clone(), vec![])
        );
        assert_eq!(positions.with_rotated(both.clone()), (both, vec![]));
        fs::remove_file(moved).expect("it is there");
        let (found, missing) = positions.with_rotated(inputs.clone());
        assert_eq!((found, missing.len()), (inputs, 1));
        assert_eq!(start(&Positions::default()), (1, 0));
        assert_eq!(
            Position::of(&Origin {
                source: Arc::from("-"),
                line: 1,
                offset: 0,
                record: 0,
                medium: Medium::Stream,
            }),
            None
        );
    }
}
