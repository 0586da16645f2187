//! The outbox of lifecycle events in a SQLite file.

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Row as _, query};

use super::lifecycle::{
    EVENTS, EventQuery, EventStore, FIRST_SINCE, FORGOTTEN, OutboxEvent, StoredEvent, TENANTS_WITH_EVENTS, event_in,
    kinds_text,
};
use super::sqlite::{SqliteStore, bounded, read_error, signed, unsigned};
use super::sqlite_jobs::Tell;
use super::sqlite_writer::{Verdict, WriteJob};
use super::{LogMark, ReadError, SessionKey, StoreFault};
use crate::tenant::TenantId;

#[async_trait]
impl EventStore for SqliteStore {
    async fn event_mark(&self, _: u64) -> Result<LogMark, ReadError> {
        const DURING: &str = "asking how far the outbox is";
        // Also what is forgotten was given.
        let select = query("SELECT seq FROM sqlite_sequence WHERE name = 'lifecycle_events'");
        let row = bounded(DURING, select.fetch_optional(&self.readers)).await?;
        let position = row.map_or(Ok(0), |row| row.try_get(0).map(unsigned));
        let position = position.map_err(|error| read_error(DURING, error))?;
        // Only one writes: what can be seen is whole.
        Ok(LogMark { position, next_transaction: 0, oldest_transaction: 0 })
    }

    async fn events(&self, wanted: &EventQuery) -> Result<Vec<StoredEvent>, ReadError> {
        const DURING: &str = "reading the outbox";
        let EventQuery { tenant, after, through, kinds, limit } = wanted;
        let kinds = kinds_text(kinds);
        let select = query(EVENTS).bind(tenant.as_str()).bind(signed(*after)).bind(signed(*through));
        let select = select.bind(kinds.as_str()).bind(i64::from(*limit));
        let rows = bounded(DURING, select.fetch_all(&self.readers)).await?;
        rows.iter().map(|row| event_in!(row)).collect::<Result<_, _>>().map_err(|error| read_error(DURING, error))
    }

    async fn events_forgotten(&self, tenant: &TenantId) -> Result<u64, ReadError> {
        const DURING: &str = "asking what the outbox has forgotten";
        let select = query(FORGOTTEN).bind(tenant.as_str());
        let row = bounded(DURING, select.fetch_optional(&self.readers)).await?;
        row.map_or(Ok(0), |row| row.try_get(0).map(unsigned)).map_err(|error| read_error(DURING, error))
    }

    async fn first_event_since(&self, tenant: &TenantId, at_ms: i64) -> Result<Option<u64>, ReadError> {
        const DURING: &str = "looking for the place of a time in the outbox";
        let select = query(FIRST_SINCE).bind(tenant.as_str()).bind(at_ms);
        let row = bounded(DURING, select.fetch_one(&self.readers)).await?;
        let first: Option<i64> = row.try_get(0).map_err(|error| read_error(DURING, error))?;
        Ok(first.map(unsigned))
    }

    async fn forget_events(&self, before_ms: i64, limit: u32) -> Result<u64, ReadError> {
        let job = |tell| Box::new(ForgetEventsJob { before_ms, limit, forgotten: 0, tell });
        self.answer(|tell| job(tell)).await.map_err(ReadError::from)
    }
}

/// Adds to the outbox.
pub(super) async fn write_events(
    connection: &mut SqliteConnection,
    key: &SessionKey,
    events: &[OutboxEvent],
) -> Result<(), sqlx::Error> {
    for event in events {
        query(
            "INSERT INTO lifecycle_events (tenant, id, session_id, version, kind, at_ms, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(key.tenant.as_str())
        .bind(&event.id)
        .bind(&key.session_id)
        .bind(signed(event.version))
        .bind(event.kind.as_str())
        .bind(event.at_ms)
        .bind(&event.body)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Forgets events that are old.
#[derive(Debug)]
struct ForgetEventsJob {
    before_ms: i64,
    limit: u32,
    forgotten: u64,
    tell: Tell<u64>,
}

#[async_trait]
impl WriteJob for ForgetEventsJob {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> Result<Verdict, sqlx::Error> {
        // A batch that is tried again begins anew.
        self.forgotten = 0;
        for tenant in query(TENANTS_WITH_EVENTS).fetch_all(&mut *connection).await? {
            let tenant: String = tenant.try_get(0)?;
            let oldest =
                query("SELECT position, at_ms FROM lifecycle_events WHERE tenant = ?1 ORDER BY position LIMIT ?2");
            let oldest = oldest.bind(&tenant).bind(i64::from(self.limit)).fetch_all(&mut *connection).await?;
            let mut through = None;
            for row in &oldest {
                let (position, at_ms): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
                if at_ms >= self.before_ms {
                    break;
                }
                through = Some(position);
            }
            let Some(through) = through else { continue };
            let forget = query("DELETE FROM lifecycle_events WHERE tenant = ?1 AND position <= ?2");
            let gone = forget.bind(&tenant).bind(through).execute(&mut *connection).await?;
            self.forgotten += gone.rows_affected();
            let note = query(
                "INSERT INTO lifecycle_horizons (tenant, through_position) VALUES (?1, ?2)
                 ON CONFLICT (tenant) DO UPDATE SET through_position = excluded.through_position",
            );
            note.bind(&tenant).bind(through).execute(&mut *connection).await?;
        }
        Ok(Verdict::Keep)
    }

    fn done(self: Box<Self>) {
        let _ = self.tell.send(Ok(self.forgotten));
    }

    fn failed(self: Box<Self>, fault: StoreFault) {
        let _ = self.tell.send(Err(fault));
    }
}
