//! `out[m, n] += a[m, k] · w[n, k]ᵀ` with weights and activations of 8 bits: a quarter of the bytes that a float32 product reads.
//!
//! A weight is `scale[n] · (byte − 128)`, quantised once (symmetric, the largest of an output is 127 steps). Activations are
//! quantised per row in groups of [`GROUP`] values with a scale each, so that an outlier coarsens its neighbours only. Sums of a
//! group are exact in int32; they are scaled and added in float32 in order, with separate multiplications and additions: every CPU
//! level, any number of threads and any number of rows at a time give the same bits.
//!
//! Layout: panels of [`COLUMNS`] outputs, each `[k / 4, COLUMNS, 4]` bytes, read strictly in order. The weights carry the offset
//! that `vpdpbusd` (unsigned times signed) asks for, because then its correction, 128 Σ a, is one number a row and group.

mod activations;
#[cfg(target_arch = "aarch64")]
mod neon;
mod tile;

use rayon::prelude::*;

pub(crate) use activations::Activations;
pub(super) use tile::Level;

#[cfg(target_arch = "x86_64")]
use super::amx::INT8_ROWS as AMX_ROWS;
use super::pointer::SharedMut;
use super::simd::dispatch;
use crate::packed::{Array, Arrays, Pack, Stored};
use crate::threads::each;

/// Outputs of a panel.
pub(crate) const COLUMNS: usize = 64;
/// Consecutive activations that share a scale. A group of a panel is a page of 4096 bytes.
pub(super) const GROUP: usize = 64;
/// Half of a group, whose sum is kept for weights with a scale for each.
pub(super) const HALF: usize = GROUP / 2;
/// Inputs whose products are added in one instruction.
pub(super) const QUAD: usize = 4;
const PAGE: usize = COLUMNS * GROUP;
/// Added to weights, so that they are unsigned.
const OFFSET: u8 = 128;
/// Steps from zero to the largest value.
const STEPS: f32 = 127.0;
/// Values whose largest is below this count as zeros: the inverse of their scale is not a finite number.
pub(super) const SMALLEST: f32 = 1e-30;
/// 1.5 · 2^23: adding it leaves the nearest integer in the low bits.
const MAGIC: f32 = 12_582_912.0;
/// Rows of a task.
const BLOCK: usize = 96;
/// Bytes of weights that are worth a task.
const TASK: usize = 1 << 17;

/// A weight matrix `[n, k]` of 8 bits with a scale for each of the n outputs.
#[derive(Debug)]
pub struct Int8Matrix {
    bytes: Stored<u8>,
    scales: Stored<f32>,
    n: usize,
    k: usize,
}

impl Int8Matrix {
    /// Quantises the matrix whose element (output `j`, input `c`) is at `j * column + c * row` of `w`.
    pub fn new(w: &[f32], n: usize, k: usize, column: usize, row: usize) -> Self {
        assert!(n > 0 && k > 0 && (n - 1) * column + (k - 1) * row < w.len(), "int8: weight size");
        let (panels, groups) = (n.div_ceil(COLUMNS), k.div_ceil(GROUP));
        let (mut bytes, mut scales) = (vec![OFFSET; panels * groups * PAGE], vec![0.0; panels * COLUMNS]);
        let fill = |(p, (bytes, scales)): (usize, (&mut [u8], &mut [f32]))| {
            let first = p * COLUMNS;
            let columns = COLUMNS.min(n - first);
            let mut inverse = [0.0; COLUMNS];
            for c in 0..k {
                let from = &w[first * column + c * row..];
                scales[..columns].iter_mut().enumerate().for_each(|(j, s)| *s = from[j * column].abs().max(*s));
            }
            for (scale, inverse) in scales.iter_mut().zip(&mut inverse) {
                (*scale, *inverse) = if *scale < SMALLEST { (0.0, 0.0) } else { (*scale / STEPS, STEPS / *scale) };
            }
            for c in 0..k {
                let from = &w[first * column + c * row..];
                let to = &mut bytes[c / QUAD * QUAD * COLUMNS + c % QUAD..];
                for j in 0..columns {
                    to[j * QUAD] = nearest(from[j * column] * inverse[j]) as u8 ^ OFFSET;
                }
            }
        };
        each(bytes.par_chunks_mut(groups * PAGE).zip(scales.par_chunks_mut(COLUMNS)).enumerate(), fill);
        Self { bytes: bytes.into(), scales: scales.into(), n, k }
    }

