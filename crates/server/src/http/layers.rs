//! What surrounds every route, from the outside in: request id, log line, metrics and security headers; CORS; the limits of
//! heads, and of how often an address asks; the time limit; the body, and how large it may be; the number of requests at a time; panics and bare statuses turned into
//! problems.

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::header::{
    ACCEPT_ENCODING, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    ETAG, IF_MATCH, IF_NONE_MATCH, LOCATION, ORIGIN, REFERRER_POLICY, RETRY_AFTER, STRICT_TRANSPORT_SECURITY, VARY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use futures_util::{FutureExt as _, poll};
use tokio::sync::Semaphore;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::{Instrument as _, Span};

use super::request_body::RequestBodies;
use super::request_id::{self, RequestId};
use super::request_measures::RequestMeasures;
use super::waiting::{self, Held, Waited};
use super::{cookie, extract};
use crate::config::HeadLimits;
use crate::problem::{self, Denied, Problem};
use crate::telemetry::spans;
use crate::wiring::ServerState;

/// How long a browser may remember the answer to a preflight request.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

/// A request that takes longer has a line in the log.
const SLOW: Duration = Duration::from_secs(1);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Puts everything around `routes`.
///
/// As one function and not as a layer for each thing that is done: each layer around a route costs some allocations for
/// every request.
pub fn around(routes: Router, state: &Arc<ServerState>) -> Router {
    let surroundings = Arc::new(Surroundings {
        measures: RequestMeasures::default(),
        with_transport_security: !state.config.dev,
        cors: cors(state),
        places: Arc::new(Semaphore::new(state.config.max_requests)),
        time: state.config.request_timeout,
        bodies: RequestBodies::new(&state.config, state.shutdown.clone()),
        state: Arc::clone(state),
    });
    // The first one is the outermost. How large a body may be is seen to before any route has it.
    let layers = ServiceBuilder::new()
        .layer(from_fn(move |request, next| accompany(Arc::clone(&surroundings), request, next)))
        .layer(DefaultBodyLimit::disable());
    routes.layer(layers)
}

/// What surrounds all routes.
struct Surroundings {
    measures: RequestMeasures,
    with_transport_security: bool,
    cors: CorsLayer,
    /// One for each request that may be answered at a time.
    places: Arc<Semaphore>,
    /// How long one may take, with the arrival of its body and without what it waits for.
    time: Duration,
    bodies: RequestBodies,
    state: Arc<ServerState>,
}

/// Answers what no route matched.
pub async fn not_found() -> Problem {
    Problem::of_status(StatusCode::NOT_FOUND)
}

fn cors(state: &ServerState) -> CorsLayer {
    // A list is copied for each request, a predicate is shared.
    let allowed: Vec<HeaderValue> = state.config.allowed_origins.values().collect();
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| allowed.contains(origin)))
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_TYPE,
            IF_MATCH,
            IF_NONE_MATCH,
            IDEMPOTENCY_KEY,
            cookie::CREDENTIALS,
            request_id::HEADER,
            TRACEPARENT,
            TRACESTATE,
        ])
        .expose_headers([ETAG, LOCATION, RETRY_AFTER, IDEMPOTENT_REPLAYED, request_id::HEADER])
        .vary([ORIGIN])
        .max_age(PREFLIGHT_MAX_AGE)
}

