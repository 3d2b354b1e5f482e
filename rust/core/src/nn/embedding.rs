//! Embedding tables.

use candle_core::{Device, Tensor};

use super::{kernels_run, with_slice};
use crate::checkpoint::Table;
use crate::{Error, Result, Weights};

/// A table `[vocab, channels]`.
#[derive(Clone, Debug)]
pub struct Embedding {
    rows: Rows,
    name: &'static str,
}

/// On the CPU the table stays as its file has it: an utterance reads some hundred rows of a table of 200 MB.
#[derive(Clone, Debug)]
enum Rows {
    Table(Table),
    Tensor(Tensor),
}

impl Embedding {
    /// Reads `weight` `[vocab, channels]`; `name` names the ids in errors.
    pub fn load(weights: &Weights, name: &'static str, vocab: usize, channels: usize) -> Result<Self> {
        let rows = if kernels_run(weights.device()) {
            Rows::Table(weights.table("weight", vocab, channels)?)
        } else {
            Rows::Tensor(weights.tensor("weight", &[vocab, channels])?)
        };
        Ok(Self { rows, name })
    }

    /// Rows of the table.
    pub fn rows(&self) -> usize {
        match &self.rows {
            Rows::Table(table) => table.dims().0,
            Rows::Tensor(table) => table.dims()[0],
        }
    }

    /// Rows of `ids`: `[T, channels]`.
    ///
    /// # Errors
    /// [`Error::Argument`] when an id is outside the table.
    pub fn forward(&self, ids: &[i64]) -> Result<Tensor> {
        let vocab = self.rows();
        if let Some((at, id)) = ids.iter().enumerate().find(|(_, id)| **id < 0 || **id >= vocab as i64) {
            return Err(Error::argument(format!("{}: id {id} at position {at}, expected 0 to {}", self.name, vocab - 1)));
        }
        match &self.rows {
            Rows::Table(table) => Self::tensor(table, ids.iter().map(|id| *id as usize)),
            Rows::Tensor(table) => {
                let ids: Vec<u32> = ids.iter().map(|id| *id as u32).collect();
                Ok(table.index_select(&Tensor::new(ids.as_slice(), table.device())?, 0)?)
            }
        }
    }

    /// Calls `f` with row `id` of a CPU table.
    pub(crate) fn with_row<R>(&self, id: usize, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
        match &self.rows {
            Rows::Table(table) => Ok(f(&table.gather(std::iter::once(id)))),
            Rows::Tensor(table) => with_slice(&table.narrow(0, id, 1)?, f),
        }
    }

    /// Rows `start .. start + len` (positions): `[len, channels]`.
    pub fn range(&self, start: usize, len: usize) -> Result<Tensor> {
        let (found, rows) = (start + len, self.rows());
        if found > rows {
            return Err(Error::argument(format!("{}: {found} positions, the table has {rows}", self.name)));
        }
        match &self.rows {
            Rows::Table(table) => Self::tensor(table, start..found),
            Rows::Tensor(table) => Ok(table.narrow(0, start, len)?),
        }
    }

    fn tensor(table: &Table, rows: impl ExactSizeIterator<Item = usize>) -> Result<Tensor> {
        let shape = (rows.len(), table.dims().1);
        Ok(Tensor::from_vec(table.gather(rows), shape, &Device::Cpu)?)
    }
}
