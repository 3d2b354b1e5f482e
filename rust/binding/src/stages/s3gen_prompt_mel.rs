//! Binding of `s3gen.prompt_mel`.

use chatterbox_turbo::stages::s3gen::prompt_mel::prompt_mel;
use numpy::PyArray2;
use pyo3::prelude::*;

use crate::arrays::{to_matrix, vector};
use crate::door::run;

#[pyfunction]
#[pyo3(signature = (samples, callback=None))]
fn s3gen_prompt_mel<'py>(
    py: Python<'py>,
    samples: &Bound<'py, PyAny>,
    callback: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let samples = vector("samples", samples, None)?;
    to_matrix(py, run(py, callback, |observer| prompt_mel(&samples, observer))?)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(s3gen_prompt_mel, module)?)
}
