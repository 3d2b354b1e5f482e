//! Blocks of the flow's U-Net over `[1, T, C]`: the causal residual block with the time embedding, and the transformer block.
//!
//! Source: `models/s3gen/decoder.py` and `models/s3gen/matcha/{decoder,transformer}.py` of resemble-ai/chatterbox at 5de7a54.

use candle_core::Tensor;

use crate::config::Estimator as Config;
use crate::hyperparameters::Hyperparameters;
use crate::nn::{
    Activation, Attention, Conv1d, Conv1dOptions, Fused, LayerNorm, Linear, Parts, Pointwise, Strips, attention, bf16_attention,
};
use crate::precision::Products;
use crate::{Result, Weights};

/// Taps of every convolution with more than one.
pub(super) const TAPS: usize = 3;
/// Of the residual blocks.
const RESNET_ACTIVATION: Activation = Activation::Mish;
/// Of the transformer blocks' feed-forward layers.
const ACTIVATION: Activation = Activation::GeluErf;

/// Causal convolution, LayerNorm over the channels, Mish.
#[derive(Clone, Debug)]
pub(super) struct NormedConv {
    conv: Conv1d,
    norm: LayerNorm,
}

impl NormedConv {
    pub(super) fn load(weights: &Weights, input: usize, output: usize, eps: f64) -> Result<Self> {
        let conv = Conv1d::load(&weights.under(0), input, output, TAPS, Conv1dOptions::causal(TAPS), true)?;
        Ok(Self { conv, norm: LayerNorm::load(&weights.under(2), output, eps)? })
    }

    /// `x` `[1, T, input]` → `[1, T, output]`; of `fused`, only `before` is used.
    pub(super) fn forward(&self, x: &Tensor, fused: &Fused<'_>) -> Result<Tensor> {
        let after = Some(Pointwise::Function(RESNET_ACTIVATION));
        self.conv.forward_fused(x, &Fused { before: fused.before, norm: Some(&self.norm), after, ..Fused::default() })
    }
}

/// Two normed convolutions with the time embedding between them, beside a 1 × 1 convolution.
#[derive(Clone, Debug)]
pub(super) struct ResNet {
    time: Linear,
    first: NormedConv,
    second: NormedConv,
    residual: Conv1d,
}

impl ResNet {
    pub(super) fn load(weights: &Weights, input: usize, output: usize, time: usize, eps: f64) -> Result<Self> {
        Ok(Self {
            time: Linear::load(&weights.under("mlp.1"), time, output)?,
            first: NormedConv::load(&weights.under("block1.block"), input, output, eps)?,
            second: NormedConv::load(&weights.under("block2.block"), output, output, eps)?,
            residual: Conv1d::load(&weights.under("res_conv"), input, output, 1, Conv1dOptions::default(), true)?,
        })
    }

    /// `x` `[1, T, input]` and the Mish of the time embedding `[1, time]` → `[1, T, output]`.
    pub(super) fn forward(&self, x: &Tensor, time: &Tensor) -> Result<Tensor> {
        let time = self.time.forward(time)?.squeeze(0)?; // [output]
        let h = self.first.forward(x, &Fused::default())?;
        let h = self.second.forward(&h, &Fused { before: Some(Pointwise::Shift(&time)), ..Fused::default() })?;
        self.residual.forward_fused(x, &Fused { add: &[&h], ..Fused::default() })
    }

    /// What every residual block has in common.
    pub(super) fn hyperparameters(&self) -> Hyperparameters {
        vec![("time_size", self.time.input().into()), ("resnet_activation", RESNET_ACTIVATION.name().into())]
    }
}

/// Self-attention over the whole sequence, then a feed-forward layer with the exact GELU, both on normalised input.
#[derive(Clone, Debug)]
pub(super) struct Transformer {
    norm_attention: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    norm_feed_forward: LayerNorm,
    feed_forward: [Linear; 2],
    heads: usize,
    scale: f64,
    products: Products,
    /// The same block for a pass over strips of rows.
    strips: Option<Strips>,
}

impl Transformer {
    pub(super) fn load(weights: &Weights, c: &Config) -> Result<Self> {
        let (channels, inner) = (c.channels, c.heads * c.head_size);
        let attention = weights.under("attn1");
        let linear = |name: &str| Linear::load_without_bias(&attention.under(name), channels, inner)?.for_many_rows();
        let net = weights.under("ff.net");
        let block = Self {
            norm_attention: LayerNorm::load(&weights.under("norm1"), channels, c.norm_eps)?,
            query: linear("to_q")?,
            key: linear("to_k")?,
            value: linear("to_v")?,
            out: Linear::load(&attention.under("to_out.0"), inner, channels)?.for_many_rows()?,
            norm_feed_forward: LayerNorm::load(&weights.under("norm3"), channels, c.norm_eps)?,
            feed_forward: [
                Linear::load(&net.under("0.proj"), channels, 4 * channels)?.for_many_rows()?,
                Linear::load(&net.under(2), 4 * channels, channels)?.for_many_rows()?,
            ],
            heads: c.heads,
            scale: 1.0 / (c.head_size as f64).sqrt(),
            products: weights.products(),
            strips: None,
        };
        Ok(Self { strips: Strips::new(block.parts())?, ..block })
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            norms: [&self.norm_attention, &self.norm_feed_forward],
            inputs: [&self.query, &self.key, &self.value],
            out: &self.out,
            relative: None,
            feed_forward: &self.feed_forward,
            activation: ACTIVATION,
            heads: self.heads,
            scale: self.scale,
        }
    }

    /// The block for a pass over strips, where there is one.
    pub(super) fn strips(&self) -> Option<&Strips> {
        self.strips.as_ref()
    }

    /// `x` `[1, T, channels]`, layer by layer.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.norm_attention.forward(x)?.squeeze(0)?;
        let (q, k, v) = (self.query.forward(&y)?, self.key.forward(&y)?, self.value.forward(&y)?); // [T, inner]
        let y = match self.products {
            Products::F32 => attention(&q, &k, &v, Attention { heads: self.heads, scale: self.scale, bias: None, causal: false }),
            Products::Bf16 => bf16_attention(&q, &k, &v, self.heads, self.scale),
        }?
        .unsqueeze(0)?;
        let x = self.out.forward_fused(&y, &Fused { add: &[x], ..Fused::default() })?;
        let y = self.norm_feed_forward.forward(&x)?;
        let gelu = Some(Pointwise::Function(ACTIVATION));
        let y = self.feed_forward[0].forward_fused(&y, &Fused { after: gelu, ..Fused::default() })?;
        self.feed_forward[1].forward_fused(&y, &Fused { add: &[&x], ..Fused::default() })
    }

    /// What every transformer block has in common.
    pub(super) fn hyperparameters(&self) -> Hyperparameters {
        vec![
            ("heads", self.heads.into()),
            ("head_size", (self.query.output() / self.heads).into()),
            ("ffn_size", self.feed_forward[0].output().into()),
            ("norm_eps", self.norm_attention.eps().into()),
            ("activation", ACTIVATION.name().into()),
        ]
    }
}
