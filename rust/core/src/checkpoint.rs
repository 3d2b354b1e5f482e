//! Upstream's safetensors files, memory-mapped and checked before anything is computed.
//!
//! A [`Checkpoint`] is a directory with T3's, S3Gen's and the voice encoder's weight files. Stages take their tensors
//! from a [`Weights`] view by upstream's own names; every tensor is converted to float32, checked for its shape and for
//! non-finite values, and its pages are handed back to the system, so that a file never counts twice in memory.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use memmap2::Mmap;
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};

use crate::config::Config;
use crate::digest::{Digests, Entry};
use crate::precision::Products;
use crate::{Error, Result};

/// One memory-mapped safetensors file.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
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
        Ok(Self { path, map, metadata, data_start: header + 8 })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names, shapes and dtypes in the file.
    pub fn tensors(&self) -> BTreeMap<String, (Vec<usize>, Dtype)> {
        self.metadata.tensors().into_iter().map(|(n, i)| (n, (i.shape.clone(), i.dtype))).collect()
    }

    fn info(&self, name: &str) -> Result<&safetensors::tensor::TensorInfo> {
        self.metadata.info(name).ok_or_else(|| Error::checkpoint(&self.path, format!("tensor {name} is missing")))
    }

    /// The values of a floating-point tensor as float32.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when the tensor is missing, has another shape, is not f32, f16 or bf16, or holds NaN or infinity.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let info = self.info(name)?;
        if info.shape != shape {
            return Err(Error::checkpoint(
                &self.path,
                format!("tensor {name}: expected shape {shape:?}, found {:?}", info.shape),
            ));
        }
        let (start, end) = info.data_offsets;
        let bytes = self.map.get(self.data_start + start..self.data_start + end).unwrap_or_default();
        let values: Vec<f32> = match info.dtype {
            Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Dtype::F16 => bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Dtype::BF16 => bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            other => {
                return Err(Error::checkpoint(
                    &self.path,
                    format!("tensor {name}: expected dtype F32, F16 or BF16, found {other:?}"),
                ));
            }
        };
        self.release(self.data_start + start, end - start);
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(Error::checkpoint(
                &self.path,
                format!("tensor {name}: value {at} is {}, expected finite numbers", values[at]),
            ));
        }
        Ok(values)
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

/// The tensors of one file below a prefix, and a record of those that were asked for.
#[derive(Clone)]
pub struct Weights {
    file: Arc<TensorFile>,
    prefix: String,
    device: Device,
    used: Rc<RefCell<BTreeSet<String>>>,
    digests: Option<Digests>,
    products: Products,
}

impl Weights {
    /// A view of the whole of `file`.
    pub fn new(file: Arc<TensorFile>, device: &Device) -> Self {
        Self { file, prefix: String::new(), device: device.clone(), used: Rc::default(), digests: None, products: Products::F32 }
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
        self.used.borrow_mut().insert(full);
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
        self.used.borrow_mut().insert(full);
        Ok(())
    }

    /// Fails when the file holds a tensor below `prefixes` (all, when empty) that was never asked for.
    pub fn expect_all_used(&self, prefixes: &[&str]) -> Result<()> {
        let used = self.used.borrow();
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
    /// S3Gen's holds a tensor of no known network; [`Error::Device`] of [`crate::kernels::level_in_use`].
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
        Ok(Self { directory, config: Arc::new(config), t3, s3gen, voice_encoder, digests: None })
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
        Weights { digests: self.digests.clone(), ..Weights::new(file.clone(), device) }
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
