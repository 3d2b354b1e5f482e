//! Activations over any shape, and the snake over channels.

use candle_core::{D, Tensor};

use super::{kernels_run, with_slice};
pub use crate::kernels::elementwise::Function as Activation;
use crate::kernels::elementwise::{apply, snake};
use crate::{Result, Weights};

impl Activation {
    /// The name that hyper-parameters give it: PyTorch's, and `gelu_tanh` for GPT-2's `gelu_new`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::LeakyRelu(_) => "leaky_relu",
            Self::Elu => "elu",
            Self::Silu => "silu",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
            Self::Mish => "mish",
            Self::GeluErf => "gelu",
            Self::GeluTanh => "gelu_tanh",
        }
    }

    /// Applies the function to every element.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        if !kernels_run(x.device()) {
            return self.plain(x);
        }
        let mut values = super::to_vec(x)?;
        apply(self, &mut values);
        Ok(Tensor::from_vec(values, x.shape(), x.device())?)
    }

    fn plain(self, x: &Tensor) -> Result<Tensor> {
        let sigmoid = |x: &Tensor| ((x.neg()?.exp()? + 1.0)?).recip();
        Ok(match self {
            Self::Relu => x.relu()?,
            Self::LeakyRelu(slope) => x.maximum(&(x * f64::from(slope))?)?,
            Self::Elu => x.elu(1.0)?,
            Self::Silu => (x * sigmoid(x)?)?,
            Self::Sigmoid => sigmoid(x)?,
            Self::Tanh => x.tanh()?,
            Self::Mish => {
                let e = x.minimum(15.0)?.exp()?;
                let n = (&e * (&e + 2.0)?)?;
                (x * (&n / (&n + 2.0)?)?)?
            }
            Self::GeluErf => x.gelu_erf()?,
            Self::GeluTanh => x.gelu()?,
        })
    }
}

/// `x + sin²(αx) / (α + 1e-9)` with one α a channel (arXiv:2006.08195).
#[derive(Clone, Debug)]
pub struct Snake {
    alpha: Tensor,
}

impl Snake {
    /// From α `[channels]`.
    pub fn new(alpha: Tensor) -> Self {
        Self { alpha }
    }

    /// Reads `alpha` `[channels]`.
    pub fn load(weights: &Weights, channels: usize) -> Result<Self> {
        Ok(Self { alpha: weights.tensor("alpha", &[channels])? })
    }

    /// The α `[channels]`.
    pub(super) fn alpha(&self) -> &Tensor {
        &self.alpha
    }

    /// `x` `[.., channels]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if !kernels_run(x.device()) || x.dim(D::Minus1)? != self.alpha.dim(0)? {
            return self.plain(x);
        }
        let mut values = super::to_vec(x)?;
        with_slice(&self.alpha, |alpha| snake(&mut values, alpha))?;
        Ok(Tensor::from_vec(values, x.shape(), x.device())?)
    }

    fn plain(&self, x: &Tensor) -> Result<Tensor> {
        let sine = x.broadcast_mul(&self.alpha)?.sin()?.sqr()?;
        Ok((x + sine.broadcast_div(&(&self.alpha + 1e-9)?)?)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn kernels_agree_with_candle() -> Result<()> {
        let x = (Tensor::randn(0f32, 1.0, (3, 70, 5), &Device::Cpu)? * 3.0)?;
        let gap = |a: Tensor, b: Tensor| -> Result<f32> { Ok((a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?) };
        for function in [
            Activation::Relu,
            Activation::LeakyRelu(0.1),
            Activation::Elu,
            Activation::Silu,
            Activation::Sigmoid,
            Activation::Tanh,
            Activation::Mish,
            Activation::GeluErf,
            Activation::GeluTanh,
        ] {
            let error = gap(function.forward(&x)?, function.plain(&x)?)?;
            assert!(error < 3e-6, "{function:?}: {error}");
        }
        let snake = Snake { alpha: Tensor::new(&[0.5f32, 1.0, 2.0, 0.1, 7.0], &Device::Cpu)? };
        assert!(gap(snake.forward(&x)?, snake.plain(&x)?)? < 5e-6);
        Ok(())
    }
}
