//! `POST /v1/sessions`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use throughline_core::sync::Credential;
use throughline_core::{
    Caller, Command, Create, Customer, FunnelChoice, ItemRequest, Money, Rejection, RejectionCode, Role, Session,
    SessionId, Source, Timestamp, json::JsonObject,
};
use utoipa::ToSchema;

use super::{TokenAnswer, all_accepted, issue_token, nameless, not_found, request, visible};
use crate::client_address::kept_network;
use crate::http::body::{HashedJsonBody, customer_is_by_name};
use crate::http::cookie::{self, CookieMode, MaybeCookieMode};
use crate::http::extract::{ClientAddress, MaybePrincipal};
use crate::http::idempotent::{Once, Reply};
use crate::http::problem_schema::{BodyProblems, ProblemDetails};
use crate::principal::{Principal, Role as PrincipalRole};
use crate::problem::Problem;
use crate::scope::Scope;
use crate::store::SessionKey;
use crate::tenant::TenantId;
use crate::token::Purpose;
use crate::wiring::ServerState;

/// What a new session begins with. Everything may be missing.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewSession {
    /// The id wanted; service principals only.
    id: Option<SessionId>,
    /// The buyer's email address.
    email: Option<String>,
    /// The buyer.
    #[serde(default, deserialize_with = "customer")]
    customer: Option<Customer>,
    /// The product lines, at most 100. Only service principals name prices.
    #[serde(default)]
    products: Vec<ItemRequest>,
    /// A coupon of the funnel.
    coupon_code: Option<String>,
    /// Any JSON: at most 50 top-level keys, 8 levels, 16 KiB.
    #[serde(default)]
    #[schema(value_type = Object)]
    metadata: JsonObject,
    /// Discount, shipping and tax; service principals only.
    adjustments: Option<NewAdjustments>,
    /// The funnel; `default` where missing.
    funnel: Option<FunnelChoice>,
    /// Where the session comes from; service principals only.
    source: Option<Source>,
    /// How long it lives, in milliseconds.
    ttl_ms: Option<u32>,
}

fn customer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Customer>, D::Error> {
    let customer = Value::deserialize(deserializer)?;
    customer_is_by_name(&customer).map_err(D::Error::custom)?;
    serde_json::from_value(customer).map_err(D::Error::custom)
}

/// Discount, shipping and tax, in minor units.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewAdjustments {
    /// Taken off the subtotal.
    pub(super) discount: Option<Money>,
    /// Shipping.
    pub(super) shipping: Option<Money>,
    /// Tax on the products.
    pub(super) tax: Option<Money>,
}

/// A new session with its token.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Created {
    /// The session, as the principal may see it.
    session: Session,
    #[serde(flatten)]
    token: TokenAnswer,
}

/// Creates a session.
///
/// Without a credential it is a browser's: limited per address, priced by the catalogue, of the tenant that the page's origin
/// belongs to. With a service key it may carry prices, adjustments and a wanted id.
#[utoipa::path(
    post, path = "/v1/sessions", tag = "sessions", request_body = NewSession,
    params(("Idempotency-Key" = Option<String>, Header, description = "With a service key: replays the first answer for 24 hours")),
    responses(
        (status = 201, description = "It was created", body = Created),
        BodyProblems,
        (status = 401, description = "The credential proves nothing", body = ProblemDetails),
        (status = 403, description = "Only service keys may send this, with the scope `sessions:write`", body = ProblemDetails),
        (status = 409, description = "The id is taken, or the key's first request is still running", body = ProblemDetails),
        (status = 422, description = "A field is wrong, or the key was used with another body", body = ProblemDetails),
        (status = 429, description = "This address creates too many sessions", body = ProblemDetails),
        (status = 503, description = "It could not be stored just now", body = ProblemDetails),
    ),
    security((), ("serviceKey" = ["sessions:write"])),
)]
pub(crate) async fn create(
    State(state): State<Arc<ServerState>>,
    ClientAddress(address): ClientAddress,
    MaybePrincipal(principal): MaybePrincipal,
    MaybeCookieMode(mode): MaybeCookieMode,
    headers: HeaderMap,
    HashedJsonBody { value: new, sha256 }: HashedJsonBody<NewSession>,
) -> Result<Response, Problem> {
    let caller = match &principal {
        Some(principal) => principal.caller(),
        None => Caller { key_id: None, network: Some(kept_network(address)) },
    };
    let (tenant, role) = match &principal {
        Some(principal) => {
            principal.require(Scope::SessionsWrite)?;
            match &principal.role {
                PrincipalRole::Service { tenant, .. } => (tenant.clone(), Role::Service),
                PrincipalRole::Browser { .. } => {
                    return Err(wrong_principal().denial(principal.denied("createSession", "notPermitted")));
                }
            }
        }
        None => {
            state.creations_per_address.check(address)?;
            (state.config.allowed_origins.tenant_of(&headers), Role::Browser)
        }
    };
    if role == Role::Browser && (new.id.is_some() || new.adjustments.is_some() || new.source.is_some()) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "notPermitted", "Forbidden")
            .detail("id, adjustments and source are for service principals; send a service key, or leave them out")
            .mendable_by("forbidden"));
    }
    check_id(new.id.as_ref())?;
    // Without a credential nobody can tell whose key it is, and the answer holds a token: it is not kept.
    check_adjustments(new.adjustments)?;
    let once = match &principal {
        Some(principal) => Once::of(&headers, &tenant, &format!("{} create", principal.scope()))?,
        None => Once::never(),
    };
    let issued_by = principal.as_ref().and_then(Principal::issuing_key);
    // A service has no use for cookies of its own.
    let mode = mode.filter(|_| role == Role::Browser);
    let work = create_once(&state, tenant, Issuer { role, caller, issued_by, mode }, new);
    once.answer(&state, sha256, work).await
}

