//! A plain row-major matrix: what crosses the border between stages (`[time, channels]`, float32).

use crate::{Error, Result};

/// Row-major `[rows, cols]` float32 matrix; rows are time, columns are channels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    /// Number of rows (time).
    pub rows: usize,
    /// Number of columns (channels).
    pub cols: usize,
    /// `rows * cols` values, row after row.
    pub data: Vec<f32>,
}

impl Matrix {
    /// A matrix over `data`, which must hold `rows * cols` values.
    pub fn new(rows: usize, cols: usize, data: Vec<f32>) -> Result<Self> {
        if data.len() != rows * cols {
            return Err(Error::argument(format!("matrix [{rows}, {cols}] needs {} values, got {}", rows * cols, data.len())));
        }
        Ok(Self { rows, cols, data })
    }

    /// Checks a stage's argument `name`: at least one row, `cols` columns, finite numbers.
    ///
    /// # Errors
    /// [`Error::Argument`] with what was expected and what came.
    pub fn require(&self, name: &str, cols: usize) -> Result<()> {
        if self.cols != cols || self.rows == 0 {
            return Err(Error::argument(format!(
                "{name}: expected float32 [time, {cols}] with at least one row, got shape [{}, {}]",
                self.rows, self.cols
            )));
        }
        match self.data.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(i) => Err(Error::argument(format!(
                "{name}: expected finite numbers, got {} at row {}, column {}",
                self.data[i],
                i / cols,
                i % cols
            ))),
        }
    }

    /// A matrix of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { rows, cols, data: vec![0.0; rows * cols] }
    }

    /// Row `t`.
    pub fn row(&self, t: usize) -> &[f32] {
        &self.data[t * self.cols..(t + 1) * self.cols]
    }

    /// Row `t`, mutable.
    pub fn row_mut(&mut self, t: usize) -> &mut [f32] {
        &mut self.data[t * self.cols..(t + 1) * self.cols]
    }

    /// Copies a contiguous or strided `[rows, cols]` tensor from any device.
    pub fn from_tensor(tensor: &candle_core::Tensor) -> Result<Self> {
        let (rows, cols) = tensor.dims2()?;
        Ok(Self { rows, cols, data: tensor.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()? })
    }

    /// A float32 tensor `[rows, cols]` on `device`.
    pub fn to_tensor(&self, device: &candle_core::Device) -> Result<candle_core::Tensor> {
        Ok(candle_core::Tensor::from_slice(&self.data, (self.rows, self.cols), device)?)
    }
}
