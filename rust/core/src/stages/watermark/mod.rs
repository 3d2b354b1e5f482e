//! Perth, the implicit watermark.

pub mod archive;
pub mod perth;
