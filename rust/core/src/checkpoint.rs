//! Upstream's safetensors files, memory-mapped and checked before anything is computed.
//!
//! A [`Checkpoint`] is a directory with T3's, S3Gen's and the voice encoder's weight files. Stages take their tensors
//! from a [`Weights`] view by upstream's own names; every tensor is converted to float32, checked for its shape and for
//! non-finite values, and its pages are handed back to the system, so that a file never counts twice in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use candle_core::{Device, Tensor};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};

use crate::config::Config;
use crate::digest::{Digests, Entry};
use crate::packed::{Cache, Event, Mode, Note, Pack, PackedFile, Packing};
use crate::precision::Products;
use crate::{Error, Result};

/// Values that are read at a time.
const PIECE: usize = 1 << 18;

/// One memory-mapped safetensors file.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    digest: OnceLock<String>,
    map: Mmap,
    metadata: Metadata,
    data_start: usize,
}

impl TensorFile {
    /// Maps `path` and parses its header.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be opened, [`Error::Checkpoint`] when it is not a complete safetensors file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let file = File::open(&path).map_err(|e| Error::io(&path, e))?;
        if !file.metadata().map_err(|e| Error::io(&path, e))?.is_file() {
            return Err(Error::checkpoint(&path, "expected a file, found something else"));
        }
        // SAFETY: the map is read-only; a file that another process truncates while it is mapped is outside any
        // program's control, as with every memory-mapped model file.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(&path, e))?;
        let (header, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|e| Error::checkpoint(&path, format!("not a complete safetensors file of {} bytes: {e}", map.len())))?;
        Ok(Self { path, file, digest: OnceLock::new(), map, metadata, data_start: header + 8 })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names, shapes and dtypes in the file.
    pub fn tensors(&self) -> BTreeMap<String, (Vec<usize>, Dtype)> {
        self.metadata.tensors().into_iter().map(|(n, i)| (n, (i.shape.clone(), i.dtype))).collect()
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.metadata.info(name).ok_or_else(|| Error::checkpoint(&self.path, format!("tensor {name} is missing")))
    }

    /// The floating-point tensor `name` of `shape`, and the bytes of a value.
    fn floats(&self, name: &str, shape: &[usize]) -> Result<(&TensorInfo, usize)> {
        let info = self.info(name)?;
        if info.shape != shape {
            return Err(Error::checkpoint(
                &self.path,
                format!("tensor {name}: expected shape {shape:?}, found {:?}", info.shape),
            ));
        }
        match info.dtype {
            Dtype::F32 => Ok((info, 4)),
            Dtype::F16 | Dtype::BF16 => Ok((info, 2)),
            other => {
                Err(Error::checkpoint(&self.path, format!("tensor {name}: expected dtype F32, F16 or BF16, found {other:?}")))
            }
        }
    }

