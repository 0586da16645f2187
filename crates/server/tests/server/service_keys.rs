//! Service keys of the database: made, used, limited by their scopes, and revoked; and whose sessions a page creates.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use throughline_test_services::buyer::Identity;
use throughline_test_services::fleet::{Fleet, Node};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::binary::*;
use super::fleets::{LONG, fleet, service_keys, until};

/// Within which time every server acts by a change: a second, and as much again for a machine that does much else.
const SOON: Duration = Duration::from_secs(2);

const SCOPES: [&str; 6] = ["sessions:read", "sessions:write", "payments", "privacy", "webhooks", "operator"];

fn ask(address: &str, method: Method, path: &str, credential: &str) -> RequestBuilder {
    let client = Client::builder().timeout(LONG).build().unwrap();
    client.request(method, format!("http://{address}{path}")).bearer_auth(credential)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.unwrap().status()
}

/// The status and code of a problem; the code is empty for what is none.
async fn outcome(request: RequestBuilder) -> (u16, String) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let document: Value = answer.json().await.unwrap_or_default();
    (status, document["code"].as_str().unwrap_or_default().to_owned())
}

async fn json_of(answer: Response) -> Value {
    let status = answer.status();
    let document: Value = answer.json().await.unwrap();
    assert!(status.is_success(), "{status}: {document}");
    document
}

/// Makes a key over the API: its id and text.
async fn made(address: &str, operator: &str, body: Value) -> (String, String) {
    let answer = ask(address, Method::POST, "/v1/service-keys", operator).json(&body).send().await.unwrap();
    assert_eq!(
        (answer.status(), &answer.headers()["cache-control"]),
        (StatusCode::CREATED, &"no-store".parse().unwrap())
    );
    let key = json_of(answer).await;
    (text(&key["id"]), text(&key["key"]))
}

async fn revoke(address: &str, operator: &str, id: &str) -> (u16, String) {
    outcome(ask(address, Method::DELETE, &format!("/v1/service-keys/{id}"), operator)).await
}

async fn listed(address: &str, operator: &str) -> Vec<Value> {
    let list = json_of(ask(address, Method::GET, "/v1/service-keys", operator).send().await.unwrap()).await;
    list["keys"].as_array().unwrap().clone()
}

/// A session that a service key has made: its id and token.
async fn session(address: &str, key: &str) -> (String, String) {
    let answer = ask(address, Method::POST, "/v1/sessions", key).json(&json!({})).send().await.unwrap();
    let created = json_of(answer).await;
    (text(&created["session"]["id"]), text(&created["token"]))
}

fn hello(id: &str, more: &Value) -> Value {
    let mut hello = json!({ "type": "hello", "protocol": 1, "sessionId": id, "clientId": "client", "knownVersion": 0 });
    hello.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    hello
}

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

/// A socket that was told the welcome.
async fn socket(address: &str, id: &str, token: &str) -> Socket {
    let mut request = format!("ws://{address}/v1/sync").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("throughline.v1"));
    let (mut stream, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    stream.send(Message::text(hello(id, &json!({ "token": token })).to_string())).await.unwrap();
    assert_eq!(frame(&mut stream, &["welcome", "error"]).await["type"], "welcome");
    stream
}

/// The next frame of one of these types.
async fn frame(socket: &mut Socket, types: &[&str]) -> Value {
    let deadline = Instant::now() + LONG;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let next = tokio::time::timeout(left, socket.next()).await.expect("the server says nothing");
        match next.expect("the socket is closed").expect("the socket is broken") {
            Message::Text(text) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                if types.iter().any(|kind| frame["type"] == *kind) {
                    return frame;
                }
            }
            Message::Close(close) => panic!("closed: {close:?}"),
            _ => {}
        }
    }
}

/// Expects that the socket ends with this code, within [`SOON`].
async fn ends(mut socket: Socket, code: &str) -> String {
    let error = tokio::time::timeout(SOON, frame(&mut socket, &["error"])).await.expect("the socket goes on");
    assert_eq!(error["code"], code, "{error}");
    text(&error["message"])
}

fn poll_with(address: &str, origin: Option<&str>, frames: &[Value], wait_ms: u64) -> RequestBuilder {
    let client = Client::builder().timeout(LONG * 2).build().unwrap();
    let request = client.post(format!("http://{address}/v1/sync"));
    let request = origin.into_iter().fold(request, |request, origin| request.header("origin", origin));
    request.json(&json!({ "frames": frames, "waitMs": wait_ms }))
}

async fn frames(request: RequestBuilder) -> Vec<Value> {
    json_of(request.send().await.unwrap()).await["frames"].as_array().unwrap().clone()
}

