//! Multi-head attention over channels-last rows: blocks of queries against all keys, softmax in between.

use rayon::prelude::*;

use super::heads::Heads;
use super::matmul::dot;
use super::norm::softmax_row;
use super::pointer::SharedMut;
use super::simd::dispatch;
use crate::threads::each;

/// Queries a task handles; fewer than these read keys and values where they lie.
pub(super) const BLOCK: usize = 64;

/// What to attend over; `h` heads of `d` channels, rows of `h * d` numbers.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Queries `[t, h * d]`.
    pub q: &'a [f32],
    /// Keys `[s, h * d]`.
    pub k: &'a [f32],
    /// Values `[s, h * d]`.
    pub v: &'a [f32],
    /// Number of heads.
    pub heads: usize,
    /// Channels of a head.
    pub size: usize,
    /// Factor on q·k.
    pub scale: f32,
    /// Added to q·k before the factor, `[h, t, s]`.
    pub bias: Option<&'a [f32]>,
    /// Query `i` sees keys `0 ..= s - t + i` only.
    pub causal: bool,
}

dispatch!(
    /// `out = Σ weights[j] · row j`, rows `stride` apart.
    fn weighted_sum(weights: &[f32], rows: &[f32], stride: usize, out: &mut [f32]);
    fma => {
        out.fill(0.0);
        for (weight, row) in weights.iter().zip(rows.chunks(stride)) {
            out.iter_mut().zip(row).for_each(|(o, v)| *o = fma(*weight, *v, *o));
        }
    }
);

/// Returns `[t, h * d]`.
pub fn attention(a: Attention<'_>) -> Vec<f32> {
    let width = a.heads * a.size;
    let (t, s) = (a.q.len() / width, a.k.len() / width);
    assert!(a.q.len() == t * width && a.k.len() == s * width && a.v.len() == s * width, "attention: sizes");
    assert!(a.bias.is_none_or(|b| b.len() == a.heads * t * s) && (!a.causal || s >= t), "attention: bias or mask");
    let mut out = vec![0.0; t * width];
    let shared = SharedMut::new(&mut out);
    let blocks = t.div_ceil(BLOCK);
    let dealt = if a.causal || t < BLOCK { None } else { Heads::new(a.k, a.v, a.heads, a.size) };
    let task = |job: usize| {
        let (head, first) = (job / blocks, job % blocks * BLOCK);
        let rows = BLOCK.min(t - first);
        let seen = if a.causal { s - t + first + rows } else { s };
        let mut scores = vec![0.0f32; rows * seen];
        let column = head * a.size;
        if let Some(dealt) = &dealt {
            // SAFETY: rows `first..first + rows` of q lie inside its slice (sizes asserted above).
            unsafe { dealt.score(head, rows, a.q.as_ptr().add(first * width + column), width, &mut scores) };
        } else if rows == 1 {
            let q = &a.q[first * width + column..][..a.size];
            scores.iter_mut().enumerate().for_each(|(j, o)| *o = dot(q, &a.k[j * width + column..][..a.size]));
        } else {
            // SAFETY: rows `first..first + rows` of q and `0..seen` of k lie inside their slices (sizes asserted above).
            unsafe {
                product(
                    rows,
                    seen,
                    a.size,
                    scores.as_mut_ptr(),
                    seen,
                    a.q.as_ptr().add(first * width + column),
                    width,
                    a.k.as_ptr().add(column),
                    width,
                    1,
                );
            }
        }
        for (i, row) in scores.chunks_exact_mut(seen).enumerate() {
            match a.bias {
                Some(bias) => {
                    let bias = &bias[(head * t + first + i) * s..][..seen];
                    row.iter_mut().zip(bias).for_each(|(v, b)| *v = (*v + b) * a.scale);
                }
                None => row.iter_mut().for_each(|v| *v *= a.scale),
            }
            if a.causal {
                row[s - t + first + i + 1..].fill(f32::NEG_INFINITY);
            }
            softmax_row(row);
        }
        let to = shared.at(first * width + column, (rows - 1) * width + a.size);
        if let Some(dealt) = &dealt {
            // SAFETY: this task alone writes these columns of rows `first..first + rows`; `at` checked the span.
            unsafe { dealt.mix(head, rows, &scores, to, width) };
            return;
        }
        if rows == 1 {
            // SAFETY: this task alone writes these columns of row `first`; `at` checked the span.
            weighted_sum(&scores, &a.v[column..], width, unsafe { std::slice::from_raw_parts_mut(to, a.size) });
            return;
        }
        // SAFETY: this task alone writes columns `column..column + size` of rows `first..first + rows`; `at` checked the span.
        unsafe {
            product(rows, a.size, seen, to, width, scores.as_ptr(), seen, a.v.as_ptr().add(column), 1, width);
        }
    };
    let jobs = a.heads * blocks;
    if jobs * BLOCK.min(t) * s * a.size < 1 << 16 {
        (0..jobs).for_each(task);
    } else {
        each((0..jobs).into_par_iter(), task);
    }
    out
}

/// `out[m, n] = a[m, k] · b` on this thread, with `b[k, n]` at `k * b_row + n * b_column`.
///
/// # Safety
/// All rows must lie inside the allocations behind the pointers, and `out` must not overlap the inputs.
pub(super) unsafe fn product(
    m: usize,
    n: usize,
    k: usize,
    out: *mut f32,
    out_stride: usize,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    b_column: usize,
    b_row: usize,
) {
    // SAFETY: promised by the caller.
    unsafe {
        let none = gemm::Parallelism::None;
        super::gemm::gemm((m, n, k), (out, 1, out_stride), false, (a, 1, a_stride), (b, b_column, b_row), none);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    #[test]
    fn agrees_with_the_definition() {
        at_every_level(|| {
            let noise = |n: usize, a: usize| -> Vec<f32> { (0..n).map(|i| ((i * a % 211) as f32 - 105.0) / 70.0).collect() };
            for (t, s, heads, size, causal, with_bias) in [
                (1, 1, 1, 4, true, false),
                (1, 37, 3, 8, true, false),
                (5, 9, 2, 16, true, false),
                (130, 130, 2, 8, false, true),
                (70, 200, 1, 64, true, false),
            ] {
                let width = heads * size;
                let (q, k, v) = (noise(t * width, 31), noise(s * width, 57), noise(s * width, 73));
                let bias = with_bias.then(|| noise(heads * t * s, 91));
                let out = attention(Attention { q: &q, k: &k, v: &v, heads, size, scale: 0.3, bias: bias.as_deref(), causal });
                for h in 0..heads {
                    for i in 0..t {
                        let seen = if causal { s - t + i + 1 } else { s };
                        let score = |j: usize| {
                            let dot: f64 = (0..size)
                                .map(|c| f64::from(q[i * width + h * size + c]) * f64::from(k[j * width + h * size + c]))
                                .sum();
                            ((dot + bias.as_ref().map_or(0.0, |b| f64::from(b[(h * t + i) * s + j]))) * f64::from(0.3f32)).exp()
                        };
                        let weights: Vec<f64> = (0..seen).map(score).collect();
                        let sum: f64 = weights.iter().sum();
                        for c in 0..size {
                            let truth: f64 = (0..seen).map(|j| weights[j] / sum * f64::from(v[j * width + h * size + c])).sum();
                            let got = f64::from(out[i * width + h * size + c]);
                            assert!((got - truth).abs() < 2e-5, "t {t} s {s} head {h} row {i}: {got} {truth}");
                        }
                    }
                }
            }
        });
    }
}
