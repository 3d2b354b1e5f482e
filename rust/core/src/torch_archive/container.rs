//! The zip container of a torch archive: finds the entries, checks their declared sizes against the file, reads them.
//!
//! `torch.save` stores its entries uncompressed; a compressed one is refused, so that no entry can be larger than the file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::rc::Rc;

use zip::{CompressionMethod, ZipArchive};

use super::objects::{Found, Storage};
use crate::{Error, Result};

/// Largest `data.pkl`: thousands of tensors fit into half a megabyte.
const PICKLE_BYTES: u64 = 4 << 20;
/// What tensors may take beyond twice the file's length (views of one storage, expanded tensors).
const SPARE_BYTES: u64 = 16 << 20;
/// First bytes of torch's format before 1.6: a pickle of its magic number.
const LEGACY_MAGIC: [u8; 14] = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// An open archive.
pub(super) struct Container {
    zip: ZipArchive<BufReader<File>>,
    /// Index and size of every entry, by name.
    entries: HashMap<String, (usize, u64)>,
    /// The folder that torch puts everything into, with its slash.
    root: String,
    length: u64,
    storages: HashMap<Rc<str>, Vec<u8>>,
    /// Are the storages little-endian?
    pub(super) little_endian: bool,
}

impl Container {
    /// Opens `path` and checks the directory of the zip.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let mut file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(Error::checkpoint(path, "expected a file, found something else"));
        }
        let mut head = Vec::new();
        file.by_ref().take(512).read_to_end(&mut head).map_err(io)?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        check_head(&head).map_err(|detail| Error::checkpoint(path, detail))?;
        let zip = ZipArchive::new(BufReader::new(file)).map_err(|e| {
            Error::checkpoint(path, format!("not a complete zip archive of {} bytes (truncated?): {e}", metadata.len()))
        })?;
        Self::index(zip, metadata.len()).map_err(|detail| Error::checkpoint(path, detail))
    }

    fn index(mut zip: ZipArchive<BufReader<File>>, length: u64) -> Found<Self> {
        let (mut entries, mut roots, mut sum) = (HashMap::new(), Vec::new(), 0u64);
        for index in 0..zip.len() {
            let entry = zip.by_index_raw(index).map_err(|e| format!("zip entry {index}: {e}"))?;
            let name = entry.name().map_err(|e| format!("zip entry {index}: {e}"))?.into_owned();
            if entry.compression() != CompressionMethod::Stored || entry.encrypted() || entry.size() != entry.compressed_size() {
                return Err(format!("entry {name}: expected it stored as torch.save does, found it compressed or encrypted"));
            }
            sum = sum.saturating_add(entry.size());
            if let Some((root, "data.pkl")) = name.split_once('/') {
                roots.push(format!("{root}/"));
            }
            entries.insert(name, (index, entry.size()));
        }
        if sum > length {
            return Err(format!("the entries declare {sum} bytes, the file has {length}"));
        }
        let [root] = roots.as_slice() else {
            return Err(format!("not a torch archive: expected one entry <name>/data.pkl, found {}", roots.len()));
        };
        let root = root.clone();
        let mut archive = Self { zip, entries, root, length, storages: HashMap::new(), little_endian: true };
        // Files older than torch 2.1 have no record; they come from little-endian machines.
        if archive.entries.contains_key(&format!("{}byteorder", archive.root)) {
            archive.little_endian = match archive.entry("byteorder", 16)?.as_slice() {
                b"little" => true,
                b"big" => false,
                other => return Err(format!("byteorder: expected little or big, found {:?}", String::from_utf8_lossy(other))),
            };
        }
        Ok(archive)
    }

    /// How many bytes the file's tensors may take together.
    pub(super) fn budget(&self) -> u64 {
        self.length.saturating_mul(2).saturating_add(SPARE_BYTES)
    }

    /// The bytes of `data.pkl`.
    pub(super) fn pickle(&mut self) -> Found<Vec<u8>> {
        self.entry("data.pkl", PICKLE_BYTES)
    }

    /// The bytes of a storage; they are as many as its declaration says.
    pub(super) fn storage(&mut self, storage: &Storage) -> Found<&[u8]> {
        let declared = (storage.len as u64).saturating_mul(storage.dtype.size() as u64);
        if !self.storages.contains_key(&storage.key) {
            let bytes = self.entry(&format!("data/{}", storage.key), u64::MAX)?;
            self.storages.insert(storage.key.clone(), bytes);
        }
        let bytes = self.storages.get(&storage.key).map(Vec::as_slice).unwrap_or_default();
        if bytes.len() as u64 != declared {
            let (key, dtype) = (&storage.key, storage.dtype.name());
            return Err(format!("storage {key}: {declared} bytes declared ({} {dtype}), {} stored", storage.len, bytes.len()));
        }
        Ok(bytes)
    }

    /// The bytes of an entry, its checksum verified.
    fn entry(&mut self, name: &str, limit: u64) -> Found<Vec<u8>> {
        let Some(&(index, size)) = self.entries.get(&format!("{}{name}", self.root)) else {
            return Err(format!("entry {name} is missing"));
        };
        if size > limit {
            return Err(format!("entry {name}: expected at most {limit} bytes, found {size}"));
        }
        let mut bytes = Vec::with_capacity(size as usize); // `index` has seen that this is no more than the file
        let entry = self.zip.by_index(index).map_err(|e| format!("entry {name}: {e}"))?;
        entry.take(size + 1).read_to_end(&mut bytes).map_err(|e| format!("entry {name} is damaged: {e}"))?;
        if bytes.len() as u64 != size {
            return Err(format!("entry {name}: expected {size} bytes, found {}", bytes.len()));
        }
        Ok(bytes)
    }
}

/// Recognises what is often mistaken for a torch archive.
fn check_head(head: &[u8]) -> Found<()> {
    if head.starts_with(b"PK\x03\x04") {
        return Ok(());
    }
    if head.starts_with(&LEGACY_MAGIC) || head.get(257..262) == Some(b"ustar".as_slice()) {
        return Err("this is torch's old format from before 1.6 (not a zip), which is not read; \
                    load it with torch and save it again with torch.save"
            .into());
    }
    Err("not a torch archive: expected a zip file".into())
}
