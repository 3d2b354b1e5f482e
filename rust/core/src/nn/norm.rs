//! LayerNorm and softmax over the last axis.

use candle_core::{D, Tensor};

use super::{kernels_run, with_slice};
use crate::kernels::norm as kernel;
use crate::{Result, Weights};

/// LayerNorm over the last axis.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// From weight and bias `[channels]`.
    pub fn new(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        Self { weight, bias, eps }
    }

    /// Reads `weight` and `bias` `[channels]`.
    pub fn load(weights: &Weights, channels: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: weights.tensor("weight", &[channels])?, bias: weights.tensor("bias", &[channels])?, eps })
    }

    /// What is added to the variance.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// Weight, bias and ε of a CPU layer.
    pub(crate) fn values(&self) -> Result<(Vec<f32>, Vec<f32>, f32)> {
        self.with_values(|weight, bias, eps| (weight.to_vec(), bias.to_vec(), eps))
    }

    /// Number of channels.
    pub(super) fn channels(&self) -> usize {
        self.weight.elem_count()
    }

    /// Calls `f` with weight, bias and ε.
    pub(super) fn with_values<R>(&self, f: impl FnOnce(&[f32], &[f32], f32) -> R) -> Result<R> {
        with_slice(&self.weight, |w| with_slice(&self.bias, |b| f(w, b, self.eps as f32)))?
    }

    /// `x` `[.., channels]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if !kernels_run(x.device()) || x.dim(D::Minus1)? != self.weight.dim(0)? {
            return self.plain(x);
        }
        let mut values = super::to_vec(x)?;
        self.with_values(|w, b, eps| kernel::layer_norm(&mut values, w, b, eps))?;
        Ok(Tensor::from_vec(values, x.shape(), x.device())?)
    }

    fn plain(&self, x: &Tensor) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let scale = (centred.sqr()?.mean_keepdim(D::Minus1)? + self.eps)?.sqrt()?;
        Ok(centred.broadcast_div(&scale)?.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?)
    }
}

/// Softmax over the last axis.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    if kernels_run(x.device()) {
        let mut values = super::to_vec(x)?;
        kernel::softmax(&mut values, x.dim(D::Minus1)?);
        return Ok(Tensor::from_vec(values, x.shape(), x.device())?);
    }
    let e = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
    Ok(e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn kernel_agrees_with_candle() -> Result<()> {
        let norm = LayerNorm {
            weight: Tensor::randn(1f32, 0.2, 37, &Device::Cpu)?,
            bias: Tensor::randn(0f32, 1.0, 37, &Device::Cpu)?,
            eps: 1e-12,
        };
        let x = Tensor::randn(0.5f32, 2.0, (2, 40, 37), &Device::Cpu)?;
        assert!((norm.forward(&x)? - norm.plain(&x)?)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()? < 1e-5);
        Ok(())
    }
}
