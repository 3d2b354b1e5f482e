//! A block of the conformer: self-attention with relative positions, then a feed-forward layer, both on normalised input.
//!
//! Rows are `[T, width]`. Source: `models/s3gen/transformer/{attention,embedding,encoder_layer}.py` of resemble-ai/chatterbox
//! at 5de7a54; relative positions after Transformer-XL (arXiv:1901.02860).

use candle_core::Tensor;
use rayon::prelude::*;

use crate::config::FlowEncoder as Config;
use crate::hyperparameters::Hyperparameters;
use crate::nn::{Activation, Fused, LayerNorm, Linear, Parts, Pointwise, RelativeAttention, Strips, add, relative_attention};
use crate::precision::Products;
use crate::threads::each;
use crate::{Device, Result, Weights};

/// Of the feed-forward layers.
pub(super) const ACTIVATION: Activation = Activation::Silu;

/// One block.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    norm_attention: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    position: Linear,
    /// Added to the queries that meet keys, `[width]`.
    content_bias: Tensor,
    /// Added to the queries that meet positions, `[width]`.
    position_bias: Tensor,
    norm_feed_forward: LayerNorm,
    feed_forward: [Linear; 2],
    heads: usize,
    scale: f64,
    products: Products,
    /// The same block for a pass over strips of rows.
    strips: Option<Strips>,
}

impl Layer {
    pub(super) fn load(weights: &Weights, c: &Config) -> Result<Self> {
        let (width, size) = (c.hidden_size, c.hidden_size / c.heads);
        let attention = weights.under("self_attn");
        let linear = |name: &str| Linear::load(&attention.under(name), width, width)?.for_many_rows();
        let bias = |name: &str| -> Result<Tensor> { Ok(attention.tensor(name, &[c.heads, size])?.flatten_all()?) };
        let ff = weights.under("feed_forward");
        let layer = Self {
            norm_attention: LayerNorm::load(&weights.under("norm_mha"), width, c.layer_norm_eps)?,
            query: linear("linear_q")?,
            key: linear("linear_k")?,
            value: linear("linear_v")?,
            out: linear("linear_out")?,
            position: Linear::load_without_bias(&attention.under("linear_pos"), width, width)?.for_many_rows()?,
            content_bias: bias("pos_bias_u")?,
            position_bias: bias("pos_bias_v")?,
            norm_feed_forward: LayerNorm::load(&weights.under("norm_ff"), width, c.layer_norm_eps)?,
            feed_forward: [
                Linear::load(&ff.under("w_1"), width, c.ffn_size)?.for_many_rows()?,
                Linear::load(&ff.under("w_2"), c.ffn_size, width)?.for_many_rows()?,
            ],
            heads: c.heads,
            scale: 1.0 / (size as f64).sqrt(),
            products: weights.products(),
            strips: None,
        };
        Ok(Self { strips: Strips::new(layer.parts())?, ..layer })
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            norms: [&self.norm_attention, &self.norm_feed_forward],
            inputs: [&self.query, &self.key, &self.value],
            out: &self.out,
            relative: Some((&self.position, &self.content_bias, &self.position_bias)),
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

    /// `x` `[T, width]`, `positions` `[2T - 1, width]` → `[T, width]`, layer by layer.
    pub(super) fn forward(&self, x: &Tensor, positions: &Tensor) -> Result<Tensor> {
        let y = self.norm_attention.forward(x)?;
        let q = self.query.forward(&y)?;
        let attended = relative_attention(RelativeAttention {
            q: &add(&q, &self.content_bias)?,
            r: &add(&q, &self.position_bias)?,
            k: &self.key.forward(&y)?,
            v: &self.value.forward(&y)?,
            p: &self.position.forward(positions)?,
            heads: self.heads,
            scale: self.scale,
            products: self.products,
        })?;
        let x = self.out.forward_fused(&attended, &Fused { add: &[x], ..Fused::default() })?;
        let silu = Some(Pointwise::Function(ACTIVATION));
        let y = self.norm_feed_forward.forward(&x)?;
        let y = self.feed_forward[0].forward_fused(&y, &Fused { after: silu, ..Fused::default() })?;
        self.feed_forward[1].forward_fused(&y, &Fused { add: &[&x], ..Fused::default() })
    }
}

impl Layer {
    /// What every block has in common.
    pub(super) fn hyperparameters(&self) -> Hyperparameters {
        vec![
            ("heads", self.heads.into()),
            ("ffn_size", self.feed_forward[0].output().into()),
            ("layer_norm_eps", self.norm_attention.eps().into()),
            ("activation", ACTIVATION.name().into()),
            ("key_bias", self.key.has_bias().into()),
        ]
    }
}

/// Sinusoids of the positions T − 1 down to −(T − 1), `[2T - 1, width]`: even columns sine, odd columns cosine.
///
/// The angles are float32 products as upstream's are: at position 1000 their rounding is larger than float32's own.
pub(super) fn positions(t: usize, width: usize, device: &Device) -> Result<Tensor> {
    let rate = -(10000f64.ln() / width as f64) as f32;
    let frequencies: Vec<f32> = (0..width / 2).map(|m| f64::from((2 * m) as f32 * rate).exp() as f32).collect();
    let mut table = vec![0.0; (2 * t - 1) * width];
    let (ahead, behind) = table.split_at_mut((t - 1) * width); // of positions above 0, and from 0 on downwards
    each(behind.par_chunks_exact_mut(width).enumerate(), |(i, row)| {
        for (pair, frequency) in row.chunks_exact_mut(2).zip(&frequencies) {
            let angle = (0.0 - i as f32) * frequency;
            (pair[0], pair[1]) = (angle.sin(), angle.cos());
        }
    });
    each(ahead.par_chunks_exact_mut(width).rev().zip(behind[width..].par_chunks_exact(width)), |(row, mirrored)| {
        for (pair, from) in row.chunks_exact_mut(2).zip(mirrored.chunks_exact(2)) {
            (pair[0], pair[1]) = (-from[0], from[1]);
        }
    });
    Ok(Tensor::from_vec(table, (2 * t - 1, width), device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_each_position_to_the_bit_and_those_of_shorter_inputs_inside() -> Result<()> {
        let frequency = |m: usize| f64::from((2 * m) as f32 * -(10000f64.ln() / 8.0) as f32).exp() as f32;
        for t in [1, 2, 9] {
            let rows = positions(t, 8, &Device::Cpu)?.to_vec2::<f32>()?;
            assert_eq!(rows.len(), 2 * t - 1);
            for (i, row) in rows.iter().enumerate() {
                let angle = |c: usize| (t as f32 - 1.0 - i as f32) * frequency(c / 2);
                let truth = |c: usize| if c.is_multiple_of(2) { angle(c).sin() } else { angle(c).cos() };
                assert!((0..8).all(|c| row[c].to_bits() == truth(c).to_bits()), "{t} rows, row {i}");
            }
            let longer = positions(2 * t, 8, &Device::Cpu)?.narrow(0, t, 2 * t - 1)?.to_vec2::<f32>()?;
            assert_eq!(longer, rows);
        }
        Ok(())
    }
}
