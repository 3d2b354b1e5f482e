//! Keys and values of one attention layer, head by head, and the attention of one query over them.
//!
//! A cache may begin with the positions of another one, which it reads and does not hold: utterances of one voice share them.
//! How a head keeps its numbers is its own affair (`float_cache`, `half_cache`); everything is computed in float32.

use std::cell::RefCell;
use std::sync::Arc;

use rayon::prelude::*;

use super::norm::softmax_row;
use crate::threads::each;

/// Keys and values of one head of `size` channels.
pub trait Head: Send + Sync + std::fmt::Debug {
    /// Positions whose scores are computed together.
    const LANES: usize;

    /// Room for `capacity` positions.
    fn new(capacity: usize, size: usize) -> Self;

    /// Keeps `key` and `value` `[size]` as position `at`.
    fn write(&mut self, at: usize, key: &[f32], value: &[f32]);

    /// Key and value `[size]` of position `at`.
    fn read(&self, at: usize, key: &mut [f32], value: &mut [f32]);

    /// `scale · q · k` of the first `scores.len()` positions, a multiple of [`Self::LANES`].
    fn score(&self, q: &[f32], scale: f32, scores: &mut [f32]);

    /// `out += Σ weights[j] · values[j]` over the first `weights.len()` positions, in order.
    fn mix(&self, weights: &[f32], out: &mut [f32]);

    /// Bytes set aside.
    fn bytes(&self) -> usize;
}

/// Keys and values of `heads` heads of `size` channels.
#[derive(Debug)]
pub struct Cache<H> {
    before: Option<Arc<Cache<H>>>,
    heads: Vec<H>,
    size: usize,
    capacity: usize,
    len: usize,
}

impl<H: Head> Cache<H> {
    /// Room for `capacity` positions.
    pub fn new(capacity: usize, heads: usize, size: usize) -> Self {
        let heads = (0..heads).map(|_| H::new(capacity, size)).collect();
        Self { before: None, heads, size, capacity, len: 0 }
    }

    /// The positions of `before`, and room up to `capacity` positions in all.
    pub fn after(before: Arc<Self>, capacity: usize) -> Self {
        assert!(before.before.is_none() && capacity >= before.len, "cache: positions before");
        let own = Self::new(capacity - before.len, before.heads.len(), before.size);
        Self { before: Some(before), ..own }
    }

    fn before(&self) -> usize {
        self.before.as_ref().map_or(0, |before| before.len)
    }

    /// Positions held, those of another cache among them.
    pub fn len(&self) -> usize {
        self.before() + self.len
    }

    /// Nothing held yet?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes set aside here, those of another cache not among them.
    pub fn bytes(&self) -> usize {
        self.heads.iter().map(H::bytes).sum()
    }

    /// Appends rows of `heads * size` keys and values.
    pub fn append(&mut self, keys: &[f32], values: &[f32]) {
        let (width, size, from) = (self.heads.len() * self.size, self.size, self.len);
        let rows = keys.len() / width;
        assert!(keys.len() == rows * width && values.len() == keys.len() && from + rows <= self.capacity, "cache: size");
        let least = if rows == 1 { self.heads.len() } else { 1 };
        each(self.heads.par_iter_mut().enumerate().with_min_len(least), |(h, head)| {
            for (i, (key, value)) in keys.chunks_exact(width).zip(values.chunks_exact(width)).enumerate() {
                head.write(from + i, &key[h * size..][..size], &value[h * size..][..size]);
            }
        });
        self.len += rows;
    }

    /// All keys and all values, `[len, heads * size]` each.
    pub fn rows(&self) -> (Vec<f32>, Vec<f32>) {
        let (width, size, before) = (self.heads.len() * self.size, self.size, self.before());
        let (mut keys, mut values) = (vec![0.0; self.len() * width], vec![0.0; self.len() * width]);
        let rows = keys.par_chunks_exact_mut(width).zip(values.par_chunks_exact_mut(width)).enumerate();
        each(rows.with_min_len(16), |(at, (keys, values))| {
            let (heads, at) = match &self.before {
                Some(shared) if at < before => (&shared.heads, at),
                _ => (&self.heads, at - before),
            };
            let columns = keys.chunks_exact_mut(size).zip(values.chunks_exact_mut(size));
            heads.iter().zip(columns).for_each(|(head, (key, value))| head.read(at, key, value));
        });
        (keys, values)
    }

    /// For a step: the heads may be given to several threads.
    pub(crate) fn step(&mut self) -> StepHeads<H> {
        assert!(self.len < self.capacity, "cache: full");
        let before = self.before.as_ref().map_or(std::ptr::null(), |before| before.heads.as_ptr());
        let (heads, count) = (self.heads.as_mut_ptr(), self.heads.len());
        StepHeads { heads, count, before, before_len: self.before(), at: self.len, size: self.size }
    }

    /// The step has written a position of every head.
    pub(crate) fn stepped(&mut self) {
        self.len += 1;
    }

    /// Attention of `q` `[heads * size]` over all positions, `[heads * size]`.
    pub fn attend(&self, q: &[f32], scale: f32) -> Vec<f32> {
        assert!(q.len() == self.heads.len() * self.size && !self.is_empty(), "cache: query");
        let mut out = vec![0.0; q.len()];
        let task = |(h, out): (usize, &mut [f32])| {
            let before = self.before.as_ref().map(|before| (&before.heads[h], before.len));
            attend(before, (&self.heads[h], self.len), &q[h * self.size..][..self.size], scale, out);
        };
        if self.len() * q.len() < 1 << 16 {
            out.chunks_mut(self.size).enumerate().for_each(task);
        } else {
            each(out.par_chunks_mut(self.size).enumerate(), task);
        }
        out
    }
}

