//! CPU kernels, one operation a file. They work on plain float32 slices; `nn` alone calls them.
//!
//! Every kernel splits its work in the same pieces whatever the number of threads, and adds in the same order inside a
//! piece, so that results are the same to the bit on one thread and on many.

pub mod affine;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod bf16;
pub mod block_float;
pub mod cache;
pub mod conv1d;
pub mod conv2d;
pub mod conv_transpose1d;
pub mod depthwise;
pub(crate) mod dots;
pub mod elementwise;
pub mod float_cache;
pub(crate) mod gemm;
pub mod half_cache;
mod heads;
pub mod int4;
pub mod int8;
pub(crate) mod level;
pub mod lstm;
pub mod maths;
pub mod matmul;
pub mod memory;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod norm;
mod operand;
mod panels;
pub(crate) mod pointer;
pub mod relative_attention;
pub(crate) mod resample;
pub mod rotary;
pub(crate) mod scratch;
pub(crate) mod simd;
pub mod stream;
mod strips;
pub(crate) mod team;
mod tiles;
pub(crate) mod transformer;

pub use level::{Level, level_in_use, levels};
pub use panels::Panels;

/// Threads that parallel kernels use.
pub fn threads() -> usize {
    crate::threads::count()
}

/// Runs `work` on a thread of the pool, so that the kernels inside need not hand every piece of work over to it. What the caller
/// records (see [`crate::tap`]) is recorded there too.
pub fn in_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let taps = crate::tap::carry();
    #[cfg(test)]
    let work = crate::nn::carried(work);
    crate::threads::run(|| taps.run(work))
}
