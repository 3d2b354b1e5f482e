//! Binding of the taps: intermediate values of the network stages that the calling thread runs.

use chatterbox_turbo::{Matrix, tap};
use numpy::PyArray2;
use pyo3::prelude::*;

use crate::arrays::to_matrix;
use crate::door::map;

/// Begins to record on this thread.
#[pyfunction]
fn taps_begin() -> PyResult<()> {
    tap::begin().map_err(map)
}

/// Ends the recording of this thread: names and values in the order in which they were computed.
#[pyfunction]
fn taps_end(py: Python<'_>) -> PyResult<Vec<(String, Bound<'_, PyArray2<f32>>)>> {
    let array = |tap: tap::Tap| Ok((tap.name, to_matrix(py, Matrix { rows: tap.rows, cols: tap.cols, data: tap.values })?));
    tap::end().map_err(map)?.into_iter().map(array).collect()
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(taps_begin, module)?)?;
    module.add_function(wrap_pyfunction!(taps_end, module)?)
}
