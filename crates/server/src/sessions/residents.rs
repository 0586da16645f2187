//! The sessions in memory: each at most once, and all of them together within a number of bytes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use moka::notification::RemovalCause;
use moka::sync::Cache;

use super::freshness::Stamp;
use super::hosted::Hosted;
use crate::store::SessionKey;

/// How long a session that nobody uses stays in memory.
const IDLE: Duration = Duration::from_secs(15 * 60);

/// How long it is remembered that there is no session, and of how many.
const ABSENT_FOR: Duration = Duration::from_secs(5);
const ABSENT: u64 = 100_000;

/// The sessions in memory.
///
/// Whoever uses a session holds on to it, so it stays; of those that nobody uses, the ones stay that were used most and
/// latest, as many as fit.
#[derive(Debug)]
pub(super) struct Residents {
    by_key: Arc<ByKey>,
    kept: Cache<SessionKey, Arc<Hosted>>,
    /// Since when there is known to be no session.
    absent: Cache<SessionKey, Stamp>,
    /// How often one was wanted and was here as it is now, and how often it was not.
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Finds the one in memory, as long as there is one.
#[derive(Debug, Default)]
pub(super) struct ByKey {
    sessions: Mutex<HashMap<SessionKey, Weak<Hosted>>>,
}

impl Residents {
    /// `bytes`: how much memory sessions that nobody uses may take.
    pub(super) fn new(bytes: u64) -> Self {
        let weigh = |_: &SessionKey, hosted: &Arc<Hosted>| u32::try_from(hosted.bytes()).unwrap_or(u32::MAX);
        Self {
            by_key: Arc::default(),
            kept: Cache::builder()
                .max_capacity(bytes)
                .weigher(weigh)
                .time_to_idle(IDLE)
                .eviction_listener(|_, _, cause| count_eviction(cause))
                .build(),
            absent: Cache::builder().max_capacity(ABSENT).time_to_live(ABSENT_FOR).build(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// One was wanted.
    pub(super) fn count_use(&self, is_hit: bool) {
        if is_hit { &self.hits } else { &self.misses }.fetch_add(1, Ordering::Relaxed);
    }

    /// How often one was wanted and was here as it is now, and how often it was not.
    pub(super) fn uses(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// No longer keeps a session that nobody uses.
    pub(super) fn release(&self, key: &SessionKey) {
        self.absent.invalidate(key);
        self.kept.invalidate(key);
    }

    /// The session, if it is kept in memory.
    pub(super) fn kept(&self, key: &SessionKey) -> Option<Arc<Hosted>> {
        self.kept.get(key)
    }

    /// The session in memory, put there by `host` if it is not.
    pub(super) fn get_or_host(&self, key: &SessionKey, host: impl FnOnce(Weak<ByKey>) -> Arc<Hosted>) -> Arc<Hosted> {
        if let Some(hosted) = self.kept.get(key) {
            return hosted;
        }
        let mut sessions = self.by_key.lock();
        if let Some(hosted) = sessions.get(key).and_then(Weak::upgrade) {
            return hosted;
        }
        let hosted = host(Arc::downgrade(&self.by_key));
        sessions.insert(key.clone(), Arc::downgrade(&hosted));
        hosted
    }

    /// The session, if it is in memory.
    pub(super) fn get(&self, key: &SessionKey) -> Option<Arc<Hosted>> {
        self.by_key.lock().get(key).and_then(Weak::upgrade)
    }

    /// Every session in memory.
    pub(super) fn all(&self) -> Vec<Arc<Hosted>> {
        self.by_key.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Keeps a session that nobody may use for a while, or takes note of what it takes now.
    pub(super) fn keep(&self, hosted: &Arc<Hosted>) {
        self.absent.invalidate(hosted.key());
        self.kept.insert(hosted.key().clone(), Arc::clone(hosted));
    }

    /// There is no such session, as of `stamp`.
    pub(super) fn note_absence(&self, key: &SessionKey, stamp: Stamp) {
        self.absent.insert(key.clone(), stamp);
    }

    /// Whether there is known to be no such session, and nothing can have been missed since.
    pub(super) fn is_absent(&self, key: &SessionKey, stamp: Option<Stamp>) -> bool {
        self.absent.get(key).is_some_and(|noted| Some(noted) == stamp)
    }

    /// There may be one now.
    pub(super) fn forget_absence(&self, key: &SessionKey) {
        self.absent.invalidate(key);
    }

    /// How many are in memory, how many of them unused, and how many bytes the latter take.
    pub(super) fn counts(&self) -> (usize, u64, u64) {
        self.kept.run_pending_tasks();
        (self.by_key.lock().len(), self.kept.entry_count(), self.kept.weighted_size())
    }
}

fn count_eviction(cause: RemovalCause) {
    let cause = match cause {
        RemovalCause::Size => "size",
        RemovalCause::Expired => "idle",
        RemovalCause::Explicit | RemovalCause::Replaced => return,
    };
    metrics::counter!("throughline_evicted_sessions_total", "cause" => cause).increment(1);
}

impl ByKey {
    /// A session has left the memory.
    pub(super) fn left(&self, key: &SessionKey) {
        let mut sessions = self.lock();
        // Another one may have taken its place.
        if sessions.get(key).is_some_and(|known| known.strong_count() == 0) {
            sessions.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionKey, Weak<Hosted>>> {
        // Entries are inserted and removed whole, so a panic elsewhere leaves nothing half done.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
