//! Where sessions are kept: a journal per session, and its current state.
//!
//! A store does not know what a session is. It keeps opaque bytes and decides one thing, the
//! order of writes: of two commits that expect the same version, exactly one succeeds.
//!
//! Each implementation passes the same suite, `conformance.rs`.
//!
//! [`open`] chooses by the address: one file of SQLite for one server, PostgreSQL for several.

mod audit;
#[cfg(test)]
#[allow(missing_docs)] // Each function's name says what it checks.
pub(crate) mod conformance;
mod database;
pub mod group_commit;
pub mod guarded;
pub mod inspection;
mod lifecycle;
mod log_mark;
pub mod memory;
mod memory_webhooks;
mod migrations;
pub mod postgres;
mod postgres_audit;
mod postgres_batch;
mod postgres_connect;
mod postgres_lifecycle;
pub mod postgres_listener;
mod postgres_pool;
mod postgres_route_migration;
mod postgres_webhooks;
mod postgres_writer;
mod route_migration;
mod service_keys;
pub mod sqlite;
mod sqlite_audit;
mod sqlite_file;
mod sqlite_jobs;
mod sqlite_lifecycle;
mod sqlite_route_migration;
mod sqlite_webhooks;
mod sqlite_writer;
pub mod survey;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::audit::AuditRecord;
use crate::encryption::WrappedKey;
use crate::idempotency::{IdempotencyError, IdempotencyStore};
use crate::tenant::TenantId;

pub use audit::AuditStore;
pub use database::{DatabaseSettings, DatabaseUrl, DatabaseUrlError, OpenError, migrate, open};
pub use guarded::{DatabaseHealth, GuardedStore, Guards};
pub use lifecycle::{EventQuery, EventStore, OutboxEvent, StoredEvent};
pub use log_mark::{LogMark, Settling};
pub use migrations::{AppliedMigration, MigrationError};
pub use postgres_listener::{ChangeListener, ListenerEvent};
pub use route_migration::{
    Comparison, Difference, FieldParity, ModeOfRoute, OTHERS, ParityCounts, RouteMigrationStore, RouteMode,
    RouteModeError, RouteParity,
};
pub use service_keys::{Revocation, ServiceKeyChanges, ServiceKeyStore, StoredServiceKey, USES_APART};
pub use survey::{Found, Group, Lifetimes, Position, Search, Summary, SummaryOf, SurveyError, TimeRange};
pub use webhooks::{
    DeliveryNote, DeliveryTry, Disabled, StoredWebhook, TRIES_KEPT, WaitingCount, WaitingDelivery, WebhookChange,
    WebhookProgress, WebhookStore,
};

/// Names one session of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// Whose session it is.
    pub tenant: TenantId,
    /// The session's id, as the client knows it.
    pub session_id: String,
}

/// One entry of a session's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRecord {
    /// The version that the session has after it. The first one is 1.
    pub version: u64,
    /// What happened, opaque to the store. Empty once the history was purged.
    pub blob: Vec<u8>,
}

/// What operators may search by. Never holds personal data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operational {
    /// The session's status.
    pub status: String,
    /// The step that the buyer is at.
    pub step: String,
    /// Which funnel it runs through.
    pub funnel_id: String,
    /// Which version of that funnel it is pinned to.
    pub funnel_version: String,
    /// When it was created, in milliseconds since 1970.
    pub created_at_ms: i64,
    /// When it last changed.
    pub updated_at_ms: i64,
    /// When it expires.
    pub expires_at_ms: i64,
    /// When the funnel was completed, if it was.
    pub completed_at_ms: Option<i64>,
    /// Since when it is over, if it is.
    pub ended_at_ms: Option<i64>,
    /// Until when it may be neither erased nor deleted, if it is held; the end of all time where that is open.
    pub held_until_ms: Option<i64>,
    /// When something must be done about it without being asked, if anything must.
    pub deadline_at_ms: Option<i64>,
    /// Whether its personal data was erased.
    pub erased: bool,
    /// ISO 4217 code of `amount_minor`.
    pub currency: String,
    /// What it costs, in minor units.
    pub amount_minor: i64,
    /// A keyed hash of the email address, if there is one: never the address itself.
    pub email_digest: Option<Vec<u8>>,
}

/// A change to one session, committed as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Which session.
    pub key: SessionKey,
    /// The version that this change was decided on; 0 means that the session must not exist.
    pub expected_version: u64,
    /// At least one record; versions follow on `expected_version` without a gap.
    pub records: Vec<JournalRecord>,
    /// The state after the last record, opaque to the store.
    pub state: Vec<u8>,
    /// What operators may search by.
    pub columns: Operational,
    /// Empties the blobs of all earlier records, in the same transaction: erasure.
    pub purge_history: bool,
    /// The session's data key. With each commit, so that it never stands beside what another one encrypts.
    pub data_key: Box<WrappedKey>,
    /// What the audit log is to say of it, written in the same transaction.
    pub audit: Vec<AuditRecord>,
    /// What other systems are to be told of it, written in the same transaction.
    pub events: Vec<OutboxEvent>,
    /// Tells the other servers of this database that the session changed, in the same transaction. Costs the database
    /// more than the change itself, so it is for when there is no better way. A database of one server ignores it.
    pub announce: bool,
}

