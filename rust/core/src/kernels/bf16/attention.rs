//! Multi-head attention whose products are in bfloat16: blocks of queries against all keys, softmax in float32 between them.
//! With relative positions (Transformer-XL, arXiv:1901.02860) the scores have a second product, as in
//! [`crate::kernels::relative_attention`].

use std::cell::RefCell;

use rayon::prelude::*;

use super::round::round_all;
use super::softmax::exponentials;
use super::{Bf16Matrix, COLUMNS, DEPTH, SLACK, View};
use crate::kernels::pointer::SharedMut;
use crate::kernels::scratch;
use crate::threads::{each, run};

/// Queries a task handles, a multiple of the rows of a register tile.
pub(in crate::kernels) const BLOCK: usize = 48;

/// What to attend over; `heads` heads of `size` channels, rows of `heads * size` numbers.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Queries `[t, heads * size]`.
    pub q: &'a [f32],
    /// Keys `[s, heads * size]`.
    pub k: &'a [f32],
    /// Values `[s, heads * size]`.
    pub v: &'a [f32],
    /// Number of heads.
    pub heads: usize,
    /// Channels of a head.
    pub size: usize,
    /// Factor on the scores, above 0.
    pub scale: f32,
    /// Relative positions, for as many keys as queries.
    pub positions: Option<Positions<'a>>,
}

/// Adds `r_i · p_(i − j)` to the score of query i and key j.
#[derive(Clone, Copy, Debug)]
pub struct Positions<'a> {
    /// Queries for the positions, `[t, heads * size]`.
    pub r: &'a [f32],
    /// Positions t − 1 down to −(t − 1), `[2t - 1, heads * size]`.
    pub p: &'a [f32],
}

#[derive(Default)]
struct Memory {
    scores: Vec<f32>,
    band: Vec<f32>,
    weights: Vec<u16>,
}

thread_local! {
    /// A task's memory, kept, because every page of a fresh allocation costs a fault.
    static MEMORY: RefCell<Memory> = RefCell::new(Memory::default());
}

/// One head's factors, dealt once for all its queries.
struct Head {
    keys: Bf16Matrix,
    values: Bf16Matrix,
    positions: Option<Bf16Matrix>,
}

/// The queries of a task, of one head and rounded, and the factors that they meet.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Queries<'a> {
    /// The first query and how many there are, at most [`BLOCK`].
    pub(in crate::kernels) first: usize,
    pub(in crate::kernels) rows: usize,
    /// Distance between the starts of two queries.
    pub(in crate::kernels) stride: usize,
    pub(in crate::kernels) scale: f32,
    /// From the first query on, with [`SLACK`] numbers behind the last.
    pub(in crate::kernels) q: &'a [u16],
    pub(in crate::kernels) keys: View<'a>,
    pub(in crate::kernels) values: View<'a>,
    /// The queries for the positions, as `q`, and the positions.
    pub(in crate::kernels) positions: Option<(&'a [u16], View<'a>)>,
}

/// `softmax(scale (q kᵀ + positions)) v`, `[t, heads * size]`.
pub fn attention(a: Attention<'_>) -> Vec<f32> {
    let Attention { q, k, v, heads, size, scale, positions } = a;
    let width = heads * size;
    let (t, s) = (q.len() / width, k.len() / width);
    assert!(s > 0 && q.len() == t * width && k.len() == s * width && v.len() == k.len(), "attention: sizes");
    assert!(positions.is_none_or(|x| s == t && x.r.len() == q.len() && x.p.len() == (2 * t - 1) * width), "attention: positions");
    let deal = |h: usize| Head {
        keys: Bf16Matrix::of_rows(&k[h * size..], s, size, width),
        values: Bf16Matrix::of_columns(&v[h * size..], size, s, width),
        positions: positions.map(|x| Bf16Matrix::of_rows(&x.p[h * size..], 2 * t - 1, size, width)),
    };
    let dealt: Vec<Head> = run(|| (0..heads).into_par_iter().map(deal).collect());
    let mut out = vec![0.0; t * width];
    let shared = SharedMut::new(&mut out);
    let blocks = t.div_ceil(BLOCK);
    let inputs = 1 + usize::from(positions.is_some());
    scratch::with_halves(inputs * q.len() + SLACK, |queries| {
        round_all(q, &mut queries[..q.len()]);
        if let Some(positions) = positions {
            round_all(positions.r, &mut queries[q.len()..2 * q.len()]);
        }
        queries[inputs * q.len()..].fill(0);
        each((0..heads * blocks).into_par_iter(), |job| {
            let (head, first) = (job / blocks, job % blocks * BLOCK);
            let (rows, from) = (BLOCK.min(t - first), first * width + head * size);
            let Head { keys, values, positions } = &dealt[head];
            let task = Queries {
                first,
                rows,
                stride: width,
                scale,
                q: &queries[from..],
                keys: keys.view(),
                values: values.view(),
                positions: positions.as_ref().map(|positions| (&queries[q.len() + from..], positions.view())),
            };
            // SAFETY: this task alone writes these columns of its rows of the output, which are zero; `at` checked the span.
            unsafe { attend(task, shared.at(from, (rows - 1) * width + size), width) };
        });
    });
    out
}

