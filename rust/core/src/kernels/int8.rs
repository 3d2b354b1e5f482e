//! `out[m, n] += a[m, k] · w[n, k]ᵀ` with weights and activations of 8 bits: a quarter of the bytes that a float32 product reads.
//!
//! A weight is `scale[n] · (byte − 128)`, quantised once (symmetric, the largest of an output is 127 steps). Activations are
//! quantised per row in groups of [`GROUP`] values with a scale each, so that an outlier coarsens its neighbours only. Sums of a
//! group are exact in int32; they are scaled and added in float32 in order, with separate multiplications and additions: every CPU
//! level, any number of threads and any number of rows at a time give the same bits.
//!
//! Layout: panels of [`COLUMNS`] outputs, each `[k / 4, COLUMNS, 4]` bytes, read strictly in order. The weights carry the offset
//! that `vpdpbusd` (unsigned times signed) asks for, because then its correction, 128 Σ a, is one number a row and group.

use rayon::prelude::*;

use super::pointer::SharedMut;
use super::simd::dispatch;

/// Outputs of a panel.
const COLUMNS: usize = 64;
/// Consecutive activations that share a scale. A group of a panel is a page of 4096 bytes.
const GROUP: usize = 64;
/// Inputs whose products are added in one instruction.
const QUAD: usize = 4;
const PAGE: usize = COLUMNS * GROUP;
/// Added to weights, so that they are unsigned.
const OFFSET: u8 = 128;
/// Steps from zero to the largest value.
const STEPS: f32 = 127.0;
/// Values whose largest is below this count as zeros: the inverse of their scale is not a finite number.
const SMALLEST: f32 = 1e-30;
/// 1.5 · 2^23: adding it leaves the nearest integer in the low bits.
const MAGIC: f32 = 12_582_912.0;
/// Rows of a register tile.
const ROWS: usize = 6;
/// Rows of a task.
const BLOCK: usize = 96;
/// Bytes of weights that are worth a task.
const TASK: usize = 1 << 17;

/// A weight matrix `[n, k]` of 8 bits with a scale for each of the n outputs.
#[derive(Debug)]
pub struct Int8Matrix {
    bytes: Vec<u8>,
    scales: Vec<f32>,
    n: usize,
    k: usize,
}

impl Int8Matrix {
    /// Quantises the matrix whose element (output `j`, input `c`) is at `j * column + c * row` of `w`.
    pub fn new(w: &[f32], n: usize, k: usize, column: usize, row: usize) -> Self {
        assert!(n > 0 && k > 0 && (n - 1) * column + (k - 1) * row < w.len(), "int8: weight size");
        let (panels, groups) = (n.div_ceil(COLUMNS), k.div_ceil(GROUP));
        let (mut bytes, mut scales) = (vec![OFFSET; panels * groups * PAGE], vec![0.0; panels * COLUMNS]);
        let fill = |(p, (bytes, scales)): (usize, (&mut [u8], &mut [f32]))| {
            let first = p * COLUMNS;
            let columns = COLUMNS.min(n - first);
            let mut inverse = [0.0; COLUMNS];
            for c in 0..k {
                let from = &w[first * column + c * row..];
                scales[..columns].iter_mut().enumerate().for_each(|(j, s)| *s = from[j * column].abs().max(*s));
            }
            for (scale, inverse) in scales.iter_mut().zip(&mut inverse) {
                (*scale, *inverse) = if *scale < SMALLEST { (0.0, 0.0) } else { (*scale / STEPS, STEPS / *scale) };
            }
            for c in 0..k {
                let from = &w[first * column + c * row..];
                let to = &mut bytes[c / QUAD * QUAD * COLUMNS + c % QUAD..];
                for j in 0..columns {
                    to[j * QUAD] = nearest(from[j * column] * inverse[j]) ^ OFFSET;
                }
            }
        };
        bytes.par_chunks_mut(groups * PAGE).zip(scales.par_chunks_mut(COLUMNS)).enumerate().for_each(fill);
        Self { bytes, scales, n, k }
    }

    /// Number of outputs.
    pub fn output(&self) -> usize {
        self.n
    }

    /// Number of inputs.
    pub fn input(&self) -> usize {
        self.k
    }

