//! One panel of weights times rows of activations, once for every CPU level.

use super::super::int8::{Activations, COLUMNS, HALF, Level, QUAD};
use super::{BLOCK, OFFSET, PAGE, PAIR, SCALES, scale_of};

/// Quads of a block.
const QUADS: usize = HALF / QUAD;

/// Products of a panel with `R` rows. AArch64 has no kernel of its own: what the compiler makes of the plain one.
#[inline(always)]
pub(super) fn tile<const R: usize>(level: Level, panel: &[u8], x: &Activations, first: usize) -> [[f32; COLUMNS]; R] {
    match level {
        // SAFETY: `Level::best` (and the tests) found the features on this CPU.
        #[cfg(target_arch = "x86_64")]
        Level::Amx | Level::Vnni => unsafe { vnni(panel, x, first) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2(panel, x, first) },
        _ => plain(panel, x, first),
    }
}

/// The quads of block `b` of group `g` of a row, and what the offset of the weights adds to its sum, taken off.
#[inline(always)]
fn half(x: &Activations, row: usize, g: usize, b: usize) -> (&[[u8; QUAD]; QUADS], i32) {
    let (quads, halves) = (x.group(row, g).0.as_chunks().0, x.halves(row, g));
    (&quads[b], halves[b].wrapping_mul(-OFFSET))
}