fn of_type<'a>(frames: &'a [Value], kind: &str) -> &'a Value {
    frames.iter().find(|frame| frame["type"] == kind).unwrap_or_else(|| panic!("no {kind}: {frames:?}"))
}

fn two_nodes(fleet: &Fleet, more: &[&str]) -> [Node; 2] {
    [fleet.node("a", more).unwrap(), fleet.node("b", more).unwrap()]
}

#[tokio::test]
async fn asvs_8_3_2_a_key_is_good_on_every_server_soon_after_it_was_made_and_refused_soon_after_it_was_revoked() {
    let fleet = fleet();
    let [a, b] = &two_nodes(&fleet, &[]);
    let operator = fleet.service_key.as_str();
    let (id, key) = made(&a.address, operator, json!({ "name": "back end", "scopes": ["sessions:read"] })).await;
    let list = |node: &Node| ask(&node.address, Method::GET, "/v1/sessions", &key);
    assert_eq!(status(list(a)).await, StatusCode::OK, "at once where it was made");
    until("the other server knows it", SOON, async || status(list(b)).await == StatusCode::OK).await;

    until("its use is seen", LONG, async || listed(&b.address, operator).await[0]["lastUsedAt"].is_string()).await;
    let entry = listed(&b.address, operator).await.remove(0);
    assert_eq!((&entry["id"], &entry["name"], &entry["tenant"]), (&json!(id), &json!("back end"), &json!("default")));
    assert_eq!(entry["scopes"], json!(["sessions:read"]));
    assert!(text(&entry["createdBy"]).starts_with("service:") && entry.get("key").is_none(), "{entry}");
    assert!(!entry.to_string().contains("sha256"));

    assert_eq!(revoke(&b.address, operator, &id).await.0, 204);
    assert_eq!(outcome(list(b)).await, (401, "serviceKeyRevoked".to_owned()), "at once where it was revoked");
    until("the other server refuses it", SOON, async || status(list(a)).await == StatusCode::UNAUTHORIZED).await;
    assert_eq!(revoke(&a.address, operator, &id).await.0, 204, "again");
    assert_eq!(revoke(&a.address, operator, "0123456789abcdef").await, (404, "serviceKeyNotFound".to_owned()));
    assert!(listed(&a.address, operator).await[0]["revokedAt"].is_string());
    for node in [a, b] {
        assert!(!node.log().contains(&key), "the key is in the log");
    }
}

#[tokio::test]
async fn nobody_revokes_the_key_in_their_hand_by_accident_and_nobody_reaches_another_tenants() {
    let fleet = fleet();
    let node = fleet.node("a", &[]).unwrap();
    let create = |tenant: &str| {
        let arguments = ["create", "--name", "admin", "--scope", "operator", "--tenant", tenant, "--json"];
        let printed = service_keys(&fleet, &arguments).unwrap();
        let key: Value = serde_json::from_str(&printed).unwrap();
        (text(&key["id"]), text(&key["key"]))
    };
    let ((id, key), (other_id, other)) = (create("shop-a"), create("shop-b"));
    let list = async |key: &str| status(ask(&node.address, Method::GET, "/v1/service-keys", key)).await;
    until("both are known", SOON, async || list(&key).await == 200 && list(&other).await == 200).await;

    assert_eq!(revoke(&node.address, &other, &id).await, (404, "serviceKeyNotFound".to_owned()));
    assert_eq!(listed(&node.address, &other).await.len(), 1);
    assert_eq!(listed(&node.address, &fleet.service_key).await.len(), 0, "the default tenant has none");
    let (_, of_other) = made(&node.address, &other, json!({ "name": "b", "scopes": ["sessions:read"] })).await;
    assert_eq!(listed(&node.address, &other).await[1]["tenant"], "shop-b");
    let (id_of_a, _) = session(&node.address, &{
        made(&node.address, &key, json!({ "name": "a", "scopes": ["sessions:write"] })).await.1
    })
    .await;
    let path = format!("/v1/sessions/{id_of_a}");
    assert_eq!(outcome(ask(&node.address, Method::GET, &path, &of_other)).await, (404, "sessionNotFound".to_owned()));

    assert_eq!(revoke(&node.address, &key, &id).await, (409, "ownServiceKey".to_owned()));
    assert_eq!(list(&key).await, 200, "it is as good as before");
    assert_eq!(revoke(&node.address, &key, &format!("{id}?own=maybe")).await, (400, "queryRefused".to_owned()));
    assert_eq!(revoke(&node.address, &key, &format!("{id}?own=true")).await.0, 204);
    assert_eq!(list(&key).await, 401);
    assert_eq!(list(&other).await, 200);
    assert_eq!(revoke(&node.address, &other, &format!("{other_id}?own=true")).await.0, 204);
}

