//! `s3tokenizer.tokens`: speech tokens of a clip, 25 a second.
//!
//! A log-mel spectrogram `[frames, 128]` → ids `[ceil(frames / 4)]` below 3^8. Two convolutions of stride 2, transformer blocks
//! whose attention carries a depthwise memory (FSMN) of the values, then finite scalar quantisation: eight numbers in -1..1,
//! each rounded to one of three levels, digits of a base-3 number. Source: `s3tokenizer/model_v2.py` of s3tokenizer 0.3.0, as
//! `src/chatterbox/models/s3tokenizer/s3tokenizer.py` at 5de7a54 uses it (CosyVoice 2, arXiv:2412.10117).

use candle_core::Tensor;

use crate::hyperparameters::Hyperparameters;
use crate::nn::{
    Activation, Attention, Conv1d, Conv1dOptions, DepthwiseConv1d, Fused, LayerNorm, Linear, Pointwise, Rotary, add, attention,
};
use crate::packed::{Stay, hold};
use crate::tap::tap;
use crate::{Checkpoint, Device, Error, Matrix, Observer, Result, Weights, config};

const STAGE: &str = "s3tokenizer.tokens";
/// Frames (30 s) that the network reads at once. Upstream cuts longer clips into windows, which no caller reaches: clips are
/// cropped to 15 s before.
pub const MAX_FRAMES: usize = 3000;
/// Keeps every number off ±1, where rounding would leave the three levels.
const SHRINK: f64 = 0.999_000_012_874_603_3;
/// Of the convolutions and of the feed-forward layers.
const ACTIVATION: Activation = Activation::GeluErf;

/// S3Tokenizer v2.
#[derive(Clone, Debug)]
pub struct S3Tokenizer {
    stem: [Conv1d; 2],
    rotary: Rotary,
    blocks: Vec<Kept>,
    projection: Linear,
    mels: usize,
    device: Device,
    of_blocks: Hyperparameters,
}

/// A block: half a gigabyte together that only the preparation of a voice reads. From the cache of packed weights each is read when it is
/// used, and does not stay in memory.
#[derive(Clone, Debug)]
enum Kept {
    Memory(Box<Block>),
    Disk(Weights, config::S3Tokenizer),
}

impl Kept {
    fn with<R>(&self, f: impl FnOnce(&Block) -> Result<R>) -> Result<R> {
        match self {
            Self::Memory(block) => f(block),
            Self::Disk(weights, c) => f(&Block::load(weights, c)?),
        }
    }
}

impl S3Tokenizer {
    /// Reads the tensors below `tokenizer.` of S3Gen's file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for tensors that are missing, not known or of another shape.
    pub fn load(checkpoint: &Checkpoint, device: &Device) -> Result<Self> {
        let c = &checkpoint.config().s3tokenizer;
        let weights = checkpoint.s3gen(device);
        weights.through_cache("s3tokenizer", "f32", Stay::Disk, |all| Self::read(all, c))
    }

    fn read(all: &Weights, c: &config::S3Tokenizer) -> Result<Self> {
        let device = all.device();
        let weights = all.under("tokenizer");
        let size = c.hidden_size;
        let encoder = weights.under("encoder");
        let stem = |name: &str, input: usize| {
            let options = Conv1dOptions { stride: 2, ..Conv1dOptions::padded(1) };
            Conv1d::load(&encoder.under(name), input, size, 3, options, true)
        };
        let stem = [stem("conv1", c.mels)?, stem("conv2", size)?];
        let mut of_blocks = vec![];
        let block = |i: usize| {
            let weights = encoder.under("blocks").under(i);
            let block = Block::load(&weights, c)?;
            of_blocks = block.hyperparameters();
            Ok(if all.stay_on_disk() { Kept::Disk(weights, c.clone()) } else { Kept::Memory(Box::new(block)) })
        };
        let blocks = (0..c.layers).map(block).collect::<Result<_>>()?;
        let projection = Linear::load(&weights.under("quantizer._codebook.project_down"), size, c.fsq_dims)?;
        // Read by `s3tokenizer.mel`.
        weights.unused("_mel_filters", &[c.mels, 201], false)?;
        weights.unused("window", &[400], false)?;
        all.expect_all_used(&["tokenizer."])?;
        let rotary = Rotary::new(c.rope_theta, size / c.heads, MAX_FRAMES.div_ceil(4), device)?;
        Ok(Self { stem, rotary, blocks, projection, mels: c.mels, device: device.clone(), of_blocks })
    }

