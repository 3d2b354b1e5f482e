//! Taps: named intermediate values of a network stage, recorded while it runs.
//!
//! The names are the module paths of upstream's checkpoint (`flow.encoder.encoders.3`), so that the same values of another
//! implementation can be laid beside them; `<name>.in` is a module's input. A module that ran more than once during a recording
//! has `#1`, `#2` … behind its name, in the order of its calls. Values are `[rows, cols]`, time first; a vector over time is
//! `[T, 1]`, a vector of channels `[1, C]`.
//!
//! A recording belongs to the thread that began it. Stages only copy out values that they compute anyway, so that results do
//! not depend on it; without one, a tap is a look at a thread-local variable.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{D, Tensor};

use crate::{Error, Matrix, Result};

/// One intermediate value.
#[derive(Clone, Debug, PartialEq)]
pub struct Tap {
    /// Module path, with `.in` for an input and `#n` for one of several calls.
    pub name: String,
    /// Number of rows (time).
    pub rows: usize,
    /// Number of columns (channels).
    pub cols: usize,
    /// `rows * cols` values, row after row.
    pub values: Vec<f32>,
}

/// What one recording has seen; `None` where a call was counted and not kept.
#[derive(Debug, Default)]
struct Recording {
    calls: Vec<(String, Option<Matrix>)>,
}

/// Shared by the threads that one piece of work passes through, one after another.
type Handle = Arc<Mutex<Recording>>;

thread_local! {
    static RECORDING: RefCell<Option<Handle>> = const { RefCell::new(None) };
}

fn lock(handle: &Handle) -> MutexGuard<'_, Recording> {
    handle.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts `next` in place of this thread's recording and brings that back when dropped.
struct Instead(Option<Handle>);

impl Instead {
    fn of(next: Option<Handle>) -> Self {
        Self(RECORDING.replace(next))
    }
}

impl Drop for Instead {
    fn drop(&mut self) {
        RECORDING.set(self.0.take());
    }
}

/// Runs `work` and returns its result with the taps of the stages it called, in the order in which they were computed.
///
/// Inside another recording it takes the place of that one.
pub fn record<T>(work: impl FnOnce() -> T) -> (T, Vec<Tap>) {
    let handle = Handle::default();
    let result = {
        let _instead = Instead::of(Some(handle.clone()));
        work()
    };
    (result, finish(&handle))
}

/// Begins a recording on this thread, to be ended by [`end`].
///
/// # Errors
/// [`Error::Argument`] when one is under way.
pub fn begin() -> Result<()> {
    if is_on() {
        return Err(Error::argument("taps: expected no recording on this thread, one is under way; end it first"));
    }
    RECORDING.set(Some(Handle::default()));
    Ok(())
}

/// Ends the recording that [`begin`] began on this thread and returns its taps.
///
/// # Errors
/// [`Error::Argument`] when there is none.
pub fn end() -> Result<Vec<Tap>> {
    match RECORDING.take() {
        Some(handle) => Ok(finish(&handle)),
        None => Err(Error::argument("taps: expected a recording begun on this thread, found none")),
    }
}

/// Is this thread recording?
pub fn is_on() -> bool {
    RECORDING.with_borrow(Option::is_some)
}

fn current() -> Option<Handle> {
    RECORDING.with_borrow(Clone::clone)
}

/// This thread's recording, to be carried to the thread that goes on with the work.
pub(crate) struct Carried(Option<Handle>);

/// See [`Carried`].
pub(crate) fn carry() -> Carried {
    Carried(current())
}

impl Carried {
    /// Runs `work` as a part of the recording (of none, when none was carried: a thread of a pool may have begun this work
    /// while work that is recorded waits on it).
    pub(crate) fn run<T>(self, work: impl FnOnce() -> T) -> T {
        let _instead = Instead::of(self.0);
        work()
    }
}

/// Records `x`, `[.., T, C]` with axes of 1 in front, as the value `name`.
pub(crate) fn tap<N: Into<String>>(name: impl FnOnce() -> N, x: &Tensor) -> Result<()> {
    if let Some(recording) = current() {
        let kept = rows(x)?;
        lock(&recording).calls.push((name().into(), Some(kept)));
    }
    Ok(())
}

/// Records `values` `[T, cols]` as the value `name`.
pub(crate) fn tap_values<N: Into<String>>(name: impl FnOnce() -> N, cols: usize, values: &[f32]) {
    if let Some(recording) = current() {
        let kept = Matrix { rows: values.len() / cols.max(1), cols, data: values.to_vec() };
        lock(&recording).calls.push((name().into(), Some(kept)));
    }
}

/// Records one of several batches of a module that another implementation calls once: its rows follow those of the batches
/// before it, and only the `first` one counts as a call.
pub(crate) fn tap_batch<N: Into<String>>(name: impl FnOnce() -> N, x: &Tensor, first: bool) -> Result<()> {
    if let Some(recording) = current() {
        let (name, more) = (name().into(), rows(x)?);
        let calls = &mut lock(&recording).calls;
        let before = calls.iter_mut().rev().find(|(found, _)| !first && *found == name);
        match before.and_then(|(_, kept)| kept.as_mut()) {
            Some(kept) => {
                kept.rows += more.rows;
                kept.data.extend(more.data);
            }
            None => calls.push((name, Some(more))),
        }
    }
    Ok(())
}

/// Records `sum - part`: the value `name` where a layer added it to `part` on the way and it never stood alone.
pub(crate) fn tap_difference<N: Into<String>>(name: impl FnOnce() -> N, sum: &Tensor, part: &Tensor) -> Result<()> {
    if is_on() { tap(name, &(sum - part)?) } else { Ok(()) }
}

