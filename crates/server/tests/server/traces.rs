//! Traces, collected from the page's command to the database.

use std::time::Duration;

use serde_json::{Value, json};
use throughline_test_services::otlp_receiver::{OtlpReceiver, Span};

use super::binary::{Dev, dev, dev_with};
use super::fleets::*;
use super::socket::{CLAIM, greeted_at};

const CREATE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const EMAIL: &str = "0af7651916cd43dd8448eb211c80319c";
const PAGE: &str = "00f067aa0ba902b7";

/// What a page says that is followed: `flags` is 01 where it is kept.
fn traceparent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{PAGE}-{flags}")
}

fn create() -> Value {
    json!({ "type": "create", "products": [{ "id": "fitspresso-1-pack", "quantity": 1 }] })
}

fn email() -> Value {
    json!({ "type": "setEmail", "email": "ada@example.com" })
}

fn named<'a>(spans: &'a [Span], trace: &str, name: &str) -> &'a Span {
    let found: Vec<&Span> = spans.iter().filter(|span| span.trace == trace && span.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in {trace}: {spans:#?}");
    found[0]
}

/// The only span that is linked to this one, which is linked to it.
fn batch_of<'a>(spans: &'a [Span], database: &Span) -> &'a Span {
    let found: Vec<&Span> =
        spans.iter().filter(|span| span.name == "database batch" && span.is_linked_to(database)).collect();
    assert_eq!(found.len(), 1, "{spans:#?}");
    assert!(database.is_linked_to(found[0]), "{database:?}");
    assert!(found[0].parent.is_empty() && found[0].trace != database.trace, "it is everybody's: {:?}", found[0]);
    found[0]
}

fn traced(more: &[&str]) -> (OtlpReceiver, Dev) {
    let receiver = OtlpReceiver::start().unwrap();
    let url = receiver.url.clone();
    (receiver, dev(&[&["--otlp-endpoint", &url], more].concat()))
}

/// All spans, once the server has ended and sent the last ones.
fn all_spans(receiver: &OtlpReceiver, mut dev: Dev) -> Vec<Span> {
    let (status, _) = dev.server.stop();
    assert!(status.success(), "{}", dev.server.log());
    receiver.spans()
}

#[tokio::test]
async fn a_command_is_followed_from_the_page_to_the_database() {
    let (fleet, receiver) = (fleet(), OtlpReceiver::start().unwrap());
    let options = ["--log", "debug", "--log-format", "json", "--otlp-endpoint", &receiver.url];
    let mut node = fleet.node("a", &options).unwrap();
    let id = "ws_mwor0dc0_f5l0000000000000000000000";
    let mut socket = greeted_at(&node.address, id, "page", CLAIM).await;
    socket.next("welcome").await;
    socket.submit_traced(1, [create()], json!([traceparent(CREATE, "01")])).await;
    socket.next("accepted").await;
    socket.submit_traced(2, [email()], json!([traceparent(EMAIL, "01")])).await;
    let accepted = socket.next("accepted").await;
    while socket.next("durable").await["version"].as_u64() < accepted["version"].as_u64() {}
    assert!(node.stop().unwrap().success());
    let spans = receiver.spans();
    assert!(spans.iter().all(|span| span.service == "throughline"), "{spans:#?}");

    // What waits for the database.
    let command = named(&spans, CREATE, "command");
    assert_eq!(command.parent, PAGE);
    assert_eq!(command.attribute("session.id"), id);
    assert_eq!(command.attribute("throughline.command.type"), "create");
    assert_eq!(command.attribute("throughline.command.outcome"), "accepted");
    assert!(named(&spans, CREATE, "decide").is_of(command));
    let commit = named(&spans, CREATE, "commit");
    assert!(commit.is_of(command), "{commit:?}");
    let database = named(&spans, CREATE, "database commit");
    assert!(database.is_of(commit) && database.attribute("db.system.name") == "postgresql", "{database:?}");
    assert!(named(&spans, CREATE, "redis settle").is_of(commit));
    assert!(named(&spans, CREATE, "fan-out").is_of(commit));
    let batch = batch_of(&spans, database);
    let transaction = named(&spans, &batch.trace, "database transaction");
    assert!(transaction.is_of(batch), "{transaction:?}");

    // What counts once Redis has it, and is brought to the database later.
    let command = named(&spans, EMAIL, "command");
    let share = named(&spans, EMAIL, "share");
    assert!(share.is_of(command) && named(&spans, EMAIL, "redis share").is_of(share), "{share:?}");
    let flushes: Vec<&Span> = spans.iter().filter(|span| span.name == "flush" && span.is_linked_to(command)).collect();
    assert_eq!(flushes.len(), 1, "{spans:#?}");
    let database = named(&spans, &flushes[0].trace, "database commit");
    assert!(database.is_of(flushes[0]), "{database:?}");
    batch_of(&spans, database);

    // The log tells of the same.
    let log = node.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let settled: Vec<Value> = lines.filter(|line| line["message"] == "settled").collect();
    let of = |trace: &str| settled.iter().find(|line| line["trace_id"] == trace).cloned().expect(trace);
    assert_eq!((&of(CREATE)["kind"], &of(EMAIL)["kind"]), (&json!("create"), &json!("setEmail")));
    assert_eq!(of(EMAIL)["span_id"], json!(command.id));
}

