//! The short STFT and inverse STFT of the generator: 16 samples a frame, hop 4, periodic Hann window, centred frames.
//!
//! A frame has `size / 2 + 1` real parts and then as many imaginary parts. The transforms are so short that products with their
//! matrices are the fastest way. Source: `_stft` and `_istft` in `models/s3gen/hifigan.py` of resemble-ai/chatterbox at 5de7a54.

use std::f64::consts::TAU;

use rayon::prelude::*;

/// Frames a task handles.
const PIECE: usize = 1024;

/// Windowed transform matrices.
#[derive(Clone, Debug)]
pub(super) struct Spectrum {
    size: usize,
    hop: usize,
    /// Squares of the window.
    squares: Vec<f32>,
    /// `[size, 2 · bins]`: what a sample of a frame adds to every part.
    forward: Vec<f32>,
    /// `[2 · bins, size]`: what a part adds to every sample of a frame.
    backward: Vec<f32>,
}

impl Spectrum {
    pub(super) fn new(size: usize, hop: usize) -> Self {
        let bins = size / 2 + 1;
        let window: Vec<f64> = (0..size).map(|n| 0.5 - 0.5 * (TAU * n as f64 / size as f64).cos()).collect();
        let (mut forward, mut backward) = (vec![0.0; size * 2 * bins], vec![0.0; 2 * bins * size]);
        for n in 0..size {
            for k in 0..bins {
                let (sin, cos) = (TAU * ((n * k) % size) as f64 / size as f64).sin_cos();
                forward[n * 2 * bins + k] = (window[n] * cos) as f32;
                forward[n * 2 * bins + bins + k] = (-window[n] * sin) as f32;
                // the first and the last bin stand for themselves, the others for their conjugates too
                let weight = if k == 0 || 2 * k == size { 1.0 } else { 2.0 } / size as f64;
                backward[k * size + n] = (window[n] * weight * cos) as f32;
                backward[(bins + k) * size + n] = (-window[n] * weight * sin) as f32;
            }
        }
        Self { size, hop, squares: window.iter().map(|w| (w * w) as f32).collect(), forward, backward }
    }

    /// Real and imaginary parts of a frame.
    pub(super) fn parts(&self) -> usize {
        2 * (self.size / 2 + 1)
    }

    /// Samples of a frame.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Samples between the starts of two frames.
    pub(super) fn hop(&self) -> usize {
        self.hop
    }

    /// Spectrum `[L / hop + 1, parts]` of `samples` `[L]`, reflected at both ends; L must be more than half a frame.
    pub(super) fn analyse(&self, samples: &[f32]) -> Vec<f32> {
        let (l, half, parts) = (samples.len() as isize, (self.size / 2) as isize, self.parts());
        let mut out = vec![0.0; (samples.len() / self.hop + 1) * parts];
        out.par_chunks_mut(PIECE * parts).enumerate().for_each(|(piece, out)| {
            for (i, frame) in out.chunks_exact_mut(parts).enumerate() {
                let start = ((piece * PIECE + i) * self.hop) as isize - half;
                for (n, row) in self.forward.chunks_exact(parts).enumerate() {
                    let at = (start + n as isize).abs();
                    let at = if at < l { at } else { 2 * (l - 1) - at };
                    let sample = samples[at as usize];
                    frame.iter_mut().zip(row).for_each(|(f, r)| *f += sample * r);
                }
            }
        });
        out
    }

    /// Samples `[(frames - 1) · hop]` of `spectrum` `[frames, parts]`: overlap-add, divided by the summed squares of the window.
    pub(super) fn synthesise(&self, spectrum: &[f32]) -> Vec<f32> {
        let (size, hop, parts) = (self.size, self.hop, self.parts());
        let count = spectrum.len() / parts;
        let mut frames = vec![0.0; count * size];
        frames.par_chunks_mut(PIECE * size).zip(spectrum.par_chunks(PIECE * parts)).for_each(|(frames, spectrum)| {
            for (frame, values) in frames.chunks_exact_mut(size).zip(spectrum.chunks_exact(parts)) {
                for (value, row) in values.iter().zip(self.backward.chunks_exact(size)) {
                    frame.iter_mut().zip(row).for_each(|(f, r)| *f += value * r);
                }
            }
        });
        let mut out = vec![0.0; count.saturating_sub(1) * hop];
        out.par_chunks_mut(PIECE * hop).enumerate().for_each(|(piece, out)| {
            for (i, o) in out.iter_mut().enumerate() {
                let at = piece * PIECE * hop + i + size / 2;
                let (first, last) = ((at + 1).saturating_sub(size).div_ceil(hop), (at / hop).min(count - 1));
                let (mut sum, mut weight) = (0.0, 0.0);
                for frame in first..=last {
                    sum += frames[frame * size + at - frame * hop];
                    weight += self.squares[at - frame * hop];
                }
                *o = sum / weight;
            }
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synthesis_inverts_analysis() {
        let spectrum = Spectrum::new(16, 4);
        for l in [16, 480, 9600] {
            let samples: Vec<f32> = (0..l).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
            let parts = spectrum.analyse(&samples);
            assert_eq!(parts.len(), (l / 4 + 1) * 18);
            let back = spectrum.synthesise(&parts);
            assert_eq!(back.len(), l);
            assert!(samples.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }

    #[test]
    fn a_constant_has_one_bin_and_its_neighbour() {
        // The periodic Hann window of a constant: half its length at 0, minus a quarter at ±1.
        let parts = Spectrum::new(16, 4).analyse(&[1.0; 64]);
        let frame = &parts[5 * 18..6 * 18];
        for (k, v) in frame.iter().enumerate() {
            let truth = [8.0, -4.0].get(k).copied().unwrap_or(0.0);
            assert!((v - truth).abs() < 1e-5, "{k}: {v}");
        }
    }
}
