//! Binding of the torch archive reader: nested dicts and lists, NumPy arrays as leaves.

use chatterbox_turbo::torch_archive::{Data, Tensor, Value, read};
use numpy::{PyArray1, PyArrayMethods};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::door::run;

/// Reads a `torch.save` archive without torch; bfloat16 tensors come as float32.
#[pyfunction]
fn read_torch_archive(py: Python<'_>, path: std::path::PathBuf) -> PyResult<Bound<'_, PyAny>> {
    let value = run(py, None, |_| read(&path))?;
    object(py, value)
}

fn object(py: Python<'_>, value: Value) -> PyResult<Bound<'_, PyAny>> {
    match value {
        Value::None => Ok(py.None().into_bound(py)),
        Value::Bool(value) => value.into_bound_py_any(py),
        Value::Int(value) => value.into_bound_py_any(py),
        Value::Float(value) => value.into_bound_py_any(py),
        Value::Str(value) => value.into_bound_py_any(py),
        Value::List(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(object(py, item)?)?;
            }
            Ok(list.into_any())
        }
        Value::Dict(items) => {
            let dict = PyDict::new(py);
            for (key, item) in items {
                dict.set_item(key, object(py, item)?)?;
            }
            Ok(dict.into_any())
        }
        Value::Tensor(tensor) => array(py, tensor),
    }
}

fn array(py: Python<'_>, Tensor { shape, data }: Tensor) -> PyResult<Bound<'_, PyAny>> {
    fn shaped<T: numpy::Element>(py: Python<'_>, values: Vec<T>, shape: Vec<usize>) -> PyResult<Bound<'_, PyAny>> {
        Ok(PyArray1::from_vec(py, values).reshape(shape)?.into_any())
    }
    match data {
        Data::F32(values) => shaped(py, values, shape),
        Data::BF16(values) => shaped(py, values.into_iter().map(|v| v.to_f32()).collect(), shape),
        // the same bits under NumPy's own name for them
        Data::F16(values) => {
            shaped(py, values.into_iter().map(|v| v.to_bits()).collect::<Vec<u16>>(), shape)?.call_method1("view", ("float16",))
        }
        Data::F64(values) => shaped(py, values, shape),
        Data::I64(values) => shaped(py, values, shape),
        Data::I32(values) => shaped(py, values, shape),
        Data::U8(values) => shaped(py, values, shape),
        Data::Bool(values) => shaped(py, values, shape),
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(read_torch_archive, module)?)
}
