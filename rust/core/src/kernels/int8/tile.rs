//! One panel of weights times rows of activations, once for every CPU level.

use super::Quantised;
use super::activations::Activations;
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::{COLUMNS, PAGE, QUAD};
#[cfg(target_arch = "x86_64")]
use super::{GROUP, OFFSET};

/// Rows of a register tile.
const ROWS: usize = 6;
/// Fewer rows than these wait for their weights anyway.
#[cfg(target_arch = "x86_64")]
const LEAST_AMX: usize = 4;

/// How a tile is computed; all give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(target_arch = "x86_64")]
    Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// NEON with I8MM.
    #[cfg(target_arch = "aarch64")]
    Matrix,
    /// NEON with DotProd.
    #[cfg(target_arch = "aarch64")]
    Dot,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Plain,
}

impl Level {
    /// The best of this CPU, within the level that the kernels run at.
    pub(in crate::kernels) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let level = crate::kernels::level::level();
            if level == crate::kernels::level::Level::Amx {
                return Self::Amx;
            }
            if level == crate::kernels::level::Level::Avx512 && Self::Vnni.available() {
                return Self::Vnni;
            }
            if level != crate::kernels::level::Level::Baseline && Self::Avx2.available() {
                return Self::Avx2;
            }
        }
        #[cfg(target_arch = "aarch64")]
        if crate::kernels::level::level() == crate::kernels::level::Level::Neon {
            return [Self::Matrix, Self::Dot].into_iter().find(|level| level.available()).unwrap_or(Self::Neon);
        }
        Self::Plain
    }

    /// All that this CPU has.
    #[cfg(test)]
    pub(in crate::kernels) fn all() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        return [Self::Amx, Self::Vnni, Self::Avx2, Self::Plain].into_iter().filter(|level| level.available()).collect();
        #[cfg(target_arch = "aarch64")]
        return [Self::Matrix, Self::Dot, Self::Neon, Self::Plain].into_iter().filter(|level| level.available()).collect();
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        vec![Self::Plain]
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub(super) fn available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => crate::kernels::level::Level::Amx.available(),
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "aarch64")]
            Self::Matrix => std::arch::is_aarch64_feature_detected!("i8mm"),
            #[cfg(target_arch = "aarch64")]
            Self::Dot => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            Self::Plain => true,
        }
    }

    /// Products of one panel of `W` with `rows` rows from `first` on, each handed to `store`.
    #[inline(always)]
    pub(super) fn rows<W: Quantised + ?Sized>(
        self,
        panel: &[u8],
        x: &Activations,
        first: usize,
        rows: usize,
        mut store: impl FnMut(usize, &mut [f32; COLUMNS]),
    ) {
        let (mut row, end) = (first, first + rows);
        #[cfg(target_arch = "x86_64")]
        while self == Self::Amx && row + LEAST_AMX <= end {
            let count = super::AMX_ROWS.min(end - row);
            // SAFETY: `best` (and the tests) found that this level is available.
            let mut totals = unsafe { W::tiles(panel, x, row, count) };
            for totals in totals.iter_mut().take(count) {
                store(row, totals);
                row += 1;
            }
        }
        while row < end {
            macro_rules! tiles {
                ($($r:literal)*) => {
                    match (end - row).min(ROWS) {
                        $($r => {
                            for totals in &mut W::tile::<$r>(self, panel, x, row) {
                                store(row, totals);
                                row += 1;
                            }
                        })*
                        _ => break,
                    }
                };
            }
            tiles!(1 2 3 4 5 6);
        }
    }
}

/// Products of a panel of [`super::Int8Matrix`] with `R` rows, without the scales of the outputs.
#[inline(always)]
pub(super) fn tile<const R: usize>(level: Level, panel: &[u8], x: &Activations, first: usize) -> [[f32; COLUMNS]; R] {
    match level {
        // SAFETY: `best` (and the tests) found the features on this CPU.
        #[cfg(target_arch = "x86_64")]
        Level::Amx | Level::Vnni => unsafe { vnni(panel, x, first) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2(panel, x, first) },
        // a row alone would be half of a pair
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Level::Matrix if R == 1 && Level::Dot.available() => unsafe { neon::dot(panel, x, first) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Level::Matrix => unsafe { neon::matrix(panel, x, first) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Level::Dot => unsafe { neon::dot(panel, x, first) },
        // SAFETY: every AArch64 has NEON.
        #[cfg(target_arch = "aarch64")]
        Level::Neon => unsafe { neon::widening(panel, x, first) },
        Level::Plain => plain(panel, x, first),
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
        let mut rows = [x.group(first, g); R];
        let mut sums = [[_mm512_setzero_si512(); VECTORS]; R];
        for r in 0..R {
            rows[r] = x.group(first + r, g);
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
