//! Many token loops at once: up to `rows` utterances take their steps together, and the next text takes the place of a finished one.
//!
//! In: a decoder and one [`Request`] a text. Out: for each its tokens or its error, as soon as it is finished. A step reads the
//! weights once for all rows, which is what a step's time goes into. Tokens are those of
//! [`generate`](super::generate::generate), whatever stands in the other rows (see [`Batch`]).

use super::batch::Batch;
use super::decoder::{T3Decoder, T3Prefix, T3Session};
use super::generate::Session;
use super::sampler::SamplerParameters;
use crate::{Error, Observer, Result, config};

/// One utterance: the inputs of [`T3Decoder::start_from`] and how its tokens are chosen.
#[derive(Clone, Debug)]
pub struct Request<P> {
    /// What it shares with others of the same voice: computed by the first of them.
    pub prefix: P,
    /// `[T]`.
    pub text_ids: Vec<i64>,
    /// How tokens are chosen.
    pub parameters: SamplerParameters,
    /// Of the stream [`draws::T3`], one number a step.
    pub seed: u64,
    /// Limit of the loop (the first token comes on top).
    pub max_tokens: usize,
}

/// What came of one request.
#[derive(Debug)]
pub struct Finished {
    /// Of the request.
    pub index: usize,
    /// The tokens as upstream returns them, or what is wrong with this request.
    pub tokens: Result<Vec<i64>>,
    /// Its share of the time: its own prefill, and of every step an equal part for each row in it.
    pub seconds: f64,
}

/// What the loop needs of a decoder.
pub trait Decoder: Sync {
    /// What utterances of a voice share.
    type Prefix: Sync;
    /// One utterance.
    type Session: Session + Send;

    /// The configuration.
    fn config(&self) -> &config::T3;

    /// Checks the inputs and prepares the utterance.
    fn start(&self, request: &Request<Self::Prefix>) -> Result<Self::Session>;

    /// Appends `tokens[i]` to `sessions[i]`; logits `[speech_vocab]` after it, for each.
    fn step_many(&self, sessions: &mut [&mut Self::Session], tokens: &[i64]) -> Result<Vec<Vec<f32>>>;
}

impl Decoder for T3Decoder {
    type Prefix = T3Prefix;
    type Session = T3Session;

    fn config(&self) -> &config::T3 {
        T3Decoder::config(self)
    }

    fn start(&self, request: &Request<T3Prefix>) -> Result<T3Session> {
        self.start_from(&request.prefix, &request.text_ids, request.max_tokens)
    }

    fn step_many(&self, sessions: &mut [&mut T3Session], tokens: &[i64]) -> Result<Vec<Vec<f32>>> {
        T3Decoder::step_many(self, sessions, tokens)
    }
}

/// Runs the loop of every request, each of which goes with its share in a prefix as soon as it is finished, at most `rows` of them together, admitted in their order; calls `finished` with each as soon
/// as it is finished, in the order in which they finish.
///
/// An input, a parameter or a logit that is wrong is the error of its request, and the others go on. Reports `"t3.prefill"` for
/// every request, and `("t3", tokens so far, limits of all requests together)` after every step of all rows; there a finished
/// request counts as its limit.
///
/// # Errors
/// [`Error::Argument`] for no rows; what `finished`, `observer` and a common step raise, which ends all requests.
pub fn generate_many<D: Decoder>(
    decoder: &D,
    requests: Vec<Request<D::Prefix>>,
    rows: usize,
    observer: &dyn Observer,
    mut finished: impl FnMut(Finished) -> Result<()>,
) -> Result<()> {
    if rows == 0 {
        return Err(Error::argument("rows: expected at least 1, got 0"));
    }
    if requests.is_empty() {
        return Ok(());
    }
    let limits: Vec<usize> = requests.iter().map(limit).collect();
    let total = limits.iter().copied().fold(0, usize::saturating_add);
    let mut waiting = requests.into_iter().enumerate();
    let (mut batch, mut past) = (Batch::default(), 0usize); // limits of the finished requests
    let mut over = |done: Finished, past: &mut usize| {
        *past = past.saturating_add(limits.get(done.index).copied().unwrap_or(0));
        finished(done)
    };
    loop {
        while batch.len() < rows {
            let Some((index, request)) = waiting.next() else { break };
            if let Some(done) = batch.admit(decoder, index, request, observer)? {
                over(done, &mut past)?;
            }
        }
        observer.progress("t3", past.saturating_add(batch.sampled()), total)?;
        if batch.is_empty() {
            return Ok(());
        }
        for done in batch.step(decoder)? {
            over(done, &mut past)?;
        }
    }
}

fn limit<P>(request: &Request<P>) -> usize {
    request.max_tokens.saturating_add(1)
}

#[cfg(test)]
mod tests;
