//! Who may ask: a file with a line for each key, of which only a hash is kept. The file is replaced as a
//! whole, by one program at a time; whoever reads it sees all of a change or nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use anyhow::{Context as _, bail, ensure};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use rustix::fs::{FlockOperation, flock};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use utoipa::ToSchema;

use crate::record::text::hex;
use crate::time::{format_time, now_ms};

/// What a key begins with, so that it is known for one wherever it turns up.
pub const PREFIX: &str = "sgk_";
/// Random bytes of a key.
const KEY_BYTES: usize = 32;
/// Characters of a name at the most.
const NAME_CHARS_MAX: usize = 64;
/// Bytes of the file at the most.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Ask questions
    Read,
    /// Also list keys and revoke them
    Admin,
}

impl Role {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// A key, as it is shown: without anything that it could be told by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct KeyInfo {
    pub name: String,
    pub role: Role,
    /// When it was made.
    #[schema(format = DateTime)]
    pub created: String,
    /// When it was revoked, if it was.
    #[schema(format = DateTime, required = true)]
    pub revoked: Option<String>,
}

/// A key's line.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    name: String,
    role: Role,
    sha256: Hash,
    created: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<String>,
}

/// The hash of a key. It can be compared in one way only, which takes the same time whatever it holds.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Hash([u8; 32]);

impl Hash {
    fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    fn is(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl TryFrom<String> for Hash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = |i: usize| u8::from_str_radix(text.get(i * 2..i * 2 + 2)?, 16).ok();
        let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            let digit = digits(i).filter(|_| is_hex);
            *byte = digit.ok_or("sha256: expected 64 hexadecimal digits")?;
        }
        Ok(Self(bytes))
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hex(&hash.0)
    }
}

impl Record {
    fn info(&self) -> KeyInfo {
        KeyInfo {
            name: self.name.clone(),
            role: self.role,
            created: self.created.clone(),
            revoked: self.revoked.clone(),
        }
    }
}

/// Makes a key and keeps its hash. Returns the key, which nobody can find out again.
///
/// # Errors
/// If there is one of that name, or the file cannot be written.
pub fn add(path: &Path, name: &str, role: Role) -> anyhow::Result<String> {
    let n_chars = name.chars().count();
    ensure!(
        (1..=NAME_CHARS_MAX).contains(&n_chars) && !name.chars().any(char::is_control),
        "a key's name has 1 to {NAME_CHARS_MAX} characters that can be seen"
    );
    let mut random = [0; KEY_BYTES];
    let n_random = getrandom(&mut random, GetRandomFlags::empty())?;
    ensure!(
        n_random == KEY_BYTES,
        "the system has too little randomness"
    );
    let key = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random));
    change(path, |records| {
        ensure!(
            records.iter().all(|record| record.name != name),
            "there is a key {name} already: take another name"
        );
        records.push(Record {
            name: name.to_owned(),
            role,
            sha256: Hash::of(&key),
            created: format_time(now_ms()),
            revoked: None,
        });
        Ok(())
    })?;
    Ok(key)
}

/// Revokes a key; one that was revoked before stays as it is. Tells whether there is one of that name.
///
/// # Errors
/// If the file cannot be written.
pub fn revoke(path: &Path, name: &str) -> anyhow::Result<bool> {
    ensure!(
        path.exists(),
        "there is no file of keys at {}",
        path.display()
    );
    let mut is_known = false;
    change(path, |records| {
        for record in records.iter_mut().filter(|record| record.name == name) {
            is_known = true;
            (record.revoked).get_or_insert_with(|| format_time(now_ms()));
        }
        Ok(())
    })?;
    Ok(is_known)
}

/// The keys, the oldest first.
///
/// # Errors
/// If the file cannot be read.
pub fn list(path: &Path) -> anyhow::Result<Vec<KeyInfo>> {
    let file = File::open(path);
    let file = file.with_context(|| format!("cannot read the keys in {}", path.display()))?;
    Ok(read(path, &file)?.iter().map(Record::info).collect())
}

