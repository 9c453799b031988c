//! A team of threads for pieces of work of some 50 µs.

use crate::stay::{self, Look, NOWHERE};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// `state` is `epoch << 16 | OPEN? | WIDE? | active`: a worker may enter the job of an epoch only while it is
/// open, one beyond the cores only when it is wide, and the caller takes the job away only when no worker is
/// inside.
const OPEN: u64 = 1 << 15;
const WIDE: u64 = 1 << 14;
const ACTIVE: u64 = WIDE - 1;
/// About 50 µs of spinning before a worker goes to sleep: longer than the serial stretches inside an
/// update, shorter than anything a person would notice.
const SPINS: u32 = 4_000;

/// A job: the address of a closure that lives in the caller's frame, and takes the thread and the epoch.
type Job = &'static (dyn Fn(usize, u64) -> Look + Sync);

struct Shared {
    door: Door,
    sleepers: AtomicUsize,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn std::any::Any + Send>>>,
    /// Which of each thread's own pieces have been begun.
    begun: Box<[Begun]>,
    /// Threads that can run at the same time.
    at_once: usize,
}

/// What the caller tells the workers, on one cache line: it costs one trip between cores to read.
#[repr(align(128))]
struct Door {
    state: AtomicU64,
    /// Where the caller keeps the job. Null or stale while the door is closed.
    job: AtomicPtr<Job>,
    /// The core that the caller is on, and the one that it has left to a worker.
    caller_on: AtomicUsize,
    left: AtomicUsize,
}

/// How many of a thread's own pieces have been begun: `epoch << COUNT_BITS | count`, on cache lines of its
/// own. It starts anew with every epoch without being written to, so that it stays with its owner as long as
/// nobody takes a piece from it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Begun {
    pieces: AtomicU64,
    /// The last epoch whose job this thread entered, and on which core.
    entered: AtomicU64,
    on: AtomicUsize,
}

const COUNT_BITS: u32 = 24;

impl Begun {
    /// The number of the next piece to begin in `epoch`.
    fn next(&self, epoch: u64) -> usize {
        let tag = epoch << COUNT_BITS;
        let mut now = self.pieces.load(Ordering::Relaxed);
        loop {
            let count = Self::count(now, tag);
            match self.pieces.compare_exchange_weak(
                now,
                tag | (count + 1),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return count as usize,
                Err(other) => now = other,
            }
        }
    }
    /// How many have been begun in `epoch`.
    fn so_far(&self, epoch: u64) -> usize {
        Self::count(self.pieces.load(Ordering::Relaxed), epoch << COUNT_BITS) as usize
    }
    fn count(now: u64, tag: u64) -> u64 {
        let bits = (1 << COUNT_BITS) - 1;
        if now & !bits == tag { now & bits } else { 0 }
    }
}

/// Threads that spin between pieces of work and share them out.
///
/// A call costs about a microsecond, so an update of a hundred microseconds can use it many times, where a
/// task queue would spend its time waking. Of `n` threads thread `t` first does the pieces `t`, `t + n`, ...,
/// so that what a piece left in its core's cache is there when the same piece comes again; then it takes what
/// the others have not begun. Which thread does a piece is thus left to chance; results must be kept per
/// piece, not per thread, and that is what the interface hands out.
///
/// Computing alone, more threads than cores only wait for one another: threads beyond the cores that this
/// process may use sleep through [`Team::each_with`] and [`Team::each_near`]. They take part in
/// [`Team::each`] and [`Team::each_zip`], whose pieces may wait for something else, such as environments in
/// other processes.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team").field("threads", &self.threads()).finish()
    }
}

