//! The one converter between NumPy arrays and the core's vectors: checks with the argument's name, copies in.

use chatterbox_turbo::Matrix;
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::door::error;

type Array<'py, T> = PyReadonlyArrayDyn<'py, T>;

fn describe(value: &Bound<'_, PyAny>) -> String {
    let attribute = |name: &str| value.getattr(name).and_then(|v| v.str()).map(|s| s.to_string());
    match (attribute("dtype"), attribute("shape")) {
        (Ok(dtype), Ok(shape)) => format!("{dtype} array of shape {shape}"),
        _ => value.get_type().name().map(|n| n.to_string()).unwrap_or_else(|_| "an unknown type".into()),
    }
}

fn extract<'py, T: numpy::Element>(name: &str, expected: &str, value: &Bound<'py, PyAny>) -> PyResult<Array<'py, T>> {
    value
        .extract::<Array<'py, T>>()
        .map_err(|_| error("ArgumentError", format!("{name}: expected {expected}, got {}", describe(value))))
}

fn flat<T: numpy::Element + Copy>(array: &Array<'_, T>) -> PyResult<Vec<T>> {
    // `as_slice` alone would also take a Fortran-ordered array, in its own order
    if array.is_c_contiguous()
        && let Ok(slice) = array.as_slice()
    {
        return Ok(slice.to_vec());
    }
    // numbers that lie anywhere, also where no reference to one may point, are NumPy's to copy
    let copy = array.py().import("numpy")?.call_method1("copy", (&**array, "C"))?;
    Ok(copy.extract::<Array<'_, T>>()?.as_slice()?.to_vec())
}

/// A float32 array of shape `[n]` (of `len` values when given).
pub fn vector(name: &str, value: &Bound<'_, PyAny>, len: Option<usize>) -> PyResult<Vec<f32>> {
    let expected = len.map_or_else(|| "float32 [n]".into(), |n| format!("float32 [{n}]"));
    let array = extract::<f32>(name, &expected, value)?;
    if array.ndim() != 1 || len.is_some_and(|n| array.len() != n) {
        return Err(error("ArgumentError", format!("{name}: expected {expected}, got {}", describe(value))));
    }
    flat(&array)
}

/// A float64 array of shape `[n]`.
pub fn doubles(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<f64>> {
    let array = extract::<f64>(name, "float64 [n]", value)?;
    if array.ndim() != 1 {
        return Err(error("ArgumentError", format!("{name}: expected float64 [n], got {}", describe(value))));
    }
    flat(&array)
}

/// An int64 array of shape `[n]`.
pub fn ids(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<i64>> {
    let array = extract::<i64>(name, "int64 [n]", value)?;
    if array.ndim() != 1 {
        return Err(error("ArgumentError", format!("{name}: expected int64 [n], got {}", describe(value))));
    }
    flat(&array)
}

/// A float32 array of shape `[time, cols]`.
pub fn matrix(name: &str, value: &Bound<'_, PyAny>, cols: Option<usize>) -> PyResult<Matrix> {
    let expected = cols.map_or_else(|| "float32 [time, channels]".into(), |n| format!("float32 [time, {n}]"));
    let array = extract::<f32>(name, &expected, value)?;
    if array.ndim() != 2 || cols.is_some_and(|n| array.shape()[1] != n) {
        return Err(error("ArgumentError", format!("{name}: expected {expected}, got {}", describe(value))));
    }
    Ok(Matrix { rows: array.shape()[0], cols: array.shape()[1], data: flat(&array)? })
}

/// A new one-dimensional array.
pub fn to_vector<T: numpy::Element>(py: Python<'_>, data: Vec<T>) -> Bound<'_, PyArray1<T>> {
    data.into_pyarray(py)
}

/// A new `[rows, cols]` array.
pub fn to_matrix(py: Python<'_>, matrix: Matrix) -> PyResult<Bound<'_, PyArray2<f32>>> {
    matrix.data.into_pyarray(py).reshape([matrix.rows, matrix.cols])
}
