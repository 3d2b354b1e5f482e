//! The same product with AVX2: tiles of 6 × 16, strip by strip of a panel.

use std::arch::x86_64::{
    __m256, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};
use std::mem::MaybeUninit;

use super::{DEPTH, ROWS, WIDTH};

/// Columns of a tile.
const STRIP: usize = 16;
/// Numbers of a register.
const LANES: usize = 8;

/// # Safety
/// As [`super::multiply`], which has checked the panel; the CPU must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
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
    let mut copy = MaybeUninit::<[[f32; STRIP]; DEPTH]>::uninit();
    for first in (0..columns).step_by(STRIP) {
        let width = STRIP.min(columns - first);
        // SAFETY: promised by the caller; rows of the copy are written before they are read.
        unsafe {
            let (mut strip, mut step) = (b.add(first), WIDTH);
            if m > 4 * ROWS && depth <= DEPTH {
                // lines 256 bytes apart would share a quarter of the first-level cache
                let to = copy.as_mut_ptr().cast::<f32>();
                for k in 0..depth {
                    std::ptr::copy_nonoverlapping(strip.add(k * WIDTH), to.add(k * STRIP), STRIP);
                }
                (strip, step) = (to.cast_const(), STRIP);
            }
            for i in (0..m).step_by(ROWS) {
                let (a, out) = (a.add(i * a_stride), out.add(i * out_stride + first));
                match m - i {
                    1 => tile::<1>(width, depth, a, a_stride, strip, step, out, out_stride),
                    2 => tile::<2>(width, depth, a, a_stride, strip, step, out, out_stride),
                    3 => tile::<3>(width, depth, a, a_stride, strip, step, out, out_stride),
                    4 => tile::<4>(width, depth, a, a_stride, strip, step, out, out_stride),
                    5 => tile::<5>(width, depth, a, a_stride, strip, step, out, out_stride),
                    _ => tile::<ROWS>(width, depth, a, a_stride, strip, step, out, out_stride),
                }
            }
        }
    }
}

/// # Safety
/// As [`multiply`], for one tile of `R` rows and `width` ≤ 16 columns; rows of `b` are `step` apart.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const R: usize>(
    width: usize,
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
        let mut sums: [[__m256; 2]; R] = [[_mm256_setzero_ps(); 2]; R];
        for k in 0..depth {
            let row = [_mm256_loadu_ps(b.add(k * step)), _mm256_loadu_ps(b.add(k * step + LANES))];
            for r in 0..R {
                let factor = _mm256_set1_ps(*a.add(r * a_stride + k));
                sums[r][0] = _mm256_fmadd_ps(factor, row[0], sums[r][0]);
                sums[r][1] = _mm256_fmadd_ps(factor, row[1], sums[r][1]);
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            let to = out.add(r * out_stride);
            if width == STRIP {
                for (v, sum) in sums.into_iter().enumerate() {
                    let to = to.add(v * LANES);
                    _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), sum));
                }
            } else {
                let mut all = [0f32; STRIP];
                _mm256_storeu_ps(all.as_mut_ptr(), sums[0]);
                _mm256_storeu_ps(all.as_mut_ptr().add(LANES), sums[1]);
                for (j, sum) in all.iter().enumerate().take(width) {
                    *to.add(j) += sum;
                }
            }
        }
    }
}
