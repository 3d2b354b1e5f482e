//! The directory of the packed weights: where it is, how large it may grow, what goes when it is full.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::array::Array;
use super::container::{self, PackedFile, Stay};
use crate::{Error, Result};

/// The environment variable that moves the directory, or says `off`.
pub const ENVIRONMENT: &str = "CHATTERBOX_CACHE";
/// The environment variable that limits its size, in GB (10^9 bytes).
pub const ENVIRONMENT_GB: &str = "CHATTERBOX_CACHE_GB";
/// The limit without it, in GB: a few checkpoints' worth.
pub const LIMIT_GB: f64 = 8.0;

/// Endings of our files, which nobody else's have: the directory may be one that holds more.
const ENDING: &str = "packed";
const DIGEST: &str = "digest";
/// Of a file that is being written.
const UNFINISHED: &str = "packed-part";
/// A file that was used within this time is not removed to make room: what one model takes would push itself out.
const IN_USE: Duration = Duration::from_secs(60);
/// After this long nobody is writing any more.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// The cache of packed weights.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
    limit: u64,
}

/// One file of the cache.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Network, format, CPU level and a part of its key.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// When it was last used or written.
    pub used: SystemTime,
}

impl Cache {
    /// In `directory`, with a limit in bytes.
    pub fn new(directory: impl Into<PathBuf>, limit: u64) -> Self {
        Self { directory: directory.into(), limit }
    }

    /// As `CHATTERBOX_CACHE` and `CHATTERBOX_CACHE_GB` say; `None` where it is off or the system names no place for caches.
    ///
    /// # Errors
    /// [`Error::Argument`] for a limit that is no number.
    pub fn from_environment() -> Result<Option<Self>> {
        let limit = match std::env::var_os(ENVIRONMENT_GB).filter(|text| !text.is_empty()) {
            None => LIMIT_GB,
            Some(text) => {
                text.to_str().and_then(|t| t.trim().parse().ok()).filter(|gb| (0.0..1e9).contains(gb)).ok_or_else(|| {
                    Error::argument(format!("{ENVIRONMENT_GB}: expected a number of gigabytes from 0 on, got {text:?}"))
                })?
            }
        };
        let directory = chosen(&std::env::var_os(ENVIRONMENT).unwrap_or_default())?;
        Ok(directory.filter(|_| limit > 0.0).map(|directory| Self::new(directory, (limit * 1e9) as u64)))
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The most bytes that it may hold.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Its files, the last used first.
    pub fn entries(&self) -> Vec<Entry> {
        let entry = |path: PathBuf| {
            let metadata = path.metadata().ok()?;
            let name = path.file_stem()?.to_string_lossy().into_owned();
            Some(Entry { name, bytes: metadata.len(), used: metadata.modified().ok()? })
        };
        let mut entries: Vec<Entry> = files(&self.directory, ENDING).filter_map(entry).collect();
        entries.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.name.cmp(&b.name)));
        entries
    }

    /// Removes everything; models that are loaded go on.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be removed.
    pub fn clear(&self) -> Result<()> {
        let ours = files(&self.directory, ENDING).chain(files(&self.directory, UNFINISHED));
        for path in ours.chain(files(&self.digests(), DIGEST)).chain(files(&self.digests(), UNFINISHED)) {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io(path, e)),
                _ => {}
            }
        }
        let _ = fs::remove_dir(self.digests());
        let _ = fs::remove_dir(&self.directory);
        Ok(())
    }

    fn digests(&self) -> PathBuf {
        self.directory.join("digests")
    }

    /// Where the digest of a weight file is remembered.
    pub(super) fn digest(&self, name: &str) -> PathBuf {
        self.digests().join(name).with_extension(DIGEST)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name).with_extension(ENDING)
    }

    /// The file `name`, checked; `Ok(None)` where there is none, `Err` with what is wrong with it.
    pub(super) fn find(&self, name: &str, key: &str, stay: Stay) -> std::result::Result<Option<PackedFile>, String> {
        let path = self.path(name);
        if !path.exists() {
            return Ok(None);
        }
        let file = PackedFile::open(&path, key, stay)?;
        // the time of the last use, for whoever makes room; reading a file does not move any time on most systems
        let _ = File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Ok(Some(file))
    }

    /// Writes the file `name`. `Err` says why not; then nothing is left behind.
    pub(super) fn keep(&self, name: &str, key: &str, arrays: &[(String, Array)]) -> std::result::Result<(), String> {
        let bytes = arrays.iter().map(|(_, array)| array.bytes().len() as u64).sum();
        let path = self.path(name);
        let refused = |e: io::Error| format!("{}: cannot be written: {e}", self.directory.display());
        fs::create_dir_all(&self.directory).map_err(refused)?;
        self.make_room(bytes, &path)?;
        let refused = |e: io::Error| format!("{}: cannot be written: {e}", self.directory.display());
        fs::create_dir_all(&self.directory).map_err(refused)?;
        self.make_room(bytes, &path)?;
        replace(&path, |file| container::write(file, key, arrays)).map_err(refused)
    }

    /// Removes what was not used for longest until `bytes` more fit, and what is left over.
    fn make_room(&self, bytes: u64, replaced: &Path) -> std::result::Result<(), String> {
        let abandoned = |path: &PathBuf| age(path).is_some_and(|age| age > ABANDONED);
        files(&self.directory, UNFINISHED).chain(files(&self.digests(), UNFINISHED)).filter(abandoned).for_each(|path| {
            let _ = fs::remove_file(path);
        });
        files(&self.digests(), DIGEST).filter(|memo| super::key::is_orphan(memo)).for_each(|path| {
            let _ = fs::remove_file(path);
        });
        let mut entries: Vec<_> = self.entries().into_iter().filter(|entry| self.path(&entry.name) != replaced).collect();
        let mut total: u64 = entries.iter().map(|entry| entry.bytes).sum();
        while total + bytes > self.limit {
            let oldest = entries.pop().filter(|entry| age(&self.path(&entry.name)).is_some_and(|age| age > IN_USE));
            let Some(oldest) = oldest else {
                return Err(format!("no room for {bytes} bytes: the limit is {} ({ENVIRONMENT_GB})", self.limit));
            };
            let oldest_path = self.path(&oldest.name);
            fs::remove_file(&oldest_path).map_err(|e| format!("{}: cannot be removed: {e}", oldest_path.display()))?;
            total -= oldest.bytes;
        }
        Ok(())
    }
}

