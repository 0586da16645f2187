//! `POST /v1/sessions/{id}/commands`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use throughline_core::sync::{Request, ServerFrame};
use throughline_core::{ClientId, Command, Durability, Rejection, RejectionCode, Session};
use utoipa::ToSchema;

use super::{Target, existing, gap, nameless, request, visible};
use crate::http::body::{HashedJsonBody, customer_is_by_name};
use crate::http::idempotent::{Once, Reply};
use crate::http::problem_schema::{BodyProblems, ProblemDetails, SessionProblems};
use crate::principal::Principal;
use crate::problem::Problem;
use crate::scope::Scope;
use crate::sessions::Executed;
use crate::wiring::ServerState;

/// How many commands one request holds at most.
const MAX_COMMANDS: usize = 50;

/// Commands, in their order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Commands {
    /// 1 to 50 commands.
    #[schema(min_items = 1, max_items = 50)]
    commands: Vec<NumberedCommand>,
}

/// A command. Without `clientId` and `seq` it is not told from another that is the same; an `Idempotency-Key` on the
/// request does that as well.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NumberedCommand {
    /// Who issues it: a name of the caller's own.
    client_id: Option<ClientId>,
    /// The caller's number for it: 1, 2, 3 and so on under its `clientId`. Sent twice, it is applied once.
    seq: Option<u64>,
    /// When it counts. `relaxed` is for commands that may be, and needs `clientId` and `seq`; a service key's are
    /// `strict` where nothing is said.
    durability: Option<WantedDurability>,
    /// The command: `type` and its fields.
    #[serde(flatten, deserialize_with = "by_name")]
    command: Command,
}

/// Serde would also take the number of a command's kind, which is nobody's to rely on.
fn by_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Command, D::Error> {
    let members = Map::<String, Value>::deserialize(deserializer)?;
    if members.get("type").is_some_and(|name| !name.is_string()) {
        return Err(D::Error::custom("the `type` of a command is a text"));
    }
    if let Some(customer) = members.get("customer") {
        customer_is_by_name(customer).map_err(D::Error::custom)?;
    }
    serde_json::from_value(Value::Object(members)).map_err(D::Error::custom)
}

/// When a command counts as applied.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum WantedDurability {
    /// When the database has it.
    Strict,
    /// When two memories have it; the database follows within a second.
    Relaxed,
}

impl From<WantedDurability> for Durability {
    fn from(wanted: WantedDurability) -> Self {
        match wanted {
            WantedDurability::Strict => Self::Strict,
            WantedDurability::Relaxed => Self::Relaxed,
        }
    }
}

/// What became of the commands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Outcomes {
    /// One for each command, in their order.
    results: Vec<Outcome>,
    /// The session after all of them, as the principal may see it.
    session: Session,
}

/// What became of a command.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Outcome {
    /// It was applied.
    Accepted {
        /// Who issued it.
        client_id: ClientId,
        /// Its number.
        seq: u64,
        /// The session's version after it; of a repeated one, now.
        version: u64,
        /// Whether it had been applied before and was not applied again.
        repeated: bool,
        /// Whether the database has it. Where not, two memories do, and the database will within a second.
        durable: bool,
    },
    /// It was refused, and changed nothing.
    Rejected {
        /// Who issued it.
        client_id: ClientId,
        /// Its number.
        seq: u64,
        /// Why.
        reason: Rejection,
    },
}

/// Issues commands. Each is judged by itself; the answer says what became of each. A service key needs the scope of each of them
/// (`payments` for what the payment gateway says, `privacy` for `erase`, `sessions:write` for the rest); where it lacks one, none
/// is done.
#[utoipa::path(
    post, path = "/v1/sessions/{id}/commands", tag = "sessions", request_body = Commands,
    params(
        ("id" = String, Path, description = "The session's id"),
        ("Idempotency-Key" = Option<String>, Header, description = "Replays the first answer for 24 hours"),
    ),
    responses(
        (status = 200, description = "What became of each", body = Outcomes),
        SessionProblems,
        BodyProblems,
        (status = 409, description = "Numbers are missing between the last command and these", body = ProblemDetails),
        (status = 422, description = "A command can't be read, or the key was used with another body", body = ProblemDetails),
    ),
    security(("serviceKey" = ["sessions:write", "payments", "privacy"]), ("sessionToken" = [])),
)]
pub(crate) async fn commands(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    Path(id): Path<String>,
    headers: HeaderMap,
    HashedJsonBody { value: Commands { commands }, sha256 }: HashedJsonBody<Commands>,
) -> Result<Response, Problem> {
    let target = Target::reached(&principal, &id)?;
    if !(1..=MAX_COMMANDS).contains(&commands.len()) {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalidBody", "Invalid body")
            .detail(format!("`commands` holds {}; send 1 to {MAX_COMMANDS}", commands.len()))
            .with("path", "commands")
            .mendable_by("permanent"));
    }
    // All of them, before any is done.
    for numbered in &commands {
        principal.require(Scope::of_command(numbered.command.kind()))?;
    }
    // Before an answer is given that was kept for it.
    existing(&state, &target).await?;
    let once = Once::of(&headers, principal.tenant(), &format!("{} commands {id}", principal.scope()))?;
    let client_id = once.client_id();
    let work = async {
        let nameless = nameless()?;
        let mut requests = Vec::with_capacity(commands.len());
        for (index, NumberedCommand { client_id: named, seq, durability, command }) in commands.into_iter().enumerate()
        {
            let durability = durability.map(Durability::from);
            requests.push(match (named, seq, &client_id) {
                (Some(named), Some(seq), _) => Request { durability, ..request(&named, Some(seq), command) },
                (None, None, Some(once)) => Request { durability, ..request(once, Some(index as u64 + 1), command) },
                (None, None, None) => request(&nameless, None, command),
                _ => {
                    return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalidBody", "Invalid body")
                        .detail("`clientId` and `seq` go together: send both, or neither")
                        .with("path", format!("commands[{index}]"))
                        .mendable_by("permanent"));
                }
            });
        }
        let mut results = Vec::new();
        let Executed { answers, durable_version } = target.execute(&state, requests).await?;
        for answer in answers {
            match answer {
                ServerFrame::Accepted { client_id, seq, version, repeated } => {
                    let durable = version <= durable_version;
                    results.push(Outcome::Accepted { client_id, seq, version, repeated, durable });
                }
                ServerFrame::Rejected { reason, .. } if reason.code == RejectionCode::TokenRevoked => {
                    return Err(reason.into());
                }
                ServerFrame::Rejected { client_id, seq, reason } => {
                    results.push(Outcome::Rejected { client_id, seq, reason });
                }
                ServerFrame::Gap { expected, .. } => return Err(gap(expected)),
                _ => {}
            }
        }
        let current = existing(&state, &target).await?;
        let session = visible(&current, target.role);
        let reply = Reply::json(StatusCode::OK, &Outcomes { results, session })?;
        Ok(reply.version(current.version()).about(&target.key.session_id))
    };
    once.answer(&state, sha256, work).await
}
