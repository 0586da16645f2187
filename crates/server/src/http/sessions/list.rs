//! `GET /v1/sessions`: lists and searches.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use throughline_core::{EmailAddress, FunnelId, Session, Status, StepId};
use utoipa::ToSchema;

use super::{staff, visible};
use crate::http::idempotent::Reply;
use crate::http::problem_schema::{ProblemDetails, StaffProblems};
use crate::http::query::{QueryParameters, refused};
use crate::principal::Principal;
use crate::problem::Problem;
use crate::scope::Scope;
use crate::store::{Position, Search, TimeRange};
use crate::tenant::TenantId;
use crate::wiring::ServerState;

const PARAMETERS: [&str; 10] = [
    "email",
    "status",
    "step",
    "funnel",
    "createdAfter",
    "createdBefore",
    "updatedAfter",
    "updatedBefore",
    "limit",
    "cursor",
];

/// How many sessions one answer holds: at most, and where nothing is said.
const MAX_SESSIONS: u32 = 200;
const SESSIONS: u32 = 50;

const STATUSES: [Status; 5] = [Status::Pending, Status::Processing, Status::Completed, Status::Failed, Status::Expired];

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionList {
    /// The sessions, the latest one first, each as `GET /v1/sessions/{id}` gives it. Erased ones are tombstones.
    sessions: Vec<Session>,
    /// `cursor` of the next part; missing when this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// Ids of sessions that belong here and can't be read, because another version wrote them or they are damaged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<String>,
}

/// Lists sessions, the latest one first.
///
/// The database is asked: a `relaxed` change may be missing for up to a second after it was accepted. The order never
/// changes: a walk from part to part meets no session twice, and misses none that the filters hold for all the while.
#[utoipa::path(
    get, path = "/v1/sessions", tag = "sessions",
    params(
        ("email" = Option<String>, Query, description = "The buyer's email address, in small or capital letters.", example = "ada@example.com"),
        ("status" = Option<Vec<Status>>, Query, description = "Any of these; repeated, or separated by commas"),
        ("step" = Option<String>, Query, description = "The step that the buyer is at", example = "checkout"),
        ("funnel" = Option<String>, Query, description = "The funnel's id", example = "default"),
        ("createdAfter" = Option<String>, Query, description = "Created at this time or later (RFC 3339)", example = "2026-11-25T00:00:00Z"),
        ("createdBefore" = Option<String>, Query, description = "Created before this time"),
        ("updatedAfter" = Option<String>, Query, description = "Changed at this time or later"),
        ("updatedBefore" = Option<String>, Query, description = "Changed before this time"),
        ("limit" = Option<u32>, Query, description = "How many sessions at most, 1 to 200; 50 where missing", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the part before, with the same filters"),
    ),
    responses(
        (status = 200, description = "A part of the list", body = SessionList,
            example = json!({ "sessions": [], "nextCursor": "AgAAAZ1..." })),
        StaffProblems,
        (status = 400, description = "A parameter is unknown or wrong, or the cursor is for other filters", body = ProblemDetails,
            example = json!({ "type": "/docs/problems#queryRefused", "title": "Query refused", "status": 400, "code": "queryRefused",
                "detail": "the query parameter `statsu` is wrong: it is not known here", "parameter": "statsu", "mendableBy": "permanent" })),
        (status = 422, description = "The database would have to look at too much", body = ProblemDetails),
    ),
    security(("serviceKey" = ["sessions:read"])),
)]
pub(crate) async fn list(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let role = staff(&principal, Scope::SessionsRead)?;
    let query = QueryParameters::read(query.as_deref(), &PARAMETERS)?;
    let search = search(&state, principal.tenant(), &query)?;
    let limit = search.limit;
    // One more than wanted tells whether there is a next part.
    let found = state.sessions.search(&Search { limit: limit + 1, ..search.clone() }).await?;
    let wanted = limit as usize;
    let mut sessions = Vec::with_capacity(found.len());
    let mut unreadable = Vec::new();
    for listed in found.iter().take(wanted) {
        match &listed.state {
            Some(session) => sessions.push(visible(session, role)),
            None => unreadable.push(listed.position.session_id.clone()),
        }
    }
    let is_last = found.len() <= wanted;
    let last = found.get(wanted.saturating_sub(1)).filter(|_| !is_last);
    let next_cursor = last.map(|last| cursor(&last.position, &filters(&search)));
    let list = SessionList { sessions, next_cursor, unreadable };
    Ok(Reply::json(StatusCode::OK, &list)?.into_response())
}

fn search(state: &ServerState, tenant: &TenantId, query: &QueryParameters) -> Result<Search, Problem> {
    let limit = query.value("limit", &format!("a number from 1 to {MAX_SESSIONS}"))?.unwrap_or(SESSIONS);
    if !(1..=MAX_SESSIONS).contains(&limit) {
        return Err(refused("limit", &format!("it has to be from 1 to {MAX_SESSIONS}")));
    }
    let mut search = Search {
        tenant: tenant.clone(),
        email_digests: email_digests(state, tenant, query)?,
        statuses: statuses(query)?,
        step: step(query)?,
        funnel_id: funnel(query)?,
        created: TimeRange { from_ms: query.moment("createdAfter")?, before_ms: query.moment("createdBefore")? },
        updated: TimeRange { from_ms: query.moment("updatedAfter")?, before_ms: query.moment("updatedBefore")? },
        after: None,
        limit,
    };
    search.after = match query.text("cursor")? {
        Some(text) => Some(position(text, &filters(&search))?),
        None => None,
    };
    Ok(search)
}

