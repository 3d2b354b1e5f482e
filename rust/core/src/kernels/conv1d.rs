//! Conv1d over channels-last `[T, C]`, as products of overlapping rows: no im2col.
//!
//! With rows one after another in memory, the window of an output is k·C consecutive numbers, so that a convolution is one
//! product whose input rows overlap (row stride = stride·C). A dilated one is the same after the rows are dealt into
//! `dilation` piles. Weights are `[out, k, in]`.

use super::matmul::{Rows, matmul};

/// Shape of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Taps.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
    /// Distance between taps.
    pub dilation: usize,
    /// Zero rows before the input.
    pub left: usize,
    /// Zero rows after the input.
    pub right: usize,
}

impl Geometry {
    /// Output rows for `t` input rows (0 when the input is shorter than the kernel).
    pub fn rows(&self, t: usize) -> usize {
        let (padded, span) = (t + self.left + self.right, self.dilation * (self.kernel - 1) + 1);
        if padded < span { 0 } else { (padded - span) / self.stride + 1 }
    }
}

/// Convolves `x` `[t, input]`; returns `[rows(t), output]`.
pub fn conv1d(x: &[f32], t: usize, weight: &[f32], bias: Option<&[f32]>, g: Geometry) -> Vec<f32> {
    let (c, n, rows) = (g.input, g.output, g.rows(t));
    assert_eq!(x.len(), t * c, "conv1d: input size");
    let mut out = vec![0.0; rows * n];
    if rows == 0 {
        return out;
    }
    let k = g.kernel * c;
    if g.dilation == 1 || g.kernel == 1 {
        let padded;
        let data = if g.left + g.right == 0 {
            x
        } else {
            let mut copy = vec![0.0; (t + g.left + g.right) * c];
            copy[g.left * c..(g.left + t) * c].copy_from_slice(x);
            padded = copy;
            &padded
        };
        matmul(rows, n, k, Rows { data, offset: 0, stride: g.stride * c }, weight, bias, &mut out, 0, n);
        return out;
    }
    assert_eq!(g.stride, 1, "conv1d: a dilated convolution with a stride is not used by any stage");
    let d = g.dilation;
    let total = t + g.left + g.right;
    let mut pile = Vec::new();
    for phase in 0..d.min(rows) {
        let height = (total - phase).div_ceil(d);
        pile.clear();
        pile.resize(height * c, 0.0);
        for j in 0..height {
            let row = phase + j * d;
            if (g.left..g.left + t).contains(&row) {
                pile[j * c..(j + 1) * c].copy_from_slice(&x[(row - g.left) * c..(row - g.left + 1) * c]);
            }
        }
        let m = (rows - phase).div_ceil(d);
        matmul(m, n, k, Rows { data: &pile, offset: 0, stride: c }, weight, bias, &mut out, phase * n, d * n);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_geometry_agrees_with_the_definition() {
        for (kernel, stride, dilation, left, right) in [
            (1, 1, 1, 0, 0),
            (3, 1, 1, 2, 0),
            (3, 2, 1, 1, 1),
            (7, 1, 3, 9, 9),
            (11, 1, 5, 25, 25),
            (30, 15, 1, 7, 7),
            (4, 1, 1, 0, 3),
            (1, 2, 1, 0, 0),
        ] {
            for t in [1, 5, 64] {
                let g = Geometry { input: 3, output: 5, kernel, stride, dilation, left, right };
                let x: Vec<f32> = (0..t * 3).map(|i| ((i * 29 % 37) as f32 - 18.0) / 9.0).collect();
                let w: Vec<f32> = (0..5 * kernel * 3).map(|i| ((i * 13 % 41) as f32 - 20.0) / 20.0).collect();
                let bias = [0.5, -0.5, 1.0, 0.0, 2.0];
                let out = conv1d(&x, t, &w, Some(&bias), g);
                assert_eq!(out.len(), g.rows(t) * 5);
                for o in 0..g.rows(t) {
                    for n in 0..5 {
                        let mut sum = f64::from(bias[n]);
                        for tap in 0..kernel {
                            let at = (o * stride + tap * dilation).wrapping_sub(left);
                            if at < t {
                                sum += (0..3)
                                    .map(|c| f64::from(x[at * 3 + c]) * f64::from(w[(n * kernel + tap) * 3 + c]))
                                    .sum::<f64>();
                            }
                        }
                        assert!((f64::from(out[o * 5 + n]) - sum).abs() < 1e-4, "{g:?} t {t} at {o},{n}");
                    }
                }
            }
        }
    }
}
