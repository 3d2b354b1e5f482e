//! Multi-head attention with relative positions over channels-last rows (Transformer-XL, arXiv:1901.02860).
//!
//! The score of query i and key j has a second product, with the position i − j. A block of queries needs only the positions
//! of its own band, so that the second product costs as much as the first and no `[t, 2t − 1]` matrix is stored.

use rayon::prelude::*;

use super::attention::product;
use super::heads::Heads;
use super::norm::softmax_row;
use super::pointer::SharedMut;
use crate::threads::each;

/// Queries a task handles.
const BLOCK: usize = 64;

/// What to attend over; `heads` heads of `size` channels, rows of `heads * size` numbers.
#[derive(Clone, Copy, Debug)]
pub struct RelativeAttention<'a> {
    /// Queries for the keys, `[t, heads * size]`.
    pub q: &'a [f32],
    /// Queries for the positions, `[t, heads * size]`.
    pub r: &'a [f32],
    /// Keys `[t, heads * size]`.
    pub k: &'a [f32],
    /// Values `[t, heads * size]`.
    pub v: &'a [f32],
    /// Positions t − 1 down to −(t − 1), `[2t - 1, heads * size]`.
    pub p: &'a [f32],
    /// Number of heads.
    pub heads: usize,
    /// Channels of a head.
    pub size: usize,
    /// Factor on the scores.
    pub scale: f32,
}

/// `softmax(scale (q_i · k_j + r_i · p_(i − j))) v`, `[t, heads * size]`.
pub fn relative_attention(a: RelativeAttention<'_>) -> Vec<f32> {
    let width = a.heads * a.size;
    let t = a.q.len() / width;
    assert!([a.q, a.r, a.k, a.v].iter().all(|x| x.len() == t * width), "relative attention: sizes");
    assert!(t > 0 && a.p.len() == (2 * t - 1) * width, "relative attention: positions");
    let mut out = vec![0.0; t * width];
    let shared = SharedMut::new(&mut out);
    let blocks = t.div_ceil(BLOCK);
    let dealt = if t < BLOCK { None } else { Heads::new(a.k, a.v, a.heads, a.size) };
    each((0..a.heads * blocks).into_par_iter(), |job| {
        let (head, first) = (job / blocks, job % blocks * BLOCK);
        let rows = BLOCK.min(t - first);
        let column = head * a.size;
        let from = first * width + column;
        // the block's last query meets key 0 at position row t - first - rows, its first query meets key t - 1 at 2t - 2 - first
        let (low, band) = (t - first - rows, t + rows - 1);
        let mut scores = vec![0.0f32; rows * t];
        let mut positions = vec![0.0f32; rows * band];
        let (s, p) = (scores.as_mut_ptr(), positions.as_mut_ptr());
        // SAFETY: rows `first..first + rows` of q and r, all of k, and rows `low..low + band` of p lie inside their slices:
        // low + band = 2t - 1 - first.
        unsafe {
            match &dealt {
                Some(dealt) => dealt.score(head, rows, a.q.as_ptr().add(from), width, &mut scores),
                None => product(rows, t, a.size, s, t, a.q.as_ptr().add(from), width, a.k.as_ptr().add(column), width, 1),
            }
            let at = a.p.as_ptr().add(low * width + column);
            product(rows, band, a.size, p, band, a.r.as_ptr().add(from), width, at, width, 1);
        }
        for (i, (row, band)) in scores.chunks_exact_mut(t).zip(positions.chunks_exact(band)).enumerate() {
            let shifted = &band[rows - 1 - i..][..t];
            row.iter_mut().zip(shifted).for_each(|(s, p)| *s = (*s + p) * a.scale);
            softmax_row(row);
        }
        let to = shared.at(from, (rows - 1) * width + a.size);
        // SAFETY: this task alone writes columns `column..column + size` of rows `first..first + rows`; `at` checked the span.
        unsafe {
            match &dealt {
                Some(dealt) => dealt.mix(head, rows, &scores, to, width),
                None => product(rows, a.size, t, to, width, scores.as_ptr(), t, a.v.as_ptr().add(column), 1, width),
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    #[test]
    fn agrees_with_the_definition() {
        at_every_level(|| {
            let noise = |n: usize, a: usize| -> Vec<f32> { (0..n).map(|i| ((i * a % 211) as f32 - 105.0) / 70.0).collect() };
            for (t, heads, size) in [(1, 1, 4), (2, 2, 8), (64, 1, 8), (65, 2, 4), (150, 2, 16)] {
                let width = heads * size;
                let (q, r, k, v) = (noise(t * width, 31), noise(t * width, 37), noise(t * width, 57), noise(t * width, 73));
                let p = noise((2 * t - 1) * width, 91);
                let out = relative_attention(RelativeAttention { q: &q, r: &r, k: &k, v: &v, p: &p, heads, size, scale: 0.3 });
                for h in 0..heads {
                    let at = |x: &[f32], i: usize, c: usize| f64::from(x[i * width + h * size + c]);
                    for i in 0..t {
                        let score = |j: usize| {
                            let dot = |c| at(&q, i, c) * at(&k, j, c) + at(&r, i, c) * at(&p, t - 1 + j - i, c);
                            ((0..size).map(dot).sum::<f64>() * f64::from(0.3f32)).exp()
                        };
                        let weights: Vec<f64> = (0..t).map(score).collect();
                        let sum: f64 = weights.iter().sum();
                        for c in 0..size {
                            let truth: f64 = (0..t).map(|j| weights[j] / sum * at(&v, j, c)).sum();
                            assert!((at(&out, i, c) - truth).abs() < 2e-5, "t {t} head {h} row {i}: {} {truth}", at(&out, i, c));
                        }
                    }
                }
            }
        });
    }
}
