//! Binding of `speaker_encoder.xvector`.

use chatterbox_turbo::stages::speaker_encoder::xvector::SpeakerEncoder as Core;
use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::{matrix, to_vector};
use crate::checkpoint::{Checkpoint, device};
use crate::door::run;
use crate::hyperparameters::dict;

/// `_core.SpeakerEncoder(checkpoint, device)`; immutable.
#[pyclass(frozen, module = "chatterbox_turbo_rs._core")]
pub struct SpeakerEncoder {
    core: Core,
}

#[pymethods]
impl SpeakerEncoder {
    #[new]
    fn new(py: Python<'_>, checkpoint: &Bound<'_, Checkpoint>, device: &str) -> PyResult<Self> {
        let (checkpoint, device) = (&checkpoint.get().core, self::device(device)?);
        Ok(Self { core: run(py, None, |_| Core::load(checkpoint, &device))? })
    }

    fn hyperparameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dict(py, self.core.hyperparameters())
    }

    #[pyo3(signature = (fbank, callback=None))]
    fn xvector<'py>(
        &self,
        py: Python<'py>,
        fbank: &Bound<'py, PyAny>,
        callback: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let fbank = matrix("fbank", fbank, None)?;
        Ok(to_vector(py, run(py, callback, |observer| self.core.xvector(&fbank, observer))?))
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<SpeakerEncoder>()
}
