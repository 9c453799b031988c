//! Signals that ask to stop.

use crate::failure::{Code, Failure, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXCPU, SIGXFSZ};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long the part of the work that is going on may take to its end after the first signal. Saving comes on
/// top.
const GRACE: Duration = Duration::from_secs(3);
/// How often is looked whether a signal came.
const TICK: Duration = Duration::from_millis(100);

/// A flag that the first signal sets which asks to stop: of a person or a scheduler (INT, TERM, USR1), of a
/// terminal that goes away (HUP), of a limit of processor time (XCPU). A second one ends the process with 128
/// + its number.
///
/// A limit of file sizes (XFSZ) fails the write that reached it and ends nothing by itself.
pub(crate) fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let wrong = |signal, e| Failure::new(Code::Io, format!("cannot listen to signal {signal}: {e}"));
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGXCPU] {
        // `nohup` and shells make a program deaf to a signal on purpose.
        if signal == SIGHUP && is_ignored(signal) {
            continue;
        }
        // In this order: the first signal must not find the flag that it sets itself.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(|e| wrong(signal, e))?;
    }
    let unused = Arc::new(AtomicBool::new(false));
    flag::register(SIGXFSZ, unused).map_err(|e| wrong(SIGXFSZ, e))?;
    Ok(stop)
}

/// Whether this process was started with the signal ignored; where the system does not say, it was not.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// Calls `overdue` when `stop` was set and this is still there after [`GRACE`]; dropping it in time prevents
/// that.
pub(crate) struct Deadline {
    done: Arc<AtomicBool>,
}

impl Deadline {
    pub(crate) fn new(stop: &Arc<AtomicBool>, overdue: impl FnOnce() + Send + 'static) -> Result<Self> {
        let (done, stop) = (Arc::new(AtomicBool::new(false)), Arc::clone(stop));
        let over = Arc::clone(&done);
        let watch = move || {
            let is_set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
            while !is_set(&stop) {
                if is_set(&over) {
                    return;
                }
                thread::sleep(TICK);
            }
            for _ in 0..GRACE.as_millis() / TICK.as_millis() {
                if is_set(&over) {
                    return;
                }
                thread::sleep(TICK);
            }
            if !is_set(&over) {
                overdue();
            }
        };
        thread::Builder::new()
            .name("deadline".into())
            .spawn(watch)
            .map_err(|e| Failure::new(Code::Io, format!("cannot start a thread: {e}")))?;
        Ok(Self { done })
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}