#[tokio::test]
async fn with_a_revoked_key_end_its_sockets_its_polls_and_all_tokens_that_it_had_made() {
    let fleet = fleet();
    let [a, b] = &two_nodes(&fleet, &[]);
    let operator = fleet.service_key.as_str();
    let wanted = json!({ "name": "back end", "scopes": ["sessions:read", "sessions:write"] });
    let (id, key) = made(&a.address, operator, wanted).await;
    until("both know it", SOON, async || {
        status(ask(&b.address, Method::GET, "/v1/sessions", &key)).await == StatusCode::OK
    })
    .await;
    let (of_key, token) = session(&a.address, &key).await;
    let (of_bootstrap, other_token) = session(&a.address, operator).await;
    let token_path = format!("/v1/sessions/{of_key}/token");
    let renewed = json_of(ask(&b.address, Method::POST, &token_path, &token).send().await.unwrap()).await;
    let asked_for = json_of(ask(&b.address, Method::POST, &token_path, &key).send().await.unwrap()).await;
    let code = async |credential: &str| {
        let path = format!("/v1/sessions/{of_key}/handoff");
        text(&json_of(ask(&a.address, Method::POST, &path, credential).send().await.unwrap()).await["code"])
    };
    let exchange = async |code: &str| {
        let answer = ask(&b.address, Method::POST, "/v1/handoff", "").json(&json!({ "code": code }));
        let answer = answer.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let handed_on = text(&exchange(&code(&token).await).await.1["token"]);
    let unused = [code(&token).await, code(&key).await];
    let tokens = [token.clone(), text(&renewed["token"]), text(&asked_for["token"]), handed_on];
    let read = |node: &Node, id: &str, credential: &str| {
        ask(&node.address, Method::GET, &format!("/v1/sessions/{id}"), credential)
    };
    for token in &tokens {
        assert_eq!(status(read(b, &of_key, token)).await, StatusCode::OK);
    }

    let of_service = socket(&a.address, &of_key, &key).await;
    let of_browser = socket(&b.address, &of_key, &token).await;
    let mut of_another = socket(&b.address, &of_bootstrap, &other_token).await;
    // It knows of everything, so it waits.
    let first = frames(poll_with(&a.address, None, &[hello(&of_key, &json!({ "token": key }))], 0)).await;
    let welcome = of_type(&first, "welcome");
    let known = json!({ "token": key, "knownVersion": welcome["version"], "epoch": welcome["epoch"] });
    let polling = tokio::spawn(frames(poll_with(&a.address, None, &[hello(&of_key, &known)], 25_000)));
    until("the poll waits", LONG, async || a.metric("throughline_polls").await.unwrap() == 1.0).await;

    service_keys(&fleet, &["revoke", &id]).unwrap();
    let (service, browser) = tokio::join!(ends(of_service, "unauthorized"), ends(of_browser, "tokenExpired"));
    assert!(service.contains("revoked") && browser.contains("revoked"), "{service}; {browser}");
    let polled = tokio::time::timeout(SOON, polling).await.expect("the poll waits on").unwrap();
    assert_eq!(of_type(&polled, "error")["code"], "unauthorized");
    for node in [a, b] {
        for token in &tokens {
            assert_eq!(outcome(read(node, &of_key, token)).await, (401, "tokenRevoked".to_owned()));
        }
    }
    for code in &unused {
        let (status, refused) = exchange(code).await;
        assert_eq!((status, &refused["code"]), (401, &json!("handoffRefused")), "{refused}");
    }
    let refused = frames(poll_with(&b.address, None, &[hello(&of_key, &json!({ "token": token }))], 0)).await;
    assert_eq!(of_type(&refused, "error")["code"], "unauthorized");

    // What has nothing to do with the key goes on.
    assert_eq!(status(read(b, &of_bootstrap, &other_token)).await, StatusCode::OK);
    of_another.send(Message::text(json!({ "type": "ping" }).to_string())).await.unwrap();
    assert_eq!(frame(&mut of_another, &["pong", "error"]).await["type"], "pong");
}

#[tokio::test]
async fn an_expired_key_is_refused_its_socket_ends_and_what_it_had_made_goes_on() {
    let fleet = fleet();
    let [a, b] = &two_nodes(&fleet, &[]);
    let arguments =
        ["create", "--name", "short", "--scope", "sessions:read", "--scope", "sessions:write", "--expires-in", "10s"];
    let printed = service_keys(&fleet, &arguments).unwrap();
    let key = printed.lines().next().unwrap();
    assert!(key.starts_with("tls_") && printed.contains("shown this once"), "{printed}");
    let list = |node: &Node| ask(&node.address, Method::GET, "/v1/sessions", key);
    until("both know it", SOON, async || {
        status(list(a)).await == StatusCode::OK && status(list(b)).await == StatusCode::OK
    })
    .await;
    let (id, token) = session(&a.address, key).await;
    let mut following = socket(&b.address, &id, key).await;
    let error = frame(&mut following, &["error"]).await;
    assert_eq!(error["code"], "unauthorized");
    assert!(text(&error["message"]).contains("expired at"), "{error}");
    for node in [a, b] {
        until("it is refused", SOON, async || outcome(list(node)).await == (401, "serviceKeyExpired".to_owned())).await;
        let read = ask(&node.address, Method::GET, &format!("/v1/sessions/{id}"), &token);
        assert_eq!(status(read).await, StatusCode::OK, "the browser goes on");
    }
}

#[tokio::test]
async fn keys_stay_good_through_a_restart_of_the_database() {
    let mut fleet = fleet();
    let node = fleet.node("a", &[]).unwrap();
    let wanted = json!({ "name": "back end", "scopes": ["sessions:read", "sessions:write"] });
    let (_, key) = made(&node.address, &fleet.service_key, wanted).await;
    let (id, _) = session(&node.address, &key).await;
    fleet.postgres.stop_fast().unwrap();
    let read = || ask(&node.address, Method::GET, &format!("/v1/sessions/{id}"), &key);
    let unreadable = async || node.metric("throughline_service_keys_readable").await.unwrap() == 0.0;
    until("the server has seen that it is away", LONG, unreadable).await;
    assert_eq!(status(read()).await, StatusCode::OK, "{}", node.log());
    let unknown = ask(&node.address, Method::GET, "/v1/sessions", "tls_made-up");
    assert_eq!(outcome(unknown).await, (401, "serviceKeyUnknown".to_owned()));
    fleet.postgres.start_again().unwrap();
    until("it is read again", LONG, async || !unreadable().await).await;
    let list = || ask(&node.address, Method::GET, "/v1/sessions", &key);
    until("everything is as before", LONG, async || status(list()).await == StatusCode::OK).await;
}

/// What a route may be asked with so that nothing but the scope is in its way.
fn body_of(path: &str) -> Value {
    match path {
        "/v1/sessions/{id}/commands" => json!({ "commands": [{ "type": "setEmail", "email": "ada@example.com" }] }),
        "/v1/service-keys" => json!({ "name": "a", "scopes": ["sessions:read"] }),
        path if path.starts_with("/v1/privacy") => json!({ "email": "ada@example.com" }),
        "/v1/sessions/batch/import" => {
            json!({ "sessions": [{ "id": "ws_1", "legacy": { "database": { "email": "ada@example.com" } } }] })
        }
        "/v1/routes/{route}" => json!({ "mode": "shadow" }),
        "/v1/parity" => json!({ "routes": [{ "route": "checkout", "equal": 1 }] }),
        "/v1/tokens/introspect" => json!({ "token": "none" }),
        "/v1/legacy-cookie" => json!({ "cookie": "none" }),
        "/v1/webhooks" => json!({ "url": "http://127.0.0.1:9/" }),
        "/v1/webhooks/{id}/replay" => json!({ "givenUp": true }),
        path if path.contains("/batch/") || path.starts_with("/v1/cache") => json!({ "ids": ["ws_1"] }),
        _ => json!({}),
    }
}

/// One key for each scope, by its name.
async fn keys_by_scope(dev: &Dev) -> BTreeMap<&'static str, String> {
    let mut keys = BTreeMap::new();
    for scope in SCOPES {
        let (_, key) = made(&dev.address, &dev.service_key, json!({ "name": scope, "scopes": [scope] })).await;
        keys.insert(scope, key);
    }
    keys
}

