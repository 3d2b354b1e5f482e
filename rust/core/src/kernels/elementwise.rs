//! Element-wise operations on float32 slices, in place, in parallel over fixed pieces.

use rayon::prelude::*;

use super::maths;
use super::simd::dispatch;
use crate::threads::each;

/// Elements a task handles.
const PIECE: usize = 1 << 14;

/// A function applied to every element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Function {
    /// max(x, 0)
    Relu,
    /// x, or `slope * x` below zero
    LeakyRelu(f32),
    /// x, or e^x - 1 below zero
    Elu,
    /// x / (1 + e^-x)
    Silu,
    /// 1 / (1 + e^-x)
    Sigmoid,
    /// tanh x
    Tanh,
    /// x tanh(ln(1 + e^x))
    Mish,
    /// 0.5 x (1 + erf(x / √2))
    GeluErf,
    /// 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))), GPT-2's `gelu_new`
    GeluTanh,
}

dispatch!(
    /// [`apply`] on this thread.
    pub(crate) fn piece(function: Function, x: &mut [f32]);
    fma => {
        match function {
            Function::Relu => x.iter_mut().for_each(|v| *v = v.max(0.0)),
            Function::LeakyRelu(slope) => x.iter_mut().for_each(|v| *v = if *v < 0.0 { *v * slope } else { *v }),
            Function::Elu => x.iter_mut().for_each(|v| {
                let below = maths::exp_m1_of_negative(fma, v.min(0.0));
                *v = if *v < 0.0 { below } else { *v };
            }),
            Function::Silu => x.iter_mut().for_each(|v| *v /= 1.0 + maths::exp(fma, -*v)),
            Function::Sigmoid => x.iter_mut().for_each(|v| *v = 1.0 / (1.0 + maths::exp(fma, -*v))),
            Function::Tanh => x.iter_mut().for_each(|v| *v = maths::tanh(fma, *v)),
            Function::Mish => x.iter_mut().for_each(|v| {
                // tanh(ln(1 + e)) = (e² + 2e) / (e² + 2e + 2); 1 to float precision above 15
                let e = maths::exp(fma, v.min(15.0));
                let n = e * (e + 2.0);
                *v *= n / (n + 2.0);
            }),
            Function::GeluErf => x.iter_mut().for_each(|v| {
                *v = 0.5 * *v * (1.0 + maths::erf(fma, *v * std::f32::consts::FRAC_1_SQRT_2));
            }),
            Function::GeluTanh => x.iter_mut().for_each(|v| {
                let inner = 0.797_884_6 * fma(0.044_715 * *v * *v, *v, *v);
                *v = 0.5 * *v * (1.0 + maths::tanh(fma, inner));
            }),
        }
    }
);

dispatch!(
    /// [`snake`] on this thread, with [`inverse_of`] its alpha.
    pub(super) fn snake_rows(x: &mut [f32], alpha: &[f32], inverse: &[f32]);
    fma => {
        for row in x.chunks_exact_mut(alpha.len()) {
            for ((v, a), i) in row.iter_mut().zip(alpha).zip(inverse) {
                *v = fma(maths::sin_squared(fma, *v * a), *i, *v);
            }
        }
    }
);

dispatch!(
    /// `out = bias + x + out` in every row, without `x` where there is none, without `out` unless `add`: the sums of [`sum_rows`].
    pub(super) fn start_rows(out: &mut [f32], bias: &[f32], x: Option<&[f32]>, add: bool);
    fma => {
        let n = bias.len();
        for (i, row) in out.chunks_exact_mut(n).enumerate() {
            match (x.map(|x| &x[i * n..(i + 1) * n]), add) {
                (Some(x), true) => row.iter_mut().zip(bias).zip(x).for_each(|((o, b), x)| *o += b + x),
                (Some(x), false) => row.iter_mut().zip(bias).zip(x).for_each(|((o, b), x)| *o = b + x),
                (None, true) => row.iter_mut().zip(bias).for_each(|(o, b)| *o += b),
                (None, false) => row.copy_from_slice(bias),
            }
        }
    }
);

