//! `POST /v1/legacy-cookie`: a buyer who comes with the old shop's cookie goes on here, with a token instead of it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use throughline_core::sync::{Credential, ServerFrame};
use throughline_core::{Caller, ClientId, Command, LegacyEntries, LentClaim, Role, Timestamp};
use utoipa::ToSchema;

use super::{Target, TokenAnswer, all_accepted, erased, issue_token, nameless, not_found, request};
use crate::audit::{AuditEntry, Denial};
use crate::claim_secret;
use crate::client_address::kept_network;
use crate::http::body::{JsonBody, invalid};
use crate::http::cookie::{self, MaybeCookieMode};
use crate::http::extract::{ClientAddress, MaybePrincipal};
use crate::http::idempotent::Reply;
use crate::http::problem_schema::{BodyProblems, ProblemDetails};
use crate::legacy_cookie::{self, LegacyCookie, LegacyCookieError};
use crate::principal::{Principal, Role as PrincipalRole};
use crate::problem::Problem;
use crate::scope::Scope;
use crate::store::SessionKey;
use crate::token::Purpose;
use crate::wiring::ServerState;

/// The old shop's cookie.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LegacyCookieRequest {
    /// The value of `upsell_session`. Without it the request's own cookie is taken: with the header `Throughline-Credentials: cookie`,
    /// of a page that is of the server's own site.
    cookie: Option<String>,
    /// A secret of 32 to 256 bytes that the browser keeps: with it, it comes back when its token is over.
    #[schema(min_length = 32, max_length = 256)]
    claim: Option<String>,
}

/// What the cookie is exchanged for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LegacyCookieExchanged {
    /// The session's id.
    session_id: String,
    #[serde(flatten)]
    token: TokenAnswer,
}

/// Exchanges the old shop's cookie for a token, once: what it says of the session is brought in, as by the command `import`. Who
/// lost the answer asks again with the same claim secret.
///
/// A page's request, or that of a back end with a service key, to which its browser has sent the cookie.
#[utoipa::path(
    post, path = "/v1/legacy-cookie", tag = "sessions", request_body = LegacyCookieRequest,
    responses(
        (status = 200, description = "The session's id, and a token for it", body = LegacyCookieExchanged),
        BodyProblems,
        (status = 401, description = "The cookie is missing, not signed with the old shop's secret or with the public one, or its time is over; or the service key is none", body = ProblemDetails),
        (status = 403, description = "This server takes no such cookies, or the service key has not the scope `payments`", body = ProblemDetails),
        (status = 410, description = "The cookie was exchanged, or the session was erased", body = ProblemDetails),
        (status = 429, description = "Too many attempts from this address", body = ProblemDetails),
        (status = 503, description = "It could not be stored just now", body = ProblemDetails),
    ),
    security((), ("serviceKey" = ["payments"])),
)]
pub(crate) async fn exchange(
    State(state): State<Arc<ServerState>>,
    ClientAddress(address): ClientAddress,
    MaybePrincipal(principal): MaybePrincipal,
    MaybeCookieMode(mode): MaybeCookieMode,
    headers: HeaderMap,
    JsonBody(LegacyCookieRequest { cookie: sent, claim }): JsonBody<LegacyCookieRequest>,
) -> Result<Response, Problem> {
    let (tenant, caller, issued_by) = match &principal {
        Some(principal) => {
            let PrincipalRole::Service { tenant, .. } = &principal.role else { return Err(wrong_principal(principal)) };
            principal.require(Scope::Payments)?;
            (tenant.clone(), principal.caller(), principal.issuing_key())
        }
        None => {
            state.handoffs_per_address.check(address)?;
            let caller = Caller { key_id: None, network: Some(kept_network(address)) };
            (state.config.allowed_origins.tenant_of(&headers), caller, None)
        }
    };
    let mode = mode.filter(|_| principal.is_none());
    let secret = match claim {
        None if mode.is_some() => Some(cookie::new_claim()?),
        claim => claim,
    };
    if mode.is_some() && secret.as_deref().is_some_and(|claim| cookie::digest_of_claim(claim).is_none()) {
        return Err(invalid("claim", "a claim secret in a cookie has 32 to 256 letters, digits, `-` and `_`"));
    }
    let digest_of = |secret: &str| {
        claim_secret::digest_of(secret).ok_or_else(|| invalid("claim", "a claim secret has 32 to 256 bytes"))
    };
    let digest = secret.as_deref().map(digest_of).transpose()?;

    let now_ms = state.clock.now_ms();
    // Without the header the request may be some other page's doing.
    let text = sent.or_else(|| mode.as_ref().and_then(|_| of_request(&headers))).ok_or_else(missing)?;
    let LegacyCookie { session_id, claims, digest: name } =
        state.legacy_cookies.verify(&tenant, &text, now_ms).map_err(|error| refused(error, &caller))?;
    let key = SessionKey { tenant, session_id: session_id.to_string() };
    let target = Target { key, role: Role::System, credential: Credential::Verified, caller };

    // As a handoff code, it is a client with one command, so it takes effect once, on whichever server.
    let client_id = ClientId::new(format!("{}{name}", ClientId::HANDOFF)).map_err(|error| Problem::internal(&error))?;
    let before = state.sessions.current(&target.key).await?;
    let is_spent = before.is_some_and(|current| current.state.clients.contains_key(&client_id));
    if !is_spent {
        let legacy = Box::new(LegacyEntries { cookie: Some(claims), ..LegacyEntries::default() });
        let import = request(&nameless()?, None, Command::Import { legacy, funnel: None });
        all_accepted(target.execute(&state, vec![import]).await?.answers)?;
    }
    let current = state.sessions.current(&target.key).await?.ok_or_else(not_found)?.state;
    if current.erased_at.is_some() {
        return Err(erased());
    }
    let issued = issue_token(&state, Purpose::of_browser(mode.is_some()), &target.key, &current, issued_by)?;
    let until = Timestamp::from_millis(issued.claims.ends_at_ms);
    let (family, issued_by) = (issued.claims.family.clone(), issued.claims.issued_by.clone());
    let lent = digest.clone().map(|digest| LentClaim { digest, until, family, issued_by });
    let requests = vec![request(&client_id, Some(1), Command::HandOff { claim: lent })];
    let answers = target.execute(&state, requests).await?.answers;
    let is_repeated = answers.iter().any(|answer| matches!(answer, ServerFrame::Accepted { repeated: true, .. }));
    let issued = if is_repeated {
        // Whoever exchanged it has registered this secret with it: the answer was lost on its way.
        let session = state.sessions.current(&target.key).await?.ok_or_else(not_found)?.state;
        let known = digest.as_deref().and_then(|digest| session.lent_claim(digest)).cloned();
        let known = known.ok_or_else(|| used(&target))?;
        let grant = super::grant(Purpose::of_browser(mode.is_some()), &target.key, &session, None);
        let tokens = state.authenticator.tokens();
        tokens.issue_for(&known, &grant, state.config.lifetimes, now_ms).map_err(|error| Problem::internal(&error))?
    } else {
        all_accepted(answers)?;
        issued
    };
    // Of a repeated exchange as well: the process that began it may have ended before it came to this.
    let SessionKey { tenant, session_id } = target.key.clone();
    let entry = AuditEntry::done(tenant, "legacyCookieExchanged", now_ms).by("nobody", target.caller.clone());
    let entry = AuditEntry { session: Some(session_id), ..entry };
    state.audit(&entry).await.map_err(|error| Problem::internal(&error))?;
    let until_ms = issued.claims.ends_at_ms;
    let session_id = target.key.session_id.clone();
    let (token, cookies) = TokenAnswer::to(&state, mode.as_ref().zip(secret), issued, until_ms);
    Ok(Reply::json(StatusCode::OK, &LegacyCookieExchanged { session_id, token })?.cookies(cookies).into_response())
}

