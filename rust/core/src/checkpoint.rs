//! Upstream's safetensors files, checked before anything is computed.
//!
//! A [`Checkpoint`] is a directory with T3's, S3Gen's and the voice encoder's weight files. Stages take their tensors
//! from a [`Weights`] view by upstream's own names; every tensor is read into memory of its own, converted to float32 and checked
//! for its shape and for non-finite values. A loaded network does not need the files any more; reading from a file that changed since
//! it was opened is an error.

mod tensors;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use self::tensors::Table;
pub use self::tensors::TensorFile;
use crate::config::Config;
use crate::digest::{Digests, Entry};
use crate::packed::{Cache, Event, Mode, Note, Pack, Packing, Stay};
use crate::precision::Products;
use crate::{Error, Result};
use candle_core::{Device, Tensor};

/// The tensors of one file below a prefix, and a record of those that were asked for.
#[derive(Clone, Debug)]
pub struct Weights {
    file: Arc<TensorFile>,
    prefix: String,
    device: Device,
    used: Arc<Mutex<BTreeSet<String>>>,
    digests: Option<Digests>,
    products: Products,
    packing: Option<Arc<Packing>>,
    packed: Mode,
    /// Tensors that were read, to be handed out again: where packed weights stay on the disk.
    read: Option<Arc<Mutex<Tensors>>>,
}

/// Values by the full names of their tensors.
type Tensors = BTreeMap<String, Vec<f32>>;

impl Weights {
    /// A view of the whole of `file`.
    pub fn new(file: Arc<TensorFile>, device: &Device) -> Self {
        let (prefix, device, used) = (String::new(), device.clone(), Arc::default());
        Self { file, prefix, device, used, digests: None, products: Products::F32, packing: None, packed: Mode::Off, read: None }
    }

    /// Has `load` read a network from this view: its packed weights come from the cache, or go there for the next time, where there
    /// is one (not for other devices than the CPU, and not for a checkpoint that keeps digests). `format` names the precision.
    pub(crate) fn through_cache<T>(
        self,
        network: &str,
        format: &str,
        stay: Stay,
        load: impl Fn(&Self) -> Result<T>,
    ) -> Result<T> {
        match self.packing.clone().filter(|_| crate::nn::kernels_run(&self.device) && self.digests.is_none()) {
            Some(packing) => packing.load(&self, network, format, stay, load),
            None => load(&self),
        }
    }

    /// The same view of packed weights in `mode`, of which nothing was asked for yet.
    pub(crate) fn with_packed(&self, mode: Mode) -> Self {
        let read = mode.file().filter(|file| file.stay() == Stay::Disk).map(|_| Arc::default());
        Self { used: Arc::default(), packed: mode, read, ..self.clone() }
    }

    /// The packed form of the weight `name` `[n, k]`, where the cache has it; then the tensors `sources` that it was made from are
    /// checked for presence, shape and dtype.
    pub(crate) fn found<P: Pack>(&self, name: &str, n: usize, k: usize, sources: &[(&str, &[usize])]) -> Result<Option<P>> {
        let found = self.packed.found(&format!("{}{name}", self.prefix), n, k);
        if let Some((file, damage)) = self.packed.file().and_then(|file| Some((file, file.damage()?))) {
            return Err(Error::checkpoint(file.path(), format!("{}{name}: {damage}; load the model again", self.prefix)));
        }
        if found.is_some() {
            for (name, shape) in sources {
                let full = format!("{}{name}", self.prefix);
                self.file.floats(&full, shape)?;
                self.used().insert(full);
            }
        }
        Ok(found)
    }

    /// Where the packed form of the weight `name` is to be noted, if anywhere.
    pub(crate) fn note(&self, name: &str) -> Option<Note> {
        self.packed.note(format!("{}{name}", self.prefix))
    }

    /// Do packed weights stay on the disk? Then layers can be loaded again from this view whenever they are used.
    pub(crate) fn stay_on_disk(&self) -> bool {
        self.read.is_some()
    }

    /// The file.
    pub(crate) fn file(&self) -> &TensorFile {
        &self.file
    }

