//! The products of [`super::tile`] with `bfmmla`: two rows by two columns and four inputs at a time.

use std::arch::aarch64::{
    float32x4_t, uint16x8_t, vandq_u16, vdupq_n_f32, vdupq_n_u16, vld1q_f32, vld1q_u16, vreinterpretq_f32_f64,
    vreinterpretq_f64_f32, vreinterpretq_u16_u32, vreinterpretq_u16_u64, vreinterpretq_u32_u16, vreinterpretq_u64_u16, vst1q_u16,
    vzip1q_f64, vzip1q_u32, vzip1q_u64, vzip2q_f64, vzip2q_u32, vzip2q_u64,
};
use std::mem::MaybeUninit;

use super::{COLUMNS, PAIR};
use crate::kernels::neon::{bfmmla, to_bf16};
use crate::kernels::tiles::neon::add;

/// Pairs of rows of a tile.
const PAIRS: usize = 3;
/// Registers of four columns in a tile: with three pairs of rows, 24 sums.
const VECTORS: usize = 4;
/// Inputs between two visits of the output.
const STEPS: usize = 512;
/// Numbers of a register, and inputs of a step.
const LANES: usize = 8;

/// # Safety
/// As [`Unit::multiply`](super::tile::Unit::multiply), which has checked the panel; the CPU must have bfloat16.
#[target_feature(enable = "neon,bf16")]
pub(super) unsafe fn multiply(
    m: usize,
    columns: usize,
    k: usize,
    a: *const u16,
    a_stride: usize,
    panel: *const u16,
    out: *mut f32,
    out_stride: usize,
) {
    for start in (0..k).step_by(STEPS) {
        // SAFETY: promised by the caller.
        unsafe {
            let (a, b) = (a.add(start), panel.add(start * COLUMNS));
            block(m, columns, STEPS.min(k - start), a, a_stride, b, out, out_stride);
        }
    }
}

/// # Safety
/// As [`multiply`], for `k` ≤ [`STEPS`].
#[target_feature(enable = "neon,bf16")]
unsafe fn block(
    m: usize,
    columns: usize,
    k: usize,
    a: *const u16,
    a_stride: usize,
    b: *const u16,
    out: *mut f32,
    out_stride: usize,
) {
    const ROWS: usize = 2 * PAIRS;
    const WIDTH: usize = 4 * VECTORS;
    let whole = if m > 4 * ROWS { m / ROWS * ROWS } else { 0 };
    // SAFETY: promised by the caller; a strip is written before it is read.
    unsafe {
        let mut strip = MaybeUninit::<[u16; STEPS * WIDTH]>::uninit();
        let strip = strip.as_mut_ptr().cast::<u16>();
        for first in (0..if whole > 0 { columns } else { 0 }).step_by(WIDTH) {
            for (step, v) in (0..k.div_ceil(LANES)).flat_map(|step| (0..VECTORS).map(move |v| (step, v))) {
                let to = strip.add((step * VECTORS + v) * 4 * LANES);
                for (i, part) in weights::<false>(b.add(first * PAIR), step, v).into_iter().enumerate() {
                    vst1q_u16(to.add(i * LANES), part);
                }
            }
            for i in (0..whole).step_by(ROWS) {
                let (a, out) = (a.add(i * a_stride), out.add(i * out_stride + first));
                tile::<PAIRS, VECTORS, true>(ROWS, columns - first, k, a, a_stride, strip, out, out_stride);
            }
        }
        for i in (whole..m).step_by(ROWS) {
            let (a, out) = (a.add(i * a_stride), out.add(i * out_stride));
            match m - i {
                rows @ (1 | 2) => strips::<1, 8>(rows, columns, k, a, a_stride, b, out, out_stride),
                rows @ (3 | 4) => strips::<2, VECTORS>(rows, columns, k, a, a_stride, b, out, out_stride),
                rows => strips::<PAIRS, VECTORS>(rows.min(ROWS), columns, k, a, a_stride, b, out, out_stride),
            }
        }
    }
}

/// # Safety
/// As [`block`], for `rows` ≤ `2 * P`.
#[target_feature(enable = "neon,bf16")]
unsafe fn strips<const P: usize, const V: usize>(
    rows: usize,
    columns: usize,
    k: usize,
    a: *const u16,
    a_stride: usize,
    b: *const u16,
    out: *mut f32,
    out_stride: usize,
) {
    for first in (0..columns).step_by(4 * V) {
        // SAFETY: promised by the caller; 64 columns are whole strips.
        unsafe {
            let (b, out) = (b.add(first * PAIR), out.add(first));
            tile::<P, V, false>(rows, columns - first, k, a, a_stride, b, out, out_stride);
        }
    }
}

