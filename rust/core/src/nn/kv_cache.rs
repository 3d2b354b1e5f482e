//! Keys and values of one attention layer, in memory set aside beforehand.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::{Attention, attention, kernels_run, with_slice};
use crate::kernels::cache::{Cache, Head, StepHeads};
use crate::kernels::float_cache::FloatHead;
use crate::kernels::half_cache::HalfHead;
use crate::{Error, Result};

/// Preallocated keys and values of `capacity` positions.
#[derive(Debug)]
pub struct KvCache {
    store: Store,
    capacity: usize,
}

#[derive(Debug)]
enum Store {
    /// On another device than the CPU, `[capacity, channels]` each, of which `len` rows are held.
    Tensors {
        keys: Tensor,
        values: Tensor,
        len: usize,
    },
    Float(Cache<FloatHead>),
    Half(Cache<HalfHead>),
}

/// Keys and values that nothing is appended to any more: the beginning of any number of caches. On the CPU they share its memory.
#[derive(Clone, Debug)]
pub struct KvPrefix(Shared);

#[derive(Clone, Debug)]
enum Shared {
    Tensors { keys: Tensor, values: Tensor },
    Float(Arc<Cache<FloatHead>>),
    Half(Arc<Cache<HalfHead>>),
}

impl KvPrefix {
    /// Positions held.
    pub fn len(&self) -> usize {
        match &self.0 {
            Shared::Tensors { keys, .. } => keys.dims()[0],
            Shared::Float(cache) => cache.len(),
            Shared::Half(cache) => cache.len(),
        }
    }

    /// Nothing held?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Shared::Tensors { keys, values } => (keys.elem_count() + values.elem_count()) * DType::F32.size_in_bytes(),
            Shared::Float(cache) => cache.bytes(),
            Shared::Half(cache) => cache.bytes(),
        }
    }

    /// A cache that begins with these positions, with room up to `capacity` in all.
    ///
    /// # Errors
    /// [`Error::Argument`] where they do not fit.
    pub fn extend(&self, capacity: usize) -> Result<KvCache> {
        if self.len() > capacity {
            return Err(Error::argument(format!("KV cache: {} positions do not fit into {capacity}", self.len())));
        }
        let store = match &self.0 {
            Shared::Tensors { keys, values } => {
                let all = |part: &Tensor| -> Result<Tensor> {
                    let all = Tensor::zeros((capacity, part.dim(1)?), DType::F32, part.device())?;
                    all.slice_set(part, 0, 0)?;
                    Ok(all)
                };
                Store::Tensors { keys: all(keys)?, values: all(values)?, len: self.len() }
            }
            Shared::Float(cache) => Store::Float(Cache::after(cache.clone(), capacity)),
            Shared::Half(cache) => Store::Half(Cache::after(cache.clone(), capacity)),
        };
        Ok(KvCache { store, capacity })
    }
}

impl KvCache {
    /// Room for `capacity` positions in float32, for `heads` heads of `size` channels.
    pub fn new(capacity: usize, heads: usize, size: usize, device: &Device) -> Result<Self> {
        let zeros = || Tensor::zeros((capacity, heads * size), DType::F32, device);
        let store = if kernels_run(device) {
            Store::Float(Cache::new(capacity, heads, size))
        } else {
            Store::Tensors { keys: zeros()?, values: zeros()?, len: 0 }
        };
        Ok(Self { store, capacity })
    }

    /// Room for `capacity` positions in float16, for `heads` heads of `size` channels on the CPU.
    pub fn half(capacity: usize, heads: usize, size: usize) -> Self {
        Self { store: Store::Half(Cache::new(capacity, heads, size)), capacity }
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        match &self.store {
            Store::Tensors { len, .. } => *len,
            Store::Float(cache) => cache.len(),
            Store::Half(cache) => cache.len(),
        }
    }

