//! What surrounds every route, from the outside in: request id, log line and metrics, security
//! headers, CORS, panics and bare statuses turned into problems, time limit, body limit.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH,
    LOCATION, REFERRER_POLICY, RETRY_AFTER, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument as _;

use super::request_id;
use crate::problem::{self, Problem};
use crate::wiring::ServerState;

/// How long a browser may remember the answer to a preflight request.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

/// A request that takes longer has a line in the log.
const SLOW: Duration = Duration::from_secs(1);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Puts all layers around `routes`. The last one added is the outermost.
pub fn around(routes: Router, state: &Arc<ServerState>) -> Router {
    routes
        .layer(DefaultBodyLimit::max(state.config.body_limit))
        .layer(from_fn_with_state(state.config.request_timeout, limit_time))
        .layer(from_fn_with_state(Arc::new(Semaphore::new(state.config.max_requests)), admit))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(explain_bare_status))
        .layer(cors(state))
        .layer(from_fn_with_state(Arc::clone(state), secure))
        .layer(from_fn(observe))
        .layer(from_fn(request_id::assign))
}

/// Answers what no route matched.
pub async fn not_found() -> Problem {
    Problem::of_status(StatusCode::NOT_FOUND)
}

fn cors(state: &ServerState) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(state.config.allowed_origins.values()))
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH, IDEMPOTENCY_KEY, request_id::HEADER])
        .expose_headers([ETAG, LOCATION, RETRY_AFTER, IDEMPOTENT_REPLAYED, request_id::HEADER])
        .max_age(PREFLIGHT_MAX_AGE)
}

/// Ends a request that takes too long. The work that it had handed to the store goes on: its
/// outcome is unknown to this client, which may safely ask again with the same key.
async fn limit_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "requestTimedOut", "Request timed out")
            .detail(format!(
                "the request was not finished within {} s; a retry with the same idempotency key or command number is safe",
                limit.as_secs_f32()
            ))
            .retry_after(Duration::from_secs(1))
            .mendable_by("retry")
            .into_response(),
    }
}

/// Lets in as many requests at a time as can be answered in time. The others are told at once to come back, which costs
/// little: were they to wait, all would be answered too late. The operator's own routes are always let in.
async fn admit(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let is_operators = matches!(request.uri().path(), "/livez" | "/readyz" | "/metrics");
    let _place = match places.try_acquire() {
        Ok(place) => Some(place),
        Err(_) if is_operators => None,
        Err(_) => {
            metrics::counter!("throughline_http_requests_shed_total").increment(1);
            return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Overloaded")
                .detail("more requests are under way than can be answered in time; this one was not begun, try again")
                .retry_after(Duration::from_secs(1))
                .mendable_by("retry")
                .into_response();
        }
    };
    next.run(request).await
}

fn panicked(_payload: Box<dyn Any + Send + 'static>) -> Response {
    // The panic hook has logged where it happened; its message may hold a customer's data.
    metrics::counter!("throughline_panics_total").increment(1);
    Problem::unexplained().into_response()
}

/// Turns an error answer that is not a problem, such as the router's own 405, into one.
async fn explain_bare_status(request: Request, next: Next) -> Response {
    let head = request.method() == Method::HEAD;
    let response = next.run(request).await;
    let status = response.status();
    let failed = status.is_client_error() || status.is_server_error();
    let is_problem = response.headers().get(CONTENT_TYPE).is_some_and(|value| value == problem::MEDIA_TYPE);
    // `/readyz` answers 503 with a document of its own.
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|value| value == "application/json");
    if !failed || is_problem || is_json || head {
        return response;
    }
    let mut problem = Problem::of_status(status);
    for name in [ALLOW, RETRY_AFTER] {
        if let Some(value) = response.headers().get(&name) {
            problem = problem.header(name, value.clone());
        }
    }
    problem.into_response()
}

async fn secure(State(state): State<Arc<ServerState>>, request: Request, next: Next) -> Response {
    let api = request.uri().path().starts_with("/v1/");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut ensure = |name: HeaderName, value: &'static str| {
        // A route that shows a page, such as the API reference, sets its own policy.
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    ensure(X_CONTENT_TYPE_OPTIONS, "nosniff");
    ensure(REFERRER_POLICY, "no-referrer");
    ensure(X_FRAME_OPTIONS, "DENY");
    ensure(CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    if !state.config.dev {
        ensure(STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains");
    }
    if api {
        ensure(CACHE_CONTROL, "no-store");
    }
    response
}

/// One span and one log line per request, and its metrics. The route's template is logged,
/// not the path: paths hold session ids, and queries hold whatever a client puts there.
async fn observe(request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let method = known_method(request.method());
    let id = request_id::current().unwrap_or_default();
    let span = tracing::info_span!("request", %id, method, route);
    let started = Instant::now();
    let response = next.run(request).instrument(span.clone()).await;
    let (status, elapsed) = (response.status().as_u16(), started.elapsed());
    // A line for each request would be most of the work of a busy server; its metrics tell of all of them.
    span.in_scope(|| {
        let elapsed_ms = elapsed.as_millis();
        if response.status().is_server_error() || elapsed >= SLOW {
            tracing::info!(status, elapsed_ms, "answered");
        } else {
            tracing::debug!(status, elapsed_ms, "answered");
        }
    });
    metrics::counter!("throughline_http_requests_total",
        "method" => method, "route" => route.clone(), "status" => status.to_string())
    .increment(1);
    metrics::histogram!("throughline_http_request_seconds", "method" => method, "route" => route)
        .record(elapsed.as_secs_f64());
    response
}

/// Methods are free text; only known ones become labels, so that nobody can make endless
/// series of them.
fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PATCH" => "PATCH",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
