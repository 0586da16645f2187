//! Webhooks in a SQLite file.

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, query};

use super::sqlite::{SqliteStore, bounded, read_error, signed, unsigned};
use super::sqlite_jobs::{Tell, write_audit};
use super::sqlite_writer::{Verdict, WriteJob};
use super::webhooks::{
    COLUMNS, DeliveryNote, DeliveryTry, StoredWebhook, TRIES, TRIES_KEPT, WAITING, WaitingCount, WaitingDelivery,
    WebhookChange, WebhookStore, kinds_text, listed_webhook_in, try_in, waiting_in, webhook_in, webhooks_statement,
};
use super::{ReadError, StoreFault};
use crate::audit::AuditRecord;
use crate::tenant::TenantId;

#[async_trait]
impl WebhookStore for SqliteStore {
    async fn add_webhook(&self, webhook: &StoredWebhook, audit: AuditRecord) -> Result<(), ReadError> {
        let webhook = Box::new(webhook.clone());
        self.change_webhooks(WebhookWork::Add { webhook, audit }).await.map(drop)
    }

    async fn webhooks(&self, tenant: Option<&TenantId>) -> Result<Vec<(StoredWebhook, WaitingCount)>, ReadError> {
        const DURING: &str = "reading the webhooks";
        let select = query(AssertSqlSafe(webhooks_statement())).bind(tenant.map_or("", TenantId::as_str));
        let rows = bounded(DURING, select.fetch_all(&self.readers)).await?;
        let read = rows.iter().map(|row| listed_webhook_in!(row)).collect::<Result<_, _>>();
        read.map_err(|error| read_error(DURING, error))
    }

    async fn change_webhook(
        &self,
        tenant: &TenantId,
        id: &str,
        change: &WebhookChange,
        audit: AuditRecord,
    ) -> Result<bool, ReadError> {
        let (tenant, id, change) = (tenant.clone(), id.to_owned(), change.clone());
        self.change_webhooks(WebhookWork::Change { tenant, id, change, audit }).await
    }

    async fn remove_webhook(&self, tenant: &TenantId, id: &str, audit: AuditRecord) -> Result<bool, ReadError> {
        let (tenant, id) = (tenant.clone(), id.to_owned());
        self.change_webhooks(WebhookWork::Remove { tenant, id, audit }).await
    }

    async fn lease_webhooks(&self, _: &str, _: i64, _: i64) -> Result<Vec<StoredWebhook>, ReadError> {
        const DURING: &str = "looking for webhooks";
        let statement = format!("SELECT {COLUMNS} FROM webhooks WHERE disabled_at_ms IS NULL ORDER BY tenant, id");
        let rows = bounded(DURING, query(AssertSqlSafe(statement)).fetch_all(&self.readers)).await?;
        let read = rows.iter().map(|row| webhook_in!(row)).collect::<Result<_, _>>();
        read.map_err(|error| read_error(DURING, error))
    }

    async fn release_webhooks(&self, _: &str) -> Result<(), ReadError> {
        Ok(())
    }

    async fn waiting_deliveries(
        &self,
        tenant: &TenantId,
        id: &str,
        given_up: bool,
        limit: u32,
    ) -> Result<Vec<WaitingDelivery>, ReadError> {
        const DURING: &str = "reading what waits for a webhook";
        let select = query(WAITING).bind(tenant.as_str()).bind(id).bind(given_up).bind(i64::from(limit));
        let rows = bounded(DURING, select.fetch_all(&self.readers)).await?;
        rows.iter().map(|row| waiting_in!(row)).collect::<Result<_, _>>().map_err(|error| read_error(DURING, error))
    }

    async fn delivery_tries(&self, tenant: &TenantId, id: &str) -> Result<Vec<DeliveryTry>, ReadError> {
        const DURING: &str = "reading the tries of a webhook";
        let rows = bounded(DURING, query(TRIES).bind(tenant.as_str()).bind(id).fetch_all(&self.readers)).await?;
        rows.iter().map(|row| try_in!(row)).collect::<Result<_, _>>().map_err(|error| read_error(DURING, error))
    }

    async fn note_deliveries(&self, note: &DeliveryNote) -> Result<bool, ReadError> {
        self.change_webhooks(WebhookWork::Note(Box::new(note.clone()))).await
    }
}

impl SqliteStore {
    async fn change_webhooks(&self, work: WebhookWork) -> Result<bool, ReadError> {
        self.answer(|tell| Box::new(WebhookJob { work, is_found: false, tell })).await.map_err(ReadError::from)
    }
}

/// What is written down.
#[derive(Debug)]
enum WebhookWork {
    Add { webhook: Box<StoredWebhook>, audit: AuditRecord },
    Change { tenant: TenantId, id: String, change: WebhookChange, audit: AuditRecord },
    Remove { tenant: TenantId, id: String, audit: AuditRecord },
    Note(Box<DeliveryNote>),
}

