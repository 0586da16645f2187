//! `/v1/sessions`: sessions over REST.

pub(super) mod batch;
mod commands;
mod cookie;
mod create;
mod handoff;
mod import;
mod introspect;
mod legacy_cookie;
mod lifetime;
mod list;
mod patch;
mod read;
mod revoke;
mod stats;

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode};
use serde::Serialize;
use throughline_core::sync::{Credential, Request, ServerFrame};
use throughline_core::{
    Caller, ClientId, Command, Rejection, RejectionCode, Role, Session, SessionId, State, Timestamp,
};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::audit::Denial;
use crate::http::cookie::CookieMode;
use crate::http::idempotent::Reply;
use crate::principal::{AuthenticationError, Principal, Role as PrincipalRole};
use crate::problem::Problem;
use crate::scope::Scope;
use crate::sessions::{Current, Executed, SessionError};
use crate::store::SessionKey;
use crate::token::{Grant, IssuedToken, Purpose, TokenError};
use crate::wiring::ServerState;

pub use handoff::HANDOFFS_PER_MINUTE;

/// The routes, with their descriptions.
pub fn routes() -> OpenApiRouter<Arc<ServerState>> {
    OpenApiRouter::new()
        .routes(routes!(list::list, create::create))
        .routes(routes!(batch::batch_get))
        .routes(routes!(batch::batch_delete))
        .routes(routes!(import::batch_import))
        .routes(routes!(stats::stats))
        .routes(routes!(read::get, patch::patch, lifetime::delete))
        .routes(routes!(commands::commands))
        .routes(routes!(lifetime::extend))
        .routes(routes!(lifetime::renew_token))
        .routes(routes!(cookie::set, cookie::remove))
        .routes(routes!(revoke::revoke))
        .routes(routes!(introspect::introspect))
        .routes(routes!(handoff::offer))
        .routes(routes!(handoff::accept))
        .routes(routes!(legacy_cookie::exchange))
        .routes(routes!(read::validate))
        .routes(routes!(read::events))
}

/// A session's token, for the browser that follows it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenAnswer {
    /// `Authorization: Bearer <token>`, or `token` in the socket's `hello`. Whoever has it is the session's browser. It is
    /// missing where it went into a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// When it ends, unless it is renewed.
    token_expires_at: Timestamp,
}

impl From<IssuedToken> for TokenAnswer {
    fn from(IssuedToken { text, claims }: IssuedToken) -> Self {
        Self { token: Some(text), token_expires_at: Timestamp::from_millis(claims.expires_at_ms) }
    }
}

impl TokenAnswer {
    /// What goes to a browser in the answer, and what in cookies, together with its claim secret, which is good until then, where
    /// it asks for that.
    fn to(
        state: &ServerState,
        cookie: Option<(&CookieMode, String)>,
        issued: IssuedToken,
        until_ms: i64,
    ) -> (Self, Vec<HeaderValue>) {
        let Some((mode, claim)) = cookie else { return (issued.into(), Vec::new()) };
        let token_expires_at = Timestamp::from_millis(issued.claims.expires_at_ms);
        (Self { token: None, token_expires_at }, cookie::set_cookie_headers(state, mode, issued, claim, until_ms))
    }
}

/// The session, as `role` may see it.
fn visible(state: &State, role: Role) -> Session {
    state.session.clone().project(role)
}

fn session_reply(state: &State, role: Role) -> Result<Reply, Problem> {
    Ok(Reply::json(StatusCode::OK, &visible(state, role))?.version(state.version()).about(state.session.id.as_str()))
}

/// The rights of a service key on what concerns more than one session, where it has the scope that this asks for.
///
/// # Errors
/// A problem for a key without it, and for a browser, which has one session.
pub(super) fn staff(principal: &Principal, scope: Scope) -> Result<Role, Problem> {
    principal.require(scope)?;
    match &principal.role {
        PrincipalRole::Service { .. } => Ok(Role::Service),
        PrincipalRole::Browser { .. } => {
            tracing::warn!("a session's token was used for what only service keys may do");
            Err(Problem::new(StatusCode::FORBIDDEN, "notPermitted", "Forbidden")
                .detail("this is for service keys; a session's token is for that session alone")
                .mendable_by("forbidden")
                .denial(principal.denied(scope.as_str(), "notPermitted")))
        }
    }
}

/// The session that a request is about, and the rights it comes with.
pub(super) struct Target {
    pub(super) key: SessionKey,
    role: Role,
    credential: Credential,
    caller: Caller,
}

impl Target {
    /// Checks that the principal may reach this session, and that a service key has the scope that this asks for. Knowing an id
    /// grants nothing.
    pub(super) fn of(principal: &Principal, id: &str, scope: Scope) -> Result<Self, Problem> {
        principal.require(scope)?;
        Self::reached(principal, id)
    }

