//! `out[m, n] += a[m, k] · w[n, k]ᵀ` with both factors rounded to bfloat16 and sums in float32: what CPUs with bfloat16
//! instructions multiply faster than float32, from half the bytes.
//!
//! Weights are rounded once, when they are loaded; activations once a layer, and rows may still overlap, as a convolution's do.
//! A sum runs over k in one order however the work is split, so that the number of threads does not change a bit. CPUs differ in
//! how they round inside a sum.
//!
//! Layout: panels of [`COLUMNS`] outputs, each `[kp / 2, COLUMNS, 2]` with kp = k rounded up to [`DEPTH`]; zeros behind k and n.

pub mod attention;
pub(super) mod heads;
#[cfg(target_arch = "aarch64")]
mod neon;
mod round;
mod softmax;
mod tile;

use std::mem::MaybeUninit;

use rayon::prelude::*;

use round::{round_all, round_pairs, rounder, value};
use tile::Unit;

pub(super) use round::round_piece;

use super::matmul::{Rows, rows_lie_inside};
use super::panels::transpose;
use super::pointer::SharedMut;
use super::scratch;
use crate::packed::{Array, Arrays, Pack, Stored};
use crate::threads::each;

/// Outputs of a panel.
pub(super) const COLUMNS: usize = 64;
/// Consecutive inputs whose products are added in one instruction.
const PAIR: usize = 2;
/// A panel holds a multiple of this many inputs.
const DEPTH: usize = 32;
/// Zeros that stand behind the last row of activations, for units that read more than they need.
pub(super) const SLACK: usize = 64;
/// Rows of a task.
const BLOCK: usize = 96;
/// Columns that are dealt at a time.
const STRIP: usize = 16;

/// Does this CPU multiply bfloat16 faster than float32, at the level in use?
pub fn fast() -> bool {
    Unit::best() != Unit::Plain
}

/// A matrix of bfloat16 with `n` columns (outputs) and `k` rows (inputs).
#[derive(Clone, Debug)]
pub struct Bf16Matrix {
    data: Stored<u16>,
    n: usize,
    k: usize,
}

impl Bf16Matrix {
    /// Rounds a weight `[n, k]`.
    pub fn of_weight(weight: &[f32], n: usize, k: usize) -> Self {
        Self::of_rows(weight, n, k, k)
    }

    /// Rounds the matrix whose column `j` is the k numbers from `j * stride` on.
    pub(super) fn of_rows(w: &[f32], n: usize, k: usize, stride: usize) -> Self {
        assert!(n > 0 && k > 0 && (n - 1) * stride + k <= w.len(), "bf16: weight size");
        Self::new(n, k, |p, panel| {
            // a pair of numbers has the size of a float32, and is dealt as one
            let round = rounder();
            let (mut pairs, mut dealt) = ([0f32; STRIP * DEPTH / PAIR], [MaybeUninit::uninit(); DEPTH / PAIR * COLUMNS]);
            for (c, to) in (0..k).step_by(DEPTH).zip(panel.chunks_exact_mut(DEPTH * COLUMNS)) {
                let steps = DEPTH.min(k - c);
                if steps < DEPTH {
                    pairs.fill(0.0);
                }
                for strip in (0..COLUMNS).step_by(STRIP) {
                    let first = p * COLUMNS + strip;
                    let lines = STRIP.min(n.saturating_sub(first));
                    // SAFETY: the same bytes; u16 needs no more alignment than f32, and takes any value.
                    let numbers = unsafe { std::slice::from_raw_parts_mut(pairs.as_mut_ptr().cast::<u16>(), STRIP * DEPTH) };
                    for (line, to) in numbers.chunks_exact_mut(DEPTH).enumerate().take(lines) {
                        round(&w[(first + line) * stride + c..][..steps], &mut to[..steps]);
                    }
                    transpose(&pairs, DEPTH / PAIR, lines, DEPTH / PAIR, &mut dealt[strip..]);
                }
                // SAFETY: the four strips have written every number; the same bytes, as above.
                to.copy_from_slice(unsafe { std::slice::from_raw_parts(dealt.as_ptr().cast::<u16>(), DEPTH * COLUMNS) });
            }
        })
    }

    /// Rounds the matrix whose row `c` is the n numbers from `c * stride` on.
    pub(super) fn of_columns(w: &[f32], n: usize, k: usize, stride: usize) -> Self {
        assert!(n > 0 && k > 0 && (k - 1) * stride + n <= w.len(), "bf16: weight size");
        Self::new(n, k, |p, panel| {
            let columns = COLUMNS.min(n - p * COLUMNS);
            let row = |c: usize| &w[c * stride + p * COLUMNS..][..columns];
            for (c, to) in (0..k).step_by(PAIR).zip(panel.as_chunks_mut::<PAIR>().0.chunks_exact_mut(COLUMNS)) {
                round_pairs(row(c), (c + 1 < k).then(|| row(c + 1)), to);
            }
        })
    }

    /// Has `fill` write each panel, which is zero before.
    fn new(n: usize, k: usize, fill: impl Fn(usize, &mut [u16]) + Sync) -> Self {
        let size = k.next_multiple_of(DEPTH) * COLUMNS;
        let mut data = vec![0; n.div_ceil(COLUMNS) * size];
        each(data.par_chunks_exact_mut(size).enumerate(), |(p, panel)| fill(p, panel));
        Self { data: data.into(), n, k }
    }

