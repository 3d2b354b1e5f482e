//! Signal processing shared by stages: windows, spectrograms, filter banks, resampling.

pub mod mel_filters;
pub mod resample;
pub mod stft;
