//! Binding of `watermark`.

use chatterbox_turbo::stages::watermark::perth;
use numpy::PyArray1;
use pyo3::prelude::*;

use crate::{arrays, door};

/// Perth (`_core.Watermarker(path)`, the path of `perth_net_250000.pth.tar`); immutable.
#[pyclass(frozen, module = "chatterbox_turbo_rs._core")]
pub struct Watermarker {
    core: perth::Watermarker,
}

#[pymethods]
impl Watermarker {
    #[new]
    fn new(py: Python<'_>, path: std::path::PathBuf) -> PyResult<Self> {
        Ok(Self { core: door::run(py, None, |_| perth::Watermarker::load(path))? })
    }

    #[pyo3(signature = (samples, callback=None, loudest=None))]
    fn embed<'py>(
        &self,
        py: Python<'py>,
        samples: &Bound<'py, PyAny>,
        callback: Option<Py<PyAny>>,
        loudest: Option<f64>,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let samples = arrays::vector("samples", samples, None)?;
        let marked = door::run(py, callback, |observer| self.core.embed_beside(&samples, loudest, observer))?;
        Ok(arrays::to_vector(py, marked))
    }

    fn levels<'py>(&self, py: Python<'py>, samples: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let samples = arrays::vector("samples", samples, None)?;
        let levels = door::run(py, None, |observer| self.core.levels(&samples, observer))?;
        Ok(arrays::to_vector(py, levels))
    }

    #[pyo3(signature = (samples, rate, callback=None))]
    fn detect(&self, py: Python<'_>, samples: &Bound<'_, PyAny>, rate: i64, callback: Option<Py<PyAny>>) -> PyResult<f32> {
        let hertz = u32::try_from(rate)
            .map_err(|_| door::error("ArgumentError", format!("rate: expected a positive sample rate, got {rate}")))?;
        let samples = arrays::vector("samples", samples, None)?;
        door::run(py, callback, |observer| self.core.detect(&samples, hertz, observer))
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Watermarker>()
}
