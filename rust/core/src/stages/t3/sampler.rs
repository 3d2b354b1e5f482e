//! One speech token from one row of logits: `[n]`, the tokens so far, one uniform → id.
//!
//! Order as in `inference_turbo` of `src/chatterbox/models/t3/t3.py` at 5de7a54: temperature, top-k, top-p, repetition
//! penalty, softmax, one draw. The processors are those of transformers 5.2.0; scores are float32 as there, probabilities
//! are computed in float64 and rounded to float32. The draw is this project's own: the first id whose cumulative
//! probability exceeds `uniform` times the total, over ascending ids.
//!
//! Where equal scores straddle the top-p boundary, the higher ids stay (a stable ascending sort); torch leaves open
//! which of them do.

use crate::{Error, Result};

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerParameters {
    /// Divides the logits; 0 and below mean 1.
    pub temperature: f64,
    /// Keeps the tokens with the k highest scores, and their ties; 0 is off, more than the vocabulary keeps everything.
    pub top_k: usize,
    /// Keeps the most probable tokens whose sum first reaches p; 0 keeps the best alone, 1 and above is off.
    pub top_p: f64,
    /// Divides positive and multiplies negative scores of tokens that were generated before; 1 is off.
    pub repetition_penalty: f64,
}

impl Default for SamplerParameters {
    fn default() -> Self {
        Self { temperature: 0.8, top_k: 1000, top_p: 0.95, repetition_penalty: 1.2 }
    }
}