/// One span and one log line per request, and its metrics. The route's template is logged, not the path: paths hold
/// session ids, and queries hold whatever a client puts there.
async fn accompany(around: Arc<Surroundings>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = RequestId::of(request.headers());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
    let method = known_method(request.method());
    let is_api = request.uri().path().starts_with("/v1/");
    let address = around.address(&request);
    let span = tracing::info_span!("request", id = id.as_str(), method, route);
    let is_watched = is_operators(&request);
    let traced = if is_watched { Span::none() } else { spans::request(method, route, request.headers()) };
    let answering = async {
        let response = share(&around, request, started, next).await;
        // A line for each request would be most of the work of a busy server; its metrics tell of all of them. What can't be
        // served just now (503) is told of once, by whoever finds out why.
        let waited = response.extensions().get::<Waited>().map_or(Duration::ZERO, |waited| waited.0);
        let (status, elapsed) = (response.status(), started.elapsed().saturating_sub(waited));
        let is_refused = status == StatusCode::SERVICE_UNAVAILABLE;
        if !is_refused && (status.is_server_error() || elapsed >= SLOW) {
            tracing::info!(status = status.as_u16(), elapsed_ms = elapsed.as_millis(), "answered");
        } else {
            tracing::debug!(status = status.as_u16(), elapsed_ms = elapsed.as_millis(), "answered");
        }
        (response, elapsed)
    };
    let (mut response, elapsed) = id.scope(answering.instrument(span).instrument(traced.clone())).await;
    spans::answered(&traced, response.status().as_u16());
    if let Some(Denied(denial)) = response.extensions_mut().remove::<Denied>() {
        around.state.denials.note(denial.at(address));
    }
    around.measures.answered(method, route, response.status(), elapsed);
    // For all that follow, at once.
    response.headers_mut().reserve(8);
    response.headers_mut().insert(request_id::HEADER, id.into());
    around.secure(is_api, response.headers_mut());
    response
}

impl Surroundings {
    /// The address that a request came from, seen through trusted proxies only.
    fn address(&self, request: &Request) -> IpAddr {
        let proxies = &self.state.config.trusted_proxies;
        proxies.client(extract::peer(request.extensions()), request.headers())
    }

    /// Judges a request by its head alone, before anything is done for it.
    fn admit(&self, request: &Request) -> Result<(), Problem> {
        let ServerState { config, request_limits, .. } = &*self.state;
        judge_head(request, config.head)?;
        if is_operators(request) {
            return Ok(());
        }
        let address = self.address(request);
        request_limits.admit_address(address, extract::has_credential(request))?;
        Ok(())
    }

    /// The headers that every answer has, unless its route has set its own, as one that shows a page does.
    fn secure(&self, is_api: bool, headers: &mut HeaderMap) {
        let mut ensure = |name: HeaderName, value: &'static str| {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        };
        ensure(X_CONTENT_TYPE_OPTIONS, "nosniff");
        ensure(REFERRER_POLICY, "no-referrer");
        ensure(X_FRAME_OPTIONS, "DENY");
        ensure(CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
        if self.with_transport_security {
            ensure(STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains");
        }
        if is_api {
            ensure(CACHE_CONTROL, "no-store");
        } else {
            // What may be kept, and was asked for without an origin, has no header that lets pages of one read it.
            ensure(VARY, "origin");
        }
    }
}

/// Tells browsers which pages may read the answer. Only they say where a request comes from.
async fn share(around: &Arc<Surroundings>, request: Request, started: Instant, next: Next) -> Response {
    if !request.headers().contains_key(ORIGIN) && request.method() != Method::OPTIONS {
        return protect(around, request, started, next).await;
    }
    // No route sees a browser's question before its request, and there is nobody to show a refusal of it to.
    if request.method() == Method::OPTIONS
        && let Err(problem) = around.admit(&request)
    {
        return problem.into_response();
    }
    let answer = service_fn(|request| {
        let (around, next) = (Arc::clone(around), next.clone());
        async move { Ok::<_, Infallible>(protect(&around, request, started, next).await) }
    });
    let Ok(response) = around.cors.layer(answer).oneshot(request).await;
    response
}

/// Whether it asks how the server does, which the operator has to find out also where nobody else is let in.
fn is_operators(request: &Request) -> bool {
    matches!(request.uri().path(), "/livez" | "/readyz" | "/metrics")
}

/// Refuses a head that is too large.
fn judge_head(request: &Request, limits: HeadLimits) -> Result<(), Problem> {
    let url = request.uri().path_and_query().map_or(0, |url| url.as_str().len());
    if url > limits.url_bytes {
        return Err(Problem::new(StatusCode::URI_TOO_LONG, "urlTooLong", "URL too long")
            .detail(format!("path and query have {url} bytes; this server takes {}", limits.url_bytes))
            .mendable_by("permanent"));
    }
    let headers = request.headers();
    // As they came: a name, `: `, a value, and the end of the line.
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let what = if headers.len() > limits.headers {
        format!("the request has {} headers; this server takes {}", headers.len(), limits.headers)
    } else if bytes > limits.header_bytes {
        format!("the request's headers have {bytes} bytes; this server takes {}", limits.header_bytes)
    } else {
        return Ok(());
    };
    Err(Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headersTooLarge", "Headers too large")
        .detail(what)
        .mendable_by("permanent"))
}

/// Nothing is decompressed: a few bytes could become as many as there is memory.
fn judge_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let is_plain = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(is_plain) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "contentEncodingUnsupported", "Content-Encoding unsupported")
        .detail("this server takes no compressed bodies; send it as it is, without `content-encoding`")
        .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
        .mendable_by("permanent"))
}

