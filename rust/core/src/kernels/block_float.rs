//! `out[m, n] += a[m, k] · w[n, k]ᵀ` in float32 arithmetic, with weights of 20 bits and a scale for every 16 of them (block floating
//! point): two thirds of the bytes of float32, for products of few rows, which wait for memory.
//!
//! A weight is `integer · scale` with |integer| < 2^19; [`GROUP`] consecutive weights of an output share the scale, which has a mantissa of
//! 4 bits: 1, 1⅛, … 1⅞ times a power of two. It is the smallest that holds the largest of them, or a power of two where that loses
//! nothing (of bfloat16 nothing down to 2^-11 of the largest); else a weight is rounded by some 2^-20 of the largest. Every weight is a
//! float32 number, so that products of many rows are those of any float32 matrix with these numbers. Products of few rows add terms in
//! order, [`SUM`] to a sum: a row has the same bits whatever is computed with it.
//!
//! Layout: panels of [`COLUMNS`] outputs, read in order. Of a step of k, `high` holds the upper 16 bits of all columns, and `low` the
//! others, those of column j and j + 32 in one byte.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::maths::{self, Fma};
use super::matmul::{Rows, rows_lie_inside};
use super::pointer::SharedMut;
use super::simd::dispatch;
use super::tiles::{DEPTH, multiply};
use crate::packed::{Array, Arrays, Pack, Stored};
use crate::pages::room;
use crate::threads::{each, run};

/// Outputs of a panel.
pub(crate) const COLUMNS: usize = 64;
const HALF: usize = COLUMNS / 2;
/// Columns that are computed together: loops over whole arrays of as many numbers are what compilers keep in registers.
const LANES: usize = 16;
type Lanes = [f32; LANES];
/// Consecutive weights of an output that share a scale.
const GROUP: usize = 16;
/// Terms of a sum: a multiple of a group.
const SUM: usize = 64;
/// Largest integer.
const LIMIT: f32 = 524_287.0;
/// Bits of a float32 number behind its exponent, and how many of them a scale leaves out.
const MANTISSA: u32 = 23;
const CUT: u32 = 20;
/// The environment variable that keeps T3's float32 weights in 32 bits (`plain`), to see what 20 change; `auto` is the default.
const ENVIRONMENT: &str = "CHATTERBOX_F32";
/// Powers of two that the scales of a matrix span.
const SPAN: u32 = 32;
/// Rows that are multiplied with a group at a time.
const TOGETHER: usize = 16;
/// Up to this many rows the weights' integers are multiplied where they lie.
pub(super) const FEW_ROWS: usize = 16;
/// Weights that are worth a task.
const TASK: usize = 1 << 16;

/// Does the environment ask for 20 bits? It is read once: all of a process computes the same way.
fn choice() -> &'static Result<bool, String> {
    static CHOICE: OnceLock<Result<bool, String>> = OnceLock::new();
    CHOICE.get_or_init(|| match std::env::var_os(ENVIRONMENT).map(|v| v.to_string_lossy().into_owned()).as_deref() {
        None | Some("" | "auto") => Ok(true),
        Some("plain") => Ok(false),
        Some(name) => Err(format!("{ENVIRONMENT}: expected auto, plain, got {name:?}")),
    })
}

/// Do float32 weights that mostly meet few rows, T3's, stand in 20 bits?
pub(crate) fn compact() -> bool {
    *choice().as_ref().unwrap_or(&true)
}

/// What is wrong with the environment's choice, if anything.
pub(super) fn trouble() -> Option<String> {
    choice().as_ref().err().cloned()
}

/// Weights of the outputs of a panel that share scales.
struct Group<'a> {
    /// Of k.
    steps: Range<usize>,
    high: &'a [[u16; COLUMNS]],
    low: &'a [[u8; HALF]],
    codes: &'a [u8],
}

/// A weight `[n, k]`.
#[derive(Clone, Debug)]
pub struct BlockFloatMatrix {
    high: Stored<u16>,
    low: Stored<u8>,
    /// See [`scale`].
    codes: Stored<u8>,
    /// The exponent that codes count from, in 64 bytes as all that is kept in files.
    base: Stored<u8>,
    n: usize,
    k: usize,
}

