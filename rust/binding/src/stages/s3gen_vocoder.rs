//! Binding of `s3gen.vocoder`.

use chatterbox_turbo::Precision;
use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays;
use crate::checkpoint::{Checkpoint, device};
use crate::door::{map, run};
use crate::hyperparameters::dict;

/// `Vocoder(checkpoint, device, precision="f32")`; immutable.
#[pyclass(frozen, module = "chatterbox_turbo_rs._core")]
pub struct Vocoder {
    core: chatterbox_turbo::stages::s3gen::vocoder::Vocoder,
}

type Vector<'py> = Bound<'py, PyArray1<f32>>;

#[pymethods]
impl Vocoder {
    #[new]
    #[pyo3(signature = (checkpoint, device_name, precision="f32"))]
    fn new(py: Python<'_>, checkpoint: &Bound<'_, Checkpoint>, device_name: &str, precision: &str) -> PyResult<Self> {
        let precision: Precision = precision.parse().map_err(map)?;
        let (checkpoint, device) = (checkpoint.get().core.clone(), device(device_name)?);
        Ok(Self {
            core: run(py, None, |_| chatterbox_turbo::stages::s3gen::vocoder::Vocoder::load(&checkpoint, &device, precision))?,
        })
    }

    fn hyperparameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dict(py, self.core.hyperparameters())
    }

    #[pyo3(signature = (mel, phases, noise, callback=None))]
    fn samples<'py>(
        &self,
        py: Python<'py>,
        mel: &Bound<'py, PyAny>,
        phases: &Bound<'py, PyAny>,
        noise: &Bound<'py, PyAny>,
        callback: Option<Py<PyAny>>,
    ) -> PyResult<Vector<'py>> {
        let (mel, phases) = (arrays::matrix("mel", mel, None)?, arrays::vector("phases", phases, None)?);
        let noise = arrays::matrix("noise", noise, None)?;
        let samples = run(py, callback, |observer| self.core.samples(&mel, &phases, &noise, observer))?;
        Ok(arrays::to_vector(py, samples))
    }

    #[getter]
    fn fade<'py>(&self, py: Python<'py>) -> Vector<'py> {
        arrays::to_vector(py, chatterbox_turbo::stages::s3gen::vocoder::Vocoder::fade())
    }

    fn f0<'py>(&self, py: Python<'py>, mel: &Bound<'py, PyAny>) -> PyResult<Vector<'py>> {
        let mel = arrays::matrix("mel", mel, None)?;
        let f0 = run(py, None, |_| self.core.f0(&mel))?;
        Ok(arrays::to_vector(py, f0))
    }

    fn source<'py>(
        &self,
        py: Python<'py>,
        f0: &Bound<'py, PyAny>,
        phases: &Bound<'py, PyAny>,
        noise: &Bound<'py, PyAny>,
    ) -> PyResult<Vector<'py>> {
        let (f0, phases) = (arrays::vector("f0", f0, None)?, arrays::vector("phases", phases, None)?);
        let noise = arrays::matrix("noise", noise, None)?;
        let source = run(py, None, |_| self.core.source(&f0, &phases, &noise))?;
        Ok(arrays::to_vector(py, source))
    }

    #[pyo3(signature = (mel, source, callback=None))]
    fn samples_from_source<'py>(
        &self,
        py: Python<'py>,
        mel: &Bound<'py, PyAny>,
        source: &Bound<'py, PyAny>,
        callback: Option<Py<PyAny>>,
    ) -> PyResult<Vector<'py>> {
        let (mel, source) = (arrays::matrix("mel", mel, None)?, arrays::vector("source", source, None)?);
        let samples = run(py, callback, |observer| self.core.samples_from_source(&mel, &source, observer))?;
        Ok(arrays::to_vector(py, samples))
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Vocoder>()
}
