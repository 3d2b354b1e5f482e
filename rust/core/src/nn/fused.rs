//! What a layer does to its input and its output on the way, so that no pass over memory is spent on it alone.

use candle_core::Tensor;

use super::{Activation, LayerNorm, Snake, kernels_run, with_slice};
use crate::Result;
use crate::kernels::elementwise::{apply, shift, snake, sum_rows};
use crate::kernels::norm::layer_norm;

/// An operation on each element, by channel.
#[derive(Clone, Copy, Debug)]
pub enum Pointwise<'a> {
    /// A function of the element.
    Function(Activation),
    /// The snake with one α a channel.
    Snake(&'a Snake),
    /// Adds one number a channel, `[C]`.
    Shift(&'a Tensor),
}

/// `after(norm(layer(before(x)) + Σ add))`. Zero rows that a convolution puts around its input stay zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fused<'a> {
    /// Applied to the input.
    pub before: Option<Pointwise<'a>>,
    /// Added to the output; each has its shape.
    pub add: &'a [&'a Tensor],
    /// Normalises the output.
    pub norm: Option<&'a LayerNorm>,
    /// Applied to the output last.
    pub after: Option<Pointwise<'a>>,
}

impl Pointwise<'_> {
    /// On rows of a CPU slice, in place.
    pub(super) fn apply(self, x: &mut [f32]) -> Result<()> {
        match self {
            Self::Function(function) => {
                apply(function, x);
                Ok(())
            }
            Self::Snake(layer) => with_slice(layer.alpha(), |alpha| snake(x, alpha)),
            Self::Shift(by) => with_slice(by, |by| shift(x, by)),
        }
    }

    fn plain(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Function(function) => function.forward(x),
            Self::Snake(snake) => snake.forward(x),
            Self::Shift(by) => Ok(x.broadcast_add(by)?),
        }
    }
}

impl Fused<'_> {
    /// Are all shapes such that the kernels may run?
    pub(super) fn fits(&self, input: usize, output: usize, values: usize) -> bool {
        let channels = |p: &Option<Pointwise<'_>>, c: usize| match p {
            Some(Pointwise::Snake(snake)) => snake.alpha().elem_count() == c,
            Some(Pointwise::Shift(by)) => by.elem_count() == c,
            _ => true,
        };
        channels(&self.before, input)
            && channels(&self.after, output)
            && self.norm.is_none_or(|norm| norm.channels() == output)
            && self.add.iter().all(|x| x.elem_count() == values && kernels_run(x.device()))
    }

    /// The output before the product is added to it: `bias + Σ add` in every row.
    pub(super) fn start(&self, rows: usize, bias: Option<&Tensor>, channels: usize) -> Result<Vec<f32>> {
        let with_bias = |adds: &[&[f32]]| match bias {
            Some(bias) => with_slice(bias, |bias| sum_rows(rows, channels, Some(bias), adds)),
            None => Ok(sum_rows(rows, channels, None, adds)),
        };
        match self.add {
            [] => with_bias(&[]),
            [a] => with_slice(a, |a| with_bias(&[a]))?,
            [a, b] => with_slice(a, |a| with_slice(b, |b| with_bias(&[a, b])))??,
            _ => Err(crate::Error::argument("a layer adds at most two tensors")),
        }
    }

    /// `norm` and `after` on the finished rows.
    pub(super) fn finish(&self, out: &mut [f32]) -> Result<()> {
        if let Some(norm) = self.norm {
            norm.with_values(|weight, bias, eps| layer_norm(out, weight, bias, eps))?;
        }
        self.after.map_or(Ok(()), |after| after.apply(out))
    }

    /// The same, composed of Candle operations around `layer`.
    pub(super) fn plain(&self, x: &Tensor, layer: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let mut y = match self.before {
            Some(before) => layer(&before.plain(x)?)?,
            None => layer(x)?,
        };
        for add in self.add {
            y = (y + *add)?;
        }
        if let Some(norm) = self.norm {
            y = norm.forward(&y)?;
        }
        self.after.map_or(Ok(y.clone()), |after| after.plain(&y))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use crate::precision::Products;

    use super::super::{Conv1d, Conv1dOptions, ConvTranspose1d, Linear};
    use super::*;

    fn gap(a: &Tensor, b: &Tensor) -> Result<f32> {
        Ok((a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?)
    }

    #[test]
    fn fused_work_agrees_with_separate_steps() -> Result<()> {
        let new = |shape: &[usize]| Tensor::randn(0f32, 1.0, shape, &Device::Cpu);
        let x = new(&[1, 40, 6])?;
        let (shift, alpha) = (new(&[6])?, (new(&[5])?.abs()? + 0.1)?);
        let snake = Snake::new(alpha);
        let norm = LayerNorm::new((new(&[5])? + 2.0)?, new(&[5])?, 1e-5);
        let linear = Linear::new(new(&[5, 6])?, Some(new(&[5])?))?;
        let conv = |kernel: usize, options: Conv1dOptions| -> Result<Conv1d> {
            let values: Vec<f32> = new(&[5 * 6 * kernel])?.to_vec1()?;
            Conv1d::new(&values, Some(new(&[5])?), 6, 5, kernel, options, &Device::Cpu, Products::F32)
        };
        let causal = conv(3, Conv1dOptions::causal(3))?;
        let dilated = conv(7, Conv1dOptions { dilation: 3, ..Conv1dOptions::padded(9) })?;
        let transposed = ConvTranspose1d::new(new(&[6 * 5 * 11])?.to_vec1()?, new(&[5])?, 6, 5, 11, 5, 3, Products::F32)?;
        type Layer<'a> = &'a dyn Fn(&Tensor, &Fused<'_>) -> Result<Tensor>;
        let layers: [(Layer<'_>, usize); 4] = [
            (&|x, f| linear.forward_fused(x, f), 40),
            (&|x, f| causal.forward_fused(x, f), 40),
            (&|x, f| dilated.forward_fused(x, f), 40),
            (&|x, f| transposed.forward_fused(x, f), 200),
        ];
        for (i, (layer, rows)) in layers.into_iter().enumerate() {
            let (a, b) = (new(&[1, rows, 5])?, new(&[1, rows, 5])?);
            for before in [None, Some(Pointwise::Shift(&shift)), Some(Pointwise::Function(Activation::Silu))] {
                for add in [&[][..], &[&a], &[&a, &b]] {
                    for (norm, after) in [
                        (None, Some(Pointwise::Snake(&snake))),
                        (Some(&norm), Some(Pointwise::Function(Activation::Mish))),
                        (Some(&norm), None),
                    ] {
                        let fused = Fused { before, add, norm, after };
                        let one = layer(&x, &fused)?;
                        let steps = fused.plain(&x, |x| layer(x, &Fused::default()))?;
                        assert_eq!(one.dims(), steps.dims());
                        assert!(gap(&one, &steps)? < 1e-4, "layer {i} {fused:?}");
                    }
                }
            }
        }
        Ok(())
    }
}
