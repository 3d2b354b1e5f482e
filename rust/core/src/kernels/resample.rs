//! The sums of a resampler's filter, in float64: a few outputs that share their coefficients at a time.

use super::simd::dispatch;

/// Outputs that are summed together: each coefficient is read once for all of them.
pub(crate) const PERIODS: usize = 4;
const LANES: usize = 8;

dispatch!(
    /// `out[p] = Σ x[down * p + i] · taps[i]` for at most [`PERIODS`] outputs, without fused multiply-adds: the same bits at every level.
    pub(crate) fn dots(x: &[f64], down: usize, taps: &[f64], out: &mut [f64]);
    _fma => {
        if out.len() == PERIODS {
            out.copy_from_slice(&sums::<PERIODS>(x, down, taps));
        } else {
            out.iter_mut().enumerate().for_each(|(p, out)| [*out] = sums(&x[p * down..], down, taps));
        }
    }
);

/// `P` outputs, each in eight interleaved lanes.
#[inline(always)]
fn sums<const P: usize>(x: &[f64], down: usize, taps: &[f64]) -> [f64; P] {
    let mut lanes = [[0f64; LANES]; P];
    let rows: [&[f64]; P] = std::array::from_fn(|p| &x[p * down..][..taps.len()]);
    let (blocks, rest) = taps.as_chunks::<LANES>();
    for (i, taps) in blocks.iter().enumerate() {
        for (lanes, row) in lanes.iter_mut().zip(rows) {
            let x = &row[i * LANES..][..LANES];
            for l in 0..LANES {
                lanes[l] += x[l] * taps[l];
            }
        }
    }
    let last = |row: &[f64]| row[blocks.len() * LANES..].iter().zip(rest).map(|(x, t)| x * t).sum::<f64>();
    std::array::from_fn(|p| lanes[p].iter().sum::<f64>() + last(rows[p]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    #[test]
    fn sums_are_those_of_the_definition_and_the_same_bits_at_every_level() {
        for (width, down) in [(1, 1), (7, 2), (22, 3), (64, 4), (292, 3), (355, 147)] {
            let noise = |n: usize, a: usize| -> Vec<f64> { (0..n).map(|i| ((i * a % 211) as f64 - 105.0) / 90.0).collect() };
            let (x, taps) = (noise(width + (PERIODS - 1) * down, 31), noise(width, 57));
            let seen = std::sync::Mutex::new(Vec::new());
            at_every_level(|| {
                let mut found = [0.0; PERIODS];
                dots(&x, down, &taps, &mut found);
                for (p, found) in found.iter().enumerate() {
                    let mut alone = [0.0];
                    dots(&x[p * down..], down, &taps, &mut alone);
                    assert_eq!(*found, alone[0], "{width} {down}");
                    let truth: f64 = (0..width).map(|i| x[p * down + i] * taps[i]).sum();
                    assert!((found - truth).abs() < 1e-12 * width as f64, "{width} {down}: {found} {truth}");
                }
                seen.lock().unwrap_or_else(|e| e.into_inner()).push(found.map(f64::to_bits));
            });
            let seen = seen.into_inner().unwrap_or_default();
            assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{width} {down}: {seen:?}");
        }
    }
}