impl BlockFloatMatrix {
    /// Rounds the matrix whose element (output `j`, input `c`) is at `j * column + c * row` of `w`.
    pub fn new(w: &[f32], n: usize, k: usize, column: usize, row: usize) -> Self {
        assert!(n > 0 && k > 0 && (n - 1) * column + (k - 1) * row < w.len(), "block float: weight size");
        let (panels, groups) = (n.div_ceil(COLUMNS), k.div_ceil(GROUP));
        let mut high: Vec<u16> = zeros(panels * groups * GROUP * COLUMNS);
        let mut low: Vec<u8> = zeros(panels * groups * GROUP * HALF);
        let mut codes = vec![0; panels * groups * COLUMNS];
        let largest = run(|| w.par_iter().map(|v| v.abs()).reduce(|| 0.0, f32::max));
        let base = exponent(largest / LIMIT).saturating_sub(SPAN - 2).clamp(1, u32::from(u8::MAX) - SPAN);
        let pieces =
            high.par_chunks_mut(GROUP * COLUMNS).zip(low.par_chunks_mut(GROUP * HALF)).zip(codes.par_chunks_mut(COLUMNS));
        each(pieces.enumerate().with_min_len(GROUP), |(i, ((high, low), codes))| {
            let (first, start) = (i / groups * COLUMNS, i % groups * GROUP);
            let (columns, steps) = (COLUMNS.min(n - first), GROUP.min(k - start));
            let mut values = [[0f32; COLUMNS]; GROUP];
            for (c, values) in values.iter_mut().enumerate().take(steps) {
                let from = &w[first * column + (start + c) * row..];
                values.iter_mut().take(columns).enumerate().for_each(|(j, v)| *v = from[j * column]);
            }
            pack(&values, base, high, low, codes);
        });
        Self { high: high.into(), low: low.into(), codes: codes.into(), base: vec![base as u8; COLUMNS].into(), n, k }
    }

    /// Outputs and inputs `(n, k)`.
    pub fn dims(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    /// Bytes that a product reads.
    pub(crate) fn bytes(&self) -> usize {
        2 * self.high.len() + self.low.len() + self.codes.len()
    }

    /// The weights as they are multiplied, float32 `[n, k]`.
    pub fn to_weight(&self) -> Vec<f32> {
        let value = |j: usize, c: usize| {
            let (group, l) = (j / COLUMNS * self.groups() + c / GROUP, j % COLUMNS);
            let step = group * GROUP + c % GROUP;
            let low = self.low[step * HALF + l % HALF] >> (l / HALF * 4) & 15;
            integer(self.high[step * COLUMNS + l], low) as f32 * scale(self.base(), self.codes[group * COLUMNS + l])
        };
        (0..self.n * self.k).map(|i| value(i / self.k, i % self.k)).collect()
    }

    /// Number of panels.
    pub(crate) fn count(&self) -> usize {
        self.n.div_ceil(COLUMNS)
    }

    fn base(&self) -> u32 {
        u32::from(self.base[0])
    }

    fn groups(&self) -> usize {
        self.k.div_ceil(GROUP)
    }

    /// Every group of panel `p`, from step `range.start` to `range.end`.
    #[inline(always)]
    fn groups_of(&self, p: usize, range: Range<usize>) -> impl Iterator<Item = Group<'_>> {
        (range.start / GROUP..range.end.div_ceil(GROUP)).map(move |g| {
            let at = p * self.groups() + g;
            let steps = g * GROUP..range.end.min((g + 1) * GROUP);
            Group {
                high: self.high[at * GROUP * COLUMNS..][..steps.len() * COLUMNS].as_chunks().0,
                low: self.low[at * GROUP * HALF..][..steps.len() * HALF].as_chunks().0,
                codes: &self.codes[at * COLUMNS..][..COLUMNS],
                steps,
            }
        })
    }

