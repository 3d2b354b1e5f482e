//! Binding of `t3.decoder` and of the token loop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use chatterbox_turbo::stages::t3::batch::Batch;
use chatterbox_turbo::stages::t3::decoder::{T3Decoder as Core, T3Prefix as CorePrefix, T3Session as CoreSession};
use chatterbox_turbo::stages::t3::generate::{self, Session, keep_speech};
use chatterbox_turbo::stages::t3::many::{Finished, Request, generate_many};
use chatterbox_turbo::stages::t3::sampler::SamplerParameters;
use chatterbox_turbo::{Error, Precision, Result, draws};
use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::{doubles, ids, to_vector, vector};
use crate::checkpoint::Checkpoint;
use crate::door::{error, map, run};
use crate::hyperparameters::dict;

/// The loaded decoder (`_core.T3Decoder(checkpoint, device, precision="f32")`); immutable, to be shared by threads.
#[pyclass(frozen, module = "chatterbox_turbo_rs._core")]
pub struct T3Decoder {
    core: Core,
    s3gen: chatterbox_turbo::config::S3Gen,
}

#[pymethods]
impl T3Decoder {
    #[new]
    #[pyo3(signature = (checkpoint, device, precision="f32"))]
    fn new(py: Python<'_>, checkpoint: &Checkpoint, device: &str, precision: &str) -> PyResult<Self> {
        let precision: Precision = precision.parse().map_err(map)?;
        let device = crate::checkpoint::device(device)?;
        let core = run(py, None, |_| Core::load(&checkpoint.core, &device, precision))?;
        Ok(Self { core, s3gen: checkpoint.core.config().s3gen.clone() })
    }

    fn hyperparameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dict(py, self.core.hyperparameters())
    }

    fn step_bytes(&self, position: usize) -> usize {
        self.core.step_bytes(position)
    }

    fn start(
        &self,
        py: Python<'_>,
        speaker_embedding: &Bound<'_, PyAny>,
        prompt_tokens: &Bound<'_, PyAny>,
        text_ids: &Bound<'_, PyAny>,
        max_tokens: &Bound<'_, PyAny>,
    ) -> PyResult<T3Session> {
        let speaker = vector("speaker_embedding", speaker_embedding, None)?;
        let (prompt, text) = (ids("prompt_tokens", prompt_tokens)?, ids("text_ids", text_ids)?);
        let max_tokens: usize = whole("max_tokens", max_tokens)?;
        let session = run(py, None, |_| self.core.start(&speaker, &prompt, &text, max_tokens))?;
        Ok(T3Session { core: Mutex::new(session) })
    }

    fn prefix(
        &self,
        py: Python<'_>,
        speaker_embedding: &Bound<'_, PyAny>,
        prompt_tokens: &Bound<'_, PyAny>,
    ) -> PyResult<T3Prefix> {
        let (speaker, prompt) = (vector("speaker_embedding", speaker_embedding, None)?, ids("prompt_tokens", prompt_tokens)?);
        Ok(T3Prefix { core: run(py, None, |_| self.core.prefix(&speaker, &prompt))? })
    }

    fn start_from(
        &self,
        py: Python<'_>,
        prefix: &T3Prefix,
        text_ids: &Bound<'_, PyAny>,
        max_tokens: &Bound<'_, PyAny>,
    ) -> PyResult<T3Session> {
        let (text, max_tokens) = (ids("text_ids", text_ids)?, whole("max_tokens", max_tokens)?);
        let session = run(py, None, |_| self.core.start_from(&prefix.core, &text, max_tokens))?;
        Ok(T3Session { core: Mutex::new(session) })
    }

    /// A row of logits for each session.
    fn step_many<'py>(
        &self,
        py: Python<'py>,
        sessions: Vec<Bound<'py, T3Session>>,
        tokens: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<Bound<'py, PyArray1<f32>>>> {
        let tokens = ids("tokens", tokens)?;
        let sessions: Vec<&T3Session> = sessions.iter().map(Bound::get).collect();
        let rows = run(py, None, |_| {
            let mut locked = sessions.iter().map(|session| session.lock()).collect::<Result<Vec<_>>>()?;
            let mut sessions: Vec<&mut CoreSession> = locked.iter_mut().map(|session| &mut **session).collect();
            self.core.step_many(&mut sessions, &tokens)
        })?;
        Ok(rows.into_iter().map(|row| to_vector(py, row)).collect())
    }

    #[pyo3(signature = (prefix, text_ids, *, temperature, top_k, top_p, repetition_penalty, max_tokens,
                        seed=None, uniforms=None, callback=None))]
    fn generate<'py>(
        &self,
        py: Python<'py>,
        prefix: &T3Prefix,
        text_ids: &Bound<'_, PyAny>,
        temperature: f64,
        top_k: usize,
        top_p: f64,
        repetition_penalty: f64,
        max_tokens: &Bound<'_, PyAny>,
        seed: Option<&Bound<'_, PyAny>>,
        uniforms: Option<&Bound<'_, PyAny>>,
        callback: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let text = ids("text_ids", text_ids)?;
        let parameters = SamplerParameters { temperature, top_k, top_p, repetition_penalty };
        let max_tokens: usize = whole("max_tokens", max_tokens)?;
        let source = match (seed, uniforms) {
            (Some(seed), None) => Draws::Seed(whole("seed", seed)?),
            (None, Some(values)) => Draws::Given(doubles("uniforms", values)?),
            _ => return Err(error("ArgumentError", "seed and uniforms: expected one of them, got both or none".into())),
        };
        let tokens = run(py, callback, |observer| {
            let mut session = self.core.start_from(&prefix.core, &text, max_tokens)?;
            generate::run(&mut session, self.core.config(), &parameters, |step| source.at(step), max_tokens, observer)
        })?;
        Ok(to_vector(py, tokens))
    }

    /// Calls `finished(index, tokens or error, seconds)` for every request as soon as it is finished.
    #[pyo3(signature = (requests, finished, *, rows, callback=None))]
    fn generate_many(
        &self,
        py: Python<'_>,
        requests: &Bound<'_, PyAny>,
        finished: Py<PyAny>,
        rows: usize,
        callback: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let requests = requests.try_iter()?.map(|item| request(&item?)).collect::<PyResult<Vec<_>>>()?;
        let raised = run(py, callback, |observer| {
            let mut raised = None;
            let outcome = generate_many(&self.core, requests, rows, observer, |done| {
                Python::attach(|py| give(py, &finished, done)).map_err(|e| {
                    raised = Some(e);
                    Error::Cancelled
                })
            });
            if raised.is_some() { Ok(raised) } else { outcome.map(|()| None) }
        })?;
        raised.map_or(Ok(()), Err)
    }

    /// Rows for requests that come and go.
    fn open_batch(slf: Py<Self>) -> T3Batch {
        T3Batch { decoder: slf, rows: Mutex::default(), interrupted: AtomicBool::new(false) }
    }

    fn keep_speech<'py>(&self, py: Python<'py>, tokens: &Bound<'_, PyAny>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let tokens = ids("tokens", tokens)?;
        Ok(to_vector(py, keep_speech(&tokens, &self.s3gen)))
    }
}

