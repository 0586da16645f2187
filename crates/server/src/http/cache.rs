//! `/v1/cache`: the tiers above the database, as this server has them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::JsonBody;
use super::idempotent::Reply;
use super::problem_schema::{BodyProblems, ProblemDetails, StaffProblems};
use super::sessions::batch::{check_count, for_each};
use super::sessions::{Target, staff};
use crate::principal::Principal;
use crate::problem::Problem;
use crate::scope::Scope;
use crate::sessions::SessionError;
use crate::store::SessionKey;
use crate::wiring::ServerState;

/// How many ids one request names at most.
const MAX_IDS: usize = 500;

/// The routes, with their descriptions.
pub fn routes() -> OpenApiRouter<Arc<ServerState>> {
    OpenApiRouter::new().routes(routes!(statistics)).routes(routes!(invalidate)).routes(routes!(warm))
}

/// The tiers, as the server that answers has them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "mode": "normal", "database": { "available": true }, "redis": { "available": true }, "backlogCommands": 0,
    "memory": { "sessions": 120, "keptSessions": 100, "keptBytes": 1204224, "limitBytes": 268435456,
        "hits": 9900, "misses": 100, "hitRatio": 0.99 }
}))]
pub(crate) struct CacheStatistics {
    /// Which tiers there are: `normal`, `withoutRedis`, `withoutDatabase`, `memoryOnly`.
    mode: &'static str,
    /// The memory of this server. Another one has its own.
    memory: Memory,
    /// The database.
    database: Tier,
    /// The shared tier; missing where none is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<Tier>,
    /// Commands that this server has accepted and the database does not have yet.
    backlog_commands: usize,
}

/// A tier below the memory.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tier {
    /// Whether it is asked; it is not while it does not answer.
    available: bool,
}

/// The memory tier.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Memory {
    /// Sessions in memory, those in use included.
    sessions: usize,
    /// Those that are kept for whoever comes next.
    kept_sessions: u64,
    /// About how many bytes the latter take.
    kept_bytes: u64,
    /// How many bytes they may take (`--session-memory`).
    limit_bytes: u64,
    /// How often a session was wanted and was in memory as it is now, since the start.
    hits: u64,
    /// How often it was not.
    misses: u64,
    /// Hits in proportion to all; `null` before the first.
    hit_ratio: Option<f64>,
}

/// Which sessions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "ids": ["ws_m3k2x_9f2c"] }))]
pub(crate) struct CacheIds {
    /// 1 to 500 ids.
    #[schema(min_items = 1, max_items = 500)]
    ids: Vec<String>,
}

/// What became of the sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CacheOutcomes {
    /// One for each id, in their order.
    results: Vec<CacheOutcome>,
}

/// What became of a session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "camelCase")]
pub(crate) enum CacheOutcome {
    /// It was done.
    Done {
        /// The id that was asked for.
        id: String,
    },
    /// There is no session with this id; nothing is left of it in these tiers.
    NotFound {
        /// The id that was asked for.
        id: String,
    },
    /// It could not be done just now; the others are not affected.
    Failed {
        /// The id that was asked for.
        id: String,
        /// Why.
        #[schema(value_type = ProblemDetails)]
        problem: serde_json::Value,
    },
}

/// How the tiers of the server that answers do.
#[utoipa::path(
    get, path = "/v1/cache", tag = "cache",
    responses((status = 200, description = "How they do", body = CacheStatistics), StaffProblems),
    security(("serviceKey" = ["operator"])),
)]
pub(crate) async fn statistics(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
) -> Result<Response, Problem> {
    staff(&principal, Scope::Operator)?;
    let memory = state.sessions.statistics();
    let uses = memory.hits + memory.misses;
    let statistics = CacheStatistics {
        mode: state.mode().as_str(),
        memory: Memory {
            sessions: memory.sessions,
            kept_sessions: memory.kept,
            kept_bytes: memory.kept_bytes,
            limit_bytes: state.config.sessions.memory_bytes,
            hits: memory.hits,
            misses: memory.misses,
            hit_ratio: (uses > 0).then(|| memory.hits as f64 / uses as f64),
        },
        database: Tier { available: !state.database.is_away() },
        redis: state.cache.as_ref().map(|cache| Tier { available: cache.is_available() }),
        backlog_commands: memory.backlog,
    };
    Ok(Reply::json(StatusCode::OK, &statistics)?.into_response())
}

/// Drops sessions from this server's memory and writes them to Redis anew, as the database has them.
///
/// Nothing that was accepted is lost. For copies that are suspected to be wrong, or after the database was changed by
/// hand; other servers read such sessions again when Redis tells them.
#[utoipa::path(
    post, path = "/v1/cache/invalidate", tag = "cache", request_body = CacheIds,
    responses(
        (status = 200, description = "What became of each, in their order", body = CacheOutcomes,
            example = json!({ "results": [{ "outcome": "done", "id": "ws_m3k2x_9f2c" }] })),
        StaffProblems,
        BodyProblems,
    ),
    security(("serviceKey" = ["operator"])),
)]
pub(crate) async fn invalidate(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    JsonBody(CacheIds { ids }): JsonBody<CacheIds>,
) -> Result<Response, Problem> {
    outcomes(&principal, ids, async |key| state.sessions.invalidate(&key).await).await
}

/// Reads sessions into this server's memory, and into Redis, before somebody asks for them.
#[utoipa::path(
    post, path = "/v1/cache/warm", tag = "cache", request_body = CacheIds,
    responses(
        (status = 200, description = "What became of each, in their order", body = CacheOutcomes,
            example = json!({ "results": [{ "outcome": "done", "id": "ws_m3k2x_9f2c" }] })),
        StaffProblems,
        BodyProblems,
    ),
    security(("serviceKey" = ["operator"])),
)]
pub(crate) async fn warm(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    JsonBody(CacheIds { ids }): JsonBody<CacheIds>,
) -> Result<Response, Problem> {
    outcomes(&principal, ids, async |key| state.sessions.warm(&key).await).await
}

async fn outcomes<F: Future<Output = Result<bool, SessionError>>>(
    principal: &Principal,
    ids: Vec<String>,
    work: impl Fn(SessionKey) -> F,
) -> Result<Response, Problem> {
    staff(principal, Scope::Operator)?;
    check_count("ids", ids.len(), MAX_IDS)?;
    let results = for_each(ids, async |id| {
        let Ok(target) = Target::of(principal, &id, Scope::Operator) else { return CacheOutcome::NotFound { id } };
        match work(target.key).await {
            Ok(true) => CacheOutcome::Done { id },
            Ok(false) => CacheOutcome::NotFound { id },
            Err(error) => CacheOutcome::Failed { id, problem: Problem::from(error).document() },
        }
    });
    Ok(Reply::json(StatusCode::OK, &CacheOutcomes { results: results.await })?.into_response())
}