    /// Token ids `[ceil(frames / 4)]` of a log-mel spectrogram `[frames, 128]`.
    ///
    /// # Errors
    /// As [`Self::pre_codes`].
    pub fn tokens(&self, mel: &Matrix, observer: &dyn Observer) -> Result<Vec<i64>> {
        Ok(self.tokens_of(&[mel], observer)?.concat())
    }

    /// The same for several clips, which share one reading of the weights: a clip's ids do not depend on what is beside it.
    ///
    /// # Errors
    /// As [`Self::pre_codes`].
    pub fn tokens_of(&self, mels: &[&Matrix], observer: &dyn Observer) -> Result<Vec<Vec<i64>>> {
        let levels = self.levels(mels, observer)?;
        let id = |k: usize| levels.row(k).iter().rev().fold(0, |id, v| 3 * id + v.round_ties_even() as i64 + 1);
        let mut first = 0;
        let clip = |mel: &&Matrix| {
            let rows = first..first + tokens(mel);
            first = rows.end;
            rows.map(id).collect()
        };
        Ok(mels.iter().map(clip).collect())
    }

    /// The numbers in -0.999..0.999 that are rounded to the digits of every token, `[ceil(frames / 4), 8]`.
    ///
    /// # Errors
    /// [`Error::Argument`] for no frames, more than [`MAX_FRAMES`], another width, NaN or infinity; what `observer` returns.
    pub fn pre_codes(&self, mel: &Matrix, observer: &dyn Observer) -> Result<Matrix> {
        self.levels(&[mel], observer)
    }

    /// [`Self::pre_codes`] of one clip after the other; only attention and what comes before it see where one ends.
    fn levels(&self, mels: &[&Matrix], observer: &dyn Observer) -> Result<Matrix> {
        for mel in mels {
            mel.require("mel", self.mels)?;
            if mel.rows > MAX_FRAMES {
                return Err(Error::argument(format!(
                    "mel: expected at most {MAX_FRAMES} frames (30 s), got {}; crop the clip first",
                    mel.rows
                )));
            }
        }
        if mels.is_empty() {
            return Err(Error::argument("mels: expected at least one clip, got none"));
        }
        let _kept = hold(); // each block is read to where the one before it was
        let total = 2 * self.blocks.len() + 1;
        let mut done = 0;
        let mut advance = || {
            done += 1;
            observer.progress(STAGE, done, total)
        };
        observer.progress(STAGE, 0, total)?;
        let stem = |mel: &&Matrix| {
            let mut x = mel.to_tensor(&self.device)?.unsqueeze(0)?; // [1, frames, 128]
            for (conv, next) in self.stem.iter().zip(["conv2", "blocks.0"]) {
                x = conv.forward_fused(&x, &Fused { after: Some(Pointwise::Function(ACTIVATION)), ..Fused::default() })?;
                tap(|| format!("tokenizer.encoder.{next}.in"), &x)?;
            }
            Ok(x.squeeze(0)?)
        };
        let clips = mels.iter().map(stem).collect::<Result<Vec<_>>>()?;
        let mut x = Tensor::cat(&clips, 0)?; // [tokens, 1280]
        let rows: Vec<usize> = mels.iter().map(|mel| tokens(mel)).collect();
        advance()?;
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.with(|block| {
                let x = block.attend(&x, &rows, &self.rotary)?;
                advance()?;
                block.transform(&x)
            })?;
            tap(|| format!("tokenizer.encoder.blocks.{i}"), &x)?;
            advance()?;
        }
        let x = self.projection.forward(&x)?;
        tap(|| "tokenizer.quantizer._codebook.project_down", &x)?;
        Matrix::from_tensor(&(Activation::Tanh.forward(&x)? * SHRINK)?)
    }

    /// The hyper-parameters of the loaded layers.
    pub fn hyperparameters(&self) -> Hyperparameters {
        let mut all = vec![
            ("mels", self.stem[0].geometry().input.into()),
            ("hidden_size", self.projection.input().into()),
            ("layers", self.blocks.len().into()),
            ("rope_theta", self.rotary.theta().into()),
            ("fsq_dims", self.projection.output().into()),
            ("activation", ACTIVATION.name().into()),
        ];
        all.extend(self.of_blocks.clone());
        all
    }
}

