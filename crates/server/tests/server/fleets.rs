//! Several servers of one shop, and what tests wait for.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use throughline_test_services::buyer::{Buyer, Identity, Told};
use throughline_test_services::fleet::{Fleet, Node};
use throughline_test_services::promises::{self, Outcome};

/// How often a buyer changes something.
pub const OFTEN: Duration = Duration::from_millis(15);

/// How long anything may take that has no limit of its own.
pub const LONG: Duration = Duration::from_secs(60);

pub fn fleet() -> Fleet {
    Fleet::start(env!("CARGO_BIN_EXE_throughline")).unwrap()
}

/// Looks until something is so.
pub async fn until(what: &str, limit: Duration, mut happened: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !happened().await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn mode(node: &Node) -> String {
    let readiness = node.readiness().await.map(|(_, body)| body["mode"].as_str().unwrap_or_default().to_owned());
    readiness.unwrap_or_default()
}

/// Waits until the buyer has been told of so many more accepted changes.
pub async fn accepted(buyer: &Buyer, more: usize) {
    let before = buyer.told().accepted.len();
    until("changes are accepted", LONG, async || buyer.told().accepted.len() >= before + more).await;
}

/// Waits until each of the buyers has been told of so many more accepted changes.
pub async fn all_accepted(buyers: &[(Identity, Buyer)], more: usize) {
    futures_util::future::join_all(buyers.iter().map(|(_, buyer)| accepted(buyer, more))).await;
}

/// Waits until everything is settled, and checks all promises.
pub async fn settled(fleet: &Fleet, nodes: &[&Node], buyers: Vec<(Identity, Buyer)>) -> (Outcome, Vec<Told>) {
    let mut clients = Vec::new();
    for (identity, buyer) in buyers {
        assert!(buyer.settle(LONG).await, "not settled: {:?}; {}", buyer.told(), logs(nodes));
        clients.push((identity, buyer.leave().await));
    }
    let deadline = Instant::now() + LONG;
    let outcome = loop {
        match promises::check(fleet, nodes, &clients).await {
            // A server that is busy may say so, and nothing else.
            Err(refusal) if refusal.starts_with("503") && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            checked => break checked.unwrap(),
        }
    };
    assert!(outcome.is_kept(), "{outcome}; {}", logs(nodes));
    (outcome, clients.into_iter().map(|(_, told)| told).collect())
}

pub fn logs(nodes: &[&Node]) -> String {
    nodes.iter().map(|node| format!("\n--- {}\n{}", node.address, node.log())).collect()
}

/// Runs `throughline service-keys` on the database of all servers, with their key ring.
pub fn service_keys(fleet: &Fleet, arguments: &[&str]) -> std::io::Result<String> {
    let (url, keys) = (fleet.postgres.url("shop"), fleet.keys_file().display().to_string());
    fleet.run(&[&["service-keys"], arguments, &["--database-url", &url, "--keys-file", &keys]].concat())
}

pub fn post(fleet: &Fleet, node: &Node, path: &str, body: &Value) -> reqwest::RequestBuilder {
    let client = reqwest::Client::builder().timeout(LONG).build().unwrap();
    client.post(format!("http://{}{path}", node.address)).bearer_auth(&fleet.service_key).json(body)
}

/// Creates a session over REST; its id.
pub async fn created(fleet: &Fleet, node: &Node) -> String {
    let answer = post(fleet, node, "/v1/sessions", &json!({})).send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", node.log());
    answer.json::<Value>().await.unwrap()["session"]["id"].as_str().unwrap().to_owned()
}

/// A strict command; the status of its answer and how long it took.
pub async fn strict(fleet: &Fleet, node: &Node, id: &str, email: &str) -> (u16, bool, Duration) {
    let started = Instant::now();
    let body = json!({ "commands": [{ "type": "setEmail", "email": email }] });
    let answer = post(fleet, node, &format!("/v1/sessions/{id}/commands"), &body).send().await.unwrap();
    let has_retry_after = answer.headers().contains_key("retry-after");
    (answer.status().as_u16(), has_retry_after, started.elapsed())
}
