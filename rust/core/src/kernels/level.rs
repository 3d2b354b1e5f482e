//! Which vector instructions the kernels use: the best that the machine has, or the level that `CHATTERBOX_CPU` names.
//!
//! A lower level shows what other machines compute. It covers this crate's kernels; the FFT behind spectrograms (rustfft)
//! chooses for itself.

use std::sync::OnceLock;

use crate::{Error, Result};

/// The environment variable that chooses a level: a name or `auto`.
pub const ENVIRONMENT: &str = "CHATTERBOX_CPU";

/// A set of vector instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// x86-64: AVX-512 as below, VNNI, and AMX for bf16 and 8 bits.
    Amx,
    /// x86-64: AVX-512 F, BW, DQ and VL.
    Avx512,
    /// x86-64: AVX2 and FMA.
    Avx2,
    /// AArch64, where every machine has it.
    Neon,
    /// What the build's target has everywhere, without fused multiply-adds.
    Baseline,
}

impl Level {
    /// All levels.
    pub const ALL: [Self; 5] = [Self::Amx, Self::Avx512, Self::Avx2, Self::Neon, Self::Baseline];

    /// Its name: `amx`, `avx512`, `avx2`, `neon` or `baseline`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Baseline => "baseline",
        }
    }

    /// Does it include AVX-512?
    pub const fn has_avx512(self) -> bool {
        matches!(self, Self::Amx | Self::Avx512)
    }

    /// Does this machine have it?
    pub fn available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Self::Avx512.available() && is_x86_feature_detected!("avx512vnni") && super::amx::available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Amx | Self::Avx512 | Self::Avx2 => false,
            Self::Neon => cfg!(target_arch = "aarch64"),
            Self::Baseline => !cfg!(target_arch = "aarch64"),
        }
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The levels of this machine, best first.
pub fn levels() -> Vec<Level> {
    Level::ALL.into_iter().filter(|level| level.available()).collect()
}

fn best() -> Level {
    Level::ALL.into_iter().find(|level| level.available()).unwrap_or(Level::Baseline)
}

/// What `CHATTERBOX_CPU` asks for; nothing, or `auto`, is the best level.
fn choose(asked: Option<&str>) -> std::result::Result<Level, String> {
    let Some(name) = asked.filter(|name| !matches!(*name, "" | "auto")) else {
        return Ok(best());
    };
    let names = |levels: &[Level]| levels.iter().map(|level| level.name()).collect::<Vec<_>>().join(", ");
    match Level::ALL.into_iter().find(|level| level.name() == name) {
        Some(level) if level.available() => Ok(level),
        Some(level) => Err(format!("{ENVIRONMENT}: this machine has {}, not {level}", names(&levels()))),
        None => Err(format!("{ENVIRONMENT}: expected auto, {}, got {name:?}", names(&Level::ALL))),
    }
}

/// The environment is read once: all of a process runs at one level.
fn choice() -> &'static std::result::Result<Level, String> {
    static CHOICE: OnceLock<std::result::Result<Level, String>> = OnceLock::new();
    CHOICE.get_or_init(|| choose(std::env::var_os(ENVIRONMENT).map(|v| v.to_string_lossy().into_owned()).as_deref()))
}

/// The level in use.
///
/// # Errors
/// [`Error::Device`] when `CHATTERBOX_CPU` names no level, or one that this machine lacks, or `CHATTERBOX_F32` no format of T3's weights.
/// Whatever makes a model asks first.
pub fn level_in_use() -> Result<Level> {
    match super::block_float::trouble() {
        Some(trouble) => Err(Error::Device(trouble)),
        None => choice().clone().map_err(Error::Device),
    }
}

/// The same for kernels, which run only after [`level_in_use`] has answered.
pub(crate) fn level() -> Level {
    #[cfg(test)]
    if let Some(level) = testing::forced() {
        return level;
    }
    match choice() {
        Ok(level) => *level,
        Err(_) => best(),
    }
}

/// Tests run kernels at every level of the machine.
#[cfg(test)]
pub(crate) mod testing {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::Level;

    thread_local!(static FORCED: Cell<Option<Level>> = const { Cell::new(None) });

    pub(crate) fn forced() -> Option<Level> {
        FORCED.get()
    }

    /// Hands the level over to a thread outside the pool; returns what that thread had.
    pub(crate) fn force(level: Option<Level>) -> Option<Level> {
        FORCED.replace(level)
    }

    /// Runs `check` once for each level, in a thread pool of its own that all its kernels stay in. Where `CHATTERBOX_CPU` names a
    /// level, higher ones are left out.
    pub(crate) fn at_every_level(check: impl Fn() + Sync) {
        let top = super::level_in_use().unwrap_or_else(|e| unreachable!("{e}"));
        for level in super::levels().into_iter().skip_while(|level| *level != top) {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(2).start_handler(move |_| FORCED.set(Some(level))).build();
            let outcome = catch_unwind(AssertUnwindSafe(|| pool.map(|pool| pool.install(&check))));
            assert!(matches!(outcome, Ok(Ok(()))), "at level {level}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood_or_refused() {
        let all = levels();
        assert!(!all.is_empty() && all[0] == best());
        for asked in [None, Some(""), Some("auto")] {
            assert_eq!(choose(asked), Ok(best()));
        }
        for level in Level::ALL {
            match choose(Some(level.name())) {
                Ok(found) => assert!(found == level && all.contains(&level)),
                Err(e) => assert!(
                    !all.contains(&level)
                        && e == format!("CHATTERBOX_CPU: this machine has {}, not {level}", {
                            all.iter().map(|l| l.name()).collect::<Vec<_>>().join(", ")
                        })
                ),
            }
        }
        let message = "CHATTERBOX_CPU: expected auto, amx, avx512, avx2, neon, baseline, got \"AVX\"";
        assert_eq!(choose(Some("AVX")), Err(message.into()));
    }

    #[test]
    fn kernels_of_a_test_run_at_the_forced_level() {
        let seen = std::sync::Mutex::new(Vec::new());
        testing::at_every_level(|| {
            let (here, elsewhere) = rayon::join(level, level);
            assert_eq!(here, elsewhere);
            seen.lock().unwrap_or_else(|e| e.into_inner()).push(here);
        });
        let seen = seen.into_inner().unwrap_or_default();
        assert_eq!(seen, levels()[levels().len() - seen.len()..]);
        assert_eq!(seen.first(), level_in_use().ok().as_ref());
    }
}
