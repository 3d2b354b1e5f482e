//! From text and a reference clip to samples: all stages in order, in Rust alone.
//!
//! The order, the crops and the filter are those of `src/chatterbox/tts_turbo.py` and `models/s3gen/s3gen.py` of
//! resemble-ai/chatterbox at commit 5de7a54; `pipeline.py` is the same in Python. With the same seed both give the same samples.

use std::path::Path;

use crate::stages::reference::{loudness, resample::resample};
use crate::stages::s3gen::{encoder::FlowEncoder, flow::Flow, prompt_mel::prompt_mel, vocoder::Vocoder};
use crate::stages::s3tokenizer::{mel::S3TokenizerMel, tokens::S3Tokenizer};
use crate::stages::speaker_encoder::{fbank::fbank, xvector::SpeakerEncoder};
use crate::stages::t3::generate::{generate, keep_speech};
use crate::stages::t3::{decoder::T3Decoder, sampler::SamplerParameters};
use crate::stages::text::{normalize::normalize, tokenize::Tokenizer};
use crate::stages::voice_encoder::{embedding::VoiceEncoder, mel::mel as voice_encoder_mel};
use crate::stages::watermark::perth::Watermarker;
use crate::{Checkpoint, Device, Observer, Precision, Result, Voice, draws};

/// Sample rate of reference clips and of the result, in Hz.
pub const SAMPLE_RATE: u32 = 24_000;
const S3_RATE: usize = 16_000;
/// Seconds of the clip that S3Gen sees.
const S3GEN_SECONDS: usize = 10;
/// Seconds of the clip that T3's prompt tokens come from.
const T3_SECONDS: usize = 15;
/// Samples of a mel frame.
const FRAME: usize = 480;

/// How to speak one text.
#[derive(Clone, Debug)]
pub struct Options {
    /// The same seed gives the same samples.
    pub seed: u64,
    /// How tokens are chosen.
    pub sampling: SamplerParameters,
    /// Limit of T3's loop (the first token comes on top).
    pub max_tokens: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 0, sampling: SamplerParameters::default(), max_tokens: 1000 }
    }
}

/// All stages of one checkpoint. Immutable; threads may share it.
pub struct Synthesizer {
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    t3: T3Decoder,
    encoder: FlowEncoder,
    flow: Flow,
    vocoder: Vocoder,
    s3tokenizer_mel: S3TokenizerMel,
    s3tokenizer: S3Tokenizer,
    speaker_encoder: SpeakerEncoder,
    voice_encoder: VoiceEncoder,
    watermarker: Option<Watermarker>,
}

impl Synthesizer {
    /// Loads the checkpoint directory `directory` (upstream's files) onto `device`; `perth` is the path of Perth's weights
    /// (`perth_net_250000.pth.tar` of the resemble-perth wheel), `None` for no watermark; `precision` is T3's and S3Gen's.
    ///
    /// # Errors
    /// [`crate::Error::Checkpoint`], [`crate::Error::Io`], [`crate::Error::Watermark`], each naming the file;
    /// [`crate::Error::Argument`] for int8, int4 or bf16 on another device than the CPU.
    pub fn open(directory: impl AsRef<Path>, device: &Device, precision: Precision, perth: Option<&Path>) -> Result<Self> {
        let checkpoint = Checkpoint::open_directory(directory)?;
        Ok(Self {
            tokenizer: Tokenizer::from_directory(checkpoint.directory(), checkpoint.config())?,
            t3: T3Decoder::load(&checkpoint, device, precision)?,
            encoder: FlowEncoder::load(&checkpoint, device, precision)?,
            flow: Flow::load(&checkpoint, device, precision)?,
            vocoder: Vocoder::load(&checkpoint, device, precision)?,
            s3tokenizer_mel: S3TokenizerMel::load(&checkpoint)?,
            s3tokenizer: S3Tokenizer::load(&checkpoint, device)?,
            speaker_encoder: SpeakerEncoder::load(&checkpoint, device)?,
            voice_encoder: VoiceEncoder::load(&checkpoint, device)?,
            watermarker: perth.map(Watermarker::load).transpose()?,
            checkpoint,
        })
    }

