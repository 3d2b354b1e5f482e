//! Threads for work of many short phases, each of which needs the one before: a step of decoding has some two hundred of a few
//! dozen microseconds. A thread pool's fork and join costs as much as such a phase; here whoever finishes the last piece of a phase
//! opens the next one, and those who wait spin for a moment before they sleep.
//!
//! Pieces are handed out one at a time and only started pieces are waited for: a thread that another process keeps from running
//! holds up nobody but for the piece that it is at. The caller works too, and alone if need be. One caller at a time has the team.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::threads::{self, PerProcess};

/// How long a thread spins for more work before it sleeps.
const SPIN: Duration = Duration::from_micros(30);

/// What is to be done.
struct Job<'a> {
    phases: usize,
    pieces: &'a (dyn Fn(usize) -> usize + Sync),
    work: &'a (dyn Fn(usize, usize) + Sync),
    #[cfg(test)]
    level: Option<super::level::Level>,
}

struct Team {
    /// A serial number of the open phase, and below its 32 bits how many of its pieces nobody has taken. A piece is taken by
    /// counting down: who succeeds holds a piece of the phase that is open at that moment.
    ticket: AtomicU64,
    /// Pieces of the open phase that are not finished.
    left: AtomicUsize,
    phase: AtomicUsize,
    /// Valid while a piece is held, or before the last phase is over: the caller does not return sooner.
    job: AtomicPtr<Job<'static>>,
    over: AtomicBool,
    /// Threads that may take part, the caller among them.
    members: AtomicUsize,
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    alarm: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Held by the caller that has the team; the number of threads that were started.
    turn: Mutex<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

static TEAM: PerProcess<Team> = PerProcess::new();

thread_local! {
    /// Is this thread at a piece?
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work(phase, piece)` for all pieces of phase 0, then of phase 1 …; `pieces(phase)` says how many there are, and none is
/// fine. As many threads take part as the caller's rayon pool has; from inside a piece, which the team waits for, that thread alone.
pub(crate) fn run(phases: usize, pieces: &(dyn Fn(usize) -> usize + Sync), work: &(dyn Fn(usize, usize) + Sync)) {
    let members = threads::count();
    if members == 1 || BUSY.get() {
        (0..phases).for_each(|phase| (0..pieces(phase)).for_each(|piece| work(phase, piece)));
        return;
    }
    let team = TEAM.get(Team::new);
    let job = Job {
        phases,
        pieces,
        work,
        #[cfg(test)]
        level: super::level::testing::forced(),
    };
    let failed = {
        let mut started = lock(&team.turn);
        while *started + 1 < members {
            let (index, name) = (*started + 1, "chatterbox-step".to_owned());
            if std::thread::Builder::new().name(name).spawn(move || team.serve(index)).is_err() {
                break; // those that are there do the work
            }
            *started += 1;
        }
        team.members.store(members, Relaxed);
        team.over.store(false, Relaxed);
        // the lifetime ends with this function, which returns after the last piece
        team.job.store((&raw const job).cast_mut().cast(), Relaxed);
        team.open(0, &job);
        while !team.over.load(Acquire) {
            match team.take() {
                Some(piece) => team.perform(piece),
                None => team.wait(|| team.over.load(SeqCst)),
            }
        }
        lock(&team.panic).take()
    };
    if let Some(panic) = failed {
        resume_unwind(panic);
    }
}

impl Team {
    fn new() -> Self {
        Self {
            ticket: AtomicU64::new(0),
            left: AtomicUsize::new(0),
            phase: AtomicUsize::new(0),
            job: AtomicPtr::default(),
            over: AtomicBool::new(true),
            members: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            bed: Mutex::new(()),
            alarm: Condvar::new(),
            panic: Mutex::new(None),
            turn: Mutex::new(0),
        }
    }

    /// A thread's life.
    fn serve(&self, index: usize) {
        let never = || false;
        loop {
            if index >= self.members.load(Relaxed) {
                self.sleep(|| index < self.members.load(SeqCst) && self.is_open());
            }
            match self.take() {
                Some(piece) => self.perform(piece),
                None => self.wait(never),
            }
        }
    }

    fn is_open(&self) -> bool {
        self.ticket.load(SeqCst) as u32 > 0
    }

    /// Takes a piece of the open phase.
    fn take(&self) -> Option<usize> {
        let mut ticket = self.ticket.load(Acquire);
        while ticket as u32 > 0 {
            match self.ticket.compare_exchange_weak(ticket, ticket - 1, AcqRel, Acquire) {
                Ok(_) => return Some(ticket as u32 as usize - 1),
                Err(now) => ticket = now,
            }
        }
        None
    }

    /// Does a piece that was taken, and opens the next phase after the last one.
    fn perform(&self, piece: usize) {
        // SAFETY: a piece is held, so that the caller is still inside `run`, where the job lives.
        let job = unsafe { &*self.job.load(Relaxed) };
        let phase = self.phase.load(Relaxed);
        self.guard(job, || (job.work)(phase, piece));
        if self.left.fetch_sub(1, AcqRel) == 1 {
            self.open(phase + 1, job);
        }
    }

    /// Opens `phase` or the first one after it that has several pieces; does single ones on the way.
    fn open(&self, mut phase: usize, job: &Job<'_>) {
        while phase < job.phases {
            match self.guard(job, || (job.pieces)(phase)) {
                None | Some(0) => {}
                Some(1) => drop(self.guard(job, || (job.work)(phase, 0))),
                Some(pieces) => {
                    self.phase.store(phase, Relaxed);
                    self.left.store(pieces, Relaxed);
                    let serial = (self.ticket.load(Relaxed) >> 32).wrapping_add(1);
                    self.ticket.store(serial << 32 | pieces as u64, SeqCst);
                    return self.wake();
                }
            }
            phase += 1;
        }
        self.over.store(true, SeqCst);
        self.wake();
    }

    /// What a part of the job gives. The first panic is kept for the caller; the other pieces are done.
    fn guard<T>(&self, #[allow(unused, reason = "tests carry the level")] job: &Job<'_>, part: impl FnOnce() -> T) -> Option<T> {
        #[cfg(test)]
        let before = super::level::testing::force(job.level);
        let busy = BUSY.replace(true);
        let outcome = catch_unwind(AssertUnwindSafe(part));
        BUSY.set(busy);
        #[cfg(test)]
        super::level::testing::force(before);
        let panic = match outcome {
            Ok(value) => return Some(value),
            Err(panic) => panic,
        };
        let mut first = lock(&self.panic);
        match *first {
            None => *first = Some(panic),
            Some(_) => std::mem::forget(panic), // dropping it might panic once more, and this thread is waited for
        }
        None
    }

    /// Waits until a phase is open, or `enough`.
    fn wait(&self, enough: impl Fn() -> bool) {
        let ready = || self.is_open() || enough();
        let started = Instant::now();
        while started.elapsed() < SPIN {
            for _ in 0..32 {
                if ready() {
                    return;
                }
                std::hint::spin_loop();
            }
        }
        self.sleep(ready);
    }

    fn sleep(&self, ready: impl Fn() -> bool) {
        self.sleepers.fetch_add(1, SeqCst);
        let mut bed = lock(&self.bed);
        while !ready() {
            bed = self.alarm.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
        drop(bed);
        self.sleepers.fetch_sub(1, SeqCst);
    }

    /// Wakes those who sleep; who goes to sleep counts itself before its last look, so that none is missed.
    fn wake(&self) {
        if self.sleepers.load(SeqCst) > 0 {
            drop(lock(&self.bed));
            self.alarm.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap_or_else(|e| unreachable!("{e}")).install(work)
    }

    /// Every piece is done once, and after all pieces of the phases before.
    fn check(phases: usize, width: usize) {
        let pieces = |phase: usize| phase * 7 % width;
        let counts: Vec<Vec<AtomicUsize>> =
            (0..phases).map(|phase| (0..pieces(phase)).map(|_| AtomicUsize::new(0)).collect()).collect();
        let done = AtomicUsize::new(0);
        let before: Vec<usize> = (0..phases).map(|phase| (0..phase).map(pieces).sum()).collect();
        run(phases, &pieces, &|phase, piece| {
            let all = done.fetch_add(1, SeqCst);
            assert!(all >= before[phase] && all < before[phase] + pieces(phase), "phase {phase}");
            counts[phase][piece].fetch_add(1, SeqCst);
        });
        assert!(counts.iter().flatten().all(|count| count.load(SeqCst) == 1));
    }

    #[test]
    fn phases_follow_each_other_on_any_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            in_pool(threads, || {
                check(0, 1);
                check(300, 5);
                check(40, 300);
            });
        }
    }

    #[test]
    fn several_callers_take_turns() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| in_pool(3, || (0..50).for_each(|_| check(60, 9))));
            }
        });
    }

    #[test]
    fn sleepers_are_woken() {
        in_pool(2, || {
            for pause in [0, 1, 5, 20] {
                check(20, 9);
                std::thread::sleep(Duration::from_millis(pause));
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_goes_on() {
        in_pool(3, || {
            let count = AtomicUsize::new(0);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                run(3, &|_| 10, &|phase, piece| {
                    count.fetch_add(1, SeqCst);
                    assert!((phase, piece) != (1, 4), "planted");
                });
            }));
            let message = outcome.err().and_then(|panic| panic.downcast::<&str>().ok().map(|m| m.to_string()));
            assert_eq!((message.as_deref(), count.load(SeqCst)), (Some("planted"), 30));
            check(30, 9);
        });
    }

    /// What `run` panics with, and a team that works afterwards.
    fn panics(pieces: impl Fn(usize) -> usize + Sync, work: impl Fn(usize, usize) + Sync) -> Option<&'static str> {
        in_pool(3, || {
            let outcome = catch_unwind(AssertUnwindSafe(|| run(4, &pieces, &work)));
            check(30, 9);
            outcome.err().and_then(|panic| panic.downcast_ref::<&'static str>().copied())
        })
    }

    #[test]
    fn a_panic_of_whoever_counts_the_pieces_reaches_the_caller() {
        for wrong in 0..4 {
            let pieces = |phase| if phase == wrong { resume_unwind(Box::new("planted")) } else { 5 };
            assert_eq!(panics(pieces, |_, _| {}), Some("planted"), "phase {wrong}");
        }
    }

    #[test]
    fn a_panic_that_panics_when_dropped_strands_nobody() {
        struct Twice;
        impl Drop for Twice {
            fn drop(&mut self) {
                resume_unwind(Box::new("again"));
            }
        }
        let first = AtomicBool::new(true);
        let work =
            |_, _| if first.swap(false, SeqCst) { resume_unwind(Box::new("first")) } else { resume_unwind(Box::new(Twice)) };
        let payload = in_pool(3, || catch_unwind(AssertUnwindSafe(|| run(2, &|_| 10, &work))).err());
        std::mem::forget(payload); // the one that was kept may be either
        in_pool(3, || check(30, 9));
    }

    #[test]
    fn a_piece_may_enter_again() {
        in_pool(3, || {
            let count = AtomicUsize::new(0);
            run(2, &|_| 6, &|_, _| {
                run(3, &|_| 4, &|_, _| {
                    count.fetch_add(1, SeqCst);
                });
            });
            assert_eq!(count.load(SeqCst), 2 * 6 * 3 * 4);
            check(30, 9);
        });
    }
}
