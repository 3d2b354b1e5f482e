//! Devices by name, and why one cannot be used here.
//!
//! What CUDA needs is looked for before Candle is asked ([`cuda`]): the library below Candle panics where one is missing.

pub mod cuda;

use std::collections::HashMap;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

use candle_core::Device;

use crate::threads::{PerProcess, process};
use crate::{Error, Result};

/// What a device's name begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `"cpu"`.
    Cpu,
    /// `"cuda"`, `"cuda:1"`: an NVIDIA GPU.
    Cuda,
    /// `"metal"`: an Apple GPU.
    Metal,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Cuda, Self::Metal];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Metal => "metal",
        }
    }

    /// Does this build have it?
    pub fn is_built(self) -> bool {
        match self {
            Self::Cpu => true,
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Metal => cfg!(feature = "metal"),
        }
    }
}

/// Kind and number of the device called `name`: `"cuda:1"` is number 1, `"cuda"` number 0.
///
/// # Errors
/// [`Error::Device`] for an unknown kind and for what is no number.
pub fn parse(name: &str) -> Result<(Kind, usize)> {
    let (kind, number) = name.split_once(':').unwrap_or((name, "0"));
    let Some(kind) = Kind::ALL.into_iter().find(|k| k.name() == kind) else {
        return Err(Error::Device(format!("expected cpu, cuda or metal, got {name:?}")));
    };
    let number = number.parse().map_err(|_| Error::Device(format!("expected a number after the colon, got {name:?}")))?;
    Ok((kind, number))
}

/// The device called `name`, the same for every caller, so that what different networks compute meets on one stream. CUDA's
/// libraries are looked for where the system's loader does and then in `folders`.
///
/// # Errors
/// [`Error::Device`] that says what is missing.
pub fn open(name: &str, folders: &[PathBuf]) -> Result<Device> {
    static OPENED: PerProcess<Mutex<HashMap<(Kind, usize), Device>>> = PerProcess::new();
    let (kind, number) = parse(name)?;
    if kind == Kind::Cpu {
        return Ok(Device::Cpu);
    }
    let fail = |why: String| Error::Device(format!("{name}: {why}"));
    if !kind.is_built() {
        return Err(fail(format!("this build has no {} support; use device=\"cpu\"", kind.name())));
    }
    if let Some(why) = LAST.lost() {
        return Err(fail(why.to_owned()));
    }
    let mut opened = OPENED.get(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = opened.get(&(kind, number)) {
        return Ok(device.clone());
    }
    let make = || match kind {
        Kind::Cuda => cuda::open(number, folders),
        _ => Device::new_metal(number).map_err(|e| e.to_string()),
    };
    let device = catch_unwind(make).unwrap_or_else(|panic| Err(reason(panic.as_ref()))).map_err(fail)?;
    opened.insert((kind, number), device.clone());
    LAST.note();
    Ok(device)
}

/// The process that opened a GPU last.
static LAST: Opened = Opened(AtomicUsize::new(usize::MAX));

/// A process that opened a GPU; none yet is `usize::MAX`.
struct Opened(AtomicUsize);

impl Opened {
    fn note(&self) {
        self.0.store(process(), Relaxed);
    }

    /// Why no GPU can be used here, where that was done before a fork.
    fn lost(&self) -> Option<&'static str> {
        let opened = self.0.load(Relaxed);
        (opened != usize::MAX && opened != process())
            .then_some("opened before this process was forked, which no GPU outlives; load models after the fork, or start processes by \"spawn\"")
    }
}

/// What a tensor operation failed with: a defect of this crate, but for a GPU that a forked process cannot use.
pub(crate) fn failure(e: candle_core::Error) -> Error {
    match LAST.lost() {
        Some(why) => Error::Device(format!("a GPU was {why} ({e})")),
        None => Error::Internal(e),
    }
}

/// Why the first device of `kind` cannot be used here; `None` where it can.
pub fn unavailable(kind: Kind, folders: &[PathBuf]) -> Option<String> {
    match open(kind.name(), folders) {
        Ok(_) => None,
        Err(Error::Device(why)) => Some(why.strip_prefix(&format!("{}: ", kind.name())).unwrap_or(&why).to_owned()),
        Err(other) => Some(other.to_string()),
    }
}

/// What a panic said.
fn reason(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.and_then(|text| text.lines().next()).unwrap_or("the driver's library failed").to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(parse("cpu").unwrap(), (Kind::Cpu, 0));
        assert_eq!(parse("cuda:3").unwrap(), (Kind::Cuda, 3));
        for (name, expected) in [
            ("tpu", "device: expected cpu, cuda or metal, got \"tpu\""),
            ("cuda:", "device: expected a number after the colon, got \"cuda:\""),
            ("cuda:-1", "device: expected a number after the colon, got \"cuda:-1\""),
        ] {
            assert_eq!(parse(name).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn what_is_not_built_is_said() {
        assert!(open("cpu", &[]).unwrap().is_cpu() && unavailable(Kind::Cpu, &[]).is_none());
        for kind in [Kind::Cuda, Kind::Metal].into_iter().filter(|kind| !kind.is_built()) {
            let name = kind.name();
            let expected = format!("this build has no {name} support; use device=\"cpu\"");
            assert_eq!(unavailable(kind, &[]).unwrap(), expected);
            assert_eq!(open(&format!("{name}:1"), &[]).unwrap_err().to_string(), format!("device: {name}:1: {expected}"));
        }
    }

    /// A GPU that the parent opened is lost in the child.
    #[cfg(unix)]
    #[test]
    fn no_gpu_outlives_a_fork() {
        let opened = Opened(AtomicUsize::new(usize::MAX));
        assert!(opened.lost().is_none());
        opened.note();
        assert!(opened.lost().is_none());
        // SAFETY: the child looks at two numbers and ends without the parent's handlers.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as above.
            unsafe { libc::_exit(i32::from(!opened.lost().is_some_and(|why| why.contains("load models after the fork")))) };
        }
        let mut status = 0;
        // SAFETY: the child is this thread's.
        assert_eq!((unsafe { libc::waitpid(child, &raw mut status, 0) }, status), (child, 0));
    }

    #[test]
    fn a_panic_is_told_in_one_line() {
        let said = |panic: Box<dyn std::any::Any + Send>| reason(panic.as_ref());
        assert_eq!(said(Box::new(String::from("no such symbol\nbacktrace"))), "no such symbol");
        assert_eq!(said(Box::new("short")), "short");
        assert_eq!(said(Box::new(7)), "the driver's library failed");
    }
}
