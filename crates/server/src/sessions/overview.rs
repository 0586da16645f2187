//! What is known of many sessions: lists, sums, the memory tier as a whole; and what is done to many: forgetting and
//! reading them again, and deleting what was kept for long enough.

use std::time::Duration;

use throughline_core::State;

use super::measures::{self, Reason};
use super::shared_tier;
use super::stored::{deletion_event, deletion_record, open_session};
use super::{Retention, SessionError, Sessions};
use crate::clock::millis;
use crate::email_lookup::EmailLookup;
use crate::problem::chain;
use crate::store::{
    Deleted, Deletion, EndedBefore, Found, Position, Search, SessionKey, Summary, SummaryOf, SurveyError,
};

/// How many sessions are deleted at a time, so that each time is quick.
const DELETED_AT_ONCE: u32 = 200;

/// A session in a list, as the database has it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its place in the list, with its id.
    pub position: Position,
    /// The session; `None` where it can't be read: it was written by another version, or is damaged.
    pub state: Option<State>,
}

/// The memory tier of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryStatistics {
    /// Sessions in memory.
    pub sessions: usize,
    /// Those that are kept for whoever comes next.
    pub kept: u64,
    /// How many bytes the latter take, about.
    pub kept_bytes: u64,
    /// How often one was wanted and was here as it is now, since the start.
    pub hits: u64,
    /// How often it was not.
    pub misses: u64,
    /// Commands that the database does not have yet.
    pub backlog: usize,
}

impl Sessions {
    /// With which sessions are found by email address.
    #[must_use]
    pub fn email_lookup(&self) -> &EmailLookup {
        &self.environment.email_lookup
    }

    /// The sessions that match, as the database has them: what was accepted ahead of it may be missing for a second.
    ///
    /// # Errors
    /// See [`SurveyError`].
    pub async fn search(&self, search: &Search) -> Result<Vec<Listed>, SurveyError> {
        let found = measures::database("search", self.environment.store.search(search)).await?;
        let listed = found.into_iter().map(|Found { position, stored }| {
            let key = SessionKey { tenant: search.tenant.clone(), session_id: position.session_id.clone() };
            // One of them must not hide all the others.
            let opened = open_session(&key, stored, &self.environment.keys).map(|(state, _)| state);
            let state = opened.inspect_err(|error| {
                tracing::error!(error = %chain(error), session_id = position.session_id, "a session in a list can't be read");
            });
            Listed { position, state: state.ok() }
        });
        Ok(listed.collect())
    }

    /// Sums over sessions, as the database has them.
    ///
    /// # Errors
    /// See [`SurveyError`].
    pub async fn summary(&self, of: &SummaryOf) -> Result<Summary, SurveyError> {
        measures::database("summary", self.environment.store.summary(of)).await
    }

    /// The memory tier of this process.
    #[must_use]
    pub fn statistics(&self) -> MemoryStatistics {
        let residents = &self.environment.residents;
        let ((sessions, kept, kept_bytes), (hits, misses)) = (residents.counts(), residents.uses());
        let backlog = self.environment.backlog.commands();
        MemoryStatistics { sessions, kept, kept_bytes, hits, misses, backlog }
    }

    /// Has the session read from the database again, here and in the shared tier; whether there is one.
    ///
    /// What was accepted and is not in the database yet stays: it is not a copy of anything.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn invalidate(&self, key: &SessionKey) -> Result<bool, SessionError> {
        let environment = &self.environment;
        let stored = measures::database("load", environment.store.load(key)).await?;
        let is_there = stored.is_some();
        match stored {
            Some(stored) => {
                let (state, cipher) = open_session(key, stored, &environment.keys)?;
                environment.tier.correct(key, &state, &cipher).await;
            }
            None => self.forget_vanished(key).await,
        }
        environment.residents.release(key);
        if let Some(hosted) = environment.residents.get(key) {
            hosted.suspect(Reason::Other);
            hosted.current().await?;
        }
        Ok(is_there)
    }

    /// The database has no such session; what the shared tier has of it goes, unless commands wait there.
    async fn forget_vanished(&self, key: &SessionKey) {
        let environment = &self.environment;
        let (Some(cache), shared_tier::Found::Session { view, .. }) =
            (&environment.cache, environment.tier.load(key).await)
        else {
            return;
        };
        if view.tail.is_empty()
            && let Err(fault) = cache.remove(key, view.state.version()).await
        {
            tracing::debug!(error = %chain(&fault), "a session that is gone stays in the shared tier for now");
        }
    }

    /// Reads the session into memory; whether there is one.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn warm(&self, key: &SessionKey) -> Result<bool, SessionError> {
        Ok(self.current(key).await?.is_some())
    }

    /// Deletes sessions that have been over and unchanged for as long as they are to be kept, from all tiers; answers how many.
    ///
    /// Several servers may do this at the same time: each session goes once.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn delete_kept_for(&self, retention: Retention) -> Result<usize, SessionError> {
        let environment = &self.environment;
        let mut count = 0;
        // It can wait: what is deleted while the shared tier is away would still be found there afterwards.
        let is_possible = || {
            let has_cache = environment.cache.as_ref().is_none_or(|cache| cache.is_available());
            has_cache && !environment.database.is_away()
        };
        while is_possible() {
            let now_ms = environment.clock.now_ms();
            let before = |kept: Option<Duration>| kept.map(|kept| now_ms.saturating_sub(millis(kept)));
            let before = EndedBefore {
                completed_ms: before(retention.completed),
                failed_ms: before(retention.failed),
                expired_ms: before(retention.expired),
            };
            let looking = environment.store.ended(before, now_ms, DELETED_AT_ONCE);
            let ended = measures::database("ended", looking).await?;
            let is_last = ended.len() < DELETED_AT_ONCE as usize;
            let mut deletions = Vec::with_capacity(ended.len());
            for session in ended {
                let audit = deletion_record(&session, &environment.keys, now_ms)?;
                let event = deletion_event(&session, now_ms)?;
                deletions.push(Deletion { session, audit, event });
            }
            let deleted = measures::database("delete", environment.store.delete(deletions)).await?;
            self.forget_deleted(&deleted).await;
            count += deleted.len();
            metrics::counter!("throughline_deleted_sessions_total").increment(deleted.len() as u64);
            // Of what others delete or change at the same time, the next round sees to the rest.
            if is_last || deleted.is_empty() {
                break;
            }
        }
        Ok(count)
    }

    async fn forget_deleted(&self, deleted: &[Deleted]) {
        let environment = &self.environment;
        for Deleted { key, version } in deleted {
            environment.residents.release(key);
            if let Some(hosted) = environment.residents.get(key) {
                hosted.suspect(Reason::Other);
            }
            if let Some(cache) = &environment.cache
                && let Err(fault) = cache.remove(key, *version).await
            {
                tracing::debug!(error = %chain(&fault), "a deleted session stays in the shared tier for now");
                environment.unerased.add(key.clone(), *version);
            }
        }
        // To the other servers a deletion is a change that they have missed; when they look, there is nothing.
        let changes: Vec<(SessionKey, u64)> =
            deleted.iter().map(|deleted| (deleted.key.clone(), deleted.version.saturating_add(1))).collect();
        if !changes.is_empty()
            && let Err(error) = measures::database("announce", environment.store.announce(&changes)).await
        {
            tracing::warn!(error = %chain(&error), "other servers could not be told of deleted sessions");
        }
    }
}
