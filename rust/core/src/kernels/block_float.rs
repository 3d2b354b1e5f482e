//! `out[m, n] += a[m, k] · w[n, k]ᵀ` in float32 arithmetic, with weights of 20 bits and an exponent for every 64 of them (block
//! floating point): two thirds of the bytes of float32, for products of few rows, which wait for memory.
//!
//! A weight is `integer · 2^exponent` with |integer| < 2^19; an output's [`GROUP`] consecutive weights share the exponent, the smallest
//! that holds the largest of them. The rounding error is at most 2^-19 of that one, and none for weights whose bits reach no lower (all
//! of bfloat16 down to 2^-11 of the largest). Every weight is a float32 number, so that products of many rows are those of any float32
//! matrix with these numbers. Products of few rows add a group's terms in order, scale the sum, which is exact, and add it to the
//! others: a row has the same bits whatever is computed with it.
//!
//! Layout: panels of [`COLUMNS`] outputs, read in order. Of a step of k, `high` holds the upper 16 bits of all columns, and `low` the
//! others, those of column j and j + 32 in one byte.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::maths::Fma;
use super::matmul::Rows;
use super::pointer::SharedMut;
use super::simd::dispatch;
use super::tiles::{DEPTH, multiply};
use crate::packed::{Array, Arrays, Pack, Stored};
use crate::pages::room;

/// Outputs of a panel.
pub(crate) const COLUMNS: usize = 64;
const HALF: usize = COLUMNS / 2;
/// Columns that are computed together: loops over whole arrays of as many numbers are what compilers keep in registers.
const LANES: usize = 16;
type Lanes = [f32; LANES];
/// Consecutive weights of an output that share an exponent.
const GROUP: usize = 64;
/// Bits of an integer behind its sign.
const BITS: u32 = 19;
/// Bits of a float32 number behind its exponent, and the exponent's.
const MANTISSA: u32 = 23;
const LARGEST_EXPONENT: u32 = 254;
/// 1.5 · 2^23: adding it leaves the nearest integer in the low bits.
const MAGIC: f32 = 12_582_912.0;
/// Rows that are multiplied with a group at a time.
const TOGETHER: usize = 16;
/// Up to this many rows the weights' integers are multiplied where they lie.
pub(super) const FEW_ROWS: usize = 16;
/// Weights that are worth a task.
const TASK: usize = 1 << 16;

/// Weights of the outputs of a panel that share exponents.
struct Group<'a> {
    /// Of k.
    steps: Range<usize>,
    high: &'a [[u16; COLUMNS]],
    low: &'a [[u8; HALF]],
    exponents: &'a [u8],
}

