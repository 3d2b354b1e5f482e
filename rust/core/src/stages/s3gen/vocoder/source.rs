//! The excitation: sines at the harmonics of the fundamental frequency where it is voiced, noise where it is not.
//!
//! `f0` `[F]`, start phases `[harmonics]`, noise `[hop · F, harmonics]` → `[hop · F]`. The phase is a running sum that is kept in
//! float64, rounded to float32 and only then reduced to its fraction, as upstream's cumulative sum on the CPU does: after 10 s
//! the rounding alone is up to 5e-4 cycles, which is audible in the comparison, so that it has to be the same.
//! Source: `SineGen` and `SourceModuleHnNSF` in `models/s3gen/hifigan.py` of resemble-ai/chatterbox at 5de7a54.

use rayon::prelude::*;

use super::RATE;
use super::spectrum::sines;
use crate::config::Vocoder as Config;
use crate::hyperparameters::Hyperparameters;
use crate::kernels::elementwise::{Function, piece};
use crate::threads::run;
use crate::{Matrix, Result, Weights};

/// Frames that a task handles at least.
const FRAMES: usize = 8;

/// The source module.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Mixes the harmonics, `[harmonics]`.
    weight: Vec<f32>,
    bias: f32,
    amplitude: f32,
    noise_std: f32,
    threshold: f32,
}

impl Source {
    pub(super) fn load(weights: &Weights, c: &Config) -> Result<Self> {
        let harmonics = c.harmonics + 1; // the fundamental is the first
        Ok(Self {
            weight: weights.values("weight", &[1, harmonics])?,
            bias: weights.values("bias", &[1])?[0],
            amplitude: c.sine_amplitude as f32,
            noise_std: c.noise_std as f32,
            threshold: c.voiced_threshold as f32,
        })
    }

    /// Sines, with the fundamental.
    pub(super) fn harmonics(&self) -> usize {
        self.weight.len()
    }

    /// Its hyper-parameters; the fundamental is none of the harmonics.
    pub(super) fn hyperparameters(&self) -> Hyperparameters {
        vec![
            ("harmonics", (self.harmonics() - 1).into()),
            ("sine_amplitude", self.amplitude.into()),
            ("noise_std", self.noise_std.into()),
            ("voiced_threshold", self.threshold.into()),
        ]
    }

    /// The excitation; shapes are the caller's to check.
    pub(super) fn signal(&self, f0: &[f32], phases: &[f32], noise: &Matrix, hop: usize) -> Vec<f32> {
        let n = self.harmonics();
        let reached = self.reached(f0, hop);
        let starts: Vec<f32> = (0..n).map(|h| if h == 0 { 0.0 } else { phases[h] }).collect();
        let mut out = vec![0.0; f0.len() * hop];
        let frame = |angles: &mut Vec<f32>, (frame, out): (usize, &mut [f32])| {
            let normals = &noise.data[frame * hop * n..][..hop * n];
            let voiced = f0[frame] > self.threshold;
            if voiced {
                self.angles(f0[frame], &reached[frame * n..][..n], &starts, angles);
                sines(angles);
            }
            for ((o, normals), sines) in out.iter_mut().zip(normals.chunks_exact(n)).zip(angles.chunks_exact(n)) {
                *o = self.bias;
                for ((weight, normal), sine) in self.weight.iter().zip(normals).zip(sines) {
                    let value =
                        if voiced { self.amplitude * sine + self.noise_std * normal } else { self.amplitude / 3.0 * normal };
                    *o += weight * value;
                }
            }
            piece(Function::Tanh, out);
        };
        let frames = out.par_chunks_mut(hop).enumerate().with_min_len(FRAMES);
        run(|| frames.for_each_init(|| vec![0.0; n * hop], frame));
        out
    }

    /// Angles of a frame's harmonics in radians, `[hop, harmonics]`, from the cycles `reached` before it.
    fn angles(&self, f0: f32, reached: &[f64], starts: &[f32], angles: &mut [f32]) {
        let mut sums: Vec<(f64, f64)> = reached.iter().zip(1..).map(|(sum, h)| (*sum, step(f0, h))).collect();
        for angles in angles.chunks_exact_mut(sums.len()) {
            for ((angle, (sum, step)), start) in angles.iter_mut().zip(&mut sums).zip(starts) {
                *sum += *step;
                let rounded = *sum as f32;
                *angle = std::f32::consts::TAU * (rounded - rounded.floor()) + start;
            }
        }
    }

    /// Cycles of every harmonic before each frame, `[F, harmonics]`: the same sums in the same order, of which only the frames'
    /// starts are kept.
    fn reached(&self, f0: &[f32], hop: usize) -> Vec<f64> {
        let n = self.harmonics();
        let mut sums = vec![0f64; n];
        let mut out = Vec::with_capacity(f0.len() * n);
        for f0 in f0 {
            out.extend_from_slice(&sums);
            let steps: Vec<f64> = (1..=n).map(|h| step(*f0, h)).collect();
            for _ in 0..hop {
                sums.iter_mut().zip(&steps).for_each(|(sum, step)| *sum += step);
            }
        }
        out
    }
}

/// Cycles of harmonic `h` in a sample.
fn step(f0: f32, h: usize) -> f64 {
    f64::from(f0 * h as f32 / RATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_accumulate_and_unvoiced_frames_are_noise() {
        let source = Source { weight: vec![1.0, 0.5], bias: 0.1, amplitude: 0.1, noise_std: 0.003, threshold: 10.0 };
        let (f0, hop) = ([240.0f32, 10.0, 120.0], 480);
        let noise = Matrix { rows: 3 * hop, cols: 2, data: (0..6 * hop).map(|i| (i % 13) as f32 / 6.0 - 1.0).collect() };
        let out = source.signal(&f0, &[9.0, 0.5], &noise, hop);
        let mut cycles = 0f64;
        for (i, o) in out.iter().enumerate() {
            let f = f64::from(f0[i / hop]);
            cycles += f / 24000.0;
            let voiced = f > 10.0;
            let value = |h: usize, start: f64| {
                let n = f64::from(noise.data[2 * i + h]);
                let angle = std::f64::consts::TAU * cycles * (h + 1) as f64 + start;
                if voiced { 0.1 * angle.sin() + 0.003 * n } else { 0.1 / 3.0 * n }
            };
            let truth = (0.1 + value(0, 0.0) + 0.5 * value(1, 0.5)).tanh();
            assert!((f64::from(*o) - truth).abs() < 1e-5, "{i}: {o} {truth}");
        }
    }
}
