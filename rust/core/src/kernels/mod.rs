//! CPU kernels, one operation a file.

/// Threads that parallel kernels use.
pub fn threads() -> usize {
    rayon::current_num_threads()
}
