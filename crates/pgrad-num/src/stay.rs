//! How a team gets on beside other programs.
//!
//! A core that others want too is taken from a thread every few milliseconds. In the middle of a piece of
//! work that costs the whole team that time: the others finish the rest of the job and then wait for the one
//! piece. So
//! - a worker that was taken off its core keeps count of how long it is left there, and offers the core
//!   shortly before, between two pieces, when nobody waits for it ([`look`], [`give_way`]);
//! - the caller, without whom there is no next job, changes cores with a worker when it is taken off its own
//!   ([`change_to`]).
//!
//! What is computed depends on neither.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Pieces seldom take longer; whoever was off its core was so for longer.
const LONG: Duration = Duration::from_micros(300);
/// No scheduler takes turns faster.
const SHORTEST: Duration = Duration::from_millis(1);
/// After so many offers that nobody took, nobody wants the core any more.
const OFFERS: u32 = 50;

/// A thread's time on its core.
#[derive(Clone, Copy, Debug)]
struct Stay {
    /// When it came, and the thread's processor time then.
    since: Instant,
    used: Duration,
    /// When it last looked.
    last: Instant,
    /// How long it is left there while others want the core; none that want it are known of otherwise.
    allowed: Option<Duration>,
    /// How often in a row nobody took the core when it was offered.
    unwanted: u32,
}

thread_local! {
    static STAY: Cell<Option<Stay>> = const { Cell::new(None) };
}

/// What a thread finds when it looks at the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It may stay.
    Stay,
    /// It should leave soon, before its core is taken.
    Leave,
    /// Its core was taken from it since it last looked.
    WasAway,
}

#[expect(clippy::disallowed_methods, reason = "it only decides when a thread leaves its core")]
fn now() -> Instant {
    Instant::now()
}

/// Processor time of this thread.
#[cfg(unix)]
fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Elsewhere nothing is counted, and no thread ever leaves.
#[cfg(not(unix))]
fn used() -> Duration {
    Duration::ZERO
}

impl Stay {
    fn begin(now: Instant) -> Self {
        Self { since: now, used: used(), last: now, allowed: None, unwanted: 0 }
    }
    fn again(self, now: Instant) -> Self {
        Self { allowed: self.allowed, unwanted: self.unwanted, ..Self::begin(now) }
    }
    /// The core was offered, and `taken` or not.
    fn after_offer(&mut self, taken: bool) {
        if taken {
            self.unwanted = 0;
            // A stay that was cut short by chance does not count for ever.
            self.allowed = self.allowed.map(|allowed| allowed + allowed / 200);
        } else {
            self.unwanted += 1;
            self.allowed = self.allowed.filter(|_| self.unwanted < OFFERS);
        }
    }
    fn is_over(&self) -> bool {
        self.allowed.is_some_and(|allowed| self.last - self.since > allowed * 7 / 8)
    }
    /// What there is to see at `now`, when the thread has `used` so much of the processor.
    fn look(&mut self, now: Instant, used: impl FnOnce() -> Duration) -> Look {
        let last = std::mem::replace(&mut self.last, now);
        if cfg!(unix) && now - last > LONG {
            // A thread that works, or waits for work, uses its core. Where it did not, it was away.
            let used = used();
            let away = (now - self.since).saturating_sub(used.saturating_sub(self.used));
            if away > LONG {
                let stayed = (last - self.since).max(SHORTEST);
                *self = Self { since: now, used, last: now, allowed: Some(stayed), unwanted: 0 };
                return Look::WasAway;
            }
        }
        if self.is_over() { Look::Leave } else { Look::Stay }
    }
}

/// Looks at the clock, after a piece of work.
pub(crate) fn look() -> Look {
    let now = now();
    let mut stay = STAY.get().unwrap_or_else(|| Stay::begin(now));
    let look = stay.look(now, used);
    STAY.set(Some(stay));
    look
}

/// Before a job: begins anew, if the thread may have slept since it last looked.
pub(crate) fn come() {
    let now = now();
    let stay = match STAY.get() {
        Some(stay) if now - stay.last < LONG => Stay { last: now, ..stay },
        Some(stay) => stay.again(now),
        None => Stay::begin(now),
    };
    STAY.set(Some(stay));
}

