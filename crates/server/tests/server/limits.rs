//! Each limit at its edge: what is exactly as large, as often or as late as may be passes, one more does not.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::binary::*;

/// Nobody waits longer than this, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

const CLAIM: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// One request and its answer.
struct Answer {
    text: String,
}

impl Answer {
    fn to(dev: &Dev, line: &str, headers: &str, body: &str) -> Self {
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let head = format!("{line} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n{length}{headers}\r\n");
        Self { text: raw(&dev.address, format!("{head}{body}").as_bytes()) }
    }

    fn status(&self) -> u16 {
        let status = self.text.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("no status: {:?}", self.text))
    }

    fn document(&self) -> Value {
        let (_, body) = self.text.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|_| panic!("no document: {}", self.text))
    }

    /// Asserts a problem with this status and code.
    fn is(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status(), status, "{}", self.text);
        assert_eq!(header_of(&self.text, "content-type"), Some("application/problem+json"), "{}", self.text);
        let document = self.document();
        assert_eq!(document["code"], code, "{document}");
        document
    }

    /// Asserts that a rate limit of this kind was met, with a time that makes sense.
    fn is_limited_by(&self, by: &str) {
        let document = self.is(429, "rateLimited");
        assert_eq!(document["limitedBy"], by, "{document}");
        let seconds: u64 = header_of(&self.text, "retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds), "{}", self.text);
        assert_eq!(document["retryAfterSeconds"], seconds);
    }
}

const JSON: &str = "content-type: application/json\r\n";

fn bearer(credential: &str) -> String {
    format!("authorization: Bearer {credential}\r\n")
}

/// A session with its token.
fn session(dev: &Dev) -> (String, String) {
    let created = Answer::to(dev, "POST /v1/sessions", &format!("{JSON}{}", bearer(&dev.service_key)), "{}");
    let created = created.document();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&created["session"]["id"]), text(&created["token"]))
}

#[test]
fn requests_without_a_credential_are_limited_by_their_address() {
    let dev = dev(&["--requests-per-minute-without-credential", "3"]);
    let nobody = || Answer::to(&dev, "GET /v1/funnels/default", "", "");
    assert_eq!([nobody().status(), nobody().status()], [200, 200]);
    // A credential that proves nothing counts as none, so that nobody can try out as many as they like.
    assert_eq!(Answer::to(&dev, "GET /v1/cache", &bearer("tls_guessed"), "").status(), 401);
    nobody().is_limited_by("noCredential");
    Answer::to(&dev, "GET /v1/cache", &bearer("tls_guessed"), "").is_limited_by("noCredential");
    Answer::to(&dev, "OPTIONS /v1/cache", "origin: https://a.example\r\naccess-control-request-method: GET\r\n", "")
        .is_limited_by("noCredential");
    Answer::to(&dev, "GET /v1/sync", "connection: upgrade\r\nupgrade: websocket\r\n", "").is_limited_by("noCredential");
    // Whoever proves who they are, and the operator, are let in.
    assert_eq!(Answer::to(&dev, "GET /v1/cache", &bearer(&dev.service_key), "").status(), 200);
    assert_eq!(Answer::to(&dev, "GET /livez", "", "").status(), 200);
    let metrics = Answer::to(&dev, "GET /metrics", "", "").text;
    assert!(metrics.contains("throughline_rate_limited_total{by=\"noCredential\"} 4\n"), "{metrics}");
}

#[test]
fn requests_of_one_address_are_limited_in_all() {
    let dev = dev(&["--requests-per-minute-per-address", "3", "--trusted-proxies", "127.0.0.1"]);
    let from = |address: &str| {
        let headers = format!("{}x-forwarded-for: {address}\r\n", bearer(&dev.service_key));
        Answer::to(&dev, "GET /v1/cache", &headers, "")
    };
    assert_eq!([(); 3].map(|()| from("192.0.2.1").status()), [200; 3]);
    from("192.0.2.1").is_limited_by("address");
    assert_eq!(from("192.0.2.2").status(), 200, "another address is another's");
    // What stands to the left is the client's own invention.
    from("192.0.2.3, 192.0.2.1").is_limited_by("address");
}

