//! The weight `[n, k]` of a linear layer or a convolution.

use candle_core::{Device, Tensor};

use super::with_slice;
use crate::kernels::{Panels, matmul};
use crate::packed::Note;
use crate::{Result, Weights};

/// In one of two forms, so that it never counts twice in memory.
#[derive(Clone, Debug)]
pub(super) enum Weight {
    /// For other devices, for few rows, and for CPUs whose products deal nothing.
    Plain(Tensor),
    /// Dealt once, for products with many rows.
    Dealt(std::sync::Arc<Panels>),
}

impl Weight {
    /// A weight that meets many rows.
    pub(super) fn dealt(weight: Tensor) -> Result<Self> {
        let (n, k) = weight.dims2()?;
        if weight.device().is_cpu()
            && let Some(panels) = with_slice(&weight, |values| Panels::of_weight(values, n, k))?
        {
            return Ok(Self::Dealt(panels.into()));
        }
        Ok(Self::Plain(weight))
    }

    /// The weight `name` `[n, k]` dealt, where the cache has it; it was made from the tensors `sources`.
    pub(super) fn found(weights: &Weights, name: &str, n: usize, k: usize, sources: &[(&str, &[usize])]) -> Result<Option<Self>> {
        Ok(weights.found::<Panels>(name, n, k, sources)?.map(|panels| Self::Dealt(panels.into())))
    }

    /// Has the cache keep it, where `note` says so and it is dealt.
    pub(super) fn keep(&self, note: Option<&Note>) {
        if let (Self::Dealt(panels), Some(note)) = (self, note) {
            note.keep::<Panels>(panels);
        }
    }

    /// Outputs and inputs `(n, k)`.
    pub(super) fn dims(&self) -> (usize, usize) {
        match self {
            Self::Plain(weight) => (weight.dims()[0], weight.dims()[1]),
            Self::Dealt(panels) => panels.dims(),
        }
    }

    /// The weight as a tensor `[n, k]`.
    pub(super) fn tensor(&self) -> Result<Tensor> {
        match self {
            Self::Plain(weight) => Ok(weight.clone()),
            Self::Dealt(panels) => Ok(Tensor::from_vec(panels.to_weight(), panels.dims(), &Device::Cpu)?),
        }
    }

    /// Calls `f` with the weight as the CPU's products take it.
    pub(super) fn with<R>(&self, f: impl FnOnce(matmul::Weight<'_>) -> R) -> Result<R> {
        match self {
            Self::Plain(weight) => with_slice(weight, |values| f(matmul::Weight::Plain(values))),
            Self::Dealt(panels) => Ok(f(matmul::Weight::Dealt(panels))),
        }
    }
}
