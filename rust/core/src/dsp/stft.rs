//! Short-time Fourier transform and its inverse, on top of realfft.
//!
//! Samples `[n]` float32 → [`Spectrum`] `[frames, size / 2 + 1]`, and back. Frames start at multiples of the hop and are
//! never padded here: a centred transform is [`reflect_pad`] by `size / 2` followed by [`Stft::spectrum`], which is what
//! `torch.stft(center=True)` and `librosa.stft(pad_mode="reflect")` do. [`Stft::inverse`] is `torch.istft(center=True)`.
//!
//! Windowing, transform and overlap-add run in float64, so that what remains against a float32 reference is its rounding
//! alone. Source of the conventions: PyTorch 2.13 `torch.stft`, `torch.istft`.

use std::f64::consts::PI;
use std::sync::Arc;

pub use realfft::num_complex::Complex;
use realfft::{ComplexToReal, FftError, RealFftPlanner, RealToComplex};

use crate::{Error, Result};

/// A one-sided complex spectrogram, frame after frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Spectrum {
    /// Number of frames (time).
    pub frames: usize,
    /// Bins of a frame, `size / 2 + 1`.
    pub bins: usize,
    /// `frames * bins` values, frame after frame.
    pub values: Vec<Complex<f32>>,
}

impl Spectrum {
    /// Frame `t`.
    pub fn frame(&self, t: usize) -> &[Complex<f32>] {
        &self.values[t * self.bins..(t + 1) * self.bins]
    }

    /// Frame `t`, mutable.
    pub fn frame_mut(&mut self, t: usize) -> &mut [Complex<f32>] {
        &mut self.values[t * self.bins..(t + 1) * self.bins]
    }
}

/// A transform of fixed size, hop and window; immutable, to be built once and shared.
#[derive(Clone)]
pub struct Stft {
    hop: usize,
    window: Vec<f64>,
    forward: Arc<dyn RealToComplex<f64>>,
    backward: Arc<dyn ComplexToReal<f64>>,
}

impl Stft {
    /// A transform of `window.len()` samples every `hop` samples.
    ///
    /// # Errors
    /// [`Error::Argument`] unless the window is of even length and the hop lies in `1..=window.len()`.
    pub fn new(window: Vec<f64>, hop: usize) -> Result<Self> {
        let size = window.len();
        if size == 0 || !size.is_multiple_of(2) || hop == 0 || hop > size {
            return Err(Error::argument(format!("stft: expected an even window and 0 < hop <= window, got {size} and {hop}")));
        }
        let mut planner = RealFftPlanner::new();
        Ok(Self { hop, window, forward: planner.plan_fft_forward(size), backward: planner.plan_fft_inverse(size) })
    }

    /// Samples of a frame.
    pub fn size(&self) -> usize {
        self.window.len()
    }

    /// Bins of a frame, `size / 2 + 1`.
    pub fn bins(&self) -> usize {
        self.size() / 2 + 1
    }

    /// Frames that fit into `len` samples.
    pub fn frames(&self, len: usize) -> usize {
        len.checked_sub(self.size()).map_or(0, |rest| 1 + rest / self.hop)
    }

    /// Calls `visit(t, spectrum of frame t)` for every frame that fits into `samples`; an error of `visit` ends the walk.
    pub fn each(&self, samples: &[f32], mut visit: impl FnMut(usize, &[Complex<f64>]) -> Result<()>) -> Result<()> {
        let mut frame = self.forward.make_input_vec();
        let mut spectrum = self.forward.make_output_vec();
        let mut scratch = self.forward.make_scratch_vec();
        for t in 0..self.frames(samples.len()) {
            let start = t * self.hop;
            for ((value, &sample), &weight) in frame.iter_mut().zip(&samples[start..]).zip(&self.window) {
                *value = f64::from(sample) * weight;
            }
            self.forward.process_with_scratch(&mut frame, &mut spectrum, &mut scratch).map_err(internal)?;
            visit(t, &spectrum)?;
        }
        Ok(())
    }

    /// The spectrogram of `samples`, rounded to float32. No frame fits into fewer samples than `size`: it is then empty.
    pub fn spectrum(&self, samples: &[f32]) -> Result<Spectrum> {
        let (frames, bins) = (self.frames(samples.len()), self.bins());
        let mut values = Vec::with_capacity(frames * bins);
        self.each(samples, |_, spectrum| {
            values.extend(spectrum.iter().map(|c| Complex::new(c.re as f32, c.im as f32)));
            Ok(())
        })?;
        Ok(Spectrum { frames, bins, values })
    }

