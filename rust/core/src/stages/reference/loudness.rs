//! Stage `reference.loudness`: brings a reference clip to −27, samples in and out f32 `[n]` at 24 kHz.
//!
//! * [`Method::Bs1770`]: integrated loudness of ITU-R BS.1770 as pyloudnorm 0.2 measures it (its own RBJ biquads, its
//!   block count with rounding, its two gates), the gain applied in float32 as NumPy 1.x does. This is upstream's.
//! * [`Method::Rms`]: plain RMS with the gain capped at ten, the approximation that the parity checklist names.
//!
//! A clip that cannot be measured (shorter than a block, silent, everything below −70 LUFS) comes back unchanged, and
//! nothing is clipped. Upstream: `ChatterboxTurboTTS.norm_loudness` in `tts_turbo.py` of resemble-ai/chatterbox at 5de7a54.

use std::f64::consts::PI;

use crate::{Error, Observer, Result};

/// Sample rate of the stage, in Hz.
const RATE: f64 = 24_000.0;
/// Target: LUFS for [`Method::Bs1770`], dB for [`Method::Rms`].
const TARGET: f64 = -27.0;
/// Highest gain of [`Method::Rms`].
const RMS_GAIN_LIMIT: f64 = 10.0;
/// Samples between two looks at the observer.
const STRETCH: usize = 1 << 20;
/// Gating block in seconds, and its step as a fraction of it.
const BLOCK: f64 = 0.4;
const STEP: f64 = 0.25;
/// Absolute gate in LUFS; the relative gate lies 10 below the mean of what passes it.
const ABSOLUTE_GATE: f64 = -70.0;
const RELATIVE_GATE: f64 = -10.0;

/// How the level is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Integrated loudness, what the official package does.
    #[default]
    Bs1770,
    /// Root mean square, gain at most 10.
    Rms,
}

impl std::str::FromStr for Method {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "bs1770" => Ok(Self::Bs1770),
            "rms" => Ok(Self::Rms),
            _ => Err(Error::argument(format!("method: expected \"bs1770\" or \"rms\", got {name:?}"))),
        }
    }
}

/// `samples` at −27 LUFS (or −27 dB RMS), or unchanged where the level cannot be measured.
///
/// Errors: what `observer` returns.
pub fn normalize(samples: &[f32], method: Method, observer: &dyn Observer) -> Result<Vec<f32>> {
    let gain = match method {
        Method::Bs1770 => measure(samples, observer)?.map(|lufs| 10f64.powf((TARGET - lufs) / 20.0)),
        Method::Rms => rms(samples).map(|level| (10f64.powf(TARGET / 20.0) / level).min(RMS_GAIN_LIMIT)),
    };
    Ok(match gain {
        Some(gain) if gain.is_finite() && gain > 0.0 => samples.iter().map(|x| x * gain as f32).collect(),
        _ => samples.to_vec(),
    })
}

/// Integrated loudness of mono samples at 24 kHz in LUFS: −inf when no block passes the gates, `None` when the clip is
/// shorter than one block of 0.4 s.
///
/// Errors: what `observer` returns.
pub fn measure(samples: &[f32], observer: &dyn Observer) -> Result<Option<f64>> {
    if (samples.len() as f64) < BLOCK * RATE {
        return Ok(None);
    }
    let (mut shelf, mut pass) = (Biquad::high_shelf(4.0, 0.5f64.sqrt(), 1500.0), Biquad::high_pass(0.5, 38.0));
    let mut weighted = Vec::with_capacity(samples.len());
    for stretch in samples.chunks(STRETCH) {
        observer.progress("reference.loudness", weighted.len(), samples.len())?;
        weighted.extend(pass.run(&shelf.run(stretch)));
    }
    let seconds = samples.len() as f64 / RATE;
    let blocks = ((seconds - BLOCK) / (BLOCK * STEP)).round_ties_even() as usize + 1;
    let energy: Vec<f64> = (0..blocks).map(|block| mean_square(&weighted, block as f64)).collect();
    let passing = energy.iter().filter(|&&z| loudness(z) >= ABSOLUTE_GATE).copied();
    let relative = loudness(mean(passing)) + RELATIVE_GATE;
    let gated = energy.iter().filter(|&&z| loudness(z) > relative && loudness(z) > ABSOLUTE_GATE).copied();
    let level = mean(gated);
    Ok(Some(loudness(if level.is_nan() { 0.0 } else { level })))
}

fn rms(samples: &[f32]) -> Option<f64> {
    let level = mean(samples.iter().map(|&x| f64::from(x).powi(2))).sqrt();
    (level > 0.0).then_some(level)
}

fn loudness(energy: f64) -> f64 {
    -0.691 + 10.0 * energy.log10()
}

/// NaN of nothing, as in NumPy.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0usize, 0.0), |(count, sum), value| (count + 1, sum + value));
    sum / count as f64
}

/// Mean square of one block. The last one may reach beyond the clip; it is divided by the full length all the same.
fn mean_square(weighted: &[f32], block: f64) -> f64 {
    let begin = (BLOCK * (block * STEP) * RATE) as usize;
    let end = ((BLOCK * (block * STEP + 1.0) * RATE) as usize).min(weighted.len());
    let sum: f64 = weighted[begin.min(end)..end].iter().map(|x| f64::from(x * x)).sum();
    sum / (BLOCK * RATE)
}