impl SamplerParameters {
    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::Argument`] that names the parameter.
    pub fn check(&self) -> Result<()> {
        let fail =
            |name: &str, expected: &str, value: f64| Err(Error::argument(format!("{name}: expected {expected}, got {value}")));
        if !self.temperature.is_finite() {
            return fail("temperature", "a finite number", self.temperature);
        }
        if self.top_p.is_nan() || self.top_p < 0.0 {
            return fail("top_p", "a number of at least 0", self.top_p);
        }
        let penalty = self.repetition_penalty as f32;
        if !penalty.is_finite() || penalty <= 0.0 {
            return fail("repetition_penalty", "a finite number above 0", self.repetition_penalty);
        }
        Ok(())
    }
}

/// Samples token after token with the same parameters; keeps its buffers.
#[derive(Clone, Debug)]
pub struct Sampler {
    parameters: SamplerParameters,
    scores: Vec<f32>,
    sorted: Vec<(f32, u32)>,
    exponentials: Vec<f64>,
    seen: Vec<bool>,
}

impl Sampler {
    /// A sampler with `parameters`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a parameter out of range.
    pub fn new(parameters: SamplerParameters) -> Result<Self> {
        parameters.check()?;
        Ok(Self { parameters, scores: Vec::new(), sorted: Vec::new(), exponentials: Vec::new(), seen: Vec::new() })
    }

    /// The next token, or `None` when every logit is −∞.
    ///
    /// `logits` `[n]` may hold −∞; `history` are the tokens so far (the start token before the first one), each below n;
    /// `uniform` is in [0, 1).
    ///
    /// # Errors
    /// [`Error::Argument`] for NaN or +∞ in `logits` (also after dividing), a token outside n, or another `uniform`.
    pub fn sample(&mut self, logits: &[f32], history: &[i64], uniform: f64) -> Result<Option<i64>> {
        if !(0.0..1.0).contains(&uniform) {
            return Err(Error::argument(format!("uniform: expected a number in [0, 1), got {uniform}")));
        }
        self.scores.clear();
        self.scores.extend_from_slice(logits);
        finite(&self.scores, "logits")?;
        if let Some(token) = history.iter().find(|token| usize::try_from(**token).map_or(true, |t| t >= logits.len())) {
            return Err(Error::argument(format!("history: expected tokens in 0..{}, got {token}", logits.len())));
        }
        if self.parameters.temperature > 0.0 && self.parameters.temperature != 1.0 {
            let divisor = self.parameters.temperature as f32;
            self.scores.iter_mut().for_each(|score| *score /= divisor);
            finite(&self.scores, "logits / temperature")?;
        }
        self.keep_top_k();
        self.keep_top_p();
        if self.parameters.repetition_penalty != 1.0 {
            self.penalise(history);
            finite(&self.scores, "logits after repetition_penalty")?;
        }
        Ok(self.draw(uniform))
    }

    /// Sets scores below the k-th highest to −∞.
    fn keep_top_k(&mut self) {
        let k = self.parameters.top_k;
        if k == 0 || k >= self.scores.len() {
            return;
        }
        self.sorted.clear();
        self.sorted.extend(self.scores.iter().map(|score| (*score, 0)));
        let (_, (lowest, _), _) = self.sorted.select_nth_unstable_by(k - 1, |a, b| b.0.total_cmp(&a.0));
        let lowest = *lowest;
        self.scores.iter_mut().filter(|score| **score < lowest).for_each(|score| *score = f32::NEG_INFINITY);
    }

    /// Sets the least probable tokens to −∞ as long as their sum stays within 1 − p; the best always stays.
    fn keep_top_p(&mut self) {
        if self.parameters.top_p >= 1.0 {
            return;
        }
        self.sorted.clear();
        let alive = self.scores.iter().zip(0u32..).filter(|(score, _)| **score > f32::NEG_INFINITY);
        self.sorted.extend(alive.map(|(score, id)| (*score, id)));
        // `+ 0.0` makes -0 and 0 the ties that they are.
        self.sorted.sort_unstable_by(|a, b| (a.0 + 0.0).total_cmp(&(b.0 + 0.0)).then(a.1.cmp(&b.1)));
        let Some((highest, _)) = self.sorted.last().copied() else {
            return;
        };
        self.exponentials.clear();
        self.exponentials.extend(self.sorted.iter().map(|(score, _)| f64::from(score - highest).exp()));
        let total: f64 = self.exponentials.iter().sum();
        let limit = (1.0 - self.parameters.top_p) as f32;
        let mut sum = 0.0;
        for ((_, id), e) in self.sorted.iter().zip(&self.exponentials).take(self.sorted.len() - 1) {
            sum += f64::from((e / total) as f32);
            if sum as f32 > limit {
                break;
            }
            self.scores[*id as usize] = f32::NEG_INFINITY;
        }
    }

    fn penalise(&mut self, history: &[i64]) {
        let penalty = self.parameters.repetition_penalty as f32;
        self.seen.clear();
        self.seen.resize(self.scores.len(), false);
        for token in history {
            let token = *token as usize;
            if !std::mem::replace(&mut self.seen[token], true) {
                let score = &mut self.scores[token];
                *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
            }
        }
    }

    fn draw(&mut self, uniform: f64) -> Option<i64> {
        let highest = self.scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if highest == f32::NEG_INFINITY {
            return None;
        }
        let exponential = |score: &f32| if *score == f32::NEG_INFINITY { 0.0 } else { f64::from(score - highest).exp() };
        self.exponentials.clear();
        self.exponentials.extend(self.scores.iter().map(exponential));
        let total: f64 = self.exponentials.iter().sum();
        let mut sum = 0.0;
        for e in &mut self.exponentials {
            sum += f64::from((*e / total) as f32);
            *e = sum;
        }
        let target = uniform * sum;
        // Rounding can lift the target to the whole sum; then the last token with any probability is meant.
        let at = self.exponentials.iter().position(|cumulative| *cumulative > target);
        at.or_else(|| self.exponentials.iter().position(|cumulative| *cumulative == sum)).map(|id| id as i64)
    }
}

/// The next token with fresh buffers; see [`Sampler::sample`].
///
/// # Errors
/// Those of [`Sampler::new`] and [`Sampler::sample`].
pub fn sample(logits: &[f32], history: &[i64], parameters: &SamplerParameters, uniform: f64) -> Result<Option<i64>> {
    Sampler::new(*parameters)?.sample(logits, history, uniform)
}

fn finite(scores: &[f32], what: &str) -> Result<()> {
    match scores.iter().position(|score| score.is_nan() || *score == f32::INFINITY) {
        None => Ok(()),
        Some(at) => Err(Error::argument(format!("{what}: expected finite numbers or -inf, got {} for token {at}", scores[at]))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const OFF: SamplerParameters = SamplerParameters { temperature: 1.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0 };

    #[test]
    fn reused_buffers_change_nothing() {
        let mut sampler = Sampler::new(SamplerParameters::default()).unwrap();
        for step in 0..50u64 {
            let logits: Vec<f32> = crate::draws::normals(step, "test", 0, 1, 300 + step as usize).unwrap().data;
            let uniform = crate::draws::uniforms(1, "test", step, 1).unwrap()[0];
            let history: Vec<i64> = (0..step as i64).collect();
            let fresh = sample(&logits, &history, &SamplerParameters::default(), uniform).unwrap();
            assert_eq!(sampler.sample(&logits, &history, uniform).unwrap(), fresh);
        }
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let logits = [0.0f32, 1.0, 2.0, f32::NEG_INFINITY];
        let uniforms = crate::draws::uniforms(3, "test", 0, 20_000).unwrap();
        let mut counts = [0usize; 4];
        for u in uniforms {
            counts[sample(&logits, &[], &OFF, u).unwrap().unwrap() as usize] += 1;
        }
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        for (count, logit) in counts.iter().zip(logits) {
            assert!((*count as f64 / 20_000.0 - f64::from(logit).exp() / total).abs() < 0.01, "{counts:?}");
        }
    }

    #[test]
    fn highest_uniform_takes_the_last_possible_token() {
        let logits = [0.3f32, 0.1, -0.2, f32::NEG_INFINITY];
        assert_eq!(sample(&logits, &[], &OFF, 1.0 - f64::EPSILON / 2.0).unwrap(), Some(2));
    }
}
