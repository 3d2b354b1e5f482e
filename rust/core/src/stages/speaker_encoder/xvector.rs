//! `speaker_encoder.xvector`: the x-vector that S3Gen is conditioned on (CAMPPlus, arXiv:2303.00332).
//!
//! Kaldi filter bank energies `[frames, 80]` → `[192]`. A small two-dimensional residual network in front, then a TDNN of densely
//! connected layers at half the frame rate, each masked by the context of its whole clip and of its segment of 100 frames, and
//! the mean and deviation over time. Activations are `[T, F, C]` in front and `[T, C]` behind; every BatchNorm that directly
//! follows a convolution is folded into it. Source: `src/chatterbox/models/s3gen/xvector.py` at 5de7a54.

use candle_core::{Device, Tensor};

use crate::hyperparameters::Hyperparameters;
use crate::nn::{Activation, BatchNormRelu, Conv1d, Conv1dOptions, Conv2d, Geometry2d, Linear, fold_batch_norm};
use crate::tap::{tap, tap_values};
use crate::{Checkpoint, Error, Matrix, Observer, Result, Weights, config};

const STAGE: &str = "speaker_encoder.xvector";
/// Fewer frames leave one step at half the rate, which has no deviation over time.
pub const MIN_FRAMES: usize = 3;

/// CAMPPlus.
#[derive(Clone, Debug)]
pub struct SpeakerEncoder {
    front: Front,
    tdnn: Conv1d,
    blocks: Vec<DenseBlock>,
    out_norm: BatchNormRelu,
    dense: Linear,
    mels: usize,
    device: Device,
}

impl SpeakerEncoder {
    /// Reads the tensors below `speaker_encoder.` of S3Gen's file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for tensors that are missing, not known or of another shape.
    pub fn load(checkpoint: &Checkpoint, device: &Device) -> Result<Self> {
        let (c, all) = (&checkpoint.config().speaker_encoder, checkpoint.s3gen(device));
        let weights = all.under("speaker_encoder");
        let front = Front::load(&weights.under("head"), c)?;
        let weights = weights.under("xvector");
        let at = weights.under("tdnn");
        let input = c.head_channels * front.positions(c.mels);
        let options = Conv1dOptions { stride: 2, ..Conv1dOptions::padded(2) };
        let tdnn = folded_conv(&at.under("linear"), &at.under("nonlinear.batchnorm"), input, c.init_channels, 5, options, c)?;
        let mut channels = c.init_channels;
        let mut blocks = Vec::new();
        for i in 0..c.layers.len() {
            blocks.push(DenseBlock::load(&weights, c, i, channels)?);
            channels = (channels + c.layers[i] * c.growth) / 2;
        }
        let out_norm = BatchNormRelu::load(&weights.under("out_nonlinear.batchnorm"), channels, c.norm_eps)?;
        let at = weights.under("dense");
        let mut values = at.values("linear.weight", &[c.embedding_size, 2 * channels, 1])?;
        let norm = at.under("nonlinear.batchnorm");
        let bias = fold_batch_norm(&norm, &mut values, c.embedding_size, c.norm_eps, false)?;
        let dense = Linear::new(
            Tensor::from_vec(values, (c.embedding_size, 2 * channels), device)?,
            Some(Tensor::from_vec(bias, c.embedding_size, device)?),
        )?;
        all.expect_all_used(&["speaker_encoder."])?;
        Ok(Self { front, tdnn, blocks, out_norm, dense, mels: c.mels, device: device.clone() })
    }