/// Eight inputs of columns `4 * v` to `4 * v + 3`: the first four inputs of two columns and of the other two, then the last four.
/// They lie so in a strip (`DEALT`); from a panel they are put together.
///
/// # Safety
/// The panel, or the strip, must hold them.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn weights<const DEALT: bool>(b: *const u16, step: usize, v: usize) -> [uint16x8_t; 4] {
    // SAFETY: promised by the caller.
    unsafe {
        if DEALT {
            let from = b.add((step * VECTORS + v) * 4 * LANES);
            return [0, 1, 2, 3].map(|i| vld1q_u16(from.add(i * LANES)));
        }
        let [p, q, r, s] =
            [0, 1, 2, 3].map(|i| vreinterpretq_u32_u16(vld1q_u16(b.add(((step * 4 + i) * COLUMNS + 4 * v) * PAIR))));
        [vzip1q_u32(p, q), vzip2q_u32(p, q), vzip1q_u32(r, s), vzip2q_u32(r, s)].map(|x| vreinterpretq_u16_u32(x))
    }
}

/// # Safety
/// As [`block`], for one tile of `rows` ≤ `2 * P` and the first `4 * V` of `columns`.
#[inline]
#[target_feature(enable = "neon,bf16")]
unsafe fn tile<const P: usize, const V: usize, const DEALT: bool>(
    rows: usize,
    columns: usize,
    k: usize,
    a: *const u16,
    a_stride: usize,
    b: *const u16,
    out: *mut f32,
    out_stride: usize,
) {
    let mut sums: [[[float32x4_t; 2]; V]; P] = [[[vdupq_n_f32(0.0); 2]; V]; P];
    // the last of an odd number of rows stands in for its neighbour
    let lines: [[*const u16; 2]; P] =
        std::array::from_fn(|p| [0, 1].map(|i| a.wrapping_add((2 * p + i).min(rows - 1) * a_stride)));
    macro_rules! step {
        ($step:expr, $numbers:expr) => {
            let (mut first, mut last) = ([vdupq_n_u16(0); P], [vdupq_n_u16(0); P]);
            for p in 0..P {
                // SAFETY: promised by the caller: eight numbers, or fewer and the slack.
                let [s, t] = lines[p].map(|line| vreinterpretq_u64_u16($numbers(unsafe { vld1q_u16(line.add($step * LANES)) })));
                (first[p], last[p]) = (vreinterpretq_u16_u64(vzip1q_u64(s, t)), vreinterpretq_u16_u64(vzip2q_u64(s, t)));
            }
            for v in 0..V {
                // SAFETY: promised by the caller.
                let [w, x, y, z] = unsafe { weights::<DEALT>(b, $step, v) };
                for p in 0..P {
                    let [low, high] = sums[p][v];
                    let (low, high) = (bfmmla(low, first[p], w), bfmmla(high, first[p], x));
                    sums[p][v] = [bfmmla(low, last[p], y), bfmmla(high, last[p], z)];
                }
            }
        };
    }
    for step in 0..k / LANES {
        step!(step, |numbers: uint16x8_t| numbers);
    }
    if !k.is_multiple_of(LANES) {
        // behind the last of a row stand zeros, whatever follows it in memory
        let mut mask = [0u16; LANES];
        mask[..k % LANES].fill(!0);
        // SAFETY: eight numbers are read.
        let mask = unsafe { vld1q_u16(mask.as_ptr()) };
        step!(k / LANES, |numbers: uint16x8_t| vandq_u16(numbers, mask));
    }
    for p in 0..P {
        let (mut even, mut odd) = ([vdupq_n_f32(0.0); V], [vdupq_n_f32(0.0); V]);
        for v in 0..V {
            let [low, high] = sums[p][v].map(|x| vreinterpretq_f64_f32(x));
            (even[v], odd[v]) = (vreinterpretq_f32_f64(vzip1q_f64(low, high)), vreinterpretq_f32_f64(vzip2q_f64(low, high)));
        }
        for (row, sums) in [(2 * p, even), (2 * p + 1, odd)] {
            if row < rows {
                // SAFETY: promised by the caller.
                unsafe { add::<V>(sums, columns, out.add(row * out_stride)) };
            }
        }
    }
}

/// Rounds `from` to bfloat16; the numbers behind the last whole eight are left to the caller, who gets their place.
#[target_feature(enable = "neon,bf16")]
pub(super) fn round(from: &[f32], to: &mut [u16]) -> usize {
    let (from, to) = (from.as_chunks::<LANES>().0, to.as_chunks_mut::<LANES>().0);
    for (from, to) in from.iter().zip(to) {
        // SAFETY: eight numbers are read and written.
        unsafe { vst1q_u16(to.as_mut_ptr(), to_bf16(vld1q_f32(from.as_ptr()), vld1q_f32(from.as_ptr().add(LANES / 2)))) };
    }
    from.len() * LANES
}
