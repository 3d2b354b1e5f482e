//! Packed weights on disk: what a load computes from a checkpoint is kept for the next one, which reads it.
//!
//! A network's large weights are dealt into panels or quantised when it is loaded. With a cache, that happens once for a given weight
//! file (by its content), configuration, format, CPU level and version of this crate; later loads read the result. A file is found only
//! if its key is the same to the letter and all its checksums are right; else it is made anew. Where nothing can be written,
//! networks are loaded as without a cache.
//!
//! A layer asks [`Weights::found`] for its packed weight and notes what it packed ([`Note::keep`]). A form that can be kept
//! implements [`Pack`]. Tensors that are used as they are stay in the checkpoint; so do all checks of names, shapes and dtypes. That
//! values are finite was checked when they were packed.

mod array;
mod container;
mod directory;
mod key;
mod memory;

use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use array::{Array, Stored};
pub(crate) use container::{PackedFile, Stay};
pub use directory::{Cache, ENVIRONMENT, ENVIRONMENT_GB, Entry, LIMIT_GB};
pub(crate) use key::digest;
pub(crate) use memory::hold;

use crate::{Config, Result, Weights, kernels};
use array::Number;

/// A packed form of a weight `[n, k]`.
pub(crate) trait Pack: Sized {
    /// Its name in files.
    const KIND: &'static str;

    /// Its arrays, by names of their own; every one a multiple of 64 bytes.
    fn arrays(&self) -> Vec<(&'static str, Array)>;

    /// The form again; `None` where an array is absent or has another size.
    fn from_arrays(n: usize, k: usize, arrays: &Arrays<'_>) -> Option<Self>;
}

/// The arrays of one packed weight in a file.
pub(crate) struct Arrays<'a> {
    file: &'a PackedFile,
    prefix: String,
}

impl Arrays<'_> {
    /// The array `name` of `len` numbers.
    pub(crate) fn get<T: Number>(&self, name: &str, len: usize) -> Option<Stored<T>> {
        self.file.get(&format!("{}{name}", self.prefix), len)
    }
}

fn prefix<P: Pack>(name: &str) -> String {
    format!("{name}:{}.", P::KIND)
}

/// What a load of one network does with packed weights.
#[derive(Clone, Debug, Default)]
pub(crate) enum Mode {
    /// Nothing.
    #[default]
    Off,
    /// It notes them.
    Keep(Notes),
    /// It takes those that are in a file.
    Found(Arc<PackedFile>),
}

/// What is to be kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<(String, Array)>>>);

/// Where a packed weight is to be noted, and under which name.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    notes: Notes,
    name: String,
}

impl Note {
    /// Notes the packed form of the weight that this note was made for.
    pub(crate) fn keep<P: Pack>(&self, packed: &P) {
        let prefix = prefix::<P>(&self.name);
        let arrays = packed.arrays().into_iter().map(|(name, array)| (format!("{prefix}{name}"), array));
        self.notes.0.lock().unwrap_or_else(PoisonError::into_inner).extend(arrays);
    }
}

impl Mode {
    /// The packed form of the weight with the full name `name`, where it is in the file.
    pub(crate) fn found<P: Pack>(&self, name: &str, n: usize, k: usize) -> Option<P> {
        match self {
            Self::Found(file) => P::from_arrays(n, k, &Arrays { file, prefix: prefix::<P>(name) }),
            _ => None,
        }
    }

    /// The file that weights are taken from.
    pub(crate) fn file(&self) -> Option<&Arc<PackedFile>> {
        match self {
            Self::Found(file) => Some(file),
            _ => None,
        }
    }

    /// Are there packed weights of the very file that is being loaded? Then all its tensors were checked when they were made.
    pub(crate) fn is_found(&self) -> bool {
        self.file().is_some()
    }

    /// Where its packed form is to be noted, if anywhere.
    pub(crate) fn note(&self, name: String) -> Option<Note> {
        match self {
            Self::Keep(notes) => Some(Note { notes: notes.clone(), name }),
            _ => None,
        }
    }
}

/// What became of one network's packed weights at load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The network.
    pub network: String,
    /// Were they found?
    pub found: bool,
    /// What was wrong with the file that was there, or why none was written.
    pub trouble: Option<String>,
}

/// The cache as a checkpoint uses it.
#[derive(Debug)]
pub(crate) struct Packing {
    cache: Cache,
    maker: String,
    events: Mutex<Vec<Event>>,
}

impl Packing {
    pub(crate) fn new(cache: Cache, config: &Config) -> Self {
        Self { cache, maker: key::maker(config), events: Mutex::default() }
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, network: &str, found: bool, trouble: Option<String>) {
        let event = Event { network: network.into(), found, trouble };
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    /// Has `load` read `network` in `format` from `weights`: with its packed weights, which then `stay` where that says, or so that they
    /// are kept for the next time.
    pub(crate) fn load<T>(
        &self,
        weights: &Weights,
        network: &str,
        format: &str,
        stay: Stay,
        load: impl Fn(&Weights) -> Result<T>,
    ) -> Result<T> {
        let digest = match weights.file().digest(&self.cache) {
            Ok(digest) => digest,
            Err(e) => {
                self.tell(network, false, Some(format!("{}: {e}", self.cache.directory().display())));
                return load(weights);
            }
        };
        let level = kernels::level_in_use()?.to_string() + if kernels::block_float::compact() { "" } else { "-plain" };
        let key = format!("{}, file {digest}, network {network}, format {format}, level {level}", self.maker);
        let name = format!("{network}-{format}-{level}-{}", &key::sha256([key.as_bytes()])[..16]);
        let damage = match self.cache.find(&name, &key, stay) {
            Ok(Some(file)) => {
                self.tell(network, true, None);
                return load(&weights.with_packed(Mode::Found(Arc::new(file))));
            }
            Ok(None) => None,
            Err(damage) => Some(damage),
        };
        let notes = Notes::default();
        let loaded = load(&weights.with_packed(Mode::Keep(notes.clone())))?;
        let arrays = std::mem::take(&mut *notes.0.lock().unwrap_or_else(PoisonError::into_inner));
        if arrays.is_empty() {
            return Ok(loaded); // nothing is packed at this level and precision
        }
        let kept = self.cache.keep(&name, &key, &arrays);
        drop(arrays);
        let trouble = match &kept {
            Ok(()) => damage,
            Err(why) => Some(damage.map_or_else(|| why.clone(), |damage| format!("{damage}; {why}"))),
        };
        self.tell(network, false, trouble);
        if kept.is_ok() && stay == Stay::Disk {
            drop(loaded);
            return match self.cache.find(&name, &key, stay) {
                Ok(Some(file)) => load(&weights.with_packed(Mode::Found(Arc::new(file)))),
                _ => load(weights), // somebody else removed it
            };
        }
        Ok(loaded)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::path::PathBuf;

    /// What a test gives.
    pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

    /// An empty directory for the test `name`.
    pub(crate) fn directory(name: &str) -> std::io::Result<PathBuf> {
        let path = std::env::temp_dir().join(format!("chatterbox-turbo-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }
}