/// What came of requests: (key, tokens or error, seconds) of each.
type Outcomes<'py> = Vec<(usize, Bound<'py, PyAny>, f64)>;

/// Token loops that step together, of requests that join and leave; used by one thread, but for `interrupt`.
#[pyclass(frozen, module = "chatterbox_turbo_rs._core")]
pub struct T3Batch {
    decoder: Py<T3Decoder>,
    rows: Mutex<Batch<Core>>,
    interrupted: AtomicBool,
}

impl T3Batch {
    fn lock(&self) -> Result<MutexGuard<'_, Batch<Core>>> {
        self.rows.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => Error::argument("batch: expected one thread at a time, another one is using it"),
            TryLockError::Poisoned(_) => Error::argument("batch: expected a working batch, got one that failed before"),
        })
    }
}

#[pymethods]
impl T3Batch {
    fn __len__(&self) -> PyResult<usize> {
        Ok(self.lock().map_err(map)?.len())
    }

    /// Begins a request; what came of it, where it is over at once.
    #[pyo3(signature = (key, request, callback=None))]
    fn admit<'py>(
        &self,
        py: Python<'py>,
        key: usize,
        request: &Bound<'_, PyAny>,
        callback: Option<Py<PyAny>>,
    ) -> PyResult<Outcomes<'py>> {
        let (request, decoder) = (self::request(request)?, &self.decoder.get().core);
        let done = run(py, callback, |observer| self.lock()?.admit(decoder, key, request, observer))?;
        outcomes(py, done)
    }

    /// Steps until a request is over, `seconds` are over, or `interrupt` was called: what came of those that are over.
    fn run<'py>(&self, py: Python<'py>, seconds: f64) -> PyResult<Outcomes<'py>> {
        let until = Duration::try_from_secs_f64(seconds).ok().and_then(|time| Instant::now().checked_add(time));
        let decoder = &self.decoder.get().core;
        let done = run(py, None, |_| {
            let mut rows = self.lock()?;
            loop {
                let done = rows.step(decoder)?;
                let late = until.is_none_or(|until| Instant::now() >= until);
                if !done.is_empty() || rows.is_empty() || self.interrupted.swap(false, Ordering::Relaxed) || late {
                    return Ok(done);
                }
            }
        })?;
        outcomes(py, done)
    }

    /// Ends a `run` that is under way in another thread, or the next one, after a step.
    fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
    }

    /// Takes a request away; false where it is not there.
    fn leave(&self, key: usize) -> PyResult<bool> {
        Ok(self.lock().map_err(map)?.leave(key))
    }
}

