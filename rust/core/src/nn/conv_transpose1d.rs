//! ConvTranspose1d over `[B, T, C]`.

use candle_core::Tensor;

use super::{Fused, kernels_run, weight_norm, with_slice};
use crate::kernels::conv_transpose1d::Phases;
use crate::precision::Products;
use crate::{Result, Weights};

/// A transposed convolution.
#[derive(Clone, Debug)]
pub struct ConvTranspose1d {
    /// PyTorch's `[in, out, kernel]`, kept for devices other than the CPU.
    weight: Option<Tensor>,
    phases: Option<Phases>,
    bias: Tensor,
    output: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
}

impl ConvTranspose1d {
    /// Reads a weight-normed transposed convolution (`[input, output, kernel]`), folded.
    pub fn load_weight_norm(
        weights: &Weights,
        input: usize,
        output: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Result<Self> {
        let values = weight_norm(weights, &[input, output, kernel])?;
        let bias = weights.tensor("bias", &[output])?;
        Self::new(values, bias, input, output, kernel, stride, padding, weights.products())
    }

    /// From PyTorch's weight values `[input, output, kernel]`; the device is the bias's.
    pub fn new(
        values: Vec<f32>,
        bias: Tensor,
        input: usize,
        output: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        products: Products,
    ) -> Result<Self> {
        let device = bias.device().clone();
        let (weight, phases) = if kernels_run(&device) {
            (None, Some(Phases::new(&values, input, output, kernel, stride, padding, products)))
        } else {
            (Some(Tensor::from_vec(values, (input, output, kernel), &device)?), None)
        };
        Ok(Self { weight, phases, bias, output, kernel, stride, padding })
    }

    /// Taps.
    pub fn kernel(&self) -> usize {
        self.kernel
    }

    /// Output rows of an input row.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// `x` `[B, T, in]` → `[B, (T - 1) * stride - 2 * padding + kernel, out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_fused(x, &Fused::default())
    }

    /// The same, with more work done on the way.
    pub fn forward_fused(&self, x: &Tensor, fused: &Fused<'_>) -> Result<Tensor> {
        let b = x.dims3()?.0;
        if let Some(weight) = &self.weight {
            return fused.plain(x, |x| plain(x, weight, &self.bias, self.stride, self.padding));
        }
        let out = self.values(x, fused)?;
        let rows = out.len() / (b * self.output).max(1);
        Ok(Tensor::from_vec(out, (b, rows, self.output), x.device())?)
    }

    /// The values of [`Self::forward_fused`], on the CPU.
    pub fn values(&self, x: &Tensor, fused: &Fused<'_>) -> Result<Vec<f32>> {
        let (b, t, c) = x.dims3()?;
        let Some(phases) = &self.phases else {
            return Err(crate::Error::argument("transposed convolution without weights"));
        };
        let rows = phases.rows(t);
        if c != phases.input() || !fused.fits(c, self.output, b * rows * self.output) {
            return Err(crate::Error::argument(format!("transposed convolution of {} channels was given {c}", phases.input())));
        }
        let mut out = fused.start(b * rows, Some(&self.bias), self.output)?;
        let before = |x: &mut [f32]| fused.before.map_or(Ok(()), |before| before.apply(x));
        with_slice(x, |x| {
            let items = x.chunks_exact((t * c).max(1)).zip(out.chunks_exact_mut((rows * self.output).max(1)));
            items.into_iter().try_for_each(|(x, out)| phases.apply_add(x, t, before, out))
        })??;
        fused.finish(&mut out)?;
        Ok(out)
    }
}

fn plain(x: &Tensor, weight: &Tensor, bias: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    let x = x.transpose(1, 2)?.contiguous()?;
    // Candle's fast path needs padding 0 (the crop is the same thing) and is wrong from the second item of a batch on (0.11.1).
    let items: Vec<Tensor> = (0..x.dim(0)?)
        .map(|b| x.narrow(0, b, 1)?.contiguous()?.conv_transpose1d(weight, 0, 0, stride, 1, 1))
        .collect::<candle_core::Result<_>>()?;
    let y = Tensor::cat(&items, 0)?;
    let y = y.narrow(2, padding, y.dim(2)? - 2 * padding)?;
    Ok(y.transpose(1, 2)?.contiguous()?.broadcast_add(bias)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn kernel_agrees_with_candle() -> Result<()> {
        for (kernel, stride, padding, output) in [(16, 8, 4, 3), (11, 5, 3, 3), (7, 3, 2, 3), (16, 8, 4, 17), (11, 5, 3, 65)] {
            // bfloat16 by themselves, so that both kinds of products take the same numbers
            let exact = |x: Tensor| x.to_dtype(DType::BF16)?.to_dtype(DType::F32);
            let weight = exact(Tensor::randn(0f32, 1.0, (4, output, kernel), &Device::Cpu)?)?;
            let bias = Tensor::randn(0f32, 1.0, output, &Device::Cpu)?;
            for products in [Products::F32, Products::Bf16] {
                let values = weight.flatten_all()?.to_vec1()?;
                let layer = ConvTranspose1d::new(values, bias.clone(), 4, output, kernel, stride, padding, products)?;
                let x = exact(Tensor::randn(0f32, 1.0, (2, 9, 4), &Device::Cpu)?)?;
                let (a, b) = (layer.forward(&x)?, plain(&x, &weight, &bias, stride, padding)?);
                assert_eq!(a.dims(), b.dims());
                let gap = (a - b)?.abs()?.max(2)?.max(1)?.to_vec1::<f32>()?;
                assert!(gap.iter().all(|g| *g < 1e-4), "k {kernel} {products:?}: {gap:?}");
            }
        }
        Ok(())
    }
}