    /// The values of a floating-point tensor as float32.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when the tensor is missing, has another shape, is not f32, f16 or bf16, or holds NaN or infinity.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let table = self.table(name, shape)?;
        let (bytes, size) = (table.bytes(self), table.size);
        let count = bytes.len() / size;
        let mut values: Vec<f32> = Vec::with_capacity(count);
        let pieces = values.spare_capacity_mut()[..count].par_chunks_mut(PIECE).zip(bytes.par_chunks(PIECE * size)).enumerate();
        pieces.for_each(|(i, (to, from))| {
            table.read(from, to);
            self.release(table.start + i * PIECE * size, from.len());
        });
        // SAFETY: as many pieces of `bytes` as of the vector have been read, which is all of both.
        unsafe { values.set_len(count) };
        match values.par_chunks(PIECE).position_first(|piece| !all_finite(piece)) {
            None => Ok(values),
            Some(piece) => Err(self.not_finite(name, piece, &values[piece * PIECE..])),
        }
    }

    /// Fails as [`Self::values`] does, without keeping the values.
    fn check_finite(&self, name: &str, shape: &[usize]) -> Result<()> {
        let table = self.table(name, shape)?;
        let pieces = table.bytes(self).par_chunks(PIECE * table.size).enumerate();
        let wrong = pieces.find_map_first(|(i, from)| {
            let mut values = Vec::with_capacity(from.len() / table.size);
            table.read(from, &mut values.spare_capacity_mut()[..from.len() / table.size]);
            // SAFETY: all values have just been written.
            unsafe { values.set_len(from.len() / table.size) };
            self.release(table.start + i * PIECE * table.size, from.len());
            (!all_finite(&values)).then(|| self.not_finite(name, i, &values))
        });
        wrong.map_or(Ok(()), Err)
    }

    fn not_finite(&self, name: &str, piece: usize, values: &[f32]) -> Error {
        let at = values.iter().position(|v| !v.is_finite()).unwrap_or_default();
        let (found, at) = (values[at], piece * PIECE + at);
        Error::checkpoint(&self.path, format!("tensor {name}: value {at} is {found}, expected finite numbers"))
    }

    /// Where a floating-point tensor lies.
    fn table(&self, name: &str, shape: &[usize]) -> Result<Place> {
        let (info, size) = self.floats(name, shape)?;
        let (start, end) = info.data_offsets;
        Ok(Place { start: self.data_start + start, len: end - start, dtype: info.dtype, size })
    }

    /// A digest of the whole file, taken once (see [`crate::packed`]).
    pub(crate) fn digest(&self, cache: &Cache) -> std::io::Result<&str> {
        if let Some(digest) = self.digest.get() {
            return Ok(digest);
        }
        let digest = crate::packed::digest(cache, &self.path, &self.file, &self.map, |start, len| self.release(start, len))?;
        Ok(self.digest.get_or_init(|| digest))
    }

    /// Tells the system that these pages are not needed any more (they can be read again from the file).
    fn release(&self, offset: usize, len: usize) {
        #[cfg(unix)]
        {
            // SAFETY: the mapping is private, read-only and file-backed: dropped pages are read again on the next access.
            let _ = unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, len) };
        }
        #[cfg(not(unix))]
        let _ = (offset, len);
    }
}

/// Where the values of a tensor lie in its file, and as what.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    len: usize,
    dtype: Dtype,
    /// Bytes of a value.
    size: usize,
}

impl Place {
    fn bytes(self, file: &TensorFile) -> &[u8] {
        file.map.get(self.start..self.start + self.len).unwrap_or_default()
    }

    /// Writes the values that `from` holds, all of `to`.
    fn read(self, from: &[u8], to: &mut [MaybeUninit<f32>]) {
        match self.dtype {
            Dtype::F32 => convert(from, to, f32::from_le_bytes),
            Dtype::F16 => convert(from, to, |b| half::f16::from_le_bytes(b).to_f32()),
            _ => convert(from, to, |b| half::bf16::from_le_bytes(b).to_f32()),
        }
    }
}

fn convert<const N: usize>(from: &[u8], to: &mut [MaybeUninit<f32>], value: impl Fn([u8; N]) -> f32) {
    let (from, rest) = from.as_chunks::<N>();
    assert!(rest.is_empty() && from.len() == to.len(), "checkpoint: size of a piece");
    for (to, from) in to.iter_mut().zip(from) {
        to.write(value(*from));
    }
}

fn all_finite(values: &[f32]) -> bool {
    values.iter().fold(true, |all, v| all & v.is_finite())
}

/// A floating-point tensor `[rows, columns]` that is read where its file is mapped, a row at a time: for a table of which few rows
/// are ever wanted.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    file: Arc<TensorFile>,
    place: Place,
    rows: usize,
    columns: usize,
}