fn age(path: &Path) -> Option<Duration> {
    SystemTime::now().duration_since(path.metadata().ok()?.modified().ok()?).ok()
}

fn files(directory: &Path, ending: &'static str) -> impl Iterator<Item = PathBuf> {
    let found = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    found.filter(move |path| path.extension().is_some_and(|e| e == ending) && path.is_file())
}

/// Has `write` fill a file of its own beside `path`, which then takes that name, whole; on an error nothing is left.
pub(super) fn replace(path: &Path, write: impl FnOnce(File) -> io::Result<()>) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let unique = format!("{}-{}-{now}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let own = directory.join(unique).with_extension(UNFINISHED);
    let done = File::create_new(&own).and_then(write).and_then(|()| fs::rename(&own, path));
    if done.is_err() {
        let _ = fs::remove_file(&own);
    }
    done
}

/// The directory that `CHATTERBOX_CACHE` stands for; `None` where it says that there is to be no cache.
///
/// # Errors
/// [`Error::Argument`] for another user's home, [`Error::Io`] where a relative path has nothing to be relative to.
fn chosen(text: &OsStr) -> Result<Option<PathBuf>> {
    match text.to_string_lossy().trim().to_ascii_lowercase().as_str() {
        "off" | "0" | "false" | "no" | "none" => return Ok(None),
        "" | "auto" | "on" | "1" | "true" | "yes" => return Ok(default_directory()),
        _ => {}
    }
    let path = Path::new(text);
    let path = match path.components().next() {
        Some(Component::Normal(first)) if first == "~" => {
            let home = std::env::home_dir().filter(|home| home.is_absolute());
            let home =
                home.ok_or_else(|| Error::argument(format!("{ENVIRONMENT}: {text:?}: the system names no home directory")))?;
            home.join(path.strip_prefix("~").unwrap_or(path))
        }
        Some(Component::Normal(first)) if first.to_string_lossy().starts_with('~') => {
            return Err(Error::argument(format!("{ENVIRONMENT}: expected off, auto or a directory (~/… is one), got {text:?}")));
        }
        _ => path.to_path_buf(),
    };
    std::path::absolute(path).map(Some).map_err(|e| Error::io(ENVIRONMENT, e))
}

/// The system's place for caches.
fn default_directory() -> Option<PathBuf> {
    let given = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::home_dir().filter(|path| path.is_absolute());
    let caches = if cfg!(windows) {
        given("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        home().map(|home| home.join("Library").join("Caches"))
    } else {
        given("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache")))
    };
    caches.map(|caches| caches.join("chatterbox-turbo").join("packed"))
}

#[cfg(test)]
mod tests {
    use super::super::array::Stored;
    use super::super::testing::{Outcome, directory};
    use super::*;

    fn arrays(bytes: usize) -> Vec<(String, Array)> {
        let values: Stored<u8> = vec![1; bytes].into();
        vec![("a".into(), (&values).into())]
    }

    fn age_by(path: &Path, seconds: u64) -> io::Result<()> {
        let then = SystemTime::now() - Duration::from_secs(seconds);
        File::options().append(true).open(path).and_then(|file| file.set_modified(then))
    }

