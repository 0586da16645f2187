//! The layers, seen from outside.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::routing::{get, post};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;
use crate::clock::ManualClock;
use crate::config::{Config, Secrets, ServeOptions};
use crate::http::body::JsonBody;
use crate::principal::Principal;
use crate::sessions::Tiers;
use crate::store::memory::MemoryStore;

struct Server {
    app: Router,
    state: Arc<ServerState>,
    key: String,
}

struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

fn server(options: ServeOptions) -> Server {
    let options = ServeOptions {
        dev: true,
        open_metrics: Some(false),
        allowed_origins: Some(vec!["https://shop.example".parse().unwrap()]),
        ..options
    };
    let (config, options) = Config::resolve(options).unwrap();
    let secrets = Secrets::load(&options, |_| None).unwrap();
    let keys = secrets.keys.clone();
    let key = secrets.dev_service_key.as_ref().unwrap().reveal().to_owned();
    let (store, clock) = (MemoryStore::default(), ManualClock::at(1_700_000_000_000));
    let state = ServerState::with(config, secrets, Tiers::single(Arc::new(store), keys), Arc::new(clock)).unwrap();
    let features = Router::new()
        .route("/v1/echo", post(|JsonBody(value): JsonBody<Value>| async move { value.to_string() }))
        .route(
            "/v1/panic",
            get(|| async {
                if true {
                    panic!("customer jane@example.com")
                }
            }),
        )
        .route("/v1/hang", get(std::future::pending::<()>))
        .route("/v1/who", get(|who: Principal| async move { who.tenant().to_string() }));
    let app = app(&state, features).layer(Extension(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 1)))));
    Server { app, state, key }
}

async fn send(server: &Server, request: Request<Body>) -> Answered {
    let response = server.app.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body =
        serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    Answered { status: head.status, headers: head.headers, body }
}

