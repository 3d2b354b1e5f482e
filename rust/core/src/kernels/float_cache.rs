//! Keys and values of a head in float32, `[positions, size]` each.

use super::cache::Head;
use super::matmul::dot_lanes;
use super::simd::dispatch;

/// One head.
#[derive(Debug)]
pub struct FloatHead {
    keys: Vec<f32>,
    values: Vec<f32>,
    size: usize,
}

dispatch!(
    /// `scores[j] = scale · (q · row j)`.
    fn score(q: &[f32], keys: &[f32], scale: f32, scores: &mut [f32]);
    fma => {
        for (score, key) in scores.iter_mut().zip(keys.chunks_exact(q.len())) {
            *score = dot_lanes(fma, q, key) * scale;
        }
    }
);

dispatch!(
    /// `out += Σ weights[j] · row j`.
    fn mix(weights: &[f32], values: &[f32], out: &mut [f32]);
    fma => {
        for (weight, row) in weights.iter().zip(values.chunks_exact(out.len())) {
            out.iter_mut().zip(row).for_each(|(o, v)| *o = fma(*weight, *v, *o));
        }
    }
);

impl Head for FloatHead {
    const LANES: usize = 1;

    fn new(capacity: usize, size: usize) -> Self {
        let zeros = || vec![0.0; capacity * size]; // pages that the system hands out when they are first written
        Self { keys: zeros(), values: zeros(), size }
    }

    fn write(&mut self, at: usize, key: &[f32], value: &[f32]) {
        let place = at * self.size..(at + 1) * self.size;
        self.keys[place.clone()].copy_from_slice(key);
        self.values[place].copy_from_slice(value);
    }

    fn read(&self, at: usize, key: &mut [f32], value: &mut [f32]) {
        let place = at * self.size..(at + 1) * self.size;
        key.copy_from_slice(&self.keys[place.clone()]);
        value.copy_from_slice(&self.values[place]);
    }

    fn score(&self, q: &[f32], scale: f32, scores: &mut [f32]) {
        score(q, &self.keys, scale, scores);
    }

    fn mix(&self, weights: &[f32], out: &mut [f32]) {
        mix(weights, &self.values, out);
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.keys) + size_of_val(&*self.values)
    }
}
