//! Keys and values of one attention layer in float16, and the attention of one query over them.
//!
//! A step of decoding reads every position's keys and values once: half the bytes is half the time. Everything is computed in
//! float32. A head's keys lie as `[positions / LANES, size, LANES]`, so that the scores of [`LANES`] positions are one vector and
//! nothing is added across lanes; its values as `[positions, size]`. Both are read strictly in order.

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::maths::from_half;
use super::norm::softmax_row;
use super::simd::dispatch;

/// Positions whose scores are computed together.
const LANES: usize = 16;
/// The largest finite float16; keys and values beyond it are cut to it.
const LARGEST: f32 = 65504.0;

/// Keys and values of `heads` heads of `size` channels.
#[derive(Debug)]
pub struct HalfCache {
    keys: Vec<u16>,
    values: Vec<u16>,
    heads: usize,
    size: usize,
    capacity: usize,
    len: usize,
}

dispatch!(
    /// Scores of the first `scores.len()` positions (whole blocks): `scale · q · k`.
    fn score(q: &[f32], keys: &[u16], scale: f32, scores: &mut [f32]);
    fma => {
        // four sums of every position, so that no addition waits for the one before it
        let add = |sums: [f32; LANES], q: f32, keys: &[u16; LANES]| -> [f32; LANES] {
            let mut next = sums;
            for (sum, k) in next.iter_mut().zip(keys) {
                *sum = fma(q, from_half(*k), *sum);
            }
            next
        };
        let (q, rest) = q.as_chunks::<4>();
        for (block, out) in keys.chunks_exact((4 * q.len() + rest.len()) * LANES).zip(scores.as_chunks_mut::<LANES>().0) {
            let (mut s, mut t, mut u, mut v) = ([0f32; LANES], [0f32; LANES], [0f32; LANES], [0f32; LANES]);
            let (block, last) = block.as_chunks::<LANES>().0.split_at(4 * q.len());
            for (q, keys) in q.iter().zip(block.as_chunks::<4>().0) {
                s = add(s, q[0], &keys[0]);
                t = add(t, q[1], &keys[1]);
                u = add(u, q[2], &keys[2]);
                v = add(v, q[3], &keys[3]);
            }
            for (q, keys) in rest.iter().zip(last) {
                s = add(s, *q, keys);
            }
            for (l, o) in out.iter_mut().enumerate() {
                *o = ((s[l] + t[l]) + (u[l] + v[l])) * scale;
            }
        }
    }
);

