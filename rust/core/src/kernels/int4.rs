//! `out[m, n] += a[m, k] · w[n, k]ᵀ` with weights of 4 bits and activations of 8 (those of [`super::int8`]): 4.5 bits a weight are read.
//!
//! A weight is `scale · (nibble − 8)`. [`HALF`] consecutive inputs of an output share a scale, a bfloat16 number of either sign: the one
//! with the smallest sum of squared errors among those that least squares gives for a grid of roundings. Sums of a half are exact in
//! int32; `scale[n] · sum` of the two halves of a group are added in float32, multiplied by the activations' scale and added to the groups
//! before, with separate multiplications and additions: every CPU level, any number of threads and of rows give the same bits.
//!
//! Layout: panels of [`COLUMNS`] outputs, a page for every group, read strictly in order. A page is two blocks, each the [`COLUMNS`] scales
//! and then `[HALF / 8, COLUMNS, 4]` bytes, in whose low halves is one quad of inputs and in whose high halves the next.

mod tile;

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::int8::{self, Activations, COLUMNS, GROUP, HALF, Level, QUAD, Quantised, SMALLEST};
use super::simd::dispatch;
use crate::packed::{Array, Arrays, Pack, Stored};
use crate::threads::each;

/// Bytes of the scales of a block.
const SCALES: usize = 2 * COLUMNS;
/// Bytes of two quads of inputs of a panel.
const PAIR: usize = COLUMNS * QUAD;
/// Bytes of a block: scales and nibbles.
pub(super) const BLOCK: usize = SCALES + HALF / (2 * QUAD) * PAIR;
pub(super) const PAGE: usize = GROUP / HALF * BLOCK;
/// Added to weights, so that they are unsigned.
pub(super) const OFFSET: i32 = 8;
/// The numbers of steps that a weight may have.
const RANGE: (f32, f32) = (-8.0, 7.0);
/// Groups that are quantised together.
const LANES: usize = 16;
/// 1.5 · 2^23: adding it and taking it off again rounds to the nearest integer.
const MAGIC: f32 = 12_582_912.0;

/// A weight matrix `[n, k]` of 4 bits with a scale for 32 inputs of an output.
#[derive(Debug)]
pub struct Int4Matrix {
    pages: Stored<u8>,
    n: usize,
    k: usize,
}

impl Int4Matrix {
    /// Quantises the matrix whose element (output `j`, input `c`) is at `j * column + c * row` of `w`.
    pub fn new(w: &[f32], n: usize, k: usize, column: usize, row: usize) -> Self {
        assert!(n > 0 && k > 0 && (n - 1) * column + (k - 1) * row < w.len(), "int4: weight size");
        let (panels, groups) = (n.div_ceil(COLUMNS), k.div_ceil(GROUP));
        let mut pages = vec![0; panels * groups * PAGE];
        let fill = |(p, panel): (usize, &mut [u8])| {
            for (b, block) in panel.chunks_exact_mut(BLOCK).enumerate() {
                let (scales, nibbles) = block.split_at_mut(SCALES);
                for (i, scales) in scales.chunks_exact_mut(2 * LANES).enumerate() {
                    let (j, c) = (p * COLUMNS + i * LANES, b * HALF);
                    let mut x = [[0.0; LANES]; HALF];
                    for (c, x) in (c..k).zip(&mut x) {
                        (j..n).zip(x).for_each(|(j, x)| *x = w[j * column + c * row]);
                    }
                    let found = quantise(&mut x);
                    scales.as_chunks_mut().0.iter_mut().zip(found).for_each(|(to, scale)| *to = upper(scale).to_le_bytes());
                    for (c, x) in x.iter().enumerate() {
                        let (quad, to) = (c / QUAD, &mut nibbles[c / (2 * QUAD) * PAIR + i * LANES * QUAD + c % QUAD..]);
                        for (j, x) in x.iter().enumerate() {
                            to[j * QUAD] |= (*x as i32 + OFFSET) as u8 * if quad % 2 == 0 { 1 } else { 16 };
                        }
                    }
                }
            }
        };
        each(pages.par_chunks_mut(groups * PAGE).enumerate(), fill);
        Self { pages: pages.into(), n, k }
    }

    /// Bytes of the weight.
    pub(crate) fn bytes(&self) -> usize {
        self.pages.len()
    }

    /// The weights as they are multiplied, float32 `[n, k]`.
    pub fn values(&self) -> Vec<f32> {
        let blocks = self.pages.len() / BLOCK / self.n.div_ceil(COLUMNS);
        let value = |j: usize, c: usize| {
            let (scales, nibbles) = self.pages[(j / COLUMNS * blocks + c / HALF) * BLOCK..][..BLOCK].split_at(SCALES);
            let (j, c) = (j % COLUMNS, c % HALF);
            let byte = nibbles[c / (2 * QUAD) * PAIR + j * QUAD + c % QUAD];
            scale_of(scales, j) * (i32::from(byte >> (c / QUAD % 2 * 4) & 15) - OFFSET) as f32
        };
        (0..self.n * self.k).map(|i| value(i / self.k, i % self.k)).collect()
    }
}

