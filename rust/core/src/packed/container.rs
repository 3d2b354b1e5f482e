//! A cache file: packed arrays in a safetensors file whose last tensor, `crc32`, holds the checksums of everything before it.
//!
//! Data begin on a page, every array's size is a multiple of [`ALIGNMENT`], so that arrays are used where they are mapped. The
//! checksums are those of consecutive pieces of [`PIECE`] bytes from the file's first byte on, so that they cover the header too.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;
use serde_json::json;

use super::array::{Array, Number, Stored};
use crate::threads::run;

/// What arrays are aligned to in a file, in bytes.
const ALIGNMENT: usize = 64;
/// What the data begin at a multiple of.
const PAGE: usize = 4096;
/// Bytes of a checksum.
const PIECE: usize = 1 << 20;
/// Name of the last tensor.
const SUMS: &str = "crc32";

/// An opened file whose checksums are right.
#[derive(Debug)]
pub(crate) struct PackedFile {
    map: Arc<Mmap>,
    metadata: Metadata,
    data_start: usize,
}

impl PackedFile {
    /// Maps the file and checks all of it; `Err` says what is wrong with it.
    pub(super) fn open(path: &Path, key: &str) -> Result<Self, String> {
        let file = File::open(path).map_err(|e| e.to_string())?;
        // SAFETY: read-only; cache files are never written in place.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| e.to_string())?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| format!("not a complete file: {e}"))?;
        let data_start = header + 8;
        if metadata.metadata().as_ref().and_then(|m| m.get("key")).map(String::as_str) != Some(key) {
            return Err("made from something else".into());
        }
        let Some(sums) = metadata.info(SUMS) else {
            return Err("no checksums".into());
        };
        let end = data_start + sums.data_offsets.0;
        let (pieces, sums) = (map[..end].par_chunks(PIECE), map[end..].par_chunks_exact(4));
        if end.div_ceil(PIECE) != map[end..].len() / 4 {
            return Err("not as many checksums as pieces".into());
        }
        let wrong = |(i, (piece, sum)): (usize, (&[u8], &[u8]))| (crc32fast::hash(piece).to_le_bytes() != sum).then_some(i);
        let wrong = run(|| pieces.zip(sums).enumerate().find_map_first(wrong));
        match wrong {
            Some(piece) => Err(format!("the checksum of piece {piece} is wrong")),
            None => Ok(Self { map: Arc::new(map), metadata, data_start }),
        }
    }

    /// The array `name` where it is mapped; `None` unless it is there with this kind and number of values.
    pub(super) fn get<T: Number>(&self, name: &str, len: usize) -> Option<Stored<T>> {
        let info = self.metadata.info(name).filter(|info| info.dtype == T::DTYPE && info.shape == [len])?;
        Stored::mapped(&self.map, self.data_start + info.data_offsets.0, len)
    }
}

impl PackedFile {
    /// Tells the system that the arrays will not be needed for a while; they are read again when they are.
    pub(crate) fn release(&self) {
        #[cfg(unix)]
        {
            // SAFETY: the mapping is read-only and file-backed: dropped pages are read again on the next access.
            let _ = unsafe { self.map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }
}

/// Writes `arrays`, whose names differ, to `file`.
pub(super) fn write(file: File, key: &str, arrays: &[(String, Array)]) -> io::Result<()> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), json!({ "key": key }));
    let mut end = 0;
    for (name, array) in arrays {
        let (start, bytes) = (end, array.bytes().len());
        if bytes % ALIGNMENT != 0 {
            return Err(io::Error::other(format!("{name}: {bytes} bytes are not a multiple of {ALIGNMENT}")));
        }
        end += bytes;
        let numbers = bytes * 8 / array.dtype().bitsize();
        header.insert(name.clone(), json!({"dtype": array.dtype(), "shape": [numbers], "data_offsets": [start, end]}));
    }
    // the header's length depends on the number of checksums, which depends on it: first as if there were one digit more
    let text = |sums: usize| {
        let mut header = header.clone();
        header.insert(SUMS.into(), json!({"dtype": "U32", "shape": [sums], "data_offsets": [end, end + 4 * sums]}));
        serde_json::to_string(&header)
    };
    let padded = (text(10 * (end / PIECE + 1))?.len() + 8).next_multiple_of(PAGE);
    let sums = (padded + end).div_ceil(PIECE);
    let mut out =
        Summed { file: io::BufWriter::with_capacity(PIECE, file), hasher: crc32fast::Hasher::new(), filled: 0, sums: vec![] };
    out.write_all(&((padded - 8) as u64).to_le_bytes())?;
    out.write_all(format!("{:width$}", text(sums)?, width = padded - 8).as_bytes())?;
    arrays.iter().try_for_each(|(_, array)| out.write_all(array.bytes()))?;
    out.finish()
}

