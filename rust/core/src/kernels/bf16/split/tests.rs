use super::*;
use crate::kernels::level::testing::at_every_level;

fn noise(n: usize, stream: u64) -> Vec<f32> {
    crate::draws::normals(stream, "test", 0, 1, n).map(|m| m.data).unwrap_or_default()
}

fn matrix(w: &[f32], n: usize, k: usize, terms: Terms) -> SplitMatrix {
    SplitMatrix::of_weight(w, n, k, terms)
}

/// Relative rms error against float64.
fn error(found: &[f32], truth: &[f64]) -> f64 {
    let square: f64 = found.iter().zip(truth).map(|(f, t)| (f64::from(*f) - t).powi(2)).sum();
    (square / truth.iter().map(|t| t * t).sum::<f64>()).sqrt()
}

const LIMITS: [(Terms, f64); 2] = [(Terms::Three, 8e-6), (Terms::Six, 4e-7)];

#[test]
fn names_are_understood_or_refused() {
    for (asked, found) in [
        (None, None),
        (Some("auto"), None),
        (Some("plain"), Some(Way::Plain)),
        (Some(Terms::Three.name()), Some(Way::Always(Terms::Three))),
        (Some(Terms::Six.name()), Some(Way::Always(Terms::Six))),
        (Some("split"), Some(Way::Split)),
    ] {
        assert_eq!(choose(asked), Ok(found));
    }
    assert_eq!(choose(Some("X3")), Err("CHATTERBOX_F32: expected auto, plain, x3, x6, split, got \"X3\"".into()));
}

#[test]
fn three_parts_are_the_number_itself() {
    at_every_level(|| {
        let mut w = noise(70 * 33, 1);
        w.extend([1.0, -3.0e38, f32::MIN_POSITIVE, 0.0, 1.5e-30]);
        w.resize(71 * 33, 0.1);
        // the third part of a number near the smallest ones is too small to be a bfloat16
        let close = |a: &f32, b: &f32| a == b || (a - b).abs() < 1e-38;
        assert!(matrix(&w, 71, 33, Terms::Six).to_weight().iter().zip(&w).all(|(a, b)| close(a, b)));
        let two = matrix(&w, 71, 33, Terms::Three).to_weight();
        assert!(two.iter().zip(&w).all(|(a, b)| (a - b).abs() <= b.abs() * 7.7e-6 + 1e-38));
    });
}

#[test]
fn products_come_as_close_to_float64_as_they_should() {
    at_every_level(|| {
        for (m, n, k) in [(1, 1, 1usize), (3, 20, 70), (7, 130, 96), (200, 64, 257), (97, 65, 1030)] {
            // rows of their own, and rows that overlap as a convolution's do
            for stride in [k + 5, k.div_ceil(3)] {
                let (a, w) = (noise(2 + (m - 1) * stride + k, 2), noise(n * k, 3));
                let start = noise(1, 4)[0];
                let value = |i: usize, j: usize| -> f64 {
                    (0..k).map(|c| f64::from(a[2 + i * stride + c]) * f64::from(w[j * k + c])).sum::<f64>() + f64::from(start)
                };
                let truth: Vec<f64> = (0..m * n).map(|at| value(at / n, at % n)).collect();
                for (terms, limit) in LIMITS {
                    let mut out = vec![start; m * (n + 3)];
                    let rows = Rows { data: &a, offset: 2, stride };
                    multiply_add(&matrix(&w, n, k, terms), m, rows, &mut out, n + 3);
                    let found: Vec<f32> = out.chunks(n + 3).flat_map(|row| &row[..n]).copied().collect();
                    assert!(out.chunks(n + 3).all(|row| row[n..] == [start; 3]), "{m} {n} {k}: between the rows");
                    let gap = error(&found, &truth);
                    assert!(gap < limit, "{m} {n} {k} {terms:?}: {gap:e}");
                }
            }
        }
    });
}

#[test]
fn factors_of_attention_do_too() {
    at_every_level(|| {
        let (m, n, k, stride) = (5, 37, 64, 130);
        let (a, data) = (noise(m * stride, 5), noise(n.max(k) * stride, 6));
        for (terms, limit) in LIMITS {
            for columns in [false, true] {
                let factor = match columns {
                    true => Factor::of_columns(&data, n, k, stride, terms),
                    false => Factor::of_rows(&data, n, k, stride, terms),
                };
                assert_eq!(factor.dims(), (n, k));
                let at = |c: usize, j: usize| f64::from(if columns { data[c * stride + j] } else { data[j * stride + c] });
                let value = |i: usize, j: usize| (0..k).map(|c| f64::from(a[i * stride + c]) * at(c, j)).sum::<f64>();
                let truth: Vec<f64> = (0..m * n).map(|at| value(at / n, at % n)).collect();
                let mut out = vec![0.0; m * n];
                // SAFETY: all rows lie inside.
                unsafe { factor.multiply(m, a.as_ptr(), stride, out.as_mut_ptr(), n) };
                assert!(error(&out, &truth) < limit, "{terms:?} {columns}");
            }
        }
    });
}

#[test]
fn threads_give_the_same_bits_and_a_fault_stays_in_its_row() {
    let (m, n, k) = (230, 200, 300);
    let (mut a, w) = (noise(m * k, 7), noise(n * k, 8));
    let run = |a: &[f32], threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok()?;
        let mut out = vec![0.0; m * n];
        pool.install(|| multiply_add(&matrix(&w, n, k, Terms::Six), m, Rows { data: a, offset: 0, stride: k }, &mut out, n));
        Some(out)
    };
    let one = run(&a, 1);
    assert!(one.is_some() && one == run(&a, 2) && one == run(&a, 5));
    for fault in [f32::NAN, f32::INFINITY] {
        a[60 * k + 3] = fault;
        let found = run(&a, 2).unwrap_or_default();
        assert!(found.chunks(n).enumerate().all(|(i, row)| row.iter().all(|v| v.is_finite() != (i == 60))), "{fault}");
    }
}
