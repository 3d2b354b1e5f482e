//! The numerators of a softmax in bfloat16, and their sum.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m512, __m512i, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_fmadd_ps,
    _mm512_fmsub_ps, _mm512_loadu_ps, _mm512_mask_loadu_ps, _mm512_mask_storeu_epi16, _mm512_max_ps, _mm512_reduce_add_ps,
    _mm512_reduce_max_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_si512,
    _mm512_sub_ps,
};

use super::round::round;
use crate::kernels::maths;
use crate::kernels::norm::maximum;
use crate::kernels::simd::dispatch;

const LANES: usize = 16;

/// `weights = e^(scale (scores − max))`, rounded to bfloat16, and their sum before rounding; `scale` is above 0.
pub(super) fn exponentials(scores: &[f32], scale: f32, weights: &mut [u16]) -> f32 {
    assert_eq!(scores.len(), weights.len(), "softmax: lengths");
    #[cfg(target_arch = "x86_64")]
    if super::tile::Unit::vectors() {
        // SAFETY: the CPU has the features; the lengths have just been checked.
        return unsafe { avx512(scores, scale, weights) };
    }
    plain(scores, scale, weights)
}

dispatch!(
    fn plain(scores: &[f32], scale: f32, weights: &mut [u16]) -> f32;
    fma => {
        let shift = scale * maximum(scores);
        let mut sums = [0f32; LANES];
        for (scores, to) in scores.chunks(LANES).zip(weights.chunks_mut(LANES)) {
            for ((score, to), sum) in scores.iter().zip(to).zip(&mut sums) {
                let e = maths::exp(fma, fma(*score, scale, -shift));
                *to = round(e);
                *sum += e;
            }
        }
        sums.iter().sum()
    }
);

/// The exponential is 2^n (1 + f …), |f| ≤ 1/2, with a near-minimax fit of degree 4: 3e-6, far below the rounding.
///
/// # Safety
/// The CPU must have these features, and both slices the same length.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn avx512(scores: &[f32], scale: f32, weights: &mut [u16]) -> f32 {
    const PAIR: usize = 2 * LANES;
    let lowest = _mm512_set1_ps(f32::NEG_INFINITY);
    let (whole, rest) = (scores.len() / PAIR * PAIR, scores.len() % PAIR);
    let mask = (1u32 << rest) - 1; // rest < 32
    let (low, high) = (mask as u16, (mask >> LANES) as u16);
    // SAFETY: `at` counts whole pairs; masked lanes are not read.
    let load =
        |at: usize| unsafe { [_mm512_loadu_ps(scores.as_ptr().add(at)), _mm512_loadu_ps(scores.as_ptr().add(at + LANES))] };
    // SAFETY: as above; the second pointer may lie behind the slice, and is then not read.
    let tail = || unsafe {
        let from = scores.as_ptr().add(whole);
        [_mm512_mask_loadu_ps(lowest, low, from), _mm512_mask_loadu_ps(lowest, high, from.wrapping_add(LANES))]
    };
    let mut largest = tail();
    for at in (0..whole).step_by(PAIR) {
        let [a, b] = load(at);
        // of a NaN and a number it gives the second
        largest = [_mm512_max_ps(a, largest[0]), _mm512_max_ps(b, largest[1])];
    }
    let max = _mm512_reduce_max_ps(_mm512_max_ps(largest[0], largest[1]));
    let factor = _mm512_set1_ps(scale * std::f32::consts::LOG2_E);
    let shift = _mm512_set1_ps(scale * std::f32::consts::LOG2_E * max);
    let power = |x: __m512| -> __m512 {
        let t = _mm512_max_ps(_mm512_set1_ps(-126.0), _mm512_fmsub_ps(x, factor, shift));
        let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(t);
        let f = _mm512_sub_ps(t, n);
        let p = _mm512_fmadd_ps(_mm512_set1_ps(9.582_853e-3), f, _mm512_set1_ps(5.590_642_6e-2));
        let p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.240_240_99));
        let p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.693_124_2));
        _mm512_scalef_ps(_mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0)), n)
    };
    let bits = |[a, b]: [__m512; 2]| -> __m512i {
        // SAFETY: both are 64 bytes of any value.
        unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(b, a)) }
    };
    let mut sums = [_mm512_setzero_ps(); 2];
    for at in (0..whole).step_by(PAIR) {
        let e = load(at).map(power);
        sums = [_mm512_add_ps(sums[0], e[0]), _mm512_add_ps(sums[1], e[1])];
        // SAFETY: `at` counts whole pairs.
        unsafe { _mm512_storeu_si512(weights.as_mut_ptr().add(at).cast(), bits(e)) };
    }
    // what is behind the end counts 2^-126, which changes no sum: the largest score alone counts 1
    let e = tail().map(power);
    // SAFETY: masked lanes are not written.
    unsafe { _mm512_mask_storeu_epi16(weights.as_mut_ptr().add(whole).cast(), mask, bits(e)) };
    sums = [_mm512_add_ps(sums[0], e[0]), _mm512_add_ps(sums[1], e[1])];
    _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]))
}

#[cfg(test)]
mod tests {
    use super::super::round::value;
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    #[test]
    fn numerators_and_their_sum_agree_with_float64() {
        at_every_level(|| {
            for n in [1, 2, 15, 16, 17, 31, 32, 33, 47, 64, 1006] {
                for (scale, range) in [(0.125f32, 3.0), (1.0, 40.0), (0.3, 900.0)] {
                    let scores: Vec<f32> = (0..n).map(|i| ((i * 7919 % 1013) as f32 / 506.0 - 1.0) * range).collect();
                    let max = scores.iter().fold(f32::MIN, |a, b| a.max(*b));
                    let truth = scores.iter().map(|x| (f64::from(scale) * (f64::from(*x) - f64::from(max))).exp());
                    let mut weights = vec![7; n];
                    let sum = exponentials(&scores, scale, &mut weights);
                    assert!((f64::from(sum) / truth.clone().sum::<f64>() - 1.0).abs() < 3e-5, "{n} {scale} {range}: {sum}");
                    for (found, truth) in weights.iter().zip(truth) {
                        let error = (f64::from(value(*found)) - truth).abs();
                        assert!(error <= 0.00396 * truth + 1e-37, "{n} {scale} {range}: {error:e} of {truth:e}");
                    }
                }
            }
        });
    }

    #[test]
    fn faults_are_seen_in_the_sum() {
        at_every_level(|| {
            for n in [1, 20, 40] {
                for fault in [f32::NAN, f32::INFINITY] {
                    for at in [0, n - 1] {
                        let mut scores = vec![0.5; n];
                        scores[at] = fault;
                        assert!(!exponentials(&scores, 0.5, &mut vec![0; n]).is_finite(), "{n} {fault} {at}");
                    }
                }
            }
        });
    }
}