/// Scale `j` of a block.
#[inline(always)]
fn scale_of(scales: &[u8], j: usize) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes([scales[2 * j], scales[2 * j + 1]])) << 16)
}

/// The bits of a bfloat16 number.
fn upper(x: f32) -> u16 {
    (x.to_bits() >> 16) as u16
}

dispatch!(
    /// Quantises the weights of [`LANES`] outputs that share scales: what comes out is their steps, and the scales.
    fn quantise(x: &mut [[f32; LANES]; HALF]) -> [f32; LANES];
    fma => {
        let clamp = |x: f32| {
            let n = (x + MAGIC) - MAGIC;
            let n = if n < RANGE.0 { RANGE.0 } else { n };
            if n > RANGE.1 { RANGE.1 } else { n }
        };
        // of every output the weight with the largest magnitude, and all in parts of it
        let (mut extreme, mut parts) = ([0f32; LANES], *x);
        for x in x.iter() {
            extreme.iter_mut().zip(x).for_each(|(e, x)| *e = if x.abs() > e.abs() { *x } else { *e });
        }
        let inverse = extreme.map(|e| if e.abs() < SMALLEST { 0.0 } else { 1.0 / e });
        for x in &mut parts {
            x.iter_mut().zip(&inverse).for_each(|(x, i)| *x *= i);
        }
        let (mut best, mut scales) = ([0f32; LANES], [0f32; LANES]);
        // the steps that the largest weight becomes: to -9 (one is cut off) and to 8
        for steps in (22..=36).map(|s| s as f32 / -4.0).chain((22..=32).map(|s| s as f32 / 4.0)) {
            let (mut with, mut square) = ([0f32; LANES], [0f32; LANES]);
            for x in &parts {
                for ((with, square), x) in with.iter_mut().zip(&mut square).zip(x) {
                    let n = clamp(*x * steps);
                    *with += *x * n;
                    *square += n * n;
                }
            }
            for i in 0..LANES {
                // least squares: with this rounding, scale with / square leaves Σ x² − with² / square
                let scale = with[i] / if square[i] > 0.0 { square[i] } else { 1.0 };
                if with[i] * scale > best[i] {
                    (best[i], scales[i]) = (with[i] * scale, scale);
                }
            }
        }
        let scales: [f32; LANES] = std::array::from_fn(|i| {
            let bits = (scales[i] * extreme[i]).to_bits();
            f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
        });
        let inverse = scales.map(|s| if s == 0.0 { 0.0 } else { 1.0 / s });
        for x in x.iter_mut() {
            x.iter_mut().zip(&inverse).for_each(|(x, i)| *x = clamp(*x * i));
        }
        scales
    }
);

/// Adds `a · wᵀ` to `out`, for `a` `[m, k]` and `out` `[m, n]`. A value of `a` that is not finite makes its row not finite.
pub fn multiply_add(weights: &Int4Matrix, m: usize, a: &[f32], out: &mut [f32]) {
    int8::multiply_add_with(Level::best(), weights, m, a, out);
}

impl Quantised for Int4Matrix {
    fn dims(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    fn page_bytes(&self, p: usize) -> &[u8] {
        let size = self.k.div_ceil(GROUP) * PAGE;
        &self.pages[p * size..][..size]
    }

    fn finish(&self, _: usize, _: &mut [f32]) {}

    #[inline(always)]
    fn tile<const R: usize>(level: Level, panel: &[u8], x: &Activations, first: usize) -> [[f32; COLUMNS]; R] {
        tile::tile(level, panel, x, first)
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn tiles(panel: &[u8], x: &Activations, first: usize, rows: usize) -> [[f32; COLUMNS]; amx::INT8_ROWS] {
        let (bytes, steps) = x.rows(first, rows);
        // SAFETY: promised by the caller.
        unsafe { amx::multiply_int4(panel, bytes, steps, x.halves_of(first, rows), rows) }
    }
}

impl Pack for Int4Matrix {
    const KIND: &'static str = "int4";

    fn arrays(&self) -> Vec<(&'static str, Array)> {
        vec![("pages", Array::from(&self.pages))]
    }

    fn from_arrays(n: usize, k: usize, arrays: &Arrays<'_>) -> Option<Self> {
        let pages = arrays.get("pages", n.div_ceil(COLUMNS) * k.div_ceil(GROUP) * PAGE)?;
        Some(Self { pages, n, k })
    }
}

#[cfg(test)]
mod tests;
