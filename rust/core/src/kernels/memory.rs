//! How fast this machine reads memory: the bound of a step of decoding, which reads every weight once.

use std::hint::black_box;
use std::sync::RwLock;
use std::time::Instant;

use super::dots::dots;
use crate::pages::room;

/// Bytes that are read: more than a cache holds.
const BYTES: usize = 256 << 20;
/// Times, of which the best counts.
const REPEAT: usize = 20;
/// Numbers of a row, a page, and rows that are read together: several streams are faster than one.
const WIDTH: usize = 1024;
const TOGETHER: usize = 16;

/// Bytes a second that `threads` threads read together, each from its own part of one block of memory.
pub fn read_rate(threads: usize) -> f64 {
    let threads = threads.max(1);
    let mut data = room(BYTES / size_of::<f32>());
    data.resize(BYTES / size_of::<f32>(), 1f32);
    let (row, rows) = ([1f32; WIDTH], data.len() / WIDTH / threads);
    let piece = rows * WIDTH;
    let once = |_| {
        together(threads, |i| {
            let mut out = [0f32; TOGETHER];
            for rows in data[i * piece..(i + 1) * piece].chunks(TOGETHER * WIDTH) {
                dots(&row, rows, WIDTH, &mut out, TOGETHER);
                black_box(&out);
            }
        })
    };
    (threads * piece * size_of::<f32>()) as f64 / (0..REPEAT).map(once).fold(f64::MAX, f64::min)
}

/// Seconds from the first beginning of `work(index)` to its last end, for all threads at once; `f64::MAX` where not all could do it.
pub fn together(threads: usize, work: impl Fn(usize) + Sync) -> f64 {
    let gate = RwLock::new(()); // opens when it is dropped, also where the system refuses a thread
    let spans: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
        let closed = gate.write();
        let start = |i: usize| {
            let (gate, work) = (&gate, &work);
            let body = move || {
                drop(gate.read());
                let started = Instant::now();
                work(i);
                (started, Instant::now())
            };
            std::thread::Builder::new().spawn_scoped(scope, body).ok()
        };
        let handles: Vec<_> = (0..threads).map_while(start).collect();
        drop(closed);
        handles.into_iter().filter_map(|handle| handle.join().ok()).collect()
    });
    if spans.len() < threads {
        return f64::MAX;
    }
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