    /// Prepares a voice from `samples` at 24 kHz (see `stages::reference::load`).
    ///
    /// # Errors
    /// [`crate::Error::Audio`] when the clip gives no voice, and what `observer` raises.
    pub fn voice(&self, samples: &[f32], observer: &dyn Observer) -> Result<Voice> {
        let samples = loudness::normalize(samples, loudness::Method::Bs1770, observer)?;
        let (w16, r16) = resample(&samples, observer)?;
        let prompt_mel = prompt_mel(crop(&samples, S3GEN_SECONDS * SAMPLE_RATE as usize), observer)?;
        let xvector = self.speaker_encoder.xvector(&fbank(&r16, observer)?, observer)?;
        let s3gen_mel = self.s3tokenizer_mel.mel(&r16, observer)?;
        let mut t3_mel = self.s3tokenizer_mel.mel(crop(&w16, T3_SECONDS * S3_RATE), observer)?;
        t3_mel.rows = t3_mel.rows.min(4 * self.checkpoint.config().t3.prompt_tokens);
        t3_mel.data.truncate(t3_mel.rows * t3_mel.cols);
        let mut tokens = self.s3tokenizer.tokens_of(&[&s3gen_mel, &t3_mel], observer)?.into_iter();
        let (mut s3gen_prompt_tokens, t3_prompt_tokens) = (tokens.next().unwrap_or_default(), tokens.next().unwrap_or_default());
        // an odd mel count keeps its last frame; only the tokens are cut to half of it
        s3gen_prompt_tokens.truncate(prompt_mel.rows / 2);
        let speaker_embedding = self.voice_encoder.embedding(&voice_encoder_mel(&w16, observer)?, observer)?;
        Ok(Voice { speaker_embedding, t3_prompt_tokens, s3gen_prompt_tokens, s3gen_prompt_mel: prompt_mel, xvector })
    }

    /// Speaks `text`: float32 samples at 24 kHz.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for options or a voice that do not fit, and what `observer` raises.
    pub fn say(&self, text: &str, voice: &Voice, options: &Options, observer: &dyn Observer) -> Result<Vec<f32>> {
        let config = self.checkpoint.config();
        let ids = self.tokenizer.encode(&normalize(text))?.ids;
        let seed = options.seed;
        let raw = generate(
            &self.t3,
            &voice.speaker_embedding,
            &voice.t3_prompt_tokens,
            &ids,
            &options.sampling,
            |step| Ok(draws::uniforms(seed, draws::T3, step as u64, 1)?[0]),
            options.max_tokens,
            observer,
        )?;
        let mut tokens = voice.s3gen_prompt_tokens.clone();
        tokens.extend(keep_speech(&raw, &config.s3gen));
        let mu = self.encoder.mu(&tokens, observer)?;
        let noise = draws::normals(seed, draws::FLOW, 0, mu.rows, config.s3gen.mels)?;
        let mel = self.flow.mel(&mu, &voice.xvector, &voice.s3gen_prompt_mel, &noise, observer)?;
        let harmonics = config.s3gen.vocoder.harmonics + 1;
        let phases = draws::phases(seed, harmonics)?;
        let noise = draws::normals(seed, draws::NOISE, 0, FRAME * mel.rows, harmonics)?;
        let samples = self.vocoder.samples(&mel, &phases, &noise, observer)?;
        match &self.watermarker {
            Some(watermarker) => watermarker.embed(&samples, observer),
            None => Ok(samples),
        }
    }
}

fn crop(samples: &[f32], len: usize) -> &[f32] {
    &samples[..samples.len().min(len)]
}
