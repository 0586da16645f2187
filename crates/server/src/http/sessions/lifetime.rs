//! How long a session and its tokens live: extending, deleting, renewing.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use throughline_core::{Command, Session};
use utoipa::ToSchema;

use super::{Target, TokenAnswer, all_accepted, erased, existing, issue_token, nameless, request, session_reply};
use crate::http::body::JsonBody;
use crate::http::idempotent::Reply;
use crate::http::problem_schema::{BodyProblems, ProblemDetails, SessionProblems};
use crate::principal::{Principal, Role as PrincipalRole};
use crate::problem::Problem;
use crate::scope::Scope;
use crate::token::{IssueError, Purpose};
use crate::wiring::ServerState;

/// How long to extend.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Extension {
    /// How long from now, in milliseconds; the funnel's default where missing.
    ttl_ms: Option<u32>,
}

/// Lets the session live longer, up to the funnel's longest life.
#[utoipa::path(
    post, path = "/v1/sessions/{id}/extend", tag = "sessions", request_body = Extension,
    params(("id" = String, Path, description = "The session's id")),
    responses(
        (status = 200, description = "The session after the change", body = Session),
        SessionProblems,
        BodyProblems,
        (status = 409, description = "It is completed, or has reached its longest life", body = ProblemDetails),
        (status = 410, description = "It has expired or was erased", body = ProblemDetails),
    ),
    security(("serviceKey" = ["sessions:write"]), ("sessionToken" = [])),
)]
pub(crate) async fn extend(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    Path(id): Path<String>,
    JsonBody(Extension { ttl_ms }): JsonBody<Extension>,
) -> Result<Response, Problem> {
    let target = Target::of(&principal, &id, Scope::SessionsWrite)?;
    existing(&state, &target).await?;
    let requests = vec![request(&nameless()?, None, Command::Extend { ttl_ms })];
    all_accepted(target.execute(&state, requests).await?.answers)?;
    let current = existing(&state, &target).await?;
    Ok(session_reply(&current, target.role)?.into_response())
}

/// Removes the session's personal data for good; a tombstone without any stays, so that nothing revives it.
#[utoipa::path(
    delete, path = "/v1/sessions/{id}", tag = "sessions",
    params(("id" = String, Path, description = "The session's id")),
    responses(
        (status = 204, description = "It is gone, or was before"),
        SessionProblems,
        (status = 403, description = "Only service keys delete sessions, with the scope `privacy`", body = ProblemDetails),
        (status = 409, description = "The session is held, and stays", body = ProblemDetails),
    ),
    security(("serviceKey" = ["privacy"])),
)]
pub(crate) async fn delete(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let target = Target::of(&principal, &id, Scope::Privacy)?;
    target.carry_out(&state, Command::Erase {}).await?;
    Ok(Reply::empty().into_response())
}

/// Gives out a token for the session: a service gets a new one for a browser, a browser exchanges its own.
#[utoipa::path(
    post, path = "/v1/sessions/{id}/token", tag = "sessions",
    params(("id" = String, Path, description = "The session's id")),
    responses(
        (status = 200, description = "A token", body = TokenAnswer),
        SessionProblems,
        (status = 410, description = "The session was erased", body = ProblemDetails),
    ),
    security(("serviceKey" = ["sessions:write"]), ("sessionToken" = [])),
)]
pub(crate) async fn renew_token(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let target = Target::of(&principal, &id, Scope::SessionsWrite)?;
    let current = existing(&state, &target).await?;
    if current.erased_at.is_some() {
        return Err(erased());
    }
    let issued = match &principal.role {
        PrincipalRole::Browser { claims } if claims.purpose == Purpose::Cookie => {
            return Err(Problem::new(StatusCode::FORBIDDEN, "notPermitted", "Forbidden")
                .detail("what is in a cookie stays there; POST /v1/sessions/{id}/cookie renews it")
                .mendable_by("permanent")
                .denial(principal.denied("renewToken", "notPermitted")));
        }
        PrincipalRole::Browser { claims } => {
            let (tokens, now_ms) = (state.authenticator.tokens(), state.clock.now_ms());
            let renewed =
                tokens.renew(claims, Purpose::Browser, current.access_generation, state.config.lifetimes, now_ms);
            renewed.map_err(|error| too_old(&error))?
        }
        PrincipalRole::Service { .. } => {
            issue_token(&state, Purpose::Browser, &target.key, &current, principal.issuing_key())?
        }
    };
    Ok(Reply::json(StatusCode::OK, &TokenAnswer::from(issued))?.into_response())
}

/// No token is made out of this one any more.
pub(super) fn too_old(error: &IssueError) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "tokenTooOld", "Not authenticated")
        .detail(error.to_string())
        .mendable_by("forbidden")
}
