//! Codes of vectors: 256 bits, of longer vectors 512, of which the more differ the less alike the vectors
//! are (Charikar, 2002). They tell in a millisecond who of many is worth a closer look.

use rayon::prelude::*;
use siphasher::sip::SipHasher13;

use crate::embed::Vector;

/// Numbers of a vector that has codes of 256 bits at the most.
const SHORT_DIM_MAX: usize = 256;
/// Fixed, since codes are on disk.
const SIGNS_KEY: (u64, u64) = (0x636f_6465, 1);

/// Bytes of the code of a vector with so many numbers.
#[must_use]
pub(super) fn code_bytes(dim: usize) -> usize {
    if dim <= SHORT_DIM_MAX { 32 } else { 64 }
}

/// Makes codes of vectors of one dimension. Each bit says on which side of a plane a vector lies. The
/// planes come of a Hadamard matrix behind random signs (as in Ailon and Chazelle's transform), since
/// most numbers of a vector of ours are 0 and would say nothing by themselves.
pub(super) struct Coder {
    dim: usize,
    signs: Vec<f32>,
    numbers: Vec<f32>,
}

impl Coder {
    #[must_use]
    pub(super) fn new(dim: usize) -> Self {
        let n_padded = dim.next_power_of_two().max(SHORT_DIM_MAX);
        let sign = |i: u64| {
            let hash = SipHasher13::new_with_keys(SIGNS_KEY.0, SIGNS_KEY.1).hash(&i.to_le_bytes());
            if hash & 1 == 0 { 1.0 } else { -1.0 }
        };
        Self {
            dim,
            signs: (0..dim as u64).map(sign).collect(),
            numbers: vec![0.0; n_padded],
        }
    }

    /// Appends the code of a vector.
    pub(super) fn push_code(&mut self, vector: &Vector, codes: &mut Vec<u8>) {
        let numbers = vector.numbers().zip(&self.signs);
        for (place, (number, sign)) in self.numbers.iter_mut().zip(numbers) {
            *place = number * sign;
        }
        self.numbers[self.dim..].fill(0.0);
        transform(&mut self.numbers);
        let bits = &self.numbers[..code_bytes(self.dim) * 8];
        for byte in bits.chunks_exact(8) {
            let set = byte.iter().enumerate().filter(|(_, number)| **number > 0.0);
            codes.push(set.map(|(i, _)| 1 << i).sum());
        }
    }
}

/// Multiplies by a Hadamard matrix, in place.
fn transform(numbers: &mut [f32]) {
    let mut half = 1;
    while half < numbers.len() {
        for pair in numbers.chunks_exact_mut(half * 2) {
            let (first, second) = pair.split_at_mut(half);
            for (a, b) in first.iter_mut().zip(second) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

/// In how many bits each code differs from another one.
#[must_use]
pub(super) fn distances(code: &[u8], codes: &[u8]) -> Vec<u16> {
    if code.len() == 32 {
        of_words::<4>(code, codes)
    } else {
        of_words::<8>(code, codes)
    }
}

fn of_words<const N: usize>(code: &[u8], codes: &[u8]) -> Vec<u16> {
    let words = |bytes: &[u8]| -> [u64; N] {
        let word = |i: usize| {
            bytes[i * 8..i * 8 + 8]
                .try_into()
                .map_or(0, u64::from_le_bytes)
        };
        std::array::from_fn(word)
    };
    let code = words(code);
    let differing = |other: &[u8]| {
        let other = words(other);
        let bits = code.iter().zip(other).map(|(a, b)| (a ^ b).count_ones());
        bits.sum::<u32>() as u16
    };
    codes.chunks_exact(N * 8).map(differing).collect()
}

/// Stands for an entry that is not looked for.
pub(super) const NEVER: u16 = u16::MAX;

/// The entries of some groups that are nearest, by their distances: `n_wanted` of them, the later ones of
/// those that are equally far. How many there are to choose from comes along.
pub(super) fn nearest(distances: &[Vec<u16>], n_wanted: usize) -> (Vec<Vec<u32>>, usize) {
    let mut counts = vec![0_usize; 1 + 64 * 8];
    for distance in distances.iter().flatten().filter(|it| **it != NEVER) {
        counts[usize::from(*distance)] += 1;
    }
    let n_entries = counts.iter().sum();
    let mut n_nearer = 0;
    let mut furthest = 0;
    while furthest + 1 < counts.len() && n_nearer + counts[furthest] < n_wanted {
        n_nearer += counts[furthest];
        furthest += 1;
    }
    let mut n_left = n_wanted - n_nearer;
    let mut picked: Vec<Vec<u32>> = (distances.par_iter())
        .map(|distances| {
            let entries = distances.iter().enumerate();
            let near = entries.filter(|(_, distance)| usize::from(**distance) <= furthest);
            near.map(|(i, _)| i as u32).collect()
        })
        .collect();
    for (picked, distances) in picked.iter_mut().zip(distances).rev() {
        let mut kept = Vec::with_capacity(picked.len());
        for &i in picked.iter().rev() {
            let is_at_edge = usize::from(distances[i as usize]) == furthest;
            if is_at_edge && n_left == 0 {
                continue;
            }
            n_left -= usize::from(is_at_edge);
            kept.push(i);
        }
        kept.reverse();
        *picked = kept;
    }
    (picked, n_entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_tell_how_alike_vectors_are() {
        for dim in [3, 256, 300, 1536] {
            let mut coder = Coder::new(dim);
            let vector = |seed: u64| {
                let number = |i: usize| {
                    let hash = SipHasher13::new_with_keys(seed, 9).hash(&i.to_le_bytes());
                    (hash % 2_001) as f32 - 1_000.0
                };
                (0..dim).map(number).collect::<Vec<_>>()
            };
            let mut all = Vec::new();
            let (one, other) = (vector(1), vector(2));
            let opposite: Vec<f32> = one.iter().map(|number| -number).collect();
            let close = one.iter().zip(&other).map(|(a, b)| a + b / 10.0);
            for numbers in [one.clone(), close.collect(), other, opposite] {
                coder.push_code(&Vector::F32(numbers), &mut all);
            }
            let n_bytes = code_bytes(dim);
            assert_eq!(all.len(), n_bytes * 4);
            let found = distances(&all[..n_bytes], &all);
            let n_bits = n_bytes as u16 * 8;
            assert_eq!((found[0], found[3] >= n_bits * 9 / 10), (0, true), "{dim}");
            assert!(found[1] < n_bits / 8, "{dim}: {found:?}");
            if dim > 3 {
                assert!(
                    found[2].abs_diff(n_bits / 2) < n_bits / 6,
                    "{dim}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn the_nearest_are_picked_and_of_equals_the_later_ones() {
        let distances = [vec![5, 1, NEVER, 5], vec![], vec![5, 0, 9]];
        let check = |n_wanted, expected: [&[u32]; 3]| {
            let (picked, n_entries) = nearest(&distances, n_wanted);
            assert_eq!(n_entries, 6);
            assert_eq!(picked, expected, "{n_wanted}");
        };
        check(1, [&[], &[], &[1]]);
        check(2, [&[1], &[], &[1]]);
        check(3, [&[1], &[], &[0, 1]]);
        check(4, [&[1, 3], &[], &[0, 1]]);
        check(5, [&[0, 1, 3], &[], &[0, 1]]);
        check(6, [&[0, 1, 3], &[], &[0, 1, 2]]);
        check(99, [&[0, 1, 3], &[], &[0, 1, 2]]);
    }
}
