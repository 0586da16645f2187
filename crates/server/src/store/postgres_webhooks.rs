//! Webhooks in PostgreSQL.

use async_trait::async_trait;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres, query};

use super::ReadError;
use super::postgres::{PostgresStore, unreadable};
use super::postgres_batch::{signed, unsigned};
use super::webhooks::{
    COLUMNS, DeliveryNote, DeliveryTry, Disabled, StoredWebhook, TRIES, TRIES_KEPT, WAITING, WaitingCount,
    WaitingDelivery, WebhookChange, WebhookStore, kinds_text, listed_webhook_in, try_in, waiting_in, webhook_in,
    webhooks_statement,
};
use crate::audit::AuditRecord;
use crate::tenant::TenantId;

type PostgresQuery<'q> = Query<'q, Postgres, PgArguments>;

/// Binds what the audit log is to say.
fn told<'q>(query: PostgresQuery<'q>, audit: &'q AuditRecord) -> PostgresQuery<'q> {
    query.bind(audit.tenant.as_str()).bind(&audit.body).bind(audit.mac.as_slice()).bind(&audit.key_id)
}

/// The same where there may be nothing to say.
fn told_if_any<'q>(query: PostgresQuery<'q>, audit: Option<&'q AuditRecord>) -> PostgresQuery<'q> {
    query
        .bind(audit.map(|audit| audit.tenant.as_str()))
        .bind(audit.map(|audit| audit.body.as_str()))
        .bind(audit.map(|audit| audit.mac.as_slice()))
        .bind(audit.map(|audit| audit.key_id.as_str()))
}

