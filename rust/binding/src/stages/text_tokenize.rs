//! Binding of `text.tokenize`.

use std::path::PathBuf;

use chatterbox_turbo::Config;
use chatterbox_turbo::stages::text::tokenize::Tokenizer;
use numpy::PyArray1;
use pyo3::prelude::*;

use crate::arrays::to_vector;
use crate::door::{map, run};

/// A vocabulary (`_core.TextTokenizer(directory, config_json, file=None)`); immutable.
#[pyclass(frozen, module = "chatterbox_turbo_rs._core")]
struct TextTokenizer {
    core: Tokenizer,
}

/// The ids, and (tokens, characters) of a text that was cut.
type Ids<'py> = (Bound<'py, PyArray1<i64>>, Option<(usize, usize)>);

#[pymethods]
impl TextTokenizer {
    #[new]
    #[pyo3(signature = (directory, config_json, file = None))]
    fn new(py: Python<'_>, directory: PathBuf, config_json: &str, file: Option<PathBuf>) -> PyResult<Self> {
        let config = Config::parse(config_json, "config").map_err(map)?;
        let core = run(py, None, |_| match &file {
            Some(file) => Tokenizer::from_file(file, &config),
            None => Tokenizer::from_directory(&directory, &config),
        })?;
        Ok(Self { core })
    }

    fn encode<'py>(&self, py: Python<'py>, text: &str) -> PyResult<Ids<'py>> {
        let encoded = run(py, None, |_| self.core.encode(text))?;
        Ok((to_vector(py, encoded.ids), encoded.truncated.map(|t| (t.tokens, t.characters))))
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<TextTokenizer>()
}