/// Writes it down.
#[derive(Debug)]
struct WebhookJob {
    work: WebhookWork,
    is_found: bool,
    tell: Tell<bool>,
}

#[async_trait]
impl WriteJob for WebhookJob {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> Result<Verdict, sqlx::Error> {
        let (is_found, audit) = match &self.work {
            WebhookWork::Add { webhook, audit } => (add(connection, webhook).await?, Some(audit)),
            WebhookWork::Change { tenant, id, change, audit } => {
                (change_one(connection, tenant, id, change).await?, Some(audit))
            }
            WebhookWork::Remove { tenant, id, audit } => (remove(connection, tenant, id).await?, Some(audit)),
            WebhookWork::Note(note) => (write_note(connection, note).await?, note.audit.as_ref()),
        };
        self.is_found = is_found;
        if let (true, Some(audit)) = (is_found, audit) {
            write_audit(connection, std::slice::from_ref(audit)).await?;
        }
        Ok(Verdict::Keep)
    }

    fn done(self: Box<Self>) {
        let _ = self.tell.send(Ok(self.is_found));
    }

    fn failed(self: Box<Self>, fault: StoreFault) {
        let _ = self.tell.send(Err(fault));
    }
}

async fn add(connection: &mut SqliteConnection, webhook: &StoredWebhook) -> Result<bool, sqlx::Error> {
    let add = query(
        "INSERT INTO webhooks (tenant, id, url, description, kinds, secrets, created_at_ms, created_by, revision, position,
            failures, delivered, tries, disabled_because)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0, 0, 0, '') ON CONFLICT DO NOTHING",
    )
    .bind(webhook.tenant.as_str())
    .bind(&webhook.id)
    .bind(&webhook.url)
    .bind(&webhook.description)
    .bind(kinds_text(&webhook.kinds))
    .bind(&webhook.secrets)
    .bind(webhook.created_at_ms)
    .bind(&webhook.created_by)
    .bind(signed(webhook.revision))
    .bind(signed(webhook.progress.position));
    Ok(add.execute(connection).await?.rows_affected() > 0)
}

async fn change_one(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    id: &str,
    change: &WebhookChange,
) -> Result<bool, sqlx::Error> {
    const REVISE: &str = "UPDATE webhooks SET revision = revision + 1
         WHERE tenant = ?1 AND id = ?2 AND (?3 IS NULL OR revision = ?3)";
    let of_revision = match change {
        WebhookChange::Secrets { of_revision, .. } => Some(signed(*of_revision)),
        _ => None,
    };
    let revise = query(REVISE).bind(tenant.as_str()).bind(id).bind(of_revision);
    let revised = revise.execute(&mut *connection).await?;
    if revised.rows_affected() == 0 {
        return Ok(false);
    }
    let statements = match change {
        WebhookChange::Settings { url, description, kinds, now_ms } => {
            let set = query(
                "UPDATE webhooks SET url = ?3, description = ?4, kinds = ?5, failing_since_ms = NULL, failures = 0,
                    next_try_at_ms = NULL WHERE tenant = ?1 AND id = ?2",
            );
            let set = set.bind(tenant.as_str()).bind(id).bind(url).bind(description).bind(kinds_text(kinds));
            let unwanted = query(
                "DELETE FROM webhook_deliveries
                 WHERE tenant = ?1 AND webhook_id = ?2 AND ?3 <> '' AND ' ' || ?3 || ' ' NOT LIKE '% ' || kind || ' %'",
            );
            let due = query(
                "UPDATE webhook_deliveries SET next_try_at_ms = ?3, tries = 0
                 WHERE tenant = ?1 AND webhook_id = ?2 AND next_try_at_ms IS NOT NULL",
            );
            vec![
                set,
                unwanted.bind(tenant.as_str()).bind(id).bind(kinds_text(kinds)),
                due.bind(tenant.as_str()).bind(id).bind(now_ms),
            ]
        }
        WebhookChange::Secrets { secrets, .. } => {
            let set = query("UPDATE webhooks SET secrets = ?3 WHERE tenant = ?1 AND id = ?2");
            vec![set.bind(tenant.as_str()).bind(id).bind(secrets)]
        }
        WebhookChange::Enabled { disabled, now_ms } => {
            let set = query(
                "UPDATE webhooks SET disabled_at_ms = ?3, disabled_because = ?4, failing_since_ms = NULL, failures = 0,
                    next_try_at_ms = NULL WHERE tenant = ?1 AND id = ?2",
            );
            let because = disabled.as_ref().map_or("", |disabled| disabled.because.as_str());
            let set = set.bind(tenant.as_str()).bind(id).bind(disabled.as_ref().map(|disabled| disabled.at_ms));
            let due = query(
                "UPDATE webhook_deliveries SET next_try_at_ms = ?3, tries = 0
                 WHERE tenant = ?1 AND webhook_id = ?2 AND next_try_at_ms IS NOT NULL",
            );
            vec![set.bind(because), due.bind(tenant.as_str()).bind(id).bind(now_ms)]
        }
        WebhookChange::ReplayAfter(position) => {
            let set = query(
                "UPDATE webhooks SET position = min(position, ?3), next_try_at_ms = NULL WHERE tenant = ?1 AND id = ?2",
            );
            vec![set.bind(tenant.as_str()).bind(id).bind(signed(*position))]
        }
        WebhookChange::TryAgain { at_ms } => {
            let set = query("UPDATE webhooks SET next_try_at_ms = NULL WHERE tenant = ?1 AND id = ?2");
            let due = query(
                "UPDATE webhook_deliveries SET next_try_at_ms = ?3, tries = 0 WHERE tenant = ?1 AND webhook_id = ?2",
            );
            vec![set.bind(tenant.as_str()).bind(id), due.bind(tenant.as_str()).bind(id).bind(at_ms)]
        }
    };
    for statement in statements {
        statement.execute(&mut *connection).await?;
    }
    Ok(true)
}

