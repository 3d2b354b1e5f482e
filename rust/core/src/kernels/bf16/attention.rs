//! Multi-head attention whose two products are in bfloat16: blocks of queries against all keys, softmax in float32 between them.

use std::cell::RefCell;

use rayon::prelude::*;

use super::round::{round, round_all, value};
use super::{Bf16Matrix, DEPTH, SLACK};
use crate::kernels::maths;
use crate::kernels::norm::maximum;
use crate::kernels::pointer::SharedMut;
use crate::kernels::scratch;
use crate::kernels::simd::dispatch;

/// Queries a task handles, a multiple of the rows of a register tile.
const BLOCK: usize = 48;
const LANES: usize = 16;

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
    /// Factor on q·k, above 0.
    pub scale: f32,
}

thread_local! {
    /// A task's scores and its weights: kept, because every page of a fresh allocation costs a fault.
    static MEMORY: RefCell<(Vec<f32>, Vec<u16>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

dispatch!(
    /// `weights = e^(scale (scores − max))`, rounded to bfloat16, and their sum after rounding.
    fn exponentials(scores: &[f32], scale: f32, weights: &mut [u16]) -> f32;
    fma => {
        let shift = scale * maximum(scores);
        let mut sums = [0f32; LANES];
        let (blocks, rest) = scores.as_chunks::<LANES>();
        let (to, to_rest) = weights.as_chunks_mut::<LANES>();
        for (scores, to) in blocks.iter().zip(to) {
            for l in 0..LANES {
                to[l] = round(maths::exp(fma, fma(scores[l], scale, -shift)));
                sums[l] += value(to[l]);
            }
        }
        for ((score, to), sum) in rest.iter().zip(to_rest).zip(&mut sums) {
            *to = round(maths::exp(fma, fma(*score, scale, -shift)));
            *sum += value(*to);
        }
        sums.iter().sum()
    }
);

/// `softmax(scale q kᵀ) v`, `[t, heads * size]`.
pub fn attention(a: Attention<'_>) -> Vec<f32> {
    let Attention { q, k, v, heads, size, scale } = a;
    let width = heads * size;
    let (t, s) = (q.len() / width, k.len() / width);
    assert!(s > 0 && q.len() == t * width && k.len() == s * width && v.len() == k.len(), "attention: sizes");
    let dealt: Vec<_> = (0..heads)
        .into_par_iter()
        .map(|h| {
            let (k, v) = (&k[h * size..], &v[h * size..]);
            (Bf16Matrix::of_rows(k, s, size, width), Bf16Matrix::of_columns(v, size, s, width))
        })
        .collect();
    let mut out = vec![0.0; t * width];
    let shared = SharedMut::new(&mut out);
    let blocks = t.div_ceil(BLOCK);
    let stride = s.next_multiple_of(DEPTH);
    scratch::with_halves(q.len() + SLACK, |queries| {
        round_all(q, &mut queries[..q.len()]);
        queries[q.len()..].fill(0);
        (0..heads * blocks).into_par_iter().for_each(|job| {
            let (head, first) = (job / blocks, job % blocks * BLOCK);
            let rows = BLOCK.min(t - first);
            let (keys, values) = &dealt[head];
            let column = head * size;
            let to = shared.at(first * width + column, (rows - 1) * width + size);
            MEMORY.with_borrow_mut(|(scores, weights)| {
                scores.clear();
                scores.resize(rows * s, 0.0);
                weights.resize((BLOCK * stride + SLACK).max(weights.len()), 0);
                let mut sums = [0.0; BLOCK];
                // SAFETY: the rows of this block lie inside the queries, with SLACK numbers behind them; so do those of the scores.
                unsafe {
                    let from = queries.as_ptr().add(first * width + column);
                    keys.multiply(0..keys.count(), rows, from, width, scores.as_mut_ptr(), s);
                }
                for ((scores, weights), sum) in scores.chunks_exact(s).zip(weights.chunks_exact_mut(stride)).zip(&mut sums) {
                    *sum = exponentials(scores, scale, &mut weights[..s]);
                    weights[s..].fill(0);
                }
                weights[rows * stride..][..SLACK].fill(0);
                // SAFETY: the rows of weights lie inside, with SLACK zeros behind them; this task alone writes these columns of its
                // rows of the output, and `at` checked the span.
                unsafe {
                    values.multiply(0..values.count(), rows, weights.as_ptr(), stride, to, width);
                    for (i, sum) in sums[..rows].iter().enumerate() {
                        let row = std::slice::from_raw_parts_mut(to.add(i * width), size);
                        row.iter_mut().for_each(|v| *v /= sum);
                    }
                }
            });
        });
    });
    out
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
            let score = |j: usize| (0..a.size).map(|c| at(a.q, i, c) * at(a.k, j, c)).sum::<f64>() * f64::from(a.scale);
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
                let a = Attention { q: &q, k: &k, v: &v, heads, size, scale: 1.0 / (size as f32).sqrt() };
                let found = error(&attention(a), &definition(a));
                assert!(found < 8e-3, "{t} {s} {heads} {size}: {found}");
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
        let a = Attention { q: &q, k: &k, v: &v, heads, size, scale: 0.25 };
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
            Some(pool.install(|| attention(Attention { q, k: &k, v: &v, heads, size, scale: 0.2 })))
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
