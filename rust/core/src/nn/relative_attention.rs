//! Multi-head attention with relative positions (Transformer-XL, arXiv:1901.02860) over `[T, H·D]` rows of one sequence.

use candle_core::{DType, Tensor};

use super::{kernels_run, softmax, with_slice};
use crate::Result;
use crate::kernels::bf16::attention as bf16;
use crate::kernels::relative_attention as kernel;
use crate::precision::Products;

/// The inputs; rows of `heads` heads one after another.
#[derive(Clone, Copy, Debug)]
pub struct RelativeAttention<'a> {
    /// Queries for the keys (with the content bias u), `[T, C]`.
    pub q: &'a Tensor,
    /// Queries for the positions (with the position bias v), `[T, C]`.
    pub r: &'a Tensor,
    /// Keys `[T, C]`.
    pub k: &'a Tensor,
    /// Values `[T, C]`.
    pub v: &'a Tensor,
    /// Projected positions T − 1 down to −(T − 1), `[2T - 1, C]`.
    pub p: &'a Tensor,
    /// Number of heads.
    pub heads: usize,
    /// Factor on the scores.
    pub scale: f64,
    /// Of the kernel's products; elsewhere than on the CPU they are float32.
    pub products: Products,
}

/// `softmax(scale (q_i · k_j + r_i · p_(i − j))) v`, `[T, C]`.
pub fn relative_attention(a: RelativeAttention<'_>) -> Result<Tensor> {
    if !kernels_run(a.q.device()) {
        return plain(a);
    }
    let (heads, size, scale) = (a.heads, a.q.dim(1)? / a.heads, a.scale as f32);
    let out = with_slice(a.q, |q| {
        with_slice(a.r, |r| {
            with_slice(a.k, |k| {
                with_slice(a.v, |v| {
                    with_slice(a.p, |p| match a.products {
                        Products::F32 => {
                            kernel::relative_attention(kernel::RelativeAttention { q, r, k, v, p, heads, size, scale })
                        }
                        Products::Bf16 => {
                            let positions = Some(bf16::Positions { r, p });
                            bf16::attention(bf16::Attention { q, k, v, heads, size, scale, positions })
                        }
                    })
                })
            })
        })
    })?????;
    Ok(Tensor::from_vec(out, a.q.shape(), a.q.device())?)
}

fn plain(a: RelativeAttention<'_>) -> Result<Tensor> {
    let (t, width) = a.q.dims2()?;
    let split = |x: &Tensor| -> candle_core::Result<Tensor> {
        x.reshape((x.dim(0)?, a.heads, width / a.heads))?.transpose(0, 1)?.contiguous() // [H, T, D]
    };
    let content = split(a.q)?.matmul(&split(a.k)?.transpose(1, 2)?.contiguous()?)?; // [H, T, T]
    let all = split(a.r)?.matmul(&split(a.p)?.transpose(1, 2)?.contiguous()?)?; // [H, T, 2T - 1]
    // row i must start at column t - 1 - i: one zero column, then a view with shorter rows, shifts each row by one more
    let pad = Tensor::zeros((a.heads, t, 1), DType::F32, a.q.device())?;
    let padded = Tensor::cat(&[&pad, &all], 2)?.reshape((a.heads, 2 * t, t))?.narrow(1, 1, 2 * t - 1)?;
    let position = padded.contiguous()?.reshape((a.heads, t, 2 * t - 1))?.narrow(2, 0, t)?; // [H, T, T]
    let out = softmax(&((content + position)? * a.scale)?)?.matmul(&split(a.v)?)?; // [H, T, D]
    Ok(out.transpose(0, 1)?.contiguous()?.reshape((t, width))?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn kernel_agrees_with_candle() -> Result<()> {
        for t in [1, 2, 70, 131] {
            let new = |n: usize| Tensor::randn(0f32, 1.0, (n, 24), &Device::Cpu);
            let (q, r, k, v, p) = (new(t)?, new(t)?, new(t)?, new(t)?, new(2 * t - 1)?);
            for (products, limit) in [(Products::F32, 1e-5), (Products::Bf16, 0.1)] {
                let inputs = RelativeAttention { q: &q, r: &r, k: &k, v: &v, p: &p, heads: 3, scale: 0.35, products };
                let (x, y) = (relative_attention(inputs)?, plain(inputs)?);
                assert!((x - y)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()? < limit, "{t} rows, {products:?}");
            }
        }
        Ok(())
    }
}
