//! Binding of `text.normalize`.

use chatterbox_turbo::stages::text::normalize::{normalize as core, normalize_as_of};
use pyo3::prelude::*;

/// `unicode` is the major version of the interpreter's `unicodedata`; without it, casing is that of this build.
#[pyfunction(name = "text_normalize", signature = (text, unicode = None))]
fn normalize(text: &str, unicode: Option<u8>) -> String {
    unicode.map_or_else(|| core(text), |version| normalize_as_of(text, version))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(normalize, module)?)
}
