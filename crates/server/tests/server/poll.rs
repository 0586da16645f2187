//! The sync protocol in requests, for clients that have no WebSocket.

use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use serde_json::{Value, json};
use throughline_test_services::fleet::Node;
use tokio::task::JoinHandle;

use super::binary::{Dev, dev};
use super::fleets::{LONG, fleet, until};

const CLAIM: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const ID: &str = "ws_1_aaaaaaaaaaaaaaaaaaaaaaaaa";

/// Far longer than any test waits for something to happen.
const LONG_WAIT: u64 = 20_000;

/// What a client would keep of a session, without any of its logic.
#[derive(Clone)]
struct Client {
    name: &'static str,
    /// `claim` or `token`, with its value.
    credential: (&'static str, String),
    known_version: u64,
    epoch: Option<u64>,
}

impl Client {
    fn new(name: &'static str) -> Self {
        Self { name, credential: ("claim", CLAIM.to_owned()), known_version: 0, epoch: None }
    }

    fn hello(&self) -> Value {
        let mut hello = json!({
            "type": "hello", "protocol": 1, "sessionId": ID, "clientId": self.name, "knownVersion": self.known_version,
        });
        hello[self.credential.0] = self.credential.1.as_str().into();
        if let Some(epoch) = self.epoch {
            hello["epoch"] = epoch.into();
        }
        hello
    }

    fn submit(&self, seq: u64, command: &Value) -> Value {
        let mut numbered = command.clone();
        numbered["clientId"] = self.name.into();
        numbered["seq"] = seq.into();
        json!({ "type": "submit", "commands": [numbered] })
    }

    /// The answer's frames, from which the client has learned what is durable and its token.
    async fn poll(&mut self, address: &str, wait_ms: u64, more: &[Value]) -> Vec<Value> {
        let frames = poll(address, wait_ms, self.hello(), more).await;
        self.learn(&frames);
        frames
    }

    /// Begins a poll.
    fn begin(&self, address: &str, wait_ms: u64) -> JoinHandle<Vec<Value>> {
        let (address, hello) = (address.to_owned(), self.hello());
        tokio::spawn(async move { poll(&address, wait_ms, hello, &[]).await })
    }

    fn learn(&mut self, frames: &[Value]) {
        let (mut shown, mut durable) = (self.known_version, 0);
        for frame in frames {
            match frame["type"].as_str().unwrap() {
                "welcome" => {
                    let epoch = frame["epoch"].as_u64().unwrap();
                    self.epoch = (epoch > 0).then_some(epoch);
                    durable = frame["durableVersion"].as_u64().unwrap();
                }
                "snapshot" => shown = frame["state"]["session"]["version"].as_u64().unwrap(),
                "events" => {
                    self.epoch = frame["epoch"].as_u64();
                    shown = frame["records"].as_array().unwrap().last().unwrap()["version"].as_u64().unwrap();
                }
                "durable" => durable = frame["version"].as_u64().unwrap(),
                "token" => self.credential = ("token", frame["token"].as_str().unwrap().to_owned()),
                _ => {}
            }
        }
        self.known_version = if shown <= durable { shown } else { 0 };
    }
}

fn post(address: &str, body: &Value) -> reqwest::RequestBuilder {
    reqwest::Client::new().post(format!("http://{address}/v1/sync")).json(body)
}

async fn frames_of(response: Response) -> Vec<Value> {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let mut answer: Value = response.json().await.unwrap();
    let Value::Array(frames) = answer["frames"].take() else { panic!("{answer}") };
    frames
}

async fn poll(address: &str, wait_ms: u64, hello: Value, more: &[Value]) -> Vec<Value> {
    let frames: Vec<Value> = std::iter::once(hello).chain(more.iter().cloned()).collect();
    frames_of(post(address, &json!({ "frames": frames, "waitMs": wait_ms })).send().await.unwrap()).await
}

fn types(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect()
}

fn first<'a>(frames: &'a [Value], name: &str) -> &'a Value {
    frames.iter().find(|frame| frame["type"] == name).unwrap_or_else(|| panic!("no {name} in {frames:?}"))
}

/// Expects that the last frame is an error with this code.
fn refused(frames: &[Value], code: &str) -> String {
    let last = frames.last().unwrap();
    assert_eq!((&last["type"], &last["code"]), (&"error".into(), &code.into()), "{frames:?}");
    last["message"].as_str().unwrap().to_owned()
}

