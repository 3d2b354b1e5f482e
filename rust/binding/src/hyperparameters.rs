//! Hyper-parameters of a loaded network as a dict.

use chatterbox_turbo::hyperparameters::{Hyperparameters, Value};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Name → int, float, bool, str or a list of numbers.
pub fn dict(py: Python<'_>, all: Hyperparameters) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in all {
        match value {
            Value::Whole(value) => dict.set_item(name, value)?,
            Value::Real(value) => dict.set_item(name, value)?,
            Value::Bool(value) => dict.set_item(name, value)?,
            Value::Text(value) => dict.set_item(name, value)?,
            Value::Wholes(values) => dict.set_item(name, values)?,
            Value::Reals(values) => dict.set_item(name, values)?,
        }
    }
    Ok(dict)
}
