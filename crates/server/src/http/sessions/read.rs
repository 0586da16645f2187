//! Reading sessions.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::header::{AGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, WARNING};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use throughline_core::funnel::StepKind;
use throughline_core::sync::Funnels as _;
use throughline_core::{Record, RejectionCode, Session, State as SessionState, Status, StepId, Timestamp};
use utoipa::{IntoParams, ToSchema};

use super::{Target, existing, existing_as_known, not_found};
use crate::http::idempotent::{Reply, etag};
use crate::http::problem_schema::{ProblemDetails, SessionProblems};
use crate::http::query::refused;
use crate::principal::Principal;
use crate::problem::Problem;
use crate::scope::Scope;
use crate::sessions::{Current, View};
use crate::wiring::ServerState;

/// How many records one answer holds where nothing is said.
const RECORDS: u32 = 100;

/// How many records one answer holds at most.
const MAX_RECORDS: u32 = 500;

/// The session, as the principal may see it.
#[utoipa::path(
    get, path = "/v1/sessions/{id}", tag = "sessions",
    params(
        ("id" = String, Path, description = "The session's id"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` that the caller has"),
    ),
    responses(
        (status = 200, description = "The session; its version is the `ETag`", body = Session),
        (status = 304, description = "It has not changed"),
        SessionProblems,
    ),
    security(("serviceKey" = ["sessions:read"]), ("sessionToken" = [])),
)]
pub(crate) async fn get(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    Path(id): Path<String>,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let target = Target::of(&principal, &id, Scope::SessionsRead)?;
    let View { json, state, stale_for } = loop {
        let view = state.sessions.view(&target.key, target.role).await?.ok_or_else(not_found)?;
        if target.is_accepted_by(&view.state) {
            break view;
        }
        // Unless this server has to read it again first, this refuses.
        existing(&state, &target).await?;
    };
    let tag = etag(state.version());
    let is_known = known.matches(&tag);
    let tag = HeaderValue::try_from(tag).map_err(|error| Problem::internal(&error))?;
    let response = if is_known {
        (StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response()
    } else {
        ([(CONTENT_TYPE, HeaderValue::from_static("application/json")), (ETAG, tag)], json).into_response()
    };
    Ok(mark_stale(response, stale_for))
}

/// The `ETag`s that the caller has, if it says.
pub(crate) struct IfNoneMatch(Option<HeaderValue>);

impl IfNoneMatch {
    fn matches(&self, tag: &str) -> bool {
        let known = self.0.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
        known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)
    }
}

impl<S: Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.headers.get(IF_NONE_MATCH).cloned()))
    }
}

/// Says of an answer that it may be old: the tiers below the memory could not be asked. `Warning` has left the newer HTTP
/// specifications (RFC 9111, section 5.5) and is what clients know.
fn mark_stale(mut response: Response, stale_for: Option<Duration>) -> Response {
    if let Some(stale_for) = stale_for {
        response.headers_mut().insert(AGE, HeaderValue::from(stale_for.as_secs()));
        let warning = HeaderValue::from_static("110 - \"Response is Stale\"");
        response.headers_mut().insert(WARNING, warning);
    }
    response
}

/// Whether a session can go on, and what it lacks.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Validity {
    /// Whether the buyer can go on with it.
    valid: bool,
    /// Where it stands.
    status: Status,
    /// The step that the buyer is at.
    current_step: StepId,
    /// When it ends.
    expires_at: Timestamp,
    /// How long that is from now, in milliseconds; 0 when it is over.
    remaining_ms: i64,
    /// When the buyer should be warned.
    warn_at: Timestamp,
    /// Why the buyer can't go on, or what is in the way of the next step. Never empty where `valid` is false.
    problems: Vec<Obstacle>,
}

/// Why the buyer can't go on, or something in the way of the next step.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "code": "fieldsMissing", "message": "email is needed before processing", "step": "processing", "field": "email" }))]
pub(crate) struct Obstacle {
    /// `fieldsMissing` for something that the next step asks for; `sessionCompleted`, `sessionExpired` or
    /// `sessionErased` for a session that is over. The same codes that refuse commands.
    code: &'static str,
    /// A sentence for a person.
    message: String,
    /// The next step; missing where the session is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<StepId>,
    /// The field that it asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

impl Obstacle {
    /// Why a session can't go on at all, if it can't.
    fn end_of(state: &SessionState) -> Option<Self> {
        let (code, message) = match state.session.status {
            _ if state.erased_at.is_some() => {
                (RejectionCode::SessionErased, "the personal data of this session was erased; start a new session")
            }
            Status::Completed => {
                (RejectionCode::SessionCompleted, "this session is completed; start a new one to buy more")
            }
            Status::Expired => (RejectionCode::SessionExpired, "the time of this session is over; start a new one"),
            Status::Pending | Status::Processing | Status::Failed => return None,
        };
        Some(Self { code: code.as_str(), message: message.to_owned(), step: None, field: None })
    }
}

/// Says whether the session can go on, when it ends, and what the next step lacks. Changes nothing.
#[utoipa::path(
    post, path = "/v1/sessions/{id}/validate", tag = "sessions",
    params(("id" = String, Path, description = "The session's id")),
    responses(
        (status = 200, description = "What is known", body = Validity),
        SessionProblems,
    ),
    security(("serviceKey" = ["sessions:read"]), ("sessionToken" = [])),
)]
pub(crate) async fn validate(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let target = Target::of(&principal, &id, Scope::SessionsRead)?;
    let Current { state: current, stale_for } = existing_as_known(&state, &target).await?;
    let session = &current.session;
    let now = Timestamp::from_millis(state.clock.now_ms());
    let end = Obstacle::end_of(&current);
    let valid = end.is_none();
    let entry = state.funnels.find(session.funnel.id.as_str(), Some(session.funnel.version));
    let mut problems: Vec<Obstacle> = end.into_iter().collect();
    let mut warn_at = session.expires_at;
    if let Some(entry) = entry {
        let warning = entry.funnel.lifetime.warning.as_millis();
        warn_at = Timestamp::from_millis(session.expires_at.as_millis().saturating_sub(warning));
        let here = entry.funnel.step(&session.current_step);
        let next = here.iter().flat_map(|step| &step.next).filter_map(|id| entry.funnel.step(id));
        for step in next.filter(|step| valid && (step.kind != StepKind::Offer || session.is_paid())) {
            let missing = step.requires.iter().filter(|requirement| !requirement.is_met(session));
            problems.extend(missing.map(|field| Obstacle {
                code: RejectionCode::FieldsMissing.as_str(),
                message: format!("{field} is needed before {}", step.id),
                step: Some(step.id.clone()),
                field: Some(field.to_string()),
            }));
        }
    }
    let validity = Validity {
        valid,
        status: session.status,
        current_step: session.current_step.clone(),
        expires_at: session.expires_at,
        remaining_ms: session.expires_at.since(now).as_millis(),
        warn_at,
        problems,
    };
    let reply = Reply::json(StatusCode::OK, &validity)?.version(current.version());
    Ok(mark_stale(reply.into_response(), stale_for))
}

/// Which part of the journal.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct Range {
    /// The version after which to begin; 0 for the beginning.
    #[serde(default)]
    after: u64,
    /// How many records at most; 100 where nothing is said.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// A part of the journal.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Journal {
    /// The records, in the order of their versions. Erasure leaves holes.
    records: Vec<Record>,
    /// The session's version.
    version: u64,
    /// `after` of the next part; missing when this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_after: Option<u64>,
}

/// What has happened to the session, as the principal may see it.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/events", tag = "sessions",
    params(("id" = String, Path, description = "The session's id"), Range),
    responses(
        (status = 200, description = "A part of the journal", body = Journal),
        SessionProblems,
        (status = 400, description = "The query can't be read", body = ProblemDetails),
    ),
    security(("serviceKey" = ["sessions:read"]), ("sessionToken" = [])),
)]
pub(crate) async fn events(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    Path(id): Path<String>,
    Query(Range { after, limit }): Query<Range>,
) -> Result<Response, Problem> {
    let target = Target::of(&principal, &id, Scope::SessionsRead)?;
    let current = existing(&state, &target).await?;
    let limit = limit.unwrap_or(RECORDS);
    if !(1..=MAX_RECORDS).contains(&limit) {
        return Err(refused("limit", &format!("it has to be from 1 to {MAX_RECORDS}")));
    }
    let stored = state.sessions.journal(&target.key, after, limit).await?;
    let last = stored.last().map_or(after, |(version, _)| *version);
    let records = stored.into_iter().filter_map(|(_, record)| Some(record?.project(target.role, &[])));
    let records: Vec<Record> = records.collect();
    let next_after = (last < current.version()).then_some(last);
    let journal = Journal { records, version: current.version(), next_after };
    Ok(Reply::json(StatusCode::OK, &journal)?.into_response())
}