fn create() -> Value {
    json!({ "type": "create", "products": [{ "id": "fitspresso-1-pack", "quantity": 1 }] })
}

fn note(n: u64) -> Value {
    json!({ "type": "setMetadata", "metadata": { "n": n } })
}

/// A client that has created the session, and knows everything of it to be durable.
async fn created(dev: &Dev) -> Client {
    let mut client = Client::new("first");
    let frames = client.poll(&dev.address, 0, &[client.submit(1, &create())]).await;
    assert!(client.known_version > 0 && client.credential.0 == "token", "{frames:?}");
    client
}

/// A client that knows everything of the session as well.
async fn another(dev: &Dev, name: &'static str) -> Client {
    let mut client = Client::new(name);
    let frames = client.poll(&dev.address, 0, &[]).await;
    assert_eq!(types(&frames), ["welcome", "token", "snapshot"]);
    client
}

async fn metric(dev: &Dev, name: &str) -> f64 {
    let text = reqwest::get(format!("http://{}/metrics", dev.address)).await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

async fn polls(dev: &Dev, count: f64) {
    until("so many polls are open", LONG, async || metric(dev, "throughline_polls").await == count).await;
}

fn open_to_metrics(more: &[&str]) -> Dev {
    dev(&[&["--open-metrics", "true"], more].concat())
}

#[tokio::test]
async fn one_request_creates_a_session_with_a_claim_and_brings_its_token() {
    let dev = dev(&[]);
    let mut client = Client::new("first");
    let frames = client.poll(&dev.address, LONG_WAIT, &[client.submit(1, &create())]).await;
    assert_eq!(types(&frames), ["welcome", "events", "token", "accepted", "durable"]);
    assert_eq!((&frames[0]["version"], &frames[3]["seq"]), (&0.into(), &1.into()));
    assert_eq!(client.credential.0, "token");
    client.known_version = 0;
    let again = client.poll(&dev.address, LONG_WAIT, &[]).await;
    assert_eq!(types(&again), ["welcome", "snapshot"]);
    assert_eq!(first(&again, "snapshot")["state"]["session"]["amount"], 7900);
}

#[tokio::test]
async fn every_command_of_a_request_is_answered_in_its_order() {
    let dev = dev(&[]);
    let mut client = created(&dev).await;
    let wrong = json!({ "type": "setEmail", "email": 7 });
    let more = [
        client.submit(2, &note(2)),
        client.submit(3, &wrong),
        json!({ "type": "ping" }),
        client.submit(4, &note(4)),
        client.submit(9, &note(9)),
    ];
    let frames = client.poll(&dev.address, LONG_WAIT, &more).await;
    assert_eq!(types(&frames)[..2], ["welcome", "pong"]);
    let answers = ["accepted", "rejected", "gap"];
    let answers: Vec<_> = frames.iter().filter(|frame| answers.contains(&frame["type"].as_str().unwrap())).collect();
    assert_eq!(
        answers.iter().map(|frame| &frame["type"]).collect::<Vec<_>>(),
        ["accepted", "rejected", "accepted", "gap"]
    );
    assert_eq!((&answers[1]["reason"]["code"], &answers[3]["expected"]), (&"malformedCommand".into(), &5.into()));
    assert!(client.known_version > 0, "what was told is durable: {frames:?}");
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_applied_once() {
    let dev = dev(&[]);
    let mut client = created(&dev).await;
    let more = [client.submit(2, &note(2)), client.submit(3, &note(3))];
    let once = client.poll(&dev.address, 0, &more).await;
    let version = client.known_version;
    let again = client.poll(&dev.address, LONG_WAIT, &more).await;
    assert_eq!(types(&again), ["welcome", "accepted", "accepted", "durable"]);
    assert!(again[1]["repeated"] == true && again[2]["repeated"] == true, "{again:?}");
    assert!(once.iter().all(|frame| frame.get("repeated").is_none()));
    assert_eq!(client.known_version, version);
}

#[tokio::test]
async fn a_waiting_poll_is_woken_by_what_another_client_changes() {
    let dev = open_to_metrics(&[]);
    let mut sender = created(&dev).await;
    let mut waiting = another(&dev, "second").await;
    let mut delays = Vec::new();
    for seq in 2..12 {
        let poll = waiting.begin(&dev.address, LONG_WAIT);
        polls(&dev, 1.0).await;
        let started = Instant::now();
        sender.poll(&dev.address, 0, &[sender.submit(seq, &note(seq))]).await;
        let frames = poll.await.unwrap();
        // One whose hello came later would have been welcomed to the new version.
        if types(&frames) == ["welcome", "events", "durable"] {
            delays.push(started.elapsed());
            assert_eq!(first(&frames, "events")["records"][0]["event"]["metadata"]["n"], seq);
        }
        waiting.learn(&frames);
        assert_eq!(waiting.known_version, sender.known_version);
    }
    delays.sort();
    // The slowest may have met another test's load.
    assert!(delays.len() > 5 && delays[delays.len() / 2] < Duration::from_millis(200), "{delays:?}");
}

#[tokio::test]
async fn a_poll_in_whose_time_nothing_happens_is_answered_with_the_welcome_alone() {
    let dev = open_to_metrics(&[]);
    let mut client = created(&dev).await;
    for wait in [1_500, 0] {
        let started = Instant::now();
        let frames = client.poll(&dev.address, wait, &[]).await;
        assert_eq!(types(&frames), ["welcome"]);
        assert_eq!(frames[0]["durableVersion"], frames[0]["version"]);
        assert!(started.elapsed() >= Duration::from_millis(wait));
    }
    // Time that is waited is not time that is taken.
    let seconds = "throughline_http_request_seconds_sum{method=\"POST\",route=\"/v1/sync\"}";
    let taken = metric(&dev, seconds).await;
    assert!(taken < 1.0, "{taken}");
    assert!(!dev.server.log().contains("answered"), "{}", dev.server.log());
}

#[tokio::test]
async fn who_waits_for_a_session_hears_when_it_is_created() {
    let dev = open_to_metrics(&[]);
    let (waiting, mut owner) = (Client::new("second"), Client::new("first"));
    let same = waiting.begin(&dev.address, LONG_WAIT);
    let stranger = Client { credential: ("claim", CLAIM.replace('0', "1")), ..Client::new("third") };
    let stranger = stranger.begin(&dev.address, LONG_WAIT);
    polls(&dev, 2.0).await;
    owner.poll(&dev.address, 0, &[owner.submit(1, &create())]).await;
    let frames = same.await.unwrap();
    assert!(types(&frames).contains(&"token"), "{frames:?}");
    let frames = stranger.await.unwrap();
    refused(&frames, "unauthorized");
    assert!(!types(&frames).contains(&"events") && !types(&frames).contains(&"snapshot"), "{frames:?}");
}

#[tokio::test]
async fn asvs_7_3_1_a_token_is_renewed_in_time_and_one_whose_time_is_over_is_told_so() {
    let dev = dev(&["--token-ttl", "2s", "--token-max-age", "6s"]);
    let mut client = created(&dev).await;
    let former = client.credential.clone();
    let frames = client.poll(&dev.address, 1_900, &[]).await;
    assert_eq!(types(&frames), ["welcome", "token"]);
    assert_ne!(client.credential, former);
    let expired = Client { credential: former, ..client.clone() };
    let is_expired = async || {
        let frames = expired.clone().poll(&dev.address, 0, &[]).await;
        frames.last().unwrap()["code"] == "tokenExpired"
    };
    until("the token's time is over", LONG, is_expired).await;
    // The claim is as good as ever.
    let mut again = Client { credential: ("claim", CLAIM.to_owned()), ..client.clone() };
    assert_eq!(types(&again.poll(&dev.address, LONG_WAIT, &[]).await), ["welcome", "token"]);
}

#[tokio::test]
async fn what_is_wrong_with_the_conversation_is_told_by_a_frame() {
    let dev = dev(&[]);
    let owner = created(&dev).await;
    let with = |name: &str, value: Value| {
        let mut hello = owner.hello();
        hello[name] = value;
        hello
    };
    for (hello, code) in [
        (with("token", "v4.local.made-up".into()), "unauthorized"),
        (with("token", "".into()), "unauthorized"),
        (with("sessionId", "ws_1_bbbbbbbbbbbbbbbbbbbbbbbbb".into()), "unauthorized"),
        (with("protocol", 99.into()), "unsupportedProtocol"),
        (with("sessionId", "a b".into()), "malformedFrame"),
        (with("type", "submit".into()), "malformedFrame"),
    ] {
        let frames = poll(&dev.address, LONG_WAIT, hello, &[]).await;
        assert_eq!(frames.len(), 1, "{frames:?}");
        refused(&frames, code);
    }
    let mut nobody = with("sessionId", "ws_1_nobody".into());
    nobody["token"] = dev.service_key.as_str().into();
    refused(&poll(&dev.address, 0, nobody, &[]).await, "sessionNotFound");
    let stranger = Client { credential: ("claim", CLAIM.replace('0', "1")), ..Client::new("third") };
    refused(&poll(&dev.address, 0, stranger.hello(), &[]).await, "unauthorized");

    // Nothing of a request is done of which something can't be read.
    let good = owner.submit(2, &note(2));
    for (bad, reason) in [
        (json!({ "type": "welcome" }), "hello, submit or ping"),
        (json!(7), "hello, submit or ping"),
        (json!({ "type": "submit", "commands": vec![good["commands"][0].clone(); 51] }), "1 to 50 commands"),
        (owner.hello(), "once"),
    ] {
        let message = refused(&poll(&dev.address, 0, owner.hello(), &[good.clone(), bad]).await, "malformedFrame");
        assert!(message.contains(reason), "{message}");
    }
    let none = frames_of(post(&dev.address, &json!({ "frames": [] })).send().await.unwrap()).await;
    assert!(refused(&none, "malformedFrame").contains("hello"));
    assert_eq!(owner.clone().poll(&dev.address, 0, &[]).await[0]["lastSeq"], 1);
}

#[tokio::test]
async fn what_is_wrong_with_the_request_is_told_by_its_status() {
    let dev = dev(&["--allowed-origins", "https://shop.example", "--body-limit", "1MiB"]);
    let owner = created(&dev).await;
    let body = json!({ "frames": [owner.hello()], "waitMs": 0 });
    let problem = async |request: reqwest::RequestBuilder, status: u16, code: &str| {
        let response = request.send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["cache-control"]),
            (status, &"no-store".parse().unwrap())
        );
        let document: Value = response.json().await.unwrap();
        assert_eq!(document["code"], code, "{document}");
        document["detail"].as_str().unwrap().to_owned()
    };
    for origin in ["https://evil.example", "null", "https://shop.example.evil.example"] {
        problem(post(&dev.address, &body).header("origin", origin), 403, "originRefused").await;
    }
    let twice =
        post(&dev.address, &body).header("origin", "https://shop.example").header("origin", "https://x.example");
    problem(twice, 403, "originRefused").await;

    let url = format!("http://{}/v1/sync", dev.address);
    let typed =
        |media: &str, text: &str| reqwest::Client::new().post(&url).header("content-type", media).body(text.to_owned());
    let raw = |text: &str| typed("application/json", text);
    problem(raw("{"), 400, "malformedJson").await;
    problem(raw(&format!("{{\"frames\":[{}]}}", " ".repeat(65_536))), 413, "bodyTooLarge").await;
    problem(typed("text/plain", &body.to_string()), 415, "unsupportedMediaType").await;
    problem(post(&dev.address, &json!({})), 422, "invalidBody").await;
    problem(post(&dev.address, &json!({ "frames": [], "wait": 1 })), 422, "invalidBody").await;
    for wait in [json!(25_001), json!(-1), json!("1")] {
        let detail = problem(post(&dev.address, &json!({ "frames": [], "waitMs": wait })), 422, "invalidBody").await;
        assert!(detail.contains("waitMs"), "{detail}");
    }
    // A socket is opened by a GET, and there is nothing else.
    let method = reqwest::Client::new().put(&url).send().await.unwrap();
    assert_eq!((method.status().as_u16(), &method.headers()["allow"]), (405, &"GET,HEAD,POST".parse().unwrap()));
}

