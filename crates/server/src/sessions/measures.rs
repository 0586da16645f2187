//! What sessions measure. Reading from memory takes a microsecond or so, so what is measured there is looked up once.

use std::time::Instant;

use metrics::{Counter, Histogram, counter, histogram};
use tracing::Instrument as _;

use crate::store::{CommitError, ReadError, SurveyError};
use crate::telemetry::spans;

/// Why a session in memory is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Somebody asked while changes may have been missed.
    Read,
    /// A link was interrupted, or a comparison with the database found a difference.
    Link,
    /// Another server told of something that does not follow on what is here.
    News,
    /// Another server was first.
    Conflict,
    /// A tail was left behind.
    Adoption,
    /// The rules want it.
    Other,
}

impl Reason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Link => "link",
            Self::News => "news",
            Self::Conflict => "conflict",
            Self::Adoption => "adoption",
            Self::Other => "other",
        }
    }

    /// Counts a session that is read again for it.
    pub(super) fn count_reload(self) {
        counter!("throughline_reloads_total", "reason" => self.as_str()).increment(1);
    }
}

/// Where something that followers are told comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Accepted here.
    Here,
    /// Told by another server.
    There,
}

/// The measures of all sessions.
#[derive(Debug)]
pub(super) struct Measures {
    memory_hits: Counter,
    memory_misses: Counter,
    memory_seconds: Histogram,
    known_absent: Counter,
    stale_reads: Counter,
    told_here: Histogram,
    told_there: Histogram,
}

impl Measures {
    /// Looks them up in the recorder that there is now.
    pub(super) fn new() -> Self {
        Self {
            memory_hits: counter!("throughline_tier_reads_total", "tier" => "memory", "outcome" => "hit"),
            memory_misses: counter!("throughline_tier_reads_total", "tier" => "memory", "outcome" => "miss"),
            memory_seconds: histogram!("throughline_tier_seconds", "tier" => "memory", "operation" => "read"),
            known_absent: counter!("throughline_known_absent_total"),
            stale_reads: counter!("throughline_stale_reads_total"),
            told_here: histogram!("throughline_fanout_seconds", "origin" => "here"),
            told_there: histogram!("throughline_fanout_seconds", "origin" => "there"),
        }
    }

    /// A session was wanted, and was in memory and the latest, or not.
    pub(super) fn memory(&self, is_hit: bool) {
        if is_hit { &self.memory_hits } else { &self.memory_misses }.increment(1);
    }

    /// A session was read from memory alone.
    pub(super) fn read_from_memory(&self, begun: Instant) {
        self.memory(true);
        self.memory_seconds.record(begun.elapsed());
    }

    /// A session was known not to exist.
    pub(super) fn known_absent(&self) {
        self.known_absent.increment(1);
    }

    /// A session was shown as it was last known.
    pub(super) fn stale_read(&self) {
        self.stale_reads.increment(1);
    }

    /// Followers here were told of something.
    pub(super) fn told(&self, origin: Origin, begun: Instant) {
        let told = match origin {
            Origin::Here => &self.told_here,
            Origin::There => &self.told_there,
        };
        told.record(begun.elapsed());
    }
}

/// How a call of the database ended, for its label.
pub(super) trait Fault {
    /// The label.
    fn outcome(&self) -> &'static str;
}

impl Fault for ReadError {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Overloaded { .. } => "overloaded",
        }
    }
}

impl Fault for SurveyError {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Read(error) => error.outcome(),
            Self::TooSlow => "slow",
        }
    }
}

impl Fault for CommitError {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "conflict",
            Self::Unavailable { .. } => "unavailable",
            Self::Overloaded { .. } => "overloaded",
            Self::Malformed { .. } => "refused",
        }
    }
}

/// Measures a call of the database.
pub(super) async fn database<T, E: Fault>(
    operation: &'static str,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let begun = Instant::now();
    let span = spans::database(operation);
    let ended = call.instrument(span.clone()).await;
    let outcome = ended.as_ref().err().map_or("ok", Fault::outcome);
    histogram!("throughline_tier_seconds", "tier" => "database", "operation" => operation).record(begun.elapsed());
    counter!("throughline_database_calls_total", "operation" => operation, "outcome" => outcome).increment(1);
    spans::ended(&span, outcome, ended.is_err() && outcome != "conflict");
    ended
}