/// A weight `[n, k]`.
#[derive(Clone, Debug)]
pub struct BlockFloatMatrix {
    high: Stored<u16>,
    low: Stored<u8>,
    /// Of float32, biased: those of the integers' unit.
    exponents: Stored<u8>,
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
        let mut exponents = vec![0; panels * groups * COLUMNS];
        let pieces =
            high.par_chunks_mut(GROUP * COLUMNS).zip(low.par_chunks_mut(GROUP * HALF)).zip(exponents.par_chunks_mut(COLUMNS));
        pieces.enumerate().for_each(|(i, ((high, low), exponents))| {
            let (first, start) = (i / groups * COLUMNS, i % groups * GROUP);
            let (columns, steps) = (COLUMNS.min(n - first), GROUP.min(k - start));
            let mut values = [[0f32; COLUMNS]; GROUP];
            for (c, values) in values.iter_mut().enumerate().take(steps) {
                let from = &w[first * column + (start + c) * row..];
                values.iter_mut().take(columns).enumerate().for_each(|(j, v)| *v = from[j * column]);
            }
            round(&values, high, low, exponents);
        });
        Self { high: high.into(), low: low.into(), exponents: exponents.into(), n, k }
    }

    /// Outputs and inputs `(n, k)`.
    pub fn dims(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    /// Bytes that a product reads.
    pub(crate) fn bytes(&self) -> usize {
        2 * self.high.len() + self.low.len() + self.exponents.len()
    }

    /// The weights as they are multiplied, float32 `[n, k]`.
    pub fn to_weight(&self) -> Vec<f32> {
        let groups = self.k.div_ceil(GROUP);
        let value = |j: usize, c: usize| {
            let (p, l) = (j / COLUMNS, j % COLUMNS);
            let step = (p * groups + c / GROUP) * GROUP + c % GROUP;
            let low = self.low[step * HALF + l % HALF] >> (l / HALF * 4) & 15;
            integer(self.high[step * COLUMNS + l], low) as f32 * unit(self.exponents[(p * groups + c / GROUP) * COLUMNS + l])
        };
        (0..self.n * self.k).map(|i| value(i / self.k, i % self.k)).collect()
    }

    /// Number of panels.
    pub(crate) fn count(&self) -> usize {
        self.n.div_ceil(COLUMNS)
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
                exponents: &self.exponents[at * COLUMNS..][..COLUMNS],
                steps,
            }
        })
    }

    /// Products of the outputs of panel `p` with `a` `[m, k]`, on this thread: `store(row, products)`. The panel is read once from
    /// memory for up to 16 rows.
    pub(crate) fn panel(&self, p: usize, a: &[f32], mut store: impl FnMut(usize, &mut [f32])) {
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
        let mut piece = [const { MaybeUninit::uninit() }; DEPTH * COLUMNS];
        for start in (0..self.k).step_by(DEPTH) {
            let depth = DEPTH.min(self.k - start);
            for p in panels.clone() {
                let (to, _) = piece.as_chunks_mut::<COLUMNS>();
                for group in self.groups_of(p, start..start + depth) {
                    values(&group, &mut to[group.steps.start - start..group.steps.end - start]);
                }
                // SAFETY: `groups_of` covers all steps, and `values` has written all columns of every one. The rest is promised by the caller.
                unsafe {
                    let piece = std::slice::from_raw_parts(piece.as_ptr().cast(), depth * COLUMNS);
                    let (a, out) = (a.add(start), out.add(p * COLUMNS));
                    multiply(m, COLUMNS.min(self.n - p * COLUMNS), depth, a, a_stride, piece, out, out_stride);
                }
            }
        }
    }
}

