//! The resampler of the detector: `librosa.resample(res_type="polyphase")`, that is `scipy.signal.resample_poly`.
//!
//! Samples float32 `[n]` at one rate → `[ceil(n * to / from)]` at another. A Kaiser-windowed sinc (β = 5, ten zero crossings
//! on either side), zero-padded edges, no delay. Source: SciPy 1.15 `scipy/signal/_signaltools.py`, librosa 0.11 `core/audio.py`.

use rayon::prelude::*;

use crate::dsp::resample::{RATES, bessel_i0, gcd, sinc};
use crate::threads::each;
use crate::{Error, Result};

/// Kaiser window parameter.
const BETA: f64 = 5.0;
/// Zero crossings on either side of the filter's centre.
const CROSSINGS: usize = 10;
/// Outputs that one parallel task computes, at least.
const TASK: usize = 4096;

/// Resamples `samples` from `from` Hz to `to` Hz.
///
/// # Errors
/// [`Error::Argument`] when a rate is outside [`RATES`].
pub fn resample_polyphase(samples: &[f32], from: u32, to: u32) -> Result<Vec<f32>> {
    for rate in [from, to] {
        if !RATES.contains(&rate) {
            let (low, high) = RATES.into_inner();
            return Err(Error::argument(format!("rate: expected {low} to {high} Hz, got {rate} Hz")));
        }
    }
    if from == to || samples.is_empty() {
        return Ok(samples.to_vec());
    }
    let divisor = gcd(from, to);
    let (up, down) = ((to / divisor) as usize, (from / divisor) as usize);
    let (filter, half) = design(up, down);
    // librosa's own length, which may be one more than SciPy's where the product rounds up: that sample is zero
    let len = (samples.len() as f64 * (f64::from(to) / f64::from(from))).ceil() as usize;
    let mut out = vec![0f32; len];
    each(out.par_chunks_mut(TASK).enumerate(), |(c, chunk)| {
        for (i, value) in chunk.iter_mut().enumerate() {
            // y[m] = sum_k x[k] h(down * m - up * k), h centred on `half`
            let centre = (c * TASK + i) * down;
            let first = centre.saturating_sub(half).div_ceil(up);
            let last = ((centre + half) / up + 1).min(samples.len());
            let sum: f64 = (first..last).map(|k| f64::from(samples[k]) * filter[centre + half - k * up]).sum();
            *value = sum as f32;
        }
    });
    Ok(out)
}

/// The filter at the virtual rate `from * up`, rounded to float32 as SciPy does for float32 samples, and its centre.
fn design(up: usize, down: usize) -> (Vec<f64>, usize) {
    let rate = up.max(down);
    let half = CROSSINGS * rate;
    let (cutoff, scale) = (1.0 / rate as f64, 1.0 / bessel_i0(BETA));
    let taps: Vec<f64> = (0..=2 * half)
        .map(|i| {
            let n = i as f64 - half as f64;
            let t = n / half as f64;
            cutoff * sinc(cutoff * n) * bessel_i0(BETA * (1.0 - t * t).max(0.0).sqrt()) * scale
        })
        .collect();
    let sum: f64 = taps.iter().sum();
    (taps.into_iter().map(|h| f64::from((h / sum) as f32 * up as f32)).collect(), half)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_stays_one_and_lengths_are_rounded_up() {
        for (from, to, n, expected) in [(24_000, 32_000, 481, 642), (44_100, 32_000, 4410, 3200), (48_000, 32_000, 301, 201)] {
            let out = resample_polyphase(&vec![1.0; n], from, to).unwrap();
            assert_eq!(out.len(), expected);
            let middle = &out[60..out.len() - 60];
            assert!(middle.iter().all(|v| (v - 1.0).abs() < 2e-3), "{from}: {middle:?}");
        }
    }

    #[test]
    fn rates_outside_the_range_are_refused() {
        for rate in [0, 999, 768_001] {
            assert!(resample_polyphase(&[0.0], rate, 32_000).unwrap_err().to_string().contains("rate"));
        }
    }
}