#[tokio::test]
async fn commands_of_one_frame_and_one_transaction_stay_in_their_own_traces() {
    let (receiver, dev) = traced(&[]);
    let mut socket = greeted_at(&dev.address, "ws_mwor0dc0_f5l0000000000000000000001", "page", CLAIM).await;
    socket.next("welcome").await;
    let traceparents = json!([traceparent(CREATE, "01"), traceparent(EMAIL, "01"), "nonsense"]);
    socket.submit_traced(1, [create(), email(), email()], traceparents).await;
    for _ in 0..3 {
        socket.next("accepted").await;
    }
    let spans = all_spans(&receiver, dev);
    for trace in [CREATE, EMAIL] {
        assert!(named(&spans, trace, "commit").is_of(named(&spans, trace, "command")), "{spans:#?}");
    }
    let commands: Vec<&Span> = spans.iter().filter(|span| span.name == "command").collect();
    let of_its_own = commands.iter().find(|span| ![CREATE, EMAIL].contains(&span.trace.as_str()));
    assert!(commands.len() == 3 && of_its_own.is_some_and(|span| span.parent.is_empty()), "{commands:#?}");
}

#[tokio::test]
async fn a_request_continues_the_trace_of_its_caller() {
    let (receiver, dev) = traced(&[]);
    let client = reqwest::Client::new();
    let made = client
        .post(format!("http://{}/v1/sessions?secret=hunter2", dev.address))
        .bearer_auth(&dev.service_key)
        .header("traceparent", traceparent(CREATE, "01"))
        .json(&json!({ "products": [{ "id": "fitspresso-1-pack", "quantity": 1 }] }))
        .send();
    assert_eq!(made.await.unwrap().status(), 201);
    let spans = all_spans(&receiver, dev);
    let request = named(&spans, CREATE, "POST /v1/sessions");
    assert_eq!(request.parent, PAGE);
    assert_eq!(request.attribute("http.request.method"), "POST");
    assert_eq!(request.attribute("http.response.status_code"), "201");
    let command = named(&spans, CREATE, "command");
    assert!(command.is_of(request), "{command:?}");
    let database = named(&spans, CREATE, "database commit");
    assert_eq!(database.attribute("db.system.name"), "sqlite");
    batch_of(&spans, database);
    assert!(!format!("{spans:?}").contains("hunter2"), "no query is traced");
}

#[tokio::test]
async fn whoever_begins_a_trace_decides_whether_it_is_kept() {
    let (receiver, dev) = traced(&["--trace-sampling", "0"]);
    let client = reqwest::Client::new();
    let read = |given: Option<String>| {
        let request = client.get(format!("http://{}/v1/funnels/default", dev.address));
        given.into_iter().fold(request, |request, given| request.header("traceparent", given)).send()
    };
    assert!(read(None).await.unwrap().status().is_success());
    assert!(read(Some(traceparent(EMAIL, "00"))).await.unwrap().status().is_success());
    assert!(read(Some(traceparent(CREATE, "01"))).await.unwrap().status().is_success());
    let spans = all_spans(&receiver, dev);
    assert_eq!(spans.iter().map(|span| span.trace.as_str()).collect::<Vec<_>>(), [CREATE], "{spans:#?}");
}

#[tokio::test]
async fn a_receiver_that_is_away_costs_one_line_in_the_log() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let away = format!("http://{}", taken.local_addr().unwrap());
    // Nobody listens there any more.
    drop(taken);
    let dev = dev_with(&["--otlp-endpoint", &away, "--open-metrics"], &[("OTEL_BSP_SCHEDULE_DELAY", "20")]);
    let client = reqwest::Client::new();
    let get = async |path: &str| client.get(format!("http://{}{path}", dev.address)).send().await.unwrap();
    let mut lost = Vec::new();
    until("spans are lost several times", LONG, async || {
        assert!(get("/v1/funnels/default").await.status().is_success());
        let metrics = get("/metrics").await.text().await.unwrap();
        let line = metrics.lines().find(|line| line.starts_with(r#"throughline_spans_total{outcome="lost"}"#));
        let count = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
        if lost.last() != Some(&count) {
            lost.push(count);
        }
        lost.len() > 4
    })
    .await;
    let log = dev.server.log();
    assert_eq!(log.matches("spans can't be sent").count(), 1, "{log}");
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_keeps_nobody_waiting() {
    // It takes connections, and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut dev = dev_with(&["--otlp-endpoint", &url], &[("OTEL_BSP_SCHEDULE_DELAY", "20")]);
    let mut socket = greeted_at(&dev.address, "ws_mwor0dc0_f5l0000000000000000000002", "page", CLAIM).await;
    socket.next("welcome").await;
    socket.submit(1, create()).await;
    socket.next("accepted").await;
    let _held = silent.accept().await.unwrap();
    for seq in 2..20 {
        socket.submit(seq, email()).await;
        socket.next("accepted").await;
    }
    let (status, took) = dev.server.stop();
    assert!(status.success() && took < Duration::from_secs(10), "{status} after {took:?}");
}
