//! The outbox of lifecycle events in PostgreSQL.

use async_trait::async_trait;
use sqlx::{Row as _, query};

use super::lifecycle::{
    EVENTS, EventQuery, EventStore, FIRST_SINCE, FORGOTTEN, StoredEvent, TENANTS_WITH_EVENTS, event_in, kinds_text,
};
use super::postgres::{PostgresStore, unreadable};
use super::postgres_batch::{signed, unsigned};
use super::{LogMark, ReadError};
use crate::tenant::TenantId;

#[async_trait]
impl EventStore for PostgresStore {
    async fn event_mark(&self, settled: u64) -> Result<LogMark, ReadError> {
        const POSITION: &str = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM lifecycle_positions";
        self.log_mark("asking how far the outbox is", POSITION, settled).await
    }

    async fn events(&self, wanted: &EventQuery) -> Result<Vec<StoredEvent>, ReadError> {
        const DURING: &str = "reading the outbox";
        let EventQuery { tenant, after, through, kinds, limit } = wanted;
        let kinds = kinds_text(kinds);
        let select = || {
            let select = query(EVENTS).bind(tenant.as_str()).bind(signed(*after)).bind(signed(*through));
            select.bind(kinds.as_str()).bind(i64::from(*limit))
        };
        let rows = self.pool.rows(DURING, select).await?;
        rows.iter().map(|row| event_in!(row)).collect::<Result<_, _>>().map_err(unreadable(DURING))
    }

    async fn events_forgotten(&self, tenant: &TenantId) -> Result<u64, ReadError> {
        const DURING: &str = "asking what the outbox has forgotten";
        let rows = self.pool.rows(DURING, || query(FORGOTTEN).bind(tenant.as_str())).await?;
        rows.first().map_or(Ok(0), |row| row.try_get(0).map(unsigned)).map_err(unreadable(DURING))
    }

    async fn first_event_since(&self, tenant: &TenantId, at_ms: i64) -> Result<Option<u64>, ReadError> {
        const DURING: &str = "looking for the place of a time in the outbox";
        let rows = self.pool.rows(DURING, || query(FIRST_SINCE).bind(tenant.as_str()).bind(at_ms)).await?;
        let first: Option<i64> = rows.first().map_or(Ok(None), |row| row.try_get(0)).map_err(unreadable(DURING))?;
        Ok(first.map(unsigned))
    }

    async fn forget_events(&self, before_ms: i64, limit: u32) -> Result<u64, ReadError> {
        const DURING: &str = "forgetting old events";
        // Of those that are first, so that what is left has no gaps; the ones that several servers forget at once are gone once.
        const FORGET: &str = "WITH oldest AS MATERIALIZED (
                SELECT position, at_ms FROM lifecycle_events WHERE tenant = $1 ORDER BY position LIMIT $3),
             kept AS (SELECT coalesce(min(position), 9223372036854775807) AS position FROM oldest WHERE at_ms >= $2),
             gone AS (
                DELETE FROM lifecycle_events USING oldest, kept
                WHERE lifecycle_events.tenant = $1 AND lifecycle_events.position = oldest.position
                    AND oldest.position < kept.position
                RETURNING lifecycle_events.position),
             noted AS (
                INSERT INTO lifecycle_horizons (tenant, through_position)
                SELECT $1, max(position) FROM gone HAVING count(*) > 0
                ON CONFLICT (tenant) DO UPDATE SET
                    through_position = greatest(lifecycle_horizons.through_position, excluded.through_position))
             SELECT count(*) FROM gone";
        let tenants = self.pool.rows(DURING, || query(TENANTS_WITH_EVENTS)).await?;
        let mut forgotten = 0;
        for tenant in &tenants {
            let tenant: String = tenant.try_get(0).map_err(unreadable(DURING))?;
            let forget = || query(FORGET).bind(tenant.as_str()).bind(before_ms).bind(i64::from(limit));
            let rows = self.pool.rows(DURING, forget).await?;
            forgotten += rows.first().map_or(Ok(0), |row| row.try_get(0).map(unsigned)).map_err(unreadable(DURING))?;
        }
        Ok(forgotten)
    }
}
