//! Depthwise Conv1d over `[T, C]` (one item) that keeps the length.

use candle_core::{DType, Tensor};

use super::{kernels_run, with_slice};
use crate::kernels::depthwise::depthwise;
use crate::{Result, Weights};

/// A convolution whose channels do not mix, without bias.
#[derive(Clone, Debug)]
pub struct DepthwiseConv1d {
    /// `[kernel, channels]`.
    weight: Tensor,
}

impl DepthwiseConv1d {
    /// Reads `weight` `[channels, 1, kernel]`; (kernel - 1) / 2 zero rows go before the input, the others after it.
    pub fn load(weights: &Weights, channels: usize, kernel: usize) -> Result<Self> {
        let weight = weights.tensor("weight", &[channels, 1, kernel])?;
        Ok(Self { weight: weight.squeeze(1)?.t()?.contiguous()? })
    }

    /// Taps.
    pub fn kernel(&self) -> usize {
        self.weight.dims()[0]
    }

    /// `x` `[T, C]` → `[T, C]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (kernel, channels) = self.weight.dims2()?;
        if !kernels_run(x.device()) || x.dim(1)? != channels {
            return self.plain(x);
        }
        let out = with_slice(x, |x| with_slice(&self.weight, |w| depthwise(x, w, channels, (kernel - 1) / 2)))??;
        Ok(Tensor::from_vec(out, x.shape(), x.device())?)
    }

    fn plain(&self, x: &Tensor) -> Result<Tensor> {
        let ((t, _), kernel) = (x.dims2()?, self.weight.dim(0)?);
        let left = (kernel - 1) / 2;
        let padded = x.pad_with_zeros(0, left, kernel - 1 - left)?;
        let mut sum = Tensor::zeros(x.shape(), DType::F32, x.device())?;
        for tap in 0..kernel {
            sum = (sum + padded.narrow(0, tap, t)?.broadcast_mul(&self.weight.narrow(0, tap, 1)?)?)?;
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn kernel_agrees_with_candle() -> Result<()> {
        for (t, kernel) in [(1, 31), (50, 31), (20, 4)] {
            let layer = DepthwiseConv1d { weight: Tensor::randn(0f32, 1.0, (kernel, 12), &Device::Cpu)? };
            let x = Tensor::randn(0f32, 1.0, (t, 12), &Device::Cpu)?;
            let gap = (layer.forward(&x)? - layer.plain(&x)?)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
            assert!(gap < 1e-4, "{gap}");
        }
        Ok(())
    }
}
