//! `/livez`: the process runs. `/readyz`: it can do its work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use crate::problem::chain;
use crate::wiring::ServerState;

/// A database that has not answered by then counts as down.
const PING_LIMIT: Duration = Duration::from_secs(1);

pub(super) fn routes() -> Router<Arc<ServerState>> {
    Router::new().route("/livez", get(live)).route("/readyz", get(ready))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Readiness {
    status: &'static str,
    dependencies: Dependencies,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependencies {
    database: Dependency,
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
    let started = Instant::now();
    let up = match tokio::time::timeout(PING_LIMIT, state.store.ping()).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(error = %chain(&error), "the database is down");
            false
        }
        Err(_) => {
            tracing::warn!(limit_ms = PING_LIMIT.as_millis(), "the database does not answer");
            false
        }
    };
    let database = Dependency { status: if up { "up" } else { "down" }, latency_ms: started.elapsed().as_millis() };
    // While draining, load balancers should send the next request elsewhere.
    let status = match (state.shutdown.is_cancelled(), up) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "notReady",
    };
    let code = if status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Readiness { status, dependencies: Dependencies { database } })).into_response()
}