    /// Nothing held yet?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is held, to be shared from now on.
    ///
    /// # Errors
    /// [`Error::Device`] for an operation that the device refuses.
    pub fn freeze(self) -> Result<KvPrefix> {
        Ok(KvPrefix(match self.store {
            Store::Tensors { keys, values, len } => {
                Shared::Tensors { keys: keys.narrow(0, 0, len)?.copy()?, values: values.narrow(0, 0, len)?.copy()? }
            }
            Store::Float(cache) => Shared::Float(Arc::new(cache)),
            Store::Half(cache) => Shared::Half(Arc::new(cache)),
        }))
    }

    /// The heads for a step, on the CPU; [`Self::stepped`] ends it.
    pub(crate) fn step(&mut self) -> Result<StepCache> {
        match &mut self.store {
            Store::Float(cache) => Ok(StepCache::Float(cache.step())),
            Store::Half(cache) => Ok(StepCache::Half(cache.step())),
            Store::Tensors { .. } => Err(Error::argument("KV cache: expected one on the CPU")),
        }
    }

    /// Counts the position that a step has written in every head.
    pub(crate) fn stepped(&mut self) {
        match &mut self.store {
            Store::Float(cache) => cache.stepped(),
            Store::Half(cache) => cache.stepped(),
            Store::Tensors { len, .. } => *len += 1,
        }
    }

    /// Appends `keys` and `values` `[T, channels]`.
    ///
    /// # Errors
    /// [`Error::Argument`] beyond the capacity.
    pub fn append(&mut self, keys: &Tensor, values: &Tensor) -> Result<()> {
        let (more, before) = (keys.dim(0)?, self.len());
        if before + more > self.capacity {
            return Err(Error::argument(format!("KV cache: {} positions do not fit into {}", before + more, self.capacity)));
        }
        let (keys, values) = (keys.contiguous()?, values.contiguous()?);
        match &mut self.store {
            Store::Tensors { keys: all_keys, values: all_values, len } => {
                all_keys.slice_set(&keys, 0, before)?;
                all_values.slice_set(&values, 0, before)?;
                *len += more;
                Ok(())
            }
            Store::Float(cache) => with_slice(&keys, |k| with_slice(&values, |v| cache.append(k, v)))?,
            Store::Half(cache) => with_slice(&keys, |k| with_slice(&values, |v| cache.append(k, v)))?,
        }
    }

    /// Appends `keys` and `values` `[T, channels]`, and has the last rows `q` `[R, channels]` of them attend over all positions up
    /// to their own; returns `[R, channels]`. Several rows see their own keys and values as they are given, and those of the
    /// positions before as they are held; one row sees all as they are held.
    ///
    /// # Errors
    /// [`Error::Argument`] beyond the capacity.
    pub fn attend(&mut self, q: &Tensor, keys: &Tensor, values: &Tensor, heads: usize, scale: f64) -> Result<Tensor> {
        let (before, options) = (self.len(), Attention { heads, scale, bias: None, causal: true });
        let several = keys.dim(0)? > 1;
        let earlier = match &self.store {
            Store::Float(cache) if several && before > 0 => Some(cache.rows()),
            Store::Half(cache) if several && before > 0 => Some(cache.rows()),
            _ => None,
        };
        self.append(keys, values)?;
        match (&self.store, earlier) {
            (Store::Tensors { keys, values, len }, _) => {
                attention(q, &keys.narrow(0, 0, *len)?, &values.narrow(0, 0, *len)?, options)
            }
            (_, Some(earlier)) => {
                let behind = |rows: Vec<f32>, more: &Tensor| -> Result<Tensor> {
                    let rows = Tensor::from_vec(rows, (before, more.dim(1)?), more.device())?;
                    Ok(Tensor::cat(&[&rows, more], 0)?)
                };
                attention(q, &behind(earlier.0, keys)?, &behind(earlier.1, values)?, options)
            }
            (_, None) if several => attention(q, keys, values, options),
            (Store::Float(cache), None) => one(cache, q, scale),
            (Store::Half(cache), None) => one(cache, q, scale),
        }
    }
}

