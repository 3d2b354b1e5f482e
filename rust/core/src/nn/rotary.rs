//! Rotary position embedding (arXiv:2104.09864) over `[T, H·D]` rows, halves turned against each other.

use candle_core::{Device, Tensor};

use super::{kernels_run, with_slice};
use crate::Result;
use crate::kernels::rotary::rotary;

/// Cosines and sines of every position.
#[derive(Clone, Debug)]
pub struct Rotary {
    /// `[positions, D / 2]`.
    cos: Tensor,
    /// `[positions, D / 2]`.
    sin: Tensor,
    theta: f64,
}

impl Rotary {
    /// A table for heads of `size` channels: channel pair i turns by `theta^(-2i / size)` a position. Frequencies and angles
    /// are rounded to float32, as PyTorch's are.
    pub fn new(theta: f64, size: usize, positions: usize, device: &Device) -> Result<Self> {
        let half = size / 2;
        let frequency = |i: usize| 1.0 / theta.powf((2 * i) as f64 / size as f64) as f32;
        let angle = |i: usize| f64::from((i / half) as f32 * frequency(i % half));
        let table = |f: fn(f64) -> f64| -> Result<Tensor> {
            let values: Vec<f32> = (0..positions * half).map(|i| f(angle(i)) as f32).collect();
            Ok(Tensor::from_vec(values, (positions, half), device)?)
        };
        Ok(Self { cos: table(f64::cos)?, sin: table(f64::sin)?, theta })
    }

    /// Base of the frequencies.
    pub fn theta(&self) -> f64 {
        self.theta
    }

    /// `x` `[T, H·D]` at positions 0 to T - 1; T must not exceed the table.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let ((t, width), half) = (x.dims2()?, self.cos.dim(1)?);
        let (cos, sin) = (self.cos.narrow(0, 0, t)?, self.sin.narrow(0, 0, t)?);
        if !kernels_run(x.device()) || width % (2 * half) != 0 {
            return plain(x, &cos, &sin);
        }
        let mut values = super::to_vec(x)?;
        with_slice(&cos, |cos| with_slice(&sin, |sin| rotary(&mut values, width, cos, sin, half)))??;
        Ok(Tensor::from_vec(values, x.shape(), x.device())?)
    }
}

fn plain(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let ((t, width), half) = (x.dims2()?, cos.dim(1)?);
    let heads = x.reshape((t, width / half / 2, 2, half))?;
    let (left, right) = (heads.narrow(2, 0, 1)?, heads.narrow(2, 1, 1)?);
    let (cos, sin) = (cos.reshape((t, 1, 1, half))?, sin.reshape((t, 1, 1, half))?);
    let turned =
        [(left.broadcast_mul(&cos)? - right.broadcast_mul(&sin)?)?, (right.broadcast_mul(&cos)? + left.broadcast_mul(&sin)?)?];
    Ok(Tensor::cat(&turned, 2)?.reshape((t, width))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_agrees_with_candle() -> Result<()> {
        let table = Rotary::new(10_000.0, 8, 40, &Device::Cpu)?;
        let x = Tensor::randn(0f32, 1.0, (33, 24), &Device::Cpu)?;
        let (cos, sin) = (table.cos.narrow(0, 0, 33)?, table.sin.narrow(0, 0, 33)?);
        let gap = (table.forward(&x)? - plain(&x, &cos, &sin)?)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
        assert!(gap < 1e-6, "{gap}");
        assert!(table.forward(&Tensor::zeros((41, 24), candle_core::DType::F32, &Device::Cpu)?).is_err());
        Ok(())
    }

    #[test]
    fn product_of_two_rows_depends_on_their_distance_alone() -> Result<()> {
        let table = Rotary::new(10_000.0, 8, 100, &Device::Cpu)?;
        let repeated = |x: Tensor| -> Result<Tensor> { table.forward(&x.broadcast_as((100, 8))?.contiguous()?) };
        let q = repeated(Tensor::randn(0f32, 1.0, (1, 8), &Device::Cpu)?)?;
        let k = repeated(Tensor::randn(0f32, 1.0, (1, 8), &Device::Cpu)?)?;
        let scores = q.matmul(&k.t()?)?.to_vec2::<f32>()?;
        for (i, j) in [(0, 3), (20, 23), (96, 99)] {
            assert!((scores[i][j] - scores[50][53]).abs() < 2e-4);
        }
        assert!((scores[0][0] - scores[0][40]).abs() > 1e-3);
        Ok(())
    }
}
