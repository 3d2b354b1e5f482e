//! T3's decoder: a GPT-2 backbone over `[speaker | prompt | text | start | generated tokens]`, one row of logits a step.
//!
//! In: speaker embedding `[E]`, prompt ids `[P]`, text ids `[T]`; then one token a step. Out: logits `[speech_vocab]`.
//! Every row is an embedding of width C plus the position row of its absolute index from 0: the first generated token
//! stands at 2 + P + T. Block: `x += proj(attention(ln_1 x))`, `x += proj(gelu_tanh(fc(ln_2 x)))`.
//!
//! Source: `prepare_input_embeds` and `inference_turbo` of `src/chatterbox/models/t3/t3.py` of resemble-ai/chatterbox at
//! 5de7a54, and `GPT2Model` of transformers 5.2.0, which it runs.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::generate::Session;
pub use super::prefix::T3Prefix;
use super::step::{self, Steps};
use crate::config;
use crate::hyperparameters::Hyperparameters;
use crate::kernels::in_pool;
use crate::nn::{Activation, Embedding, KvCache, KvPrefix, LayerNorm, Linear, Projection, add, kernels_run};
use crate::packed::Stay;
use crate::precision::T3Weights;
use crate::tap::{is_on, skip, tap};
use crate::{Checkpoint, Error, Observer, Precision, Result, Weights};

/// Of the feed-forward layers.
pub(super) const ACTIVATION: Activation = Activation::GeluTanh;

/// The loaded decoder; immutable, cheap to clone, to be shared by threads.
#[derive(Clone, Debug)]
pub struct T3Decoder {
    model: Arc<Model>,
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) config: config::T3,
    embedding_size: usize,
    text_vocab: usize,
    device: Device,
    format: T3Weights,
    speaker: Linear,
    pub(super) speech: Embedding,
    text: Embedding,
    pub(super) positions: Embedding,
    pub(super) blocks: Vec<Block>,
    norm: LayerNorm,
    pub(super) head: Projection,
    /// On the CPU.
    steps: Option<Steps>,
}

impl T3Decoder {
    /// Reads T3's weight file; with int8 or int4 the blocks' four projections and the speech head are of 8
    /// or 4 bits, and sessions keep keys and values in float16.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a tensor that is missing, has another shape, is not finite, or is not known;
    /// [`Error::Argument`] for int8 or int4 on another device than the CPU.
    pub fn load(checkpoint: &Checkpoint, device: &Device, precision: Precision) -> Result<Self> {
        let format = precision.t3();
        checkpoint
            .t3(device)
            .through_cache("t3", format.name(), Stay::Memory, |weights| Self::read(weights, checkpoint.config(), format))
    }

    fn read(weights: &Weights, config: &config::Config, format: T3Weights) -> Result<Self> {
        let c = config.t3.clone();
        let (size, text_vocab, embedding_size) = (c.hidden_size, config.text.vocab_size, config.voice_encoder.embedding_size);
        let backbone = weights.under("tfmr");
        // GPT-2's own token table and the head of the training loss.
        backbone.unused("wte.weight", &[text_vocab, size], true)?;
        weights.unused("text_head.weight", &[text_vocab, size], true)?;
        let layers = backbone.under("h");
        let blocks: Vec<Block> = (0..c.layers).map(|i| Block::load(&layers.under(i), &c, format)).collect::<Result<_>>()?;
        let norm = LayerNorm::load(&backbone.under("ln_f"), size, c.norm_eps)?;
        let head = Projection::load(&weights.under("speech_head"), size, c.speech_vocab, format)?;
        let steps = if kernels_run(weights.device()) { Some(Steps::new(&blocks, &norm, &head)?) } else { None };
        let model = Model {
            embedding_size,
            text_vocab,
            device: weights.device().clone(),
            format,
            speaker: Linear::load(&weights.under("cond_enc").under("spkr_enc"), embedding_size, size)?,
            speech: Embedding::load(&weights.under("speech_emb"), "token", c.speech_vocab, size)?,
            text: Embedding::load(&weights.under("text_emb"), "text_ids", text_vocab, size)?,
            positions: Embedding::load(&backbone.under("wpe"), "positions", c.positions, size)?,
            blocks,
            norm,
            head,
            steps,
            config: c,
        };
        weights.expect_all_used(&[])?;
        Ok(Self { model: Arc::new(model) })
    }

