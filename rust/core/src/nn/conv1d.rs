//! Conv1d over `[B, T, C]`.

use candle_core::Tensor;

use super::weight::Weight;
use super::{Fused, kernels_run, weight_norm, with_slice};
use crate::kernels::conv1d::{Geometry, conv1d_add};
use crate::kernels::matmul;
use crate::precision::Products;
use crate::{Result, Weights};

/// How a convolution walks over time. The default is stride 1, dilation 1, no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv1dOptions {
    /// Step between outputs.
    pub stride: usize,
    /// Distance between taps.
    pub dilation: usize,
    /// Zero rows before the input.
    pub left: usize,
    /// Zero rows after the input.
    pub right: usize,
}

impl Default for Conv1dOptions {
    fn default() -> Self {
        Self { stride: 1, dilation: 1, left: 0, right: 0 }
    }
}

impl Conv1dOptions {
    /// The same padding on both sides.
    pub fn padded(padding: usize) -> Self {
        Self { left: padding, right: padding, ..Self::default() }
    }

    /// All padding on the left: output t sees inputs up to t.
    pub fn causal(kernel: usize) -> Self {
        Self { left: kernel - 1, ..Self::default() }
    }
}

fn geometry(input: usize, output: usize, kernel: usize, options: Conv1dOptions) -> Geometry {
    let Conv1dOptions { stride, dilation, left, right } = options;
    Geometry { input, output, kernel, stride, dilation, left, right }
}

/// A one-dimensional convolution.
#[derive(Clone, Debug)]
pub struct Conv1d {
    /// `[out, kernel * in]`, taps first.
    weight: Weight,
    bias: Option<Tensor>,
    geometry: Geometry,
}

impl Conv1d {
    /// From PyTorch's weight values `[output, input, kernel]`.
    pub fn new(
        values: &[f32],
        bias: Option<Tensor>,
        input: usize,
        output: usize,
        kernel: usize,
        options: Conv1dOptions,
        device: &candle_core::Device,
        products: Products,
    ) -> Result<Self> {
        let mut dealt = vec![0.0; output * kernel * input];
        for n in 0..output {
            for c in 0..input {
                for k in 0..kernel {
                    dealt[(n * kernel + k) * input + c] = values[(n * input + c) * kernel + k];
                }
            }
        }
        let geometry = geometry(input, output, kernel, options);
        let weight = Tensor::from_vec(dealt, (output, kernel * input), device)?;
        Ok(Self { weight: Weight::dealt(weight, products)?, bias, geometry })
    }

    /// Reads `weight` `[output, input, kernel]` and, with `bias`, `bias` `[output]`.
    pub fn load(
        weights: &Weights,
        input: usize,
        output: usize,
        kernel: usize,
        options: Conv1dOptions,
        bias: bool,
    ) -> Result<Self> {
        let shape = [output, input, kernel];
        let bias = if bias { Some(weights.tensor("bias", &[output])?) } else { None };
        Self::through_cache(weights, bias, shape, options, &[("weight", &shape)], || weights.values("weight", &shape))
    }

    /// Reads a weight-normed convolution (`parametrizations.weight.original0/1` and `bias`), folded.
    pub fn load_weight_norm(
        weights: &Weights,
        input: usize,
        output: usize,
        kernel: usize,
        options: Conv1dOptions,
    ) -> Result<Self> {
        let shape = [output, input, kernel];
        let bias = Some(weights.tensor("bias", &[output])?);
        let [gain, direction] = ["parametrizations.weight.original0", "parametrizations.weight.original1"];
        let sources: [(&str, &[usize]); 2] = [(gain, &[output, 1, 1]), (direction, &shape)];
        Self::through_cache(weights, bias, shape, options, &sources, || weight_norm(weights, &shape))
    }

    /// With the packed weight of the cache, or from the values that `read` gives, `shape` being `[output, input, kernel]`.
    fn through_cache(
        weights: &Weights,
        bias: Option<Tensor>,
        shape: [usize; 3],
        options: Conv1dOptions,
        sources: &[(&str, &[usize])],
        read: impl FnOnce() -> Result<Vec<f32>>,
    ) -> Result<Self> {
        let [output, input, kernel] = shape;
        if let Some(weight) = Weight::found(weights, "weight", output, kernel * input, sources)? {
            return Ok(Self { weight, bias, geometry: geometry(input, output, kernel, options) });
        }
        let layer = Self::new(&read()?, bias, input, output, kernel, options, weights.device(), weights.products())?;
        layer.weight.keep(weights.note("weight").as_ref());
        Ok(layer)
    }

    /// Its channels, taps, stride, dilation and padding.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// How it walks over time.
    pub(super) fn options(&self) -> Conv1dOptions {
        let Geometry { stride, dilation, left, right, .. } = self.geometry;
        Conv1dOptions { stride, dilation, left, right }
    }