    /// The weights of steps `range`, which begins with a group, of panel `p`, written to `room`.
    #[inline(always)]
    fn floats<'a>(&self, p: usize, range: Range<usize>, room: &'a mut [[MaybeUninit<f32>; COLUMNS]]) -> &'a [[f32; COLUMNS]] {
        let (first, room) = (range.start, &mut room[..range.len()]);
        for group in self.groups_of(p, range) {
            values(self.base(), &group, &mut room[group.steps.start - first..group.steps.end - first]);
        }
        // SAFETY: `groups_of` covers all steps, and `values` has written all columns of every one.
        unsafe { std::slice::from_raw_parts(room.as_ptr().cast(), room.len()) }
    }

    /// Products of the outputs of panel `p` with `a` `[m, k]`, on this thread: `store(row, products)`. The panel is read once from
    /// memory for up to 16 rows.
    pub(crate) fn panel(&self, p: usize, a: &[f32], mut store: impl FnMut(usize, &mut [f32])) {
        assert!(a.len().is_multiple_of(self.k), "block float: input size");
        let columns = COLUMNS.min(self.n - p * COLUMNS);
        for (block, a) in a.chunks(TOGETHER * self.k).enumerate() {
            let mut totals = [[0f32; COLUMNS]; TOGETHER];
            if a.len() == self.k {
                one_row(self, p, a, &mut totals[0]);
            } else {
                rows(self, p, a, &mut totals);
            }
            let totals = totals.iter_mut().take(a.len() / self.k).enumerate();
            totals.for_each(|(row, totals)| store(block * TOGETHER + row, &mut totals[..columns]));
        }
    }

    /// Adds `a[m, k]` · the columns of `panels` to those of `out`, on this thread, each piece of a panel being made float32 right before
    /// it is used.
    ///
    /// # Safety
    /// As [`Panels::multiply`](super::panels::Panels::multiply).
    pub(super) unsafe fn multiply(
        &self,
        panels: Range<usize>,
        m: usize,
        a: *const f32,
        a_stride: usize,
        out: *mut f32,
        out_stride: usize,
    ) {
        let mut room = [const { [MaybeUninit::uninit(); COLUMNS] }; DEPTH];
        for start in (0..self.k).step_by(DEPTH) {
            let depth = DEPTH.min(self.k - start);
            for p in panels.clone() {
                let (columns, piece) = (COLUMNS.min(self.n - p * COLUMNS), self.floats(p, start..start + depth, &mut room));
                // SAFETY: promised by the caller.
                unsafe {
                    let (a, out) = (a.add(start), out.add(p * COLUMNS));
                    multiply(m, columns, depth, a, a_stride, piece.as_flattened(), out, out_stride);
                }
            }
        }
    }
}

/// Adds `a · wᵀ` to row `i` of `out` at `i * out_stride` for `m` rows, as [`BlockFloatMatrix::panel`] computes it.
pub(super) fn multiply_few(w: &BlockFloatMatrix, m: usize, a: Rows<'_>, out: &mut [f32], out_stride: usize) {
    let (n, k) = w.dims();
    assert!(rows_lie_inside(out.len(), 0, m, out_stride, n), "block float: output too short");
    let rows: Vec<f32> = (0..m).flat_map(|i| &a.data[a.offset + i * a.stride..][..k]).copied().collect();
    let shared = SharedMut::new(out);
    let work = |p: usize| {
        w.panel(p, &rows, |row, products| {
            let to = shared.at(row * out_stride + p * COLUMNS, products.len());
            // SAFETY: this task alone writes these columns; `at` checked the span.
            let to = unsafe { std::slice::from_raw_parts_mut(to, products.len()) };
            to.iter_mut().zip(products).for_each(|(to, product)| *to += *product);
        });
    };
    each((0..w.count()).into_par_iter().with_min_len(TASK.div_ceil(k * COLUMNS)), work);
}

fn zeros<T: Clone + Default>(len: usize) -> Vec<T> {
    let mut zeros = room(len);
    zeros.resize(len, T::default());
    zeros
}

#[inline(always)]
fn integer(high: u16, low: u8) -> i32 {
    i32::from(high as i16) << 4 | i32::from(low)
}

