//! Binding of `s3gen.flow`.

use chatterbox_turbo::Precision;
use numpy::PyArray2;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays;
use crate::checkpoint::{Checkpoint, device};
use crate::door::{map, run};
use crate::hyperparameters::dict;

/// `Flow(checkpoint, device, precision="f32")`; immutable.
#[pyclass(frozen, module = "chatterbox_turbo_rs._core")]
pub struct Flow {
    core: chatterbox_turbo::stages::s3gen::flow::Flow,
}

#[pymethods]
impl Flow {
    #[new]
    #[pyo3(signature = (checkpoint, device_name, precision="f32"))]
    fn new(py: Python<'_>, checkpoint: &Bound<'_, Checkpoint>, device_name: &str, precision: &str) -> PyResult<Self> {
        let precision: Precision = precision.parse().map_err(map)?;
        let (checkpoint, device) = (checkpoint.get().core.clone(), device(device_name)?);
        Ok(Self { core: run(py, None, |_| chatterbox_turbo::stages::s3gen::flow::Flow::load(&checkpoint, &device, precision))? })
    }

    fn hyperparameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dict(py, self.core.hyperparameters())
    }

    #[pyo3(signature = (mu, xvector, prompt_mel, noise, callback=None))]
    fn mel<'py>(
        &self,
        py: Python<'py>,
        mu: &Bound<'py, PyAny>,
        xvector: &Bound<'py, PyAny>,
        prompt_mel: &Bound<'py, PyAny>,
        noise: &Bound<'py, PyAny>,
        callback: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let (mu, xvector) = (arrays::matrix("mu", mu, None)?, arrays::vector("xvector", xvector, None)?);
        let (prompt_mel, noise) = (arrays::matrix("prompt_mel", prompt_mel, None)?, arrays::matrix("noise", noise, None)?);
        let mel = run(py, callback, |observer| self.core.mel(&mu, &xvector, &prompt_mel, &noise, observer))?;
        arrays::to_matrix(py, mel)
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Flow>()
}
