//! The two resamplers of the reference path, as closed forms: samples in, samples out, both f32 `[n]`.
//!
//! * [`resample_soxr_hq`]: what `librosa.resample(res_type="soxr_hq")` computes, for any pair of rates. libsoxr's HQ recipe
//!   is one linear-phase FIR (Kaiser-windowed sinc) wherever the ratio has small terms (2/3, 3/2, 1/2, 3/4, …): there the
//!   two agree to 2e-7. Elsewhere (the 44.1 kHz family, 96 kHz and above) libsoxr runs several stages and the agreement is
//!   1e-4 relative on speech, 2e-3 on white noise (the edge of the transition band).
//! * [`resample_sinc`]: torchaudio's default `Resample(24000, 16000)`, a Hann-windowed sinc of six zero crossings.
//!
//! Upstream callers: `tts_turbo.py` (`librosa.load`, `librosa.resample`) and `models/s3gen/s3gen.py` (`get_resampler`) of
//! resemble-ai/chatterbox at commit 5de7a54. Libraries: librosa 0.11 over soxr 1.1, torchaudio 2.11.

use std::f64::consts::PI;

use rayon::prelude::*;

use crate::kernels::resample::{PERIODS, dots};
use crate::threads::each;
use crate::{Error, Result};

/// Lowest and highest sample rate that [`resample_soxr_hq`] takes, in Hz. Outside of it the filter or the output would
/// grow without bound.
pub const RATES: std::ops::RangeInclusive<u32> = 1_000..=768_000;

/// Kaiser window parameter of libsoxr's HQ recipe.
const BETA: f64 = 13.0401;
/// End of the pass band; the stop band begins at 1 (both relative to the lower Nyquist frequency).
const PASS: f64 = 0.913_743_653;
/// Where the response is down 6 dB, relative to the lower Nyquist frequency.
const CUTOFF: f64 = 0.956_871_827;
/// Filter length times transition width, for the recipe's attenuation.
const LENGTH_FACTOR: f64 = 8.302_32;
/// Coefficients held at once (f64): bounds the memory when the ratio has large terms.
const BANK: usize = 1 << 21;
/// Outputs that one parallel task computes, at least.
const TASK: usize = 4096;
/// Tasks between two looks at whoever may want to stop the work.
const TASKS: usize = 256;

/// Resamples `samples` from `from` Hz to `to` Hz with the soxr HQ filter, as librosa does: the edges are zero-padded,
/// there is no delay, and the result has `ceil(n * to / from)` samples (the product in float64, as librosa takes it), the
/// last of which is an appended zero where libsoxr itself delivers one fewer.
///
/// Errors: [`Error::Argument`] when a rate is outside [`RATES`].
pub fn resample_soxr_hq(samples: &[f32], from: u32, to: u32) -> Result<Vec<f32>> {
    resample_observed(samples, from, to, &mut |_, _| Ok(()))
}

