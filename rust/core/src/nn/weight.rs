//! The weight `[n, k]` of a linear layer or a convolution.

use candle_core::{Device, Tensor};

use super::{kernels_run, with_slice};
use crate::kernels::bf16::Bf16Matrix;
use crate::kernels::{Panels, matmul};
use crate::packed::Note;
use crate::precision::Products;
use crate::{Error, Result, Weights};

/// In one form alone, so that it never counts twice in memory.
#[derive(Clone, Debug)]
pub(super) enum Weight {
    /// For other devices, for few rows, and for CPUs whose products deal nothing.
    Plain(Tensor),
    /// Dealt once, for products with many rows.
    Dealt(std::sync::Arc<Panels>),
    /// Rounded to bfloat16, for products in that format.
    Bf16(std::sync::Arc<Bf16Matrix>),
}

impl Weight {
    /// A weight that meets many rows.
    pub(super) fn dealt(weight: Tensor, products: Products) -> Result<Self> {
        let (n, k) = weight.dims2()?;
        if products == Products::Bf16 {
            if !kernels_run(weight.device()) {
                return Err(Error::argument("precision: expected f32 on this device, got bf16, which runs on the CPU"));
            }
            return Ok(Self::Bf16(with_slice(&weight, |values| Bf16Matrix::of_weight(values, n, k))?.into()));
        }
        if kernels_run(weight.device())
            && let Some(panels) = with_slice(&weight, |values| Panels::of_weight(values, n, k))?
        {
            return Ok(Self::Dealt(panels.into()));
        }
        Ok(Self::Plain(weight))
    }

    /// The weight `name` `[n, k]` dealt, where the cache has it; it was made from the tensors `sources`.
    pub(super) fn found(weights: &Weights, name: &str, n: usize, k: usize, sources: &[(&str, &[usize])]) -> Result<Option<Self>> {
        Ok(match weights.products() {
            Products::Bf16 => weights.found::<Bf16Matrix>(name, n, k, sources)?.map(|matrix| Self::Bf16(matrix.into())),
            Products::F32 => weights.found::<Panels>(name, n, k, sources)?.map(|panels| Self::Dealt(panels.into())),
        })
    }

    /// Has the cache keep it, where `note` says so and it is dealt.
    pub(super) fn keep(&self, note: Option<&Note>) {
        match (self, note) {
            (Self::Dealt(panels), Some(note)) => note.keep::<Panels>(panels),
            (Self::Bf16(matrix), Some(note)) => note.keep::<Bf16Matrix>(matrix),
            _ => {}
        }
    }

    /// Outputs and inputs `(n, k)`.
    pub(super) fn dims(&self) -> (usize, usize) {
        match self {
            Self::Plain(weight) => (weight.dims()[0], weight.dims()[1]),
            Self::Dealt(panels) => panels.dims(),
            Self::Bf16(matrix) => matrix.dims(),
        }
    }

    /// The weight as a tensor `[n, k]`, of rounded numbers where they are bfloat16.
    pub(super) fn tensor(&self) -> Result<Tensor> {
        match self {
            Self::Plain(weight) => Ok(weight.clone()),
            Self::Dealt(panels) => Ok(Tensor::from_vec(panels.to_weight(), panels.dims(), &Device::Cpu)?),
            Self::Bf16(matrix) => Ok(Tensor::from_vec(matrix.to_weight(), matrix.dims(), &Device::Cpu)?),
        }
    }

    /// The weight, where products read it from panels in one format.
    pub(super) fn panels(&self) -> Option<matmul::Weight<'_>> {
        match self {
            Self::Plain(_) => None,
            Self::Dealt(panels) => Some(matmul::Weight::Dealt(panels)),
            Self::Bf16(matrix) => Some(matmul::Weight::Bf16(matrix)),
        }
    }

    /// Calls `f` with the weight as the CPU's products take it.
    pub(super) fn with<R>(&self, f: impl FnOnce(matmul::Weight<'_>) -> R) -> Result<R> {
        match self {
            Self::Plain(weight) => with_slice(weight, |values| f(matmul::Weight::Plain(values))),
            Self::Dealt(panels) => Ok(f(matmul::Weight::Dealt(panels))),
            Self::Bf16(matrix) => Ok(f(matmul::Weight::Bf16(matrix))),
        }
    }
}
