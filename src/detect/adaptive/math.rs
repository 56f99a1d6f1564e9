//! The few functions whose last bits differ between C libraries, from one written in Rust, so that
//! states and scores are the same on every host.

/// e to the power of `x`.
#[inline]
pub(super) fn exp(x: f64) -> f64 {
    libm::exp(x)
}

/// The natural logarithm.
#[inline]
pub(super) fn ln(x: f64) -> f64 {
    libm::log(x)
}

/// The whole part of the logarithm to base 2 of a number from 1 on.
#[inline]
pub(super) fn floor_log2(x: f64) -> usize {
    (x.to_bits() >> 52) as usize - 1023
}

/// The sum, in four lanes: one after the other each addition would wait for the one before.
#[inline]
pub(super) fn sum(numbers: &[f32]) -> f64 {
    let (fours, rest) = numbers.as_chunks::<4>();
    let mut lanes = [0.0; 4];
    for four in fours {
        for (lane, number) in lanes.iter_mut().zip(four) {
            *lane += f64::from(*number);
        }
    }
    for (lane, number) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(*number);
    }
    (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
}

/// The same number, neither of them being NaN: for ties that have to be broken.
#[inline]
pub(super) fn is_equal(a: f64, b: f64) -> bool {
    a.total_cmp(&b).is_eq()
}