impl Team {
    /// A team of `threads` threads, the caller's included.
    ///
    /// # Errors
    /// When the system refuses a thread.
    ///
    /// # Panics
    /// When `threads` is 0.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        Self::with_cores(threads, std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// [`Team::new`] on `cores`.
    fn with_cores(threads: usize, cores: usize) -> std::io::Result<Self> {
        assert!(threads > 0, "a team has at least the calling thread");
        let shared = Arc::new(Shared {
            door: Door {
                state: AtomicU64::new(0),
                job: AtomicPtr::new(std::ptr::null_mut()),
                caller_on: AtomicUsize::new(NOWHERE),
                left: AtomicUsize::new(NOWHERE),
            },
            sleepers: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
            begun: (0..threads).map(|_| Begun::default()).collect(),
            at_once: threads.min(cores),
        });
        let mut team = Self { shared, workers: Vec::with_capacity(threads - 1) };
        for i in 1..threads {
            let shared = Arc::clone(&team.shared);
            let name = format!("pgrad-{i}");
            let worker = std::thread::Builder::new().name(name).spawn(move || shared.work(i))?;
            team.workers.push(worker);
        }
        Ok(team)
    }

    /// Number of threads, the caller's included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `f(i, &mut items[i], &mut scratch[thread])` for every item, and returns when all are done.
    ///
    /// # Panics
    /// When `scratch` has fewer elements than the team has threads, or when `f` panics.
    pub fn each_with<T: Send, S: Send>(
        &self,
        items: &mut [T],
        scratch: &mut [S],
        f: impl Fn(usize, &mut T, &mut S) + Sync,
    ) {
        self.share(self.shared.at_once, 0, true, items, scratch, f);
    }

    /// [`Team::each_with`] for pieces of a few microseconds, where fetching a piece from another core's cache
    /// would take longer than the work, without scratch: the caller leaves the others their pieces unless
    /// they sleep, and for less long if they missed the last work.
    ///
    /// # Panics
    /// When `f` panics.
    pub fn each_near<T: Send>(&self, items: &mut [T], f: impl Fn(usize, &mut T) + Sync) {
        let mut none = vec![(); self.threads()];
        self.share(self.shared.at_once, SPINS, true, items, &mut none, |i, item, ()| f(i, item));
    }

    /// Shares the pieces out among the first `threads`; the caller waits for `patience` rounds before it
    /// takes a piece that is not its own.
    #[expect(unsafe_code, reason = "hands out disjoint elements of two slices to threads")]
    fn share<T: Send, S: Send>(
        &self,
        threads: usize,
        patience: u32,
        computing: bool,
        items: &mut [T],
        scratch: &mut [S],
        f: impl Fn(usize, &mut T, &mut S) + Sync,
    ) {
        assert!(scratch.len() >= self.threads(), "each thread needs its own scratch");
        if threads < 2 || items.len() < 2 {
            for (i, item) in items.iter_mut().enumerate() {
                f(i, item, &mut scratch[0]);
            }
            return;
        }
        let (n, begun) = (items.len(), &*self.shared.begun);
        assert!(n >> COUNT_BITS == 0, "at most 2^{COUNT_BITS} pieces, not {n}");
        let (items, scratch) = (Base(items.as_mut_ptr()), Base(scratch.as_mut_ptr()));
        let pieces_of = |owner: usize| (n + threads - 1 - owner) / threads;
        let job = |thread: usize, epoch: u64| -> Look {
            let mut found = Look::Stay;
            if computing {
                stay::come();
            }
            for owner in (thread..threads).chain(0..thread) {
                if thread == 0 && owner == 1 {
                    // One that missed the last work may be off its core, and for long; else it comes at once.
                    let here = |t: usize| begun[t].entered.load(Ordering::Relaxed) + 1 >= epoch;
                    let patience = if (1..threads).all(here) { patience } else { patience / 16 };
                    let all_begun = || (1..threads).all(|t| begun[t].so_far(epoch) >= pieces_of(t));
                    (0..patience).take_while(|_| !all_begun()).for_each(|_| std::hint::spin_loop());
                }
                // Looking first leaves the counter with its owner.
                while begun[owner].so_far(epoch) < pieces_of(owner) {
                    let i = begun[owner].next(epoch) * threads + owner;
                    if i >= n {
                        break;
                    }
                    // SAFETY: `i` is `owner` modulo `threads`, and the owner's counter gives each of these to
                    // one thread only, since all that are inside `job` count in the same epoch; each thread
                    // index is in use by one thread only (the caller is 0, workers are numbered); `T` and `S`
                    // are `Send`; `run` returns only when no thread is inside `job`, so the borrows of
                    // `items` and `scratch` outlive every use.
                    let (item, own) = unsafe { (&mut *items.at(i), &mut *scratch.at(thread)) };
                    f(i, item, own);
                    if computing {
                        match stay::look() {
                            Look::Stay => {}
                            // The caller does what a worker leaves.
                            Look::Leave if thread > 0 => return Look::Leave,
                            Look::Leave => {}
                            Look::WasAway => found = Look::WasAway,
                        }
                    }
                }
            }
            found
        };
        self.run(threads > self.shared.at_once, &job);
    }

