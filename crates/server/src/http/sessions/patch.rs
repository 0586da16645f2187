//! `PATCH /v1/sessions/{id}`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header::IF_MATCH;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use throughline_core::json::{JsonObject, JsonValue};
use throughline_core::sync::{Funnels as _, Request, ServerFrame};
use throughline_core::{
    ClientId, Command, Context, Customer, ItemRequest, Record, Rejection, RejectionCode, Role, Session, SessionId,
    State as Stored, StepId, Timestamp, decide, evolve,
};
use utoipa::ToSchema;

use super::create::NewAdjustments;
use super::{Target, all_accepted, existing, nameless, request, session_reply};
use crate::http::body::HashedJsonBody;
use crate::http::idempotent::Once;
use crate::http::problem_schema::{BodyProblems, ProblemDetails, SessionProblems};
use crate::principal::Principal;
use crate::problem::Problem;
use crate::scope::Scope;
use crate::sessions::Executed;
use crate::wiring::ServerState;

/// How often a patch is tried on a session that keeps changing under it.
const MAX_ATTEMPTS: usize = 5;

/// An RFC 7396 merge patch of a session: `null` removes, objects merge, anything else replaces. All of it is applied,
/// or nothing.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SessionPatch {
    /// The buyer's email address.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    email: Option<Option<String>>,
    /// The buyer; field by field.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Customer>)]
    customer: Option<Option<Map<String, Value>>>,
    /// All product lines.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<ItemRequest>>)]
    products: Option<Option<Vec<ItemRequest>>>,
    /// The coupon.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    coupon_code: Option<Option<String>>,
    /// Metadata, key by key.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Option<JsonObject>>,
    /// Discount, shipping and tax; service principals only.
    adjustments: Option<NewAdjustments>,
    /// Where to go in the funnel.
    current_step: Option<StepId>,
}

/// Tells `null` from a field that is not there.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl SessionPatch {
    fn into_commands(self, current: &Stored) -> Result<Vec<Command>, Problem> {
        let mut commands = Vec::new();
        if let Some(email) = self.email {
            commands.push(Command::SetEmail { email: email.unwrap_or_default() });
        }
        if let Some(customer) = self.customer {
            let patch = customer.unwrap_or_else(|| emptied(&current.session.customer));
            let customer = read_customer(patch)?;
            commands.push(Command::SetCustomer { customer: Box::new(customer) });
        }
        if let Some(products) = self.products {
            commands.push(Command::SetItems { items: products.unwrap_or_default() });
        }
        if let Some(code) = self.coupon_code {
            commands.push(Command::SetCoupon { code });
        }
        if let Some(NewAdjustments { discount, shipping, tax }) = self.adjustments {
            commands.push(Command::SetAdjustments { discount, shipping, tax });
        }
        if let Some(metadata) = self.metadata {
            let all_removed = || {
                let keys = current.session.metadata.keys();
                keys.map(|key| (key.clone(), JsonValue::Null)).collect()
            };
            commands.push(Command::SetMetadata { metadata: metadata.unwrap_or_else(all_removed) });
        }
        if let Some(step) = self.current_step {
            commands.push(Command::GoToStep { step });
        }
        Ok(commands)
    }
}

/// A patch that removes every field that the customer has.
fn emptied(customer: &Customer) -> Map<String, Value> {
    match serde_json::to_value(customer) {
        Ok(Value::Object(fields)) => fields.into_iter().map(|(name, _)| (name, Value::Null)).collect(),
        _ => Map::new(),
    }
}

/// In a merge patch `null` removes a field; in the command an empty text does.
fn read_customer(patch: Map<String, Value>) -> Result<Customer, Problem> {
    fn removed(value: Value) -> Value {
        match value {
            Value::Null => Value::String(String::new()),
            Value::Object(fields) => {
                Value::Object(fields.into_iter().map(|(name, value)| (name, removed(value))).collect())
            }
            other => other,
        }
    }
    let mut fields = Map::new();
    for (name, value) in patch {
        let is_address = name == "billing" || name == "shipping";
        let value = match value {
            Value::Null if is_address => {
                let all = ["firstName", "lastName", "address", "city", "state", "zipCode", "country"];
                Value::Object(all.map(|field| (field.to_owned(), Value::String(String::new()))).into_iter().collect())
            }
            other => removed(other),
        };
        fields.insert(name, value);
    }
    serde_json::from_value(Value::Object(fields)).map_err(|error| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalidBody", "Invalid body")
            .detail(format!("`customer` is not as expected: {error}"))
            .with("path", "customer")
            .mendable_by("permanent")
    })
}

