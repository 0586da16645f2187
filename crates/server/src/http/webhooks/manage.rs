//! Making, listing, changing and removing webhooks, and what became of their messages.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use throughline_core::{LifecycleKind, Timestamp};
use utoipa::ToSchema;

use super::{MAX_WEBHOOKS, Webhook, WebhookWithSecret, audit_record, found, not_found, unreadable};
use crate::http::body::{JsonBody, invalid};
use crate::http::idempotent::Reply;
use crate::http::problem_schema::{BodyProblems, ProblemDetails, StaffProblems};
use crate::http::sessions::staff;
use crate::principal::Principal;
use crate::problem::Problem;
use crate::scope::Scope;
use crate::store::{
    DeliveryTry, Disabled, StoredWebhook, WaitingCount, WaitingDelivery, WebhookChange, WebhookProgress,
};
use crate::webhooks::destination::destination;
use crate::webhooks::signature::Secrets;
use crate::wiring::ServerState;

/// How long a description may be, in characters.
const MAX_DESCRIPTION_CHARS: usize = 200;

/// How many deliveries that wait, and how many that were given up, one answer holds.
const DELIVERIES: u32 = 100;

/// A webhook that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "url": "https://shop.example/webhooks", "types": ["session.paid", "session.expired"] }))]
pub(crate) struct WantedWebhook {
    /// Where events are sent: `https://`, and a public address.
    #[schema(max_length = 2048)]
    url: String,
    /// What people say of it, without personal data.
    #[serde(default)]
    #[schema(max_length = 200)]
    description: String,
    /// Of which types of events; all where it is empty or missing.
    #[serde(default)]
    types: Vec<LifecycleKind>,
}

/// What is to be another way. What is missing stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "enabled": true }))]
pub(crate) struct WebhookPatch {
    /// Where events are sent.
    #[schema(max_length = 2048)]
    url: Option<String>,
    /// What people say of it.
    #[schema(max_length = 200)]
    description: Option<String>,
    /// Of which types of events; empty for all.
    types: Option<Vec<LifecycleKind>>,
    /// Whether anything is sent. To enable it has everything that waits tried at once.
    enabled: Option<bool>,
}

/// All webhooks of the tenant.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebhookList {
    /// In the order in which they were made.
    webhooks: Vec<Webhook>,
}

/// What became of a webhook's messages.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Deliveries {
    /// The latest tries, up to 100, the latest first.
    tries: Vec<TryEntry>,
    /// The first 100 events that wait for their next try.
    waiting: Vec<WaitingEntry>,
    /// The first 100 events that were given up.
    given_up: Vec<WaitingEntry>,
}

/// One try of sending an event.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TryEntry {
    /// The event: `webhook-id`.
    event_id: String,
    /// What happened.
    r#type: LifecycleKind,
    /// Its session.
    session_id: String,
    /// When it was sent.
    at: Timestamp,
    /// How long it took, in milliseconds.
    took_ms: u64,
    /// The status of the answer; missing where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// Why it failed; missing where it arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

impl From<DeliveryTry> for TryEntry {
    fn from(tried: DeliveryTry) -> Self {
        Self {
            event_id: tried.event_id,
            r#type: tried.kind,
            session_id: tried.session_id,
            at: Timestamp::from_millis(tried.at_ms),
            took_ms: tried.took_ms,
            status: tried.status,
            failure: tried.failure,
        }
    }
}

/// An event that was not delivered yet.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WaitingEntry {
    /// The event: `webhook-id`.
    event_id: String,
    /// What happened.
    r#type: LifecycleKind,
    /// Its session. The session's later events wait for it.
    session_id: String,
    /// When it happened.
    happened_at: Timestamp,
    /// How often it was tried; 0 for one that waits for another one of its session.
    tries: u32,
    /// When it is tried next; missing where it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_try_at: Option<Timestamp>,
    /// Why the latest try failed; missing where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

impl From<WaitingDelivery> for WaitingEntry {
    fn from(row: WaitingDelivery) -> Self {
        Self {
            event_id: row.event.id,
            r#type: row.event.kind,
            session_id: row.session_id,
            happened_at: Timestamp::from_millis(row.event.at_ms),
            tries: row.tries,
            next_try_at: row.next_try_at_ms.map(Timestamp::from_millis),
            failure: Some(row.last_failure).filter(|failure| !failure.is_empty()),
        }
    }
}

/// The address in the form in which it is kept.
fn checked_url(state: &ServerState, url: &str) -> Result<String, Problem> {
    let checked = destination(url.trim(), &state.config.webhooks.networks);
    checked.map(String::from).map_err(|error| invalid("url", &error.to_string()))
}