#[tokio::test]
async fn every_route_asks_for_its_scope_and_says_which_one_is_missing() {
    let dev = dev(&["--open-metrics", "false", "--webhook-networks", "127.0.0.1"]);
    let keys = keys_by_scope(&dev).await;
    let description: Value =
        reqwest::get(format!("http://{}/openapi.json", dev.address)).await.unwrap().json().await.unwrap();
    let mut seen = Vec::new();
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let ways = operation["security"].as_array().into_iter().flatten();
            let Some(asked) = ways.filter_map(|way| way["serviceKey"].as_array()).next() else { continue };
            let asked: Vec<&str> = asked.iter().filter_map(Value::as_str).collect();
            assert!(!asked.is_empty(), "{method} {path} asks for no scope");
            // Its commands ask each for its own, as below.
            let needed = if path.ends_with("/commands") { "sessions:write" } else { asked[0] };
            assert!(path.ends_with("/commands") || asked.len() == 1, "{method} {path} asks for {asked:?}");
            seen.push(format!("{method} {path} {needed}"));
            for scope in SCOPES {
                // Each time with a session of its own: what may be erased is.
                let (id, _) = session(&dev.address, &keys["sessions:write"]).await;
                let url = path.replace("{id}", &id);
                let request = ask(&dev.address, method.to_uppercase().parse().unwrap(), &url, &keys[scope]);
                let request =
                    if operation.get("requestBody").is_some() { request.json(&body_of(path)) } else { request };
                let answer = request.send().await.unwrap();
                let (status, document) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default());
                if scope == needed {
                    let is_done = status < 300
                        || ["serviceKeyNotFound", "webhookNotFound", "legacyCookiesOff"]
                            .iter()
                            .any(|code| document["code"] == *code);
                    assert!(is_done, "{method} {path} with {scope}: {status} {document}");
                } else {
                    let told = (status, document["code"].as_str(), document["scope"].as_str());
                    assert_eq!(told, (403, Some("scopeMissing"), Some(needed)), "{method} {path} with {scope}");
                    assert!(text(&document["detail"]).contains("throughline service-keys create"), "{document}");
                }
            }
        }
    }
    for route in [
        "get /v1/sessions sessions:read",
        "post /v1/sessions sessions:write",
        "patch /v1/sessions/{id} sessions:write",
        "delete /v1/sessions/{id} privacy",
        "post /v1/sessions/batch/delete privacy",
        "post /v1/sessions/{id}/handoff sessions:write",
        "post /v1/sessions/{id}/token sessions:write",
        "get /v1/sessions/{id}/events sessions:read",
        "post /v1/service-keys operator",
        "get /v1/cache operator",
    ] {
        assert!(seen.iter().any(|seen| seen == route), "{route} is not among {seen:?}");
    }
    for scope in SCOPES {
        let scraped = status(ask(&dev.address, Method::GET, "/metrics", &keys[scope])).await;
        assert_eq!(scraped == 200, scope == "sessions:read", "{scope}: {scraped}");
    }
}

