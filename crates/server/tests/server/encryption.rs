//! What is found of buyers where it must not be, and keys that change while they buy.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use throughline_test_services::buyer::{Buyer, Identity};
use throughline_test_services::fleet::{Fleet, Node};
use throughline_test_services::otlp_receiver::OtlpReceiver;
use throughline_test_services::postgres::Postgres;
use throughline_test_services::redis::{Redis, RedisOptions};

use super::fleets::*;

/// What identifies a buyer or pays for them. Each is somewhere in a session.
const CANARIES: [&str; 9] = [
    "canary.mail@example.com",
    "Canaryfirst",
    "Canarylast",
    "+15550199canary",
    "Canary Street 7",
    "canary-vault",
    "canary-transaction",
    "canary-payment-token",
    "canary-metadata",
];

fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_throughline")
}

/// A fleet whose services write down all that they have.
fn writing_fleet() -> Fleet {
    let redis = RedisOptions::default().append_only(true).start().unwrap();
    Fleet::with(binary(), Postgres::options().fsync(true).start().unwrap(), redis).unwrap()
}

/// The files below a folder in which one of the texts stands, in any case.
fn found_in(folder: &Path, texts: &[String]) -> Vec<String> {
    // What takes `grep` a moment would take an unoptimised loop minutes: there are WAL files of 16 MiB.
    let mut grep = std::process::Command::new("grep");
    grep.args(["--recursive", "--ignore-case", "--text", "--fixed-strings", "--files-with-matches"]);
    for text in texts {
        grep.args(["--regexp", text]);
    }
    let output = grep.arg(folder).output().unwrap();
    // 2: some file could not be read, which is gone by now.
    assert!(output.status.code().is_some_and(|code| code <= 2), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

async fn commands(fleet: &Fleet, node: &Node, id: &str, commands: Value) -> Value {
    let request = post(fleet, node, &format!("/v1/sessions/{id}/commands"), &json!({ "commands": commands }));
    // A caller may call a request by whatever they like.
    static CALLS: AtomicU32 = AtomicU32::new(1);
    let name = format!("call {} of {}", CALLS.fetch_add(1, Ordering::Relaxed), CANARIES[0]);
    let answer = request.header("idempotency-key", name).send().await.unwrap();
    let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert!(status.is_success(), "{status} {body}");
    body
}

/// A session with all canaries; its id and the secrets that were given out for it.
async fn canaries(fleet: &Fleet, node: &Node) -> (String, Vec<String>) {
    let [email, first, last, phone, street, vault, transaction, token, metadata] = CANARIES;
    let new = json!({
        "email": email,
        "customer": { "firstName": first, "lastName": last, "phone": phone, "billing": { "address": street } },
        "products": [{ "id": "fitspresso-1-pack", "quantity": 1 }],
        "metadata": { "note": metadata },
    });
    let created = post(fleet, node, "/v1/sessions", &new).header("idempotency-key", email).send().await.unwrap();
    let (status, created) = (created.status(), created.json::<Value>().await.unwrap());
    assert_eq!(status, 201, "{created}");
    let id = created["session"]["id"].as_str().unwrap().to_owned();
    let mut secrets = vec![created["token"].as_str().unwrap().to_owned()];
    let amount = created["session"]["amount"].clone();
    let paid = json!([
        { "type": "beginProcessing" },
        { "type": "recordPayment", "amount": amount, "transactionId": transaction, "vaultId": vault, "paymentToken": token },
    ]);
    commands(fleet, node, &id, paid).await;
    let handoff = post(fleet, node, &format!("/v1/sessions/{id}/handoff"), &json!({})).send().await.unwrap();
    secrets.push(handoff.json::<Value>().await.unwrap()["code"].as_str().unwrap().to_owned());
    (id, secrets)
}

#[tokio::test]
async fn asvs_16_2_5_nothing_of_a_buyer_is_found_in_databases_logs_traces_metrics_or_errors() {
    let fleet = writing_fleet();
    let receiver = OtlpReceiver::start().unwrap();
    let mut node = fleet.node("a", &["--log", "trace", "--otlp-endpoint", &receiver.url]).unwrap();
    let (id, mut secrets) = canaries(&fleet, &node).await;
    // What is ahead of the database is in Redis: a buyer who goes on typing.
    let identity = Identity::new();
    let buyer = Buyer::start(&identity, std::slice::from_ref(&node.address), OFTEN);
    accepted(&buyer, 20).await;
    secrets.push(identity.claim.clone());
    // Requests that are refused, with what is wrong in them.
    let mut said = String::new();
    for (path, body) in [
        ("/v1/sessions", json!({ "email": format!("{} {}", CANARIES[0], CANARIES[1]) })),
        ("/v1/sessions", json!({ "email": 7, CANARIES[1]: CANARIES[2] })),
        ("/v1/handoff", json!({ "code": CANARIES[5] })),
    ] {
        let refused = post(&fleet, &node, path, &body).send().await.unwrap();
        assert!(refused.status().is_client_error(), "{path}: {}", refused.status());
        said.push_str(&refused.text().await.unwrap());
    }
    let metrics = reqwest::get(format!("http://{}/metrics", node.address)).await.unwrap().text().await.unwrap();
    buyer.leave().await;
    assert!(node.stop().unwrap().success());
    fleet.postgres.execute("shop", "CHECKPOINT").unwrap();
    fleet.redis.command(&["SAVE"]).unwrap();

    let texts: Vec<String> = CANARIES.iter().map(|canary| (*canary).to_owned()).chain(secrets).collect();
    assert!(
        !found_in(fleet.postgres.folder(), std::slice::from_ref(&id)).is_empty(),
        "ids are no secrets: they are found"
    );
    assert!(!found_in(fleet.redis.folder(), std::slice::from_ref(&identity.session_id)).is_empty(), "in Redis as well");
    for folder in [fleet.postgres.folder(), fleet.redis.folder()] {
        assert_eq!(found_in(folder, &texts), [] as [String; 0]);
    }
    let log = node.log();
    assert!(log.contains("/v1/sessions"), "something is logged");
    // The server has sent its last spans before it ended.
    let spans = format!("{:?}", receiver.spans());
    assert!(spans.contains(&id) && spans.contains("recordPayment"), "something is traced: {spans}");
    for text in &texts {
        for (place, words) in [("the log", &log), ("the traces", &spans), ("the metrics", &metrics)] {
            assert!(!words.to_lowercase().contains(&text.to_lowercase()), "{text} is in {place}");
        }
    }
    // The name of a field is told to whoever sent it, what is in it is not.
    for text in [CANARIES[0], CANARIES[2], CANARIES[5]] {
        assert!(!said.to_lowercase().contains(&text.to_lowercase()), "{text} is in an error: {said}");
    }
}

#[tokio::test]
async fn a_database_of_another_key_ring_is_not_read_and_says_which_key_is_missing() {
    let fleet = fleet();
    let node = fleet.node("a", &[]).unwrap();
    let id = created(&fleet, &node).await;
    std::fs::remove_file(fleet.keys_file()).unwrap();
    let keys_file = fleet.keys_file().display().to_string();
    fleet.run(&["keys", "generate", "--keys-file", &keys_file]).unwrap();
    fleet.redis.command(&["FLUSHALL"]).unwrap();
    let refused = fleet.node("b", &[]).unwrap_err().to_string();
    assert!(refused.contains("under keys that the key ring does not have"), "{refused}");
    let list = ["keys", "list", "--keys-file", &keys_file, "--database-url", &fleet.postgres.url("shop")];
    assert!(fleet.run(&list).unwrap().contains("missing"));

    // A ring that lacks a key which is in use, as of a file that is half written, is not taken over.
    node.reload().unwrap();
    until("the mistake is told", LONG, async || node.log().contains("can't be read again")).await;
    assert!(node.log().contains("which is neither listed nor retired"), "{}", node.log());
    assert_eq!(strict(&fleet, &node, &id, "ada@example.com").await.0, 200);
}

/// How many sessions are under each key, and the state of each, as `keys list` says.
fn listed(fleet: &Fleet) -> Vec<(String, String, u64)> {
    let (keys, database) = (fleet.keys_file().display().to_string(), fleet.postgres.url("shop"));
    let text = fleet.run(&["keys", "list", "--json", "--keys-file", &keys, "--database-url", &database]).unwrap();
    let keys: Vec<Value> = serde_json::from_str(&text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    keys.iter().map(|key| (text(&key["id"]), text(&key["state"]), key["sessions"].as_u64().unwrap())).collect()
}

async fn found_by_email(fleet: &Fleet, node: &Node, email: &str) -> usize {
    let client = reqwest::Client::builder().timeout(LONG).build().unwrap();
    let answer = client.get(format!("http://{}/v1/sessions?email={email}", node.address));
    let answer = answer.bearer_auth(&fleet.service_key).send().await.unwrap();
    answer.json::<Value>().await.unwrap()["sessions"].as_array().unwrap().len()
}

#[tokio::test]
async fn asvs_11_2_2_keys_are_rotated_under_load_and_retired_without_losing_anything() {
    let fleet = Fleet::with(binary(), Postgres::start().unwrap(), Redis::start().unwrap()).unwrap();
    let nodes = [fleet.node("a", &[]).unwrap(), fleet.node("b", &[]).unwrap()];
    let mut buyers = Vec::new();
    for node in [&nodes[0], &nodes[1], &nodes[0], &nodes[1]] {
        let identity = Identity::new();
        let buyer = Buyer::start(&identity, std::slice::from_ref(&node.address), OFTEN);
        buyers.push((identity, buyer));
    }
    let resting: Vec<String> = futures_util::future::join_all((0..20).map(|_| created(&fleet, &nodes[0]))).await;
    for id in &resting {
        assert_eq!(strict(&fleet, &nodes[0], id, "ada@example.com").await.0, 200);
    }
    all_accepted(&buyers, 5).await;
    let old = listed(&fleet).remove(0).0;

    let keys_file = fleet.keys_file().display().to_string();
    fleet.run(&["keys", "rotate", "--keys-file", &keys_file, "--after", "1s"]).unwrap();
    nodes.iter().for_each(|node| node.reload().unwrap());
    all_accepted(&buyers, 5).await;
    let is_under_new = async || {
        nodes.iter().for_each(|node| node.reload().unwrap());
        listed(&fleet).iter().all(|(id, _, sessions)| (*id == old) == (*sessions == 0))
    };
    until("all sessions are under the new key", LONG, is_under_new).await;
    assert_eq!(found_by_email(&fleet, &nodes[1], "ada@example.com").await, 20, "also with a hash of the new key");

    let retire = |more: &[&str]| fleet.run(&[&["keys", "retire", &old, "--keys-file", &keys_file][..], more].concat());
    let needed = retire(&[]).unwrap_err().to_string();
    assert!(needed.contains("tokens that it made"), "{needed}");
    retire(&["--force"]).unwrap();
    nodes.iter().for_each(|node| node.reload().unwrap());
    for node in &nodes {
        until("the retired key is gone", LONG, async || node.log().matches("the key ring has changed").count() >= 2)
            .await;
    }
    // Those who are there go on, with new tokens; what nobody uses is read with the new key, also by a server that never knew
    // the old one.
    all_accepted(&buyers, 20).await;
    let database = fleet.postgres.url("shop");
    let forget = ["keys", "forget", &old, "--keys-file", &keys_file, "--database-url", &database];
    // A server that runs has to bring the end of the audit log under the new one first.
    until("nothing needs the old key", LONG, async || fleet.run(&forget).is_ok()).await;
    let newcomer = fleet.node("c", &[]).unwrap();
    for id in &resting {
        assert_eq!(strict(&fleet, &newcomer, id, "bob@example.com").await.0, 200, "{}", newcomer.log());
    }
    assert_eq!(found_by_email(&fleet, &nodes[0], "ada@example.com").await, 0);
    for (identity, buyer) in buyers {
        settled(&fleet, &[&nodes[0], &nodes[1], &newcomer], vec![(identity, buyer)]).await;
    }
}

#[tokio::test]
async fn asvs_14_2_2_an_erased_session_has_another_key_and_nothing_of_it_is_left_in_the_live_tiers() {
    let fleet = writing_fleet();
    let nodes = [fleet.node("a", &[]).unwrap(), fleet.node("b", &[]).unwrap()];
    let (id, _) = canaries(&fleet, &nodes[0]).await;
    let client = reqwest::Client::builder().timeout(LONG).build().unwrap();
    let read = async |node: &Node| {
        let answer = client.get(format!("http://{}/v1/sessions/{id}", node.address)).bearer_auth(&fleet.service_key);
        answer.send().await.unwrap().json::<Value>().await.unwrap()
    };
    assert_eq!(read(&nodes[1]).await["email"], CANARIES[0]);
    let data_key = async || {
        let mut database =
            <sqlx::PgConnection as sqlx::Connection>::connect(&fleet.postgres.url("shop")).await.unwrap();
        let select = sqlx::query_scalar::<_, Vec<u8>>("SELECT data_key FROM sessions WHERE session_id = $1").bind(&id);
        select.fetch_one(&mut database).await.unwrap()
    };
    let first_key = data_key().await;
    commands(&fleet, &nodes[0], &id, json!([{ "type": "setMetadata", "metadata": { "a": 1 } }])).await;
    assert_eq!(data_key().await, first_key, "a change does not need another key");
    let erased = client.delete(format!("http://{}/v1/sessions/{id}", nodes[0].address)).bearer_auth(&fleet.service_key);
    assert!(erased.send().await.unwrap().status().is_success());
    until("the other server knows", Duration::from_secs(5), async || read(&nodes[1]).await["email"].is_null()).await;
    let events = client.get(format!("http://{}/v1/sessions/{id}/events", nodes[1].address));
    let events = events.bearer_auth(&fleet.service_key).send().await.unwrap().json::<Value>().await.unwrap();
    let kinds: Vec<&Value> =
        events["records"].as_array().unwrap().iter().map(|record| &record["event"]["type"]).collect();
    assert_eq!(kinds, ["erased"], "{events}");
    assert_ne!(data_key().await, first_key, "what older copies hold can't be read with what the database has");
    assert_eq!(fleet.redis.command(&["EXISTS", &format!("throughline:session:{id}")]).unwrap(), "0");
}
