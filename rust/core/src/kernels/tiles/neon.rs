//! The same product with NEON: tiles of 6 × 16 whose 24 sums, with six steps' factors, fill the 32 registers. Four steps of k are 22
//! loads for 96 multiply-adds; fewer rows take more columns, so that enough sums are under way.

use std::arch::aarch64::{
    float32x4_t, vaddq_f32, vdupq_n_f32, vfmaq_laneq_f32, vfmaq_n_f32, vld1q_f32, vreinterpretq_f32_f64, vreinterpretq_f64_f32,
    vst1q_f32, vtrn1q_f32, vtrn1q_f64, vtrn2q_f32, vtrn2q_f64,
};
use std::mem::MaybeUninit;

use super::{DEPTH, ROWS, WIDTH};

/// Columns of a tile of six rows.
const STRIP: usize = 16;
/// Numbers of a register.
const LANES: usize = 4;

/// # Safety
/// As [`super::multiply`], which has checked the panel.
pub(super) unsafe fn multiply(
    m: usize,
    columns: usize,
    depth: usize,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    out: *mut f32,
    out_stride: usize,
) {
    let whole = m / ROWS * ROWS;
    let mut copy = MaybeUninit::<[[f32; STRIP]; DEPTH]>::uninit();
    for first in (0..columns).step_by(STRIP) {
        // SAFETY: promised by the caller; rows of the copy are written before they are read.
        unsafe {
            let (mut strip, mut step) = (b.add(first), WIDTH);
            if whole > 4 * ROWS && depth <= DEPTH {
                // lines 256 bytes apart would share a quarter of the first-level cache
                let to = copy.as_mut_ptr().cast::<f32>();
                for k in 0..depth {
                    std::ptr::copy_nonoverlapping(strip.add(k * WIDTH), to.add(k * STRIP), STRIP);
                }
                (strip, step) = (to.cast_const(), STRIP);
            }
            for i in (0..whole).step_by(ROWS) {
                let (a, out) = (a.add(i * a_stride), out.add(i * out_stride + first));
                tile::<ROWS, 4>(columns - first, depth, a, a_stride, strip, step, out, out_stride);
            }
        }
    }
    // SAFETY: promised by the caller; the rows behind the whole tiles.
    unsafe {
        let (a, out) = (a.add(whole * a_stride), out.add(whole * out_stride));
        match m - whole {
            1 => strips::<1, 16>(columns, depth, a, a_stride, b, out, out_stride),
            2 => strips::<2, 8>(columns, depth, a, a_stride, b, out, out_stride),
            3 => strips::<3, 8>(columns, depth, a, a_stride, b, out, out_stride),
            4 => strips::<4, 4>(columns, depth, a, a_stride, b, out, out_stride),
            5 => strips::<5, 4>(columns, depth, a, a_stride, b, out, out_stride),
            _ => {}
        }
    }
}

/// # Safety
/// As [`multiply`], for `R` rows.
unsafe fn strips<const R: usize, const V: usize>(
    columns: usize,
    depth: usize,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    out: *mut f32,
    out_stride: usize,
) {
    for first in (0..columns).step_by(V * LANES) {
        // SAFETY: promised by the caller; 64 columns are whole strips.
        unsafe { tile::<R, V>(columns - first, depth, a, a_stride, b.add(first), WIDTH, out.add(first), out_stride) };
    }
}

/// # Safety
/// As [`multiply`], for one tile of `R` rows and the first `4 * V` of `columns`; rows of `b` are `step` apart.
#[inline(always)]
unsafe fn tile<const R: usize, const V: usize>(
    columns: usize,
    depth: usize,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    step: usize,
    out: *mut f32,
    out_stride: usize,
) {
    // SAFETY: promised by the caller.
    unsafe {
        let mut sums: [[float32x4_t; V]; R] = [[vdupq_n_f32(0.0); V]; R];
        let whole = depth / LANES * LANES;
        for k in (0..whole).step_by(LANES) {
            let mut rows = [vdupq_n_f32(0.0); R];
            for r in 0..R {
                rows[r] = vld1q_f32(a.add(r * a_stride + k));
            }
            macro_rules! steps {
                ($($l:literal)*) => {
                    $(for v in 0..V {
                        let numbers = vld1q_f32(b.add((k + $l) * step + v * LANES));
                        for r in 0..R {
                            sums[r][v] = vfmaq_laneq_f32::<$l>(sums[r][v], numbers, rows[r]);
                        }
                    })*
                };
            }
            steps!(0 1 2 3);
        }
        for k in whole..depth {
            for v in 0..V {
                let numbers = vld1q_f32(b.add(k * step + v * LANES));
                for r in 0..R {
                    sums[r][v] = vfmaq_n_f32(sums[r][v], numbers, *a.add(r * a_stride + k));
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            add::<V>(sums, columns, out.add(r * out_stride));
        }
    }
}

/// Adds the first `columns` of `sums` to `out`.
///
/// # Safety
/// So many numbers must be valid there, and nothing else may touch them meanwhile.
#[inline(always)]
pub(in crate::kernels) unsafe fn add<const V: usize>(sums: [float32x4_t; V], columns: usize, out: *mut f32) {
    for (v, sum) in sums.into_iter().enumerate() {
        // SAFETY: promised by the caller.
        unsafe {
            let to = out.wrapping_add(v * LANES);
            if columns >= (v + 1) * LANES {
                vst1q_f32(to, vaddq_f32(vld1q_f32(to), sum));
            } else {
                let mut all = [0f32; LANES];
                vst1q_f32(all.as_mut_ptr(), sum);
                for (j, sum) in all.iter().enumerate().take(columns.saturating_sub(v * LANES)) {
                    *to.add(j) += sum;
                }
            }
        }
    }
}

/// As [`transpose`](crate::kernels::panels::transpose), for 16 lines of 16 steps.
///
/// # Safety
/// 16 rows of 16 numbers must be valid at `from`, as many at `to`, 64 apart.
pub(in crate::kernels) unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32) {
    for (c, i) in (0..16).step_by(LANES).flat_map(|c| (0..16).step_by(LANES).map(move |i| (c, i))) {
        // SAFETY: promised by the caller.
        unsafe {
            let line = |l: usize| vld1q_f32(from.add((c + l) * stride + i));
            let (s, t, u, v) = (line(0), line(1), line(2), line(3));
            let double = |x: float32x4_t| vreinterpretq_f64_f32(x);
            let (even, odd) =
                ([vtrn1q_f32(s, t), vtrn1q_f32(u, v)].map(double), [vtrn2q_f32(s, t), vtrn2q_f32(u, v)].map(double));
            let all = [
                vtrn1q_f64(even[0], even[1]),
                vtrn1q_f64(odd[0], odd[1]),
                vtrn2q_f64(even[0], even[1]),
                vtrn2q_f64(odd[0], odd[1]),
            ];
            for (l, numbers) in all.into_iter().enumerate() {
                vst1q_f32(to.add((i + l) * WIDTH + c), vreinterpretq_f32_f64(numbers));
            }
        }
    }
}
