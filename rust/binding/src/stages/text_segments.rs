//! Binding of long text's segments.

use chatterbox_turbo::segments::{self, Split};
use pyo3::prelude::*;

use crate::door::run;

/// Text, seconds of silence behind it, seed, whether a paragraph begins.
type Segment = (String, f64, u64, bool);

#[pyfunction]
fn text_segments(
    py: Python<'_>,
    text: &str,
    seed: u64,
    first: usize,
    longest: usize,
    sentence_pause: f64,
    paragraph_pause: f64,
    language: String,
) -> PyResult<Vec<Segment>> {
    let split = Split { first, longest, sentence_pause, paragraph_pause, language };
    let found = run(py, None, |_| segments::segments(text, seed, &split))?;
    Ok(found.into_iter().map(|s| (s.text, s.pause_after, s.seed, s.start_of_paragraph)).collect())
}

#[pyfunction]
fn text_sentences<'a>(language: &str, text: &'a str) -> Vec<&'a str> {
    segments::sentences(language, text)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(text_segments, module)?)?;
    module.add_function(wrap_pyfunction!(text_sentences, module)?)
}
