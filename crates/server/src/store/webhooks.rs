//! Webhooks, how far each has got in the outbox, and what has not been delivered yet.

use async_trait::async_trait;
use throughline_core::LifecycleKind;

use super::{OutboxEvent, ReadError};
use crate::audit::AuditRecord;
use crate::tenant::TenantId;

/// How many tries of a webhook are remembered: the latest.
pub const TRIES_KEPT: u64 = 100;

/// An address that is told of lifecycle events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWebhook {
    /// Whose sessions it is told of.
    pub tenant: TenantId,
    /// Its short name.
    pub id: String,
    /// Where events are sent.
    pub url: String,
    /// What people say of it.
    pub description: String,
    /// Of which events; empty for all.
    pub kinds: Vec<LifecycleKind>,
    /// What messages are signed with, encrypted.
    pub secrets: Vec<u8>,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: i64,
    /// Who made it.
    pub created_by: String,
    /// Grows with each change that somebody makes. What is delivered meanwhile goes by the one before, and is not noted down.
    pub revision: u64,
    /// How far it is.
    pub progress: WebhookProgress,
}

/// How far a webhook is, and how it does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebhookProgress {
    /// Every event up to this position is delivered, or waits on its own.
    pub position: u64,
    /// Since when nothing could be delivered, in milliseconds since 1970; `None` while it works.
    pub failing_since_ms: Option<i64>,
    /// How many tries in a row have failed.
    pub failures: u32,
    /// When it is tried again, where it fails.
    pub next_try_at_ms: Option<i64>,
    /// How many events it was told.
    pub delivered: u64,
    /// How many tries there were.
    pub tries: u64,
    /// Since when nothing is sent to it, and why; `None` while something is.
    pub disabled: Option<Disabled>,
}

/// Why nothing is sent to a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disabled {
    /// Since when, in milliseconds since 1970.
    pub at_ms: i64,
    /// Why, for people.
    pub because: String,
}

/// An event that could not be delivered yet, while others were, or that follows on one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingDelivery {
    /// Where it stands in the outbox.
    pub position: u64,
    /// Its session: the session's later events wait for it.
    pub session_id: String,
    /// The event.
    pub event: OutboxEvent,
    /// How often it was tried.
    pub tries: u32,
    /// When it is tried next, in milliseconds since 1970; `None` where it was given up.
    pub next_try_at_ms: Option<i64>,
    /// Why the latest try failed; empty where there was none.
    pub last_failure: String,
}

/// One try of delivering an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryTry {
    /// The event.
    pub event_id: String,
    /// What happened.
    pub kind: LifecycleKind,
    /// Its session.
    pub session_id: String,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// How many events of a webhook wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WaitingCount {
    /// To be tried again.
    pub waiting: u64,
    /// Given up.
    pub given_up: u64,
}

/// What somebody changes about a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookChange {
    /// Where to, of what.
    Settings {
        /// See [`StoredWebhook::url`].
        url: String,
        /// See [`StoredWebhook::description`].
        description: String,
        /// See [`StoredWebhook::kinds`]. What waits and is of another kind is not sent any more.
        kinds: Vec<LifecycleKind>,
        /// From when on the rest of what waits is tried again, in milliseconds since 1970.
        now_ms: i64,
    },
    /// What messages are signed with.
    Secrets {
        /// See [`StoredWebhook::secrets`].
        secrets: Vec<u8>,
        /// Only at this revision: somebody may have made new ones meanwhile.
        of_revision: u64,
    },
    /// Whether anything is sent. Enabling forgets that it failed, and has everything that waits tried at this time.
    Enabled {
        /// Why not, if not.
        disabled: Option<Disabled>,
        /// When.
        now_ms: i64,
    },
    /// Everything after this position is sent again. One that is ahead of where the webhook is changes nothing: it must not pass by
    /// what was not sent yet.
    ReplayAfter(u64),
    /// Everything that was given up is tried again at this time, and what waits too.
    TryAgain {
        /// When, in milliseconds since 1970.
        at_ms: i64,
    },
}

/// What a server has done for a webhook, written down as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryNote {
    /// Whose webhook.
    pub tenant: TenantId,
    /// Which one.
    pub id: String,
    /// At which revision.
    pub revision: u64,
    /// The server.
    pub server: String,
    /// How far the webhook is now.
    pub progress: WebhookProgress,
    /// The positions of those among the waiting that were delivered.
    pub delivered: Vec<u64>,
    /// What waits from now on, or waits longer.
    pub waiting: Vec<WaitingDelivery>,
    /// What was tried.
    pub tries: Vec<DeliveryTry>,
    /// What the audit log is to say of it.
    pub audit: Option<AuditRecord>,
}

