//! The generator: mel `[F, mels]` and excitation `[480F]` to samples `[480F]` within ±0.99.
//!
//! Three times a transposed convolution, the excitation's spectrum brought to the same rate and added, and the mean of three
//! residual blocks; then log-magnitude and phase of a 16-point STFT. Activations are `[1, T, C]`, T = 8F, 40F, 120F + 1.
//! Source: `HiFTGenerator.decode` in `models/s3gen/hifigan.py` of resemble-ai/chatterbox at 5de7a54.

use candle_core::Tensor;

use super::STAGE;
use super::resblock::ResBlock;
use super::spectrum::Spectrum;
use crate::config::Vocoder as Config;
use crate::hyperparameters::Hyperparameters;
use crate::nn::{Activation, Conv1d, Conv1dOptions, ConvTranspose1d, Fused, Pointwise, ResidualBlocks, weight_norm};
use crate::precision::Products;
use crate::tap::{tap, tap_difference};
use crate::{Device, Matrix, Observer, Result, Weights};

/// Taps of the first and the last convolution.
const KERNEL: usize = 7;
/// Slope of PyTorch's LeakyReLU when none is given, as before the last convolution.
const DEFAULT_SLOPE: f32 = 0.01;

/// One upsampling level.
#[derive(Clone, Debug)]
struct Level {
    up: ConvTranspose1d,
    source_down: Conv1d,
    source_block: ResBlock,
    blocks: Vec<ResBlock>,
}

/// The generator.
#[derive(Clone, Debug)]
pub(super) struct Generator {
    first: Conv1d,
    levels: Vec<Level>,
    last: Conv1d,
    spectrum: Spectrum,
    slope: f32,
    magnitude_limit: f32,
    audio_limit: f32,
    device: Device,
}

impl Generator {
    pub(super) fn load(weights: &Weights, mels: usize, c: &Config, device: &Device) -> Result<Self> {
        let spectrum = Spectrum::new(c.istft_size, c.istft_hop);
        let blocks = c.resblock_kernels.len();
        // LeakyReLU(x / n) = LeakyReLU(x) / n: the mean over the blocks is a factor on the next layer's weights
        let mean = |mut values: Vec<f32>| {
            values.iter_mut().for_each(|v| *v /= blocks as f32);
            values
        };
        // the way in of the excitation and the way out, whose result is exponentiated: little work, and a third of the error
        let exact = weights.with_products(Products::F32);
        let mut levels = Vec::new();
        for (i, (&rate, &kernel)) in c.upsample_rates.iter().zip(&c.upsample_kernels).enumerate() {
            let (input, output) = (c.base_channels >> i, c.base_channels >> (i + 1));
            let up = weights.under("ups").under(i);
            let values = weight_norm(&up, &[input, output, kernel])?;
            let values = if i == 0 { values } else { mean(values) };
            let bias = up.tensor("bias", &[output])?;
            let stride = c.upsample_rates[i + 1..].iter().product::<usize>();
            let down = Conv1dOptions { stride, ..Conv1dOptions::padded(stride / 2) };
            let taps = if stride == 1 { 1 } else { 2 * stride };
            let source_block = weights.under("source_resblocks").under(i);
            levels.push(Level {
                up: ConvTranspose1d::new(values, bias, input, output, kernel, rate, (kernel - rate) / 2, up.products())?,
                source_down: Conv1d::load(&exact.under("source_downs").under(i), spectrum.parts(), output, taps, down, true)?,
                source_block: ResBlock::load(&source_block, output, c.source_resblock_kernels[i], &c.resblock_dilations)?,
                blocks: (0..blocks)
                    .map(|j| {
                        let weights = weights.under("resblocks").under(i * blocks + j);
                        ResBlock::load(&weights, output, c.resblock_kernels[j], &c.resblock_dilations)
                    })
                    .collect::<Result<_>>()?,
            });
        }
        let (channels, parts, post) = (c.base_channels >> levels.len(), spectrum.parts(), exact.under("conv_post"));
        let values = mean(weight_norm(&post, &[parts, channels, KERNEL])?);
        let bias = Some(post.tensor("bias", &[parts])?);
        let padded = Conv1dOptions::padded(KERNEL / 2);
        Ok(Self {
            first: Conv1d::load_weight_norm(&weights.under("conv_pre"), mels, c.base_channels, KERNEL, padded)?,
            levels,
            last: Conv1d::new(&values, bias, channels, parts, KERNEL, padded, device, post.products())?,
            spectrum,
            slope: c.leaky_slope as f32,
            magnitude_limit: c.magnitude_limit as f32,
            audio_limit: c.audio_limit as f32,
            device: device.clone(),
        })
    }

