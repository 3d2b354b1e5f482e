//! The one door into the core: releases the GIL, lets signals and cancellation in, maps errors to named exceptions.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use chatterbox_turbo::{Error, Observer, Result};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// How often running work looks for signals, cancellation and a progress callback.
const INTERVAL: Duration = Duration::from_millis(50);

/// The exception `name` of `chatterbox_turbo_rs.errors` with `message`.
pub fn error(name: &str, message: String) -> PyErr {
    Python::attach(|py| {
        let build = || -> PyResult<PyErr> {
            let class = py.import("chatterbox_turbo_rs.errors")?.getattr(name)?;
            Ok(PyErr::from_value(class.call1((message.clone(),))?))
        };
        build().unwrap_or_else(|_| PyRuntimeError::new_err(format!("{name}: {message}")))
    })
}

/// Maps an error of the core to the exception of the same name.
pub fn map(e: Error) -> PyErr {
    let name = match &e {
        Error::Checkpoint { .. } => "CheckpointError",
        Error::Config(_) => "ConfigError",
        Error::Audio(_) => "AudioError",
        Error::UnsupportedAudio(_) => "UnsupportedAudioError",
        Error::Text(_) => "TextError",
        Error::Argument(_) => "ArgumentError",
        Error::Watermark(_) => "WatermarkError",
        Error::Device(_) => "DeviceError",
        Error::Cancelled => "CancelledError",
        Error::Io { .. } => "FileError",
        _ => "InternalError",
    };
    error(name, e.to_string())
}

/// What the work sees of Python: signals, and an optional callable `control(stage, done, total)` that may raise.
pub struct Control {
    callback: Option<Py<PyAny>>,
    last: Cell<Option<Instant>>,
    raised: RefCell<Option<PyErr>>,
}

impl Observer for Control {
    fn progress(&self, stage: &'static str, done: usize, total: usize) -> Result<()> {
        if done < total && self.last.get().is_some_and(|at| at.elapsed() < INTERVAL) {
            return Ok(());
        }
        self.last.set(Some(Instant::now()));
        let outcome = Python::attach(|py| {
            py.check_signals()?;
            match &self.callback {
                Some(callback) => callback.call1(py, (stage, done, total)).map(|_| ()),
                None => Ok(()),
            }
        });
        outcome.map_err(|e| {
            *self.raised.borrow_mut() = Some(e);
            Error::Cancelled
        })
    }
}

/// Runs `work` without the GIL. `callback` is `None` or a callable `(stage, done, total)`; what it raises stops the work
/// and is raised here, as is `KeyboardInterrupt`. A CPU level that cannot be is refused first. A panic becomes `InternalError`; the process never aborts.
pub fn run<T: Send>(
    py: Python<'_>,
    callback: Option<Py<PyAny>>,
    work: impl FnOnce(&dyn Observer) -> Result<T> + Send,
) -> PyResult<T> {
    chatterbox_turbo::kernels::level_in_use().map_err(map)?;
    chatterbox_turbo::threads::start().map_err(map)?;
    // dropped with the GIL: without it pyo3 takes a lock of its own, which another thread's fork might find held
    let control = Control { callback, last: Cell::new(None), raised: RefCell::new(None) };
    let (outcome, control) = py.detach(move || (catch_unwind(AssertUnwindSafe(|| work(&control))), control));
    if let Some(raised) = control.raised.take() {
        return Err(raised);
    }
    match outcome {
        Ok(result) => result.map_err(map),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_default();
            Err(error("InternalError", format!("a stage panicked: {text}")))
        }
    }
}
