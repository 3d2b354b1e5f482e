//! The one network shape of Perth: a stack of convolutions over time with LeakyReLU between them.
//!
//! Activations are channels-last `[frames, channels]`. With `k / 2` rows of zeros at either end, the window of a frame is
//! one contiguous row of `k * channels` values, so that a convolution is a single matrix product over overlapping rows.
//! Source: resemble-perth 1.0.1, `perth/perth_net/perth_net_implicit/model/{__init__,encoder,decoder}.py`.

use gemm::Parallelism;

use crate::kernels::gemm::gemm;
use crate::torch_archive::{Data, Value};
use crate::{Error, Matrix, Observer, Result};

/// Channels inside of a stack.
const HIDDEN: usize = 256;
/// Taps of the inner convolutions.
const TAPS: usize = 7;
/// Inner convolutions.
const INNER: usize = 5;
/// Slope of LeakyReLU below zero (PyTorch's default).
const SLOPE: f32 = 0.01;
/// Frames of one matrix product: about 50 ms of work on a slow machine. Never a single one: it would be added up in another order.
const FRAMES: usize = 2048;

/// Conv1(inputs → 256), five Conv7(256 → 256), Conv1(256 → outputs).
#[derive(Debug)]
pub(super) struct Stack {
    layers: Vec<Convolution>,
}

impl Stack {
    /// Takes tensors `<prefix>.<0..=6>.conv.{weight,bias}` out of a state dict.
    pub(super) fn load(model: &Value, prefix: &str, inputs: usize, outputs: usize) -> Result<Self> {
        let last = INNER + 1;
        let layers = (0..=last).map(|i| {
            let (from, taps) = if i == 0 { (inputs, 1) } else { (HIDDEN, if i == last { 1 } else { TAPS }) };
            let to = if i == last { outputs } else { HIDDEN };
            Convolution::load(model, &format!("{prefix}.{i}.conv"), from, to, taps)
        });
        Ok(Self { layers: layers.collect::<Result<_>>()? })
    }

    /// `[frames, inputs]` → `[frames, outputs]`; reports progress as stack number `part` of `parts`.
    pub(super) fn forward(&self, input: &Matrix, observer: &dyn Observer, (part, parts): (usize, usize)) -> Result<Matrix> {
        let frames = input.rows;
        let size = if frames % FRAMES == 1 { FRAMES - 1 } else { FRAMES };
        let blocks = frames.div_ceil(size);
        let total = self.layers.len() * blocks;
        let mut x = input.data.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            // the result is written between the zero rows that the next convolution needs
            let pad = self.layers.get(i + 1).map_or(0, |next| next.taps / 2);
            let mut y = vec![0.0; (frames + 2 * pad) * layer.outputs];
            let rows = &mut y[pad * layer.outputs..(pad + frames) * layer.outputs];
            for (block, out) in rows.chunks_mut(size * layer.outputs).enumerate() {
                layer.apply(&x[block * size * layer.inputs..], out);
                if i + 1 < self.layers.len() {
                    out.iter_mut().filter(|v| **v < 0.0).for_each(|v| *v *= SLOPE);
                }
                observer.progress("watermark", part * total + i * blocks + block + 1, parts * total)?;
            }
            x = y;
        }
        Matrix::new(frames, self.layers.last().map_or(0, |layer| layer.outputs), x)
    }
}