/// Commands, with the scopes that they ask for.
fn commands() -> Vec<(&'static str, Value)> {
    let payment = json!({ "transactionId": "t", "amount": 1 });
    let failure = json!({ "code": "declined", "message": "no" });
    let with = |kind: &str, members: &Value| {
        let mut command = json!({ "type": kind });
        command.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        command
    };
    let offer = |members: &Value| {
        with("x", members).as_object_mut().map(|all| {
            all.remove("type");
            all.insert("offer".to_owned(), "RC6".into());
            Value::Object(all.clone())
        })
    };
    vec![
        ("sessions:write", json!({ "type": "setMetadata", "metadata": { "a": 1 } })),
        ("sessions:write", json!({ "type": "setAdjustments", "discount": 1 })),
        ("sessions:write", json!({ "type": "extend" })),
        ("sessions:write", json!({ "type": "expire" })),
        ("payments", with("recordPayment", &payment)),
        ("payments", with("failPayment", &failure)),
        ("payments", with("recordUpsellCharge", &offer(&payment).unwrap())),
        ("payments", with("failUpsellCharge", &offer(&failure).unwrap())),
        ("payments", json!({ "type": "confirmClaims" })),
        ("payments", json!({ "type": "refuteClaims" })),
        ("privacy", json!({ "type": "erase" })),
    ]
}

#[tokio::test]
async fn every_command_asks_for_its_scope() {
    let dev = dev(&[]);
    let keys = keys_by_scope(&dev).await;
    for (needed, command) in commands() {
        for scope in SCOPES {
            let (id, _) = session(&dev.address, &keys["sessions:write"]).await;
            let path = format!("/v1/sessions/{id}/commands");
            let harmless = json!({ "type": "setEmail", "email": "ada@example.com" });
            let body = match scope {
                // The other one could be done.
                "sessions:write" => json!({ "commands": [harmless, command] }),
                _ => json!({ "commands": [command] }),
            };
            let request = ask(&dev.address, Method::POST, &path, &keys[scope]).json(&body);
            let answer = request.send().await.unwrap();
            let (status, document) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
            if scope == needed {
                // Whether the rules accept it is another question.
                assert_eq!(status, 200, "{command} with {scope}: {document}");
                continue;
            }
            let told = (status, document["code"].as_str(), document["scope"].as_str());
            assert_eq!(told, (403, Some("scopeMissing"), Some(needed)), "{command} with {scope}");
            let seen = ask(&dev.address, Method::GET, &format!("/v1/sessions/{id}"), &keys["sessions:read"]);
            let seen = json_of(seen.send().await.unwrap()).await;
            assert!(seen["id"] == json!(id) && seen["email"].is_null(), "none of them was done: {seen}");
        }
    }
}

