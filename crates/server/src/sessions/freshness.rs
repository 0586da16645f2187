//! Whether what this process remembers of a session is still the latest.
//!
//! Servers tell each other what they change: through the shared tier, and through the database where that is away. What
//! is in memory is as good as the database's as long as nothing of this can have been missed. Servers that talk to different
//! Redis processes, by mistake or while a failover is not complete, learn that from the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::shared_cache::SharedCache;
use crate::store::SessionKey;

/// The links on which this process hears of changes that others make.
#[derive(Debug)]
pub(super) struct Links {
    cache: Option<Arc<SharedCache>>,
    announcements: Option<Arc<Announcements>>,
    /// Other servers talk to another Redis than this one.
    divided: AtomicBool,
    divisions: AtomicU64,
}

/// During which uninterrupted time of the links something was read. The same stamp later means: nothing was missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    cache: u64,
    announcements: u64,
    divisions: u64,
}

/// The link on which the database tells of changes.
#[derive(Debug, Default)]
pub struct Announcements {
    up: AtomicBool,
    generation: AtomicU64,
}

impl Announcements {
    /// From now on nothing is missed.
    pub(super) fn restored(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.up.store(true, Ordering::SeqCst);
    }

    /// From now on changes are missed.
    pub(super) fn interrupted(&self) {
        self.up.store(false, Ordering::SeqCst);
    }
}

impl Links {
    pub(super) fn new(cache: Option<Arc<SharedCache>>, announcements: Option<Arc<Announcements>>) -> Self {
        Self { cache, announcements, divided: AtomicBool::new(false), divisions: AtomicU64::new(0) }
    }

    /// Other servers talk to another Redis, or do not any more; whether that is new.
    pub(super) fn divide(&self, divided: bool) -> bool {
        // Before it is seen to be over.
        self.divisions.fetch_add(u64::from(divided), Ordering::SeqCst);
        self.divided.swap(divided, Ordering::SeqCst) != divided
    }

    /// The present stamp; `None` while changes may be missed.
    pub(super) fn stamp(&self, key: &SessionKey) -> Option<Stamp> {
        let cache = match &self.cache {
            Some(cache) => Some(cache.link(key)).filter(|link| link.up)?.generation,
            None => 0,
        };
        let announcements = match &self.announcements {
            Some(link) => {
                let generation = link.generation.load(Ordering::SeqCst);
                // Also while the database is away from here and the shared tier is not: another server may reach the one and
                // not the other, and goes on there.
                link.up.load(Ordering::SeqCst).then_some(generation)?
            }
            None => 0,
        };
        let divisions = self.divisions.load(Ordering::SeqCst);
        (!self.divided.load(Ordering::SeqCst)).then_some(Stamp { cache, announcements, divisions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::TenantId;

    fn key() -> SessionKey {
        SessionKey { tenant: TenantId::single(), session_id: "ws_1".to_owned() }
    }

    #[test]
    fn a_single_server_misses_nothing() {
        let links = Links::new(None, None);
        assert!(links.stamp(&key()).is_some());
        assert_eq!(links.stamp(&key()), links.stamp(&key()));
    }

    #[test]
    fn nothing_is_believed_while_others_talk_elsewhere() {
        let links = Links::new(None, None);
        let before = links.stamp(&key());
        assert!(links.divide(true) && !links.divide(true), "it is told of once");
        assert_eq!(links.stamp(&key()), None);
        assert!(links.divide(false));
        assert!(links.stamp(&key()).is_some() && links.stamp(&key()) != before);
    }

    #[test]
    fn what_was_read_before_an_interruption_is_not_the_latest_after_it() {
        let announcements = Arc::new(Announcements::default());
        let links = Links::new(None, Some(Arc::clone(&announcements)));
        assert_eq!(links.stamp(&key()), None, "nobody tells anything yet");
        announcements.restored();
        let before = links.stamp(&key());
        assert!(before.is_some());
        announcements.interrupted();
        assert_eq!(links.stamp(&key()), None);
        announcements.restored();
        assert!(links.stamp(&key()).is_some() && links.stamp(&key()) != before);
    }
}
