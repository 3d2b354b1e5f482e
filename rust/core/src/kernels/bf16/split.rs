//! float32 products out of bfloat16 ones, for CPUs that multiply bfloat16 many times faster (AMX: sixteen times).
//!
//! A float32 is the sum of three bfloat16 numbers, each rounded from what those before it leave over, and but for 2⁻¹⁷ of itself of
//! two. Of the products of these parts the large ones are added in float32: three of them (a₀b₀ + a₀b₁ + a₁b₀) come within some
//! 4e-6 of the product, six (with a₁b₁, a₀b₂ and a₂b₀) as close as float32 arithmetic does.

use std::cell::Cell;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::round::{round, value};
use super::{Bf16Matrix, SLACK, in_blocks};
use crate::kernels::level::{Level, level};
use crate::kernels::matmul::{Rows, rows_lie_inside};
use crate::kernels::scratch;
use crate::kernels::simd::dispatch;
use crate::packed::{Array, Arrays, Pack};
use crate::precision::Products;
use crate::threads::each;

/// The environment variable that chooses how float32 products are computed, to compare them on one machine: `plain` arithmetic with plain
/// weights, `x3` or `x6` everywhere, or `split`, what is best with AMX: six terms, and three where [`Products::Near`] says that they do. `auto` is
/// `split` with AMX and plain arithmetic without. But for `plain`, T3's weights are [`compact`].
const ENVIRONMENT: &str = "CHATTERBOX_F32";
/// Numbers that a task splits.
const PIECE: usize = 1 << 12;
const NAMES: [&str; 3] = ["part0", "part1", "part2"];

/// How many products of parts are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terms {
    /// Of two parts a number.
    Three,
    /// Of three parts a number.
    Six,
}

impl Terms {
    /// `x3` or `x6`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Three => "x3",
            Self::Six => "x6",
        }
    }

    fn parts(self) -> usize {
        match self {
            Self::Three => 2,
            Self::Six => 3,
        }
    }

    /// Part of an activation and part of a weight of every product, the small ones first.
    fn pairs(self) -> &'static [(usize, usize)] {
        match self {
            Self::Three => &[(1, 0), (0, 1), (0, 0)],
            Self::Six => &[(2, 0), (0, 2), (1, 1), (1, 0), (0, 1), (0, 0)],
        }
    }
}

/// How float32 products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plain,
    Always(Terms),
    Split,
}

/// What `CHATTERBOX_F32` asks for, if anything.
fn choose(asked: Option<&str>) -> Result<Option<Way>, String> {
    match asked {
        None | Some("" | "auto") => Ok(None),
        Some("plain") => Ok(Some(Way::Plain)),
        Some("x3") => Ok(Some(Way::Always(Terms::Three))),
        Some("x6") => Ok(Some(Way::Always(Terms::Six))),
        Some("split") => Ok(Some(Way::Split)),
        Some(name) => Err(format!("{ENVIRONMENT}: expected auto, plain, x3, x6, split, got {name:?}")),
    }
}

/// The environment is read once: all of a process computes the same way.
fn choice() -> &'static Result<Option<Way>, String> {
    static CHOICE: OnceLock<Result<Option<Way>, String>> = OnceLock::new();
    CHOICE.get_or_init(|| choose(std::env::var_os(ENVIRONMENT).map(|v| v.to_string_lossy().into_owned()).as_deref()))
}

fn way() -> Way {
    match choice() {
        Ok(Some(way)) => *way,
        _ if level() == Level::Amx => Way::Split,
        _ => Way::Plain,
    }
}

/// How many rows of float32 meet a weight whose layer is loaded for `products`; `None` stands for float32 arithmetic, and for products
/// in another format.
pub fn terms(products: Products) -> Option<Terms> {
    match (way(), products) {
        (Way::Plain, _) | (_, Products::Exact | Products::Bf16) => None,
        (Way::Always(terms), _) => Some(terms),
        (Way::Split, Products::F32) => Some(Terms::Six),
        (Way::Split, Products::Near) => Some(Terms::Three),
    }
}

/// Do float32 weights that mostly meet few rows, T3's, stand in 20 bits (see [`crate::kernels::block_float`])?
pub(crate) fn compact() -> bool {
    !matches!(choice(), Ok(Some(Way::Plain)))
}

