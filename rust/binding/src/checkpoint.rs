//! The checkpoint handle that the network stages are loaded from.

use chatterbox_turbo::device::{Kind, unavailable};
use chatterbox_turbo::{Checkpoint as Core, Config, Device};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::door::{error, map, run};

/// An opened checkpoint directory (`_core.Checkpoint(directory, config_json, record=False)`); immutable but for the digests
/// that it collects with `record=True`.
#[pyclass(frozen, module = "chatterbox_turbo_rs._core")]
pub struct Checkpoint {
    pub core: Core,
}

#[pymethods]
impl Checkpoint {
    #[new]
    #[pyo3(signature = (directory, config_json, *, record=false))]
    fn new(py: Python<'_>, directory: std::path::PathBuf, config_json: &str, record: bool) -> PyResult<Self> {
        let config = Config::parse(config_json, "config").map_err(map)?;
        let core = run(py, None, |_| Core::open(&directory, config))?;
        Ok(Self { core: if record { core.with_digests() } else { core } })
    }

    fn digests<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let Some(entries) = self.core.digests() else {
            let what = "digests: expected a checkpoint opened with record=True, got one that keeps none";
            return Err(error("ArgumentError", what.into()));
        };
        let dict = PyDict::new(py);
        for (name, entry) in entries {
            let item = PyDict::new(py);
            item.set_item("shape", entry.shape)?;
            match entry.figures {
                Some(figures) => {
                    item.set_item("sha256", figures.sha256)?;
                    item.set_item("sum", figures.sum)?;
                    item.set_item("squares", figures.squares)?;
                    item.set_item("weighted", figures.weighted)?;
                }
                None => item.set_item("unused", true)?,
            }
            dict.set_item(name, item)?;
        }
        Ok(dict)
    }

    fn packed<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let event = |event: chatterbox_turbo::packed::Event| -> PyResult<_> {
            let item = PyDict::new(py);
            item.set_item("network", event.network)?;
            item.set_item("found", event.found)?;
            item.set_item("trouble", event.trouble)?;
            Ok(item)
        };
        self.core.packed().into_iter().map(event).collect()
    }

    #[getter]
    fn directory(&self) -> std::path::PathBuf {
        self.core.directory().to_path_buf()
    }
}

/// The device called `name` (`"cpu"`, `"cuda"`, `"cuda:1"`, `"metal"`).
pub fn device(name: &str) -> PyResult<Device> {
    Python::attach(|py| {
        let folders = library_folders(py)?;
        run(py, None, |_| chatterbox_turbo::device::open(name, &folders))
    })
}

/// Why each kind of device cannot be used here; None where it can.
#[pyfunction]
fn devices(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let (folders, dict) = (library_folders(py)?, PyDict::new(py));
    for kind in Kind::ALL {
        dict.set_item(kind.name(), run(py, None, |_| Ok(unavailable(kind, &folders)))?)?;
    }
    Ok(dict)
}

/// Where Python's packages keep CUDA's libraries.
fn library_folders(py: Python<'_>) -> PyResult<Vec<std::path::PathBuf>> {
    py.import("chatterbox_turbo_rs.engine.devices")?.getattr("folders")?.call0()?.extract()
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(devices, module)?)?;
    module.add_class::<Checkpoint>()
}
