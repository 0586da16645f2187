//! Requests that may be sent twice: the first answer is kept and replayed.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, ETAG, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use throughline_core::ClientId;

use crate::idempotency::{Answer, Begin, IdempotencyKey, MAX_KEY_BYTES};
use crate::problem::Problem;
use crate::tenant::TenantId;
use crate::wiring::ServerState;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A successful answer: JSON, with the headers that belong to it.
#[derive(Debug)]
pub struct Reply {
    status: StatusCode,
    etag: Option<u64>,
    location: Option<String>,
    body: Vec<u8>,
    session_id: Option<String>,
    /// Of whoever asked this time: they are not kept.
    cookies: Vec<HeaderValue>,
}

impl Reply {
    /// Answers with `body`.
    ///
    /// # Errors
    /// An internal problem where it can't be written as JSON.
    pub fn json(status: StatusCode, body: &impl Serialize) -> Result<Self, Problem> {
        let body = serde_json::to_vec(body).map_err(|error| Problem::internal(&error))?;
        Ok(Self { status, etag: None, location: None, body, session_id: None, cookies: Vec::new() })
    }

    /// Answers with nothing but success.
    #[must_use]
    pub fn empty() -> Self {
        let status = StatusCode::NO_CONTENT;
        Self { status, etag: None, location: None, body: Vec::new(), session_id: None, cookies: Vec::new() }
    }

    /// Adds the session's version as `ETag`.
    #[must_use]
    pub fn version(mut self, version: u64) -> Self {
        self.etag = Some(version);
        self
    }

    /// Adds what the browser is to have as cookies.
    #[must_use]
    pub fn cookies(mut self, cookies: Vec<HeaderValue>) -> Self {
        self.cookies = cookies;
        self
    }

    /// Says of which session it tells, so that it goes when the session is erased.
    #[must_use]
    pub fn about(mut self, session_id: &str) -> Self {
        self.session_id = Some(session_id.to_owned());
        self
    }

    /// Adds where the new thing is.
    #[must_use]
    pub fn location(mut self, path: String) -> Self {
        self.location = Some(path);
        self
    }

    fn headers(&self) -> Vec<(String, String)> {
        let etag = self.etag.map(|version| (ETAG.to_string(), etag(version)));
        let location = self.location.clone().map(|path| (LOCATION.to_string(), path));
        let is_json = !self.body.is_empty();
        let json = is_json.then(|| (CONTENT_TYPE.to_string(), "application/json".to_owned()));
        [json, etag, location].into_iter().flatten().collect()
    }
}

/// A version as an entity tag.
#[must_use]
pub fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let headers = self.headers();
        let mut response = respond(self.status.as_u16(), &headers, self.body);
        for cookie in self.cookies {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        response
    }
}

