//! Binding of `s3tokenizer.tokens`.

use chatterbox_turbo::stages::s3tokenizer::tokens::S3Tokenizer as Core;
use numpy::{PyArray1, PyArray2};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::{matrix, to_matrix, to_vector};
use crate::checkpoint::{Checkpoint, device};
use crate::door::run;
use crate::hyperparameters::dict;

/// `_core.S3Tokenizer(checkpoint, device)`; immutable.
#[pyclass(frozen, module = "chatterbox_turbo_rs._core")]
pub struct S3Tokenizer {
    core: Core,
}

#[pymethods]
impl S3Tokenizer {
    #[new]
    fn new(py: Python<'_>, checkpoint: &Bound<'_, Checkpoint>, device: &str) -> PyResult<Self> {
        let (checkpoint, device) = (&checkpoint.get().core, self::device(device)?);
        Ok(Self { core: run(py, None, |_| Core::load(checkpoint, &device))? })
    }

    fn hyperparameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dict(py, self.core.hyperparameters())
    }

    #[pyo3(signature = (mels, callback=None))]
    fn tokens<'py>(
        &self,
        py: Python<'py>,
        mels: Vec<Bound<'py, PyAny>>,
        callback: Option<Py<PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyArray1<i64>>>> {
        let mels = mels.iter().map(|mel| matrix("mel", mel, None)).collect::<PyResult<Vec<_>>>()?;
        let mels: Vec<_> = mels.iter().collect();
        let ids = run(py, callback, |observer| self.core.tokens_of(&mels, observer))?;
        Ok(ids.into_iter().map(|ids| to_vector(py, ids)).collect())
    }

    #[pyo3(signature = (mel, callback=None))]
    fn pre_codes<'py>(
        &self,
        py: Python<'py>,
        mel: &Bound<'py, PyAny>,
        callback: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let mel = matrix("mel", mel, None)?;
        to_matrix(py, run(py, callback, |observer| self.core.pre_codes(&mel, observer))?)
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<S3Tokenizer>()
}
