//! What a CUDA device needs: a driver, a card and two libraries, each looked for before Candle touches them.

#[cfg(all(feature = "cuda", target_os = "linux"))]
mod libraries;

use std::path::PathBuf;

use candle_core::Device;

/// The driver's library.
pub const DRIVER: &str = "libcuda.so.1";
/// What Candle opens besides the driver, dependencies first; the wheels `nvidia-cublas` and `nvidia-curand` have them.
pub const LIBRARIES: [&str; 3] = ["libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10"];
/// The kernels are PTX of CUDA 13.0, which earlier drivers refuse.
pub const DRIVER_VERSION: i32 = 13_000;
/// The kernels are compiled for this compute capability and what comes after it.
pub const CAPABILITY: (i32, i32) = (8, 0);

/// A graphics card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// As the driver calls it.
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
}

/// What is asked of the system.
pub trait System {
    /// Loads the library `name` for the life of the process; the loader's reason where it cannot.
    fn load(&mut self, name: &str) -> Result<(), String>;

    /// CUDA's version that the driver supports, such as 13000 for 13.0.
    fn driver_version(&self) -> Result<i32, String>;

    /// Cards that the driver shows.
    fn cards(&self) -> Result<usize, String>;

    /// The card of this number.
    fn card(&self, number: usize) -> Result<Card, String>;
}

/// Is everything there that card `number` needs? The libraries come last: nobody should fetch them for a card that cannot be used.
///
/// # Errors
/// What is missing.
pub fn check(system: &mut impl System, number: usize) -> Result<(), String> {
    system.load(DRIVER).map_err(|why| format!("no NVIDIA driver: {why}"))?;
    let (version, text) = (system.driver_version()?, |v: i32| format!("{}.{}", v / 1000, v % 1000 / 10));
    if version < DRIVER_VERSION {
        let (expected, found) = (text(DRIVER_VERSION), text(version));
        return Err(format!("expected a driver for CUDA {expected} or newer (580 or newer), found one for CUDA {found}"));
    }
    let cards = system.cards()?;
    if cards == 0 {
        return Err("the driver shows no card".into());
    }
    if number >= cards {
        return Err(format!("expected the number of a card, 0 to {}, got {number}", cards - 1));
    }
    let Card { name, capability } = system.card(number)?;
    if capability < CAPABILITY {
        let ((a, b), (c, d)) = (CAPABILITY, capability);
        return Err(format!("expected compute capability {a}.{b} or newer, found {c}.{d} ({name})"));
    }
    for library in LIBRARIES {
        system.load(library).map_err(|why| format!("{why}; pip install 'chatterbox-turbo-rs[cuda]' brings it"))?;
    }
    Ok(())
}

/// Card `number` with a stream of its own.
///
/// # Errors
/// What is missing, or what the driver says.
pub fn open(number: usize, folders: &[PathBuf]) -> Result<Device, String> {
    #[cfg(all(feature = "cuda", target_os = "linux"))]
    check(&mut libraries::Loaded::new(folders), number)?;
    let _ = folders;
    let device = Device::new_cuda_with_stream(number).map_err(|e| e.to_string())?;
    #[cfg(feature = "cuda")]
    if let Device::Cuda(cuda) = &device {
        // SAFETY: events order the work of several streams; a process has one device of each number, and it has one stream.
        unsafe { cuda.disable_event_tracking() };
    }
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that lacks some libraries.
    struct Machine {
        missing: &'static [&'static str],
        version: i32,
        cards: Vec<Card>,
        loaded: Vec<String>,
    }

    impl Machine {
        fn new() -> Self {
            let cards = vec![Card { name: "NVIDIA H100".into(), capability: (9, 0) }];
            Self { missing: &[], version: 13_000, cards, loaded: Vec::new() }
        }
    }

    impl System for Machine {
        fn load(&mut self, name: &str) -> Result<(), String> {
            if self.missing.contains(&name) {
                return Err(format!("{name}: cannot open shared object file"));
            }
            self.loaded.push(name.into());
            Ok(())
        }

        fn driver_version(&self) -> Result<i32, String> {
            Ok(self.version)
        }

        fn cards(&self) -> Result<usize, String> {
            Ok(self.cards.len())
        }

        fn card(&self, number: usize) -> Result<Card, String> {
            self.cards.get(number).cloned().ok_or_else(|| "invalid device ordinal".into())
        }
    }

    fn refusal(mut machine: Machine, number: usize) -> String {
        check(&mut machine, number).err().unwrap_or_default()
    }

    #[test]
    fn everything_is_loaded_in_the_order_of_dependencies() {
        let mut machine = Machine::new();
        assert_eq!(check(&mut machine, 0), Ok(()));
        assert_eq!(machine.loaded, ["libcuda.so.1", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10"]);
        let at_the_limits = Card { name: "A100".into(), capability: (8, 0) };
        assert_eq!(check(&mut Machine { cards: vec![at_the_limits], version: 13_000, ..Machine::new() }, 0), Ok(()));
    }

    #[test]
    fn what_is_missing_is_said() {
        let without = |missing| refusal(Machine { missing, ..Machine::new() }, 0);
        assert_eq!(without(&["libcuda.so.1"]), "no NVIDIA driver: libcuda.so.1: cannot open shared object file");
        for name in LIBRARIES {
            let missing: &'static [&'static str] = match name {
                "libcublasLt.so.13" => &["libcublasLt.so.13"],
                "libcublas.so.13" => &["libcublas.so.13"],
                _ => &["libcurand.so.10"],
            };
            let expected = format!("{name}: cannot open shared object file; pip install 'chatterbox-turbo-rs[cuda]' brings it");
            assert_eq!(without(missing), expected);
        }
        assert_eq!(refusal(Machine { cards: vec![], ..Machine::new() }, 0), "the driver shows no card");
        assert_eq!(refusal(Machine::new(), 1), "expected the number of a card, 0 to 0, got 1");
    }

    #[test]
    fn what_is_too_old_is_said_before_libraries_are_looked_for() {
        let old = |version| refusal(Machine { version, missing: &LIBRARIES, ..Machine::new() }, 0);
        let expected = "expected a driver for CUDA 13.0 or newer (580 or newer), found one for CUDA";
        assert_eq!(old(12_040), format!("{expected} 12.4"));
        assert_eq!(old(12_990), format!("{expected} 12.99"));
        let card = Card { name: "Tesla T4".into(), capability: (7, 5) };
        let machine = Machine { cards: vec![card], missing: &LIBRARIES, ..Machine::new() };
        assert_eq!(refusal(machine, 0), "expected compute capability 8.0 or newer, found 7.5 (Tesla T4)");
    }
}