    /// The weights as they are multiplied, float32 `[n, k]`.
    pub fn values(&self) -> Vec<f32> {
        let groups = self.k.div_ceil(GROUP);
        let value = |j: usize, c: usize| {
            let at = j / COLUMNS * groups * PAGE + (c / QUAD * COLUMNS + j % COLUMNS) * QUAD + c % QUAD;
            self.scales[j] * (f32::from(self.bytes[at]) - f32::from(OFFSET))
        };
        (0..self.n * self.k).map(|i| value(i / self.k, i % self.k)).collect()
    }
}

/// Weights in panels of [`COLUMNS`] outputs, for products with [`Activations`].
pub(crate) trait Quantised: Sync {
    /// Outputs and inputs.
    fn dims(&self) -> (usize, usize);

    /// Panel `p`: as many pages as a row of activations has groups.
    fn page_bytes(&self, p: usize) -> &[u8];

    /// What is left to do with the products of panel `p`.
    fn finish(&self, p: usize, products: &mut [f32]);

    /// Products of a panel with `R` rows from `first` on.
    fn tile<const R: usize>(level: Level, panel: &[u8], x: &Activations, first: usize) -> [[f32; COLUMNS]; R];

    /// The same with `rows` rows, at most [`AMX_ROWS`], on AMX.
    ///
    /// # Safety
    /// The level [`Level::Amx`] must be available.
    #[cfg(target_arch = "x86_64")]
    unsafe fn tiles(panel: &[u8], x: &Activations, first: usize, rows: usize) -> [[f32; COLUMNS]; AMX_ROWS];

    /// Products of the outputs of panel `p` with the first `rows` rows of `x`: `store(row, products)`. The panel is read once from
    /// memory whatever the number of rows.
    fn panel(&self, p: usize, x: &Activations, rows: usize, store: impl FnMut(usize, &mut [f32])) {
        self.panel_with(Level::best(), p, x, 0, rows, store);
    }

    /// The same with `rows` rows from `first` on.
    fn panel_with(
        &self,
        level: Level,
        p: usize,
        x: &Activations,
        first: usize,
        rows: usize,
        mut store: impl FnMut(usize, &mut [f32]),
    ) {
        let columns = COLUMNS.min(self.dims().0 - p * COLUMNS);
        level.rows::<Self>(self.page_bytes(p), x, first, rows, |row, totals| {
            self.finish(p, &mut totals[..columns]);
            store(row, &mut totals[..columns]);
        });
    }
}

