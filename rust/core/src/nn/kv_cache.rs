//! Keys and values of one attention layer, in memory set aside beforehand.

use candle_core::{DType, Device, Tensor};

use super::{Attention, attention, with_slice};
use crate::kernels::half_cache::HalfCache;
use crate::{Error, Result};

/// Preallocated keys and values of `capacity` positions.
#[derive(Debug)]
pub struct KvCache {
    store: Store,
    capacity: usize,
    len: usize,
}

#[derive(Debug)]
enum Store {
    /// `[capacity, channels]` each.
    Float { keys: Tensor, values: Tensor },
    /// In float16, on the CPU.
    Half(HalfCache),
}

impl KvCache {
    /// Room for `capacity` positions in float32.
    pub fn new(capacity: usize, channels: usize, device: &Device) -> Result<Self> {
        let zeros = || Tensor::zeros((capacity, channels), DType::F32, device);
        Ok(Self { store: Store::Float { keys: zeros()?, values: zeros()? }, capacity, len: 0 })
    }

    /// Room for `capacity` positions in float16, for `heads` heads of `size` channels on the CPU.
    pub fn half(capacity: usize, heads: usize, size: usize) -> Self {
        Self { store: Store::Half(HalfCache::new(capacity, heads, size)), capacity, len: 0 }
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing held yet?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends `keys` and `values` `[T, channels]`, and has the last rows `q` `[R, channels]` of them attend over all positions up
    /// to their own; returns `[R, channels]`.
    ///
    /// # Errors
    /// [`Error::Argument`] beyond the capacity, and with float16 for several rows after others: they come one at a time.
    pub fn attend(&mut self, q: &Tensor, keys: &Tensor, values: &Tensor, heads: usize, scale: f64) -> Result<Tensor> {
        let (more, before, options) = (keys.dim(0)?, self.len, Attention { heads, scale, bias: None, causal: true });
        if before + more > self.capacity {
            return Err(Error::argument(format!("KV cache: {} positions do not fit into {}", before + more, self.capacity)));
        }
        let (keys, values) = (keys.contiguous()?, values.contiguous()?);
        self.len += more;
        match &mut self.store {
            Store::Float { keys: all_keys, values: all_values } => {
                all_keys.slice_set(&keys, 0, before)?;
                all_values.slice_set(&values, 0, before)?;
                attention(q, &all_keys.narrow(0, 0, self.len)?, &all_values.narrow(0, 0, self.len)?, options)
            }
            Store::Half(cache) => {
                with_slice(&keys, |k| with_slice(&values, |v| cache.append(k, v)))??;
                match (before, more) {
                    (0, _) => attention(q, &keys, &values, options),
                    (_, 1) => Ok(Tensor::from_vec(with_slice(q, |q| cache.attend(q, scale as f32))?, q.shape(), q.device())?),
                    _ => Err(Error::argument(format!("KV cache: expected 1 row after {before} others, got {more}"))),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn float16_is_close_to_float32() -> Result<()> {
        let new = |rows: usize| Tensor::randn(0f32, 1.0, (rows, 24), &Device::Cpu);
        let (mut float, mut half) = (KvCache::new(12, 24, &Device::Cpu)?, KvCache::half(12, 3, 8));
        for rows in [9, 1, 1, 1] {
            let (q, k, v) = (new(rows.min(2))?, new(rows)?, new(rows)?);
            let (a, b) = (float.attend(&q, &k, &v, 3, 0.35)?, half.attend(&q, &k, &v, 3, 0.35)?);
            assert_eq!((a.dims(), float.len()), (b.dims(), half.len()));
            assert!((a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()? < 2e-3);
        }
        let row = new(1)?;
        for cache in [&mut float, &mut half] {
            assert!(cache.attend(&row, &row, &row, 3, 0.35).is_err(), "beyond the capacity");
        }
        let (mut cache, two) = (KvCache::half(4, 3, 8), new(2)?);
        cache.attend(&row, &row, &row, 3, 0.35)?;
        assert!(cache.attend(&two, &two, &two, 3, 0.35).is_err(), "two rows after one");
        Ok(())
    }
}
