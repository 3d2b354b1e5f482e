//! `s3tokenizer.mel`: the normalised log-mel spectrogram that S3Tokenizer reads.
//!
//! Samples at 16 kHz `[n]` → `[n / 160, 128]`, `(log10(power) + 4) / 4`, at most 80 dB below the clip's largest value.
//! Window and filters are tensors of the checkpoint. Source: `log_mel_spectrogram` of
//! `src/chatterbox/models/s3tokenizer/s3tokenizer.py` at 5de7a54.

use rayon::prelude::*;

use crate::dsp::check_samples;
use crate::dsp::mel_filters::FilterBank;
use crate::dsp::stft::{Stft, power_f32, reflect_pad};
use crate::threads::run;
use crate::{Checkpoint, Device, Matrix, Observer, Result};

const STAGE: &str = "s3tokenizer.mel";
const FFT_SIZE: usize = 400;
const HOP: usize = 160;
const FLOOR: f32 = 1e-10;

/// The stage with the checkpoint's window and filters; immutable.
#[derive(Clone)]
pub struct S3TokenizerMel {
    stft: Stft,
    filters: FilterBank,
}

/// Frames that a task handles.
const PIECE: usize = 64;

impl S3TokenizerMel {
    /// Reads `tokenizer.window` `[400]` and `tokenizer._mel_filters` `[mels, 201]` of the S3Gen file.
    ///
    /// # Errors
    /// [`crate::Error::Checkpoint`] when a tensor is missing, has another shape or is not finite.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        let weights = checkpoint.s3gen(&Device::Cpu).under("tokenizer");
        let (mels, bins) = (checkpoint.config().s3tokenizer.mels, FFT_SIZE / 2 + 1);
        let window = weights.values("window", &[FFT_SIZE])?.into_iter().map(f64::from).collect();
        let filters = Matrix::new(mels, bins, weights.values("_mel_filters", &[mels, bins])?)?;
        Ok(Self { stft: Stft::new(window, HOP)?, filters: FilterBank::new(&filters) })
    }

    /// The spectrogram `[n / 160, mels]` of a clip at 16 kHz.
    ///
    /// # Errors
    /// [`crate::Error::Audio`] for a clip that is too short to be mirrored by 200 samples, NaN or infinity; what
    /// `observer` returns.
    pub fn mel(&self, samples: &[f32], observer: &dyn Observer) -> Result<Matrix> {
        check_samples(STAGE, samples, FFT_SIZE / 2 + 1)?;
        let padded = reflect_pad(samples, FFT_SIZE / 2);
        // One frame fewer than the centred transform has: it is never looked at.
        let frames = self.stft.frames(padded.len()) - 1;
        let mut out = Matrix::zeros(frames, self.filters.bands());
        let mels = self.filters.bands();
        observer.progress(STAGE, 0, frames)?;
        let piece = |(piece, rows): (usize, &mut [f32])| {
            let (first, count) = (piece * PIECE, rows.len() / mels);
            let mut power = vec![0.0; self.stft.bins()];
            self.stft.each(&padded[first * HOP..(first + count - 1) * HOP + FFT_SIZE], |t, spectrum| {
                power_f32(spectrum, &mut power);
                let row = &mut rows[t * mels..(t + 1) * mels];
                self.filters.apply(&power, row)?;
                row.iter_mut().for_each(|v| *v = v.max(FLOOR).log10());
                Ok(())
            })
        };
        run(|| out.data.par_chunks_mut(PIECE * mels).enumerate().try_for_each(piece))?;
        let lowest = out.data.iter().copied().fold(f32::NEG_INFINITY, f32::max) - 8.0;
        out.data.iter_mut().for_each(|v| *v = (v.max(lowest) + 4.0) / 4.0);
        observer.progress(STAGE, frames, frames)?;
        Ok(out)
    }
}