/// Adds `a · wᵀ` to row `i` of `out` at `i * out_stride` for `m` rows, as [`BlockFloatMatrix::panel`] computes it.
pub(super) fn multiply_few(w: &BlockFloatMatrix, m: usize, a: Rows<'_>, out: &mut [f32], out_stride: usize) {
    let (n, k) = w.dims();
    assert!(m == 0 || (m - 1) * out_stride + n <= out.len(), "block float: output too short");
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
    (0..w.count()).into_par_iter().with_min_len(TASK.div_ceil(k * COLUMNS)).for_each(work);
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

/// The power of two with this biased exponent.
#[inline(always)]
fn unit(exponent: u8) -> f32 {
    f32::from_bits(u32::from(exponent) << MANTISSA)
}

dispatch!(
    /// Rounds a group, which is finite.
    fn round(values: &[[f32; COLUMNS]; GROUP], high: &mut [u16], low: &mut [u8], exponents: &mut [u8]);
    _fma => {
        let mut largest = [0f32; COLUMNS];
        for row in values {
            largest.iter_mut().zip(row).for_each(|(largest, v)| *largest = largest.max(v.abs()));
        }
        let (mut inverse, limit) = ([0f32; COLUMNS], ((1 << BITS) - 1) as f32);
        for ((exponent, inverse), largest) in exponents.iter_mut().zip(&mut inverse).zip(largest) {
            // the largest has BITS bits before the point
            let e = (largest.to_bits() >> MANTISSA).saturating_sub(BITS - 1).max(1);
            (*exponent, *inverse) = (e as u8, f32::from_bits((LARGEST_EXPONENT - e) << MANTISSA));
        }
        for ((row, high), low) in values.iter().zip(high.as_chunks_mut::<COLUMNS>().0).zip(low.as_chunks_mut::<HALF>().0) {
            let mut integers = [0i32; COLUMNS];
            for ((to, v), inverse) in integers.iter_mut().zip(row).zip(inverse) {
                *to = (((v * inverse).clamp(-limit, limit) + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
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

/// Adds sums of a group, scaled.
#[inline(always)]
fn add_scaled(fma: impl Fma, sums: &[f32], exponents: &[u8], totals: &mut [f32]) {
    for ((total, sum), exponent) in totals.iter_mut().zip(sums).zip(exponents) {
        *total = fma(*sum, unit(*exponent), *total);
    }
}

dispatch!(
    /// The weights of a group.
    fn values(group: &Group<'_>, to: &mut [[MaybeUninit<f32>; COLUMNS]]);
    _fma => {
        let mut units = [0f32; COLUMNS];
        units.iter_mut().zip(group.exponents).for_each(|(to, exponent)| *to = unit(*exponent));
        for ((high, low), to) in group.high.iter().zip(group.low).zip(to) {
            for (quarter, (to, units)) in to.chunks_exact_mut(LANES).zip(units.chunks_exact(LANES)).enumerate() {
                let integers = integers(high, low, quarter);
                for j in 0..LANES {
                    to[j].write(integers[j] * units[j]);
                }
            }
        }
    }
);

dispatch!(
    /// `totals = a · panel` for one row.
    fn one_row(w: &BlockFloatMatrix, p: usize, a: &[f32], totals: &mut [f32; COLUMNS]);
    fma => {
        for group in w.groups_of(p, 0..w.k) {
            let [mut s, mut t, mut u, mut v] = [[0f32; LANES]; 4];
            for ((a, high), low) in a[group.steps].iter().zip(group.high).zip(group.low) {
                s = add(fma, &integers(high, low, 0), *a, s);
                t = add(fma, &integers(high, low, 1), *a, t);
                u = add(fma, &integers(high, low, 2), *a, u);
                v = add(fma, &integers(high, low, 3), *a, v);
            }
            let quarters = totals.chunks_exact_mut(LANES).zip(group.exponents.chunks_exact(LANES));
            for (sums, (totals, exponents)) in [s, t, u, v].iter().zip(quarters) {
                add_scaled(fma, sums, exponents, totals);
            }
        }
    }
);

/// The same for up to 16 rows: a group's integers are made float32 once.
fn rows(w: &BlockFloatMatrix, p: usize, a: &[f32], totals: &mut [[f32; COLUMNS]; TOGETHER]) {
    let m = a.len() / w.k;
    let mut weights = [[0f32; COLUMNS]; GROUP];
    for group in w.groups_of(p, 0..w.k) {
        let (depth, mut sums) = (group.steps.len(), [[0f32; COLUMNS]; TOGETHER]);
        floats(&group, &mut weights);
        if super::tiles::any_available() {
            // SAFETY: there are tiles; every row of `a` has `depth` numbers from this group's first step on, and `sums` has m rows.
            unsafe {
                let from = a.as_ptr().add(group.steps.start);
                multiply(m, COLUMNS, depth, from, w.k, weights.as_flattened(), sums.as_mut_ptr().cast(), COLUMNS);
            }
        } else {
            for (sums, a) in sums.iter_mut().zip(a.chunks(w.k)) {
                add_steps(&weights[..depth], &a[group.steps.clone()], sums);
            }
        }
        scaled(&sums[..m], group.exponents, totals);
    }
}

dispatch!(
    /// The integers of a group.
    fn floats(group: &Group<'_>, to: &mut [[f32; COLUMNS]; GROUP]);
    _fma => {
        for ((high, low), to) in group.high.iter().zip(group.low).zip(to) {
            for (quarter, to) in to.chunks_exact_mut(LANES).enumerate() {
                to.copy_from_slice(&integers(high, low, quarter));
            }
        }
    }
);

dispatch!(
    /// `sums += a · weights`.
    fn add_steps(weights: &[[f32; COLUMNS]], a: &[f32], sums: &mut [f32; COLUMNS]);
    fma => {
        for (weights, a) in weights.iter().zip(a) {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = fma(*weight, *a, *sum);
            }
        }
    }
);

dispatch!(
    /// Adds the sums of a group, scaled.
    fn scaled(sums: &[[f32; COLUMNS]], exponents: &[u8], totals: &mut [[f32; COLUMNS]; TOGETHER]);
    fma => {
        for (sums, totals) in sums.iter().zip(totals) {
            for (quarter, totals) in totals.chunks_exact_mut(LANES).enumerate() {
                add_scaled(fma, &sums[quarter * LANES..], &exponents[quarter * LANES..], totals);
            }
        }
    }
);

impl Pack for BlockFloatMatrix {
    const KIND: &'static str = "block-float";

    fn arrays(&self) -> Vec<(&'static str, Array)> {
        vec![("high", Array::from(&self.high)), ("low", Array::from(&self.low)), ("exponents", Array::from(&self.exponents))]
    }

    fn from_arrays(n: usize, k: usize, arrays: &Arrays<'_>) -> Option<Self> {
        let groups = n.div_ceil(COLUMNS) * k.div_ceil(GROUP);
        Some(Self {
            high: arrays.get("high", groups * GROUP * COLUMNS)?,
            low: arrays.get("low", groups * GROUP * HALF)?,
            exponents: arrays.get("exponents", groups * COLUMNS)?,
            n,
            k,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::matmul::{Weight, matmul};
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    fn noise(n: usize, stream: u64) -> Vec<f32> {
        crate::draws::normals(stream, "test", 0, 1, n).map(|m| m.data).unwrap_or_default()
    }

    fn product(w: &BlockFloatMatrix, m: usize, a: &[f32]) -> Vec<f32> {
        let (n, k) = w.dims();
        let mut out = vec![7.0; 1 + m * (n + 2)];
        matmul(m, n, k, Rows { data: a, offset: 0, stride: k }, Weight::BlockFloat(w), None, &mut out, 1, n + 2);
        assert!(out[0] == 7.0 && out[1..].chunks(n + 2).all(|row| row[n..] == [7.0; 2]), "wrote between rows");
        out[1..].chunks(n + 2).flat_map(|row| &row[..n]).copied().collect()
    }

    /// m, n, k: few rows and many, whole and broken panels and groups.
    const SIZES: [(usize, usize, usize); 9] = [
        (1, 1, 1),
        (1, 64, 64),
        (1, 200, 257),
        (2, 65, 24),
        (5, 128, 1024),
        (16, 63, 130),
        (17, 70, 96),
        (40, 192, 512),
        (300, 90, 70),
    ];

    #[test]
    fn products_are_those_of_the_rounded_weights() {
        at_every_level(|| {
            for (m, n, k) in SIZES {
                let (a, matrix) = (noise(m * k, 1), BlockFloatMatrix::new(&noise(n * k, 2), n, k, k, 1));
                let (w, out) = (matrix.to_weight(), product(&matrix, m, &a));
                for (i, a) in a.chunks(k).enumerate() {
                    for (j, w) in w.chunks(k).enumerate() {
                        let (truth, size) = a.iter().zip(w).fold((0f64, 0f64), |(sum, size), (a, w)| {
                            let term = f64::from(*a) * f64::from(*w);
                            (sum + term, size + term.abs())
                        });
                        let error = (f64::from(out[i * n + j]) - truth).abs();
                        assert!(error <= 1e-6 * size + 1e-7, "{m} {n} {k} at {i},{j}: {error} of {size}");
                    }
                }
            }
        });
    }

    #[test]
    fn few_rows_have_the_bits_of_one() {
        at_every_level(|| {
            for (m, n, k) in SIZES.into_iter().filter(|(m, ..)| *m <= FEW_ROWS) {
                let (a, matrix) = (noise(m * k, 3), BlockFloatMatrix::new(&noise(n * k, 4), n, k, k, 1));
                let together = product(&matrix, m, &a);
                for (row, out) in a.chunks(k).zip(together.chunks(n)) {
                    assert!(product(&matrix, 1, row) == out, "{m} {n} {k}");
                }
                for p in 0..matrix.count() {
                    matrix
                        .panel(p, &a, |row, products| assert_eq!(products, &together[row * n + p * COLUMNS..][..products.len()]));
                }
            }
        });
    }

    #[test]
    fn a_weight_is_rounded_by_half_a_unit_of_its_group_at_most() {
        at_every_level(|| {
            for (n, k) in [(1, 1), (64, 64), (130, 70), (65, 200)] {
                let mut w = noise(n * k, 5);
                w[0] = 30.0; // an outlier
                let turned: Vec<f32> = (0..k * n).map(|i| w[i % n * k + i / n]).collect();
                let matrix = BlockFloatMatrix::new(&w, n, k, k, 1);
                let found = matrix.to_weight();
                assert_eq!(found, BlockFloatMatrix::new(&turned, n, k, 1, n).to_weight());
                for (w, found) in w.chunks(k).zip(found.chunks(k)).flat_map(|(w, found)| w.chunks(GROUP).zip(found.chunks(GROUP)))
                {
                    let bound = w.iter().fold(0f32, |a, v| a.max(v.abs())) * 2f32.powi(-19);
                    assert!(w.iter().zip(found).all(|(w, v)| (w - v).abs() <= bound), "{n} {k}");
                }
            }
        });
    }

    #[test]
    fn bfloat16_extremes_and_zeros_are_kept_to_the_bit() {
        at_every_level(|| {
            let mut w: Vec<f32> = noise(3 * 64, 6).iter().map(|v| f32::from_bits(v.to_bits() & 0xffff_0000)).collect();
            w.iter_mut().for_each(|v| *v = if v.abs() < 0.01 { 0.01171875 } else { *v });
            w[64..128].fill(0.0);
            (w[0], w[1]) = (1.0 - 2f32.powi(-15), -1.0);
            for scale in [1.0, 2f32.powi(-90), 2f32.powi(120)] {
                let w: Vec<f32> = w.iter().map(|v| v * scale).collect();
                assert_eq!(BlockFloatMatrix::new(&w, 3, 64, 64, 1).to_weight(), w, "{scale}");
            }
            let ends = [2.0 - 2f32.powi(-23), -f32::MAX, f32::MIN_POSITIVE / 2.0, -f32::MIN_POSITIVE];
            let found = BlockFloatMatrix::new(&ends, 4, 1, 1, 1).to_weight();
            assert!(found[..2].iter().zip(&ends).all(|(v, w)| (v / w - 1.0).abs() <= 2f32.powi(-19)), "{found:?}");
            assert!(found[2].abs() <= f32::MIN_POSITIVE && found[3] == ends[3], "{found:?}");
        });
    }

    #[test]
    fn faults_of_a_row_are_seen_in_it_alone() {
        at_every_level(|| {
            let (n, k) = (70, 130);
            let matrix = BlockFloatMatrix::new(&noise(n * k, 7), n, k, k, 1);
            for m in [1, 5, 20] {
                for fault in [f32::NAN, f32::INFINITY] {
                    let mut a = noise(m * k, 8);
                    a[(m - 1) * k + 5] = fault;
                    let out = product(&matrix, m, &a);
                    assert!(
                        out[(m - 1) * n..].iter().all(|v| !v.is_finite()) && out[..(m - 1) * n].iter().all(|v| v.is_finite())
                    );
                }
            }
        });
    }
}
