//! What was found in Redis and is not ours, or damaged: counted always, logged once per kind.

use std::sync::atomic::{AtomicBool, Ordering};

use super::partition::Partition;

/// What was found damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A key of another type, format, or without the fields it needs.
    Foreign,
    Snapshot,
    TailEntry,
    /// A name in the list of unflushed sessions.
    Member,
    /// Something on a channel.
    Message,
}

impl Kind {
    const COUNT: usize = 5;

    fn name(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Snapshot => "snapshot",
            Self::TailEntry => "tail_entry",
            Self::Member => "member",
            Self::Message => "message",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Corruption {
    told: [AtomicBool; Kind::COUNT],
}

impl Corruption {
    pub(super) fn found(&self, kind: Kind, partition: Partition) {
        metrics::counter!("throughline_cache_corrupt_total", "kind" => kind.name()).increment(1);
        if !self.told[kind as usize].swap(true, Ordering::Relaxed) {
            tracing::warn!(
                kind = kind.name(),
                %partition,
                "found something in Redis that is damaged or not ours; it is ignored and replaced. \
                 Does something else use this Redis and prefix? Further ones are only counted"
            );
        }
    }
}
