//! The flow's U-Net without temporal down- or upsampling: one down block, twelve middle blocks, one up block.
//!
//! Input `[1, T, 4 · mels]` (noisy mel, mu, speaker, prompt), output velocity `[1, T, mels]`.
//! Source: `models/s3gen/decoder.py` and `models/s3gen/utils/intmeanflow.py` of resemble-ai/chatterbox at 5de7a54.

use candle_core::Tensor;

use super::block::{NormedConv, ResNet, TAPS, Transformer};
use crate::config::Estimator as Config;
use crate::hyperparameters::Hyperparameters;
use crate::nn::{Activation, Conv1d, Conv1dOptions, Fused, Linear, Pointwise, Strips};
use crate::tap::tap;
use crate::{Result, Weights};

/// Size of the time embedding in units of the channels.
const TIME_FACTOR: usize = 4;
/// What a time of 1 counts in the sinusoids.
const TIME_SCALE: f32 = 1000.0;

/// A residual block and its transformer blocks.
#[derive(Clone, Debug)]
struct Block {
    /// Where it stands in the checkpoint; the parts are children 0 and 1.
    path: String,
    resnet: ResNet,
    transformers: Vec<Transformer>,
}

/// The velocity network.
#[derive(Clone, Debug)]
pub(super) struct Estimator {
    path: String,
    time: [Linear; 2],
    mixer: Linear,
    down: Block,
    down_conv: Conv1d,
    middle: Vec<Block>,
    up: Block,
    up_conv: Conv1d,
    last: NormedConv,
    project: Conv1d,
    input: usize,
    /// Transformer blocks of one pass.
    blocks: usize,
}

impl Estimator {
    pub(super) fn load(weights: &Weights, mels: usize, c: &Config) -> Result<Self> {
        let (input, channels, time) = (4 * mels, c.channels, TIME_FACTOR * c.channels);
        let block = |weights: &Weights, input: usize| -> Result<Block> {
            let transformers = weights.under(1);
            Ok(Block {
                path: weights.path().to_owned(),
                resnet: ResNet::load(&weights.under(0), input, channels, time, c.norm_eps)?,
                transformers: (0..c.blocks).map(|i| Transformer::load(&transformers.under(i), c)).collect::<Result<_>>()?,
            })
        };
        let (down, up) = (weights.under("down_blocks.0"), weights.under("up_blocks.0"));
        let causal = |weights: &Weights| Conv1d::load(weights, channels, channels, TAPS, Conv1dOptions::causal(TAPS), true);
        let mlp = weights.under("time_mlp");
        Ok(Self {
            path: weights.path().to_owned(),
            time: [Linear::load(&mlp.under("linear_1"), input, time)?, Linear::load(&mlp.under("linear_2"), time, time)?],
            mixer: Linear::load_without_bias(&weights.under("time_embed_mixer"), 2 * time, time)?,
            down: block(&down, input)?,
            down_conv: causal(&down.under(2))?,
            middle: (0..c.mid_blocks).map(|i| block(&weights.under("mid_blocks").under(i), channels)).collect::<Result<_>>()?,
            up: block(&up, 2 * channels)?,
            up_conv: causal(&up.under(2))?,
            last: NormedConv::load(&weights.under("final_block.block"), channels, channels, c.norm_eps)?,
            project: Conv1d::load(&weights.under("final_proj"), channels, mels, 1, Conv1dOptions::default(), true)?,
            input,
            blocks: (c.mid_blocks + 2) * c.blocks,
        })
    }

    /// Transformer blocks of one pass.
    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    /// Mean velocity from time `from` to time `to` (0 to 1) at `x` `[1, T, 4 · mels]`. `advance` is told how many transformer
    /// blocks are done and may stop the work.
    pub(super) fn forward(&self, x: &Tensor, from: f32, to: f32, advance: &mut dyn FnMut(usize) -> Result<()>) -> Result<Tensor> {
        let mut done = 0;
        advance(0)?;
        let pair = Tensor::cat(&[self.embed(from, x.device())?, self.embed(to, x.device())?], 1)?; // [1, 2 · time]
        let mixed = self.mixer.forward(&pair)?;
        tap(|| format!("{}.time_embed_mixer", self.path), &mixed)?;
        let time = Activation::Mish.forward(&mixed)?; // every reader takes the Mish of it
        let mut run = |block: &Block, x: &Tensor| -> Result<Tensor> {
            let mut x = block.resnet.forward(x, &time)?;
            tap(|| format!("{}.0", block.path), &x)?;
            let strips: Vec<_> = block.transformers.iter().map(Transformer::strips).collect();
            if let Some(x) = Strips::run(&strips, &x, None, &mut |more| advance(done + more))? {
                done += strips.len();
                return Ok(x);
            }
            for (i, transformer) in block.transformers.iter().enumerate() {
                x = transformer.forward(&x)?;
                tap(|| format!("{}.1.{i}", block.path), &x)?;
                done += 1;
                advance(done)?;
            }
            Ok(x)
        };
        let skip = run(&self.down, x)?;
        let mut x = self.down_conv.forward(&skip)?;
        tap(|| format!("{}.2", self.down.path), &x)?;
        for block in &self.middle {
            x = run(block, &x)?;
        }
        x = run(&self.up, &Tensor::cat(&[&x, &skip], 2)?)?; // [1, T, 2 · channels]
        x = self.up_conv.forward(&x)?;
        tap(|| format!("{}.2", self.up.path), &x)?;
        x = self.last.forward(&x, &Fused::default())?;
        tap(|| format!("{}.final_block", self.path), &x)?;
        x = self.project.forward(&x)?;
        tap(|| format!("{}.final_proj", self.path), &x)?;
        Ok(x)
    }

    /// The hyper-parameters of the loaded layers.
    pub(super) fn hyperparameters(&self) -> Hyperparameters {
        let resnets = 1 + self.middle.len() + 1;
        let mut all = vec![
            ("mels", self.project.geometry().output.into()),
            ("channels", self.project.geometry().input.into()),
            ("blocks", self.down.transformers.len().into()),
            ("mid_blocks", self.middle.len().into()),
            ("residual_convs", resnets.into()), // every one has its own
        ];
        all.extend(self.down.resnet.hyperparameters());
        all.extend(self.down.transformers.first().map(Transformer::hyperparameters).unwrap_or_default());
        all
    }

    /// Sinusoids of a time through the MLP, `[1, time]`. The angles are float32 products, as upstream's.
    fn embed(&self, time: f32, device: &crate::Device) -> Result<Tensor> {
        let half = self.input / 2;
        let rate = -(10000f64.ln() / (half - 1) as f64) as f32;
        let angles = (0..half).map(|k| TIME_SCALE * time * f64::from(k as f32 * rate).exp() as f32);
        let values: Vec<f32> = angles.clone().map(f32::sin).chain(angles.map(f32::cos)).collect();
        let x = Tensor::from_vec(values, (1, self.input), device)?;
        let silu = Some(Pointwise::Function(Activation::Silu));
        self.time[1].forward(&self.time[0].forward_fused(&x, &Fused { after: silu, ..Fused::default() })?)
    }
}