/// A name of the choice, where it changes how weights are packed.
pub(crate) fn name() -> Option<&'static str> {
    match way() {
        Way::Plain => (!compact()).then_some("plain"),
        Way::Always(terms) => Some(terms.name()),
        Way::Split => Some("split"),
    }
}

/// What is wrong with the environment's choice, if anything.
pub(in crate::kernels) fn trouble() -> Option<String> {
    choice().as_ref().err().cloned()
}

/// A matrix of float32 numbers as bfloat16 parts.
#[derive(Clone, Debug)]
pub struct SplitMatrix {
    parts: Vec<Bf16Matrix>,
    terms: Terms,
}

impl SplitMatrix {
    /// Splits a weight `[n, k]`.
    pub fn of_weight(weight: &[f32], n: usize, k: usize, terms: Terms) -> Self {
        Self::new(weight.to_vec(), terms, |rest| Bf16Matrix::of_weight(rest, n, k))
    }

    /// Splits the matrix that `deal` makes of `values`.
    fn new(mut values: Vec<f32>, terms: Terms, deal: impl Fn(&[f32]) -> Bf16Matrix) -> Self {
        let part = |_| {
            let part = deal(&values);
            each(values.par_chunks_mut(PIECE), leave);
            part
        };
        Self { parts: (0..terms.parts()).map(part).collect(), terms }
    }

    /// Columns and rows `(n, k)`: outputs and inputs of a weight.
    pub fn dims(&self) -> (usize, usize) {
        self.parts[0].dims()
    }

    /// The weight `[n, k]`: to the bit with three parts.
    pub fn to_weight(&self) -> Vec<f32> {
        let mut sum = vec![0.0; self.dims().0 * self.dims().1];
        for part in self.parts.iter().rev() {
            sum.iter_mut().zip(part.to_weight()).for_each(|(sum, v)| *sum += v);
        }
        sum
    }
}

impl Pack for SplitMatrix {
    const KIND: &'static str = "split";

    fn arrays(&self) -> Vec<(&'static str, Array)> {
        NAMES
            .into_iter()
            .zip(&self.parts)
            .flat_map(|(name, part)| part.arrays().into_iter().map(move |(_, data)| (name, data)))
            .collect()
    }

    fn from_arrays(n: usize, k: usize, arrays: &Arrays<'_>) -> Option<Self> {
        let parts: Vec<_> = NAMES.iter().map_while(|name| Bf16Matrix::from_array(n, k, name, arrays)).collect();
        let terms = [Terms::Three, Terms::Six].into_iter().find(|terms| terms.parts() == parts.len())?;
        Some(Self { parts, terms })
    }
}

dispatch!(
    /// Rounds to bfloat16, and keeps what that leaves over: nothing of what is not finite.
    fn split(rest: &mut [f32], to: &mut [u16]);
    fma => {
        for (v, to) in rest.iter_mut().zip(to) {
            *to = round(*v);
            let left = *v - value(*to);
            *v = if left.is_finite() { left } else { 0.0 };
        }
    }
);

dispatch!(
    /// The same without the rounded numbers.
    fn leave(rest: &mut [f32]);
    fma => {
        for v in rest {
            let left = *v - value(round(*v));
            *v = if left.is_finite() { left } else { 0.0 };
        }
    }
);

/// Writes the parts of `from` behind one another, `stride` apart, with [`SLACK`] zeros behind each.
fn split_all(from: &[f32], parts: usize, to: &mut [u16], stride: usize) {
    thread_local!(static REST: Cell<Vec<f32>> = const { Cell::new(Vec::new()) });
    let planes: Vec<Vec<&mut [u16]>> = to
        .chunks_exact_mut(stride)
        .take(parts)
        .map(|plane| {
            let (numbers, slack) = plane.split_at_mut(from.len());
            slack.fill(0);
            numbers.chunks_mut(PIECE).collect()
        })
        .collect();
    let mut pieces: Vec<Vec<&mut [u16]>> = (0..from.len().div_ceil(PIECE)).map(|_| Vec::with_capacity(parts)).collect();
    planes.into_iter().for_each(|plane| pieces.iter_mut().zip(plane).for_each(|(piece, part)| piece.push(part)));
    each(pieces.into_par_iter().zip(from.par_chunks(PIECE)), |(piece, from)| {
        let mut rest = REST.take();
        rest.clear();
        rest.extend_from_slice(from);
        piece.into_iter().for_each(|part| split(&mut rest, part));
        REST.set(rest);
    });
}

