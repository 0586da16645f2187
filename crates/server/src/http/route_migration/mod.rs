//! `/v1/routes` and `/v1/parity`: a shop that moves here route by route, which side answers on each, and how far both agree.

mod harmless;
mod page;

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use serde::{Deserialize, Serialize};
use throughline_core::Timestamp;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::harmless::{harm_in, kept, session_id};
use super::body::{JsonBody, invalid};
use super::extract::wants_page;
use super::idempotent::Reply;
use super::problem_schema::{BodyProblems, StaffProblems};
use super::query::{QueryParameters, refused};
use super::sessions::staff;
use crate::audit::{AuditEntry, AuditRecord};
use crate::principal::Principal;
use crate::problem::Problem;
use crate::scope::Scope;
use crate::store::{Comparison, Difference, FieldParity, ModeOfRoute, ParityCounts, RouteMode, RouteParity};
use crate::wiring::ServerState;

/// How long the name of a route or field may be, in characters.
const MAX_NAME_CHARS: usize = 100;

/// How many routes, and how many differences of all of them, one request tells of.
const MAX_ROUTES: usize = 100;
const MAX_DIFFERENCES: usize = 200;

/// The routes, with their descriptions.
pub fn routes() -> OpenApiRouter<Arc<ServerState>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(set)).routes(routes!(report, parity, forget))
}

/// Which side answers on a route.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteEntry {
    /// The route, as the shop calls it.
    route: String,
    /// How it works.
    mode: RouteMode,
    /// Since when.
    changed_at: Timestamp,
}

/// All routes whose mode was ever set.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RouteList {
    /// In the order of their names. A route that is not among them is `off`.
    routes: Vec<RouteEntry>,
}

/// The mode that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WantedMode {
    /// How the route is to work.
    mode: RouteMode,
}

/// What a back end has found since it last told.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ParityReport {
    /// 1 to 100 routes.
    #[schema(min_items = 1, max_items = 100)]
    routes: Vec<RouteReport>,
}

/// What was found on one route.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RouteReport {
    /// The route.
    route: String,
    /// How often both sides gave the same.
    #[serde(default)]
    equal: u32,
    /// How often they did not.
    #[serde(default)]
    different: u32,
    /// How often the legacy side failed, and the other did not.
    #[serde(default)]
    legacy_failed: u32,
    /// How often the unified side failed, and the other did not.
    #[serde(default)]
    unified_failed: u32,
    /// The fields that differed, each time; at most 200 in all routes.
    #[serde(default)]
    differences: Vec<ReportedDifference>,
}

/// One field in which the sides differed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ReportedDifference {
    /// The field.
    field: String,
    /// What the legacy side said, with personal data masked.
    legacy: String,
    /// What the unified side said, masked.
    unified: String,
    /// The session.
    session_id: Option<String>,
    /// When.
    at: Timestamp,
}

/// How far both sides agree.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParityDocument {
    /// When it was asked for.
    as_of: Timestamp,
    /// The routes, by their names. Some hundred are counted one by one, what is beyond them as `(others)`.
    routes: Vec<ParityOfRoute>,
}

/// How far both sides agree on a route.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParityOfRoute {
    /// The route.
    route: String,
    /// How it works now.
    mode: RouteMode,
    /// Since when it is counted; missing where nothing was told yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// How often both sides gave the same.
    equal: u64,
    /// How often they did not.
    different: u64,
    /// How often the legacy side failed, and the other did not.
    legacy_failed: u64,
    /// How often the unified side failed, and the other did not.
    unified_failed: u64,
    /// The fields that differed, the most frequent first. Some hundred are counted one by one, what is beyond them as `(others)`.
    fields: Vec<ParityOfField>,
}

/// How often a field differed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParityOfField {
    /// The field.
    field: String,
    /// How often.
    times: u64,
    /// When first.
    first_at: Timestamp,
    /// When last.
    last_at: Timestamp,
    /// The latest 20, the last first.
    examples: Vec<ParityExample>,
}

/// One difference.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParityExample {
    /// When.
    at: Timestamp,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    /// What the legacy side said, masked.
    legacy: String,
    /// What the unified side said, masked.
    unified: String,
}

