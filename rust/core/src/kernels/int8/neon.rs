//! The products of [`super::tile`] on AArch64, three times: with `usmmla`, with `sdot`, and with what every NEON has.
//!
//! A page lies as quads of 64 outputs, so that a register of weights is a quad of four outputs. Tiles take 16 outputs at a time: a
//! page is passed four times, and stays in the first-level cache.

use std::arch::aarch64::{
    float32x4_t, int8x16_t, int32x4_t, uint8x16_t, vaddq_f32, vaddq_s32, vcombine_s8, vcvtq_f32_s32, vdupq_n_s8, vdupq_n_s32,
    vdupq_n_u8, veorq_u8, vget_low_s8, vld1_s8, vld1q_dup_s32, vld1q_f32, vld1q_s8, vld1q_u8, vmlal_high_s8, vmlal_s8,
    vmull_high_s8, vmull_s8, vmulq_n_f32, vpadalq_s16, vpaddq_s32, vreinterpretq_s8_s32, vreinterpretq_s8_u8,
    vreinterpretq_s32_u8, vreinterpretq_u8_s32, vst1q_f32, vuzp1q_s32, vuzp2q_s32, vzip1q_s32, vzip2q_s32,
};

use super::activations::Activations;
use super::{COLUMNS, GROUP, OFFSET, PAGE, QUAD};
use crate::kernels::neon::{sdot, usmmla};

/// Bytes of a register.
const BYTES: usize = 16;
/// Numbers of a register, and outputs whose quads one holds.
const LANES: usize = 4;
/// Quads of a group.
const QUADS: usize = GROUP / QUAD;
/// Registers of weights in a quad of a page.
const VECTORS: usize = COLUMNS / LANES;

/// A group of a panel.
type Page = [u8; PAGE];

/// The weights of quad `q` < 16 for outputs `4 * v` to `4 * v + 3`, `v` < 16.
#[inline]
#[target_feature(enable = "neon")]
fn unsigned(page: &Page, q: usize, v: usize) -> uint8x16_t {
    debug_assert!(q < QUADS && v < VECTORS);
    // SAFETY: a page has so many registers.
    unsafe { vld1q_u8(page.as_ptr().add((q * VECTORS + v) * BYTES)) }
}

/// The same as signed bytes.
#[inline]
#[target_feature(enable = "neon")]
fn signed(page: &Page, q: usize, v: usize) -> int8x16_t {
    vreinterpretq_s8_u8(veorq_u8(unsigned(page, q, v), vdupq_n_u8(OFFSET)))
}

/// Group `g` of `R` rows: bytes, scale and correction.
#[inline(always)]
fn groups<const R: usize>(x: &Activations, first: usize, g: usize) -> [(&[u8; GROUP], f32, i32); R] {
    std::array::from_fn(|r| {
        let (quads, scale, correction) = x.group(first + r, g);
        // SAFETY: a group is so long.
        (unsafe { &*quads.as_ptr().cast() }, scale, correction)
    })
}

/// `total += sums * scale` for four outputs: a multiplication and an addition, as everywhere.
#[inline]
#[target_feature(enable = "neon")]
fn scale_add(total: &mut [f32], sums: int32x4_t, scale: f32) {
    let total = &mut total[..LANES];
    // SAFETY: four numbers are read and written.
    unsafe {
        let more: float32x4_t = vmulq_n_f32(vcvtq_f32_s32(sums), scale);
        vst1q_f32(total.as_mut_ptr(), vaddq_f32(vld1q_f32(total.as_ptr()), more));
    }
}

/// With `sdot`.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot<const R: usize>(panel: &[u8], x: &Activations, first: usize) -> [[f32; COLUMNS]; R] {
    let mut out = [[0f32; COLUMNS]; R];
    for (g, page) in panel.as_chunks().0.iter().enumerate() {
        // few rows take more outputs, so that enough sums are under way
        match R {
            1 => dot_page::<R, 16>(page, x, first, g, &mut out),
            2 | 3 => dot_page::<R, 8>(page, x, first, g, &mut out),
            _ => dot_page::<R, 4>(page, x, first, g, &mut out),
        }
    }
    out
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_page<const R: usize, const V: usize>(page: &Page, x: &Activations, first: usize, g: usize, out: &mut [[f32; COLUMNS]; R]) {
    // signed bytes on both sides: nothing to correct
    let rows = groups::<R>(x, first, g);
    for start in (0..VECTORS).step_by(V) {
        let mut sums = [[vdupq_n_s32(0); V]; R];
        for q in (0..QUADS).step_by(LANES) {
            let mut a = [vdupq_n_s8(0); R];
            for r in 0..R {
                // SAFETY: quads q to q + 3 of 16.
                a[r] = unsafe { vld1q_s8(rows[r].0.as_ptr().add(q * QUAD).cast()) };
            }
            macro_rules! step {
                ($($l:literal)*) => {
                    $(for v in 0..V {
                        let weights = signed(page, q + $l, start + v);
                        for r in 0..R {
                            sums[r][v] = sdot::<$l>(sums[r][v], weights, a[r]);
                        }
                    })*
                };
            }
            step!(0 1 2 3);
        }
        for r in 0..R {
            for v in 0..V {
                scale_add(&mut out[r][(start + v) * LANES..], sums[r][v], rows[r].1);
            }
        }
    }
}

