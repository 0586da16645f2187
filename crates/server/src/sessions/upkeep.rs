//! What nobody asks for: bringing tails to the database, hearing what other servers tell, ending what is over, and making
//! up for what was missed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc;

use super::measures::{self, Reason};
use super::{Environment, Hosted, SessionError, Sessions};
use crate::problem::chain;
use crate::shared_cache::{CacheEvent, Outdated, Partition};
use crate::store::{Due, ListenerEvent, SessionKey};

/// How many overdue sessions one round ends, and for how long others leave them alone.
const DUE_BATCH: u32 = 200;
const DUE_LEASE_MS: i64 = 30_000;

/// How many of them at a time, so that a slow database has ended all before others take them.
const ENDED_AT_ONCE: usize = 32;

/// How long ending one of them may take.
const END_PATIENCE: Duration = Duration::from_secs(8);

/// A tail that nobody brought to the database for this long was left by a server that is gone. Whoever takes it over has
/// this long before another one does.
const ABANDONED_AFTER: Duration = Duration::from_secs(3);
const ADOPTION_LEASE: Duration = Duration::from_secs(5);
const ADOPTED_AT_ONCE: usize = 256;

/// How many sessions are compared with the database in one query.
const COMPARED_AT_ONCE: usize = 500;

impl Sessions {
    /// Brings what was accepted to the database; answers how many sessions that was tried for.
    ///
    /// Does nothing while the database is away: what waits is tried again when it is back.
    pub fn flush(&self) -> usize {
        let environment = &self.environment;
        let commands = environment.backlog.commands();
        metrics::gauge!("throughline_backlog_commands").set(commands as f64);
        if environment.database.is_away() {
            return 0;
        }
        let waiting = environment.backlog.take();
        waiting.iter().for_each(Hosted::flush);
        waiting.len()
    }

