//! The two formats in which a convolution lays out its input: float32, or rounded to bfloat16.

use std::cell::Cell;

use super::bf16::{self, Bf16Matrix, round_piece};
use super::matmul::{Rows, Weight, matmul_add, rows_lie_inside};
use super::scratch;
use super::tiles::any_available;

/// A number of a laid-out input.
pub(super) trait Operand: Copy + Send + Sync {
    /// What such rows are multiplied by.
    type Weight<'a>: Copy;
    const ZERO: Self;
    /// Zeros behind the last row that a product may read.
    const SLACK: usize;

    /// Calls `work` with `len` numbers of any value.
    fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [Self]) -> R) -> R;

    /// Fills `to` with `rows`, changed by `before`.
    fn write<'a, E>(
        rows: impl Iterator<Item = &'a [f32]>,
        to: &mut [Self],
        before: Option<&impl Fn(&mut [f32]) -> Result<(), E>>,
    ) -> Result<(), E>;

    /// Adds `a · wᵀ`, as [`matmul_add`]; `a` has [`Self::SLACK`] more numbers behind its last row.
    fn multiply_add(
        size: (usize, usize, usize),
        a: Rows<'_, Self>,
        w: Self::Weight<'_>,
        out: &mut [f32],
        offset: usize,
        stride: usize,
    );

    /// `len` numbers of any value in `block`, which grows where it is too small.
    fn of_floats(block: &mut Vec<f32>, len: usize) -> &mut [Self];

    /// Panels of a weight in this format; none of another.
    fn panels(w: Weight<'_>) -> usize;

    /// Adds the product with one panel to its columns of `out`, on this thread, as [`Self::multiply_add`]; rows of `a` begin `step`
    /// numbers apart.
    fn multiply_panel(w: Weight<'_>, panel: usize, m: usize, a: &[Self], step: usize, out: &mut [f32], stride: usize);
}

/// Do `m` rows of k numbers and of n lie inside?
fn lies_inside(m: usize, (n, k): (usize, usize), a: usize, step: usize, out: usize, stride: usize) -> bool {
    m > 0 && stride >= n && rows_lie_inside(a, 0, m, step, k) && rows_lie_inside(out, 0, m, stride, n)
}

impl Operand for f32 {
    type Weight<'a> = Weight<'a>;
    const ZERO: Self = 0.0;
    const SLACK: usize = 0;

    fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [Self]) -> R) -> R {
        scratch::with(len, work)
    }

    fn write<'a, E>(
        rows: impl Iterator<Item = &'a [f32]>,
        to: &mut [Self],
        before: Option<&impl Fn(&mut [f32]) -> Result<(), E>>,
    ) -> Result<(), E> {
        let mut rest = &mut *to;
        for row in rows {
            let (head, tail) = rest.split_at_mut(row.len());
            head.copy_from_slice(row);
            rest = tail;
        }
        before.map_or(Ok(()), |before| before(to))
    }

    fn multiply_add(
        (m, n, k): (usize, usize, usize),
        a: Rows<'_, Self>,
        w: Weight<'_>,
        out: &mut [f32],
        offset: usize,
        stride: usize,
    ) {
        matmul_add(m, n, k, a, w, out, offset, stride);
    }

    fn of_floats(block: &mut Vec<f32>, len: usize) -> &mut [Self] {
        block.resize(block.len().max(len), 0.0);
        &mut block[..len]
    }

    fn panels(w: Weight<'_>) -> usize {
        if let Weight::Dealt(panels) = w { panels.count() } else { 0 }
    }

    fn multiply_panel(w: Weight<'_>, panel: usize, m: usize, a: &[Self], step: usize, out: &mut [f32], stride: usize) {
        let Weight::Dealt(panels) = w else { return };
        assert!(lies_inside(m, panels.dims(), a.len(), step, out.len(), stride) && any_available(), "operand: sizes");
        // SAFETY: there are tiles, and all rows lie inside; `out` is this thread's.
        unsafe { panels.multiply(panel..panel + 1, m, a.as_ptr(), step, out.as_mut_ptr(), stride) };
    }
}

thread_local! {
    /// Rows in float32 on their way to bfloat16.
    static CHANGED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// The bits of a bfloat16.
impl Operand for u16 {
    type Weight<'a> = &'a Bf16Matrix;
    const ZERO: Self = 0;
    const SLACK: usize = bf16::SLACK;

    fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [Self]) -> R) -> R {
        scratch::with_halves(len, work)
    }

    fn write<'a, E>(
        rows: impl Iterator<Item = &'a [f32]>,
        to: &mut [Self],
        before: Option<&impl Fn(&mut [f32]) -> Result<(), E>>,
    ) -> Result<(), E> {
        let Some(before) = before else {
            let mut rest = to;
            for row in rows {
                let (head, tail) = rest.split_at_mut(row.len());
                round_piece(row, head);
                rest = tail;
            }
            return Ok(());
        };
        let mut changed = CHANGED.take();
        changed.clear();
        rows.for_each(|row| changed.extend_from_slice(row));
        before(&mut changed)?;
        round_piece(&changed, to);
        CHANGED.set(changed);
        Ok(())
    }

    fn multiply_add(
        (m, n, k): (usize, usize, usize),
        a: Rows<'_, Self>,
        w: &Bf16Matrix,
        out: &mut [f32],
        offset: usize,
        stride: usize,
    ) {
        assert_eq!(w.dims(), (n, k), "bf16: weight size");
        if m > 0 {
            bf16::multiply_add(w, m, a, &mut out[offset..], stride);
        }
    }

    fn of_floats(block: &mut Vec<f32>, len: usize) -> &mut [Self] {
        let floats = f32::of_floats(block, len.div_ceil(2));
        // SAFETY: the same bytes; u16 needs no more alignment than f32, and both take any value.
        unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast::<u16>(), len) }
    }

    fn panels(w: Weight<'_>) -> usize {
        if let Weight::Bf16(matrix) = w { matrix.dims().0.div_ceil(bf16::COLUMNS) } else { 0 }
    }

    fn multiply_panel(w: Weight<'_>, panel: usize, m: usize, a: &[Self], step: usize, out: &mut [f32], stride: usize) {
        let Weight::Bf16(matrix) = w else { return };
        let (n, k) = matrix.dims();
        assert!(lies_inside(m, (n, k + Self::SLACK), a.len(), step, out.len(), stride), "operand: sizes");
        let out = &mut out[panel * bf16::COLUMNS..];
        // SAFETY: all rows lie inside, with what units read behind the last; `out` is this thread's.
        unsafe { matrix.multiply(panel..panel + 1, m, a.as_ptr(), step, out.as_mut_ptr(), stride) };
    }
}