#[tokio::test]
async fn pages_of_listed_origins_may_poll() {
    let dev = dev(&["--allowed-origins", "https://shop.example"]);
    let owner = created(&dev).await;
    let preflight = reqwest::Client::new()
        .request(Method::OPTIONS, format!("http://{}/v1/sync", dev.address))
        .header("origin", "https://shop.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type");
    let preflight = preflight.send().await.unwrap();
    assert_eq!(preflight.status(), 200);
    let header = |response: &Response, name: &str| response.headers()[name].to_str().unwrap().to_ascii_lowercase();
    assert_eq!(header(&preflight, "access-control-allow-origin"), "https://shop.example");
    assert!(header(&preflight, "access-control-allow-methods").contains("post"));
    assert!(header(&preflight, "access-control-allow-headers").contains("content-type"));

    let body = json!({ "frames": [owner.hello()] });
    let answer = post(&dev.address, &body).header("origin", "https://shop.example").send().await.unwrap();
    assert_eq!(header(&answer, "access-control-allow-origin"), "https://shop.example");
    assert_eq!(types(&frames_of(answer).await), ["welcome"]);
}

#[tokio::test]
async fn polls_that_wait_keep_nobody_else_from_being_answered() {
    let dev = open_to_metrics(&["--max-requests", "2", "--request-timeout", "1s"]);
    let mut client = created(&dev).await;
    let others = ["second", "third", "fourth"];
    let mut waiting = Vec::new();
    for (count, name) in others.into_iter().enumerate() {
        waiting.push(another(&dev, name).await.begin(&dev.address, LONG_WAIT));
        polls(&dev, (count + 1) as f64).await;
        // Its place is given back as soon as it waits.
        let is_let_in = async || {
            let answer = post(&dev.address, &json!({ "frames": [client.hello()] })).send().await.unwrap();
            answer.status() == 200
        };
        until("another request is answered", LONG, is_let_in).await;
    }
    // Longer than any other request may take.
    let started = Instant::now();
    assert_eq!(types(&client.poll(&dev.address, 2_000, &[]).await), ["welcome"]);
    assert!(started.elapsed() >= Duration::from_secs(2) && waiting.iter().all(|poll| !poll.is_finished()));
    client.poll(&dev.address, 0, &[client.submit(2, &note(2))]).await;
    for poll in waiting {
        assert!(types(&poll.await.unwrap()).contains(&"events"));
    }
}