/// A second-order section with `a[0] = 1`; design formulas of the RBJ Audio EQ Cookbook.
struct Biquad {
    b: [f64; 3],
    a: [f64; 2],
    state: [f64; 2],
}

impl Biquad {
    fn new(b: [f64; 3], a: [f64; 3]) -> Self {
        Self { b: b.map(|v| v / a[0]), a: [a[1] / a[0], a[2] / a[0]], state: [0.0; 2] }
    }

    fn high_shelf(gain: f64, q: f64, hertz: f64) -> Self {
        let amplitude = 10f64.powf(gain / 40.0);
        let (sin, cos) = (2.0 * PI * (hertz / RATE)).sin_cos();
        let slope = 2.0 * amplitude.sqrt() * sin / (2.0 * q);
        let (up, down) = (amplitude + 1.0, amplitude - 1.0);
        Self::new(
            [amplitude * (up + down * cos + slope), -2.0 * amplitude * (down + up * cos), amplitude * (up + down * cos - slope)],
            [up - down * cos + slope, 2.0 * (down - up * cos), up - down * cos - slope],
        )
    }

    fn high_pass(q: f64, hertz: f64) -> Self {
        let (sin, cos) = (2.0 * PI * (hertz / RATE)).sin_cos();
        let alpha = sin / (2.0 * q);
        let edge = (1.0 + cos) / 2.0;
        Self::new([edge, -(1.0 + cos), edge], [1.0 + alpha, -2.0 * cos, 1.0 - alpha])
    }

    /// Filters on, from rest at first: state in f64, output stored in f32 (pyloudnorm writes each stage back into the f32 clip).
    fn run(&mut self, samples: &[f32]) -> Vec<f32> {
        let [mut first, mut second] = self.state;
        let filtered = samples
            .iter()
            .map(|&x| {
                let x = f64::from(x);
                let y = first + self.b[0] * x;
                first = second + self.b[1] * x - self.a[0] * y;
                second = self.b[2] * x - self.a[1] * y;
                y as f32
            })
            .collect();
        self.state = [first, second];
        filtered
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Silent;

    fn tone(seconds: f64, hertz: f64, amplitude: f64) -> Vec<f32> {
        (0..(seconds * RATE) as usize).map(|i| (amplitude * (2.0 * PI * hertz * i as f64 / RATE).sin()) as f32).collect()
    }

    #[test]
    fn coefficients_at_24_khz() {
        let shelf = Biquad::high_shelf(4.0, 0.5f64.sqrt(), 1500.0);
        let pass = Biquad::high_pass(0.5, 38.0);
        let got = [shelf.b.as_slice(), &shelf.a, &pass.b, &pass.a].concat();
        let want = [
            1.48820723,
            -2.24848063,
            0.90619213,
            -1.39177025,
            0.53768898,
            0.99012528,
            -1.98025056,
            0.99012528,
            -1.98020156,
            0.98029956,
        ];
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-8, "{got} against {want}");
        }
    }

    #[test]
    fn a_full_scale_tone_measures_near_minus_three() {
        let lufs = measure(&tone(6.0, 997.0, 1.0), &Silent).unwrap().unwrap();
        assert!((lufs + 3.01).abs() < 0.5, "{lufs}");
    }

    #[test]
    fn both_methods_reach_the_target() {
        let clip = tone(6.0, 440.0, 0.3);
        let lufs = measure(&normalize(&clip, Method::Bs1770, &Silent).unwrap(), &Silent).unwrap().unwrap();
        assert!((lufs - TARGET).abs() < 1e-5, "{lufs}");
        let level = 20.0 * rms(&normalize(&clip, Method::Rms, &Silent).unwrap()).unwrap().log10();
        assert!((level - TARGET).abs() < 1e-5, "{level}");
    }

    #[test]
    fn rms_gain_stops_at_ten_and_loudness_gain_does_not() {
        let clip = tone(6.0, 440.0, 1e-3);
        assert_eq!(normalize(&clip, Method::Rms, &Silent).unwrap()[100], clip[100] * 10.0);
        assert!(normalize(&clip, Method::Bs1770, &Silent).unwrap()[100].abs() > clip[100].abs() * 20.0);
    }

    #[test]
    fn what_cannot_be_measured_is_unchanged() {
        for clip in [vec![], vec![0.5], tone(0.399, 440.0, 0.5), vec![0.0; 150_000], tone(6.0, 440.0, 1e-6)] {
            assert_eq!(normalize(&clip, Method::Bs1770, &Silent).unwrap(), clip, "{} samples", clip.len());
        }
        for clip in [vec![], vec![0.0; 1000]] {
            assert_eq!(normalize(&clip, Method::Rms, &Silent).unwrap(), clip);
        }
        assert!("lufs".parse::<Method>().unwrap_err().to_string().contains("expected \"bs1770\" or \"rms\", got \"lufs\""));
    }
}
