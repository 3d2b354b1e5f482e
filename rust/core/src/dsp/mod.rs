//! Signal processing shared by stages: windows, spectrograms, filter banks, resampling.

pub mod mel_filters;
pub mod resample;
pub mod stft;

use crate::{Error, Result};

/// Checks a clip before `stage` reads it: at least `minimum` samples, all finite.
///
/// # Errors
/// [`Error::Audio`] that says how many samples are needed, or which sample is not a number.
pub fn check_samples(stage: &str, samples: &[f32], minimum: usize) -> Result<()> {
    if samples.len() < minimum {
        return Err(Error::Audio(format!("{stage}: expected at least {minimum} samples, got {}", samples.len())));
    }
    match samples.iter().position(|s| !s.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::Audio(format!("{stage}: expected finite samples, but sample {at} is {}", samples[at]))),
    }
}