fn outcomes(py: Python<'_>, done: impl IntoIterator<Item = Finished>) -> PyResult<Outcomes<'_>> {
    done.into_iter().map(|Finished { index, tokens, seconds }| Ok((index, outcome(py, tokens), seconds))).collect()
}

/// A request from the mapping `_Request` of `_core.pyi`.
fn request(item: &Bound<'_, PyAny>) -> PyResult<Request<CorePrefix>> {
    Ok(Request {
        prefix: item.get_item("prefix")?.cast::<T3Prefix>()?.get().core.clone(),
        text_ids: ids("text_ids", &item.get_item("text_ids")?)?,
        parameters: SamplerParameters {
            temperature: item.get_item("temperature")?.extract()?,
            top_k: item.get_item("top_k")?.extract()?,
            top_p: item.get_item("top_p")?.extract()?,
            repetition_penalty: item.get_item("repetition_penalty")?.extract()?,
        },
        seed: whole("seed", &item.get_item("seed")?)?,
        max_tokens: whole("max_tokens", &item.get_item("max_tokens")?)?,
    })
}

fn give(py: Python<'_>, finished: &Py<PyAny>, done: Finished) -> PyResult<()> {
    finished.call1(py, (done.index, outcome(py, done.tokens), done.seconds)).map(|_| ())
}

/// The tokens, or the exception.
fn outcome(py: Python<'_>, tokens: Result<Vec<i64>>) -> Bound<'_, PyAny> {
    match tokens {
        Ok(tokens) => to_vector(py, tokens).into_any(),
        Err(e) => map(e).into_value(py).into_bound(py).into_any(),
    }
}

/// Where the loop's uniforms come from.
enum Draws {
    Seed(u64),
    Given(Vec<f64>),
}

impl Draws {
    fn at(&self, step: usize) -> Result<f64> {
        match self {
            Self::Seed(seed) => draws::uniforms(*seed, draws::T3, step as u64, 1).map(|values| values[0]),
            Self::Given(values) => values.get(step).copied().ok_or_else(|| {
                Error::argument(format!("uniforms: expected a number for every step, got {} for step {step}", values.len()))
            }),
        }
    }
}

/// A whole number from 0 on that fits the type.
fn whole<'py, T>(name: &str, value: &Bound<'py, PyAny>) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py>,
{
    value.extract().map_err(|_| {
        let found = value.repr().map_or_else(|_| "something else".into(), |text| text.to_string());
        error("ArgumentError", format!("{name}: expected a whole number from 0 to 2^64 - 1, got {found}"))
    })
}

/// The beginning that all utterances of a voice share; opaque, immutable, to be shared by threads.
#[pyclass(frozen, module = "chatterbox_turbo_rs._core")]
pub struct T3Prefix {
    core: CorePrefix,
}

#[pymethods]
impl T3Prefix {
    /// Bytes of the keys and values; 0 before the first prefill has computed them.
    #[getter]
    fn nbytes(&self) -> usize {
        self.core.bytes()
    }
}

/// One utterance; used by one thread at a time.
#[pyclass(frozen, module = "chatterbox_turbo_rs._core")]
pub struct T3Session {
    core: Mutex<CoreSession>,
}

impl T3Session {
    fn lock(&self) -> Result<MutexGuard<'_, CoreSession>> {
        self.core.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => Error::argument("session: expected one thread at a time, another one is using it"),
            TryLockError::Poisoned(_) => Error::argument("session: expected a working session, got one that failed before"),
        })
    }
}

#[pymethods]
impl T3Session {
    #[pyo3(signature = (callback=None))]
    fn prefill<'py>(&self, py: Python<'py>, callback: Option<Py<PyAny>>) -> PyResult<Bound<'py, PyArray1<f32>>> {
        Ok(to_vector(py, run(py, callback, |observer| self.lock()?.prefill(observer))?))
    }

    fn step<'py>(&self, py: Python<'py>, token: i64) -> PyResult<Bound<'py, PyArray1<f32>>> {
        Ok(to_vector(py, run(py, None, |_| self.lock()?.step(token))?))
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<T3Decoder>()?;
    module.add_class::<T3Batch>()?;
    module.add_class::<T3Prefix>()?;
    module.add_class::<T3Session>()
}
