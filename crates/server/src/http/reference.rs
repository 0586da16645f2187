//! The API's description: `/openapi.json`, and a browsable reference at `/docs`.

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::middleware::map_response;
use axum::response::Response;
use serde_json::Value;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi as _};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use super::{
    cache, description, events, funnels, privacy, problem_page, route_migration, service_keys, sessions, sync, webhooks,
};
use crate::wiring::ServerState;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Throughline",
        description = "Checkout sessions that hold from browser to database: one session, one state machine.",
        license(name = "MIT OR Apache-2.0")
    ),
    tags(
        (name = "sessions", description = "Sessions over REST"),
        (name = "sync", description = "The socket, and requests instead of it; the frames are described in PROTOCOL.md"),
        (name = "events", description = "What happens to sessions, as a stream and in pages"),
        (name = "webhooks", description = "Addresses that are told what happens, by the Standard Webhooks specification"),
        (name = "service keys", description = "Keys of back ends and operators: made, listed, revoked"),
        (name = "cache", description = "The tiers above the database"),
        (name = "funnels", description = "Funnel definitions"),
    ),
    modifiers(&Credentials),
)]
struct Description;

struct Credentials;

impl Modify for Credentials {
    fn modify(&self, description: &mut OpenApi) {
        let components = description.components.get_or_insert_default();
        for (name, what) in [
            (
                "serviceKey",
                "A service key. What a route lists are the scopes that it needs; `scopeMissing` names one that is missing.",
            ),
            ("sessionToken", "A session's token: for that session alone."),
        ] {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(what)).build();
            components.add_security_scheme(name, SecurityScheme::Http(scheme));
        }
    }
}

/// Every feature's routes, and the description that is made from them.
pub fn described() -> (Router<Arc<ServerState>>, Value) {
    let (routes, described) = OpenApiRouter::with_openapi(Description::openapi())
        .merge(sessions::routes())
        .merge(sync::routes())
        .merge(funnels::routes())
        .merge(cache::routes())
        .merge(events::routes())
        .merge(webhooks::routes())
        .merge(service_keys::routes())
        .merge(privacy::routes())
        .merge(route_migration::routes())
        .split_for_parts();
    (routes, description::completed(described))
}

/// The description as a document.
pub fn document() -> String {
    let (_, description) = described();
    // One member in each line, so that a change of the API shows as what it is.
    format!("{description:#}\n")
}

/// `/openapi.json`, `/docs` and `/docs/problems`.
pub fn routes(description: Value) -> Router<Arc<ServerState>> {
    let pages: Router<Arc<ServerState>> =
        SwaggerUi::new("/docs").external_url_unchecked("/openapi.json", description).into();
    pages.layer(map_response(allow_own_page)).merge(problem_page::routes())
}

/// The reference is a page of this server's own files; its styles are partly inline.
async fn allow_own_page(mut response: Response) -> Response {
    response.headers_mut().insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
             connect-src 'self'; frame-ancestors 'none'",
        ),
    );
    response
}