impl Quantised for Int8Matrix {
    fn dims(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    fn page_bytes(&self, p: usize) -> &[u8] {
        let size = self.k.div_ceil(GROUP) * PAGE;
        &self.bytes[p * size..][..size]
    }

    fn finish(&self, p: usize, products: &mut [f32]) {
        scaled(products, &self.scales[p * COLUMNS..][..products.len()]);
    }

    #[inline(always)]
    fn tile<const R: usize>(level: Level, panel: &[u8], x: &Activations, first: usize) -> [[f32; COLUMNS]; R] {
        tile::tile(level, panel, x, first)
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn tiles(panel: &[u8], x: &Activations, first: usize, rows: usize) -> [[f32; COLUMNS]; AMX_ROWS] {
        let (bytes, steps) = x.rows(first, rows);
        // SAFETY: promised by the caller.
        unsafe { super::amx::multiply_int8(panel, bytes, steps, rows) }
    }
}

/// The integer nearest to `x`, |x| ≤ 127; anything where `x` is not finite.
#[inline(always)]
pub(super) fn nearest(x: f32) -> i32 {
    ((x + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32)
}

dispatch!(
    /// `totals *= scales`.
    fn scaled(totals: &mut [f32], scales: &[f32]);
    fma => {
        for (total, scale) in totals.iter_mut().zip(scales) {
            *total *= scale;
        }
    }
);

dispatch!(
    /// `out += x`.
    fn add(out: &mut [f32], x: &[f32]);
    fma => {
        for (o, x) in out.iter_mut().zip(x) {
            *o += x;
        }
    }
);

/// Adds `a · wᵀ` to `out`, for `a` `[m, k]` and `out` `[m, n]`. A value of `a` that is not finite makes its row not finite.
pub fn multiply_add(weights: &Int8Matrix, m: usize, a: &[f32], out: &mut [f32]) {
    multiply_add_with(Level::best(), weights, m, a, out);
}

/// [`multiply_add`] for any weights.
pub(super) fn multiply_add_with<W: Quantised>(level: Level, weights: &W, m: usize, a: &[f32], out: &mut [f32]) {
    let (n, k) = weights.dims();
    assert!(a.len() == m * k && out.len() == m * n, "product of 8-bit activations: input or output size");
    if m == 0 {
        return;
    }
    let x = Activations::new(a, m, k);
    let (size, blocks, panels) = (weights.page_bytes(0).len(), m.div_ceil(BLOCK), n.div_ceil(COLUMNS));
    let shared = SharedMut::new(out);
    let task = |first: usize, rows: usize, p: usize| {
        weights.panel_with(level, p, &x, first, rows, |row, products| {
            let to = shared.at(row * n + p * COLUMNS, products.len());
            // SAFETY: this task alone writes these columns of its rows; `at` checked the span.
            add(unsafe { std::slice::from_raw_parts_mut(to, products.len()) }, products);
        });
    };
    let job = |i: usize| {
        let (block, p) = (i / panels, i % panels);
        task(block * BLOCK, BLOCK.min(m - block * BLOCK), p);
    };
    let least = TASK.div_ceil(size * BLOCK.min(m));
    if panels * blocks <= least {
        (0..blocks * panels).for_each(job);
    } else {
        each((0..blocks * panels).into_par_iter().with_min_len(least), job);
    }
}

impl Pack for Int8Matrix {
    const KIND: &'static str = "int8";

    fn arrays(&self) -> Vec<(&'static str, Array)> {
        vec![("bytes", Array::from(&self.bytes)), ("scales", Array::from(&self.scales))]
    }

    fn from_arrays(n: usize, k: usize, arrays: &Arrays<'_>) -> Option<Self> {
        let (panels, groups) = (n.div_ceil(COLUMNS), k.div_ceil(GROUP));
        let (bytes, scales) = (arrays.get("bytes", panels * groups * PAGE)?, arrays.get("scales", panels * COLUMNS)?);
        Some(Self { bytes, scales, n, k })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, stream: u64) -> Vec<f32> {
        crate::draws::normals(stream, "test", 0, 1, n).map(|m| m.data).unwrap_or_default()
    }

    fn levels() -> Vec<Level> {
        Level::all()
    }

    fn product(level: Level, w: &Int8Matrix, m: usize, a: &[f32]) -> Vec<f32> {
        let mut out = vec![0.5; m * w.n];
        multiply_add_with(level, w, m, a, &mut out);
        out
    }

    /// m, n, k: one row and many, whole and broken panels, groups and tiles.
    const SIZES: [(usize, usize, usize); 8] =
        [(1, 1, 1), (1, 64, 64), (1, 200, 257), (5, 65, 24), (6, 128, 1024), (7, 63, 130), (97, 70, 96), (200, 192, 512)];

    #[test]
    fn int8_products_stay_within_half_a_step_of_float64() {
        for (m, n, k) in SIZES {
            let (mut a, w) = (noise(m * k, 1), noise(n * k, 2));
            a[0] = 40.0; // an outlier
            let matrix = Int8Matrix::new(&w, n, k, k, 1);
            let (values, out) = (matrix.values(), product(Level::best(), &matrix, m, &a));
            let (mut square, mut squares) = (0f64, 0f64);
            for i in 0..m {
                let row = &a[i * k..(i + 1) * k];
                let steps: Vec<f32> = row.chunks(GROUP).map(|g| g.iter().fold(0f32, |a, v| a.max(v.abs())) / STEPS).collect();
                for j in 0..n {
                    let (mut truth, mut bound, mut size) = (0f64, 0f64, 0f64);
                    for c in 0..k {
                        let (x, w, rounded) = (f64::from(row[c]), f64::from(w[j * k + c]), f64::from(values[j * k + c]));
                        truth += x * w;
                        size += (x * rounded).abs();
                        bound += x.abs() * f64::from(matrix.scales[j]) / 2.0 + rounded.abs() * f64::from(steps[c / GROUP]) / 2.0;
                    }
                    let error = f64::from(out[i * n + j]) - 0.5 - truth;
                    assert!(error.abs() <= bound * 1.0001 + size * 1e-6 + 1e-6, "{m} {n} {k} at {i},{j}: {error} above {bound}");
                    (square, squares) = (square + error * error, squares + truth * truth);
                }
            }
            if m * n > 1000 {
                assert!((square / squares).sqrt() < 0.02, "{m} {n} {k}: {}", (square / squares).sqrt());
            }
        }
    }

    #[test]
    fn levels_and_row_counts_give_the_same_bits() {
        for (m, n, k) in SIZES {
            let (a, w) = (noise(m * k, 3), noise(n * k, 4));
            let matrix = Int8Matrix::new(&w, n, k, k, 1);
            let expected = product(Level::Plain, &matrix, m, &a);
            for level in levels() {
                assert!(product(level, &matrix, m, &a) == expected, "{level:?} {m} {n} {k}");
            }
            for (row, out) in a.chunks(k).zip(expected.chunks(n)) {
                assert!(product(Level::best(), &matrix, 1, row) == out, "one row of {m} {n} {k}");
            }
        }
    }

    #[test]
    fn threads_give_the_same_bits() {
        let (m, n, k) = (130, 700, 320);
        let (a, w) = (noise(m * k, 9), noise(n * k, 10));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok()?;
            pool.install(|| {
                let matrix = Int8Matrix::new(&w, n, k, k, 1);
                Some((product(Level::best(), &matrix, m, &a), product(Level::best(), &matrix, 1, &a[..k])))
            })
        };
        let one = run(1);
        assert!(one.is_some() && one == run(3));
    }

    #[test]
    fn integer_sums_are_exact_at_the_extremes() {
        // every weight and activation is ±127 steps: the largest sums that there are
        let (n, k) = (64, 192);
        for (x, w) in [(1.0f32, 1.0f32), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)] {
            let matrix = Int8Matrix::new(&vec![w; n * k], n, k, k, 1);
            for level in levels() {
                let mut out = vec![0.0; n];
                multiply_add_with(level, &matrix, 1, &vec![x; k], &mut out);
                assert!(out.iter().all(|o| (o - x * w * k as f32).abs() < 1e-4), "{level:?}: {}", out[0]);
            }
        }
    }

    #[test]
    fn both_layouts_hold_the_same_matrix() {
        let (n, k) = (130, 70);
        let w = noise(n * k, 5);
        let turned: Vec<f32> = (0..k * n).map(|i| w[i % n * k + i / n]).collect();
        let (rows, columns) = (Int8Matrix::new(&w, n, k, k, 1), Int8Matrix::new(&turned, n, k, 1, n));
        assert!(rows.bytes == columns.bytes && rows.scales == columns.scales);
        for (w, found) in w.chunks(k).zip(rows.values().chunks(k)) {
            let step = w.iter().fold(0f32, |a, v| a.max(v.abs())) / STEPS;
            assert!(w.iter().zip(found).all(|(w, v)| (w - v).abs() <= 0.5001 * step));
        }
    }

    #[test]
    fn zeros_stay_zeros_and_faults_are_seen() {
        let mut w = noise(3 * 64, 6);
        w[64..128].fill(0.0);
        let matrix = Int8Matrix::new(&w, 3, 64, 64, 1);
        for level in levels() {
            assert_eq!(product(level, &matrix, 1, &[0.0; 64]), [0.5; 3]);
            assert_eq!(product(level, &matrix, 1, &noise(64, 7))[1], 0.5);
            for fault in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut a = noise(64, 8);
                a[5] = fault;
                assert!(product(level, &matrix, 1, &a).iter().all(|v| !v.is_finite()), "{level:?} {fault}");
            }
        }
    }
}