async fn remove(connection: &mut SqliteConnection, tenant: &TenantId, id: &str) -> Result<bool, sqlx::Error> {
    for statement in [
        "DELETE FROM webhook_deliveries WHERE tenant = ?1 AND webhook_id = ?2",
        "DELETE FROM webhook_tries WHERE tenant = ?1 AND webhook_id = ?2",
    ] {
        query(statement).bind(tenant.as_str()).bind(id).execute(&mut *connection).await?;
    }
    let remove = query("DELETE FROM webhooks WHERE tenant = ?1 AND id = ?2").bind(tenant.as_str()).bind(id);
    Ok(remove.execute(connection).await?.rows_affected() > 0)
}

async fn write_note(connection: &mut SqliteConnection, note: &DeliveryNote) -> Result<bool, sqlx::Error> {
    let DeliveryNote { tenant, id, revision, server: _, progress, delivered, waiting, tries, audit: _ } = note;
    let set = query(
        "UPDATE webhooks SET position = ?4, failing_since_ms = ?5, failures = ?6, next_try_at_ms = ?7, delivered = ?8,
            tries = ?9, disabled_at_ms = ?10, disabled_because = ?11
         WHERE tenant = ?1 AND id = ?2 AND revision = ?3",
    )
    .bind(tenant.as_str())
    .bind(id)
    .bind(signed(*revision))
    .bind(signed(progress.position))
    .bind(progress.failing_since_ms)
    .bind(i64::from(progress.failures))
    .bind(progress.next_try_at_ms)
    .bind(signed(progress.delivered))
    .bind(signed(progress.tries))
    .bind(progress.disabled.as_ref().map(|disabled| disabled.at_ms))
    .bind(progress.disabled.as_ref().map_or("", |disabled| disabled.because.as_str()));
    if set.execute(&mut *connection).await?.rows_affected() == 0 {
        return Ok(false);
    }
    for position in delivered {
        query("DELETE FROM webhook_deliveries WHERE tenant = ?1 AND webhook_id = ?2 AND position = ?3")
            .bind(tenant.as_str())
            .bind(id)
            .bind(signed(*position))
            .execute(&mut *connection)
            .await?;
    }
    for row in waiting {
        query(
            "INSERT INTO webhook_deliveries (tenant, webhook_id, position, session_id, event_id, kind, version, at_ms, body,
                tries, next_try_at_ms, last_failure)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (tenant, webhook_id, position) DO UPDATE SET tries = excluded.tries,
                next_try_at_ms = excluded.next_try_at_ms, last_failure = excluded.last_failure",
        )
        .bind(tenant.as_str())
        .bind(id)
        .bind(signed(row.position))
        .bind(&row.session_id)
        .bind(&row.event.id)
        .bind(row.event.kind.as_str())
        .bind(signed(row.event.version))
        .bind(row.event.at_ms)
        .bind(&row.event.body)
        .bind(i64::from(row.tries))
        .bind(row.next_try_at_ms)
        .bind(&row.last_failure)
        .execute(&mut *connection)
        .await?;
    }
    let first = progress.tries.saturating_sub(tries.len() as u64);
    for (number, tried) in (first..).zip(tries) {
        query(
            "INSERT OR REPLACE INTO webhook_tries (tenant, webhook_id, place, number, event_id, kind, session_id, tried_at_ms,
                took_ms, status, failure)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )
        .bind(tenant.as_str())
        .bind(id)
        .bind(signed(number % TRIES_KEPT))
        .bind(signed(number))
        .bind(&tried.event_id)
        .bind(tried.kind.as_str())
        .bind(&tried.session_id)
        .bind(tried.at_ms)
        .bind(signed(tried.took_ms))
        .bind(tried.status.map(i64::from))
        .bind(&tried.failure)
        .execute(&mut *connection)
        .await?;
    }
    Ok(true)
}
