//! The recurrence of one LSTM layer over `[B, T, H]`, for the products of the inputs being done beforehand.
//!
//! Sequences do not depend on each other: each task carries a few of them through all steps, so that threads never wait for
//! each other inside a sequence and the recurrent weights stay in the cache of their core.

use rayon::prelude::*;

use super::maths;
use super::matmul::{Rows, accumulate};
use super::panels::{Panels, Plain};
use super::simd::dispatch;
use super::tiles;
use crate::threads::each;

/// Most sequences that a task carries.
const SEQUENCES: usize = 6;

/// Hidden states `[B, T, H]` from zero states.
///
/// `gates` `[B, T, 4H]` holds the inputs' products and all biases, gates in PyTorch's order i, f, g, o, and is overwritten;
/// `recurrent` is `[H, 4H]` (Hochreiter & Schmidhuber 1997 with forget gates, as `torch.nn.LSTM` states it).
pub fn lstm(gates: &mut [f32], steps: usize, hidden: usize, recurrent: &[f32]) -> Vec<f32> {
    assert_eq!(recurrent.len(), 4 * hidden * hidden, "lstm: recurrent weight");
    let sequence = steps * 4 * hidden;
    if sequence == 0 {
        return Vec::new();
    }
    assert_eq!(gates.len() % sequence, 0, "lstm: gates");
    let batch = gates.len() / sequence;
    let mut out = vec![0.0; batch * steps * hidden];
    // An even number of even shares, whatever the number of threads.
    let tasks = batch.div_ceil(SEQUENCES).next_multiple_of(2);
    let share = batch.div_ceil(tasks.max(1)).max(1);
    // Dealt once for all steps: columns of the plain layout are a page apart and evict each other.
    let weight = if tiles::any_available() {
        Recurrent::Panels(Panels::new(Plain::new(recurrent, 4 * hidden, hidden, 1, 4 * hidden)))
    } else {
        Recurrent::Plain(recurrent)
    };
    let shares = out.par_chunks_mut(share * steps * hidden).zip(gates.par_chunks_mut(share * sequence));
    each(shares, |(out, gates)| walk(gates, steps, hidden, &weight, out));
    out
}

/// The recurrent weights `[H, 4H]`.
enum Recurrent<'a> {
    Plain(&'a [f32]),
    Panels(Panels),
}

impl Recurrent<'_> {
    /// Adds the product of the states at `t - 1` to the gates at `t`.
    fn add(&self, gates: &mut [f32], states: &[f32], sequences: usize, steps: usize, hidden: usize, t: usize) {
        let (width, from) = (4 * hidden, (t - 1) * hidden);
        assert!(t < steps && gates.len() == sequences * steps * width && states.len() == sequences * steps * hidden);
        match self {
            Self::Plain(weight) => {
                let rows = Rows { data: states, offset: from, stride: steps * hidden };
                accumulate(sequences, width, hidden, rows, weight, gates, t * width, steps * width);
            }
            Self::Panels(panels) => {
                // SAFETY: panels exist where the tiles can run; the sizes asserted above keep every row inside its slice.
                unsafe {
                    let (a, out) = (states.as_ptr().add(from), gates.as_mut_ptr().add(t * width));
                    panels.multiply(0..panels.count(), sequences, a, steps * hidden, out, steps * width);
                }
            }
        }
    }
}

fn walk(gates: &mut [f32], steps: usize, hidden: usize, recurrent: &Recurrent<'_>, out: &mut [f32]) {
    let (width, sequences) = (4 * hidden, out.len() / steps / hidden);
    let mut cells = vec![0.0; sequences * hidden];
    for t in 0..steps {
        if t > 0 {
            recurrent.add(gates, out, sequences, steps, hidden, t);
        }
        for (i, cell) in cells.chunks_exact_mut(hidden).enumerate() {
            step(&mut gates[(i * steps + t) * width..][..width], cell, &mut out[(i * steps + t) * hidden..][..hidden]);
        }
    }
}

dispatch!(
    fn step(gates: &mut [f32], cell: &mut [f32], state: &mut [f32]);
    fma => {
        let hidden = cell.len();
        let sigmoid = |x: &mut [f32]| x.iter_mut().for_each(|v| *v = 1.0 / (1.0 + maths::exp(fma, -*v)));
        let (input, rest) = gates.split_at_mut(hidden);
        let (forget, rest) = rest.split_at_mut(hidden);
        let (new, output) = rest.split_at_mut(hidden);
        sigmoid(input);
        sigmoid(forget);
        sigmoid(output);
        new.iter_mut().for_each(|v| *v = maths::tanh(fma, *v));
        for (((c, f), i), n) in cell.iter_mut().zip(forget).zip(input).zip(new) {
            *c = fma(*f, *c, *i * *n);
        }
        for ((h, o), c) in state.iter_mut().zip(output).zip(cell) {
            *h = *o * maths::tanh(fma, *c);
        }
    }
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    #[test]
    fn agrees_with_float64_for_every_batch() {
        at_every_level(|| {
            let noise = |n: usize, a: usize| -> Vec<f32> { (0..n).map(|i| ((i * a % 211) as f32 - 105.0) / 90.0).collect() };
            let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
            for (batch, steps, hidden) in [(1, 1, 4), (2, 9, 5), (7, 12, 16), (13, 5, 24)] {
                let (gates, weight) = (noise(batch * steps * 4 * hidden, 31), noise(4 * hidden * hidden, 57));
                let found = lstm(&mut gates.clone(), steps, hidden, &weight);
                assert_eq!(found.len(), batch * steps * hidden);
                let mut plain = vec![0.0; found.len()];
                walk(&mut gates.clone(), steps, hidden, &Recurrent::Plain(&weight), &mut plain);
                assert!(found.iter().zip(&plain).all(|(a, b)| (a - b).abs() < 1e-5), "B {batch} T {steps} H {hidden}");
                for b in 0..batch {
                    let (mut h, mut c) = (vec![0f64; hidden], vec![0f64; hidden]);
                    for t in 0..steps {
                        let sum = |n: usize| {
                            f64::from(gates[(b * steps + t) * 4 * hidden + n])
                                + (0..hidden).map(|k| f64::from(weight[k * 4 * hidden + n]) * h[k]).sum::<f64>()
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
        });
    }
}
