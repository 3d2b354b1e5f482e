//! The cache of packed weights: where it is, what is in it, and emptying it.

use std::time::UNIX_EPOCH;

use chatterbox_turbo::packed::Cache;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::door::{map, run};

/// `{"directory", "limit", "entries": [{"name", "bytes", "used"}]}`, the last used first; `None` where the cache is off.
#[pyfunction]
fn cache_info(py: Python<'_>) -> PyResult<Option<Bound<'_, PyDict>>> {
    let Some(cache) = Cache::from_environment().map_err(map)? else {
        return Ok(None);
    };
    let entries = run(py, None, |_| Ok(cache.entries()))?;
    let info = PyDict::new(py);
    info.set_item("directory", cache.directory())?;
    info.set_item("limit", cache.limit())?;
    let entry = |entry: chatterbox_turbo::packed::Entry| -> PyResult<_> {
        let item = PyDict::new(py);
        item.set_item("name", entry.name)?;
        item.set_item("bytes", entry.bytes)?;
        item.set_item("used", entry.used.duration_since(UNIX_EPOCH).map_or(0.0, |age| age.as_secs_f64()))?;
        Ok(item)
    };
    info.set_item("entries", entries.into_iter().map(entry).collect::<PyResult<Vec<_>>>()?)?;
    Ok(Some(info))
}

/// Empties the cache, where there is one.
#[pyfunction]
fn cache_clear(py: Python<'_>) -> PyResult<()> {
    run(py, None, |_| Cache::from_environment()?.map_or(Ok(()), |cache| cache.clear()))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(cache_info, module)?)?;
    module.add_function(wrap_pyfunction!(cache_clear, module)?)
}