    /// The weights as they are multiplied, float32 `[n, k]`.
    pub fn values(&self) -> Vec<f32> {
        let groups = self.k.div_ceil(GROUP);
        let value = |j: usize, c: usize| {
            let at = j / COLUMNS * groups * PAGE + (c / QUAD * COLUMNS + j % COLUMNS) * QUAD + c % QUAD;
            self.scales[j] * (f32::from(self.bytes[at]) - f32::from(OFFSET))
        };
        (0..self.n * self.k).map(|i| value(i / self.k, i % self.k)).collect()
    }
}

/// The integer nearest to `x`, |x| ≤ 127, in two's complement.
#[inline(always)]
fn nearest(x: f32) -> u8 {
    (x + MAGIC).to_bits() as u8
}

dispatch!(
    /// Quantises a group: its bytes (int8), its scale (not finite where a value is not), and the sum of its bytes.
    fn quantise(x: &[f32; GROUP], to: &mut [u8; GROUP]) -> (f32, i32);
    fma => {
        let (mut largest, mut faults) = ([0f32; 16], [0f32; 16]);
        for part in x.as_chunks::<16>().0 {
            for ((m, f), v) in largest.iter_mut().zip(&mut faults).zip(part) {
                *m = if v.abs() > *m { v.abs() } else { *m };
                *f += *v * 0.0;
            }
        }
        let largest = largest.iter().fold(0f32, |a, b| a.max(*b));
        let fault: f32 = faults.iter().sum();
        let (scale, inverse) = if largest < SMALLEST { (0.0, 0.0) } else { (largest / STEPS, STEPS / largest) };
        let mut sum = 0i32;
        for (to, v) in to.iter_mut().zip(x) {
            *to = nearest(*v * inverse);
            sum += i32::from(*to as i8);
        }
        (scale + fault, sum)
    }
);

/// Quantised activations of m rows; every row is filled up with zeros to whole groups.
struct Activations {
    /// Two's complement, `[m, groups, GROUP]`.
    bytes: Vec<u8>,
    /// `[m, groups]`
    scales: Vec<f32>,
    /// −128 Σ bytes, `[m, groups]`: what the offset of the weights adds to a sum, taken off.
    corrections: Vec<i32>,
    groups: usize,
}

impl Activations {
    fn new(a: &[f32], m: usize, k: usize) -> Self {
        let groups = k.div_ceil(GROUP);
        let (mut bytes, mut scales, mut corrections) = (vec![0; m * groups * GROUP], vec![0.0; m * groups], vec![0; m * groups]);
        let fill = |(((x, bytes), scales), corrections): (((&[f32], &mut [u8]), &mut [f32]), &mut [i32])| {
            for (((x, to), scale), correction) in
                x.chunks(GROUP).zip(bytes.as_chunks_mut().0).zip(scales.iter_mut()).zip(corrections.iter_mut())
            {
                let mut group = [0.0; GROUP];
                group[..x.len()].copy_from_slice(x);
                let (s, sum) = quantise(&group, to);
                (*scale, *correction) = (s, -i32::from(OFFSET) * sum);
            }
        };
        if m == 1 {
            fill((((a, &mut bytes), &mut scales), &mut corrections));
        } else {
            let rows = a.par_chunks(k).zip(bytes.par_chunks_mut(groups * GROUP));
            rows.zip(scales.par_chunks_mut(groups)).zip(corrections.par_chunks_mut(groups)).with_min_len(8).for_each(fill);
        }
        Self { bytes, scales, corrections, groups }
    }

    /// Group `g` of `row`: quads of bytes, scale and correction.
    #[inline(always)]
    fn group(&self, row: usize, g: usize) -> (&[[u8; QUAD]], f32, i32) {
        let at = row * self.groups + g;
        (self.bytes[at * GROUP..][..GROUP].as_chunks().0, self.scales[at], self.corrections[at])
    }
}

/// How a tile is computed; all give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    #[cfg(target_arch = "x86_64")]
    Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Plain,
}

impl Level {
    /// The best of this CPU.
    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if Self::Vnni.available() {
                return Self::Vnni;
            }
            if Self::Avx2.available() {
                return Self::Avx2;
            }
        }
        Self::Plain
    }

    #[cfg(target_arch = "x86_64")]
    fn available(self) -> bool {
        match self {
            Self::Vnni => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"),
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            Self::Plain => true,
        }
    }

    /// Products of one panel with `R` rows from `first` on, without the scales of the outputs.
    #[inline(always)]
    fn tile<const R: usize>(self, panel: &[u8], x: &Activations, first: usize) -> [[f32; COLUMNS]; R] {
        match self {
            // SAFETY: `best` (and the tests) found the features on this CPU.
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => unsafe { vnni(panel, x, first) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2(panel, x, first) },
            Self::Plain => plain(panel, x, first),
        }
    }
}