    /// Samples `[(frames - 1) * hop]` of a centred spectrogram: windowed overlap-add divided by the summed squared
    /// windows, without the `size / 2` samples of padding at each end.
    ///
    /// # Errors
    /// [`Error::Argument`] when the spectrum has no frame or another number of bins, or when window and hop leave a
    /// sample uncovered.
    pub fn inverse(&self, spectrum: &Spectrum) -> Result<Vec<f32>> {
        let (size, bins) = (self.size(), self.bins());
        if spectrum.frames == 0 || spectrum.bins != bins || spectrum.values.len() != spectrum.frames * bins {
            return Err(Error::argument(format!(
                "inverse stft: expected at least one frame of {bins} bins, got [{}, {}] with {} values",
                spectrum.frames,
                spectrum.bins,
                spectrum.values.len()
            )));
        }
        let total = size + (spectrum.frames - 1) * self.hop;
        let (mut sum, mut envelope) = (vec![0f64; total], vec![0f64; total]);
        let mut bands = self.backward.make_input_vec();
        let mut frame = self.backward.make_output_vec();
        let mut scratch = self.backward.make_scratch_vec();
        for t in 0..spectrum.frames {
            for (band, c) in bands.iter_mut().zip(spectrum.frame(t)) {
                *band = Complex::new(f64::from(c.re), f64::from(c.im));
            }
            // A real signal has none there; whatever a caller left is ignored, as in every complex-to-real transform.
            bands[0].im = 0.0;
            bands[bins - 1].im = 0.0;
            self.backward.process_with_scratch(&mut bands, &mut frame, &mut scratch).map_err(internal)?;
            let start = t * self.hop;
            for (i, (&value, &weight)) in frame.iter().zip(&self.window).enumerate() {
                sum[start + i] += value * weight / size as f64;
                envelope[start + i] += weight * weight;
            }
        }
        let kept = size / 2..total - size / 2;
        if let Some(at) = envelope[kept.clone()].iter().position(|&e| e < 1e-11) {
            return Err(Error::argument(format!("inverse stft: the windows leave sample {at} uncovered")));
        }
        Ok(sum[kept.clone()].iter().zip(&envelope[kept]).map(|(s, e)| (s / e) as f32).collect())
    }
}

/// The periodic Hann window of `size` samples, in float64 (`scipy.signal.get_window("hann", size)`).
pub fn hann(size: usize) -> Vec<f64> {
    (0..size).map(|n| 0.5 - 0.5 * (2.0 * PI * n as f64 / size as f64).cos()).collect()
}

/// A Hann window as `torch.hann_window` rounds it (float32 arithmetic): periodic with `period = size`, symmetric with
/// `period = size - 1`. Its rounding error, up to 2e-7, is part of what a PyTorch reference computes.
pub fn hann_f32(size: usize, period: usize) -> Vec<f64> {
    let step = (2.0 * PI / period as f64) as f32;
    (0..size).map(|n| f64::from(f64::from(n as f32 * step).cos() as f32 * -0.5 + 0.5)).collect()
}

/// `samples` with `pad` more at each end, mirrored without repeating the edge sample (`mode="reflect"`). A clip that is
/// not longer than `pad` is mirrored over and over, as NumPy does; PyTorch refuses it.
pub fn reflect_pad(samples: &[f32], pad: usize) -> Vec<f32> {
    let Some(last) = samples.len().checked_sub(1) else { return Vec::new() };
    let period = (2 * last).max(1);
    let at = |i: usize| if i <= last { i } else { period - i };
    // Sample i of the result is sample i - pad of the mirrored, periodic clip.
    let shift = period - pad % period;
    (0..samples.len() + 2 * pad).map(|i| samples[at((i + shift) % period)]).collect()
}

/// |spectrum|² with the spectrum, its magnitude and its square each rounded to float32, as PyTorch and librosa
/// store them.
pub fn power_f32(spectrum: &[Complex<f64>], out: &mut [f64]) {
    for (power, c) in out.iter_mut().zip(spectrum) {
        let (re, im) = (f64::from(c.re as f32), f64::from(c.im as f32));
        let magnitude = (re * re + im * im).sqrt() as f32;
        *power = f64::from(magnitude * magnitude);
    }
}