    /// The hyper-parameters of the loaded layers.
    pub fn hyperparameters(&self) -> Hyperparameters {
        let model = &*self.model;
        let size = model.head.input();
        let mut all = vec![
            ("hidden_size", size.into()),
            ("layers", model.blocks.len().into()),
            ("positions", model.positions.rows().into()),
            ("norm_eps", model.norm.eps().into()),
            ("activation", ACTIVATION.name().into()),
            ("text_vocab", model.text.rows().into()),
            ("speech_vocab", model.speech.rows().into()),
            ("start_token", (model.config.start_token as usize).into()),
            ("stop_token", (model.config.stop_token as usize).into()),
            ("head_bias", model.head.has_bias().into()),
        ];
        if let Some(block) = model.blocks.first() {
            all.extend([
                ("heads", block.heads.into()),
                ("ffn_size", block.mlp_c_fc.output().into()),
                ("attention_scale", block.scale(size).into()),
            ]);
        }
        all
    }

    /// The configuration.
    pub fn config(&self) -> &config::T3 {
        &self.model.config
    }

    /// Bytes that a step after `position` positions reads at least: the large weights, and keys and values of all positions.
    pub fn step_bytes(&self, position: usize) -> usize {
        let Model { blocks, head, config, format, .. } = &*self.model;
        let weights: usize = blocks.iter().map(Block::bytes).sum::<usize>() + head.bytes();
        let number = if *format == T3Weights::F32 { size_of::<f32>() } else { size_of::<half::f16>() };
        weights + 2 * config.layers * config.hidden_size * position * number
    }

    /// Prepares one utterance: `speaker_embedding` `[E]`, `prompt_tokens` `[0 to config.prompt_tokens]`, `text_ids`
    /// `[1 or more]`, and room for `max_tokens` steps. Nothing else than [`Self::start_from`] with a prefix of its own.
    ///
    /// # Errors
    /// [`Error::Argument`] for a wrong size, a number that is not finite, an id outside its table, or more positions than
    /// the position table has.
    pub fn start(
        &self,
        speaker_embedding: &[f32],
        prompt_tokens: &[i64],
        text_ids: &[i64],
        max_tokens: usize,
    ) -> Result<T3Session> {
        self.start_from(&self.prefix(speaker_embedding, prompt_tokens)?, text_ids, max_tokens)
    }

    /// The beginning that all utterances of a voice share: `speaker_embedding` `[E]` and `prompt_tokens`
    /// `[0 to config.prompt_tokens]`. Its keys and values are computed by the first prefill that needs them.
    ///
    /// # Errors
    /// Those of [`Self::start`] for these two.
    pub fn prefix(&self, speaker_embedding: &[f32], prompt_tokens: &[i64]) -> Result<T3Prefix> {
        let Model { config, embedding_size, .. } = &*self.model;
        let fail = |what: String| Err(Error::Argument(what));
        if speaker_embedding.len() != *embedding_size {
            return fail(format!("speaker_embedding: expected {embedding_size} numbers, got {}", speaker_embedding.len()));
        }
        if let Some(at) = speaker_embedding.iter().position(|v| !v.is_finite()) {
            return fail(format!("speaker_embedding: expected finite numbers, got {} at position {at}", speaker_embedding[at]));
        }
        if prompt_tokens.len() > config.prompt_tokens {
            return fail(format!("prompt_tokens: expected at most {} tokens, got {}", config.prompt_tokens, prompt_tokens.len()));
        }
        expect_ids("prompt_tokens", prompt_tokens, config.speech_vocab)?;
        Ok(T3Prefix::new(&self.model, speaker_embedding, prompt_tokens))
    }