/// The scale of a code: its upper five bits count powers of two from the biased exponent `base` on, its lower three eighths.
#[inline(always)]
fn scale(base: u32, code: u8) -> f32 {
    f32::from_bits((base << MANTISSA) + (u32::from(code) << CUT))
}

/// The biased exponent.
#[inline(always)]
fn exponent(v: f32) -> u32 {
    v.to_bits() >> MANTISSA
}

/// Scales of 16 columns.
#[inline(always)]
fn scales(base: u32, codes: &[u8], quarter: usize) -> Lanes {
    let codes = &codes[quarter * LANES..][..LANES];
    let mut out = [0f32; LANES];
    for j in 0..LANES {
        out[j] = scale(base, codes[j]);
    }
    out
}

dispatch!(
    /// Rounds a group, which is finite.
    fn pack(values: &[[f32; COLUMNS]; GROUP], base: u32, high: &mut [u16], low: &mut [u8], codes: &mut [u8]);
    _fma => {
        let (mut largest, mut powers, mut lossless) = ([0f32; COLUMNS], [0u32; COLUMNS], [true; COLUMNS]);
        for row in values {
            largest.iter_mut().zip(row).for_each(|(largest, v)| *largest = largest.max(v.abs()));
        }
        // a power of two, so that the largest has 19 bits before the point
        powers.iter_mut().zip(largest).for_each(|(power, v)| *power = exponent(v).saturating_sub(18).max(base));
        for row in values {
            for ((lossless, v), power) in lossless.iter_mut().zip(row).zip(powers) {
                let x = v / f32::from_bits(power << MANTISSA);
                *lossless &= maths::round(x) == x;
            }
        }
        for (((code, largest), power), lossless) in codes.iter_mut().zip(largest).zip(powers).zip(lossless) {
            let up = ((largest / LIMIT).to_bits() + ((1 << CUT) - 1)) >> CUT;
            let up = if lossless { power << (MANTISSA - CUT) } else { up };
            *code = up.saturating_sub(base << (MANTISSA - CUT)).min(255) as u8;
        }
        for ((row, high), low) in values.iter().zip(high.as_chunks_mut::<COLUMNS>().0).zip(low.as_chunks_mut::<HALF>().0) {
            let mut integers = [0i32; COLUMNS];
            for ((to, v), code) in integers.iter_mut().zip(row).zip(&*codes) {
                *to = maths::round((v / scale(base, *code)).clamp(-LIMIT, LIMIT)) as i32;
            }
            high.iter_mut().zip(integers).for_each(|(to, i)| *to = (i >> 4) as u16);
            for j in 0..HALF {
                low[j] = (integers[j] & 15 | (integers[j + HALF] & 15) << 4) as u8;
            }
        }
    }
);

/// Integers of columns `quarter * 16` to `quarter * 16 + 15` of one step, as float32.
#[inline(always)]
fn integers(high: &[u16; COLUMNS], low: &[u8; HALF], quarter: usize) -> Lanes {
    let (high, low) = (&high[quarter * LANES..][..LANES], &low[quarter % 2 * LANES..][..LANES]);
    let mut out = [0f32; LANES];
    for j in 0..LANES {
        out[j] = integer(high[j], low[j] >> (quarter / 2 * 4) & 15) as f32;
    }
    out
}

/// `a · w + x`.
#[inline(always)]
fn add(fma: impl Fma, w: &Lanes, a: f32, x: Lanes) -> Lanes {
    let mut out = [0f32; LANES];
    for j in 0..LANES {
        out[j] = fma(w[j], a, x[j]);
    }
    out
}

/// `a · b`.
#[inline(always)]
fn times(a: &Lanes, b: &Lanes) -> Lanes {
    let mut out = [0f32; LANES];
    for j in 0..LANES {
        out[j] = a[j] * b[j];
    }
    out
}

