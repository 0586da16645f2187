//! What the outside sees: routes, and the layers around all of them.

mod assets;
pub mod body;
pub mod cache;
pub mod cookie;
mod description;
pub mod events;
pub mod extract;
pub mod failures;
pub mod funnels;
pub mod health;
pub mod idempotent;
pub mod layers;
pub mod metrics;
pub mod origin;
pub mod privacy;
pub mod problem_page;
pub mod problem_schema;
pub mod query;
pub mod reference;
pub mod refusal;
mod request_body;
pub mod request_id;
pub mod request_measures;
pub mod route_migration;
pub mod service_keys;
pub mod sessions;
pub mod sync;
mod waiting;
pub mod webhooks;

use std::sync::Arc;

use axum::Router;

use crate::wiring::ServerState;

/// All routes with all layers.
///
/// `features` are the routers of the features; each owns its paths and handlers.
pub fn app(state: &Arc<ServerState>, features: Router<Arc<ServerState>>) -> Router {
    let routes = Router::new()
        .merge(health::routes())
        .merge(metrics::routes())
        .merge(assets::routes(state.config.dev))
        .merge(features)
        .fallback(layers::not_found)
        .with_state(Arc::clone(state));
    layers::around(routes, state)
}

#[cfg(test)]
mod tests;