    /// Prepares one utterance of the voice of `prefix`: `text_ids` `[1 or more]`, and room for `max_tokens` steps. Once the
    /// prefix's keys and values are there, the prefill is that of the text alone; the logits are the same to the bit either way.
    ///
    /// # Errors
    /// [`Error::Argument`] for a prefix of another decoder, an id outside its table, or more positions than the position table has.
    pub fn start_from(&self, prefix: &T3Prefix, text_ids: &[i64], max_tokens: usize) -> Result<T3Session> {
        let Model { config, text_vocab, .. } = &*self.model;
        if !prefix.is_of(&self.model) {
            return Err(Error::argument("prefix: expected one that this decoder made, got another decoder's"));
        }
        if text_ids.is_empty() {
            return Err(Error::argument("text_ids: expected at least 1 id, got none"));
        }
        expect_ids("text_ids", text_ids, *text_vocab)?;
        let prompt = prefix.prompt().len();
        let needed = (2 + prompt + text_ids.len()).saturating_add(max_tokens);
        if needed > config.positions {
            return Err(Error::Argument(format!(
                "text_ids and max_tokens: expected at most {} positions, got {needed} (2 + {prompt} prompt tokens + {} text ids + {max_tokens} steps)",
                config.positions,
                text_ids.len()
            )));
        }
        Ok(T3Session {
            model: self.model.clone(),
            prefix: prefix.clone(),
            text: text_ids.to_vec(),
            positions: needed,
            caches: None,
        })
    }

    /// Appends `tokens[i]` to `sessions[i]`, each at its own position, and returns the logits after it: the same to the bit as
    /// [`Session::step`] of each alone. On the CPU the weights are read once for all.
    ///
    /// # Errors
    /// [`Error::Argument`] for another number of tokens than of sessions, a session of another decoder, and what a step of a
    /// session alone refuses, with its row; no session has changed then.
    pub fn step_many(&self, sessions: &mut [&mut T3Session], tokens: &[i64]) -> Result<Vec<Vec<f32>>> {
        if sessions.len() != tokens.len() {
            return Err(Error::Argument(format!(
                "tokens: expected one for each of {} sessions, got {}",
                sessions.len(),
                tokens.len()
            )));
        }
        for (row, (session, token)) in sessions.iter().zip(tokens).enumerate() {
            if !Arc::ptr_eq(&self.model, &session.model) {
                return Err(Error::Argument(format!("row {row}: expected a session of this decoder, got another decoder's")));
            }
            session.expect_room(*token).map_err(|e| match e {
                Error::Argument(what) => Error::Argument(format!("row {row}: {what}")),
                other => other,
            })?;
        }
        match &self.model.steps {
            Some(_) if sessions.is_empty() => Ok(Vec::new()),
            Some(steps) if !is_on() => step::step(&self.model, steps, sessions, tokens),
            _ => sessions.iter_mut().zip(tokens).map(|(session, token)| session.step_in_tensors(*token)).collect(),
        }
    }
}

fn expect_ids(name: &str, ids: &[i64], vocab: usize) -> Result<()> {
    match ids.iter().position(|id| usize::try_from(*id).map_or(true, |id| id >= vocab)) {
        None => Ok(()),
        Some(at) => {
            Err(Error::argument(format!("{name}: expected ids from 0 to {}, got {} at position {at}", vocab - 1, ids[at])))
        }
    }
}

/// One utterance: its inputs and, after [`Session::prefill`], keys and values of everything seen so far.
#[derive(Debug)]
pub struct T3Session {
    model: Arc<Model>,
    prefix: T3Prefix,
    text: Vec<i64>,
    positions: usize,
    caches: Option<Vec<KvCache>>,
}

/// The prefix during a prefill: there already, or computed block by block.
enum Beginning<'a> {
    Known(&'a [KvPrefix]),
    Running { x: Tensor, done: Vec<KvPrefix> },
}