fn get_of(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post_of(body: impl Into<Body>) -> Request<Body> {
    let request = Request::post("/v1/echo").header("content-type", "application/json");
    request.body(body.into()).unwrap()
}

fn assert_problem(answered: &Answered, status: u16, code: &str) {
    assert_eq!(answered.status.as_u16(), status, "{}", answered.body);
    assert_eq!(answered.headers["content-type"], "application/problem+json");
    assert_eq!(answered.body["code"], code);
    assert_eq!(answered.body["requestId"], answered.headers["x-request-id"].to_str().unwrap());
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let server = server(ServeOptions::default());
    assert_problem(&send(&server, get_of("/nowhere")).await, 404, "notFound");
    let refused = send(&server, get_of("/v1/echo")).await;
    assert_problem(&refused, 405, "methodNotAllowed");
    assert_eq!(refused.headers["allow"], "POST");
}

#[tokio::test]
async fn asvs_16_5_4_a_panic_becomes_a_problem_that_tells_nothing() {
    let answered = send(&server(ServeOptions::default()), get_of("/v1/panic")).await;
    assert_problem(&answered, 500, "internal");
    assert!(!answered.body.to_string().contains("jane"));
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_ended() {
    let request_timeout = Some(Duration::from_millis(100).into());
    let server = server(ServeOptions { request_timeout, ..ServeOptions::default() });
    let answered = send(&server, get_of("/v1/hang")).await;
    assert_problem(&answered, 503, "requestTimedOut");
    assert_eq!(answered.headers["retry-after"], "1");
    let with_key = Request::get("/metrics").header("authorization", format!("Bearer {}", server.key));
    let metrics = send(&server, with_key.body(Body::empty()).unwrap()).await;
    assert!(
        metrics.body.as_str().unwrap().contains("\nthroughline_http_requests_timed_out_total 1\n"),
        "it is counted"
    );
}

#[tokio::test]
async fn bodies_are_limited_with_and_without_a_declared_length() {
    let limit = crate::config::ByteSize(1024);
    let server = server(ServeOptions { body_limit: Some(limit), ..ServeOptions::default() });
    let large = format!("\"{}\"", "a".repeat(2000));
    assert_problem(&send(&server, post_of(large.clone())).await, 413, "bodyTooLarge");
    let pieces = futures_util::stream::iter([Ok::<_, std::io::Error>(large)]);
    let streamed = post_of(Body::from_stream(pieces));
    assert_problem(&send(&server, streamed).await, 413, "bodyTooLarge");
    assert_eq!(send(&server, post_of(r#"{"a":1}"#)).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_slowly_holds_no_place_and_is_ended() {
    let server = Arc::new(server(ServeOptions { max_requests: Some(1), ..ServeOptions::default() }));
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<&str, std::io::Error>>(1);
    let pieces = futures_util::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let slowly = post_of(Body::from_stream(pieces));
    let slow = tokio::spawn({
        let server = Arc::clone(&server);
        async move { send(&server, slowly).await }
    });
    sender.send(Ok("{")).await.unwrap();
    // There is room for it when the first one was read.
    sender.send(Ok("\"a\": ")).await.unwrap();
    assert_eq!(send(&server, post_of("{}")).await.status, StatusCode::OK, "the only place is free");
    assert_problem(&slow.await.unwrap(), 408, "bodyTimedOut");
}

#[tokio::test]
async fn bodies_that_are_not_json_are_refused_by_kind() {
    let server = server(ServeOptions::default());
    assert_problem(&send(&server, post_of("{")).await, 400, "malformedJson");
    let text = Request::post("/v1/echo").header("content-type", "text/plain");
    let answered = send(&server, text.body(Body::from("{}")).unwrap()).await;
    assert_problem(&answered, 415, "unsupportedMediaType");
}

#[tokio::test]
async fn a_harmless_request_id_comes_back_and_another_is_replaced() {
    let server = server(ServeOptions::default());
    let with = |id: &str| Request::get("/livez").header("x-request-id", id).body(Body::empty());
    let kept = send(&server, with("trace-1").unwrap()).await;
    assert_eq!(kept.headers["x-request-id"], "trace-1");
    let replaced = send(&server, with("a b").unwrap()).await;
    assert_ne!(replaced.headers["x-request-id"], "a b");
    assert_eq!(replaced.headers["x-request-id"].len(), 32);
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let server = server(ServeOptions::default());
    for path in ["/livez", "/nowhere", "/v1/panic", "/v1/who"] {
        let Answered { headers, .. } = send(&server, get_of(path)).await;
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert!(headers["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
        assert_eq!(headers.contains_key("cache-control"), path.starts_with("/v1/"));
        assert_eq!(headers.get("vary").is_none(), path.starts_with("/v1/"), "what may be kept is kept by origin");
    }
}

#[tokio::test]
async fn only_listed_origins_may_read_answers() {
    let server = server(ServeOptions::default());
    let preflight = |origin: &str| {
        Request::builder()
            .method(Method::OPTIONS)
            .uri("/v1/echo")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,idempotency-key")
            .body(Body::empty())
            .unwrap()
    };
    let allowed = send(&server, preflight("https://shop.example")).await.headers;
    assert_eq!(allowed["access-control-allow-origin"], "https://shop.example");
    assert_eq!(allowed["access-control-allow-credentials"], "true");
    let refused = send(&server, preflight("https://evil.example")).await.headers;
    assert!(!refused.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn nobody_without_a_credential_is_let_in() {
    let server = server(ServeOptions::default());
    let refused = send(&server, get_of("/v1/who")).await;
    assert_problem(&refused, 401, "credentialMissing");
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
    let with_key = Request::get("/v1/who").header("authorization", format!("Bearer {}", server.key));
    let answered = send(&server, with_key.body(Body::empty()).unwrap()).await;
    assert_eq!((answered.status, answered.body), (StatusCode::OK, "default".into()));
}

#[tokio::test]
async fn readiness_names_each_dependency_and_ends_when_the_server_drains() {
    let server = server(ServeOptions::default());
    assert_eq!(send(&server, get_of("/livez")).await.status, StatusCode::OK);
    let ready = send(&server, get_of("/readyz")).await;
    assert_eq!(ready.status, StatusCode::OK);
    assert_eq!(ready.body["dependencies"]["database"]["status"], "up");
    server.state.draining.cancel();
    let draining = send(&server, get_of("/readyz")).await;
    assert_eq!(draining.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(draining.body["status"], "draining");
}

#[cfg(not(feature = "web-demo"))]
#[tokio::test]
async fn a_demo_that_is_not_built_in_says_how_to_have_it_and_only_on_a_developers_machine() {
    let server = server(ServeOptions::default());
    for path in ["/demo", "/demo/", "/demo/assets/index.js"] {
        let missing = send(&server, get_of(path)).await;
        assert_eq!(missing.status, StatusCode::NOT_FOUND);
        assert!(missing.body["detail"].as_str().unwrap().contains("cargo xtask release"), "{}", missing.body);
    }
    let routes: Router = super::assets::routes(false).with_state(Arc::clone(&server.state));
    let real = routes.oneshot(get_of("/demo")).await.unwrap();
    assert!(real.into_body().collect().await.unwrap().to_bytes().is_empty(), "a shop's server says nothing of it");
}

#[tokio::test]
async fn metrics_are_for_key_holders_and_count_requests_by_route() {
    let server = server(ServeOptions::default());
    assert_problem(&send(&server, get_of("/metrics")).await, 401, "credentialMissing");
    send(&server, get_of("/v1/who?email=jane@example.com")).await;
    let with_key = Request::get("/metrics").header("authorization", format!("Bearer {}", server.key));
    let answered = send(&server, with_key.body(Body::empty()).unwrap()).await;
    let text = answered.body.as_str().unwrap();
    assert!(text.contains("route=\"/v1/who\""), "{text}");
    assert!(!text.contains("jane"));
}
