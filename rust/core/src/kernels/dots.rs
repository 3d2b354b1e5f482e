//! Products of a few rows with a few weight rows, every sum as [`dot`](super::matmul::dot) computes it: the same bits, whatever is
//! computed together. With AVX-512 a weight row is loaded once for up to three rows.

use super::matmul::dot;

/// `out[i * stride + j] = a row i · w row j`, rows of `k` numbers.
pub(crate) fn dots(a: &[f32], w: &[f32], k: usize, out: &mut [f32], stride: usize) {
    let (m, n) = (a.len() / k, w.len() / k);
    assert!(a.len() == m * k && w.len() == n * k && n <= stride && out.len() >= m * stride, "dots: sizes");
    #[cfg(target_arch = "x86_64")]
    if super::level::level().has_avx512() && k.is_multiple_of(4 * avx512::LANES) {
        // SAFETY: the CPU has AVX-512; the sizes were checked.
        return unsafe { avx512::all(a, w, k, out, stride) };
    }
    for (j, w) in w.chunks_exact(k).enumerate() {
        for (i, a) in a.chunks_exact(k).enumerate() {
            out[i * stride + j] = dot(a, w);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{__m512, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_setzero_ps, _mm512_storeu_ps};

    pub(super) const LANES: usize = 16;

    /// # Safety
    /// The CPU must have AVX-512; `a` and `w` have rows of `k` numbers, a multiple of 64, and `out` has room for their products.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn all(a: &[f32], w: &[f32], k: usize, out: &mut [f32], stride: usize) {
        // few weight rows at a time, so that they stay in the first-level cache for all rows of `a`
        for (j, w) in w.chunks(4 * k).enumerate() {
            let n = w.len() / k;
            for (i, a) in a.chunks(3 * k).enumerate() {
                let (rows, to) = (a.len() / k, &mut out[3 * i * stride + 4 * j..]);
                // SAFETY: promised by the caller; the slices have as many rows as the parameters say.
                unsafe {
                    match (rows, n) {
                        (3, 4) => {
                            few::<3, 2>(a, w, k, to, stride);
                            few::<3, 2>(a, &w[2 * k..], k, &mut to[2..], stride);
                        }
                        (2, 4) => {
                            few::<2, 2>(a, w, k, to, stride);
                            few::<2, 2>(a, &w[2 * k..], k, &mut to[2..], stride);
                        }
                        (1, 4) => few::<1, 4>(a, w, k, to, stride),
                        _ => {
                            for (j, w) in w.chunks(k).enumerate() {
                                a.chunks(k).zip(to[j..].chunks_mut(stride)).for_each(|(a, to)| few::<1, 1>(a, w, k, to, stride));
                            }
                        }
                    }
                }
            }
        }
    }

    /// # Safety
    /// As [`all`], for `R` rows and `N` outputs.
    #[target_feature(enable = "avx512f")]
    unsafe fn few<const R: usize, const N: usize>(a: &[f32], w: &[f32], k: usize, out: &mut [f32], stride: usize) {
        let mut sums: [[[__m512; 4]; N]; R] = [[[_mm512_setzero_ps(); 4]; N]; R];
        for at in (0..k).step_by(4 * LANES) {
            for v in 0..4 {
                let at = at + v * LANES;
                let mut rows = [_mm512_setzero_ps(); R];
                for r in 0..R {
                    // SAFETY: row r of `a` has k numbers, of which 16 from `at` on are read.
                    rows[r] = unsafe { _mm512_loadu_ps(a.as_ptr().add(r * k + at)) };
                }
                for j in 0..N {
                    // SAFETY: likewise.
                    let weight = unsafe { _mm512_loadu_ps(w.as_ptr().add(j * k + at)) };
                    for r in 0..R {
                        sums[r][j][v] = _mm512_fmadd_ps(rows[r], weight, sums[r][j][v]);
                    }
                }
            }
        }
        for r in 0..R {
            for j in 0..N {
                let [s, t, u, v] = sums[r][j];
                let mut all = [0f32; LANES];
                // SAFETY: `all` has room for 16 numbers.
                unsafe { _mm512_storeu_ps(all.as_mut_ptr(), _mm512_add_ps(_mm512_add_ps(s, t), _mm512_add_ps(u, v))) };
                out[r * stride + j] = super::super::matmul::across(all);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    #[test]
    fn every_sum_has_the_bits_of_a_single_one() {
        at_every_level(|| {
            for (m, n, k) in
                [(1, 1, 64), (1, 16, 128), (1, 7, 192), (2, 5, 256), (3, 6, 64), (4, 9, 100), (16, 16, 1024), (5, 3, 7)]
            {
                let noise =
                    |n: usize, by: usize| -> Vec<f32> { (0..n).map(|i| ((i * by % 211) as f32 - 105.0) / 70.1).collect() };
                let (a, w) = (noise(m * k, 31), noise(n * k, 57));
                let stride = n + 2;
                let mut out = vec![7.0; m * stride];
                dots(&a, &w, k, &mut out, stride);
                for (i, a) in a.chunks(k).enumerate() {
                    for (j, w) in w.chunks(k).enumerate() {
                        assert_eq!(out[i * stride + j].to_bits(), dot(a, w).to_bits(), "{m} {n} {k} at {i},{j}");
                    }
                    assert_eq!(out[i * stride + n..(i + 1) * stride], [7.0; 2]);
                }
            }
        });
    }
}
