//! `s3gen.flow`: the mean mel `mu` `[2 (K + N), 80]` to the mel of the generated part `[2 (K + N) - M, 80]`.
//!
//! A mean flow (arXiv:2505.13447) from noise to mel in two Euler steps on a linear time grid. The network sees the noisy mel,
//! `mu`, the speaker's projected x-vector, and the prompt's mel in the first M frames; these frames are dropped at the end.
//! The configuration's cosine grid and guidance of upstream are not used with a mean flow.
//! Source: `models/s3gen/flow.py` and `models/s3gen/flow_matching.py` of resemble-ai/chatterbox at 5de7a54.

mod block;
mod estimator;

use self::estimator::Estimator;
use super::{check, check_vector};
use crate::hyperparameters::Hyperparameters;
use crate::nn::Linear;
use crate::packed::Stay;
use crate::tap::tap;
use crate::{Checkpoint, Config, Device, Error, Matrix, Observer, Precision, Result, Tensor, Weights};

/// Stage key.
const STAGE: &str = "s3gen.flow";

/// The mean-flow mel generator.
#[derive(Clone, Debug)]
pub struct Flow {
    speaker: Linear,
    estimator: Estimator,
    mels: usize,
    xvector: usize,
    steps: usize,
    device: Device,
}

impl Flow {
    /// Reads `flow.spk_embed_affine_layer` and `flow.decoder`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when a tensor is missing, has another shape, or is not known; [`Error::Argument`] for bfloat16 on
    /// another device than the CPU.
    pub fn load(checkpoint: &Checkpoint, device: &Device, precision: Precision) -> Result<Self> {
        let products = precision.s3gen(device)?;
        let weights = checkpoint.s3gen(device).with_products(products);
        weights.through_cache("flow", products.name(), Stay::Memory, |all| Self::read(all, checkpoint.config()))
    }

    fn read(all: &Weights, config: &Config) -> Result<Self> {
        let (mels, xvector) = (config.s3gen.mels, config.speaker_encoder.embedding_size);
        let weights = all.under("flow");
        let flow = Self {
            speaker: Linear::load(&weights.under("spk_embed_affine_layer"), xvector, mels)?,
            estimator: Estimator::load(&weights.under("decoder.estimator"), mels, &config.s3gen.estimator)?,
            mels,
            xvector,
            steps: config.s3gen.estimator.steps,
            device: all.device().clone(),
        };
        all.expect_all_used(&["flow.spk_embed_affine_layer.", "flow.decoder."])?;
        Ok(flow)
    }

    /// Mel `[T - M, mels]` from `mu` `[T, mels]`, `xvector` `[192]`, `prompt_mel` `[M, mels]` and standard normals `noise`
    /// `[T, mels]` (upstream draws the generated part's noise first; see the order of draws in `draws`).
    ///
    /// # Errors
    /// [`Error::Argument`] when a shape does not fit, a value is not finite, or the prompt is longer than `mu`; what `observer`
    /// returns.
    pub fn mel(
        &self,
        mu: &Matrix,
        xvector: &[f32],
        prompt_mel: &Matrix,
        noise: &Matrix,
        observer: &dyn Observer,
    ) -> Result<Matrix> {
        check(STAGE, "mu", mu, None, self.mels)?;
        check_vector(STAGE, "xvector", xvector, self.xvector)?;
        check(STAGE, "prompt_mel", prompt_mel, None, self.mels)?;
        check(STAGE, "noise", noise, Some(mu.rows), self.mels)?;
        if mu.rows == 0 {
            return Err(Error::argument(format!("{STAGE}: mu: expected at least one frame, got none")));
        }
        if prompt_mel.rows > mu.rows {
            let (expected, found) = (mu.rows, prompt_mel.rows);
            return Err(Error::argument(format!(
                "{STAGE}: prompt_mel: expected at most the {expected} frames of mu, got {found}"
            )));
        }
        let speaker = self.project(xvector)?;
        let (t, mels) = (mu.rows, self.mels);
        let mut x = noise.clone();
        for step in 0..self.steps {
            let (from, to) = (self.time(step), self.time(step + 1));
            let mut input = Vec::with_capacity(t * 4 * mels);
            for i in 0..t {
                input.extend_from_slice(x.row(i));
                input.extend_from_slice(mu.row(i));
                input.extend_from_slice(&speaker);
                if i < prompt_mel.rows {
                    input.extend_from_slice(prompt_mel.row(i));
                } else {
                    input.resize(input.len() + mels, 0.0);
                }
            }
            let input = Tensor::from_vec(input, (1, t, 4 * mels), &self.device)?;
            let blocks = self.estimator.blocks();
            let mut advance = |done: usize| observer.progress(STAGE, step * blocks + done, self.steps * blocks);
            let velocity = Matrix::from_tensor(&self.estimator.forward(&input, from, to, &mut advance)?.squeeze(0)?)?;
            x.data.iter_mut().zip(&velocity.data).for_each(|(x, v)| *x += (to - from) * v);
        }
        Matrix::new(t - prompt_mel.rows, mels, x.data.split_off(prompt_mel.rows * mels))
    }

    /// The speaker's channels: the x-vector at unit length through the affine layer.
    fn project(&self, xvector: &[f32]) -> Result<Vec<f32>> {
        let norm = xvector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-12) as f32;
        let unit: Vec<f32> = xvector.iter().map(|v| v / norm).collect();
        let unit = Tensor::from_vec(unit, (1, self.xvector), &self.device)?;
        let projected = self.speaker.forward(&unit)?;
        tap(|| "flow.spk_embed_affine_layer", &projected)?;
        Ok(projected.flatten_all()?.to_vec1()?)
    }

    /// The grid of times, linear from 0 to 1.
    fn time(&self, step: usize) -> f32 {
        step as f32 / self.steps as f32
    }

    /// The hyper-parameters of the loaded layers.
    pub fn hyperparameters(&self) -> Hyperparameters {
        let grid: Vec<f32> = (0..=self.steps).map(|step| self.time(step)).collect();
        let mut all = vec![("xvector_size", self.speaker.input().into()), ("time_grid", grid.into())];
        all.extend(self.estimator.hyperparameters());
        all
    }
}
