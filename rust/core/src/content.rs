//! Files of weights as they are read: by place, never mapped, so that a file which is cut off or written to by somebody else is an
//! error where it is read, and nothing at all to what was read before.

use std::fs::{File, Metadata as FileMetadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rayon::prelude::*;
use safetensors::tensor::Metadata;

use crate::threads::run;

/// Bytes that a thread reads at a time.
pub(crate) const PIECE: usize = 1 << 20;
/// safetensors' own limit of a header.
const LARGEST_HEADER: u64 = 100_000_000;
/// How the text begins that git leaves in place of a large file where git-lfs does not fetch it.
const LFS_POINTER: &[u8; 8] = b"version ";

/// An open file, as it was when it was opened.
#[derive(Debug)]
pub(crate) struct Content {
    path: PathBuf,
    file: File,
    len: u64,
    modified: Option<SystemTime>,
}

impl Content {
    /// Opens `path`; a directory is opened too, and reading it fails.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(Self { path: path.to_path_buf(), file, len: metadata.len(), modified: metadata.modified().ok() })
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length when it was opened, in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Is it a regular file?
    pub(crate) fn is_file(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.is_file())
    }

    /// Fails where the file has another length or another time of modification than when it was opened.
    pub(crate) fn expect_unchanged(&self) -> io::Result<()> {
        let now = self.file.metadata()?;
        if now.len() != self.len {
            return Err(io::Error::other(format!(
                "changed on disk since it was opened: expected {} bytes, found {}",
                self.len,
                now.len()
            )));
        }
        if now.modified().ok() != self.modified {
            return Err(io::Error::other("changed on disk since it was opened (time of modification)"));
        }
        Ok(())
    }

    /// What tells a file from every other one and from itself after a change: length, times and inode.
    pub(crate) fn stamp(&self) -> io::Result<String> {
        Ok(stamp(&self.file.metadata()?))
    }

    /// When the file was last changed, its times included.
    pub(crate) fn changed(&self) -> io::Result<SystemTime> {
        changed(&self.file.metadata()?)
    }

    /// Fills `to` from byte `at` on.
    pub(crate) fn read(&self, at: u64, to: &mut [u8]) -> io::Result<()> {
        read_exact_at(&self.file, to, at).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => {
                io::Error::new(e.kind(), format!("ends early: expected {} bytes from byte {at} on", to.len()))
            }
            _ => e,
        })
    }

    /// Fills `to` from byte `at` on, by all threads; `done` is given every piece of [`PIECE`] bytes (the last may be shorter) and its
    /// number as soon as it is there.
    pub(crate) fn read_pieces<E: From<io::Error> + Send>(
        &self,
        at: u64,
        to: &mut [u8],
        done: impl Fn(usize, &[u8]) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let read = |(i, piece): (usize, &mut [u8])| {
            self.read(at + (i * PIECE) as u64, piece)?;
            done(i, piece)
        };
        run(|| to.par_chunks_mut(PIECE).enumerate().try_for_each(read))
    }

    /// The header of a safetensors file of exactly this length, and the place of its data; `Err` says what is wrong.
    pub(crate) fn header(&self) -> Result<(Metadata, u64), String> {
        let mut length = [0; 8];
        let io = |e: io::Error| e.to_string();
        self.read(0, &mut length).map_err(io)?;
        if &length == LFS_POINTER {
            return Err("expected the file itself, found a git-lfs pointer to it; run `git lfs pull` where it was cloned".into());
        }
        let length = u64::from_le_bytes(length);
        if length > LARGEST_HEADER.min(self.len.saturating_sub(8)) {
            return Err(format!("expected a header of at most {LARGEST_HEADER} bytes inside the file, found {length}"));
        }
        let mut text = vec![0; length as usize];
        self.read(8, &mut text).map_err(io)?;
        let metadata: Metadata = serde_json::from_slice(&text).map_err(|e| format!("its header: {e}"))?;
        let (start, data) = (length + 8, metadata.data_len() as u64);
        match start.checked_add(data) {
            Some(end) if end == self.len => Ok((metadata, start)),
            _ => Err(format!("its header speaks of {data} bytes of data, it holds {}", self.len.saturating_sub(start))),
        }
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, to: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, to, at)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut to: &mut [u8], mut at: u64) -> io::Result<()> {
    while !to.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, to, at) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                to = &mut to[n..];
                at += n as u64;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn changed(metadata: &FileMetadata) -> io::Result<SystemTime> {
    let modified = metadata.modified()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let seconds = u64::try_from(metadata.ctime()).unwrap_or_default();
        Ok(modified.max(UNIX_EPOCH + std::time::Duration::from_secs(seconds)))
    }
    #[cfg(not(unix))]
    Ok(modified)
}

fn stamp(metadata: &FileMetadata) -> String {
    let nanos =
        |time: io::Result<SystemTime>| time.ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_nanos());
    #[cfg(unix)]
    let more = {
        use std::os::unix::fs::MetadataExt;
        format!("{}.{:09} {}", metadata.ctime(), metadata.ctime_nsec(), metadata.ino())
    };
    #[cfg(not(unix))]
    let more = nanos(metadata.created());
    format!("{} {} {more}", metadata.len(), nanos(metadata.modified()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::testing::{Outcome, directory};

    #[test]
    fn a_git_lfs_pointer_is_named_as_such() -> Outcome {
        let path = directory("pointer")?.join("t3_turbo_v1.safetensors");
        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1912612000\n")?;
        assert!(Content::open(&path)?.header().is_err_and(|why| why.contains("found a git-lfs pointer")));
        Ok(())
    }

    #[test]
    fn a_file_that_is_cut_off_or_written_to_is_an_error_and_no_signal() -> Outcome {
        let path = directory("content")?.join("file");
        std::fs::write(&path, vec![7; 3 * PIECE + 5])?;
        let file = Content::open(&path)?;
        let mut bytes = vec![0; 3 * PIECE + 5];
        let none = |_: usize, _: &[u8]| io::Result::Ok(());
        file.read_pieces(0, &mut bytes, none)?;
        assert!(bytes.iter().all(|b| *b == 7) && file.expect_unchanged().is_ok());
        File::options().write(true).open(&path)?.set_len(PIECE as u64)?;
        let error = file.read_pieces(0, &mut bytes, none).err().ok_or("read")?.to_string();
        assert!(error.contains("ends early"), "{error}");
        let error = file.expect_unchanged().err().ok_or("unchanged")?.to_string();
        assert!(error.contains(&format!("expected {} bytes, found {PIECE}", 3 * PIECE + 5)), "{error}");
        let file = Content::open(&path)?;
        std::thread::sleep(std::time::Duration::from_millis(20)); // a tick of the file system's clock
        std::fs::write(&path, vec![8; PIECE])?;
        assert!(file.expect_unchanged().is_err());
        Ok(())
    }
}
