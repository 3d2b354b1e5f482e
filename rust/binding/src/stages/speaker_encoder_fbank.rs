//! Binding of `speaker_encoder.fbank`.

use chatterbox_turbo::stages::speaker_encoder::fbank::fbank;
use numpy::PyArray2;
use pyo3::prelude::*;

use crate::arrays::{to_matrix, vector};
use crate::door::run;

#[pyfunction]
#[pyo3(signature = (samples, callback=None))]
fn speaker_encoder_fbank<'py>(
    py: Python<'py>,
    samples: &Bound<'py, PyAny>,
    callback: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let samples = vector("samples", samples, None)?;
    to_matrix(py, run(py, callback, |observer| fbank(&samples, observer))?)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(speaker_encoder_fbank, module)?)
}
