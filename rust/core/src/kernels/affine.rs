//! One factor and one summand a channel over `[T, C]`, then ReLU: a batch normalisation whose statistics are fixed.

use rayon::prelude::*;

use super::simd::dispatch;
use crate::threads::each;

dispatch!(
    fn piece(x: &mut [f32], scale: &[f32], shift: &[f32]);
    fma => {
        for row in x.chunks_exact_mut(scale.len()) {
            for ((v, a), b) in row.iter_mut().zip(scale).zip(shift) {
                *v = fma(*v, *a, *b).max(0.0);
            }
        }
    }
);

/// `x = max(scale · x + shift, 0)` for rows of `scale.len()` channels.
pub fn affine_relu(x: &mut [f32], scale: &[f32], shift: &[f32]) {
    let c = scale.len();
    assert!(c > 0 && shift.len() == c && x.len().is_multiple_of(c), "affine: sizes");
    each(x.par_chunks_mut(((1 << 14) / c).max(1) * c), |x| piece(x, scale, shift));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    #[test]
    fn uses_the_numbers_of_each_column() {
        at_every_level(|| {
            let mut x = vec![1.0, -2.0, 3.0, 4.0, 5.0, -6.0];
            affine_relu(&mut x, &[2.0, -1.0, 0.5], &[0.0, 1.0, -1.0]);
            assert_eq!(x, [2.0, 3.0, 0.5, 8.0, 0.0, 0.0]);
        });
    }
}
