//! The token loop: logits → sampler → token, until the stop token or the limit; and the filter after it.
//!
//! In: a decoder and its inputs, sampling parameters, one uniform a step. Out: the tokens as upstream returns them, int64
//! `[n]`. [`keep_speech`] then makes of them what S3Gen is given.
//!
//! Source: `inference_turbo` of `src/chatterbox/models/t3/t3.py` and `generate` of `src/chatterbox/tts_turbo.py` of
//! resemble-ai/chatterbox at 5de7a54; `token_loop.py` is the same loop in Python.

use super::decoder::T3Decoder;
use super::sampler::{Sampler, SamplerParameters};
use crate::{Observer, Result, config};

/// Copies of S3Gen's silence token that end every utterance.
pub const SILENCE_TOKENS: usize = 3;

/// One utterance of a decoder: what the loop needs of it.
pub trait Session {
    /// Logits `[speech_vocab]` after the start token; long work reports to `observer`.
    fn prefill(&mut self, observer: &dyn Observer) -> Result<Vec<f32>>;

    /// Appends `token`; logits `[speech_vocab]` after it.
    fn step(&mut self, token: i64) -> Result<Vec<f32>>;
}

/// Generates the speech tokens of one utterance with `decoder`; see [`T3Decoder::start`] for the inputs and
/// [`Utterance`] for the rules.
///
/// # Errors
/// Those of [`T3Decoder::start`], of the sampler, of `uniforms` and of `observer`.
pub fn generate(
    decoder: &T3Decoder,
    speaker_embedding: &[f32],
    prompt_tokens: &[i64],
    text_ids: &[i64],
    parameters: &SamplerParameters,
    uniforms: impl FnMut(usize) -> Result<f64>,
    max_tokens: usize,
    observer: &dyn Observer,
) -> Result<Vec<i64>> {
    let mut session = decoder.start(speaker_embedding, prompt_tokens, text_ids, max_tokens)?;
    run(&mut session, decoder.config(), parameters, uniforms, max_tokens, observer)
}

/// The loop over any session, with the rules of [`Utterance`]; `uniforms(step)` is the number in [0, 1) that step draws with.
///
/// Reports `("t3", tokens so far, 1 + max_tokens)` after every token.
///
/// # Errors
/// Those of the session, of the sampler, of `uniforms` and of `observer`.
pub fn run(
    session: &mut impl Session,
    config: &config::T3,
    parameters: &SamplerParameters,
    uniforms: impl FnMut(usize) -> Result<f64>,
    max_tokens: usize,
    observer: &dyn Observer,
) -> Result<Vec<i64>> {
    let mut utterance = Utterance::new(config, parameters, uniforms, max_tokens)?;
    let mut logits = session.prefill(observer)?;
    while let Some(token) = utterance.sample(&logits)? {
        observer.progress("t3", utterance.len(), utterance.most())?;
        if utterance.is_over() {
            break;
        }
        logits = session.step(token)?;
    }
    Ok(utterance.finish())
}

/// The loop's rules for one utterance, whoever computes its logits: alone ([`run`]) or beside others
/// ([`many`](super::many::generate_many)).
///
/// - The first token comes from the prefill, with the start token alone as history; it is never compared with the stop
///   token. Then at most `max_tokens` steps follow, each with all generated tokens as history: 1 + `max_tokens` tokens.
/// - A step that samples the stop token ends the loop, as does a row of −∞ alone (which adds no token).
/// - A stop token at the end is taken off, also when it is the first token and the only one. So 1 + `max_tokens` tokens, and
///   they alone, say that it was the limit that ended the loop.
#[derive(Clone, Debug)]
pub struct Utterance<U> {
    sampler: Sampler,
    uniforms: U,
    start: i64,
    stop: i64,
    max_tokens: usize,
    tokens: Vec<i64>,
    over: bool,
}

impl<U: FnMut(usize) -> Result<f64>> Utterance<U> {
    /// Before the first token. `uniforms(step)` is the number in [0, 1) that step draws with.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for a sampling parameter out of range.
    pub fn new(config: &config::T3, parameters: &SamplerParameters, uniforms: U, max_tokens: usize) -> Result<Self> {
        Ok(Self {
            sampler: Sampler::new(*parameters)?,
            uniforms,
            start: i64::from(config.start_token),
            stop: i64::from(config.stop_token),
            max_tokens,
            tokens: Vec::new(),
            over: false,
        })
    }

    /// The next token, from the `logits` `[speech_vocab]` after all tokens so far; `None` when every one is −∞. It is to be fed
    /// to the session unless the utterance [is over](Self::is_over).
    ///
    /// # Errors
    /// Those of the sampler and of `uniforms`.
    pub fn sample(&mut self, logits: &[f32]) -> Result<Option<i64>> {
        let first = [self.start];
        let history = if self.tokens.is_empty() { &first[..] } else { &self.tokens };
        let next = self.sampler.sample(logits, history, (self.uniforms)(self.tokens.len())?)?;
        self.tokens.extend(next);
        self.over = next.is_none() || self.tokens.len() > self.max_tokens || (self.tokens.len() > 1 && next == Some(self.stop));
        Ok(next)
    }

    /// Tokens so far.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// No token yet?
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The most tokens that there can be.
    pub fn most(&self) -> usize {
        self.max_tokens.saturating_add(1)
    }

    /// Is the last token there?
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The tokens as upstream returns them.
    pub fn finish(mut self) -> Vec<i64> {
        if self.tokens.last() == Some(&self.stop) {
            self.tokens.pop();
        }
        self.tokens
    }
}

