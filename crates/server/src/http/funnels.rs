//! `/v1/funnels`: funnel definitions. They are no secret: every browser gets them.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use throughline_core::Funnel;
use throughline_core::sync::{FunnelEntry, Funnels as _};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::idempotent::Reply;
use super::problem_schema::ProblemDetails;
use crate::problem::Problem;
use crate::wiring::ServerState;

/// The routes, with their descriptions.
pub fn routes() -> OpenApiRouter<Arc<ServerState>> {
    OpenApiRouter::new().routes(routes!(get))
}

/// A funnel definition.
#[derive(Debug, Serialize, ToSchema)]
struct FunnelAnswer {
    /// The definition.
    funnel: Funnel,
    /// By what clients know whether they have this one.
    hash: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Version {
    /// The version; the newest where missing.
    version: Option<u32>,
}

/// The funnel's steps, offers and catalogue.
#[utoipa::path(
    get, path = "/v1/funnels/{id}", tag = "funnels",
    params(("id" = String, Path, description = "The funnel's id, such as `default`"), Version),
    responses(
        (status = 200, description = "The definition", body = FunnelAnswer),
        (status = 400, description = "The query can't be read", body = ProblemDetails),
        (status = 404, description = "There is no such funnel", body = ProblemDetails),
    ),
)]
async fn get(
    State(state): State<Arc<ServerState>>,
    Path(id): Path<String>,
    Query(Version { version }): Query<Version>,
) -> Result<Response, Problem> {
    let Some(FunnelEntry { funnel, hash }) = state.funnels.find(&id, version) else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "funnelNotFound", "Funnel not found")
            .detail("there is no funnel with this id and version; the operator loads them with --funnels")
            .mendable_by("permanent"));
    };
    let answer = FunnelAnswer { funnel: funnel.clone(), hash: hash.to_owned() };
    Ok(Reply::json(StatusCode::OK, &answer)?.into_response())
}
