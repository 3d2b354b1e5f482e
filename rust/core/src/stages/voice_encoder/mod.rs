//! The speaker embedding of T3 (LSTM voice encoder).

pub mod mel;
pub mod embedding;