    /// The x-vector `[192]`, of any length, of filter bank energies `[frames, 80]` with their mean over time subtracted.
    ///
    /// # Errors
    /// [`Error::Argument`] for fewer than [`MIN_FRAMES`] frames, another width, NaN or infinity; what `observer` returns.
    pub fn xvector(&self, fbank: &Matrix, observer: &dyn Observer) -> Result<Vec<f32>> {
        fbank.require("fbank", self.mels)?;
        if fbank.rows < MIN_FRAMES {
            return Err(Error::argument(format!("fbank: expected at least {MIN_FRAMES} frames, got {}", fbank.rows)));
        }
        let total = self.front.units() + self.blocks.iter().map(|b| b.layers.len()).sum::<usize>();
        let mut done = 0;
        let mut advance = || {
            done += 1;
            observer.progress(STAGE, done, total)
        };
        observer.progress(STAGE, 0, total)?;
        let x = self.front.forward(&fbank.to_tensor(&self.device)?, &mut advance)?;
        tap(|| "speaker_encoder.head", &x)?;
        let x = Activation::Relu.forward(&self.tdnn.forward(&x.unsqueeze(0)?)?)?.squeeze(0)?; // [T', 128]
        tap(|| "speaker_encoder.xvector.tdnn", &x)?;
        let context = Context::new(x.dim(0)?, self.blocks.first().map_or(1, |b| b.segment), &self.device)?;
        let mut x = x;
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, &context, &mut advance)?;
            tap(|| format!("speaker_encoder.xvector.block{}", i + 1), &x)?;
            x = block.halve(&x)?;
            tap(|| format!("speaker_encoder.xvector.transit{}", i + 1), &x)?;
        }
        let x = self.out_norm.forward(&x)?;
        tap(|| "speaker_encoder.xvector.out_nonlinear", &x)?;
        let x = Matrix::from_tensor(&x)?;
        let statistics = mean_and_deviation(&x);
        tap_values(|| "speaker_encoder.xvector.stats", 2 * x.cols, &statistics);
        let x = self.dense.forward(&Tensor::from_vec(statistics, (1, 2 * x.cols), &self.device)?)?;
        tap(|| "speaker_encoder.xvector.dense", &x)?;
        Ok(x.flatten_all()?.to_vec1()?)
    }

    /// The hyper-parameters of the loaded layers.
    pub fn hyperparameters(&self) -> Hyperparameters {
        let layers = || self.blocks.iter().filter_map(|block| block.layers.first());
        let mut all = vec![
            ("mels", self.mels.into()),
            ("embedding_size", self.dense.output().into()),
            ("head_channels", self.front.last.geometry().output.into()),
            ("init_channels", self.tdnn.geometry().output.into()),
            ("layers", self.blocks.iter().map(|block| block.layers.len()).collect::<Vec<_>>().into()),
            ("dilations", layers().map(|layer| layer.local.geometry().dilation).collect::<Vec<_>>().into()),
            ("norm_eps", self.out_norm.eps().into()),
        ];
        if let (Some(block), Some(layer)) = (self.blocks.first(), layers().next()) {
            let local = layer.local.geometry();
            all.extend([
                ("growth", local.output.into()),
                ("bottleneck", (local.input / local.output).into()),
                ("kernel", local.kernel.into()),
                ("segment", block.segment.into()),
            ]);
        }
        all
    }
}

/// Means, then unbiased standard deviations, of every column: `[2C]`.
fn mean_and_deviation(x: &Matrix) -> Vec<f32> {
    let (n, mut mean, mut squares) = (x.rows as f64, vec![0f64; x.cols], vec![0f64; x.cols]);
    (0..x.rows).for_each(|t| mean.iter_mut().zip(x.row(t)).for_each(|(m, v)| *m += f64::from(*v) / n));
    for t in 0..x.rows {
        squares.iter_mut().zip(x.row(t)).zip(&mean).for_each(|((s, v), m)| *s += (f64::from(*v) - m).powi(2));
    }
    let deviations = squares.iter().map(|s| (s / (n - 1.0)).sqrt());
    mean.iter().copied().chain(deviations).map(|v| v as f32).collect()
}

/// A convolution without bias and the BatchNorm after it.
fn folded_conv(
    weights: &Weights,
    norm: &Weights,
    input: usize,
    output: usize,
    kernel: usize,
    options: Conv1dOptions,
    c: &config::SpeakerEncoder,
) -> Result<Conv1d> {
    let mut values = weights.values("weight", &[output, input, kernel])?;
    let bias = fold_batch_norm(norm, &mut values, output, c.norm_eps, true)?;
    let bias = Tensor::from_vec(bias, output, weights.device())?;
    Conv1d::new(&values, Some(bias), input, output, kernel, options, weights.device(), weights.products())
}

/// The residual network in front: `[T, 80]` → `[T, 320]`.
#[derive(Clone, Debug)]
struct Front {
    first: Conv2d,
    blocks: Vec<ResidualBlock>,
    last: Conv2d,
}

#[derive(Clone, Debug)]
struct ResidualBlock {
    convs: [Conv2d; 2],
    shortcut: Option<Conv2d>,
}

