//! Matrices dealt into panels of 64 columns `[n / 64, k, 64]`, as the tiles read them.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m512, __mmask16, _MM_HINT_T0, _mm_prefetch, _mm512_castpd_ps, _mm512_castps_pd, _mm512_maskz_loadu_ps, _mm512_setzero_ps,
    _mm512_shuffle_f32x4, _mm512_storeu_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};
use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::tiles::{DEPTH, WIDTH, any_available, multiply};
use crate::packed::{Array, Arrays, Pack, Stored};
use crate::pages::room;
use crate::threads::each;

/// Columns and steps of k that are dealt at a time.
const BLOCK: usize = 16;

/// How far ahead rows are fetched, in numbers.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 64;

/// A matrix `[k, n]` where it lies: element `(k, n)` is at `n * column + k * row` of `data`.
#[derive(Clone, Copy)]
pub(super) struct Plain<'a> {
    data: &'a [f32],
    n: usize,
    k: usize,
    column: usize,
    row: usize,
}

impl<'a> Plain<'a> {
    pub(super) fn new(data: &'a [f32], n: usize, k: usize, column: usize, row: usize) -> Self {
        assert!(n > 0 && k > 0 && (n - 1) * column + (k - 1) * row < data.len(), "panels: size");
        assert!(column == 1 || row == 1, "panels: columns or rows of consecutive numbers");
        Self { data, n, k, column, row }
    }

    /// Number of panels.
    pub(super) fn panels(self) -> usize {
        self.n.div_ceil(WIDTH)
    }

    /// As [`Panels::multiply`], each piece of a panel being dealt right before it is used: for a product that is not worth memory
    /// for all panels.
    ///
    /// # Safety
    /// As [`Panels::multiply`].
    pub(super) unsafe fn multiply(
        self,
        panels: std::ops::Range<usize>,
        m: usize,
        a: *const f32,
        a_stride: usize,
        out: *mut f32,
        out_stride: usize,
    ) {
        let mut piece = [const { MaybeUninit::uninit() }; DEPTH * WIDTH];
        for start in (0..self.k).step_by(DEPTH) {
            let depth = DEPTH.min(self.k - start);
            for p in panels.clone() {
                let b = self.deal(p, start, &mut piece[..depth * WIDTH]);
                // SAFETY: promised by the caller.
                unsafe {
                    let (a, out) = (a.add(start), out.add(p * WIDTH));
                    multiply(m, WIDTH.min(self.n - p * WIDTH), depth, a, a_stride, b, out, out_stride);
                }
            }
        }
    }

    /// Fills `to` with the steps of panel `p` from `start` on; columns behind the last are zero.
    fn deal(self, p: usize, start: usize, to: &mut [MaybeUninit<f32>]) -> &[f32] {
        let (first, count) = (p * WIDTH, to.len() / WIDTH);
        let columns = WIDTH.min(self.n - first);
        assert!(start + count <= self.k && to.len() == count * WIDTH, "panels: piece");
        if self.row == 1 {
            for c in (0..WIDTH).step_by(BLOCK) {
                for i in (0..count).step_by(BLOCK) {
                    let (lines, steps) = (BLOCK.min(columns.saturating_sub(c)), BLOCK.min(count - i));
                    let from = &self.data[((first + c) * self.column + start + i).min(self.data.len())..];
                    transpose(from, self.column, lines, steps, &mut to[i * WIDTH + c..]);
                }
            }
        } else {
            for (i, to) in to.chunks_exact_mut(WIDTH).enumerate() {
                let from = &self.data[(start + i) * self.row + first..][..columns];
                let (cells, behind) = to.split_at_mut(columns);
                cells.iter_mut().zip(from).for_each(|(to, v)| {
                    to.write(*v);
                });
                behind.iter_mut().for_each(|to| {
                    to.write(0.0);
                });
            }
        }
        // SAFETY: every element has been written above.
        unsafe { std::slice::from_raw_parts(to.as_ptr().cast(), to.len()) }
    }
}

