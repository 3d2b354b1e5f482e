"""What the Python sides of the network stages check of their arguments, in the words that the Rust core uses.

Arrays at stage borders are float32 ``[n]`` or ``[time, channels]``, ids int64 ``[n]``. Every function gives the array back,
C-contiguous; a wrong type or shape, NaN and infinity raise ``ArgumentError`` with the argument's name.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ArgumentError


def describe(value: Any) -> str:
    """``float64 array of shape (3,)``, or the name of the type of what is no array."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} array of shape {value.shape}"
    return type(value).__name__


def _array(name: str, value: Any, dtype: Any, axes: int, expected: str) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.ndim != axes:
        raise ArgumentError(f"{name}: expected {expected}, got {describe(value)}")
    return np.ascontiguousarray(value)


def vector(name: str, value: Any) -> np.ndarray:
    """A float32 array ``[n]``; its values are not looked at."""
    return _array(name, value, np.float32, 1, "float32 [n]")


def ids(name: str, value: Any) -> np.ndarray:
    """An int64 array ``[n]``; its values are not looked at."""
    return _array(name, value, np.int64, 1, "int64 [n]")


def matrix(name: str, value: Any) -> np.ndarray:
    """A float32 array ``[time, channels]``; its values are not looked at."""
    return _array(name, value, np.float32, 2, "float32 [time, channels]")


def shaped(stage: str, name: str, value: Any, rows: int | None, columns: int) -> np.ndarray:
    """A finite float32 array ``[rows, columns]`` (any number of rows for None)."""
    array = matrix(name, value)
    if array.shape[1] != columns or (rows is not None and array.shape[0] != rows):
        expected = "rows" if rows is None else rows
        raise ArgumentError(f"{stage}: {name}: expected shape [{expected}, {columns}], got {list(array.shape)}")
    return finite(stage, name, array)


def sized(stage: str, name: str, value: Any, length: int) -> np.ndarray:
    """A finite float32 array ``[length]``."""
    array = vector(name, value)
    if len(array) != length:
        raise ArgumentError(f"{stage}: {name}: expected {length} values, got {len(array)}")
    return finite(stage, name, array)


def finite(stage: str, name: str, array: np.ndarray) -> np.ndarray:
    """``array``, when all its values are finite."""
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise ArgumentError(f"{stage}: {name}: expected finite values, got {number(array.ravel()[bad[0]])} at {bad[0]}")
    return array


def frames(name: str, value: Any, columns: int) -> np.ndarray:
    """A finite float32 array ``[time, columns]`` of at least one row."""
    array = matrix(name, value)
    if array.shape[1] != columns or not len(array):
        raise ArgumentError(f"{name}: expected float32 [time, {columns}] with at least one row, got shape {list(array.shape)}")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        row, column = bad[0]
        raise ArgumentError(f"{name}: expected finite numbers, got {number(array[row, column])} at row {row}, column {column}")
    return array


def table(name: str, values: np.ndarray, size: int) -> np.ndarray:
    """Ids of a table of ``size`` rows."""
    bad = np.flatnonzero((values < 0) | (values >= size))
    if len(bad):
        raise ArgumentError(f"{name}: expected ids from 0 to {size - 1}, got {values[bad[0]]} at position {bad[0]}")
    return values


def number(value: Any) -> str:
    """``NaN``, ``inf``, ``-inf`` or the number, as Rust writes them."""
    return "NaN" if np.isnan(value) else str(value)
