//! Speech tokens of a clip (S3Tokenizer v2, 25 Hz).

pub mod mel;
pub mod tokens;
