use super::*;
use crate::kernels::level::testing::at_every_level;
use crate::kernels::matmul::{Weight, matmul};

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
                matrix.panel(p, &a, |row, products| assert_eq!(products, &together[row * n + p * COLUMNS..][..products.len()]));
            }
        }
    });
}

#[test]
fn a_weight_is_rounded_by_half_a_step_of_its_group_at_most() {
    at_every_level(|| {
        for (n, k) in [(1, 1), (64, 64), (130, 70), (65, 200)] {
            let mut w = noise(n * k, 5);
            w[0] = 30.0; // an outlier
            let turned: Vec<f32> = (0..k * n).map(|i| w[i % n * k + i / n]).collect();
            let matrix = BlockFloatMatrix::new(&w, n, k, k, 1);
            let found = matrix.to_weight();
            assert_eq!(found, BlockFloatMatrix::new(&turned, n, k, 1, n).to_weight());
            for (w, found) in w.chunks(k).zip(found.chunks(k)).flat_map(|(w, found)| w.chunks(GROUP).zip(found.chunks(GROUP))) {
                let bound = w.iter().fold(0f32, |a, v| a.max(v.abs())) * 0.6 * 2f32.powi(-19);
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
        for end in [2.0 - 2f32.powi(-23), -f32::MAX / 2.0, f32::MIN_POSITIVE, f32::MIN_POSITIVE / 2.0, 0.0] {
            let found = BlockFloatMatrix::new(&[end], 1, 1, 1, 1).to_weight()[0];
            assert!((found - end).abs() <= end.abs() * 2f32.powi(-19) + f32::MIN_POSITIVE / 2.0, "{end} {found}");
        }
        // scales span 32 powers of two: what is smaller than the smallest step is nothing
        let found = BlockFloatMatrix::new(&[1e20, 1e-20, 1.0], 3, 1, 1, 1).to_weight();
        assert!((found[0] / 1e20 - 1.0).abs() < 2e-6 && found[1..] == [0.0, 0.0], "{found:?}");
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
                assert!(out[(m - 1) * n..].iter().all(|v| !v.is_finite()) && out[..(m - 1) * n].iter().all(|v| v.is_finite()));
            }
        }
    });
}
