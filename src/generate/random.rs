//! The generator's own random numbers (splitmix64). Own, because the bytes for a seed must never
//! change with a library's version; and only integers, `+ - * /` and `sqrt` on floats, because
//! those give the same bits on every machine where `ln` and `powf` need not.

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// A stream of random numbers that starts from a key.
pub(super) struct Random {
    state: u64,
}

impl Random {
    pub(super) fn new(key: u64) -> Self {
        Self { state: key }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        finalize(self.state)
    }

    /// A number in `0..limit`; the bias of the multiplication is below `limit / 2^32`.
    pub(super) fn below(&mut self, limit: u32) -> u32 {
        reduce(self.next(), limit)
    }

    /// A number in `low..=high`.
    pub(super) fn between(&mut self, low: u32, high: u32) -> u32 {
        low + self.below(high - low + 1)
    }

    /// A number in `0.0..1.0`.
    pub(super) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True in `per_mille` of 1000 cases.
    pub(super) fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1000) < per_mille
    }

    /// One item of a list that is not empty.
    pub(super) fn choose<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.next() as usize % items.len()]
    }
}

/// A random number that depends on nothing but a key and a counter, so that any user, day or event
/// can be derived without deriving those before it.
pub(super) fn mix(key: u64, counter: u64) -> u64 {
    finalize(key.wrapping_add(counter.wrapping_add(1).wrapping_mul(GAMMA)))
}

/// Brings a random number into `0..limit` by its high bits.
pub(super) fn reduce(number: u64, limit: u32) -> u32 {
    (((number >> 32) * u64::from(limit)) >> 32) as u32
}

fn finalize(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published first outputs of splitmix64 for seed 1234567.
    #[test]
    fn numbers_are_those_of_splitmix64() {
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
        assert_eq!(mix(1_234_567, 1), 3_203_168_211_198_807_973);
    }
}