    /// The weight, where products read it from panels.
    pub(super) fn panels(&self) -> Option<matmul::Weight<'_>> {
        self.weight.panels()
    }

    pub(super) fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// `x` `[B, T, in]` → `[B, T', out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_fused(x, &Fused::default())
    }

    /// `x` `[B, T, in]` → `[B, T', out]`, with more work done on the way.
    pub fn forward_fused(&self, x: &Tensor, fused: &Fused<'_>) -> Result<Tensor> {
        let (b, t, c) = x.dims3()?;
        let g = self.geometry;
        let rows = g.rows(t);
        if !kernels_run(x.device()) || c != g.input || !fused.fits(c, g.output, b * rows * g.output) {
            return fused.plain(x, |x| self.plain(x));
        }
        Ok(Tensor::from_vec(self.on_cpu(x, fused)?, (b, rows, g.output), x.device())?)
    }

    /// The values of [`Self::forward`], on the CPU.
    pub fn values(&self, x: &Tensor) -> Result<Vec<f32>> {
        let (_, _, c) = x.dims3()?;
        if !x.device().is_cpu() || c != self.geometry.input {
            return super::to_vec(&self.forward(x)?);
        }
        self.on_cpu(x, &Fused::default())
    }

    fn on_cpu(&self, x: &Tensor, fused: &Fused<'_>) -> Result<Vec<f32>> {
        let (b, t, c) = x.dims3()?;
        let g = self.geometry;
        let rows = g.rows(t);
        let mut out = fused.start(b * rows, self.bias.as_ref(), g.output)?;
        let before = |x: &mut [f32]| fused.before.map_or(Ok(()), |before| before.apply(x));
        with_slice(x, |x| {
            self.weight.with(|w| {
                let items = x.chunks_exact((t * c).max(1)).zip(out.chunks_exact_mut((rows * g.output).max(1)));
                items.into_iter().try_for_each(|(x, out)| match fused.before {
                    None => conv1d_add(x, t, w, g, None::<fn(&mut [f32]) -> Result<()>>, out),
                    Some(_) => conv1d_add(x, t, w, g, Some(before), out),
                })
            })
        })???;
        fused.finish(&mut out)?;
        Ok(out)
    }

    fn plain(&self, x: &Tensor) -> Result<Tensor> {
        let (b, t, c) = x.dims3()?;
        let g = self.geometry;
        let rows = g.rows(t);
        let x = x.pad_with_zeros(1, g.left, g.right)?;
        let (weight, mut sum) = (self.weight.tensor()?, None::<Tensor>);
        for k in 0..g.kernel {
            let w = weight.narrow(1, k * g.input, g.input)?.t()?.contiguous()?;
            let span = (rows - 1) * g.stride + 1;
            let mut tap = x.narrow(1, k * g.dilation, span)?;
            if g.stride > 1 {
                let padded = tap.pad_with_zeros(1, 0, g.stride - 1)?;
                tap = padded.reshape((b, rows, g.stride, c))?.narrow(2, 0, 1)?.squeeze(2)?;
            }
            let product = tap.contiguous()?.reshape((b * rows, c))?.matmul(&w)?;
            sum = Some(match sum {
                Some(sum) => (sum + product)?,
                None => product,
            });
        }
        let y = sum.ok_or_else(|| crate::Error::argument("convolution without taps"))?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        Ok(y.reshape((b, rows, g.output))?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::super::{Activation, Pointwise};
    use super::*;

    #[test]
    fn kernel_agrees_with_candle() -> Result<()> {
        let geometries = [
            (3, Conv1dOptions::causal(3)),
            (7, Conv1dOptions { dilation: 3, ..Conv1dOptions::padded(9) }),
            (6, Conv1dOptions { stride: 3, ..Conv1dOptions::padded(1) }),
        ];
        for ((kernel, options), output) in geometries.into_iter().flat_map(|g| [(g, 5), (g, 20)]) {
            let values: Vec<f32> = Tensor::randn(0f32, 1.0, output * 4 * kernel, &Device::Cpu)?.to_vec1()?;
            let bias = Tensor::randn(0f32, 1.0, output, &Device::Cpu)?;
            // a bfloat16 by itself, so that both kinds of products take the same input
            let x = Tensor::randn(0f32, 1.0, (2, 30, 4), &Device::Cpu)?.to_dtype(DType::BF16)?.to_dtype(DType::F32)?;
            for products in [Products::F32, Products::Bf16] {
                let layer = Conv1d::new(&values, Some(bias.clone()), 4, output, kernel, options, &Device::Cpu, products)?;
                let rounded = layer.weight.tensor()?.to_dtype(DType::BF16)?.to_dtype(DType::F32)?;
                let change = (layer.weight.tensor()? - rounded)?.abs()?.sum_all()?.to_scalar::<f32>()?;
                assert_eq!(change == 0.0, products == Products::Bf16);
                let (a, b) = (layer.forward(&x)?, layer.plain(&x)?);
                assert_eq!(a.dims(), b.dims());
                let gap = (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
                assert!(gap < 1e-4, "{options:?} {products:?}: {gap}");
                // halves of the input are bfloat16 too, and are rounded behind the change and not before it
                let before = Some(Pointwise::Function(Activation::LeakyRelu(0.5)));
                let (a, b) =
                    (layer.forward_fused(&x, &Fused { before, ..Fused::default() })?, layer.plain(&x.maximum(&(&x * 0.5)?)?)?);
                assert!((a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()? < 1e-4, "{options:?} {products:?}");
            }
        }
        Ok(())
    }
}
