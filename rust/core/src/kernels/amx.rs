//! Intel AMX: products of tiles of 16 rows by 64 bytes, bf16 into float32 and 8 bits into int32.
//!
//! The kernels are written over the trait [`tile::Tiles`], whose two implementations are the instructions and, for tests on any
//! machine, a model of them. Where a CPU has AMX, [`available`] first multiplies with it and compares.

pub(super) mod bf16;
mod detect;
mod int4;
mod int8;
#[cfg(test)]
mod model;
mod tile;

pub(super) use detect::available;
pub(super) use int4::panel as multiply_int4;
pub(super) use int8::{ROWS as INT8_ROWS, panel as multiply_int8};

/// Columns of a panel of weights, of either kind.
const COLUMNS: usize = 64;
