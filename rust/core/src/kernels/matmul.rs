//! `out[m, n] = a[m, k] · w[n, k]ᵀ + bias[n]`: the product behind every layer. Weights are `[out, in]`, as PyTorch stores them.

use rayon::prelude::*;

use super::simd::dispatch;

/// Up to this many rows the product reads the weights row by row (memory-bound) instead of through the blocked GEMM.
const FEW_ROWS: usize = 4;
/// Products below this many multiply-adds are not worth a second thread.
const PARALLEL_FROM: usize = 1 << 18;
const LANES: usize = 16;

dispatch!(
    /// Σ a·b in 4 × 16 interleaved lanes.
    pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32;
    fma => {
        let mut acc = [[0f32; LANES]; 4];
        let (ca, cb) = (a.chunks_exact(4 * LANES), b.chunks_exact(4 * LANES));
        let (ra, rb) = (ca.remainder(), cb.remainder());
        for (a, b) in ca.zip(cb) {
            for j in 0..4 {
                for l in 0..LANES {
                    acc[j][l] = fma(a[j * LANES + l], b[j * LANES + l], acc[j][l]);
                }
            }
        }
        for (i, (a, b)) in ra.iter().zip(rb).enumerate() {
            acc[i / LANES][i % LANES] = fma(*a, *b, acc[i / LANES][i % LANES]);
        }
        let mut sum = [0f32; LANES];
        for l in 0..LANES {
            sum[l] = (acc[0][l] + acc[1][l]) + (acc[2][l] + acc[3][l]);
        }
        let mut width = LANES / 2;
        while width > 0 {
            for l in 0..width {
                sum[l] += sum[l + width];
            }
            width /= 2;
        }
        sum[0]
    }
);

/// A strided view of rows inside a slice: row `i` starts at `offset + i * stride`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The memory.
    pub data: &'a [f32],
    /// Start of row 0.
    pub offset: usize,
    /// Distance between the starts of two rows; rows may overlap.
    pub stride: usize,
}