fn internal(e: FftError) -> Error {
    Error::Internal(candle_core::Error::msg(e))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<f32> {
        let mut state = 1u32;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            })
            .collect()
    }

    #[test]
    fn transform_equals_the_sum_of_its_definition() {
        let samples = noise(50);
        let stft = Stft::new(hann_f32(16, 16), 4).unwrap();
        let spectrum = stft.spectrum(&samples).unwrap();
        assert_eq!((spectrum.frames, spectrum.bins), (9, 9));
        for t in 0..9 {
            for k in 0..9 {
                let mut expected = Complex::new(0.0, 0.0);
                for n in 0..16 {
                    let angle = -2.0 * PI * (k * n) as f64 / 16.0;
                    expected += Complex::from_polar(f64::from(samples[4 * t + n]) * stft.window[n], angle);
                }
                let found = spectrum.frame(t)[k];
                assert!((f64::from(found.re) - expected.re).abs() < 1e-6, "frame {t} bin {k}: {found} against {expected}");
                assert!((f64::from(found.im) - expected.im).abs() < 1e-6, "frame {t} bin {k}: {found} against {expected}");
            }
        }
    }

    #[test]
    fn inverse_restores_the_samples() {
        for (size, hop, len) in [(16, 4, 480), (2048, 320, 32_000), (1920, 480, 4800)] {
            let samples = noise(len);
            let stft = Stft::new(hann_f32(size, size), hop).unwrap();
            let spectrum = stft.spectrum(&reflect_pad(&samples, size / 2)).unwrap();
            assert_eq!(spectrum.frames, 1 + len / hop);
            let restored = stft.inverse(&spectrum).unwrap();
            assert_eq!(restored.len(), len);
            let worst = restored.iter().zip(&samples).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-6, "{size}/{hop}: {worst}");
        }
    }

    #[test]
    fn inverse_has_torch_values() {
        // torch.istft(spectrum, 16, 4, 16, window=torch.hann_window(16)) of this arbitrary spectrum.
        let value = |k: i32| Complex::new(((k * 7) % 11 - 5) as f32 / 4.0, ((k * 5) % 13 - 6) as f32 / 4.0);
        let spectrum = Spectrum { frames: 3, bins: 9, values: (0..27).map(value).collect() };
        let expected: [f32; 8] = [-0.14375, -0.1097383, -0.3967765, -0.1127482, -0.2291667, -0.0341968, 0.875861, 0.1801925];
        let found = Stft::new(hann_f32(16, 16), 4).unwrap().inverse(&spectrum).unwrap();
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() < 1e-6, "{found:?} against {expected:?}");
        }
    }

    #[test]
    fn inverse_ignores_imaginary_parts_that_a_real_signal_cannot_have() {
        let stft = Stft::new(hann(16), 4).unwrap();
        let mut spectrum = stft.spectrum(&noise(64)).unwrap();
        let plain = stft.inverse(&spectrum).unwrap();
        spectrum.frame_mut(3)[0].im = 5.0;
        spectrum.frame_mut(3)[8].im = -5.0;
        assert_eq!(stft.inverse(&spectrum).unwrap(), plain);
    }

    #[test]
    fn inverse_refuses_what_it_cannot_invert() {
        let stft = Stft::new(hann(16), 16).unwrap();
        let gaps = stft.spectrum(&noise(64)).unwrap();
        assert!(stft.inverse(&gaps).unwrap_err().to_string().contains("uncovered"));
        let other = Spectrum { frames: 1, bins: 5, values: vec![Complex::default(); 5] };
        assert!(stft.inverse(&other).unwrap_err().to_string().contains("9 bins"));
        assert!(Stft::new(hann(15), 4).is_err());
        assert!(Stft::new(hann(16), 0).is_err());
    }

    #[test]
    fn reflection_does_not_repeat_the_edge_and_repeats_for_short_clips() {
        assert_eq!(reflect_pad(&[1.0, 2.0, 3.0, 4.0], 2), [3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0]);
        assert_eq!(reflect_pad(&[1.0, 2.0], 3), [2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0]);
        assert_eq!(reflect_pad(&[7.0], 2), [7.0; 5]);
        assert!(reflect_pad(&[], 2).is_empty());
    }

    #[test]
    fn short_input_has_no_frame() {
        let stft = Stft::new(hann(16), 4).unwrap();
        assert_eq!(stft.spectrum(&noise(15)).unwrap().frames, 0);
        assert_eq!(stft.spectrum(&noise(16)).unwrap().frames, 1);
    }
}