/// Attention of some queries of one head, added to the zeros of their rows at `to + i * to_stride`, on this thread.
///
/// # Safety
/// As many numbers as values have columns must be valid in each of these rows, and nobody else may use them meanwhile.
pub(in crate::kernels) unsafe fn attend(task: Queries<'_>, to: *mut f32, to_stride: usize) {
    let Queries { first, rows, stride: width, scale, q, keys, values, positions } = task;
    let (s, size) = (keys.n, values.n);
    let stride = s.next_multiple_of(DEPTH);
    let long_enough = |x: &[u16]| (rows - 1) * width + keys.k + SLACK <= x.len();
    assert!((1..=BLOCK).contains(&rows) && values.k == s && long_enough(q), "attention: a task's queries");
    assert!(
        positions.is_none_or(|(r, p)| long_enough(r) && p.n == 2 * s - 1 && first + rows <= s),
        "attention: a task's positions"
    );
    MEMORY.with_borrow_mut(|Memory { scores, band, weights }| {
        // SAFETY: the rows of this block lie inside the queries, with SLACK numbers behind them.
        unsafe { scores_of(keys, 0..s.div_ceil(COLUMNS), rows, q, width, scores, s) };
        if let Some((r, positions)) = positions {
            // the block's last query meets key 0 at position row s - first - rows, its first meets key s - 1 at 2s - 2 - first
            let (low, end) = (s - first - rows, 2 * s - 1 - first);
            let panels = low / COLUMNS..end.div_ceil(COLUMNS);
            let wide = panels.len() * COLUMNS;
            // SAFETY: as above; the band has the columns of these panels.
            unsafe { scores_of(positions, panels, rows, r, width, band, wide) };
            for (i, (row, band)) in scores.chunks_exact_mut(s).zip(band.chunks_exact(wide)).enumerate().take(rows) {
                let shifted = &band[low % COLUMNS + rows - 1 - i..][..s];
                row.iter_mut().zip(shifted).for_each(|(score, p)| *score += p);
            }
        }
        weights.resize((BLOCK * stride + SLACK).max(weights.len()), 0);
        let mut sums = [0.0; BLOCK];
        let lines = scores.chunks_exact(s).zip(weights.chunks_exact_mut(stride)).zip(&mut sums);
        for ((scores, weights), sum) in lines.take(rows) {
            *sum = exponentials(scores, scale, &mut weights[..s]);
            weights[s..].fill(0);
        }
        weights[rows * stride..][..SLACK].fill(0);
        // SAFETY: the rows of weights lie inside, with SLACK zeros behind them; the output is the caller's.
        unsafe {
            values.multiply(0..size.div_ceil(COLUMNS), rows, weights.as_ptr(), stride, to, to_stride);
            for (i, sum) in sums[..rows].iter().enumerate() {
                let row = std::slice::from_raw_parts_mut(to.add(i * to_stride), size);
                row.iter_mut().for_each(|v| *v /= sum);
            }
        }
    });
}

