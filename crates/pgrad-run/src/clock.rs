//! The only place that reads a clock.
//!
//! Durations and deadlines come from [`Clock::now`], which is monotonic: a jump of the wall clock (NTP,
//! daylight saving, a user's hand) cannot make a rate negative or a deadline late. The wall clock is a
//! label on folders and log lines and never enters a calculation.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point of wall time, UTC, as a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct WallTime {
    /// Time since 1970-01-01T00:00:00Z, leap seconds not counted.
    pub since_epoch: Duration,
}

impl WallTime {
    /// The label of a number of whole seconds since 1970.
    #[must_use]
    pub fn from_unix_secs(secs: u64) -> Self {
        Self { since_epoch: Duration::from_secs(secs) }
    }
    /// Seconds since 1970, with their fraction.
    #[must_use]
    pub fn unix_secs(self) -> f64 {
        self.since_epoch.as_secs_f64()
    }
    /// `20261122-171930`, for names of folders.
    #[must_use]
    pub fn compact(self) -> String {
        let (y, mo, d, h, mi, s) = self.civil();
        format!("{y:04}{mo:02}{d:02}-{h:02}{mi:02}{s:02}")
    }
    /// Year, month, day, hour, minute, second in the Gregorian calendar.
    fn civil(self) -> (u64, u64, u64, u64, u64, u64) {
        let secs = self.since_epoch.as_secs();
        let (mut days, of_day) = (secs / 86_400, secs % 86_400);
        // A year is counted from March here, so that the leap day is its last day; day 0 is 0000-03-01.
        days += 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        (year, month, day, of_day / 3_600, of_day / 60 % 60, of_day % 60)
    }
}

/// RFC 3339, whole seconds: `2026-11-22T17:19:30Z`.
impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (y, mo, d, h, mi, s) = self.civil();
        write!(f, "{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}Z")
    }
}

/// Time, as the rest of the crate sees it.
pub trait Clock: Send + Sync {
    /// Time since the clock was made. Never goes back.
    fn now(&self) -> Duration;
    /// The wall clock, for labels only.
    fn wall(&self) -> WallTime;
    /// The wall clock as text, UTC: `2026-11-22T17:19:30Z`.
    fn wall_label(&self) -> String {
        self.wall().to_string()
    }
}

/// The clocks of the operating system.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this type is the door to the monotonic clock")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
    #[expect(clippy::disallowed_methods, reason = "this type is the door to the wall clock")]
    fn wall(&self) -> WallTime {
        // A wall clock before 1970 is a wrong clock; the label then says 1970.
        WallTime { since_epoch: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
    }
}

/// A clock that stands still until it is moved, for tests.
#[derive(Debug, Default)]
pub struct ManualClock {
    state: Mutex<(Duration, WallTime)>,
}

impl ManualClock {
    /// A clock at 0 with this wall time.
    #[must_use]
    pub fn new(wall: WallTime) -> Self {
        Self { state: Mutex::new((Duration::ZERO, wall)) }
    }
    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let mut s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        s.0 += by;
        s.1.since_epoch += by;
    }
    /// Sets the wall clock alone, to any time: a jump.
    pub fn set_wall(&self, wall: WallTime) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = wall;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0
    }
    fn wall(&self) -> WallTime {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Each pair comes from `date -u -d @SECONDS +%FT%TZ`.
    #[test]
    fn labels_agree_with_the_calendar() {
        for (secs, label) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (1_795_367_970, "2026-11-22T17:19:30Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(WallTime::from_unix_secs(secs).to_string(), label);
        }
        assert_eq!(WallTime::from_unix_secs(1_795_367_970).compact(), "20261122-171930");
    }

    #[test]
    fn a_jump_of_the_wall_clock_leaves_durations_alone() {
        let clock = ManualClock::new(WallTime::from_unix_secs(1_000_000));
        clock.advance(Duration::from_secs(3));
        clock.set_wall(WallTime::from_unix_secs(10));
        clock.advance(Duration::from_secs(2));
        assert_eq!(clock.now(), Duration::from_secs(5));
        assert_eq!(clock.wall_label(), "1970-01-01T00:00:12Z");
    }

    #[test]
    fn the_system_clock_never_goes_back() {
        let clock = SystemClock::new();
        let mut last = clock.now();
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        assert!(clock.wall().unix_secs() > 1.7e9);
    }
}
