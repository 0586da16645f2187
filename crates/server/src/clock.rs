//! Where the time comes from, so that everything else takes it as an argument.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A source of wall-clock time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    fn now_ms(&self) -> i64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        // A clock set before 1970 reads as 1970: tokens are then refused as not yet valid,
        // which is the safe side.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
    }
}

/// A clock that stands still until it is moved. For tests.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that reads `now_ms`.
    #[must_use]
    pub fn at(now_ms: i64) -> Self {
        Self(AtomicI64::new(now_ms))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(millis(by), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A duration in whole milliseconds; one too long for an `i64` becomes the longest there is.
#[must_use]
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// `at_ms` as RFC 3339 in UTC with milliseconds, as it appears in tokens and messages.
#[must_use]
pub fn rfc3339(at_ms: i64) -> String {
    let since_epoch = Duration::from_millis(u64::try_from(at_ms).unwrap_or(0));
    // humantime panics beyond the year 9999; a time that far away is shown as its last moment.
    const LAST_MS: u64 = 253_402_300_799_999;
    let capped = since_epoch.min(Duration::from_millis(LAST_MS));
    humantime::format_rfc3339_millis(UNIX_EPOCH + capped).to_string()
}

/// Reads an RFC 3339 time in UTC back into milliseconds.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let time = humantime::parse_rfc3339(text).ok()?;
    let elapsed = time.duration_since(UNIX_EPOCH).ok()?;
    Some(millis(elapsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_being_written_and_read() {
        for at_ms in [0, 1, 1_700_000_000_123, 253_402_300_799_999] {
            assert_eq!(parse_rfc3339(&rfc3339(at_ms)), Some(at_ms));
        }
    }

    #[test]
    fn times_outside_the_calendar_are_capped_instead_of_panicking() {
        assert_eq!(rfc3339(-5), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
