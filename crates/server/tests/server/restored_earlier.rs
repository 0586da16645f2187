//! A database is put back to an earlier moment, and browsers knew more.

use std::collections::BTreeSet;

use serde_json::Value;
use throughline_test_services::buyer::{Buyer, Identity};
use throughline_test_services::promises;

use super::fleets::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browsers_that_knew_more_are_told_so_and_go_on_from_what_was_restored() {
    let fleet = fleet();
    let mut node = fleet.node("a", &[]).unwrap();
    let identity = Identity::new();
    let servers = [node.address.clone()];
    let buyer = Buyer::start(&identity, &servers, OFTEN);
    accepted(&buyer, 20).await;
    let kept_id = created(&fleet, &node).await;
    assert!(node.stop().unwrap().success());
    let before = buyer.told();
    fleet.postgres.copy_database("backup", "shop").unwrap();
    node.start_again().unwrap();
    accepted(&buyer, 40).await;
    let lost_id = created(&fleet, &node).await;
    for id in [&kept_id, &identity.session_id] {
        assert_eq!(strict(&fleet, &node, id, "ada@example.com").await.0, 200);
    }
    assert!(node.stop().unwrap().success());
    let lost_until = buyer.told();

    fleet.postgres.execute("postgres", "DROP DATABASE shop").unwrap();
    fleet.postgres.copy_database("shop", "backup").unwrap();
    fleet.redis.command(&["FLUSHALL"]).unwrap();
    node.start_again().unwrap();
    accepted(&buyer, 40).await;
    assert!(buyer.settle(LONG).await, "not settled: {:?}; {}", buyer.told(), node.log());
    let told = buyer.leave().await;
    assert!(told.went_back >= 1, "it was not told that what it knew is gone: {told:?}");

    let now = promises::session(&fleet, &node, &identity.session_id).await.unwrap();
    let shown = told.shown.unwrap();
    let differs = ["version", "email", "metadata", "currentStep"].into_iter().find(|&field| now[field] != shown[field]);
    assert_eq!(differs, None, "the page shows {shown}, and the server has {now}");

    let records = promises::journal(&fleet, &node, &identity.session_id).await.unwrap();
    let prefix = format!("{}-", identity.client_id);
    let numbers: Vec<u64> = records
        .iter()
        .filter_map(|record| record["event"]["metadata"]["change"].as_str()?.strip_prefix(&prefix)?.parse().ok())
        .collect();
    let kept: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(kept.len(), numbers.len(), "something took effect twice: {numbers:?}");
    assert!(before.durable.is_subset(&kept), "what the backup had is there");
    let gone: BTreeSet<u64> = told.durable.difference(&kept).copied().collect();
    let between: BTreeSet<u64> = lost_until.durable.difference(&before.durable).copied().collect();
    assert!(gone.len() >= 20 && gone.is_subset(&between), "{gone:?} is gone, of {between:?}");
    let after: BTreeSet<u64> = told.durable.difference(&lost_until.durable).copied().collect();
    assert!(after.len() >= 40 && after.is_subset(&kept), "what came afterwards is there");

    let restored = promises::session(&fleet, &node, &kept_id).await.unwrap();
    assert_eq!(restored["email"], Value::Null, "it is as it was in the backup");
    assert!(promises::session(&fleet, &node, &lost_id).await.unwrap_err().starts_with("404"));
}
