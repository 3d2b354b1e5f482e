//! Blocked float32 product for AVX-512: `out[m, n] += a[m, k] · b[k, n]` in tiles of 6 × 64 held in registers.
//!
//! `a` is read where it lies (rows may overlap), `b` is dealt into panels of 64 columns `[n / 64, k, 64]` first. A sum runs over
//! k in the same order however the work is split.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m512, __mmask16, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
    _mm512_set1_ps, _mm512_setzero_ps,
};

use rayon::prelude::*;

/// Columns of a panel.
const WIDTH: usize = 64;
/// Rows of a tile.
const ROWS: usize = 6;
/// Steps of k between two visits of the output: a panel of that depth stays in the second-level cache.
const DEPTH: usize = 256;

/// Can this CPU run the tiles?
pub(super) fn available() -> bool {
    super::level::level() == super::level::Level::Avx512
}

/// A matrix `[k, n]` in panels, the last filled up with zeros.
pub(super) struct Panels {
    data: Vec<f32>,
    n: usize,
    k: usize,
}

impl Panels {
    /// Deals the matrix whose element `(k, n)` is at `n * column + k * row` of `b`.
    pub(super) fn new(b: &[f32], n: usize, k: usize, column: usize, row: usize) -> Self {
        assert!(n > 0 && k > 0 && (n - 1) * column + (k - 1) * row < b.len(), "panels: size");
        let mut data: Vec<f32> = Vec::with_capacity(n.div_ceil(WIDTH) * k * WIDTH);
        let deal = |(p, panel): (usize, &mut [std::mem::MaybeUninit<f32>])| {
            let first = p * WIDTH;
            let columns = WIDTH.min(n - first);
            for start in (0..k).step_by(16) {
                let count = 16.min(k - start);
                let block = &mut panel[start * WIDTH..(start + count) * WIDTH];
                for c in 0..WIDTH {
                    if c >= columns {
                        (0..count).for_each(|i| {
                            block[i * WIDTH + c].write(0.0);
                        });
                        continue;
                    }
                    let source = &b[(first + c) * column + start * row..];
                    (0..count).for_each(|i| {
                        block[i * WIDTH + c].write(source[i * row]);
                    });
                }
            }
        };
        let len = n.div_ceil(WIDTH) * k * WIDTH;
        data.spare_capacity_mut()[..len].par_chunks_mut(k * WIDTH).enumerate().for_each(deal);
        // SAFETY: every element of every panel has been written above.
        unsafe { data.set_len(len) };
        Self { data, n, k }
    }

    /// Number of panels.
    pub(super) fn count(&self) -> usize {
        self.n.div_ceil(WIDTH)
    }

    /// Adds `a[m, k] · panels` to the columns of `panels` in `out`, on this thread.
    ///
    /// # Safety
    /// [`available`] must hold. Rows of k numbers at `a + i * a_stride` and of n numbers at `out + i * out_stride` must be valid for
    /// `i < m`, and nothing else may touch those columns of `out` meanwhile.
    pub(super) unsafe fn multiply(
        &self,
        panels: std::ops::Range<usize>,
        m: usize,
        a: *const f32,
        a_stride: usize,
        out: *mut f32,
        out_stride: usize,
    ) {
        for start in (0..self.k).step_by(DEPTH) {
            let depth = DEPTH.min(self.k - start);
            for p in panels.clone() {
                let b = &self.data[(p * self.k + start) * WIDTH..][..depth * WIDTH];
                let columns = WIDTH.min(self.n - p * WIDTH);
                for i in (0..m).step_by(ROWS) {
                    let rows = ROWS.min(m - i);
                    // SAFETY: promised by the caller; the panel holds `depth` rows of 64 columns.
                    unsafe {
                        let (a, out) = (a.add(i * a_stride + start), out.add(i * out_stride + p * WIDTH));
                        any_tile(rows, columns, depth, a, a_stride, b.as_ptr(), out, out_stride);
                    }
                }
            }
        }
    }
}