/// The same, which calls `advance(outputs done, outputs)` every now and then and ends with its error.
pub fn resample_observed(
    samples: &[f32],
    from: u32,
    to: u32,
    advance: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Vec<f32>> {
    for rate in [from, to] {
        if !RATES.contains(&rate) {
            let (low, high) = RATES.into_inner();
            return Err(Error::argument(format!("sample rate: expected {low} to {high} Hz, got {rate} Hz")));
        }
    }
    if from == to || samples.is_empty() {
        return Ok(samples.to_vec());
    }
    let divisor = gcd(from, to);
    let kaiser = Kaiser::new((to / divisor) as usize, (from / divisor) as usize);
    let (delivered, length) = lengths(samples.len(), from, to);
    let mut out = vec![0.0; length.max(delivered)];
    kaiser.filter().apply(samples, &mut out[..delivered], advance)?;
    out.truncate(length);
    Ok(out)
}

/// How many samples libsoxr delivers for `n`, and how many librosa returns.
fn lengths(n: usize, from: u32, to: u32) -> (usize, usize) {
    let (n, from, to) = (n as f64, f64::from(from), f64::from(to));
    ((n / (from / to) + 0.5) as usize, (n * (to / from)).ceil() as usize)
}

pub(crate) fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// libsoxr's FIR at the virtual rate `from * up`: `y[m] = sum_k x[k] h(down * m - up * k)`.
struct Kaiser {
    up: usize,
    down: usize,
    /// `h` is zero beyond this many virtual samples from its centre.
    half: f64,
}

impl Kaiser {
    fn new(up: usize, down: usize) -> Self {
        // The lower Nyquist frequency, relative to that of the virtual rate.
        let nyquist = 1.0 / up.max(down) as f64;
        let taps = (LENGTH_FACTOR / (0.5 * (1.0 - PASS) * nyquist) + 1.0).ceil();
        // libsoxr rounds the order up to a multiple of 4, or of twice the up-sampling factor where that is a power of two
        let multiple = if up.is_power_of_two() { (2 * up).max(4) as f64 } else { 4.0 };
        Self { up, down, half: multiple / 2.0 * ((taps - 1.0) / multiple).ceil() }
    }

    fn filter(&self) -> Filter<impl Fn(usize, i64) -> f64 + Sync + use<>> {
        let &Self { up, down, half } = self;
        let double_cutoff = CUTOFF / up.max(down) as f64;
        let gain = double_cutoff * up as f64 / bessel_i0(BETA);
        let window = 2.0 / (2.0 * half + 1.0);
        let tap = move |phase: usize, offset: i64| {
            let n = (phase as i64 - offset * up as i64) as f64;
            if n.abs() > half {
                return 0.0;
            }
            let t = n * window;
            gain * sinc(double_cutoff * n) * bessel_i0(BETA * (1.0 - t * t).max(0.0).sqrt())
        };
        Filter { up, down, reach: half as usize / up, tap }
    }
}

/// A FIR between two rates: `up` outputs for `down` inputs. `tap(phase, offset)` is the factor of the input `offset` after the last one
/// at or before an output that lies `phase / up` behind that.
struct Filter<F> {
    up: usize,
    down: usize,
    /// Input samples that one output reaches on either side of its own position.
    reach: usize,
    tap: F,
}

impl<F: Fn(usize, i64) -> f64 + Sync> Filter<F> {
    /// Coefficients per output: offsets `-reach ..= reach + 1` around the input sample at or before the output.
    fn width(&self) -> usize {
        2 * self.reach + 2
    }

    /// Writes the coefficients of the outputs that lie `phase / up` after an input sample.
    fn coefficients(&self, phase: usize, taps: &mut [f64]) {
        taps.iter_mut().zip(-(self.reach as i64)..).for_each(|(tap, offset)| *tap = (self.tap)(phase, offset));
    }

    /// Computes `out[m]` for every `m`. Outputs `m` of equal `m % up` share their coefficients; as many of these residues
    /// as fit into [`BANK`] are done at a time.
    fn apply(&self, x: &[f32], out: &mut [f32], advance: &mut dyn FnMut(usize, usize) -> Result<()>) -> Result<()> {
        let total = out.len();
        let (up, width) = (self.up, self.width());
        let residues = up.min(out.len());
        let chunk = up * TASK.div_ceil(up);
        let at_once = (BANK / width).max(1);
        for first in (0..residues).step_by(at_once) {
            let last = (first + at_once).min(residues);
            let mut bank = vec![0.0; (last - first) * width];
            each(bank.par_chunks_mut(width).enumerate(), |(i, taps)| self.coefficients((first + i) * self.down % up, taps));
            for (b, out) in out.chunks_mut(TASKS * chunk).enumerate() {
                advance((first * (total / residues) + b * TASKS * chunk * (last - first) / residues).min(total), total)?;
                each(out.par_chunks_mut(chunk).enumerate(), |(c, out)| {
                    let c = b * TASKS + c;
                    let origin = self.position(c * chunk);
                    let window = self.window(x, origin, self.position(c * chunk + out.len() - 1));
                    for (p, periods) in out.chunks_mut(PERIODS * up).enumerate() {
                        for r in first..last.min(periods.len()) {
                            let taps = &bank[(r - first) * width..(r - first + 1) * width];
                            let begin = self.position(c * chunk + p * PERIODS * up + r) - origin;
                            let (to, mut sums) = (periods[r..].iter_mut().step_by(up), [0.0; PERIODS]);
                            let sums = &mut sums[..to.len()];
                            dots(&window[begin..], self.down, taps, sums);
                            to.zip(sums).for_each(|(to, sum)| *to = *sum as f32);
                        }
                    }
                });
            }
        }
        Ok(())
    }

    /// The input sample at or before output `m`.
    fn position(&self, m: usize) -> usize {
        (m as u64 * self.down as u64 / self.up as u64) as usize
    }

    /// What the outputs at positions `first ..= last` read, in f64; zero beyond the edges of `x`.
    fn window(&self, x: &[f32], first: usize, last: usize) -> Vec<f64> {
        let mut window = vec![0.0; last - first + self.width()];
        let begin = first.saturating_sub(self.reach);
        let end = (last + self.reach + 2).min(x.len());
        let skipped = begin + self.reach - first;
        for (to, from) in window[skipped..].iter_mut().zip(&x[begin..end]) {
            *to = f64::from(*from);
        }
        window
    }
}

pub(crate) fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

/// Modified Bessel function of the first kind, order 0: its power series, which has only positive terms.
pub(crate) fn bessel_i0(x: f64) -> f64 {
    let quarter = 0.25 * x * x;
    let (mut term, mut sum, mut k) = (1.0, 1.0, 1.0);
    while term > sum * 1e-17 {
        term *= quarter / (k * k);
        sum += term;
        k += 1.0;
    }
    sum
}

/// torchaudio's `Resample(24000, 16000)` with its defaults: `ceil(2 n / 3)` samples, zero-padded edges.
pub fn resample_sinc(samples: &[f32]) -> Vec<f32> {
    const ORIG: usize = 3;
    const NEW: usize = 2;
    const ZEROS: f64 = 6.0;
    /// The window is zero from the tenth sample on; with one more the taps fill the lanes.
    const REACH: usize = 11;
    let base = 0.99 * NEW as f64;
    let tap = |phase: usize, offset: i64| {
        // of the two outputs of a period, the second lies half a sample after the second input
        let position = (offset + phase as i64) as f64 / ORIG as f64 - phase as f64 / NEW as f64;
        let t = (position * base).clamp(-ZEROS, ZEROS);
        let window = (t * PI / ZEROS / 2.0).cos().powi(2);
        f64::from((sinc(t) * window * base / ORIG as f64) as f32)
    };
    let mut out = vec![0.0; (NEW * samples.len()).div_ceil(ORIG)];
    let done = Filter { up: NEW, down: ORIG, reach: REACH, tap }.apply(samples, &mut out, &mut |_, _| Ok(()));
    debug_assert!(done.is_ok(), "nobody stops it");
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    fn tone(n: usize, rate: f64, hertz: f64) -> Vec<f32> {
        (0..n).map(|i| (0.5 * (2.0 * PI * hertz * i as f64 / rate).sin()) as f32).collect()
    }

    /// Largest deviation from the tone away from the edges.
    fn deviation(got: &[f32], want: &[f32], rate: u32) -> f32 {
        let edge = rate as usize / 20;
        let middle = edge..got.len().min(want.len()) - edge;
        got[middle.clone()].iter().zip(&want[middle]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn filter_sizes_of_the_recipe() {
        for (from, to, taps) in [
            (24000, 16000, 581),
            (48000, 24000, 389),
            (16000, 24000, 581),
            (32000, 24000, 773),
            (24000, 32000, 777),
            (48000, 16000, 581),
        ] {
            let divisor = gcd(from, to);
            let kaiser = Kaiser::new((to / divisor) as usize, (from / divisor) as usize);
            assert_eq!(2.0 * kaiser.half + 1.0, f64::from(taps), "{from} -> {to}");
        }
        let filter = Kaiser::new(2, 3).filter();
        let mut taps = vec![0.0; filter.width()];
        filter.coefficients(0, &mut taps);
        assert!((taps[filter.reach] - 0.637_914_5).abs() < 1e-7, "{}", taps[filter.reach]);
    }

    #[test]
    fn a_tone_stays_a_tone_at_any_ratio() {
        for from in [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 44_101, 48_000, 96_000, 192_000] {
            let x = tone(from as usize, f64::from(from), 997.0);
            let y = resample_soxr_hq(&x, from, 24_000).unwrap();
            let worst = deviation(&y, &tone(24_000, 24_000.0, 997.0), 24_000);
            assert!(worst < 2e-6, "{from} Hz: {worst}");
        }
    }

    #[test]
    fn what_the_new_rate_cannot_hold_is_removed() {
        let x = tone(48_000, 48_000.0, 13_000.0);
        let y = resample_soxr_hq(&x, 48_000, 24_000).unwrap();
        let worst = y[2_000..y.len() - 2_000].iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert!(worst < 2e-6, "{worst}");
    }

    #[test]
    fn lengths_are_those_of_librosa() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/reference_resample_lengths.json");
        let text = std::fs::read_to_string(path).unwrap();
        let table: std::collections::BTreeMap<String, Vec<(usize, usize)>> = serde_json::from_str(&text).unwrap();
        assert!(table.len() > 10 && table.values().all(|rows| rows.len() > 150));
        for (pair, rows) in table {
            let (from, to) = pair.split_once('-').unwrap();
            for (n, want) in rows {
                let (delivered, length) = lengths(n, from.parse().unwrap(), to.parse().unwrap());
                assert_eq!(length, want, "{n} samples {pair}");
                assert!(length.abs_diff(delivered) <= 1, "{n} samples {pair}: {delivered} delivered");
            }
        }
    }

    #[test]
    fn lengths_follow_librosa() {
        for (n, from, to, want) in [
            (24_002, 24_000, 16_000, 16_002),
            (120_001, 24_000, 16_000, 80_001),
            (227_809, 24_000, 16_000, 151_873),
            (176_400, 44_100, 24_000, 96_001),
            (1, 24_000, 16_000, 1),
            (0, 24_000, 16_000, 0),
        ] {
            let y = resample_soxr_hq(&vec![0.25; n], from, to).unwrap();
            assert_eq!(y.len(), want, "{n} samples {from} -> {to}");
        }
        let y = resample_soxr_hq(&vec![0.25; 24_002], 24_000, 16_000).unwrap();
        assert_eq!(y.last(), Some(&0.0), "the sample that librosa appends");
    }

    #[test]
    fn many_residues_give_the_same_as_one_bank() {
        let x = tone(20_000, 44_101.0, 440.0);
        let filter = Kaiser::new(24_000, 44_101).filter();
        let mut banked = vec![0.0; 10_000];
        filter.apply(&x, &mut banked, &mut |_, _| Ok(())).unwrap();
        let mut taps = vec![0.0; filter.width()];
        for m in [0, 1, 4_999, 9_999] {
            filter.coefficients(m * filter.down % filter.up, &mut taps);
            let window = filter.window(&x, filter.position(m), filter.position(m));
            assert_eq!(
                banked[m],
                {
                    let mut sum = [0.0];
                    dots(&window, 0, &taps, &mut sum);
                    sum[0] as f32
                },
                "output {m}"
            );
        }
    }

    #[test]
    fn outputs_are_those_of_the_definition_at_every_level() {
        let x: Vec<f32> = (0..30_000).map(|i| ((i * 7919 % 2003) as f32 - 1001.0) / 1500.0).collect();
        for (from, to) in [(24_000, 16_000), (24_000, 32_000), (32_000, 24_000), (44_100, 24_000), (44_101, 24_000)] {
            let divisor = gcd(from, to);
            let (up, down) = (i64::from(to / divisor), i64::from(from / divisor));
            let kaiser = Kaiser::new(up as usize, down as usize);
            let cutoff = CUTOFF / up.max(down) as f64;
            let h = |n: f64| {
                let t = 2.0 * n / (2.0 * kaiser.half + 1.0);
                if n.abs() > kaiser.half { 0.0 } else { cutoff * sinc(cutoff * n) * bessel_i0(BETA * (1.0 - t * t).sqrt()) }
            };
            let gain = up as f64 / bessel_i0(BETA);
            same_everywhere(
                || resample_soxr_hq(&x, from, to).unwrap(),
                |m| {
                    let reached = (down * m - kaiser.half as i64) / up..=(down * m + kaiser.half as i64) / up + 1;
                    let inside = reached.filter(|k| (0..x.len() as i64).contains(k));
                    gain * inside.map(|k| f64::from(x[k as usize]) * h((down * m - up * k) as f64)).sum::<f64>()
                },
            );
        }
        same_everywhere(
            || resample_sinc(&x),
            |m| {
                let tap = |k: i64| {
                    let t = ((k - 10) as f64 / 3.0 - (m % 2) as f64 / 2.0) * 1.98;
                    let t = t.clamp(-6.0, 6.0);
                    sinc(t) * (t * PI / 12.0).cos().powi(2) * 1.98 / 3.0
                };
                let input =
                    |k: i64| usize::try_from(m / 2 * 3 - 10 + k).ok().and_then(|at| x.get(at)).map_or(0.0, |x| f64::from(*x));
                (0..23).map(|k| input(k) * tap(k)).sum()
            },
        );
    }

    /// Is every 97th output what `truth` says, and are all the same bits at every level?
    fn same_everywhere(resample: impl Fn() -> Vec<f32> + Sync, truth: impl Fn(i64) -> f64 + Sync) {
        let first = resample();
        at_every_level(|| assert_eq!(resample(), first));
        for (m, found) in first.iter().enumerate().step_by(97) {
            let truth = truth(m as i64);
            assert!((f64::from(*found) - truth).abs() < 2e-7, "output {m}: {found} {truth}");
        }
    }

    #[test]
    fn the_work_stops_where_it_is_told_to() {
        let x = vec![0.1; 48_000 * 300];
        let mut seen = vec![];
        let outcome = resample_observed(&x, 48_000, 24_000, &mut |done, total| {
            seen.push((done, total));
            if seen.len() == 3 { Err(Error::Cancelled) } else { Ok(()) }
        });
        assert!(matches!(outcome, Err(Error::Cancelled)));
        assert!(seen.len() == 3 && seen[0].0 == 0 && seen[2].0 > seen[1].0 && seen[2].0 < seen[2].1, "{seen:?}");
        assert_eq!(resample_observed(&x, 48_000, 24_000, &mut |_, _| Ok(())).unwrap().len(), 24_000 * 300);
    }

    #[test]
    fn equal_rates_change_nothing_and_bad_rates_are_refused() {
        let x = tone(100, 24_000.0, 440.0);
        assert_eq!(resample_soxr_hq(&x, 24_000, 24_000).unwrap(), x);
        for (from, to) in [(0, 24_000), (24_000, 0), (999, 24_000), (u32::MAX, 24_000)] {
            let error = resample_soxr_hq(&x, from, to).unwrap_err().to_string();
            assert!(error.contains("expected 1000 to 768000 Hz"), "{error}");
        }
    }

    #[test]
    fn sinc_keeps_a_tone_and_rounds_the_length_up() {
        for (n, want) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (240_000, 160_000)] {
            assert_eq!(resample_sinc(&vec![0.5; n]).len(), want, "{n} samples");
        }
        let y = resample_sinc(&tone(24_000, 24_000.0, 997.0));
        let worst = deviation(&y, &tone(16_000, 16_000.0, 997.0), 16_000);
        assert!(worst < 2e-3, "{worst}");
    }
}
