//! Tensors of a torch archive: dtypes, and gathering a strided view of a storage into contiguous values.

use half::{bf16, f16};

use super::objects::{Dtype, TensorView};

/// A contiguous tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// As many values as the product of `shape`, row-major.
    pub data: Data,
}

/// The values of a tensor.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Data {
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    U8(Vec<u8>),
    Bool(Vec<bool>),
}

impl Data {
    /// The dtype's name as safetensors writes it, such as `"F32"`.
    pub fn dtype(&self) -> &'static str {
        match self {
            Self::F32(_) => "F32",
            Self::F16(_) => "F16",
            Self::BF16(_) => "BF16",
            Self::F64(_) => "F64",
            Self::I64(_) => "I64",
            Self::I32(_) => "I32",
            Self::U8(_) => "U8",
            Self::Bool(_) => "BOOL",
        }
    }
}

/// Copies the values of `view` out of its storage's `bytes`, in the machine's byte order.
pub(super) fn gather(view: &TensorView, bytes: &[u8], little: bool) -> Result<Tensor, String> {
    let indices = indices(view)?;
    macro_rules! values {
        ($type:ty) => {{
            const SIZE: usize = size_of::<$type>();
            let from = if little { <$type>::from_le_bytes } else { <$type>::from_be_bytes };
            let mut values = Vec::with_capacity(indices.len());
            for i in indices.iter() {
                let mut word = [0; SIZE];
                word.copy_from_slice(bytes.get(i * SIZE..(i + 1) * SIZE).ok_or("a tensor reaches beyond its storage")?);
                values.push(from(word));
            }
            values
        }};
    }
    let data = match view.storage.dtype {
        Dtype::F32 => Data::F32(values!(f32)),
        Dtype::F16 => Data::F16(values!(f16)),
        Dtype::BF16 => Data::BF16(values!(bf16)),
        Dtype::F64 => Data::F64(values!(f64)),
        Dtype::I64 => Data::I64(values!(i64)),
        Dtype::I32 => Data::I32(values!(i32)),
        Dtype::U8 => Data::U8(values!(u8)),
        Dtype::Bool => Data::Bool(values!(u8).into_iter().map(|v| v != 0).collect()),
    };
    Ok(Tensor { shape: view.shape.clone(), data })
}

/// Positions in the storage, in row-major order of the view.
struct Indices<'a> {
    view: &'a TensorView,
    len: usize,
}

impl Indices<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        let (shape, stride) = (&self.view.shape, &self.view.stride);
        let mut counter = vec![0; shape.len()];
        let mut at = self.view.offset;
        (0..self.len).map(move |_| {
            let now = at;
            for axis in (0..shape.len()).rev() {
                counter[axis] += 1;
                at += stride[axis];
                if counter[axis] < shape[axis] {
                    break;
                }
                at -= stride[axis] * shape[axis];
                counter[axis] = 0;
            }
            now
        })
    }
}

/// Checks that every position that the view names lies inside its storage.
fn indices(view: &TensorView) -> Result<Indices<'_>, String> {
    let len = view.values()?;
    let beyond = || {
        let TensorView { shape, stride, offset, storage } = view;
        format!(
            "tensor of shape {shape:?}, stride {stride:?}, offset {offset}: reaches beyond its storage of {} values",
            storage.len
        )
    };
    if len > 0 {
        let mut last = view.offset;
        for (size, stride) in view.shape.iter().zip(&view.stride) {
            // one step beyond the last index is taken before the counter turns over, so it must not overflow either
            size.checked_mul(*stride).and_then(|n| n.checked_add(view.storage.len)).ok_or_else(beyond)?;
            last = last.checked_add((size - 1) * stride).ok_or_else(beyond)?;
        }
        if last >= view.storage.len {
            return Err(beyond());
        }
    }
    Ok(Indices { view, len })
}