/// What the other levels compute, written to be read.
fn plain<const R: usize>(panel: &[u8], x: &Activations, first: usize) -> [[f32; COLUMNS]; R] {
    let mut totals = [[0f32; COLUMNS]; R];
    for (g, page) in panel.chunks_exact(PAGE).enumerate() {
        for (r, totals) in totals.iter_mut().enumerate() {
            let (quads, scale, correction) = x.group(first + r, g);
            let mut sums = [correction; COLUMNS];
            for (a, weights) in quads.iter().zip(page.chunks_exact(QUAD * COLUMNS)) {
                let a = a.map(|byte| i32::from(byte as i8));
                for (sum, w) in sums.iter_mut().zip(weights.as_chunks::<QUAD>().0) {
                    let w = w.map(i32::from);
                    *sum += (w[0] * a[0] + w[1] * a[1]) + (w[2] * a[2] + w[3] * a[3]);
                }
            }
            totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum as f32 * scale);
        }
    }
    totals
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn vnni<const R: usize>(panel: &[u8], x: &Activations, first: usize) -> [[f32; COLUMNS]; R] {
    use std::arch::x86_64::{
        _mm512_add_ps, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi32,
        _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps,
    };
    const VECTORS: usize = COLUMNS / 16;
    let mut totals = [[_mm512_setzero_ps(); VECTORS]; R];
    for (g, page) in panel.chunks_exact(PAGE).enumerate() {
        let rows: [_; R] = std::array::from_fn(|r| x.group(first + r, g));
        let mut sums = [[_mm512_setzero_si512(); VECTORS]; R];
        for r in 0..R {
            sums[r] = [_mm512_set1_epi32(rows[r].2); VECTORS];
        }
        for q in 0..GROUP / QUAD {
            let mut weights = [_mm512_setzero_si512(); VECTORS];
            for v in 0..VECTORS {
                // SAFETY: a page has GROUP / QUAD times VECTORS pieces of 64 bytes.
                weights[v] = unsafe { _mm512_loadu_si512(page.as_ptr().add((q * VECTORS + v) * 64).cast()) };
            }
            for r in 0..R {
                let a = _mm512_set1_epi32(i32::from_le_bytes(rows[r].0[q]));
                for v in 0..VECTORS {
                    sums[r][v] = _mm512_dpbusd_epi32(sums[r][v], weights[v], a);
                }
            }
        }
        for r in 0..R {
            let scale = _mm512_set1_ps(rows[r].1);
            for v in 0..VECTORS {
                totals[r][v] = _mm512_add_ps(totals[r][v], _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][v]), scale));
            }
        }
    }
    let mut out = [[0f32; COLUMNS]; R];
    for (out, totals) in out.iter_mut().zip(totals) {
        for (to, v) in out.as_chunks_mut::<16>().0.iter_mut().zip(totals) {
            // SAFETY: `to` has room for 16 values.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) };
        }
    }
    out
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2<const R: usize>(panel: &[u8], x: &Activations, first: usize) -> [[f32; COLUMNS]; R] {
    use std::arch::x86_64::{
        __m256i, _mm256_abs_epi8, _mm256_add_epi32, _mm256_add_ps, _mm256_cvtepi32_ps, _mm256_loadu_ps, _mm256_loadu_si256,
        _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32,
        _mm256_set1_ps, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_storeu_ps, _mm256_xor_si256,
    };
    /// Sixteen registers hold the sums of 32 outputs: a page is passed twice, and rows go one by one.
    const VECTORS: usize = 4;
    const BYTES: usize = 32;
    let (offset, ones) = (_mm256_set1_epi8(OFFSET as i8), _mm256_set1_epi16(1));
    let mut out = [[0f32; COLUMNS]; R];
    for (g, page) in panel.chunks_exact(PAGE).enumerate() {
        for r in 0..R {
            // signed bytes on both sides here: nothing to correct
            let (quads, scale, _) = x.group(first + r, g);
            for half in 0..COLUMNS / (8 * VECTORS) {
                let mut sums = [_mm256_setzero_si256(); VECTORS];
                for (q, quad) in quads.iter().enumerate() {
                    let a = _mm256_set1_epi32(i32::from_le_bytes(*quad));
                    let size = _mm256_abs_epi8(a);
                    for v in 0..VECTORS {
                        let at = q * QUAD * COLUMNS + (half * VECTORS + v) * BYTES;
                        // SAFETY: a page has QUAD * COLUMNS bytes for each of its quads, two halves of VECTORS * BYTES.
                        let bytes = unsafe { _mm256_loadu_si256(page.as_ptr().add(at).cast::<__m256i>()) };
                        let weights = _mm256_xor_si256(bytes, offset);
                        // |a| · (w with the sign of a): two of these products are at most 2 · 127², which 16 bits hold
                        let pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(weights, a));
                        sums[v] = _mm256_add_epi32(sums[v], _mm256_madd_epi16(pairs, ones));
                    }
                }
                let scale = _mm256_set1_ps(scale);
                for v in 0..VECTORS {
                    let total = &mut out[r][(half * VECTORS + v) * 8..][..8];
                    let more = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[v]), scale);
                    // SAFETY: `total` has 8 values.
                    unsafe { _mm256_storeu_ps(total.as_mut_ptr(), _mm256_add_ps(_mm256_loadu_ps(total.as_ptr()), more)) };
                }
            }
        }
    }
    out
}