/// Tokens of a clip: two convolutions of stride 2.
fn tokens(mel: &Matrix) -> usize {
    mel.rows.div_ceil(4)
}

#[derive(Clone, Debug)]
struct Block {
    heads: usize,
    attn_norm: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    fsmn: DepthwiseConv1d,
    mlp_norm: LayerNorm,
    up: Linear,
    down: Linear,
}

impl Block {
    fn load(weights: &Weights, c: &config::S3Tokenizer) -> Result<Self> {
        let (size, attn, mlp) = (c.hidden_size, weights.under("attn"), weights.under("mlp"));
        Ok(Self {
            heads: c.heads,
            attn_norm: LayerNorm::load(&weights.under("attn_ln"), size, c.attn_norm_eps)?,
            query: Linear::load(&attn.under("query"), size, size)?.for_many_rows()?,
            key: Linear::load_without_bias(&attn.under("key"), size, size)?.for_many_rows()?,
            value: Linear::load(&attn.under("value"), size, size)?.for_many_rows()?,
            out: Linear::load(&attn.under("out"), size, size)?.for_many_rows()?,
            fsmn: DepthwiseConv1d::load(&attn.under("fsmn_block"), size, c.fsmn_kernel)?,
            mlp_norm: LayerNorm::load(&weights.under("mlp_ln"), size, c.mlp_norm_eps)?,
            up: Linear::load(&mlp.under(0), size, 4 * size)?.for_many_rows()?,
            down: Linear::load(&mlp.under(2), 4 * size, size)?.for_many_rows()?,
        })
    }

    fn hyperparameters(&self) -> Hyperparameters {
        vec![
            ("heads", self.heads.into()),
            ("ffn_size", self.up.output().into()),
            ("fsmn_kernel", self.fsmn.kernel().into()),
            ("attn_norm_eps", self.attn_norm.eps().into()),
            ("mlp_norm_eps", self.mlp_norm.eps().into()),
            ("query_bias", self.query.has_bias().into()),
            ("key_bias", self.key.has_bias().into()),
            ("value_bias", self.value.has_bias().into()),
        ]
    }

    /// `x` `[T, C]`, clips of so many `rows` → `x + out(attention) + memory + values`; the memory sees the values as they are, without
    /// rotation.
    fn attend(&self, x: &Tensor, rows: &[usize], rotary: &Rotary) -> Result<Tensor> {
        let normal = self.attn_norm.forward(x)?;
        let (q, k, v) = (self.query.forward(&normal)?, self.key.forward(&normal)?, self.value.forward(&normal)?);
        let scale = ((x.dim(1)? / self.heads) as f64).powf(-0.5);
        let options = Attention { heads: self.heads, scale, bias: None, causal: false };
        let (mut first, mut attended, mut memory) = (0, vec![], vec![]);
        for rows in rows {
            let clip = |x: &Tensor| x.narrow(0, first, *rows);
            let (q, k, v) = (rotary.forward(&clip(&q)?)?, rotary.forward(&clip(&k)?)?, clip(&v)?);
            attended.push(attention(&q, &k, &v, options)?);
            memory.push(add(&self.fsmn.forward(&v)?, &v)?);
            first += rows;
        }
        let memory = Tensor::cat(&memory, 0)?;
        self.out.forward_fused(&Tensor::cat(&attended, 0)?, &Fused { add: &[x, &memory], ..Fused::default() })
    }

    /// `x` `[T, C]` → `x + down(gelu(up(norm(x))))`.
    fn transform(&self, x: &Tensor) -> Result<Tensor> {
        let gelu = Some(Pointwise::Function(ACTIVATION));
        let wide = self.up.forward_fused(&self.mlp_norm.forward(x)?, &Fused { after: gelu, ..Fused::default() })?;
        self.down.forward_fused(&wide, &Fused { add: &[x], ..Fused::default() })
    }
}
