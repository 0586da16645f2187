//! `/v1/sync`: the socket. `PROTOCOL.md` says what goes over it.

mod conversation;
mod end;
mod incoming;
mod socket;

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::{Extension, extract::rejection::ExtensionRejection};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::ClientAddress;
use super::problem_schema::ProblemDetails;
use crate::problem::Problem;
use crate::serve::OpenConnection;
use crate::wiring::ServerState;
use socket::Socket;

/// The subprotocol that a client has to ask for.
pub const SUBPROTOCOL: &str = "throughline.v1";

/// The largest message, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// The route, with its description.
pub fn routes() -> OpenApiRouter<Arc<ServerState>> {
    OpenApiRouter::new().routes(routes!(upgrade))
}

/// Opens the socket (subprotocol `throughline.v1`). The credential goes into its first frame, never into the address.
#[utoipa::path(
    get, path = "/v1/sync", tag = "sync",
    responses(
        (status = 101, description = "The socket is open; the first frame is `hello`"),
        (status = 400, description = "Not an upgrade to a WebSocket with this subprotocol", body = ProblemDetails),
        (status = 403, description = "Pages of this origin may not talk to this server", body = ProblemDetails),
        (status = 426, description = "Not an upgrade", body = ProblemDetails),
    ),
)]
async fn upgrade(
    State(state): State<Arc<ServerState>>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    connection: Result<Extension<OpenConnection>, ExtensionRejection>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Problem> {
    state.config.allowed_origins.judge(&headers)?;
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    if !offered.any(|name| name.trim() == SUBPROTOCOL) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "subprotocolMissing", "Subprotocol missing")
            .detail(format!("ask for the WebSocket subprotocol `{SUBPROTOCOL}`"))
            .mendable_by("permanent"));
    }
    // Keeps the connection counted for as long as the socket lives.
    let counted = connection.ok();
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        // Each socket has both, also an idle one: what is larger passes in several reads or writes.
        .read_buffer_size(4 * 1024)
        .write_buffer_size(4 * 1024)
        .max_write_buffer_size(1024 * 1024);
    Ok(upgrade.on_upgrade(move |socket| {
        let tasks = state.tasks.clone();
        tasks.track_future(async move {
            let _counted = counted;
            metrics::gauge!("throughline_sockets").increment(1.0);
            Socket::new(Arc::clone(&state), socket).hold(address).await;
            metrics::gauge!("throughline_sockets").decrement(1.0);
        })
    }))
}
