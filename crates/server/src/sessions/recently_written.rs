//! What this process has lately told the others through the shared tier, to be told again where that may not have reached
//! them: after a failover, a server finds out late that for a while it talked to a Redis that nobody else listened to.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::shared_cache::Partition;
use crate::store::SessionKey;

/// For how long it is remembered, and how much of it.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
const REMEMBERED: usize = 50_000;

/// The latest commits, the oldest first.
#[derive(Debug, Default)]
pub(super) struct RecentlyWritten {
    commits: Mutex<VecDeque<(Instant, SessionKey, u64)>>,
}

impl RecentlyWritten {
    pub(super) fn note(&self, key: &SessionKey, version: u64) {
        let mut commits = self.commits();
        let now = Instant::now();
        while commits.len() >= REMEMBERED
            || commits.front().is_some_and(|(since, ..)| now.duration_since(*since) > REMEMBERED_FOR)
        {
            commits.pop_front();
        }
        commits.push_back((now, key.clone(), version));
    }

    /// The latest version of each session of these partitions that was committed.
    pub(super) fn of(&self, partitions: &HashSet<Partition>) -> Vec<(SessionKey, u64)> {
        let mut latest = HashMap::new();
        for (_, key, version) in &*self.commits() {
            if partitions.contains(&Partition::of(key)) {
                latest.insert(key.clone(), *version);
            }
        }
        latest.into_iter().collect()
    }

    fn commits(&self) -> MutexGuard<'_, VecDeque<(Instant, SessionKey, u64)>> {
        // Pushing and popping are whole.
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