thread_local!(static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });

/// `out = softmax(scale q kᵀ) v` over the positions of one head: those `before`, if any, and its own, each with their number.
fn attend<H: Head>(before: Option<(&H, usize)>, (own, len): (&H, usize), q: &[f32], scale: f32, out: &mut [f32]) {
    let first = before.map_or(0, |(_, first)| first);
    SCORES.with_borrow_mut(|scores| {
        let needed = first + len + 2 * H::LANES;
        if scores.len() < needed {
            scores.resize(needed.next_power_of_two(), 0.0);
        }
        if let Some((before, first)) = before {
            before.score(q, scale, &mut scores[..first.next_multiple_of(H::LANES)]);
        }
        // the lanes that the positions before did not fill are written over here
        own.score(q, scale, &mut scores[first..][..len.next_multiple_of(H::LANES)]);
        let scores = &mut scores[..first + len];
        softmax_row(scores);
        out.fill(0.0);
        if let Some((before, first)) = before {
            before.mix(&scores[..first], out);
        }
        own.mix(&scores[first..], out);
    });
}

/// The heads of a cache during a step, which appends one position.
#[derive(Debug)]
pub(crate) struct StepHeads<H> {
    heads: *mut H,
    count: usize,
    before: *const H,
    before_len: usize,
    at: usize,
    size: usize,
}

// SAFETY: `head` alone uses the pointers; its callers promise that the cache is still there and that they share no head.
unsafe impl<H: Head> Send for StepHeads<H> {}
// SAFETY: as above.
unsafe impl<H: Head> Sync for StepHeads<H> {}

impl<H: Head> StepHeads<H> {
    /// Keeps `key` and `value` `[size]` as the next position of head `h` and attends over all with `q`; see [`Cache::attend`].
    ///
    /// # Safety
    /// The cache must not have been moved, dropped or used since [`Cache::step`], and nobody else may use this head meanwhile.
    pub(crate) unsafe fn head(&self, h: usize, q: &[f32], key: &[f32], value: &[f32], scale: f32, out: &mut [f32]) {
        assert!(h < self.count && [q, key, value, out].iter().all(|x| x.len() == self.size), "cache: step");
        // SAFETY: promised by the caller; `h` is one of the heads, and those of the positions before are as many.
        let (own, before) = unsafe { (&mut *self.heads.add(h), self.before.as_ref().map(|_| &*self.before.add(h))) };
        own.write(self.at, key, value);
        attend(before.map(|before| (before, self.before_len)), (own, self.at + 1), q, scale, out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::attention::{Attention, attention};
    use super::super::float_cache::FloatHead;
    use super::super::half_cache::HalfHead;
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    fn noise(n: usize, a: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * a % 211) as f32 - 105.0) / 70.0).collect()
    }

    /// Positions appended together and one by one, alone and behind those of another cache.
    fn filled<H: Head>(k: &[f32], v: &[f32], heads: usize, size: usize, shared: usize) -> Cache<H> {
        let (width, s) = (heads * size, k.len() / (heads * size));
        let mut cache = Cache::new(if shared > 0 { shared } else { s + 5 }, heads, size);
        let first = if shared > 0 { shared } else { s / 2 };
        cache.append(&k[..first * width], &v[..first * width]);
        if shared > 0 {
            cache = Cache::after(Arc::new(cache), s);
        }
        for (k, v) in k.chunks(width).zip(v.chunks(width)).skip(first) {
            cache.append(k, v);
        }
        assert_eq!((cache.len(), cache.is_empty()), (s, false));
        cache
    }

    fn check<H: Head>(round: impl Fn(f32) -> f32) {
        for (s, heads, size) in [(1, 1, 4), (15, 2, 8), (16, 3, 5), (37, 3, 8), (130, 2, 64)] {
            let width = heads * size;
            let (q, k, v) = (noise(width, 31), noise(s * width, 57), noise(s * width, 73));
            let alone = filled::<H>(&k, &v, heads, size, 0);
            let (keys, values) = alone.rows();
            let rounded = |x: &[f32]| -> Vec<f32> { x.iter().map(|v| round(*v)).collect() };
            assert!(keys == rounded(&k) && values == rounded(&v), "{s} {heads} {size}");
            let exact = Attention { q: &q, k: &keys, v: &values, heads, size, scale: 0.3, bias: None, causal: true };
            let found = alone.attend(&q, 0.3);
            for (found, expected) in found.iter().zip(attention(exact)) {
                assert!((found - expected).abs() < 1e-5, "{s} {heads} {size}: {found} {expected}");
            }
            for shared in [1, s / 3, s - 1].into_iter().filter(|shared| (1..s).contains(shared)) {
                let behind = filled::<H>(&k, &v, heads, size, shared);
                assert!(behind.attend(&q, 0.3) == found && behind.rows() == (keys.clone(), values.clone()), "{shared} of {s}");
            }
        }
    }

    #[test]
    fn one_query_agrees_with_the_attention_kernel() {
        at_every_level(|| {
            check::<FloatHead>(|v| v);
            check::<HalfHead>(|v| half::f16::from_f32(v).to_f32());
        });
    }
}
