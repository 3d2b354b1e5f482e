//! Conv2d over channels-last `[T, F, C]`, as products of gathered rows: no im2col.
//!
//! With zeros around the input, the window of an output is `kernel` runs of kernel·C numbers, one for each time step, which go
//! through the weights' panels one after another.

use rayon::prelude::*;

use super::maths;
use super::panels::{Panels, ROWS, WIDTH, accumulate};
use super::simd::dispatch;

/// Time steps that a task handles.
const STRIP: usize = 16;

/// Shape of a convolution: square kernel, (kernel - 1) / 2 zeros on every side, stride 1 in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry2d {
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Taps in time and in F.
    pub kernel: usize,
    /// Step between outputs along F.
    pub stride: usize,
}

impl Geometry2d {
    /// Output positions along F for `f` input positions.
    pub fn positions(&self, f: usize) -> usize {
        (f + 2 * self.padding()).saturating_sub(self.kernel) / self.stride + 1
    }

    /// Zeros on every side.
    pub fn padding(&self) -> usize {
        (self.kernel - 1) / 2
    }
}

/// Everything of one convolution: `out = relu(x ∗ w + bias + residual)`, the last two where asked for.
#[derive(Clone, Copy, Debug)]
pub struct Conv2d<'a> {
    /// Input `[t, f, input]`.
    pub x: &'a [f32],
    /// Time steps.
    pub t: usize,
    /// Positions along F.
    pub f: usize,
    /// Weights `[output, kernel (time), kernel (F), input]`, dealt.
    pub weight: &'a Panels,
    /// `[output]`.
    pub bias: &'a [f32],
    /// Added to the output, of its size.
    pub residual: Option<&'a [f32]>,
    /// Cuts off what is below zero.
    pub relu: bool,
    /// Shape.
    pub geometry: Geometry2d,
}

/// Returns `[t, positions(f), output]`.
pub fn conv2d(a: Conv2d<'_>) -> Vec<f32> {
    let (g, c, p) = (a.geometry, a.geometry.input, a.geometry.padding());
    assert!(a.x.len() == a.t * a.f * c && a.bias.len() == g.output && g.kernel % 2 == 1 && a.f > 0, "conv2d: sizes");
    assert!(a.weight.columns() == g.output && a.weight.depth() == g.kernel * g.kernel * c, "conv2d: weight");
    let size = g.positions(a.f) * g.output;
    let mut out = vec![0.0; a.t * size];
    assert!(a.residual.is_none_or(|r| r.len() == out.len()), "conv2d: residual");
    let mut padded = Vec::new();
    let mut a = Conv2d { ..a };
    if p > 0 {
        padded.resize((a.t + 2 * p) * (a.f + 2 * p) * c, 0.0);
        for (t, row) in a.x.chunks_exact(a.f * c).enumerate() {
            padded[((t + p) * (a.f + 2 * p) + p) * c..][..a.f * c].copy_from_slice(row);
        }
        a.x = &padded;
    }
    out.par_chunks_mut(STRIP * size).enumerate().for_each(|(i, out)| strip(&a, i * STRIP, out));
    out
}

dispatch!(
    fn strip(a: &Conv2d<'_>, first: usize, out: &mut [f32]);
    fma => {
        let pixels = out.len() / a.geometry.output;
        let mut at = 0;
        while at + ROWS <= pixels {
            group::<ROWS>(fma, a, first, at, out);
            at += ROWS;
        }
        while at < pixels {
            group::<1>(fma, a, first, at, out);
            at += 1;
        }
    }
);

/// Outputs `at..at + R` of the strip that starts at time `first`.
#[inline(always)]
fn group<const R: usize>(fma: impl maths::Fma, a: &Conv2d<'_>, first: usize, at: usize, out: &mut [f32]) {
    let g = a.geometry;
    let (positions, row) = (g.positions(a.f), a.f + 2 * g.padding());
    let run = g.kernel * g.input;
    let corner: [usize; R] = std::array::from_fn(|r| {
        let (t, f) = (first + (at + r) / positions, (at + r) % positions);
        (t * row + f * g.stride) * g.input
    });
    for p in 0..a.weight.count() {
        let (column, columns) = (p * WIDTH, WIDTH.min(g.output - p * WIDTH));
        let mut acc = [[0.0; WIDTH]; R];
        for sums in &mut acc {
            sums[..columns].copy_from_slice(&a.bias[column..column + columns]);
        }
        for (tap, panel) in a.weight.panel(p).chunks_exact(run * WIDTH).enumerate() {
            let rows = std::array::from_fn(|r| &a.x[corner[r] + tap * row * g.input..][..run]);
            accumulate(fma, panel, rows, &mut acc);
        }
        for (r, sums) in acc.iter_mut().enumerate() {
            let to = (at + r) * g.output + column;
            if let Some(residual) = a.residual {
                let from = &residual[first * positions * g.output + to..][..columns];
                sums.iter_mut().zip(from).for_each(|(s, v)| *s += v);
            }
            if a.relu {
                sums.iter_mut().for_each(|s| *s = s.max(0.0));
            }
            out[to..to + columns].copy_from_slice(&sums[..columns]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_geometry_agrees_with_the_definition() {
        let noise = |n: usize, a: usize| -> Vec<f32> { (0..n).map(|i| ((i * a % 211) as f32 - 105.0) / 90.0).collect() };
        for (t, f, input, output, kernel, stride) in
            [(1, 1, 1, 1, 3, 1), (37, 8, 1, 32, 3, 1), (19, 10, 5, 18, 3, 2), (18, 7, 4, 16, 1, 2), (5, 9, 3, 2, 3, 2)]
        {
            let g = Geometry2d { input, output, kernel, stride };
            let (k, positions) = (kernel, g.positions(f));
            let (x, w, bias) = (noise(t * f * input, 31), noise(output * k * k * input, 57), noise(output, 73));
            let residual = noise(t * positions * output, 91);
            let weight = Panels::new(&w, output, k * k * input);
            let a = Conv2d { x: &x, t, f, weight: &weight, bias: &bias, residual: Some(&residual), relu: false, geometry: g };
            let (plain, relu) = (conv2d(a), conv2d(Conv2d { residual: None, relu: true, ..a }));
            for i in 0..t * positions * output {
                let (n, at, step) = (i % output, i / output % positions, i / output / positions);
                let mut sum = f64::from(bias[n]);
                for (dt, df, c) in (0..k * k * input).map(|j| (j / input / k, j / input % k, j % input)) {
                    let (t0, f0) = (step + dt, at * stride + df);
                    let (Some(t0), Some(f0)) = (t0.checked_sub(g.padding()), f0.checked_sub(g.padding())) else { continue };
                    if t0 < t && f0 < f {
                        sum += f64::from(x[(t0 * f + f0) * input + c]) * f64::from(w[((n * k + dt) * k + df) * input + c]);
                    }
                }
                assert!((f64::from(plain[i]) - sum - f64::from(residual[i])).abs() < 1e-4, "{g:?} at {i}");
                assert!((f64::from(relu[i]) - sum.max(0.0)).abs() < 1e-4, "{g:?} at {i}");
            }
        }
    }
}
