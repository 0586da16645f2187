//! A database behind a circuit breaker: when it does not answer, nobody waits for it any more.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Append, CommitError, Deleted, Due, Found, JournalRecord, ReadError, Search, SessionKey, SessionStore, Store,
    StoreFault, Stored, Summary, SummaryOf, SurveyError,
};
use crate::breaker::{Breaker, BreakerSettings, Kind, Open};
use crate::idempotency::{Answer, Begin, IdempotencyError, IdempotencyKey, IdempotencyStore, Ticket};

/// How many failures in a row say that the database is away. Each of them has waited for its own time limit.
const FAILURES: u32 = 2;

/// A store behind a circuit breaker.
#[derive(Debug)]
pub struct GuardedStore {
    store: Arc<dyn Store>,
    breaker: Breaker,
}

/// Whether the database is away, for those who would do something else then.
#[derive(Debug, Clone, Default)]
pub struct DatabaseHealth {
    breaker: Option<Breaker>,
}

impl DatabaseHealth {
    /// Whether it did not answer and is not asked until it does. A database in this process's own files is never away.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.breaker.as_ref().is_some_and(Breaker::is_open)
    }

    /// Follows it: `true` while it is away. `None` for a database that never is.
    #[must_use]
    pub fn watch(&self) -> Option<tokio::sync::watch::Receiver<bool>> {
        self.breaker.as_ref().map(Breaker::watch)
    }
}

impl GuardedStore {
    /// Guards `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        let probed = Arc::clone(&store);
        let settings = BreakerSettings { failures: FAILURES, ..BreakerSettings::new("database") };
        let settings = BreakerSettings { probe_limit: std::time::Duration::from_secs(1), ..settings };
        let breaker = Breaker::new(settings, move || {
            let probed = Arc::clone(&probed);
            async move { probed.ping().await.is_ok() }
        });
        Self { store, breaker }
    }

    /// Whether it is away.
    #[must_use]
    pub fn health(&self) -> DatabaseHealth {
        DatabaseHealth { breaker: Some(self.breaker.clone()) }
    }
}

/// An error that may mean that the database is away.
trait Failure: Sized {
    fn fault(&self) -> Option<&StoreFault>;
    fn away(open: Open) -> Self;
}

impl Failure for CommitError {
    fn fault(&self) -> Option<&StoreFault> {
        match self {
            Self::Unavailable { fault } => Some(fault),
            Self::Conflict { .. } | Self::Overloaded { .. } | Self::Malformed { .. } => None,
        }
    }

    fn away(open: Open) -> Self {
        Self::Unavailable { fault: StoreFault::new("asking the database", open) }
    }
}

impl Failure for ReadError {
    fn fault(&self) -> Option<&StoreFault> {
        match self {
            Self::Unavailable { fault } => Some(fault),
            Self::Overloaded { .. } => None,
        }
    }

    fn away(open: Open) -> Self {
        Self::Unavailable { fault: StoreFault::new("asking the database", open) }
    }
}

impl Failure for SurveyError {
    fn fault(&self) -> Option<&StoreFault> {
        match self {
            Self::Read(error) => error.fault(),
            // The database is there, and busy with something large.
            Self::TooSlow => None,
        }
    }

    fn away(open: Open) -> Self {
        Self::Read(ReadError::away(open))
    }
}

impl Failure for IdempotencyError {
    fn fault(&self) -> Option<&StoreFault> {
        match self {
            Self::Unavailable { fault } => Some(fault),
            Self::Overloaded { .. } => None,
        }
    }

    fn away(open: Open) -> Self {
        Self::Unavailable { fault: StoreFault::new("asking the database", open) }
    }
}

impl GuardedStore {
    async fn guard<T, E: Failure>(&self, kind: Kind, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let attempt = self.breaker.admit(kind).map_err(E::away)?;
        let outcome = work.await;
        match outcome.as_ref().err().and_then(E::fault) {
            Some(fault) => drop(attempt.failed(fault)),
            None => attempt.succeeded(),
        }
        outcome
    }
}

#[async_trait]
impl SessionStore for GuardedStore {
    async fn commit(&self, change: Append) -> Result<(), CommitError> {
        self.guard(Kind::Writing, self.store.commit(change)).await
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, ReadError> {
        self.guard(Kind::Looking, self.store.load(key)).await
    }

    async fn journal(&self, key: &SessionKey, after_version: u64, limit: u32) -> Result<Vec<JournalRecord>, ReadError> {
        self.guard(Kind::Looking, self.store.journal(key, after_version, limit)).await
    }

    async fn versions(&self, keys: &[SessionKey]) -> Result<Vec<Option<u64>>, ReadError> {
        self.guard(Kind::Looking, self.store.versions(keys)).await
    }

    async fn claim_due(&self, now_ms: i64, lease_ms: i64, limit: u32) -> Result<Vec<Due>, ReadError> {
        self.guard(Kind::Looking, self.store.claim_due(now_ms, lease_ms, limit)).await
    }

    async fn delete_ended(&self, before_ms: i64, limit: u32) -> Result<Vec<Deleted>, ReadError> {
        self.guard(Kind::Looking, self.store.delete_ended(before_ms, limit)).await
    }

    async fn search(&self, search: &Search) -> Result<Vec<Found>, SurveyError> {
        self.guard(Kind::Looking, self.store.search(search)).await
    }

    async fn summary(&self, of: &SummaryOf) -> Result<Summary, SurveyError> {
        self.guard(Kind::Looking, self.store.summary(of)).await
    }

    async fn announce(&self, changes: &[(SessionKey, u64)]) -> Result<(), ReadError> {
        self.guard(Kind::Looking, self.store.announce(changes)).await
    }

    // Not guarded: whoever asks wants to know how it is now.
    async fn ping(&self) -> Result<(), ReadError> {
        self.store.ping().await
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

#[async_trait]
impl IdempotencyStore for GuardedStore {
    async fn begin(&self, key: IdempotencyKey, body_sha256: [u8; 32], now_ms: i64) -> Result<Begin, IdempotencyError> {
        self.guard(Kind::Writing, self.store.begin(key, body_sha256, now_ms)).await
    }

    async fn finish(&self, ticket: Ticket, answer: Answer) -> Result<(), IdempotencyError> {
        self.guard(Kind::Writing, self.store.finish(ticket, answer)).await
    }

    async fn abandon(&self, ticket: Ticket) -> Result<(), IdempotencyError> {
        self.guard(Kind::Looking, self.store.abandon(ticket)).await
    }

    async fn sweep(&self, now_ms: i64) -> Result<u64, IdempotencyError> {
        self.guard(Kind::Looking, self.store.sweep(now_ms)).await
    }
}
