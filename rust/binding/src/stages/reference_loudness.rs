//! Binding of `reference.loudness`.

use chatterbox_turbo::stages::reference::loudness::{self, Method};
use numpy::PyArray1;
use pyo3::prelude::*;

use crate::{arrays, door};

#[pyfunction]
#[pyo3(signature = (samples, method = "bs1770", *, callback = None))]
fn reference_loudness<'py>(
    py: Python<'py>,
    samples: &Bound<'py, PyAny>,
    method: &str,
    callback: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let samples = arrays::vector("samples", samples, None)?;
    let method: Method = method.parse().map_err(door::map)?;
    let out = door::run(py, callback, move |observer| loudness::normalize(&samples, method, observer))?;
    Ok(arrays::to_vector(py, out))
}

/// Integrated loudness in LUFS; `None` when the clip is shorter than one block.
#[pyfunction]
fn reference_loudness_measure(py: Python<'_>, samples: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    let samples = arrays::vector("samples", samples, None)?;
    door::run(py, None, move |observer| loudness::measure(&samples, observer))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(reference_loudness, module)?)?;
    module.add_function(wrap_pyfunction!(reference_loudness_measure, module)?)
}
