//! What a packed network was made from, to the bit: the content of its weight file, the configuration, the format, the CPU level.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::directory::{Cache, replace};
use crate::Config;
use crate::content::{Content, PIECE};
use crate::threads::run;

/// A digest of the code of this crate (`build.rs`), some of which decides what is in a file. A change of it is a change of the key, so
/// that nobody needs to remember to count up.
const SOURCES: &str = env!("CHATTERBOX_SOURCES");
/// A file that changed less than this before its digest was taken may change again within the same tick of its clock.
const SETTLED: Duration = Duration::from_secs(2);
/// Bytes of a weight file that one thread takes the digest of.
const HASHED: u64 = 16 << 20;

/// SHA-256 in hexadecimal.
pub(super) fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    parts.into_iter().for_each(|part| hash.update(part));
    hex(hash)
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What stays the same for all networks of a checkpoint: version, code and hyper-parameters.
pub(super) fn maker(config: &Config) -> String {
    let config = sha256([format!("{config:?}").as_bytes()]);
    format!("chatterbox-turbo {}, code {SOURCES}, configuration {config}", env!("CARGO_PKG_VERSION"))
}

/// What is kept of a weight file whose digest was taken.
#[derive(Serialize, Deserialize)]
struct Known {
    path: String,
    stamp: String,
    digest: String,
}

/// A digest of `content` (SHA-256 of the SHA-256s of its pieces): taken now, or remembered where path, size, times and inode are
/// those of the last time.
///
/// # Errors
/// Where nothing can be written: then nothing could be kept either, and the time is saved.
pub(crate) fn digest(cache: &Cache, content: &Content) -> io::Result<String> {
    let path = content.path().canonicalize()?;
    let memo = cache.digest(&sha256([path.as_os_str().as_encoded_bytes()])[..32]);
    let now = content.stamp()?;
    if let Some(known) = remembered(&memo).filter(|known| known.stamp == now && known.path == path.to_string_lossy()) {
        return Ok(known.digest);
    }
    let mut taken = None;
    let outcome = replace(&memo, |mut to| {
        let pieces = (0..content.len().div_ceil(HASHED)).into_par_iter().map(|i| {
            let (mut hash, mut piece, end) = (Sha256::new(), vec![0; PIECE], content.len().min((i + 1) * HASHED));
            for at in (i * HASHED..end).step_by(PIECE) {
                let piece = &mut piece[..(end - at).min(PIECE as u64) as usize];
                content.read(at, piece)?;
                hash.update(piece);
            }
            Ok(hex(hash))
        });
        let digest = sha256(run(|| pieces.collect::<io::Result<Vec<_>>>())?.iter().map(String::as_bytes));
        if content.stamp()? != now {
            return Err(io::Error::other("the weight file is being written"));
        }
        taken = Some(digest.clone());
        if SystemTime::now().duration_since(content.changed()?).is_ok_and(|age| age > SETTLED) {
            to.write_all(&serde_json::to_vec(&Known { path: path.to_string_lossy().into_owned(), stamp: now, digest })?)
        } else {
            Err(io::Error::other("the weight file has just been written"))
        }
    });
    match (taken, outcome) {
        (Some(digest), _) => Ok(digest), // one that is not remembered is taken again
        (None, Err(e)) => Err(e),
        (None, Ok(())) => Err(io::Error::other("no digest")),
    }
}

fn remembered(memo: &Path) -> Option<Known> {
    serde_json::from_slice(&std::fs::read(memo).ok()?).ok()
}

/// Is the weight file that this memo speaks of gone?
pub(super) fn is_orphan(memo: &Path) -> bool {
    remembered(memo).is_none_or(|known| !Path::new(&known.path).exists())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::testing::{Outcome, directory};
    use super::*;

    fn of(cache: &Cache, path: &Path) -> Outcome<String> {
        Ok(digest(cache, &Content::open(path)?)?)
    }

    fn write(path: &Path, text: &str) -> Outcome {
        std::fs::write(path, text)?;
        let then = SystemTime::now() - Duration::from_secs(3600);
        File::options().append(true).open(path).and_then(|file| file.set_modified(then))?;
        Ok(())
    }

    #[test]
    fn a_digest_is_remembered_until_the_file_changes() -> Outcome {
        let place = directory("digest")?;
        let (cache, path) = (Cache::new(place.join("cache"), 1 << 20), place.join("weights"));
        write(&path, "one")?;
        let memos = || std::fs::read_dir(place.join("cache/digests")).map_or(0, |files| files.count());
        let first = of(&cache, &path)?;
        assert_eq!(memos(), if cfg!(unix) { 0 } else { 1 }, "a file that may change within the same tick is not remembered");
        std::thread::sleep(SETTLED + Duration::from_millis(1100));
        assert_eq!((of(&cache, &path)?, memos()), (first.clone(), 1));
        // what is remembered is what is told: the memo is believed
        let memo = std::fs::read_dir(place.join("cache/digests"))?.flatten().next().ok_or("no memo")?.path();
        let text = std::fs::read_to_string(&memo)?;
        std::fs::write(&memo, text.replace(&first, "remembered"))?;
        assert_eq!(of(&cache, &path)?, "remembered");
        assert!(!is_orphan(&memo));
        // the same size and the same time of modification
        let before = path.metadata().and_then(|m| m.modified())?;
        std::fs::write(&path, "two")?;
        File::options().append(true).open(&path).and_then(|file| file.set_modified(before))?;
        if cfg!(unix) {
            assert_ne!(of(&cache, &path)?, "remembered");
            assert_ne!(of(&cache, &path)?, first);
        }
        std::fs::write(&memo, "{")?;
        assert_ne!(of(&cache, &path)?, first, "a damaged memo counts for nothing");
        std::fs::remove_file(&path)?;
        assert!(is_orphan(&memo));
        Ok(())
    }

    mod sources {
        include!("../../sources.rs");

        pub(super) fn of(directory: &Path) -> io::Result<(u64, Vec<std::path::PathBuf>)> {
            digest(directory)
        }

        use std::io;
        use std::path::Path;
    }

    #[test]
    fn the_key_follows_every_source_file() -> Outcome {
        let (ours, copy) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), directory("sources")?);
        let (digest, files) = sources::of(&ours)?;
        assert_eq!(format!("{digest:016x}"), SOURCES, "the build script has seen the sources as they are");
        for file in &files {
            let to = copy.join(file.strip_prefix(&ours)?);
            std::fs::create_dir_all(to.parent().ok_or("no folder")?)?;
            std::fs::copy(file, to)?;
        }
        assert_eq!(sources::of(&copy)?.0, digest);
        // every module that the crate names is a file of the list, and every file counts
        for name in
            ["lib.rs", "pages.rs", "kernels/maths.rs", "kernels/int8/activations.rs", "stages/t3/decoder.rs", "nn/weight.rs"]
        {
            assert!(files.contains(&ours.join(name)), "{name}");
        }
        for file in sources::of(&copy)?.1 {
            let text = std::fs::read(&file)?;
            std::fs::write(&file, [&text[..], b" "].concat())?;
            assert_ne!(sources::of(&copy)?.0, digest, "{}", file.display());
            std::fs::write(&file, text)?;
        }
        Ok(())
    }

    #[test]
    fn the_key_follows_the_configuration() -> Outcome {
        let config = Config::builtin("turbo")?;
        let mut other = config.clone();
        other.speaker_encoder.norm_eps *= 2.0;
        assert_eq!(maker(&config), maker(&config.clone()));
        assert_ne!(maker(&config), maker(&other));
        Ok(())
    }
}
