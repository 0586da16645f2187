//! `/livez`: the process runs. `/readyz`: it can do its work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use crate::mode::Mode;
use crate::problem::chain;
use crate::wiring::ServerState;

/// What has not answered by then counts as down.
const PING_LIMIT: Duration = Duration::from_secs(1);

pub(super) fn routes() -> Router<Arc<ServerState>> {
    Router::new().route("/livez", get(live)).route("/readyz", get(ready))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Readiness {
    status: &'static str,
    mode: &'static str,
    dependencies: Dependencies,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependencies {
    database: Dependency,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<Dependency>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependency {
    status: &'static str,
    latency_ms: u128,
}

async fn live() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "status": "live" }))
}

async fn ready(State(state): State<Arc<ServerState>>) -> Response {
    let redis = async {
        match &state.cache {
            Some(cache) => Some(ask("redis", cache.health()).await),
            None => None,
        }
    };
    let (database, redis) = tokio::join!(ask("database", state.store.ping()), redis);
    let mode = state.mode();
    let has_database = database.status == "up";
    let has_redis = redis.as_ref().is_some_and(|redis| redis.status == "up");
    let is_whole = has_database && (redis.is_none() || has_redis);
    // While draining, load balancers should send the next request elsewhere. Without some of its tiers a server still
    // does what it can, and the others most likely lack the same; without all of them it can accept nothing.
    let (status, code) = match state.draining.is_cancelled() {
        true => ("draining", StatusCode::SERVICE_UNAVAILABLE),
        false if is_whole && mode == Mode::Normal => ("ready", StatusCode::OK),
        false if (has_database || has_redis) && mode.accepts_commands() => ("degraded", StatusCode::OK),
        false => ("notReady", StatusCode::SERVICE_UNAVAILABLE),
    };
    let dependencies = Dependencies { database, redis };
    (code, Json(Readiness { status, mode: mode.as_str(), dependencies })).into_response()
}

async fn ask<T, E: std::error::Error + 'static>(
    dependency: &'static str,
    question: impl Future<Output = Result<T, E>>,
) -> Dependency {
    let started = Instant::now();
    let outcome = tokio::time::timeout(PING_LIMIT, question).await;
    match &outcome {
        Ok(Ok(_)) => {}
        // Its breaker and the change of mode are logged; a line for each probe would drown them.
        Ok(Err(error)) => tracing::debug!(dependency, error = %chain(error), "down"),
        Err(_) => tracing::debug!(dependency, limit_ms = PING_LIMIT.as_millis(), "does not answer"),
    }
    let status = if matches!(outcome, Ok(Ok(_))) { "up" } else { "down" };
    Dependency { status, latency_ms: started.elapsed().as_millis() }
}
