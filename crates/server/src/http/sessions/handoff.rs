//! Going on in another browser: one asks for a code, the other exchanges it for a token of its own, once.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use throughline_core::sync::ServerFrame;
use throughline_core::{Caller, ClientId, Command, LentClaim, Role, Timestamp};
use utoipa::ToSchema;

use super::{Target, TokenAnswer, all_accepted, erased, existing, request};
use crate::audit::Denial;
use crate::claim_secret;
use crate::client_address::kept_network;
use crate::http::body::{JsonBody, invalid};
use crate::http::cookie::{self, MaybeCookieMode};
use crate::http::extract::ClientAddress;
use crate::http::idempotent::Reply;
use crate::http::problem_schema::{BodyProblems, ProblemDetails, SessionProblems};
use crate::principal::{Principal, Role as PrincipalRole};
use crate::problem::Problem;
use crate::scope::Scope;
use crate::store::SessionKey;
use crate::token::{Grant, HANDOFF_LIFE, Lifetimes, Purpose, TokenError};
use crate::wiring::ServerState;

/// How many codes one address may try in a minute.
pub const HANDOFFS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(30).unwrap();

/// A code with which one other browser can go on with the session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Handoff {
    /// For `POST /v1/handoff`. A secret until it is used.
    code: String,
    /// Until when it can be used.
    expires_at: Timestamp,
}

/// What a code is exchanged for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HandedOff {
    /// The session's id.
    session_id: String,
    #[serde(flatten)]
    token: TokenAnswer,
}

/// A code that another browser has asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct HandoffCode {
    /// As it was given out.
    code: String,
    /// A secret of 32 to 256 bytes that the browser keeps: with it, it comes back when its token is over, for as long as
    /// tokens may be renewed.
    #[schema(min_length = 32, max_length = 256)]
    claim: Option<String>,
}

/// Gives out a code with which one other browser can go on with the session, within 5 minutes.
#[utoipa::path(
    post, path = "/v1/sessions/{id}/handoff", tag = "sessions",
    params(("id" = String, Path, description = "The session's id")),
    responses(
        (status = 201, description = "A code", body = Handoff),
        SessionProblems,
        (status = 410, description = "The session was erased", body = ProblemDetails),
    ),
    security(("serviceKey" = ["sessions:write"]), ("sessionToken" = [])),
)]
pub(crate) async fn offer(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let target = Target::of(&principal, &id, Scope::SessionsWrite)?;
    let current = existing(&state, &target).await?;
    if current.erased_at.is_some() {
        return Err(erased());
    }
    let SessionKey { tenant, session_id } = target.key;
    let access_generation = current.access_generation;
    let issued_by = principal.issuing_key();
    let grant = Grant { purpose: Purpose::Handoff, tenant, session_id, access_generation, issued_by };
    let lifetimes = Lifetimes { idle: HANDOFF_LIFE, ..state.config.lifetimes };
    let (tokens, now_ms) = (state.authenticator.tokens(), state.clock.now_ms());
    let issued = match &principal.role {
        // Who goes on elsewhere does not go on for longer.
        PrincipalRole::Browser { claims } => tokens.issue_from(claims, &grant, lifetimes, now_ms),
        PrincipalRole::Service { .. } => tokens.issue(&grant, lifetimes, now_ms),
    };
    let issued = issued.map_err(|error| Problem::internal(&error))?;
    let expires_at = Timestamp::from_millis(issued.claims.expires_at_ms);
    Ok(Reply::json(StatusCode::CREATED, &Handoff { code: issued.text, expires_at })?.into_response())
}

