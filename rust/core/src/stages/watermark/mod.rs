//! Perth, the implicit watermark.

pub mod perth;
