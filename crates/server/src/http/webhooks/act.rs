//! What is done with a webhook: a new secret, events sent again, a message to try it out.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use throughline_core::Timestamp;
use utoipa::ToSchema;

use super::{Webhook, WebhookWithSecret, audit_record, found, not_found, opened, unreadable};
use crate::clock::rfc3339;
use crate::http::body::{JsonBody, invalid};
use crate::http::idempotent::Reply;
use crate::http::problem_schema::{BodyProblems, ProblemDetails, StaffProblems};
use crate::http::sessions::staff;
use crate::principal::Principal;
use crate::problem::Problem;
use crate::scope::Scope;
use crate::store::WebhookChange;
use crate::tenant::TenantId;
use crate::webhooks::delivery::Message;
use crate::wiring::ServerState;

/// An event may be committed so long after it was decided, in milliseconds: who asks for all since a time gets what happened shortly
/// before it as well, rather than not all.
const COMMITTED_LATE_MS: i64 = 60_000;

/// Which events are to be sent again: exactly one of the members.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "since": "2026-11-25T09:00:00.000Z" }))]
pub(crate) struct WantedReplay {
    /// Everything after this place in the order of all events: `position` of a webhook, or `nextAfter` of `/v1/events`.
    after: Option<String>,
    /// Everything that happened since then and is kept still, and what happened in the minute before.
    since: Option<Timestamp>,
    /// Everything that was given up, and what waits at once: `true`.
    given_up: Option<bool>,
}

/// What came of a message that was sent to try a webhook out.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TestOutcome {
    /// Whether it arrived.
    arrived: bool,
    /// The status of the answer; missing where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// How long it took, in milliseconds.
    took_ms: u64,
    /// Why it did not arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

/// What is sent to try a webhook out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TestEvent<'a> {
    id: &'a str,
    r#type: &'static str,
    timestamp: String,
    data: TestData<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TestData<'a> {
    webhook_id: &'a str,
}

/// Makes a new secret. For a day messages are signed with both, so that receivers can learn the new one; a secret before the one that it
/// replaces ends at once.
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/rotate-secret", tag = "webhooks",
    params(("id" = String, Path, description = "The webhook's short name")),
    responses(
        (status = 200, description = "The webhook, with its new secret, shown this once", body = WebhookWithSecret,
            headers(("Cache-Control" = String, description = "`no-store`"))),
        StaffProblems,
        (status = 404, description = "There is no such webhook", body = ProblemDetails),
        (status = 409, description = "Somebody else is changing it", body = ProblemDetails),
    ),
    security(("serviceKey" = ["webhooks"])),
)]
pub(crate) async fn rotate_secret(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    staff(&principal, Scope::Webhooks)?;
    let (webhook, _) = found(&state, &principal, &id).await?;
    let (tenant, now_ms) = (principal.tenant(), state.clock.now_ms());
    let secrets = opened(&state, &webhook)?.rotated(now_ms).map_err(|error| unreadable(&error))?;
    let sealed = secrets.seal(tenant, &id, &state.keys, now_ms).map_err(|error| unreadable(&error))?;
    let change = WebhookChange::Secrets { secrets: sealed, of_revision: webhook.revision };
    let audit = audit_record(&state, &principal, &id, "webhookSecretRotated")?;
    if !state.store.change_webhook(tenant, &id, &change, audit).await? {
        return Err(Problem::new(StatusCode::CONFLICT, "webhookChanged", "Webhook changed")
            .detail("somebody else has changed or removed the webhook meanwhile, and no secret was made; try again")
            .mendable_by("retry"));
    }
    state.webhooks_changed.notify_one();
    let webhook = Webhook::from(found(&state, &principal, &id).await?);
    let rotated = WebhookWithSecret { secret: secrets.reveal().to_string(), webhook };
    Ok(Reply::json(StatusCode::OK, &rotated)?.into_response())
}