/// A place that keeps webhooks.
#[async_trait]
pub trait WebhookStore: Send + Sync + std::fmt::Debug {
    /// Adds a webhook, and to the audit log in the same transaction what it is to say of it.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn add_webhook(&self, webhook: &StoredWebhook, audit: AuditRecord) -> Result<(), ReadError>;

    /// All webhooks of `tenant`, or of all where none is given, in the order in which they were made, with how much waits.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn webhooks(&self, tenant: Option<&TenantId>) -> Result<Vec<(StoredWebhook, WaitingCount)>, ReadError>;

    /// Changes a webhook; whether there is one, at the revision that the change is for.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn change_webhook(
        &self,
        tenant: &TenantId,
        id: &str,
        change: &WebhookChange,
        audit: AuditRecord,
    ) -> Result<bool, ReadError>;

    /// Removes a webhook with all that waits for it; whether there was one.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn remove_webhook(&self, tenant: &TenantId, id: &str, audit: AuditRecord) -> Result<bool, ReadError>;

    /// The webhooks that are `server`'s to deliver until `until_ms`: those that were its own before, and those that are nobody's.
    /// None of them is another server's meanwhile. A database of one server has no others.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn lease_webhooks(&self, server: &str, now_ms: i64, until_ms: i64) -> Result<Vec<StoredWebhook>, ReadError>;

    /// Gives up what is `server`'s, so that others need not wait.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn release_webhooks(&self, server: &str) -> Result<(), ReadError>;

    /// At most `limit` deliveries of a webhook that wait or were given up, in the order of their positions.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn waiting_deliveries(
        &self,
        tenant: &TenantId,
        id: &str,
        given_up: bool,
        limit: u32,
    ) -> Result<Vec<WaitingDelivery>, ReadError>;

    /// The latest tries of a webhook, the latest first.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn delivery_tries(&self, tenant: &TenantId, id: &str) -> Result<Vec<DeliveryTry>, ReadError>;

    /// Writes down what was done; whether the webhook is still the server's and at that revision. Otherwise nothing is written.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn note_deliveries(&self, note: &DeliveryNote) -> Result<bool, ReadError>;
}

/// The columns of [`StoredWebhook`], in the order in which `webhook_in` wants them.
pub(super) const COLUMNS: &str = "tenant, id, url, description, kinds, secrets, created_at_ms, created_by, revision,
    position, failing_since_ms, failures, next_try_at_ms, delivered, tries, disabled_at_ms, disabled_because";

/// Asks for all webhooks of a tenant, or of all where the name is empty.
pub(super) fn webhooks_statement() -> String {
    format!(
        "SELECT {COLUMNS},
            (SELECT count(*) FROM webhook_deliveries AS waiting WHERE waiting.tenant = webhooks.tenant
                AND waiting.webhook_id = webhooks.id AND waiting.next_try_at_ms IS NOT NULL),
            (SELECT count(*) FROM webhook_deliveries AS waiting WHERE waiting.tenant = webhooks.tenant
                AND waiting.webhook_id = webhooks.id AND waiting.next_try_at_ms IS NULL)
         FROM webhooks WHERE $1 = '' OR tenant = $1 ORDER BY tenant, created_at_ms, id"
    )
}

/// Asks for deliveries that wait, or were given up.
pub(super) const WAITING: &str = "SELECT position, session_id, event_id, kind, version, at_ms, body, tries,
        next_try_at_ms, last_failure
     FROM webhook_deliveries WHERE tenant = $1 AND webhook_id = $2 AND (next_try_at_ms IS NULL) = $3
     ORDER BY position LIMIT $4";

/// Asks for the latest tries.
pub(super) const TRIES: &str = "SELECT event_id, kind, session_id, tried_at_ms, took_ms, status, failure
     FROM webhook_tries WHERE tenant = $1 AND webhook_id = $2 ORDER BY number DESC";

/// The kinds as they are stored.
pub(super) fn kinds_text(kinds: &[LifecycleKind]) -> String {
    kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" ")
}

/// The kinds out of what is stored. One that this build does not know is left out.
pub(super) fn kinds_of(text: &str) -> Vec<LifecycleKind> {
    text.split_ascii_whitespace().filter_map(LifecycleKind::of_name).collect()
}

