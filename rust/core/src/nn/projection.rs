//! A linear layer with its weights in float32, in 20 bits with shared scales, in 8 bits or in 4, chosen when it is loaded.

use candle_core::{D, Tensor};

use super::{Fused, Linear, kernels_run, with_slice};
use crate::kernels::block_float::compact;
use crate::kernels::block_float::{self, BlockFloatMatrix};
use crate::kernels::dots::dots;
use crate::kernels::int4::{self, Int4Matrix};
use crate::kernels::int8::{self, Activations, COLUMNS, Int8Matrix, Quantised};
use crate::kernels::matmul::{Rows, Weight, matmul_add};
use crate::kernels::pointer::Cells;
use crate::packed::Pack;
use crate::precision::T3Weights;
use crate::{Error, Result, Weights};

/// Outputs of a float32 piece; one of the other formats is a panel.
const OUTPUTS: usize = 16;
/// Rows of float32 products that are computed together.
const TOGETHER: usize = 16;

/// Rows that a projection reads piece by piece, for steps of decoding: in float32, and in 8 bits where its weights are of 8 or 4.
#[derive(Debug)]
pub(crate) struct StepInput {
    pub(crate) values: Cells<f32>,
    bytes: Activations,
    width: usize,
}

impl StepInput {
    /// Room for `rows` rows of `width` values.
    pub(crate) fn new(rows: usize, width: usize, quantised: bool) -> Self {
        let bytes = Activations::room(if quantised { rows } else { 0 }, width);
        Self { values: Cells::new(vec![0.0; rows * width]), bytes, width }
    }

    /// Brings `row` of the values into 8 bits.
    ///
    /// # Safety
    /// Nobody else may use this row meanwhile.
    pub(crate) unsafe fn quantise(&self, row: usize) -> Result<()> {
        // SAFETY: promised by the caller.
        unsafe { self.bytes.set(row, self.values.read(row * self.width, self.width)) };
        Ok(())
    }
}

/// `y = x Wᵀ + b` over the last axis.
#[derive(Debug)]
pub enum Projection {
    /// Weights in float32.
    F32(Linear),
    /// Weights in 20 bits, products in float32 arithmetic, and the bias `[out]`; on the CPU.
    BlockFloat(BlockFloatMatrix, Tensor),
    /// Weights in 8 bits, and the bias `[out]` in float32; on the CPU.
    Int8(Int8Matrix, Tensor),
    /// Weights in 4 bits, and the bias `[out]` in float32; on the CPU.
    Int4(Int4Matrix, Tensor),
}

impl Projection {
    /// Reads `weight` `[output, input]` and `bias` `[output]` below `weights`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a tensor that is missing or unusable, [`Error::Argument`] for int8 or int4 on another device than the CPU.
    pub fn load(weights: &Weights, input: usize, output: usize, format: T3Weights) -> Result<Self> {
        match Self::packed(weights, [output, input], [output, input, input, 1], format)? {
            Some(layer) => Ok(layer),
            None => Ok(Self::F32(Linear::load(weights, input, output)?)),
        }
    }

    /// Reads a Hugging Face GPT-2 `Conv1D`, whose weight is stored `[input, output]`.
    ///
    /// # Errors
    /// Those of [`Self::load`].
    pub fn load_transposed(weights: &Weights, input: usize, output: usize, format: T3Weights) -> Result<Self> {
        match Self::packed(weights, [input, output], [output, input, 1, output], format)? {
            Some(layer) => Ok(layer),
            None => Ok(Self::F32(Linear::load_transposed(weights, input, output)?)),
        }
    }

    /// The layer in another format than plain float32, where `format` and the device are for one; `layout` is outputs, inputs, and
    /// the distances between two of them in the tensor of `shape`.
    fn packed(weights: &Weights, shape: [usize; 2], layout: [usize; 4], format: T3Weights) -> Result<Option<Self>> {
        let ([n, k, column, row], here) = (layout, kernels_run(weights.device()));
        let bias = || weights.tensor("bias", &[n]);
        Ok(match format {
            T3Weights::Int8 | T3Weights::Int4 if !here => {
                return Err(Error::argument(format!(
                    "precision: expected f32 on this device, got {}, which runs on the CPU ({})",
                    format.name(),
                    weights.path()
                )));
            }
            T3Weights::Int8 => {
                Some(Self::Int8(found_or_made(weights, n, k, shape, |w| Int8Matrix::new(w, n, k, column, row))?, bias()?))
            }
            T3Weights::Int4 => {
                Some(Self::Int4(found_or_made(weights, n, k, shape, |w| Int4Matrix::new(w, n, k, column, row))?, bias()?))
            }
            T3Weights::F32 if here && compact() => Some(Self::BlockFloat(
                found_or_made(weights, n, k, shape, |w| BlockFloatMatrix::new(w, n, k, column, row))?,
                bias()?,
            )),
            T3Weights::F32 => None,
        })
    }

