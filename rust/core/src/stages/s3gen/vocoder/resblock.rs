//! The residual block of the generator: three pairs of a dilated and a plain convolution, each after a snake.
//!
//! Source: `ResBlock` in `models/s3gen/hifigan.py` of resemble-ai/chatterbox at 5de7a54; snake: arXiv:2006.08195.

use candle_core::Tensor;

use crate::nn::{Conv1d, Conv1dOptions, Fused, Pointwise, Snake};
use crate::{Result, Weights};

/// One block of `channels` in and out.
#[derive(Clone, Debug)]
pub(super) struct ResBlock {
    pairs: Vec<Pair>,
}

#[derive(Clone, Debug)]
struct Pair {
    snakes: [Snake; 2],
    convolutions: [Conv1d; 2],
}

impl ResBlock {
    pub(super) fn load(weights: &Weights, channels: usize, kernel: usize, dilations: &[usize]) -> Result<Self> {
        let conv = |name: &str, i: usize, dilation: usize| {
            let options = Conv1dOptions { dilation, ..Conv1dOptions::padded(dilation * (kernel - 1) / 2) };
            Conv1d::load_weight_norm(&weights.under(name).under(i), channels, channels, kernel, options)
        };
        let snake = |name: &str, i: usize| Snake::load(&weights.under(name).under(i), channels);
        let pair = |(i, dilation): (usize, &usize)| -> Result<Pair> {
            Ok(Pair {
                snakes: [snake("activations1", i)?, snake("activations2", i)?],
                convolutions: [conv("convs1", i, *dilation)?, conv("convs2", i, 1)?],
            })
        };
        Ok(Self { pairs: dilations.iter().enumerate().map(pair).collect::<Result<_>>()? })
    }

    /// Taps of every convolution.
    pub(super) fn kernel(&self) -> usize {
        self.pairs.first().map_or(0, |pair| pair.convolutions[0].geometry().kernel)
    }

    /// Distances between the taps of every pair's first convolution.
    pub(super) fn dilations(&self) -> Vec<usize> {
        self.pairs.iter().map(|pair| pair.convolutions[0].geometry().dilation).collect()
    }

    /// Convolutions, the unit of progress.
    pub(super) fn convolutions(&self) -> usize {
        2 * self.pairs.len()
    }

    /// Every convolution in its order, with the snake before it.
    pub(super) fn layers(&self) -> Vec<(&Snake, &Conv1d)> {
        self.pairs.iter().flat_map(|pair| pair.snakes.iter().zip(&pair.convolutions)).collect()
    }

    /// `block(x) + extra`, `[1, T, channels]`; `step` is called after every convolution and may stop the work.
    pub(super) fn forward(&self, x: &Tensor, extra: Option<&Tensor>, step: &mut dyn FnMut() -> Result<()>) -> Result<Tensor> {
        let mut x = x.clone();
        for (i, pair) in self.pairs.iter().enumerate() {
            let snakes = [0, 1].map(|i| Some(Pointwise::Snake(&pair.snakes[i])));
            // both while an input is laid out, piece by piece: no pass over memory for themselves
            let y = pair.convolutions[0].forward_fused(&x, &Fused { before: snakes[0], ..Fused::default() })?;
            step()?;
            let add: &[&Tensor] = match extra {
                Some(extra) if i + 1 == self.pairs.len() => &[&x, extra],
                _ => &[&x],
            };
            x = pair.convolutions[1].forward_fused(&y, &Fused { before: snakes[1], add, ..Fused::default() })?;
            step()?;
        }
        Ok(x)
    }
}
