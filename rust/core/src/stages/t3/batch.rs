//! Token loops that step together: a request joins between two steps of the others, and leaves when it is over or nobody wants it any more.
//!
//! Every row has its own sampler and draws its own stream, and a step of many gives the bits of steps alone: tokens are those of
//! [`generate`](super::generate::generate), whatever stands in the other rows. [`generate_many`](super::many::generate_many) drives it with a
//! closed list of requests, a server with those that come.

use std::cell::Cell;
use std::time::Instant;

use rayon::prelude::*;

use super::generate::{Session, Utterance};
use super::many::{Decoder, Finished, Request};
use crate::threads::each;
use crate::{Observer, Result, draws};

/// The requests whose loops are running; of any number.
pub struct Batch<D: Decoder> {
    running: Vec<Row<D::Session>>,
}

impl<D: Decoder> Default for Batch<D> {
    fn default() -> Self {
        Self { running: Vec::new() }
    }
}

impl<D: Decoder> Batch<D> {
    /// Rows that are running.
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Is none running?
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Tokens of the running rows.
    pub fn sampled(&self) -> usize {
        self.running.iter().map(|row| row.utterance.len()).fold(0, usize::saturating_add)
    }

    /// Prefills a request, which is called `index`, and takes its first token. It takes part in the steps from now on, unless it is over:
    /// then this is what came of it.
    ///
    /// # Errors
    /// The observer's alone; what is wrong with the request is in what came of it.
    pub fn admit(
        &mut self,
        decoder: &D,
        index: usize,
        request: Request<D::Prefix>,
        observer: &dyn Observer,
    ) -> Result<Option<Finished>> {
        let started = Instant::now();
        let admitted = Row::admit(decoder, index, request, observer)?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(match admitted {
            Err(error) => Some(Finished { index, tokens: Err(error), seconds }),
            Ok(mut row) => {
                row.seconds = seconds;
                if row.is_over() {
                    Some(row.finish())
                } else {
                    self.running.push(row);
                    None
                }
            }
        })
    }

    /// One token for every row; what came of those that are over now, in the order in which they were admitted.
    ///
    /// # Errors
    /// Those of the common step, after which no row is of use.
    pub fn step(&mut self, decoder: &D) -> Result<Vec<Finished>> {
        if self.running.is_empty() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let running = &mut self.running;
        let tokens: Vec<i64> = running.iter().map(|row| row.token).collect();
        let mut sessions: Vec<&mut D::Session> = running.iter_mut().map(|row| &mut row.session).collect();
        let logits = decoder.step_many(&mut sessions, &tokens)?;
        each(running.par_iter_mut().zip(logits), |(row, logits)| row.take(&logits));
        let share = started.elapsed().as_secs_f64() / running.len() as f64;
        running.iter_mut().for_each(|row| row.seconds += share);
        Ok(running.extract_if(.., |row| row.is_over()).map(Row::finish).collect())
    }

    /// Takes a row away; false where there is none that is called `index`.
    pub fn leave(&mut self, index: usize) -> bool {
        let before = self.running.len();
        self.running.retain(|row| row.index != index);
        self.running.len() < before
    }
}

/// A request whose loop is running.
struct Row<S> {
    index: usize,
    session: S,
    utterance: Utterance<Draws>,
    /// To be fed in the next step.
    token: i64,
    error: Option<crate::Error>,
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

    fn is_over(&self) -> bool {
        self.error.is_some() || self.utterance.is_over()
    }

    /// What came of it; its keys and values are of no use to whoever takes that.
    fn finish(self) -> Finished {
        let Self { index, utterance, error, seconds, .. } = self;
        Finished { index, tokens: error.map_or_else(|| Ok(utterance.finish()), Err), seconds }
    }
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
