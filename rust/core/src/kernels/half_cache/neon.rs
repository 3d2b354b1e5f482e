//! The same sums in the same order with NEON, which reads float16 by `fcvtl`.

use std::arch::aarch64::{
    float32x4_t, vaddq_f32, vdupq_n_f32, vfmaq_laneq_f32, vfmaq_n_f32, vld1q_f32, vld1q_u16, vmulq_n_f32, vst1q_f32,
};

use super::LANES;
use crate::kernels::neon::from_f16;

/// Registers of a block of positions.
const PARTS: usize = LANES / 4;
/// Channels that [`mix`] takes at a time.
pub(super) const CHANNELS: usize = 64;

/// Sixteen numbers.
#[inline]
#[target_feature(enable = "neon")]
fn read(from: &[u16; LANES]) -> [float32x4_t; PARTS] {
    // SAFETY: 32 bytes are read.
    let [low, high] = unsafe { [vld1q_u16(from.as_ptr()), vld1q_u16(from.as_ptr().add(8))] };
    let ([a, b], [c, d]) = (from_f16(low), from_f16(high));
    [a, b, c, d]
}

/// As [`super::score`], for a multiple of four channels.
#[target_feature(enable = "neon")]
pub(super) fn score(q: &[f32], keys: &[u16], scale: f32, scores: &mut [f32]) {
    let q = q.as_chunks::<4>().0;
    for (block, out) in keys.chunks_exact(4 * q.len() * LANES).zip(scores.as_chunks_mut::<LANES>().0) {
        let mut sums = [[vdupq_n_f32(0.0); PARTS]; 4];
        for (q, keys) in q.iter().zip(block.as_chunks::<LANES>().0.as_chunks::<4>().0) {
            // SAFETY: four numbers are read.
            let q = unsafe { vld1q_f32(q.as_ptr()) };
            macro_rules! channels {
                ($($i:literal)*) => {
                    $(let numbers = read(&keys[$i]);
                    for p in 0..PARTS {
                        sums[$i][p] = vfmaq_laneq_f32::<$i>(sums[$i][p], numbers[p], q);
                    })*
                };
            }
            channels!(0 1 2 3);
        }
        let [s, t, u, v] = sums;
        for p in 0..PARTS {
            let sum = vaddq_f32(vaddq_f32(s[p], t[p]), vaddq_f32(u[p], v[p]));
            // SAFETY: `out` has 16 numbers.
            unsafe { vst1q_f32(out.as_mut_ptr().add(4 * p), vmulq_n_f32(sum, scale)) };
        }
    }
}

/// As [`super::mix`], for 64 channels.
#[target_feature(enable = "neon")]
pub(super) fn mix(weights: &[f32], values: &[u16], out: &mut [f32; CHANNELS]) {
    const ALL: usize = CHANNELS / LANES;
    let mut sums = [[vdupq_n_f32(0.0); PARTS]; ALL];
    for (i, p) in (0..ALL).flat_map(|i| (0..PARTS).map(move |p| (i, p))) {
        // SAFETY: `out` has 64 numbers.
        sums[i][p] = unsafe { vld1q_f32(out.as_ptr().add(LANES * i + 4 * p)) };
    }
    for (weight, row) in weights.iter().zip(values.as_chunks::<LANES>().0.as_chunks::<ALL>().0) {
        for i in 0..ALL {
            let values = read(&row[i]);
            for p in 0..PARTS {
                sums[i][p] = vfmaq_n_f32(sums[i][p], values[p], *weight);
            }
        }
    }
    for (i, p) in (0..ALL).flat_map(|i| (0..PARTS).map(move |p| (i, p))) {
        // SAFETY: as above.
        unsafe { vst1q_f32(out.as_mut_ptr().add(LANES * i + 4 * p), sums[i][p]) };
    }
}