/// A cache's heads during a step; see [`StepHeads`].
#[derive(Debug)]
pub(crate) enum StepCache {
    Float(StepHeads<FloatHead>),
    Half(StepHeads<HalfHead>),
}

impl StepCache {
    /// # Safety
    /// That of [`StepHeads::head`].
    pub(crate) unsafe fn head(&self, h: usize, q: &[f32], key: &[f32], value: &[f32], scale: f32, out: &mut [f32]) {
        // SAFETY: promised by the caller.
        unsafe {
            match self {
                Self::Float(heads) => heads.head(h, q, key, value, scale, out),
                Self::Half(heads) => heads.head(h, q, key, value, scale, out),
            }
        }
    }
}

/// Attention of one row.
fn one<H: Head>(cache: &Cache<H>, q: &Tensor, scale: f64) -> Result<Tensor> {
    Ok(Tensor::from_vec(with_slice(q, |q| cache.attend(q, scale as f32))?, q.shape(), q.device())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(rows: usize) -> Result<Tensor> {
        Ok(Tensor::randn(0f32, 1.0, (rows, 24), &Device::Cpu)?)
    }

    fn gap(a: &Tensor, b: &Tensor) -> Result<f32> {
        Ok((a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?)
    }

    fn both(capacity: usize) -> Result<[KvCache; 2]> {
        Ok([KvCache::new(capacity, 3, 8, &Device::Cpu)?, KvCache::half(capacity, 3, 8)])
    }

    /// Any rows after any others, against all of them at once.
    #[test]
    fn attention_is_causal_whatever_the_pieces() -> Result<()> {
        let (q, k, v) = (new(40)?, new(40)?, new(40)?);
        let all = attention(&q, &k, &v, Attention { heads: 3, scale: 0.35, bias: None, causal: true })?;
        for pieces in [&[40][..], &[20, 20], &[1, 3, 36], &[17, 1, 1, 21]] {
            for (mut cache, limit) in both(40)?.into_iter().zip([1e-5, 3e-3]) {
                let (mut at, mut shared) = (0, Vec::new());
                for rows in pieces {
                    let part = |x: &Tensor| x.narrow(0, at, *rows);
                    let few = (*rows).min(5);
                    let q = q.narrow(0, at + rows - few, few)?;
                    let found = cache.attend(&q, &part(&k)?, &part(&v)?, 3, 0.35)?;
                    at += rows;
                    assert_eq!((cache.len(), found.dims()), (at, &[few, 24][..]));
                    let error = gap(&found, &all.narrow(0, at - few, few)?)?;
                    assert!(error < limit, "{pieces:?} at {at}: {error}");
                    if shared.is_empty() {
                        let prefix = cache.freeze()?;
                        assert_eq!((prefix.len(), prefix.is_empty()), (at, false));
                        cache = prefix.extend(40)?;
                        shared.push(prefix);
                    }
                }
                let row = new(1)?;
                assert!(cache.append(&row, &row).is_err_and(|e| e.to_string().contains("41 positions do not fit into 40")));
                assert!(shared[0].extend(pieces[0] - 1).is_err());
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_shared_does_not_change() -> Result<()> {
        let (k, v) = (new(9)?, new(9)?);
        for mut cache in both(9)? {
            cache.append(&k, &v)?;
            let prefix = cache.freeze()?;
            let row = new(1)?;
            let first = prefix.extend(10)?.attend(&row, &row, &row, 3, 0.35)?;
            let (mut other, more) = (prefix.extend(12)?, new(3)?);
            other.attend(&more, &more, &more, 3, 0.35)?;
            assert_eq!(gap(&prefix.extend(20)?.attend(&row, &row, &row, 3, 0.35)?, &first)?, 0.0);
            assert_eq!(prefix.len(), 9);
        }
        Ok(())
    }

    #[test]
    fn bytes_are_those_of_the_numbers() -> Result<()> {
        let [float, half] = both(16)?;
        assert_eq!((float.freeze()?.bytes(), half.freeze()?.bytes()), (2 * 16 * 24 * 4, 2 * 16 * 24 * 2));
        Ok(())
    }
}
