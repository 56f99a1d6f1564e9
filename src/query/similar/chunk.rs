//! A piece of the derived file: the embeddings of one stretch of time, ready to be searched.
//!
//! | bytes | of a chunk |
//! |---|---|
//! | 64 | head: magic with version, stretch, number and sum of the embeddings that it was made of, its length, that of the directory and its CRC, that of the codes, CRC of the head |
//! | | directory, for each model and dimension: model, dimension, entries, CRCs of codes and attributes, where those begin |
//! | 32 or 64 an entry | codes, of all models |
//! | | then for each model and dimension: |
//! | 16 an entry | time, hashes of type and address |
//! | dimension + 4 an entry | the vector in bytes with a sign, and its CRC |
//! | 4 an entry | where its key ends |
//! | | keys |
//!
//! Numbers are little-endian. A chunk is of use exactly if the store says that the embeddings of the
//! stretch have that sum, so it need not be known what has become of the store since.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use crc32fast::hash as crc;
use siphasher::sip::SipHasher13;

use super::codes::{Coder, code_bytes};
use crate::embed::{DIM_MAX, Embedding, MODEL_BYTES_MAX, Vector};
use crate::store::VectorSum;

/// A change of the format, of codes or of hashes raises the digit.
const MAGIC: &[u8; 8] = b"SGSIMIL1";
pub(super) const HEAD_BYTES: usize = 64;
/// Kinds of vectors in one stretch: more than anybody uses. Whoever writes events can name models, too.
const GROUPS_MAX: usize = 64;
const DIRECTORY_BYTES_MAX: usize = GROUPS_MAX * (MODEL_BYTES_MAX + 32);
const ATTRIBUTES_BYTES: usize = 16;
const CRC_BYTES: usize = 4;
/// No event's key is longer.
const KEY_BYTES_MAX: usize = 512;

/// What a chunk says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) stretch: i64,
    pub(super) sum: VectorSum,
    pub(super) n_bytes: u64,
    directory_bytes: u32,
    directory_crc: u32,
    codes_bytes: u32,
}

/// Something that was derived is not what it was: it has to be derived anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged;

impl From<io::Error> for Damaged {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// Where the bytes of a chunk are.
#[derive(Clone)]
pub(super) enum Place {
    File {
        file: Arc<File>,
        offset: u64,
    },
    /// They could not be written.
    Memory(Arc<Vec<u8>>),
}

impl Place {
    fn read(&self, start: u64, n_bytes: usize) -> Result<Vec<u8>, Damaged> {
        let mut bytes = vec![0; n_bytes];
        match self {
            Self::File { file, offset } => file.read_exact_at(&mut bytes, offset + start)?,
            Self::Memory(all) => {
                let start = start as usize;
                let part = all.get(start..start + n_bytes).ok_or(Damaged)?;
                bytes.copy_from_slice(part);
            }
        }
        Ok(bytes)
    }
}

/// Vectors of one model and dimension in a stretch of time, in the order of their keys.
pub(super) struct Group {
    pub(super) model: String,
    pub(super) dim: usize,
    pub(super) n_entries: usize,
    searched: Arc<Vec<u8>>,
    codes: Range<usize>,
    attributes_crc: u32,
    start: u64,
    place: Place,
}

/// What entries can be chosen by without a look at their events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    pub(super) timestamp_ms: i64,
    pub(super) kind: u32,
    /// Of no address 0.
    pub(super) ip: u32,
}

/// Hashes that are in [`Attributes`]; two texts may have the same one.
#[must_use]
pub(super) fn attribute(text: &str) -> u32 {
    SipHasher13::new().hash(text.as_bytes()) as u32
}

