//! One weight file: mapped, its header parsed; tensors are converted to float32 and looked through for non-finite values by all
//! threads, or left where they are mapped.

use std::collections::BTreeMap;
use std::fs::File;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};

use crate::packed::Cache;
use crate::pages::room;
use crate::threads::{each, run};
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

    /// Is there a tensor of this name?
    pub(super) fn has(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    /// Shape, dtype and place of tensor `name`.
    pub(super) fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.metadata.info(name).ok_or_else(|| Error::checkpoint(&self.path, format!("tensor {name} is missing")))
    }

    /// The floating-point tensor `name` of `shape`, and the bytes of a value.
    pub(super) fn floats(&self, name: &str, shape: &[usize]) -> Result<(&TensorInfo, usize)> {
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
        let mut values: Vec<f32> = room(count);
        let pieces = values.spare_capacity_mut()[..count].par_chunks_mut(PIECE).zip(bytes.par_chunks(PIECE * size)).enumerate();
        each(pieces, |(i, (to, from))| {
            table.read(from, to);
            self.release(table.start + i * PIECE * size, from.len());
        });
        // SAFETY: as many pieces of `bytes` as of the vector have been read, which is all of both.
        unsafe { values.set_len(count) };
        match run(|| values.par_chunks(PIECE).position_first(|piece| !all_finite(piece))) {
            None => Ok(values),
            Some(piece) => Err(self.not_finite(name, piece, &values[piece * PIECE..])),
        }
    }

    /// Fails as [`Self::values`] does, without keeping the values.
    pub(super) fn check_finite(&self, name: &str, shape: &[usize]) -> Result<()> {
        let table = self.table(name, shape)?;
        let pieces = table.bytes(self).par_chunks(PIECE * table.size).enumerate();
        let wrong = |(i, from): (usize, &[u8])| {
            let mut values = Vec::with_capacity(from.len() / table.size);
            table.read(from, &mut values.spare_capacity_mut()[..from.len() / table.size]);
            // SAFETY: all values have just been written.
            unsafe { values.set_len(from.len() / table.size) };
            self.release(table.start + i * PIECE * table.size, from.len());
            (!all_finite(&values)).then(|| self.not_finite(name, i, &values))
        };
        run(|| pieces.find_map_first(wrong)).map_or(Ok(()), Err)
    }

    fn not_finite(&self, name: &str, piece: usize, values: &[f32]) -> Error {
        let at = values.iter().position(|v| !v.is_finite()).unwrap_or_default();
        let (found, at) = (values[at], piece * PIECE + at);
        Error::checkpoint(&self.path, format!("tensor {name}: value {at} is {found}, expected finite numbers"))
    }

    /// Where a floating-point tensor lies.
    pub(super) fn table(&self, name: &str, shape: &[usize]) -> Result<Place> {
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
pub(super) struct Place {
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
    /// `rows` times `columns` values at `place`.
    pub(super) fn new(file: Arc<TensorFile>, place: Place, rows: usize, columns: usize) -> Self {
        Self { file, place, rows, columns }
    }

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
