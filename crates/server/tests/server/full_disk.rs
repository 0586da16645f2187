//! A database on a disk that is full.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use throughline_test_services::buyer::{Buyer, Identity};
use throughline_test_services::fleet::{Fleet, Node};
use throughline_test_services::postgres::Postgres;
use throughline_test_services::promises;
use throughline_test_services::redis::Redis;
use throughline_test_services::small_disk::SmallDisk;

use super::fleets::*;

/// Room for what PostgreSQL brings along, and for what is written before the disk is filled.
const DISK: u64 = 160 * 1024 * 1024;

/// Room for a SQLite file and what is written before the disk is filled.
const SQLITE_DISK: u64 = 8 * 1024 * 1024;

/// How large each change is: what takes new pages is refused at once.
const CHANGE_BYTES: usize = 12 * 1024;

/// How many changes are tried while there is no room.
const TRIED: usize = 12;

/// A back end: each of its commands counts when the database has it.
struct BackEnd {
    id: String,
    sent: usize,
    acknowledged: Vec<String>,
}

impl BackEnd {
    async fn of_new_session(fleet: &Fleet, node: &Node) -> Self {
        Self { id: created(fleet, node).await, sent: 0, acknowledged: Vec::new() }
    }

    /// Changes the session; the status, and whether the answer says when to come back.
    async fn change(&mut self, fleet: &Fleet, node: &Node) -> (u16, bool) {
        self.sent += 1;
        let change = format!("back-end-{}", self.sent);
        // Nothing that PostgreSQL could compress.
        let ballast: String = std::iter::repeat_with(|| Identity::new().claim).take(CHANGE_BYTES / 64).collect();
        let command = json!({ "type": "setMetadata", "metadata": { "change": change, "ballast": ballast } });
        let path = format!("/v1/sessions/{}/commands", self.id);
        let answer = post(fleet, node, &path, &json!({ "commands": [command] })).send().await.unwrap();
        let (status, may_come_back) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
        if status == 200 {
            let answer = answer.json::<Value>().await.unwrap();
            assert_eq!(answer["results"][0]["durable"], true, "{answer}");
            self.acknowledged.push(change);
        }
        (status, may_come_back)
    }

    /// Everything that was acknowledged took effect, and nothing twice.
    async fn check(&self, fleet: &Fleet, node: &Node) {
        let records = promises::journal(fleet, node, &self.id).await.unwrap();
        let changes: Vec<&str> =
            records.iter().filter_map(|record| record["event"]["metadata"]["change"].as_str()).collect();
        for number in 1..=self.sent {
            let change = format!("back-end-{number}");
            let times = changes.iter().filter(|found| **found == change).count();
            let is_acknowledged = self.acknowledged.contains(&change);
            assert!(times == 1 || (times == 0 && !is_acknowledged), "{change}: {times} times, {is_acknowledged}");
        }
    }
}

/// What `/readyz` says: its status, and those of the server and of its database.
async fn readiness(node: &Node) -> (u16, String, String) {
    let (status, body) = node.readiness().await.unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (status, text(&body["status"]), text(&body["dependencies"]["database"]["status"]))
}

/// What `mounted` is; `None`, and a line that says so, where nothing can be mounted.
fn on_a_small_disk<T>(mounted: io::Result<T>) -> Option<T> {
    match mounted {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            eprintln!("SKIPPED: a full disk needs a small one, and {error}");
            None
        }
        mounted => Some(mounted.unwrap()),
    }
}

/// Two servers on a PostgreSQL whose disk can be filled, and who uses them.
struct Shop {
    fleet: Fleet,
    nodes: [Node; 2],
    /// One for each server.
    buyers: Vec<(Identity, Buyer)>,
    back_end: BackEnd,
}