/// The filter by funnel, which statistics have as well.
pub(super) fn funnel(query: &QueryParameters) -> Result<Option<String>, Problem> {
    let funnel = query.text("funnel")?.map(FunnelId::new).transpose();
    Ok(funnel.map_err(|error| refused("funnel", &error.to_string()))?.map(String::from))
}

fn step(query: &QueryParameters) -> Result<Option<String>, Problem> {
    let step = query.text("step")?.map(StepId::new).transpose();
    Ok(step.map_err(|error| refused("step", &error.to_string()))?.map(String::from))
}

fn statuses(query: &QueryParameters) -> Result<Vec<String>, Problem> {
    let mut statuses = Vec::new();
    for text in query.list("status") {
        let Some(status) = STATUSES.into_iter().find(|status| status.as_str() == text) else {
            let known = STATUSES.map(Status::as_str).join(", ");
            return Err(refused("status", &format!("it has to be one of {known}, or several separated by commas")));
        };
        statuses.push(status.as_str().to_owned());
    }
    // In whichever order and however often they are named, it is the same question.
    statuses.sort_unstable();
    statuses.dedup();
    Ok(statuses)
}

fn email_digests(state: &ServerState, tenant: &TenantId, query: &QueryParameters) -> Result<Vec<Vec<u8>>, Problem> {
    let Some(text) = query.text("email")? else { return Ok(Vec::new()) };
    let email = EmailAddress::new(text.trim()).map_err(|error| refused("email", &error.to_string()))?;
    Ok(state.sessions.email_lookup().digests(tenant, email.as_str()))
}

/// How many bytes of a hash tell filters apart. It keeps mistakes out, not attackers: whoever has the key may see it all.
const FILTER_BYTES: usize = 16;

/// The form of a cursor, so that a later one can have another.
const CURSOR_FORM: u8 = 2;

/// What a cursor is bound to: whose sessions, and all filters.
fn filters(search: &Search) -> [u8; FILTER_BYTES] {
    let Search { tenant, email_digests, statuses, step, funnel_id, created, updated, after: _, limit: _ } = search;
    let filters = (tenant.as_str(), email_digests, statuses, step, funnel_id);
    let times = [created.from_ms, created.before_ms, updated.from_ms, updated.before_ms];
    let digest = Sha256::digest(format!("{filters:?} {times:?}"));
    let mut short = [0; FILTER_BYTES];
    short.copy_from_slice(&digest[..FILTER_BYTES]);
    short
}

fn cursor(position: &Position, filters: &[u8; FILTER_BYTES]) -> String {
    let at = position.created_at_ms.to_be_bytes();
    URL_SAFE_NO_PAD.encode([&[CURSOR_FORM], &at[..], filters, position.session_id.as_bytes()].concat())
}

fn position(cursor: &str, filters: &[u8; FILTER_BYTES]) -> Result<Position, Problem> {
    let refused = |why: &str| {
        Problem::new(StatusCode::BAD_REQUEST, "cursorRefused", "Cursor refused")
            .detail(why)
            .with("parameter", "cursor")
            .mendable_by("permanent")
    };
    let unknown = || refused("the cursor is none of this server's; send `nextCursor` as it came, or begin without one");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| unknown())?;
    let ([CURSOR_FORM], rest) = bytes.split_first_chunk::<1>().ok_or_else(unknown)? else { return Err(unknown()) };
    let (at, rest) = rest.split_first_chunk::<8>().ok_or_else(unknown)?;
    let (bound_to, id) = rest.split_first_chunk::<FILTER_BYTES>().ok_or_else(unknown)?;
    let session_id = std::str::from_utf8(id).map_err(|_| unknown())?.to_owned();
    if bound_to != filters {
        return Err(refused(
            "the cursor was made for other filters; send the same filters as for the part before, or begin without a cursor",
        ));
    }
    Ok(Position { created_at_ms: i64::from_be_bytes(*at), session_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Search {
        Search {
            tenant: TenantId::single(),
            email_digests: Vec::new(),
            statuses: Vec::new(),
            step: None,
            funnel_id: None,
            created: TimeRange::default(),
            updated: TimeRange::default(),
            after: None,
            limit: 50,
        }
    }

    #[test]
    fn a_cursor_gives_back_its_place_for_the_same_filters_only() {
        let place = Position { created_at_ms: 1_795_165_200_000, session_id: "ws_1_ä".to_owned() };
        let text = cursor(&place, &filters(&all()));
        assert_eq!(position(&text, &filters(&Search { limit: 7, ..all() })).unwrap(), place);
        let time = TimeRange { from_ms: Some(1), before_ms: None };
        for other in [
            Search { tenant: "b".parse().unwrap(), ..all() },
            Search { email_digests: vec![vec![1]], ..all() },
            Search { statuses: vec!["failed".to_owned()], ..all() },
            Search { step: Some("default".to_owned()), ..all() },
            Search { funnel_id: Some("default".to_owned()), ..all() },
            Search { created: time, ..all() },
            Search { updated: time, ..all() },
        ] {
            assert_eq!(position(&text, &filters(&other)).unwrap_err().code(), "cursorRefused", "{other:?}");
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in ["", "x", "AQ", "!!!!", "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(position(text, &filters(&all())).unwrap_err().code(), "cursorRefused", "{text}");
        }
    }
}