    /// Runs `f(i, &mut items[i])` for every item on all threads, those beyond the cores too, and returns when
    /// all are done.
    ///
    /// # Panics
    /// When `f` panics.
    pub fn each<T: Send>(&self, items: &mut [T], f: impl Fn(usize, &mut T) + Sync) {
        let mut none = vec![(); self.threads()];
        // Without a piece for a thread beyond the cores there is no reason to wake one.
        let threads = if items.len() > self.shared.at_once { self.threads() } else { self.shared.at_once };
        self.share(threads, 0, false, items, &mut none, |i, item, ()| f(i, item));
    }

    /// Runs `f(i, &mut a[i], &mut b[i])` for every index, as [`Team::each`] does.
    ///
    /// # Panics
    /// When the slices differ in length, or when `f` panics.
    #[expect(unsafe_code, reason = "hands out disjoint elements of a slice to threads")]
    pub fn each_zip<A: Send, B: Send>(
        &self,
        a: &mut [A],
        b: &mut [B],
        f: impl Fn(usize, &mut A, &mut B) + Sync,
    ) {
        assert_eq!(a.len(), b.len(), "a pair needs both of its parts");
        let b = Base(b.as_mut_ptr());
        // SAFETY: `each` gives each index below `a.len() == b.len()` to one thread only and returns when no
        // thread is inside the closure; `B` is `Send`.
        self.each(a, |i, a| f(i, a, unsafe { &mut *b.at(i) }));
    }

    #[expect(unsafe_code, reason = "lends a closure of this frame to threads that outlive the frame")]
    fn run(&self, wide: bool, job: &(dyn Fn(usize, u64) -> Look + Sync)) {
        // SAFETY: only the lifetime is changed. Workers reach the closure through `door.job` between here and
        // `close` below, which runs even when `job` panics, closes the door and waits until no worker is
        // inside.
        let job: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize, u64) -> Look + Sync), Job>(job) };
        let shared = &*self.shared;
        shared.door.job.store((&raw const job).cast_mut(), Ordering::Relaxed);
        shared.door.caller_on.store(stay::core(), Ordering::Relaxed);
        let epoch = (shared.door.state.load(Ordering::Relaxed) >> 16).wrapping_add(1);
        shared.door.state.store(epoch << 16 | OPEN | if wide { WIDE } else { 0 }, Ordering::SeqCst);
        let (near, beyond) = self.workers.split_at(shared.at_once - 1);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            near.iter().for_each(|w| w.thread().unpark());
        }
        if wide {
            beyond.iter().for_each(|w| w.thread().unpark());
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| job(0, epoch)));
        shared.close();
        match outcome {
            Err(payload) => resume_unwind(payload),
            // Others want the caller's core, and the team can do without a worker for a while.
            Ok(Look::WasAway) => self.change_cores(),
            Ok(_) => {}
        }
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Moves the caller to the core of the first worker, which goes to the caller's when it comes again.
    fn change_cores(&self) {
        let door = &self.shared.door;
        door.left.store(stay::core(), Ordering::Relaxed);
        stay::change_to(self.shared.begun[1].on.load(Ordering::Relaxed));
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for w in self.workers.drain(..) {
            w.thread().unpark();
            // A worker catches the panics of its jobs, so joining cannot fail in a way that matters here.
            drop(w.join());
        }
    }
}

