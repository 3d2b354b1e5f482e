//! Fundamental frequency of a mel: five convolutions with ELU and a linear layer.
//!
//! Source: `models/s3gen/f0_predictor.py` of resemble-ai/chatterbox at 5de7a54.

use crate::nn::{Activation, Conv1d, Conv1dOptions, Fused, Linear, Pointwise};
use crate::{Device, Matrix, Result, Weights};

const CONVOLUTIONS: usize = 5;
const KERNEL: usize = 3;

/// The predictor.
#[derive(Clone, Debug)]
pub(super) struct F0Predictor {
    convolutions: Vec<Conv1d>,
    classifier: Linear,
    device: Device,
}

impl F0Predictor {
    pub(super) fn load(weights: &Weights, mels: usize, channels: usize, device: &Device) -> Result<Self> {
        let conv = |i: usize| {
            let input = if i == 0 { mels } else { channels };
            let weights = weights.under("condnet").under(2 * i); // every second entry is the activation
            Conv1d::load_weight_norm(&weights, input, channels, KERNEL, Conv1dOptions::padded(KERNEL / 2))
        };
        Ok(Self {
            convolutions: (0..CONVOLUTIONS).map(conv).collect::<Result<_>>()?,
            classifier: Linear::load(&weights.under("classifier"), channels, 1)?,
            device: device.clone(),
        })
    }

    /// Channels of the convolutions.
    pub(super) fn channels(&self) -> usize {
        self.classifier.input()
    }

    /// `mel` `[F, mels]` → Hz `[F]`.
    pub(super) fn forward(&self, mel: &Matrix) -> Result<Vec<f32>> {
        let mut x = mel.to_tensor(&self.device)?.unsqueeze(0)?;
        for conv in &self.convolutions {
            x = conv.forward_fused(&x, &Fused { after: Some(Pointwise::Function(Activation::Elu)), ..Fused::default() })?;
        }
        let mut f0: Vec<f32> = self.classifier.forward(&x)?.flatten_all()?.to_vec1()?;
        f0.iter_mut().for_each(|v| *v = v.abs());
        Ok(f0)
    }
}
