//! ConvTranspose1d over channels-last `[T, C]`: one product per phase of the stride.
//!
//! Output row o reads the input rows i with o + padding = i·stride + j, 0 <= j < k: the outputs of one residue
//! (o + padding) mod stride form an ordinary convolution with ceil((k - residue) / stride) taps.

use super::bf16::Bf16Matrix;
use super::conv1d::lay;
use super::matmul::{Rows, Weight};
use super::operand::Operand;
use super::panels::Panels;
use crate::precision::Products;

/// Weights of one transposed convolution, dealt into phases.
#[derive(Clone, Debug)]
pub struct Phases {
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    /// Per phase `[output, taps * input]`, taps from the oldest input row to the newest.
    weights: Vec<Phase>,
}

#[derive(Clone, Debug)]
struct Phase {
    taps: usize,
    weight: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Plain(Vec<f32>),
    Dealt(Panels),
    Bf16(Bf16Matrix),
}

impl Phases {
    /// Deals PyTorch's `[input, output, kernel]` weight into phases.
    pub fn new(
        weight: &[f32],
        input: usize,
        output: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        products: Products,
    ) -> Self {
        assert_eq!(weight.len(), input * output * kernel, "conv_transpose1d: weight size");
        let weights = (0..stride)
            .map(|phase| {
                let taps = kernel.saturating_sub(phase).div_ceil(stride);
                let mut dealt = vec![0.0; output * taps * input];
                for n in 0..output {
                    for tap in 0..taps {
                        let j = phase + (taps - 1 - tap) * stride;
                        for c in 0..input {
                            dealt[(n * taps + tap) * input + c] = weight[(c * output + n) * kernel + j];
                        }
                    }
                }
                let weight = match products {
                    Products::Bf16 if taps > 0 => Form::Bf16(Bf16Matrix::of_weight(&dealt, output, taps * input)),
                    _ => Panels::of_weight(&dealt, output, taps * input).map_or(Form::Plain(dealt), Form::Dealt),
                };
                Phase { taps, weight }
            })
            .collect();
        Self { input, output, kernel, stride, padding, weights }
    }

    /// Output rows for `t` input rows.
    pub fn rows(&self, t: usize) -> usize {
        ((t.max(1) - 1) * self.stride + self.kernel).saturating_sub(2 * self.padding)
    }

    /// Input channels.
    pub fn input(&self) -> usize {
        self.input
    }

    /// Convolves `x` `[t, input]` and adds to `out` `[rows(t), output]`. `before` changes a copy of the input rows first, some
    /// rows at a time.
    pub fn apply_add<E: Send>(
        &self,
        x: &[f32],
        t: usize,
        before: impl Fn(&mut [f32]) -> Result<(), E> + Sync,
        out: &mut [f32],
    ) -> Result<(), E> {
        assert!(x.len() == t * self.input && out.len() == self.rows(t) * self.output, "conv_transpose1d: input or output size");
        if self.weights.iter().any(|phase| matches!(phase.weight, Form::Bf16(_))) {
            self.laid_out::<u16, E>(x, t, before, out, |weight| match weight {
                Form::Bf16(matrix) => Some(matrix),
                _ => None, // a phase without taps adds nothing
            })
        } else {
            self.laid_out::<f32, E>(x, t, before, out, |weight| match weight {
                Form::Plain(values) => Some(Weight::Plain(values)),
                Form::Dealt(panels) => Some(Weight::Dealt(panels)),
                Form::Bf16(_) => None,
            })
        }
    }

    fn laid_out<'a, T: Operand, E: Send>(
        &'a self,
        x: &[f32],
        t: usize,
        before: impl Fn(&mut [f32]) -> Result<(), E> + Sync,
        out: &mut [f32],
        operand: impl Fn(&'a Form) -> Option<T::Weight<'a>>,
    ) -> Result<(), E> {
        let (c, n, s) = (self.input, self.output, self.stride);
        let rows = self.rows(t);
        let most = self.kernel.div_ceil(s);
        // zero rows on both sides, so that every window lies inside
        T::with_scratch((t + 2 * most) * c + T::SLACK, |padded| {
            lay(x, c, 0, 1, most, most + t, padded, Some(&before))?;
            for (phase, weight) in self.weights.iter().enumerate() {
                let first = (phase + s - self.padding % s) % s;
                if first >= rows {
                    continue;
                }
                let taps = weight.taps;
                let count = (rows - first).div_ceil(s);
                // newest input row of the first output
                let newest = (first + self.padding) / s;
                let input = Rows { data: padded, offset: (newest + most + 1 - taps) * c, stride: c };
                if let Some(weight) = operand(&weight.weight) {
                    T::multiply_add((count, n, taps * c), input, weight, out, first * n, s * n);
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::level::testing::at_every_level;

    #[test]
    fn every_geometry_agrees_with_the_definition() {
        at_every_level(|| {
            for (kernel, stride, padding) in [(16, 8, 4), (11, 5, 3), (7, 3, 2), (4, 4, 0), (3, 1, 1), (2, 5, 0)] {
                for t in [1, 2, 9] {
                    let x: Vec<f32> = (0..t * 3).map(|i| ((i * 29 % 37) as f32 - 18.0) / 9.0).collect();
                    let w: Vec<f32> = (0..3 * 2 * kernel).map(|i| ((i * 13 % 41) as f32 - 20.0) / 20.0).collect();
                    let phases = Phases::new(&w, 3, 2, kernel, stride, padding, Products::F32);
                    let rows = phases.rows(t);
                    let mut truth = vec![[0.25f64, -1.0]; rows];
                    for i in 0..t {
                        for j in 0..kernel {
                            let o = (i * stride + j).wrapping_sub(padding);
                            if o < rows {
                                for n in 0..2 {
                                    truth[o][n] += (0..3)
                                        .map(|c| f64::from(x[i * 3 + c]) * f64::from(w[(c * 2 + n) * kernel + j]))
                                        .sum::<f64>();
                                }
                            }
                        }
                    }
                    let mut out = [0.25, -1.0].repeat(rows);
                    let halve = |x: &mut [f32]| -> Result<(), ()> {
                        x.iter_mut().for_each(|v| *v /= 2.0);
                        Ok(())
                    };
                    let doubled: Vec<f32> = x.iter().map(|v| 2.0 * v).collect();
                    assert_eq!(phases.apply_add(&doubled, t, halve, &mut out), Ok(()));
                    for o in 0..rows {
                        for n in 0..2 {
                            assert!(
                                (f64::from(out[o * 2 + n]) - truth[o][n]).abs() < 1e-4,
                                "k {kernel} s {stride} p {padding} t {t} at {o},{n}"
                            );
                        }
                    }
                }
            }
        });
    }
}
