//! `/v1/sessions/{id}/cookie`: what lets a browser into its session, out of reach of the page's scripts.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use throughline_core::sync::Credential;
use throughline_core::{Caller, Command, LentClaim, Role, SessionId, State as SessionState, Timestamp};
use utoipa::ToSchema;

use super::{Target, all_accepted, erased, existing, nameless, not_found, request};
use crate::audit::Denial;
use crate::claim_secret;
use crate::client_address::kept_network;
use crate::clock::millis;
use crate::http::body::{JsonBody, invalid};
use crate::http::cookie::{self, CookieMode, SessionCookie};
use crate::http::extract::{ClientAddress, MaybePrincipal};
use crate::http::idempotent::Reply;
use crate::http::problem_schema::{BodyProblems, ProblemDetails};
use crate::http::sessions::lifetime::too_old;
use crate::principal::{AuthenticationError, Principal, Role as PrincipalRole};
use crate::problem::Problem;
use crate::store::SessionKey;
use crate::token::{Claims, Grant, IssuedToken, Purpose, TokenError};
use crate::wiring::ServerState;

/// What a browser proves its session with, where it is neither a token in a header nor a cookie.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CookieRequest {
    /// The claim secret of a browser that has created the session by itself: 32 to 256 letters, digits, `-` and `_`. It goes
    /// into the cookie as well, and the page can forget it.
    #[schema(min_length = 32, max_length = 256, pattern = "^[A-Za-z0-9_-]*$")]
    claim: Option<String>,
}

/// The browser has it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CookieAnswer {
    /// When its token ends. With the secret that is in the cookie as well, the browser gets another one also after that.
    token_expires_at: Timestamp,
}

/// What a browser has proved its session with.
enum Proof {
    Token(Arc<Claims>),
    /// A claim secret, and what is known of it if it was lent.
    Claim(Option<LentClaim>),
}

/// Puts what lets the browser into its session into a cookie: `__Host-throughline-<id>`, out of reach of scripts.
///
/// The browser proves the session with its token in `Authorization`, with the cookie that it has, or with a claim secret. A
/// cookie is renewed whenever the socket says `cookieDue`, and when a request says that its token is over or revoked.
#[utoipa::path(
    post, path = "/v1/sessions/{id}/cookie", tag = "sessions", request_body = CookieRequest,
    params(
        ("id" = String, Path, description = "The session's id"),
        ("Throughline-Credentials" = String, Header, description = "`cookie`"),
    ),
    responses(
        (status = 200, description = "It is in `Set-Cookie`", body = CookieAnswer),
        BodyProblems,
        (status = 401, description = "Nothing that lets this browser into a session of this id", body = ProblemDetails),
        (status = 403, description = "The header is missing, the page may not, or the token is for another session", body = ProblemDetails),
        (status = 404, description = "No session can have this id", body = ProblemDetails),
        (status = 410, description = "The session was erased", body = ProblemDetails),
        (status = 503, description = "It can't be read or stored just now", body = ProblemDetails),
    ),
    security((), ("sessionToken" = [])),
)]
pub(crate) async fn set(
    State(state): State<Arc<ServerState>>,
    ClientAddress(address): ClientAddress,
    mode: CookieMode,
    principal: Result<MaybePrincipal, Problem>,
    Path(id): Path<String>,
    JsonBody(CookieRequest { claim }): JsonBody<CookieRequest>,
) -> Result<Response, Problem> {
    let id = SessionId::new(id).map_err(|_| not_found())?;
    if claim.as_deref().is_some_and(|claim| cookie::digest_of_claim(claim).is_none()) {
        return Err(invalid("claim", "a claim secret in a cookie has 32 to 256 letters, digits, `-` and `_`"));
    }
    let held = mode.of_session(id.as_str());
    let is_by_header = matches!(principal, Ok(MaybePrincipal(Some(_))));
    let (claims, refusal) = match principal {
        Ok(MaybePrincipal(Some(principal))) => (Some(browser(&principal, &id, &mode)?), None),
        Ok(MaybePrincipal(None)) => (held.as_ref().and_then(|held| by_cookie(&state, &mode, &id, &held.token)), None),
        // One that is over says nothing against the secret.
        Err(problem) if is_over(&problem) => (None, Some(problem)),
        Err(problem) => return Err(problem),
    };
    let caller = Caller { key_id: None, network: Some(kept_network(address)) };
    let key = SessionKey { tenant: mode.tenant.clone(), session_id: id.to_string() };
    let credential = claims.as_ref().map_or(Credential::Verified, |claims| claims.credential());
    let target = Target { key, role: Role::System, credential, caller };
    let offered = claim.into_iter().chain(held.map(|held| held.claim));
    let offered = offered.filter(|claim| cookie::digest_of_claim(claim).is_some()).collect();

    let Some(Proven { current, proof, claim }) = prove(&state, &target, claims, offered).await? else {
        // A secret may not be tried out any oftener than another credential.
        state.request_limits.refuse_credential(address)?;
        return Err(refusal.unwrap_or_else(|| nothing_proves_it(&target)));
    };
    if current.erased_at.is_some() {
        let removal = mode.removal(id.as_str()).map(|removal| (SET_COOKIE, removal));
        return Err(removal.into_iter().fold(erased(), |problem, (name, value)| problem.header(name, value)));
    }
    match &proof {
        // It was counted where it was recognised.
        Proof::Token(_) if is_by_header => {}
        Proof::Token(claims) => {
            state
                .request_limits
                .admit(&Principal { role: PrincipalRole::Browser { claims: claims.clone() }, network: None })?;
        }
        Proof::Claim(_) => state.request_limits.admit_tenant(&mode.tenant)?,
    }
    let issued = issue(&state, &target.key, &current, &proof)?;
    let now_ms = state.clock.now_ms();
    let claim = match claim {
        Some(claim) if is_good(&state, &current, &claim) => claim,
        // A token alone is over when the buyer has paid elsewhere: what brings the browser back has to be in the cookie as well.
        other => {
            let secret = other.map_or_else(cookie::new_claim, Ok)?;
            let digest = cookie::digest_of_claim(&secret).ok_or_else(Problem::unexplained)?;
            let Claims { ends_at_ms, family, issued_by, .. } = issued.claims.clone();
            let until = Timestamp::from_millis(ends_at_ms);
            let claim = LentClaim { digest, until, family, issued_by };
            let requests = vec![request(&nameless()?, None, Command::LendClaim { claim })];
            all_accepted(target.execute(&state, requests).await?.answers)?;
            secret
        }
    };
    let is_own = cookie::digest_of_claim(&claim).is_some_and(|digest| current.claim.as_ref() == Some(&digest));
    let until_ms = if is_own { end_of_own(&state, &current, now_ms) } else { issued.claims.ends_at_ms };
    let answer = CookieAnswer { token_expires_at: Timestamp::from_millis(issued.claims.expires_at_ms) };
    let cookies = set_cookie_headers(&state, &mode, issued, claim, until_ms);
    Ok(Reply::json(StatusCode::OK, &answer)?.cookies(cookies).into_response())
}

