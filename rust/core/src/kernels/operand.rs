//! The two formats in which a convolution lays out its input: float32, or rounded to bfloat16.

use std::cell::Cell;

use super::bf16::{self, Bf16Matrix, round_piece};
use super::matmul::{Rows, Weight, matmul_add};
use super::scratch;

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
}
