//! Binding of the random draws.

use chatterbox_turbo::draws;
use numpy::{PyArray1, PyArray2};
use pyo3::prelude::*;

use crate::arrays::{to_matrix, to_vector};
use crate::door::run;

#[pyfunction]
fn draws_uniforms<'py>(
    py: Python<'py>,
    seed: u64,
    stream: &str,
    start: u64,
    count: usize,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    Ok(to_vector(py, run(py, None, |_| draws::uniforms(seed, stream, start, count))?))
}

#[pyfunction]
fn draws_normals<'py>(
    py: Python<'py>,
    seed: u64,
    stream: &str,
    start_row: u64,
    rows: usize,
    cols: usize,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    to_matrix(py, run(py, None, |_| draws::normals(seed, stream, start_row, rows, cols))?)
}

#[pyfunction]
fn draws_phases(py: Python<'_>, seed: u64, count: usize) -> PyResult<Bound<'_, PyArray1<f32>>> {
    Ok(to_vector(py, run(py, None, |_| draws::phases(seed, count))?))
}

#[pyfunction]
fn draws_derived(py: Python<'_>, seed: u64, index: u64) -> PyResult<u64> {
    run(py, None, |_| draws::derived(seed, index))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(draws_uniforms, module)?)?;
    module.add_function(wrap_pyfunction!(draws_normals, module)?)?;
    module.add_function(wrap_pyfunction!(draws_phases, module)?)?;
    module.add_function(wrap_pyfunction!(draws_derived, module)?)
}