/// A session as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its version.
    pub version: u64,
    /// Its state, opaque to the store.
    pub state: Vec<u8>,
    /// Its data key.
    pub data_key: WrappedKey,
}

/// A session whose data key is wrapped anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrapped {
    /// Which session.
    pub key: SessionKey,
    /// The version that it must still have.
    pub version: u64,
    /// Its data key as it was.
    pub old: WrappedKey,
    /// The same one, wrapped anew.
    pub new: WrappedKey,
    /// The hash of its email address with the new root key.
    pub email_digest: Option<Vec<u8>>,
}

/// A session about which something must be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Which session.
    pub key: SessionKey,
    /// Since when, in milliseconds since 1970.
    pub deadline_at_ms: i64,
}

/// A session that was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// Which session.
    pub key: SessionKey,
    /// The last version that it had.
    pub version: u64,
}

/// A session that is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// Which one, at which version.
    pub session: Deleted,
    /// What the audit log is to say of it, written in the same transaction.
    pub audit: AuditRecord,
    /// What other systems are to be told of it, written in the same transaction.
    pub event: OutboxEvent,
}

/// For how long sessions that are over are kept: those that ended before these times are to go, in milliseconds since 1970, by
/// what they ended as. `None` keeps all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EndedBefore {
    /// Completed ones.
    pub completed_ms: Option<i64>,
    /// Failed ones.
    pub failed_ms: Option<i64>,
    /// Expired ones.
    pub expired_ms: Option<i64>,
}

/// What went wrong below the store. Shared, because one fault fails a whole batch.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{during} failed")]
pub struct StoreFault {
    during: &'static str,
    #[source]
    cause: Arc<dyn std::error::Error + Send + Sync>,
}

impl StoreFault {
    /// The fault `cause`, met while doing `during`.
    pub fn new(during: &'static str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { during, cause: Arc::from(cause.into()) }
    }

    /// What was met.
    fn cause(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.cause
    }
}

/// Why a change was not committed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// Someone else's change came first.
    #[error("the session is at version {current_version}, not at the one that the change was decided on")]
    Conflict {
        /// The version that it is at; 0 when it does not exist.
        current_version: u64,
    },
    /// The database did not take it. Whether it will be found there is not known: ask for
    /// the version before doing it again.
    #[error("the database is not available; try again when it is")]
    Unavailable {
        /// What went wrong, for the log.
        #[source]
        fault: StoreFault,
    },
    /// Too many changes are waiting. This one was not even begun.
    #[error("too many changes are waiting to be written; try again in {} ms", retry_after.as_millis())]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The change contradicts itself: a mistake in the calling code.
    #[error("the change cannot be stored: {detail}")]
    Malformed {
        /// What is wrong with it.
        detail: &'static str,
    },
}

/// Why nothing could be read, claimed or deleted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The database did not answer.
    #[error("the database is not available; try again when it is")]
    Unavailable {
        /// What went wrong, for the log.
        #[source]
        fault: StoreFault,
    },
    /// All connections for reading are busy.
    #[error("too many reads are waiting; try again in {} ms", retry_after.as_millis())]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
}

impl From<IdempotencyError> for ReadError {
    /// The same fault, met by something that is written on the way of a read.
    fn from(error: IdempotencyError) -> Self {
        match error {
            IdempotencyError::Unavailable { fault } => Self::Unavailable { fault },
            IdempotencyError::Overloaded { retry_after } => Self::Overloaded { retry_after },
        }
    }
}

/// All that a database keeps: sessions, answers to idempotent requests, the audit log, the outbox of lifecycle events, webhooks,
/// service keys, and how a shop moves here.
pub trait Store:
    SessionStore
    + IdempotencyStore
    + AuditStore
    + EventStore
    + WebhookStore
    + ServiceKeyStore
    + RouteMigrationStore
    + 'static
{
}

impl<S> Store for S where
    S: SessionStore
        + IdempotencyStore
        + AuditStore
        + EventStore
        + WebhookStore
        + ServiceKeyStore
        + RouteMigrationStore
        + 'static
{
}

/// A place that keeps sessions.
#[async_trait]
pub trait SessionStore: Send + Sync + std::fmt::Debug {
    /// Commits `change`. When this returns `Ok`, the change survives a crash of the machine.
    ///
    /// Dropping the future neither undoes nor halves the commit.
    ///
    /// # Errors
    /// See [`CommitError`]; after a conflict nothing of the change is kept.
    async fn commit(&self, change: Append) -> Result<(), CommitError>;

    /// The session as it was last committed, if it exists.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, ReadError>;

    /// At most `limit` records after `after_version`, in order.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn journal(&self, key: &SessionKey, after_version: u64, limit: u32) -> Result<Vec<JournalRecord>, ReadError>;

    /// The versions of several sessions at once, in the order of `keys`; `None` for one that does not exist.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn versions(&self, keys: &[SessionKey]) -> Result<Vec<Option<u64>>, ReadError>;