impl Shop {
    /// `None` where nothing can be mounted.
    async fn open() -> Option<Self> {
        let postgres = on_a_small_disk(Postgres::options().fsync(true).disk(DISK).start())?;
        let fleet = Fleet::with(env!("CARGO_BIN_EXE_throughline"), postgres, Redis::start().unwrap()).unwrap();
        let nodes = [fleet.node("a", &[]).unwrap(), fleet.node("b", &[]).unwrap()];
        let mut buyers = Vec::new();
        for node in &nodes {
            let identity = Identity::new();
            let buyer = Buyer::start(&identity, std::slice::from_ref(&node.address), OFTEN);
            buyers.push((identity, buyer));
        }
        all_accepted(&buyers, 10).await;
        let mut back_end = BackEnd::of_new_session(&fleet, &nodes[0]).await;
        for node in &nodes {
            assert_eq!(back_end.change(&fleet, node).await.0, 200, "{}", node.log());
        }
        Some(Self { fleet, nodes, buyers, back_end })
    }
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_promised_and_with_room_again_everything_goes_on() {
    let Some(Shop { fleet, nodes, buyers, mut back_end }) = Shop::open().await else { return };
    let alone = fleet.node_on("alone", &fleet.postgres.url("shop"), None, &[]).unwrap();
    let is_alone = |node: &Node| node.address == alone.address;
    for node in [&nodes[0], &nodes[1], &alone] {
        assert_eq!(back_end.change(&fleet, node).await.0, 200, "{}", node.log());
        assert_eq!(readiness(node).await, (200, "ready".to_owned(), "up".to_owned()));
    }

    // The second time is harder: what was written to find out whether writing works has its place by then.
    for _ in 0..2 {
        fleet.postgres.fill_disk().unwrap();
        for node in [&nodes[0], &nodes[1], &alone] {
            until("changes are refused", LONG, async || back_end.change(&fleet, node).await.0 != 200).await;
            for _ in 0..TRIED {
                assert_eq!(back_end.change(&fleet, node).await, (503, true), "{}", node.log());
                if is_alone(node) {
                    assert_eq!(
                        readiness(node).await,
                        (503, "notReady".to_owned(), "down".to_owned()),
                        "{}",
                        node.log()
                    );
                }
            }
            if is_alone(node) {
                // That reading works does not hide it.
                until("nobody waits for it any more", LONG, async || {
                    assert_eq!(back_end.change(&fleet, node).await, (503, true), "{}", node.log());
                    node.readiness().await.unwrap().1["mode"] == "memoryOnly"
                })
                .await;
            } else {
                // What a buyer changes here is small and may find its place now and then; it may also wait for one, so
                // the server is of use.
                until("it says that there is no room", LONG, async || {
                    assert_eq!(back_end.change(&fleet, node).await, (503, true), "{}", node.log());
                    readiness(node).await == (200, "degraded".to_owned(), "down".to_owned())
                })
                .await;
            }
        }
        // What a buyer does may wait in two memories.
        all_accepted(&buyers, 10).await;
        fleet.postgres.free_disk().unwrap();
        for node in [&nodes[0], &nodes[1], &alone] {
            until("it is used again", Duration::from_secs(10), async || readiness(node).await.1 == "ready").await;
            assert_eq!(back_end.change(&fleet, node).await.0, 200, "{}", node.log());
        }
    }
    assert!(fleet.postgres.log().contains("No space left on device"), "{}", fleet.postgres.log());
    for node in [&nodes[0], &nodes[1], &alone] {
        back_end.check(&fleet, node).await;
    }
    for buyer in buyers {
        let (outcome, _) = settled(&fleet, &[&nodes[0], &nodes[1], &alone], vec![buyer]).await;
        assert!(outcome.acknowledged > 20, "{outcome}");
    }
}

#[tokio::test]
async fn a_database_that_ends_because_its_log_has_no_room_has_kept_what_was_acknowledged() {
    let Some(Shop { mut fleet, nodes, buyers, mut back_end }) = Shop::open().await else { return };

    fleet.postgres.fill_disk().unwrap();
    // Segments of the log that are there already are used up first, and it may recover from the first failure.
    until("PostgreSQL has given up", LONG, async || {
        let next = "SELECT pg_logical_emit_message(false, 'next', 'segment'); SELECT pg_switch_wal()";
        let _ = fleet.postgres.execute("shop", next);
        !fleet.postgres.is_running().unwrap()
    })
    .await;
    let log = fleet.postgres.log();
    assert!(log.contains("PANIC") && log.contains("No space left on device"), "{log}");
    for node in &nodes {
        assert_eq!(back_end.change(&fleet, node).await, (503, true), "{}", node.log());
        assert_eq!(readiness(node).await, (200, "degraded".to_owned(), "down".to_owned()));
    }
    all_accepted(&buyers, 10).await;

    // Whoever watches over it frees its disk and starts it again.
    fleet.postgres.free_disk().unwrap();
    fleet.postgres.start_again().unwrap();
    for node in &nodes {
        until("it is used again", Duration::from_secs(10), async || readiness(node).await.1 == "ready").await;
        assert_eq!(back_end.change(&fleet, node).await.0, 200, "{}", node.log());
        back_end.check(&fleet, node).await;
    }
    for buyer in buyers {
        let (outcome, _) = settled(&fleet, &[&nodes[0], &nodes[1]], vec![buyer]).await;
        assert!(outcome.acknowledged > 20, "{outcome}");
    }
}

#[tokio::test]
async fn with_a_full_disk_under_sqlite_reading_goes_on_and_the_log_tells_of_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = SmallDisk::mount(folder.path().join("data"), SQLITE_DISK, None);
    let Some(disk) = on_a_small_disk(mounted) else { return };
    let fleet = fleet();
    let database = format!("sqlite:{}", disk.place().join("throughline.db").display());
    let node = fleet.node_on("sqlite", &database, None, &["--session-memory", "1"]).unwrap();
    let mut back_end = BackEnd::of_new_session(&fleet, &node).await;
    assert_eq!(back_end.change(&fleet, &node).await.0, 200, "{}", node.log());
    assert_eq!(readiness(&node).await, (200, "ready".to_owned(), "up".to_owned()));

    for round in 1..=2 {
        let lines_before = node.log().lines().count();
        disk.fill().unwrap();
        until("nobody waits for it any more", LONG, async || {
            let (status, may_come_back) = back_end.change(&fleet, &node).await;
            assert!(status == 200 || may_come_back, "{status}; {}", node.log());
            mode(&node).await == "memoryOnly"
        })
        .await;
        for _ in 0..TRIED {
            assert_eq!(back_end.change(&fleet, &node).await, (503, true), "{}", node.log());
        }
        assert_eq!(readiness(&node).await, (503, "notReady".to_owned(), "down".to_owned()));
        // What nobody has in memory is read from the file.
        let url = format!("http://{}/v1/sessions/{}", node.address, back_end.id);
        let answer = reqwest::Client::new().get(url).bearer_auth(&fleet.service_key).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", node.log());
        assert!(!answer.headers().contains_key("warning"), "nobody else changes it, so it is the latest");

        disk.free().unwrap();
        until("it is used again", Duration::from_secs(10), async || readiness(&node).await.1 == "ready").await;
        assert_eq!(back_end.change(&fleet, &node).await.0, 200, "{}", node.log());
        until("the log says so", LONG, async || node.log().matches("all tiers are there").count() == round).await;
        let log = node.log();
        let lines: Vec<&str> = log.lines().skip(lines_before).collect();
        let said = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!((said("nothing can be stored"), said("all tiers are there")), (1, 1), "{log}");
        assert!(lines.len() < TRIED, "a line for each request: {log}");
    }
    back_end.check(&fleet, &node).await;
}