dispatch!(
    /// `out = Σ weights[j] · values[j]`, rows of `out.len()` numbers.
    fn mix(weights: &[f32], values: &[u16], out: &mut [f32]);
    fma => {
        out.fill(0.0);
        let n = out.len();
        let (weights, rest) = weights.as_chunks::<4>();
        let (rows, last) = values.split_at(4 * weights.len() * n);
        for (w, rows) in weights.iter().zip(rows.chunks_exact(4 * n)) {
            let ((a, b), (c, d)) = (rows[..2 * n].split_at(n), rows[2 * n..].split_at(n));
            for ((((o, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                let first = fma(w[1], from_half(*b), fma(w[0], from_half(*a), *o));
                *o = fma(w[3], from_half(*d), fma(w[2], from_half(*c), first));
            }
        }
        for (weight, row) in rest.iter().zip(last.chunks_exact(n)) {
            for (o, v) in out.iter_mut().zip(row) {
                *o = fma(*weight, from_half(*v), *o);
            }
        }
    }
);

impl HalfCache {
    /// Room for `capacity` positions.
    pub fn new(capacity: usize, heads: usize, size: usize) -> Self {
        let room = heads * capacity.next_multiple_of(LANES) * size;
        let zeros = || vec![0; room]; // pages that the system hands out when they are first written
        Self { keys: zeros(), values: zeros(), heads, size, capacity, len: 0 }
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing held yet?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Positions that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Appends rows of `heads * size` keys and values.
    pub fn append(&mut self, keys: &[f32], values: &[f32]) {
        let (width, size) = (self.heads * self.size, self.size);
        let (rows, from) = (keys.len() / width, self.len);
        assert!(keys.len() == rows * width && values.len() == keys.len() && from + rows <= self.capacity, "cache: size");
        let head = self.capacity.next_multiple_of(LANES) * size;
        let halves = self.keys.par_chunks_mut(head).zip(self.values.par_chunks_mut(head));
        halves.enumerate().with_min_len(if rows == 1 { self.heads } else { 1 }).for_each(|(h, (to_keys, to_values))| {
            let mut cut = vec![0f32; size];
            for i in 0..rows {
                let (at, row) = (from + i, i * width + h * size..i * width + (h + 1) * size);
                let block = &mut to_keys[at / LANES * LANES * size + at % LANES..];
                for (c, k) in keys[row.clone()].iter().enumerate() {
                    block[c * LANES] = f16::from_f32(k.clamp(-LARGEST, LARGEST)).to_bits();
                }
                cut.iter_mut().zip(&values[row]).for_each(|(cut, v)| *cut = v.clamp(-LARGEST, LARGEST));
                let to: &mut [f16] = half::slice::HalfBitsSliceExt::reinterpret_cast_mut(&mut to_values[at * size..][..size]);
                to.convert_from_f32_slice(&cut);
            }
        });
        self.len += rows;
    }

    /// Attention of `q` `[heads * size]` over all positions: `softmax(scale q kᵀ) v`, `[heads * size]`.
    pub fn attend(&self, q: &[f32], scale: f32) -> Vec<f32> {
        assert!(q.len() == self.heads * self.size && self.len > 0, "cache: query");
        let head = self.capacity.next_multiple_of(LANES) * self.size;
        let mut out = vec![0.0; q.len()];
        let task = |(h, out): (usize, &mut [f32])| {
            let mut scores = vec![0.0; self.len.next_multiple_of(LANES)];
            score(&q[h * self.size..][..self.size], &self.keys[h * head..(h + 1) * head], scale, &mut scores);
            let scores = &mut scores[..self.len];
            softmax_row(scores);
            mix(scores, &self.values[h * head..(h + 1) * head], out);
        };
        if self.len * q.len() < 1 << 16 {
            out.chunks_mut(self.size).enumerate().for_each(task);
        } else {
            out.par_chunks_mut(self.size).enumerate().for_each(task);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::attention::{Attention, attention};
    use super::*;

    fn noise(n: usize, a: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * a % 211) as f32 - 105.0) / 70.0).collect()
    }

    #[test]
    fn agrees_with_attention_over_rounded_keys_and_values() {
        for (s, heads, size) in [(1, 1, 4), (16, 3, 6), (37, 2, 64), (300, 16, 64)] {
            let width = heads * size;
            let (q, k, v) = (noise(width, 31), noise(s * width, 57), noise(s * width, 73));
            let mut cache = HalfCache::new(s + 5, heads, size);
            let first = s / 2 * width;
            cache.append(&k[..first], &v[..first]);
            for (k, v) in k[first..].chunks(width).zip(v[first..].chunks(width)) {
                cache.append(k, v);
            }
            assert_eq!(cache.len(), s);
            let round = |x: &[f32]| -> Vec<f32> { x.iter().map(|v| f16::from_f32(*v).to_f32()).collect() };
            let (k, v) = (round(&k), round(&v));
            let exact = Attention { q: &q, k: &k, v: &v, heads, size, scale: 0.3, bias: None, causal: true };
            for (found, expected) in cache.attend(&q, 0.3).iter().zip(attention(exact)) {
                assert!((found - expected).abs() < 1e-5, "{s} {heads} {size}: {found} {expected}");
            }
        }
    }

    #[test]
    fn large_values_stay_finite() {
        let mut cache = HalfCache::new(2, 1, 4);
        cache.append(&[1e9, -1e9, 1.0, 0.0], &[1e9, -1e9, 1e-7, 3.0]);
        let out = cache.attend(&[1.0; 4], 1.0);
        assert_eq!([out[0], out[1], out[3]], [LARGEST, -LARGEST, 3.0]);
        assert!((out[2] - 1e-7).abs() < 4e-8, "a subnormal number: {}", out[2]);
    }
}
