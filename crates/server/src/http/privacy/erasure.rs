//! `POST /v1/privacy/erase`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::Serialize;
use throughline_core::{Command, RejectionCode, Timestamp};
use utoipa::ToSchema;

use super::Subject;
use crate::http::body::JsonBody;
use crate::http::idempotent::Reply;
use crate::http::problem_schema::{BodyProblems, ProblemDetails, StaffProblems};
use crate::http::sessions::batch::AT_ONCE;
use crate::http::sessions::{Target, staff};
use crate::principal::Principal;
use crate::problem::Problem;
use crate::scope::Scope;
use crate::wiring::ServerState;

/// What became of an erasure.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Erasures {
    /// Whether nothing of what was asked for is left: neither held nor failed.
    is_complete: bool,
    /// One for each session. Keep it: with the records of the audit log that name these sessions (`throughline audit export
    /// --session`), it proves what was done.
    sessions: Vec<Erasure>,
}

/// What became of a session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Erasure {
    /// Its personal data is gone, now or before: from database, journal, Redis and memory, and from each browser as soon as that
    /// is connected. What is left is a tombstone: times, steps and amounts.
    Erased {
        /// The session.
        session_id: String,
        /// When it was erased.
        erased_at: Timestamp,
        /// Its version after that.
        version: u64,
    },
    /// It is held, and was not erased.
    Held {
        /// The session.
        session_id: String,
        /// Why and until when.
        reason: String,
    },
    /// It could not be erased just now; the others are not affected. Send the request again.
    Failed {
        /// The session.
        session_id: String,
        /// Why, as that request alone would have been answered.
        #[schema(value_type = ProblemDetails)]
        problem: serde_json::Value,
    },
}

/// Erases the personal data of one email address or session. The same request sent again changes nothing more.
///
/// Each session's data key is destroyed with it. What a browser that was offline sends later is refused, and brings nothing back.
/// Sessions that are held (`setHold`) stay, and are told of. What a buyer typed within the last second may be missed where another
/// server took it: send the request again after that.
#[utoipa::path(
    post, path = "/v1/privacy/erase", tag = "privacy", request_body = Subject,
    responses(
        (status = 200, description = "What became of each; none where there is no such session", body = Erasures,
            example = json!({ "isComplete": true, "sessions": [
                { "outcome": "erased", "sessionId": "ws_m3k2x_9f2c", "erasedAt": "2026-11-28T10:02:11.482Z", "version": 9 }] })),
        StaffProblems,
        BodyProblems,
    ),
    security(("serviceKey" = ["privacy"])),
)]
pub(crate) async fn erase(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    JsonBody(subject): JsonBody<Subject>,
) -> Result<Response, Problem> {
    staff(&principal, Scope::Privacy)?;
    let keys = subject.sessions(&state, &principal).await?;
    let work = async |session_id: String| match erase_one(&state, &principal, &session_id).await {
        Ok(erasure) => erasure,
        Err(problem) => Erasure::Failed { session_id, problem: problem.document() },
    };
    let ids = keys.into_iter().map(|key| key.session_id);
    let sessions: Vec<Erasure> = stream::iter(ids).map(work).buffered(AT_ONCE).collect().await;
    let is_complete = sessions.iter().all(|erasure| matches!(erasure, Erasure::Erased { .. }));
    Ok(Reply::json(StatusCode::OK, &Erasures { is_complete, sessions })?.into_response())
}

async fn erase_one(state: &ServerState, principal: &Principal, session_id: &str) -> Result<Erasure, Problem> {
    let target = Target::of(principal, session_id, Scope::Privacy)?;
    let session_id = session_id.to_owned();
    match target.carry_out(state, Command::Erase {}).await {
        Ok(erased) => {
            let (erased_at, version) = (erased.erased_at, erased.version());
            Ok(Erasure::Erased { session_id, erased_at: erased_at.unwrap_or(erased.session.updated_at), version })
        }
        Err(problem) if problem.code() == RejectionCode::SessionHeld.as_str() => {
            let reason = problem.document()["detail"].as_str().unwrap_or_default().to_owned();
            Ok(Erasure::Held { session_id, reason })
        }
        Err(problem) => Err(problem),
    }
}