    fn used(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view below `name` (`weights.under("encoder").under(3)` → `encoder.3.`).
    pub fn under(&self, name: impl std::fmt::Display) -> Self {
        Self { prefix: format!("{}{name}.", self.prefix), ..self.clone() }
    }

    /// What the names in this view begin with, without the last dot.
    pub fn path(&self) -> &str {
        self.prefix.strip_suffix('.').unwrap_or(&self.prefix)
    }

    /// The same view, whose layers compute their products of many rows in `products`; float32 otherwise.
    #[must_use]
    pub fn with_products(&self, products: Products) -> Self {
        Self { products, ..self.clone() }
    }

    /// The format of the products of layers that are loaded from this view.
    pub fn products(&self) -> Products {
        self.products
    }

    /// The device that tensors are created on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Is there a tensor of this name?
    pub fn has(&self, name: &str) -> bool {
        self.file.has(&format!("{}{name}", self.prefix))
    }

    /// The values of `name`, float32, row-major, which must have `shape`.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let values = self.parts(name, shape)?;
        self.keep_digest(name, shape, &values);
        Ok(values)
    }

    /// The same without a digest: for tensors that a weight is folded from, which then goes to [`Self::keep_digest`].
    pub(crate) fn parts(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let full = format!("{}{name}", self.prefix);
        let known = || self.read.as_ref().map(|read| read.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(values) = known().and_then(|read| read.get(&full).cloned()) {
            return Ok(values);
        }
        let values = self.file.values(&full, shape)?;
        if let Some(mut read) = known() {
            read.insert(full.clone(), values.clone());
        }
        self.used().insert(full);
        Ok(values)
    }

    /// Keeps the digest of a tensor called `name`, when the checkpoint keeps them.
    pub(crate) fn keep_digest(&self, name: &str, shape: &[usize], values: &[f32]) {
        if let Some(digests) = &self.digests {
            digests.used(&format!("{}{name}", self.prefix), shape, values);
        }
    }

    /// The tensor `name` as float32 on the device; it must have `shape`.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.values(name, shape)?, shape, &self.device)?)
    }

    /// The tensor `name` `[rows, columns]` as the file has it, checked as [`Self::values`] checks it.
    pub(crate) fn table(&self, name: &str, rows: usize, columns: usize) -> Result<Table> {
        let full = format!("{}{name}", self.prefix);
        // where packed weights are found, the numbers were looked at when these were made from the same file
        let table = self.file.table(&full, rows, columns, !self.packed.is_found())?;
        if self.digests.is_some() {
            self.keep_digest(name, &[rows, columns], &table.gather(0..rows));
        }
        self.used().insert(full);
        Ok(table)
    }

    /// A tensor of the file that the model holds but that no computation reads: its presence and shape are checked.
    pub fn unused(&self, name: &str, shape: &[usize], optional: bool) -> Result<()> {
        let full = format!("{}{name}", self.prefix);
        if optional && !self.has(name) {
            return Ok(());
        }
        let info = self.file.info(&full)?;
        if info.shape != shape {
            return Err(Error::checkpoint(
                self.file.path(),
                format!("tensor {full}: expected shape {shape:?}, found {:?}", info.shape),
            ));
        }
        if let Some(digests) = &self.digests {
            digests.unused(&full, shape);
        }
        self.used().insert(full);
        Ok(())
    }

    /// Fails when the file holds a tensor below `prefixes` (all, when empty) that was never asked for.
    pub fn expect_all_used(&self, prefixes: &[&str]) -> Result<()> {
        let used = self.used();
        let extra: Vec<_> = self
            .file
            .tensors()
            .into_keys()
            .filter(|n| (prefixes.is_empty() || prefixes.iter().any(|p| n.starts_with(p))) && !used.contains(n))
            .collect();
        match extra.iter().min() {
            None => Ok(()),
            Some(first) => Err(Error::checkpoint(
                self.file.path(),
                format!("{} tensors that the configuration does not know, the first is {first}", extra.len()),
            )),
        }
    }
}

/// A checkpoint directory: its configuration and its three weight files.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    directory: PathBuf,
    config: Arc<Config>,
    t3: Arc<TensorFile>,
    s3gen: Arc<TensorFile>,
    voice_encoder: Arc<TensorFile>,
    digests: Option<Digests>,
    packing: Option<Arc<Packing>>,
}

