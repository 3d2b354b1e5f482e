//! The stages of the pipeline, one folder a group and one file a stage, under the stage keys of the Python package.

pub mod reference;
pub mod s3gen;
pub mod s3tokenizer;
pub mod speaker_encoder;
pub mod t3;
pub mod text;
pub mod voice_encoder;
pub mod watermark;

#[cfg(test)]
mod composed_tests;