    /// Output channels.
    pub fn output(&self) -> usize {
        match self {
            Self::F32(linear) => linear.output(),
            Self::BlockFloat(matrix, _) => matrix.dims().0,
            Self::Int8(matrix, _) => matrix.dims().0,
            Self::Int4(matrix, _) => matrix.dims().0,
        }
    }

    /// Input channels.
    pub fn input(&self) -> usize {
        match self {
            Self::F32(linear) => linear.input(),
            Self::BlockFloat(matrix, _) => matrix.dims().1,
            Self::Int8(matrix, _) => matrix.dims().1,
            Self::Int4(matrix, _) => matrix.dims().1,
        }
    }

    /// Bytes of the weight.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::F32(linear) => linear.output() * linear.input() * size_of::<f32>(),
            Self::BlockFloat(matrix, _) => matrix.bytes(),
            Self::Int8(matrix, _) => matrix.dims().0 * (matrix.dims().1 + size_of::<f32>()), // and a scale
            Self::Int4(matrix, _) => matrix.bytes(),
        }
    }

    /// Does it add a bias?
    pub fn has_bias(&self) -> bool {
        match self {
            Self::F32(linear) => linear.has_bias(),
            Self::BlockFloat(..) | Self::Int8(..) | Self::Int4(..) => true,
        }
    }

    /// The bias of a CPU layer, zeros without one.
    pub(crate) fn bias_values(&self) -> Result<Vec<f32>> {
        match self {
            Self::F32(linear) => linear.bias().map_or(Ok(vec![0.0; linear.output()]), super::to_vec),
            Self::BlockFloat(_, bias) | Self::Int8(_, bias) | Self::Int4(_, bias) => super::to_vec(bias),
        }
    }

    /// Are the inputs brought into 8 bits?
    pub(crate) fn is_quantised(&self) -> bool {
        matches!(self, Self::Int8(..) | Self::Int4(..))
    }

    fn piece_outputs(&self) -> usize {
        match self {
            Self::F32(_) => OUTPUTS,
            Self::BlockFloat(..) => block_float::COLUMNS,
            Self::Int8(..) | Self::Int4(..) => COLUMNS,
        }
    }

    /// Pieces of [`Self::piece`].
    pub(crate) fn pieces(&self) -> usize {
        self.output().div_ceil(self.piece_outputs())
    }

    /// Products, without the bias, of outputs of piece `p` with the first `m` rows of `input` on this thread:
    /// `store(row, first output, products)`. The same bits as [`Self::forward`] of one row; the weights are read once.
    ///
    /// # Safety
    /// Nobody may write those rows meanwhile.
    pub(crate) unsafe fn piece(
        &self,
        p: usize,
        input: &StepInput,
        m: usize,
        mut store: impl FnMut(usize, usize, &mut [f32]),
    ) -> Result<()> {
        let first = p * self.piece_outputs();
        match self {
            Self::Int8(matrix, _) => {
                matrix.panel(p, &input.bytes, m, |row, products| store(row, first, products));
                Ok(())
            }
            Self::Int4(matrix, _) => {
                matrix.panel(p, &input.bytes, m, |row, products| store(row, first, products));
                Ok(())
            }
            Self::BlockFloat(matrix, _) => {
                // SAFETY: promised by the caller.
                let a = unsafe { input.values.read(0, m * self.input()) };
                matrix.panel(p, a, |row, products| store(row, first, products));
                Ok(())
            }
            Self::F32(linear) => linear.with_plain(|w| {
                let (k, n) = (linear.input(), OUTPUTS.min(linear.output() - first));
                let w = &w[first * k..][..n * k];
                for start in (0..m).step_by(TOGETHER) {
                    let rows = TOGETHER.min(m - start);
                    // SAFETY: promised by the caller.
                    let a = unsafe { input.values.read(start * k, rows * k) };
                    let mut products = [0f32; OUTPUTS * TOGETHER];
                    dots(a, w, k, &mut products, OUTPUTS);
                    let products = products.chunks_exact_mut(OUTPUTS).take(rows).enumerate();
                    products.for_each(|(r, row)| store(start + r, first, &mut row[..n]));
                }
            }),
        }
    }

    /// `x` `[.., in]` → `[.., out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_fused(x, &Fused::default())
    }

    /// `x` `[.., in]` → `[.., out]`, with more work done on the way; `fused.before` is for plain float32 only.
    pub fn forward_fused(&self, x: &Tensor, fused: &Fused<'_>) -> Result<Tensor> {
        let bias = match self {
            Self::F32(linear) => return linear.forward_fused(x, fused),
            Self::BlockFloat(_, bias) | Self::Int8(_, bias) | Self::Int4(_, bias) => bias,
        };
        let (n, k) = (self.output(), self.input());
        let mut shape = x.dims().to_vec();
        let m = x.elem_count() / x.dim(D::Minus1)?;
        x.reshape((m, k))?; // a clear error for a wrong width
        if let Some(last) = shape.last_mut() {
            *last = n;
        }
        if fused.before.is_some() || !fused.fits(k, n, m * n) {
            return Err(Error::argument("a packed layer: expected nothing before it and as many channels as it has behind it"));
        }
        let mut out = fused.start(m, Some(bias), n)?;
        with_slice(x, |x| match self {
            Self::F32(_) => {}
            Self::BlockFloat(matrix, _) => {
                matmul_add(m, n, k, Rows { data: x, offset: 0, stride: k }, Weight::BlockFloat(matrix), &mut out, 0, n);
            }
            Self::Int8(matrix, _) => int8::multiply_add(matrix, m, x, &mut out),
            Self::Int4(matrix, _) => int4::multiply_add(matrix, m, x, &mut out),
        })?;
        fused.finish(&mut out)?;
        Ok(Tensor::from_vec(out, shape, x.device())?)
    }
}

