//! Linear layers; weights are `[out, in]`, as PyTorch stores them.

use candle_core::{D, Tensor};
use rayon::prelude::*;

use super::weight::Weight;
use super::{Fused, kernels_run, with_slice};
use crate::kernels::matmul::{Rows, matmul_add};
use crate::packed::Note;
use crate::pages::room;
use crate::precision::Products;
use crate::threads::each;
use crate::{Result, Weights};

/// Lines of a transposed matrix that are written together: the numbers of a row that share a cache line.
const LINES: usize = 16;

/// `y = x Wᵀ + b` over the last axis.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
    /// How [`Self::for_many_rows`] deals the weight.
    products: Products,
    note: Option<Note>,
}

impl Linear {
    /// A layer from a weight `[out, in]` and a bias `[out]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        weight.dims2()?;
        Ok(Self { weight: Weight::Plain(weight.contiguous()?), bias, products: Products::F32, note: None })
    }

    /// The same layer with its weight dealt for inputs of many rows, in the format of the products of the [`Weights`] that it was
    /// loaded from; one row is faster without.
    pub fn for_many_rows(self) -> Result<Self> {
        let Weight::Plain(weight) = self.weight else {
            return Ok(self);
        };
        let weight = Weight::dealt(weight, self.products)?;
        weight.keep(self.note.as_ref());
        Ok(Self { weight, note: None, ..self })
    }

    /// Reads `weight` `[output, input]` and `bias` `[output]` below `weights`.
    pub fn load(weights: &Weights, input: usize, output: usize) -> Result<Self> {
        let layer = Self::load_without_bias(weights, input, output)?;
        Ok(Self { bias: Some(weights.tensor("bias", &[output])?), ..layer })
    }

    /// Reads `weight` alone.
    pub fn load_without_bias(weights: &Weights, input: usize, output: usize) -> Result<Self> {
        let (shape, products) = ([output, input], weights.products());
        if let Some(weight) = Weight::found(weights, "weight", output, input, &[("weight", &shape)])? {
            return Ok(Self { weight, bias: None, products, note: None });
        }
        Ok(Self { note: weights.note("weight"), products, ..Self::new(weights.tensor("weight", &shape)?, None)? })
    }

    /// Reads a Hugging Face GPT-2 `Conv1D`, whose weight is stored `[input, output]`.
    pub fn load_transposed(weights: &Weights, input: usize, output: usize) -> Result<Self> {
        let values = transposed(&weights.values("weight", &[input, output])?, input, output);
        let weight = Tensor::from_vec(values, (output, input), weights.device())?;
        Self::new(weight, Some(weights.tensor("bias", &[output])?))
    }

    /// The weight.
    pub(super) fn weight(&self) -> &Weight {
        &self.weight
    }

    /// The bias, if any.
    pub(super) fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// Calls `f` with a plain weight `[out, in]` on the CPU.
    pub(super) fn with_plain<R>(&self, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
        self.weight.with(|weight| match weight {
            crate::kernels::matmul::Weight::Plain(values) => Ok(f(values)),
            _ => Err(crate::Error::argument("a linear layer: expected a plain weight")),
        })?
    }

    /// Output channels.
    pub fn output(&self) -> usize {
        self.weight.dims().0
    }

    /// Input channels.
    pub fn input(&self) -> usize {
        self.weight.dims().1
    }

    /// Does it add a bias?
    pub fn has_bias(&self) -> bool {
        self.bias.is_some()
    }

    /// `x` `[.., in]` → `[.., out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_fused(x, &Fused::default())
    }

    /// `x` `[.., in]` → `[.., out]`, with more work done on the way.
    pub fn forward_fused(&self, x: &Tensor, fused: &Fused<'_>) -> Result<Tensor> {
        let (n, k) = self.weight.dims();
        let mut shape = x.dims().to_vec();
        let m = x.elem_count() / x.dim(D::Minus1)?;
        x.reshape((m, k))?; // a clear error for a wrong width
        if let Some(last) = shape.last_mut() {
            *last = n;
        }
        if !kernels_run(x.device()) || !fused.fits(k, n, m * n) {
            return fused.plain(x, |x| self.plain(x));
        }
        let mut out = fused.start(m, self.bias.as_ref(), n)?;
        with_slice(x, |x| {
            let (mut data, mut changed) = (x, vec![]);
            if let Some(before) = fused.before {
                changed.extend_from_slice(x);
                before.apply(&mut changed)?;
                data = &changed;
            }
            self.weight.with(|w| matmul_add(m, n, k, Rows { data, offset: 0, stride: k }, w, &mut out, 0, n))
        })??;
        fused.finish(&mut out)?;
        Ok(Tensor::from_vec(out, shape, x.device())?)
    }

    fn plain(&self, x: &Tensor) -> Result<Tensor> {
        let (n, k) = self.weight.dims();
        let mut shape = x.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = n;
        }
        let y = x.contiguous()?.reshape(((), k))?.matmul(&self.weight.tensor()?.t()?)?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        Ok(y.reshape(shape)?)
    }
}

/// `[rows, columns]` as `[columns, rows]`.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut to: Vec<f32> = room(rows * columns);
    each(to.spare_capacity_mut()[..rows * columns].par_chunks_mut(LINES * rows).enumerate(), |(block, to)| {
        for (i, row) in values.chunks_exact(columns).enumerate() {
            let part = row[block * LINES..].iter().take(to.len() / rows);
            part.enumerate().for_each(|(line, v)| {
                to[line * rows + i].write(*v);
            });
        }
    });
    // SAFETY: every row has written its number of every line.
    unsafe { to.set_len(rows * columns) };
    to
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_transposed_matrix_has_its_rows_as_columns() {
        for (rows, columns) in [(1, 1), (3, 40), (70, 16), (5, 31)] {
            let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            let found = transposed(&values, rows, columns);
            assert!(found.iter().enumerate().all(|(at, v)| *v == values[at % rows * columns + at / rows]), "{rows} {columns}");
        }
    }

    #[test]
    fn kernel_agrees_with_candle() -> Result<()> {
        let weight = Tensor::randn(0f32, 1.0, (33, 20), &Device::Cpu)?;
        let bias = Tensor::randn(0f32, 1.0, 33, &Device::Cpu)?;
        let layer = Linear::new(weight, Some(bias))?;
        let dealt = layer.clone().for_many_rows()?;
        assert_eq!(
            (dealt.input(), dealt.output(), dealt.weight.tensor()?.to_vec2::<f32>()?),
            (20, 33, layer.weight.tensor()?.to_vec2()?)
        );
        for (layer, shape) in [(&layer, [1, 1, 20]), (&layer, [2, 50, 20]), (&dealt, [1, 1, 20]), (&dealt, [2, 50, 20])] {
            let x = Tensor::randn(0f32, 1.0, &shape[..], &Device::Cpu)?;
            let (a, b) = (layer.forward(&x)?, layer.plain(&x)?);
            assert_eq!(a.dims(), b.dims());
            assert!((a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()? < 1e-4);
        }
        Ok(())
    }
}
