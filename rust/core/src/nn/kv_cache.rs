//! Keys and values of one attention layer, in memory set aside beforehand.

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result};

/// Preallocated keys and values `[capacity, channels]`.
#[derive(Debug)]
pub struct KvCache {
    keys: Tensor,
    values: Tensor,
    len: usize,
}

impl KvCache {
    /// Room for `capacity` positions.
    pub fn new(capacity: usize, channels: usize, device: &Device) -> Result<Self> {
        let zeros = || Tensor::zeros((capacity, channels), DType::F32, device);
        Ok(Self { keys: zeros()?, values: zeros()?, len: 0 })
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing held yet?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends `[T, channels]` keys and values and returns all of them, `[len, channels]` each.
    pub fn append(&mut self, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let (more, capacity) = (keys.dim(0)?, self.keys.dim(0)?);
        if self.len + more > capacity {
            return Err(Error::argument(format!("KV cache: {} positions do not fit into {capacity}", self.len + more)));
        }
        self.keys.slice_set(&keys.contiguous()?, 0, self.len)?;
        self.values.slice_set(&values.contiguous()?, 0, self.len)?;
        self.len += more;
        Ok((self.keys.narrow(0, 0, self.len)?, self.values.narrow(0, 0, self.len)?))
    }
}
