/// The code of this crate as a number, and its files: every one below `directory`, in the order of their names, since the cache of packed
/// weights (`src/packed`) cannot tell which of them decides about a byte.
fn digest(directory: &std::path::Path) -> std::io::Result<(u64, Vec<std::path::PathBuf>)> {
    use std::hash::{DefaultHasher, Hash, Hasher};

    let (mut files, mut folders) = (vec![], vec![directory.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let mut hash = DefaultHasher::new();
    for file in &files {
        let name: Vec<_> = file.strip_prefix(directory).unwrap_or(file).iter().map(|part| part.to_string_lossy()).collect();
        (name, std::fs::read(file)?).hash(&mut hash);
    }
    Ok((hash.finish(), files))
}