impl Session for T3Session {
    /// Runs the backbone over `[speaker | prompt | text | start]` and returns the logits after the start token; over
    /// `[text | start]` alone where the prefix is known, unless taps ask for all of it. Reports `"t3.prefill"` after every block.
    /// Called again, it begins the utterance anew.
    fn prefill(&mut self, observer: &dyn Observer) -> Result<Vec<f32>> {
        let model = self.model.clone();
        let layers = model.config.layers;
        self.caches = None;
        let mut caches = Vec::with_capacity(layers);
        let mut x = model.text(self.prefix.positions(), &self.text)?; // [T + 1, C]
        let mut beginning = match self.prefix.known() {
            Some(known) if !is_on() => Beginning::Known(known),
            _ => Beginning::Running { x: model.voice(&self.prefix)?, done: Vec::with_capacity(layers) },
        };
        let whole = |beginning: &Beginning<'_>, x: &Tensor| match beginning {
            Beginning::Running { x: before, .. } if is_on() => Ok(Tensor::cat(&[before, x], 0)?),
            _ => Ok::<_, Error>(x.clone()),
        };
        tap(|| "tfmr.h.0.in", &whole(&beginning, &x)?)?;
        for (i, block) in model.blocks.iter().enumerate() {
            let last = i + 1 == layers;
            in_pool(|| {
                let before = match &mut beginning {
                    Beginning::Known(known) => known[i].extend(self.positions)?,
                    Beginning::Running { x, done } => {
                        let mut cache = model.cache(self.prefix.positions())?;
                        // Of the last block, nothing but the keys and values is read.
                        let rows = if last { 0 } else { x.dim(0)? };
                        *x = block.forward(x, &mut cache, rows)?;
                        let frozen = cache.freeze()?;
                        let before = frozen.extend(self.positions)?;
                        done.push(frozen);
                        before
                    }
                };
                caches.push(before);
                // Nothing reads what the last block makes of the other rows.
                let (rows, cache) = (if last { 1 } else { x.dim(0)? }, &mut caches[i]);
                x = block.forward(&x, cache, rows)?;
                Ok::<_, Error>(())
            })?;
            let name = || format!("tfmr.h.{i}");
            if last {
                skip(name)
            } else {
                tap(name, &whole(&beginning, &x)?)?
            }
            observer.progress("t3.prefill", i + 1, layers)?;
        }
        if let Beginning::Running { done, .. } = beginning {
            self.prefix.keep(done);
        }
        self.caches = Some(caches);
        model.logits(&x)
    }

    /// Appends `token` and returns the logits after it.
    ///
    /// # Errors
    /// [`Error::Argument`] before [`Session::prefill`], for a token outside the table, or after the last step that the
    /// session has room for.
    fn step(&mut self, token: i64) -> Result<Vec<f32>> {
        let model = self.model.clone();
        self.expect_room(token)?;
        match &model.steps {
            Some(steps) if !is_on() => {
                let mut rows = step::step(&model, steps, &mut [self], &[token])?;
                rows.pop().ok_or_else(|| Error::argument("step: expected a row of logits"))
            }
            _ => self.step_in_tensors(token),
        }
    }
}

impl T3Session {
    /// Can `token` be appended?
    fn expect_room(&self, token: i64) -> Result<()> {
        let Some(caches) = &self.caches else {
            return Err(Error::argument("step: expected a session after prefill, got one before it"));
        };
        expect_ids("token", &[token], self.model.config.speech_vocab)?;
        if caches.first().map_or(0, KvCache::len) >= self.positions {
            let room = self.positions - 1 - self.prefix.positions() - self.text.len();
            return Err(Error::argument(format!("step: expected at most max_tokens = {room} steps, got one more")));
        }
        Ok(())
    }

    /// The caches of all blocks.
    pub(super) fn caches_mut(&mut self) -> Result<&mut Vec<KvCache>> {
        self.caches.as_mut().ok_or_else(|| Error::argument("step: expected a session after prefill, got one before it"))
    }

    /// A step on other devices, and where taps record it.
    fn step_in_tensors(&mut self, token: i64) -> Result<Vec<f32>> {
        let model = self.model.clone();
        let caches = self.caches_mut()?;
        let at = caches.first().map_or(0, KvCache::len);
        in_pool(|| {
            let mut x = (model.speech.forward(&[token])? + model.positions.range(at, 1)?)?; // [1, C]
            tap(|| "tfmr.h.0.in", &x)?;
            for (i, (block, cache)) in model.blocks.iter().zip(caches).enumerate() {
                x = block.forward(&x, cache, 1)?;
                tap(|| format!("tfmr.h.{i}"), &x)?;
            }
            model.logits(&x)
        })
    }
}

impl Model {
    /// Room for the keys and values of one block: float16 beside weights of 8 or 4 bits.
    fn cache(&self, positions: usize) -> Result<KvCache> {
        let (width, heads) = (self.config.hidden_size, self.config.heads);
        if self.format != T3Weights::F32 {
            return Ok(KvCache::half(positions, heads, width / heads));
        }
        KvCache::new(positions, heads, width / heads, &self.device)
    }