impl Head {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEAD_BYTES] = bytes.get(..HEAD_BYTES)?.try_into().ok()?;
        let u64_at = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        let u32_at = |at: usize| bytes[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
        let head = Self {
            stretch: u64_at(8) as i64,
            sum: VectorSum {
                n_entries: u64_at(16),
                sum: u128::from(u64_at(24)) | u128::from(u64_at(32)) << 64,
            },
            n_bytes: u64_at(40),
            directory_bytes: u32_at(48),
            directory_crc: u32_at(52),
            codes_bytes: u32_at(56),
        };
        let is_whole = &bytes[..8] == MAGIC
            && u32_at(60) == crc(&bytes[..60])
            && head.directory_bytes as usize <= DIRECTORY_BYTES_MAX
            && head.n_bytes >= head.searched_end();
        is_whole.then_some(head)
    }

    /// Where what is read of every chunk ends.
    fn searched_end(&self) -> u64 {
        HEAD_BYTES as u64 + u64::from(self.directory_bytes) + u64::from(self.codes_bytes)
    }

    fn write(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.stretch.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sum.n_entries.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.sum.sum.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.n_bytes.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.directory_bytes.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.directory_crc.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.codes_bytes.to_le_bytes());
        let sum = crc(&bytes[..60]);
        bytes[60..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

/// The groups of a chunk, with their codes.
pub(super) fn read_groups(head: &Head, place: &Place) -> Result<Vec<Group>, Damaged> {
    let directory_bytes = head.directory_bytes as usize;
    // In one read, and not copied: there are thousands of chunks.
    let searched = place.read(
        HEAD_BYTES as u64,
        directory_bytes + head.codes_bytes as usize,
    )?;
    let searched = Arc::new(searched);
    let mut directory = &searched[..directory_bytes];
    if crc(directory) != head.directory_crc {
        return Err(Damaged);
    }
    let mut groups = Vec::new();
    let mut codes_start = directory_bytes;
    while !directory.is_empty() {
        let group = read_group(&mut directory, (&searched, codes_start), head, place)?;
        codes_start = group.codes.end;
        groups.push(group);
    }
    Ok(groups)
}

fn read_group(
    directory: &mut &[u8],
    (searched, codes_start): (&Arc<Vec<u8>>, usize),
    head: &Head,
    place: &Place,
) -> Result<Group, Damaged> {
    let model_bytes = usize::from(take(directory, 1)?[0]);
    let model = take(directory, model_bytes)?.to_vec();
    let model = String::from_utf8(model).map_err(|_| Damaged)?;
    let mut number = || {
        let bytes = take(directory, 4)?.try_into().map_err(|_| Damaged)?;
        Ok::<_, Damaged>(u32::from_le_bytes(bytes))
    };
    let (dim, n_entries) = (number()? as usize, number()? as usize);
    let (codes_crc, attributes_crc) = (number()?, number()?);
    let start = u64::from(number()?) | u64::from(number()?) << 32;
    let least_bytes = (n_entries as u64).checked_mul(dim as u64);
    let is_within = least_bytes
        .and_then(|n_bytes| n_bytes.checked_add(start))
        .is_some_and(|end| end <= head.n_bytes);
    if !is_within || !(1..=DIM_MAX).contains(&dim) {
        return Err(Damaged);
    }
    let group = Group {
        model,
        dim,
        n_entries,
        searched: Arc::clone(searched),
        codes: codes_start..codes_start + n_entries * code_bytes(dim),
        attributes_crc,
        start,
        place: place.clone(),
    };
    match searched.get(group.codes.clone()) {
        Some(codes) if crc(codes) == codes_crc => Ok(group),
        _ => Err(Damaged),
    }
}

/// The first bytes, which are taken off.
fn take<'a>(bytes: &mut &'a [u8], n_bytes: usize) -> Result<&'a [u8], Damaged> {
    let (taken, rest) = bytes.split_at_checked(n_bytes).ok_or(Damaged)?;
    *bytes = rest;
    Ok(taken)
}

impl Group {
    pub(super) fn codes(&self) -> &[u8] {
        &self.searched[self.codes.clone()]
    }

