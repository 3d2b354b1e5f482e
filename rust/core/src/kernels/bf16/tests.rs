use super::*;
use crate::kernels::level::testing::at_every_level;

fn noise(n: usize, stream: u64) -> Vec<f32> {
    crate::draws::normals(stream, "test", 0, 1, n).map(|m| m.data).unwrap_or_default()
}

fn rounded(x: &[f32]) -> Vec<u16> {
    x.iter().map(|v| half::bf16::from_f32(*v).to_bits()).collect()
}

/// m, n, k: one row and many, whole and broken panels, pairs and tiles.
const SIZES: [(usize, usize, usize); 11] = [
    (1, 1, 1),
    (1, 64, 32),
    (2, 3, 2),
    (5, 65, 33),
    (6, 128, 256),
    (7, 63, 130),
    (13, 18, 540),
    (97, 70, 95),
    (200, 192, 512),
    (100, 80, 7),
    (289, 130, 64),
];

/// Σ of the rounded factors in float64, and the sum of the products' sizes.
fn truth(a: &[u16], w: &[f32]) -> (f64, f64) {
    a.iter().zip(w).map(|(a, w)| f64::from(value(*a)) * f64::from(*w)).fold((0.0, 0.0), |(s, t), p| (s + p, t + p.abs()))
}

#[test]
fn products_of_the_rounded_factors_agree_with_float64() {
    at_every_level(|| {
        for (m, n, k) in SIZES {
            // rows side by side, apart, and overlapping as a convolution's do
            for stride in [k, k + 5, k.div_ceil(3), 1] {
                let (a, w) = (noise((m - 1) * stride + k + 3, 1), noise(n * k, 2));
                let matrix = Bf16Matrix::of_weight(&w, n, k);
                let (values, bits, out_stride) = (matrix.to_weight(), rounded(&a), n + 2);
                let mut out = vec![0.5; m * out_stride];
                round_multiply_add(&matrix, m, Rows { data: &a, offset: 3, stride }, &mut out, out_stride);
                for i in 0..m {
                    for j in 0..n {
                        let (sum, size) = truth(&bits[3 + i * stride..][..k], &values[j * k..][..k]);
                        let error = f64::from(out[i * out_stride + j]) - 0.5 - sum;
                        assert!(error.abs() <= 1e-6 * (size + 1.0), "{m} {n} {k} {stride} at {i},{j}: {error} of {sum}");
                    }
                    assert!(out[i * out_stride + n..][..2].iter().all(|v| *v == 0.5), "wrote behind a row");
                }
            }
        }
    });
}

#[test]
fn a_matrix_is_rounded_and_padded_with_zeros() {
    at_every_level(|| {
        for (_, n, k) in SIZES {
            let w = noise(n * k, 3);
            let turned: Vec<f32> = (0..n * k).map(|i| w[i % n * k + i / n]).collect();
            let (rows, columns) = (Bf16Matrix::of_weight(&w, n, k), Bf16Matrix::of_columns(&turned, n, k, n));
            assert!(rows.data == columns.data && rows.dims() == columns.dims(), "{n} {k}");
            assert_eq!(rows.to_weight(), rounded(&w).into_iter().map(value).collect::<Vec<_>>());
            assert_eq!(rows.data.iter().filter(|v| **v != 0).count(), rounded(&w).iter().filter(|v| **v != 0).count());
            assert_eq!(rows.data.len(), n.next_multiple_of(COLUMNS) * k.next_multiple_of(DEPTH));
        }
    });
}

#[test]
fn rounding_costs_what_eight_bits_of_mantissa_cost() {
    let (m, n, k) = (50, 70, 512);
    let (a, w) = (noise(m * k, 4), noise(n * k, 5));
    let mut out = vec![0.0; m * n];
    round_multiply_add(&Bf16Matrix::of_weight(&w, n, k), m, Rows { data: &a, offset: 0, stride: k }, &mut out, n);
    let (mut square, mut squares) = (0f64, 0f64);
    for (i, found) in out.iter().enumerate() {
        let truth: f64 = (0..k).map(|c| f64::from(a[i / n * k + c]) * f64::from(w[i % n * k + c])).sum();
        (square, squares) = (square + (f64::from(*found) - truth).powi(2), squares + truth * truth);
    }
    let error = (square / squares).sqrt();
    assert!(error > 1e-3 && error < 3e-3, "{error}");
}

#[test]
fn threads_and_row_counts_give_the_same_bits() {
    let (m, n, k) = (301, 200, 127);
    let (a, w) = (noise(m * k, 6), noise(n * k, 7));
    let run = |threads: usize, m: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok()?;
        pool.install(|| {
            let mut out = vec![0.5; m * n];
            let rows = Rows { data: &a, offset: 0, stride: k };
            round_multiply_add(&Bf16Matrix::of_weight(&w, n, k), m, rows, &mut out, n);
            Some(out)
        })
    };
    let one = run(1, m);
    assert!(one.is_some() && one == run(2, m) && one == run(5, m));
    for rows in [1, 7, 96] {
        assert_eq!(run(2, rows).as_deref(), one.as_ref().map(|one| &one[..rows * n]), "{rows} rows");
    }
}

#[test]
fn a_fault_stays_in_its_row_and_is_seen_there() {
    at_every_level(|| {
        for k in [1, 7, 31, 32, 45, 64] {
            for fault in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let (m, n) = (14, 66);
                let (mut a, w) = (noise(m * k, 8), noise(n * k, 9));
                a[5 * k] = fault;
                let mut out = vec![0.0; m * n];
                let rows = Rows { data: &a, offset: 0, stride: k };
                round_multiply_add(&Bf16Matrix::of_weight(&w, n, k), m, rows, &mut out, n);
                for (i, row) in out.chunks(n).enumerate() {
                    assert!(row.iter().all(|v| v.is_finite() == (i != 5)), "k {k} {fault}: row {i}");
                }
            }
        }
    });
}
