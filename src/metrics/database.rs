//! How large a database is, and how much room its disk has. Files are looked at, no database is asked, so
//! it is the same for whoever has it open and for whoever asks another program about it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{StatVfs, statvfs};

use super::make::Maker;
use super::{Gauge, lock};

/// Bytes that have to be free for a database to be written to: what is being merged is there twice.
const FREE_BYTES_MIN: u64 = 64 << 20;

pub struct Database {
    folders: Mutex<Vec<PathBuf>>,
    n_bytes: Gauge,
    free_bytes: Gauge,
    size_bytes: Gauge,
}

impl Database {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            folders: Mutex::default(),
            n_bytes: maker.gauge(
                "streamguard_db_bytes",
                "Size of the files of the database, or of the folder of baselines, in bytes.",
            ),
            free_bytes: maker.gauge(
                "streamguard_disk_free_bytes",
                "What is free for us of the file system that they are on, in bytes.",
            ),
            size_bytes: maker.gauge(
                "streamguard_disk_size_bytes",
                "Size of that file system, in bytes.",
            ),
        }
    }

    pub(super) fn watch(&self, folder: &Path) {
        lock(&self.folders).push(folder.to_owned());
    }

    /// Looks at all folders; of several disks it is the one with the least room.
    pub(super) fn sample(&self) {
        let folders = lock(&self.folders);
        let n_bytes: u64 = folders.iter().map(|folder| bytes_in(folder)).sum();
        self.n_bytes.set(n_bytes as i64);
        let disks = folders.iter().filter_map(|folder| disk_of(folder));
        if let Some(disk) = disks.min_by_key(free_bytes) {
            self.free_bytes.set(free_bytes(&disk) as i64);
            let size_bytes = disk.f_blocks.saturating_mul(disk.f_frsize);
            self.size_bytes.set(size_bytes as i64);
        }
    }

    /// Whether there is too little room to go on.
    pub(super) fn hindrance(&self) -> Option<String> {
        let folders = lock(&self.folders);
        let full = folders.iter().find(|folder| {
            disk_of(folder).is_some_and(|disk| free_bytes(&disk) < FREE_BYTES_MIN)
        })?;
        Some(format!("the disk of {} is full", full.display()))
    }
}

/// The file system that a folder is on, or will be.
fn disk_of(folder: &Path) -> Option<StatVfs> {
    let folders = folder.ancestors().map(|it| {
        if it.as_os_str().is_empty() {
            Path::new(".")
        } else {
            it
        }
    });
    folders.into_iter().find_map(|it| statvfs(it).ok())
}

/// What is free for those who are not root.
fn free_bytes(disk: &StatVfs) -> u64 {
    disk.f_bavail.saturating_mul(disk.f_frsize)
}

/// Bytes of the files in a folder and those below it. Files come and go meanwhile.
fn bytes_in(folder: &Path) -> u64 {
    let mut n_bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            // Of a link it is the link's own: it leads nowhere in circles.
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => n_bytes += metadata.len(),
                Err(_) => {}
            }
        }
    }
    n_bytes
}