#[test]
fn requests_of_one_session_are_limited_on_every_way() {
    let dev = dev(&["--requests-per-minute-per-session", "3"]);
    let ((id, token), (other, other_token)) = (session(&dev), session(&dev));
    let read = |id: &str, token: &str| Answer::to(&dev, &format!("GET /v1/sessions/{id}"), &bearer(token), "");
    let poll = || {
        let hello = json!({ "type": "hello", "protocol": 1, "sessionId": id, "clientId": "a", "knownVersion": 0, "token": token });
        Answer::to(&dev, "POST /v1/sync", JSON, &json!({ "frames": [hello] }).to_string()).document()
    };
    assert_eq!([read(&id, &token).status(), read(&id, &token).status()], [200, 200]);
    assert_eq!(poll()["frames"][0]["type"], "welcome", "the third");
    read(&id, &token).is_limited_by("session");
    let refused = poll();
    assert_eq!(refused["frames"][0]["code"], "rateLimited", "{refused}");
    assert!(refused["frames"][0]["retryAfterMs"].as_u64().is_some_and(|ms| ms <= 60_000), "{refused}");
    assert_eq!(read(&other, &other_token).status(), 200, "another session is another's");
    let as_service = Answer::to(&dev, &format!("GET /v1/sessions/{id}"), &bearer(&dev.service_key), "");
    assert_eq!(as_service.status(), 200, "the back end is not held up by a browser");
}

#[test]
fn requests_of_one_service_key_and_of_one_tenant_are_limited() {
    let limited = dev(&["--requests-per-minute-per-service-key", "2"]);
    let ask = |dev: &Dev| Answer::to(dev, "GET /v1/cache", &bearer(&dev.service_key), "");
    assert_eq!([ask(&limited).status(), ask(&limited).status()], [200, 200]);
    ask(&limited).is_limited_by("serviceKey");
    assert_eq!(Answer::to(&limited, "POST /v1/sessions", JSON, "{}").status(), 201, "nobody else is held up");

    let limited = dev(&["--requests-per-minute-per-tenant", "3"]);
    let (id, token) = session(&limited);
    assert_eq!(ask(&limited).status(), 200);
    let read = || Answer::to(&limited, &format!("GET /v1/sessions/{id}"), &bearer(&token), "");
    assert_eq!(read().status(), 200, "the third");
    read().is_limited_by("tenant");
    ask(&limited).is_limited_by("tenant");
}

#[test]
fn urls_may_be_as_long_as_the_limit() {
    let dev = dev(&["--url-limit", "300"]);
    let url = |length: usize| Answer::to(&dev, &format!("GET /{}", "x".repeat(length - 1)), "", "");
    assert_eq!(url(300).status(), 404);
    url(301).is(414, "urlTooLong");
    let with_query = |length: usize| Answer::to(&dev, &format!("GET /v1/cache?{}", "x".repeat(length - 10)), "", "");
    assert_eq!((with_query(300).status(), with_query(301).status()), (401, 414));
    // What is far too long is refused before it was read.
    assert_eq!(url(60_000).status(), 431);
    assert_eq!(Answer::to(&dev, "GET /livez", "", "").status(), 200, "the server goes on");
}

#[test]
fn headers_may_be_as_large_and_as_many_as_the_limits() {
    let dev = dev(&["--header-limit", "2KiB", "--max-headers", "20"]);
    // `host`, `connection` and `x` with their separators.
    let others = "host: t\r\nconnection: close\r\n".len() + "x: \r\n".len();
    let sized = |bytes: usize| {
        Answer::to(&dev, "GET /v1/funnels/default", &format!("x: {}\r\n", "y".repeat(bytes - others)), "")
    };
    assert_eq!(sized(2048).status(), 200);
    sized(2049).is(431, "headersTooLarge");
    assert_eq!(sized(100_000).status(), 431);
    let counted = |count: usize| {
        let more: String = (2..count).map(|number| format!("x-{number}: y\r\n")).collect();
        Answer::to(&dev, "GET /v1/funnels/default", &more, "")
    };
    assert_eq!(counted(20).status(), 200);
    counted(21).is(431, "headersTooLarge");
    assert_eq!(counted(120).status(), 431);
}

#[test]
fn bodies_may_be_as_large_as_the_limit() {
    let dev = dev(&["--body-limit", "2KiB"]);
    let body = |length: usize| {
        let empty = r#"{"funnel":""}"#.len();
        let body = format!(r#"{{"funnel":"{}"}}"#, "x".repeat(length - empty));
        Answer::to(&dev, "POST /v1/sessions", JSON, &body)
    };
    assert_eq!(body(2048).status(), 422, "it is read, and there is no such funnel");
    body(2049).is(413, "bodyTooLarge");
    // The same in pieces, whose sum nobody announces.
    let chunked = |length: usize| {
        let text = format!("{{\"email\":\"{}\"}}", "x".repeat(length - 12));
        let pieces: String = text
            .as_bytes()
            .chunks(500)
            .map(|piece| format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece)))
            .collect();
        let headers = format!("{JSON}transfer-encoding: chunked\r\n");
        let head = format!("POST /v1/sessions HTTP/1.1\r\nhost: t\r\nconnection: close\r\n{headers}\r\n");
        Answer { text: raw(&dev.address, format!("{head}{pieces}0\r\n\r\n").as_bytes()) }
    };
    assert_eq!(chunked(2048).status(), 422);
    chunked(2049).is(413, "bodyTooLarge");
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