    /// What all entries can be chosen by.
    pub(super) fn attributes(&self) -> Result<Vec<Attributes>, Damaged> {
        let bytes = self
            .place
            .read(self.start, self.n_entries * ATTRIBUTES_BYTES)?;
        if crc(&bytes) != self.attributes_crc {
            return Err(Damaged);
        }
        let attributes = bytes.chunks_exact(ATTRIBUTES_BYTES).map(|bytes| {
            let u32_at = |at: usize| bytes[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
            Attributes {
                timestamp_ms: bytes[..8].try_into().map_or(0, i64::from_le_bytes),
                kind: u32_at(8),
                ip: u32_at(12),
            }
        });
        Ok(attributes.collect())
    }

    /// Calls `each` with the vectors of some entries, which are in order.
    pub(super) fn vectors(
        &self,
        entries: &[u32],
        mut each: impl FnMut(u32, &[i8]),
    ) -> Result<(), Damaged> {
        /// One in so many entries is worth reading all of them.
        const SHARE: usize = 8;
        let n_bytes = self.dim + CRC_BYTES;
        let start = self.vectors_start();
        let all = if entries.len() * SHARE >= self.n_entries {
            Some(self.place.read(start, self.n_entries * n_bytes)?)
        } else {
            None
        };
        let mut vector = Vec::with_capacity(self.dim);
        for &entry in entries {
            let at = entry as usize * n_bytes;
            let one;
            let bytes = match &all {
                Some(all) => &all[at..at + n_bytes],
                None => {
                    one = self.place.read(start + at as u64, n_bytes)?;
                    &one[..]
                }
            };
            let (numbers, sum) = bytes.split_at(self.dim);
            if sum != crc(numbers).to_le_bytes() {
                return Err(Damaged);
            }
            vector.clear();
            vector.extend(numbers.iter().map(|byte| *byte as i8));
            each(entry, &vector);
        }
        Ok(())
    }

    /// The key of an entry's event.
    pub(super) fn key(&self, entry: u32) -> Result<Vec<u8>, Damaged> {
        let ends = self.vectors_start() + (self.n_entries * (self.dim + CRC_BYTES)) as u64;
        let end_at = |entry: u32| {
            let bytes = self.place.read(ends + u64::from(entry) * 4, 4)?;
            Ok::<_, Damaged>(bytes.try_into().map_or(0, u32::from_le_bytes))
        };
        let start = entry.checked_sub(1).map_or(Ok(0), end_at)?;
        let n_bytes = end_at(entry)?.checked_sub(start).ok_or(Damaged)? as usize;
        if n_bytes > KEY_BYTES_MAX {
            return Err(Damaged);
        }
        let keys = ends + self.n_entries as u64 * 4;
        self.place.read(keys + u64::from(start), n_bytes)
    }

    fn vectors_start(&self) -> u64 {
        self.start + (self.n_entries * ATTRIBUTES_BYTES) as u64
    }
}

/// A chunk that is being made, of entries that come in the order of their keys.
pub(super) struct Draft {
    stretch: i64,
    sum: VectorSum,
    groups: Vec<GroupDraft>,
}

struct GroupDraft {
    model: String,
    dim: usize,
    coder: Coder,
    codes: Vec<u8>,
    attributes: Vec<u8>,
    vectors: Vec<u8>,
    key_ends: Vec<u8>,
    keys: Vec<u8>,
}

impl Draft {
    pub(super) fn new(stretch: i64) -> Self {
        Self {
            stretch,
            sum: VectorSum::default(),
            groups: Vec::new(),
        }
    }

    /// Takes in what the store holds; what is no embedding of ours counts, and is not found.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8], attributes: Option<Attributes>) {
        self.sum.add(key, value);
        let (Some(embedding), Some(attributes)) = (Embedding::read(value), attributes) else {
            return;
        };
        let Some(group) = self.group(&embedding) else {
            return;
        };
        let vector = &embedding.vector;
        group.coder.push_code(vector, &mut group.codes);
        group
            .attributes
            .extend_from_slice(&attributes.timestamp_ms.to_le_bytes());
        group
            .attributes
            .extend_from_slice(&attributes.kind.to_le_bytes());
        group
            .attributes
            .extend_from_slice(&attributes.ip.to_le_bytes());
        let start = group.vectors.len();
        group
            .vectors
            .extend(in_bytes(vector).iter().map(|number| *number as u8));
        let sum = crc(&group.vectors[start..]);
        group.vectors.extend_from_slice(&sum.to_le_bytes());
        group.keys.extend_from_slice(key);
        group
            .key_ends
            .extend_from_slice(&(group.keys.len() as u32).to_le_bytes());
    }

