//! Keys and values of a head in float16.
//!
//! A step of decoding reads every position's keys and values once: half the bytes is half the time. The keys lie as
//! `[positions / LANES, size, LANES]`, so that the scores of [`LANES`] positions are one vector and nothing is added across lanes;
//! the values as `[positions, size]`. Both are read strictly in order.

#[cfg(target_arch = "aarch64")]
mod neon;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::cache::Head;
use super::maths::from_half;
use super::simd::dispatch;

/// Positions whose scores are computed together.
const LANES: usize = 16;
/// The largest finite float16; keys and values beyond it are cut to it, infinity too. NaN stays NaN.
const LARGEST: f32 = 65504.0;

/// Numbers that are rounded together.
const PIECE: usize = 64;

/// One head.
#[derive(Debug)]
pub struct HalfHead {
    keys: Vec<u16>,
    values: Vec<u16>,
    size: usize,
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
    /// `out += Σ weights[j] · values[j]`, rows of `out.len()` numbers.
    fn mix(weights: &[f32], values: &[u16], out: &mut [f32]);
    fma => {
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

/// The same sums in the same order, with the instruction that reads float16.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, _mm256_loadu_si256, _mm512_add_ps, _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mul_ps,
        _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };

    use super::LANES;

    /// Sixteen numbers.
    #[target_feature(enable = "avx512f")]
    fn read(from: &[u16; LANES]) -> __m512 {
        // SAFETY: 32 bytes are read.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(from.as_ptr().cast()) })
    }

    /// As [`super::score`], for a multiple of four channels.
    #[target_feature(enable = "avx512f")]
    pub(super) fn score(q: &[f32], keys: &[u16], scale: f32, scores: &mut [f32]) {
        let (q, scale) = (q.as_chunks::<4>().0, _mm512_set1_ps(scale));
        for (block, out) in keys.chunks_exact(4 * q.len() * LANES).zip(scores.as_chunks_mut::<LANES>().0) {
            let mut sums = [_mm512_setzero_ps(); 4];
            for (q, keys) in q.iter().zip(block.as_chunks::<LANES>().0.as_chunks::<4>().0) {
                for i in 0..4 {
                    sums[i] = _mm512_fmadd_ps(_mm512_set1_ps(q[i]), read(&keys[i]), sums[i]);
                }
            }
            let sum = _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]));
            // SAFETY: `out` has 16 numbers.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), _mm512_mul_ps(sum, scale)) };
        }
    }

    /// As [`super::mix`], for 64 channels.
    #[target_feature(enable = "avx512f")]
    pub(super) fn mix(weights: &[f32], values: &[u16], out: &mut [f32; 4 * LANES]) {
        let mut sums = [_mm512_setzero_ps(); 4];
        let parts = out.as_chunks_mut::<LANES>().0;
        for (sum, part) in sums.iter_mut().zip(parts.iter()) {
            // SAFETY: a part has 16 numbers.
            *sum = unsafe { _mm512_loadu_ps(part.as_ptr()) };
        }
        for (weight, row) in weights.iter().zip(values.as_chunks::<LANES>().0.as_chunks::<4>().0) {
            let weight = _mm512_set1_ps(*weight);
            for i in 0..4 {
                sums[i] = _mm512_fmadd_ps(weight, read(&row[i]), sums[i]);
            }
        }
        for (sum, part) in sums.iter().zip(parts) {
            // SAFETY: a part has 16 numbers.
            unsafe { _mm512_storeu_ps(part.as_mut_ptr(), *sum) };
        }
    }
}

/// `x` in float16, numbers beyond the largest cut to it.
fn round(x: &[f32]) -> [f16; PIECE] {
    let (mut cut, mut to) = ([0f32; PIECE], [f16::ZERO; PIECE]);
    cut.iter_mut().zip(x).for_each(|(cut, v)| *cut = v.clamp(-LARGEST, LARGEST));
    to.convert_from_f32_slice(&cut);
    to
}

