//! One weight file: its header parsed; tensors are read, converted to float32 and looked through for non-finite values by all
//! threads. Whatever was read is in memory of its own.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::content::{Content, PIECE};
use crate::packed::Cache;
use crate::pages::zeros;
use crate::threads::run;
use crate::{Error, Result};

/// An open safetensors file.
#[derive(Debug)]
pub struct TensorFile {
    content: Content,
    digest: OnceLock<String>,
    metadata: Metadata,
    data_start: u64,
}

impl TensorFile {
    /// Opens `path` and parses its header.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be opened, [`Error::Checkpoint`] when it is not a complete safetensors file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let content = Content::open(path).map_err(|e| Error::io(path, e))?;
        if !content.is_file() {
            return Err(Error::checkpoint(path, "expected a file, found something else"));
        }
        let (metadata, data_start) = content
            .header()
            .map_err(|e| Error::checkpoint(path, format!("not a complete safetensors file of {} bytes: {e}", content.len())))?;
        Ok(Self { content, digest: OnceLock::new(), metadata, data_start })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        self.content.path()
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
        self.metadata.info(name).ok_or_else(|| Error::checkpoint(self.content.path(), format!("tensor {name} is missing")))
    }

    /// The floating-point tensor `name` of `shape`, and the bytes of a value.
    pub(super) fn floats(&self, name: &str, shape: &[usize]) -> Result<(&TensorInfo, usize)> {
        let info = self.info(name)?;
        if info.shape != shape {
            return Err(Error::checkpoint(
                self.content.path(),
                format!("tensor {name}: expected shape {shape:?}, found {:?}", info.shape),
            ));
        }
        match info.dtype {
            Dtype::F32 => Ok((info, 4)),
            Dtype::F16 | Dtype::BF16 => Ok((info, 2)),
            other => Err(Error::checkpoint(
                self.content.path(),
                format!("tensor {name}: expected dtype F32, F16 or BF16, found {other:?}"),
            )),
        }
    }

    /// The values of a floating-point tensor as float32.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when the tensor is missing, has another shape, is not f32, f16 or bf16, or holds NaN or infinity, and when
    /// the file changed since it was opened.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (info, size) = self.floats(name, shape)?;
        let (dtype, count) = (info.dtype, (info.data_offsets.1 - info.data_offsets.0) / size);
        let mut values: Vec<f32> = zeros(count);
        let start = self.data_start + info.data_offsets.0 as u64;
        let read = |(i, to): (usize, &mut [f32])| {
            let at = start + (i * (PIECE / 4) * size) as u64;
            if dtype == Dtype::F32 {
                self.content.read(at, bytes_mut(to))?;
                to.iter_mut().for_each(|v| *v = f32::from_bits(u32::from_le(v.to_bits())));
            } else {
                let mut bytes = vec![0; to.len() * size];
                self.content.read(at, &mut bytes)?;
                convert(dtype, &bytes, to);
            }
            io::Result::Ok(())
        };
        let read = run(|| values.par_chunks_mut(PIECE / 4).enumerate().try_for_each(read));
        self.whole(name, read)?;
        self.expect_finite(name, &values)?;
        Ok(values)
    }

    /// Tensor `name` `[rows, columns]` as it is stored.
    ///
    /// # Errors
    /// As [`Self::values`], but for its numbers, which are looked at only where `finite` asks for it.
    pub(super) fn table(&self, name: &str, rows: usize, columns: usize, finite: bool) -> Result<Table> {
        let (info, size) = self.floats(name, &[rows, columns])?;
        let (start, end) = info.data_offsets;
        let mut bytes = zeros(end - start);
        let read = self.content.read_pieces(self.data_start + start as u64, &mut bytes, |_, _| io::Result::Ok(()));
        self.whole(name, read)?;
        let table = Table { bytes: Arc::new(bytes), dtype: info.dtype, row: columns * size, rows, columns };
        if finite {
            let wrong = |row| {
                let values = table.gather(std::iter::once(row));
                values.iter().position(|v| !v.is_finite()).map(|at| (row * columns + at, values[at]))
            };
            if let Some((at, found)) = run(|| (0..rows).into_par_iter().find_map_first(wrong)) {
                return Err(self.not_finite(name, at, found));
            }
        }
        Ok(table)
    }

    /// What came of reading tensor `name`: an error also where the file is not what it was when it was opened.
    fn whole(&self, name: &str, read: io::Result<()>) -> Result<()> {
        read.and_then(|()| self.content.expect_unchanged())
            .map_err(|e| Error::checkpoint(self.path(), format!("tensor {name}: {e}; load the model again")))
    }

    fn expect_finite(&self, name: &str, values: &[f32]) -> Result<()> {
        let finite = |piece: &[f32]| piece.iter().fold(true, |all, v| all & v.is_finite());
        match run(|| values.par_chunks(PIECE).position_first(|piece| !finite(piece))) {
            None => Ok(()),
            Some(piece) => {
                let at = (piece * PIECE..).zip(&values[piece * PIECE..]).find(|(_, v)| !v.is_finite());
                Err(at.map_or_else(|| self.not_finite(name, 0, f32::NAN), |(at, found)| self.not_finite(name, at, *found)))
            }
        }
    }

    fn not_finite(&self, name: &str, at: usize, found: f32) -> Error {
        Error::checkpoint(self.path(), format!("tensor {name}: value {at} is {found}, expected finite numbers"))
    }

    /// A digest of the whole file, taken once (see [`crate::packed`]).
    pub(crate) fn digest(&self, cache: &Cache) -> io::Result<&str> {
        if let Some(digest) = self.digest.get() {
            return Ok(digest);
        }
        let digest = crate::packed::digest(cache, &self.content)?;
        Ok(self.digest.get_or_init(|| digest))
    }
}

/// The bytes of `values`.
fn bytes_mut(values: &mut [f32]) -> &mut [u8] {
    // SAFETY: the same memory; numbers have no padding, and any bytes are numbers.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// Writes the values of `dtype` (F32, F16 or BF16) that `from` holds to all of `to`.
fn convert(dtype: Dtype, from: &[u8], to: &mut [f32]) {
    fn all<const N: usize>(from: &[u8], to: &mut [f32], value: impl Fn([u8; N]) -> f32) {
        to.iter_mut().zip(from.as_chunks::<N>().0).for_each(|(to, from)| *to = value(*from));
    }
    match dtype {
        Dtype::F32 => all(from, to, f32::from_le_bytes),
        Dtype::F16 => all(from, to, |b| half::f16::from_le_bytes(b).to_f32()),
        _ => all(from, to, |b| half::bf16::from_le_bytes(b).to_f32()),
    }
}

/// A floating-point tensor `[rows, columns]` as its file has it, of which a row at a time is converted: for a table of which few rows
/// are ever wanted.
#[derive(Clone)]
pub(crate) struct Table {
    bytes: Arc<Vec<u8>>,
    dtype: Dtype,
    /// Bytes of a row.
    row: usize,
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
        let mut values = vec![0.0; rows.len() * self.columns];
        for (row, to) in rows.zip(values.chunks_exact_mut(self.columns)) {
            convert(self.dtype, &self.bytes[row * self.row..][..self.row], to);
        }
        values
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "table of {} by {}, {}", self.rows, self.columns, self.dtype)
    }
}
