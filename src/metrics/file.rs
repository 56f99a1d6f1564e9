//! Metrics in a file, for runs that end before somebody asks: `node_exporter` reads it from a folder. The
//! file is replaced as a whole, so whoever reads it has one moment's.

use std::fs::{File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::Metrics;
use crate::report::say;

/// How often the file is written while the program runs.
const INTERVAL: Duration = Duration::from_secs(15);
/// Everybody may read it: `node_exporter` is another user.
const MODE: u32 = 0o644;
/// What each such file begins with.
const START: &[u8] = b"# HELP ";

/// Writes the file, now and then and at the end.
pub struct MetricsFile {
    end: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

struct Writing {
    metrics: Arc<Metrics>,
    path: PathBuf,
    /// What the file is called, without its ending.
    name: String,
    program: &'static str,
    is_told: bool,
}

impl MetricsFile {
    /// Begins to write to `path`. What goes wrong with that is told once, and stops nothing.
    ///
    /// # Errors
    /// If there is something else at that path, or there can be no thread.
    pub fn start(metrics: &Arc<Metrics>, path: &Path) -> anyhow::Result<Self> {
        ensure_is_ours(path)
            .with_context(|| format!("cannot write metrics to {}", path.display()))?;
        let name = path.file_stem().unwrap_or_default();
        let mut writing = Writing {
            program: metrics.program,
            metrics: Arc::clone(metrics),
            // The working folder may be another one by the end.
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            name: name.to_string_lossy().into_owned(),
            is_told: false,
        };
        let (end, is_ending) = channel();
        let thread = thread::Builder::new().name("metrics".to_owned());
        let thread = thread.spawn(move || {
            loop {
                writing.write(false);
                if is_ending.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            writing.write(true);
        });
        Ok(Self {
            end,
            thread: Some(thread.context("cannot start a thread for metrics")?),
        })
    }
}

impl Drop for MetricsFile {
    fn drop(&mut self) {
        // It has panicked at worst.
        let _ = self.end.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Writing {
    fn write(&mut self, is_last: bool) {
        let text = self.metrics.text_of_file(&self.name, is_last);
        let replaced = replace(&self.path, text.as_bytes());
        if let (Err(error), false) = (replaced, self.is_told) {
            self.is_told = true;
            say(self.program, &format!("{error:#}; going on without"));
        }
    }
}

/// Puts a file in the place of another one, whoever reads meanwhile. What is made for that is hidden and
/// does not end in .prom, so nobody reads half of it.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let cannot = || format!("cannot write metrics to {}", path.display());
    ensure_is_ours(path).with_context(cannot)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    let file = builder
        .prefix(".streamguard-")
        .suffix(".tmp")
        .tempfile_in(folder);
    let mut file = file.with_context(cannot)?;
    file.write_all(bytes).with_context(cannot)?;
    let permissions = file.as_file().set_permissions(Permissions::from_mode(MODE));
    permissions.with_context(cannot)?;
    file.persist(path).with_context(cannot)?;
    Ok(())
}

/// Only what looks like metrics is replaced: no device, no link, and no file that somebody has named by mistake.
fn ensure_is_ours(path: &Path) -> anyhow::Result<()> {
    let Ok(found) = path.symlink_metadata() else {
        // There is nothing, or whoever writes is told what is wrong.
        return Ok(());
    };
    ensure!(found.is_file(), "it is no regular file");
    let mut start = Vec::new();
    let mut file = File::open(path)?.take(START.len() as u64);
    file.read_to_end(&mut start)?;
    ensure!(
        start.is_empty() || start == START,
        "there is a file without metrics: name another one, or remove it"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn who_reads_meanwhile_reads_one_or_the_other() {
        let folder = tempfile::tempdir().expect("there is room");
        let path = folder.path().join("m.prom");
        let texts = ["# HELP a\n".repeat(20_000), "# HELP b\n".repeat(50_000)];
        replace(&path, texts[0].as_bytes()).expect("it can be written");
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for text in texts.iter().cycle().take(400) {
                    replace(&path, text.as_bytes()).expect("it can be written");
                }
                is_over.store(true, Ordering::Relaxed);
            });
            while !is_over.load(Ordering::Relaxed) {
                let text = std::fs::read_to_string(&path).expect("it is there");
                assert!(texts.contains(&text), "{} bytes", text.len());
            }
        });
        let left = std::fs::read_dir(folder.path())
            .expect("it is there")
            .count();
        assert_eq!(left, 1);
    }
}