/// Changes the session by a merge patch (RFC 7396).
#[utoipa::path(
    patch, path = "/v1/sessions/{id}", tag = "sessions", request_body = SessionPatch,
    params(
        ("id" = String, Path, description = "The session's id"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the session that the patch is meant for"),
        ("Idempotency-Key" = Option<String>, Header, description = "Replays the first answer for 24 hours"),
    ),
    responses(
        (status = 200, description = "The session after the change", body = Session),
        SessionProblems,
        BodyProblems,
        (status = 403, description = "The principal may not change this", body = ProblemDetails),
        (status = 409, description = "The session's state does not allow it", body = ProblemDetails),
        (status = 410, description = "The session has expired or was erased", body = ProblemDetails),
        (status = 412, description = "The session is not at the version of `If-Match`", body = ProblemDetails),
        (status = 422, description = "A field is wrong, or the key was used with another body", body = ProblemDetails),
    ),
    security(("serviceKey" = ["sessions:write"]), ("sessionToken" = [])),
)]
pub(crate) async fn patch(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    Path(id): Path<String>,
    headers: HeaderMap,
    HashedJsonBody { value: patch, sha256 }: HashedJsonBody<SessionPatch>,
) -> Result<Response, Problem> {
    let target = Target::of(&principal, &id, Scope::SessionsWrite)?;
    let wanted = if_match(&headers)?;
    // Before an answer is given that was kept for it.
    existing(&state, &target).await?;
    let once = Once::of(&headers, principal.tenant(), &format!("{} patch {id}", principal.scope()))?;
    let client_id = once.client_id();
    let work = async {
        for _ in 0..MAX_ATTEMPTS {
            let current = existing(&state, &target).await?;
            if let Some(wanted) = wanted.filter(|wanted| *wanted != current.version()) {
                return Err(stale(wanted, current.version()));
            }
            let commands = patch.clone().into_commands(&current)?;
            let requests = plan(&state, &current, target.role, client_id.as_ref(), commands)?;
            if requests.is_empty() {
                return session_reply(&current, target.role);
            }
            let Executed { answers, .. } = target.execute(&state, requests).await?;
            let moved = answers.iter().any(|answer| {
                matches!(answer, ServerFrame::Rejected { reason, .. }
                    if reason.code == RejectionCode::StaleVersion)
            });
            if !moved {
                all_accepted(answers)?;
                let changed = existing(&state, &target).await?;
                return session_reply(&changed, target.role);
            }
        }
        Err(Problem::new(StatusCode::CONFLICT, "staleVersion", "Session changes too fast")
            .detail("the session kept changing while the patch was applied; nothing of it was; send it again")
            .mendable_by("retry"))
    };
    once.answer(&state, sha256, work).await
}

/// Judges all commands on the session as it is, and ties them to that: applied all together or not at all.
fn plan(
    state: &ServerState,
    current: &Stored,
    role: Role,
    client_id: Option<&ClientId>,
    commands: Vec<Command>,
) -> Result<Vec<Request>, Problem> {
    let session = &current.session;
    let Some(entry) = state.funnels.find(session.funnel.id.as_str(), Some(session.funnel.version)) else {
        let message = "this server does not have the session's funnel; its operator has to load that version";
        return Err(Rejection::new(RejectionCode::UnknownFunnel, message).into());
    };
    let nameless = nameless()?;
    let client = client_id.unwrap_or(&nameless);
    let now = Timestamp::from_millis(state.clock.now_ms());
    let session_id: &SessionId = &session.id;
    let context = Context { now, funnel: entry.funnel, session_id, epoch: current.epoch, claim: None };
    let mut requests = Vec::new();
    let mut planned = Some(current.clone());
    for (index, command) in commands.into_iter().enumerate() {
        let events = decide(planned.as_ref(), &command, role, &context)?;
        // What changes nothing is applied all the same where it has a number, so that the numbers have no gap.
        if events.is_empty() && client_id.is_none() {
            continue;
        }
        for event in events {
            let version = planned.as_ref().map_or(0, Stored::version) + 1;
            planned = evolve(planned, &Record { version, at: now, by: role, origin: None, caller: None, event });
        }
        let seq = client_id.map(|_| index as u64 + 1);
        requests.push(Request {
            expected_version: requests.is_empty().then(|| current.version()),
            only_after_previous: !requests.is_empty(),
            ..request(client, seq, command)
        });
    }
    Ok(requests)
}

fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let version = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).and_then(|text| text.parse().ok());
    version.map(Some).ok_or_else(|| {
        Problem::new(StatusCode::BAD_REQUEST, "ifMatchMalformed", "Malformed If-Match")
            .detail("send the session's `ETag` as it came, such as \"7\"; weak and several tags are not possible here")
            .mendable_by("permanent")
    })
}

fn stale(wanted: u64, current: u64) -> Problem {
    Problem::new(StatusCode::PRECONDITION_FAILED, "staleVersion", "Session has changed")
        .detail(format!("the session is at version {current}, not at {wanted}; read it again"))
        .with("currentVersion", current)
        .mendable_by("staleVersion")
}
