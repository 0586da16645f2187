//! `/v1/service-keys`: the service keys of the database, for operators.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use throughline_core::Timestamp;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{JsonBody, invalid};
use super::idempotent::Reply;
use super::problem_schema::{BodyProblems, ProblemDetails, StaffProblems};
use super::query::QueryParameters;
use super::sessions::staff;
use crate::principal::Principal;
use crate::problem::{Problem, chain};
use crate::scope::Scope;
use crate::service_keys::{self, Author, CreateError, NewServiceKey, RevokeError};
use crate::store::{Revocation, StoredServiceKey};
use crate::wiring::ServerState;

/// The routes, with their descriptions.
pub fn routes() -> OpenApiRouter<Arc<ServerState>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke))
}

/// A service key that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "name": "back end", "scopes": ["sessions:read", "sessions:write"], "expiresAt": "2099-01-01T00:00:00.000Z" }))]
pub(crate) struct WantedServiceKey {
    /// What people call it: what it is for, without personal data. No control characters, and no spaces around it.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    /// What it may do.
    #[schema(min_items = 1)]
    scopes: Vec<Scope>,
    /// From when on it is refused, in the future; never where missing.
    expires_at: Option<Timestamp>,
}

/// A service key, without the key itself.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceKeyEntry {
    /// Its short public name.
    id: String,
    /// Whose sessions it reaches.
    tenant: String,
    /// What people call it.
    name: String,
    /// What it may do.
    scopes: Vec<Scope>,
    /// When it was made.
    created_at: Timestamp,
    /// Who made it: `cli`, or `service:` and the id of a key.
    created_by: String,
    /// From when on it is refused; missing where it is for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    /// When it was revoked; missing where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<Timestamp>,
    /// When it was last used, to the minute; missing where it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<Timestamp>,
}

impl From<StoredServiceKey> for ServiceKeyEntry {
    fn from(stored: StoredServiceKey) -> Self {
        Self {
            id: stored.id,
            tenant: stored.tenant.into(),
            name: stored.name,
            scopes: stored.scopes.iter().collect(),
            created_at: Timestamp::from_millis(stored.created_at_ms),
            created_by: stored.created_by,
            expires_at: stored.expires_at_ms.map(Timestamp::from_millis),
            revoked_at: stored.revoked_at_ms.map(Timestamp::from_millis),
            last_used_at: stored.last_used_at_ms.map(Timestamp::from_millis),
        }
    }
}

/// A service key that was just made.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreatedServiceKey {
    /// The key itself: `Authorization: Bearer <key>`. It is shown this once, and kept nowhere.
    key: String,
    #[serde(flatten)]
    entry: ServiceKeyEntry,
}

/// All service keys of the tenant.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceKeyList {
    /// In the order in which they were made, with those that are revoked or expired.
    keys: Vec<ServiceKeyEntry>,
}

/// Makes a service key for the operator's own tenant. Other servers know it within a second.
///
/// There is no `Idempotency-Key`: an answer that is kept could be read later on, and the key is to be nowhere. Where the answer was
/// lost, the list shows a key that was never used: revoke it, and make another one.
#[utoipa::path(
    post, path = "/v1/service-keys", tag = "service keys", request_body = WantedServiceKey,
    responses(
        (status = 201, description = "The key, shown this once", body = CreatedServiceKey,
            headers(("Cache-Control" = String, description = "`no-store`"))),
        StaffProblems,
        BodyProblems,
    ),
    security(("serviceKey" = ["operator"])),
)]
pub(crate) async fn create(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    JsonBody(WantedServiceKey { name, scopes, expires_at }): JsonBody<WantedServiceKey>,
) -> Result<Response, Problem> {
    staff(&principal, Scope::Operator)?;
    let name = name.parse().map_err(|error: service_keys::ServiceKeyNameError| invalid("name", &error.to_string()))?;
    if scopes.is_empty() {
        return Err(invalid("scopes", "a key without any scope could do nothing; give at least one"));
    }
    let now_ms = state.clock.now_ms();
    let expires_at_ms = expires_at.map(Timestamp::as_millis);
    if expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
        return Err(invalid("expiresAt", "the key would be refused from the start; give a time in the future"));
    }
    let (tenant, created_by) = (principal.tenant().clone(), principal.scope());
    let new = NewServiceKey { tenant, name, scopes: scopes.into_iter().collect(), expires_at_ms, created_by };
    let made = service_keys::create(&*state.store, new, &author(&state, &principal), now_ms).await;
    let (key, stored) = made.map_err(|error| match error {
        CreateError::Random(error) => Problem::internal(&error),
        CreateError::Store(error) => error.into(),
        CreateError::Entry(error) => Problem::internal(&error),
    })?;
    tracing::info!(id = stored.id, scopes = %stored.scopes, by = stored.created_by, "a service key was made");
    learn(&state).await;
    let created = CreatedServiceKey { key: key.reveal().to_owned(), entry: stored.into() };
    Ok(Reply::json(StatusCode::CREATED, &created)?.into_response())
}

