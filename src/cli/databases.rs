//! Which databases are asked: folders, and servers of other machines.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;

use super::secret;
use crate::io::http::Key;
use crate::store::{Live, Peer, Tuning};

// Not global, since clap would forget those named before the question if others are named behind it.
/// Which databases are asked.
#[derive(Args, Debug)]
pub(super) struct DatabaseArgs {
    #[arg(
        long,
        value_name = "DIR",
        help = "A database folder; several of them answer as one [env: SG_DB] [default: db]"
    )]
    db: Vec<PathBuf>,

    /// A server (sg-query serve, sg-run --serve) whose databases are asked, too
    #[arg(long, value_name = "URL")]
    peer: Vec<String>,

    #[arg(
        long,
        value_name = "FILE",
        help = "A file with the key for these servers [env: SG_PEER_KEY, the key itself]"
    )]
    peer_key_file: Option<PathBuf>,
}

/// Of one database at least.
const CACHE_BYTES_MIN: usize = 4 << 20;
/// Of all databases together: a process may have 1,024 as a rule.
const FILES_OPEN_MAX: usize = 512;
/// With more of them there would be no file left for each.
const DATABASES_MAX: usize = 64;
/// The database if none is named.
const DATABASE: &str = "db";
/// Holds the key if no file is named.
const KEY_VARIABLE: &str = "SG_PEER_KEY";

/// The databases that are named, each once, or else the one that is asked if none is.
pub(super) fn open<'a>(
    program: &str,
    named: impl Iterator<Item = &'a DatabaseArgs> + Clone,
    cache_bytes: usize,
) -> anyhow::Result<Vec<Live>> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in named.clone().flat_map(|databases| &databases.db) {
        let is_known = |known: &PathBuf| same_folder(known, path);
        if !paths.iter().any(is_known) {
            paths.push(path.clone());
        }
    }
    let mut urls: Vec<&String> = named.clone().flat_map(|it| &it.peer).collect();
    urls.sort_unstable();
    urls.dedup();
    if paths.is_empty() && urls.is_empty() {
        paths.push(DATABASE.into());
    }
    let n_databases = paths.len() + urls.len();
    ensure!(
        n_databases <= DATABASES_MAX,
        "{n_databases} databases are too many to ask together: name at most {DATABASES_MAX}"
    );
    let n_paths = paths.len().max(1);
    let tuning = Tuning {
        cache_bytes: (cache_bytes / n_paths).max(CACHE_BYTES_MIN),
        n_files_open_max: (FILES_OPEN_MAX / n_paths) as i32,
        ..Tuning::default()
    };
    let open = |path: &PathBuf| Live::open(path, &tuning);
    let mut lives = paths.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    if !urls.is_empty() {
        let file = named.filter_map(|it| it.peer_key_file.as_deref()).last();
        let key = key(program, file)?;
        for url in urls {
            lives.extend(Live::at_peer(Peer::new(url, key.as_ref())?)?);
        }
    }
    Ok(lives)
}

/// The key for servers, if there is one.
fn key(program: &str, file: Option<&Path>) -> anyhow::Result<Option<Key>> {
    let (text, shown) = match file {
        Some(path) => {
            let shown = path.display().to_string();
            (secret::read(program, path)?, shown)
        }
        None => {
            let text = std::env::var(KEY_VARIABLE).unwrap_or_default();
            (text, KEY_VARIABLE.to_owned())
        }
    };
    if text.is_empty() && file.is_none() {
        return Ok(None);
    }
    let key = Key::parse(&text).with_context(|| format!("{shown} holds no key"))?;
    Ok(Some(key))
}

/// Whether two paths lead to one folder, which holds what it holds once.
fn same_folder(one: &Path, other: &Path) -> bool {
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    canonical(one) == canonical(other)
}