dispatch!(
    fn add_piece(x: &mut [f32], y: &[f32]);
    fma => {
        for (a, b) in x.iter_mut().zip(y) {
            *a += b;
        }
    }
);

/// `x += by` in every row of `[rows, by.len()]`.
pub fn shift(x: &mut [f32], by: &[f32]) {
    let rows = (PIECE / by.len()).max(1) * by.len();
    each(x.par_chunks_mut(rows), |x| x.chunks_exact_mut(by.len()).for_each(|row| add_piece(row, by)));
}

/// `[rows, n]`, every row `bias + Σ adds` (zeros without either); at most two adds.
pub fn sum_rows(rows: usize, n: usize, bias: Option<&[f32]>, adds: &[&[f32]]) -> Vec<f32> {
    assert!(bias.is_none_or(|b| b.len() == n) && adds.iter().all(|a| a.len() == rows * n), "sum_rows: sizes");
    if rows * n == 0 {
        return Vec::new();
    }
    let zeros;
    let bias = match bias {
        Some(bias) => bias,
        None => {
            zeros = vec![0.0; n];
            &zeros
        }
    };
    let mut out: Vec<f32> = Vec::with_capacity(rows * n);
    let piece = (PIECE / n).max(1) * n;
    each(out.spare_capacity_mut()[..rows * n].par_chunks_mut(piece).enumerate(), |(i, out)| {
        for (j, row) in out.chunks_exact_mut(n).enumerate() {
            let at = i * piece + j * n;
            let cells = row.iter_mut().zip(bias);
            match adds {
                [] => cells.for_each(|(o, b)| {
                    o.write(*b);
                }),
                [x] => cells.zip(&x[at..at + n]).for_each(|((o, b), x)| {
                    o.write(b + x);
                }),
                [x, y, ..] => {
                    let xy = x[at..at + n].iter().zip(&y[at..at + n]);
                    cells.zip(xy).for_each(|((o, b), (x, y))| {
                        o.write(b + x + y);
                    });
                }
            }
        }
    });
    // SAFETY: the loop above has written the first rows * n values.
    unsafe { out.set_len(rows * n) };
    out
}

/// `x = function(x)`.
pub fn apply(function: Function, x: &mut [f32]) {
    each(x.par_chunks_mut(PIECE), |x| piece(function, x));
}

/// Snake with one `alpha` a channel over `[T, C]`: `x + sin²(αx) / (α + 1e-9)` (arXiv:2006.08195).
pub fn snake(x: &mut [f32], alpha: &[f32]) {
    let inverse = inverse_of(alpha);
    let rows = (PIECE / alpha.len()).max(1) * alpha.len();
    each(x.par_chunks_mut(rows), |x| snake_rows(x, alpha, &inverse));
}

/// What the snake of each channel multiplies by.
pub(super) fn inverse_of(alpha: &[f32]) -> Vec<f32> {
    alpha.iter().map(|a| 1.0 / (a + 1e-9)).collect()
}