/// Lists the service keys of the operator's own tenant. Bootstrap keys are in the configuration and not among them.
#[utoipa::path(
    get, path = "/v1/service-keys", tag = "service keys",
    responses((status = 200, description = "All of them", body = ServiceKeyList), StaffProblems),
    security(("serviceKey" = ["operator"])),
)]
pub(crate) async fn list(State(state): State<Arc<ServerState>>, principal: Principal) -> Result<Response, Problem> {
    staff(&principal, Scope::Operator)?;
    let keys = state.store.service_keys(Some(principal.tenant())).await?;
    let list = ServiceKeyList { keys: keys.into_iter().map(ServiceKeyEntry::from).collect() };
    Ok(Reply::json(StatusCode::OK, &list)?.into_response())
}

/// Revokes a service key, for ever. All servers refuse it within a second, and the session tokens that it had made, and end what is
/// open with either. The same request sent again changes nothing more.
#[utoipa::path(
    delete, path = "/v1/service-keys/{id}", tag = "service keys",
    params(
        ("id" = String, Path, description = "The key's short public name"),
        ("own" = Option<bool>, Query, description = "Whether it may be the key that this request comes with; `false` where missing"),
    ),
    responses(
        (status = 204, description = "It is revoked, or was before"),
        StaffProblems,
        (status = 404, description = "The tenant has no such key", body = ProblemDetails),
        (status = 409, description = "It is the key that the request came with", body = ProblemDetails),
    ),
    security(("serviceKey" = ["operator"])),
)]
pub(crate) async fn revoke(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    staff(&principal, Scope::Operator)?;
    let query = QueryParameters::read(query.as_deref(), &["own"])?;
    let may_be_own = query.value::<bool>("own", "true or false")?.unwrap_or(false);
    if principal.issuing_key().as_deref() == Some(&*id) && !may_be_own {
        return Err(Problem::new(StatusCode::CONFLICT, "ownServiceKey", "Own service key")
            .detail(
                "this is the key that the request came with, and nothing could be done with it any more; use another operator's key, or add `?own=true` if it is meant",
            )
            .mendable_by("permanent"));
    }
    let (author, now_ms) = (author(&state, &principal), state.clock.now_ms());
    let revoked = service_keys::revoke(&*state.store, principal.tenant(), &id, &author, now_ms).await;
    let revocation = revoked.map_err(|error| match error {
        RevokeError::Store(error) => error.into(),
        RevokeError::Entry(error) => Problem::internal(&error),
    })?;
    if revocation == Revocation::Unknown {
        return Err(Problem::new(StatusCode::NOT_FOUND, "serviceKeyNotFound", "Service key not found")
            .detail("the tenant of this operator has no service key with this id; bootstrap keys are taken out of the configuration instead")
            .mendable_by("permanent"));
    }
    if revocation == Revocation::Revoked {
        tracing::info!(id, by = principal.scope(), "a service key was revoked");
    }
    learn(&state).await;
    Ok(Reply::empty().into_response())
}

/// Who the audit log says it was.
fn author<'a>(state: &'a ServerState, principal: &Principal) -> Author<'a> {
    Author { role: "operator", caller: principal.caller(), keys: &state.keys }
}

/// So that this server acts by it from the answer on. Where that fails, it does within a second, as the others.
async fn learn(state: &ServerState) {
    if let Err(error) = state.authenticator.service_keys().read_again(&*state.store).await {
        tracing::debug!(error = %chain(&error), "a change of service keys is not known here yet");
    }
}