/// `out` row `i` (at `out_offset + i * out_stride`) `= bias + a_i · wᵀ` for `m` rows; `w` is `[n, k]` row-major.
///
/// Rows of `a` may overlap (that is how a convolution becomes one product); rows of `out` may not.
pub fn matmul(
    m: usize,
    n: usize,
    k: usize,
    a: Rows<'_>,
    w: &[f32],
    bias: Option<&[f32]>,
    out: &mut [f32],
    out_offset: usize,
    out_stride: usize,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(w.len() == n * k && bias.is_none_or(|b| b.len() == n) && out_stride >= n, "matmul: weight or bias size");
    assert!(a.offset + (m - 1) * a.stride + k <= a.data.len(), "matmul: input too short");
    assert!(out_offset + (m - 1) * out_stride + n <= out.len(), "matmul: output too short");
    if m <= FEW_ROWS {
        return few_rows(m, n, k, a, w, bias, &mut out[out_offset..], out_stride);
    }
    for row in out[out_offset..].chunks_mut(out_stride).take(m) {
        match bias {
            Some(bias) => row[..n].copy_from_slice(bias),
            None => row[..n].fill(0.0),
        }
    }
    let parallelism = if m * n * k < PARALLEL_FROM { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(0) };
    // SAFETY: the assertions above keep every row of a, w and out inside its slice; out does not overlap the inputs.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr().add(out_offset),
            1,
            out_stride as isize,
            true,
            a.data.as_ptr().add(a.offset),
            1,
            a.stride as isize,
            w.as_ptr(),
            k as isize,
            1,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `out` row `i` (at `out_offset + i * out_stride`) `+= a_i · w` for `m` rows on this thread; `w` is `[k, n]` row-major.
///
/// The weights' layout lets small products run without repacking them.
pub(super) fn accumulate(
    m: usize,
    n: usize,
    k: usize,
    a: Rows<'_>,
    w: &[f32],
    out: &mut [f32],
    out_offset: usize,
    out_stride: usize,
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    assert!(w.len() == n * k && out_stride >= n, "accumulate: weight size");
    assert!(a.offset + (m - 1) * a.stride + k <= a.data.len(), "accumulate: input too short");
    assert!(out_offset + (m - 1) * out_stride + n <= out.len(), "accumulate: output too short");
    // SAFETY: the assertions above keep every row of a, w and out inside its slice; out does not overlap the inputs.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr().add(out_offset),
            1,
            out_stride as isize,
            true,
            a.data.as_ptr().add(a.offset),
            1,
            a.stride as isize,
            w.as_ptr(),
            1,
            n as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

fn few_rows(m: usize, n: usize, k: usize, a: Rows<'_>, w: &[f32], bias: Option<&[f32]>, out: &mut [f32], out_stride: usize) {
    let value = |i: usize, j: usize| {
        let row = &a.data[a.offset + i * a.stride..][..k];
        dot(row, &w[j * k..(j + 1) * k]) + bias.map_or(0.0, |b| b[j])
    };
    if m == 1 {
        let piece = (PARALLEL_FROM / 8 / k.max(1)).clamp(1, n);
        let fill = |(p, out): (usize, &mut [f32])| out.iter_mut().enumerate().for_each(|(j, o)| *o = value(0, p * piece + j));
        if n * k < PARALLEL_FROM / 4 {
            out[..n].chunks_mut(piece).enumerate().for_each(fill);
        } else {
            out[..n].par_chunks_mut(piece).enumerate().for_each(fill);
        }
        return;
    }
    for i in 0..m {
        let row = &mut out[i * out_stride..][..n];
        if m * n * k < PARALLEL_FROM / 4 {
            row.iter_mut().enumerate().for_each(|(j, o)| *o = value(i, j));
        } else {
            row.par_iter_mut().enumerate().with_min_len(16).for_each(|(j, o)| *o = value(i, j));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_agrees_with_float64() {
        for (m, n, k) in [(1, 1, 1), (1, 7, 130), (3, 33, 65), (4, 2048, 300), (5, 9, 64), (40, 70, 129), (200, 64, 512)] {
            let a: Vec<f32> = (0..m * k).map(|i| ((i * 31 % 101) as f32 - 50.0) / 50.0).collect();
            let w: Vec<f32> = (0..n * k).map(|i| ((i * 17 % 89) as f32 - 44.0) / 44.0).collect();
            let bias: Vec<f32> = (0..n).map(|i| i as f32 / 8.0).collect();
            let stride = n + 3;
            let mut out = vec![-7.0; 2 + m * stride];
            matmul(m, n, k, Rows { data: &a, offset: 0, stride: k }, &w, Some(&bias), &mut out, 2, stride);
            for i in 0..m {
                for j in 0..n {
                    let t: f64 =
                        (0..k).map(|c| f64::from(a[i * k + c]) * f64::from(w[j * k + c])).sum::<f64>() + f64::from(bias[j]);
                    let o = f64::from(out[2 + i * stride + j]);
                    assert!((o - t).abs() < 2e-6 * k as f64, "{m} {n} {k} at {i},{j}: {o} {t}");
                }
            }
            assert_eq!(out[..2], [-7.0; 2]);
            assert!(out[2 + n..].chunks(stride).all(|gap| gap.iter().take(3).all(|v| *v == -7.0)), "wrote between rows");
        }
    }

    #[test]
    fn accumulate_adds_to_strided_rows() {
        for (m, n, k, stride) in [(1, 4, 1, 1), (6, 64, 32, 40), (50, 33, 9, 3)] {
            let a: Vec<f32> = (0..2 + (m - 1) * stride + k).map(|i| ((i * 29 % 37) as f32 - 18.0) / 9.0).collect();
            let w: Vec<f32> = (0..n * k).map(|i| ((i * 13 % 41) as f32 - 20.0) / 20.0).collect();
            let mut out = vec![0.5; 3 + m * (n + 2)];
            accumulate(m, n, k, Rows { data: &a, offset: 2, stride }, &w, &mut out, 3, n + 2);
            assert!(out[..3].iter().all(|v| *v == 0.5));
            for (i, row) in out[3..].chunks(n + 2).enumerate() {
                for j in 0..n {
                    let sum: f64 = (0..k).map(|x| f64::from(a[2 + i * stride + x]) * f64::from(w[x * n + j])).sum();
                    assert!((f64::from(row[j]) - 0.5 - sum).abs() < 1e-4, "m {m} n {n} k {k} at {i},{j}");
                }
                assert!(row[n..].iter().all(|v| *v == 0.5));
            }
        }
    }
}
