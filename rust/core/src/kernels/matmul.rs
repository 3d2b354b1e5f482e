//! `out[m, n] = a[m, k] · w[n, k]ᵀ + bias[n]`: the product behind every layer. Weights are `[out, in]`, as PyTorch stores them.

use gemm::Parallelism;
use rayon::prelude::*;

use super::bf16::{Bf16Matrix, round_multiply_add};
use super::block_float::{self, BlockFloatMatrix};
use super::maths::Fma;
use super::panels::{Panels, Plain};
use super::pointer::SharedMut;
use super::simd::dispatch;
use crate::threads::each;

/// Up to this many rows the product reads the weights row by row (memory-bound) instead of through the blocked GEMM.
const FEW_ROWS: usize = 4;
/// Products below this many multiply-adds are not worth a second thread.
const PARALLEL_FROM: usize = 1 << 18;
/// Products from this many multiply-adds on are worth dealing plain weights into panels.
const TILES_FROM: usize = 1 << 15;
/// Most rows of a task of the tiled product, from dealt weights, whose pieces are then fetched from far away less often, and from
/// plain ones, whose pieces every task deals for itself.
const TILE_ROWS: [usize; 2] = [264, 288];
const LANES: usize = 16;

/// Σ a·b in 4 × 16 interleaved lanes.
#[inline(always)]
pub(super) fn dot_lanes(fma: impl Fma, a: &[f32], b: &[f32]) -> f32 {
    // Four variables, whole arrays in and out, no index that varies: only so do the lanes stay in vector registers.
    let add = |lanes: [f32; LANES], a: &[f32], b: &[f32]| -> [f32; LANES] {
        let mut next = lanes;
        for ((lane, a), b) in next.iter_mut().zip(a).zip(b) {
            *lane = fma(*a, *b, *lane);
        }
        next
    };
    let (mut s, mut t, mut u, mut v) = ([0f32; LANES], [0f32; LANES], [0f32; LANES], [0f32; LANES]);
    let (chunks_a, chunks_b) = (a.chunks_exact(4 * LANES), b.chunks_exact(4 * LANES));
    let (rest_a, rest_b) = (chunks_a.remainder(), chunks_b.remainder());
    for (a, b) in chunks_a.zip(chunks_b) {
        s = add(s, &a[..LANES], &b[..LANES]);
        t = add(t, &a[LANES..2 * LANES], &b[LANES..2 * LANES]);
        u = add(u, &a[2 * LANES..3 * LANES], &b[2 * LANES..3 * LANES]);
        v = add(v, &a[3 * LANES..], &b[3 * LANES..]);
    }
    if !rest_a.is_empty() {
        let (mut a, mut b) = ([0f32; 4 * LANES], [0f32; 4 * LANES]);
        let n = rest_a.len().min(rest_b.len());
        a[..n].copy_from_slice(&rest_a[..n]);
        b[..n].copy_from_slice(&rest_b[..n]);
        s = add(s, &a[..LANES], &b[..LANES]);
        t = add(t, &a[LANES..2 * LANES], &b[LANES..2 * LANES]);
        u = add(u, &a[2 * LANES..3 * LANES], &b[2 * LANES..3 * LANES]);
        v = add(v, &a[3 * LANES..], &b[3 * LANES..]);
    }
    let all: [f32; LANES] = std::array::from_fn(|l| (s[l] + t[l]) + (u[l] + v[l]));
    across(all)
}

/// The sum of all lanes.
#[inline(always)]
pub(super) fn across(all: [f32; LANES]) -> f32 {
    let half: [f32; LANES / 2] = std::array::from_fn(|l| all[l] + all[l + LANES / 2]);
    let quarter: [f32; LANES / 4] = std::array::from_fn(|l| half[l] + half[l + LANES / 4]);
    (quarter[0] + quarter[2]) + (quarter[1] + quarter[3])
}

dispatch!(
    /// Σ a·b in 4 × 16 interleaved lanes.
    pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32;
    fma => {
        dot_lanes(fma, a, b)
    }
);

/// A strided view of rows inside a slice: row `i` starts at `offset + i * stride`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a, T = f32> {
    /// The memory.
    pub data: &'a [T],
    /// Start of row 0.
    pub offset: usize,
    /// Distance between the starts of two rows; rows may overlap.
    pub stride: usize,
}

