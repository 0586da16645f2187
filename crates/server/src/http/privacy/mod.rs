//! `/v1/privacy`: what a shop owes a buyer by law. All data of one buyer or session, and their removal.

mod erasure;
mod export;
mod page;
mod purposes;

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Deserialize;
use throughline_core::{EmailAddress, SessionId};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::invalid;
use crate::principal::Principal;
use crate::problem::Problem;
use crate::store::{Position, Search, SessionKey, TimeRange};
use crate::wiring::ServerState;

/// How many sessions are looked for at a time.
const PAGE: u32 = 100;

/// How many sessions of one address one request is about at most.
const MOST_SESSIONS: usize = 5_000;

/// The routes, with their descriptions.
pub fn routes() -> OpenApiRouter<Arc<ServerState>> {
    OpenApiRouter::new().routes(routes!(export::export)).routes(routes!(erasure::erase))
}

/// Whose data: exactly one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "email": "ada@example.com" }))]
pub(crate) struct Subject {
    /// All sessions with this email address, in small or capital letters.
    email: Option<EmailAddress>,
    /// This session.
    session_id: Option<SessionId>,
}

impl Subject {
    /// The sessions that it names, of the principal's tenant, as the database has them.
    ///
    /// # Errors
    /// A problem where it names none, or both ways, or too many.
    async fn sessions(self, state: &ServerState, principal: &Principal) -> Result<Vec<SessionKey>, Problem> {
        let tenant = principal.tenant();
        match (self.email, self.session_id) {
            (None, Some(id)) => {
                let key = SessionKey { tenant: tenant.clone(), session_id: id.into() };
                let is_there = state.sessions.current(&key).await?.is_some();
                Ok(if is_there { vec![key] } else { Vec::new() })
            }
            (Some(email), None) => {
                // What buyers typed within the last second may be ahead of the database.
                state.sessions.flush();
                let mut search = Search {
                    tenant: tenant.clone(),
                    email_digests: state.sessions.email_lookup().digests(tenant, email.as_str()),
                    statuses: Vec::new(),
                    step: None,
                    funnel_id: None,
                    created: TimeRange::default(),
                    updated: TimeRange::default(),
                    after: None,
                    limit: PAGE,
                };
                let mut keys = Vec::new();
                loop {
                    let found = state.sessions.search(&search).await?;
                    let is_last = found.len() < PAGE as usize;
                    search.after = found.last().map(|last| Position::clone(&last.position));
                    let ids = found.into_iter().map(|listed| listed.position.session_id);
                    keys.extend(ids.map(|session_id| SessionKey { tenant: tenant.clone(), session_id }));
                    if is_last {
                        return Ok(keys);
                    }
                    if keys.len() >= MOST_SESSIONS {
                        return Err(too_many());
                    }
                }
            }
            (None, None) | (Some(_), Some(_)) => {
                Err(invalid("email", "send either `email` or `sessionId`: whose data it is about"))
            }
        }
    }
}

fn too_many() -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "tooMuch", "Too much")
        .detail(format!("there are more than {MOST_SESSIONS} sessions with this address; name them by their ids"))
        .mendable_by("permanent")
}
