//! Rotary position embedding over `[T, H·D]`, in place: channels i and i + D/2 of every head turn together.

use rayon::prelude::*;

use super::simd::dispatch;
use crate::threads::each;

dispatch!(
    fn row(x: &mut [f32], cos: &[f32], sin: &[f32]);
    fma => {
        let half = cos.len();
        for head in x.chunks_exact_mut(2 * half) {
            let (left, right) = head.split_at_mut(half);
            for (((l, r), c), s) in left.iter_mut().zip(right).zip(cos).zip(sin) {
                (*l, *r) = (fma(*l, *c, -(*r * s)), fma(*r, *c, *l * s));
            }
        }
    }
);

/// Turns row `t` of `x` (rows of `width` numbers) by the angles of row `t` of `cos` and `sin` `[T, half]`.
pub fn rotary(x: &mut [f32], width: usize, cos: &[f32], sin: &[f32], half: usize) {
    assert!(half > 0 && width.is_multiple_of(2 * half) && x.len().is_multiple_of(width), "rotary: sizes");
    assert!(cos.len() == sin.len() && cos.len() >= x.len() / width * half, "rotary: table");
    let rows = x.par_chunks_mut(width).zip(cos.par_chunks(half).zip(sin.par_chunks(half)));
    each(rows.with_min_len(8), |(x, (cos, sin))| row(x, cos, sin));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    #[test]
    fn turns_the_pairs_of_every_head() {
        at_every_level(|| {
            let angle = [0.0f32, 0.0, 0.5, 2.0];
            let (cos, sin): (Vec<f32>, Vec<f32>) = angle.iter().map(|a| (a.cos(), a.sin())).unzip();
            let x: Vec<f32> = (0..16).map(|i| i as f32 - 7.0).collect();
            let mut y = x.clone();
            rotary(&mut y, 8, &cos, &sin, 2); // two positions, two heads of four channels
            for (i, value) in y.iter().enumerate() {
                let (t, head, pair, right) = (i / 8, i / 4 * 4, i % 2, i % 4 >= 2);
                let (l, r) = (x[head + pair], x[head + pair + 2]);
                let (c, s) = (cos[t * 2 + pair], sin[t * 2 + pair]);
                let truth = if right { r * c + l * s } else { l * c - r * s };
                assert!((value - truth).abs() < 1e-6, "{i}: {value} {truth}");
            }
        });
    }
}
