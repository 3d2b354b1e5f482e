//! Sums of activations. Candle's own run in a second pool of threads, which spins while the kernels' pool does too.

use candle_core::Tensor;

use super::{kernels_run, with_slice};
use crate::Result;
use crate::kernels::elementwise::sum_rows;

/// `x + y`: both of one shape, or `y` `[C]` added to every row of `x` `[.., C]`.
pub fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let n = x.dims().last().copied().unwrap_or_default();
    let (same, row) = (x.dims() == y.dims(), y.dims() == [n]);
    if !kernels_run(x.device()) || n == 0 || !(same || row) {
        return Ok(x.broadcast_add(y)?);
    }
    let rows = x.elem_count() / n;
    let sum = with_slice(x, |x| {
        with_slice(y, |y| if same { sum_rows(rows, n, None, &[x, y]) } else { sum_rows(rows, n, Some(y), &[x]) })
    })??;
    Ok(Tensor::from_vec(sum, x.shape(), x.device())?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn sums_are_those_of_candle() -> Result<()> {
        let new = |shape: &[usize]| Tensor::randn(0f32, 1.0, shape, &Device::Cpu);
        let (x, y, row) = (new(&[3, 700, 80])?, new(&[3, 700, 80])?, new(&[80])?);
        for other in [&y, &row, &x.narrow(1, 0, 700)?] {
            let (found, expected) = (add(&x, other)?, x.broadcast_add(other)?);
            assert_eq!(found.dims(), x.dims());
            assert_eq!(found.flatten_all()?.to_vec1::<f32>()?, expected.flatten_all()?.to_vec1::<f32>()?);
        }
        assert!(add(&x, &new(&[79])?).is_err());
        Ok(())
    }
}