/// A session could not be reached under what stands for something else in the same place of a path.
fn check_id(id: Option<&SessionId>) -> Result<(), Problem> {
    match id.map(SessionId::as_str) {
        Some(taken @ ("batch" | "stats")) => {
            let message = format!("no session can have the id {taken}, because /v1/sessions/{taken} is something else");
            Err(Rejection::new(RejectionCode::InvalidField, message).into())
        }
        _ => Ok(()),
    }
}

/// Before the session is created: it must not be there without what it was to begin with.
fn check_adjustments(adjustments: Option<NewAdjustments>) -> Result<(), Problem> {
    let Some(NewAdjustments { discount, shipping, tax }) = adjustments else { return Ok(()) };
    for (name, amount) in [("discount", discount), ("shipping", shipping), ("tax", tax)] {
        if let Some(amount) = amount.filter(|amount| !amount.is_price()) {
            let message = format!("{name} is {}; 0 to {} are possible", amount.minor(), Money::MAX.minor());
            return Err(Rejection::new(RejectionCode::InvalidAmount, message).into());
        }
    }
    Ok(())
}

fn wrong_principal() -> Problem {
    tracing::warn!("a principal that may not create sessions tried to");
    Problem::new(StatusCode::FORBIDDEN, "notPermitted", "Forbidden")
        .detail("sessions are created with a service key, or without any credential; this one is for something else")
        .mendable_by("forbidden")
}

/// Who creates a session.
struct Issuer {
    role: Role,
    caller: Caller,
    /// The service key that asks, if one does.
    issued_by: Option<String>,
    /// Where what lets the browser in is to go into a cookie.
    mode: Option<CookieMode>,
}

async fn create_once(
    state: &Arc<ServerState>,
    tenant: TenantId,
    issuer: Issuer,
    new: NewSession,
) -> Result<Reply, Problem> {
    let Issuer { role, caller, issued_by, mode } = issuer;
    let claim = mode.as_ref().map(|_| cookie::new_claim()).transpose()?;
    let credential = claim.as_deref().and_then(cookie::digest_of_claim).map_or(Credential::Verified, Credential::Claim);
    let id = match new.id {
        Some(id) => id,
        None => new_id(state)?,
    };
    let key = SessionKey { tenant, session_id: id.into() };
    let create = Create {
        email: new.email,
        customer: new.customer,
        products: new.products,
        coupon_code: new.coupon_code,
        metadata: new.metadata,
        funnel: new.funnel,
        source: new.source,
        ttl_ms: new.ttl_ms,
        claims: None,
    };
    let client_id = nameless()?;
    let mut requests = vec![request(&client_id, Some(1), Command::Create(Box::new(create)))];
    if let Some(NewAdjustments { discount, shipping, tax }) = new.adjustments {
        let adjust = request(&client_id, Some(2), Command::SetAdjustments { discount, shipping, tax });
        requests.push(throughline_core::sync::Request { only_after_previous: true, ..adjust });
    }
    if state.sessions.current(&key).await?.is_some() {
        return Err(taken());
    }
    let version = all_accepted(state.sessions.execute_as(&key, role, credential, &caller, requests).await?.answers)?;
    let created = state.sessions.current(&key).await?.ok_or_else(not_found)?.state;
    let session = visible(&created, role);
    let purpose = Purpose::of_browser(mode.is_some());
    let issued = issue_token(state, purpose, &key, &created, issued_by)?;
    let (token, cookies) =
        TokenAnswer::to(state, mode.as_ref().zip(claim), issued, created.session.expires_at.as_millis());
    let location = format!("/v1/sessions/{}", session.id);
    let body = Created { session, token };
    let reply = Reply::json(StatusCode::CREATED, &body)?.cookies(cookies);
    Ok(reply.version(version).location(location).about(&key.session_id))
}

fn taken() -> Problem {
    Problem::new(StatusCode::CONFLICT, "sessionExists", "Session exists")
        .detail("there is a session with this id already; leave the id out to get a new one")
        .mendable_by("permanent")
}

fn new_id(state: &ServerState) -> Result<SessionId, Problem> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| Problem::internal(&error))?;
    Ok(SessionId::generate(Timestamp::from_millis(state.clock.now_ms()), random))
}
