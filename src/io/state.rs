//! The folder in which `sg-score` keeps its baselines between runs.
//!
//! One file, replaced as a whole: magic, format version, detector name, then for each user
//! name and record with their lengths, sorted by name, then a CRC-32 of all before it. A crash
//! leaves the old file or the new one.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use crc32fast::Hasher;
use rustix::fs::{FlockOperation, flock};

const MAGIC: &[u8; 4] = b"SGBL";
const VERSION: u16 = 1;
const FILE_NAME: &str = "baselines.sg";
/// Longest name or record: far above what validation and the tables allow.
const FIELD_BYTES_MAX: u32 = 256 << 20;

/// A state folder, locked against a second writer.
pub struct StateFolder {
    path: PathBuf,
    _lock: File,
}

impl StateFolder {
    /// Opens the folder, and makes it if it is not there.
    ///
    /// # Errors
    /// If it cannot be made or written to, or another program is using it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        fs::create_dir_all(path)
            .with_context(|| format!("cannot make the state folder {shown}"))?;
        let lock = File::create(path.join("lock"))
            .with_context(|| format!("cannot write to the state folder {shown}"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("the state folder {shown} is in use by another sg-score");
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The detector whose baselines are there, or none if there are none yet.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or of a newer version.
    pub fn detector(&self) -> anyhow::Result<Option<String>> {
        let Some(mut reader) = self.open_checked()? else {
            return Ok(None);
        };
        Ok(Some(String::from_utf8(read_field(&mut reader)?)?))
    }

    /// The file after its header, if there is one.
    fn open_checked(&self) -> anyhow::Result<Option<BufReader<File>>> {
        let path = self.path.join(FILE_NAME);
        let shown = path.display();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
        };
        // Two passes: nothing of a damaged file is believed.
        check(&file).with_context(|| format!("the state file {shown} cannot be used"))?;
        let mut reader = BufReader::new(File::open(&path)?);
        let mut header = [0; 6];
        reader.read_exact(&mut header)?;
        Ok(Some(reader))
    }

    /// Calls `each` with every user and record; nothing if there is no state yet.
    ///
    /// # Errors
    /// If the file is damaged, of a newer version, or of another detector.
    pub fn load(
        &self,
        detector: &str,
        mut each: impl FnMut(&str, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let path = self.path.join(FILE_NAME);
        let shown = path.display();
        let Some(mut reader) = self.open_checked()? else {
            return Ok(());
        };
        let found = String::from_utf8(read_field(&mut reader)?)?;
        ensure!(
            found == detector,
            "the state file {shown} holds baselines of the {found} detector, not {detector}: \
             use another --state folder, or --detector {found}"
        );
        let mut n_users = [0; 8];
        reader.read_exact(&mut n_users)?;
        for _ in 0..u64::from_le_bytes(n_users) {
            let user = String::from_utf8(read_field(&mut reader)?)?;
            let record = read_field(&mut reader)?;
            each(&user, &record)
                .with_context(|| format!("the state file {shown} cannot be used"))?;
        }
        Ok(())
    }

    /// Replaces the state by `n_users` records that `write_all` hands over, sorted by user.
    ///
    /// # Errors
    /// If the file cannot be written; the old one is then still there.
    pub fn save(
        &self,
        detector: &str,
        n_users: u64,
        write_all: impl FnOnce(&mut dyn FnMut(&str, &[u8]) -> anyhow::Result<()>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let path = self.path.join(FILE_NAME);
        let new_path = self.path.join(format!("{FILE_NAME}.new"));
        let write = || -> anyhow::Result<()> {
            let mut writer = Summing {
                file: BufWriter::new(File::create(&new_path)?),
                crc: Hasher::new(),
            };
            writer.write_all(MAGIC)?;
            writer.write_all(&VERSION.to_le_bytes())?;
            write_field(&mut writer, detector.as_bytes())?;
            writer.write_all(&n_users.to_le_bytes())?;
            write_all(&mut |user, record| {
                write_field(&mut writer, user.as_bytes())?;
                write_field(&mut writer, record)?;
                Ok(())
            })?;
            let crc = writer.crc.clone().finalize();
            writer.file.write_all(&crc.to_le_bytes())?;
            let file = writer
                .file
                .into_inner()
                .map_err(std::io::IntoInnerError::into_error)?;
            file.sync_all()?;
            fs::rename(&new_path, &path)?;
            File::open(&self.path)?.sync_all()?;
            Ok(())
        };
        write().with_context(|| format!("cannot save baselines in {}", self.path.display()))
    }
}

/// Checks magic, version and sum of a whole file.
fn check(file: &File) -> anyhow::Result<()> {
    let n_bytes = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    let mut header = [0; 6];
    ensure!(
        reader.read_exact(&mut header).is_ok() && header.starts_with(MAGIC),
        "it is not a baseline file"
    );
    let version = u16::from_le_bytes([header[4], header[5]]);
    ensure!(
        version <= VERSION,
        "it has version {version}, this build reads up to {VERSION}"
    );
    ensure!(
        version == VERSION,
        "it has version {version}, which no release has written"
    );
    let mut crc = Hasher::new();
    crc.update(&header);
    let mut rest = reader
        .by_ref()
        .take(n_bytes.saturating_sub(header.len() as u64 + 4));
    let mut buffer = vec![0; 64 << 10];
    loop {
        match rest.read(&mut buffer)? {
            0 => break,
            n => crc.update(&buffer[..n]),
        }
    }
    let mut sum = [0; 4];
    let is_whole = reader.read_exact(&mut sum).is_ok() && u32::from_le_bytes(sum) == crc.finalize();
    ensure!(
        is_whole,
        "its checksum is wrong: restore it from a backup, or remove it and score the history again"
    );
    Ok(())
}

fn read_field(reader: &mut impl Read) -> anyhow::Result<Vec<u8>> {
    let mut n_bytes = [0; 4];
    reader.read_exact(&mut n_bytes)?;
    let n_bytes = u32::from_le_bytes(n_bytes);
    ensure!(n_bytes <= FIELD_BYTES_MAX, "field of {n_bytes} bytes");
    let mut field = vec![0; n_bytes as usize];
    reader.read_exact(&mut field)?;
    Ok(field)
}

fn write_field(writer: &mut impl Write, field: &[u8]) -> std::io::Result<()> {
    if field.len() > FIELD_BYTES_MAX as usize {
        let why = format!("field of {} bytes could not be read again", field.len());
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
    }
    writer.write_all(&(field.len() as u32).to_le_bytes())?;
    writer.write_all(field)
}

/// Sums what passes through.
struct Summing {
    file: BufWriter<File>,
    crc: Hasher,
}

impl Write for Summing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n_written = self.file.write(bytes)?;
        self.crc.update(&bytes[..n_written]);
        Ok(n_written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was too long to be read again was written nonetheless.
    #[test]
    fn a_field_that_could_not_be_read_is_not_written() {
        let field = vec![0; FIELD_BYTES_MAX as usize + 1];
        let mut written = Vec::new();
        assert!(write_field(&mut written, &field).is_err());
        assert!(written.is_empty());
    }
}
