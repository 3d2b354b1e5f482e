//! A cache file: packed arrays in a safetensors file whose last tensor, `crc32`, holds the checksums of everything before it.
//!
//! Data begin on a page, every array's size is a multiple of [`ALIGNMENT`], so that arrays are used where the file was read to. The
//! checksums are those of consecutive pieces of [`PIECE`] bytes from the file's first byte on, so that they cover the header too. Whatever
//! is handed out is in memory and was compared with them after it was read: what becomes of the file then changes nothing.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use safetensors::tensor::Metadata;
use serde_json::json;

use super::array::{Array, Number, Stored};
use super::memory::Memory;
use crate::content::{Content, PIECE};
use crate::threads::run;

/// What arrays are aligned to in a file, in bytes.
const ALIGNMENT: usize = 64;
/// What the data begin at a multiple of.
const PAGE: usize = 4096;
/// Name of the last tensor.
const SUMS: &str = "crc32";

/// Where the arrays of a file are while they are not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
    /// In memory, all of them.
    Memory,
    /// On the disk: an array is read whenever it is asked for, and compared with its checksums each time.
    Disk,
}

/// An opened file whose checksums are right.
#[derive(Debug)]
pub(crate) struct PackedFile {
    content: Content,
    metadata: Metadata,
    data_start: usize,
    sums: Vec<u32>,
    memory: Option<Arc<Memory>>,
    damage: OnceLock<String>,
}

impl PackedFile {
    /// Reads the file and checks all of it; `Err` says what is wrong with it.
    pub(super) fn open(path: &Path, key: &str, stay: Stay) -> Result<Self, String> {
        let content = Content::open(path).map_err(|e| e.to_string())?;
        let (metadata, data_start) = content.header().map_err(|e| format!("not a complete file: {e}"))?;
        if metadata.metadata().as_ref().and_then(|m| m.get("key")).map(String::as_str) != Some(key) {
            return Err("made from something else".into());
        }
        let Some(sums) = metadata.info(SUMS) else {
            return Err("no checksums".into());
        };
        let end = data_start + sums.data_offsets.0 as u64;
        let mut bytes = vec![0; usize::try_from(content.len() - end).map_err(|e| e.to_string())?];
        content.read(end, &mut bytes).map_err(|e| e.to_string())?;
        let sums: Vec<u32> = bytes.as_chunks().0.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
        let end = usize::try_from(end).map_err(|e| e.to_string())?;
        if end.div_ceil(PIECE) != sums.len() || !bytes.len().is_multiple_of(4) {
            return Err("not as many checksums as pieces".into());
        }
        let data_start = end - sums_offset(&metadata);
        let mut file = Self { content, metadata, data_start, sums, memory: None, damage: OnceLock::new() };
        match stay {
            Stay::Memory => file.memory = Some(file.pieces(0, end)?),
            Stay::Disk => run(|| {
                (0..file.sums.len()).into_par_iter().try_for_each(|i| {
                    let mut piece = vec![0; PIECE.min(end - i * PIECE)];
                    file.content.read((i * PIECE) as u64, &mut piece).map_err(|e| e.to_string())?;
                    file.check(i, &piece)
                })
            })?,
        }
        Ok(file)
    }

    /// Memory of bytes `start .. end`, from the beginning of a piece on.
    fn pieces(&self, start: usize, end: usize) -> Result<Arc<Memory>, String> {
        let mut memory = Memory::new(end - start).map_err(|e| e.to_string())?;
        self.content
            .read_pieces(start as u64, &mut memory, |i, piece| self.check(start / PIECE + i, piece).map_err(io::Error::other))
            .map_err(|e| e.to_string())?;
        Ok(Arc::new(memory))
    }

    fn check(&self, piece: usize, bytes: &[u8]) -> Result<(), String> {
        match self.sums.get(piece) {
            Some(sum) if *sum == crc32fast::hash(bytes) => Ok(()),
            _ => Err(format!("the checksum of piece {piece} is wrong")),
        }
    }