/// Says how each route works. Back ends ask every few seconds; a change is theirs by then.
#[utoipa::path(
    get, path = "/v1/routes", tag = "route migration",
    responses((status = 200, description = "All whose mode was ever set", body = RouteList), StaffProblems),
    security(("serviceKey" = ["sessions:read"])),
)]
pub(crate) async fn list(State(state): State<Arc<ServerState>>, principal: Principal) -> Result<Response, Problem> {
    staff(&principal, Scope::SessionsRead)?;
    let modes = state.store.route_modes(principal.tenant()).await?;
    let routes = modes.into_iter().map(|ModeOfRoute { route, mode, changed_at_ms }| RouteEntry {
        route,
        mode,
        changed_at: Timestamp::from_millis(changed_at_ms),
    });
    Ok(Reply::json(StatusCode::OK, &RouteList { routes: routes.collect() })?.into_response())
}

/// Sets how a route works: `off`, `shadow`, `compare`, `on` or `only`. The audit log tells of it. The same again changes nothing.
#[utoipa::path(
    put, path = "/v1/routes/{route}", tag = "route migration", request_body = WantedMode,
    params(("route" = String, Path, description = "The route, as the shop calls it: 1 to 100 characters")),
    responses((status = 204, description = "It works so"), StaffProblems, BodyProblems),
    security(("serviceKey" = ["operator"])),
)]
pub(crate) async fn set(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    Path(route): Path<String>,
    JsonBody(WantedMode { mode }): JsonBody<WantedMode>,
) -> Result<Response, Problem> {
    staff(&principal, Scope::Operator)?;
    check_name("route", &route)?;
    let now_ms = state.clock.now_ms();
    let entry = AuditEntry {
        subject: Some(format!("{route}: {mode}")),
        ..AuditEntry::done(principal.tenant().clone(), "routeModeSet", now_ms)
    };
    let entry = entry.by("operator", principal.caller());
    let audit = AuditRecord::new(&entry, &state.keys, now_ms).map_err(|error| Problem::internal(&error))?;
    let wanted = ModeOfRoute { route, mode, changed_at_ms: now_ms };
    state.store.set_route_mode(principal.tenant(), &wanted, audit).await?;
    tracing::info!(route = wanted.route, mode = mode.as_str(), "the mode of a route was set");
    Ok(Reply::empty().into_response())
}

/// Takes what a back end has found by comparing both sides. Values are masked by the back end. Email addresses, long numbers and
/// tokens are replaced here as well; a route or field with one is refused, and what is no id of a session is left out.
#[utoipa::path(
    post, path = "/v1/parity", tag = "route migration", request_body = ParityReport,
    responses((status = 204, description = "It is counted"), StaffProblems, BodyProblems),
    security(("serviceKey" = ["sessions:write"])),
)]
pub(crate) async fn report(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    JsonBody(ParityReport { routes }): JsonBody<ParityReport>,
) -> Result<Response, Problem> {
    staff(&principal, Scope::SessionsWrite)?;
    if !(1..=MAX_ROUTES).contains(&routes.len()) {
        return Err(invalid("routes", &format!("it holds {}; send 1 to {MAX_ROUTES}", routes.len())));
    }
    let differences: usize = routes.iter().map(|route| route.differences.len()).sum();
    if differences > MAX_DIFFERENCES {
        return Err(invalid(
            "routes",
            &format!("{differences} differences are too many; send at most {MAX_DIFFERENCES} at once"),
        ));
    }
    let at_ms = state.clock.now_ms();
    let mut comparisons = Vec::with_capacity(routes.len());
    for route in routes {
        check_name("route", &route.route)?;
        let differences = route.differences.into_iter().map(|difference| {
            check_name("field", &difference.field)?;
            Ok(Difference {
                legacy: kept(&difference.field, &difference.legacy),
                unified: kept(&difference.field, &difference.unified),
                session_id: difference.session_id.and_then(session_id),
                at_ms: difference.at.as_millis().min(at_ms),
                field: difference.field,
            })
        });
        let differences = differences.collect::<Result<_, Problem>>()?;
        let counts = ParityCounts {
            equal: route.equal.into(),
            different: route.different.into(),
            legacy_failed: route.legacy_failed.into(),
            unified_failed: route.unified_failed.into(),
        };
        comparisons.push(Comparison {
            tenant: principal.tenant().clone(),
            route: route.route,
            counts,
            differences,
            at_ms,
        });
    }
    for comparison in &comparisons {
        state.store.add_comparison(comparison).await?;
    }
    Ok(Reply::empty().into_response())
}

