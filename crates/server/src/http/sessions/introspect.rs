//! `POST /v1/tokens/introspect`: what a session's token is good for, as RFC 7662 describes it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use throughline_core::Timestamp;
use utoipa::ToSchema;

use super::staff;
use crate::http::body::JsonBody;
use crate::http::idempotent::Reply;
use crate::http::problem_schema::{BodyProblems, StaffProblems};
use crate::principal::Principal;
use crate::problem::Problem;
use crate::scope::Scope;
use crate::store::SessionKey;
use crate::token::Purpose;
use crate::wiring::ServerState;

/// Whose token it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Introspection {
    /// What a browser has sent.
    token: String,
}

/// What it is good for.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Introspected {
    /// Whether it is good now. If not, nothing else is said.
    active: bool,
    /// The session that it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<Timestamp>,
    /// When it ends, unless it is renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

/// Says whether a token that a back end was sent is good: made by these servers for a session of the key's own tenant, not over, and
/// not revoked.
#[utoipa::path(
    post, path = "/v1/tokens/introspect", tag = "sessions", request_body = Introspection,
    responses(
        (status = 200, description = "What it is good for", body = Introspected, example = json!({ "active": false })),
        StaffProblems,
        BodyProblems,
    ),
    security(("serviceKey" = ["sessions:read"])),
)]
pub(crate) async fn introspect(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    JsonBody(Introspection { token }): JsonBody<Introspection>,
) -> Result<Response, Problem> {
    staff(&principal, Scope::SessionsRead)?;
    Ok(Reply::json(StatusCode::OK, &look_at(&state, &principal, &token).await?)?.into_response())
}

async fn look_at(state: &ServerState, principal: &Principal, token: &str) -> Result<Introspected, Problem> {
    let now_ms = state.clock.now_ms();
    let verified = [Purpose::Browser, Purpose::Cookie]
        .into_iter()
        .find_map(|purpose| state.authenticator.verify(token, purpose, now_ms).ok())
        .filter(|claims| claims.tenant == *principal.tenant());
    let Some(claims) = verified else { return Ok(Introspected::default()) };
    let key = SessionKey { tenant: claims.tenant.clone(), session_id: claims.session_id.clone() };
    let accepts = |session: &throughline_core::State| {
        session.erased_at.is_none() && session.accepts(claims.access_generation, &claims.family)
    };
    let mut current = state.sessions.current(&key).await?;
    if current.as_ref().is_some_and(|current| claims.access_generation > current.state.access_generation) {
        // It was made by a server whose commit this one has not heard of yet.
        current = state.sessions.read_again(&key).await?;
    }
    if !current.is_some_and(|current| accepts(&current.state)) {
        return Ok(Introspected::default());
    }
    Ok(Introspected {
        active: true,
        session_id: Some(claims.session_id.clone()),
        issued_at: Some(Timestamp::from_millis(claims.issued_at_ms)),
        expires_at: Some(Timestamp::from_millis(claims.expires_at_ms)),
    })
}
