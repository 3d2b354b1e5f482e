//! LayerNorm and softmax over the last axis of `[rows, n]`.

use rayon::prelude::*;

use super::maths;
use super::simd::dispatch;
use crate::threads::each;

const LANES: usize = 16;

/// Reduction in sixteen interleaved lanes, so that the order does not depend on the CPU level; what is left over is padded
/// with `neutral`. No index varies inside: only so do the lanes stay in a vector register.
#[inline(always)]
fn lanes(x: &[f32], neutral: f32, start: f32, step: impl Fn(f32, f32) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let add = |acc: [f32; LANES], chunk: &[f32; LANES]| -> [f32; LANES] {
        let mut next = acc;
        for (a, v) in next.iter_mut().zip(chunk) {
            *a = step(*a, *v);
        }
        next
    };
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut acc = [start; LANES];
    for chunk in chunks {
        acc = add(acc, chunk);
    }
    if !rest.is_empty() {
        let mut last = [neutral; LANES];
        last[..rest.len()].copy_from_slice(rest);
        acc = add(acc, &last);
    }
    let half: [f32; LANES / 2] = std::array::from_fn(|l| join(acc[l], acc[l + LANES / 2]));
    let quarter: [f32; LANES / 4] = std::array::from_fn(|l| join(half[l], half[l + LANES / 4]));
    join(join(quarter[0], quarter[2]), join(quarter[1], quarter[3]))
}

dispatch!(
    pub(crate) fn layer_norm_row(x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32);
    fma => {
        let n = x.len() as f32;
        let mean = lanes(x, 0.0, 0.0, |a, v| a + v, |a, b| a + b) / n;
        let variance = lanes(x, mean, 0.0, |a, v| fma(v - mean, v - mean, a), |a, b| a + b) / n;
        let scale = 1.0 / (variance + eps).sqrt();
        for ((v, w), b) in x.iter_mut().zip(weight).zip(bias) {
            *v = fma((*v - mean) * scale, *w, *b);
        }
    }
);

/// The largest number; NaNs are passed over.
#[inline(always)]
pub(super) fn maximum(x: &[f32]) -> f32 {
    let (low, larger) = (f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    lanes(x, low, low, larger, larger)
}

dispatch!(
    /// `x = softmax(x)`; a row of only -∞ becomes NaN, as in PyTorch.
    pub(crate) fn softmax_row(x: &mut [f32]);
    fma => {
        let max = maximum(x);
        x.iter_mut().for_each(|v| *v = maths::exp(fma, *v - max));
        let inverse = 1.0 / lanes(x, 0.0, 0.0, |a, v| a + v, |a, b| a + b);
        x.iter_mut().for_each(|v| *v *= inverse);
    }
);

/// LayerNorm of every row of `[rows, n]` with `n = weight.len()` (arXiv:1607.06450, biased variance).
pub fn layer_norm(x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let n = weight.len();
    let rows = ((1 << 14) / n).max(1) * n;
    each(x.par_chunks_mut(rows), |x| x.chunks_exact_mut(n).for_each(|row| layer_norm_row(row, weight, bias, eps)));
}

/// Softmax of every row of `[rows, n]`.
pub fn softmax(x: &mut [f32], n: usize) {
    let rows = ((1 << 14) / n).max(1) * n;
    each(x.par_chunks_mut(rows), |x| x.chunks_exact_mut(n).for_each(softmax_row));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    fn rows(n: usize) -> Vec<f32> {
        (0..3 * n).map(|i| ((i * 7919 % 1013) as f32 / 100.0 - 5.0) * (1.0 + (i / n) as f32)).collect()
    }

    #[test]
    fn layer_norm_agrees_with_float64() {
        at_every_level(|| {
            for n in [1, 15, 16, 80, 257] {
                let x = rows(n);
                let weight: Vec<f32> = (0..n).map(|i| 0.5 + i as f32 / n as f32).collect();
                let bias: Vec<f32> = (0..n).map(|i| i as f32 / 10.0).collect();
                let mut y = x.clone();
                layer_norm(&mut y, &weight, &bias, 1e-5);
                for (row, out) in x.chunks(n).zip(y.chunks(n)) {
                    let mean = row.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64;
                    let variance = row.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n as f64;
                    for i in 0..n {
                        let t = (f64::from(row[i]) - mean) / (variance + 1e-5).sqrt() * f64::from(weight[i]) + f64::from(bias[i]);
                        assert!((f64::from(out[i]) - t).abs() < 3e-6 * t.abs().max(1.0), "n {n}: {} {t}", out[i]);
                    }
                }
            }
        });
    }

    #[test]
    fn softmax_agrees_with_float64() {
        at_every_level(|| {
            for n in [1, 3, 17, 1006] {
                let x = rows(n);
                let mut y = x.clone();
                softmax(&mut y, n);
                for (row, out) in x.chunks(n).zip(y.chunks(n)) {
                    let max = row.iter().fold(f32::MIN, |a, b| a.max(*b));
                    let sum: f64 = row.iter().map(|v| f64::from(v - max).exp()).sum();
                    for i in 0..n {
                        assert!((f64::from(out[i]) - f64::from(row[i] - max).exp() / sum).abs() < 1e-6);
                    }
                }
            }
        });
    }
}
