//! `voice_encoder.embedding`: the speaker embedding that T3 is conditioned on.
//!
//! A mel spectrogram `[frames, 40]` is cut into overlapping partials of 160 frames; an LSTM, a projection and a ReLU turn each
//! into a vector of length 1, and their mean, brought to length 1, is the embedding `[256]`.
//! Source: `src/chatterbox/models/voice_encoder/voice_encoder.py` at 5de7a54 (GE2E, arXiv:1710.10467).

use crate::hyperparameters::Hyperparameters;
use crate::nn::{Activation, Linear, Lstm};
use crate::tap::tap_batch;
use crate::{Checkpoint, Config, Device, Error, Matrix, Observer, Result};

const STAGE: &str = "voice_encoder.embedding";
/// Partials that go through the network together.
const BATCH: usize = 24;
/// What the projection goes through.
const ACTIVATION: Activation = Activation::Relu;

/// The LSTM voice encoder.
#[derive(Clone, Debug)]
pub struct VoiceEncoder {
    lstm: Lstm,
    projection: Linear,
    config: crate::config::VoiceEncoder,
    device: Device,
}

impl VoiceEncoder {
    /// Reads the voice encoder's file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for tensors that are missing, not known or of another shape.
    pub fn load(checkpoint: &Checkpoint, device: &Device) -> Result<Self> {
        let config = Config::clone(checkpoint.config()).voice_encoder;
        let weights = checkpoint.voice_encoder(device);
        let lstm = Lstm::load(&weights.under("lstm"), config.mels, config.hidden_size, config.layers)?;
        let projection = Linear::load(&weights.under("proj"), config.hidden_size, config.embedding_size)?;
        for name in ["similarity_weight", "similarity_bias"] {
            weights.unused(name, &[1], false)?;
        }
        weights.expect_all_used(&[])?;
        Ok(Self { lstm, projection, config, device: device.clone() })
    }

    /// The embedding `[256]`, of length 1, of a mel spectrogram `[frames, 40]`; frames beyond the last partial are left out.
    ///
    /// # Errors
    /// [`Error::Argument`] for no frames, another width, NaN or infinity; [`Error::Audio`] when a partial activates nothing, which
    /// leaves it without a direction; what `observer` returns.
    pub fn embedding(&self, mel: &Matrix, observer: &dyn Observer) -> Result<Vec<f32>> {
        let c = &self.config;
        mel.require("mel", c.mels)?;
        let step = c.step().map_err(Error::Config)?;
        let partials = partials(mel.rows, step, c.partial_frames, c.min_coverage);
        let total = partials.div_ceil(BATCH) * c.layers;
        let (mut done, mut sum) = (0, vec![0f64; c.embedding_size]);
        observer.progress(STAGE, 0, total)?;
        for first in (0..partials).step_by(BATCH) {
            let batch = BATCH.min(partials - first);
            let size = c.partial_frames * c.mels;
            let mut data = vec![0.0; batch * size]; // frames behind the end stay zero
            for (i, partial) in data.chunks_exact_mut(size).enumerate() {
                let from = &mel.data[((first + i) * step * c.mels).min(mel.data.len())..];
                let n = from.len().min(size);
                partial[..n].copy_from_slice(&from[..n]);
            }
            let x = candle_core::Tensor::from_vec(data, (batch, c.partial_frames, c.mels), &self.device)?;
            let hidden = self.lstm.forward(&x, || {
                done += 1;
                observer.progress(STAGE, done, total)
            })?;
            let projected = self.projection.forward(&hidden)?; // [B, 256]
            tap_batch(|| "lstm", &hidden, first == 0)?;
            tap_batch(|| "proj", &projected, first == 0)?;
            let raw = Matrix::from_tensor(&ACTIVATION.forward(&projected)?)?;
            for i in 0..batch {
                let norm = length(raw.row(i).iter().map(|v| f64::from(*v)));
                if norm == 0.0 {
                    let (start, end) = ((first + i) * step, (first + i) * step + c.partial_frames);
                    return Err(Error::Audio(format!(
                        "{STAGE}: expected a voice throughout the clip, found none in frames {start} to {end} of {} \
                         (every activation of the voice encoder is zero)",
                        mel.rows
                    )));
                }
                sum.iter_mut().zip(raw.row(i)).for_each(|(s, v)| *s += f64::from(*v) / norm);
            }
        }
        // The mean's length drops out of the division.
        let norm = length(sum.iter().copied());
        Ok(sum.into_iter().map(|v| (v / norm) as f32).collect())
    }

    /// The hyper-parameters of the loaded layers.
    pub fn hyperparameters(&self) -> Hyperparameters {
        vec![
            ("mels", self.lstm.input().into()),
            ("hidden_size", self.lstm.hidden().into()),
            ("layers", self.lstm.layers().into()),
            ("embedding_size", self.projection.output().into()),
            ("partial_frames", self.config.partial_frames.into()),
            ("partials_per_second", self.config.partials_per_second.into()),
            ("min_coverage", self.config.min_coverage.into()),
            ("final_activation", ACTIVATION.name().into()),
        ]
    }
}

fn length(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

/// How many partials a clip of `frames` has. The last one may reach past the end when the clip covers enough of it.
fn partials(frames: usize, step: usize, size: usize, min_coverage: f64) -> usize {
    let span = (frames + step).saturating_sub(size);
    let (full, rest) = (span / step, span % step);
    let covered = (rest + size - step) as f64 / size as f64;
    if full == 0 || covered >= min_coverage { full + 1 } else { full }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partials_of_a_length() {
        // Frame and partial counts of the official package.
        for (frames, expected) in [
            (1, 1),
            (159, 1),
            (501, 5),
            (542, 6),
            (602, 7),
            (835, 10),
            (950, 11),
            (1001, 12),
            (1251, 15),
            (1501, 18),
            (2001, 25),
            (6001, 77),
        ] {
            assert_eq!(partials(frames, 77, 160, 0.8), expected, "{frames} frames");
        }
    }
}