impl Shared {
    /// Closes the door and waits until nobody is inside.
    fn close(&self) {
        self.door.state.fetch_and(!OPEN, Ordering::SeqCst);
        let mut spins = 0u32;
        while self.door.state.load(Ordering::Acquire) & ACTIVE != 0 {
            spins += 1;
            if spins > SPINS {
                std::thread::yield_now(); // more threads than cores: let the others finish
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// A worker's life: wait for an open epoch that it has not served, enter, work, leave.
    #[expect(unsafe_code, reason = "see the safety comment")]
    fn work(&self, thread: usize) {
        let mut served = 0u64;
        let mut spins = 0u32;
        while !self.stop.load(Ordering::Relaxed) {
            let state = self.door.state.load(Ordering::Acquire);
            if !self.is_open(thread, state, served) {
                self.wait(thread, &mut spins, served);
                continue;
            }
            if self
                .door
                .state
                .compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed)
                .is_err()
            {
                continue;
            }
            served = state >> 16;
            spins = 0;
            self.begun[thread].entered.store(served, Ordering::Relaxed);
            self.keep_apart(thread);
            // SAFETY: this worker is inside, and the caller stays in `run`, where the job is kept, until it
            // has left. The caller stored the pointer before it opened the door, which was seen open with
            // acquire ordering.
            let job = unsafe { *self.door.job.load(Ordering::Relaxed) };
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| job(thread, served))) {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
            }
            self.door.state.fetch_sub(1, Ordering::AcqRel);
            stay::give_way();
        }
    }

    /// Leaves the caller its core: two of a team on one core wait for each other.
    fn keep_apart(&self, thread: usize) {
        let core = stay::core();
        if core == self.door.caller_on.load(Ordering::Relaxed) && core != NOWHERE {
            stay::change_to(self.door.left.load(Ordering::Relaxed));
        }
        self.begun[thread].on.store(stay::core(), Ordering::Relaxed);
    }

    /// Whether a thread that has served an epoch may enter.
    fn is_open(&self, thread: usize, state: u64, served: u64) -> bool {
        let asked = thread < self.at_once || state & WIDE != 0;
        asked && state & OPEN != 0 && state >> 16 != served
    }

    fn wait(&self, thread: usize, spins: &mut u32, served: u64) {
        if thread >= self.at_once {
            // The caller wakes it whenever it is asked, and waking one that has not yet gone to sleep is
            // remembered.
            std::thread::park();
            return;
        }
        *spins += 1;
        if *spins < SPINS {
            std::hint::spin_loop();
            return;
        }
        // Announce the sleep, look once more, and only then sleep: the caller first publishes the job and
        // then looks for sleepers, so one of the two sees the other.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let state = self.door.state.load(Ordering::SeqCst);
        if !self.is_open(thread, state, served) && !self.stop.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        *spins = 0;
    }
}

/// The start of a slice whose elements are handed to different threads.
struct Base<T>(*mut T);

