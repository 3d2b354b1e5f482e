//! `s3gen.encoder`: speech tokens `[K + N]` (prompt, then generated) to the mean mel `mu` `[2 (K + N), 80]`.
//!
//! An upsampling conformer without convolution modules: embedding, a look-ahead convolution, six blocks with relative
//! positions at 25 Hz, nearest-neighbour upsampling with a convolution, four blocks at 50 Hz, projection to mel channels.
//! Source: `models/s3gen/transformer/upsample_encoder.py` and `models/s3gen/flow.py` of resemble-ai/chatterbox at 5de7a54.

mod layer;

use candle_core::Tensor;

use self::layer::{Layer, positions};
use crate::config::S3Gen;
use crate::hyperparameters::Hyperparameters;
use crate::nn::{Activation, Conv1d, Conv1dOptions, Embedding, Fused, LayerNorm, Linear, Pointwise, Strips};
use crate::packed::Stay;
use crate::tap::tap;
use crate::{Checkpoint, Device, Error, Matrix, Observer, Precision, Result, Weights};

/// Stage key.
const STAGE: &str = "s3gen.encoder";
/// Mel frames of a token.
const RATIO: usize = 2;
/// Taps of the convolutions that upstream fixes in its classes.
const LOOKAHEAD_KERNEL: usize = 3;
const UPSAMPLE_KERNEL: usize = 5;
/// Slope of PyTorch's LeakyReLU when none is given.
const DEFAULT_SLOPE: f32 = 0.01;

/// The flow's token encoder.
#[derive(Clone, Debug)]
pub struct FlowEncoder {
    embedding: Embedding,
    input: Input,
    lookahead: [Conv1d; 2],
    layers: Vec<Layer>,
    upsample: Conv1d,
    up_input: Input,
    up_layers: Vec<Layer>,
    norm: LayerNorm,
    project: Linear,
    width: usize,
    device: Device,
}

/// Linear, LayerNorm, times the square root of the width.
#[derive(Clone, Debug)]
struct Input {
    linear: Linear,
    norm: LayerNorm,
    scale: f64,
}

impl Input {
    fn load(weights: &Weights, width: usize, eps: f64) -> Result<Self> {
        let out = weights.under("out");
        let (linear, norm) =
            (Linear::load(&out.under(0), width, width)?.for_many_rows()?, LayerNorm::load(&out.under(1), width, eps)?);
        Ok(Self { linear, norm, scale: (width as f64).sqrt() })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.linear.forward_fused(x, &Fused { norm: Some(&self.norm), ..Fused::default() })?;
        Ok((x * self.scale)?)
    }
}

impl FlowEncoder {
    /// Reads `flow.input_embedding`, `flow.encoder` and `flow.encoder_proj`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when a tensor is missing, has another shape, or is not known; [`Error::Argument`] for bfloat16 on
    /// another device than the CPU.
    pub fn load(checkpoint: &Checkpoint, device: &Device, precision: Precision) -> Result<Self> {
        let products = precision.s3gen(device)?;
        let weights = checkpoint.s3gen(device).with_products(products);
        weights.through_cache("encoder", products.name(), Stay::Memory, |all| Self::read(all, &checkpoint.config().s3gen))
    }

    fn read(all: &Weights, config: &S3Gen) -> Result<Self> {
        let c = &config.encoder;
        let flow = all.under("flow");
        let weights = flow.under("encoder");
        let width = c.hidden_size;
        let look = weights.under("pre_lookahead_layer");
        let ahead = Conv1dOptions { right: c.lookahead, ..Conv1dOptions::default() };
        let layers = |name: &str, count: usize| -> Result<Vec<Layer>> {
            (0..count).map(|i| Layer::load(&weights.under(name).under(i), c)).collect()
        };
        let encoder = Self {
            embedding: Embedding::load(&flow.under("input_embedding"), "s3gen.encoder: ids", config.vocab, width)?,
            input: Input::load(&weights.under("embed"), width, c.norm_eps)?,
            lookahead: [
                Conv1d::load(&look.under("conv1"), width, width, c.lookahead + 1, ahead, true)?,
                Conv1d::load(
                    &look.under("conv2"),
                    width,
                    width,
                    LOOKAHEAD_KERNEL,
                    Conv1dOptions::causal(LOOKAHEAD_KERNEL),
                    true,
                )?,
            ],
            layers: layers("encoders", c.layers)?,
            upsample: Conv1d::load(
                &weights.under("up_layer.conv"),
                width,
                width,
                UPSAMPLE_KERNEL,
                Conv1dOptions::causal(UPSAMPLE_KERNEL),
                true,
            )?,
            up_input: Input::load(&weights.under("up_embed"), width, c.norm_eps)?,
            up_layers: layers("up_encoders", c.up_layers)?,
            norm: LayerNorm::load(&weights.under("after_norm"), width, c.norm_eps)?,
            project: Linear::load(&flow.under("encoder_proj"), width, config.mels)?.for_many_rows()?,
            width,
            device: all.device().clone(),
        };
        all.expect_all_used(&["flow.input_embedding.", "flow.encoder.", "flow.encoder_proj."])?;
        Ok(encoder)
    }

