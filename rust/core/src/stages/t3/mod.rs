//! T3: text to speech tokens (GPT-2 backbone).

pub mod batch;
pub mod decoder;
pub mod generate;
pub mod many;
mod prefix;
pub mod sampler;
mod step;
