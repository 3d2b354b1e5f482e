//! The threads that kernels work on: a pool of this process's own.
//!
//! A process that was forked has none of its parent's threads, and who waits for one of them, or for a lock that one held, waits for
//! ever. So nothing here uses rayon's global pool, which cannot be had a second time: work is handed out by [`each`] and [`run`],
//! and what threads share between calls lies in a [`PerProcess`]. Who calls from inside a rayon pool of his own stays in that one.

use std::convert::Infallible;
use std::ptr::null_mut;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicPtr, AtomicUsize};

use rayon::iter::plumbing::{Producer, ProducerCallback};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{Error, Result};

/// The pool: of as many threads as `RAYON_NUM_THREADS` says, or the machine has cores.
fn pool() -> Result<&'static ThreadPool> {
    static POOL: PerProcess<ThreadPool> = PerProcess::new();
    let make = || ThreadPoolBuilder::new().thread_name(|index| format!("chatterbox-{index}")).build();
    POOL.try_get(make).map_err(|e| Error::Device(format!("cpu: expected to start threads, the system refused: {e}")))
}

/// Starts the threads, where they are not there yet.
///
/// # Errors
/// [`Error::Device`] where the system refuses to.
pub fn start() -> Result<()> {
    pool().map(|_| ())
}

/// Their number.
pub fn count() -> usize {
    match rayon::current_thread_index() {
        Some(_) => rayon::current_num_threads(),
        None => pool().map_or(1, ThreadPool::current_num_threads),
    }
}

/// Runs `work` on one of the threads, so that what rayon does inside is done by them.
pub(crate) fn run<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    match rayon::current_thread_index() {
        Some(_) => work(),
        None => match pool() {
            Ok(pool) => pool.install(work),
            Err(_) => work(), // `start` has said why; rayon will say it again
        },
    }
}

/// Calls `work` with every item, on all threads; with a single one on this thread.
pub(crate) fn each<I: IndexedParallelIterator>(items: I, work: impl Fn(I::Item) + Sync + Send) {
    if items.len() < 2 {
        items.with_producer(Here(work));
    } else {
        run(|| items.for_each(work));
    }
}

/// Takes items without rayon, which asks its pool for the number of threads even where there is nothing to share out.
struct Here<F>(F);

impl<T, F: Fn(T)> ProducerCallback<T> for Here<F> {
    type Output = ();

    fn callback<P: Producer<Item = T>>(self, producer: P) {
        producer.into_iter().for_each(self.0);
    }
}

/// How many forks lie between this process and the one that loaded this crate.
static FORKS: AtomicUsize = AtomicUsize::new(0);

/// The number of this process, of those that came out of each other by forks.
pub(crate) fn process() -> usize {
    watch();
    FORKS.load(Relaxed)
}

/// Has the system count forks.
fn watch() {
    #[cfg(unix)]
    {
        use std::sync::atomic::AtomicBool;

        static WATCHED: AtomicBool = AtomicBool::new(false);
        unsafe extern "C" fn forked() {
            FORKS.fetch_add(1, Relaxed);
        }
        if !WATCHED.swap(true, Relaxed) {
            // SAFETY: all that the handler does is to count.
            unsafe { libc::pthread_atfork(None, None, Some(forked)) };
        }
    }
}

/// Something that threads share, which a forked process makes anew. What its parent made it leaves alone: a thread that is not
/// there may hold a lock in it, and dropping a pool waits for its threads.
#[derive(Debug)]
pub(crate) struct PerProcess<T: Send + Sync>(AtomicPtr<(usize, T)>);

impl<T: Send + Sync> PerProcess<T> {
    /// Of nothing yet.
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    /// What `make` made in this process. Where two threads make one at the same time both get the first: nobody waits.
    pub(crate) fn get(&self, make: impl FnOnce() -> T) -> &T {
        let Ok(value) = self.try_get(|| Ok::<_, Infallible>(make()));
        value
    }

    /// The same where making it may fail; it is tried again then.
    pub(crate) fn try_get<E>(&self, make: impl FnOnce() -> std::result::Result<T, E>) -> std::result::Result<&T, E> {
        let found = self.0.load(Acquire);
        // SAFETY: null, or what was made and is not freed before `self` is dropped.
        if let Some((forks, value)) = unsafe { found.as_ref() }
            && *forks == FORKS.load(Relaxed)
        {
            return Ok(value);
        }
        let made = Box::into_raw(Box::new((process(), make()?)));
        // SAFETY: as above; `made` is freed where nobody has seen it.
        unsafe {
            Ok(match self.0.compare_exchange(found, made, AcqRel, Acquire) {
                Ok(_) => &(*made).1,
                Err(first) => {
                    drop(Box::from_raw(made));
                    &(*first).1
                }
            })
        }
    }
}