/// Exchanges a code for a token, once. Who lost the answer asks again with the same claim secret.
#[utoipa::path(
    post, path = "/v1/handoff", tag = "sessions", request_body = HandoffCode,
    responses(
        (status = 200, description = "The session's id, and a token for it", body = HandedOff),
        BodyProblems,
        (status = 401, description = "The code is none of this server, was changed or revoked, or its time is over", body = ProblemDetails),
        (status = 404, description = "The session is gone", body = ProblemDetails),
        (status = 410, description = "The code was used, or the session was erased", body = ProblemDetails),
        (status = 429, description = "Too many attempts from this address", body = ProblemDetails),
        (status = 503, description = "It could not be stored just now", body = ProblemDetails),
    ),
    security(()),
)]
pub(crate) async fn accept(
    State(state): State<Arc<ServerState>>,
    ClientAddress(address): ClientAddress,
    MaybeCookieMode(mode): MaybeCookieMode,
    JsonBody(HandoffCode { code, claim }): JsonBody<HandoffCode>,
) -> Result<Response, Problem> {
    state.handoffs_per_address.check(address)?;
    // What is in a cookie comes back by its secret.
    let claim = match claim {
        None if mode.is_some() => Some(cookie::new_claim()?),
        claim => claim,
    };
    if mode.is_some() && claim.as_deref().is_some_and(|claim| cookie::digest_of_claim(claim).is_none()) {
        return Err(invalid("claim", "a claim secret in a cookie has 32 to 256 letters, digits, `-` and `_`"));
    }
    let now_ms = state.clock.now_ms();
    let claims = state.authenticator.verify(&code, Purpose::Handoff, now_ms).map_err(|error| {
        let denial = Denial::of_nobody("useHandoffCode", error.code());
        refused(&error).denial(denial)
    })?;
    if let Some(mode) = &mode {
        cookie::judge_tenant(mode, &claims).map_err(cookie::refused)?;
    }
    let secret = claim;
    let digest = |secret: &str| {
        claim_secret::digest_of(secret).ok_or_else(|| invalid("claim", "a claim secret has 32 to 256 bytes"))
    };
    // No longer than the token that asked for the code could be renewed, and only as long as that could be good.
    let until = Timestamp::from_millis(claims.ends_at_ms);
    let (family, issued_by) = (claims.family.clone(), claims.issued_by.clone());
    let digest = secret.as_deref().map(digest).transpose()?;
    let claim = digest.map(|digest| LentClaim { digest, until, family, issued_by });
    let key = SessionKey { tenant: claims.tenant.clone(), session_id: claims.session_id.clone() };
    let access_generation = claims.access_generation;
    // A code ends as a token does: when the session is paid, and when access to it is revoked.
    let caller = Caller { key_id: None, network: Some(kept_network(address)) };
    let credential = claims.credential();
    let target = Target { key, role: Role::System, credential, caller };
    let current = existing(&state, &target).await.map_err(of_code)?;
    if current.erased_at.is_some() {
        return Err(erased());
    }
    if claims.asked_by.as_ref().is_some_and(|asked_by| !current.accepts(access_generation, asked_by)) {
        return Err(refused(&TokenError::Revoked));
    }
    // A code is a client with one command: that no command takes effect twice, on whichever server, makes it good for one
    // browser. Of the clients that a session remembers, codes are the last to be forgotten.
    let client_id = ClientId::new(format!("{}{}", ClientId::HANDOFF, claims.token_id))
        .map_err(|error| Problem::internal(&error))?;
    let requests = vec![request(&client_id, Some(1), Command::HandOff { claim: claim.clone() })];
    let answers = target.execute(&state, requests).await?.answers;
    if answers.iter().any(|answer| matches!(answer, ServerFrame::Accepted { repeated: true, .. })) {
        // Whoever used the code has registered this secret with it: the answer was lost on its way.
        let session = existing(&state, &target).await.map_err(of_code)?;
        let is_same_browser = claim.is_some_and(|claim| session.lent_claim(&claim.digest).is_some());
        if !is_same_browser {
            tracing::warn!("a handoff code was used again");
            let SessionKey { tenant, session_id } = target.key.clone();
            let denial = Denial::of(tenant, "nobody", target.caller.clone(), "useHandoffCode", "handoffUsed");
            return Err(Problem::new(StatusCode::GONE, "handoffUsed", "The code was used")
                .detail("this code was used already; ask for a new one on the device that has the session")
                .mendable_by("buyerInput")
                .denial(Denial { session: Some(session_id), ..denial }));
        }
    } else {
        all_accepted(answers).map_err(of_code)?;
    }
    let SessionKey { tenant, session_id } = target.key;
    let session = session_id.clone();
    let purpose = Purpose::of_browser(mode.is_some());
    let grant = Grant { purpose, tenant, session_id: session, access_generation, issued_by: None };
    let issued = state.authenticator.tokens().issue_from(&claims, &grant, state.config.lifetimes, now_ms);
    let issued = issued.map_err(|error| Problem::internal(&error))?;
    let until_ms = issued.claims.ends_at_ms;
    let (token, cookies) = TokenAnswer::to(&state, mode.as_ref().zip(secret), issued, until_ms);
    Ok(Reply::json(StatusCode::OK, &HandedOff { session_id, token })?.cookies(cookies).into_response())
}

/// What is a revoked token elsewhere is a code here.
fn of_code(problem: Problem) -> Problem {
    if problem.code() == TokenError::Revoked.code() { refused(&TokenError::Revoked) } else { problem }
}

fn refused(error: &TokenError) -> Problem {
    tracing::warn!(code = error.code(), "a handoff code was refused");
    let detail = match error {
        TokenError::Expired { .. } => {
            "the time of this code is over; ask for a new one on the device that has the session"
        }
        TokenError::Revoked => {
            "this code was made before the session was paid or its access revoked; ask for a new one on the device that has \
             the session"
        }
        _ => "this is no code of this server, or it was changed on its way; ask for a new one",
    };
    Problem::new(StatusCode::UNAUTHORIZED, "handoffRefused", "The code was refused")
        .detail(detail)
        .mendable_by("buyerInput")
}
