//! `chatterbox_turbo_rs._core`: the Rust side of every stage, one file a stage.

#![allow(missing_docs, reason = "the Python-facing text stands in _core.pyi and in the stage contracts")]

mod arrays;
mod cache;
mod checkpoint;
mod door;
mod hyperparameters;
mod stages;
mod taps;
mod torch_archive;

use chatterbox_turbo::{Device, Precision, kernels};
use pyo3::prelude::*;

/// What this build can do: `{"version", "features", "target", "threads", "cpu_level", "cpu_levels", "cpu_precision"}`.
#[pyfunction]
fn build_info(py: Python<'_>) -> PyResult<Bound<'_, pyo3::types::PyDict>> {
    let info = pyo3::types::PyDict::new(py);
    let mut features = Vec::new();
    for (name, on) in
        [("cuda", cfg!(feature = "cuda")), ("metal", cfg!(feature = "metal")), ("accelerate", cfg!(feature = "accelerate"))]
    {
        if on {
            features.push(name);
        }
    }
    info.set_item("version", env!("CARGO_PKG_VERSION"))?;
    info.set_item("features", features)?;
    info.set_item("target", format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS))?;
    info.set_item("threads", kernels::threads())?;
    info.set_item("cpu_level", kernels::level_in_use().map_err(door::map)?.name())?;
    info.set_item("cpu_levels", kernels::levels().into_iter().map(kernels::Level::name).collect::<Vec<_>>())?;
    info.set_item("cpu_precision", Precision::auto(&Device::Cpu).name())?;
    Ok(info)
}

/// Bytes a second that all threads read from memory.
#[pyfunction]
fn memory_read_rate(py: Python<'_>) -> PyResult<f64> {
    door::run(py, None, |_| Ok(kernels::memory::read_rate(kernels::threads())))
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(build_info, module)?)?;
    module.add_function(wrap_pyfunction!(memory_read_rate, module)?)?;
    cache::register(module)?;
    checkpoint::register(module)?;
    taps::register(module)?;
    torch_archive::register(module)?;
    stages::register(module)
}