#[test]
fn json_may_go_as_deep_as_the_limit() {
    let dev = dev(&[]);
    // Metadata has a limit of its own, which is met first: as deep as that it is read.
    let metadata = |depth: usize| {
        Answer::to(&dev, "POST /v1/sessions", JSON, &format!(r#"{{"metadata":{{"a":{}}}}}"#, nested(depth - 2)))
    };
    assert_eq!(metadata(32).status(), 422);
    metadata(33).is(400, "jsonTooDeep");
    metadata(100).is(400, "jsonTooDeep");
    for deep in [nested(100), "[".repeat(60_000), "{\"a\":".repeat(10_000)] {
        for path in ["/v1/sessions", "/v1/sync", "/v1/handoff"] {
            Answer::to(&dev, &format!("POST {path}"), JSON, &deep).is(400, "jsonTooDeep");
        }
        let key = format!("{JSON}{}", bearer(&dev.service_key));
        Answer::to(&dev, "PATCH /v1/sessions/ws_1_a", &key, &deep).is(400, "jsonTooDeep");
    }
    let brackets = json!({ "metadata": { "a": "[".repeat(200) } }).to_string();
    assert_eq!(Answer::to(&dev, "POST /v1/sessions", JSON, &brackets).status(), 201, "in a text they mean nothing");
}

#[test]
fn compressed_bodies_are_refused_and_not_looked_into() {
    let dev = dev(&[]);
    // As the first bytes of a bomb are; whatever came after them would not be read either.
    for encoding in ["gzip", "deflate", "br", "zstd", "identity, gzip", "GZIP", "x-gzip"] {
        let headers = format!("{JSON}content-encoding: {encoding}\r\n");
        let answer = Answer::to(&dev, "POST /v1/sessions", &headers, "\u{1f}\u{8}");
        let document = answer.is(415, "contentEncodingUnsupported");
        assert!(document["detail"].as_str().unwrap().contains("content-encoding"), "{document}");
        assert_eq!(header_of(&answer.text, "accept-encoding"), Some("identity"), "{}", answer.text);
    }
    let plain = Answer::to(&dev, "POST /v1/sessions", &format!("{JSON}content-encoding: identity\r\n"), "{}");
    assert_eq!(plain.status(), 201);
}

#[test]
fn a_body_that_arrives_slowly_is_given_up() {
    let dev = dev(&["--request-timeout", "1s"]);
    let head = format!("POST /v1/sessions HTTP/1.1\r\nhost: t\r\n{JSON}content-length: 1000\r\n\r\n");
    let (answer, took) = trickled(&dev, &head);
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("bodyTimedOut"), "{answer}");
    assert!(took >= Duration::from_millis(900), "{took:?}");
}

#[test]
fn a_head_that_arrives_slowly_is_given_up() {
    // Were the time between two bytes what counts, the connection would stay for as long as there are bytes.
    let dev = dev(&["--header-timeout", "1s"]);
    let (answer, took) = trickled(&dev, "GET /livez HTTP/1.1\r\nhost: t\r\nx-slow: ");
    assert_eq!(answer, "", "closed without a word");
    assert!(took >= Duration::from_millis(900), "{took:?}");
}

/// What comes back while one byte is sent every 50 ms, and after which time the server had enough.
fn trickled(dev: &Dev, first: &str) -> (String, Duration) {
    let started = Instant::now();
    let mut stream = TcpStream::connect(&dev.address).unwrap();
    stream.write_all(first.as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut answer = Vec::new();
    loop {
        assert!(started.elapsed() < PATIENCE, "the server still waits");
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => answer.extend(&buffer[..read]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                // It may be closed by now, which the next read tells.
                let _ = stream.write_all(b"x");
            }
            Err(_) => break,
        }
    }
    (String::from_utf8_lossy(&answer).into_owned(), started.elapsed())
}

#[test]
fn who_does_not_read_the_answer_holds_no_connection() {
    let dev = dev(&["--idle-timeout", "1s", "--max-connections", "1"]);
    let mut stream = TcpStream::connect(&dev.address).unwrap();
    // More, in answers of some hundred kilobytes each, than the operating system keeps for a connection.
    let many = b"GET /openapi.json HTTP/1.1\r\nhost: t\r\n\r\n".repeat(200);
    stream.write_all(&many).unwrap();
    assert_eq!(Answer::to(&dev, "GET /livez", "", "").status(), 200, "the next one has got the place");
    drop(stream);
}

#[test]
fn an_idle_connection_is_closed_after_its_time_and_not_before() {
    let dev = dev(&["--idle-timeout", "6s", "--header-timeout", "2s"]);
    let mut stream = TcpStream::connect(&dev.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut ask = || {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).unwrap();
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..read]));
        Instant::now()
    };
    ask();
    // Longer than a head may take, and less than a connection may be idle.
    std::thread::sleep(Duration::from_secs(3));
    let answered = ask();
    assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0);
    let idle = answered.elapsed();
    assert!(idle >= Duration::from_secs(4), "{idle:?}");
    let metrics = Answer::to(&dev, "GET /metrics", "", "").text;
    assert!(metrics.contains("throughline_connections_timed_out_total 1\n"), "{metrics}");
}