impl Head for HalfHead {
    const LANES: usize = LANES;

    fn new(capacity: usize, size: usize) -> Self {
        let room = capacity.next_multiple_of(LANES) * size;
        let zeros = || vec![0; room]; // pages that the system hands out when they are first written
        Self { keys: zeros(), values: zeros(), size }
    }

    fn write(&mut self, at: usize, key: &[f32], value: &[f32]) {
        let block = &mut self.keys[at / LANES * LANES * self.size + at % LANES..];
        for (c, key) in key.chunks(PIECE).enumerate() {
            let to = block[c * PIECE * LANES..].iter_mut().step_by(LANES);
            to.zip(&round(key)[..key.len()]).for_each(|(to, k)| *to = k.to_bits());
        }
        let row = &mut self.values[at * self.size..][..self.size];
        for (to, value) in row.chunks_mut(PIECE).zip(value.chunks(PIECE)) {
            to.iter_mut().zip(round(value)).for_each(|(to, v)| *to = v.to_bits());
        }
    }

    fn read(&self, at: usize, key: &mut [f32], value: &mut [f32]) {
        let block = self.keys[at / LANES * LANES * self.size + at % LANES..].iter().step_by(LANES);
        key.iter_mut().zip(block).for_each(|(to, k)| *to = from_half(*k));
        value.iter_mut().zip(&self.values[at * self.size..]).for_each(|(to, v)| *to = from_half(*v));
    }

    fn score(&self, q: &[f32], scale: f32, scores: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if super::level::level().has_avx512() && q.len().is_multiple_of(4) {
            // SAFETY: the CPU has AVX-512.
            return unsafe { avx512::score(q, &self.keys, scale, scores) };
        }
        #[cfg(target_arch = "aarch64")]
        if q.len().is_multiple_of(4) {
            // SAFETY: every AArch64 has NEON.
            return unsafe { neon::score(q, &self.keys, scale, scores) };
        }
        score(q, &self.keys, scale, scores);
    }

    fn mix(&self, weights: &[f32], out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if let (true, Ok(out)) = (super::level::level().has_avx512(), out.try_into()) {
            // SAFETY: the CPU has AVX-512.
            return unsafe { avx512::mix(weights, &self.values, out) };
        }
        #[cfg(target_arch = "aarch64")]
        if let Ok(out) = <&mut [f32; neon::CHANNELS]>::try_from(&mut *out) {
            // SAFETY: every AArch64 has NEON.
            return unsafe { neon::mix(weights, &self.values, out) };
        }
        mix(weights, &self.values, out);
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.keys) + size_of_val(&*self.values)
    }
}

#[cfg(test)]
mod tests {
    use super::super::cache::Cache;
    use super::*;

    #[cfg(target_arch = "x86_64")]
    use super::avx512 as fast;
    #[cfg(target_arch = "aarch64")]
    use super::neon as fast;

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn the_instruction_for_float16_gives_the_same_bits() {
        use crate::kernels::level::{Level, level};
        if !level().has_avx512() && level() != Level::Neon {
            return;
        }
        let noise = |n: usize, by: usize| -> Vec<f32> { (0..n).map(|i| ((i * by % 211) as f32 - 105.0) / 70.1).collect() };
        let mut head = HalfHead::new(41, 64);
        let (keys, values) = (noise(41 * 64, 31), noise(41 * 64, 57));
        for at in 0..41 {
            head.write(at, &keys[at * 64..][..64], &values[at * 64..][..64]);
        }
        head.values[7] = 3; // a subnormal number
        let (q, weights, start) = (noise(64, 13), noise(41, 17), noise(64, 19));
        for q in [&q[..], &q[..36]] {
            let (mut found, mut expected) = ([0.0; 48], [0.0; 48]);
            score(q, &head.keys, 0.3, &mut expected);
            // SAFETY: the CPU has AVX-512 or NEON.
            unsafe { fast::score(q, &head.keys, 0.3, &mut found) };
            assert_eq!(found.map(f32::to_bits), expected.map(f32::to_bits));
        }
        for n in [1, 4, 6, 41] {
            let mut expected: [f32; 64] = std::array::from_fn(|i| start[i]);
            let mut found = expected;
            mix(&weights[..n], &head.values, &mut expected);
            // SAFETY: the CPU has AVX-512 or NEON.
            unsafe { fast::mix(&weights[..n], &head.values, &mut found) };
            assert_eq!(found.map(f32::to_bits), expected.map(f32::to_bits), "{n}");
        }
    }

