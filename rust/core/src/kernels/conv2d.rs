//! Conv2d over channels-last `[T, F, C]`, as products of overlapping rows: no im2col.
//!
//! With zeros around the input, the window of an output is `kernel` runs of kernel·C consecutive numbers, one for each time
//! step, and the windows of a strip of time start evenly spaced: one product for each run.

use rayon::prelude::*;

use super::matmul::{Rows, accumulate};
use crate::threads::each;

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
    /// Weights `[kernel (time), kernel (F), input, output]`.
    pub weight: &'a [f32],
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
    let Geometry2d { input: c, output: n, kernel, stride } = a.geometry;
    let (p, positions) = (a.geometry.padding(), a.geometry.positions(a.f));
    assert!(a.x.len() == a.t * a.f * c && a.bias.len() == n && kernel % 2 == 1 && a.f > 0, "conv2d: sizes");
    assert_eq!(a.weight.len(), kernel * kernel * c * n, "conv2d: weight");
    let size = positions * n;
    let mut out = vec![0.0; a.t * size];
    assert!(a.residual.is_none_or(|r| r.len() == out.len()), "conv2d: residual");
    // A whole number of strides, so that windows stay evenly spaced from one time step to the next.
    let width = (a.f + 2 * p).next_multiple_of(stride);
    each(out.par_chunks_mut(STRIP * size).enumerate(), |(i, out)| {
        let (first, steps) = (i * STRIP, out.len() / size);
        let mut padded = vec![0.0; ((steps + 2 * p) * width + kernel) * c];
        for row in 0..steps + 2 * p {
            let t = (first + row).wrapping_sub(p);
            if t < a.t {
                padded[(row * width + p) * c..][..a.f * c].copy_from_slice(&a.x[t * a.f * c..(t + 1) * a.f * c]);
            }
        }
        let windows = width / stride; // of a time step; those behind `positions` are not used
        let mut sums = vec![0.0; steps * windows * n];
        sums.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(a.bias));
        for (tap, weight) in a.weight.chunks_exact(kernel * c * n).enumerate() {
            let rows = Rows { data: &padded, offset: tap * width * c, stride: stride * c };
            accumulate(steps * windows, n, kernel * c, rows, weight, &mut sums, 0, n);
        }
        for (out, sums) in out.chunks_exact_mut(size).zip(sums.chunks_exact(windows * n)) {
            out.copy_from_slice(&sums[..size]);
        }
        if let Some(residual) = a.residual {
            out.iter_mut().zip(&residual[first * size..]).for_each(|(o, r)| *o += r);
        }
        if a.relu {
            out.iter_mut().for_each(|o| *o = o.max(0.0));
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    #[test]
    fn every_geometry_agrees_with_the_definition() {
        at_every_level(|| {
            let noise = |n: usize, a: usize| -> Vec<f32> { (0..n).map(|i| ((i * a % 211) as f32 - 105.0) / 90.0).collect() };
            for (t, f, input, output, kernel, stride) in
                [(1, 1, 1, 1, 3, 1), (37, 8, 1, 32, 3, 1), (19, 10, 5, 18, 3, 2), (18, 7, 4, 16, 1, 2), (5, 9, 3, 2, 3, 2)]
            {
                let g = Geometry2d { input, output, kernel, stride };
                let (k, positions) = (kernel, g.positions(f));
                let (x, w, bias) = (noise(t * f * input, 31), noise(output * k * k * input, 57), noise(output, 73));
                let residual = noise(t * positions * output, 91);
                let a = Conv2d { x: &x, t, f, weight: &w, bias: &bias, residual: Some(&residual), relu: false, geometry: g };
                let (plain, relu) = (conv2d(a), conv2d(Conv2d { residual: None, relu: true, ..a }));
                for i in 0..t * positions * output {
                    let (n, at, step) = (i % output, i / output % positions, i / output / positions);
                    let mut sum = f64::from(bias[n]);
                    for (dt, df, c) in (0..k * k * input).map(|j| (j / input / k, j / input % k, j % input)) {
                        let (t0, f0) = (step + dt, at * stride + df);
                        let (Some(t0), Some(f0)) = (t0.checked_sub(g.padding()), f0.checked_sub(g.padding())) else { continue };
                        if t0 < t && f0 < f {
                            sum +=
                                f64::from(x[(t0 * f + f0) * input + c]) * f64::from(w[((dt * k + df) * input + c) * output + n]);
                        }
                    }
                    assert!((f64::from(plain[i]) - sum - f64::from(residual[i])).abs() < 1e-4, "{g:?} at {i}");
                    assert!((f64::from(relu[i]) - sum.max(0.0)).abs() < 1e-4, "{g:?} at {i}");
                }
            }
        });
    }
}