#[derive(Debug)]
struct Convolution {
    inputs: usize,
    outputs: usize,
    taps: usize,
    /// `[taps * inputs, outputs]`.
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Convolution {
    fn load(model: &Value, name: &str, inputs: usize, outputs: usize, taps: usize) -> Result<Self> {
        let source = values(model, &format!("{name}.weight"), &[outputs, inputs, taps])?;
        let mut weight = vec![0.0; source.len()];
        for o in 0..outputs {
            for i in 0..inputs {
                for k in 0..taps {
                    weight[(k * inputs + i) * outputs + o] = source[(o * inputs + i) * taps + k];
                }
            }
        }
        Ok(Self { inputs, outputs, taps, weight, bias: values(model, &format!("{name}.bias"), &[outputs])? })
    }

    /// `out` `[frames, outputs]` of `x`, which holds at least `frames + taps - 1` rows of `inputs`.
    fn apply(&self, x: &[f32], out: &mut [f32]) {
        let frames = out.len() / self.outputs;
        let depth = self.taps * self.inputs;
        assert!(frames == 0 || x.len() >= (frames - 1) * self.inputs + depth, "convolution reads beyond its input");
        assert_eq!((self.weight.len(), out.len()), (depth * self.outputs, frames * self.outputs));
        out.chunks_exact_mut(self.outputs).for_each(|row| row.copy_from_slice(&self.bias));
        // SAFETY: the asserts above bound what the product reads and writes: `out` [frames, outputs] and `weight`
        // [depth, outputs] are whole row-major slices; row t of the left side starts at `t * inputs` and has `depth` values.
        unsafe {
            let (inputs, outputs) = (self.inputs, self.outputs);
            let (to, from, weight) =
                ((out.as_mut_ptr(), 1, outputs), (x.as_ptr(), 1, inputs), (self.weight.as_ptr(), 1, outputs));
            gemm((frames, outputs, depth), to, true, from, weight, Parallelism::Rayon(0));
        }
    }
}

/// The float32 tensor `name` of a state dict.
fn values(model: &Value, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let fail = |found: String| Error::Watermark(format!("tensor {name}: expected F32 {shape:?}, found {found}"));
    let tensor = match model.get(name) {
        Some(Value::Tensor(tensor)) => tensor,
        Some(_) => return Err(fail("something else".into())),
        None => return Err(fail("none".into())),
    };
    match &tensor.data {
        Data::F32(values) if tensor.shape == shape => match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values.clone()),
            Some(at) => Err(Error::Watermark(format!("tensor {name}: value {at} is {}, expected finite numbers", values[at]))),
        },
        data => Err(fail(format!("{} {:?}", data.dtype(), tensor.shape))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::torch_archive::Tensor;

    fn tensor(shape: &[usize], value: impl Fn(usize) -> f32) -> Value {
        Value::Tensor(Tensor { shape: shape.into(), data: Data::F32((0..shape.iter().product()).map(value).collect()) })
    }

    #[test]
    fn a_convolution_equals_its_definition() {
        let (inputs, outputs, taps, frames) = (3, 2, 7, 5);
        let model = Value::Dict(vec![
            ("a.weight".into(), tensor(&[outputs, inputs, taps], |i| (i as f32 * 0.7).sin())),
            ("a.bias".into(), tensor(&[outputs], |i| i as f32 - 0.5)),
        ]);
        let layer = Convolution::load(&model, "a", inputs, outputs, taps).unwrap();
        let x: Vec<f32> = (0..(frames + taps - 1) * inputs).map(|i| (i as f32 * 1.3).cos()).collect();
        let mut out = vec![0.0; frames * outputs];
        layer.apply(&x, &mut out);
        for t in 0..frames {
            for o in 0..outputs {
                let mut expected = o as f32 - 0.5;
                for i in 0..inputs {
                    for k in 0..taps {
                        expected += x[(t + k) * inputs + i] * (((o * inputs + i) * taps + k) as f32 * 0.7).sin();
                    }
                }
                assert!((out[t * outputs + o] - expected).abs() < 1e-5, "frame {t} output {o}");
            }
        }
    }

    #[test]
    fn a_wrong_tensor_is_named() {
        let model = Value::Dict(vec![("a.weight".into(), tensor(&[2, 3, 1], |_| f32::NAN))]);
        for (shape, says) in [([2, 3, 1], "value 0 is NaN"), ([2, 3, 7], "expected F32 [2, 3, 7], found F32 [2, 3, 1]")] {
            assert!(values(&model, "a.weight", &shape).unwrap_err().to_string().contains(says));
        }
        assert!(values(&model, "a.bias", &[2]).unwrap_err().to_string().contains("a.bias"));
    }
}
