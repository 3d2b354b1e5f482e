//! Binding of `reference.load`.

use std::path::PathBuf;

use chatterbox_turbo::stages::reference::load::{self, Wanted};
use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::{arrays, door};

/// `source` is a path, the bytes of an encoded file, or float32 `[n, channels]` with its `rate` in Hz; the result has `to` Hz
/// and is longer than so many seconds.
#[pyfunction]
#[pyo3(signature = (source, rate = None, *, to = load::RATE, longer_than = load::MIN_SECONDS, callback = None))]
fn reference_load<'py>(
    py: Python<'py>,
    source: &Bound<'py, PyAny>,
    rate: Option<u32>,
    to: u32,
    longer_than: f64,
    callback: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let wanted = Wanted { rate: to, longer_than };
    let samples = if let Some(rate) = rate {
        let clip = arrays::matrix("samples", source, None)?;
        door::run(py, callback, move |observer| load::from_samples(&clip.data, clip.cols, rate, wanted, observer))?
    } else if let Ok(bytes) = source.cast::<PyBytes>() {
        let bytes = bytes.as_bytes().to_vec();
        door::run(py, callback, move |observer| load::load_bytes(bytes, wanted, observer))?
    } else {
        let path: PathBuf = source.extract()?;
        door::run(py, callback, move |observer| load::load_path(&path, wanted, observer))?
    };
    Ok(arrays::to_vector(py, samples))
}

/// The mono samples of a path or of encoded bytes at their own rate, and that rate. The work ends behind `most` seconds.
#[pyfunction]
#[pyo3(signature = (source, most = None, *, callback = None))]
fn reference_load_decode<'py>(
    py: Python<'py>,
    source: &Bound<'py, PyAny>,
    most: Option<f64>,
    callback: Option<Py<PyAny>>,
) -> PyResult<(Bound<'py, PyArray1<f32>>, u32)> {
    let most = most.unwrap_or(f64::INFINITY);
    let (samples, rate) = if let Ok(bytes) = source.cast::<PyBytes>() {
        let bytes = bytes.as_bytes().to_vec();
        door::run(py, callback, move |observer| load::decode_bytes(bytes, most, observer))?
    } else {
        let path: PathBuf = source.extract()?;
        door::run(py, callback, move |observer| load::decode_path(&path, most, observer))?
    };
    Ok((arrays::to_vector(py, samples), rate))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(reference_load_decode, module)?)?;
    module.add_function(wrap_pyfunction!(reference_load, module)?)
}