/// Counts a call of the module `name` whose whole value is not computed here, so that later calls keep their numbers.
pub(crate) fn skip<N: Into<String>>(name: impl FnOnce() -> N) {
    if let Some(recording) = current() {
        lock(&recording).calls.push((name().into(), None));
    }
}

/// The rows of the last axis.
fn rows(x: &Tensor) -> Result<Matrix> {
    Matrix::from_tensor(&x.reshape(((), x.dim(D::Minus1)?))?)
}

/// Numbers the calls and leaves out those that were only counted.
fn finish(handle: &Handle) -> Vec<Tap> {
    let calls = std::mem::take(&mut lock(handle).calls);
    let mut totals: HashMap<String, usize> = HashMap::new();
    calls.iter().for_each(|(name, _)| *totals.entry(name.clone()).or_default() += 1);
    let mut seen: HashMap<String, usize> = HashMap::new();
    let number = |(name, kept): (String, Option<Matrix>)| {
        let call = seen.entry(name.clone()).or_default();
        *call += 1;
        let Matrix { rows, cols, data: values } = kept?;
        let name = if totals[&name] > 1 { format!("{name}#{call}") } else { name };
        Some(Tap { name, rows, cols, values })
    };
    calls.into_iter().filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use candle_core::{DType, Device};
    use rayon::prelude::*;

    use super::*;
    use crate::kernels::in_pool;

    fn names(taps: &[Tap]) -> Vec<&str> {
        taps.iter().map(|tap| tap.name.as_str()).collect()
    }

    #[test]
    fn values_are_rows_of_the_last_axis() -> Result<()> {
        let x = Tensor::arange(0f32, 6.0, &Device::Cpu)?.reshape((1, 2, 3))?;
        let (result, taps) = record(|| {
            tap(|| "a", &x)?;
            tap(|| "t", &x.squeeze(0)?.t()?)?;
            tap_values(|| "v", 1, &[7.0, 8.0]);
            tap_difference(|| "d", &(&x + &x)?, &x)
        });
        result?;
        let form: Vec<_> = taps.iter().map(|tap| (tap.rows, tap.cols, tap.values.as_slice())).collect();
        let (plain, turned) = ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(form, [(2, 3, &plain[..]), (3, 2, &turned), (2, 1, &[7.0, 8.0]), (2, 3, &plain)]);
        Ok(())
    }

    #[test]
    fn calls_are_numbered_when_there_are_several() -> Result<()> {
        let x = Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?;
        let (result, taps) = record(|| -> Result<()> {
            skip(|| "b");
            for first in [true, false, true] {
                tap(|| "a", &x)?;
                tap_batch(|| "batched", &x, first)?;
            }
            tap(|| "b", &x)?;
            skip(|| "gone");
            tap(|| "once", &x)
        });
        result?;
        assert_eq!(names(&taps), ["a#1", "batched#1", "a#2", "a#3", "batched#2", "b#2", "once"]);
        assert_eq!((taps[1].rows, taps[4].rows), (4, 2), "the second batch belongs to the first call");
        Ok(())
    }

    #[test]
    fn nothing_happens_without_a_recording() -> Result<()> {
        let formatted = Cell::new(0);
        let name = || {
            formatted.set(formatted.get() + 1);
            "a"
        };
        let x = Tensor::zeros((1, 1), DType::F32, &Device::Cpu)?;
        let all = || -> Result<()> {
            tap(name, &x)?;
            tap_batch(name, &x, true)?;
            tap_difference(name, &x, &x)?;
            tap_values(name, 1, &[]);
            skip(name);
            Ok(())
        };
        all()?;
        assert_eq!(formatted.get(), 0);
        record(all).0?;
        assert_eq!(formatted.get(), 5);
        all()?;
        assert_eq!(formatted.get(), 5);
        Ok(())
    }

    #[test]
    fn a_recording_begins_once_and_ends_once() -> Result<()> {
        assert!(end().is_err_and(|e| e.to_string().contains("found none")));
        begin()?;
        assert!(begin().is_err_and(|e| e.to_string().contains("under way")));
        tap_values(|| "outer", 1, &[1.0]);
        let ((), inner) = record(|| tap_values(|| "inner", 1, &[1.0]));
        assert_eq!((names(&inner), names(&end()?)), (vec!["inner"], vec!["outer"]));
        assert!(!is_on());
        Ok(())
    }

    /// While one thread's work waits inside the pool, the pool's thread may take up another's: it is not recorded.
    #[test]
    fn work_in_the_pool_is_recorded_for_its_own_thread() {
        let work = |name: &str| {
            for _ in 0..2000 {
                in_pool(|| {
                    let sum: usize = (0..64usize).into_par_iter().with_max_len(1).map(|i| std::hint::black_box(i % 7)).sum();
                    tap_values(|| name, 1, &[sum as f32]);
                });
            }
        };
        std::thread::scope(|scope| {
            let recorded: Vec<_> = ["a", "b"].map(|name| scope.spawn(move || record(|| work(name)).1)).into();
            let silent: Vec<_> = (0..2).map(|_| scope.spawn(|| work("silent"))).collect();
            for (thread, name) in recorded.into_iter().zip(["a", "b"]) {
                let expected: Vec<String> = (1..=2000).map(|i| format!("{name}#{i}")).collect();
                assert!(thread.join().is_ok_and(|taps| names(&taps) == expected));
            }
            assert!(silent.into_iter().all(|thread| thread.join().is_ok()));
        });
    }

    #[test]
    fn a_panic_ends_the_recording() {
        let outcome = std::panic::catch_unwind(|| record(|| in_pool(|| assert!(is_on() && !is_on()))));
        assert!(outcome.is_err() && !is_on());
        assert!(!in_pool(is_on));
    }
}