fn respond(status: u16, headers: &[(String, String)], body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// The `Idempotency-Key` of a request, with whose it is.
#[derive(Debug, Clone)]
pub struct Once {
    key: Option<Sent>,
}

#[derive(Debug, Clone)]
struct Sent {
    /// What the store knows it by.
    name: IdempotencyKey,
    /// What the caller sent.
    text: String,
}

impl Sent {
    /// The hash by which the store tells bodies apart: with the caller's key in it, so that nobody can find out a body by
    /// trying.
    fn hash_of(&self, body_sha256: [u8; 32]) -> [u8; 32] {
        Sha256::new().chain_update(self.text.as_bytes()).chain_update(b"\n").chain_update(body_sha256).finalize().into()
    }
}

impl Once {
    /// Reads the key. `scope` says who sent the request and to which route: the same key there is the same request.
    ///
    /// # Errors
    /// A problem where the header is there and can't be a key.
    pub fn of(headers: &HeaderMap, tenant: &TenantId, scope: &str) -> Result<Self, Problem> {
        let mut values = headers.get_all(KEY).iter();
        let Some(value) = values.next() else { return Ok(Self { key: None }) };
        let malformed = || {
            Problem::new(StatusCode::BAD_REQUEST, "idempotencyKeyMalformed", "Malformed Idempotency-Key")
                .detail(format!(
                    "send one Idempotency-Key of 1 to {MAX_KEY_BYTES} printable ASCII characters, such as a UUID"
                ))
                .mendable_by("permanent")
        };
        let key = value.to_str().map_err(|_| malformed())?.trim();
        if key.is_empty() || key.len() > MAX_KEY_BYTES || values.next().is_some() {
            return Err(malformed());
        }
        // As a hash: a caller may have put a buyer's address there.
        let digest = Sha256::digest(format!("{tenant}\n{scope}\n{key}"));
        let hashed = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = IdempotencyKey { tenant: tenant.clone(), scope: scope.to_owned(), key: hashed };
        Ok(Self { key: Some(Sent { name, text: key.to_owned() }) })
    }

    /// A request that is not told from another.
    #[must_use]
    pub fn never() -> Self {
        Self { key: None }
    }

    /// A client id that is this request's own, so that its commands are applied once even where the answer to the first
    /// attempt was lost in a crash. `None` without a key.
    #[must_use]
    pub fn client_id(&self) -> Option<ClientId> {
        let hex = self.key.as_ref()?.name.key.get(..32)?;
        ClientId::new(format!("{}{hex}", ClientId::ONCE)).ok()
    }

    /// Runs `work`, unless the request was answered before.
    ///
    /// Refusals by the rules are answers as well. What may go better next time is not kept.
    pub async fn answer(
        self,
        state: &Arc<ServerState>,
        body_sha256: [u8; 32],
        work: impl Future<Output = Result<Reply, Problem>>,
    ) -> Result<Response, Problem> {
        let Some(sent) = self.key else { return Ok(work.await?.into_response()) };
        let (now_ms, body_hash) = (state.clock.now_ms(), sent.hash_of(body_sha256));
        let seal =
            |body: &[u8]| state.answers.seal(&sent.name, body, now_ms).map_err(|error| Problem::internal(&error));
        let conflict = |status, code: &'static str, detail: &'static str, who| {
            Problem::new(status, code, "Idempotency-Key in use").detail(detail).mendable_by(who)
        };
        let ticket = match state.store.begin(sent.name.clone(), body_hash, now_ms).await? {
            Begin::Started(ticket) => ticket,
            Begin::Replay(Answer { status, mut headers, body, .. }) => {
                let body = state.answers.open(&sent.name, &body).map_err(|error| Problem::internal(&error))?;
                headers.push((REPLAYED.to_string(), "true".to_owned()));
                return Ok(respond(status, &headers, body));
            }
            Begin::InProgress => {
                let detail = "the first request with this key is still running; ask again for its answer";
                return Err(conflict(StatusCode::CONFLICT, "idempotencyKeyInProgress", detail, "retry")
                    .retry_after(Duration::from_secs(1)));
            }
            Begin::Mismatch => {
                let detail = "this key was used for a request with another body; use a new key for a new request";
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                return Err(conflict(status, "idempotencyKeyReused", detail, "permanent"));
            }
        };
        // A caller that hangs up drops this future: its ticket then counts as abandoned after 20 s, and the
        // commands' own numbers keep a second attempt from taking effect twice.
        match work.await {
            Ok(reply) => {
                let (status, headers) = (reply.status.as_u16(), reply.headers());
                let session_id = reply.session_id.clone();
                let answer = Answer { status, headers, body: seal(&reply.body)?, session_id };
                if let Err(error) = state.store.finish(ticket, answer).await {
                    tracing::warn!(error = %crate::problem::chain(&error), "an answer was given and could not be kept");
                }
                Ok(reply.into_response())
            }
            Err(problem) => {
                // Nor what goes better with another credential: a token may have been revoked meanwhile.
                let may_change = [StatusCode::TOO_MANY_REQUESTS, StatusCode::UNAUTHORIZED];
                let is_final = problem.status().is_client_error() && !may_change.contains(&problem.status());
                let kept = if is_final {
                    let headers = vec![(CONTENT_TYPE.to_string(), crate::problem::MEDIA_TYPE.to_owned())];
                    let status = problem.status().as_u16();
                    let body = seal(&problem.body())?;
                    state.store.finish(ticket, Answer { status, headers, body, session_id: None }).await
                } else {
                    state.store.abandon(ticket).await
                };
                if let Err(error) = kept {
                    tracing::warn!(error = %crate::problem::chain(&error), "a refusal was given and could not be kept");
                }
                Err(problem)
            }
        }
    }
}
