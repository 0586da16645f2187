//! `/v1/webhooks`: addresses that are told of lifecycle events, for service keys with the scope `webhooks`.

mod act;
mod manage;

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Serialize;
use throughline_core::{LifecycleKind, Timestamp};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::audit::{AuditEntry, AuditRecord};
use crate::principal::Principal;
use crate::problem::Problem;
use crate::store::{StoredWebhook, WaitingCount};
use crate::webhooks::signature::{Secrets, SecretsError};
use crate::wiring::ServerState;

/// How many webhooks a tenant may have.
const MAX_WEBHOOKS: usize = 32;

/// The routes, with their descriptions.
pub fn routes() -> OpenApiRouter<Arc<ServerState>> {
    OpenApiRouter::new()
        .routes(routes!(manage::list, manage::create))
        .routes(routes!(manage::get, manage::change, manage::remove))
        .routes(routes!(manage::deliveries))
        .routes(routes!(act::rotate_secret))
        .routes(routes!(act::replay))
        .routes(routes!(act::test))
}

/// A webhook, without what its messages are signed with.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Webhook {
    /// Its short name.
    id: String,
    /// Where events are sent.
    url: String,
    /// What people say of it.
    description: String,
    /// Of which types of events; empty for all.
    types: Vec<LifecycleKind>,
    /// How it does.
    state: WebhookState,
    /// Why it is disabled; missing where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_because: Option<String>,
    /// Since when it is disabled; missing where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_at: Option<Timestamp>,
    /// Since when nothing has arrived; missing while something does.
    #[serde(skip_serializing_if = "Option::is_none")]
    failing_since: Option<Timestamp>,
    /// When it is tried again, where it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_try_at: Option<Timestamp>,
    /// How far it is: every event up to this place was delivered, or waits on its own. A page of `/v1/events` says where the latest is.
    #[schema(example = "1042")]
    position: String,
    /// How many events it was told.
    delivered: u64,
    /// How many tries there were.
    tries: u64,
    /// How many events wait for their next try.
    waiting: u64,
    /// How many events were given up after the last try.
    given_up: u64,
    /// When it was made.
    created_at: Timestamp,
    /// Who made it: `service:` and the id of a key.
    created_by: String,
}

/// How a webhook does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum WebhookState {
    /// What is sent arrives, or nothing was sent yet.
    Working,
    /// Nothing has arrived lately. It is tried again and again.
    Failing,
    /// Nothing is sent until somebody enables it.
    Disabled,
}

impl From<(StoredWebhook, WaitingCount)> for Webhook {
    fn from((stored, WaitingCount { waiting, given_up }): (StoredWebhook, WaitingCount)) -> Self {
        let progress = stored.progress;
        let state = match (&progress.disabled, progress.failing_since_ms) {
            (Some(_), _) => WebhookState::Disabled,
            (None, Some(_)) => WebhookState::Failing,
            (None, None) => WebhookState::Working,
        };
        let (disabled_at, disabled_because) =
            progress.disabled.map(|disabled| (Timestamp::from_millis(disabled.at_ms), disabled.because)).unzip();
        Self {
            id: stored.id,
            url: stored.url,
            description: stored.description,
            types: stored.kinds,
            state,
            disabled_because,
            disabled_at,
            failing_since: progress.failing_since_ms.map(Timestamp::from_millis),
            next_try_at: progress.next_try_at_ms.map(Timestamp::from_millis),
            position: progress.position.to_string(),
            delivered: progress.delivered,
            tries: progress.tries,
            waiting,
            given_up,
            created_at: Timestamp::from_millis(stored.created_at_ms),
            created_by: stored.created_by,
        }
    }
}

/// A webhook with the secret that its messages are signed with.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebhookWithSecret {
    /// What messages are signed with: `whsec_` and Base64, as libraries for Standard Webhooks take it. It is shown this once.
    secret: String,
    #[serde(flatten)]
    webhook: Webhook,
}

/// The webhook of this name, with how much waits.
async fn found(state: &ServerState, principal: &Principal, id: &str) -> Result<(StoredWebhook, WaitingCount), Problem> {
    let known = state.store.webhooks(Some(principal.tenant())).await?;
    known.into_iter().find(|(webhook, _)| webhook.id == id).ok_or_else(not_found)
}

fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "webhookNotFound", "Webhook not found")
        .detail("there is no webhook with this id; `GET /v1/webhooks` lists those that there are")
        .mendable_by("permanent")
}

fn opened(state: &ServerState, webhook: &StoredWebhook) -> Result<Secrets, Problem> {
    let opened = Secrets::open(&webhook.tenant, &webhook.id, &webhook.secrets, &state.keys);
    opened.map_err(|error| unreadable(&error))
}

fn unreadable(error: &SecretsError) -> Problem {
    Problem::internal(error)
}

/// What the audit log is to say of something that was done to a webhook.
fn audit_record(
    state: &ServerState,
    principal: &Principal,
    id: &str,
    did: &'static str,
) -> Result<AuditRecord, Problem> {
    let now_ms = state.clock.now_ms();
    let entry = AuditEntry::done(principal.tenant().clone(), did, now_ms).by("service", principal.caller());
    let entry = AuditEntry { subject: Some(id.to_owned()), ..entry };
    AuditRecord::new(&entry, &state.keys, now_ms).map_err(|error| Problem::internal(&error))
}
