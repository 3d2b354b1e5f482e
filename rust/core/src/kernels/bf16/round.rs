//! float32 to bfloat16 and back.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m512, __m512i, _mm512_cvtne2ps_pbh, _mm512_loadu_ps, _mm512_mask_storeu_epi16, _mm512_maskz_loadu_ps, _mm512_storeu_si512,
};

use rayon::prelude::*;

use crate::kernels::simd::dispatch;
use crate::threads::each;

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

/// Rounds `from` to bfloat16; both have the same length. Numbers below the normal ones may become zero.
pub(in crate::kernels) fn round_piece(from: &[f32], to: &mut [u16]) {
    rounder()(from, to);
}

/// The function behind [`round_piece`], for many calls.
pub(super) fn rounder() -> fn(&[f32], &mut [u16]) {
    #[cfg(target_arch = "x86_64")]
    if super::tile::Unit::vectors() {
        return |from, to| {
            assert_eq!(from.len(), to.len(), "bf16: lengths");
            // SAFETY: the CPU has the features; the lengths have just been checked.
            unsafe { round_avx512(from, to) }
        };
    }
    #[cfg(target_arch = "aarch64")]
    if super::tile::Unit::Neon.available() {
        return |from, to| {
            assert_eq!(from.len(), to.len(), "bf16: lengths");
            // SAFETY: the CPU has the instructions.
            let whole = unsafe { super::neon::round(from, to) };
            round_plain(&from[whole..], &mut to[whole..]);
        };
    }
    round_plain
}

dispatch!(
    fn round_plain(from: &[f32], to: &mut [u16]);
    fma => {
        to.iter_mut().zip(from).for_each(|(to, v)| *to = round(*v));
    }
);

/// # Safety
/// The CPU must have these features, and both slices the same length.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn round_avx512(from: &[f32], to: &mut [u16]) {
    const STEP: usize = 32;
    let bits = |a: __m512, b: __m512| -> __m512i {
        // SAFETY: both are 64 bytes of any value.
        unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(b, a)) }
    };
    let (whole, rest) = (from.len() / STEP * STEP, from.len() % STEP);
    let (source, target) = (from.as_ptr(), to.as_mut_ptr());
    for at in (0..whole).step_by(STEP) {
        // SAFETY: `at` counts whole steps.
        unsafe {
            let (a, b) = (_mm512_loadu_ps(source.add(at)), _mm512_loadu_ps(source.add(at + STEP / 2)));
            _mm512_storeu_si512(target.add(at).cast(), bits(a, b));
        }
    }
    if rest > 0 {
        let mask = (1u32 << rest) - 1;
        // SAFETY: masked lanes are neither read nor written; the second pointer may lie behind the slice.
        unsafe {
            let a = _mm512_maskz_loadu_ps(mask as u16, source.add(whole));
            let b = _mm512_maskz_loadu_ps((mask >> (STEP / 2)) as u16, source.add(whole).wrapping_add(STEP / 2));
            _mm512_mask_storeu_epi16(target.add(whole).cast(), mask, bits(a, b));
        }
    }
}

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
    each(to.par_chunks_mut(PIECE).zip(from.par_chunks(PIECE)), |(to, from)| round_piece(from, to));
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
                let (truth, value) = (half::bf16::from_f32(*v), value(bits));
                let fits = truth.to_bits() == bits || v.is_nan() && value.is_nan() || v.is_subnormal() && value == 0.0;
                assert!(fits, "{v:e}: {bits:x} {truth}");
            }
            for len in 0..100 {
                let mut found = vec![7; 101];
                round_piece(&all[..len], &mut found[..len]);
                assert!(found[len..].iter().all(|v| *v == 7), "wrote behind {len}");
                let truth = |v: &f32| half::bf16::from_f32(*v).to_bits();
                let same = |(v, bits): (&f32, &u16)| truth(v) == *bits || !v.is_normal();
                assert!(all.iter().zip(&found[..len]).all(same), "{len}");
            }
        });
    }
}
