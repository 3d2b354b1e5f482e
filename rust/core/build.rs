//! Gives the digest of the sources to the crate: it is part of the key of the cache of packed weights.

#![allow(clippy::print_stdout)] // it is how a build script speaks to cargo

include!("sources.rs");

fn main() -> std::io::Result<()> {
    let (digest, _) = digest(std::path::Path::new("src"))?;
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=sources.rs");
    println!("cargo::rustc-env=CHATTERBOX_SOURCES={digest:016x}");
    Ok(())
}
