//! `/metrics` for Prometheus. Metrics hold no personal data, yet they tell a competitor how
//! a shop is doing, so by default they are for service keys with the scope `sessions:read`, as statistics are.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::principal::Role;
use crate::problem::Problem;
use crate::scope::Scope;
use crate::wiring::ServerState;

pub(super) fn routes() -> Router<Arc<ServerState>> {
    Router::new().route("/metrics", get(scrape))
}

async fn scrape(State(state): State<Arc<ServerState>>, headers: HeaderMap) -> Result<Response, Problem> {
    if !state.config.open_metrics {
        let principal = state.authenticator.authenticate(&headers, state.clock.now_ms())?;
        if let Role::Browser { .. } = principal.role {
            return Err(Problem::of_status(StatusCode::FORBIDDEN));
        }
        principal.require(Scope::SessionsRead)?;
    }
    let text = state.metrics.render();
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