#[tokio::test]
async fn a_session_has_so_many_places_and_one_whose_client_is_gone_is_free() {
    let dev = open_to_metrics(&["--max-sockets-per-session", "2"]);
    let client = created(&dev).await;
    let waiting = [client.begin(&dev.address, LONG_WAIT), client.begin(&dev.address, LONG_WAIT)];
    polls(&dev, 2.0).await;
    let knock = async || poll(&dev.address, 0, client.hello(), &[]).await;
    let mut frames = knock().await;
    // They are open, and perhaps don't have their places yet.
    until("both places are taken", LONG, async || {
        frames = knock().await;
        types(&frames) == ["error"]
    })
    .await;
    refused(&frames, "rateLimited");
    assert_eq!(frames[0]["retryAfterMs"], 5_000);
    waiting[0].abort();
    until("its place is free", LONG, async || types(&knock().await) == ["welcome"]).await;
    waiting[1].abort();
    polls(&dev, 0.0).await;
}

#[tokio::test]
async fn an_address_sends_so_many_commands_without_a_socket() {
    let dev = dev(&[]);
    let client = created(&dev).await;
    // It was applied already, so that nothing is written.
    let repeated = client.submit(1, &create())["commands"][0].clone();
    let submit = json!({ "type": "submit", "commands": vec![repeated; 50] });
    let mut accepted = 0;
    let frames = loop {
        let frames = poll(&dev.address, 0, client.hello(), &vec![submit.clone(); 8]).await;
        if frames.last().unwrap()["type"] == "error" {
            break frames;
        }
        accepted += types(&frames).iter().filter(|name| **name == "accepted").count();
        assert!(accepted < 100_000, "nothing holds it back");
    };
    assert!(accepted >= 1_600, "{accepted}");
    refused(&frames, "rateLimited");
    assert_eq!(types(&frames), ["welcome", "error"], "nothing of it was done");
    let retry_after = frames[1]["retryAfterMs"].as_u64().unwrap();
    assert!((1..=1_000).contains(&retry_after), "{retry_after}");
    assert_eq!(types(&poll(&dev.address, 0, client.hello(), &[]).await), ["welcome"], "it may still listen");
}