    /// `[speaker | prompt]` with positions, `[1 + P, C]`.
    fn voice(&self, prefix: &T3Prefix) -> Result<Tensor> {
        let speaker = Tensor::from_slice(prefix.speaker(), (1, prefix.speaker().len()), &self.device)?;
        let speaker = self.speaker.forward(&speaker)?; // [1, C]
        let x = match prefix.prompt() {
            [] => speaker, // other devices refuse work on no numbers
            prompt => Tensor::cat(&[speaker, self.speech.forward(prompt)?], 0)?,
        };
        add(&x, &self.positions.range(0, x.dim(0)?)?)
    }

    /// `[text | start]` with positions from `first` on, `[T + 1, C]`.
    fn text(&self, first: usize, text: &[i64]) -> Result<Tensor> {
        let text = self.text.forward(text)?; // [T, C]
        let start = self.speech.forward(&[i64::from(self.config.start_token)])?; // [1, C]
        let x = Tensor::cat(&[text, start], 0)?;
        add(&x, &self.positions.range(first, x.dim(0)?)?)
    }

    /// `x` `[1, C]` → logits `[speech_vocab]`.
    fn logits(&self, x: &Tensor) -> Result<Vec<f32>> {
        let x = self.norm.forward(x)?;
        tap(|| "tfmr.ln_f", &x)?;
        let x = self.head.forward(&x)?;
        tap(|| "speech_head", &x)?;
        Ok(x.flatten_all()?.to_vec1()?)
    }
}

/// One transformer block; fields carry GPT-2's names.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) heads: usize,
    pub(super) ln_1: LayerNorm,
    pub(super) attn_c_attn: Projection,
    pub(super) attn_c_proj: Projection,
    pub(super) ln_2: LayerNorm,
    pub(super) mlp_c_fc: Projection,
    pub(super) mlp_c_proj: Projection,
}

impl Block {
    /// Of the large weights.
    fn bytes(&self) -> usize {
        [&self.attn_c_attn, &self.attn_c_proj, &self.mlp_c_fc, &self.mlp_c_proj].into_iter().map(Projection::bytes).sum()
    }

    fn load(weights: &Weights, c: &config::T3, format: T3Weights) -> Result<Self> {
        let (size, attn, mlp) = (c.hidden_size, weights.under("attn"), weights.under("mlp"));
        Ok(Self {
            heads: c.heads,
            ln_1: LayerNorm::load(&weights.under("ln_1"), size, c.norm_eps)?,
            attn_c_attn: Projection::load_transposed(&attn.under("c_attn"), size, 3 * size, format)?,
            attn_c_proj: Projection::load_transposed(&attn.under("c_proj"), size, size, format)?,
            ln_2: LayerNorm::load(&weights.under("ln_2"), size, c.norm_eps)?,
            mlp_c_fc: Projection::load_transposed(&mlp.under("c_fc"), size, c.ffn_size, format)?,
            mlp_c_proj: Projection::load_transposed(&mlp.under("c_proj"), c.ffn_size, size, format)?,
        })
    }

    /// Appends the keys and values of `x` `[T, C]` to `cache` and returns the last `rows` rows, `[rows, C]`; `x` itself for none.
    fn forward(&self, x: &Tensor, cache: &mut KvCache, rows: usize) -> Result<Tensor> {
        let (t, size) = x.dims2()?;
        let packed = self.attn_c_attn.forward(&self.ln_1.forward(x)?)?; // [T, q | k | v]
        let (k, v) = (packed.narrow(1, size, size)?, packed.narrow(1, 2 * size, size)?);
        if rows == 0 {
            cache.append(&k, &v)?;
            return Ok(x.clone());
        }
        let (x, q) = (x.narrow(0, t - rows, rows)?, packed.narrow(0, t - rows, rows)?.narrow(1, 0, size)?);
        let mixed = cache.attend(&q, &k, &v, self.heads, self.scale(size))?;
        let x = add(&x, &self.attn_c_proj.forward(&mixed)?)?;
        let hidden = ACTIVATION.forward(&self.mlp_c_fc.forward(&self.ln_2.forward(&x)?)?)?; // [rows, ffn]
        let more = self.mlp_c_proj.forward(&hidden)?;
        add(&x, &more)
    }

    /// Factor on the scores of a backbone of width `size`.
    pub(super) fn scale(&self, size: usize) -> f64 {
        ((size / self.heads) as f64).sqrt().recip()
    }
}
