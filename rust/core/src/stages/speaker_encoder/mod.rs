//! The x-vector of S3Gen (CAMPPlus).

pub mod fbank;
pub mod xvector;
