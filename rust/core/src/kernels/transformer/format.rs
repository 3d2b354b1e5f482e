//! The formats in which strips keep the factors of their products: bfloat16, or float32.

use std::fmt::Debug;
use std::ops::Range;

use crate::kernels::bf16::attention::{BLOCK, Queries, attend};
use crate::kernels::bf16::{self, Bf16Matrix, heads, round_piece};
use crate::kernels::pointer::Part;

/// One head's part of the memory between the regions, for `s` keys.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a, T> {
    pub(crate) s: usize,
    pub(crate) size: usize,
    pub(crate) keys: &'a [T],
    pub(crate) values: &'a [T],
}

/// Some queries of a head.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a, T> {
    /// The first query and how many there are, at most [`Format::QUERIES`].
    pub(crate) first: usize,
    pub(crate) rows: usize,
    /// Distance between the starts of two queries.
    pub(crate) stride: usize,
    pub(crate) scale: f32,
    /// From the first query on, with [`Format::SLACK`] numbers behind the last.
    pub(crate) q: &'a [T],
    /// The queries for the positions, as `q`, and the positions' keys, twice as many less one.
    pub(crate) positions: Option<(&'a [T], &'a [T])>,
}

/// A number of a factor.
pub(crate) trait Format: Copy + Debug + Send + Sync + 'static {
    /// A weight.
    type Matrix: Clone + Debug + Send + Sync;
    /// A number.
    const ZERO: Self;
    /// Numbers behind the last row that a product may read.
    const SLACK: usize;
    /// Queries that a task attends for.
    const QUERIES: usize;
    /// Outputs of a panel.
    const COLUMNS: usize;

    /// Writes `from` in this format.
    fn put(from: &[f32], to: &mut [Self]);

    /// Outputs and inputs of a weight.
    fn dims(weight: &Self::Matrix) -> (usize, usize);

    /// Adds `a · weightᵀ` to `out`, whose first column is the first of `panels`, on this thread.
    ///
    /// # Safety
    /// Rows of the weight's inputs at `a + i * a_stride`, with [`Self::SLACK`] more numbers behind the last, and of as many numbers
    /// as these panels have columns at `out + i * out_stride` must be valid for `i < m`, and nobody else may use those of `out`.
    unsafe fn multiply(
        weight: &Self::Matrix,
        panels: Range<usize>,
        m: usize,
        a: *const Self,
        a_stride: usize,
        out: *mut f32,
        out_stride: usize,
    );

    /// Numbers of a head's `s` keys of `size` channels.
    fn keys_len(s: usize, size: usize) -> usize;

    /// Numbers of a head's `s` values of `size` channels.
    fn values_len(s: usize, size: usize) -> usize;

    /// Writes `rows` keys of a head from row `first` on, a multiple of 16; key i is the `size` numbers from `from[i * stride]` on.
    ///
    /// # Safety
    /// Nobody else may use these keys, up to the next multiple of 16, meanwhile.
    unsafe fn deal_keys(to: Part<'_, Self>, first: usize, rows: usize, size: usize, from: &[f32], stride: usize);

    /// The same for values, of which the head has `s`.
    ///
    /// # Safety
    /// As for the keys.
    unsafe fn deal_values(to: Part<'_, Self>, s: usize, first: usize, rows: usize, size: usize, from: &[f32], stride: usize);

    /// Attention of a task, added to the zeros `out` `[rows, size]`, on this thread.
    fn attend(head: Head<'_, Self>, task: Task<'_, Self>, out: &mut [f32]);
}

/// The bits of a bfloat16.
impl Format for u16 {
    type Matrix = Bf16Matrix;
    const ZERO: Self = 0;
    const SLACK: usize = bf16::SLACK;
    const QUERIES: usize = BLOCK;
    const COLUMNS: usize = bf16::COLUMNS;

    fn put(from: &[f32], to: &mut [Self]) {
        round_piece(from, to);
    }

    fn dims(weight: &Bf16Matrix) -> (usize, usize) {
        weight.dims()
    }

    unsafe fn multiply(
        weight: &Bf16Matrix,
        panels: Range<usize>,
        m: usize,
        a: *const Self,
        a_stride: usize,
        out: *mut f32,
        out_stride: usize,
    ) {
        // SAFETY: promised by the caller.
        unsafe { weight.multiply(panels, m, a, a_stride, out, out_stride) };
    }

    fn keys_len(s: usize, size: usize) -> usize {
        heads::keys_len(s, size)
    }

    fn values_len(s: usize, size: usize) -> usize {
        heads::values_len(s, size)
    }

    unsafe fn deal_keys(to: Part<'_, Self>, first: usize, rows: usize, size: usize, from: &[f32], stride: usize) {
        // SAFETY: promised by the caller.
        unsafe { heads::deal_keys(to, first, rows, size, from, stride) };
    }

    unsafe fn deal_values(to: Part<'_, Self>, s: usize, first: usize, rows: usize, size: usize, from: &[f32], stride: usize) {
        // SAFETY: promised by the caller.
        unsafe { heads::deal_values(to, s, first, rows, size, from, stride) };
    }

    fn attend(head: Head<'_, Self>, task: Task<'_, Self>, out: &mut [f32]) {
        let (s, size) = (head.s, head.size);
        let Task { first, rows, stride, scale, q, positions } = task;
        assert_eq!(out.len(), rows * size, "transformer: a task's output");
        let (keys, values) = (heads::keys(head.keys, s, size), heads::values(head.values, s, size));
        let positions = positions.map(|(r, p)| (r, heads::keys(p, 2 * s - 1, size)));
        // SAFETY: the output has `rows` rows of `size` numbers.
        unsafe { attend(Queries { first, rows, stride, scale, q, keys, values, positions }, out.as_mut_ptr(), size) };
    }
}
