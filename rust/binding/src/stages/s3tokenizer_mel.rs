//! Binding of `s3tokenizer.mel`.

use chatterbox_turbo::stages::s3tokenizer::mel::S3TokenizerMel as Core;
use numpy::PyArray2;
use pyo3::prelude::*;

use crate::arrays::{to_matrix, vector};
use crate::checkpoint::Checkpoint;
use crate::door::run;

/// `_core.S3TokenizerMel(checkpoint)`: callable on samples; immutable.
#[pyclass(frozen, module = "chatterbox_turbo_rs._core")]
pub struct S3TokenizerMel {
    core: Core,
}

#[pymethods]
impl S3TokenizerMel {
    #[new]
    fn new(py: Python<'_>, checkpoint: &Bound<'_, Checkpoint>) -> PyResult<Self> {
        let checkpoint = &checkpoint.get().core;
        Ok(Self { core: run(py, None, |_| Core::load(checkpoint))? })
    }

    #[pyo3(signature = (samples, callback=None))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        samples: &Bound<'py, PyAny>,
        callback: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let samples = vector("samples", samples, None)?;
        to_matrix(py, run(py, callback, |observer| self.core.mel(&samples, observer))?)
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<S3TokenizerMel>()
}