/// Changes the records while nobody else does.
fn change(
    path: &Path,
    change: impl FnOnce(&mut Vec<Record>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let shown = path.display();
    let failed = || format!("cannot write the keys to {shown}");
    let file = lock(path).with_context(failed)?;
    let mut records = read(path, &file)?;
    change(&mut records)?;
    let mut lines = Vec::new();
    for record in &records {
        serde_json::to_writer(&mut lines, record)?;
        lines.push(b'\n');
    }
    ensure!(
        lines.len() as u64 <= FILE_BYTES_MAX,
        "there are too many keys in {shown}: take out those that were revoked"
    );
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    // One that a killed program has left may have other rights.
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error).with_context(failed);
    }
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&lines)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().with_context(failed)
}

/// Opens the file, or makes it, and keeps other writers out until it is closed.
fn lock(path: &Path) -> io::Result<File> {
    loop {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let file = options.open(path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        // Whoever had it before may have put another file in its place.
        let there = fs::metadata(path);
        if there.is_ok_and(|there| Some(there.ino()) == file.metadata().ok().map(|own| own.ino())) {
            return Ok(file);
        }
    }
}

fn read(path: &Path, file: &File) -> anyhow::Result<Vec<Record>> {
    let shown = path.display();
    let mut text = String::new();
    let n_read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let n_read = n_read.with_context(|| format!("cannot read the keys in {shown}"))?;
    ensure!(
        n_read as u64 <= FILE_BYTES_MAX,
        "{shown} is too large for a file of keys"
    );
    let mut records: Vec<Record> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let n = i + 1;
        // Not the words of the parser, which may repeat what stands there.
        let Ok(record) = serde_json::from_str::<Record>(line) else {
            bail!("{shown}:{n}: this is not a key: `sg-query keys add` writes them");
        };
        records.push(record);
    }
    Ok(records)
}

/// The keys that a server knows, which follow the file.
pub struct Keys {
    path: PathBuf,
    loaded: RwLock<Loaded>,
}

struct Loaded {
    stamp: Option<Stamp>,
    /// None while the file cannot be read: then nobody may ask.
    records: Option<Arc<Vec<Record>>>,
}

/// What changes with the file.
type Stamp = (u64, u64, i64, i64, u64);

/// Whose key it is, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub name: Arc<str>,
    pub role: Role,
}

impl Keys {
    /// Reads the file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        list(path)?;
        let keys = Self {
            path: path.to_owned(),
            loaded: RwLock::new(Loaded {
                stamp: None,
                records: None,
            }),
        };
        keys.records();
        Ok(keys)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose key that is; none if it is nobody's, or was revoked.
    ///
    /// # Errors
    /// If the file cannot be read any more.
    pub fn holder(&self, key: &str) -> anyhow::Result<Option<Holder>> {
        let records = self.records().with_context(|| {
            let shown = self.path.display();
            format!("cannot read the keys in {shown}")
        })?;
        let hash = Hash::of(key);
        // All are compared, so that time does not tell where in the file it is.
        let mut place = u32::MAX;
        for (i, record) in records.iter().enumerate() {
            place.conditional_assign(&(i as u32), record.sha256.is(&hash));
        }
        let record = records.get(place as usize);
        let record = record.filter(|record| record.revoked.is_none());
        Ok(record.map(|record| Holder {
            name: record.name.as_str().into(),
            role: record.role,
        }))
    }

    /// What the file says now.
    fn records(&self) -> Option<Arc<Vec<Record>>> {
        let stamp = stamp(&self.path);
        {
            let loaded = self
                .loaded
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            if stamp.is_some() && loaded.stamp == stamp {
                return loaded.records.clone();
            }
        }
        let file = File::open(&self.path).ok();
        let records = file
            .and_then(|file| read(&self.path, &file).ok())
            .map(Arc::new);
        let mut loaded = self
            .loaded
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *loaded = Loaded {
            stamp,
            records: records.clone(),
        };
        records
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((
        metadata.dev(),
        metadata.ino(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.len(),
    ))
}