    /// At most `limit` sessions of all tenants whose deadline has come, the oldest first.
    ///
    /// They are the caller's for `lease_ms`: nobody else is given them meanwhile. A commit to the session ends that; a
    /// caller that does nothing about them lets them be given again.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn claim_due(&self, now_ms: i64, lease_ms: i64, limit: u32) -> Result<Vec<Due>, ReadError>;

    /// At most `limit` sessions that ended before these times, did not change since, and are not held at `now_ms`; the ones
    /// that ended first come first.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn ended(&self, before: EndedBefore, now_ms: i64, limit: u32) -> Result<Vec<Deleted>, ReadError>;

    /// Deletes those of these sessions that are at these versions still, with their journals and the answers that tell of
    /// them. Returns which.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn delete(&self, deletions: Vec<Deletion>) -> Result<Vec<Deleted>, ReadError>;

    /// At most `limit` sessions of all tenants whose data keys are wrapped by this root key, in the order of their keys,
    /// from the one after `after` on.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn wrapped_by(
        &self,
        root_key_id: &str,
        after: Option<&SessionKey>,
        limit: u32,
    ) -> Result<Vec<(SessionKey, Stored)>, ReadError>;

    /// Replaces data keys that are still as they were, in sessions that have not changed; answers how many.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn rewrap(&self, rewrapped: &[Rewrapped]) -> Result<u64, ReadError>;

    /// The root keys by which data keys of sessions are wrapped. Quick, however many sessions there are.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn root_keys(&self) -> Result<Vec<String>, ReadError>;

    /// How many sessions have data keys that are wrapped by each root key.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn sessions_by_root_key(&self) -> Result<Vec<(String, u64)>, ReadError>;

    /// The sessions that match, the latest one first.
    ///
    /// # Errors
    /// See [`SurveyError`].
    async fn search(&self, search: &Search) -> Result<Vec<Found>, SurveyError>;

    /// Sums over the sessions of one tenant that were created in some time.
    ///
    /// # Errors
    /// See [`SurveyError`].
    async fn summary(&self, of: &SummaryOf) -> Result<Summary, SurveyError>;

    /// Tells the other servers of this database that sessions are at these versions, without changing anything. It is
    /// a hint, and may be lost. A database of one server has nobody to tell.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn announce(&self, _changes: &[(SessionKey, u64)]) -> Result<(), ReadError> {
        Ok(())
    }

    /// Notes down that `server` uses this database and talks to `redis` (empty where it reaches none); answers how many other
    /// servers have lately talked to another one. To be called every second. A database of one server has no others.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn others_elsewhere(&self, _server: &str, _redis: &str) -> Result<u64, ReadError> {
        Ok(0)
    }

    /// Whether reads are possible at all.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn ping(&self) -> Result<(), ReadError>;

    /// Writes what is waiting and lets go of the database. Later commits are refused.
    async fn close(&self);
}

/// Asks for the root keys of all sessions. It goes from each one to the next one in the index, instead of looking at all rows.
pub(crate) const ROOT_KEYS: &str = "WITH RECURSIVE found (id) AS (
        SELECT min(root_key_id) FROM sessions
        UNION ALL
        SELECT (SELECT min(root_key_id) FROM sessions WHERE root_key_id > found.id) FROM found WHERE found.id IS NOT NULL)
     SELECT id FROM found WHERE id IS NOT NULL";

/// Asks for sessions that are over for long enough. A bound for all of them is what the index is asked for.
pub(crate) const ENDED: &str = "SELECT tenant, session_id, version FROM sessions
     WHERE ended_at_ms < $1
        AND ended_at_ms < CASE status WHEN 'completed' THEN $2 WHEN 'failed' THEN $3 ELSE $4 END
        AND (held_until_ms IS NULL OR held_until_ms <= $5)
     ORDER BY ended_at_ms LIMIT $6";

impl EndedBefore {
    /// The latest of the times, then each, as they are asked for.
    pub(crate) fn bounds(self) -> [i64; 4] {
        let [completed, failed, expired] =
            [self.completed_ms, self.failed_ms, self.expired_ms].map(|at_ms| at_ms.unwrap_or(i64::MIN));
        [completed.max(failed).max(expired), completed, failed, expired]
    }
}

/// All statuses that a session can have.
pub(crate) const STATUSES: [&str; 5] = ["pending", "processing", "completed", "failed", "expired"];

impl Append {
    /// Checks what no database should have to find out.
    pub(crate) fn check(&self) -> Result<(), CommitError> {
        let malformed = |detail| Err(CommitError::Malformed { detail });
        if self.records.is_empty() {
            return malformed("it has no journal record");
        }
        if i64::try_from(self.new_version()).is_err() {
            return malformed("its version is beyond what the database can count");
        }
        let mut last = self.expected_version;
        for record in &self.records {
            // Cannot overflow: the last version is within `i64`.
            last += 1;
            if record.version != last {
                return malformed("its records do not follow on the expected version without a gap");
            }
        }
        Ok(())
    }

    /// The version after this change.
    #[must_use]
    pub fn new_version(&self) -> u64 {
        self.expected_version.saturating_add(self.records.len() as u64)
    }
}
