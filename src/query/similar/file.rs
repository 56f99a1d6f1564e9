//! The derived file in a database's folder: chunks, one after the other. It is only appended to, or made
//! anew beside itself; whatever is not whole in it is passed over. It can be removed at any time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use super::chunk::{HEAD_BYTES, Head, Place};

/// Its name in the folder.
pub(super) const NAME: &str = "streamguard.similar";

/// An open file, as far as it can be used.
pub(super) struct IndexFile {
    file: Arc<File>,
    path: PathBuf,
    /// Where the last whole chunk ends, and where the file does.
    end: u64,
    n_bytes: u64,
}

impl IndexFile {
    /// Opens the file of a database, and finds its chunks; none if there is none that can be read.
    pub(super) fn open(folder: &Path) -> Option<(Self, Vec<(Head, Place)>)> {
        let path = folder.join(NAME);
        let file = Arc::new(File::open(&path).ok()?);
        let n_bytes = file.metadata().ok()?.len();
        let mut index = Self {
            file,
            path,
            end: 0,
            n_bytes,
        };
        let chunks = index.chunks();
        Some((index, chunks))
    }

    /// All chunks up to the first that is not whole: it was being written when a program was killed.
    fn chunks(&mut self) -> Vec<(Head, Place)> {
        let mut chunks = Vec::new();
        let mut head = [0; HEAD_BYTES];
        while self.file.read_exact_at(&mut head, self.end).is_ok() {
            let Some(head) = Head::read(&head) else {
                break;
            };
            let offset = self.end;
            let Some(end) = offset
                .checked_add(head.n_bytes)
                .filter(|end| *end <= self.n_bytes)
            else {
                break;
            };
            self.end = end;
            let file = Arc::clone(&self.file);
            chunks.push((head, Place::File { file, offset }));
        }
        chunks
    }

    /// Bytes of all chunks.
    pub(super) fn chunks_bytes(&self) -> u64 {
        self.end
    }
}

/// Takes chunks behind those that are there, or in their place. What cannot be written is kept in memory.
pub(super) struct Appender {
    /// Locked, so that nobody else appends.
    file: Option<Arc<File>>,
    end: u64,
    /// To be moved there at the end.
    moves: Option<(PathBuf, PathBuf)>,
    // Whoever else would make it anew waits for this one.
    _lock: Option<Arc<File>>,
}

impl Appender {
    /// Goes on behind the chunks of a file that was opened; none is a file to be made.
    pub(super) fn behind(folder: &Path, opened: Option<&IndexFile>) -> Self {
        let end = opened.map_or(0, |opened| opened.end);
        let file = lock(&folder.join(NAME), opened).and_then(|file| {
            // What follows is no chunk: nobody can use it.
            file.set_len(end)?;
            Ok(Arc::new(file))
        });
        let file = file.ok();
        Self {
            _lock: file.clone(),
            file,
            end,
            moves: None,
        }
    }

    /// Makes the file anew: until it is done the old one stays.
    pub(super) fn anew(folder: &Path, opened: Option<&IndexFile>) -> Self {
        let path = folder.join(NAME);
        let draft = folder.join(format!("{NAME}.new"));
        let locked = lock(&path, opened);
        let made = locked.and_then(|lock| {
            let mut options = OpenOptions::new();
            let file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&draft)?;
            Ok((Arc::new(lock), Arc::new(file)))
        });
        let (lock, file) = made.ok().unzip();
        Self {
            moves: file.is_some().then_some((draft, path)),
            file,
            end: 0,
            _lock: lock,
        }
    }

    /// Writes a chunk; where it is then.
    pub(super) fn append(&mut self, chunk: Vec<u8>) -> Place {
        if let Some(file) = &self.file {
            if file.write_all_at(&chunk, self.end).is_ok() {
                let offset = self.end;
                self.end += chunk.len() as u64;
                return Place::File {
                    file: Arc::clone(file),
                    offset,
                };
            }
            // The disk is full, as a rule.
            self.file = None;
            self.moves = None;
        }
        Place::Memory(Arc::new(chunk))
    }

    /// Puts what was made anew into its place.
    pub(super) fn finish(self) {
        if let Some((draft, path)) = self.moves {
            // If it stays where it is, the next one makes it anew.
            let _ = std::fs::rename(draft, path);
        }
    }
}

/// The file, for writing, if nobody else writes and it is as long as when it was opened.
fn lock(path: &Path, opened: Option<&IndexFile>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    let (found, at_path) = (file.metadata()?, std::fs::metadata(path)?);
    let is_known = match opened {
        Some(opened) => {
            let known = opened.file.metadata()?;
            opened.path == path
                && (known.ino(), opened.n_bytes) == (found.ino(), found.len())
                && known.dev() == found.dev()
        }
        None => found.len() == 0,
    };
    // Another one may have made it anew meanwhile.
    if is_known && at_path.ino() == found.ino() {
        return Ok(file);
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Copies a chunk.
pub(super) fn copy(head: &Head, place: &Place) -> io::Result<Vec<u8>> {
    match place {
        Place::Memory(bytes) => Ok(bytes.to_vec()),
        Place::File { file, offset } => {
            let mut bytes = vec![0; head.n_bytes as usize];
            file.read_exact_at(&mut bytes, *offset)?;
            Ok(bytes)
        }
    }
}

/// Removes the file, if there is one.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_file(folder.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
