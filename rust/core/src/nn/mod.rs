//! Layers shared by the stages. Activations are channels-last `[B, T, C]`.
//!
//! Only this folder knows which device it runs on: on the CPU a layer calls a kernel of [`crate::kernels`], elsewhere it is
//! composed of Candle operations. Those compositions are also the kernels' plain twins in the tests.

mod activation;
mod add;
mod attention;
mod batch_norm;
mod composed;
mod conv1d;
mod conv2d;
mod conv_transpose1d;
mod depthwise;
mod embedding;
mod fused;
mod kv_cache;
mod linear;
mod lstm;
mod norm;
mod projection;
mod relative_attention;
mod residual;
mod rotary;
mod transformer;
mod weight;
mod weight_norm;

pub use activation::{Activation, Snake};
pub use add::add;
pub use attention::{Attention, attention, bf16_attention};
pub use batch_norm::{BatchNormRelu, fold_batch_norm};
pub(crate) use composed::kernels_run;
#[cfg(test)]
pub(crate) use composed::{carried, composed};
pub use conv_transpose1d::ConvTranspose1d;
pub use conv1d::{Conv1d, Conv1dOptions};
pub use conv2d::{Conv2d, Geometry2d};
pub use depthwise::DepthwiseConv1d;
pub use embedding::Embedding;
pub use fused::{Fused, Pointwise};
pub(crate) use kv_cache::StepCache;
pub use kv_cache::{KvCache, KvPrefix};
pub use linear::Linear;
pub use lstm::Lstm;
pub use norm::{LayerNorm, softmax};
pub use projection::Projection;
pub(crate) use projection::StepInput;
pub use relative_attention::{RelativeAttention, relative_attention};
pub use residual::ResidualBlocks;
pub use rotary::Rotary;
pub(crate) use transformer::{Parts, Strips};
pub use weight_norm::weight_norm;

use candle_core::{Storage, Tensor};

use crate::kernels::matmul::{Rows, accumulate};
use crate::{Error, Result};

/// Calls `f` with the values of a float32 CPU tensor (copied first when it is not contiguous).
pub(crate) fn with_slice<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    if !kernels_run(x.device()) {
        return Err(Error::Device("a CPU kernel was given a tensor of another device".into()));
    }
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(cpu), Some((start, end))) => Ok(f(&cpu.as_slice::<f32>()?[start..end])),
        _ => Err(Error::Device("a CPU kernel was given a tensor that is not contiguous".into())),
    }
}

/// `a` `[m, k]` · `b` `[k, n]`.
pub(crate) fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ((m, k), (rows, n)) = (a.dims2()?, b.dims2()?);
    if !kernels_run(a.device()) || k != rows {
        return Ok(a.matmul(b)?);
    }
    let mut out = vec![0.0; m * n];
    with_slice(a, |data| with_slice(b, |b| accumulate(m, n, k, Rows { data, offset: 0, stride: k }, b, &mut out, 0, n)))??;
    Ok(Tensor::from_vec(out, (m, n), a.device())?)
}

/// The values of a float32 CPU tensor.
pub(crate) fn to_vec(x: &Tensor) -> Result<Vec<f32>> {
    with_slice(x, <[f32]>::to_vec)
}
