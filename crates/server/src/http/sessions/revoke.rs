//! `POST /v1/tokens/revoke`: ends one token, as RFC 7009 describes it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use throughline_core::{Caller, Command, RejectionCode, Role, Timestamp};
use utoipa::ToSchema;

use super::{Target, all_accepted, nameless, request};
use crate::claim_secret;
use crate::client_address::kept_network;
use crate::clock::millis;
use crate::http::body::JsonBody;
use crate::http::extract::ClientAddress;
use crate::http::idempotent::Reply;
use crate::http::problem_schema::{BodyProblems, ProblemDetails};
use crate::problem::Problem;
use crate::store::SessionKey;
use crate::token::{Claims, Purpose};
use crate::wiring::ServerState;

/// What is to end.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Revocation {
    /// A session's token or a handoff code. Whoever has it may end it; nothing else is asked for.
    token: String,
    /// The claim secret of the same browser, where that is to end as well. Without it the browser that has the secret gets
    /// another token, and who has the token alone does not.
    claim: Option<String>,
}

/// Ends one token of a session, with all that were and will be renewed out of it, on every server and open socket. Other
/// browsers of the session go on.
///
/// A token that is over for itself ends the others of its family all the same. What is none of this server is as good as ended: the
/// answer is the same. A code ends what was let in with it, and nothing else.
#[utoipa::path(
    post, path = "/v1/tokens/revoke", tag = "sessions", request_body = Revocation,
    responses(
        (status = 204, description = "It is good for nothing"),
        BodyProblems,
        (status = 403, description = "The session remembers no more revoked tokens; the shop can end all of its access", body = ProblemDetails),
        (status = 503, description = "It can't be stored just now: it is still good", body = ProblemDetails),
    ),
    security(()),
)]
pub(crate) async fn revoke(
    State(state): State<Arc<ServerState>>,
    ClientAddress(address): ClientAddress,
    JsonBody(Revocation { token, claim }): JsonBody<Revocation>,
) -> Result<Response, Problem> {
    let now_ms = state.clock.now_ms();
    let verified = [Purpose::Browser, Purpose::Handoff, Purpose::Cookie]
        .into_iter()
        .find_map(|purpose| state.authenticator.tokens().verify_family(&token, purpose, now_ms).ok());
    match verified {
        Some(claims) => {
            let key = SessionKey { tenant: claims.tenant.clone(), session_id: claims.session_id.clone() };
            let caller = Caller { key_id: None, network: Some(kept_network(address)) };
            let claim = claim.as_deref().and_then(claim_secret::digest_of);
            end(&state, key, caller, Some(&claims), claim).await?;
        }
        // Nobody finds out by trying whether a text is a token.
        None => state.request_limits.refuse_credential(address)?,
    }
    Ok(Reply::empty().into_response())
}

/// Ends a token that was verified, a claim by its digest, or both; what the session does not accept any more is ended already.
pub(super) async fn end(
    state: &ServerState,
    key: SessionKey,
    caller: Caller,
    claims: Option<&Claims>,
    claim: Option<String>,
) -> Result<(), Problem> {
    // One from before the latest commit is not what the session knows: it is read where it is decided.
    let Some(current) = state.sessions.read_again(&key).await?.map(|current| current.state) else { return Ok(()) };
    let claim = claim.filter(|digest| current.knows(digest));
    let family = claims
        .filter(|claims| current.keeps(claims.access_generation, &claims.family))
        .map(|claims| claims.family.clone());
    if family.is_none() && claim.is_none() {
        return Ok(());
    }
    let absolute = millis(state.config.lifetimes.absolute);
    let until = claims.map_or_else(|| state.clock.now_ms().saturating_add(absolute), |claims| claims.ends_at_ms);
    let command = Command::RevokeToken { family, claim, until: Timestamp::from_millis(until) };
    let target = Target { key, role: Role::System, credential: throughline_core::sync::Credential::Verified, caller };
    let requests = vec![request(&nameless()?, None, command)];
    match all_accepted(target.execute(state, requests).await?.answers) {
        // There is nothing to be let into.
        Err(problem) if problem.code() == RejectionCode::SessionErased.as_str() => Ok(()),
        outcome => outcome.map(|_version| ()),
    }
}
