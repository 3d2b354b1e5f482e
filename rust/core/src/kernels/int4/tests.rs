use super::*;

fn noise(n: usize, stream: u64) -> Vec<f32> {
    crate::draws::normals(stream, "test", 0, 1, n).map(|m| m.data).unwrap_or_default()
}

fn product(level: Level, w: &Int4Matrix, m: usize, a: &[f32]) -> Vec<f32> {
    let mut out = vec![0.5; m * w.n];
    int8::multiply_add_with(level, w, m, a, &mut out);
    out
}

/// m, n, k: one row and many, whole and broken panels, groups, halves and tiles.
const SIZES: [(usize, usize, usize); 9] =
    [(1, 1, 1), (1, 64, 64), (1, 200, 257), (3, 5, 33), (5, 65, 24), (6, 128, 1024), (7, 63, 130), (97, 70, 96), (40, 192, 512)];

/// The groups of 32 weights of an output.
fn groups(w: &[f32], k: usize) -> impl Iterator<Item = &[f32]> {
    w.chunks(k).flat_map(|row| row.chunks(HALF))
}

fn squares(x: impl Iterator<Item = f32>) -> f64 {
    x.map(|x| f64::from(x).powi(2)).sum()
}

/// The product by its definition: bytes of activations and integer weights taken from the numbers themselves, every half an integer.
fn naive(w: &Int4Matrix, m: usize, a: &[f32]) -> Vec<f32> {
    let (n, k) = w.dims();
    let (values, mut out) = (w.values(), vec![0.5; m * n]);
    for i in 0..m {
        for j in 0..n {
            let mut total = 0f32;
            for (g, a) in a[i * k..][..k].chunks(GROUP).enumerate() {
                let largest = a.iter().fold(0f32, |l, x| l.max(x.abs()));
                let inverse = if largest < SMALLEST { 0.0 } else { 127.0 / largest };
                let part = |half: &[f32], first: usize| {
                    let scale = scale_of(&w.pages[(j / COLUMNS * k.div_ceil(GROUP) * 2 + first / HALF) * BLOCK..], j % COLUMNS);
                    let sum = half.iter().enumerate().map(|(c, x)| {
                        let step = if scale == 0.0 { 0.0 } else { values[j * k + first + c] / scale };
                        (f64::from(*x) * f64::from(inverse)).round_ties_even() as i64 * step as i64
                    });
                    sum.sum::<i64>() as f32 * scale
                };
                let (low, high) = a.split_at(HALF.min(a.len()));
                let second = if high.is_empty() { 0.0 } else { part(high, g * GROUP + HALF) };
                total += (part(low, g * GROUP) + second) * (if largest < SMALLEST { 0.0 } else { largest / 127.0 });
            }
            out[i * n + j] += total;
        }
    }
    out
}

#[test]
fn products_are_those_of_the_definition_at_every_level() {
    for (m, n, k) in SIZES {
        let (mut a, w) = (noise(m * k, 1), noise(n * k, 2));
        a[0] = 40.0; // an outlier
        let matrix = Int4Matrix::new(&w, n, k, k, 1);
        let expected = naive(&matrix, m, &a);
        for level in Level::all() {
            for (i, (found, expected)) in product(level, &matrix, m, &a).iter().zip(&expected).enumerate() {
                // an activation in the middle of two steps may go either way
                assert!(
                    (found - expected).abs() <= 2e-3 * expected.abs().max(1.0),
                    "{level:?} {m} {n} {k} at {i}: {found}, {expected}"
                );
            }
        }
    }
}

#[test]
fn levels_and_row_counts_give_the_same_bits() {
    for (m, n, k) in SIZES {
        let (a, w) = (noise(m * k, 3), noise(n * k, 4));
        let matrix = Int4Matrix::new(&w, n, k, k, 1);
        let expected = product(Level::Plain, &matrix, m, &a);
        for level in Level::all() {
            assert!(product(level, &matrix, m, &a) == expected, "{level:?} {m} {n} {k}");
        }
        for (row, out) in a.chunks(k).zip(expected.chunks(n)) {
            assert!(product(Level::best(), &matrix, 1, row) == out, "one row of {m} {n} {k}");
        }
    }
}

#[test]
fn threads_give_the_same_bits() {
    let (m, n, k) = (130, 700, 320);
    let (a, w) = (noise(m * k, 9), noise(n * k, 10));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok()?;
        pool.install(|| {
            let matrix = Int4Matrix::new(&w, n, k, k, 1);
            Some((product(Level::best(), &matrix, m, &a), product(Level::best(), &matrix, 1, &a[..k])))
        })
    };
    let one = run(1);
    assert!(one.is_some() && one == run(3));
}

#[test]
fn the_packed_weights_do_not_depend_on_the_level() {
    let w = noise(100 * 130, 5);
    let first = std::sync::Mutex::new(None);
    crate::kernels::level::testing::at_every_level(|| {
        let pages = Int4Matrix::new(&w, 100, 130, 130, 1).pages;
        let mut first = first.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        assert!(*first.get_or_insert_with(|| pages.clone()) == pages);
    });
}

