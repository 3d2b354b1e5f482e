//! `s3gen.vocoder`: mel `[F, 80]`, phases `[9]` and noise `[480F, 9]` to samples `[480F]` at 24 kHz, faded in.
//!
//! HiFT (arXiv:2309.09493): fundamental frequency per frame, an excitation signal of its harmonics, and a generator that
//! filters the excitation's spectrum under the mel and ends in an inverse STFT.
//! Source: `models/s3gen/{hifigan,f0_predictor,s3gen}.py` of resemble-ai/chatterbox at 5de7a54.

mod f0;
mod generator;
mod resblock;
mod source;
mod spectrum;

use self::f0::F0Predictor;
use self::generator::Generator;
use self::source::Source;
use super::{check, check_finite, check_vector};
use crate::config::S3Gen;
use crate::hyperparameters::Hyperparameters;
use crate::packed::Stay;
use crate::precision::Products;
use crate::tap::tap_values;
use crate::{Checkpoint, Device, Error, Matrix, Observer, Precision, Result, Weights};

/// Stage key.
const STAGE: &str = "s3gen.vocoder";
/// Samples a second.
const RATE: f32 = 24000.0;
/// Samples of silence at the start, and of the fade after them.
const FADE: usize = 480;

/// The vocoder.
#[derive(Clone, Debug)]
pub struct Vocoder {
    f0: F0Predictor,
    source: Source,
    generator: Generator,
    mels: usize,
    /// Samples of a mel frame.
    hop: usize,
}

impl Vocoder {
    /// Reads everything below `mel2wav`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when a tensor is missing, has another shape, or is not known; [`Error::Argument`] for bfloat16 on
    /// another device than the CPU.
    pub fn load(checkpoint: &Checkpoint, device: &Device, precision: Precision) -> Result<Self> {
        let products = precision.s3gen(device)?;
        let weights = checkpoint.s3gen(device).with_products(products);
        weights.through_cache("vocoder", products.name(), Stay::Memory, |all| Self::read(all, &checkpoint.config().s3gen))
    }

    fn read(all: &Weights, config: &S3Gen) -> Result<Self> {
        let (mels, c, device) = (config.mels, &config.vocoder, all.device());
        let weights = all.under("mel2wav");
        // an error of the frequency grows into one of the excitation's phase, which has no bound
        let exact = weights.with_products(Products::F32);
        let vocoder = Self {
            f0: F0Predictor::load(&exact.under("f0_predictor"), mels, c.f0_channels, device)?,
            source: Source::load(&weights.under("m_source.l_linear"), c)?,
            generator: Generator::load(&weights, mels, c, device)?,
            mels,
            hop: c.upsample_rates.iter().product::<usize>() * c.istft_hop,
        };
        all.expect_all_used(&["mel2wav."])?;
        Ok(vocoder)
    }

    /// Samples `[480F]` of `mel` `[F, mels]`, F at least 2, with the fade-in: 480 zeros, then a half cosine over 480 samples.
    ///
    /// `phases` `[9]` are the harmonics' start phases in radians, uniform in (−π, π), of which upstream sets the first to 0;
    /// `noise` `[480F, 9]` are standard normals.
    ///
    /// # Errors
    /// [`Error::Argument`] when a shape does not fit or a value is not finite; what `observer` returns.
    pub fn samples(&self, mel: &Matrix, phases: &[f32], noise: &Matrix, observer: &dyn Observer) -> Result<Vec<f32>> {
        check(STAGE, "mel", mel, None, self.mels)?;
        if mel.rows * self.hop < 2 * FADE {
            let (least, found) = ((2 * FADE).div_ceil(self.hop), mel.rows);
            return Err(Error::argument(format!(
                "{STAGE}: mel: expected at least {least} frames (the length of the fade-in), got {found}"
            )));
        }
        let f0 = self.f0(mel)?;
        observer.progress(STAGE, 0, 1)?;
        let source = self.source(&f0, phases, noise)?;
        let mut samples = self.samples_from_source(mel, &source, observer)?;
        samples.iter_mut().zip(Self::fade()).for_each(|(sample, factor)| *sample *= factor);
        Ok(samples)
    }

    /// What the first samples are multiplied by: 480 zeros, then a half cosine over 480 samples.
    pub fn fade() -> Vec<f32> {
        let rise = (0..FADE).map(|i| std::f64::consts::PI * (1.0 - i as f64 / (FADE - 1) as f64));
        std::iter::repeat_n(0.0, FADE).chain(rise.map(|angle| ((angle.cos() + 1.0) / 2.0) as f32)).collect()
    }

    /// Fundamental frequency of every frame of `mel` `[F, mels]`, Hz, `[F]`.
    ///
    /// # Errors
    /// [`Error::Argument`] when the shape does not fit or a value is not finite.
    pub fn f0(&self, mel: &Matrix) -> Result<Vec<f32>> {
        self.check_mel(mel)?;
        let f0 = self.f0.forward(mel)?;
        tap_values(|| "mel2wav.f0_predictor", 1, &f0);
        Ok(f0)
    }

    /// Excitation `[480F]` for `f0` `[F]`; `phases` and `noise` as in [`Self::samples`].
    ///
    /// # Errors
    /// [`Error::Argument`] when a shape does not fit or a value is not finite.
    pub fn source(&self, f0: &[f32], phases: &[f32], noise: &Matrix) -> Result<Vec<f32>> {
        let harmonics = self.source.harmonics();
        check_finite(STAGE, "f0", f0)?;
        check_vector(STAGE, "phases", phases, harmonics)?;
        check(STAGE, "noise", noise, Some(f0.len() * self.hop), harmonics)?;
        let source = self.source.signal(f0, phases, noise, self.hop);
        tap_values(|| "mel2wav.m_source", 1, &source);
        Ok(source)
    }

    /// Samples `[480F]` without the fade-in, from `mel` `[F, mels]` and an excitation `[480F]`.
    ///
    /// # Errors
    /// [`Error::Argument`] when a shape does not fit or a value is not finite; what `observer` returns.
    pub fn samples_from_source(&self, mel: &Matrix, source: &[f32], observer: &dyn Observer) -> Result<Vec<f32>> {
        self.check_mel(mel)?;
        check_vector(STAGE, "source", source, mel.rows * self.hop)?;
        self.generator.forward(mel, source, observer)
    }

    /// The hyper-parameters of the loaded layers.
    pub fn hyperparameters(&self) -> Hyperparameters {
        let mut all = self.generator.hyperparameters();
        all.extend(self.source.hyperparameters());
        all.extend([("f0_channels", self.f0.channels().into()), ("hop", self.hop.into()), ("fade", FADE.into())]);
        all
    }

    fn check_mel(&self, mel: &Matrix) -> Result<()> {
        check(STAGE, "mel", mel, None, self.mels)?;
        if mel.rows == 0 {
            return Err(Error::argument(format!("{STAGE}: mel: expected at least one frame, got none")));
        }
        Ok(())
    }
}