    #[test]
    fn every_float16_is_read_as_what_it_is_at_every_level() {
        crate::kernels::level::testing::at_every_level(|| {
            let same = |found: f32, bits: u16| {
                let truth = f16::from_bits(bits).to_f32();
                assert!(found == truth || found.is_nan() && truth.is_nan(), "{bits:#06x}: {found} for {truth}");
            };
            for first in (0..=u16::MAX).step_by(64) {
                let mut head = HalfHead::new(LANES, 64);
                head.values[..64].iter_mut().zip(first..=u16::MAX).for_each(|(v, bits)| *v = bits);
                let mut out = [0.0; 64];
                head.mix(&[1.0], &mut out);
                out.iter().zip(first..=u16::MAX).for_each(|(found, bits)| same(*found, bits));
                let (mut key, mut value) = ([0.0; 64], [0.0; 64]);
                head.read(0, &mut key, &mut value);
                value.iter().zip(first..=u16::MAX).for_each(|(found, bits)| same(*found, bits));
            }
            for size in [1, 4, 7] {
                for first in (0..=u16::MAX).step_by(LANES) {
                    let mut head = HalfHead::new(LANES, size);
                    head.keys[..LANES].iter_mut().zip(first..=u16::MAX).for_each(|(k, bits)| *k = bits);
                    let mut q = vec![0.0; size];
                    q[0] = 1.0;
                    let mut scores = [0.0; LANES];
                    head.score(&q, 1.0, &mut scores);
                    scores.iter().zip(first..=u16::MAX).for_each(|(found, bits)| same(*found, bits));
                }
            }
        });
    }

    #[test]
    fn every_kind_of_number_is_written_as_it_is_or_cut_at_every_level() {
        crate::kernels::level::testing::at_every_level(|| {
            let special =
                [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, LARGEST, 65519.0, 65520.0, 1e9, -1e30];
            let small =
                [5.9604645e-8, 2.9802322e-8, 2.98e-8, -6.1e-5, f32::MIN_POSITIVE, 1e-45, 1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0];
            let numbers: Vec<f32> = special.into_iter().chain(small).cycle().take(130).collect();
            let mut head = HalfHead::new(LANES, numbers.len());
            head.write(3, &numbers, &numbers);
            let (mut keys, mut values) = (vec![0.0; numbers.len()], vec![0.0; numbers.len()]);
            head.read(3, &mut keys, &mut values);
            for (i, number) in numbers.iter().enumerate() {
                let truth = f16::from_f32(number.clamp(-LARGEST, LARGEST)).to_f32();
                for found in [keys[i], values[i]] {
                    let same = found.to_bits() == truth.to_bits() || found.is_nan() && number.is_nan();
                    assert!(same, "{number}: {found} for {truth}");
                }
            }
        });
    }

    #[test]
    fn large_values_stay_finite() {
        let mut cache = Cache::<HalfHead>::new(2, 1, 4);
        cache.append(&[1e9, -1e9, 1.0, 0.0], &[1e9, -1e9, 1e-7, 3.0]);
        let out = cache.attend(&[1.0; 4], 1.0);
        assert_eq!([out[0], out[1], out[3]], [LARGEST, -LARGEST, 3.0]);
        assert!((out[2] - 1e-7).abs() < 4e-8, "a subnormal number: {}", out[2]);
    }
}
