//! A stack of LSTM layers over `[B, T, C]`, run forwards from zero states.

use candle_core::{DType, Tensor};

use super::{Activation, Linear, kernels_run, to_vec, with_slice};
use crate::kernels::lstm as kernel;
use crate::{Result, Weights};

/// `torch.nn.LSTM` with `batch_first`, one direction.
#[derive(Clone, Debug)]
pub struct Lstm {
    layers: Vec<Layer>,
    hidden: usize,
}

#[derive(Clone, Debug)]
struct Layer {
    /// Inputs' product with both biases, `[in]` → `[4H]`.
    input: Linear,
    /// `[H, 4H]`.
    recurrent: Tensor,
}

impl Lstm {
    /// Reads `weight_ih_l0` `[4H, input]`, `weight_hh_l0` `[4H, H]`, `bias_ih_l0` and `bias_hh_l0` `[4H]`, then `l1` and so on.
    pub fn load(weights: &Weights, input: usize, hidden: usize, layers: usize) -> Result<Self> {
        let layer = |i: usize| -> Result<Layer> {
            let input = if i == 0 { input } else { hidden };
            let bias = |name: &str| weights.tensor(&format!("{name}_l{i}"), &[4 * hidden]);
            Ok(Layer {
                input: Linear::new(
                    weights.tensor(&format!("weight_ih_l{i}"), &[4 * hidden, input])?,
                    Some((bias("bias_ih")? + bias("bias_hh")?)?),
                )?
                .for_many_rows()?,
                recurrent: weights.tensor(&format!("weight_hh_l{i}"), &[4 * hidden, hidden])?.t()?.contiguous()?,
            })
        };
        Ok(Self { layers: (0..layers).map(layer).collect::<Result<_>>()?, hidden })
    }

    /// Input channels.
    pub fn input(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.input.input())
    }

    /// Hidden channels.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Layers.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// `x` `[B, T, in]` → the last layer's final hidden states `[B, H]`. `after_layer` is called after each layer.
    pub fn forward(&self, x: &Tensor, mut after_layer: impl FnMut() -> Result<()>) -> Result<Tensor> {
        let steps = x.dim(1)?;
        let mut x = x.clone();
        for layer in &self.layers {
            x = layer.forward(&x, self.hidden)?;
            after_layer()?;
        }
        Ok(x.narrow(1, steps - 1, 1)?.squeeze(1)?.contiguous()?)
    }
}

impl Layer {
    /// `[B, T, in]` → `[B, T, H]`.
    fn forward(&self, x: &Tensor, hidden: usize) -> Result<Tensor> {
        if !kernels_run(x.device()) {
            return self.plain(x, hidden);
        }
        let (b, t, _) = x.dims3()?;
        let mut gates = to_vec(&self.input.forward(x)?)?;
        let out = with_slice(&self.recurrent, |recurrent| kernel::lstm(&mut gates, t, hidden, recurrent))?;
        Ok(Tensor::from_vec(out, (b, t, hidden), x.device())?)
    }

    fn plain(&self, x: &Tensor, hidden: usize) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let gates = self.input.forward(x)?; // [B, T, 4H]
        let mut h = Tensor::zeros((b, hidden), DType::F32, x.device())?;
        let (mut c, mut states) = (h.clone(), Vec::with_capacity(t));
        for step in 0..t {
            let sums = (gates.narrow(1, step, 1)?.squeeze(1)? + h.matmul(&self.recurrent)?)?;
            let gate = |i: usize, f: Activation| f.forward(&sums.narrow(1, i * hidden, hidden)?.contiguous()?);
            let new = (gate(0, Activation::Sigmoid)? * gate(2, Activation::Tanh)?)?;
            c = ((gate(1, Activation::Sigmoid)? * &c)? + new)?;
            h = (gate(3, Activation::Sigmoid)? * c.tanh()?)?;
            states.push(h.clone());
        }
        Ok(Tensor::stack(&states, 1)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn kernel_agrees_with_candle() -> Result<()> {
        let layer = Layer {
            input: Linear::new(
                Tensor::randn(0f32, 0.4, (64, 5), &Device::Cpu)?,
                Some(Tensor::randn(0f32, 0.5, 64, &Device::Cpu)?),
            )?,
            recurrent: Tensor::randn(0f32, 0.4, (16, 64), &Device::Cpu)?,
        };
        let x = Tensor::randn(0f32, 1.0, (9, 21, 5), &Device::Cpu)?;
        let gap = (layer.forward(&x, 16)? - layer.plain(&x, 16)?)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
        assert!(gap < 2e-6, "{gap}");
        Ok(())
    }
}