impl Table {
    /// Rows and columns.
    pub(crate) fn dims(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// The rows of these numbers, one after another in float32; all must be inside.
    pub(crate) fn gather(&self, rows: impl ExactSizeIterator<Item = usize>) -> Vec<f32> {
        let mut values: Vec<f32> = Vec::with_capacity(rows.len() * self.columns);
        let (bytes, size) = (self.place.bytes(&self.file), self.columns * self.place.size);
        for row in rows {
            let start = values.len();
            self.place.read(&bytes[row * size..][..size], &mut values.spare_capacity_mut()[..self.columns]);
            // SAFETY: a row has just been written.
            unsafe { values.set_len(start + self.columns) };
        }
        values
    }
}

/// The tensors of one file below a prefix, and a record of those that were asked for.
#[derive(Clone)]
pub struct Weights {
    file: Arc<TensorFile>,
    prefix: String,
    device: Device,
    used: Arc<Mutex<BTreeSet<String>>>,
    digests: Option<Digests>,
    products: Products,
    packing: Option<Arc<Packing>>,
    packed: Mode,
}

impl Weights {
    /// A view of the whole of `file`.
    pub fn new(file: Arc<TensorFile>, device: &Device) -> Self {
        let (prefix, device, used) = (String::new(), device.clone(), Arc::default());
        Self { file, prefix, device, used, digests: None, products: Products::F32, packing: None, packed: Mode::Off }
    }

    /// Has `load` read a network from this view: its packed weights come from the cache, or go there for the next time, where there
    /// is one (not for other devices than the CPU, and not for a checkpoint that keeps digests). `format` names the precision.
    pub(crate) fn through_cache<T>(self, network: &str, format: &str, load: impl Fn(&Self) -> Result<T>) -> Result<T> {
        match self.packing.clone().filter(|_| self.device.is_cpu() && self.digests.is_none()) {
            Some(packing) => packing.load(&self, network, format, load),
            None => load(&self),
        }
    }

    /// The same view of packed weights in `mode`, of which nothing was asked for yet.
    pub(crate) fn with_packed(&self, mode: Mode) -> Self {
        Self { used: Arc::default(), packed: mode, ..self.clone() }
    }

    /// The packed form of the weight `name` `[n, k]`, where the cache has it; then the tensors `sources` that it was made from are
    /// checked for presence, shape and dtype.
    pub(crate) fn found<P: Pack>(&self, name: &str, n: usize, k: usize, sources: &[(&str, &[usize])]) -> Result<Option<P>> {
        let found = self.packed.found(&format!("{}{name}", self.prefix), n, k);
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

    /// The file that packed weights are taken from, when they are: for a network that is used now and then, to release its memory.
    pub(crate) fn packed_file(&self) -> Option<Arc<PackedFile>> {
        self.packed.file().cloned()
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
        self.file.metadata.info(&format!("{}{name}", self.prefix)).is_some()
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
        let values = self.file.values(&full, shape)?;
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

    /// The tensor `name` `[rows, columns]` left where it is mapped, checked as [`Self::values`] checks it.
    pub(crate) fn table(&self, name: &str, rows: usize, columns: usize) -> Result<Table> {
        let (full, shape) = (format!("{}{name}", self.prefix), [rows, columns]);
        let place = self.file.table(&full, &shape)?;
        if self.digests.is_some() {
            self.values(name, &shape)?;
        } else if !self.packed.is_found() {
            self.file.check_finite(&full, &shape)?; // else it was when the packed weights were made from the same file
        }
        self.used().insert(full);
        Ok(Table { file: self.file.clone(), place, rows, columns })
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
                &self.file.path,
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
            .metadata
            .tensors()
            .into_keys()
            .filter(|n| (prefixes.is_empty() || prefixes.iter().any(|p| n.starts_with(p))) && !used.contains(n))
            .collect();
        match extra.iter().min() {
            None => Ok(()),
            Some(first) => Err(Error::checkpoint(
                &self.file.path,
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
                &s3gen.path,
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