/// The packed form of the weight, from the cache or by `make` from the values of the tensor of `shape`.
fn found_or_made<P: Pack>(weights: &Weights, n: usize, k: usize, shape: [usize; 2], make: impl FnOnce(&[f32]) -> P) -> Result<P> {
    if let Some(matrix) = weights.found("weight", n, k, &[("weight", &shape)])? {
        return Ok(matrix);
    }
    let matrix = make(&weights.values("weight", &shape)?);
    if let Some(note) = weights.note("weight") {
        note.keep(&matrix);
    }
    Ok(matrix)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::{Activation, Pointwise};
    use super::*;

    #[test]
    fn int8_and_int4_are_close_to_float32_with_the_same_weights() -> Result<()> {
        let weight: Vec<f32> = Tensor::randn(0f32, 1.0, (70, 200), &Device::Cpu)?.flatten_all()?.to_vec1()?;
        let bias = Tensor::randn(0f32, 1.0, 70, &Device::Cpu)?;
        let (eight, four) = (Int8Matrix::new(&weight, 70, 200, 200, 1), Int4Matrix::new(&weight, 70, 200, 200, 1));
        let (as8, as4) = (eight.values(), four.values());
        is_close(Projection::Int8(eight, bias.clone()), as8, &bias)?;
        is_close(Projection::Int4(four, bias.clone()), as4, &bias)
    }

    /// To float32 with the rounded weights: what is left is the rounding of the activations.
    fn is_close(quantised: Projection, rounded: Vec<f32>, bias: &Tensor) -> Result<()> {
        let rounded = Tensor::from_vec(rounded, (70, 200), &Device::Cpu)?;
        let float = Projection::F32(Linear::new(rounded, Some(bias.clone()))?);
        assert_eq!((quantised.input(), quantised.output(), quantised.has_bias()), (200, 70, true));
        for rows in [1, 9] {
            let x = Tensor::randn(0f32, 1.0, (1, rows, 200), &Device::Cpu)?;
            let residual = Tensor::randn(0f32, 1.0, (1, rows, 70), &Device::Cpu)?;
            let after = Some(Pointwise::Function(Activation::GeluTanh));
            for fused in [Fused::default(), Fused { add: &[&residual], after, ..Fused::default() }] {
                let (a, b) = (quantised.forward_fused(&x, &fused)?, float.forward_fused(&x, &fused)?);
                assert_eq!(a.dims(), b.dims());
                let norm = |x: &Tensor| x.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>();
                let error = norm(&(&a - &b)?)? / norm(&b)?;
                assert!(error > 1e-4 && error < 1e-2, "{rows} rows: {error}");
            }
        }
        let wrong = Tensor::zeros((1, 3, 199), candle_core::DType::F32, &Device::Cpu)?;
        assert!(quantised.forward(&wrong).is_err());
        Ok(())
    }
}