impl<T: Send + Sync> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let made = *self.0.get_mut();
        // SAFETY: null, or what was made and was not freed.
        if unsafe { made.as_ref() }.is_some_and(|(forks, _)| *forks == FORKS.load(Relaxed)) {
            // SAFETY: nobody else has it any more, and it is this process's own.
            drop(unsafe { Box::from_raw(made) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn work_is_done_once_by_threads_of_this_pool_or_of_the_callers() {
        let here = std::thread::current().id();
        for n in [0, 1, 2, 1000] {
            let seen = Mutex::new(Vec::new());
            each((0..n).into_par_iter().with_max_len(1), |i| {
                let place = (std::thread::current().id() == here, std::thread::current().name().map(str::to_owned));
                seen.lock().unwrap_or_else(|e| e.into_inner()).push((i, place));
            });
            let mut seen = seen.into_inner().unwrap_or_default();
            seen.sort_unstable_by_key(|(i, _)| *i);
            assert!(seen.iter().map(|(i, _)| *i).eq(0..n));
            let ours = |name: &Option<String>| name.as_ref().is_some_and(|name| name.starts_with("chatterbox-"));
            assert!(seen.iter().all(|(_, (same, name))| if n == 1 { *same } else { ours(name) }), "{n} items");
        }
        let pool = ThreadPoolBuilder::new().num_threads(3).build();
        assert_eq!(pool.map(|pool| pool.install(|| (count(), run(rayon::current_thread_index).is_some()))).ok(), Some((3, true)));
        assert_eq!(run(count), count());
    }

    #[test]
    fn what_is_shared_is_made_once_and_may_fail() {
        let shared = PerProcess::<Mutex<usize>>::new();
        assert_eq!(shared.try_get(|| Err("not yet")).err(), Some("not yet"));
        let at = |value: &Mutex<usize>| std::ptr::from_ref(value) as usize;
        let first = at(shared.get(|| Mutex::new(1)));
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..4)
                .map(|i| {
                    scope.spawn({
                        let shared = &shared;
                        move || at(shared.get(|| Mutex::new(i)))
                    })
                })
                .collect();
            others.into_iter().for_each(|other| assert_eq!(other.join().ok(), Some(first)));
        });
    }

    /// The child has one thread; what the others of its parent were doing, and held, is no matter to it.
    #[cfg(unix)]
    #[test]
    fn a_forked_process_works_whatever_its_parent_was_doing() {
        use std::sync::atomic::AtomicBool;
        use std::time::{Duration, Instant};

        let work = || {
            let numbers: Vec<usize> = run(|| (0..1000).into_par_iter().map(|i| i * 2).collect());
            let mut x = vec![1.0; 1 << 16];
            crate::kernels::elementwise::shift(&mut x, &[1.0]);
            let sum = AtomicUsize::new(0);
            crate::kernels::team::run(20, &|_| 7, &|phase, piece| {
                sum.fetch_add(phase * piece, Relaxed);
            });
            let block = crate::kernels::scratch::with(1000, |block| block.len());
            numbers[999] + sum.into_inner() + block + x[5] as usize
        };
        let (expected, over) = (work(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !over.load(Relaxed) {
                        assert_eq!(work(), expected);
                    }
                });
            }
            for fork in 0..40 {
                // SAFETY: the child calls nothing but `work`, with a limit on its time, and ends without the parent's handlers.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    // SAFETY: as above.
                    unsafe {
                        libc::alarm(30);
                        libc::_exit(i32::from(work() != expected));
                    }
                }
                let (started, mut status) = (Instant::now(), 0);
                // SAFETY: the child is this thread's.
                while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0
                    && started.elapsed() < Duration::from_secs(40)
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
                if status != 0 {
                    over.store(true, Relaxed);
                }
                assert_eq!(status, 0, "fork {fork}: 14 is the alarm, that is, a child that waits for ever");
            }
            over.store(true, Relaxed);
        });
    }
}