    /// Columns and rows `(n, k)`: outputs and inputs of a weight.
    pub fn dims(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    /// The rounded weight `[n, k]`.
    pub fn to_weight(&self) -> Vec<f32> {
        let size = self.k.next_multiple_of(DEPTH) * COLUMNS;
        let at = |j: usize, c: usize| j / COLUMNS * size + (c / PAIR * COLUMNS + j % COLUMNS) * PAIR + c % PAIR;
        (0..self.n * self.k).map(|i| value(self.data[at(i / self.k, i % self.k)])).collect()
    }

    /// Where its panels are.
    pub(super) fn view(&self) -> View<'_> {
        View { data: &self.data, n: self.n, k: self.k }
    }

    /// As [`View::multiply`].
    ///
    /// # Safety
    /// As [`View::multiply`].
    pub(super) unsafe fn multiply(
        &self,
        panels: std::ops::Range<usize>,
        m: usize,
        a: *const u16,
        a_stride: usize,
        out: *mut f32,
        out_stride: usize,
    ) {
        // SAFETY: promised by the caller.
        unsafe { self.view().multiply(panels, m, a, a_stride, out, out_stride) };
    }
}

/// The panels of a matrix of bfloat16 with `n` columns and `k` rows in anybody's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    data: &'a [u16],
    n: usize,
    k: usize,
}

impl View<'_> {
    /// Adds `a[m, k] · self` to `out`, whose first column is the first of `panels`, on this thread.
    ///
    /// # Safety
    /// Rows of k numbers at `a + i * a_stride`, with [`SLACK`] more behind the last, and of as many numbers as these panels
    /// have columns at `out + i * out_stride` must be valid for `i < m`, and nothing else may touch those of `out` meanwhile.
    pub(super) unsafe fn multiply(
        self,
        panels: std::ops::Range<usize>,
        m: usize,
        a: *const u16,
        a_stride: usize,
        out: *mut f32,
        out_stride: usize,
    ) {
        let (unit, size) = (Unit::best(), self.k.next_multiple_of(DEPTH) * COLUMNS);
        let start = panels.start;
        for p in panels {
            let (panel, columns) = (&self.data[p * size..][..size], COLUMNS.min(self.n - p * COLUMNS));
            // SAFETY: promised by the caller; `best` is available.
            unsafe { unit.multiply(m, columns, self.k, a, a_stride, panel, out.add((p - start) * COLUMNS), out_stride) };
        }
    }
}

impl Pack for Bf16Matrix {
    const KIND: &'static str = "bf16";

    fn arrays(&self) -> Vec<(&'static str, Array)> {
        vec![("data", Array::from(&self.data))]
    }

    fn from_arrays(n: usize, k: usize, arrays: &Arrays<'_>) -> Option<Self> {
        let len = n.div_ceil(COLUMNS) * k.next_multiple_of(DEPTH) * COLUMNS;
        Some(Self { data: arrays.get("data", len)?, n, k })
    }
}

/// Adds `a · wᵀ` to row `i` of `out` at `i * out_stride` for `m` rows. Behind the last row of `a` stand [`SLACK`] more numbers.
pub(super) fn multiply_add(w: &Bf16Matrix, m: usize, a: Rows<'_, u16>, out: &mut [f32], out_stride: usize) {
    let (n, k) = w.dims();
    if m == 0 {
        return;
    }
    assert!(rows_lie_inside(a.data.len(), a.offset, m, a.stride, k + SLACK), "bf16: input too short");
    assert!(out_stride >= n && rows_lie_inside(out.len(), 0, m, out_stride, n), "bf16: output too short");
    in_blocks(m, n, out, out_stride, |first, rows, panels, to| {
        // SAFETY: all rows lie inside (asserted above); this task alone writes these rows of these panels.
        unsafe { w.multiply(panels, rows, a.data.as_ptr().add(a.offset + first * a.stride), a.stride, to, out_stride) };
    });
}

/// Calls `work(first row, rows, panels, their part of the output)` for blocks of `m` rows by groups of panels, which cover `out`
/// `[m, n]` once.
fn in_blocks(
    m: usize,
    n: usize,
    out: &mut [f32],
    out_stride: usize,
    work: impl Fn(usize, usize, std::ops::Range<usize>, *mut f32) + Sync,
) {
    let (shared, blocks, count) = (SharedMut::new(out), m.div_ceil(BLOCK), n.div_ceil(COLUMNS));
    // few blocks: the panels are shared out too
    let groups = (16 * super::threads()).div_ceil(blocks).min(count);
    let size = count.div_ceil(groups);
    each((0..blocks * groups).into_par_iter(), |job| {
        let (first, group) = (job / groups * BLOCK, job % groups * size);
        let rows = BLOCK.min(m - first);
        let panels = group..(group + size).min(count);
        if panels.is_empty() {
            return;
        }
        let columns = (panels.end * COLUMNS).min(n) - panels.start * COLUMNS;
        work(
            first,
            rows,
            panels.clone(),
            shared.at(first * out_stride + panels.start * COLUMNS, (rows - 1) * out_stride + columns),
        );
    });
}

/// The same for float32 rows, rounded on the way.
pub(super) fn round_multiply_add(w: &Bf16Matrix, m: usize, a: Rows<'_>, out: &mut [f32], out_stride: usize) {
    if m == 0 {
        return;
    }
    assert!(rows_lie_inside(a.data.len(), a.offset, m, a.stride, w.k), "bf16: input too short");
    let span = (m - 1) * a.stride + w.k;
    scratch::with_halves(span + SLACK, |data| {
        round_all(&a.data[a.offset..a.offset + span], &mut data[..span]);
        data[span..].fill(0);
        multiply_add(w, m, Rows { data, offset: 0, stride: a.stride }, out, out_stride);
    });
}

#[cfg(test)]
mod tests;