    /// Brings everything that was accepted to the database, as far as that is possible within `limit`; answers how many
    /// commands are left.
    pub async fn flush_all(&self, limit: Duration) -> usize {
        let backlog = &self.environment.backlog;
        let flushed = async {
            while backlog.commands() > 0 {
                self.flush();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(limit, flushed).await;
        backlog.commands()
    }

    /// Hears what other servers tell through the shared tier, until it is closed.
    pub async fn listen_to_cache(&self, mut events: mpsc::Receiver<CacheEvent>) {
        let mut waiting = None;
        loop {
            let event = match waiting.take() {
                Some(event) => event,
                None => match events.recv().await {
                    Some(event) => event,
                    None => return,
                },
            };
            metrics::gauge!("throughline_cache_events_waiting").set(events.len() as f64);
            match event {
                CacheEvent::Message { key, payload } => self.hear(&key, &payload),
                CacheEvent::Interrupted { .. } | CacheEvent::Restored { .. } => {
                    waiting = self.doubt(event, &mut events);
                }
            }
        }
    }

    /// Sessions whose link was interrupted are not believed any more. A Redis that goes away interrupts all partitions one
    /// after another, so what follows is taken together, up to the next message, which is returned.
    fn doubt(&self, first: CacheEvent, events: &mut mpsc::Receiver<CacheEvent>) -> Option<CacheEvent> {
        let (mut doubted, mut restored) = (HashSet::new(), HashSet::new());
        let mut next = Some(first);
        let message = loop {
            match next {
                Some(CacheEvent::Interrupted { partition }) => drop(doubted.insert(partition)),
                Some(CacheEvent::Restored { partition }) => {
                    doubted.insert(partition);
                    restored.insert(partition);
                }
                message => break message,
            }
            next = events.try_recv().ok();
        };
        for hosted in self.environment.residents.all() {
            if doubted.contains(&Partition::of(hosted.key())) {
                hosted.suspect(Reason::Link);
            }
        }
        if !restored.is_empty() {
            self.tell_again(&restored);
        }
        message
    }

    fn hear(&self, key: &SessionKey, payload: &[u8]) {
        let residents = &self.environment.residents;
        residents.forget_absence(key);
        if let Some(hosted) = residents.get(key) {
            hosted.hear(payload);
        }
    }

    /// What was told through the shared tier before may have reached nobody; the database reaches everybody.
    fn tell_again(&self, partitions: &HashSet<Partition>) {
        let environment = Arc::clone(&self.environment);
        let commits = environment.recently_written.of(partitions);
        if commits.is_empty() {
            return;
        }
        metrics::counter!("throughline_repeated_announcements_total").increment(commits.len() as u64);
        self.environment.tasks.spawn(async move {
            if let Err(error) = measures::database("announce", environment.store.announce(&commits)).await {
                tracing::warn!(error = %chain(&error), "other servers could not be told again of commits");
            }
        });
    }

    /// Hears what other servers tell through the database, until it is closed.
    pub async fn listen_to_database(&self, mut events: mpsc::Receiver<ListenerEvent>) {
        let Some(announcements) = &self.environment.announcements else { return };
        while let Some(event) = events.recv().await {
            match event {
                ListenerEvent::Up => {
                    announcements.restored();
                    metrics::gauge!("throughline_announcements_up").set(1.0);
                    self.environment.residents.all().iter().for_each(|hosted| hosted.suspect(Reason::Link));
                }
                ListenerEvent::Down => {
                    announcements.interrupted();
                    metrics::gauge!("throughline_announcements_up").set(0.0);
                }
                ListenerEvent::Changed { key, version } => self.hear_announcement(key, version).await,
            }
        }
    }

    /// Some server that can't reach the shared tier has committed.
    async fn hear_announcement(&self, key: SessionKey, version: u64) {
        let environment = &self.environment;
        environment.residents.forget_absence(&key);
        if let Some(hosted) = environment.residents.get(&key) {
            // What this server has announced itself comes back to it; and of two that write one version, the later one
            // hears of the other by its conflict.
            if hosted.written_version() < version {
                hosted.suspect(Reason::News);
            }
            return;
        }
        let Some(cache) = &environment.cache else { return };
        match cache.outdated(&key, version).await {
            // What waits there may not fit any more.
            Ok(Outdated::Tail { durable_version, .. }) if durable_version < version => self.adopt(key).await,
            Ok(_) => {}
            Err(fault) => {
                tracing::debug!(error = %chain(&fault), "an outdated session stays in the shared tier for now")
            }
        }
    }

    /// Makes up for what was missed or left behind by others. To be called every second.
    pub async fn make_up(&self) {
        self.measure();
        let environment = &self.environment;
        if environment.database.is_away() {
            return;
        }
        self.meet_others().await;
        self.compare_followed().await;
        let Some(cache) = environment.cache.as_ref().filter(|cache| cache.is_available()) else { return };
        match cache.take_abandoned(ABANDONED_AFTER, ADOPTION_LEASE, ADOPTED_AT_ONCE).await {
            Ok(abandoned) => {
                metrics::counter!("throughline_adopted_tails_total").increment(abandoned.len() as u64);
                for key in abandoned {
                    self.adopt(key).await;
                }
            }
            Err(fault) => tracing::debug!(error = %chain(&fault), "abandoned tails stay for now"),
        }
        for (key, version) in environment.unerased.take() {
            if let Err(fault) = cache.remove(&key, version).await {
                tracing::debug!(error = %chain(&fault), "an erased session stays in the shared tier for now");
                environment.unerased.add(key, version);
            }
        }
    }

    /// Finds out whether the other servers of the database hear this one.
    async fn meet_others(&self) {
        let environment = &self.environment;
        if environment.announcements.is_none() {
            return;
        }
        let redis = environment.cache.as_ref().map_or_else(String::new, |cache| cache.identity());
        let met = environment.store.others_elsewhere(&environment.name, &redis);
        match measures::database("others_elsewhere", met).await {
            Ok(others) => {
                // Who reaches no Redis knows already that it hears nothing there, and tells everybody through the database.
                let is_cut_off = environment.cache.is_some() && redis.is_empty();
                let others = if is_cut_off { 0 } else { others };
                metrics::gauge!("throughline_servers_elsewhere").set(others as f64);
                match (others > 0, environment.links.divide(others > 0)) {
                    (true, true) => tracing::error!(
                        others,
                        "other servers talk to another Redis, or another prefix there: what they change is not heard, and \
                         every read asks the database; give all the same --redis-url and --redis-prefix"
                    ),
                    (false, true) => tracing::info!("all servers talk to the same Redis"),
                    (_, false) => {}
                }
            }
            Err(error) => tracing::debug!(error = %chain(&error), "other servers can't be looked for now"),
        }
    }

    async fn adopt(&self, key: SessionKey) {
        match self.host(&key).await {
            Ok(hosted) => {
                // What is in memory here may be older than the tail that was left.
                if !hosted.is_unflushed() {
                    hosted.suspect(Reason::Adoption);
                    let _ = hosted.current().await;
                }
                hosted.flush();
            }
            Err(error) => tracing::warn!(error = %chain(&error), "a tail that was left behind can't be read now"),
        }
    }

    /// Sessions that somebody follows here, and of which changes may be missed just now, are compared with the database.
    async fn compare_followed(&self) {
        let environment = &self.environment;
        let is_watched = |hosted: &Arc<Hosted>| {
            hosted.is_followed() && (hosted.is_stale() || environment.links.stamp(hosted.key()).is_none())
        };
        let followed: Vec<Arc<Hosted>> = environment.residents.all().into_iter().filter(is_watched).collect();
        for some in followed.chunks(COMPARED_AT_ONCE) {
            let keys: Vec<SessionKey> = some.iter().map(|hosted| hosted.key().clone()).collect();
            match measures::database("versions", environment.store.versions(&keys)).await {
                Ok(versions) => {
                    for (hosted, version) in some.iter().zip(versions) {
                        if hosted.is_stale() || version.is_some_and(|version| version > hosted.durable_version()) {
                            hosted.suspect(Reason::Link);
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "followed sessions can't be compared now");
                    return;
                }
            }
        }
    }

    /// Ends sessions whose time is over, also those that nobody asks for; answers how many were looked at.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn end_overdue(&self) -> Result<usize, SessionError> {
        let Environment { store, clock, database, .. } = &*self.environment;
        if database.is_away() {
            return Ok(0);
        }
        let due = measures::database("claim_due", store.claim_due(clock.now_ms(), DUE_LEASE_MS, DUE_BATCH)).await?;
        let end = async |session: &Due| match self.host(&session.key).await {
            Ok(hosted) => {
                hosted.end_if_overdue(END_PATIENCE).await;
                Ok(0)
            }
            // Its neighbours must not wait for it. It is tried again when the lease is over.
            Err(SessionError::Unreadable(error)) => {
                tracing::debug!(error = %chain(&error), "an overdue session can't be ended");
                Ok(1)
            }
            Err(error) => Err(error),
        };
        let ended = futures_util::stream::iter(&due).map(end).buffer_unordered(ENDED_AT_ONCE);
        let unreadable: u64 = ended.try_fold(0, async |sum, unreadable| Ok(sum + unreadable)).await?;
        if unreadable > 0 {
            metrics::counter!("throughline_unreadable_sessions_total").increment(unreadable);
            tracing::warn!(sessions = unreadable, "overdue sessions can't be read, and so can't be ended");
        }
        Ok(due.len())
    }

    fn measure(&self) {
        let (hosted, kept, bytes) = self.environment.residents.counts();
        metrics::gauge!("throughline_hosted_sessions").set(hosted as f64);
        metrics::gauge!("throughline_kept_sessions").set(kept as f64);
        metrics::gauge!("throughline_kept_session_bytes").set(bytes as f64);
        let oldest = match self.environment.backlog.commands() {
            0 => Duration::ZERO,
            _ => self.environment.residents.all().iter().map(|hosted| hosted.unflushed_for()).max().unwrap_or_default(),
        };
        metrics::gauge!("throughline_backlog_oldest_seconds").set(oldest.as_secs_f64());
    }
}
