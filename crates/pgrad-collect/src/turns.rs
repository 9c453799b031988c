//! Whose turn it is at the shared parameters.

use pgrad_model::AgentError;
use std::sync::PoisonError;

#[cfg(loom)]
use loom::{sync::Mutex, thread::yield_now};
#[cfg(not(loom))]
use std::{sync::Mutex, thread::yield_now};

/// Whose turn it is: the order in which actor-learners copy the shared parameters and change them.
///
/// Without anything, everyone takes a turn when he likes, at the same time as others, without locks. A
/// recording lets one in at a time and writes down who it was; a replay lets everyone in just as it was
/// recorded, so that the same numbers come out bit for bit.
#[derive(Debug)]
pub struct Turns(Mode);

#[derive(Debug)]
enum Mode {
    Free,
    Record(Mutex<Vec<u8>>),
    Replay(Mutex<Replay>),
}

#[derive(Debug)]
struct Replay {
    turns: Vec<u8>,
    next: usize,
    /// Who has no more turns in this iteration.
    done: Vec<bool>,
}

impl Turns {
    /// Everyone takes a turn when he likes.
    #[must_use]
    pub fn free() -> Self {
        Self(Mode::Free)
    }
    /// One at a time, written down.
    #[must_use]
    pub fn record() -> Self {
        Self(Mode::Record(Mutex::default()))
    }
    /// As written down in `turns`: the numbers of `workers` actor-learners.
    #[must_use]
    pub fn replay(turns: Vec<u8>, workers: usize) -> Self {
        Self(Mode::Replay(Mutex::new(Replay { turns, next: 0, done: vec![false; workers] })))
    }
    /// The turns so far, when they are written down.
    #[must_use]
    pub fn recorded(&self) -> Option<Vec<u8>> {
        match &self.0 {
            Mode::Record(turns) => Some(turns.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            _ => None,
        }
    }
    /// The number of turns so far of a recording or a replay.
    #[must_use]
    pub fn taken(&self) -> u64 {
        match &self.0 {
            Mode::Free => 0,
            Mode::Record(turns) => turns.lock().unwrap_or_else(PoisonError::into_inner).len() as u64,
            Mode::Replay(replay) => replay.lock().unwrap_or_else(PoisonError::into_inner).next as u64,
        }
    }
    /// Goes on after the turns `recorded` (of a recording), or after the first `taken` (of a replay).
    pub fn set(&self, recorded: &[u8], taken: u64) {
        match &self.0 {
            Mode::Free => {}
            Mode::Record(turns) => {
                *turns.lock().unwrap_or_else(PoisonError::into_inner) = recorded.to_vec();
            }
            Mode::Replay(replay) => {
                let mut replay = replay.lock().unwrap_or_else(PoisonError::into_inner);
                replay.next = usize::try_from(taken).unwrap_or(usize::MAX).min(replay.turns.len());
            }
        }
    }
    /// An iteration begins: everyone may have turns again.
    pub fn begin(&self) {
        if let Mode::Replay(replay) = &self.0 {
            replay.lock().unwrap_or_else(PoisonError::into_inner).done.fill(false);
        }
    }
    /// Runs `act` in the next turn of `worker`; `None` when `over` says that there is none.
    ///
    /// # Errors
    /// When a replay has no turn left for it: the recording ends, or the run is another one.
    pub fn take<T>(
        &self,
        worker: usize,
        over: impl Fn() -> bool,
        act: impl FnOnce() -> T,
    ) -> Result<Option<T>, AgentError> {
        match &self.0 {
            Mode::Free => Ok((!over()).then(act)),
            Mode::Record(turns) => {
                let mut turns = turns.lock().unwrap_or_else(PoisonError::into_inner);
                if over() {
                    return Ok(None);
                }
                turns.push(worker as u8);
                Ok(Some(act()))
            }
            Mode::Replay(replay) => loop {
                let mut replay = replay.lock().unwrap_or_else(PoisonError::into_inner);
                if over() {
                    replay.done[worker] = true;
                    return Ok(None);
                }
                let (turn, turns) = (replay.next, replay.turns.len());
                let stop = |reason| Err(AgentError::Replay { turn, turns, reason });
                let Some(next) = replay.turns.get(turn).map(|w| usize::from(*w)) else {
                    return stop(
                        "the recording ends before the run: train for as many steps as were \
                        recorded",
                    );
                };
                if next == worker {
                    let done = act();
                    replay.next += 1;
                    return Ok(Some(done));
                }
                if replay.done.get(next).is_none_or(|done| *done) {
                    return stop("the run differs from what was recorded: is the environment the same?");
                }
                drop(replay);
                yield_now();
            },
        }
    }
}

/// Models: every interleaving of the threads.
#[cfg(test)]
#[cfg(loom)]
mod models {
    use super::*;
    use loom::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        thread,
    };

