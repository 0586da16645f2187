//! Tokens that end before their time, on every server: when access to a session is revoked, and when it is paid.

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use throughline_test_services::fleet::{Fleet, Node};
use throughline_test_services::tcp_proxy::TcpProxy;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::fleets::{LONG, fleet, logs, post, until};

const CLAIM: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Within which time every server knows.
const EVERYWHERE: Duration = Duration::from_secs(1);

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

struct Socket(WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>);

impl Socket {
    /// A socket that has said hello.
    async fn greeted(node: &Node, id: &str, client: &str, credentials: Value) -> Self {
        let mut request = format!("ws://{}/v1/sync", node.address).into_client_request().unwrap();
        let subprotocol = HeaderValue::from_static("throughline.v1");
        request.headers_mut().insert("sec-websocket-protocol", subprotocol);
        let (stream, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        let mut socket = Self(stream);
        socket.say(hello(id, client, credentials)).await;
        socket
    }

    async fn say(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn message(&mut self, limit: Duration) -> Option<Message> {
        let next = tokio::time::timeout(limit, self.0.next()).await;
        next.unwrap_or_else(|_| panic!("the server said nothing for {limit:?}")).map(|message| message.unwrap())
    }

    /// The next frame of this type; others are passed over, but no error.
    async fn next(&mut self, name: &str) -> Value {
        loop {
            if let Some(Message::Text(text)) = self.message(Duration::from_secs(5)).await {
                let frame: Value = serde_json::from_str(&text).unwrap();
                assert!(frame["type"] == name || frame["type"] != "error", "no {name}: {frame}");
                if frame["type"] == name {
                    return frame;
                }
            }
        }
    }

    /// Expects to be sent away, and to hear nothing else before.
    async fn ends(&mut self, code: &str, close: u16, limit: Duration) {
        let begun = Instant::now();
        loop {
            match self.message(limit).await {
                Some(Message::Text(text)) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!((&frame["type"], &frame["code"]), (&json!("error"), &json!(code)), "{frame}");
                }
                Some(Message::Close(Some(frame))) => {
                    assert_eq!(u16::from(frame.code), close);
                    assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
                    return;
                }
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Passes over everything that is there already.
    async fn catch_up(&mut self) {
        self.say(json!({ "type": "ping" })).await;
        self.next("pong").await;
    }
}

fn hello(id: &str, client: &str, credentials: Value) -> Value {
    let mut hello = json!({ "type": "hello", "protocol": 1, "sessionId": id, "clientId": client, "knownVersion": 0 });
    hello.as_object_mut().unwrap().extend(credentials.as_object().unwrap().clone());
    hello
}

/// A shop with its servers.
struct Shop {
    fleet: Fleet,
    client: Client,
}

impl Shop {
    fn new() -> Self {
        // Servers are started anew meanwhile: no request goes to one that is gone.
        Self { fleet: fleet(), client: Client::builder().timeout(LONG).pool_max_idle_per_host(0).build().unwrap() }
    }

    async fn ask(&self, node: &Node, method: Method, path: &str, credential: &str, body: &Value) -> (u16, Value) {
        let request = self.client.request(method, format!("http://{}{path}", node.address)).bearer_auth(credential);
        let answer = request.json(body).send().await.unwrap();
        let status = answer.status().as_u16();
        if status == 401 {
            assert_eq!(answer.headers()["www-authenticate"], "Bearer error=\"invalid_token\"");
        }
        (status, answer.json().await.unwrap_or_default())
    }

    async fn status(&self, node: &Node, id: &str, credential: &str) -> u16 {
        self.ask(node, Method::GET, &format!("/v1/sessions/{id}"), credential, &Value::Null).await.0
    }

    /// A browser's session: its id and token.
    async fn session(&self, node: &Node) -> (String, String) {
        let body = json!({ "email": "ada@example.com", "products": [{ "id": "fitspresso-1-pack", "quantity": 1 }] });
        let url = format!("http://{}/v1/sessions", node.address);
        let answer = self.client.post(url).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED, "{}", node.log());
        let created: Value = answer.json().await.unwrap();
        (text(&created["session"]["id"]), text(&created["token"]))
    }

    /// A session that a browser created by itself, with its claim: its token.
    async fn claimed(&self, node: &Node, id: &str) -> String {
        let mut socket = Socket::greeted(node, id, "creator", json!({ "claim": CLAIM })).await;
        let create = json!({
            "clientId": "creator", "seq": 1, "type": "create", "email": "ada@example.com",
            "products": [{ "id": "fitspresso-1-pack", "quantity": 1 }]
        });
        socket.say(json!({ "type": "submit", "commands": [create] })).await;
        text(&socket.next("token").await["token"])
    }

    async fn command(&self, node: &Node, id: &str, command: Value) {
        let path = format!("/v1/sessions/{id}/commands");
        let answer = post(&self.fleet, node, &path, &json!({ "commands": [command] })).send().await.unwrap();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["results"][0]["outcome"], "accepted", "{body}");
    }

    async fn revoke(&self, node: &Node, id: &str) {
        self.command(node, id, json!({ "type": "revokeAccess" })).await;
    }

    async fn pay(&self, node: &Node, id: &str) {
        self.command(node, id, json!({ "type": "recordPayment", "transactionId": "t-1", "amount": 7900 })).await;
    }

    async fn code(&self, node: &Node, id: &str, credential: &str) -> String {
        let path = format!("/v1/sessions/{id}/handoff");
        let (status, answer) = self.ask(node, Method::POST, &path, credential, &json!({})).await;
        assert_eq!(status, 201, "{answer}");
        text(&answer["code"])
    }

    async fn exchange(&self, node: &Node, body: Value) -> (u16, Value) {
        let url = format!("http://{}/v1/handoff", node.address);
        let answer = self.client.post(url).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// What a server answers to one request instead of a socket.
    async fn poll(&self, node: &Node, id: &str, credentials: Value, wait_ms: u64) -> Vec<Value> {
        let body = json!({ "frames": [hello(id, "poller", credentials)], "waitMs": wait_ms });
        let url = format!("http://{}/v1/sync", node.address);
        let answer: Value = self.client.post(url).json(&body).send().await.unwrap().json().await.unwrap();
        answer["frames"].as_array().unwrap_or_else(|| panic!("no frames: {answer}")).clone()
    }

    /// Every way in which a browser's token is taken.
    async fn all_with_token(&self, node: &Node, id: &str, token: &str) -> Vec<(String, u16, Value)> {
        let email = json!({ "commands": [{ "type": "setMetadata", "metadata": { "late": true } }] });
        let routes = [
            (Method::GET, "", Value::Null),
            (Method::PATCH, "", json!({ "metadata": { "late": true } })),
            (Method::DELETE, "", Value::Null),
            (Method::POST, "/commands", email),
            (Method::POST, "/extend", json!({})),
            (Method::POST, "/token", json!({})),
            (Method::POST, "/handoff", json!({})),
            (Method::POST, "/validate", json!({})),
            (Method::GET, "/events", Value::Null),
        ];
        let mut answers = Vec::new();
        for (method, route, body) in routes {
            let name = format!("{method} {route}");
            let path = format!("/v1/sessions/{id}{route}");
            let (status, answer) = self.ask(node, method, &path, token, &body).await;
            answers.push((name, status, answer));
        }
        answers
    }

    async fn assert_refused(&self, node: &Node, id: &str, token: &str) {
        for (route, status, answer) in self.all_with_token(node, id, token).await {
            assert_eq!((status, &answer["code"]), (401, &json!("tokenRevoked")), "{route}: {answer}");
        }
        let frames = self.poll(node, id, json!({ "token": token }), 0).await;
        assert_eq!(frames.len(), 1, "{frames:?}");
        assert_eq!(frames[0]["code"], "tokenRevoked", "{frames:?}");
        let mut socket = Socket::greeted(node, id, "late", json!({ "token": token })).await;
        socket.ends("tokenRevoked", 4405, Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn asvs_7_4_2_what_one_server_revokes_is_refused_by_all_and_stays_refused() {
    let shop = Shop::new();
    let here = shop.fleet.node("here", &[]).unwrap();
    let mut there = shop.fleet.node("there", &[]).unwrap();
    let id = "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa";
    let token = shop.claimed(&here, id).await;
    for node in [&here, &there] {
        assert_eq!(shop.status(node, id, &token).await, 200, "{}", logs(&[&here, &there]));
    }
    let code = shop.code(&there, id, &token).await;
    let other_code = shop.code(&there, id, &token).await;
    let lent = "a secret of the other browser, and of nobody else";
    let (status, theirs) = shop.exchange(&there, json!({ "code": other_code, "claim": lent })).await;
    assert_eq!(status, 200, "{theirs}");
    let theirs = text(&theirs["token"]);
    let mut sockets = Vec::new();
    for (index, node) in [&here, &there].into_iter().enumerate() {
        let mut by_token = Socket::greeted(node, id, &format!("token-{index}"), json!({ "token": token })).await;
        let mut by_claim = Socket::greeted(node, id, &format!("claim-{index}"), json!({ "claim": CLAIM })).await;
        by_token.catch_up().await;
        by_claim.catch_up().await;
        sockets.push((by_token, by_claim));
    }
    let waiting = shop.poll(&there, id, json!({ "token": token }), 0).await;
    let known = waiting.iter().find(|frame| frame["type"] == "welcome").unwrap().clone();
    let credentials = json!({ "token": token, "knownVersion": known["version"], "epoch": known["epoch"] });
    let waiting = shop.poll(&there, id, credentials, 10_000);
    let revoked = async {
        let is_there = async || there.metric("throughline_polls").await.is_ok_and(|polls| polls >= 1.0);
        until("the request waits", LONG, is_there).await;
        shop.revoke(&here, id).await;
        let begun = Instant::now();
        until("the other server refuses it", EVERYWHERE, async || shop.status(&there, id, &token).await == 401).await;
        for (by_token, by_claim) in &mut sockets {
            by_token.ends("tokenRevoked", 4405, EVERYWHERE).await;
            by_claim.ends("unauthorized", 4401, EVERYWHERE).await;
        }
        begun.elapsed()
    };
    let (waited, took) = tokio::join!(waiting, revoked);
    assert!(took < EVERYWHERE, "{took:?}");
    assert_eq!(waited.last().unwrap()["code"], "tokenRevoked", "{waited:?}");

    let check = async |node: &Node| {
        for token in [&token, &theirs] {
            shop.assert_refused(node, id, token).await;
        }
        for claim in [CLAIM, lent] {
            for credentials in [json!({ "claim": claim }), json!({ "claim": claim, "token": token })] {
                let frames = shop.poll(node, id, credentials, 0).await;
                assert_eq!(frames.len(), 1, "{frames:?}");
                assert_eq!(frames[0]["code"], "unauthorized", "{frames:?}");
            }
        }
        let (status, refused) = shop.exchange(node, json!({ "code": code })).await;
        assert_eq!((status, &refused["code"]), (401, &json!("handoffRefused")), "{refused}");
    };
    check(&there).await;
    shop.fleet.redis.command(&["FLUSHALL"]).unwrap();
    check(&there).await;
    check(&here).await;
    shop.fleet.redis.command(&["FLUSHALL"]).unwrap();
    there.stop().unwrap();
    there.start_again().unwrap();
    check(&there).await;

    // The shop lets somebody go on with it.
    let path = format!("/v1/sessions/{id}/token");
    let (_, answer) = shop.ask(&here, Method::POST, &path, &shop.fleet.service_key, &json!({})).await;
    let new = text(&answer["token"]);
    for node in [&here, &there] {
        assert_eq!(shop.status(node, id, &new).await, 200);
    }
    let (_, session) = shop.ask(&there, Method::GET, &format!("/v1/sessions/{id}"), &new, &Value::Null).await;
    assert_eq!(session["metadata"], json!({}), "nothing of what came too late was done");
}

#[tokio::test]
async fn asvs_7_2_4_when_it_is_paid_old_tokens_end_and_whoever_is_there_gets_a_new_one() {
    let shop = Shop::new();
    let nodes = [shop.fleet.node("a", &[]).unwrap(), shop.fleet.node("b", &[]).unwrap()];
    let [here, there] = &nodes;
    let id = "ws_1_bbbbbbbbbbbbbbbbbbbbbbbbb";
    let token = shop.claimed(here, id).await;
    let code = shop.code(here, id, &token).await;
    let mut by_token = Socket::greeted(there, id, "token", json!({ "token": token })).await;
    let mut by_claim = Socket::greeted(there, id, "claim", json!({ "claim": CLAIM })).await;
    by_token.catch_up().await;
    by_claim.catch_up().await;
    shop.pay(here, id).await;
    let begun = Instant::now();
    for socket in [&mut by_token, &mut by_claim] {
        let frame = tokio::time::timeout(EVERYWHERE, socket.next("token")).await;
        let new = text(&frame.expect("a new token came in time")["token"]);
        for node in &nodes {
            assert_eq!(shop.status(node, id, &new).await, 200, "{}", logs(&[here, there]));
        }
        // It greets again with what it had, submits, and goes on.
        socket.catch_up().await;
    }
    until("the old one is refused", EVERYWHERE.saturating_sub(begun.elapsed()), async || {
        shop.status(there, id, &token).await == 401
    })
    .await;
    by_token.say(hello(id, "token", json!({ "token": token }))).await;
    by_token.next("snapshot").await;
    let more = json!({ "clientId": "token", "seq": 1, "type": "setMetadata", "metadata": { "more": true } });
    by_token.say(json!({ "type": "submit", "commands": [more] })).await;
    by_token.next("accepted").await;
    for node in &nodes {
        shop.assert_refused(node, id, &token).await;
        let (status, refused) = shop.exchange(node, json!({ "code": code })).await;
        assert_eq!((status, &refused["code"]), (401, &json!("handoffRefused")), "{refused}");
        // Who was away comes back with the claim, also where the old token comes with it.
        let frames = shop.poll(node, id, json!({ "claim": CLAIM, "token": token }), 0).await;
        let new = frames.iter().find(|frame| frame["type"] == "token").unwrap_or_else(|| panic!("{frames:?}"));
        assert_eq!(shop.status(node, id, &text(&new["token"])).await, 200);
    }
}

#[tokio::test]
async fn a_new_token_is_good_on_a_server_that_has_not_heard_of_the_payment() {
    let shop = Shop::new();
    let here = shop.fleet.node("here", &[]).unwrap();
    // It hears through a way that can be held up.
    let way = TcpProxy::to(shop.fleet.redis.address()).unwrap();
    let redis = shop.fleet.redis.url_through(way.address());
    let there = shop.fleet.node_on("there", &shop.fleet.postgres.url("shop"), Some(&redis), &[]).unwrap();
    way.delay(Duration::from_millis(150));
    for round in 0..5 {
        let (id, token) = shop.session(&here).await;
        assert_eq!(shop.status(&there, &id, &token).await, 200);
        shop.pay(&here, &id).await;
        let path = format!("/v1/sessions/{id}/token");
        let (_, answer) = shop.ask(&here, Method::POST, &path, &shop.fleet.service_key, &json!({})).await;
        // At once, whether the news is there or not.
        assert_eq!(shop.status(&there, &id, &text(&answer["token"])).await, 200, "round {round}");
        until("the old one is refused", EVERYWHERE, async || shop.status(&there, &id, &token).await == 401).await;
    }
}

#[tokio::test]
async fn a_server_whose_link_to_redis_is_silent_does_not_believe_its_memory() {
    let shop = Shop::new();
    let here = shop.fleet.node("here", &[]).unwrap();
    let way = TcpProxy::to(shop.fleet.redis.address()).unwrap();
    let redis = shop.fleet.redis.url_through(way.address());
    let there = shop.fleet.node_on("there", &shop.fleet.postgres.url("shop"), Some(&redis), &[]).unwrap();
    let (id, token) = shop.session(&here).await;
    assert_eq!(shop.status(&there, &id, &token).await, 200);
    let mut socket = Socket::greeted(&there, &id, "follower", json!({ "token": token })).await;
    socket.catch_up().await;
    // Nothing says that it is broken, and nothing comes.
    way.freeze();
    shop.revoke(&here, &id).await;
    // A link that says nothing for 1 s counts as interrupted, and is looked at every 100 ms.
    let limit = Duration::from_millis(1500);
    until("it is refused there", limit, async || shop.status(&there, &id, &token).await == 401).await;
    socket.ends("tokenRevoked", 4405, Duration::from_secs(3)).await;
}

#[tokio::test]
async fn an_answer_that_was_kept_is_not_replayed_to_a_token_that_was_revoked() {
    let shop = Shop::new();
    let node = shop.fleet.node("a", &[]).unwrap();
    let (id, token) = shop.session(&node).await;
    let url = format!("http://{}/v1/sessions/{id}", node.address);
    let patch = async |token: &str| {
        let request = shop.client.patch(&url).bearer_auth(token).header("idempotency-key", "once");
        let answer = request.json(&json!({ "metadata": { "kept": true } })).send().await.unwrap();
        (answer.status().as_u16(), answer.headers().contains_key("idempotent-replayed"))
    };
    assert_eq!(patch(&token).await, (200, false));
    assert_eq!(patch(&token).await, (200, true));
    shop.revoke(&node, &id).await;
    assert_eq!(patch(&token).await, (401, false));
}

#[tokio::test]
async fn asvs_7_4_5_only_a_service_revokes_access() {
    let shop = Shop::new();
    let node = shop.fleet.node("a", &[]).unwrap();
    let (id, token) = shop.session(&node).await;
    let body = json!({ "commands": [{ "type": "revokeAccess" }] });
    let (status, answer) = shop.ask(&node, Method::POST, &format!("/v1/sessions/{id}/commands"), &token, &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["results"][0]["reason"]["code"], "notPermitted", "{answer}");
    assert_eq!(shop.status(&node, &id, &token).await, 200);
}

#[tokio::test]
async fn asvs_7_5_2_one_token_is_ended_on_every_server_and_the_others_go_on() {
    let shop = Shop::new();
    let here = shop.fleet.node("here", &[]).unwrap();
    let mut there = shop.fleet.node("there", &[]).unwrap();
    let id = "ws_1_fffffffffffffffffffffffff";
    let mine = shop.claimed(&here, id).await;
    let path = format!("/v1/sessions/{id}/token");
    let (_, answer) = shop.ask(&here, Method::POST, &path, &shop.fleet.service_key, &json!({})).await;
    let leaked = text(&answer["token"]);
    let (_, answer) = shop.ask(&there, Method::POST, &path, &leaked, &json!({})).await;
    let renewed = text(&answer["token"]);
    let code = shop.code(&there, id, &leaked).await;
    let mut thief = Socket::greeted(&there, id, "thief", json!({ "token": renewed })).await;
    let mut buyer = Socket::greeted(&there, id, "buyer", json!({ "token": mine })).await;
    thief.catch_up().await;
    buyer.catch_up().await;

    let revoke = async |node: &Node, body: Value| {
        let url = format!("http://{}/v1/tokens/revoke", node.address);
        shop.client.post(url).json(&body).send().await.unwrap().status()
    };
    assert_eq!(revoke(&here, json!({ "token": leaked })).await, 204);
    thief.ends("tokenRevoked", 4405, EVERYWHERE).await;
    until("the other server refuses it", EVERYWHERE, async || shop.status(&there, id, &leaked).await == 401).await;
    let check = async |node: &Node| {
        for token in [&leaked, &renewed] {
            shop.assert_refused(node, id, token).await;
        }
        let (status, refused) = shop.exchange(node, json!({ "code": code })).await;
        assert_eq!((status, &refused["code"]), (401, &json!("handoffRefused")), "{refused}");
        assert_eq!(shop.status(node, id, &mine).await, 200);
    };
    check(&here).await;
    check(&there).await;
    shop.fleet.redis.command(&["FLUSHALL"]).unwrap();
    there.stop().unwrap();
    there.start_again().unwrap();
    check(&there).await;
    // What is no token, or ended, is as good as ended.
    for text in [&leaked, "v4.local.no", "", &shop.fleet.service_key] {
        assert_eq!(revoke(&here, json!({ "token": text })).await, 204, "{text}");
    }

    // With its secret the browser has nothing left. Without, it comes back.
    assert_eq!(revoke(&here, json!({ "token": mine })).await, 204);
    let frames = shop.poll(&here, id, json!({ "claim": CLAIM, "token": mine }), 0).await;
    let again = text(&frames.iter().find(|frame| frame["type"] == "token").unwrap()["token"]);
    assert_eq!(revoke(&here, json!({ "token": again, "claim": CLAIM })).await, 204);
    let frames = shop.poll(&here, id, json!({ "claim": CLAIM }), 0).await;
    assert_eq!((frames.len(), &frames[0]["code"]), (1, &json!("unauthorized")), "{frames:?}");
}