#[tokio::test]
async fn polls_are_answered_at_once_when_the_server_stops() {
    let mut dev = open_to_metrics(&[]);
    let client = created(&dev).await;
    let waiting: Vec<_> = (0..3).map(|_| client.begin(&dev.address, LONG_WAIT)).collect();
    polls(&dev, 3.0).await;
    let stopped = tokio::task::spawn_blocking(move || dev.server.stop());
    for poll in waiting {
        refused(&poll.await.unwrap(), "restarting");
    }
    let (status, took) = stopped.await.unwrap();
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
}

#[tokio::test]
async fn any_server_answers_the_next_request() {
    let fleet = fleet();
    let nodes = ["a", "b"].map(|name| fleet.node(name, &["--flush-interval", "600ms"]).unwrap());
    let address = |node: &Node| node.address.clone();
    let (here, there) = (address(&nodes[0]), address(&nodes[1]));
    let mut client = Client::new("first");
    client.poll(&here, 0, &[client.submit(1, &create())]).await;
    for (seq, node) in (2..8).zip([&there, &here].into_iter().cycle()) {
        let frames = client.poll(node, LONG_WAIT, &[client.submit(seq, &note(seq))]).await;
        assert_eq!(first(&frames, "accepted")["seq"], seq, "{frames:?}");
        assert!(first(&frames, "accepted").get("repeated").is_none());
    }

    // What was accepted here is known there. Who was not told that it is durable is told as soon as it is, and not told again and
    // again meanwhile what it knows, whether it asks for the session or for its answers.
    for (seq, sends_again) in [(8, false), (9, true)] {
        let command = client.submit(seq, &note(seq));
        let frames = client.poll(&here, LONG_WAIT, std::slice::from_ref(&command)).await;
        let version = first(&frames, "accepted")["version"].as_u64().unwrap();
        let more = if sends_again { vec![command] } else { Vec::new() };
        let mut asked = 0;
        while client.known_version < version {
            asked += 1;
            let frames = client.poll(&there, LONG_WAIT, &more).await;
            assert_eq!(first(&frames, "snapshot")["state"]["session"]["metadata"]["n"], seq);
            assert!(asked < 4, "it is asked over and over: {frames:?}");
        }
    }

    // One server's poll is woken by what another one accepts.
    let waiting = client.begin(&there, LONG_WAIT);
    until("it waits", LONG, async || nodes[1].metric("throughline_polls").await.unwrap() == 1.0).await;
    let mut other = Client::new("second");
    other.poll(&here, 0, &[]).await;
    let started = Instant::now();
    other.poll(&here, 0, &[other.submit(1, &note(10))]).await;
    let frames = waiting.await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(frames.iter().any(|frame| frame.to_string().contains("\"n\":10")), "{frames:?}");
}

