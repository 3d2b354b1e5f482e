//! Text to token ids.

pub mod normalize;
pub mod tokenize;
mod vocabulary;