/// With `usmmla`, two rows by two outputs at a time; the last of an odd number of rows stands in for its neighbour.
#[target_feature(enable = "neon,i8mm")]
pub(super) fn matrix<const R: usize>(panel: &[u8], x: &Activations, first: usize) -> [[f32; COLUMNS]; R] {
    match R {
        1 | 2 => matrix_pairs::<R, 1, 8>(panel, x, first),
        3 | 4 => matrix_pairs::<R, 2, 4>(panel, x, first),
        _ => matrix_pairs::<R, 3, 4>(panel, x, first),
    }
}

/// `P` pairs of rows by `4 * V` outputs.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn matrix_pairs<const R: usize, const P: usize, const V: usize>(
    panel: &[u8],
    x: &Activations,
    first: usize,
) -> [[f32; COLUMNS]; R] {
    const OCTETS: usize = GROUP / 8;
    let mut out = [[0f32; COLUMNS]; R];
    for (g, page) in panel.as_chunks().0.iter().enumerate() {
        let rows = groups::<R>(x, first, g);
        // SAFETY: 8 of 64 bytes are read.
        let octet = |r: usize, at: usize| unsafe { vld1_s8(rows[r.min(R - 1)].0.as_ptr().add(8 * at).cast()) };
        // pairs of rows side by side, once for all outputs
        let mut pairs = [[vdupq_n_s8(0); P]; OCTETS];
        for p in 0..P {
            for (at, pairs) in pairs.iter_mut().enumerate() {
                pairs[p] = vcombine_s8(octet(2 * p, at), octet(2 * p + 1, at));
            }
        }
        for start in (0..VECTORS).step_by(V) {
            // outputs 4v and 4v + 1, then 4v + 2 and 4v + 3: each with both rows
            let mut sums = [[[vdupq_n_s32(0); 2]; V]; P];
            for (at, pairs) in pairs.iter().enumerate() {
                for v in 0..V {
                    let [low, high] = [2 * at, 2 * at + 1].map(|q| vreinterpretq_s32_u8(unsigned(page, q, start + v)));
                    let weights = [vzip1q_s32(low, high), vzip2q_s32(low, high)].map(|w| vreinterpretq_u8_s32(w));
                    for p in 0..P {
                        for i in 0..2 {
                            sums[p][v][i] = usmmla(sums[p][v][i], weights[i], pairs[p]);
                        }
                    }
                }
            }
            for p in 0..P {
                for v in 0..V {
                    let [low, high] = sums[p][v];
                    for (r, sums) in [(2 * p, vuzp1q_s32(low, high)), (2 * p + 1, vuzp2q_s32(low, high))] {
                        if r < R {
                            let (_, scale, correction) = rows[r];
                            let sums = vaddq_s32(sums, vdupq_n_s32(correction));
                            scale_add(&mut out[r][(start + v) * LANES..], sums, scale);
                        }
                    }
                }
            }
        }
    }
    out
}

/// With products of 16 bits: two of them, of at most 127² each, are added there, and then in pairs to 32 bits.
#[target_feature(enable = "neon")]
pub(super) fn widening<const R: usize>(panel: &[u8], x: &Activations, first: usize) -> [[f32; COLUMNS]; R] {
    let mut out = [[0f32; COLUMNS]; R];
    for (g, page) in panel.as_chunks().0.iter().enumerate() {
        match R {
            1 => widening_page::<R, 8>(page, x, first, g, &mut out),
            2 => widening_page::<R, 4>(page, x, first, g, &mut out),
            _ => widening_page::<R, 2>(page, x, first, g, &mut out),
        }
    }
    out
}

#[inline]
#[target_feature(enable = "neon")]
fn widening_page<const R: usize, const V: usize>(
    page: &Page,
    x: &Activations,
    first: usize,
    g: usize,
    out: &mut [[f32; COLUMNS]; R],
) {
    let rows = groups::<R>(x, first, g);
    // four times the same quad
    // SAFETY: quad q of 16.
    let quad = |r: usize, q: usize| unsafe { vreinterpretq_s8_s32(vld1q_dup_s32(rows[r].0.as_ptr().add(q * QUAD).cast())) };
    for start in (0..VECTORS).step_by(V) {
        // of four outputs, two sums each
        let mut sums = [[[vdupq_n_s32(0); 2]; V]; R];
        for q in (0..QUADS).step_by(2) {
            let mut a = [[vdupq_n_s8(0); 2]; R];
            for r in 0..R {
                a[r] = [quad(r, q), quad(r, q + 1)];
            }
            for v in 0..V {
                let weights = [signed(page, q, start + v), signed(page, q + 1, start + v)];
                for r in 0..R {
                    let low = vmull_s8(vget_low_s8(weights[0]), vget_low_s8(a[r][0]));
                    let high = vmull_high_s8(weights[0], a[r][0]);
                    let low = vmlal_s8(low, vget_low_s8(weights[1]), vget_low_s8(a[r][1]));
                    let high = vmlal_high_s8(high, weights[1], a[r][1]);
                    sums[r][v] = [vpadalq_s16(sums[r][v][0], low), vpadalq_s16(sums[r][v][1], high)];
                }
            }
        }
        for r in 0..R {
            for v in 0..V {
                let [low, high] = sums[r][v];
                scale_add(&mut out[r][(start + v) * LANES..], vpaddq_s32(low, high), rows[r].1);
            }
        }
    }
}