    /// Mean mel `[2 T, mels]` of the tokens `ids` `[T]`, each 0 to 6560.
    ///
    /// # Errors
    /// [`Error::Argument`] when there are no ids or one is outside the table; what `observer` returns.
    pub fn mu(&self, ids: &[i64], observer: &dyn Observer) -> Result<Matrix> {
        if ids.is_empty() {
            return Err(Error::argument(format!("{STAGE}: ids: expected at least one token, got none")));
        }
        let total = self.layers.len() + self.up_layers.len();
        observer.progress(STAGE, 0, total)?;
        let t = ids.len();
        let mut x = self.input.forward(&self.embedding.forward(ids)?.unsqueeze(0)?)?; // [1, T, width]
        tap(|| "flow.encoder.embed", &x)?;
        let ahead = self.lookahead[0].forward(&x)?;
        let leaky = Some(Pointwise::Function(Activation::LeakyRelu(DEFAULT_SLOPE)));
        x = self.lookahead[1].forward_fused(&ahead, &Fused { before: leaky, add: &[&x], ..Fused::default() })?;
        x = x.squeeze(0)?;
        tap(|| "flow.encoder.pre_lookahead_layer", &x)?;
        let table = positions(RATIO * t, self.width, &self.device)?;
        let middle = table.narrow(0, (RATIO - 1) * t, 2 * t - 1)?;
        let mut advance = |done: usize| observer.progress(STAGE, done, total);
        x = through(&self.layers, x, &middle, "encoders", &mut advance)?;
        let doubled = x.unsqueeze(1)?.expand((t, RATIO, self.width))?.contiguous()?; // nearest neighbour
        x = self.upsample.forward(&doubled.reshape((1, RATIO * t, self.width))?)?.squeeze(0)?;
        tap(|| "flow.encoder.up_layer", &x)?;
        x = self.up_input.forward(&x)?;
        tap(|| "flow.encoder.up_embed", &x)?;
        x = through(&self.up_layers, x, &table, "up_encoders", &mut |done| advance(self.layers.len() + done))?;
        x = self.norm.forward(&x)?;
        tap(|| "flow.encoder.after_norm", &x)?;
        x = self.project.forward(&x)?;
        tap(|| "flow.encoder_proj", &x)?;
        Matrix::from_tensor(&x)
    }

    /// The hyper-parameters of the loaded layers.
    pub fn hyperparameters(&self) -> Hyperparameters {
        let mut all = vec![
            ("vocab", self.embedding.rows().into()),
            ("mels", self.project.output().into()),
            ("hidden_size", self.project.input().into()),
            ("layers", self.layers.len().into()),
            ("up_layers", self.up_layers.len().into()),
            ("lookahead", self.lookahead[0].geometry().right.into()),
            ("norm_eps", self.norm.eps().into()),
            ("embedding_scale", self.input.scale.into()),
        ];
        all.extend(self.layers.iter().chain(&self.up_layers).next().map(Layer::hyperparameters).unwrap_or_default());
        all
    }
}

/// `x` `[T, width]` through `layers`, which are upstream's `name`; `advance` hears how many are done.
fn through(
    layers: &[Layer],
    mut x: Tensor,
    table: &Tensor,
    name: &str,
    advance: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Tensor> {
    let strips: Vec<_> = layers.iter().map(Layer::strips).collect();
    if let Some(x) = Strips::run(&strips, &x, Some(table), advance)? {
        return Ok(x);
    }
    for (i, layer) in layers.iter().enumerate() {
        x = layer.forward(&x, table)?;
        tap(|| format!("flow.encoder.{name}.{i}"), &x)?;
        advance(i + 1)?;
    }
    Ok(x)
}