#[expect(unsafe_code, reason = "see the safety comments")]
impl<T> Base<T> {
    /// SAFETY: `i` must be below the length of the slice.
    unsafe fn at(&self, i: usize) -> *mut T {
        // SAFETY: in bounds by the caller's promise.
        unsafe { self.0.add(i) }
    }
}
// SAFETY: `Team::each_with` gives each element to one thread at a time, and `T` is `Send` there.
#[expect(unsafe_code, reason = "see the safety comment")]
unsafe impl<T: Send> Sync for Base<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_for_any_number_of_threads() {
        for (threads, cores) in [(1, 1), (2, 2), (4, 4), (7, 7), (2, 1), (4, 2), (7, 3)] {
            let team = Team::with_cores(threads, cores).unwrap();
            let mut items = vec![0u64; 37];
            let mut scratch = vec![0u64; threads];
            for round in 0..250 {
                team.each_near(&mut items, |i, item| *item += i as u64 + 2 * round);
                team.each_with(&mut items, &mut scratch, |i, item, own| {
                    *item += i as u64 + 2 * round + 1;
                    *own += 1;
                });
                team.each(&mut items, |_, item| *item += 1);
            }
            assert_eq!(scratch.iter().sum::<u64>(), 37 * 250);
            for (i, item) in items.iter().enumerate() {
                assert_eq!(*item, 500 * i as u64 + 499 * 500 / 2 + 250);
            }
        }
    }

    #[test]
    fn what_a_worker_leaves_is_done_by_others() {
        let team = Team::with_cores(3, 3).unwrap();
        let me = std::thread::current().id();
        let (mut items, mut scratch) = (vec![0u32; 64], [(); 3]);
        for round in 1..=200 {
            let left = AtomicUsize::new(0);
            team.each_with(&mut items, &mut scratch, |_, item, ()| {
                *item += 1;
                if std::thread::current().id() != me {
                    left.fetch_add(1, Ordering::Relaxed);
                    stay::end();
                }
            });
            assert_eq!(items, [round; 64]);
            assert!(left.into_inner() <= 2, "a worker stays after its time is over");
        }
    }

    #[test]
    fn threads_beyond_the_cores_wait_with_others_and_do_not_compute() {
        let team = Team::with_cores(4, 2).unwrap();
        let mut scratch = [0u32; 4];
        let mut items = [(); 64];
        for _ in 0..3 {
            team.each_with(&mut items, &mut scratch, |_, (), own| {
                *own += 1;
                // Long enough for any other thread to come.
                (0..20_000).for_each(|_| std::hint::spin_loop());
            });
        }
        assert_eq!((scratch[0] + scratch[1], &scratch[2..]), (3 * 64, &[0, 0][..]));
        // Four that wait until all four have come.
        let here = std::sync::Barrier::new(4);
        team.each(&mut [(); 4], |_, ()| {
            here.wait();
        });
    }

    #[test]
    fn pairs_stay_together() {
        let team = Team::with_cores(3, 3).unwrap();
        let mut a: Vec<u32> = (0..50).collect();
        let mut b: Vec<u64> = vec![0; 50];
        team.each_zip(&mut a, &mut b, |i, a, b| {
            *b = u64::from(*a) * 10;
            *a += i as u32;
        });
        assert!((0..50).all(|i| a[i] == 2 * i as u32 && b[i] == 10 * i as u64));
    }

    #[test]
    fn a_piece_comes_back_to_its_thread_or_is_taken_from_one_that_sleeps() {
        let team = Team::with_cores(2, 2).unwrap();
        let me = std::thread::current().id();
        let mut by_me = [false; 2];
        // On a busy machine the worker sleeps for many rounds.
        let came = (0..1_000_000).any(|_| {
            team.each_near(&mut by_me, |_, by_me| *by_me = std::thread::current().id() == me);
            assert!(by_me[0], "the caller's own piece");
            !by_me[1]
        });
        assert!(came, "the worker has never come in time");
        std::thread::sleep(std::time::Duration::from_millis(20));
        team.each_near(&mut by_me, |_, by_me| *by_me = true); // and does not wait for ever
        assert_eq!(by_me, [true; 2]);
    }

    #[test]
    fn works_after_the_workers_fell_asleep() {
        let team = Team::with_cores(3, 3).unwrap();
        let mut items = vec![0u32; 8];
        for _ in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            team.each(&mut items, |_, x| *x += 1);
        }
        assert_eq!(items, vec![5; 8]);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_lives_on() {
        let team = Team::with_cores(2, 2).unwrap();
        let mut items = vec![0u32; 64];
        for bad in [0usize, 40] {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                team.each(&mut items, |i, _| assert!(i != bad, "piece {i} failed"));
            }));
            assert!(outcome.is_err());
        }
        items.fill(0);
        team.each(&mut items, |_, x| *x += 1);
        assert_eq!(items, vec![1; 64]);
    }
}
