//! A bound on the log: what anybody can cause, or what is broken, could write the same line without end.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level};

/// How many lines one place in the code may write in which time.
const LINES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);

/// Lets twenty lines of each place in the code through in ten seconds. Of those that it withheld, the next line from the
/// same place is told of before it. Lines for whoever looks for a mistake (`debug`, `trace`) are not limited.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    places: Mutex<HashMap<Identifier, Place>>,
}

/// What one place has written.
#[derive(Debug, Clone, Copy)]
struct Place {
    since: Instant,
    lines: u32,
    withheld: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is written.
    Write {
        /// How many lines were withheld before.
        withheld: u64,
    },
    /// It is not.
    Withhold,
}

impl LogLimit {
    fn judge(&self, place: Identifier, now: Instant) -> Verdict {
        // Each change is whole, so a panic elsewhere leaves nothing half done.
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(place).or_insert(Place { since: now, lines: 0, withheld: 0 });
        if now.saturating_duration_since(place.since) >= WINDOW {
            *place = Place { since: now, lines: 0, ..*place };
        }
        if place.lines >= LINES {
            place.withheld += 1;
            return Verdict::Withhold;
        }
        place.lines += 1;
        Verdict::Write { withheld: std::mem::take(&mut place.withheld) }
    }
}

impl LogLimit {
    /// Whether the line of `event` is written.
    pub(super) fn judge_event(&self, event: &Event<'_>) -> Verdict {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return Verdict::Write { withheld: 0 };
        }
        let verdict = self.judge(metadata.callsite(), Instant::now());
        if verdict == Verdict::Withhold {
            metrics::counter!("throughline_log_lines_withheld_total").increment(1);
        }
        verdict
    }

    /// Tells, in a line of its own, of those that were withheld from the place of `event`.
    pub(super) fn tell_of(&self, withheld: u64, event: &Event<'_>) {
        if withheld == 0 {
            return;
        }
        let (place, line) = (event.metadata().target(), event.metadata().line());
        // Not within the span of a request, which only happens to be the next one.
        tracing::warn!(parent: None, place, line, lines = withheld, "lines like the next one were withheld");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_writes_twenty_lines_in_ten_seconds_and_then_tells_of_those_withheld() {
        let limit = LogLimit::default();
        let start = Instant::now();
        let (refused, other) = (place_of(|| tracing::warn!("refused")), place_of(|| tracing::warn!("other")));
        let judged = |place: &Identifier, seconds| limit.judge(place.clone(), start + Duration::from_secs(seconds));
        for _ in 0..LINES {
            assert_eq!(judged(&refused, 0), Verdict::Write { withheld: 0 });
        }
        assert_eq!([judged(&refused, 1), judged(&refused, 9)], [Verdict::Withhold; 2]);
        assert_eq!(judged(&other, 9), Verdict::Write { withheld: 0 }, "each place for itself");
        assert_eq!(judged(&refused, 10), Verdict::Write { withheld: 2 });
        assert_eq!(judged(&refused, 10), Verdict::Write { withheld: 0 });
    }

    /// Where in the code `log` writes its line.
    fn place_of(log: impl FnOnce()) -> Identifier {
        use tracing::Subscriber;
        use tracing_subscriber::Layer;
        use tracing_subscriber::layer::{Context, SubscriberExt as _};

        struct Catch(std::sync::mpsc::Sender<Identifier>);
        impl<S: Subscriber> Layer<S> for Catch {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                self.0.send(event.metadata().callsite()).unwrap();
            }
        }

        let (caught, place) = std::sync::mpsc::channel();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Catch(caught)), log);
        place.recv().unwrap()
    }
}