fn is_over(problem: &Problem) -> bool {
    [TokenError::Expired { at_ms: 0 }.code(), TokenError::Revoked.code()].contains(&problem.code())
}

/// How long a browser keeps the secret with which it created the session: that is good for as long as the session is there.
fn end_of_own(state: &ServerState, current: &SessionState, now_ms: i64) -> i64 {
    let absolute = now_ms.saturating_add(millis(state.config.lifetimes.absolute));
    absolute.max(current.session.expires_at.as_millis())
}

/// Takes the cookie out of this browser, and ends what was in it, wherever it may be: its token with all that were renewed out
/// of it, and its secret. Other browsers of the session go on.
#[utoipa::path(
    delete, path = "/v1/sessions/{id}/cookie", tag = "sessions",
    params(
        ("id" = String, Path, description = "The session's id"),
        ("Throughline-Credentials" = String, Header, description = "`cookie`"),
    ),
    responses(
        (status = 204, description = "It is gone, or was before"),
        (status = 403, description = "The header is missing, the page may not, or the session remembers no more revoked tokens", body = ProblemDetails),
        (status = 404, description = "No session can have this id", body = ProblemDetails),
        (status = 503, description = "It can't be stored just now", body = ProblemDetails),
    ),
    security(()),
)]
pub(crate) async fn remove(
    State(state): State<Arc<ServerState>>,
    ClientAddress(address): ClientAddress,
    mode: CookieMode,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = SessionId::new(id).map_err(|_| not_found())?;
    if let Some(SessionCookie { token, claim }) = mode.of_session(id.as_str()) {
        let key = SessionKey { tenant: mode.tenant.clone(), session_id: id.to_string() };
        let caller = Caller { key_id: None, network: Some(kept_network(address)) };
        let tokens = state.authenticator.tokens();
        let claims = tokens.verify_family(&token, Purpose::Cookie, state.clock.now_ms()).ok();
        let claims = claims.filter(|claims| is_of_session(claims, &mode, &id));
        if claims.is_none() {
            // It may be made up.
            state.request_limits.refuse_credential(address)?;
        }
        super::revoke::end(&state, key, caller, claims.as_deref(), claim_secret::digest_of(&claim)).await?;
    }
    Ok(Reply::empty().cookies(mode.removal(id.as_str()).into_iter().collect()).into_response())
}

/// The headers that put a token and the secret that goes with it into the browser, until the secret is over.
pub(super) fn set_cookie_headers(
    state: &ServerState,
    mode: &CookieMode,
    IssuedToken { text: token, claims }: IssuedToken,
    claim: String,
    until_ms: i64,
) -> Vec<HeaderValue> {
    let now_ms = state.clock.now_ms();
    let life = Duration::from_millis(u64::try_from(until_ms.saturating_sub(now_ms)).unwrap_or_default());
    let tokens = state.authenticator.tokens();
    let age = |token: &str| tokens.verify_family(token, Purpose::Cookie, now_ms).ok().map(|claims| claims.ends_at_ms);
    mode.set(&claims.session_id, &SessionCookie { token, claim }, life, age)
}

