//! Weight normalisation, folded once at load.

use crate::{Result, Weights};

/// Reads `parametrizations.weight.original0` (g, `[shape[0], 1, ..]`) and `original1` (v, `shape`) and returns
/// `w = g v / ‖v‖`, the norm over every axis but the first (arXiv:1602.07868, `torch.nn.utils.parametrizations.weight_norm`).
///
/// For a transposed convolution the first axis is the *input* channel.
pub fn weight_norm(weights: &Weights, shape: &[usize]) -> Result<Vec<f32>> {
    let parts = weights.under("parametrizations.weight");
    let mut gain_shape = vec![1; shape.len()];
    gain_shape[0] = shape[0];
    let gain = parts.parts("original0", &gain_shape)?;
    let mut values = parts.parts("original1", shape)?;
    let row = values.len() / shape[0];
    for (row, g) in values.chunks_exact_mut(row).zip(gain) {
        let norm = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let scale = f64::from(g) / norm;
        row.iter_mut().for_each(|v| *v = (f64::from(*v) * scale) as f32);
    }
    weights.keep_digest("weight", shape, &values);
    Ok(values)
}
