//! The watermarker: 24 kHz speech in, marked speech of the same length out; and the detector for any sample rate.
//!
//! Embedding: soxr HQ to 32 kHz → spectrogram → the encoder's change added to the lowest 128 bins of the loud frames →
//! samples → back to 24 kHz. It is deterministic and not small: 12 to 16 dB below speech.
//! Weights: `perth/perth_net/pretrained/implicit/perth_net_250000.pth.tar` of the resemble-perth 1.0.1 wheel.
//! Source: resemble-perth 1.0.1, `perth_net_implicit/perth_watermarker.py` and `model/{perth_net,encoder}.py`; called by
//! `src/chatterbox/tts_turbo.py` of resemble-ai/chatterbox at 5de7a54.

use std::path::Path;

use super::convolutions::Stack;
use super::decoder::Decoder;
use super::polyphase::resample_polyphase;
use super::spectrogram::{BAND, SIZE, Spectrogram};
use crate::dsp::resample::resample_soxr_hq;
use crate::torch_archive::{self, Value};
use crate::{Error, Observer, Result};

/// Rate of the speech that is marked, in Hz.
pub const RATE: u32 = 24_000;
/// Rate that Perth works at, in Hz.
const INNER_RATE: u32 = 32_000;
/// One hop of Perth's spectrogram at 24 kHz. Speech of the vocoder is always a multiple of it (480 samples a frame).
const BLOCK: usize = 240;
/// Shortest clip at 24 kHz that fills a centred frame, in whole blocks.
const SHORTEST: usize = 960;

/// Perth's networks and transform; immutable, may be shared by threads.
pub struct Watermarker {
    encoder: Stack,
    decoder: Decoder,
    spectrogram: Spectrogram,
}

impl Watermarker {
    /// Loads `perth_net_250000.pth.tar`.
    ///
    /// # Errors
    /// [`Error::Watermark`] when the file is missing, is not a torch archive, or lacks a tensor of the encoder or the decoders;
    /// [`Error::Device`] of [`crate::kernels::level_in_use`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        crate::kernels::level_in_use()?;
        let path = path.as_ref();
        let detail = |e: Error| match e {
            Error::Watermark(detail) => Error::Watermark(format!("{}: {detail}", path.display())),
            other => Error::Watermark(other.to_string()),
        };
        let file = torch_archive::read(path).map_err(detail)?;
        let model = file.get("model").unwrap_or(&Value::None);
        Ok(Self {
            encoder: Stack::load(model, "encoder.layers", BAND, BAND).map_err(detail)?,
            decoder: Decoder::load(model).map_err(detail)?,
            spectrogram: Spectrogram::new()?,
        })
    }

    /// Marked copy of `samples` `[n]` at 24 kHz, of the same length.
    ///
    /// Upstream cuts its result to a multiple of 240 samples and refuses clips of fewer than 769. Here zeros are appended up
    /// to a multiple of 240 (at least 960), the clip is marked as upstream would mark it, and the result is cut to `n`. The
    /// two are the same thing for what the vocoder delivers. Frames below 5 % of the loudest frame's level stay unmarked, and
    /// digital silence stays silent (1e-9).
    ///
    /// # Errors
    /// [`Error::Argument`] when `samples` is empty or holds NaN or infinity; whatever `observer` returns.
    pub fn embed(&self, samples: &[f32], observer: &dyn Observer) -> Result<Vec<f32>> {
        self.embed_beside(samples, None, observer)
    }

    /// The same for a part of a longer sound, whose loudest frame has the level `loudest` (see [`Self::levels`]).
    ///
    /// What is more than 5,330 samples from an end of the part, and the ends of the sound itself, is then what [`Self::embed`] makes of the whole
    /// sound, to the bit, when the part starts at a multiple of 240 samples.
    ///
    /// # Errors
    /// As [`Self::embed`].
    pub fn embed_beside(&self, samples: &[f32], loudest: Option<f64>, observer: &dyn Observer) -> Result<Vec<f32>> {
        observer.progress("watermark", 0, 1)?;
        let inner = inner(samples)?;
        let (levels, spectrum) = self.spectrogram.forward(&inner, true, observer)?;
        let change = self.encoder.forward(&levels.band, observer, (0, 1))?;
        let marked = self.spectrogram.inverse(spectrum, &levels.band, &levels.mask(loudest), &change)?;
        observer.progress("watermark", 1, 1)?; // the networks were what is counted
        let mut out = resample_soxr_hq(&marked, INNER_RATE, RATE)?;
        out.truncate(samples.len());
        Ok(out)
    }

    /// The level of every frame of `samples` `[n]` at 24 kHz: frame `t` is 2048 samples at 32 kHz around sample 240 `t`, its level the
    /// sum over 1025 bins of 0 (-180 dB) to 1 (+15 dB).
    ///
    /// # Errors
    /// As [`Self::embed`].
    pub fn levels(&self, samples: &[f32], observer: &dyn Observer) -> Result<Vec<f64>> {
        Ok(self.spectrogram.forward(&inner(samples)?, false, observer)?.0.sums)
    }

    /// How surely `samples` `[n]` at `rate` Hz carry the mark, in `[0, 1]`: what upstream's `get_watermark` rounds.
    ///
    /// # Errors
    /// [`Error::Argument`] when `samples` is empty or holds NaN or infinity, or for a rate outside 1 to 768 kHz;
    /// [`Error::Audio`] when the clip is shorter than 32 ms or silent (upstream answers NaN); whatever `observer` returns.
    pub fn detect(&self, samples: &[f32], rate: u32, observer: &dyn Observer) -> Result<f32> {
        check(samples)?;
        let inner = resample_polyphase(samples, rate, INNER_RATE)?;
        if inner.len() <= SIZE / 2 {
            let got = samples.len();
            return Err(Error::Audio(format!(
                "watermark: expected more than 32 ms to look for a mark, got {got} samples at {rate} Hz"
            )));
        }
        let (levels, _) = self.spectrogram.forward(&inner, false, observer)?;
        match self.decoder.forward(&levels, observer)? {
            Some(confidence) => Ok(confidence.clamp(0.0, 1.0) as f32),
            None => Err(Error::Audio("watermark: expected sound to look for a mark in, got silence".into())),
        }
    }
}

/// `samples` as Perth is given them: in whole blocks, at 32 kHz.
fn inner(samples: &[f32]) -> Result<Vec<f32>> {
    check(samples)?;
    let mut padded = samples.to_vec();
    padded.resize(samples.len().next_multiple_of(BLOCK).max(SHORTEST), 0.0);
    resample_soxr_hq(&padded, RATE, INNER_RATE)
}

fn check(samples: &[f32]) -> Result<()> {
    if samples.is_empty() {
        return Err(Error::argument("samples: expected at least one sample, got none"));
    }
    match samples.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(Error::argument(format!("samples: expected finite values, got {} at {at}", samples[at]))),
        None => Ok(()),
    }
}
