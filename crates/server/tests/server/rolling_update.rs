//! Servers are replaced one after the other, behind the proxy of `examples/deployment`, while buyers and back ends go on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use throughline_test_services::buyer::{Buyer, Identity, Told};
use throughline_test_services::fleet::{Fleet, Node};
use throughline_test_services::haproxy::HaProxy;
use throughline_test_services::promises;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::fleets::*;

/// How often both servers are replaced.
const ROUNDS: usize = 3;

/// Sessions, each with a buyer in two tabs and a back end.
const SESSIONS: usize = 4;

/// As the example says, and its proxy needs to notice.
const DRAIN: [&str; 4] = ["--drain-delay", "5s", "--trusted-proxies", "127.0.0.1"];

/// Where the proxy knows the servers.
const BACKEND: &str = "throughline";

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/deployment/proxy/haproxy.cfg")
}

/// With what a server says that its database did not answer in time.
const BUSY: [&str; 4] = ["storeUnavailable", "\"unavailable\"", "overloaded", "requestTimedOut"];

/// A back end that changes a session, one request after the other.
struct BackEnd {
    identity: Identity,
    stop: watch::Sender<bool>,
    task: JoinHandle<Told>,
}

impl BackEnd {
    fn start(fleet: &Fleet, proxy: &HaProxy, session_id: &str, busy: &Arc<AtomicU64>) -> Self {
        let busy = Arc::clone(busy);
        let identity = Identity { session_id: session_id.to_owned(), ..Identity::new() };
        let url = format!("http://{}/v1/sessions/{session_id}/commands", proxy.address());
        let (client_id, service_key) = (identity.client_id.clone(), fleet.service_key.clone());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let client = reqwest::Client::builder().timeout(LONG).build().unwrap();
            let mut told = Told::default();
            while !*stopped.borrow() {
                let change = told.issued;
                told.issued += 1;
                let command =
                    json!({ "type": "setMetadata", "metadata": { "change": format!("{client_id}-{change}") } });
                let body = json!({ "commands": [command] });
                loop {
                    let request = client.post(&url).bearer_auth(&service_key).json(&body);
                    let answer =
                        request.header("idempotency-key", format!("{client_id}-{change}")).send().await.unwrap();
                    let (status, text) = (answer.status(), answer.text().await.unwrap());
                    if status == StatusCode::OK {
                        break;
                    }
                    // A machine that does much else may be too slow for a moment, and says so; a server that stops may not.
                    assert!(
                        BUSY.iter().any(|code| text.contains(code)),
                        "a request of a back end failed: {status} {text}"
                    );
                    busy.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                told.accepted.insert(change);
                told.durable.insert(change);
            }
            told
        });
        Self { identity, stop, task }
    }

    async fn leave(self) -> (Identity, Told) {
        self.stop.send(true).unwrap();
        (self.identity, self.task.await.unwrap())
    }
}

/// Replaces a server as a deployment does: it is asked to stop, and started again when it has.
async fn replace(proxy: &HaProxy, name: &str, node: &mut Node) {
    let is_up = async || proxy.server(BACKEND, name).await.unwrap().is_up();
    node.ask_to_stop().unwrap();
    // It is told so by the server, which still serves whoever comes: nobody meets a closed door.
    until("the proxy takes the server out, because it says so", LONG, async || {
        let seen = proxy.server(BACKEND, name).await.unwrap();
        !seen.is_up() && seen.check_code() == Some(503)
    })
    .await;
    let (status, body) = node.readiness().await.unwrap();
    assert_eq!((status, body["status"].as_str()), (503, Some("draining")), "{body}");
    until("the server ends", LONG, async || node.ended().unwrap().is_some()).await;
    assert!(node.ended().unwrap().is_some_and(|status| status.success()), "{}", node.log());
    node.start_again().unwrap();
    until("the proxy uses the server again", LONG, is_up).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_update_loses_no_command_and_fails_no_request() {
    let fleet = fleet();
    let mut nodes = [fleet.node("one", &DRAIN).unwrap(), fleet.node("two", &DRAIN).unwrap()];
    let proxy = HaProxy::start(&example(), [&nodes[0].address, &nodes[1].address]).unwrap();
    let servers = [proxy.address().to_string()];
    let mut buyers = Vec::new();
    let mut back_ends = Vec::new();
    let busy = Arc::new(AtomicU64::new(0));
    for _ in 0..SESSIONS {
        let identity = Identity::new();
        let buyer = Buyer::start(&identity, &servers, OFTEN);
        accepted(&buyer, 1).await;
        back_ends.push(BackEnd::start(&fleet, &proxy, &identity.session_id, &busy));
        let tab = identity.another_tab();
        buyers.push((tab.clone(), Buyer::start(&tab, &servers, OFTEN)));
        buyers.push((identity, buyer));
    }
    all_accepted(&buyers, 10).await;

    for _ in 0..ROUNDS {
        for (node, name) in nodes.iter_mut().zip(["server-1", "server-2"]) {
            replace(&proxy, name, node).await;
            // Buyers have found the other one, and go on there.
            all_accepted(&buyers, 10).await;
        }
    }

    let mut clients = Vec::new();
    for back_end in back_ends {
        clients.push(back_end.leave().await);
    }
    let requests: u64 = clients.iter().map(|(_, told)| told.issued).sum();
    for (identity, buyer) in buyers {
        assert!(buyer.settle(LONG).await, "not settled: {:?}; {}", buyer.told(), logs(&[&nodes[0], &nodes[1]]));
        clients.push((identity, buyer.leave().await));
    }
    clients.sort_by(|(one, _), (other, _)| one.session_id.cmp(&other.session_id));
    let mut outcome = promises::Outcome::default();
    for of_session in clients.chunk_by(|(one, _), (other, _)| one.session_id == other.session_id) {
        outcome += promises::check(&fleet, &[&nodes[0], &nodes[1]], of_session).await.unwrap();
    }
    let sum = |of: fn(&Told) -> u64| clients.iter().map(|(_, told)| of(told)).sum::<u64>();
    let (connections, failed) = (sum(|told| told.connections), sum(|told| told.failed_connections));
    let rejected = sum(|told| told.rejected.len() as u64);
    let seen = proxy.server(BACKEND, "BACKEND").await.unwrap();
    let (refused, retried) = (seen.count("econ").unwrap(), seen.count("wretr").unwrap());
    println!(
        "{} servers replaced under load: {outcome}; {requests} requests of back ends, all answered, {} after the database was slow; {connections} sockets, \
         {failed} that could not connect, {rejected} commands rejected; the proxy met a closed door {refused} times, and \
         repeated {retried} requests",
        ROUNDS * nodes.len(),
        busy.load(Ordering::Relaxed),
    );
    assert!(outcome.is_kept() && outcome.acknowledged > 1000, "{outcome}; {}", logs(&[&nodes[0], &nodes[1]]));
    assert_eq!((failed, rejected, refused, retried), (0, 0, 0, 0), "{}", proxy.log());
    let moved = 2 * SESSIONS * ROUNDS * nodes.len() / 2;
    assert!(connections >= moved as u64, "{connections} connections: the buyers' servers were not replaced");
}