/// The browser whose token this is, for this session.
fn browser(principal: &Principal, id: &SessionId, mode: &CookieMode) -> Result<Arc<Claims>, Problem> {
    Target::reached(principal, id.as_str())?;
    match &principal.role {
        PrincipalRole::Browser { claims } => {
            cookie::judge_tenant(mode, claims).map_err(cookie::refused)?;
            Ok(Arc::clone(claims))
        }
        PrincipalRole::Service { .. } => Err(Problem::new(StatusCode::FORBIDDEN, "notPermitted", "Forbidden")
            .detail("cookies are for browsers; a service key stands in `Authorization`")
            .mendable_by("forbidden")
            .denial(principal.denied("setCookie", "notPermitted"))),
    }
}

/// What the token in a cookie says, while it is good for this session.
fn by_cookie(state: &ServerState, mode: &CookieMode, id: &SessionId, token: &str) -> Option<Arc<Claims>> {
    let claims = state.authenticator.verify(token, Purpose::Cookie, state.clock.now_ms()).ok()?;
    is_of_session(&claims, mode, id).then_some(claims)
}

/// The cookie's name proves nothing.
fn is_of_session(claims: &Claims, mode: &CookieMode, id: &SessionId) -> bool {
    claims.session_id == id.as_str() && cookie::judge_tenant(mode, claims).is_ok()
}

/// Whether a secret lets its browser in.
fn is_good(state: &ServerState, current: &SessionState, claim: &str) -> bool {
    let Some(digest) = cookie::digest_of_claim(claim) else { return false };
    let has_ended = current.lent_claim(&digest).is_some_and(|lent| state.authenticator.has_ended(lent));
    current.admits(&digest, Timestamp::from_millis(state.clock.now_ms())) && !has_ended
}

/// A browser that may have the session's cookie.
struct Proven {
    current: Arc<SessionState>,
    proof: Proof,
    /// The secret that goes into the cookie, good or not known yet; none where the browser has none.
    claim: Option<String>,
}

/// Lets the browser in by its token, or else by one of the secrets that it offers; nothing where neither is good.
async fn prove(
    state: &ServerState,
    target: &Target,
    claims: Option<Arc<Claims>>,
    offered: Vec<String>,
) -> Result<Option<Proven>, Problem> {
    // The one with which it created the session comes first: it is good for longest.
    let best = |current: &SessionState| {
        let good = || offered.iter().filter(|claim| is_good(state, current, claim));
        let is_own = |claim: &&String| cookie::digest_of_claim(claim).as_ref() == current.claim.as_ref();
        good().find(is_own).or_else(|| good().next()).cloned()
    };
    if let Some(claims) = claims {
        match existing(state, target).await {
            Ok(current) => {
                let claim = best(&current).or_else(|| offered.first().cloned());
                return Ok(Some(Proven { current, proof: Proof::Token(claims), claim }));
            }
            // The secret is as good as before.
            Err(problem) if problem.code() == TokenError::Revoked.code() => {}
            Err(problem) => return Err(problem),
        }
    }
    let Some(current) = state.sessions.current(&target.key).await?.map(|current| current.state) else {
        return Ok(None);
    };
    let Some(claim) = best(&current) else { return Ok(None) };
    let lent = cookie::digest_of_claim(&claim).and_then(|digest| current.lent_claim(&digest).cloned());
    Ok(Some(Proven { current, proof: Proof::Claim(lent), claim: Some(claim) }))
}

/// Nothing that came with the request lets anybody into the session, if there is one.
fn nothing_proves_it(target: &Target) -> Problem {
    let refusal = match target.credential {
        Credential::Token { .. } => TokenError::Revoked.into(),
        Credential::Verified | Credential::Claim(_) => AuthenticationError::Missing,
    };
    let denial = Denial::of(target.key.tenant.clone(), "nobody", target.caller.clone(), "setCookie", refusal.code());
    Problem::from(refusal).denial(denial)
}

fn issue(state: &ServerState, key: &SessionKey, current: &SessionState, proof: &Proof) -> Result<IssuedToken, Problem> {
    let (tokens, lifetimes, now_ms) = (state.authenticator.tokens(), state.config.lifetimes, state.clock.now_ms());
    let access_generation = current.access_generation;
    let SessionKey { tenant, session_id } = key.clone();
    let grant = Grant { purpose: Purpose::Cookie, tenant, session_id, access_generation, issued_by: None };
    let issued = match proof {
        Proof::Token(claims) => tokens.renew(claims, Purpose::Cookie, access_generation, lifetimes, now_ms),
        Proof::Claim(Some(lent)) => tokens.issue_for(lent, &grant, lifetimes, now_ms),
        Proof::Claim(None) => tokens.issue(&grant, lifetimes, now_ms),
    };
    issued.map_err(|error| too_old(&error))
}