/// A webhook out of a row of either database.
macro_rules! webhook_in {
    ($row:expr) => {{
        let row = $row;
        let tenant: String = sqlx::Row::try_get(row, 0)?;
        let (kinds, failures): (String, i64) = (sqlx::Row::try_get(row, 4)?, sqlx::Row::try_get(row, 11)?);
        let disabled_at_ms: Option<i64> = sqlx::Row::try_get(row, 15)?;
        let because: String = sqlx::Row::try_get(row, 16)?;
        Ok::<_, sqlx::Error>(crate::store::StoredWebhook {
            tenant: crate::tenant::TenantId::try_from(tenant).map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            id: sqlx::Row::try_get(row, 1)?,
            url: sqlx::Row::try_get(row, 2)?,
            description: sqlx::Row::try_get(row, 3)?,
            kinds: crate::store::webhooks::kinds_of(&kinds),
            secrets: sqlx::Row::try_get(row, 5)?,
            created_at_ms: sqlx::Row::try_get(row, 6)?,
            created_by: sqlx::Row::try_get(row, 7)?,
            revision: unsigned(sqlx::Row::try_get(row, 8)?),
            progress: crate::store::WebhookProgress {
                position: unsigned(sqlx::Row::try_get(row, 9)?),
                failing_since_ms: sqlx::Row::try_get(row, 10)?,
                failures: u32::try_from(failures).unwrap_or(u32::MAX),
                next_try_at_ms: sqlx::Row::try_get(row, 12)?,
                delivered: unsigned(sqlx::Row::try_get(row, 13)?),
                tries: unsigned(sqlx::Row::try_get(row, 14)?),
                disabled: disabled_at_ms.map(|at_ms| crate::store::Disabled { at_ms, because }),
            },
        })
    }};
}

/// A webhook with how much waits, out of a row of either database.
macro_rules! listed_webhook_in {
    ($row:expr) => {{
        let row = $row;
        let webhook = crate::store::webhooks::webhook_in!(row)?;
        let waiting = unsigned(sqlx::Row::try_get(row, 17)?);
        let given_up = unsigned(sqlx::Row::try_get(row, 18)?);
        Ok::<_, sqlx::Error>((webhook, crate::store::WaitingCount { waiting, given_up }))
    }};
}

/// A kind out of a column.
macro_rules! kind_in {
    ($row:expr, $column:expr) => {{
        let kind: String = sqlx::Row::try_get($row, $column)?;
        throughline_core::LifecycleKind::of_name(&kind)
            .ok_or_else(|| sqlx::Error::Decode(format!("there is no event of the kind {kind}").into()))
    }};
}

/// A delivery that waits out of a row of either database.
macro_rules! waiting_in {
    ($row:expr) => {{
        let row = $row;
        let tries: i64 = sqlx::Row::try_get(row, 7)?;
        Ok::<_, sqlx::Error>(crate::store::WaitingDelivery {
            position: unsigned(sqlx::Row::try_get(row, 0)?),
            session_id: sqlx::Row::try_get(row, 1)?,
            event: crate::store::OutboxEvent {
                id: sqlx::Row::try_get(row, 2)?,
                kind: crate::store::webhooks::kind_in!(row, 3)?,
                version: unsigned(sqlx::Row::try_get(row, 4)?),
                at_ms: sqlx::Row::try_get(row, 5)?,
                body: sqlx::Row::try_get(row, 6)?,
            },
            tries: u32::try_from(tries).unwrap_or(u32::MAX),
            next_try_at_ms: sqlx::Row::try_get(row, 8)?,
            last_failure: sqlx::Row::try_get(row, 9)?,
        })
    }};
}

/// A try out of a row of either database.
macro_rules! try_in {
    ($row:expr) => {{
        let row = $row;
        let status: Option<i64> = sqlx::Row::try_get(row, 5)?;
        Ok::<_, sqlx::Error>(crate::store::DeliveryTry {
            event_id: sqlx::Row::try_get(row, 0)?,
            kind: crate::store::webhooks::kind_in!(row, 1)?,
            session_id: sqlx::Row::try_get(row, 2)?,
            at_ms: sqlx::Row::try_get(row, 3)?,
            took_ms: unsigned(sqlx::Row::try_get(row, 4)?),
            status: status.and_then(|status| u16::try_from(status).ok()),
            failure: sqlx::Row::try_get(row, 6)?,
        })
    }};
}

pub(super) use {kind_in, listed_webhook_in, try_in, waiting_in, webhook_in};