    fn names(cache: &Cache) -> Vec<String> {
        cache.entries().into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn the_environment_says_where() -> Outcome {
        let place = |text: &str| chosen(OsStr::new(text));
        for off in ["off", "OFF", "0", "false", "No", "none", " off "] {
            assert_eq!(place(off)?, None, "{off:?}");
        }
        for on in ["", "auto", "AUTO", "1", "true", "on", "yes"] {
            assert_eq!(place(on)?, default_directory(), "{on:?}");
        }
        let home = std::env::home_dir().ok_or("no home")?;
        assert_eq!(place("~")?.ok_or("off")?, home);
        assert_eq!(place("~/c/d")?.ok_or("off")?, home.join("c").join("d"));
        assert_eq!(place("c~/off")?.ok_or("off")?, std::env::current_dir()?.join("c~").join("off"));
        assert!(place("~somebody/c").is_err_and(|e| e.to_string().contains("~somebody/c")));
        Ok(())
    }

    #[test]
    fn the_longest_unused_make_room() -> Outcome {
        let cache = Cache::new(directory("room")?.join("cache"), 30_000);
        for (name, age) in [("a", 300), ("b", 200), ("c", 100)] {
            cache.keep(name, name, &arrays(4096))?; // 8 kB and a little each
            age_by(&cache.path(name), age)?;
        }
        assert_eq!(names(&cache), ["c", "b", "a"]);
        assert!(cache.find("a", "a", Stay::Memory).is_ok_and(|file| file.is_some()), "used, and so the youngest");
        assert_eq!(names(&cache), ["a", "c", "b"]);
        cache.keep("d", "d", &arrays(8192))?;
        assert_eq!(names(&cache), ["d", "a", "c"]);
        // a file in the place of another needs no second room
        age_by(&cache.path("d"), 100)?;
        cache.keep("d", "key", &arrays(8192))?;
        assert_eq!(names(&cache), ["d", "a", "c"]);
        Ok(())
    }

    #[test]
    fn what_is_in_use_stays_and_the_new_is_not_kept() -> Outcome {
        let cache = Cache::new(directory("use")?.join("cache"), 10_000);
        cache.keep("a", "a", &arrays(4096))?;
        let refused = cache.keep("b", "b", &arrays(4096)).err();
        assert!(refused.is_some_and(|why| why.contains("no room for 4096 bytes: the limit is 10000")));
        assert!(cache.keep("c", "c", &arrays(1 << 20)).is_err());
        assert_eq!(names(&cache), ["a"]);
        assert_eq!(fs::read_dir(cache.directory())?.count(), 1);
        Ok(())
    }

    #[test]
    fn clearing_touches_nothing_of_others() -> Outcome {
        let cache = Cache::new(directory("clear")?, 1 << 20);
        let theirs = cache.directory().join("model.safetensors");
        fs::write(&theirs, "theirs")?;
        cache.keep("a", "a", &arrays(64))?;
        let own = cache.directory().join("1-0-0").with_extension(UNFINISHED);
        fs::write(&own, "half")?;
        fs::create_dir_all(cache.digests())?;
        fs::write(cache.digest("a"), "a")?;
        assert_eq!(names(&cache), ["a"]);
        cache.clear()?;
        assert_eq!(fs::read_dir(cache.directory())?.flatten().map(|e| e.path()).collect::<Vec<_>>(), [theirs]);
        cache.clear()?;
        Ok(())
    }

    #[test]
    fn what_an_ended_process_left_behind_goes() -> Outcome {
        let cache = Cache::new(directory("left")?, 1 << 20);
        let left = |name: &str, age: u64| -> io::Result<PathBuf> {
            let path = cache.directory().join(name).with_extension(UNFINISHED);
            fs::write(&path, "half")?;
            age_by(&path, age)?;
            Ok(path)
        };
        let (old, young) = (left("old", 2 * 24 * 3600)?, left("young", 3600)?);
        cache.keep("a", "a", &arrays(64))?;
        assert!(!old.exists() && young.exists(), "one that may still be written stays");
        Ok(())
    }

    #[test]
    fn a_failed_write_leaves_nothing() -> Outcome {
        let place = directory("failed")?;
        let outcome = replace(&place.join("file"), |mut file| {
            io::Write::write_all(&mut file, b"half")?;
            Err(io::Error::other("full"))
        });
        assert!(outcome.is_err() && fs::read_dir(&place)?.next().is_none());
        fs::write(place.join("file"), "a file")?;
        let cache = Cache::new(place.join("file").join("cache"), 1 << 20);
        assert!(cache.keep("a", "a", &arrays(64)).is_err() && cache.entries().is_empty() && cache.clear().is_ok());
        Ok(())
    }
}
