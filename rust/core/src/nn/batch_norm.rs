//! BatchNorm with its running statistics, as a factor and a summand a channel (arXiv:1502.03167, evaluation mode).

use candle_core::{D, Tensor};

use super::{kernels_run, with_slice};
use crate::kernels::affine::affine_relu;
use crate::{Result, Weights};

/// BatchNorm and ReLU over channels-last rows.
#[derive(Clone, Debug)]
pub struct BatchNormRelu {
    scale: Tensor,
    shift: Tensor,
    eps: f64,
}

impl BatchNormRelu {
    /// Reads `weight`, `bias`, `running_mean` and `running_var` `[channels]`.
    pub fn load(weights: &Weights, channels: usize, eps: f64) -> Result<Self> {
        let (scale, shift) = scale_and_shift(weights, channels, eps, true)?;
        let tensor = |values: Vec<f32>| Tensor::from_vec(values, channels, weights.device());
        Ok(Self { scale: tensor(scale)?, shift: tensor(shift)?, eps })
    }

    /// What is added to the variance.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// `x` `[.., channels]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if !kernels_run(x.device()) || x.dim(D::Minus1)? != self.scale.dim(0)? {
            return self.plain(x);
        }
        let mut values = super::to_vec(x)?;
        with_slice(&self.scale, |scale| with_slice(&self.shift, |shift| affine_relu(&mut values, scale, shift)))??;
        Ok(Tensor::from_vec(values, x.shape(), x.device())?)
    }

    fn plain(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.broadcast_mul(&self.scale)?.broadcast_add(&self.shift)?.relu()?)
    }
}

/// Folds the BatchNorm below `weights` into the layer before it, which has no bias: scales `values` `[out, ..]` in place and
/// returns the layer's new bias `[out]`. Without `affine` there are running statistics alone.
pub fn fold_batch_norm(weights: &Weights, values: &mut [f32], output: usize, eps: f64, affine: bool) -> Result<Vec<f32>> {
    let (scale, shift) = scale_and_shift(weights, output, eps, affine)?;
    for (row, factor) in values.chunks_exact_mut(values.len() / output.max(1)).zip(&scale) {
        row.iter_mut().for_each(|v| *v *= factor);
    }
    Ok(shift)
}

fn scale_and_shift(weights: &Weights, channels: usize, eps: f64, affine: bool) -> Result<(Vec<f32>, Vec<f32>)> {
    let read = |name: &str| weights.values(name, &[channels]);
    let (mean, variance) = (read("running_mean")?, read("running_var")?);
    let (gain, offset) = if affine { (read("weight")?, read("bias")?) } else { (vec![1.0; channels], vec![0.0; channels]) };
    weights.unused("num_batches_tracked", &[], false)?;
    let factor = |c: usize| f64::from(gain[c]) / (f64::from(variance[c]) + eps).sqrt();
    let scale = (0..channels).map(|c| factor(c) as f32).collect();
    let shift = (0..channels).map(|c| (f64::from(offset[c]) - f64::from(mean[c]) * factor(c)) as f32).collect();
    Ok((scale, shift))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use candle_core::{DType, Device};

    use super::*;
    use crate::checkpoint::TensorFile;

    #[test]
    fn follows_its_definition_alone_and_folded() -> Result<()> {
        let path = std::env::temp_dir().join(format!("batch-norm-{}.safetensors", std::process::id()));
        let tensor = |values: [f32; 2]| Tensor::new(&values, &Device::Cpu).unwrap();
        let (mean, variance, gain, offset) = ([0.5f32, -2.0], [0.25f32, 9.0], [2.0f32, -3.0], [1.0f32, 0.5]);
        candle_core::safetensors::save(
            &HashMap::from([
                ("running_mean", tensor(mean)),
                ("running_var", tensor(variance)),
                ("weight", tensor(gain)),
                ("bias", tensor(offset)),
                ("num_batches_tracked", Tensor::zeros((), DType::I64, &Device::Cpu)?),
            ]),
            &path,
        )?;
        let weights = Weights::new(Arc::new(TensorFile::open(&path)?), &Device::Cpu);
        let layer = BatchNormRelu::load(&weights, 2, 0.75)?;
        let mut linear = vec![1.0, 0.0, 0.0, 1.0];
        let bias = fold_batch_norm(&weights, &mut linear, 2, 0.75, true)?;
        let mut bare = vec![1.0, 1.0];
        let bare_bias = fold_batch_norm(&weights, &mut bare, 2, 0.75, false)?;
        weights.expect_all_used(&[])?;
        std::fs::remove_file(&path).unwrap();

        let x = [[3.0f32, 4.0], [-1.0, -2.5]];
        let found = layer.forward(&Tensor::new(&x, &Device::Cpu)?)?.to_vec2::<f32>()?;
        let plain = layer.plain(&Tensor::new(&x, &Device::Cpu)?)?.to_vec2::<f32>()?;
        for (t, row) in x.iter().enumerate() {
            for c in 0..2 {
                let normal = (row[c] - mean[c]) / (variance[c] + 0.75).sqrt();
                let truth = normal * gain[c] + offset[c];
                assert!((found[t][c] - truth.max(0.0)).abs() < 1e-6 && (plain[t][c] - found[t][c]).abs() < 1e-6);
                assert!((linear[c * 2 + c] * row[c] + bias[c] - truth).abs() < 1e-6);
                assert!((bare[c] * row[c] + bare_bias[c] - normal).abs() < 1e-6);
            }
        }
        Ok(())
    }
}
