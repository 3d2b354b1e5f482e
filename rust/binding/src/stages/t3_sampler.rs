//! Binding of `t3.sampler`.

use chatterbox_turbo::stages::t3::sampler::{SamplerParameters, sample};
use pyo3::prelude::*;

use crate::arrays::{ids, vector};
use crate::door::run;

#[pyfunction]
fn t3_sampler(
    py: Python<'_>,
    logits: &Bound<'_, PyAny>,
    history: &Bound<'_, PyAny>,
    temperature: f64,
    top_k: usize,
    top_p: f64,
    repetition_penalty: f64,
    uniform: f64,
) -> PyResult<Option<i64>> {
    let (logits, history) = (vector("logits", logits, None)?, ids("history", history)?);
    let parameters = SamplerParameters { temperature, top_k, top_p, repetition_penalty };
    run(py, None, |_| sample(&logits, &history, &parameters, uniform))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(t3_sampler, module)?)
}