/// `out[rows, stride] = a · columns` of the matrix's `panels`, which may have fewer columns than `stride` says.
///
/// # Safety
/// `rows` rows of the matrix's depth must be valid at `a`, `a_stride` apart, with [`SLACK`] numbers behind the last.
unsafe fn scores_of(
    matrix: View<'_>,
    panels: std::ops::Range<usize>,
    rows: usize,
    a: &[u16],
    a_stride: usize,
    out: &mut Vec<f32>,
    stride: usize,
) {
    out.resize((rows * stride).max(out.len()), 0.0);
    for (i, p) in panels.enumerate() {
        let columns = COLUMNS.min(matrix.n - p * COLUMNS);
        // zeros while they are on their way to the sums anyway
        for row in out.chunks_exact_mut(stride).take(rows) {
            row[i * COLUMNS..][..columns].fill(0.0);
        }
        // SAFETY: promised by the caller; the columns of this panel lie inside the rows.
        unsafe { matrix.multiply(p..p + 1, rows, a.as_ptr(), a_stride, out[i * COLUMNS..].as_mut_ptr(), stride) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    fn noise(n: usize, stream: u64) -> Vec<f32> {
        crate::draws::normals(stream, "test", 0, 1, n).map(|m| m.data).unwrap_or_default()
    }

    fn error(found: &[f32], truth: &[f64]) -> f64 {
        let square: f64 = found.iter().zip(truth).map(|(f, t)| (f64::from(*f) - t).powi(2)).sum();
        (square / truth.iter().map(|t| t * t).sum::<f64>()).sqrt()
    }

    /// With float64 everywhere.
    fn definition(a: Attention<'_>) -> Vec<f64> {
        let width = a.heads * a.size;
        let (t, s) = (a.q.len() / width, a.k.len() / width);
        let mut out = vec![0.0; t * width];
        for (i, h) in (0..t).flat_map(|i| (0..a.heads).map(move |h| (i, h))) {
            let at = |x: &[f32], i: usize, c: usize| f64::from(x[i * width + h * a.size + c]);
            let score = |j: usize| {
                let position = |c: usize| a.positions.map_or(0.0, |x| at(x.r, i, c) * at(x.p, t - 1 + j - i, c));
                (0..a.size).map(|c| at(a.q, i, c) * at(a.k, j, c) + position(c)).sum::<f64>() * f64::from(a.scale)
            };
            let weights: Vec<f64> = (0..s).map(|j| score(j).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for c in 0..a.size {
                out[i * width + h * a.size + c] = (0..s).map(|j| weights[j] / sum * at(a.v, j, c)).sum();
            }
        }
        out
    }

    #[test]
    fn agrees_with_the_definition() {
        at_every_level(|| {
            for (t, s, heads, size) in [(1, 1, 1, 4), (5, 37, 3, 8), (48, 64, 2, 64), (130, 130, 2, 7), (70, 201, 1, 64)] {
                let width = heads * size;
                let (q, k, v) = (noise(t * width, 1), noise(s * width, 2), noise(s * width, 3));
                let a = Attention { q: &q, k: &k, v: &v, heads, size, scale: 1.0 / (size as f32).sqrt(), positions: None };
                let found = error(&attention(a), &definition(a));
                assert!(found < 8e-3, "{t} {s} {heads} {size}: {found}");
            }
            for (t, heads, size) in [(1, 1, 4), (2, 2, 8), (48, 1, 8), (49, 2, 4), (150, 2, 16)] {
                let width = heads * size;
                let [q, r, k, v] = [1, 2, 3, 4].map(|stream| noise(t * width, stream));
                let p = noise((2 * t - 1) * width, 5);
                let positions = Some(Positions { r: &r, p: &p });
                let a = Attention { q: &q, k: &k, v: &v, heads, size, scale: 0.7 / (size as f32).sqrt(), positions };
                let found = error(&attention(a), &definition(a));
                assert!(found < 1e-2, "{t} {heads} {size} with positions: {found}");
            }
        });
    }

    #[test]
    fn exact_weights_give_the_mean_of_the_values() {
        // queries of zero weigh all keys by 1: no rounding but that of the values, which are small integers
        let (t, s, heads, size) = (50, 96, 2, 16);
        let width = heads * size;
        let v: Vec<f32> = (0..s * width).map(|i| (i % 13) as f32).collect();
        let (q, k) = (vec![0.0; t * width], noise(s * width, 4));
        let a = Attention { q: &q, k: &k, v: &v, heads, size, scale: 0.25, positions: None };
        let (found, truth) = (attention(a), definition(a));
        assert!(found.iter().zip(&truth).all(|(f, t)| (f64::from(*f) - t).abs() < 1e-5));
    }

    #[test]
    fn threads_give_the_same_bits_and_a_fault_stays_in_its_row() {
        let (t, heads, size) = (101, 2, 32);
        let width = heads * size;
        let (mut q, k, v) = (noise(t * width, 5), noise(t * width, 6), noise(t * width, 7));
        let run = |q: &[f32], threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok()?;
            Some(pool.install(|| attention(Attention { q, k: &k, v: &v, heads, size, scale: 0.2, positions: None })))
        };
        let one = run(&q, 1);
        assert!(one.is_some() && one == run(&q, 2) && one == run(&q, 5));
        q[60 * width + 3] = f32::NAN;
        let found = run(&q, 2).unwrap_or_default();
        for (i, row) in found.chunks(size).enumerate() {
            assert!(row.iter().all(|v| v.is_finite() != (i == 120)), "row {} head {}", i / 2, i % 2);
        }
    }
}