/// Lets in as many requests at a time as can be answered in time, ends those that take too long or panic, and explains
/// bare statuses.
async fn protect(around: &Surroundings, request: Request, started: Instant, next: Next) -> Response {
    let is_head = request.method() == Method::HEAD;
    let is_operators = is_operators(&request);
    if request.method() != Method::OPTIONS
        && let Err(problem) = around.admit(&request)
    {
        return problem.into_response();
    }
    if let Err(problem) = judge_encoding(request.headers()) {
        return problem.into_response();
    }
    // Its body has to be here before it takes a place, so that nobody can hold one by sending slowly. Where there is no place
    // anyway, nobody has to send it.
    let (mut request, room) = if request.body().is_end_stream() {
        (request, None)
    } else if around.places.available_permits() == 0 && !is_operators {
        return overloaded().into_response();
    } else {
        // Boxed, as below.
        match Box::pin(around.bodies.receive(request, started + around.time)).await {
            Ok(received) => received,
            Err(problem) => return problem.into_response(),
        }
    };
    // The others are told at once to come back, which costs little: were they to wait, all would be answered too late.
    // The operator's own routes are always let in.
    let place = match Arc::clone(&around.places).try_acquire_owned() {
        Ok(place) => Some(place),
        Err(_) if is_operators => None,
        Err(_) => return overloaded().into_response(),
    };
    let (time, _held) = if waiting::may_wait(&request) {
        request.extensions_mut().insert(Held::new(place, room));
        (around.time + waiting::LONGEST, None)
    } else {
        (around.time, Some((place, room)))
    };
    // What is shared between requests is behind locks that outlive a panic.
    let mut answer = pin!(AssertUnwindSafe(next.run(request)).catch_unwind());
    // What is answered at once needs no timer. One within this future would align it, and with it the memory that each request
    // takes, to 128 bytes, for which allocators have to go a long way.
    let answered = match poll!(answer.as_mut()) {
        Poll::Ready(answered) => Ok(answered),
        Poll::Pending => Box::pin(tokio::time::timeout_at((started + time).into(), answer)).await,
    };
    match answered {
        Ok(Ok(response)) if is_head => response,
        Ok(Ok(response)) => explain_bare_status(response),
        Ok(Err(_panic)) => {
            // The panic hook has logged where it happened; its message may hold a customer's data.
            metrics::counter!("throughline_panics_total").increment(1);
            Problem::unexplained().into_response()
        }
        Err(_) => {
            metrics::counter!("throughline_http_requests_timed_out_total").increment(1);
            tracing::warn!(limit_ms = time.as_millis(), "a request took too long and was given up");
            timed_out(time)
        }
    }
}

/// Refuses a request before it was begun.
pub(super) fn overloaded() -> Problem {
    metrics::counter!("throughline_http_requests_shed_total").increment(1);
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Overloaded")
        .detail("more requests are under way than can be answered in time; this one was not begun, try again")
        .retry_after(Duration::from_secs(1))
        .mendable_by("retry")
}

/// The work that the request had handed to the store goes on: its outcome is unknown to this client, which may safely ask
/// again with the same key.
fn timed_out(limit: Duration) -> Response {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "requestTimedOut", "Request timed out")
        .detail(format!(
            "the request was not finished within {} s; a retry with the same idempotency key or command number is safe",
            limit.as_secs_f32()
        ))
        .retry_after(Duration::from_secs(1))
        .mendable_by("retry")
        .into_response()
}

/// Turns an error answer that is not a problem, such as the router's own 405, into one.
fn explain_bare_status(response: Response) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let content_type = response.headers().get(CONTENT_TYPE);
    // `/readyz` answers 503 with a document of its own.
    if content_type.is_some_and(|value| value == problem::MEDIA_TYPE || value == "application/json") {
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