/// What S3Gen is given: the tokens that it knows (start and stop are left out), then [`SILENCE_TOKENS`] silences.
pub fn keep_speech(tokens: &[i64], config: &config::S3Gen) -> Vec<i64> {
    let known = tokens.iter().copied().filter(|token| (0..config.vocab as i64).contains(token));
    known.chain(std::iter::repeat_n(i64::from(config.silence_token), SILENCE_TOKENS)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::RefCell;

    use super::*;
    use crate::{Config, Error, Silent};

    /// Makes one token certain at each step (`None`: a row of −∞), and remembers what it was fed.
    struct Script {
        tokens: Vec<Option<i64>>,
        fed: Vec<i64>,
    }

    impl Script {
        fn new(tokens: impl IntoIterator<Item = Option<i64>>) -> Self {
            Self { tokens: tokens.into_iter().collect(), fed: Vec::new() }
        }

        fn row(&self) -> Vec<f32> {
            let mut row = vec![f32::NEG_INFINITY; 6563];
            if let Some(token) = self.tokens[self.fed.len()] {
                row[token as usize] = 1.0;
            }
            row
        }
    }

    impl Session for Script {
        fn prefill(&mut self, _: &dyn Observer) -> Result<Vec<f32>> {
            Ok(self.row())
        }

        fn step(&mut self, token: i64) -> Result<Vec<f32>> {
            self.fed.push(token);
            Ok(self.row())
        }
    }

    fn tokens(script: &mut Script, max_tokens: usize) -> Vec<i64> {
        let config = Config::builtin("turbo").unwrap().t3;
        run(script, &config, &SamplerParameters::default(), |_| Ok(0.5), max_tokens, &Silent).unwrap()
    }

    #[test]
    fn stop_rules() {
        let stop = Some(6562);
        for (script, expected, fed) in [
            (vec![Some(5), Some(6), stop], vec![5, 6], vec![5, 6]),
            (vec![stop, Some(7), stop], vec![6562, 7], vec![6562, 7]),
            (vec![stop, stop], vec![6562], vec![6562]),
            (vec![stop, None], vec![], vec![6562]),
            (vec![Some(5), None], vec![5], vec![5]),
            (vec![None], vec![], vec![]),
            (vec![Some(6561), Some(6561), stop], vec![6561, 6561], vec![6561, 6561]),
        ] {
            let mut session = Script::new(script.clone());
            assert_eq!((tokens(&mut session, 50), session.fed), (expected, fed), "{script:?}");
        }
    }

    #[test]
    fn limit_is_one_more_than_max_tokens() {
        let mut session = Script::new(std::iter::repeat_n(Some(9), 2000));
        assert_eq!(tokens(&mut session, 1000), vec![9; 1001]);
        assert_eq!(session.fed.len(), 1000);
        assert_eq!(tokens(&mut Script::new([Some(9)]), 0), vec![9]);
        assert_eq!(tokens(&mut Script::new([Some(6562)]), 0), Vec::<i64>::new());
    }

    /// Two equal scores: with uniform 0.5, the penalised one of the two lies on the other side of the middle.
    #[test]
    fn start_token_is_penalised_at_the_first_step_alone() {
        struct Pair(Vec<i64>);
        impl Session for Pair {
            fn prefill(&mut self, _: &dyn Observer) -> Result<Vec<f32>> {
                let mut row = vec![f32::NEG_INFINITY; 6563];
                (row[100], row[6561]) = (4.0, 4.0);
                Ok(row)
            }

            fn step(&mut self, token: i64) -> Result<Vec<f32>> {
                self.0.push(token);
                self.prefill(&Silent)
            }
        }
        let config = Config::builtin("turbo").unwrap().t3;
        let parameters = SamplerParameters { temperature: 1.0, top_k: 0, top_p: 1.0, repetition_penalty: 2.0 };
        let tokens = run(&mut Pair(Vec::new()), &config, &parameters, |_| Ok(0.5), 3, &Silent).unwrap();
        assert_eq!(tokens, [100, 6561, 6561, 6561], "both are in the history from the third step on");
    }

    #[test]
    fn every_token_is_reported_and_a_report_can_stop_the_loop() {
        struct Until(usize, RefCell<Vec<(&'static str, usize, usize)>>);
        impl Observer for Until {
            fn progress(&self, stage: &'static str, done: usize, total: usize) -> Result<()> {
                self.1.borrow_mut().push((stage, done, total));
                if done == self.0 { Err(Error::Cancelled) } else { Ok(()) }
            }
        }
        let config = Config::builtin("turbo").unwrap().t3;
        let observer = Until(4, RefCell::default());
        let mut session = Script::new(std::iter::repeat_n(Some(9), 100));
        let outcome = run(&mut session, &config, &SamplerParameters::default(), |_| Ok(0.5), 50, &observer);
        assert!(matches!(outcome, Err(Error::Cancelled)));
        assert_eq!(observer.1.into_inner(), [("t3", 1, 51), ("t3", 2, 51), ("t3", 3, 51), ("t3", 4, 51)]);
        assert_eq!(session.fed.len(), 3);
    }

    #[test]
    fn filter_keeps_speech_and_adds_silence() {
        let config = Config::builtin("turbo").unwrap().s3gen;
        assert_eq!(keep_speech(&[6562, 5, 6561, 6560, 0], &config), [5, 6560, 0, 4299, 4299, 4299]);
        assert_eq!(keep_speech(&[], &config), [4299; 3]);
    }
}
