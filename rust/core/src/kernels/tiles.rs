//! Blocked float32 product: `out[m, n] += a[m, k] · b[k, n]` in tiles held in registers, 6 × 64 with AVX-512, 6 × 16 with AVX2 and
//! with NEON.
//!
//! `a` is read where it lies (rows may overlap), `b` comes in panels of 64 columns (see `panels`). A sum runs over k in the same
//! order however the work is split.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m512, __mmask16, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
    _mm512_set1_ps, _mm512_setzero_ps,
};

/// Columns of a panel.
pub(super) const WIDTH: usize = 64;
/// Rows of a tile.
const ROWS: usize = 6;
/// Steps of k between two visits of the output: a panel of that depth stays in the second-level cache.
pub(super) const DEPTH: usize = 256;

/// Has this CPU the tiles of AVX-512? Then it also deals panels fast enough to do so on the way.
pub(super) fn available() -> bool {
    super::level::level().has_avx512()
}

/// Has it tiles, of AVX-512, AVX2 or NEON?
pub(super) fn any_available() -> bool {
    use super::level::Level;
    available() || matches!(super::level::level(), Level::Avx2 | Level::Neon)
}

/// Adds `a[m, depth] · b[depth, columns]` to `out`, on this thread; `b` is `depth` steps of a panel, of which `columns` ≤ 64 count.
///
/// # Safety
/// [`any_available`] must hold. Rows of `depth` numbers at `a + i * a_stride` and of `columns` numbers at `out + i * out_stride` must be
/// valid for `i < m`, and nothing else may touch those of `out` meanwhile.
pub(super) unsafe fn multiply(
    m: usize,
    columns: usize,
    depth: usize,
    a: *const f32,
    a_stride: usize,
    b: &[f32],
    out: *mut f32,
    out_stride: usize,
) {
    assert!(b.len() >= depth * WIDTH && columns <= WIDTH, "tiles: panel");
    #[cfg(target_arch = "x86_64")]
    if !available() {
        // SAFETY: promised by the caller; without AVX-512, tiles are available where there is AVX2.
        return unsafe { avx2::multiply(m, columns, depth, a, a_stride, b.as_ptr(), out, out_stride) };
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: promised by the caller; the panel holds `depth` rows of 64 columns.
    unsafe {
        neon::multiply(m, columns, depth, a, a_stride, b.as_ptr(), out, out_stride);
    }
    #[cfg(not(target_arch = "aarch64"))]
    for i in (0..m).step_by(ROWS) {
        // SAFETY: promised by the caller; the panel holds `depth` rows of 64 columns.
        unsafe {
            let (a, out) = (a.add(i * a_stride), out.add(i * out_stride));
            any_tile(ROWS.min(m - i), columns, depth, a, a_stride, b.as_ptr(), out, out_stride);
        }
    }
}

/// Elsewhere there are no tiles: [`any_available`] says so.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn any_tile(_: usize, _: usize, _: usize, _: *const f32, _: usize, _: *const f32, _: *mut f32, _: usize) {}

/// # Safety
/// As [`multiply`], for one tile of `rows` ≤ 6 and `columns` ≤ 64.
#[cfg(target_arch = "x86_64")]
unsafe fn any_tile(
    rows: usize,
    columns: usize,
    depth: usize,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    out: *mut f32,
    out_stride: usize,
) {
    macro_rules! choose {
        ($($r:literal)*) => {
            // SAFETY: promised by the caller.
            unsafe {
                match (rows, columns.div_ceil(16)) {
                    $(($r, 1) => tile::<$r, 1>(columns, depth, a, a_stride, b, out, out_stride),
                    ($r, 2) => tile::<$r, 2>(columns, depth, a, a_stride, b, out, out_stride),
                    ($r, 3) => tile::<$r, 3>(columns, depth, a, a_stride, b, out, out_stride),
                    ($r, _) => tile::<$r, 4>(columns, depth, a, a_stride, b, out, out_stride),)*
                    _ => {}
                }
            }
        };
    }
    choose!(1 2 3 4 5 6)
}

/// # Safety
/// As [`multiply`], for one tile of `R` rows and `columns` ≤ `16 * V`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn tile<const R: usize, const V: usize>(
    columns: usize,
    depth: usize,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    out: *mut f32,
    out_stride: usize,
) {
    // SAFETY: promised by the caller; masked lanes are not touched.
    unsafe {
        let mut sums: [[__m512; V]; R] = [[_mm512_setzero_ps(); V]; R];
        for k in 0..depth {
            let mut row = [_mm512_setzero_ps(); V];
            for v in 0..V {
                row[v] = _mm512_loadu_ps(b.add(k * WIDTH + 16 * v));
            }
            for r in 0..R {
                let factor = _mm512_set1_ps(*a.add(r * a_stride + k));
                for v in 0..V {
                    sums[r][v] = _mm512_fmadd_ps(factor, row[v], sums[r][v]);
                }
            }
        }
        for r in 0..R {
            for v in 0..V {
                let mask: __mmask16 = if columns >= 16 * (v + 1) { !0 } else { (1 << (columns - 16 * v)) - 1 };
                let to = out.add(r * out_stride + 16 * v);
                let old = _mm512_maskz_loadu_ps(mask, to);
                _mm512_mask_storeu_ps(to, mask, _mm512_add_ps(old, sums[r][v]));
            }
        }
    }
}
