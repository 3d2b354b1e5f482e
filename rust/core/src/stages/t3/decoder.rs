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
use crate::config;
use crate::hyperparameters::Hyperparameters;
use crate::kernels::in_pool;
use crate::nn::{Activation, Embedding, KvCache, LayerNorm, Linear, Projection};
use crate::tap::{skip, tap};
use crate::{Checkpoint, Error, Observer, Precision, Result, Weights};

/// Of the feed-forward layers.
const ACTIVATION: Activation = Activation::GeluTanh;

/// The loaded decoder; immutable, cheap to clone, to be shared by threads.
#[derive(Clone, Debug)]
pub struct T3Decoder {
    model: Arc<Model>,
}

#[derive(Debug)]
struct Model {
    config: config::T3,
    embedding_size: usize,
    text_vocab: usize,
    device: Device,
    precision: Precision,
    speaker: Linear,
    speech: Embedding,
    text: Embedding,
    positions: Embedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Projection,
}

impl T3Decoder {
    /// Reads T3's weight file; with int8 the blocks' four projections and the speech head are of 8
    /// bits, and sessions keep keys and values in float16.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a tensor that is missing, has another shape, is not finite, or is not known;
    /// [`Error::Argument`] for int8 on another device than the CPU.
    pub fn load(checkpoint: &Checkpoint, device: &Device, precision: Precision) -> Result<Self> {
        checkpoint.t3(device).through_cache("t3", precision.name(), |weights| Self::read(weights, checkpoint.config(), precision))
    }

