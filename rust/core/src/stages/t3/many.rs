//! Many token loops at once: up to `rows` utterances take their steps together, and the next text takes the place of a finished one.
//!
//! In: a decoder and one [`Request`] a text. Out: for each its tokens or its error, as soon as it is finished. A step reads the
//! weights once for all rows, which is what a step's time goes into. The rules are those of [`Utterance`], every row has its
//! own sampler and draws its own stream, and a step of many gives the bits of steps alone: tokens are those of
//! [`generate`](super::generate::generate), whatever stands in the other rows.

use std::cell::Cell;
use std::time::Instant;

use rayon::prelude::*;

use super::decoder::{T3Decoder, T3Prefix, T3Session};
use super::generate::{Session, Utterance};
use super::sampler::SamplerParameters;
use crate::threads::each;
use crate::{Error, Observer, Result, config, draws};

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
    let total = requests.iter().map(limit).fold(0, usize::saturating_add);
    let mut waiting = requests.into_iter().enumerate();
    let (mut running, mut past) = (Vec::new(), 0usize); // limits of the finished requests
    loop {
        while running.len() < rows {
            let Some((index, request)) = waiting.next() else { break };
            let (started, most) = (Instant::now(), limit(&request));
            match Row::admit(decoder, index, request, observer)? {
                Ok(mut row) => {
                    row.seconds = started.elapsed().as_secs_f64();
                    running.push(row);
                }
                Err(error) => {
                    past = past.saturating_add(most);
                    finished(Finished { index, tokens: Err(error), seconds: started.elapsed().as_secs_f64() })?;
                }
            }
            retire(&mut running, &mut past, &mut finished)?;
        }
        let sampled = running.iter().map(|row| row.utterance.len()).fold(past, usize::saturating_add);
        observer.progress("t3", sampled, total)?;
        if running.is_empty() {
            return Ok(());
        }
        step(decoder, &mut running)?;
        retire(&mut running, &mut past, &mut finished)?;
    }
}

fn limit<P>(request: &Request<P>) -> usize {
    request.max_tokens.saturating_add(1)
}

/// A request whose loop is running.
struct Row<S> {
    index: usize,
    session: S,
    utterance: Utterance<Draws>,
    /// To be fed in the next step.
    token: i64,
    error: Option<Error>,
    seconds: f64,
}

type Draws = Box<dyn FnMut(usize) -> Result<f64> + Send>;

impl<S: Session> Row<S> {
    /// Prefills, and takes the first token. The outer error is the observer's, the inner one the request's own.
    fn admit<D: Decoder<Session = S>>(
        decoder: &D,
        index: usize,
        request: Request<D::Prefix>,
        observer: &dyn Observer,
    ) -> Result<Result<Self>> {
        let watch = Watch { observer, stopped: Cell::new(false) };
        let begin = || {
            let seed = request.seed;
            let uniforms: Draws = Box::new(move |step| Ok(draws::uniforms(seed, draws::T3, step as u64, 1)?[0]));
            let utterance = Utterance::new(decoder.config(), &request.parameters, uniforms, request.max_tokens)?;
            let mut session = decoder.start(&request)?;
            let logits = session.prefill(&watch)?;
            let mut row = Self { index, session, utterance, token: 0, error: None, seconds: 0.0 };
            row.take(&logits);
            Ok(row)
        };
        match begin() {
            Err(error) if watch.stopped.get() => Err(error),
            outcome => Ok(outcome),
        }
    }

    fn take(&mut self, logits: &[f32]) {
        match self.utterance.sample(logits) {
            Ok(token) => self.token = token.unwrap_or(self.token),
            Err(error) => self.error = Some(error),
        }
    }
}

/// One token for every row.
fn step<D: Decoder>(decoder: &D, running: &mut [Row<D::Session>]) -> Result<()> {
    let started = Instant::now();
    let tokens: Vec<i64> = running.iter().map(|row| row.token).collect();
    let mut sessions: Vec<&mut D::Session> = running.iter_mut().map(|row| &mut row.session).collect();
    let logits = decoder.step_many(&mut sessions, &tokens)?;
    each(running.par_iter_mut().zip(logits), |(row, logits)| row.take(&logits));
    let share = started.elapsed().as_secs_f64() / running.len() as f64;
    running.iter_mut().for_each(|row| row.seconds += share);
    Ok(())
}

/// Hands out the rows that are over.
fn retire<S>(running: &mut Vec<Row<S>>, past: &mut usize, finished: &mut impl FnMut(Finished) -> Result<()>) -> Result<()> {
    let over = |row: &mut Row<S>| row.error.is_some() || row.utterance.is_over();
    for Row { index, session, utterance, error, seconds, .. } in running.extract_if(.., over) {
        drop(session); // its keys and values are of no use to whoever takes the tokens
        *past = past.saturating_add(utterance.most());
        let tokens = error.map_or_else(|| Ok(utterance.finish()), Err);
        finished(Finished { index, tokens, seconds })?;
    }
    Ok(())
}

/// Remembers that it was the observer who stopped the work.
struct Watch<'a> {
    observer: &'a dyn Observer,
    stopped: Cell<bool>,
}

impl Observer for Watch<'_> {
    fn progress(&self, stage: &'static str, done: usize, total: usize) -> Result<()> {
        self.observer.progress(stage, done, total).inspect_err(|_| self.stopped.set(true))
    }
}

#[cfg(test)]
mod tests;