fn checked_description(description: String) -> Result<String, Problem> {
    let is_fine = description.chars().count() <= MAX_DESCRIPTION_CHARS && !description.chars().any(char::is_control);
    let why = "a description has at most 200 characters, and none that controls a terminal";
    if is_fine { Ok(description) } else { Err(invalid("description", why)) }
}

/// Each kind once, in one order.
fn checked_kinds(mut kinds: Vec<LifecycleKind>) -> Vec<LifecycleKind> {
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// Makes a webhook. It is told of what happens from now on.
///
/// There is no `Idempotency-Key`: an answer that is kept could be read later on, and the secret is to be nowhere else. Where the
/// answer was lost, remove the webhook that the list shows, and make another one.
#[utoipa::path(
    post, path = "/v1/webhooks", tag = "webhooks", request_body = WantedWebhook,
    responses(
        (status = 201, description = "The webhook, with its secret, shown this once", body = WebhookWithSecret,
            headers(("Cache-Control" = String, description = "`no-store`"))),
        StaffProblems,
        BodyProblems,
        (status = 409, description = "The tenant has as many webhooks as it may have", body = ProblemDetails),
    ),
    security(("serviceKey" = ["webhooks"])),
)]
pub(crate) async fn create(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    JsonBody(WantedWebhook { url, description, types }): JsonBody<WantedWebhook>,
) -> Result<Response, Problem> {
    staff(&principal, Scope::Webhooks)?;
    let (url, description) = (checked_url(&state, &url)?, checked_description(description)?);
    let tenant = principal.tenant().clone();
    if state.store.webhooks(Some(&tenant)).await?.len() >= MAX_WEBHOOKS {
        return Err(Problem::new(StatusCode::CONFLICT, "tooManyWebhooks", "Too many webhooks")
            .detail(format!("a tenant has at most {MAX_WEBHOOKS} webhooks; remove one that nobody needs"))
            .mendable_by("permanent"));
    }
    let position = state.event_feed.listen().settled().await;
    let (id, now_ms) = (format!("wh_{:016x}", fastrand::u64(..)), state.clock.now_ms());
    let secrets = Secrets::generate().map_err(|error| unreadable(&error))?;
    let sealed = secrets.seal(&tenant, &id, &state.keys, now_ms).map_err(|error| unreadable(&error))?;
    let webhook = StoredWebhook {
        tenant,
        id: id.clone(),
        url,
        description,
        kinds: checked_kinds(types),
        secrets: sealed,
        created_at_ms: now_ms,
        created_by: principal.scope(),
        revision: 1,
        progress: WebhookProgress { position, ..WebhookProgress::default() },
    };
    let audit = audit_record(&state, &principal, &id, "webhookCreated")?;
    state.store.add_webhook(&webhook, audit).await?;
    tracing::info!(webhook = id, by = webhook.created_by, "a webhook was made");
    state.webhooks_changed.notify_one();
    let secret = secrets.reveal().to_string();
    let created = WebhookWithSecret { secret, webhook: (webhook, WaitingCount::default()).into() };
    Ok(Reply::json(StatusCode::CREATED, &created)?.location(format!("/v1/webhooks/{id}")).into_response())
}

/// Lists the webhooks of the tenant, and how they do.
#[utoipa::path(
    get, path = "/v1/webhooks", tag = "webhooks",
    responses((status = 200, description = "All of them", body = WebhookList), StaffProblems),
    security(("serviceKey" = ["webhooks"])),
)]
pub(crate) async fn list(State(state): State<Arc<ServerState>>, principal: Principal) -> Result<Response, Problem> {
    staff(&principal, Scope::Webhooks)?;
    let webhooks = state.store.webhooks(Some(principal.tenant())).await?;
    let list = WebhookList { webhooks: webhooks.into_iter().map(Webhook::from).collect() };
    Ok(Reply::json(StatusCode::OK, &list)?.into_response())
}

/// One webhook, and how it does.
#[utoipa::path(
    get, path = "/v1/webhooks/{id}", tag = "webhooks",
    params(("id" = String, Path, description = "The webhook's short name")),
    responses(
        (status = 200, description = "The webhook", body = Webhook),
        StaffProblems,
        (status = 404, description = "There is no such webhook", body = ProblemDetails),
    ),
    security(("serviceKey" = ["webhooks"])),
)]
pub(crate) async fn get(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    staff(&principal, Scope::Webhooks)?;
    let webhook = Webhook::from(found(&state, &principal, &id).await?);
    Ok(Reply::json(StatusCode::OK, &webhook)?.into_response())
}

