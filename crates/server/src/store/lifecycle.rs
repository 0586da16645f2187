//! The outbox: lifecycle events, each written in the transaction of the change that it tells of, and read in one order by whoever
//! passes them on.

use async_trait::async_trait;
use throughline_core::LifecycleKind;

use super::{LogMark, ReadError};
use crate::tenant::TenantId;

/// A lifecycle event that is written with its change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEvent {
    /// Names it for ever: whoever is told twice knows it by this.
    pub id: String,
    /// What happened.
    pub kind: LifecycleKind,
    /// The session's version right after it.
    pub version: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// What is told, as JSON. Holds no personal data.
    pub body: String,
}

/// A lifecycle event as the outbox has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place in the order of all events. There are gaps, and another tenant's are among them.
    pub position: u64,
    /// The session that it is about.
    pub session_id: String,
    /// The event.
    pub event: OutboxEvent,
}

/// Which events are wanted of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventQuery {
    /// Whose.
    pub tenant: TenantId,
    /// Those after this position,
    pub after: u64,
    /// and up to this one.
    pub through: u64,
    /// Of these kinds; empty for all.
    pub kinds: Vec<LifecycleKind>,
    /// At most so many.
    pub limit: u32,
}

/// A place that keeps lifecycle events. They come with [`Append`](super::Append) and [`Deletion`](super::Deletion).
#[async_trait]
pub trait EventStore: Send + Sync + std::fmt::Debug {
    /// How far the outbox is; see [`LogMark`]. `settled`: up to where it is known to be whole already; where there is nothing
    /// new since, the mark costs next to nothing.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn event_mark(&self, settled: u64) -> Result<LogMark, ReadError>;

    /// Events in the order of their positions.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, ReadError>;

    /// The position up to which a tenant's events are forgotten; 0 where all are there still.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn events_forgotten(&self, tenant: &TenantId) -> Result<u64, ReadError>;

    /// The position of the first event of a tenant that happened at this time or later, in milliseconds since 1970, if there is one.
    /// Times follow positions as far as clocks agree, and commits are not late.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn first_event_since(&self, tenant: &TenantId, at_ms: i64) -> Result<Option<u64>, ReadError>;

    /// Forgets at most `limit` events of each tenant that are older than this, the oldest first; how many.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn forget_events(&self, before_ms: i64, limit: u32) -> Result<u64, ReadError>;
}

/// Asks for the position up to which events are forgotten.
pub(super) const FORGOTTEN: &str = "SELECT through_position FROM lifecycle_horizons WHERE tenant = $1";

/// Asks for the first of those events that come next after a time.
pub(super) const FIRST_SINCE: &str = "SELECT min(position) FROM (
        SELECT position FROM lifecycle_events WHERE tenant = $1 AND at_ms >= $2 ORDER BY at_ms, position LIMIT 1000) AS next";

/// Asks for all tenants with events. It goes from each one to the next one in the index, instead of looking at all rows.
pub(super) const TENANTS_WITH_EVENTS: &str = "WITH RECURSIVE told (tenant) AS (
        SELECT min(tenant) FROM lifecycle_events
        UNION ALL
        SELECT (SELECT min(tenant) FROM lifecycle_events WHERE tenant > told.tenant) FROM told WHERE told.tenant IS NOT NULL)
     SELECT tenant FROM told WHERE tenant IS NOT NULL";

/// Asks for events. The kinds are one text, with a space around each; an empty one stands for all.
pub(super) const EVENTS: &str = "SELECT position, session_id, id, kind, version, at_ms, body FROM lifecycle_events
     WHERE tenant = $1 AND position > $2 AND position <= $3 AND ($4 = '' OR $4 LIKE '% ' || kind || ' %')
     ORDER BY position LIMIT $5";

/// The kinds as [`EVENTS`] wants them.
pub(super) fn kinds_text(kinds: &[LifecycleKind]) -> String {
    if kinds.is_empty() {
        return String::new();
    }
    kinds.iter().fold(" ".to_owned(), |text, kind| text + kind.as_str() + " ")
}

/// An event out of a row of either database.
macro_rules! event_in {
    ($row:expr) => {{
        let row = $row;
        let kind: String = sqlx::Row::try_get(row, 3)?;
        let kind = throughline_core::LifecycleKind::of_name(&kind)
            .ok_or_else(|| sqlx::Error::Decode(format!("there is no event of the kind {kind}").into()))?;
        Ok::<_, sqlx::Error>(crate::store::StoredEvent {
            position: unsigned(sqlx::Row::try_get(row, 0)?),
            session_id: sqlx::Row::try_get(row, 1)?,
            event: crate::store::OutboxEvent {
                id: sqlx::Row::try_get(row, 2)?,
                kind,
                version: unsigned(sqlx::Row::try_get(row, 4)?),
                at_ms: sqlx::Row::try_get(row, 5)?,
                body: sqlx::Row::try_get(row, 6)?,
            },
        })
    }};
}

pub(super) use event_in;
