//! Conv1d over channels-last `[T, C]`, as products of overlapping rows: no im2col.
//!
//! With rows one after another in memory, the window of an output is k·C consecutive numbers, so that a convolution is one
//! product whose input rows overlap (row stride = stride·C). A dilated one is the same after the rows are dealt into
//! `dilation` piles. Weights are `[out, k, in]`.

use rayon::prelude::*;

use super::matmul::{Rows, Weight, matmul_add};
use super::operand::Operand;
use crate::threads::run;

/// Numbers of a piece that is copied and changed at once.
const PIECE: usize = 1 << 14;

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

/// Convolves `x` `[t, input]` and adds to `out` `[rows(t), output]`; `weight` is `[output, kernel * input]`. `before` changes a copy
/// of the input rows first, some rows at a time.
pub fn conv1d_add<E: Send>(
    x: &[f32],
    t: usize,
    weight: Weight<'_>,
    g: Geometry,
    before: Option<impl Fn(&mut [f32]) -> Result<(), E> + Sync>,
    out: &mut [f32],
) -> Result<(), E> {
    let (c, n, rows) = (g.input, g.output, g.rows(t));
    assert!(x.len() == t * c && out.len() == rows * n, "conv1d: input or output size");
    if rows == 0 {
        return Ok(());
    }
    if (g.dilation == 1 || g.kernel == 1) && g.left + g.right == 0 && before.is_none() {
        matmul_add(rows, n, g.kernel * c, Rows { data: x, offset: 0, stride: g.stride * c }, weight, out, 0, n);
        return Ok(());
    }
    match weight {
        Weight::Bf16(matrix) => laid_out::<u16, E>(x, t, matrix, g, before.as_ref(), out),
        _ => laid_out::<f32, E>(x, t, weight, g, before.as_ref(), out),
    }
}

/// The same through a copy of the input that is padded, changed and dealt into piles.
fn laid_out<T: Operand, E: Send>(
    x: &[f32],
    t: usize,
    weight: T::Weight<'_>,
    g: Geometry,
    before: Option<&(impl Fn(&mut [f32]) -> Result<(), E> + Sync)>,
    out: &mut [f32],
) -> Result<(), E> {
    let (c, n, rows, total) = (g.input, g.output, g.rows(t), t + g.left + g.right);
    let k = g.kernel * c;
    if g.dilation == 1 || g.kernel == 1 {
        return T::with_scratch(total * c + T::SLACK, |data| {
            lay(x, c, 0, 1, g.left, g.left + t, data, before)?;
            T::multiply_add((rows, n, k), Rows { data, offset: 0, stride: g.stride * c }, weight, out, 0, n);
            Ok(())
        });
    }
    assert_eq!(g.stride, 1, "conv1d: a dilated convolution with a stride is not used by any stage");
    let d = g.dilation;
    T::with_scratch(total.div_ceil(d) * c + T::SLACK, |pile| {
        for phase in 0..d.min(rows) {
            let data = &mut pile[..(total - phase).div_ceil(d) * c + T::SLACK];
            let (first, end) = (g.left.saturating_sub(phase).div_ceil(d), (g.left + t).saturating_sub(phase).div_ceil(d));
            lay(x, c, (phase + first * d).saturating_sub(g.left), d, first, end, data, before)?;
            let m = (rows - phase).div_ceil(d);
            T::multiply_add((m, n, k), Rows { data, offset: 0, stride: c }, weight, out, phase * n, d * n);
        }
        Ok(())
    })
}

/// Fills `to` with every `step`-th row of `x` from row `from` on, changed by `before`, in its rows `first..end`, and zeros elsewhere.
pub(super) fn lay<T: Operand, E: Send>(
    x: &[f32],
    c: usize,
    from: usize,
    step: usize,
    first: usize,
    end: usize,
    to: &mut [T],
    before: Option<&(impl Fn(&mut [f32]) -> Result<(), E> + Sync)>,
) -> Result<(), E> {
    to[..first * c].fill(T::ZERO);
    to[end * c..].fill(T::ZERO);
    let piece = (PIECE / c).max(1);
    let pieces = to[first * c..end * c].par_chunks_mut(piece * c).enumerate();
    let write = |(i, to): (usize, &mut [T])| {
        T::write((0..to.len() / c).map(|j| &x[(from + (i * piece + j) * step) * c..][..c]), to, before)
    };
    run(|| pieces.try_for_each(write))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    #[test]
    fn every_geometry_agrees_with_the_definition() {
        at_every_level(|| {
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
                    let mut out = bias.repeat(g.rows(t));
                    let lower = |x: &mut [f32]| -> Result<(), ()> {
                        x.iter_mut().for_each(|v| *v -= 1.0);
                        Ok(())
                    };
                    let y: Vec<f32> = x.iter().map(|v| v + 1.0).collect();
                    assert_eq!(conv1d_add(&y, t, Weight::Plain(&w), g, Some(lower), &mut out), Ok(()));
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
        });
    }
}