/// Says how far both sides agree, on each route and field: as JSON, or as a page where `Accept` asks for `text/html`.
#[utoipa::path(
    get, path = "/v1/parity", tag = "route migration",
    responses(
        (status = 200, description = "What was counted", content(
            (ParityDocument = "application/json"), (String = "text/html"),
        )),
        StaffProblems,
    ),
    security(("serviceKey" = ["operator"])),
)]
pub(crate) async fn parity(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    staff(&principal, Scope::Operator)?;
    let modes = state.store.route_modes(principal.tenant()).await?;
    let counted = state.store.route_parity(principal.tenant()).await?;
    let as_of = Timestamp::from_millis(state.clock.now_ms());
    let document = ParityDocument { as_of, routes: together(modes, counted) };
    if wants_page(&headers) {
        let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
        return Ok(([(CONTENT_SECURITY_POLICY, policy)], Html(page::document(&document))).into_response());
    }
    Ok(Reply::json(StatusCode::OK, &document)?.into_response())
}

/// Begins counting again: of one route, or of all.
#[utoipa::path(
    delete, path = "/v1/parity", tag = "route migration",
    params(("route" = Option<String>, Query, description = "The route; all where missing")),
    responses((status = 204, description = "It is forgotten"), StaffProblems),
    security(("serviceKey" = ["operator"])),
)]
pub(crate) async fn forget(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    staff(&principal, Scope::Operator)?;
    let query = QueryParameters::read(query.as_deref(), &["route"])?;
    let route = query.text("route")?;
    if route == Some("") {
        return Err(refused("route", "it names no route; leave it out to begin again with all"));
    }
    state.store.forget_parity(principal.tenant(), route).await?;
    Ok(Reply::empty().into_response())
}

fn check_name(path: &str, name: &str) -> Result<(), Problem> {
    let chars = name.chars().count();
    if !(1..=MAX_NAME_CHARS).contains(&chars) || name.chars().any(char::is_control) {
        let reason = format!("a name has 1 to {MAX_NAME_CHARS} characters, none of them a control character");
        return Err(invalid(path, &reason));
    }
    match harm_in(name) {
        None => Ok(()),
        Some(harm) => Err(invalid(path, &format!("a name is the same for all buyers, and this one has {harm} in it"))),
    }
}

/// Every route that has a mode or was counted.
fn together(modes: Vec<ModeOfRoute>, counted: Vec<RouteParity>) -> Vec<ParityOfRoute> {
    let mode_of = |route: &str| modes.iter().find(|mode| mode.route == route).map_or(RouteMode::Off, |mode| mode.mode);
    let mut routes: Vec<ParityOfRoute> = counted
        .into_iter()
        .map(|RouteParity { route, since_ms, counts, fields }| ParityOfRoute {
            mode: mode_of(&route),
            route,
            since: Some(Timestamp::from_millis(since_ms)),
            equal: counts.equal,
            different: counts.different,
            legacy_failed: counts.legacy_failed,
            unified_failed: counts.unified_failed,
            fields: fields.into_iter().map(ParityOfField::from).collect(),
        })
        .collect();
    for ModeOfRoute { route, mode, .. } in &modes {
        if routes.iter().all(|known| known.route != *route) {
            let (route, mode, fields) = (route.clone(), *mode, Vec::new());
            let (equal, different, legacy_failed, unified_failed) = (0, 0, 0, 0);
            routes.push(ParityOfRoute {
                route,
                mode,
                since: None,
                equal,
                different,
                legacy_failed,
                unified_failed,
                fields,
            });
        }
    }
    routes.sort_by(|one, other| one.route.cmp(&other.route));
    routes
}

impl From<FieldParity> for ParityOfField {
    fn from(FieldParity { field, times, first_at_ms, last_at_ms, examples }: FieldParity) -> Self {
        let examples = examples.into_iter().map(|Difference { legacy, unified, session_id, at_ms, .. }| {
            ParityExample { at: Timestamp::from_millis(at_ms), session_id, legacy, unified }
        });
        Self {
            field,
            times,
            first_at: Timestamp::from_millis(first_at_ms),
            last_at: Timestamp::from_millis(last_at_ms),
            examples: examples.collect(),
        }
    }
}
