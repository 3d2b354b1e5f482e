//! The short STFT and inverse STFT of the generator: 16 samples a frame, hop 4, periodic Hann window, centred frames.
//!
//! A frame has `size / 2 + 1` real parts and then as many imaginary parts. The transforms are so short that products with their
//! matrices are the fastest way. Source: `_stft` and `_istft` in `models/s3gen/hifigan.py` of resemble-ai/chatterbox at 5de7a54.

use std::f64::consts::TAU;

use rayon::prelude::*;

use crate::kernels::maths;
use crate::kernels::simd::dispatch;
use crate::threads::each;

/// Frames a task handles.
const PIECE: usize = 1024;
/// Frames whose parts are dealt into rows of their own, long enough for vectors.
const DEALT: usize = 64;
/// Larger angles are left to the standard library.
const LARGE: f32 = 1e4;

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
        each(out.par_chunks_mut(PIECE * parts).enumerate(), |(piece, out)| {
            for (i, frame) in out.chunks_exact_mut(parts).enumerate() {
                let start = ((piece * PIECE + i) * self.hop) as isize - half;
                if start >= 0 && start + self.size as isize <= l {
                    add_products(&samples[start as usize..][..self.size], &self.forward, frame);
                    continue;
                }
                for (n, row) in self.forward.chunks_exact(parts).enumerate() {
                    let at = (start + n as isize).abs();
                    let at = if at < l { at } else { 2 * (l - 1) - at };
                    add_products(&samples[at as usize..=at as usize], row, frame);
                }
            }
        });
        out
    }

    /// Turns log-magnitudes and the arcsines of phases, a half of every frame each, into real and imaginary parts.
    pub(super) fn polar(&self, spectrum: &mut [f32], limit: f32) {
        each(spectrum.par_chunks_mut(PIECE * self.parts()), |piece| {
            let half = self.parts() / 2;
            let (mut sizes, mut angles) = (vec![0.0; DEALT * half], vec![0.0; DEALT * half]);
            for frames in piece.chunks_mut(DEALT * 2 * half) {
                let len = frames.len() / 2;
                let (sizes, angles) = (&mut sizes[..len], &mut angles[..len]);
                let dealt = sizes.chunks_exact_mut(half).zip(angles.chunks_exact_mut(half));
                for ((size, angle), frame) in dealt.zip(frames.chunks_exact(2 * half)) {
                    size.copy_from_slice(&frame[..half]);
                    angle.copy_from_slice(&frame[half..]);
                }
                sines(angles);
                turn(sizes, angles, limit);
                let dealt = sizes.chunks_exact(half).zip(angles.chunks_exact(half));
                for ((real, imaginary), frame) in dealt.zip(frames.chunks_exact_mut(2 * half)) {
                    frame[..half].copy_from_slice(real);
                    frame[half..].copy_from_slice(imaginary);
                }
            }
        });
    }

    /// Samples `[(frames - 1) · hop]` of `spectrum` `[frames, parts]`: overlap-add, divided by the summed squares of the window.
    pub(super) fn synthesise(&self, spectrum: &[f32]) -> Vec<f32> {
        let (size, hop, parts) = (self.size, self.hop, self.parts());
        let count = spectrum.len() / parts;
        let mut frames = vec![0.0; count * size];
        each(frames.par_chunks_mut(PIECE * size).zip(spectrum.par_chunks(PIECE * parts)), |(frames, spectrum)| {
            for (frame, values) in frames.chunks_exact_mut(size).zip(spectrum.chunks_exact(parts)) {
                add_products(values, &self.backward, frame);
            }
        });
        let mut out = vec![0.0; count.saturating_sub(1) * hop];
        each(out.par_chunks_mut(PIECE * hop).enumerate(), |(piece, out)| {
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

dispatch!(
    /// `sums += Σ values[i] · rows[i]`, in the order of the rows.
    fn add_products(values: &[f32], rows: &[f32], sums: &mut [f32]);
    fma => {
        for (value, row) in values.iter().zip(rows.chunks_exact(sums.len())) {
            sums.iter_mut().zip(row).for_each(|(sum, r)| *sum += value * r);
        }
    }
);

/// `sin x` in place. A number's bits do not depend on the others.
pub(super) fn sines(x: &mut [f32]) {
    let large: Vec<(usize, f32)> = x.iter().copied().enumerate().filter(|(_, v)| v.is_nan() || v.abs() >= LARGE).collect();
    small_sines(x);
    large.into_iter().for_each(|(at, v)| x[at] = v.sin());
}

dispatch!(
    /// The same, for |x| below [`LARGE`].
    fn small_sines(x: &mut [f32]);
    fma => {
        x.iter_mut().for_each(|v| *v = maths::sin(fma, *v));
    }
);

dispatch!(
    /// e^size, at most `limit`, in the directions of `angles`: real and imaginary parts in their places.
    fn turn(sizes: &mut [f32], angles: &mut [f32], limit: f32);
    fma => {
        for (a, b) in sizes.iter_mut().zip(angles) {
            let size = maths::exp(fma, *a).min(limit);
            let (sin, cos) = maths::sin_cos(fma, *b);
            (*a, *b) = (size * cos, size * sin);
        }
    }
);

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

    #[test]
    fn a_large_angle_changes_no_other() {
        crate::kernels::level::testing::at_every_level(|| {
            let mut alone: Vec<f32> = (0..37).map(|i| i as f32 * 0.37 - 6.0).collect();
            let mut beside = alone.clone();
            (beside[0], beside[20]) = (3e7, f32::NAN);
            sines(&mut alone);
            sines(&mut beside);
            assert!(beside[0] == 3e7f32.sin() && beside[20].is_nan());
            assert!((1..37).filter(|i| *i != 20).all(|i| alone[i].to_bits() == beside[i].to_bits()));
        });
    }

    #[test]
    fn parts_are_those_of_the_definition() {
        crate::kernels::level::testing::at_every_level(|| {
            let spectrum = Spectrum::new(16, 4);
            for (frames, factor) in [(1, 0.1), (65, 0.1), (64, 3e4)] {
                let values: Vec<f32> = (0..frames * 18).map(|i| ((i * 37 % 101) as f32 - 50.0) * factor).collect();
                let mut found = values.clone();
                spectrum.polar(&mut found, 100.0);
                for (frame, found) in values.chunks(18).zip(found.chunks(18)) {
                    for k in 0..9 {
                        let (size, angle) = (f64::from(frame[k]).exp().min(100.0), f64::from(frame[9 + k]).sin());
                        let error = (f64::from(found[k]) - size * angle.cos())
                            .abs()
                            .max((f64::from(found[9 + k]) - size * angle.sin()).abs());
                        assert!(error < 1e-6 * size.max(1.0), "{} {}: {error:e}", frame[k], frame[9 + k]);
                    }
                }
            }
        });
    }
}
