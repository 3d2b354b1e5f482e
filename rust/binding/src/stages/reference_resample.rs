//! Binding of `reference.resample`.

use chatterbox_turbo::stages::reference::resample;
use numpy::PyArray1;
use pyo3::prelude::*;

use crate::{arrays, door};

type Pair<'py> = (Bound<'py, PyArray1<f32>>, Bound<'py, PyArray1<f32>>);

#[pyfunction]
#[pyo3(signature = (samples, *, callback = None))]
fn reference_resample<'py>(py: Python<'py>, samples: &Bound<'py, PyAny>, callback: Option<Py<PyAny>>) -> PyResult<Pair<'py>> {
    let samples = arrays::vector("samples", samples, None)?;
    let (w16, r16) = door::run(py, callback, move |observer| resample::resample(&samples, observer))?;
    Ok((arrays::to_vector(py, w16), arrays::to_vector(py, r16)))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(reference_resample, module)?)
}