/// Writes on and takes the checksum of every piece.
struct Summed {
    file: io::BufWriter<File>,
    hasher: crc32fast::Hasher,
    filled: usize,
    sums: Vec<u32>,
}

impl Summed {
    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.filled));
            self.hasher.update(now);
            self.file.write_all(now)?;
            self.filled += now.len();
            if self.filled == PIECE {
                self.end_piece();
            }
            bytes = later;
        }
        Ok(())
    }

    fn end_piece(&mut self) {
        self.sums.push(std::mem::take(&mut self.hasher).finalize());
        self.filled = 0;
    }

    /// Writes the checksums. Nobody waits for the disk: what a power cut leaves of the file has other checksums.
    fn finish(mut self) -> io::Result<()> {
        if self.filled > 0 {
            self.end_piece();
        }
        for sum in &self.sums {
            self.file.write_all(&sum.to_le_bytes())?;
        }
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Outcome, directory};
    use super::*;

    fn arrays() -> Vec<(String, Array)> {
        let floats: Stored<f32> = (0..300_000 / 16 * 16).map(|i| i as f32).collect::<Vec<_>>().into();
        let (bytes, halves): (Stored<u8>, Stored<u16>) = (vec![7; 128].into(), vec![9; 64].into());
        vec![("a.weight:x.data".into(), (&floats).into()), ("b".into(), (&bytes).into()), ("c".into(), (&halves).into())]
    }

    #[test]
    fn what_is_written_is_found_where_it_is_mapped() -> Outcome {
        let path = directory("container")?.join("file");
        write(File::create(&path)?, "key", &arrays())?;
        let file = PackedFile::open(&path, "key")?;
        let floats = file.get::<f32>("a.weight:x.data", 300_000).ok_or("absent")?;
        assert!(floats.iter().enumerate().all(|(i, v)| *v == i as f32));
        assert_eq!((floats.as_ptr() as usize % ALIGNMENT, &*file.get::<u8>("b", 128).ok_or("absent")?), (0, &[7u8; 128][..]));
        assert_eq!(&*file.get::<u16>("c", 64).ok_or("absent")?, &[9; 64]);
        file.release();
        assert_eq!(floats[299_999], 299_999.0);
        // absent, of another kind, of another size
        assert!(file.get::<f32>("d", 1).is_none() && file.get::<u16>("b", 64).is_none() && file.get::<u8>("b", 64).is_none());
        let sums = SafeTensors::read_metadata(&file.map)?.1;
        assert_eq!(sums.info(SUMS).map(|info| info.shape.clone()), Some(vec![2]));
        Ok(())
    }

    #[test]
    fn any_damage_is_seen() -> Outcome {
        let place = directory("damage")?;
        let (path, other) = (place.join("file"), place.join("other"));
        write(File::create(&path)?, "key", &arrays())?;
        let whole = std::fs::read(&path)?;
        let fails = |bytes: &[u8], what: &str| {
            let written = std::fs::write(&other, bytes).is_ok();
            assert!(written && PackedFile::open(&other, "key").is_err(), "{what}");
        };
        let places = (0..whole.len()).step_by(199_999).chain((0..700).step_by(29)).chain(PAGE - 3..PAGE + 3);
        for at in places.chain(whole.len() - 8..whole.len()) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fails(&bytes, &format!("bit {} of byte {at}", at % 8));
        }
        for len in [0, 1, 8, 9, 500, PAGE, PAGE + 64, PIECE, whole.len() - 9, whole.len() - 4, whole.len() - 1] {
            fails(&whole[..len], &format!("{len} bytes"));
        }
        fails(&[&whole[..], &[0]].concat(), "one byte more");
        fails(&vec![0; whole.len()], "zeros");
        assert!(PackedFile::open(&path, "another key").is_err() && PackedFile::open(&place, "key").is_err());
        assert!(PackedFile::open(&path, "key").is_ok());
        Ok(())
    }

    #[test]
    fn an_array_that_would_misalign_the_next_is_refused() -> Outcome {
        let odd: Stored<f32> = vec![0.0; 17].into();
        let file = File::create(directory("odd")?.join("file"))?;
        assert!(write(file, "key", &[("odd".into(), (&odd).into())]).is_err());
        Ok(())
    }
}