/// Adds `a · wᵀ` to `out`, for `a` `[m, k]` and `out` `[m, n]`. A value of `a` that is not finite makes its row not finite.
pub fn multiply_add(weights: &Int8Matrix, m: usize, a: &[f32], out: &mut [f32]) {
    multiply_add_with(Level::best(), weights, m, a, out);
}

fn multiply_add_with(level: Level, weights: &Int8Matrix, m: usize, a: &[f32], out: &mut [f32]) {
    let Int8Matrix { n, k, .. } = *weights;
    assert!(a.len() == m * k && out.len() == m * n, "int8: input or output size");
    if m == 0 {
        return;
    }
    let x = Activations::new(a, m, k);
    let (size, blocks, panels) = (x.groups * PAGE, m.div_ceil(BLOCK), n.div_ceil(COLUMNS));
    let shared = SharedMut::new(out);
    let task = |first: usize, rows: usize, p: usize| {
        let panel = &weights.bytes[p * size..][..size];
        let columns = COLUMNS.min(n - p * COLUMNS);
        let scales = &weights.scales[p * COLUMNS..][..columns];
        let store = |row: usize, totals: &[f32; COLUMNS]| {
            let to = shared.at(row * n + p * COLUMNS, columns);
            // SAFETY: this task alone writes these columns of its rows; `at` checked the span.
            let to = unsafe { std::slice::from_raw_parts_mut(to, columns) };
            to.iter_mut().zip(totals).zip(scales).for_each(|((o, total), scale)| *o += total * scale);
        };
        let mut row = first;
        while row + ROWS <= first + rows {
            let totals = level.tile::<ROWS>(panel, &x, row);
            totals.iter().enumerate().for_each(|(r, totals)| store(row + r, totals));
            row += ROWS;
        }
        for row in row..first + rows {
            store(row, &level.tile::<1>(panel, &x, row)[0]);
        }
    };
    let job = |i: usize| {
        let (block, p) = (i / panels, i % panels);
        task(block * BLOCK, BLOCK.min(m - block * BLOCK), p);
    };
    let each = TASK.div_ceil(size * BLOCK.min(m));
    if panels * blocks <= each {
        (0..blocks * panels).for_each(job);
    } else {
        (0..blocks * panels).into_par_iter().with_min_len(each).for_each(job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, stream: u64) -> Vec<f32> {
        crate::draws::normals(stream, "test", 0, 1, n).map(|m| m.data).unwrap_or_default()
    }

    fn levels() -> Vec<Level> {
        #[cfg(target_arch = "x86_64")]
        return [Level::Vnni, Level::Avx2, Level::Plain].into_iter().filter(|level| level.available()).collect();
        #[cfg(not(target_arch = "x86_64"))]
        vec![Level::Plain]
    }

    fn product(level: Level, w: &Int8Matrix, m: usize, a: &[f32]) -> Vec<f32> {
        let mut out = vec![0.5; m * w.output()];
        multiply_add_with(level, w, m, a, &mut out);
        out
    }

    /// m, n, k: one row and many, whole and broken panels, groups and tiles.
    const SIZES: [(usize, usize, usize); 8] =
        [(1, 1, 1), (1, 64, 64), (1, 200, 257), (5, 65, 24), (6, 128, 1024), (7, 63, 130), (97, 70, 96), (200, 192, 512)];

    #[test]
    fn int8_products_stay_within_half_a_step_of_float64() {
        for (m, n, k) in SIZES {
            let (mut a, w) = (noise(m * k, 1), noise(n * k, 2));
            a[0] = 40.0; // an outlier
            let matrix = Int8Matrix::new(&w, n, k, k, 1);
            let (values, out) = (matrix.values(), product(Level::best(), &matrix, m, &a));
            let (mut square, mut squares) = (0f64, 0f64);
            for i in 0..m {
                let row = &a[i * k..(i + 1) * k];
                let steps: Vec<f32> = row.chunks(GROUP).map(|g| g.iter().fold(0f32, |a, v| a.max(v.abs())) / STEPS).collect();
                for j in 0..n {
                    let (mut truth, mut bound, mut size) = (0f64, 0f64, 0f64);
                    for c in 0..k {
                        let (x, w, rounded) = (f64::from(row[c]), f64::from(w[j * k + c]), f64::from(values[j * k + c]));
                        truth += x * w;
                        size += (x * rounded).abs();
                        bound += x.abs() * f64::from(matrix.scales[j]) / 2.0 + rounded.abs() * f64::from(steps[c / GROUP]) / 2.0;
                    }
                    let error = f64::from(out[i * n + j]) - 0.5 - truth;
                    assert!(error.abs() <= bound * 1.0001 + size * 1e-6 + 1e-6, "{m} {n} {k} at {i},{j}: {error} above {bound}");
                    (square, squares) = (square + error * error, squares + truth * truth);
                }
            }
            if m * n > 1000 {
                assert!((square / squares).sqrt() < 0.02, "{m} {n} {k}: {}", (square / squares).sqrt());
            }
        }
    }

    #[test]
    fn levels_and_row_counts_give_the_same_bits() {
        for (m, n, k) in SIZES {
            let (a, w) = (noise(m * k, 3), noise(n * k, 4));
            let matrix = Int8Matrix::new(&w, n, k, k, 1);
            let expected = product(Level::Plain, &matrix, m, &a);
            for level in levels() {
                assert!(product(level, &matrix, m, &a) == expected, "{level:?} {m} {n} {k}");
            }
            for (row, out) in a.chunks(k).zip(expected.chunks(n)) {
                assert!(product(Level::best(), &matrix, 1, row) == out, "one row of {m} {n} {k}");
            }
        }
    }

    #[test]
    fn integer_sums_are_exact_at_the_extremes() {
        // every weight and activation is ±127 steps: the largest sums that there are
        let (n, k) = (64, 192);
        for (x, w) in [(1.0f32, 1.0f32), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)] {
            let matrix = Int8Matrix::new(&vec![w; n * k], n, k, k, 1);
            for level in levels() {
                let mut out = vec![0.0; n];
                multiply_add_with(level, &matrix, 1, &vec![x; k], &mut out);
                assert!(out.iter().all(|o| (o - x * w * k as f32).abs() < 1e-4), "{level:?}: {}", out[0]);
            }
        }
    }

    #[test]
    fn both_layouts_hold_the_same_matrix() {
        let (n, k) = (130, 70);
        let w = noise(n * k, 5);
        let turned: Vec<f32> = (0..k * n).map(|i| w[i % n * k + i / n]).collect();
        let (rows, columns) = (Int8Matrix::new(&w, n, k, k, 1), Int8Matrix::new(&turned, n, k, 1, n));
        assert!(rows.bytes == columns.bytes && rows.scales == columns.scales);
        for (w, found) in w.chunks(k).zip(rows.values().chunks(k)) {
            let step = w.iter().fold(0f32, |a, v| a.max(v.abs())) / STEPS;
            assert!(w.iter().zip(found).all(|(w, v)| (w - v).abs() <= 0.5001 * step));
        }
    }

    #[test]
    fn zeros_stay_zeros_and_faults_are_seen() {
        let mut w = noise(3 * 64, 6);
        w[64..128].fill(0.0);
        let matrix = Int8Matrix::new(&w, 3, 64, 64, 1);
        for level in levels() {
            assert_eq!(product(level, &matrix, 1, &[0.0; 64]), [0.5; 3]);
            assert_eq!(product(level, &matrix, 1, &noise(64, 7))[1], 0.5);
            for fault in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut a = noise(64, 8);
                a[5] = fault;
                assert!(product(level, &matrix, 1, &a).iter().all(|v| !v.is_finite()), "{level:?} {fault}");
            }
        }
    }
}