/// A weight `[n, k]`.
#[derive(Clone, Copy, Debug)]
pub enum Weight<'a> {
    /// Row-major.
    Plain(&'a [f32]),
    /// Dealt once for all products: for weights that meet many rows.
    Dealt(&'a Panels),
    /// Rounded to bfloat16; the input is rounded too.
    Bf16(&'a Bf16Matrix),
    /// Of 20 bits with shared scales, in float32 arithmetic: for weights that mostly meet few rows.
    BlockFloat(&'a BlockFloatMatrix),
}

impl Weight<'_> {
    fn fits(self, n: usize, k: usize) -> bool {
        match self {
            Self::Plain(w) => n.checked_mul(k) == Some(w.len()),
            Self::Dealt(panels) => panels.dims() == (n, k),
            Self::Bf16(matrix) => matrix.dims() == (n, k),
            Self::BlockFloat(matrix) => matrix.dims() == (n, k),
        }
    }
}

/// Do `m` rows of `width` numbers, `stride` apart from `offset` on, lie inside `len`, without a sum that wraps?
pub(super) fn rows_lie_inside(len: usize, offset: usize, m: usize, stride: usize, width: usize) -> bool {
    let Some(last) = m.checked_sub(1) else { return true };
    let end = last.checked_mul(stride).and_then(|n| n.checked_add(offset)).and_then(|n| n.checked_add(width));
    end.is_some_and(|end| end <= len)
}

/// `out` row `i` (at `out_offset + i * out_stride`) `= bias + a_i · wᵀ` for `m` rows; `w` is `[n, k]`.
///
/// Rows of `a` may overlap (that is how a convolution becomes one product); rows of `out` may not.
pub fn matmul(
    m: usize,
    n: usize,
    k: usize,
    a: Rows<'_>,
    w: Weight<'_>,
    bias: Option<&[f32]>,
    out: &mut [f32],
    out_offset: usize,
    out_stride: usize,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(w.fits(n, k) && bias.is_none_or(|b| b.len() == n) && out_stride >= n, "matmul: weight or bias size");
    assert!(rows_lie_inside(a.data.len(), a.offset, m, a.stride, k), "matmul: input too short");
    assert!(rows_lie_inside(out.len(), out_offset, m, out_stride, n), "matmul: output too short");
    for row in out[out_offset..].chunks_mut(out_stride).take(m) {
        match bias {
            Some(bias) => row[..n].copy_from_slice(bias),
            None => row[..n].fill(0.0),
        }
    }
    matmul_add(m, n, k, a, w, out, out_offset, out_stride);
}

/// As [`matmul`], but added to what `out` holds.
pub fn matmul_add(
    m: usize,
    n: usize,
    k: usize,
    a: Rows<'_>,
    w: Weight<'_>,
    out: &mut [f32],
    out_offset: usize,
    out_stride: usize,
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    assert!(w.fits(n, k) && out_stride >= n, "matmul: weight size");
    assert!(rows_lie_inside(a.data.len(), a.offset, m, a.stride, k), "matmul: input too short");
    assert!(rows_lie_inside(out.len(), out_offset, m, out_stride, n), "matmul: output too short");
    let w = match w {
        Weight::Dealt(panels) => {
            return tiled(m, n, a, Source::Dealt(panels), &mut out[out_offset..], out_stride);
        }
        Weight::Bf16(matrix) => return round_multiply_add(matrix, m, a, &mut out[out_offset..], out_stride),
        Weight::BlockFloat(matrix) if m <= block_float::FEW_ROWS || !super::tiles::any_available() => {
            return block_float::multiply_few(matrix, m, a, &mut out[out_offset..], out_stride);
        }
        Weight::BlockFloat(matrix) => {
            return tiled(m, n, a, Source::BlockFloat(matrix), &mut out[out_offset..], out_stride);
        }
        Weight::Plain(w) => w,
    };
    if m <= FEW_ROWS {
        return few_rows(m, n, k, a, w, &mut out[out_offset..], out_stride);
    }
    if super::tiles::available() && m * n * k >= TILES_FROM {
        return tiled(m, n, a, Source::Plain(Plain::new(w, n, k, k, 1)), &mut out[out_offset..], out_stride);
    }
    let parallelism = if m * n * k < PARALLEL_FROM { Parallelism::None } else { Parallelism::Rayon(0) };
    // SAFETY: the assertions above keep every row of a, w and out inside its slice; out does not overlap the inputs.
    unsafe {
        let to = (out.as_mut_ptr().add(out_offset), 1, out_stride);
        let from = (a.data.as_ptr().add(a.offset), 1, a.stride);
        super::gemm::gemm((m, n, k), to, true, from, (w.as_ptr(), k, 1), parallelism);
    }
}

/// Where the tiled product takes its panels from.
#[derive(Clone, Copy)]
enum Source<'a> {
    Plain(Plain<'a>),
    Dealt(&'a Panels),
    BlockFloat(&'a BlockFloatMatrix),
}

/// The product in register tiles: blocks of rows by groups of panels, each a task.
fn tiled(m: usize, n: usize, a: Rows<'_>, w: Source<'_>, out: &mut [f32], out_stride: usize) {
    let (count, most) = match w {
        Source::Dealt(panels) => (panels.count(), TILE_ROWS[0]),
        Source::Plain(plain) => (plain.panels(), TILE_ROWS[1]),
        Source::BlockFloat(matrix) => (matrix.count(), TILE_ROWS[1]),
    };
    let shared = SharedMut::new(out);
    let blocks = m.div_ceil(most);
    // few blocks: the panels are shared out too
    let groups = (16 * super::threads()).div_ceil(blocks).min(count);
    let size = count.div_ceil(groups);
    each((0..blocks * groups).into_par_iter(), |job| {
        let (first, group) = (job / groups * most, job % groups * size);
        let rows = most.min(m - first);
        let range = group.min(count)..(group + size).min(count);
        let to = shared.at(first * out_stride, (rows - 1) * out_stride + n);
        // SAFETY: `matmul_add` has checked that all rows lie inside; this task alone writes these rows of these panels.
        unsafe {
            let from = a.data.as_ptr().add(a.offset + first * a.stride);
            match w {
                Source::Dealt(panels) => panels.multiply(range, rows, from, a.stride, to, out_stride),
                Source::Plain(plain) => plain.multiply(range, rows, from, a.stride, to, out_stride),
                Source::BlockFloat(matrix) => matrix.multiply(range, rows, from, a.stride, to, out_stride),
            }
        }
    });
}

/// `out` row `i` (at `out_offset + i * out_stride`) `+= a_i · w` for `m` rows on this thread; `w` is `[k, n]` row-major.
///
/// The weights' layout lets small products run without repacking them.
pub(crate) fn accumulate(
    m: usize,
    n: usize,
    k: usize,
    a: Rows<'_>,
    w: &[f32],
    out: &mut [f32],
    out_offset: usize,
    out_stride: usize,
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    assert!(w.len() == n * k && out_stride >= n, "accumulate: weight size");
    assert!(rows_lie_inside(a.data.len(), a.offset, m, a.stride, k), "accumulate: input too short");
    assert!(rows_lie_inside(out.len(), out_offset, m, out_stride, n), "accumulate: output too short");
    // SAFETY: the assertions above keep every row of a, w and out inside its slice; out does not overlap the inputs.
    unsafe {
        let to = (out.as_mut_ptr().add(out_offset), 1, out_stride);
        let from = (a.data.as_ptr().add(a.offset), 1, a.stride);
        super::gemm::gemm((m, n, k), to, true, from, (w.as_ptr(), 1, n), Parallelism::None);
    }
}

fn few_rows(m: usize, n: usize, k: usize, a: Rows<'_>, w: &[f32], out: &mut [f32], out_stride: usize) {
    let value = |i: usize, j: usize| {
        let row = &a.data[a.offset + i * a.stride..][..k];
        dot(row, &w[j * k..(j + 1) * k])
    };
    if m == 1 {
        let piece = (PARALLEL_FROM / 8 / k.max(1)).clamp(1, n);
        let fill = |(p, out): (usize, &mut [f32])| out.iter_mut().enumerate().for_each(|(j, o)| *o += value(0, p * piece + j));
        if n * k < PARALLEL_FROM / 4 {
            out[..n].chunks_mut(piece).enumerate().for_each(fill);
        } else {
            each(out[..n].par_chunks_mut(piece).enumerate(), fill);
        }
        return;
    }
    for i in 0..m {
        let row = &mut out[i * out_stride..][..n];
        if m * n * k < PARALLEL_FROM / 4 {
            row.iter_mut().enumerate().for_each(|(j, o)| *o += value(i, j));
        } else {
            each(row.par_iter_mut().enumerate().with_min_len(16), |(j, o)| *o += value(i, j));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    #[test]
    fn a_size_that_wraps_lies_outside() {
        assert!(rows_lie_inside(10, 2, 2, 4, 4) && rows_lie_inside(0, 5, 0, 9, 9));
        assert!(!rows_lie_inside(9, 2, 2, 4, 4));
        for (offset, m, stride, width) in [(0, 3, usize::MAX / 2 + 1, 4), (8, 2, usize::MAX - 7, 4), (0, 2, usize::MAX - 3, 4)] {
            assert!(!rows_lie_inside(10, offset, m, stride, width), "{offset} {m} {stride} {width}");
        }
    }

    #[test]
    #[should_panic(expected = "matmul: input too short")]
    fn a_stride_that_wraps_is_refused() {
        let rows = Rows { data: &[1.0; 8], offset: 0, stride: usize::MAX / 2 + 1 };
        matmul(3, 1, 4, rows, Weight::Plain(&[1.0; 4]), None, &mut [0.0; 3], 0, 1);
    }

    #[test]
    fn every_size_agrees_with_float64() {
        at_every_level(|| {
            let sizes =
                [(1, 1, 1), (1, 7, 130), (3, 33, 65), (4, 2048, 300), (5, 9, 64), (40, 70, 129), (200, 64, 512), (300, 90, 70)];
            for ((m, n, k), dealt) in sizes.into_iter().flat_map(|size| [(size, false), (size, true)]) {
                let a: Vec<f32> = (0..m * k).map(|i| ((i * 31 % 101) as f32 - 50.0) / 50.0).collect();
                let w: Vec<f32> = (0..n * k).map(|i| ((i * 17 % 89) as f32 - 44.0) / 44.0).collect();
                let bias: Vec<f32> = (0..n).map(|i| i as f32 / 8.0).collect();
                let stride = n + 3;
                let mut out = vec![-7.0; 2 + m * stride];
                let rows = Rows { data: &a, offset: 0, stride: k };
                let dealt = Panels::of_weight(&w, n, k).filter(|_| dealt);
                let weight = dealt.as_ref().map_or(Weight::Plain(&w), Weight::Dealt);
                matmul(m, n, k, rows, weight, Some(&bias), &mut out, 2, stride);
                for i in 0..m {
                    for j in 0..n {
                        let t: f64 =
                            (0..k).map(|c| f64::from(a[i * k + c]) * f64::from(w[j * k + c])).sum::<f64>() + f64::from(bias[j]);
                        let o = f64::from(out[2 + i * stride + j]);
                        assert!((o - t).abs() < 2e-6 * k as f64, "{m} {n} {k} at {i},{j}: {o} {t}");
                    }
                }
                assert_eq!(out[..2], [-7.0; 2]);
                assert!(out[2 + n..].chunks(stride).all(|gap| gap.iter().take(3).all(|v| *v == -7.0)), "wrote between rows");
            }
        });
    }

    #[test]
    fn accumulate_adds_to_strided_rows() {
        at_every_level(|| {
            for (m, n, k, stride) in [(1, 4, 1, 1), (6, 64, 32, 40), (50, 33, 9, 3)] {
                let a: Vec<f32> = (0..2 + (m - 1) * stride + k).map(|i| ((i * 29 % 37) as f32 - 18.0) / 9.0).collect();
                let w: Vec<f32> = (0..n * k).map(|i| ((i * 13 % 41) as f32 - 20.0) / 20.0).collect();
                let mut out = vec![0.5; 3 + m * (n + 2)];
                accumulate(m, n, k, Rows { data: &a, offset: 2, stride }, &w, &mut out, 3, n + 2);
                assert!(out[..3].iter().all(|v| *v == 0.5));
                for (i, row) in out[3..].chunks(n + 2).enumerate() {
                    for j in 0..n {
                        let sum: f64 = (0..k).map(|x| f64::from(a[2 + i * stride + x]) * f64::from(w[x * n + j])).sum();
                        assert!((f64::from(row[j]) - 0.5 - sum).abs() < 1e-4, "m {m} n {n} k {k} at {i},{j}");
                    }
                    assert!(row[n..].iter().all(|v| *v == 0.5));
                }
            }
        });
    }
}