#[tokio::test]
async fn what_cannot_be_stored_just_now_is_sent_again_and_applied_once() {
    let mut fleet = fleet();
    let node = fleet.node("a", &[]).unwrap();
    let mut buyer = Client::new("first");
    buyer.poll(&node.address, 0, &[buyer.submit(1, &create())]).await;
    // A back end's commands wait for the database.
    let mut service = Client { credential: ("token", fleet.service_key.clone()), ..Client::new("back-office") };
    service.poll(&node.address, 0, &[]).await;
    fleet.postgres.stop_fast().unwrap();
    let more = [service.submit(1, &note(1))];
    let frames = service.poll(&node.address, LONG_WAIT, &more).await;
    let last = frames.last().unwrap();
    assert!(last["type"] == "busy" || last["code"] == "unavailable", "{frames:?}");
    assert!(last["retryAfterMs"].as_u64().unwrap() > 0, "{frames:?}");
    fleet.postgres.start_again().unwrap();
    let mut frames = Vec::new();
    until("it is stored", LONG, async || {
        frames = service.poll(&node.address, LONG_WAIT, &more).await;
        types(&frames).contains(&"accepted")
    })
    .await;
    let again = service.poll(&node.address, LONG_WAIT, &more).await;
    assert_eq!(first(&again, "accepted")["version"], first(&frames, "accepted")["version"]);
    assert_eq!(first(&again, "accepted")["repeated"], true);
}