#[tokio::test]
async fn a_socket_is_for_who_may_read_and_takes_the_commands_that_its_key_may_give() {
    let dev = dev(&[]);
    let keys = keys_by_scope(&dev).await;
    let (id, _) = session(&dev.address, &keys["sessions:write"]).await;
    for scope in SCOPES.into_iter().filter(|scope| *scope != "sessions:read") {
        let said = frames(poll_with(&dev.address, None, &[hello(&id, &json!({ "token": keys[scope] }))], 0)).await;
        let error = of_type(&said, "error");
        assert_eq!(error["code"], "unauthorized");
        assert!(text(&error["message"]).contains("sessions:read"), "{error}");
    }
    let both = json!({ "name": "both", "scopes": ["sessions:read", "payments"] });
    let (_, key) = made(&dev.address, &dev.service_key, both).await;
    let mut socket = socket(&dev.address, &id, &key).await;
    let commands = json!([
        { "clientId": "client", "seq": 1, "type": "setEmail", "email": "ada@example.com" },
        { "clientId": "client", "seq": 2, "type": "erase" },
        { "clientId": "client", "seq": 3, "type": "recordPayment", "transactionId": "t", "amount": 1 },
    ]);
    socket.send(Message::text(json!({ "type": "submit", "commands": commands }).to_string())).await.unwrap();
    for scope in [Some("sessions:write"), Some("privacy"), None] {
        let rejected = frame(&mut socket, &["rejected", "accepted", "error"]).await;
        assert_eq!(rejected["type"], "rejected", "{rejected}");
        let message = text(&rejected["reason"]["message"]);
        match scope {
            Some(scope) => {
                assert_eq!(rejected["reason"]["code"], "notPermitted");
                assert!(message.contains(&format!("scope {scope}")), "{message}");
            }
            None => assert!(!message.contains("scope"), "the rules alone have something against it: {message}"),
        }
    }
}

#[tokio::test]
async fn a_wanted_key_that_could_not_be_is_refused() {
    let dev = dev(&[]);
    for (body, path) in [
        (json!({ "name": "", "scopes": ["payments"] }), "name"),
        (json!({ "name": "a\nb", "scopes": ["payments"] }), "name"),
        (json!({ "name": "a".repeat(65), "scopes": ["payments"] }), "name"),
        (json!({ "name": "a", "scopes": [] }), "scopes"),
        (json!({ "name": "a", "scopes": ["root"] }), "scopes[0]"),
        (json!({ "name": "a", "scopes": ["payments"], "expiresAt": "2020-01-01T00:00:00.000Z" }), "expiresAt"),
    ] {
        let request = ask(&dev.address, Method::POST, "/v1/service-keys", &dev.service_key).json(&body);
        let answer = request.send().await.unwrap();
        let (status, refused) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
        assert_eq!((status, &refused["code"], &refused["path"]), (422, &json!("invalidBody"), &json!(path)), "{body}");
    }
    assert!(listed(&dev.address, &dev.service_key).await.is_empty());
}

#[tokio::test]
async fn keys_of_a_sqlite_file_are_made_listed_and_revoked_beside_the_running_server() {
    let dev = dev(&[]);
    let url = format!("sqlite:{}", dev.server.folder.path().join("data/t.db").display());
    let keys = dev.server.folder.path().join("data/t.db.keys");
    let run = |arguments: &[&str]| {
        let arguments = [&["service-keys"], arguments, &["--database-url", &url]].concat();
        throughline(&arguments).env("THROUGHLINE_KEYS_FILE", &keys).output().unwrap()
    };
    let printed = |arguments: &[&str]| {
        let output = run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let create = ["create", "--name", "back end", "--scope", "sessions:read", "--tenant", "shop-a"];
    let created: Value =
        serde_json::from_str(&printed(&[&create[..], &["--expires-in", "90d", "--json"]].concat())).unwrap();
    let (id, key) = (text(&created["id"]), text(&created["key"]));
    assert!(created["expiresAt"].is_string() && created["createdBy"] == "cli", "{created}");
    let list = || ask(&dev.address, Method::GET, "/v1/sessions", &key);
    until("the server knows it", SOON, async || status(list()).await == StatusCode::OK).await;
    until("its use is seen", LONG, async || {
        let keys: Value = serde_json::from_str(&printed(&["list", "--json"])).unwrap();
        keys[0]["lastUsedAt"].is_string()
    })
    .await;
    let table = printed(&["list"]);
    let (head, line) = table.split_once('\n').unwrap();
    assert!(head.starts_with("key ") && head.ends_with("scopes"), "{table}");
    assert!(line.starts_with(&id) && line.contains("shop-a") && line.contains("back end"), "{table}");
    assert!(line.contains("good") && line.trim_end().ends_with("sessions:read"), "{table}");
    assert!(!table.contains(&key) && !table.contains(&key[4..]), "no secrets");
    assert_eq!(printed(&["list", "--tenant", "shop-b"]).lines().count(), 1);

    assert!(printed(&["revoke", &id]).contains("within a second"));
    assert!(printed(&["revoke", &id]).contains("before"));
    until("the server refuses it", SOON, async || status(list()).await == StatusCode::UNAUTHORIZED).await;
    assert!(printed(&["list"]).contains("revoked"));

    for (arguments, why) in [
        (&["revoke", "0123456789abcdef"][..], "service-keys list"),
        (&["create", "--name", "a", "--scope", "root"], "sessions:read"),
        (&["create", "--name", "", "--scope", "payments"], "1 to 64 characters"),
        (&["create", "--name", "a"], "--scope"),
        (&["create", "--name", "a", "--scope", "payments", "--expires-in", "0s"], "--expires-in"),
    ] {
        let refused = failure(&run(arguments));
        assert!(refused.contains(why), "{arguments:?}: {refused}");
    }
}

#[tokio::test]
async fn without_a_key_in_the_configuration_a_server_lives_by_those_of_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("data/t.db").display());
    let keys = folder.path().join("keys").display().to_string();
    assert!(throughline(&["keys", "generate", "--keys-file", &keys]).output().unwrap().status.success());
    assert!(throughline(&["migrate", "--database-url", &url]).output().unwrap().status.success());
    let create = ["service-keys", "create", "--name", "admin", "--scope", "operator", "--database-url", &url];
    let create = [&create[..], &["--keys-file", &keys]].concat();
    let printed = String::from_utf8(throughline(&create).output().unwrap().stdout).unwrap();
    let key = printed.lines().next().unwrap();
    let mut server = start(folder, &["--keys-file", &keys]);
    let address = address(&server.line()).to_owned();
    assert_eq!(listed(&address, key).await.len(), 1, "it is known from the first request on");
}

