//! `s3gen.prompt_mel`: the log-mel spectrogram of the reference that S3Gen continues.
//!
//! Samples at 24 kHz `[n]` (the first 10 s of the reference) → `[n / 480, 80]`, natural logarithms of mel magnitudes, not
//! below ln(1e-5). Source: `mel_spectrogram` of `src/chatterbox/models/s3gen/utils/mel.py` at 5de7a54.

use crate::dsp::check_samples;
use crate::dsp::mel_filters::FilterBank;
use crate::dsp::stft::{Stft, hann_f32, reflect_pad};
use crate::{Matrix, Observer, Result};

const STAGE: &str = "s3gen.prompt_mel";
const RATE: f64 = 24_000.0;
const FFT_SIZE: usize = 1920;
const HOP: usize = 480;
const MELS: usize = 80;
const HIGHEST: f64 = 8000.0;
const PAD: usize = (FFT_SIZE - HOP) / 2;

/// The spectrogram `[n / 480, 80]` of a clip at 24 kHz.
///
/// # Errors
/// [`crate::Error::Audio`] for a clip that is too short to be mirrored by 720 samples, NaN or infinity; what `observer`
/// returns.
pub fn prompt_mel(samples: &[f32], observer: &dyn Observer) -> Result<Matrix> {
    check_samples(STAGE, samples, PAD + 1)?;
    let padded = reflect_pad(samples, PAD);
    let stft = Stft::new(hann_f32(FFT_SIZE, FFT_SIZE), HOP)?;
    let filters = FilterBank::slaney(RATE, FFT_SIZE, MELS, HIGHEST);
    let mut out = Matrix::zeros(stft.frames(padded.len()), MELS);
    let (frames, mut magnitude) = (out.rows, vec![0.0; stft.bins()]);
    stft.each(&padded, |t, spectrum| {
        if t % 256 == 0 {
            observer.progress(STAGE, t, frames)?;
        }
        for (m, c) in magnitude.iter_mut().zip(spectrum) {
            *m = (c.norm_sqr() + 1e-9).sqrt();
        }
        let row = out.row_mut(t);
        filters.apply(&magnitude, row)?;
        row.iter_mut().for_each(|v| *v = v.max(1e-5).ln());
        Ok(())
    })?;
    observer.progress(STAGE, frames, frames)?;
    Ok(out)
}
