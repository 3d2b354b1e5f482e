//! Strips of rows: a task takes some rows through several operations while they are in its cache.

use rayon::prelude::*;

use crate::threads;

/// Rows of a strip are a multiple of this, so that no two strips write the same columns of a panel.
const STEP: usize = 16;
/// Most rows of a strip: with what is between its operations it fits into the second-level cache.
const LARGEST: usize = 96;

/// Rows of the strips of `rows`: those with which the busiest thread has the fewest rows. No result depends on it.
pub(super) fn height(rows: usize) -> usize {
    let threads = super::threads();
    let busiest = |height: usize| rows.div_ceil(height).div_ceil(threads) * height;
    let heights = (1..=LARGEST / STEP).rev().map(|steps| steps * STEP);
    heights.min_by_key(|height| busiest(*height)).unwrap_or(LARGEST)
}

/// Runs `task` for `0..tasks`, handing them out one at a time.
pub(super) fn each(tasks: usize, task: impl Fn(usize) + Sync + Send) {
    threads::each((0..tasks).into_par_iter().with_max_len(1), task);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_get_their_share() {
        for (threads, rows, expected) in [(2, 1006, 64), (4, 1006, 64), (8, 1006, 64), (16, 1006, 64), (1, 96, 96), (2, 5, 16)] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            assert_eq!(pool.map(|pool| pool.install(|| height(rows))).ok(), Some(expected), "{rows} rows on {threads} threads");
        }
    }
}