dispatch!(
    /// The weights of a group.
    fn values(base: u32, group: &Group<'_>, to: &mut [[MaybeUninit<f32>; COLUMNS]]);
    _fma => {
        let scales: [Lanes; COLUMNS / LANES] = std::array::from_fn(|quarter| scales(base, group.codes, quarter));
        for ((high, low), to) in group.high.iter().zip(group.low).zip(to) {
            for (quarter, (to, scales)) in to.chunks_exact_mut(LANES).zip(&scales).enumerate() {
                let weights = times(&integers(high, low, quarter), scales);
                for j in 0..LANES {
                    to[j].write(weights[j]);
                }
            }
        }
    }
);

dispatch!(
    /// `totals = a · panel` for one row.
    fn one_row(w: &BlockFloatMatrix, p: usize, a: &[f32], totals: &mut [f32; COLUMNS]);
    fma => {
        let base = w.base();
        for first in (0..w.k).step_by(SUM) {
            let [mut s, mut t, mut u, mut v] = [[0f32; LANES]; 4];
            for group in w.groups_of(p, first..w.k.min(first + SUM)) {
                let [x, y] = [scales(base, group.codes, 0), scales(base, group.codes, 1)];
                let [z, o] = [scales(base, group.codes, 2), scales(base, group.codes, 3)];
                for ((a, high), low) in a[group.steps].iter().zip(group.high).zip(group.low) {
                    s = add(fma, &times(&integers(high, low, 0), &x), *a, s);
                    t = add(fma, &times(&integers(high, low, 1), &y), *a, t);
                    u = add(fma, &times(&integers(high, low, 2), &z), *a, u);
                    v = add(fma, &times(&integers(high, low, 3), &o), *a, v);
                }
            }
            for (sums, totals) in [s, t, u, v].iter().zip(totals.chunks_exact_mut(LANES)) {
                totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
            }
        }
    }
);

/// The same for up to 16 rows: the weights are made float32 once.
fn rows(w: &BlockFloatMatrix, p: usize, a: &[f32], totals: &mut [[f32; COLUMNS]; TOGETHER]) {
    let m = a.len() / w.k;
    let mut room = [const { [MaybeUninit::uninit(); COLUMNS] }; SUM];
    for first in (0..w.k).step_by(SUM) {
        let depth = SUM.min(w.k - first);
        let weights = w.floats(p, first..first + depth, &mut room);
        if super::tiles::any_available() {
            // SAFETY: there are tiles; every row of `a` has `depth` numbers from `first` on, and `totals` has m rows.
            unsafe {
                let (from, to) = (a.as_ptr().add(first), totals.as_mut_ptr().cast());
                multiply(m, COLUMNS, depth, from, w.k, weights.as_flattened(), to, COLUMNS);
            }
        } else {
            a.chunks(w.k).zip(&mut *totals).for_each(|(a, totals)| add_steps(weights, &a[first..first + depth], totals));
        }
    }
}

dispatch!(
    /// `totals += a · weights`.
    fn add_steps(weights: &[[f32; COLUMNS]], a: &[f32], totals: &mut [f32; COLUMNS]);
    fma => {
        let mut sums = [0f32; COLUMNS];
        for (weights, a) in weights.iter().zip(a) {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = fma(*weight, *a, *sum);
            }
        }
        totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
    }
);

impl Pack for BlockFloatMatrix {
    const KIND: &'static str = "block-float";

    fn arrays(&self) -> Vec<(&'static str, Array)> {
        vec![
            ("high", Array::from(&self.high)),
            ("low", Array::from(&self.low)),
            ("codes", Array::from(&self.codes)),
            ("base", Array::from(&self.base)),
        ]
    }

    fn from_arrays(n: usize, k: usize, arrays: &Arrays<'_>) -> Option<Self> {
        let groups = n.div_ceil(COLUMNS) * k.div_ceil(GROUP);
        Some(Self {
            high: arrays.get("high", groups * GROUP * COLUMNS)?,
            low: arrays.get("low", groups * GROUP * HALF)?,
            codes: arrays.get("codes", groups * COLUMNS)?,
            base: arrays.get("base", COLUMNS)?,
            n,
            k,
        })
    }
}

#[cfg(test)]
mod tests;
