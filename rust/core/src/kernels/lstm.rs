//! The recurrence of one LSTM layer over `[B, T, H]`, for the products of the inputs being done beforehand.
//!
//! Sequences do not depend on each other: each task carries a few of them through all steps, so that threads never wait for
//! each other inside a sequence and the recurrent weights stay in the cache of their core.

use rayon::prelude::*;

use super::maths;
use super::panels::{Panels, ROWS, WIDTH, accumulate};
use super::simd::dispatch;

/// Hidden states `[B, T, H]` from zero states.
///
/// `gates` `[B, T, 4H]` holds the inputs' products and all biases, gates in PyTorch's order i, f, g, o; `recurrent` is
/// `[4H, H]` (Hochreiter & Schmidhuber 1997 with forget gates, as `torch.nn.LSTM` states it).
pub fn lstm(gates: &[f32], steps: usize, recurrent: &Panels) -> Vec<f32> {
    let hidden = recurrent.depth();
    assert_eq!(recurrent.columns(), 4 * hidden, "lstm: recurrent weight");
    let sequence = steps * 4 * hidden;
    if sequence == 0 {
        return Vec::new();
    }
    assert_eq!(gates.len() % sequence, 0, "lstm: gates");
    let batch = gates.len() / sequence;
    let rounds = batch.div_ceil(ROWS * super::threads());
    let rows = batch.div_ceil(rounds.max(1) * super::threads()).clamp(1, ROWS);
    let mut out = vec![0.0; batch * steps * hidden];
    out.par_chunks_mut(rows * steps * hidden)
        .zip(gates.par_chunks(rows * sequence))
        .for_each(|(out, gates)| few(gates, steps, recurrent, out));
    out
}

dispatch!(
    fn few(gates: &[f32], steps: usize, recurrent: &Panels, out: &mut [f32]);
    fma => {
        match out.len() / (steps * recurrent.depth()) {
            1 => walk::<1>(fma, gates, steps, recurrent, out),
            2 => walk::<2>(fma, gates, steps, recurrent, out),
            3 => walk::<3>(fma, gates, steps, recurrent, out),
            4 => walk::<4>(fma, gates, steps, recurrent, out),
            5 => walk::<5>(fma, gates, steps, recurrent, out),
            _ => walk::<ROWS>(fma, gates, steps, recurrent, out),
        }
    }
);

#[inline(always)]
fn walk<const R: usize>(fma: impl maths::Fma, gates: &[f32], steps: usize, recurrent: &Panels, out: &mut [f32]) {
    let (hidden, width) = (recurrent.depth(), recurrent.columns());
    let (mut h, mut c) = (vec![0.0f32; R * hidden], vec![0.0f32; R * hidden]);
    let mut sums = vec![0.0f32; R * width];
    for t in 0..steps {
        for p in 0..recurrent.count() {
            let (first, columns) = (p * WIDTH, WIDTH.min(width - p * WIDTH));
            let mut acc = [[0.0; WIDTH]; R];
            for r in 0..R {
                acc[r][..columns].copy_from_slice(&gates[(r * steps + t) * width + first..][..columns]);
            }
            accumulate(fma, recurrent.panel(p), std::array::from_fn(|r| &h[r * hidden..(r + 1) * hidden]), &mut acc);
            for r in 0..R {
                sums[r * width + first..][..columns].copy_from_slice(&acc[r][..columns]);
            }
        }
        for r in 0..R {
            let (h, c) = (&mut h[r * hidden..(r + 1) * hidden], &mut c[r * hidden..(r + 1) * hidden]);
            let (input, rest) = sums[r * width..(r + 1) * width].split_at_mut(hidden);
            let (forget, rest) = rest.split_at_mut(hidden);
            let (cell, output) = rest.split_at_mut(hidden);
            let sigmoid = |x: f32| 1.0 / (1.0 + maths::exp(fma, -x));
            for j in 0..hidden {
                c[j] = fma(sigmoid(forget[j]), c[j], sigmoid(input[j]) * maths::tanh(fma, cell[j]));
                h[j] = sigmoid(output[j]) * maths::tanh(fma, c[j]);
            }
            out[(r * steps + t) * hidden..][..hidden].copy_from_slice(h);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_float64_for_every_batch() {
        let noise = |n: usize, a: usize| -> Vec<f32> { (0..n).map(|i| ((i * a % 211) as f32 - 105.0) / 90.0).collect() };
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        for (batch, steps, hidden) in [(1, 1, 4), (2, 9, 5), (7, 12, 16), (13, 5, 24)] {
            let (gates, weight) = (noise(batch * steps * 4 * hidden, 31), noise(4 * hidden * hidden, 57));
            let found = lstm(&gates, steps, &Panels::new(&weight, 4 * hidden, hidden));
            assert_eq!(found.len(), batch * steps * hidden);
            for b in 0..batch {
                let (mut h, mut c) = (vec![0f64; hidden], vec![0f64; hidden]);
                for t in 0..steps {
                    let sum = |n: usize| {
                        f64::from(gates[(b * steps + t) * 4 * hidden + n])
                            + (0..hidden).map(|k| f64::from(weight[n * hidden + k]) * h[k]).sum::<f64>()
                    };
                    let sums: Vec<f64> = (0..4 * hidden).map(sum).collect();
                    for j in 0..hidden {
                        c[j] = sigmoid(sums[hidden + j]) * c[j] + sigmoid(sums[j]) * sums[2 * hidden + j].tanh();
                        h[j] = sigmoid(sums[3 * hidden + j]) * c[j].tanh();
                        let value = f64::from(found[(b * steps + t) * hidden + j]);
                        assert!((value - h[j]).abs() < 1e-5, "B {b} T {t} H {j}: {value} {}", h[j]);
                    }
                }
            }
        }
    }

    #[test]
    fn a_sequence_does_not_depend_on_its_company() {
        let gates: Vec<f32> = (0..11 * 7 * 32).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
        let weight: Vec<f32> = (0..32 * 8).map(|i| ((i * 13 % 41) as f32 - 20.0) / 20.0).collect();
        let panels = Panels::new(&weight, 32, 8);
        let together = lstm(&gates, 7, &panels);
        for b in 0..11 {
            assert_eq!(together[b * 56..(b + 1) * 56], lstm(&gates[b * 224..(b + 1) * 224], 7, &panels));
        }
    }
}
