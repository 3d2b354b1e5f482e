//! The reference clip: reading, loudness, resampling.

pub mod load;
pub mod loudness;
pub mod resample;