/// What the other levels compute, written to be read.
fn plain<const R: usize>(panel: &[u8], x: &Activations, first: usize) -> [[f32; COLUMNS]; R] {
    let mut totals = [[0f32; COLUMNS]; R];
    for (g, page) in panel.chunks_exact(PAGE).enumerate() {
        for (r, totals) in totals.iter_mut().enumerate() {
            let mut products = [[0f32; COLUMNS]; 2];
            for (b, (block, products)) in page.chunks_exact(BLOCK).zip(&mut products).enumerate() {
                let (scales, nibbles) = block.split_at(SCALES);
                let (quads, correction) = half(x, first + r, g, b);
                let mut sums = [correction; COLUMNS];
                for (a, nibbles) in quads.as_chunks::<2>().0.iter().zip(nibbles.chunks_exact(PAIR)) {
                    let [low, high] = a.map(|quad| quad.map(|byte| i32::from(byte as i8)));
                    for (sum, w) in sums.iter_mut().zip(nibbles.as_chunks::<QUAD>().0) {
                        for i in 0..QUAD {
                            let more = i32::from(w[i] & 15) * low[i] + i32::from(w[i] >> 4) * high[i];
                            *sum = sum.wrapping_add(more);
                        }
                    }
                }
                for (j, (product, sum)) in products.iter_mut().zip(sums).enumerate() {
                    *product = sum as f32 * scale_of(scales, j);
                }
            }
            let scale = x.group(first + r, g).1;
            for ((total, a), b) in totals.iter_mut().zip(&products[0]).zip(&products[1]) {
                *total += (a + b) * scale;
            }
        }
    }
    totals
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn vnni<const R: usize>(panel: &[u8], x: &Activations, first: usize) -> [[f32; COLUMNS]; R] {
    use std::arch::x86_64::{
        _mm256_loadu_si256, _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_ps, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32,
        _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_setzero_si512, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_ps,
    };
    const VECTORS: usize = COLUMNS / 16;
    let low = _mm512_set1_epi32(0x0f0f_0f0f);
    let mut totals = [[_mm512_setzero_ps(); VECTORS]; R];
    for (g, page) in panel.chunks_exact(PAGE).enumerate() {
        let mut products = [[[_mm512_setzero_ps(); VECTORS]; R]; 2];
        for (b, block) in page.chunks_exact(BLOCK).enumerate() {
            let mut rows = [half(x, first, g, b); R];
            let mut sums = [[_mm512_setzero_si512(); VECTORS]; R];
            for r in 0..R {
                rows[r] = half(x, first + r, g, b);
                sums[r] = [_mm512_set1_epi32(rows[r].1); VECTORS];
            }
            for q in (0..QUADS).step_by(2) {
                let mut weights = [[_mm512_setzero_si512(); VECTORS]; 2];
                for v in 0..VECTORS {
                    // SAFETY: after its scales a block has QUADS / 2 times VECTORS pieces of 64 bytes.
                    let pair = unsafe { _mm512_loadu_si512(block.as_ptr().add(SCALES + q / 2 * PAIR + v * 64).cast()) };
                    weights[0][v] = _mm512_and_si512(pair, low);
                    weights[1][v] = _mm512_and_si512(_mm512_srli_epi32::<4>(pair), low);
                }
                for (i, weights) in weights.iter().enumerate() {
                    for r in 0..R {
                        let a = _mm512_set1_epi32(i32::from_le_bytes(rows[r].0[q + i]));
                        for v in 0..VECTORS {
                            sums[r][v] = _mm512_dpbusd_epi32(sums[r][v], weights[v], a);
                        }
                    }
                }
            }
            for v in 0..VECTORS {
                // SAFETY: a block begins with VECTORS times 16 scales.
                let scales = unsafe { _mm256_loadu_si256(block.as_ptr().add(v * 32).cast()) };
                let scales = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(scales)));
                for r in 0..R {
                    products[b][r][v] = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][v]), scales);
                }
            }
        }
        for r in 0..R {
            let scale = _mm512_set1_ps(x.group(first + r, g).1);
            for v in 0..VECTORS {
                let both = _mm512_add_ps(products[0][r][v], products[1][r][v]);
                totals[r][v] = _mm512_add_ps(totals[r][v], _mm512_mul_ps(both, scale));
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
        _mm_loadu_si128, _mm256_add_epi16, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_castsi256_ps,
        _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
        _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
        _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_ps,
    };
    const LANES: usize = 8;
    let (low, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let mut out = [[0f32; COLUMNS]; R];
    for (g, page) in panel.chunks_exact(PAGE).enumerate() {
        for v in 0..COLUMNS / LANES {
            let mut products = [[_mm256_setzero_ps(); R]; 2];
            for (b, block) in page.chunks_exact(BLOCK).enumerate() {
                let mut weights = [_mm256_setzero_si256(); QUADS];
                for q in (0..QUADS).step_by(2) {
                    // SAFETY: after its scales a block has QUADS / 2 pairs of COLUMNS / LANES pieces of 32 bytes.
                    let pair = unsafe { _mm256_loadu_si256(block.as_ptr().add(SCALES + q / 2 * PAIR + v * 32).cast()) };
                    weights[q] = _mm256_and_si256(pair, low);
                    weights[q + 1] = _mm256_and_si256(_mm256_srli_epi32::<4>(pair), low);
                }
                // SAFETY: a block begins with COLUMNS / LANES times 8 scales.
                let scales = unsafe { _mm_loadu_si128(block.as_ptr().add(v * 16).cast()) };
                let scales = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(scales)));
                for r in 0..R {
                    let (quads, correction) = half(x, first + r, g, b);
                    // 16 products of at most 15 · 128 are added in 16 bits, which hold 30720
                    let mut sums = [_mm256_setzero_si256(); 2];
                    for q in 0..QUADS {
                        let a = _mm256_set1_epi32(i32::from_le_bytes(quads[q]));
                        sums[q % 2] = _mm256_add_epi16(sums[q % 2], _mm256_maddubs_epi16(weights[q], a));
                    }
                    let sums = _mm256_madd_epi16(_mm256_add_epi16(sums[0], sums[1]), ones);
                    let sums = _mm256_add_epi32(sums, _mm256_set1_epi32(correction));
                    products[b][r] = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), scales);
                }
            }
            for r in 0..R {
                let more = _mm256_add_ps(products[0][r], products[1][r]);
                let more = _mm256_mul_ps(more, _mm256_set1_ps(x.group(first + r, g).1));
                let total = &mut out[r][v * LANES..][..LANES];
                // SAFETY: `total` has 8 values.
                unsafe { _mm256_storeu_ps(total.as_mut_ptr(), _mm256_add_ps(_mm256_loadu_ps(total.as_ptr()), more)) };
            }
        }
    }
    out
}