#[test]
fn squared_errors_stay_below_those_of_fifteen_even_steps() {
    let k = 96;
    let mut w = noise(70 * k, 6);
    w.iter_mut().skip(k).step_by(37).for_each(|x| *x *= 20.0); // outliers
    w[..32].fill(-0.25); // all the same
    w[32..64].iter_mut().enumerate().for_each(|(i, x)| *x = if i == 7 { 3.0 } else { 0.0 }); // one alone
    let values = Int4Matrix::new(&w, 70, k, k, 1).values();
    let (mut all, mut even) = (0.0, 0.0);
    for (w, v) in groups(&w, k).zip(groups(&values, k)) {
        let error = squares(w.iter().zip(v).map(|(w, v)| w - v));
        let step = w.iter().fold(0f32, |l, x| l.max(x.abs())) / 7.0;
        let plain = squares(w.iter().map(|w| w - (w / step).round() * step));
        // least squares is at least as good, but for the rounding of the scale, 2^-8 of it: Σ (2^-8 steps · scale)²
        let bound = 1.00001 * plain + squares(w.iter().copied()) / f64::from(1 << 16);
        assert!(error <= bound, "{error} above {bound}");
        // the bound of rounding to the nearest of steps that reach as far as the largest: half a step each
        assert!(plain <= 1.0001 * w.len() as f64 * f64::from(step / 2.0).powi(2));
        (all, even) = (all + error, even + plain);
    }
    assert!(all < 0.9 * even, "least squares: {all} of {even}");
    let (one, alone) = (&values[..32], &values[32..64]);
    assert!(one.iter().all(|v| (v + 0.25).abs() < 1e-3), "{one:?}");
    assert!((alone[7] - 3.0).abs() < 0.012 && alone.iter().filter(|v| **v != 0.0).count() == 1, "{alone:?}");
    // normal weights: sqrt(Σ error² / Σ w²) of uniform steps is 0.086 with the largest at an end, 0.081 by least squares
    let w = noise(64 * 1024, 7);
    let values = Int4Matrix::new(&w, 64, 1024, 1024, 1).values();
    let relative = (squares(w.iter().zip(&values).map(|(w, v)| w - v)) / squares(w.iter().copied())).sqrt();
    assert!((0.078..0.083).contains(&relative), "{relative}");
}

#[test]
fn numbers_on_the_grid_are_kept() {
    // -8 to 7 steps with a scale of either sign, a power of two
    for scale in [0.25f32, -4.0, 1e-20f32.log2().round().exp2(), 2f32.powi(120)] {
        let w: Vec<f32> = (0..64).map(|i| (i % 16 - 8) as f32 * scale).collect();
        assert_eq!(Int4Matrix::new(&w, 1, 64, 64, 1).values(), w, "{scale}");
    }
}

#[test]
fn integer_sums_are_exact_at_the_extremes() {
    // every weight is -8 or 7 steps and every activation ±127: the largest sums that there are
    let (n, k) = (64, 192);
    for (x, w, step) in [(1.0f32, 8.0f32, -1.0f32), (-1.0, 8.0, -1.0), (1.0, -7.0, -1.0), (-1.0, -7.0, -1.0), (1.0, -8.0, 1.0)] {
        // one weight of the other end in a half leaves no other scale
        let at = |i: usize| if i.is_multiple_of(HALF) { if w.abs() == 8.0 { 7.0 * step } else { -8.0 * step } } else { w };
        let weights: Vec<f32> = (0..n * k).map(at).collect();
        let matrix = Int4Matrix::new(&weights, n, k, k, 1);
        assert_eq!(matrix.values(), weights, "{w} {step}");
        let expected = x * weights[..k].iter().sum::<f32>();
        for level in Level::all() {
            for m in [1, 6, 16] {
                let mut out = vec![0.0; m * n];
                int8::multiply_add_with(level, &matrix, m, &vec![x; m * k], &mut out);
                assert!(out.iter().all(|o| (o - expected).abs() < 1e-3), "{level:?}, {m} rows: {} of {expected}", out[0]);
            }
        }
    }
}

#[test]
fn both_layouts_hold_the_same_matrix() {
    let (n, k) = (130, 70);
    let w = noise(n * k, 5);
    let turned: Vec<f32> = (0..k * n).map(|i| w[i % n * k + i / n]).collect();
    let (rows, columns) = (Int4Matrix::new(&w, n, k, k, 1), Int4Matrix::new(&turned, n, k, 1, n));
    assert!(rows.pages == columns.pages && rows.bytes() == 3 * 2 * PAGE);
    assert_eq!(PAGE * 2, COLUMNS * GROUP * 9 / 8, "4.5 bits a weight");
}

#[test]
fn zeros_stay_zeros_and_faults_are_seen() {
    let mut w = noise(3 * 64, 6);
    w[64..128].fill(0.0);
    w[128..160].fill(1e-38); // too small for an inverse: zeros as well
    let matrix = Int4Matrix::new(&w, 3, 64, 64, 1);
    assert!(matrix.values()[64..160].iter().all(|v| *v == 0.0) && matrix.values()[160..].iter().any(|v| *v != 0.0));
    for level in Level::all() {
        for m in [1, 6, 16] {
            assert_eq!(product(level, &matrix, m, &vec![0.0; 64 * m]), vec![0.5; 3 * m]);
            assert_eq!(product(level, &matrix, m, &noise(64 * m, 7))[1], 0.5);
            for fault in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut a = noise(64 * m, 8);
                a[5] = fault;
                let out = product(level, &matrix, m, &a);
                assert!(out[..3].iter().all(|v| !v.is_finite()), "{level:?} {fault}");
                assert!(out[3..].iter().all(|v| v.is_finite()), "{level:?} {fault}: another row");
            }
        }
    }
}
