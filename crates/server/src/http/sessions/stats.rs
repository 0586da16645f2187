//! `GET /v1/sessions/stats`: how sessions do.

use std::collections::BTreeMap;
use std::num::ParseIntError;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use throughline_core::{Status, Timestamp};
use utoipa::ToSchema;

use super::list::funnel;
use super::staff;
use crate::http::idempotent::Reply;
use crate::http::problem_schema::{ProblemDetails, StaffProblems};
use crate::http::query::{QueryParameters, refused};
use crate::principal::Principal;
use crate::problem::Problem;
use crate::scope::Scope;
use crate::store::{Group, Summary, SummaryOf};
use crate::wiring::ServerState;

const PARAMETERS: [&str; 3] = ["funnel", "createdAfter", "createdBefore"];

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// The longest time that is summed up at once.
const LONGEST_MS: i64 = 366 * DAY_MS;

/// How the sessions do that were created in some time. Each counts with what it is now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "createdAfter": "2026-11-24T09:00:00.000Z", "createdBefore": "2026-11-25T09:00:00.000Z", "total": 10, "erased": 1,
    "byStatus": { "pending": 2, "processing": 1, "completed": 4, "failed": 0, "expired": 3 },
    "byStep": { "checkout": 5, "success": 5 },
    "byFunnel": [{ "id": "default", "version": 1, "sessions": 10 }],
    "completedAmounts": [{ "currency": "USD", "sessions": 4, "amount": 31600 }],
    "lifetime": { "sessions": 6, "averageMs": 1800000, "medianMs": 600000 },
    "ended": 7, "conversion": 0.5714285714285714, "abandonment": 0.42857142857142855
}))]
pub(crate) struct Statistics {
    /// The time of creation that was asked for: its first moment.
    created_after: Timestamp,
    /// The first moment after it.
    created_before: Timestamp,
    /// All sessions that were created in that time.
    total: u64,
    /// Those of them whose personal data was erased; they count everywhere except in `lifetime`.
    erased: u64,
    /// How many are in which status; all statuses are there.
    #[schema(value_type = BTreeMap<String, u64>)]
    by_status: BTreeMap<&'static str, u64>,
    /// How many are at which step.
    by_step: BTreeMap<String, u64>,
    /// How many run through which version of which funnel.
    by_funnel: Vec<OfFunnel>,
    /// What completed sessions cost together, by currency.
    completed_amounts: Vec<Amount>,
    /// How long sessions lived: from their creation to their completion, or to the end of their time. `null` where none
    /// has ended yet.
    lifetime: Option<LifetimeStatistics>,
    /// Completed, failed and expired sessions together.
    ended: u64,
    /// Completed sessions in proportion to `ended`, 0 to 1; `null` where none has ended yet.
    conversion: Option<f64>,
    /// Sessions that expired, which only unpaid ones do, in proportion to `ended`.
    abandonment: Option<f64>,
}

/// Sessions of one version of a funnel.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OfFunnel {
    /// The funnel.
    id: String,
    /// Its version, as in a session's `funnel`.
    version: u32,
    /// How many.
    sessions: u64,
}

/// An amount in one currency.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Amount {
    /// ISO 4217 code.
    currency: String,
    /// How many sessions.
    sessions: u64,
    /// What they cost together, in minor units.
    amount: i64,
}

/// How long sessions lived.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LifetimeStatistics {
    /// How many have ended.
    sessions: u64,
    /// The average, in milliseconds.
    average_ms: f64,
    /// The median, in milliseconds.
    median_ms: f64,
}

