//! What the machine can do at most, measured: multiply-adds in registers, and reading memory.
//!
//! Kernels are compared with these figures of the same run (Williams, Waterman & Patterson 2009, the roofline model), because
//! clocks differ between machines and from minute to minute.

mod peak;

pub use peak::{Peaks, measure};

/// What limits a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Multiply-adds of float32.
    F32,
    /// Multiply-adds of bfloat16.
    Bf16,
    /// Multiply-adds of 8-bit integers.
    Int8,
    /// Bytes read and written.
    Memory,
}

/// The work of one call.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// What limits it.
    pub bound: Bound,
    /// Operations (two for a multiply-add), or bytes where memory is the limit.
    pub amount: f64,
}

impl Work {
    /// A product `[m, k] · [k, n]`.
    pub fn product(bound: Bound, m: usize, n: usize, k: usize) -> Self {
        Self { bound, amount: 2.0 * m as f64 * n as f64 * k as f64 }
    }

    /// So many bytes read and written.
    pub fn bytes(amount: usize) -> Self {
        Self { bound: Bound::Memory, amount: amount as f64 }
    }
}
