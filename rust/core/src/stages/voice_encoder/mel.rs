//! `voice_encoder.mel`: the mel spectrogram that the voice encoder reads, after a trim of silence.
//!
//! Samples at 16 kHz `[n]` → `[1 + trimmed / 160, 40]`, linear power. Source:
//! `src/chatterbox/models/voice_encoder/melspec.py` and `embeds_from_wavs` of `voice_encoder.py` at 5de7a54, with
//! `librosa.effects.trim` (librosa 0.11).

use crate::dsp::check_samples;
use crate::dsp::mel_filters::FilterBank;
use crate::dsp::stft::{Stft, hann, power_f32, reflect_pad};
use crate::{Matrix, Observer, Result};

const STAGE: &str = "voice_encoder.mel";
const RATE: f64 = 16_000.0;
const FFT_SIZE: usize = 400;
const HOP: usize = 160;
const MELS: usize = 40;
const TRIM_FRAME: usize = 2048;
const TRIM_HOP: usize = 512;
const TRIM_DB: f64 = 20.0;

/// The mel spectrogram `[1 + trimmed / 160, 40]` of a clip at 16 kHz.
///
/// # Errors
/// [`crate::Error::Audio`] for an empty clip, NaN or infinity; what `observer` returns.
pub fn mel(samples: &[f32], observer: &dyn Observer) -> Result<Matrix> {
    check_samples(STAGE, samples, 1)?;
    let padded = reflect_pad(trim(samples), FFT_SIZE / 2);
    let stft = Stft::new(hann(FFT_SIZE), HOP)?;
    let filters = FilterBank::slaney(RATE, FFT_SIZE, MELS, RATE / 2.0);
    let mut out = Matrix::zeros(stft.frames(padded.len()), MELS);
    let (frames, mut power) = (out.rows, vec![0.0; stft.bins()]);
    stft.each(&padded, |t, spectrum| {
        if t % 1024 == 0 {
            observer.progress(STAGE, t, frames)?;
        }
        power_f32(spectrum, &mut power);
        filters.apply(&power, out.row_mut(t))
    })?;
    observer.progress(STAGE, frames, frames)?;
    Ok(out)
}

/// `samples` without the ends that are more than 20 dB below the loudest frame: whole hops of 512, judged by the mean
/// power of frames of 2048 that are centred with zeros. A clip of zeros keeps its length.
pub fn trim(samples: &[f32]) -> &[f32] {
    // Power is floored at 1e-10, so that zeros are 0 dB below zeros.
    let level = |frame: usize| {
        let centre = frame * TRIM_HOP;
        let span = centre.saturating_sub(TRIM_FRAME / 2)..(centre + TRIM_FRAME / 2).min(samples.len());
        let energy: f64 = samples[span].iter().map(|&s| f64::from(s).powi(2)).sum();
        10.0 * (energy / TRIM_FRAME as f64).max(1e-10).log10()
    };
    let levels: Vec<f64> = (0..=samples.len() / TRIM_HOP).map(level).collect();
    let peak = levels.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let loud = |l: &f64| l - peak > -TRIM_DB;
    let first = levels.iter().position(loud).unwrap_or(0);
    let end = levels.iter().rposition(loud).map_or(samples.len(), |last| (last + 1) * TRIM_HOP);
    &samples[first * TRIM_HOP..end.min(samples.len())]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Error, Silent};

    #[test]
    fn trim_keeps_whole_hops_around_the_sound() {
        let mut samples = vec![0.0; 40_000];
        samples.extend((0..61_000).map(|i| (i as f32 * 0.3).sin() * 0.5));
        samples.extend(vec![0.0; 30_000]);
        let kept = trim(&samples);
        // librosa.effects.trim(samples, top_db=20)[1] is [39424, 102400].
        assert_eq!(kept.as_ptr() as usize - samples.as_ptr() as usize, 39_424 * 4);
        assert_eq!(kept.len(), 102_400 - 39_424);
        assert_eq!(trim(&samples[..40_000]).len(), 40_000);
    }

    #[test]
    fn an_observer_stops_the_work() {
        struct Stop;
        impl Observer for Stop {
            fn progress(&self, _stage: &'static str, _done: usize, _total: usize) -> Result<()> {
                Err(Error::Cancelled)
            }
        }
        assert!(matches!(mel(&[0.5; 1000], &Stop), Err(Error::Cancelled)));
        assert_eq!(mel(&[0.5; 1000], &Silent).unwrap().rows, 7);
    }
}
