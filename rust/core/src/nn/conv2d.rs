//! Conv2d over `[T, F, C]` (one item): square kernel, same padding, stride along F.

use candle_core::Tensor;

use super::{fold_batch_norm, kernels_run, with_slice};
use crate::kernels::conv2d as kernel;
pub use crate::kernels::conv2d::Geometry2d;
use crate::{Result, Weights};

/// A two-dimensional convolution with the BatchNorm after it folded in.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// `[kernel (time) * kernel (F) * in, out]`.
    weight: Tensor,
    bias: Tensor,
    geometry: Geometry2d,
}

impl Conv2d {
    /// From PyTorch's weight values `[output, input, kernel (F), kernel (time)]` and a bias `[output]`.
    pub fn new(values: &[f32], bias: Vec<f32>, geometry: Geometry2d, device: &candle_core::Device) -> Result<Self> {
        let Geometry2d { input, output, kernel, .. } = geometry;
        let mut dealt = vec![0.0; values.len()];
        for (i, value) in values.iter().enumerate() {
            let (n, c, df, dt) = (i / kernel / kernel / input, i / kernel / kernel % input, i / kernel % kernel, i % kernel);
            dealt[((dt * kernel + df) * input + c) * output + n] = *value;
        }
        Ok(Self {
            weight: Tensor::from_vec(dealt, (kernel * kernel * input, output), device)?,
            bias: Tensor::from_vec(bias, output, device)?,
            geometry,
        })
    }

    /// Reads `weight` `[output, input, kernel, kernel]` below `weights` and the BatchNorm below `norm`.
    pub fn load(weights: &Weights, norm: &Weights, geometry: Geometry2d, eps: f64) -> Result<Self> {
        let Geometry2d { input, output, kernel, .. } = geometry;
        let mut values = weights.values("weight", &[output, input, kernel, kernel])?;
        let bias = fold_batch_norm(norm, &mut values, output, eps, true)?;
        Self::new(&values, bias, geometry, weights.device())
    }

    /// Its channels, taps and stride.
    pub fn geometry(&self) -> Geometry2d {
        self.geometry
    }

    /// `x` `[T, F, in]` → `[T, F', out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, None, false)
    }

    /// `relu(x ∗ w + b + residual)`.
    pub fn forward_relu(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        self.run(x, residual, true)
    }

    fn run(&self, x: &Tensor, residual: Option<&Tensor>, relu: bool) -> Result<Tensor> {
        let (t, f, c) = x.dims3()?;
        if !kernels_run(x.device()) || c != self.geometry.input {
            return self.plain(x, residual, relu);
        }
        let g = self.geometry;
        let call = |residual: Option<&[f32]>| {
            with_slice(x, |x| {
                with_slice(&self.weight, |weight| {
                    with_slice(&self.bias, |bias| {
                        kernel::conv2d(kernel::Conv2d { x, t, f, weight, bias, residual, relu, geometry: g })
                    })
                })
            })
        };
        let out = match residual {
            Some(residual) => with_slice(residual, |r| call(Some(r)))????,
            None => call(None)???,
        };
        Ok(Tensor::from_vec(out, (t, g.positions(f), g.output), x.device())?)
    }

    fn plain(&self, x: &Tensor, residual: Option<&Tensor>, relu: bool) -> Result<Tensor> {
        let (t, f, c) = x.dims3()?;
        let Geometry2d { kernel, stride, output, .. } = self.geometry;
        let (p, positions) = (self.geometry.padding(), self.geometry.positions(f));
        let x = x.pad_with_zeros(0, p, p)?.pad_with_zeros(1, p, p + stride - 1)?;
        let mut y = self.bias.broadcast_as((t * positions, output))?.contiguous()?;
        for (dt, df) in (0..kernel * kernel).map(|tap| (tap / kernel, tap % kernel)) {
            let tap = x.narrow(0, dt, t)?.narrow(1, df, positions * stride)?.contiguous()?;
            let tap = tap.reshape((t, positions, stride, c))?.narrow(2, 0, 1)?.contiguous()?;
            let w = self.weight.narrow(0, (dt * kernel + df) * c, c)?;
            y = (y + tap.reshape((t * positions, c))?.matmul(&w)?)?;
        }
        let mut y = y.reshape((t, positions, output))?;
        if let Some(residual) = residual {
            y = (y + residual)?;
        }
        Ok(if relu { y.relu()? } else { y })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn kernel_agrees_with_candle() -> Result<()> {
        for (input, output, kernel, stride, f) in [(1, 32, 3, 1, 80), (6, 20, 3, 2, 10), (4, 5, 3, 2, 9), (4, 16, 1, 2, 7)] {
            let geometry = Geometry2d { input, output, kernel, stride };
            let values: Vec<f32> = Tensor::randn(0f32, 1.0, output * input * kernel * kernel, &Device::Cpu)?.to_vec1()?;
            let bias: Vec<f32> = Tensor::randn(0f32, 1.0, output, &Device::Cpu)?.to_vec1()?;
            let layer = Conv2d::new(&values, bias, geometry, &Device::Cpu)?;
            let x = Tensor::randn(0f32, 1.0, (23, f, input), &Device::Cpu)?;
            let residual = Tensor::randn(0f32, 1.0, (23, geometry.positions(f), output), &Device::Cpu)?;
            // Candle's own convolution: [1, C, F, T], stride 1 only along both axes, so every stride-th row is kept.
            let theirs = x.permute((2, 1, 0))?.contiguous()?.unsqueeze(0)?.conv2d(
                &Tensor::from_slice(&values, (output, input, kernel, kernel), &Device::Cpu)?,
                geometry.padding(),
                1,
                1,
                1,
            )?;
            let kept = Tensor::arange_step(0u32, f as u32, stride as u32, &Device::Cpu)?;
            let theirs = theirs.squeeze(0)?.index_select(&kept, 1)?.permute((2, 1, 0))?.broadcast_add(&layer.bias)?;
            let gap = |a: &Tensor, b: &Tensor| -> Result<f32> { Ok((a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar()?) };
            assert!(gap(&layer.forward(&x)?, &theirs)? < 1e-4, "{geometry:?}");
            assert!(gap(&layer.plain(&x, None, false)?, &theirs)? < 1e-4, "{geometry:?}");
            let (a, b) = (layer.forward_relu(&x, Some(&residual))?, layer.plain(&x, Some(&residual), true)?);
            assert!(gap(&a, &b)? < 1e-4, "{geometry:?}");
        }
        Ok(())
    }
}
