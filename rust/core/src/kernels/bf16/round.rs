//! float32 to bfloat16 and back.

use rayon::prelude::*;

use crate::kernels::simd::dispatch;

/// Numbers that a task converts.
const PIECE: usize = 1 << 15;

/// The bits of the bfloat16 nearest to `v`, ties to even; infinities stay, and a NaN stays one.
#[inline(always)]
pub(super) fn round(v: f32) -> u16 {
    let bits = v.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    (if v.is_nan() { bits >> 16 | 0x40 } else { nearest }) as u16
}

/// The value of a bfloat16.
#[inline(always)]
pub(super) fn value(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

dispatch!(
    /// Rounds `from` to bfloat16; both have the same length.
    pub(in crate::kernels) fn round_piece(from: &[f32], to: &mut [u16]);
    fma => {
        to.iter_mut().zip(from).for_each(|(to, v)| *to = round(*v));
    }
);

dispatch!(
    /// `to[j] = (even[j], odd[j])`, both of `from.len()` numbers; without `odd`, zeros.
    pub(super) fn round_pairs(even: &[f32], odd: Option<&[f32]>, to: &mut [[u16; 2]]);
    fma => {
        match odd {
            Some(odd) => to.iter_mut().zip(even.iter().zip(odd)).for_each(|(to, (a, b))| *to = [round(*a), round(*b)]),
            None => to.iter_mut().zip(even).for_each(|(to, a)| *to = [round(*a), 0]),
        }
    }
);

/// Rounds `from` to bfloat16 on all threads; both have the same length.
pub(super) fn round_all(from: &[f32], to: &mut [u16]) {
    assert_eq!(from.len(), to.len(), "bf16: lengths");
    if from.len() <= PIECE {
        return round_piece(from, to);
    }
    to.par_chunks_mut(PIECE).zip(from.par_chunks(PIECE)).for_each(|(to, from)| round_piece(from, to));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    #[test]
    fn the_nearest_is_taken_and_ties_go_to_even() {
        at_every_level(|| {
            let numbers = (0..1 << 16).map(|i: u32| f32::from_bits(i.wrapping_mul(0x9e37_79b1)));
            let ties = (0..1 << 9).map(|i: u32| f32::from_bits(0x3f80_0000 + (i << 15)));
            let extremes =
                [0.0, -0.0, f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-39, f32::from_bits(0x7f80_0001)];
            let all: Vec<f32> = numbers.chain(ties).chain(extremes).collect();
            let mut found = vec![0; all.len()];
            round_all(&all, &mut found);
            for (v, bits) in all.iter().zip(found) {
                let truth = half::bf16::from_f32(*v);
                assert!(truth.to_bits() == bits || v.is_nan() && value(bits).is_nan(), "{v:e}: {bits:x} {truth}");
            }
        });
    }
}
