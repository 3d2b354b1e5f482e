//! Embedding tables.

use candle_core::Tensor;

use super::with_slice;
use crate::{Error, Result, Weights};

/// A table `[vocab, channels]`.
#[derive(Clone, Debug)]
pub struct Embedding {
    table: Tensor,
    name: &'static str,
}

impl Embedding {
    /// Reads `weight` `[vocab, channels]`; `name` names the ids in errors.
    pub fn load(weights: &Weights, name: &'static str, vocab: usize, channels: usize) -> Result<Self> {
        Ok(Self { table: weights.tensor("weight", &[vocab, channels])?, name })
    }

    /// Rows of the table.
    pub fn rows(&self) -> usize {
        self.table.dims()[0]
    }

    /// Rows of `ids`: `[T, channels]`.
    ///
    /// # Errors
    /// [`Error::Argument`] when an id is outside the table.
    pub fn forward(&self, ids: &[i64]) -> Result<Tensor> {
        let vocab = self.table.dim(0)?;
        if let Some((at, id)) = ids.iter().enumerate().find(|(_, id)| **id < 0 || **id >= vocab as i64) {
            return Err(Error::argument(format!("{}: id {id} at position {at}, expected 0 to {}", self.name, vocab - 1)));
        }
        let ids: Vec<u32> = ids.iter().map(|id| *id as u32).collect();
        let index = Tensor::new(ids.as_slice(), self.table.device())?;
        Ok(self.table.index_select(&index, 0)?)
    }

    /// Calls `f` with row `id` of a CPU table.
    pub(crate) fn with_row<R>(&self, id: usize, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
        with_slice(&self.table.narrow(0, id, 1)?, f)
    }

    /// Rows `start .. start + len` (positions): `[len, channels]`.
    pub fn range(&self, start: usize, len: usize) -> Result<Tensor> {
        if start + len > self.table.dim(0)? {
            let found = start + len;
            return Err(Error::argument(format!("{}: {found} positions, the table has {}", self.name, self.table.dim(0)?)));
        }
        Ok(self.table.narrow(0, start, len)?)
    }
}