impl Front {
    fn load(weights: &Weights, c: &config::SpeakerEncoder) -> Result<Self> {
        let conv = |at: &Weights, conv: &str, norm: &str, input: usize, kernel: usize, stride: usize| {
            let geometry = Geometry2d { input, output: c.head_channels, kernel, stride };
            Conv2d::load(&at.under(conv), &at.under(norm), geometry, c.norm_eps)
        };
        let channels = c.head_channels;
        let block = |name: &str, stride: usize| -> Result<ResidualBlock> {
            let at = weights.under(name);
            let convs = [conv(&at, "conv1", "bn1", channels, 3, stride)?, conv(&at, "conv2", "bn2", channels, 3, 1)?];
            let shortcut = if stride > 1 { Some(conv(&at, "shortcut.0", "shortcut.1", channels, 1, stride)?) } else { None };
            Ok(ResidualBlock { convs, shortcut })
        };
        Ok(Self {
            first: conv(weights, "conv1", "bn1", 1, 3, 1)?,
            blocks: [("layer1.0", 2), ("layer1.1", 1), ("layer2.0", 2), ("layer2.1", 1)]
                .into_iter()
                .map(|(name, stride)| block(name, stride))
                .collect::<Result<_>>()?,
            last: conv(weights, "conv2", "bn2", channels, 3, 2)?,
        })
    }

    /// What is left of `mels` after three halvings.
    fn positions(&self, mels: usize) -> usize {
        (0..3).fold(mels, |n, _| n.div_ceil(2))
    }

    /// Calls of `advance`.
    fn units(&self) -> usize {
        self.blocks.len() + 2
    }

    fn forward(&self, x: &Tensor, advance: &mut impl FnMut() -> Result<()>) -> Result<Tensor> {
        let t = x.dim(0)?;
        let mut x = self.first.forward_relu(&x.unsqueeze(2)?, None)?; // [T, 80, 32]
        advance()?;
        for block in &self.blocks {
            let inner = block.convs[0].forward_relu(&x, None)?;
            let shortcut = match &block.shortcut {
                Some(conv) => conv.forward(&x)?,
                None => x,
            };
            x = block.convs[1].forward_relu(&inner, Some(&shortcut))?;
            advance()?;
        }
        let x = self.last.forward_relu(&x, None)?; // [T, 10, 32]
        advance()?;
        // Upstream flattens channel-major: feature c * 10 + f.
        Ok(x.transpose(1, 2)?.contiguous()?.reshape((t, ()))?)
    }
}

/// One densely connected block and the transition that halves its channels.
#[derive(Clone, Debug)]
struct DenseBlock {
    layers: Vec<DenseLayer>,
    norm: BatchNormRelu,
    transit: Linear,
    segment: usize,
}

impl DenseBlock {
    fn load(weights: &Weights, c: &config::SpeakerEncoder, index: usize, input: usize) -> Result<Self> {
        let at = weights.under(format!("block{}", index + 1));
        let layers = (0..c.layers[index])
            .map(|i| DenseLayer::load(&at.under(format!("tdnnd{}", i + 1)), c, input + i * c.growth, c.dilations[index]))
            .collect::<Result<_>>()?;
        let channels = input + c.layers[index] * c.growth;
        let at = weights.under(format!("transit{}", index + 1));
        let transit = at.tensor("linear.weight", &[channels / 2, channels, 1])?.squeeze(2)?;
        Ok(Self {
            layers,
            norm: BatchNormRelu::load(&at.under("nonlinear.batchnorm"), channels, c.norm_eps)?,
            transit: Linear::new(transit, None)?,
            segment: c.segment,
        })
    }

    /// `[T, C]` → `[T, C + layers · growth]`.
    fn forward(&self, x: &Tensor, context: &Context, advance: &mut impl FnMut() -> Result<()>) -> Result<Tensor> {
        let mut x = x.clone();
        for layer in &self.layers {
            x = Tensor::cat(&[&x, &layer.forward(&x, context)?], 1)?;
            advance()?;
        }
        Ok(x)
    }

    /// The transition, `[T, C]` → `[T, C / 2]`.
    fn halve(&self, x: &Tensor) -> Result<Tensor> {
        self.transit.forward(&self.norm.forward(x)?)
    }
}

