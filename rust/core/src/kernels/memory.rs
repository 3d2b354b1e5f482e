//! How fast this machine reads memory: the bound of a step of decoding, which reads every weight once.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use super::simd::dispatch;

/// Bytes that are read: more than a cache holds.
const BYTES: usize = 256 << 20;
/// Times, of which the best counts.
const REPEAT: usize = 5;
const LANES: usize = 32;

/// Bytes a second that `threads` threads read together, each from its own part of one block of memory.
pub fn read_rate(threads: usize) -> f64 {
    let threads = threads.max(1);
    let data = vec![1u64; BYTES / size_of::<u64>()];
    let piece = data.len() / threads;
    let once = |_| together(threads, |i| sum(&data[i * piece..(i + 1) * piece]));
    (threads * piece * size_of::<u64>()) as f64 / (0..REPEAT).map(once).fold(f64::MAX, f64::min)
}

dispatch!(
    fn sum(data: &[u64]);
    fma => {
        let mut sums = [0u64; LANES];
        for chunk in data.as_chunks::<LANES>().0 {
            for (sum, value) in sums.iter_mut().zip(chunk) {
                *sum = sum.wrapping_add(*value);
            }
        }
        black_box(sums);
    }
);

/// Seconds from the first beginning of `work(index)` to its last end, for all threads at once.
pub fn together(threads: usize, work: impl Fn(usize) + Sync) -> f64 {
    let barrier = Barrier::new(threads);
    let spans: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
        let start = |i: usize| {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                barrier.wait();
                let started = Instant::now();
                work(i);
                (started, Instant::now())
            })
        };
        let handles: Vec<_> = (0..threads).map(start).collect();
        handles.into_iter().filter_map(|handle| handle.join().ok()).collect()
    });
    let (first, last) = (spans.iter().map(|s| s.0).min(), spans.iter().map(|s| s.1).max());
    first.zip(last).map_or(f64::MAX, |(first, last)| (last - first).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_memory() {
        let rate = read_rate(2);
        assert!(rate > 1e8 && rate < 1e13, "{rate}");
    }

    #[test]
    fn the_time_is_that_of_the_slowest() {
        let pause = std::time::Duration::from_millis(30);
        let seconds = together(3, |i| {
            if i == 1 {
                std::thread::sleep(pause)
            }
        });
        assert!(seconds >= pause.as_secs_f64());
    }
}