const SHOP_A: &str = "https://shop-a.example";
const SHOP_B: &str = "https://shop-b.example";

#[tokio::test]
async fn pages_of_two_origins_have_the_sessions_of_two_tenants() {
    let fleet = fleet();
    let origins = format!("{SHOP_A}=shop-a,{SHOP_B}=shop-b,https://single.example");
    let [a, b] = &two_nodes(&fleet, &["--allowed-origins", &origins]);
    let key_of = |tenant: &str| {
        let scopes = ["--scope", "sessions:read", "--scope", "sessions:write"];
        let arguments = ["create", "--name", "back end", "--tenant", tenant];
        service_keys(&fleet, &[&arguments[..], &scopes].concat()).unwrap().lines().next().unwrap().to_owned()
    };
    let (key_a, key_b) = (key_of("shop-a"), key_of("shop-b"));
    let ids = async |key: &str| {
        let list = json_of(ask(&b.address, Method::GET, "/v1/sessions", key).send().await.unwrap()).await;
        let sessions = list["sessions"].as_array().unwrap();
        let mut ids: Vec<String> = sessions.iter().map(|session| text(&session["id"])).collect();
        ids.sort();
        ids
    };
    until("the keys are known", SOON, async || {
        status(ask(&b.address, Method::GET, "/v1/sessions", &key_a)).await == 200
            && status(ask(&b.address, Method::GET, "/v1/sessions", &key_b)).await == 200
    })
    .await;

    // Over REST, without a credential.
    let created = async |origin: Option<&str>| {
        let request = Client::new().post(format!("http://{}/v1/sessions", a.address)).json(&json!({}));
        let request = origin.into_iter().fold(request, |request, origin| request.header("origin", origin));
        let created = json_of(request.send().await.unwrap()).await;
        (text(&created["session"]["id"]), text(&created["token"]))
    };
    let ((rest_a, token_a), (rest_b, _)) = (created(Some(SHOP_A)).await, created(Some(SHOP_B)).await);
    let others = [
        created(None).await.0,
        created(Some("https://single.example")).await.0,
        created(Some("https://x.example")).await.0,
    ];
    let read = |id: &str, credential: &str| ask(&b.address, Method::GET, &format!("/v1/sessions/{id}"), credential);
    assert_eq!(status(read(&rest_a, &token_a)).await, 200);
    assert_eq!(outcome(read(&rest_b, &token_a)).await, (403, "wrongSession".to_owned()));
    for (id, own, other) in [(&rest_a, &key_a, &key_b), (&rest_b, &key_b, &key_a)] {
        assert_eq!(status(read(id, own)).await, 200);
        assert_eq!(outcome(read(id, other)).await, (404, "sessionNotFound".to_owned()));
        let handoff = ask(&b.address, Method::POST, &format!("/v1/sessions/{id}/handoff"), other);
        assert_eq!(outcome(handoff).await.0, 404);
        let following = frames(poll_with(&b.address, None, &[hello(id, &json!({ "token": other }))], 0)).await;
        assert_eq!(of_type(&following, "error")["code"], "sessionNotFound");
    }
    for id in &others {
        assert_eq!(status(read(id, &fleet.service_key)).await, 200, "of the single tenant");
    }

    // Over the socket's frames, with a claim: even one id with one claim is two sessions.
    let Identity { session_id, claim, .. } = Identity::new();
    let same = session_id.as_str();
    let begin = async |node: &Node, origin: &str, email: &str| {
        let create = json!({ "clientId": "client", "seq": 1, "type": "create", "email": email });
        let submit = json!({ "type": "submit", "commands": [create] });
        let told =
            frames(poll_with(&node.address, Some(origin), &[hello(same, &json!({ "claim": claim })), submit], 0)).await;
        assert!(of_type(&told, "accepted").get("repeated").is_none(), "{told:?}");
        text(&of_type(&told, "token")["token"])
    };
    let of_a = begin(a, SHOP_A, "a@example.com").await;
    let of_b = begin(b, SHOP_B, "b@example.com").await;
    let email = async |node: &Node, credential: &str| {
        let read = ask(&node.address, Method::GET, &format!("/v1/sessions/{same}"), credential);
        text(&json_of(read.send().await.unwrap()).await["email"])
    };
    for node in [a, b] {
        for (token, key, address) in [(&of_a, &key_a, "a@example.com"), (&of_b, &key_b, "b@example.com")] {
            assert_eq!((email(node, token).await.as_str(), email(node, key).await.as_str()), (address, address));
        }
    }
    assert_eq!(status(read(same, &fleet.service_key)).await, 404, "the single tenant has none");

    // What is told of one is not told to who follows the other, on either server.
    let (mut at_a, mut at_b) = (socket(&b.address, same, &of_a).await, socket(&a.address, same, &of_b).await);
    for (node, token, value) in [(a, &of_a, "for a"), (b, &of_b, "for b")] {
        let command = json!({ "commands": [{ "type": "setMetadata", "metadata": { "note": value } }] });
        let path = format!("/v1/sessions/{same}/commands");
        json_of(ask(&node.address, Method::POST, &path, token).json(&command).send().await.unwrap()).await;
    }
    for (socket, own, other) in [(&mut at_a, "for a", "for b"), (&mut at_b, "for b", "for a")] {
        loop {
            let told = frame(socket, &["events", "snapshot"]).await.to_string();
            assert!(!told.contains(other), "{told}");
            if told.contains(own) {
                break;
            }
        }
    }

    // One idempotency key of two tenants is two requests.
    let once = async |key: &str| {
        let request = ask(&a.address, Method::POST, "/v1/sessions", key).header("idempotency-key", "once");
        let answer = request.json(&json!({})).send().await.unwrap();
        assert!(!answer.headers().contains_key("idempotent-replayed"));
        text(&json_of(answer).await["session"]["id"])
    };
    let (once_a, once_b) = (once(&key_a).await, once(&key_b).await);
    assert_ne!(once_a, once_b);
    let sorted = |ids: [&str; 3]| {
        let mut ids = ids.map(str::to_owned).to_vec();
        ids.sort();
        ids
    };
    until("the lists have everything", LONG, async || {
        ids(&key_a).await == sorted([same, &rest_a, &once_a]) && ids(&key_b).await == sorted([same, &rest_b, &once_b])
    })
    .await;

    // In Redis and in the database they lie under names of their own.
    let names = fleet.redis.command(&["KEYS", "*"]).unwrap();
    for tenant in ["shop-a", "shop-b"] {
        assert!(names.lines().any(|name| name.ends_with(&format!(":s:{tenant}/{same}"))), "{names}");
    }
    for table in ["sessions", "journal"] {
        let tenants = format!(
            "DO $$ BEGIN ASSERT (SELECT array_agg(DISTINCT tenant ORDER BY tenant) FROM {table} WHERE session_id = '{same}')
             = ARRAY['shop-a', 'shop-b']; END $$"
        );
        fleet.postgres.execute("shop", &tenants).unwrap();
    }
}

#[test]
fn an_origin_of_two_tenants_is_refused_at_the_start() {
    let origins = format!("{SHOP_A}=shop-a,{SHOP_A}=shop-b");
    let refused = failure(&throughline(&["serve", "--dev", "--allowed-origins", &origins]).output().unwrap());
    assert!(refused.contains("allowed_origins") && refused.contains("two tenants"), "{refused}");
    let no_tenant = format!("{SHOP_A}=Shop A");
    let refused = failure(&throughline(&["serve", "--dev", "--allowed-origins", &no_tenant]).output().unwrap());
    assert!(refused.contains("no tenant"), "{refused}");
}