/// What the names in S3Gen's file begin with, a network or two each.
const S3GEN_NETWORKS: [&str; 8] = [
    "tokenizer.",
    "speaker_encoder.",
    "flow.input_embedding.",
    "flow.encoder.",
    "flow.encoder_proj.",
    "flow.spk_embed_affine_layer.",
    "flow.decoder.",
    "mel2wav.",
];

impl Checkpoint {
    /// Opens the three weight files of `directory`.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be opened, [`Error::Checkpoint`] when one is not a complete safetensors file, or when
    /// S3Gen's holds a tensor of no known network; [`Error::Device`] of [`crate::kernels::level_in_use`]; [`Error::Argument`] of
    /// [`Cache::from_environment`].
    pub fn open(directory: impl AsRef<Path>, config: Config) -> Result<Self> {
        crate::kernels::level_in_use()?;
        let directory = directory.as_ref().to_path_buf();
        let open = |name: &str| TensorFile::open(directory.join(name)).map(Arc::new);
        let (t3, s3gen, voice_encoder) =
            (open(&config.files.t3)?, open(&config.files.s3gen)?, open(&config.files.voice_encoder)?);
        // each network looks for tensors too many among its own; these belong to none
        if let Some(name) = s3gen.tensors().into_keys().find(|n| !S3GEN_NETWORKS.iter().any(|p| n.starts_with(p))) {
            return Err(Error::checkpoint(
                s3gen.path(),
                format!("tensor {name} belongs to no network that the configuration knows"),
            ));
        }
        let checkpoint = Self { directory, config: Arc::new(config), t3, s3gen, voice_encoder, digests: None, packing: None };
        Ok(checkpoint.with_cache(Cache::from_environment()?))
    }

    /// The same checkpoint with another cache of packed weights than the environment's, or with none.
    #[must_use]
    pub fn with_cache(self, cache: Option<Cache>) -> Self {
        let packing = cache.map(|cache| Arc::new(Packing::new(cache, &self.config)));
        Self { packing, ..self }
    }

    /// What became of the packed weights of the networks loaded so far, from this checkpoint and its clones.
    pub fn packed(&self) -> Vec<Event> {
        self.packing.as_ref().map(|packing| packing.events()).unwrap_or_default()
    }

    /// The same checkpoint with an empty collection of digests, which networks loaded from it and its clones fill.
    #[must_use]
    pub fn with_digests(self) -> Self {
        Self { digests: Some(Digests::default()), ..self }
    }

    /// What the networks loaded so far were given, by the tensors' full names; `None` unless [`Self::with_digests`].
    pub fn digests(&self) -> Option<BTreeMap<String, Entry>> {
        self.digests.as_ref().map(Digests::all)
    }

    fn weights(&self, file: &Arc<TensorFile>, device: &Device) -> Weights {
        Weights { digests: self.digests.clone(), packing: self.packing.clone(), ..Weights::new(file.clone(), device) }
    }

    /// Opens `directory` with its own `config.json`, or with a built-in configuration chosen by the T3 file it holds.
    pub fn open_directory(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let own = directory.join("config.json");
        let config = if own.exists() {
            let text = std::fs::read_to_string(&own).map_err(|e| Error::io(&own, e))?;
            Config::parse(&text, &own.display().to_string())?
        } else if directory.join("t3_nano_v1.safetensors").exists() && !directory.join("t3_turbo_v1.safetensors").exists() {
            Config::builtin("nano")?
        } else {
            Config::builtin("turbo")?
        };
        Self::open(directory, config)
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// T3's weights.
    pub fn t3(&self, device: &Device) -> Weights {
        self.weights(&self.t3, device)
    }

    /// S3Gen's weights (S3Tokenizer below `tokenizer.`, CAMPPlus below `speaker_encoder.`, `flow.`, `mel2wav.`).
    pub fn s3gen(&self, device: &Device) -> Weights {
        self.weights(&self.s3gen, device)
    }

    /// The voice encoder's weights.
    pub fn voice_encoder(&self, device: &Device) -> Weights {
        self.weights(&self.voice_encoder, device)
    }
}
