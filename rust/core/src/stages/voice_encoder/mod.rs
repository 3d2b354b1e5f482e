//! The speaker embedding of T3 (LSTM voice encoder).

pub mod embedding;
pub mod mel;
