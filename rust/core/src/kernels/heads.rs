//! Keys and values of attention heads in panels, as the products read them.

use super::panels::{Panels, Plain};
use super::tiles::any_available;

/// Keys and values of every head, dealt once for all its queries.
pub(super) struct Heads {
    keys: Vec<Panels>,
    values: Vec<Panels>,
}

impl Heads {
    /// Deals `k` and `v` `[s, heads * size]`; `None` where neither can be multiplied.
    pub(super) fn new(k: &[f32], v: &[f32], heads: usize, size: usize) -> Option<Self> {
        let (width, s) = (heads * size, k.len() / (heads * size));
        if !any_available() || s == 0 {
            return None;
        }
        let key = |h: usize| Panels::new(Plain::new(&k[h * size..], s, size, width, 1));
        let value = |h: usize| Panels::new(Plain::new(&v[h * size..], size, s, 1, width));
        Some(Self { keys: (0..heads).map(key).collect(), values: (0..heads).map(value).collect() })
    }

    /// Adds `q · keys` to `scores` `[rows, s]`.
    ///
    /// # Safety
    /// `rows` rows of `size` numbers at `q + i * stride` must be valid.
    pub(super) unsafe fn score(&self, head: usize, rows: usize, q: *const f32, stride: usize, scores: &mut [f32]) {
        let keys = &self.keys[head];
        let (s, _) = keys.dims();
        assert_eq!(scores.len(), rows * s, "attention: scores");
        // SAFETY: promised by the caller; the scores have the size of the product.
        unsafe { keys.multiply(0..keys.count(), rows, q, stride, scores.as_mut_ptr(), s) };
    }

    /// Adds `weights · values` to `rows` rows of `size` numbers at `out + i * stride`, for `weights` `[rows, s]`.
    ///
    /// # Safety
    /// Those rows must be valid and nothing else may touch them meanwhile.
    pub(super) unsafe fn mix(&self, head: usize, rows: usize, weights: &[f32], out: *mut f32, stride: usize) {
        let values = &self.values[head];
        let (_, s) = values.dims();
        assert_eq!(weights.len(), rows * s, "attention: weights");
        // SAFETY: promised by the caller; the weights have the size of the product.
        unsafe { values.multiply(0..values.count(), rows, weights.as_ptr(), s, out, stride) };
    }
}
