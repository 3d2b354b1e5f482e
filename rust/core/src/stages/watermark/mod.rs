//! Perth, the implicit watermark: the encoder that marks speech and the decoder that finds the mark.
//!
//! Samples `[n]` at 24 kHz → samples `[n]`; and samples at any rate → confidence in `[0, 1]`. Everything happens on a
//! 32 kHz spectrogram (2048 samples a frame, 320 a hop): networks see the lowest 128 bins of its normalised dB.
//!
//! Source: resemble-perth 1.0.1, `perth/perth_net/perth_net_implicit/` (`perth_watermarker.py`, `model/*.py`).

mod convolutions;
mod decoder;
pub mod perth;
pub mod polyphase;
mod spectrogram;