    /// Two actor-learners take `rounds` turns each and count them as only one that is alone can: read, then
    /// write.
    fn race(turns: Turns, rounds: usize) -> (Arc<Turns>, Vec<Vec<usize>>, usize) {
        let (turns, count) = (Arc::new(turns), Arc::new(AtomicUsize::new(0)));
        let worker = |w: usize| {
            let (turns, count) = (Arc::clone(&turns), Arc::clone(&count));
            thread::spawn(move || {
                let mut mine = Vec::new();
                for _ in 0..rounds {
                    let act = || {
                        let before = count.load(Relaxed);
                        count.store(before + 1, Relaxed);
                        before
                    };
                    mine.push(turns.take(w, || false, act).unwrap().unwrap());
                }
                assert!(turns.take(w, || true, || ()).unwrap().is_none());
                mine
            })
        };
        let workers = [worker(0), worker(1)];
        let places = workers.into_iter().map(|w| w.join().unwrap()).collect();
        let count = count.load(Relaxed);
        (turns, places, count)
    }

    #[test]
    fn loom_a_recording_lets_one_in_at_a_time_and_says_who_it_was() {
        loom::model(|| {
            let (turns, places, count) = race(Turns::record(), 2);
            assert_eq!(count, 4);
            let recorded = turns.recorded().unwrap();
            let found: Vec<Vec<usize>> =
                (0..2).map(|w| (0..4).filter(|i| recorded[*i] == w).collect()).collect();
            assert_eq!(places, found);
        });
    }

    #[test]
    fn loom_a_replay_is_followed_in_every_interleaving() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let (turns, places, count) = race(Turns::replay(vec![1, 0, 0, 1], 2), 2);
            assert_eq!((count, turns.taken()), (4, 4));
            assert_eq!(places, [vec![1, 2], vec![0, 3]]);
        });
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    /// Three threads that take `ROUNDS` turns each and write down in which order.
    fn run(turns: &Turns) -> Vec<Result<(), AgentError>> {
        const ROUNDS: usize = 30;
        let log = Mutex::new(Vec::new());
        let count = AtomicUsize::new(0);
        let one = |worker: usize| {
            for _ in 0..ROUNDS {
                let act = || {
                    count.fetch_add(1, SeqCst);
                    log.lock().unwrap().push(worker as u8);
                };
                turns.take(worker, || false, act)?;
            }
            turns.take(worker, || true, || panic!("it is over")).map(|none| assert!(none.is_none()))
        };
        let outcomes = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|w| scope.spawn(move || one(w))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        if let Some(recorded) = turns.recorded() {
            assert_eq!(recorded, *log.lock().unwrap());
            assert_eq!(recorded.len(), 3 * ROUNDS);
        }
        outcomes
    }

    #[test]
    fn a_replay_follows_the_recording() {
        let turns = Turns::record();
        assert!(run(&turns).iter().all(Result::is_ok));
        let recorded = turns.recorded().unwrap();
        let replay = Turns::replay(recorded.clone(), 3);
        assert!(run(&replay).iter().all(Result::is_ok));
        assert_eq!((replay.taken(), replay.recorded()), (90, None));
        // Another order is kept, too: it is the recording's, not the scheduler's.
        let sorted: Vec<u8> = (0..90).map(|i| 2 - i / 30).collect();
        let replay = Turns::replay(sorted, 3);
        replay.begin();
        assert!(run(&replay).iter().all(Result::is_ok));
    }

    #[test]
    fn what_cannot_be_followed_is_an_error_and_no_deadlock() {
        let short = run(&Turns::replay(vec![0, 1, 2], 3));
        assert!(
            short.iter().all(|r| matches!(r, Err(AgentError::Replay { turn: 3, turns: 3, .. }))),
            "{short:?}"
        );
        let mut stranger = vec![0; 30];
        stranger.extend([1; 30]);
        stranger.extend([7; 30]);
        let outcomes = run(&Turns::replay(stranger, 3));
        assert!(outcomes[0].is_ok() && outcomes[1].is_ok(), "{outcomes:?}");
        assert!(matches!(outcomes[2], Err(AgentError::Replay { turn: 60, .. })), "{outcomes:?}");
    }

    #[test]
    fn a_recording_goes_on_where_it_was() {
        let turns = Turns::record();
        turns.set(&[2, 0, 1], 3);
        turns.take(1, || false, || ()).unwrap();
        assert_eq!((turns.recorded().unwrap(), turns.taken()), (vec![2, 0, 1, 1], 4));
    }
}