/// Adds `a · wᵀ` to row `i` of `out` at `i * out_stride` for `m` rows.
pub(in crate::kernels) fn multiply_add(w: &SplitMatrix, m: usize, a: Rows<'_>, out: &mut [f32], out_stride: usize) {
    let (n, k) = w.dims();
    if m == 0 {
        return;
    }
    assert!(rows_lie_inside(a.data.len(), a.offset, m, a.stride, k), "split: input too short");
    let span = (m - 1) * a.stride + k;
    assert!(out_stride >= n && rows_lie_inside(out.len(), 0, m, out_stride, n), "split: output too short");
    let (parts, stride) = (w.terms.parts(), span + SLACK);
    scratch::with_halves(parts * stride, |planes| {
        split_all(&a.data[a.offset..a.offset + span], parts, planes, stride);
        let planes = &*planes;
        in_blocks(m, n, out, out_stride, |first, rows, panels, to| {
            for (x, y) in w.terms.pairs() {
                // SAFETY: the rows of every plane lie inside it, with SLACK numbers behind them; `in_blocks` gives this task its part of
                // the output alone.
                unsafe {
                    let from = planes.as_ptr().add(x * stride + first * a.stride);
                    w.parts[*y].multiply(panels.clone(), rows, from, a.stride, to, out_stride);
                }
            }
        });
    });
}

/// Keys and values of one head, for [`Heads`](crate::kernels::heads).
pub(in crate::kernels) struct Factor(SplitMatrix);

impl Factor {
    /// The matrix `[k, n]` whose column `j` is the k numbers from `j * stride` on.
    pub(in crate::kernels) fn of_rows(data: &[f32], n: usize, k: usize, stride: usize, terms: Terms) -> Self {
        Self(SplitMatrix::new(gather(data, n, k, stride), terms, |rest| Bf16Matrix::of_rows(rest, n, k, k)))
    }

    /// The matrix `[k, n]` whose row `c` is the n numbers from `c * stride` on.
    pub(in crate::kernels) fn of_columns(data: &[f32], n: usize, k: usize, stride: usize, terms: Terms) -> Self {
        Self(SplitMatrix::new(gather(data, k, n, stride), terms, |rest| Bf16Matrix::of_columns(rest, n, k, n)))
    }

    /// Columns and rows.
    pub(in crate::kernels) fn dims(&self) -> (usize, usize) {
        self.0.dims()
    }

    /// Adds `a[m, k] · self` to `out`, on this thread.
    ///
    /// # Safety
    /// Rows of k numbers at `a + i * a_stride` and of n numbers at `out + i * out_stride` must be valid for `i < m`, and nothing else may
    /// touch those of `out` meanwhile.
    pub(in crate::kernels) unsafe fn multiply(&self, m: usize, a: *const f32, a_stride: usize, out: *mut f32, out_stride: usize) {
        thread_local!(static PLANES: Cell<(Vec<f32>, Vec<u16>)> = const { Cell::new((Vec::new(), Vec::new())) });
        let (SplitMatrix { parts, terms }, (_, k)) = (&self.0, self.dims());
        let (mut rest, mut planes) = PLANES.take();
        rest.clear();
        for i in 0..m {
            // SAFETY: promised by the caller.
            rest.extend_from_slice(unsafe { std::slice::from_raw_parts(a.add(i * a_stride), k) });
        }
        let stride = m * k + SLACK;
        planes.resize(planes.len().max(terms.parts() * stride), 0);
        for plane in planes.chunks_exact_mut(stride).take(terms.parts()) {
            let (numbers, slack) = plane.split_at_mut(m * k);
            split(&mut rest, numbers);
            slack.fill(0);
        }
        for (x, y) in terms.pairs() {
            let part = &parts[*y];
            // SAFETY: the rows of every plane lie inside it, with SLACK numbers behind them; the output is promised by the caller.
            unsafe { part.multiply(0..part.count(), m, planes.as_ptr().add(x * stride), k, out, out_stride) };
        }
        PLANES.set((rest, planes));
    }
}

/// `rows` rows of `width` numbers, `stride` apart, one after the other.
fn gather(data: &[f32], rows: usize, width: usize, stride: usize) -> Vec<f32> {
    data.chunks(stride).take(rows).flat_map(|row| &row[..width]).copied().collect()
}

#[cfg(test)]
mod tests;
