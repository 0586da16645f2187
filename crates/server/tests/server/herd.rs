//! Many who ask for the same session at once, at servers that do not have it in memory.

use std::time::{Duration, Instant};

use throughline_test_services::buyer::Identity;
use throughline_test_services::fleet::{Fleet, Node};

use super::fleets::*;

/// How many ask at once at each server.
const READERS: usize = 200;

/// A link that was interrupted meanwhile makes a server read again what it has, rightly: then it is tried once more.
const TRIES: usize = 5;

/// Long enough that nobody who waits for the database is refused.
const PATIENT: [&str; 4] = ["--database-timeout", "30s", "--request-timeout", "30s"];

/// For how long a server remembers that there is no session.
const REMEMBERED_FOR: Duration = Duration::from_secs(5);

/// What one server has counted.
#[derive(Debug, Clone, Copy)]
struct Counts {
    loads: f64,
    memory_misses: f64,
    known_absent: f64,
    interruptions: f64,
}

impl Counts {
    async fn of(node: &Node) -> Self {
        let of_memory = [("tier", "memory"), ("outcome", "miss")];
        Self {
            loads: node.metric_of("throughline_database_calls_total", &[("operation", "load")]).await.unwrap(),
            memory_misses: node.metric_of("throughline_tier_reads_total", &of_memory).await.unwrap(),
            known_absent: node.metric("throughline_known_absent_total").await.unwrap(),
            interruptions: node.metric("throughline_cache_link_interruptions_total").await.unwrap(),
        }
    }
}

/// Two servers that share a Redis, or have none.
struct Servers {
    fleet: Fleet,
    has_redis: bool,
    nodes: [Node; 2],
}

fn node(fleet: &Fleet, name: &str, has_redis: bool) -> Node {
    let redis = has_redis.then(|| fleet.redis.url());
    fleet.node_on(name, &fleet.postgres.url("shop"), redis.as_deref(), &PATIENT).unwrap()
}

impl Servers {
    fn start(has_redis: bool) -> Self {
        let fleet = fleet();
        let nodes = ["a", "b"].map(|name| node(&fleet, name, has_redis));
        Self { fleet, has_redis, nodes }
    }

    /// Waits until every server hears of everything that the others change.
    async fn linked(&self) {
        for node in &self.nodes {
            until("the links are up", LONG, async || {
                let partitions = node.metric("throughline_cache_partitions").await.unwrap();
                node.metric("throughline_announcements_up").await.unwrap() == 1.0
                    && node.metric("throughline_cache_partitions_linked").await.unwrap() == partitions
            })
            .await;
        }
    }

    /// Empties Redis, and waits until its servers have noticed on every partition and hear again.
    async fn empty_redis(&self) {
        self.linked().await;
        if !self.has_redis {
            return;
        }
        let before = self.counts().await;
        self.fleet.redis.command(&["FLUSHALL"]).unwrap();
        for (node, before) in self.nodes.iter().zip(before) {
            until("it is noticed that Redis lost everything", LONG, async || {
                let partitions = node.metric("throughline_cache_partitions").await.unwrap();
                let now = node.metric("throughline_cache_link_interruptions_total").await.unwrap();
                now >= before.interruptions + partitions
            })
            .await;
        }
        self.linked().await;
    }

    async fn counts(&self) -> Vec<Counts> {
        futures_util::future::join_all(self.nodes.iter().map(Counts::of)).await
    }

    /// Everybody asks every server for a session at once; the statuses of the answers.
    async fn ask(&self, id: &str) -> Vec<u16> {
        let client = reqwest::Client::builder().timeout(LONG).build().unwrap();
        let ask = |node: &Node| {
            let request = client.get(format!("http://{}/v1/sessions/{id}", node.address));
            let sent = request.bearer_auth(&self.fleet.service_key).send();
            async { sent.await.unwrap().status().as_u16() }
        };
        let all = self.nodes.iter().flat_map(|node| (0..READERS).map(|_| ask(node)).collect::<Vec<_>>());
        futures_util::future::join_all(all).await
    }

    /// The same while the database answers nobody, until all of them wait for it.
    async fn ask_before_the_database_answers(&self, id: &str) -> Vec<u16> {
        let before = self.counts().await;
        let locked = self.fleet.postgres.lock_table("shop", "sessions").unwrap();
        let waiting = async {
            for (node, before) in self.nodes.iter().zip(&before) {
                until("everybody waits", LONG, async || {
                    Counts::of(node).await.memory_misses >= before.memory_misses + READERS as f64
                })
                .await;
            }
            drop(locked);
        };
        tokio::join!(self.ask(id), waiting).0
    }
}

/// Whether no link was interrupted between two looks.
fn is_calm(before: &[Counts], after: &[Counts]) -> bool {
    before.iter().zip(after).all(|(before, after)| before.interruptions == after.interruptions)
}

fn loads(before: &[Counts], after: &[Counts]) -> Vec<f64> {
    before.iter().zip(after).map(|(before, after)| after.loads - before.loads).collect()
}

async fn each_server_loads_a_session_once(has_redis: bool) {
    let servers = Servers::start(has_redis);
    let mut creator = node(&servers.fleet, "creator", has_redis);
    let mut ids = Vec::new();
    for _ in 0..TRIES {
        ids.push(created(&servers.fleet, &creator).await);
    }
    // Nobody has them in memory any more.
    assert!(creator.stop().unwrap().success());
    for id in ids {
        servers.empty_redis().await;
        let before = servers.counts().await;
        let statuses = servers.ask_before_the_database_answers(&id).await;
        assert_eq!(statuses, vec![200; servers.nodes.len() * READERS]);
        let after = servers.counts().await;
        if is_calm(&before, &after) {
            let loads = loads(&before, &after);
            assert!(loads.iter().all(|loads| *loads <= 1.0), "{loads:?}");
            // Of two servers that share a Redis, the second may find there what the first has put.
            assert!(loads.iter().sum::<f64>() >= if has_redis { 1.0 } else { 2.0 }, "{loads:?}");
            return;
        }
    }
    panic!("the links were interrupted {TRIES} times");
}

#[tokio::test]
async fn a_herd_loads_a_session_from_the_database_once_for_each_server() {
    each_server_loads_a_session_once(true).await;
    each_server_loads_a_session_once(false).await;
}

async fn each_server_asks_once_for_what_does_not_exist(has_redis: bool) {
    let servers = Servers::start(has_redis);
    servers.linked().await;
    for _ in 0..TRIES {
        let id = Identity::new().session_id;
        let before = servers.counts().await;
        let statuses = servers.ask_before_the_database_answers(&id).await;
        let told = Instant::now();
        assert_eq!(statuses, vec![404; servers.nodes.len() * READERS]);
        let between = servers.counts().await;
        assert_eq!(servers.ask(&id).await, vec![404; servers.nodes.len() * READERS]);
        let took = told.elapsed();
        let after = servers.counts().await;
        if is_calm(&before, &after) && took < REMEMBERED_FOR {
            assert_eq!(loads(&before, &between), [1.0; 2], "each server asks once");
            assert_eq!(loads(&between, &after), [0.0; 2], "and then remembers");
            for (between, after) in between.iter().zip(&after) {
                assert_eq!(after.known_absent - between.known_absent, READERS as f64);
            }
            return;
        }
    }
    panic!("the links were interrupted {TRIES} times, or the machine is too slow");
}

#[tokio::test]
async fn a_herd_that_asks_for_what_does_not_exist_is_told_so_without_asking_the_database_again() {
    each_server_asks_once_for_what_does_not_exist(true).await;
    each_server_asks_once_for_what_does_not_exist(false).await;
}
