//! Binding of `voice_encoder.embedding`.

use chatterbox_turbo::stages::voice_encoder::embedding::VoiceEncoder as Core;
use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::{matrix, to_vector};
use crate::checkpoint::{Checkpoint, device};
use crate::door::run;
use crate::hyperparameters::dict;

/// `_core.VoiceEncoder(checkpoint, device)`; immutable.
#[pyclass(frozen, module = "chatterbox_turbo_rs._core")]
pub struct VoiceEncoder {
    core: Core,
}

#[pymethods]
impl VoiceEncoder {
    #[new]
    fn new(py: Python<'_>, checkpoint: &Bound<'_, Checkpoint>, device: &str) -> PyResult<Self> {
        let (checkpoint, device) = (&checkpoint.get().core, self::device(device)?);
        Ok(Self { core: run(py, None, |_| Core::load(checkpoint, &device))? })
    }

    fn hyperparameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dict(py, self.core.hyperparameters())
    }

    #[pyo3(signature = (mel, callback=None))]
    fn embedding<'py>(
        &self,
        py: Python<'py>,
        mel: &Bound<'py, PyAny>,
        callback: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let mel = matrix("mel", mel, None)?;
        Ok(to_vector(py, run(py, callback, |observer| self.core.embedding(&mel, observer))?))
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<VoiceEncoder>()
}