#[derive(Clone, Debug)]
struct DenseLayer {
    norm: BatchNormRelu,
    /// 1×1, with the second BatchNorm folded in.
    narrow: Conv1d,
    local: Conv1d,
    mask_in: Linear,
    mask_out: Linear,
}

impl DenseLayer {
    fn load(weights: &Weights, c: &config::SpeakerEncoder, input: usize, dilation: usize) -> Result<Self> {
        let (width, cam) = (c.bottleneck * c.growth, weights.under("cam_layer"));
        let padding = (c.kernel - 1) / 2 * dilation;
        let options = Conv1dOptions { dilation, ..Conv1dOptions::padded(padding) };
        let linear = |name: &str, input: usize, output: usize| {
            let weight = cam.tensor(&format!("{name}.weight"), &[output, input, 1])?.squeeze(2)?;
            Linear::new(weight, Some(cam.tensor(&format!("{name}.bias"), &[output])?))
        };
        Ok(Self {
            norm: BatchNormRelu::load(&weights.under("nonlinear1.batchnorm"), input, c.norm_eps)?,
            narrow: folded_conv(
                &weights.under("linear1"),
                &weights.under("nonlinear2.batchnorm"),
                input,
                width,
                1,
                Conv1dOptions::default(),
                c,
            )?,
            local: Conv1d::load(&cam.under("linear_local"), width, c.growth, c.kernel, options, false)?,
            mask_in: linear("linear1", width, width / 2)?,
            mask_out: linear("linear2", width / 2, c.growth)?,
        })
    }

    /// `[T, C]` → the growth `[T, 32]`: a local convolution times a mask that its context decides.
    fn forward(&self, x: &Tensor, context: &Context) -> Result<Tensor> {
        let x = Activation::Relu.forward(&self.narrow.forward(&self.norm.forward(x)?.unsqueeze(0)?)?)?; // [1, T, 128]
        let local = self.local.forward(&x)?.squeeze(0)?;
        let mask = Activation::Relu.forward(&self.mask_in.forward(&context.means(&x.squeeze(0)?)?)?)?;
        let mask = Activation::Sigmoid.forward(&self.mask_out.forward(&mask)?)?; // [S, 32]
        Ok((local * context.spread(&mask)?)?)
    }
}

/// What is averaged for the mask of every segment: the whole clip plus the segment. The last segment may be shorter.
#[derive(Clone, Debug)]
struct Context {
    /// `[S, T]`: 1/T everywhere, plus 1/length inside the segment.
    averages: Tensor,
    /// Segment of every time step, `[T]`.
    segments: Tensor,
}

impl Context {
    fn new(t: usize, segment: usize, device: &Device) -> Result<Self> {
        let count = t.div_ceil(segment);
        let value = |i: usize| {
            let (s, at) = (i / t, i % t);
            let length = segment.min(t - s * segment) as f64;
            (1.0 / t as f64 + if at / segment == s { 1.0 / length } else { 0.0 }) as f32
        };
        Ok(Self {
            averages: Tensor::from_vec((0..count * t).map(value).collect(), (count, t), device)?,
            segments: Tensor::from_vec((0..t).map(|at| (at / segment) as u32).collect(), t, device)?,
        })
    }

    /// `x` `[T, C]` → `[S, C]`.
    fn means(&self, x: &Tensor) -> Result<Tensor> {
        crate::nn::product(&self.averages, x)
    }

    /// `[S, C]` → `[T, C]`.
    fn spread(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.index_select(&self.segments, 0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_segment_is_averaged_over_its_own_length() -> Result<()> {
        let context = Context::new(5, 2, &Device::Cpu)?;
        let means = context.means(&Tensor::new(&[[1f32], [3.0], [5.0], [7.0], [9.0]], &Device::Cpu)?)?;
        let found = context.spread(&means)?.flatten_all()?.to_vec1::<f32>()?;
        let truth = [7.0, 7.0, 11.0, 11.0, 14.0];
        assert!(found.iter().zip(truth).all(|(a, b)| (a - b).abs() < 1e-5) && found.len() == 5, "{found:?}");
        Ok(())
    }

    #[test]
    fn deviation_is_unbiased() -> Result<()> {
        let x = Matrix::new(3, 2, vec![1.0, 5.0, 2.0, 5.0, 6.0, 5.0])?;
        assert_eq!(mean_and_deviation(&x), [3.0, 5.0, 7f32.sqrt(), 0.0]);
        Ok(())
    }
}