    pub(super) fn forward(&self, mel: &Matrix, source: &[f32], observer: &dyn Observer) -> Result<Vec<f32>> {
        let level = |l: &Level| 1 + l.source_block.convolutions() + l.blocks.iter().map(ResBlock::convolutions).sum::<usize>();
        let (mut done, total) = (0, self.levels.iter().map(level).sum::<usize>() + 2);
        let mut step = || {
            done += 1;
            observer.progress(STAGE, done - 1, total)
        };
        step()?;
        let parts = self.spectrum.parts();
        let excitation = self.spectrum.analyse(source);
        let excitation = Tensor::from_vec(excitation, (1, source.len() / self.spectrum.hop() + 1, parts), &self.device)?;
        let mut x = self.first.forward(&mel.to_tensor(&self.device)?.unsqueeze(0)?)?; // [1, F, base_channels]
        tap(|| "mel2wav.conv_pre", &x)?;
        for i in 0..self.levels.len() {
            x = match self.streams(i, &x)? {
                Some(streams) => self.streamed(i, x, &excitation, &streams, &mut step)?,
                None => self.layer_by_layer(i, x, &excitation, &mut step)?,
            };
        }
        let before = Some(Pointwise::Function(Activation::LeakyRelu(DEFAULT_SLOPE)));
        let x = self.last.forward_fused(&x, &Fused { before, ..Fused::default() })?; // [1, 120F + 1, parts]
        tap(|| "mel2wav.conv_post", &x)?;
        let mut spectrum: Vec<f32> = x.flatten_all()?.to_vec1()?;
        self.spectrum.polar(&mut spectrum, self.magnitude_limit);
        step()?;
        let mut samples = self.spectrum.synthesise(&spectrum);
        samples.iter_mut().for_each(|v| *v = v.clamp(-self.audio_limit, self.audio_limit));
        observer.progress(STAGE, total, total)?;
        Ok(samples)
    }

    /// The source's block and the others as streams; not where every layer's result is asked for.
    fn streams(&self, i: usize, x: &Tensor) -> Result<Option<[ResidualBlocks<'_>; 2]>> {
        if crate::tap::is_on() || !self.device.is_cpu() {
            return Ok(None);
        }
        let (level, rows) = (&self.levels[i], x.dim(1)? * self.levels[i].up.stride());
        let source = ResidualBlocks::new(&[level.source_block.layers()], rows)?;
        let blocks = ResidualBlocks::new(&level.blocks.iter().map(ResBlock::layers).collect::<Vec<_>>(), rows)?;
        Ok(source.zip(blocks).map(<[_; 2]>::from))
    }