    /// The array `name`; `None` unless it is there with this kind and number of values. Where it cannot be read from the disk as it was
    /// when the file was opened, [`Self::damage`] says so.
    pub(super) fn get<T: Number>(&self, name: &str, len: usize) -> Option<Stored<T>> {
        let info = self.metadata.info(name).filter(|info| info.dtype == T::DTYPE && info.shape == [len])?;
        let (start, end) = (self.data_start + info.data_offsets.0, self.data_start + info.data_offsets.1);
        if let Some(memory) = &self.memory {
            return Stored::mapped(memory, start, len);
        }
        let first = start / PIECE * PIECE;
        let end = end.next_multiple_of(PIECE).min(self.data_start + sums_offset(&self.metadata));
        match self.pieces(first, end) {
            Ok(memory) => Stored::mapped(&memory, start - first, len),
            Err(damage) => {
                let _ = self.damage.set(format!("changed on disk since it was opened: {damage}"));
                None
            }
        }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        self.content.path()
    }

    /// What was found wrong when an array was read from the disk.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// Where its arrays are.
    pub(crate) fn stay(&self) -> Stay {
        if self.memory.is_some() { Stay::Memory } else { Stay::Disk }
    }
}

/// Where the checksums lie in the data.
fn sums_offset(metadata: &Metadata) -> usize {
    metadata.info(SUMS).map_or(0, |sums| sums.data_offsets.0)
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
    let mut text = text(sums)?;
    text.extend(std::iter::repeat_n(' ', padded - 8 - text.len())); // not `{:width$}`, which ends at 65,535
    out.write_all(text.as_bytes())?;
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
    fn what_is_written_is_found_whatever_becomes_of_the_file() -> Outcome {
        let path = directory("container")?.join("file");
        for stay in [Stay::Memory, Stay::Disk] {
            found(&path, stay)?;
        }
        Ok(())
    }

    fn found(path: &Path, stay: Stay) -> Outcome {
        write(File::create(path)?, "key", &arrays())?;
        let file = PackedFile::open(path, "key", stay)?;
        let floats = file.get::<f32>("a.weight:x.data", 300_000).ok_or("absent")?;
        assert!(floats.iter().enumerate().all(|(i, v)| *v == i as f32));
        assert_eq!((floats.as_ptr() as usize % ALIGNMENT, &*file.get::<u8>("b", 128).ok_or("absent")?), (0, &[7u8; 128][..]));
        assert_eq!(&*file.get::<u16>("c", 64).ok_or("absent")?, &[9; 64]);
        // absent, of another kind, of another size
        assert!(file.get::<f32>("d", 1).is_none() && file.get::<u16>("b", 64).is_none() && file.get::<u8>("b", 64).is_none());
        assert_eq!((file.sums.len(), file.stay(), file.damage()), (2, stay, None));
        // cut off, overwritten: what was handed out stays, and nothing else ever comes out
        for change in [|f: &File| f.set_len(5000), |f: &File| f.set_len(5000).and_then(|()| f.set_len(1_300_000))] {
            change(&File::options().write(true).open(path)?)?;
            assert!(floats.iter().enumerate().all(|(i, v)| *v == i as f32));
            match (stay, file.get::<f32>("a.weight:x.data", 300_000)) {
                (Stay::Memory, Some(again)) => assert!(again == floats),
                (Stay::Disk, None) => assert!(file.damage().is_some_and(|what| what.contains("changed on disk"))),
                (_, found) => return Err(format!("{found:?}").into()),
            }
        }
        Ok(())
    }

    #[test]
    fn a_header_may_be_longer_than_65535_bytes() -> Outcome {
        let path = directory("long_header")?.join("file");
        let bytes: Stored<u8> = vec![5; 64].into();
        let arrays: Vec<(String, Array)> = (0..2000).map(|i| (format!("layer.{i}.weight:split"), (&bytes).into())).collect();
        write(File::create(&path)?, "key", &arrays)?;
        let file = PackedFile::open(&path, "key", Stay::Memory)?;
        assert!(arrays.iter().all(|(name, _)| file.get::<u8>(name, 64).is_some_and(|found| found[..] == [5; 64])));
        assert!(std::fs::metadata(&path)?.len() > 65_535 + 2000 * 64);
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
            assert!(
                written && [Stay::Memory, Stay::Disk].iter().all(|stay| PackedFile::open(&other, "key", *stay).is_err()),
                "{what}"
            );
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
        let open = |path: &Path, key: &str| PackedFile::open(path, key, Stay::Memory);
        assert!(open(&path, "another key").is_err() && open(&place, "key").is_err() && open(&path, "key").is_ok());
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
