//! Perth's view of a clip: a 32 kHz spectrogram in normalised dB, and which of its frames are loud enough for a mark.
//!
//! Samples at 32 kHz → levels `[frames, 128]` (0 at -180 dB, 1 at +15 dB) and their sums `[frames]`; and back with changed
//! levels. Source: resemble-perth 1.0.1, `perth_net_implicit/{audio_processor,utils,config}.py`, `model/__init__.py`.

use crate::dsp::stft::{Complex, Spectrum, Stft, hann_f32, reflect_pad};
use crate::{Matrix, Observer, Result};

/// Samples of a frame.
pub(super) const SIZE: usize = 2048;
/// Samples from frame to frame.
pub(super) const HOP: usize = 320;
/// The lowest bins, up to 2 kHz: what the networks see and change.
pub(super) const BAND: usize = 128;
/// Lowest magnitude, -180 dB.
const FLOOR: f64 = 1e-9;
/// Level 0 in dB.
const BOTTOM: f32 = -180.0;
/// Level 1 minus level 0 in dB.
const RANGE: f32 = 195.0;
/// Frames whose levels sum to no more than this share of the loudest frame's are left alone.
const QUIET: f64 = 0.05;
/// Frames between two reports of progress.
const REPORT: usize = 256;

/// Levels of a clip.
pub(super) struct Levels {
    /// `[frames, BAND]`.
    pub(super) band: Matrix,
    /// Sum over all bins of a frame, `[frames]`.
    pub(super) sums: Vec<f64>,
}

impl Levels {
    /// `[frames]`: is the frame loud enough beside one whose levels sum to `loudest`, or beside the loudest of these?
    pub(super) fn mask(&self, loudest: Option<f64>) -> Vec<bool> {
        let threshold = QUIET * loudest.unwrap_or_else(|| self.sums.iter().copied().fold(0.0, f64::max));
        self.sums.iter().map(|sum| *sum > threshold).collect()
    }
}

/// The transform, built once.
pub(super) struct Spectrogram {
    stft: Stft,
}

impl Spectrogram {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { stft: Stft::new(hann_f32(SIZE, SIZE), HOP)? })
    }

    /// Levels of `samples` at 32 kHz (more than `SIZE / 2`), and the spectrum itself when `keep` is set.
    pub(super) fn forward(&self, samples: &[f32], keep: bool, observer: &dyn Observer) -> Result<(Levels, Spectrum)> {
        let padded = reflect_pad(samples, SIZE / 2);
        let (frames, bins) = (self.stft.frames(padded.len()), self.stft.bins());
        let mut band = Matrix::zeros(frames, BAND);
        let mut sums = Vec::with_capacity(frames);
        let mut values = Vec::with_capacity(if keep { frames * bins } else { 0 });
        self.stft.each(&padded, |t, spectrum| {
            if t % REPORT == 0 {
                observer.progress("watermark", 0, 1)?; // the networks are what is counted
            }
            let mut sum = 0f64;
            for (f, c) in spectrum.iter().enumerate() {
                let level = level(c.norm_sqr());
                sum += f64::from(level);
                if f < BAND {
                    band.data[t * BAND + f] = level;
                }
            }
            sums.push(sum);
            if keep {
                values.extend(spectrum.iter().map(|c| Complex::new(c.re as f32, c.im as f32)));
            }
            Ok(())
        })?;
        Ok((Levels { band, sums }, Spectrum { frames: if keep { frames } else { 0 }, bins, values }))
    }

    /// Samples `[(frames - 1) * 320]` of `spectrum` after `change` `[frames, BAND]` was added to the levels `band` of the frames of
    /// `mask`; phases stay. Magnitudes below -180 dB become -180 dB, as they do upstream.
    pub(super) fn inverse(&self, mut spectrum: Spectrum, band: &Matrix, mask: &[bool], change: &Matrix) -> Result<Vec<f32>> {
        for (t, &marked) in mask.iter().enumerate() {
            for (f, c) in spectrum.frame_mut(t).iter_mut().enumerate() {
                let old = f64::from(c.re).hypot(f64::from(c.im));
                let new = if marked && f < BAND {
                    magnitude(band.data[t * BAND + f] + change.data[t * BAND + f])
                } else if old < FLOOR {
                    FLOOR
                } else {
                    continue;
                };
                // the phase of zero is zero
                *c = if old > 0.0 {
                    Complex::new((f64::from(c.re) / old * new) as f32, (f64::from(c.im) / old * new) as f32)
                } else {
                    Complex::new(new as f32, 0.0)
                };
            }
        }
        self.stft.inverse(&spectrum)
    }
}

/// Normalised level of a squared magnitude; 0 exactly at and below the lowest one, so that silence sums to nothing.
fn level(power: f64) -> f32 {
    if power <= FLOOR * FLOOR { 0.0 } else { (10.0 * (power as f32).log10() - BOTTOM) / RANGE }
}

/// Magnitude of a normalised level; upstream limits the exponent to 10.
fn magnitude(level: f32) -> f64 {
    10f64.powf(f64::from(level * RANGE + BOTTOM).min(200.0) / 20.0)
}