#[async_trait]
impl WebhookStore for PostgresStore {
    async fn add_webhook(&self, webhook: &StoredWebhook, audit: AuditRecord) -> Result<(), ReadError> {
        const ADD: &str = "WITH added AS (
                INSERT INTO webhooks (tenant, id, url, description, kinds, secrets, created_at_ms, created_by, revision,
                    position, failures, delivered, tries, disabled_because)
                VALUES ($5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 0, 0, 0, '')
                ON CONFLICT DO NOTHING RETURNING 1)
             INSERT INTO audit_log (tenant, position, body, mac, key_id)
             SELECT $1, nextval('audit_positions'), $2, $3, $4 FROM added";
        let add = || {
            told(query(ADD), &audit)
                .bind(webhook.tenant.as_str())
                .bind(&webhook.id)
                .bind(&webhook.url)
                .bind(&webhook.description)
                .bind(kinds_text(&webhook.kinds))
                .bind(&webhook.secrets)
                .bind(webhook.created_at_ms)
                .bind(&webhook.created_by)
                .bind(signed(webhook.revision))
                .bind(signed(webhook.progress.position))
        };
        self.pool.rows("adding a webhook", add).await.map(drop)
    }

    async fn webhooks(&self, tenant: Option<&TenantId>) -> Result<Vec<(StoredWebhook, WaitingCount)>, ReadError> {
        const DURING: &str = "reading the webhooks";
        let statement = webhooks_statement();
        let select = || query(AssertSqlSafe(statement.as_str())).bind(tenant.map_or("", TenantId::as_str));
        let rows = self.pool.rows(DURING, select).await?;
        rows.iter().map(|row| listed_webhook_in!(row)).collect::<Result<_, _>>().map_err(unreadable(DURING))
    }

    async fn change_webhook(
        &self,
        tenant: &TenantId,
        id: &str,
        change: &WebhookChange,
        audit: AuditRecord,
    ) -> Result<bool, ReadError> {
        let statement = |change: &str, deliveries: &str, condition: &str| {
            format!(
                "WITH changed AS (
                    UPDATE webhooks SET revision = revision + 1, {change} WHERE tenant = $5 AND id = $6{condition}
                    RETURNING 1),
                 {deliveries}
                 audited AS (
                    INSERT INTO audit_log (tenant, position, body, mac, key_id)
                    SELECT $1, nextval('audit_positions'), $2, $3, $4 FROM changed)
                 SELECT 1 FROM changed"
            )
        };
        let text = match change {
            WebhookChange::Settings { .. } => statement(
                "url = $7, description = $8, kinds = $9, failing_since_ms = NULL, failures = 0, next_try_at_ms = NULL",
                "unwanted AS (DELETE FROM webhook_deliveries
                    WHERE tenant = $5 AND webhook_id = $6 AND $9 <> '' AND ' ' || $9 || ' ' NOT LIKE '% ' || kind || ' %'),
                 due AS (UPDATE webhook_deliveries SET next_try_at_ms = $10, tries = 0
                    WHERE tenant = $5 AND webhook_id = $6 AND next_try_at_ms IS NOT NULL
                        AND ($9 = '' OR ' ' || $9 || ' ' LIKE '% ' || kind || ' %')),",
                "",
            ),
            WebhookChange::Secrets { .. } => statement("secrets = $7", "", " AND revision = $8"),
            WebhookChange::Enabled { .. } => statement(
                "disabled_at_ms = $7, disabled_because = $8, failing_since_ms = NULL, failures = 0, next_try_at_ms = NULL",
                "due AS (UPDATE webhook_deliveries SET next_try_at_ms = $9, tries = 0
                    WHERE tenant = $5 AND webhook_id = $6 AND next_try_at_ms IS NOT NULL),",
                "",
            ),
            WebhookChange::ReplayAfter(_) => {
                statement("position = least(position, $7), next_try_at_ms = NULL", "", "")
            }
            WebhookChange::TryAgain { .. } => statement(
                "next_try_at_ms = NULL",
                "due AS (UPDATE webhook_deliveries SET next_try_at_ms = $7, tries = 0 WHERE tenant = $5 AND webhook_id = $6),",
                "",
            ),
        };
        let make = || {
            let query = told(query(AssertSqlSafe(text.as_str())), &audit).bind(tenant.as_str()).bind(id);
            match change {
                WebhookChange::Settings { url, description, kinds, now_ms } => {
                    query.bind(url).bind(description).bind(kinds_text(kinds)).bind(now_ms)
                }
                WebhookChange::Secrets { secrets, of_revision } => query.bind(secrets).bind(signed(*of_revision)),
                WebhookChange::Enabled { disabled, now_ms } => {
                    let because = disabled.as_ref().map_or("", |disabled| disabled.because.as_str());
                    query.bind(disabled.as_ref().map(|disabled| disabled.at_ms)).bind(because).bind(now_ms)
                }
                WebhookChange::ReplayAfter(position) => query.bind(signed(*position)),
                WebhookChange::TryAgain { at_ms } => query.bind(at_ms),
            }
        };
        Ok(!self.pool.rows("changing a webhook", make).await?.is_empty())
    }

    async fn remove_webhook(&self, tenant: &TenantId, id: &str, audit: AuditRecord) -> Result<bool, ReadError> {
        const REMOVE: &str = "WITH removed AS (DELETE FROM webhooks WHERE tenant = $5 AND id = $6 RETURNING 1),
             waiting AS (DELETE FROM webhook_deliveries WHERE tenant = $5 AND webhook_id = $6),
             tried AS (DELETE FROM webhook_tries WHERE tenant = $5 AND webhook_id = $6),
             audited AS (
                INSERT INTO audit_log (tenant, position, body, mac, key_id)
                SELECT $1, nextval('audit_positions'), $2, $3, $4 FROM removed)
             SELECT 1 FROM removed";
        let remove = || told(query(REMOVE), &audit).bind(tenant.as_str()).bind(id);
        Ok(!self.pool.rows("removing a webhook", remove).await?.is_empty())
    }

    async fn lease_webhooks(&self, server: &str, now_ms: i64, until_ms: i64) -> Result<Vec<StoredWebhook>, ReadError> {
        const DURING: &str = "taking on webhooks";
        let statement = format!(
            "WITH own AS (
                UPDATE webhooks SET leased_until_ms = $3 WHERE leased_by = $1 AND disabled_at_ms IS NULL
                RETURNING {COLUMNS}),
             free AS MATERIALIZED (
                SELECT tenant AS free_tenant, id AS free_id FROM webhooks
                WHERE disabled_at_ms IS NULL AND leased_by IS DISTINCT FROM $1 AND coalesce(leased_until_ms, 0) <= $2
                ORDER BY tenant, id FOR UPDATE SKIP LOCKED),
             taken AS (
                UPDATE webhooks SET leased_by = $1, leased_until_ms = $3 FROM free
                WHERE tenant = free_tenant AND id = free_id RETURNING {COLUMNS})
             SELECT * FROM own UNION ALL SELECT * FROM taken"
        );
        let lease = || query(AssertSqlSafe(statement.as_str())).bind(server).bind(now_ms).bind(until_ms);
        let rows = self.pool.rows(DURING, lease).await?;
        rows.iter().map(|row| webhook_in!(row)).collect::<Result<_, _>>().map_err(unreadable(DURING))
    }

    async fn release_webhooks(&self, server: &str) -> Result<(), ReadError> {
        const RELEASE: &str = "UPDATE webhooks SET leased_by = NULL, leased_until_ms = NULL WHERE leased_by = $1";
        self.pool.rows("giving up webhooks", || query(RELEASE).bind(server)).await.map(drop)
    }

    async fn waiting_deliveries(
        &self,
        tenant: &TenantId,
        id: &str,
        given_up: bool,
        limit: u32,
    ) -> Result<Vec<WaitingDelivery>, ReadError> {
        const DURING: &str = "reading what waits for a webhook";
        let select = || query(WAITING).bind(tenant.as_str()).bind(id).bind(given_up).bind(i64::from(limit));
        let rows = self.pool.rows(DURING, select).await?;
        rows.iter().map(|row| waiting_in!(row)).collect::<Result<_, _>>().map_err(unreadable(DURING))
    }

    async fn delivery_tries(&self, tenant: &TenantId, id: &str) -> Result<Vec<DeliveryTry>, ReadError> {
        const DURING: &str = "reading the tries of a webhook";
        let rows = self.pool.rows(DURING, || query(TRIES).bind(tenant.as_str()).bind(id)).await?;
        rows.iter().map(|row| try_in!(row)).collect::<Result<_, _>>().map_err(unreadable(DURING))
    }

    async fn note_deliveries(&self, note: &DeliveryNote) -> Result<bool, ReadError> {
        // To do it twice changes nothing: what is counted is written as a sum.
        const NOTE: &str = "WITH held AS (
                UPDATE webhooks SET position = $9, failing_since_ms = $10, failures = $11, next_try_at_ms = $12,
                    delivered = $13, tries = $14, disabled_at_ms = $15, disabled_because = $16
                WHERE tenant = $5 AND id = $6 AND revision = $7 AND leased_by = $8
                RETURNING 1),
             gone AS (
                DELETE FROM webhook_deliveries USING held
                WHERE tenant = $5 AND webhook_id = $6 AND position = ANY($17::bigint[])),
             waiting AS (
                INSERT INTO webhook_deliveries (tenant, webhook_id, position, session_id, event_id, kind, version, at_ms, body,
                    tries, next_try_at_ms, last_failure)
                SELECT $5, $6, row.* FROM held, unnest($18::bigint[], $19::text[], $20::text[], $21::text[], $22::bigint[],
                    $23::bigint[], $24::text[], $25::bigint[], $26::bigint[], $27::text[]) AS row
                ON CONFLICT (tenant, webhook_id, position) DO UPDATE SET tries = excluded.tries,
                    next_try_at_ms = excluded.next_try_at_ms, last_failure = excluded.last_failure),
             tried AS (
                INSERT INTO webhook_tries (tenant, webhook_id, place, number, event_id, kind, session_id, tried_at_ms, took_ms,
                    status, failure)
                SELECT $5, $6, row.* FROM held, unnest($28::bigint[], $29::bigint[], $30::text[], $31::text[], $32::text[],
                    $33::bigint[], $34::bigint[], $35::bigint[], $36::text[]) AS row
                ON CONFLICT (tenant, webhook_id, place) DO UPDATE SET number = excluded.number,
                    event_id = excluded.event_id, kind = excluded.kind, session_id = excluded.session_id,
                    tried_at_ms = excluded.tried_at_ms, took_ms = excluded.took_ms, status = excluded.status,
                    failure = excluded.failure),
             audited AS (
                INSERT INTO audit_log (tenant, position, body, mac, key_id)
                SELECT $1, nextval('audit_positions'), $2, $3, $4 FROM held WHERE $1 IS NOT NULL)
             SELECT 1 FROM held";
        let DeliveryNote { tenant, id, revision, server, progress, delivered, waiting, tries, audit } = note;
        let disabled: Option<&Disabled> = progress.disabled.as_ref();
        // Of more than are kept, the last ones: no place is taken twice.
        let kept = tries.len().saturating_sub(usize::try_from(TRIES_KEPT).unwrap_or(usize::MAX));
        let tries = &tries[kept..];
        let first = progress.tries.saturating_sub(tries.len() as u64);
        let make = || {
            told_if_any(query(NOTE), audit.as_ref())
                .bind(tenant.as_str())
                .bind(id)
                .bind(signed(*revision))
                .bind(server)
                .bind(signed(progress.position))
                .bind(progress.failing_since_ms)
                .bind(i64::from(progress.failures))
                .bind(progress.next_try_at_ms)
                .bind(signed(progress.delivered))
                .bind(signed(progress.tries))
                .bind(disabled.map(|disabled| disabled.at_ms))
                .bind(disabled.map_or("", |disabled| disabled.because.as_str()))
                .bind(delivered.iter().map(|position| signed(*position)).collect::<Vec<_>>())
                .bind(waiting.iter().map(|row| signed(row.position)).collect::<Vec<_>>())
                .bind(waiting.iter().map(|row| row.session_id.as_str()).collect::<Vec<_>>())
                .bind(waiting.iter().map(|row| row.event.id.as_str()).collect::<Vec<_>>())
                .bind(waiting.iter().map(|row| row.event.kind.as_str()).collect::<Vec<_>>())
                .bind(waiting.iter().map(|row| signed(row.event.version)).collect::<Vec<_>>())
                .bind(waiting.iter().map(|row| row.event.at_ms).collect::<Vec<_>>())
                .bind(waiting.iter().map(|row| row.event.body.as_str()).collect::<Vec<_>>())
                .bind(waiting.iter().map(|row| i64::from(row.tries)).collect::<Vec<_>>())
                .bind(waiting.iter().map(|row| row.next_try_at_ms).collect::<Vec<_>>())
                .bind(waiting.iter().map(|row| row.last_failure.as_str()).collect::<Vec<_>>())
                .bind((first..progress.tries).map(|number| signed(number % TRIES_KEPT)).collect::<Vec<_>>())
                .bind((first..progress.tries).map(signed).collect::<Vec<_>>())
                .bind(tries.iter().map(|tried| tried.event_id.as_str()).collect::<Vec<_>>())
                .bind(tries.iter().map(|tried| tried.kind.as_str()).collect::<Vec<_>>())
                .bind(tries.iter().map(|tried| tried.session_id.as_str()).collect::<Vec<_>>())
                .bind(tries.iter().map(|tried| tried.at_ms).collect::<Vec<_>>())
                .bind(tries.iter().map(|tried| signed(tried.took_ms)).collect::<Vec<_>>())
                .bind(tries.iter().map(|tried| tried.status.map(i64::from)).collect::<Vec<_>>())
                .bind(tries.iter().map(|tried| tried.failure.as_deref()).collect::<Vec<_>>())
        };
        Ok(!self.pool.rows("noting down what a webhook was told", make).await?.is_empty())
    }
}
