//! Chatterbox Turbo text-to-speech in Rust: every stage of the pipeline, without Python.
//!
//! The stages stand in [`stages`] under the names that the Python package uses for them. They are pure: noise and
//! uniforms are inputs (see [`draws`]), and only `reference::load` reads a file. Arrays at stage borders are float32,
//! time first.

pub mod checkpoint;
pub mod config;
mod content;
pub mod device;
pub mod digest;
pub mod draws;
pub mod dsp;
mod error;
pub mod hyperparameters;
pub mod kernels;
mod matrix;
pub mod nn;
mod observer;
pub mod packed;
mod pages;
pub mod precision;
pub mod segments;
pub mod stages;
pub mod synthesizer;
pub mod tap;
pub mod threads;
pub mod torch_archive;
mod voice;

pub use candle_core::{DType, Device, Tensor};
pub use checkpoint::{Checkpoint, TensorFile, Weights};
pub use config::Config;
pub use error::{Error, Result};
pub use matrix::Matrix;
pub use observer::{Observer, Silent};
pub use precision::Precision;
pub use voice::Voice;