/// Changes where a webhook is sent, of which events, and whether at all.
#[utoipa::path(
    patch, path = "/v1/webhooks/{id}", tag = "webhooks", request_body = WebhookPatch,
    params(("id" = String, Path, description = "The webhook's short name")),
    responses(
        (status = 200, description = "The webhook as it is now", body = Webhook),
        StaffProblems,
        BodyProblems,
        (status = 404, description = "There is no such webhook", body = ProblemDetails),
    ),
    security(("serviceKey" = ["webhooks"])),
)]
pub(crate) async fn change(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    Path(id): Path<String>,
    JsonBody(patch): JsonBody<WebhookPatch>,
) -> Result<Response, Problem> {
    staff(&principal, Scope::Webhooks)?;
    let (webhook, _) = found(&state, &principal, &id).await?;
    let WebhookPatch { url, description, types, enabled } = patch;
    let now_ms = state.clock.now_ms();
    let mut changes = Vec::new();
    if url.is_some() || description.is_some() || types.is_some() {
        let url = url.map(|url| checked_url(&state, &url)).transpose()?;
        let description = description.map(checked_description).transpose()?;
        let settings = WebhookChange::Settings {
            url: url.unwrap_or(webhook.url),
            description: description.unwrap_or(webhook.description),
            kinds: types.map_or(webhook.kinds, checked_kinds),
            now_ms,
        };
        changes.push((settings, "webhookChanged"));
    }
    match enabled {
        Some(true) => changes.push((WebhookChange::Enabled { disabled: None, now_ms }, "webhookEnabled")),
        Some(false) => {
            let because = format!("{} has disabled it", principal.scope());
            let disabled = Some(Disabled { at_ms: now_ms, because });
            changes.push((WebhookChange::Enabled { disabled, now_ms }, "webhookDisabled"));
        }
        None => {}
    }
    for (change, did) in changes {
        let audit = audit_record(&state, &principal, &id, did)?;
        if !state.store.change_webhook(principal.tenant(), &id, &change, audit).await? {
            return Err(not_found());
        }
    }
    state.webhooks_changed.notify_one();
    let webhook = Webhook::from(found(&state, &principal, &id).await?);
    Ok(Reply::json(StatusCode::OK, &webhook)?.into_response())
}

/// Removes a webhook, with all that waits for it. The same request sent again finds none.
#[utoipa::path(
    delete, path = "/v1/webhooks/{id}", tag = "webhooks",
    params(("id" = String, Path, description = "The webhook's short name")),
    responses(
        (status = 204, description = "It is gone"),
        StaffProblems,
        (status = 404, description = "There is no such webhook", body = ProblemDetails),
    ),
    security(("serviceKey" = ["webhooks"])),
)]
pub(crate) async fn remove(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    staff(&principal, Scope::Webhooks)?;
    let audit = audit_record(&state, &principal, &id, "webhookRemoved")?;
    if !state.store.remove_webhook(principal.tenant(), &id, audit).await? {
        return Err(not_found());
    }
    state.webhooks_changed.notify_one();
    Ok(Reply::empty().into_response())
}

/// What became of a webhook's messages: the latest tries, what waits, and what was given up.
#[utoipa::path(
    get, path = "/v1/webhooks/{id}/deliveries", tag = "webhooks",
    params(("id" = String, Path, description = "The webhook's short name")),
    responses(
        (status = 200, description = "What became of them", body = Deliveries),
        StaffProblems,
        (status = 404, description = "There is no such webhook", body = ProblemDetails),
    ),
    security(("serviceKey" = ["webhooks"])),
)]
pub(crate) async fn deliveries(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    staff(&principal, Scope::Webhooks)?;
    found(&state, &principal, &id).await?;
    let (store, tenant) = (&state.store, principal.tenant());
    let deliveries = Deliveries {
        tries: store.delivery_tries(tenant, &id).await?.into_iter().map(TryEntry::from).collect(),
        waiting: rows(store.waiting_deliveries(tenant, &id, false, DELIVERIES).await?),
        given_up: rows(store.waiting_deliveries(tenant, &id, true, DELIVERIES).await?),
    };
    Ok(Reply::json(StatusCode::OK, &deliveries)?.into_response())
}

fn rows(waiting: Vec<WaitingDelivery>) -> Vec<WaitingEntry> {
    waiting.into_iter().map(WaitingEntry::from).collect()
}
