//! `POST /v1/sessions/batch/import`: what the legacy systems have, brought in by a back end that is moving.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use throughline_core::legacy::{Adoption, Note, adopt, together};
use throughline_core::sync::Funnels as _;
use throughline_core::{Command, Context, FunnelChoice, FunnelId, LegacyEntries, SessionId, Timestamp};
use utoipa::ToSchema;

use super::batch::{AT_ONCE, check_count};
use super::{Target, all_accepted, nameless, request, staff};
use crate::http::body::JsonBody;
use crate::http::idempotent::Reply;
use crate::http::problem_schema::{BodyProblems, ProblemDetails, StaffProblems};
use crate::principal::Principal;
use crate::problem::Problem;
use crate::scope::Scope;
use crate::wiring::ServerState;

/// How many sessions one request brings in at most.
const MAX_SESSIONS: usize = 100;

/// What is brought in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchImport {
    /// 1 to 100 sessions.
    #[schema(min_items = 1, max_items = 100)]
    sessions: Vec<LegacyOf>,
    /// The funnel that new ones follow; `default` where missing.
    funnel: Option<FunnelChoice>,
}

/// What the legacy systems have of a session.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LegacyOf {
    /// The session's id.
    id: SessionId,
    /// What they have.
    legacy: LegacyEntries,
}

/// What became of the sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchImported {
    /// One for each, in their order.
    results: Vec<Imported>,
}

/// What became of a session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Imported {
    /// It began here.
    Created {
        /// Its id.
        id: String,
        /// Its version now.
        version: u64,
        /// What had to be decided.
        decisions: Vec<Decision>,
    },
    /// It was here, and took over what it did not have.
    Updated {
        /// Its id.
        id: String,
        /// Its version now.
        version: u64,
        /// What had to be decided.
        decisions: Vec<Decision>,
    },
    /// It was so already.
    Unchanged {
        /// Its id.
        id: String,
        /// Its version.
        version: u64,
    },
    /// It was not brought in; the others are not affected.
    Failed {
        /// Its id.
        id: String,
        /// Why.
        #[schema(value_type = ProblemDetails)]
        problem: serde_json::Value,
    },
}

/// Something that had to be decided. It names a field, and never a value.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Decision {
    /// The field.
    field: String,
    /// What was decided, by a stable name.
    code: &'static str,
    /// The same for people.
    message: String,
    /// Whether a person has to do something about it.
    needs_a_person: bool,
}

impl From<Note> for Decision {
    fn from(note: Note) -> Self {
        let (code, needs_a_person) = (note.kind.code(), note.kind.needs_a_person());
        Self { message: note.to_string(), field: note.field, code, needs_a_person }
    }
}

/// Brings in what the legacy systems have of many sessions: those that are not here begin, the others take over what they do not
/// have. What is so already stays, so the same request may be sent again.
///
/// Facts of a payment are believed of `database`, `cookie` and `cache`, never of `browser`.
#[utoipa::path(
    post, path = "/v1/sessions/batch/import", tag = "sessions", request_body = BatchImport,
    responses(
        (status = 200, description = "What became of each, in their order", body = BatchImported,
            example = json!({ "results": [{ "outcome": "unchanged", "id": "ws_m3k2x_9f2c", "version": 9 }] })),
        StaffProblems,
        BodyProblems,
    ),
    security(("serviceKey" = ["payments"])),
)]
pub(crate) async fn batch_import(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    JsonBody(BatchImport { sessions, funnel }): JsonBody<BatchImport>,
) -> Result<Response, Problem> {
    staff(&principal, Scope::Payments)?;
    check_count("sessions", sessions.len(), MAX_SESSIONS)?;
    let work = stream::iter(sessions).map(async |LegacyOf { id, legacy }| {
        let name = id.to_string();
        match import(&state, &principal, id, legacy, funnel.clone()).await {
            Ok(imported) => imported,
            Err(problem) => Imported::Failed { id: name, problem: problem.document() },
        }
    });
    let results = work.buffered(AT_ONCE).collect().await;
    Ok(Reply::json(StatusCode::OK, &BatchImported { results })?.into_response())
}

async fn import(
    state: &ServerState,
    principal: &Principal,
    id: SessionId,
    legacy: LegacyEntries,
    choice: Option<FunnelChoice>,
) -> Result<Imported, Problem> {
    let target = Target::of(principal, id.as_str(), Scope::Payments)?;
    let current = state.sessions.current(&target.key).await?.map(|current| current.state);
    let (is_so, decisions) = planned(state, &id, &legacy, current.as_deref(), choice.as_ref())?;
    if let (Some(current), true) = (&current, is_so) {
        return Ok(Imported::Unchanged { id: id.into(), version: current.version() });
    }
    let command = Command::Import { legacy: Box::new(legacy), funnel: choice };
    let requests = vec![request(&nameless()?, None, command)];
    let version = all_accepted(target.execute(state, requests).await?.answers)?;
    let id = id.to_string();
    Ok(match current {
        Some(_) => Imported::Updated { id, version, decisions },
        None => Imported::Created { id, version, decisions },
    })
}

/// Whether the session is so already, and what has to be decided. What happens is decided again where it happens, by the same code.
fn planned(
    state: &ServerState,
    id: &SessionId,
    legacy: &LegacyEntries,
    current: Option<&throughline_core::State>,
    choice: Option<&FunnelChoice>,
) -> Result<(bool, Vec<Decision>), Problem> {
    let legacy = together(legacy, id)?;
    let pinned = current.map(|state| &state.session.funnel);
    let found = match (pinned, choice) {
        (Some(funnel), _) => state.funnels.find(funnel.id.as_str(), Some(funnel.version)),
        (None, Some(choice)) => state.funnels.find(choice.id.as_str(), choice.version),
        (None, None) => state.funnels.find(FunnelId::DEFAULT, None),
    };
    // Without its funnel the command is refused, with a reason.
    let Some(found) = found else { return Ok((false, Vec::new())) };
    let now = Timestamp::from_millis(state.clock.now_ms());
    let context = Context { now, funnel: found.funnel, session_id: id, epoch: 0, claim: None };
    let Adoption { events, notes } = adopt(&legacy, current, &context);
    // An erased session is refused, with a reason.
    let is_so = events.is_empty() && current.is_some_and(|state| state.erased_at.is_none());
    Ok((is_so, notes.into_iter().map(Decision::from).collect()))
}
