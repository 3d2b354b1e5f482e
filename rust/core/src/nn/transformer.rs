//! Transformer blocks that the CPU takes through [`crate::kernels::transformer`], strip by strip and without tensors in between.

use std::sync::Arc;

use candle_core::{D, Tensor};

use super::weight::Weight;
use super::{Activation, LayerNorm, Linear, to_vec, with_slice};
use crate::Result;
use crate::kernels::transformer::{Block, FEWEST, Format, Layer, Relative, run};
use crate::tap;

/// The layers of a block: self-attention and a feed-forward layer, each on normalised input and added to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    /// Before attention and before the feed-forward layer.
    pub(crate) norms: [&'a LayerNorm; 2],
    /// Queries, keys and values.
    pub(crate) inputs: [&'a Linear; 3],
    /// From attention to the channels.
    pub(crate) out: &'a Linear,
    /// Projection of relative positions, and what is added to the queries that meet keys and to those that meet positions.
    pub(crate) relative: Option<(&'a Linear, &'a Tensor, &'a Tensor)>,
    /// From the channels and back.
    pub(crate) feed_forward: &'a [Linear; 2],
    /// Between the two.
    pub(crate) activation: Activation,
    /// Number of heads.
    pub(crate) heads: usize,
    /// Factor on the scores.
    pub(crate) scale: f64,
}

/// A block as strips take it; it shares the weights of its layers.
#[derive(Clone, Debug)]
pub(crate) enum Strips {
    /// Products in float32.
    F32(Block<f32>),
    /// Products in bfloat16.
    Bf16(Block<u16>),
}

impl Strips {
    /// `None` where the layers must run one by one: their weights are not dealt, or in float32 for relative positions.
    pub(crate) fn new(parts: Parts<'_>) -> Result<Option<Self>> {
        let bf16 = block(parts, |weight| match weight {
            Weight::Bf16(matrix) => Some(matrix.clone()),
            _ => None,
        })?;
        if bf16.is_some() || parts.relative.is_some() {
            return Ok(bf16.map(Self::Bf16));
        }
        let float = block(parts, |weight| match weight {
            Weight::Dealt(panels) => Some(panels.clone()),
            _ => None,
        })?;
        Ok(float.map(Self::F32))
    }

    fn float(&self) -> Option<&Block<f32>> {
        if let Self::F32(block) = self { Some(block) } else { None }
    }

    fn bf16(&self) -> Option<&Block<u16>> {
        if let Self::Bf16(block) = self { Some(block) } else { None }
    }

    /// Takes `x` `[1, T, channels]` or `[T, channels]` through `blocks`; `table` `[2T - 1, channels]` has the relative positions.
    /// `advance` hears how many are done and may stop the work. `None` where it must go layer by layer: a block has no strips, taps
    /// record, or attention in float32 reads so few keys where they lie.
    pub(crate) fn run(
        blocks: &[Option<&Self>],
        x: &Tensor,
        table: Option<&Tensor>,
        advance: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Option<Tensor>> {
        if tap::is_on() || !super::kernels_run(x.device()) {
            return Ok(None);
        }
        if let Some(blocks) = blocks.iter().map(|block| block.and_then(Self::bf16)).collect::<Option<Vec<_>>>() {
            return through(&blocks, x, table, advance).map(Some);
        }
        match blocks.iter().map(|block| block.and_then(Self::float)).collect::<Option<Vec<_>>>() {
            Some(blocks) if x.dim(D::Minus2)? >= FEWEST => through(&blocks, x, table, advance).map(Some),
            _ => Ok(None),
        }
    }
}

fn through<T: Format>(
    blocks: &[&Block<T>],
    x: &Tensor,
    table: Option<&Tensor>,
    advance: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Tensor> {
    let mut values = to_vec(x)?;
    match table {
        Some(table) => with_slice(table, |table| run(blocks, &mut values, Some(table), advance))??,
        None => run(blocks, &mut values, None, advance)?,
    }
    Ok(Tensor::from_vec(values, x.shape(), x.device())?)
}

/// The block, where `matrix` accepts all weights.
fn block<T: Format>(parts: Parts<'_>, matrix: impl Fn(&Weight) -> Option<Arc<T::Matrix>>) -> Result<Option<Block<T>>> {
    let layer = |linear: &Linear| -> Result<Option<Layer<T>>> {
        let Some(weight) = matrix(linear.weight()) else {
            return Ok(None);
        };
        Ok(Some(Layer { weight, bias: linear.bias().map_or(Ok(vec![0.0; linear.output()]), to_vec)? }))
    };
    let relative = match parts.relative {
        Some((linear, content, position)) => match layer(linear)? {
            Some(layer) => Some(Relative { content: to_vec(content)?, position: to_vec(position)?, layer }),
            None => return Ok(None),
        },
        None => None,
    };
    let ([q, k, v], [up, down]) = (parts.inputs, parts.feed_forward);
    let layers = (layer(q)?, layer(k)?, layer(v)?, layer(parts.out)?, layer(up)?, layer(down)?);
    let (Some(q), Some(k), Some(v), Some(out), Some(up), Some(down)) = layers else {
        return Ok(None);
    };
    Ok(Some(Block {
        norms: [parts.norms[0].values()?, parts.norms[1].values()?],
        inputs: [q, k, v],
        out,
        relative,
        feed_forward: [up, down],
        activation: parts.activation,
        heads: parts.heads,
        scale: parts.scale as f32,
    }))
}