/// The cookie that came with the request itself.
fn of_request(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut cookies = lines.flat_map(::cookie::Cookie::split_parse).flatten();
    cookies.find(|cookie| cookie.name() == legacy_cookie::NAME).map(|cookie| cookie.value().to_owned())
}

fn missing() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "legacyCookieMissing", "No legacy cookie")
        .detail("neither the body nor the request has the cookie `upsell_session`; begin a new session")
        .mendable_by("buyerInput")
}

fn refused(error: LegacyCookieError, caller: &Caller) -> Problem {
    tracing::warn!(code = error.code(), "a legacy cookie was refused");
    let status = if error == LegacyCookieError::Off { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
    let denial =
        Denial::of(crate::tenant::TenantId::single(), "nobody", caller.clone(), "exchangeLegacyCookie", error.code());
    Problem::new(status, error.code(), "The legacy cookie was refused")
        .detail(error.to_string())
        .mendable_by("permanent")
        .denial(denial)
}

fn used(target: &Target) -> Problem {
    tracing::warn!("a legacy cookie was exchanged again");
    let SessionKey { tenant, session_id } = target.key.clone();
    let denial = Denial::of(tenant, "nobody", target.caller.clone(), "exchangeLegacyCookie", "legacyCookieUsed");
    Problem::new(StatusCode::GONE, "legacyCookieUsed", "The legacy cookie was exchanged")
        .detail("this cookie was exchanged for a token already, and is good for one browser; go on where that was")
        .mendable_by("buyerInput")
        .denial(Denial { session: Some(session_id), ..denial })
}

fn wrong_principal(principal: &Principal) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "notPermitted", "Forbidden")
        .detail("this is for pages without a token, and for service keys; a session's token has its session already")
        .mendable_by("forbidden")
        .denial(principal.denied("exchangeLegacyCookie", "notPermitted"))
}
