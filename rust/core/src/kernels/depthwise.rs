//! Depthwise Conv1d over channels-last `[T, C]`: every channel has its own taps. Weights are `[kernel, C]`.

use rayon::prelude::*;

use super::simd::dispatch;
use crate::threads::each;

/// Rows that a task handles.
const STRIP: usize = 16;

/// Convolves `x` `[t, channels]` with `weight` `[kernel, channels]`, `left` zero rows before it and as many after it as keep
/// its length.
pub fn depthwise(x: &[f32], weight: &[f32], channels: usize, left: usize) -> Vec<f32> {
    assert!(channels > 0 && x.len().is_multiple_of(channels) && weight.len().is_multiple_of(channels), "depthwise: sizes");
    let mut out = vec![0.0; x.len()];
    each(out.par_chunks_mut(STRIP * channels).enumerate(), |(i, out)| strip(x, weight, channels, left, i * STRIP, out));
    out
}

dispatch!(
    fn strip(x: &[f32], weight: &[f32], channels: usize, left: usize, first: usize, out: &mut [f32]);
    fma => {
        let t = x.len() / channels;
        for (i, out) in out.chunks_exact_mut(channels).enumerate() {
            for (tap, weight) in weight.chunks_exact(channels).enumerate() {
                let at = (first + i + tap).wrapping_sub(left);
                if at < t {
                    let x = &x[at * channels..(at + 1) * channels];
                    for ((o, x), w) in out.iter_mut().zip(x).zip(weight) {
                        *o = fma(*x, *w, *o);
                    }
                }
            }
        }
    }
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    #[test]
    fn agrees_with_the_definition() {
        at_every_level(|| {
            for (t, channels, kernel, left) in [(1, 3, 31, 15), (40, 20, 31, 15), (33, 5, 4, 1)] {
                let x: Vec<f32> = (0..t * channels).map(|i| ((i * 29 % 37) as f32 - 18.0) / 9.0).collect();
                let w: Vec<f32> = (0..kernel * channels).map(|i| ((i * 13 % 41) as f32 - 20.0) / 20.0).collect();
                let found = depthwise(&x, &w, channels, left);
                for (i, value) in found.iter().enumerate() {
                    let (at, c) = (i / channels, i % channels);
                    let sum: f64 = (0..kernel)
                        .filter(|tap| (left..left + t).contains(&(at + tap)))
                        .map(|tap| f64::from(x[(at + tap - left) * channels + c]) * f64::from(w[tap * channels + c]))
                        .sum();
                    assert!((f64::from(*value) - sum).abs() < 1e-4, "{at},{c}: {value} {sum}");
                }
            }
        });
    }
}