/// Has events sent again. Receivers know them by their `webhook-id`.
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/replay", tag = "webhooks", request_body = WantedReplay,
    params(("id" = String, Path, description = "The webhook's short name")),
    responses(
        (status = 200, description = "The webhook, with the place from which it goes on", body = Webhook),
        StaffProblems,
        BodyProblems,
        (status = 404, description = "There is no such webhook", body = ProblemDetails),
    ),
    security(("serviceKey" = ["webhooks"])),
)]
pub(crate) async fn replay(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    Path(id): Path<String>,
    JsonBody(wanted): JsonBody<WantedReplay>,
) -> Result<Response, Problem> {
    staff(&principal, Scope::Webhooks)?;
    let tenant = principal.tenant();
    let now_ms = state.clock.now_ms();
    let change = match (wanted.after, wanted.since, wanted.given_up) {
        (Some(after), None, None) => {
            let after = after.parse::<u64>().map_err(|_| invalid("after", "a whole number in quotes is due here"))?;
            WebhookChange::ReplayAfter(checked_position(&state, tenant, after).await?)
        }
        (None, Some(since), None) => {
            let from = since.as_millis().saturating_sub(COMMITTED_LATE_MS);
            let first = state.store.first_event_since(tenant, from).await?;
            // Where nothing has happened since, nothing is sent again.
            WebhookChange::ReplayAfter(first.map_or(u64::MAX >> 1, |first| first.saturating_sub(1)))
        }
        (None, None, Some(true)) => WebhookChange::TryAgain { at_ms: now_ms },
        _ => return Err(invalid("", "exactly one of `after`, `since` and `givenUp: true` is due here")),
    };
    let audit = audit_record(&state, &principal, &id, "webhookReplayed")?;
    if !state.store.change_webhook(tenant, &id, &change, audit).await? {
        return Err(not_found());
    }
    state.webhooks_changed.notify_one();
    let webhook = Webhook::from(found(&state, &principal, &id).await?);
    Ok(Reply::json(StatusCode::OK, &webhook)?.into_response())
}

/// A place that there is. Before the first event that is kept is the same as at it.
async fn checked_position(state: &ServerState, tenant: &TenantId, after: u64) -> Result<u64, Problem> {
    let latest = state.store.event_mark(0).await?.position;
    if after > latest {
        return Err(invalid("after", &format!("there is no such event yet: the latest one is {latest}")));
    }
    Ok(after.max(state.store.events_forgotten(tenant).await?))
}

/// Sends one message of the type `webhook.test` now, and says what came of it. It is tried once, also where the webhook is disabled.
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/test", tag = "webhooks",
    params(("id" = String, Path, description = "The webhook's short name")),
    responses(
        (status = 200, description = "What came of it", body = TestOutcome),
        StaffProblems,
        (status = 404, description = "There is no such webhook", body = ProblemDetails),
    ),
    security(("serviceKey" = ["webhooks"])),
)]
pub(crate) async fn test(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    staff(&principal, Scope::Webhooks)?;
    let (webhook, _) = found(&state, &principal, &id).await?;
    let (secrets, now_ms) = (opened(&state, &webhook)?, state.clock.now_ms());
    let event_id = format!("evt_{:032x}", fastrand::u128(..));
    let event = TestEvent {
        id: &event_id,
        r#type: "webhook.test",
        timestamp: rfc3339(now_ms),
        data: TestData { webhook_id: &id },
    };
    let body = serde_json::to_string(&event).map_err(|error| Problem::internal(&error))?;
    let message = Message { url: &webhook.url, id: &event_id, body: &body };
    // In less time than a request has, so that its failure is told.
    let limit = state.config.request_timeout.mul_f64(0.8);
    let delivered = tokio::time::timeout(limit, state.deliverer.deliver(message, &secrets, now_ms)).await;
    let outcome = match delivered {
        Ok(delivered) => TestOutcome {
            arrived: delivered.failure.is_none(),
            status: delivered.status,
            took_ms: u64::try_from(delivered.took.as_millis()).unwrap_or(u64::MAX),
            failure: delivered.failure.map(|failure| failure.what),
        },
        Err(_) => TestOutcome {
            arrived: false,
            status: None,
            took_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            failure: Some("it did not answer in time".to_owned()),
        },
    };
    Ok(Reply::json(StatusCode::OK, &outcome)?.into_response())
}