/// Says how the sessions do that were created in some time: of the last 24 hours where nothing is said.
///
/// The database is asked: a `relaxed` change may be missing for up to a second after it was accepted.
#[utoipa::path(
    get, path = "/v1/sessions/stats", tag = "sessions",
    params(
        ("funnel" = Option<String>, Query, description = "Sessions of this funnel only", example = "default"),
        ("createdAfter" = Option<String>, Query, description = "Created at this time or later (RFC 3339); 24 hours before `createdBefore` where missing"),
        ("createdBefore" = Option<String>, Query, description = "Created before this time; now where missing. At most 366 days after `createdAfter`"),
    ),
    responses(
        (status = 200, description = "How they do", body = Statistics),
        StaffProblems,
        (status = 400, description = "A parameter is unknown or wrong", body = ProblemDetails),
        (status = 422, description = "The database would have to look at too much", body = ProblemDetails),
    ),
    security(("serviceKey" = ["sessions:read"])),
)]
pub(crate) async fn stats(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    staff(&principal, Scope::SessionsRead)?;
    let query = QueryParameters::read(query.as_deref(), &PARAMETERS)?;
    // What is created in this very millisecond counts as well.
    let now_ms = state.clock.now_ms().saturating_add(1);
    let created_before_ms = query.moment("createdBefore")?.unwrap_or(now_ms);
    let created_from_ms = query.moment("createdAfter")?.unwrap_or(created_before_ms.saturating_sub(DAY_MS));
    if !(1..=LONGEST_MS).contains(&created_before_ms.saturating_sub(created_from_ms)) {
        let why = "it has to be before `createdBefore` (now, where that is missing), by at most 366 days";
        return Err(refused("createdAfter", why));
    }
    let tenant = principal.tenant().clone();
    let of = SummaryOf { tenant, funnel_id: funnel(&query)?, created_from_ms, created_before_ms };
    let summary = state.sessions.summary(&of).await?;
    let statistics = Statistics::of(&of, summary).map_err(|error| Problem::internal(&error))?;
    Ok(Reply::json(StatusCode::OK, &statistics)?.into_response())
}

impl Statistics {
    /// Fails where the database has a funnel's version that is no number: something else than a server wrote it.
    fn of(of: &SummaryOf, summary: Summary) -> Result<Self, ParseIntError> {
        let Summary { groups, lifetimes } = summary;
        let (mut by_status, mut by_step) = (BTreeMap::new(), BTreeMap::new());
        let (mut by_funnel, mut amounts) = (BTreeMap::new(), BTreeMap::new());
        for status in [Status::Pending, Status::Processing, Status::Completed, Status::Failed, Status::Expired] {
            let is_in = |group: &&Group| group.status == status.as_str();
            by_status.insert(status.as_str(), groups.iter().filter(is_in).map(|group| group.sessions).sum::<u64>());
        }
        for group in &groups {
            *by_step.entry(group.step.clone()).or_default() += group.sessions;
            let funnel = (group.funnel_id.clone(), group.funnel_version.parse::<u32>()?);
            *by_funnel.entry(funnel).or_default() += group.sessions;
            if group.status == Status::Completed.as_str() {
                let (sessions, amount): &mut (u64, i64) = amounts.entry(group.currency.clone()).or_default();
                *sessions += group.sessions;
                *amount = amount.saturating_add(group.amount_minor);
            }
        }
        let count = |status: Status| by_status.get(status.as_str()).copied().unwrap_or_default();
        let ended = count(Status::Completed) + count(Status::Failed) + count(Status::Expired);
        let share = |sessions: u64| (ended > 0).then(|| sessions as f64 / ended as f64);
        Ok(Self {
            created_after: Timestamp::from_millis(of.created_from_ms),
            created_before: Timestamp::from_millis(of.created_before_ms),
            total: groups.iter().map(|group| group.sessions).sum(),
            erased: groups.iter().filter(|group| group.erased).map(|group| group.sessions).sum(),
            conversion: share(count(Status::Completed)),
            abandonment: share(count(Status::Expired)),
            ended,
            by_status,
            by_step,
            by_funnel: by_funnel
                .into_iter()
                .map(|((id, version), sessions)| OfFunnel { id, version, sessions })
                .collect(),
            completed_amounts: amounts
                .into_iter()
                .map(|(currency, (sessions, amount))| Amount { currency, sessions, amount })
                .collect(),
            lifetime: lifetimes.map(|lifetimes| LifetimeStatistics {
                sessions: lifetimes.sessions,
                average_ms: lifetimes.average_ms,
                median_ms: lifetimes.median_ms,
            }),
        })
    }
}
