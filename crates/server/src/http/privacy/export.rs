//! `POST /v1/privacy/export`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use serde::Serialize;
use throughline_core::{Hold, Record, Role, Session, State as SessionState, Timestamp};
use utoipa::ToSchema;

use super::{Subject, page, purposes};
use crate::audit::{AuditEntry, AuditRecord};
use crate::http::body::JsonBody;
use crate::http::extract::wants_page;
use crate::http::idempotent::Reply;
use crate::http::problem_schema::{BodyProblems, StaffProblems};
use crate::http::sessions::staff;
use crate::principal::Principal;
use crate::problem::Problem;
use crate::scope::Scope;
use crate::store::SessionKey;
use crate::wiring::ServerState;

/// How many records are read at a time.
const RECORDS: u32 = 500;

/// All data of one buyer or session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Export {
    /// When it was read.
    pub(super) as_of: Timestamp,
    /// The sessions, the latest one first.
    pub(super) sessions: Vec<ExportedSession>,
    /// What each field of a session is for.
    pub(super) fields: Vec<FieldPurpose>,
}

/// All data of a session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExportedSession {
    /// The session, with what browsers are not shown.
    pub(super) session: Session,
    /// Why it may not be erased now, if that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hold: Option<Hold>,
    /// When its personal data was erased, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) erased_at: Option<Timestamp>,
    /// Everything that happened to it, the earliest first: what it was, who changed it, when, and from which network. Empty of
    /// what was before an erasure.
    pub(super) history: Vec<Record>,
}

/// What a field is for.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FieldPurpose {
    /// Its name.
    pub(super) field: &'static str,
    /// What it is for, and how long it is kept.
    pub(super) purpose: &'static str,
    /// Whether it tells of a person.
    pub(super) is_personal: bool,
}

/// Gives all data of one email address or session: as JSON, or as a page to read or print where `Accept` asks for `text/html`.
///
/// The database is asked: what a buyer typed within the last second may be missing. That it was asked for is in the audit log.
#[utoipa::path(
    post, path = "/v1/privacy/export", tag = "privacy", request_body = Subject,
    responses(
        (status = 200, description = "All that there is; no session where there is none", content(
            (Export = "application/json"), (String = "text/html"),
        )),
        StaffProblems,
        BodyProblems,
    ),
    security(("serviceKey" = ["privacy"])),
)]
pub(crate) async fn export(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    headers: HeaderMap,
    JsonBody(subject): JsonBody<Subject>,
) -> Result<Response, Problem> {
    staff(&principal, Scope::Privacy)?;
    let keys = subject.sessions(&state, &principal).await?;
    let mut sessions = Vec::with_capacity(keys.len());
    for key in &keys {
        sessions.extend(exported(&state, key).await?);
    }
    note(&state, &principal, &keys).await?;
    let as_of = Timestamp::from_millis(state.clock.now_ms());
    let export = Export { as_of, sessions, fields: purposes::FIELDS.to_vec() };
    let mut response = if wants_page(&headers) {
        let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
        let page = page::document(&export).map_err(|error| Problem::internal(&error))?;
        ([(CONTENT_SECURITY_POLICY, policy)], Html(page)).into_response()
    } else {
        Reply::json(StatusCode::OK, &export)?.into_response()
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn exported(state: &ServerState, key: &SessionKey) -> Result<Option<ExportedSession>, Problem> {
    let Some(current) = state.sessions.current(key).await? else { return Ok(None) };
    let SessionState { session, hold, erased_at, .. } = SessionState::clone(&current.state);
    let mut history = Vec::new();
    let mut after = 0;
    loop {
        let records = state.sessions.journal(key, after, RECORDS).await?;
        after = records.last().map_or(after, |(version, _)| *version);
        let is_last = records.len() < RECORDS as usize;
        history.extend(records.into_iter().filter_map(|(_, record)| record));
        if is_last {
            break;
        }
    }
    Ok(Some(ExportedSession { session: session.project(Role::Service), hold, erased_at, history }))
}

/// Who took all data of a buyer out of here is told before they have it.
async fn note(state: &ServerState, principal: &Principal, keys: &[SessionKey]) -> Result<(), Problem> {
    let now_ms = state.clock.now_ms();
    let mut records = Vec::with_capacity(keys.len());
    for key in keys {
        let entry = AuditEntry {
            session: Some(key.session_id.clone()),
            ..AuditEntry::done(key.tenant.clone(), "exported", now_ms).by("service", principal.caller())
        };
        records.push(AuditRecord::new(&entry, &state.keys, now_ms).map_err(|error| Problem::internal(&error))?);
    }
    if records.is_empty() { Ok(()) } else { Ok(state.store.audit(records).await?) }
}
