//! `/v1/sync`: sessions and their clients, in step. `PROTOCOL.md` says what goes over it. A GET opens a socket; where the
//! network lets none through, the same frames go in the bodies of POST requests and their answers.

mod conversation;
mod end;
mod incoming;
mod poll;
mod socket;

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::HttpBody as _;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json, extract::rejection::ExtensionRejection};
use throughline_core::sync::ServerFrame;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::JsonBody;
use super::cookie::{self, CookieMode};
use super::extract::ClientAddress;
use super::problem_schema::{BodyProblems, ProblemDetails};
use super::waiting::Held;
use crate::problem::Problem;
use crate::serve::OpenConnection;
use crate::tenant::TenantId;
use crate::wiring::ServerState;
pub use conversation::{COMMANDS_AT_ONCE, COMMANDS_PER_SECOND};
pub use incoming::Incoming;
use poll::{Poll, PollAnswer};
use socket::Socket;

/// Where it all is.
pub const PATH: &str = "/v1/sync";

/// The subprotocol that a client has to ask for.
pub const SUBPROTOCOL: &str = "throughline.v1";

/// What it asks for beside that where its credential is in a cookie: sockets have no headers that a page could set.
pub const COOKIE_SUBPROTOCOL: &str = "throughline.cookie";

/// Reads a frame of a client, as the socket does; `depth` arrays and objects may lie in each other.
///
/// # Errors
/// The frame with which the conversation ends.
pub fn read_frame(text: &str, depth: usize) -> Result<Incoming, ServerFrame> {
    incoming::read_frame(text, depth).map_err(ServerFrame::from)
}

/// From where a client comes.
struct Comer {
    address: IpAddr,
    /// Whose sessions the page creates, where no credential says whose it is about.
    tenant: TenantId,
    /// Its cookies, where it asks for them to count.
    cookies: Option<CookieMode>,
}

/// The route, with its description.
pub fn routes() -> OpenApiRouter<Arc<ServerState>> {
    OpenApiRouter::new().routes(routes!(upgrade, poll))
}

/// Opens the socket (subprotocol `throughline.v1`). The credential goes into its first frame, never into the address; or it is
/// in the session's cookie, where the subprotocol `throughline.cookie` is offered as well.
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
    let tenant = state.config.allowed_origins.judge(&headers)?;
    let offers = |wanted| {
        let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
        let mut offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        offered.any(|name| name.trim() == wanted)
    };
    if !offers(SUBPROTOCOL) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "subprotocolMissing", "Subprotocol missing")
            .detail(format!("ask for the WebSocket subprotocol `{SUBPROTOCOL}`"))
            .mendable_by("permanent"));
    }
    let origins = &state.config.allowed_origins;
    let cookies = offers(COOKIE_SUBPROTOCOL).then(|| CookieMode::judge(&headers, origins)).transpose();
    let comer = Comer { address, tenant, cookies: cookies.map_err(cookie::refused)? };
    // Keeps the connection counted for as long as the socket lives.
    let counted = connection.ok();
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(state.config.frame_limit)
        .max_frame_size(state.config.frame_limit)
        // Each socket has both, also an idle one: what is larger passes in several reads or writes.
        .read_buffer_size(4 * 1024)
        .write_buffer_size(4 * 1024)
        .max_write_buffer_size(1024 * 1024);
    Ok(upgrade.on_upgrade(move |socket| {
        let tasks = state.tasks.clone();
        tasks.track_future(async move {
            let _counted = counted;
            metrics::gauge!("throughline_sockets").increment(1.0);
            Socket::new(Arc::clone(&state), socket).hold(comer).await;
            metrics::gauge!("throughline_sockets").decrement(1.0);
        })
    }))
}

/// The same frames in requests, for networks that let no WebSocket through. The first frame is always `hello`, with the
/// credential; nothing is kept from one request to the next.
///
/// It is answered as soon as all commands are answered and anything is told beside the welcome. Where there is nothing
/// to tell, the answer waits until something happens, or `waitMs` is over. What is wrong with the conversation is told
/// by an `error` frame, the last one, with the status 200; a problem tells what is wrong with the request.
#[utoipa::path(
    post, path = "/v1/sync", tag = "sync",
    request_body = Poll,
    params(("Throughline-Credentials" = Option<String>, Header, description = "`cookie`: the credential is in the session's cookie")),
    responses(
        (status = 200, description = "What the server has to say", body = PollAnswer),
        (status = 403, description = "Pages of this origin may not talk to this server", body = ProblemDetails),
        (status = 503, description = "Too much is under way; nothing was begun", body = ProblemDetails),
        BodyProblems,
    ),
)]
async fn poll(
    State(state): State<Arc<ServerState>>,
    ClientAddress(address): ClientAddress,
    request: Request,
) -> Result<Response, Problem> {
    let tenant = state.config.allowed_origins.judge(request.headers())?;
    // All of it is here, see `request_body.rs`. A frame is no larger than on a socket, whatever other bodies may be.
    if request.body().size_hint().lower() > state.config.frame_limit as u64 {
        return Err(Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE));
    }
    let cookies = CookieMode::of(request.headers(), &state.config.allowed_origins).map_err(cookie::refused)?;
    let held = request.extensions().get::<Held>().cloned();
    let JsonBody(poll) = JsonBody::from_request(request, &state).await?;
    let (answer, waited) = poll::answer(&state, Comer { address, tenant, cookies }, poll, held).await;
    let mut response = Json(answer).into_response();
    response.extensions_mut().insert(waited);
    Ok(response)
}