#[test]
fn a_socket_outlives_the_times_of_requests() {
    let dev = dev(&["--idle-timeout", "2s", "--header-timeout", "2s", "--request-timeout", "2s"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut socket, _) = open(&dev, &[]).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        socket.send(Message::text(hello("ws_idle_1"))).await.unwrap();
        assert_eq!(frame(&mut socket).await["type"], "welcome");
    });
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn open(dev: &Dev, headers: &[(&'static str, &'static str)]) -> (Socket, Vec<String>) {
    let mut request = format!("ws://{}/v1/sync", dev.address).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("throughline.v1"));
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    let (socket, answer) = tokio_tungstenite::connect_async(request).await.unwrap();
    (socket, answer.headers().keys().map(ToString::to_string).collect())
}

fn hello(id: &str) -> String {
    let hello =
        json!({ "type": "hello", "protocol": 1, "sessionId": id, "clientId": "a", "knownVersion": 0, "claim": CLAIM });
    hello.to_string()
}

async fn frame(socket: &mut Socket) -> Value {
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.expect("nothing was said");
        if let Message::Text(text) = message.unwrap().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

#[tokio::test]
async fn frames_may_be_as_large_and_as_deep_as_the_limits() {
    let dev = dev(&["--frame-limit", "8KiB"]);
    let padded = |length: usize| {
        let mut text = hello("ws_frame_1");
        text.push_str(&" ".repeat(length - text.len()));
        text
    };
    let answer = async |text: String| {
        let (mut socket, _) = open(&dev, &[]).await;
        socket.send(Message::text(text)).await.unwrap();
        frame(&mut socket).await
    };
    assert_eq!(answer(padded(8192)).await["type"], "welcome");
    let refused = answer(padded(8193)).await;
    assert_eq!(refused["code"], "malformedFrame", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("8192"), "{refused}");
    let refused = answer(format!(r#"{{"type":"submit","commands":{}}}"#, nested(32))).await;
    assert!(refused["message"].as_str().unwrap().contains("more than 32 arrays and objects"), "{refused}");
    let read = answer(format!(r#"{{"type":"submit","commands":{}}}"#, nested(31))).await;
    assert!(!read["message"].as_str().unwrap().contains("lie in each other"), "{read}");

    let poll = |length: usize| {
        let body = json!({ "frames": [{ "type": "ping" }] }).to_string();
        let body = format!("{body}{}", " ".repeat(length - body.len()));
        Answer::to(&dev, "POST /v1/sync", JSON, &body).status()
    };
    assert_eq!((poll(8192), poll(8193)), (200, 413));
    let frames = |count: usize| {
        let frames: Vec<Value> = (0..count).map(|_| json!({ "type": "ping" })).collect();
        Answer::to(&dev, "POST /v1/sync", JSON, &json!({ "frames": frames }).to_string()).document()
    };
    let message = |count: usize| frames(count)["frames"][0]["message"].as_str().unwrap().to_owned();
    assert!(message(100).contains("first frame has to be hello") && message(101).contains("at most 100 frames"));
}

#[tokio::test]
async fn sockets_never_agree_to_compression() {
    let dev = dev(&[]);
    let offered = ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits, x-webkit-deflate-frame");
    let (mut socket, headers) = open(&dev, &[offered]).await;
    assert!(!headers.iter().any(|name| name == "sec-websocket-extensions"), "{headers:?}");
    socket.send(Message::text(hello("ws_deflate_1"))).await.unwrap();
    assert_eq!(frame(&mut socket).await["type"], "welcome");
    // A frame that says it is compressed (the first reserved bit) ends the socket instead of being inflated.
    let stream = socket.get_mut();
    tokio::io::AsyncWriteExt::write_all(stream, &[0xc1, 0x81, 0, 0, 0, 0, b'x']).await.unwrap();
    let ended = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Text(text) = &message {
                assert!(!text.contains("pong") && !text.contains("welcome"), "{text}");
            }
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the socket goes on");
}

#[test]
fn connections_in_all_wait_for_a_place() {
    let dev = dev(&["--max-connections", "2"]);
    let held: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = TcpStream::connect(&dev.address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0, "it has its place");
            stream
        })
        .collect();
    let mut waiting = TcpStream::connect(&dev.address).unwrap();
    waiting.write_all(b"GET /livez HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
    waiting.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(waiting.read(&mut [0; 16]).is_err(), "there is no place for it");
    drop(held);
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut status = [0; 12];
    waiting.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
}
