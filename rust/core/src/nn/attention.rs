//! Multi-head attention over `[T, H·D]` rows of one sequence.

use candle_core::{DType, Device, Tensor};

use super::{kernels_run, softmax, with_slice};
use crate::Result;
use crate::kernels::attention as kernel;
use crate::kernels::bf16::attention as bf16;

/// How to attend.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Number of heads.
    pub heads: usize,
    /// Factor on q·k (and on the bias).
    pub scale: f64,
    /// Added to q·k before the factor, `[H, T, S]`.
    pub bias: Option<&'a Tensor>,
    /// Query `i` of T sees keys `0 ..= S - T + i` only.
    pub causal: bool,
}

/// `softmax(scale (q kᵀ + bias)) v` for `q` `[T, C]`, `k` and `v` `[S, C]`; returns `[T, C]`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, options: Attention<'_>) -> Result<Tensor> {
    if !kernels_run(q.device()) {
        return plain(q, k, v, options);
    }
    let width = q.dim(1)?;
    let run = |bias: Option<&[f32]>| {
        with_slice(q, |q| {
            with_slice(k, |k| {
                with_slice(v, |v| {
                    kernel::attention(kernel::Attention {
                        q,
                        k,
                        v,
                        heads: options.heads,
                        size: width / options.heads,
                        scale: options.scale as f32,
                        bias,
                        causal: options.causal,
                    })
                })
            })
        })
    };
    let out = match options.bias {
        Some(bias) => with_slice(bias, |bias| run(Some(bias)))????,
        None => run(None)???,
    };
    Ok(Tensor::from_vec(out, q.shape(), q.device())?)
}

/// The same in bfloat16 products, on the CPU, without a bias and a mask: `softmax(scale q kᵀ) v`.
pub fn bf16_attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, scale: f64) -> Result<Tensor> {
    let size = q.dim(1)? / heads;
    let out = with_slice(q, |q| {
        with_slice(k, |k| {
            with_slice(v, |v| bf16::attention(bf16::Attention { q, k, v, heads, size, scale: scale as f32, positions: None }))
        })
    })???;
    Ok(Tensor::from_vec(out, q.shape(), q.device())?)
}

fn plain(q: &Tensor, k: &Tensor, v: &Tensor, options: Attention<'_>) -> Result<Tensor> {
    let ((t, width), s) = (q.dims2()?, k.dim(0)?);
    let split = |x: &Tensor| -> candle_core::Result<Tensor> {
        x.reshape((x.dim(0)?, options.heads, width / options.heads))?.transpose(0, 1)?.contiguous() // [H, T, D]
    };
    let mut scores = split(q)?.matmul(&split(k)?.transpose(1, 2)?.contiguous()?)?; // [H, T, S]
    if let Some(bias) = options.bias {
        scores = (scores + bias)?;
    }
    scores = (scores * options.scale)?;
    if options.causal {
        let mask: Vec<f32> = (0..t * s).map(|i| if i % s > s - t + i / s { f32::NEG_INFINITY } else { 0.0 }).collect();
        let mask = Tensor::from_vec(mask, (1, t, s), &Device::Cpu)?.to_device(q.device())?.to_dtype(DType::F32)?;
        scores = scores.broadcast_add(&mask)?;
    }
    let out = softmax(&scores)?.matmul(&split(v)?)?; // [H, T, D]
    Ok(out.transpose(0, 1)?.contiguous()?.reshape((t, width))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_agrees_with_candle() -> Result<()> {
        for (t, s, causal, with_bias) in [(70, 70, false, true), (3, 80, true, false), (1, 20, true, false)] {
            let new = |n: usize| Tensor::randn(0f32, 1.0, (n, 24), &Device::Cpu);
            let (q, k, v) = (new(t)?, new(s)?, new(s)?);
            let bias = Tensor::randn(0f32, 1.0, (3, t, s), &Device::Cpu)?;
            let options = Attention { heads: 3, scale: 0.35, bias: with_bias.then_some(&bias), causal };
            let (a, b) = (attention(&q, &k, &v, options)?, plain(&q, &k, &v, options)?);
            assert!((a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()? < 1e-5);
        }
        Ok(())
    }
}