    fn read(weights: &Weights, config: &config::Config, precision: Precision) -> Result<Self> {
        let c = config.t3.clone();
        let (size, text_vocab, embedding_size) = (c.hidden_size, config.text.vocab_size, config.voice_encoder.embedding_size);
        let backbone = weights.under("tfmr");
        // GPT-2's own token table and the head of the training loss.
        backbone.unused("wte.weight", &[text_vocab, size], true)?;
        weights.unused("text_head.weight", &[text_vocab, size], true)?;
        let layers = backbone.under("h");
        let model = Model {
            embedding_size,
            text_vocab,
            device: weights.device().clone(),
            precision,
            speaker: Linear::load(&weights.under("cond_enc").under("spkr_enc"), embedding_size, size)?,
            speech: Embedding::load(&weights.under("speech_emb"), "token", c.speech_vocab, size)?,
            text: Embedding::load(&weights.under("text_emb"), "text_ids", text_vocab, size)?,
            positions: Embedding::load(&backbone.under("wpe"), "positions", c.positions, size)?,
            blocks: (0..c.layers).map(|i| Block::load(&layers.under(i), &c, precision)).collect::<Result<_>>()?,
            norm: LayerNorm::load(&backbone.under("ln_f"), size, c.norm_eps)?,
            head: Projection::load(&weights.under("speech_head"), size, c.speech_vocab, precision)?,
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

    /// Prepares one utterance: `speaker_embedding` `[E]`, `prompt_tokens` `[0 to config.prompt_tokens]`, `text_ids`
    /// `[1 or more]`, and room for `max_tokens` steps.
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
        let Model { config, embedding_size, text_vocab, .. } = &*self.model;
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
        if text_ids.is_empty() {
            return fail("text_ids: expected at least 1 id, got none".into());
        }
        expect_ids("prompt_tokens", prompt_tokens, config.speech_vocab)?;
        expect_ids("text_ids", text_ids, *text_vocab)?;
        let needed = (2 + prompt_tokens.len() + text_ids.len()).saturating_add(max_tokens);
        if needed > config.positions {
            return fail(format!(
                "text_ids and max_tokens: expected at most {} positions, got {needed} (2 + {} prompt tokens + {} text ids + {max_tokens} steps)",
                config.positions,
                prompt_tokens.len(),
                text_ids.len()
            ));
        }
        Ok(T3Session {
            model: self.model.clone(),
            speaker: speaker_embedding.to_vec(),
            prompt: prompt_tokens.to_vec(),
            text: text_ids.to_vec(),
            positions: needed,
            caches: None,
        })
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
    speaker: Vec<f32>,
    prompt: Vec<i64>,
    text: Vec<i64>,
    positions: usize,
    caches: Option<Vec<KvCache>>,
}

impl Session for T3Session {
    /// Runs the backbone over `[speaker | prompt | text | start]` and returns the logits after the start token. Reports
    /// `"t3.prefill"` after every block. Called again, it begins the utterance anew.
    fn prefill(&mut self, observer: &dyn Observer) -> Result<Vec<f32>> {
        let model = self.model.clone();
        let layers = model.config.layers;
        self.caches = None;
        let mut caches = (0..layers).map(|_| model.cache(self.positions)).collect::<Result<Vec<_>>>()?;
        let mut x = model.beginning(&self.speaker, &self.prompt, &self.text)?; // [2 + P + T, C]
        for (i, (block, cache)) in model.blocks.iter().zip(&mut caches).enumerate() {
            // Nothing reads what the last block makes of the other rows.
            let rows = if i + 1 == layers { 1 } else { x.dim(0)? };
            x = in_pool(|| block.forward(&x, cache, rows))?;
            let name = || format!("tfmr.h.{i}");
            if i + 1 == layers {
                skip(name)
            } else {
                tap(name, &x)?
            }
            observer.progress("t3.prefill", i + 1, layers)?;
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
        let model = &*self.model;
        let Some(caches) = &mut self.caches else {
            return Err(Error::argument("step: expected a session after prefill, got one before it"));
        };
        expect_ids("token", &[token], model.config.speech_vocab)?;
        let at = caches.first().map_or(0, KvCache::len);
        if at >= self.positions {
            let room = self.positions - 2 - self.prompt.len() - self.text.len();
            return Err(Error::argument(format!("step: expected at most max_tokens = {room} steps, got one more")));
        }
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
    /// Room for the keys and values of one block: float16 beside weights of 8 bits.
    fn cache(&self, positions: usize) -> Result<KvCache> {
        let (width, heads) = (self.config.hidden_size, self.config.heads);
        match self.precision {
            Precision::F32 => KvCache::new(positions, width, &self.device),
            Precision::Int8 => Ok(KvCache::half(positions, heads, width / heads)),
        }
    }

    /// `[speaker | prompt | text | start]` with positions, `[2 + P + T, C]`.
    fn beginning(&self, speaker: &[f32], prompt: &[i64], text: &[i64]) -> Result<Tensor> {
        let speaker = Tensor::from_slice(speaker, (1, speaker.len()), &self.device)?;
        let speaker = self.speaker.forward(&speaker)?; // [1, C]
        let (prompt, text) = (self.speech.forward(prompt)?, self.text.forward(text)?); // [P, C], [T, C]
        let start = self.speech.forward(&[i64::from(self.config.start_token)])?; // [1, C]
        let x = Tensor::cat(&[speaker, prompt, text, start], 0)?;
        let positions = self.positions.range(0, x.dim(0)?)?;
        let x = (x + positions)?;
        tap(|| "tfmr.h.0.in", &x)?;
        Ok(x)
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
struct Block {
    heads: usize,
    ln_1: LayerNorm,
    attn_c_attn: Projection,
    attn_c_proj: Projection,
    ln_2: LayerNorm,
    mlp_c_fc: Projection,
    mlp_c_proj: Projection,
}

impl Block {
    fn load(weights: &Weights, c: &config::T3, precision: Precision) -> Result<Self> {
        let (size, attn, mlp) = (c.hidden_size, weights.under("attn"), weights.under("mlp"));
        Ok(Self {
            heads: c.heads,
            ln_1: LayerNorm::load(&weights.under("ln_1"), size, c.norm_eps)?,
            attn_c_attn: Projection::load_transposed(&attn.under("c_attn"), size, 3 * size, precision)?,
            attn_c_proj: Projection::load_transposed(&attn.under("c_proj"), size, size, precision)?,
            ln_2: LayerNorm::load(&weights.under("ln_2"), size, c.norm_eps)?,
            mlp_c_fc: Projection::load_transposed(&mlp.under("c_fc"), size, c.ffn_size, precision)?,
            mlp_c_proj: Projection::load_transposed(&mlp.under("c_proj"), c.ffn_size, size, precision)?,
        })
    }

    /// Appends the keys and values of `x` `[T, C]` to `cache` and returns the last `rows` rows, `[rows, C]`.
    fn forward(&self, x: &Tensor, cache: &mut KvCache, rows: usize) -> Result<Tensor> {
        let (t, size) = x.dims2()?;
        let packed = self.attn_c_attn.forward(&self.ln_1.forward(x)?)?; // [T, q | k | v]
        let (k, v) = (packed.narrow(1, size, size)?, packed.narrow(1, 2 * size, size)?);
        let (x, q) = (x.narrow(0, t - rows, rows)?, packed.narrow(0, t - rows, rows)?.narrow(1, 0, size)?);
        let mixed = cache.attend(&q, &k, &v, self.heads, self.scale(size))?;
        let x = (x + self.attn_c_proj.forward(&mixed)?)?;
        let hidden = ACTIVATION.forward(&self.mlp_c_fc.forward(&self.ln_2.forward(&x)?)?)?; // [rows, ffn]
        let more = self.mlp_c_proj.forward(&hidden)?;
        Ok((x + more)?)
    }

    /// Factor on the scores of a backbone of width `size`.
    fn scale(&self, size: usize) -> f64 {
        ((size / self.heads) as f64).sqrt().recip()
    }
}
