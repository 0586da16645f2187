//! `POST /v1/sessions/batch/get` and `…/batch/delete`: many sessions by their ids.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use throughline_core::{Command, Session};
use utoipa::ToSchema;

use super::{Target, all_accepted, nameless, request, staff, visible};
use crate::http::body::JsonBody;
use crate::http::idempotent::Reply;
use crate::http::problem_schema::{BodyProblems, ProblemDetails, StaffProblems};
use crate::principal::Principal;
use crate::problem::Problem;
use crate::scope::Scope;
use crate::wiring::ServerState;

/// How many ids one request names at most.
const MAX_IDS: usize = 100;

/// How many of them are worked on at a time: others wait for the database as well.
pub(crate) const AT_ONCE: usize = 8;

/// Which sessions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "ids": ["ws_m3k2x_9f2c", "ws_m3k2y_07aa"] }))]
pub(crate) struct BatchIds {
    /// 1 to 100 ids.
    #[schema(min_items = 1, max_items = 100)]
    ids: Vec<String>,
}

/// What there is of the sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchGet {
    /// One for each id, in their order.
    results: Vec<Got>,
}

/// What there is of a session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Got {
    /// The session.
    Found {
        /// The id that was asked for.
        id: String,
        /// The session, as `GET /v1/sessions/{id}` gives it.
        session: Box<Session>,
        /// For how many seconds nobody could say whether it changed; missing where it is the latest.
        #[serde(skip_serializing_if = "Option::is_none")]
        stale_seconds: Option<u64>,
    },
    /// There is no session with this id.
    NotFound {
        /// The id that was asked for.
        id: String,
    },
    /// It could not be read just now; the others are not affected.
    Failed {
        /// The id that was asked for.
        id: String,
        /// Why, as that request alone would have been answered.
        #[schema(value_type = ProblemDetails)]
        problem: serde_json::Value,
    },
}

/// What became of the sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchDelete {
    /// One for each id, in their order.
    results: Vec<Gone>,
}

/// What became of a session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "camelCase")]
pub(crate) enum Gone {
    /// Its personal data is gone, now or before.
    Deleted {
        /// The id that was asked for.
        id: String,
    },
    /// There is no session with this id.
    NotFound {
        /// The id that was asked for.
        id: String,
    },
    /// It could not be deleted just now; the others are not affected.
    Failed {
        /// The id that was asked for.
        id: String,
        /// Why, as that request alone would have been answered.
        #[schema(value_type = ProblemDetails)]
        problem: serde_json::Value,
    },
}

/// Checks how many there are of what a field of the body holds.
///
/// # Errors
/// A problem when there are none or more than `max`.
pub(crate) fn check_count(field: &str, count: usize, max: usize) -> Result<(), Problem> {
    if (1..=max).contains(&count) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalidBody", "Invalid body")
        .detail(format!("`{field}` holds {count}; send 1 to {max}"))
        .with("path", field)
        .mendable_by("permanent"))
}

/// Does `work` for each id, a few at a time; the outcomes are in the order of the ids.
pub(crate) async fn for_each<T, F: Future<Output = T>>(ids: Vec<String>, work: impl Fn(String) -> F) -> Vec<T> {
    stream::iter(ids).map(work).buffered(AT_ONCE).collect().await
}

/// Gets many sessions at once.
#[utoipa::path(
    post, path = "/v1/sessions/batch/get", tag = "sessions", request_body = BatchIds,
    responses(
        (status = 200, description = "What there is of each, in their order", body = BatchGet,
            example = json!({ "results": [{ "outcome": "notFound", "id": "ws_m3k2x_9f2c" }] })),
        StaffProblems,
        BodyProblems,
    ),
    security(("serviceKey" = ["sessions:read"])),
)]
pub(crate) async fn batch_get(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    JsonBody(BatchIds { ids }): JsonBody<BatchIds>,
) -> Result<Response, Problem> {
    let role = staff(&principal, Scope::SessionsRead)?;
    check_count("ids", ids.len(), MAX_IDS)?;
    let results = for_each(ids, async |id| {
        let read = async {
            let Ok(target) = Target::of(&principal, &id, Scope::SessionsRead) else { return Ok(None) };
            Ok::<_, Problem>(state.sessions.current(&target.key).await?)
        };
        match read.await {
            Ok(Some(current)) => {
                let session = Box::new(visible(&current.state, role));
                Got::Found { id, session, stale_seconds: current.stale_for.map(|stale_for| stale_for.as_secs()) }
            }
            Ok(None) => Got::NotFound { id },
            Err(problem) => Got::Failed { id, problem: problem.document() },
        }
    });
    Ok(Reply::json(StatusCode::OK, &BatchGet { results: results.await })?.into_response())
}

/// Deletes many sessions, each as `DELETE /v1/sessions/{id}` does. The same request sent again changes nothing more.
#[utoipa::path(
    post, path = "/v1/sessions/batch/delete", tag = "sessions", request_body = BatchIds,
    responses(
        (status = 200, description = "What became of each, in their order", body = BatchDelete,
            example = json!({ "results": [{ "outcome": "deleted", "id": "ws_m3k2x_9f2c" }] })),
        StaffProblems,
        BodyProblems,
    ),
    security(("serviceKey" = ["privacy"])),
)]
pub(crate) async fn batch_delete(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    JsonBody(BatchIds { ids }): JsonBody<BatchIds>,
) -> Result<Response, Problem> {
    staff(&principal, Scope::Privacy)?;
    check_count("ids", ids.len(), MAX_IDS)?;
    let results = for_each(ids, async |id| {
        let delete = async {
            let Ok(target) = Target::of(&principal, &id, Scope::Privacy) else { return Ok(false) };
            if state.sessions.current(&target.key).await?.is_none() {
                return Ok(false);
            }
            let requests = vec![request(&nameless()?, None, Command::Erase {})];
            all_accepted(target.execute(&state, requests).await?.answers)?;
            Ok::<_, Problem>(true)
        };
        match delete.await {
            Ok(true) => Gone::Deleted { id },
            Ok(false) => Gone::NotFound { id },
            Err(problem) => Gone::Failed { id, problem: problem.document() },
        }
    });
    Ok(Reply::json(StatusCode::OK, &BatchDelete { results: results.await })?.into_response())
}
