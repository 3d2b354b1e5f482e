//! `speaker_encoder.fbank`: Kaldi's log-mel filter bank energies, without their mean over time.
//!
//! Samples at 16 kHz `[n]` → `[1 + (n - 400) / 160, 80]`, natural logarithms. Source: `extract_feature` of
//! `src/chatterbox/models/s3gen/xvector.py` at 5de7a54, with `torchaudio.compliance.kaldi.fbank` (torchaudio 2.11).
//!
//! The filters, the window and the frames are rounded to float32 step by step as the reference does, which halves the mean
//! difference from it.

use crate::dsp::check_samples;
use crate::dsp::mel_filters::FilterBank;
use crate::dsp::stft::{Stft, hann_f32, power_f32};
use crate::{Matrix, Observer, Result};

const STAGE: &str = "speaker_encoder.fbank";
const RATE: f64 = 16_000.0;
const FRAME: usize = 400;
const HOP: usize = 160;
const FFT_SIZE: usize = 512;
const MELS: usize = 80;
const LOWEST: f64 = 20.0;
const PREEMPHASIS: f32 = 0.97;

/// The features `[1 + (n - 400) / 160, 80]` of a clip at 16 kHz in -1..1; every column has mean 0.
///
/// # Errors
/// [`crate::Error::Audio`] for a clip of less than one frame (400 samples), NaN or infinity; what `observer` returns.
pub fn fbank(samples: &[f32], observer: &dyn Observer) -> Result<Matrix> {
    check_samples(STAGE, samples, FRAME)?;
    let (window, filters) = (povey(), FilterBank::new(&filters()));
    let stft = Stft::new(vec![1.0; FFT_SIZE], FFT_SIZE)?;
    let frames = 1 + (samples.len() - FRAME) / HOP;
    let mut out = Matrix::zeros(frames, MELS);
    let (mut frame, mut power) = ([0f32; FFT_SIZE], vec![0.0; stft.bins()]);
    for t in 0..frames {
        if t % 1024 == 0 {
            observer.progress(STAGE, t, frames)?;
        }
        let cut = &samples[t * HOP..t * HOP + FRAME];
        let mean = (cut.iter().map(|&s| f64::from(s)).sum::<f64>() / FRAME as f64) as f32;
        let mut previous = cut[0] - mean;
        for ((value, &sample), &weight) in frame.iter_mut().zip(cut).zip(&window) {
            let centred = sample - mean;
            *value = (centred - PREEMPHASIS * previous) * weight;
            previous = centred;
        }
        let row = out.row_mut(t);
        stft.each(&frame, |_, spectrum| {
            power_f32(spectrum, &mut power);
            filters.apply(&power, row)
        })?;
        row.iter_mut().for_each(|v| *v = v.max(f32::EPSILON).ln());
    }
    for band in 0..MELS {
        let mean = (0..frames).map(|t| f64::from(out.row(t)[band])).sum::<f64>() / frames as f64;
        (0..frames).for_each(|t| out.row_mut(t)[band] -= mean as f32);
    }
    observer.progress(STAGE, frames, frames)?;
    Ok(out)
}

/// Povey's window `[400]`: the symmetric Hann window to the power of 0.85.
fn povey() -> Vec<f32> {
    hann_f32(FRAME, FRAME - 1).into_iter().map(|w| w.powf(0.85) as f32).collect()
}

/// Triangles `[80, 257]` that are linear in mel = 1127 ln(1 + f / 700); the Nyquist bin has no weight.
fn filters() -> Matrix {
    let mel = |f: f64| 1127.0 * (1.0 + f / 700.0).ln();
    let (low, width) = (mel(LOWEST), (mel(RATE / 2.0) - mel(LOWEST)) / (MELS + 1) as f64);
    let edge = |i: usize| low as f32 + i as f32 * width as f32;
    let mut filters = Matrix::zeros(MELS, FFT_SIZE / 2 + 1);
    for band in 0..MELS {
        let (left, centre, right) = (edge(band), edge(band + 1), edge(band + 2));
        for (bin, weight) in filters.row_mut(band).iter_mut().enumerate().take(FFT_SIZE / 2) {
            let mel = 1127.0 * (1.0 + bin as f32 * (RATE / FFT_SIZE as f64) as f32 / 700.0).ln();
            *weight = ((mel - left) / (centre - left)).min((right - mel) / (right - centre)).max(0.0);
        }
    }
    filters
}
