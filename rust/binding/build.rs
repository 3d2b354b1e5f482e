//! Warns of a CUDA build that cannot be imported without CUDA: `tools/cuda/build_wheel.sh` sets what makes one that can.

fn main() {
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some() && !flags.contains("feature=\"dynamic-loading\"") {
        println!("cargo::warning=CUDA is linked: this module cannot be imported where its libraries are missing");
    }
}