    /// One level with its blocks as streams.
    fn streamed(
        &self,
        i: usize,
        x: Tensor,
        excitation: &Tensor,
        [source, blocks]: &[ResidualBlocks<'_>; 2],
        step: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Tensor> {
        let level = &self.levels[i];
        let c = level.source_down.geometry().output;
        let before = Some(Pointwise::Function(Activation::LeakyRelu(self.slope)));
        let mut up = level.up.values(&x, &Fused { before, ..Fused::default() })?;
        drop(x);
        if i + 1 == self.levels.len() {
            // reflection on the left
            let len = up.len();
            up.reserve_exact(c);
            up.resize(len + c, 0.0);
            up.copy_within(..len, c);
            up.copy_within(2 * c..3 * c, 0);
        }
        let mut down = level.source_down.values(excitation)?;
        step()?;
        // every result takes the place of what nobody needs any more
        source.run(&down, &mut up, true, paced(level.source_block.convolutions(), step))?;
        blocks.run(&up, &mut down, false, paced(level.blocks.iter().map(ResBlock::convolutions).sum(), step))?;
        let rows = down.len() / c;
        Ok(Tensor::from_vec(down, (1, rows, c), &self.device)?)
    }

    /// The same, one convolution after the other over all rows.
    fn layer_by_layer(
        &self,
        i: usize,
        mut x: Tensor,
        excitation: &Tensor,
        step: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Tensor> {
        let level = &self.levels[i];
        let before = Some(Pointwise::Function(Activation::LeakyRelu(self.slope)));
        x = level.up.forward_fused(&x, &Fused { before, ..Fused::default() })?;
        tap(|| format!("mel2wav.ups.{i}"), &x)?;
        if i + 1 == self.levels.len() {
            x = Tensor::cat(&[&x.narrow(1, 1, 1)?, &x], 1)?; // reflection on the left
        }
        let down = level.source_down.forward(excitation)?;
        tap(|| format!("mel2wav.source_downs.{i}"), &down)?;
        step()?;
        let up = x;
        x = level.source_block.forward(&down, Some(&up), step)?;
        tap_difference(|| format!("mel2wav.source_resblocks.{i}"), &x, &up)?;
        let mut sum = None;
        for (j, block) in level.blocks.iter().enumerate() {
            let more = block.forward(&x, sum.as_ref(), step)?;
            let name = || format!("mel2wav.resblocks.{}", i * level.blocks.len() + j);
            match &sum {
                Some(sum) => tap_difference(name, &more, sum)?,
                None => tap(name, &more)?,
            }
            sum = Some(more);
        }
        x = sum.unwrap_or(x);
        Ok(x)
    }

    /// The hyper-parameters of the loaded layers.
    pub(super) fn hyperparameters(&self) -> Hyperparameters {
        let each = |of: fn(&Level) -> usize| self.levels.iter().map(of).collect::<Vec<_>>();
        let blocks =
            || self.levels.iter().flat_map(|level| &level.blocks).take(self.levels.first().map_or(0, |l| l.blocks.len()));
        vec![
            ("mels", self.first.geometry().input.into()),
            ("base_channels", self.first.geometry().output.into()),
            ("upsample_rates", each(|level| level.up.stride()).into()),
            ("upsample_kernels", each(|level| level.up.kernel()).into()),
            ("istft_size", self.spectrum.size().into()),
            ("istft_hop", self.spectrum.hop().into()),
            ("resblock_kernels", blocks().map(ResBlock::kernel).collect::<Vec<_>>().into()),
            ("resblock_dilations", blocks().next().map(ResBlock::dilations).unwrap_or_default().into()),
            ("source_resblock_kernels", each(|level| level.source_block.kernel()).into()),
            ("leaky_slope", self.slope.into()),
            ("last_leaky_slope", DEFAULT_SLOPE.into()),
            ("magnitude_limit", self.magnitude_limit.into()),
            ("audio_limit", self.audio_limit.into()),
        ]
    }
}

/// Tells `step` of `count` convolutions while the pieces of their work are done.
fn paced<'a>(count: usize, step: &'a mut dyn FnMut() -> Result<()>) -> impl FnMut(usize, usize) -> Result<()> + 'a {
    let mut told = 0;
    move |done, of| {
        while told < count * done / of {
            told += 1;
            step()?;
        }
        Ok(())
    }
}
