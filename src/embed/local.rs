//! The local embedder: what detectors find has a number of its own in a vector; all other features add
//! their weights, with a sign, to two of the numbers that are left (feature hashing: Weinberger et al.,
//! 2009). With one alone, every fiftieth event would look as if it had a feature that somebody asks for.
//! All is integers, so the same event gives the same vector on every machine.

use siphasher::sip::SipHasher13;

use super::{Embedding, Subject, Vector, features, phrases};

/// The model's name. Another version gives other vectors, which are never compared with these: raise it
/// with every change of features, weights or hashes.
pub const LOCAL_MODEL: &str = "local-1";

/// Numbers of a vector. Unrelated events then have a likeness of 0, give or take 0.06; an event has some
/// 40 features, so most numbers are 0, which takes little room on disk.
pub const DIM: usize = 256;

/// Numbers that are for one feature each.
const N_PLACES: usize = 64;

/// Fixed keys, since vectors are stored: of the features' places, and of what was embedded.
const PLACE_KEY: (u64, u64) = (0x7374_7265_616d, 1);
const TEXT_KEY: (u64, u64) = (0x7374_7265_616d, 2);

/// Embeds an event.
#[must_use]
pub fn embed_event(subject: &Subject<'_>) -> Embedding {
    let mut hashing = Hashing::default();
    features::of_subject(subject, &mut |name, value, weight| {
        hashing.add(name, value, weight);
    });
    hashing.embedding()
}

/// Embeds a text that somebody asks with; none if it says nothing.
#[must_use]
pub fn embed_text(text: &str) -> Option<Embedding> {
    let mut hashing = Hashing::default();
    features::of_text(text, &mut |name, value, weight| {
        hashing.add(name, value, weight);
    });
    let embedding = hashing.embedding();
    embedding.vector.is_valid().then_some(embedding)
}

/// The hash of a text that was embedded.
#[must_use]
pub(super) fn text_hash(text: &[u8]) -> u64 {
    SipHasher13::new_with_keys(TEXT_KEY.0, TEXT_KEY.1).hash(text)
}

struct Hashing {
    sums: [i32; DIM],
    /// What was embedded: names, values, weights.
    text: Vec<u8>,
}

impl Default for Hashing {
    fn default() -> Self {
        Self {
            sums: [0; DIM],
            text: Vec::with_capacity(2 << 10),
        }
    }
}

impl Hashing {
    fn add(&mut self, name: &str, value: &str, weight: i32) {
        let start = self.text.len();
        self.text.extend_from_slice(name.as_bytes());
        self.text.push(0);
        self.text.extend_from_slice(value.as_bytes());
        let hasher = SipHasher13::new_with_keys(PLACE_KEY.0, PLACE_KEY.1);
        let hash = hasher.hash(&self.text[start..]);
        self.text.push(0);
        self.text.push(weight as u8);
        if let Some(place) = phrases::place_of(name, value) {
            self.sums[place] += weight;
            return;
        }
        // Two halves of its square, about.
        let weight = (weight * 23 + 16) / 32;
        for half in [hash as u32, (hash >> 32) as u32] {
            let place = N_PLACES + half as usize % (DIM - N_PLACES);
            self.sums[place] += if half >> 31 == 0 { weight } else { -weight };
        }
    }

    fn embedding(self) -> Embedding {
        // What is beyond the range has met by chance: it stays the greatest.
        let numbers = self.sums.map(|sum| sum.clamp(-127, 127) as i8);
        Embedding {
            model: LOCAL_MODEL.to_owned(),
            text_hash: text_hash(&self.text),
            vector: Vector::I8(numbers.to_vec()),
        }
    }
}