/// Offers the core to others, if it will be taken soon. If nobody takes it, nobody wants it.
pub(crate) fn give_way() {
    let Some(stay) = STAY.get().filter(Stay::is_over) else { return };
    let before = now();
    std::thread::yield_now();
    let after = now();
    let mut next = stay.again(after);
    next.after_offer(after - before > LONG);
    STAY.set(Some(next));
}

/// The core that this thread is on.
#[cfg(target_os = "linux")]
pub(crate) fn core() -> usize {
    rustix::thread::sched_getcpu()
}

/// Moves this thread to another core without tying it to that one: to `wanted`, if it may run there.
#[cfg(target_os = "linux")]
pub(crate) fn change_to(wanted: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let here = core();
    let others = (here + 1..CpuSet::MAX_CPU).chain(0..here);
    let other = std::iter::once(wanted)
        .filter(|core| *core < CpuSet::MAX_CPU && *core != here)
        .chain(others)
        .find(|core| allowed.is_set(*core));
    if let Some(other) = other {
        let mut there = CpuSet::new();
        there.set(other);
        // Where the system refuses, all stays as it is.
        let _ = sched_setaffinity(None, &there).and_then(|()| sched_setaffinity(None, &allowed));
    }
}

/// Elsewhere the system decides.
#[cfg(not(target_os = "linux"))]
pub(crate) fn core() -> usize {
    NOWHERE
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn change_to(_: usize) {}

/// No core.
pub(crate) const NOWHERE: usize = usize::MAX;

/// For tests: this thread's time on its core is over.
#[cfg(test)]
pub(crate) fn end() {
    let mut stay = Stay::begin(now());
    stay.allowed = Some(Duration::ZERO);
    STAY.set(Some(stay));
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A thread that looks every tenth of a millisecond, and uses its core for all of `ms`; what it found.
    fn works(stay: &mut Stay, ms: u32) -> Vec<Look> {
        let looks = (0..10 * ms).map(|_| {
            let (now, used) = (stay.last + MS / 10, stay.used + (stay.last + MS / 10 - stay.since));
            stay.look(now, || used)
        });
        looks.filter(|look| *look != Look::Stay).collect()
    }

    #[test]
    fn a_thread_that_loses_its_core_offers_it_shortly_before_the_next_time() {
        let mut stay = Stay::begin(now());
        assert_eq!(works(&mut stay, 100), [], "alone it never leaves");
        // A piece that takes long is none that waited.
        let (now, used) = (stay.last + 20 * MS, stay.used + (stay.last + 20 * MS - stay.since));
        assert_eq!(stay.look(now, || used), Look::Stay);
        // 8 ms on the core, 4 ms off it.
        let mut stay = Stay::begin(now);
        works(&mut stay, 8);
        let (now, used) = (stay.last + 4 * MS, stay.used + 8 * MS);
        assert_eq!(stay.look(now, || used), Look::WasAway);
        assert_eq!(stay.allowed, Some(8 * MS));
        assert_eq!(works(&mut stay, 7), []);
        assert_eq!(works(&mut stay, 1), [Look::Leave; 10], "from seven eighths of the time on");
    }

    #[test]
    fn a_core_that_nobody_takes_is_not_offered_for_ever() {
        let mut stay = Stay { allowed: Some(4 * MS), ..Stay::begin(now()) };
        (1..OFFERS).for_each(|_| stay.after_offer(false));
        stay.after_offer(true);
        assert_eq!(stay.allowed, Some(4 * MS + MS / 50), "a little longer each time that it is taken");
        (1..OFFERS).for_each(|_| stay.after_offer(false));
        assert!(stay.allowed.is_some());
        stay.after_offer(false);
        assert_eq!(stay.allowed, None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_that_changes_its_core_is_not_tied_to_it() {
        use rustix::thread::sched_getaffinity;
        let allowed = sched_getaffinity(None).unwrap();
        let cores = (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).count();
        // Elsewhere it may be moved again before it looks.
        let moved = (0..1000).any(|_| {
            let here = core();
            change_to(NOWHERE);
            core() != here
        });
        assert_eq!(moved, cores > 1);
        assert!(sched_getaffinity(None).unwrap() == allowed);
    }
}
