//! Binding of `s3gen.encoder`.

use chatterbox_turbo::Precision;
use numpy::PyArray2;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays;
use crate::checkpoint::{Checkpoint, device};
use crate::door::{map, run};
use crate::hyperparameters::dict;

/// `FlowEncoder(checkpoint, device, precision="f32")`; immutable.
#[pyclass(frozen, module = "chatterbox_turbo_rs._core")]
pub struct FlowEncoder {
    core: chatterbox_turbo::stages::s3gen::encoder::FlowEncoder,
}

#[pymethods]
impl FlowEncoder {
    #[new]
    #[pyo3(signature = (checkpoint, device_name, precision="f32"))]
    fn new(py: Python<'_>, checkpoint: &Bound<'_, Checkpoint>, device_name: &str, precision: &str) -> PyResult<Self> {
        let precision: Precision = precision.parse().map_err(map)?;
        let (checkpoint, device) = (checkpoint.get().core.clone(), device(device_name)?);
        let load = |_: &dyn chatterbox_turbo::Observer| {
            chatterbox_turbo::stages::s3gen::encoder::FlowEncoder::load(&checkpoint, &device, precision)
        };
        Ok(Self { core: run(py, None, load)? })
    }

    fn hyperparameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dict(py, self.core.hyperparameters())
    }

    #[pyo3(signature = (ids, callback=None))]
    fn mu<'py>(
        &self,
        py: Python<'py>,
        ids: &Bound<'py, PyAny>,
        callback: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let ids = arrays::ids("ids", ids)?;
        let mu = run(py, callback, |observer| self.core.mu(&ids, observer))?;
        arrays::to_matrix(py, mu)
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<FlowEncoder>()
}