    /// The same where each command asks for a scope of its own.
    fn reached(principal: &Principal, id: &str) -> Result<Self, Problem> {
        let id = SessionId::new(id).map_err(|_| not_found())?;
        let (role, credential) = match &principal.role {
            PrincipalRole::Service { .. } => (Role::Service, Credential::Verified),
            PrincipalRole::Browser { claims } if claims.session_id == id.as_str() => {
                (Role::Browser, claims.credential())
            }
            PrincipalRole::Browser { .. } => {
                tracing::warn!("a token was used for another session than its own");
                return Err(Problem::new(StatusCode::FORBIDDEN, "wrongSession", "Forbidden")
                    .detail("this token is for another session; use the one that came with this session")
                    .mendable_by("forbidden")
                    .denial(principal.denied("reachSession", "wrongSession")));
            }
        };
        let key = SessionKey { tenant: principal.tenant().clone(), session_id: id.into() };
        Ok(Self { key, role, credential, caller: principal.caller() })
    }

    /// Whether the credential is good for the session in this state.
    fn is_accepted_by(&self, state: &State) -> bool {
        match &self.credential {
            Credential::Token { generation, family } => state.accepts(*generation, family),
            Credential::Verified | Credential::Claim(_) => true,
        }
    }

    /// Carries out one command of this principal on a session that there is; the session after it.
    ///
    /// # Errors
    /// A problem where there is none, or the command is refused.
    pub(super) async fn carry_out(&self, state: &ServerState, command: Command) -> Result<Arc<State>, Problem> {
        existing(state, self).await?;
        let requests = vec![request(&nameless()?, None, command)];
        all_accepted(self.execute(state, requests).await?.answers)?;
        existing(state, self).await
    }

    /// Hands in commands of this principal.
    async fn execute(&self, state: &ServerState, requests: Vec<Request>) -> Result<Executed, SessionError> {
        state.sessions.execute_as(&self.key, self.role, self.credential.clone(), &self.caller, requests).await
    }
}

/// The session as it is now.
///
/// # Errors
/// A problem where there is none, and where the principal's token was revoked.
async fn existing(state: &ServerState, target: &Target) -> Result<Arc<State>, Problem> {
    Ok(existing_as_known(state, target).await?.state)
}

/// The session as it is now, and for how long nobody could tell whether it is.
///
/// # Errors
/// As [`existing`].
async fn existing_as_known(state: &ServerState, target: &Target) -> Result<Current, Problem> {
    let mut current = state.sessions.current(&target.key).await?.ok_or_else(not_found)?;
    if let Credential::Token { generation, .. } = target.credential
        && generation > current.state.access_generation
    {
        // It was made by a server whose commit this one has not heard of yet.
        current = state.sessions.read_again(&target.key).await?.ok_or_else(not_found)?;
    }
    if !target.is_accepted_by(&current.state) {
        let SessionKey { tenant, session_id } = target.key.clone();
        let code = TokenError::Revoked.code();
        let denial = Denial::of(tenant, target.role.as_str(), target.caller.clone(), "useToken", code);
        let problem = Problem::from(AuthenticationError::from(TokenError::Revoked));
        return Err(problem.denial(Denial { session: Some(session_id), ..denial }));
    }
    Ok(current)
}

fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "sessionNotFound", "Session not found")
        .detail("there is no session with this id")
        .mendable_by("permanent")
}

fn erased() -> Problem {
    let message = "the personal data of this session was erased; start a new session";
    Rejection::new(RejectionCode::SessionErased, message).into()
}

/// Who issues commands that carry no number of their own.
fn nameless() -> Result<ClientId, Problem> {
    ClientId::new("api").map_err(|error| Problem::internal(&error))
}

fn request(client_id: &ClientId, seq: Option<u64>, command: Command) -> Request {
    Request::new(client_id.clone(), seq, Ok(command))
}

/// The outcome of commands that only make sense together: the version, or the first refusal.
fn all_accepted(answers: Vec<ServerFrame>) -> Result<u64, Problem> {
    let mut reached = 0;
    for answer in answers {
        match answer {
            ServerFrame::Accepted { version, .. } => reached = version,
            ServerFrame::Rejected { reason, .. } => return Err(reason.into()),
            ServerFrame::Gap { expected, .. } => return Err(gap(expected)),
            _ => {}
        }
    }
    Ok(reached)
}

fn gap(expected: u64) -> Problem {
    Problem::new(StatusCode::CONFLICT, "sequenceGap", "A command is missing")
        .detail(format!("the next number of this client is {expected}; send the commands from there on"))
        .with("expected", expected)
        .mendable_by("permanent")
}

/// What a token for the browser of a session as it is says.
fn grant(purpose: Purpose, key: &SessionKey, current: &State, issued_by: Option<String>) -> Grant {
    let SessionKey { tenant, session_id } = key.clone();
    Grant { purpose, tenant, session_id, access_generation: current.access_generation, issued_by }
}

/// A token for the browser of a session as it is; `issued_by` is the service key that asks, if one does.
fn issue_token(
    state: &ServerState,
    purpose: Purpose,
    key: &SessionKey,
    current: &State,
    issued_by: Option<String>,
) -> Result<IssuedToken, Problem> {
    let grant = grant(purpose, key, current, issued_by);
    let issued = state.authenticator.tokens().issue(&grant, state.config.lifetimes, state.clock.now_ms());
    issued.map_err(|error| Problem::internal(&error))
}