/// Elsewhere there are no tiles: [`available`] says so.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn any_tile(_: usize, _: usize, _: usize, _: *const f32, _: usize, _: *const f32, _: *mut f32, _: usize) {}

/// # Safety
/// As [`Panels::multiply`], for one tile of `rows` ≤ 6 and `columns` ≤ 64.
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

/// Keys and values of every head, dealt once for all its queries.
pub(super) struct Heads {
    keys: Vec<Panels>,
    values: Vec<Panels>,
}

impl Heads {
    /// Deals `k` and `v` `[s, heads * size]`; `None` where the tiles cannot run.
    pub(super) fn new(k: &[f32], v: &[f32], heads: usize, size: usize) -> Option<Self> {
        let (width, s) = (heads * size, k.len() / (heads * size));
        if !available() || s == 0 {
            return None;
        }
        let keys = (0..heads).map(|h| Panels::new(&k[h * size..], s, size, width, 1)).collect();
        Some(Self { keys, values: (0..heads).map(|h| Panels::new(&v[h * size..], size, s, 1, width)).collect() })
    }

    /// Adds `q · keys` to `scores` `[rows, s]`.
    ///
    /// # Safety
    /// `rows` rows of `size` numbers at `q + i * stride` must be valid.
    pub(super) unsafe fn score(&self, head: usize, rows: usize, q: *const f32, stride: usize, scores: &mut [f32]) {
        let keys = &self.keys[head];
        assert_eq!(scores.len(), rows * keys.n, "attention: scores");
        // SAFETY: promised by the caller; the scores have the size of the product.
        unsafe { keys.multiply(0..keys.count(), rows, q, stride, scores.as_mut_ptr(), keys.n) };
    }

    /// Adds `weights · values` to `rows` rows of `size` numbers at `out + i * stride`, for `weights` `[rows, s]`.
    ///
    /// # Safety
    /// Those rows must be valid and nothing else may touch them meanwhile.
    pub(super) unsafe fn mix(&self, head: usize, rows: usize, weights: &[f32], out: *mut f32, stride: usize) {
        let values = &self.values[head];
        assert_eq!(weights.len(), rows * values.k, "attention: weights");
        // SAFETY: promised by the caller; the weights have the size of the product.
        unsafe { values.multiply(0..values.count(), rows, weights.as_ptr(), values.k, out, stride) };
    }
}

/// # Safety
/// As [`Panels::multiply`], for one tile of `R` rows and `columns` ≤ `16 * V`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_agree_with_float64() {
        if !available() {
            return; // the products then go through the other path, which `matmul` tests
        }
        for (m, n, k) in [(1, 1, 1), (5, 18, 64), (6, 64, 512), (7, 80, 513), (13, 129, 40), (100, 200, 1100)] {
            let (stride, out_stride) = (k + 2, n + 5);
            let a: Vec<f32> = (0..m * stride).map(|i| ((i * 31 % 101) as f32 - 50.0) / 50.0).collect();
            let b: Vec<f32> = (0..n * k).map(|i| ((i * 17 % 89) as f32 - 44.0) / 44.0).collect();
            for (column, row) in [(k, 1), (1, n)] {
                let panels = Panels::new(&b, n, k, column, row);
                let mut out = vec![0.5; m * out_stride];
                // SAFETY: checked for the CPU; all rows lie inside `a` and `out`.
                unsafe { panels.multiply(0..panels.count(), m, a.as_ptr(), stride, out.as_mut_ptr(), out_stride) };
                for i in 0..m {
                    for j in 0..out_stride {
                        let product = |c: usize| f64::from(a[i * stride + c]) * f64::from(b[j * column + c * row]);
                        let truth = 0.5 + if j < n { (0..k).map(product).sum::<f64>() } else { 0.0 };
                        let found = f64::from(out[i * out_stride + j]);
                        assert!((found - truth).abs() < 1e-6 * k as f64, "{m} {n} {k} at {i},{j}: {found} {truth}");
                    }
                }
            }
        }
    }
}
