//! S3Gen: speech tokens to waveform.

pub mod encoder;
pub mod flow;
pub mod prompt_mel;
pub mod vocoder;