    fn group(&mut self, embedding: &Embedding) -> Option<&mut GroupDraft> {
        let dim = embedding.vector.dim();
        let mut groups = self.groups.iter();
        let known = groups.position(|group| group.dim == dim && group.model == embedding.model);
        let i = match known {
            Some(i) => i,
            // Ours has a place, whatever others have named.
            None if self.groups.len() + 1 < GROUPS_MAX
                || embedding.model == crate::embed::LOCAL_MODEL
                    && self.groups.len() < GROUPS_MAX =>
            {
                self.groups.push(GroupDraft {
                    model: embedding.model.clone(),
                    dim,
                    coder: Coder::new(dim),
                    codes: Vec::new(),
                    attributes: Vec::new(),
                    vectors: Vec::new(),
                    key_ends: Vec::new(),
                    keys: Vec::new(),
                });
                self.groups.len() - 1
            }
            None => return None,
        };
        Some(&mut self.groups[i])
    }

    /// The chunk, and what it says of itself.
    pub(super) fn finish(self) -> (Head, Vec<u8>) {
        let n_entry_bytes = |group: &GroupDraft| {
            let sections = [
                &group.attributes,
                &group.vectors,
                &group.key_ends,
                &group.keys,
            ];
            sections.iter().map(|section| section.len()).sum::<usize>()
        };
        let of_directory = |group: &GroupDraft| 1 + group.model.len() + 6 * 4;
        let directory_bytes: usize = self.groups.iter().map(of_directory).sum();
        let codes_bytes: usize = self.groups.iter().map(|group| group.codes.len()).sum();
        let mut start = HEAD_BYTES + directory_bytes + codes_bytes;
        let mut directory = Vec::with_capacity(directory_bytes);
        for group in &self.groups {
            directory.push(group.model.len() as u8);
            directory.extend_from_slice(group.model.as_bytes());
            let n_entries = group.codes.len() / code_bytes(group.dim);
            for number in [
                group.dim as u32,
                n_entries as u32,
                crc(&group.codes),
                crc(&group.attributes),
            ] {
                directory.extend_from_slice(&number.to_le_bytes());
            }
            directory.extend_from_slice(&(start as u64).to_le_bytes());
            start += n_entry_bytes(group);
        }
        let head = Head {
            stretch: self.stretch,
            sum: self.sum,
            n_bytes: start as u64,
            directory_bytes: directory.len() as u32,
            directory_crc: crc(&directory),
            codes_bytes: codes_bytes as u32,
        };
        let mut bytes = Vec::with_capacity(start);
        bytes.extend_from_slice(&head.write());
        bytes.extend_from_slice(&directory);
        for group in &self.groups {
            bytes.extend_from_slice(&group.codes);
        }
        for group in self.groups {
            for section in [group.attributes, group.vectors, group.key_ends, group.keys] {
                bytes.extend_from_slice(&section);
            }
        }
        (head, bytes)
    }
}

/// A vector in bytes: as it is, or with its greatest number as 127.
#[must_use]
pub(super) fn in_bytes(vector: &Vector) -> Vec<i8> {
    match vector {
        Vector::I8(numbers) => numbers.clone(),
        Vector::F32(numbers) => {
            let greatest = numbers
                .iter()
                .fold(0.0_f32, |max, number| max.max(number.abs()));
            let scaled = numbers
                .iter()
                .map(|number| (number / greatest * 127.0).round() as i8);
            scaled.collect()
        }
    }
}