/// Writes `lines` ≤ 16 rows of `steps` ≤ 16 numbers, `stride` apart, as columns: `to[i * 64 + c] = from[c * stride + i]`, zero for
/// `c` from `lines` to 15.
pub(super) fn transpose(from: &[f32], stride: usize, lines: usize, steps: usize, to: &mut [MaybeUninit<f32>]) {
    assert!(lines == 0 || (lines - 1) * stride + steps <= from.len(), "panels: read");
    assert!(steps > 0 && (steps - 1) * WIDTH + BLOCK <= to.len(), "panels: write");
    #[cfg(target_arch = "x86_64")]
    if super::tiles::available() {
        // SAFETY: the CPU has AVX-512; the sizes have just been checked.
        return unsafe { transpose_avx512(from.as_ptr(), stride, lines, steps, to.as_mut_ptr().cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    if lines == BLOCK && steps == BLOCK {
        // SAFETY: the sizes have just been checked.
        return unsafe { super::tiles::neon::transpose(from.as_ptr(), stride, to.as_mut_ptr().cast()) };
    }
    for i in 0..steps {
        for c in 0..BLOCK {
            to[i * WIDTH + c].write(if c < lines { from[c * stride + i] } else { 0.0 });
        }
    }
}

/// # Safety
/// The CPU must have AVX-512; `lines` rows of `steps` numbers must be valid at `from`, `steps` rows of 16 at `to`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
unsafe fn transpose_avx512(from: *const f32, stride: usize, lines: usize, steps: usize, to: *mut f32) {
    let mask: __mmask16 = if steps >= BLOCK { !0 } else { (1 << steps) - 1 };
    let zero = _mm512_setzero_ps();
    let mut rows: [__m512; BLOCK] = [zero; BLOCK];
    for (i, row) in rows.iter_mut().enumerate().take(lines) {
        // SAFETY: promised by the caller; numbers from `steps` on are not read.
        *row = unsafe { _mm512_maskz_loadu_ps(mask, from.add(i * stride)) };
        // sixteen rows are more streams than the hardware follows
        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(i * stride + AHEAD).cast());
    }
    let (mut pairs, mut fours, mut out) = ([zero; BLOCK], [zero; BLOCK], [zero; BLOCK]);
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    for i in 0..4 {
        // quarter l of fours[4i + j]: number 4l + j of rows 4i to 4i + 3
        let at = |j: usize| _mm512_castps_pd(pairs[4 * i + j]);
        fours[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(at(0), at(2)));
        fours[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(at(0), at(2)));
        fours[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(at(1), at(3)));
        fours[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(at(1), at(3)));
    }
    for j in 0..4 {
        let even = |i: usize| _mm512_shuffle_f32x4::<0x88>(fours[i + j], fours[i + 4 + j]); // quarters 0 and 2 of both
        let odd = |i: usize| _mm512_shuffle_f32x4::<0xdd>(fours[i + j], fours[i + 4 + j]); // quarters 1 and 3
        out[j] = _mm512_shuffle_f32x4::<0x88>(even(0), even(8));
        out[4 + j] = _mm512_shuffle_f32x4::<0x88>(odd(0), odd(8));
        out[8 + j] = _mm512_shuffle_f32x4::<0xdd>(even(0), even(8));
        out[12 + j] = _mm512_shuffle_f32x4::<0xdd>(odd(0), odd(8));
    }
    for (i, value) in out.into_iter().enumerate().take(steps) {
        // SAFETY: promised by the caller.
        unsafe { _mm512_storeu_ps(to.add(i * WIDTH), value) };
    }
}

/// A matrix `[k, n]` in panels, the last filled up with zeros.
#[derive(Clone, Debug)]
pub struct Panels {
    data: Stored<f32>,
    n: usize,
    k: usize,
}

impl Panels {
    /// A weight `[n, k]`, or `None` where products do not read it from panels: on other CPUs, and below 16 outputs.
    pub fn of_weight(weight: &[f32], n: usize, k: usize) -> Option<Self> {
        (any_available() && n >= BLOCK && k > 0).then(|| Self::new(Plain::new(weight, n, k, k, 1)))
    }

    /// Deals a whole matrix.
    pub(super) fn new(plain: Plain<'_>) -> Self {
        let (n, k) = (plain.n, plain.k);
        let len = plain.panels() * k * WIDTH;
        let mut data: Vec<f32> = room(len);
        each(data.spare_capacity_mut()[..len].par_chunks_mut(DEPTH.min(k) * WIDTH).enumerate(), |(i, to)| {
            // a chunk may end one panel and begin the next
            let (mut at, mut rest) = (i * DEPTH.min(k), to);
            while !rest.is_empty() {
                let (p, start) = (at / k, at % k);
                let (piece, more) = rest.split_at_mut((k - start).min(rest.len() / WIDTH) * WIDTH);
                plain.deal(p, start, piece);
                at += piece.len() / WIDTH;
                rest = more;
            }
        });
        // SAFETY: every element of every panel has been written above.
        unsafe { data.set_len(len) };
        Self { data: data.into(), n, k }
    }

    /// Columns and rows `(n, k)` of the matrix: outputs and inputs of a weight.
    pub fn dims(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    /// The weight `[n, k]` that [`Self::of_weight`] was given.
    pub fn to_weight(&self) -> Vec<f32> {
        let at = |i: usize| ((i / self.k / WIDTH) * self.k + i % self.k) * WIDTH + i / self.k % WIDTH;
        (0..self.n * self.k).map(|i| self.data[at(i)]).collect()
    }

    /// Number of panels.
    pub(super) fn count(&self) -> usize {
        self.n.div_ceil(WIDTH)
    }

    /// Adds `a[m, k] · panels` to the columns of `panels` in `out`, on this thread.
    ///
    /// # Safety
    /// [`any_available`](super::tiles::any_available) must hold. Rows of k numbers at `a + i * a_stride` and of n numbers at
    /// `out + i * out_stride` must be valid for `i < m`, and nothing else may touch those columns of `out` meanwhile.
    pub(super) unsafe fn multiply(
        &self,
        panels: std::ops::Range<usize>,
        m: usize,
        a: *const f32,
        a_stride: usize,
        out: *mut f32,
        out_stride: usize,
    ) {
        // SAFETY: promised by the caller.
        unsafe { multiply_dealt(&self.data, self.n, self.k, panels, m, a, a_stride, out, out_stride) };
    }
}

/// As [`Panels::multiply`], for the panels of a matrix `[k, n]` in anybody's memory.
///
/// # Safety
/// As [`Panels::multiply`].
pub(super) unsafe fn multiply_dealt(
    data: &[f32],
    n: usize,
    k: usize,
    panels: std::ops::Range<usize>,
    m: usize,
    a: *const f32,
    a_stride: usize,
    out: *mut f32,
    out_stride: usize,
) {
    for start in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - start);
        for p in panels.clone() {
            let b = &data[(p * k + start) * WIDTH..][..depth * WIDTH];
            // SAFETY: promised by the caller.
            unsafe { multiply(m, WIDTH.min(n - p * WIDTH), depth, a.add(start), a_stride, b, out.add(p * WIDTH), out_stride) };
        }
    }
}

impl Pack for Panels {
    const KIND: &'static str = "panels";

    fn arrays(&self) -> Vec<(&'static str, Array)> {
        vec![("data", Array::from(&self.data))]
    }

    fn from_arrays(n: usize, k: usize, arrays: &Arrays<'_>) -> Option<Self> {
        Some(Self { data: arrays.get("data", n.div_ceil(WIDTH) * k * WIDTH)?, n, k }).filter(|_| any_available())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_agree_with_float64() {
        crate::kernels::level::testing::at_every_level(|| {
            if !any_available() {
                return; // the products then go through the other path, which `matmul` tests
            }
            for (m, n, k) in [(1, 1, 1), (5, 18, 64), (6, 64, 512), (7, 80, 513), (13, 129, 40), (100, 200, 1100)] {
                for (column, row) in [(k, 1), (1, n)] {
                    check(m, n, k, column, row);
                }
            }
        });
    }

    fn check(m: usize, n: usize, k: usize, column: usize, row: usize) {
        let (stride, out_stride) = (k + 2, n + 5);
        let a: Vec<f32> = (0..m * stride).map(|i| ((i * 31 % 101) as f32 - 50.0) / 50.0).collect();
        let b: Vec<f32> = (0..n * k).map(|i| ((i * 17 % 89) as f32 - 44.0) / 44.0).collect();
        let plain = Plain::new(&b, n, k, column, row);
        let panels = Panels::new(plain);
        let (mut out, mut twin) = (vec![0.5; m * out_stride], vec![0.5; m * out_stride]);
        // SAFETY: checked for the CPU; all rows lie inside `a` and `out`.
        unsafe {
            panels.multiply(0..panels.count(), m, a.as_ptr(), stride, out.as_mut_ptr(), out_stride);
            plain.multiply(0..plain.panels(), m, a.as_ptr(), stride, twin.as_mut_ptr(), out_stride);
        }
        assert_eq!(out, twin, "{m} {n} {k}: dealt before and dealt piece by piece");
        for i in 0..m {
            for j in 0..out_stride {
                let product = |c: usize| f64::from(a[i * stride + c]) * f64::from(b[j * column + c * row]);
                let truth = 0.5 + if j < n { (0..k).map(product).sum::<f64>() } else { 0.0 };
                let found = f64::from(out[i * out_stride + j]);
                assert!((found - truth).abs() < 1e-6 * k as f64, "{m} {n} {k} at {i},{j}: {found} {truth}");
            }
        }
    }

    #[test]
    fn panels_hold_the_matrix_and_zeros() {
        crate::kernels::level::testing::at_every_level(|| {
            for (n, k) in [(1, 1), (16, 16), (70, 300), (64, 257), (129, 40), (200, 15)] {
                let values: Vec<f32> = (1..=n * k).map(|i| i as f32).collect();
                for (column, row) in [(k, 1), (1, n)] {
                    let panels = Panels::new(Plain::new(&values, n, k, column, row));
                    assert_eq!(panels.data.len(), n.div_ceil(WIDTH) * WIDTH * k);
                    for (at, value) in panels.data.iter().enumerate() {
                        let (j, i) = (at / WIDTH / k * WIDTH + at % WIDTH, at / WIDTH % k);
                        let truth = if j < n { values[j * column + i * row] } else { 0.0 };
                        assert_eq!(*value, truth, "{n} {k} {column} at {i},{j}");
                    }
                    if row == 1 {
                        assert_eq!(panels.to_weight(), values);
                    }
                }
            }
        });
    }

    #[test]
    fn a_weight_is_dealt_where_products_read_it_so() {
        assert_eq!(Panels::of_weight(&[0.5; 64], 16, 4).map(|p| p.dims()), any_available().then_some((16, 4)));
        assert!(Panels::of_weight(&[0.5; 60], 15, 4).is_none());
    }
}
