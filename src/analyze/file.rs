//! Notes in a file: a line each behind a first line that says what the file is. Lines are only ever
//! added, so a killed program leaves half of the last one at worst; when most of them count no more,
//! the file is written anew.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::cache::{Note, Notebook};
use crate::io::append::{append_whole, json_line};

/// The first line. Version 1 has a [`Note`] a line.
const VERSION: u32 = 1;
/// Longest line that is read; ours are far shorter.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Lines that count no more, beside as many as count.
const SPARE_LINES: usize = 1_024;
/// Damaged lines that are told one by one.
const N_TOLD: usize = 3;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    streamguard_answers: u32,
}

/// The file, locked against others.
pub struct NoteFile {
    path: PathBuf,
    file: File,
    n_lines: usize,
}

impl Drop for NoteFile {
    fn drop(&mut self) {
        // To close it does not do while a program that is being started has a copy of it.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

impl NoteFile {
    /// Opens the file, or makes it. Also gives the notes in it, and sentences on what cannot be read.
    ///
    /// # Errors
    /// If it cannot be used, is another's file, or another program is using it.
    pub fn open(path: &Path) -> anyhow::Result<(Self, Vec<Note>, Vec<String>)> {
        let shown = path.display();
        let file = lock(path)?;
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        let mut next = |line: &mut Vec<u8>| {
            line.clear();
            std::io::Read::take(&mut reader, LINE_BYTES_MAX)
                .read_until(b'\n', line)
                .with_context(|| format!("cannot read {shown}"))
        };
        let mut notes = Vec::new();
        let mut troubles = Vec::new();
        let mut n_lines = 0;
        let mut n_bytes = next(&mut line)? as u64;
        let is_begun = line.ends_with(b"\n");
        if is_begun {
            match serde_json::from_slice(&line) {
                Ok(Head {
                    streamguard_answers: VERSION,
                }) => {}
                Ok(Head {
                    streamguard_answers: found,
                }) => bail!("{shown} has version {found}, this build reads version {VERSION}"),
                Err(_) => bail!("{shown} holds something else than answers: name another file"),
            }
        } else {
            ensure!(
                head().starts_with(&line),
                "{shown} holds something else than answers: name another file"
            );
            n_bytes = 0;
        }
        let mut n_damaged = 0;
        while is_begun && next(&mut line)? > 0 {
            if !line.ends_with(b"\n") && (line.len() as u64) < LINE_BYTES_MAX {
                // A killed program was about to write it.
                break;
            }
            n_bytes += line.len() as u64;
            n_lines += 1;
            match serde_json::from_slice(&line) {
                Ok(note) => notes.push(note),
                Err(_) => {
                    n_damaged += 1;
                    if n_damaged <= N_TOLD {
                        troubles.push(format!("{shown}:{}: damaged, left out", n_lines + 1));
                    }
                }
            }
        }
        if n_damaged > N_TOLD {
            troubles.push(format!("{shown}: {n_damaged} lines are damaged"));
        }
        let damaged = || format!("cannot write to {shown}");
        file.set_len(n_bytes).with_context(damaged)?;
        if !is_begun {
            append_whole(&file, &head()).with_context(damaged)?;
        }
        let file = Self {
            path: path.to_owned(),
            file,
            n_lines,
        };
        Ok((file, notes, troubles))
    }

    /// Writes the file anew, beside the old one until it is whole.
    fn rewrite(&mut self, notes: &mut dyn Iterator<Item = Note>) -> anyhow::Result<usize> {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let new_path = PathBuf::from(name);
        let file = open(&new_path, true)?;
        // Nobody else writes beside a file that we have locked, but one may have left half of it.
        file.set_len(0)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let mut writer = BufWriter::new(&file);
        writer.write_all(&head())?;
        let mut n_lines = 0;
        for note in notes {
            writer.write_all(&json_line(&note))?;
            n_lines += 1;
        }
        writer.flush()?;
        drop(writer);
        file.sync_data()?;
        fs::rename(&new_path, &self.path)?;
        let old = std::mem::replace(&mut self.file, file);
        let _ = flock(&old, FlockOperation::Unlock);
        Ok(n_lines)
    }
}

impl Notebook for NoteFile {
    fn write(&mut self, note: &Note) -> anyhow::Result<()> {
        let shown = self.path.display();
        let written = append_whole(&self.file, &json_line(note));
        written.with_context(|| format!("cannot write to {shown}"))?;
        self.n_lines += 1;
        Ok(())
    }

    fn tidy(
        &mut self,
        n_notes: usize,
        notes: &mut dyn Iterator<Item = Note>,
    ) -> anyhow::Result<()> {
        if self.n_lines > 2 * n_notes + SPARE_LINES {
            let rewritten = self.rewrite(notes);
            let shown = self.path.display();
            self.n_lines = rewritten.with_context(|| format!("cannot write {shown} anew"))?;
        }
        Ok(())
    }
}

fn head() -> Vec<u8> {
    let head = Head {
        streamguard_answers: VERSION,
    };
    json_line(&head)
}

/// For reading, and for writing behind what is there.
fn open(path: &Path, is_new: bool) -> anyhow::Result<File> {
    let mut options = File::options();
    options.read(true).append(true).create(true);
    let file = options.open(path);
    let what = if is_new { "make" } else { "open" };
    let file = file.with_context(|| format!("cannot {what} {}", path.display()))?;
    ensure!(
        file.metadata()?.is_file(),
        "{} is not a file",
        path.display()
    );
    Ok(file)
}

/// Opens and locks the file that the path leads to; whoever held it before may have written it anew.
fn lock(path: &Path) -> anyhow::Result<File> {
    loop {
        let file = open(path, false)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("{} is in use by another program", path.display());
        }
        let there = fs::metadata(path);
        if there.is_ok_and(|there| Some(there.ino()) == file.metadata().ok().map(|own| own.ino())) {
            return Ok(file);
        }
    }
}