/// `x += y`.
pub fn add(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    each(x.par_chunks_mut(PIECE).zip(y.par_chunks(PIECE)), |(x, y)| add_piece(x, y));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::testing::at_every_level;
    use crate::kernels::level::{Level, level};

    #[test]
    fn functions_agree_with_float64() {
        at_every_level(|| {
            let xs: Vec<f32> = (-4000..=4000).map(|i| i as f32 / 200.0).collect();
            let softplus = |x: f64| if x > 30.0 { x } else { x.exp().ln_1p() };
            type Truth<'a> = &'a dyn Fn(f64) -> f64;
            let cases: [(Function, Truth<'_>); 8] = [
                (Function::Relu, &|x| x.max(0.0)),
                (Function::LeakyRelu(0.1), &|x| if x < 0.0 { x * f64::from(0.1f32) } else { x }),
                (Function::Elu, &|x| if x < 0.0 { x.exp_m1() } else { x }),
                (Function::Silu, &|x| x / (1.0 + (-x).exp())),
                (Function::Sigmoid, &|x| 1.0 / (1.0 + (-x).exp())),
                (Function::Tanh, &f64::tanh),
                (Function::Mish, &|x| x * softplus(x).tanh()),
                (Function::GeluTanh, &|x| {
                    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
                }),
            ];
            for (function, truth) in cases {
                let mut ys = xs.clone();
                apply(function, &mut ys);
                for (x, y) in xs.iter().zip(&ys) {
                    let t = truth(f64::from(*x));
                    assert!((f64::from(*y) - t).abs() < 4e-7 * t.abs().max(1.0), "{function:?}({x}) = {y}, expected {t}");
                }
            }
        });
    }

    #[test]
    fn exact_gelu_at_known_points() {
        at_every_level(|| {
            // x Φ(x), Φ from a table of the normal distribution (15 digits)
            for (x, t) in [
                (1.0f32, 0.841_344_746_068_543),
                (2.0, 1.954_499_736_103_642),
                (-1.0, -0.158_655_253_931_457),
                (0.5, 0.345_731_230_637_007),
            ] {
                let mut y = [x];
                apply(Function::GeluErf, &mut y);
                assert!((f64::from(y[0]) - t).abs() < 2e-7, "{x}: {}", y[0]);
            }
        });
    }

    #[test]
    fn rows_are_summed_and_shifted() {
        at_every_level(|| {
            for (rows, n) in [(0, 3), (1, 1), (700, 37)] {
                let x: Vec<f32> = (0..rows * n).map(|i| i as f32).collect();
                let y: Vec<f32> = (0..rows * n).map(|i| (i % 7) as f32).collect();
                let bias: Vec<f32> = (0..n).map(|i| i as f32 / 4.0).collect();
                assert_eq!(sum_rows(rows, n, None, &[]), vec![0.0; rows * n]);
                assert_eq!(sum_rows(rows, n, Some(&bias), &[]), bias.repeat(rows));
                let mut both: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
                assert_eq!(sum_rows(rows, n, None, &[&x, &y]), both);
                shift(&mut both, &bias);
                assert_eq!(sum_rows(rows, n, Some(&bias), &[&x, &y]), both);
            }
        });
    }

    #[test]
    fn snake_uses_the_channel_of_each_column() {
        at_every_level(|| {
            let mut x = vec![0.5f32, 0.5, -1.0, 2.0];
            snake(&mut x, &[1.0, 3.0]);
            let truth = |x: f64, a: f64| x + (a * x).sin().powi(2) / a;
            for (y, t) in x.iter().zip([truth(0.5, 1.0), truth(0.5, 3.0), truth(-1.0, 1.0), truth(2.0, 3.0)]) {
                assert!((f64::from(*y) - t).abs() < 1e-6);
            }
        });
    }

    #[test]
    fn snake_of_large_arguments_stays_what_it_is() {
        at_every_level(|| {
            let xs: Vec<f32> = (-30_000..=30_000).map(|i| i as f32 * 33.3).chain([1e8, -3e9, 1e20, -1e30]).collect();
            let mut ys = xs.clone();
            snake(&mut ys, &[1.0]);
            for (x, y) in xs.iter().zip(&ys) {
                let (x, y) = (f64::from(*x), f64::from(*y));
                let step = f64::from(f32::EPSILON) * x.abs(); // of float32 there
                let right = (y - (x + x.sin().powi(2))).abs() <= 3e-7 + step;
                assert!(
                    (right || level() == Level::Baseline || x.abs() > 1e6) && y >= x - step && y <= x + 1.0 + step,
                    "{x}: {y}"
                );
            }
            let mut ys = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0];
            snake(&mut ys, &[1.0]);
            assert!(ys[..3].iter().all(|y| y.is_nan()) && (f64::from(ys[3]) - 1.0 - 1f64.sin().powi(2)).abs() < 1e-6);
        });
    }
}
