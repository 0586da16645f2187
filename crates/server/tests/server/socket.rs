//! The sync socket, spoken to without the SDK.

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::binary::{Dev, dev};
use super::fleets::LONG;

pub const CLAIM: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>,
    pub id: String,
    pub client: &'static str,
}

pub async fn open(dev: &Dev, headers: &[(&'static str, &str)]) -> Result<Socket, Error> {
    open_at(&dev.address, headers).await
}

async fn open_at(address: &str, headers: &[(&'static str, &str)]) -> Result<Socket, Error> {
    let mut request = format!("ws://{address}/v1/sync").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    let (stream, _) = tokio_tungstenite::connect_async(request).await?;
    Ok(Socket { stream, id: String::new(), client: "" })
}

const SUBPROTOCOL: (&str, &str) = ("sec-websocket-protocol", "throughline.v1");

/// A socket that has said hello with a claim; no other frame was read.
async fn greeted(dev: &Dev, id: &str, client: &'static str, claim: &str) -> Socket {
    greeted_at(&dev.address, id, client, claim).await
}

/// The same at any server's address.
pub async fn greeted_at(address: &str, id: &str, client: &'static str, claim: &str) -> Socket {
    let mut socket = open_at(address, &[SUBPROTOCOL]).await.unwrap();
    socket.id = id.to_owned();
    socket.client = client;
    socket.hello(json!({ "claim": claim })).await;
    socket
}

/// A socket that follows a session that it has created.
async fn created(dev: &Dev, id: &str) -> Socket {
    let mut socket = greeted(dev, id, "first", CLAIM).await;
    assert_eq!(socket.next("welcome").await["version"], 0);
    socket.submit(1, json!({ "type": "create", "products": [{ "id": "fitspresso-1-pack", "quantity": 1 }] })).await;
    socket.next("accepted").await;
    socket
}

impl Socket {
    async fn send(&mut self, frame: Value) {
        self.stream.send(Message::text(frame.to_string())).await.unwrap();
    }

    pub async fn hello(&mut self, more: Value) {
        let mut hello =
            json!({ "type": "hello", "protocol": 1, "sessionId": self.id, "clientId": self.client, "knownVersion": 0 });
        hello.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.send(hello).await;
    }

    pub async fn submit(&mut self, seq: u64, command: Value) {
        self.submit_traced(seq, [command], Value::Null).await;
    }

    /// Several at once, and what the frame says of their traces.
    pub async fn submit_traced<const N: usize>(&mut self, first: u64, commands: [Value; N], traceparents: Value) {
        let numbered = (first..).zip(commands).map(|(seq, command)| {
            let mut numbered = json!({ "clientId": self.client, "seq": seq });
            numbered.as_object_mut().unwrap().extend(command.as_object().unwrap().clone());
            numbered
        });
        let mut frame = json!({ "type": "submit", "commands": numbered.collect::<Vec<Value>>() });
        if !traceparents.is_null() {
            frame["traceparents"] = traceparents;
        }
        self.send(frame).await;
    }

    async fn message(&mut self) -> Option<Message> {
        let next = tokio::time::timeout(Duration::from_secs(5), self.stream.next());
        next.await.expect("the server said nothing for 5 s").map(|message| message.unwrap())
    }

    /// The next frame of this type; others are passed over, but no error.
    pub async fn next(&mut self, name: &str) -> Value {
        let frame = self.next_of(&[name, "error"]).await;
        assert_eq!(frame["type"], name, "{frame}");
        frame
    }

    /// The next frame of one of these types; others are passed over.
    pub async fn next_of(&mut self, names: &[&str]) -> Value {
        loop {
            match self.message().await {
                Some(Message::Text(text)) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    if names.iter().any(|name| frame["type"] == *name) {
                        return frame;
                    }
                }
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("expected {names:?}, got {other:?}"),
            }
        }
    }

    /// Expects an error frame with this code, and the close code that belongs to it.
    pub async fn refused(&mut self, code: &str, close: u16) -> String {
        let error = self.next_of(&["error"]).await;
        assert_eq!(error["code"], code, "{error}");
        let Some(Message::Close(Some(frame))) = self.message().await else { panic!("no close frame came") };
        assert_eq!(u16::from(frame.code), close);
        error["message"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_session_is_created_with_a_claim_and_its_browser_gets_a_token() {
    let dev = dev(&[]);
    let mut socket = greeted(&dev, "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa", "first", CLAIM).await;
    assert_eq!(socket.next("welcome").await["version"], 0);
    socket.submit(1, json!({ "type": "create", "products": [{ "id": "fitspresso-1-pack", "quantity": 1 }] })).await;
    let token = socket.next("token").await["token"].as_str().unwrap().to_owned();
    let mut with_token = open(&dev, &[SUBPROTOCOL]).await.unwrap();
    with_token.id = "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa".to_owned();
    with_token.client = "with-token";
    with_token.hello(json!({ "token": token })).await;
    with_token.next("snapshot").await;

    let mut same_buyer = greeted(&dev, "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa", "second", CLAIM).await;
    assert_eq!(same_buyer.next("snapshot").await["state"]["session"]["amount"], 7900);
    let mut somebody_else = greeted(&dev, "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa", "third", &CLAIM.replace('0', "1")).await;
    somebody_else.refused("unauthorized", 4401).await;
}

#[tokio::test]
async fn who_waits_for_somebody_elses_session_hears_nothing_of_it() {
    let dev = dev(&[]);
    let id = "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa";
    let mut stranger = greeted(&dev, id, "stranger", &CLAIM.replace('0', "1")).await;
    assert_eq!(stranger.next("welcome").await["version"], 0);
    let mut owner = greeted(&dev, id, "first", CLAIM).await;
    owner.submit(1, json!({ "type": "create", "email": "ada@example.com" })).await;
    owner.next("accepted").await;
    // The very next frame ends it; none of the session's came before.
    let frame = loop {
        match stranger.message().await {
            Some(Message::Text(frame)) => break frame,
            Some(Message::Ping(_)) => {}
            other => panic!("expected an error, got {other:?}"),
        }
    };
    assert!(frame.contains("unauthorized") && !frame.contains("ada@"), "{frame}");
}

#[tokio::test]
async fn a_browser_cannot_take_an_id_that_somebody_else_would_choose() {
    let dev = dev(&[]);
    let mut socket = greeted(&dev, "order-7", "first", CLAIM).await;
    socket.next("welcome").await;
    socket.submit(1, json!({ "type": "create" })).await;
    assert_eq!(socket.next("rejected").await["reason"]["code"], "notPermitted");
}

#[tokio::test]
async fn a_change_reaches_every_other_client_within_a_tenth_of_a_second() {
    let dev = dev(&[]);
    let mut sender = created(&dev, "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa").await;
    let mut others = Vec::new();
    for client in ["second", "third"] {
        let mut other = greeted(&dev, "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa", client, CLAIM).await;
        other.next("snapshot").await;
        others.push(other);
    }
    let mut delays = Vec::new();
    for seq in 2..22 {
        let started = Instant::now();
        sender.submit(seq, json!({ "type": "setMetadata", "metadata": { "n": seq } })).await;
        for other in &mut others {
            let events = other.next("events").await;
            assert_eq!(events["records"][0]["event"]["metadata"]["n"], seq);
            assert!(events["records"][0].get("origin").is_none(), "who it was is not told");
        }
        delays.push(started.elapsed());
    }
    delays.sort();
    // The slowest may have met another test's load.
    let median = delays[delays.len() / 2];
    assert!(median < Duration::from_millis(100), "{delays:?}");
}

#[tokio::test]
async fn a_command_is_accepted_and_durable_once_and_repeated_answers_are_the_same() {
    let dev = dev(&[]);
    let mut socket = created(&dev, "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa").await;
    socket.submit(2, json!({ "type": "setEmail", "email": "ada@example.com" })).await;
    let accepted = socket.next("accepted").await;
    assert_eq!(socket.next("durable").await["version"], accepted["version"]);
    socket.submit(2, json!({ "type": "setEmail", "email": "eve@example.com" })).await;
    assert_eq!(socket.next("accepted").await["repeated"], true);

    socket.submit(3, json!({ "type": "goToStep", "step": "success" })).await;
    let first = socket.next("rejected").await;
    assert_eq!(first["reason"]["code"], "stepNotAllowed");
    socket.submit(3, json!({ "type": "goToStep", "step": "success" })).await;
    assert_eq!(socket.next("rejected").await, first);

    socket.submit(5, json!({ "type": "beginProcessing" })).await;
    assert_eq!(socket.next("gap").await["expected"], 4);
}

#[tokio::test]
async fn a_poison_command_is_refused_once_and_the_queue_goes_on() {
    let dev = dev(&[]);
    let mut socket = created(&dev, "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa").await;
    socket.submit(2, json!({ "type": "setEmail", "email": 7 })).await;
    assert_eq!(socket.next("rejected").await["reason"]["code"], "malformedCommand");
    socket.submit(3, json!({ "type": "haveABirthday" })).await;
    assert_eq!(socket.next("rejected").await["reason"]["code"], "malformedCommand");
    socket.submit(4, json!({ "type": "setEmail", "email": "ada@example.com" })).await;
    assert_eq!(socket.next("accepted").await["seq"], 4);
}

#[tokio::test]
async fn who_comes_back_gets_what_is_missing_or_the_whole() {
    let dev = dev(&[]);
    let mut socket = created(&dev, "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa").await;
    let epoch = socket.next("durable").await;
    assert!(epoch["version"].as_u64().unwrap() >= 2);
    let mut reader = greeted(&dev, "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa", "second", CLAIM).await;
    let state = reader.next("snapshot").await["state"].clone();
    drop(reader);
    socket.submit(2, json!({ "type": "setMetadata", "metadata": { "n": 1 } })).await;
    socket.next("accepted").await;
    let mut back = open(&dev, &[SUBPROTOCOL]).await.unwrap();
    back.id = "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa".to_owned();
    back.client = "second";
    back.hello(json!({ "claim": CLAIM, "knownVersion": state["session"]["version"], "epoch": state["epoch"] })).await;
    assert_eq!(back.next("events").await["records"].as_array().unwrap().len(), 1);
    back.hello(json!({ "claim": CLAIM, "knownVersion": state["session"]["version"], "epoch": 1 })).await;
    back.next("snapshot").await;
}

#[tokio::test]
async fn asvs_4_4_3_strangers_are_refused_before_or_at_hello() {
    let dev = dev(&["--allowed-origins", "https://shop.example"]);
    let status = |result: Result<Socket, Error>| match result {
        Err(Error::Http(response)) => response.status().as_u16(),
        Ok(_) => panic!("the upgrade was let in"),
        Err(error) => panic!("{error}"),
    };
    for origin in ["https://evil.example", "null", "https://shop.example.evil.example"] {
        assert_eq!(status(open(&dev, &[SUBPROTOCOL, ("origin", origin)]).await), 403, "{origin}");
    }
    assert!(open(&dev, &[SUBPROTOCOL, ("origin", "https://shop.example")]).await.is_ok());
    assert_eq!(status(open(&dev, &[]).await), 400);

    let _owner = created(&dev, "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa").await;
    for (hello, code, close) in [
        (json!({}), "unauthorized", 4401),
        (json!({ "token": "v4.local.made-up" }), "unauthorized", 4401),
        (json!({ "claim": "short" }), "unauthorized", 4401),
        (json!({ "claim": CLAIM, "protocol": 99 }), "unsupportedProtocol", 4400),
        (json!({ "claim": CLAIM, "sessionId": "a b" }), "malformedFrame", 1007),
        (json!({ "token": dev.service_key, "sessionId": "ws_1_nobody" }), "sessionNotFound", 4404),
    ] {
        let mut socket = open(&dev, &[SUBPROTOCOL]).await.unwrap();
        socket.id = "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa".to_owned();
        socket.client = "x";
        socket.hello(hello).await;
        socket.refused(code, close).await;
    }
}

#[tokio::test]
async fn who_follows_a_session_when_its_retention_is_over_is_sent_away() {
    let dev = dev(&["--token-ttl", "1s", "--token-max-age", "1s", "--retention", "1s"]);
    let mut socket = created(&dev, "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa").await;
    let url = format!("http://{}/v1/sessions/{}", dev.address, socket.id);
    let deleted = reqwest::Client::new().delete(&url).bearer_auth(&dev.service_key).send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    let message = socket.refused("sessionNotFound", 4404).await;
    assert!(message.contains("deleted"), "{message}");
}

#[tokio::test]
async fn asvs_7_3_2_who_has_a_token_that_can_not_be_renewed_any_more_comes_back_with_another_proof() {
    let dev = dev(&["--token-ttl", "2s", "--token-max-age", "2s"]);
    let mut socket = created(&dev, "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa").await;
    let deadline = Instant::now() + LONG;
    let end = loop {
        assert!(Instant::now() < deadline, "it goes on");
        socket.send(json!({ "type": "ping" })).await;
        let frame = socket.next_of(&["pong", "error"]).await;
        if frame["type"] == "error" {
            break frame;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(end["code"], "tokenExpired", "{end}");
    let mut back = greeted(&dev, &socket.id, "first", CLAIM).await;
    back.next("welcome").await;
    back.next("token").await;
}

#[tokio::test]
async fn frames_that_break_the_protocol_close_the_socket() {
    let dev = dev(&[]);
    for (id, message, reason) in [
        ("ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa", Message::text("{"), "not JSON"),
        ("ws_1_bbbbbbbbbbbbbbbbbbbbbbbbb", Message::text(r#"{"type":"welcome"}"#), "hello, submit or ping"),
        ("ws_1_ccccccccccccccccccccccccc", Message::binary(vec![1, 2, 3]), "text"),
        ("ws_1_ddddddddddddddddddddddddd", Message::text("x".repeat(70_000)), "65536 bytes"),
    ] {
        let mut socket = created(&dev, id).await;
        socket.stream.send(message).await.unwrap();
        let told = socket.refused("malformedFrame", 1007).await;
        assert!(told.contains(reason), "{told}");
    }
}

#[tokio::test]
async fn a_service_follows_a_session_with_its_key_and_sees_everything() {
    let dev = dev(&[]);
    let mut buyer = created(&dev, "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa").await;
    let mut service = open(&dev, &[SUBPROTOCOL]).await.unwrap();
    service.id = "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa".to_owned();
    service.client = "back-office";
    service.hello(json!({ "token": dev.service_key })).await;
    service.next("snapshot").await;
    for (seq, command) in [
        (2, json!({ "type": "setEmail", "email": "ada@example.com" })),
        (3, json!({ "type": "setCustomer", "customer": { "firstName": "Ada", "lastName": "L" } })),
        (4, json!({ "type": "beginProcessing" })),
    ] {
        buyer.submit(seq, command).await;
        buyer.next("accepted").await;
    }
    service.submit(1, json!({ "type": "recordPayment", "transactionId": "canary", "amount": 7900 })).await;
    service.next("accepted").await;
    let paid = loop {
        let events = buyer.next("events").await;
        if events.to_string().contains("paymentRecorded") {
            break events;
        }
    };
    assert!(!paid.to_string().contains("canary"), "{paid}");
}

#[tokio::test]
async fn everybody_is_told_when_the_server_stops() {
    let mut dev = dev(&[]);
    let mut sockets = Vec::new();
    for id in ["ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa", "ws_1_bbbbbbbbbbbbbbbbbbbbbbbbb", "ws_1_ccccccccccccccccccccccccc"] {
        sockets.push(created(&dev, id).await);
    }
    let stopped = tokio::task::spawn_blocking(move || dev.server.stop());
    for socket in &mut sockets {
        socket.refused("restarting", 1012).await;
    }
    let (status, took) = stopped.await.unwrap();
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
}
