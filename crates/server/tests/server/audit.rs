//! The audit log: that it tells of everything, of no person, and that nobody changes it unnoticed.

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Connection as _;
use throughline_test_services::buyer::{Buyer, Identity};
use throughline_test_services::fleet::{Fleet, Node};

use super::binary::*;
use super::fleets::*;

/// How long a log may take to be sealed.
const SEALED: Duration = Duration::from_secs(10);

fn audit(fleet: &Fleet, database: &str, arguments: &[&str]) -> Output {
    let (keys, url) = (fleet.keys_file().display().to_string(), fleet.postgres.url(database));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_throughline"));
    command.arg("audit").args(arguments).args(["--keys-file", &keys, "--database-url", &url]);
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{errors}")
}

fn exported(fleet: &Fleet, arguments: &[&str]) -> Vec<Value> {
    let output = audit(fleet, "shop", &[&["export"], arguments].concat());
    assert!(output.status.success(), "{}", text(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn database(fleet: &Fleet, name: &str) -> sqlx::PgConnection {
    sqlx::PgConnection::connect(&fleet.postgres.url(name)).await.unwrap()
}

/// Waits until every record is in some block.
async fn sealed(fleet: &Fleet) {
    let mut connection = database(fleet, "shop").await;
    until("the log is sealed", SEALED, async || {
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM audit_log LEFT JOIN audit_heads USING (tenant)
             WHERE position > coalesce(through_position, 0)",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        open == 0
    })
    .await;
}

/// Changes of sessions of which the log does not tell.
async fn untold(fleet: &Fleet) -> i64 {
    let mut connection = database(fleet, "shop").await;
    sqlx::query_scalar(
        "WITH told AS (SELECT tenant, body::jsonb ->> 'session' AS session_id, (body::jsonb ->> 'version')::bigint AS version,
                jsonb_array_length(body::jsonb -> 'did') AS events FROM audit_log)
         SELECT count(*) FROM journal WHERE NOT EXISTS (
            SELECT 1 FROM told WHERE told.tenant = journal.tenant AND told.session_id = journal.session_id
                AND journal.version > told.version - told.events AND journal.version <= told.version)",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap()
}

async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(LONG).build().unwrap()
}

#[tokio::test]
async fn asvs_16_2_1_the_log_tells_who_did_what_from_where_and_what_was_denied() {
    let fleet = fleet();
    let node = fleet.node("a", &["--trusted-proxies", "127.0.0.1"]).unwrap();
    let answer = post(&fleet, &node, "/v1/sessions", &json!({ "email": "ada@example.com" }))
        .header("x-forwarded-for", "203.0.113.77");
    let created = answer.send().await.unwrap().json::<Value>().await.unwrap();
    let (id, token) = (created["session"]["id"].as_str().unwrap().to_owned(), created["token"].as_str().unwrap());
    let address = |path: &str| format!("http://{}{path}", node.address);
    let from = |network: &str, request: reqwest::RequestBuilder| request.header("x-forwarded-for", network.to_owned());
    // The buyer changes something, and is refused something.
    let commands = json!({ "commands": [{ "type": "setMetadata", "metadata": { "a": 1 } }, { "type": "acceptUpsell", "offer": "none" },
        { "type": "setMetadata", "metadata": { "a": 1 } }] });
    let request = client().post(address(&format!("/v1/sessions/{id}/commands"))).bearer_auth(token).json(&commands);
    assert_eq!(status(from("2001:db8:1:2::3", request)).await, 200);
    // Somebody with this buyer's token wants another session, and others have no token that is good.
    let other = self::created(&fleet, &node).await;
    let request = client().get(address(&format!("/v1/sessions/{other}"))).bearer_auth(token);
    assert_eq!(status(from("198.51.100.9", request)).await, 403);
    for _ in 0..3 {
        let request = client().get(address(&format!("/v1/sessions/{id}"))).bearer_auth("no token");
        assert_eq!(status(from("198.51.100.9", request)).await, 401);
    }
    until("denials are written", SEALED, async || {
        exported(&fleet, &[]).iter().filter(|entry| entry["outcome"] == "denied").count() >= 2
    })
    .await;

    let all = exported(&fleet, &[]);
    assert!(all.iter().all(|entry| entry["authentic"] == true), "{all:?}");
    until("what the buyer was refused is in the database", SEALED, async || {
        exported(&fleet, &["--session", &id]).iter().any(|entry| entry["outcome"] == "refused")
    })
    .await;
    let told = exported(&fleet, &["--session", &id]);
    let fields = |entry: &Value| {
        let field = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        (field("by"), field("network"), entry["did"].to_string(), field("outcome"), field("code"))
    };
    let row = |by: &str, network: &str, did: &str, outcome: &str, code: &str| {
        (by.to_owned(), network.to_owned(), did.to_owned(), outcome.to_owned(), code.to_owned())
    };
    let mut rows: Vec<_> = told.iter().map(fields).collect();
    rows.sort();
    let refusal = rows.iter().find(|row| row.3 == "refused").expect("the refused offer is told of").4.clone();
    assert!(!refusal.is_empty());
    let mut expected = vec![
        row("service", "203.0.113.0/24", r#"["created","emailSet"]"#, "done", ""),
        row("browser", "2001:db8:1::/48", r#"["metadataSet"]"#, "done", ""),
        row("browser", "2001:db8:1::/48", r#"["commandRejected"]"#, "refused", &refusal),
        row("browser", "2001:db8:1::/48", r#"["commandUnneeded"]"#, "done", ""),
        row("browser", "198.51.100.0/24", r#"["reachSession"]"#, "denied", "wrongSession"),
    ];
    expected.sort();
    assert_eq!(rows, expected);
    for (did, command) in [("commandRejected", "acceptUpsell"), ("commandUnneeded", "setMetadata")] {
        let entry = told.iter().find(|entry| entry["did"] == json!([did])).unwrap();
        assert_eq!(entry["command"], command, "which command it was: {entry}");
    }
    assert!(told.iter().all(|entry| entry["did"] != json!(["metadataSet"]) || entry["command"].is_null()));
    assert!(
        told.iter().any(|entry| entry["keyId"].as_str().is_some_and(|id| id.len() == 8)),
        "the service key is named"
    );
    let of_nobody: Vec<_> = all.iter().filter(|entry| entry["by"] == "nobody").collect();
    assert_eq!(of_nobody.iter().map(|entry| entry["times"].as_u64().unwrap()).sum::<u64>(), 3, "{of_nobody:?}");
    assert!(of_nobody.iter().all(|entry| entry["code"] == "tokenMalformed" && entry["network"] == "198.51.100.0/24"));
    assert!(!format!("{all:?}").contains("ada@"), "of no person");
    assert_eq!(untold(&fleet).await, 0);
}

#[tokio::test]
async fn every_change_is_in_the_log_although_servers_are_killed_and_keys_are_rotated_and_buyers_erased() {
    let fleet = fleet();
    let mut nodes = [fleet.node("a", &[]).unwrap(), fleet.node("b", &[]).unwrap()];
    let addresses: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
    let mut buyers = Vec::new();
    for _ in 0..4 {
        let identity = Identity::new();
        buyers.push((identity.clone(), Buyer::start(&identity, &addresses, OFTEN)));
    }
    all_accepted(&buyers, 20).await;
    nodes[0].kill().unwrap();
    all_accepted(&buyers, 20).await;
    nodes[0].start_again().unwrap();
    let keys_file = fleet.keys_file().display().to_string();
    fleet.run(&["keys", "rotate", "--keys-file", &keys_file, "--after", "1s"]).unwrap();
    nodes.iter().for_each(|node| node.reload().unwrap());
    all_accepted(&buyers, 20).await;
    let erased = created(&fleet, &nodes[0]).await;
    assert_eq!(strict(&fleet, &nodes[0], &erased, "forget-me@example.com").await.0, 200);
    let path = format!("http://{}/v1/sessions/{erased}", nodes[0].address);
    assert_eq!(status(client().delete(path).bearer_auth(&fleet.service_key)).await, 204);
    for buyer in buyers {
        settled(&fleet, &[&nodes[0], &nodes[1]], vec![buyer]).await;
    }
    sealed(&fleet).await;
    assert_eq!(untold(&fleet).await, 0);
    let verified = audit(&fleet, "shop", &["verify"]);
    assert!(verified.status.success(), "{}", text(&verified));
    let told = exported(&fleet, &["--session", &erased]);
    assert!(told.iter().any(|entry| entry["did"] == json!(["erased"])), "{told:?}");
    assert!(exported(&fleet, &[]).iter().any(|entry| entry["did"] == json!(["keyRingChanged"])));

    // A key that is forgotten takes nothing with it but the codes that it made.
    let old = forgotten(&fleet, &nodes).await;
    let verified = audit(&fleet, "shop", &["verify", "--json"]);
    assert!(verified.status.success(), "{}", text(&verified));
    let report: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert!(report["verified"]["underForgottenKeys"].as_u64().unwrap() > 0, "{old}: {report}");
}

#[tokio::test]
async fn a_key_that_the_log_is_sealed_under_is_not_forgotten() {
    let fleet = fleet();
    let mut node = fleet.node("a", &[]).unwrap();
    // A log without any session: somebody was denied something.
    let denied = client().get(format!("http://{}/v1/sessions", node.address));
    assert_eq!(status(denied).await, 401);
    let is_told = async || exported(&fleet, &[]).iter().any(|entry| entry["code"] == "credentialMissing");
    until("the denial is written", SEALED, is_told).await;
    sealed(&fleet).await;
    assert!(node.stop().unwrap().success());
    let (keys_file, url) = (fleet.keys_file().display().to_string(), fleet.postgres.url("shop"));
    fleet.run(&["keys", "rotate", "--after", "0s", "--keys-file", &keys_file]).unwrap();
    let keys: Vec<Value> =
        serde_json::from_str(&fleet.run(&["keys", "list", "--json", "--keys-file", &keys_file]).unwrap()).unwrap();
    let old = keys.iter().find(|key| key["state"] == "accepted").unwrap()["id"].as_str().unwrap();
    fleet.run(&["keys", "retire", old, "--force", "--keys-file", &keys_file]).unwrap();
    let forget = ["keys", "forget", old, "--keys-file", &keys_file, "--database-url", &url];
    let needed = fleet.run(&forget).unwrap_err().to_string();
    assert!(needed.contains("the audit log is sealed under it"), "{needed}");
    // A server brings it under the new key by itself.
    node.start_again().unwrap();
    until("nothing is under it", SEALED, async || fleet.run(&forget).is_ok()).await;
    assert!(audit(&fleet, "shop", &["verify"]).status.success());
}

/// Retires and forgets the oldest key of the ring; its name.
async fn forgotten(fleet: &Fleet, nodes: &[Node]) -> String {
    let (keys_file, url) = (fleet.keys_file().display().to_string(), fleet.postgres.url("shop"));
    let list = fleet.run(&["keys", "list", "--json", "--keys-file", &keys_file]).unwrap();
    let keys: Vec<Value> = serde_json::from_str(&list).unwrap();
    let old = keys.iter().find(|key| key["state"] == "accepted").unwrap()["id"].as_str().unwrap().to_owned();
    fleet.run(&["keys", "retire", &old, "--force", "--keys-file", &keys_file]).unwrap();
    nodes.iter().for_each(|node| node.reload().unwrap());
    until("no session is under it", LONG, async || {
        fleet.run(&["keys", "forget", &old, "--keys-file", &keys_file, "--database-url", &url]).is_ok()
    })
    .await;
    old
}

#[tokio::test]
async fn asvs_16_4_2_the_log_is_append_only_and_whatever_is_changed_in_it_is_found() {
    let fleet = fleet();
    let mut node = fleet.node("a", &[]).unwrap();
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(created(&fleet, &node).await);
    }
    sealed(&fleet).await;
    let anchors = audit(&fleet, "shop", &["anchor"]);
    let folder = tempfile::tempdir().unwrap();
    let anchor_file = folder.path().join("anchors.jsonl").display().to_string();
    std::fs::write(&anchor_file, &anchors.stdout).unwrap();
    assert!(node.stop().unwrap().success());
    fleet.postgres.copy_database("earlier", "shop").unwrap();
    node.start_again().unwrap();
    for id in &ids {
        for email in ["ada@example.com", "bob@example.com"] {
            assert_eq!(strict(&fleet, &node, id, email).await.0, 200);
        }
        sealed(&fleet).await;
    }
    assert!(node.stop().unwrap().success());
    drop(node);
    let clean = audit(&fleet, "shop", &["verify", "--anchors", &anchor_file]);
    assert!(clean.status.success() && text(&clean).contains("as it was written"), "{}", text(&clean));

    let mut connection = database(&fleet, "shop").await;
    for change in [
        "UPDATE audit_log SET body = '{}'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "UPDATE audit_blocks SET records = 0",
        "DELETE FROM audit_blocks",
        "DELETE FROM audit_heads",
    ] {
        let refused = sqlx::query(change).execute(&mut connection).await.unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{change}: {refused}");
    }
    connection.close().await.unwrap();

    // Whoever owns the database can do it all the same.
    let some = "(SELECT position FROM audit_log ORDER BY md5(position::text || '$seed') LIMIT 1)";
    let other = "(SELECT position FROM audit_log ORDER BY md5(position::text || '$seed') OFFSET 1 LIMIT 1)";
    let block = "(SELECT sequence FROM audit_blocks ORDER BY md5(sequence::text || '$seed') LIMIT 1)";
    let edits = [
        format!("UPDATE audit_log SET body = overlay(body placing chr(65 + $seed) from 3 for 1) WHERE position = {some}"),
        format!("UPDATE audit_log SET body = replace(body, 'service', 'operator') WHERE position = {some}"),
        format!("UPDATE audit_log SET mac = set_byte(mac, $seed, get_byte(mac, $seed) # 1) WHERE position = {some}"),
        format!("UPDATE audit_log SET mac = substr(mac, 2) WHERE position = {some}"),
        format!("UPDATE audit_log SET tenant = 'another' WHERE position = {some}"),
        format!("DELETE FROM audit_log WHERE position = {some}"),
        // A key that nobody has takes nobody in.
        format!("UPDATE audit_log SET key_id = 'gone', body = replace(body, 'service', 'operator') WHERE position = {some}"),
        format!("INSERT INTO audit_log SELECT tenant, (SELECT max(position) + 1 FROM audit_log), body || ' ', mac, 'gone' FROM audit_log WHERE position = {some}"),
        "UPDATE audit_heads SET key_id = 'gone'".to_owned(),
        "INSERT INTO audit_log VALUES ('No Tenant', 999999, '{}', '', '')".to_owned(),
        "INSERT INTO audit_blocks SELECT tenant, sequence + 1, through_position + 1, 0, 0, sealed_at_ms, hash, hash, hash FROM audit_blocks ORDER BY sequence DESC LIMIT 1".to_owned(),
        format!("UPDATE audit_log SET position = (SELECT max(position) + 1 FROM audit_log) WHERE position = {some}"),
        format!(
            "UPDATE audit_log AS one SET body = two.body, mac = two.mac, key_id = two.key_id FROM audit_log AS two
             WHERE (one.position = {some} AND two.position = {other}) OR (one.position = {other} AND two.position = {some})"
        ),
        format!(
            "INSERT INTO audit_log SELECT tenant, (SELECT max(position) + 1 FROM audit_log), body, mac, key_id FROM audit_log
             WHERE position = {some}"
        ),
        format!("DELETE FROM audit_blocks WHERE sequence = {block}"),
        format!("UPDATE audit_blocks SET sealed_at_ms = sealed_at_ms + 1 WHERE sequence = {block}"),
        format!("UPDATE audit_blocks SET hash = set_byte(hash, $seed, get_byte(hash, $seed) # 4) WHERE sequence = {block}"),
        format!("UPDATE audit_blocks SET through_position = through_position + 1 WHERE sequence = {block}"),
        "DELETE FROM audit_heads".to_owned(),
        "UPDATE audit_heads SET sequence = sequence - 1".to_owned(),
        "DELETE FROM audit_blocks WHERE sequence > (SELECT max(sequence) - 2 FROM audit_blocks)".to_owned(),
        "WITH cut AS (DELETE FROM audit_blocks WHERE sequence = (SELECT max(sequence) FROM audit_blocks))
         UPDATE audit_heads SET sequence = block.sequence, through_position = block.through_position, hash = block.hash
         FROM audit_blocks AS block WHERE block.sequence = (SELECT max(sequence) - 1 FROM audit_blocks)"
            .to_owned(),
    ];
    for (number, edit) in edits.iter().enumerate() {
        for seed in 0..2 {
            let name = format!("edit_{number}_{seed}");
            fleet.postgres.copy_database(&name, "shop").unwrap();
            let mut connection = database(&fleet, &name).await;
            sqlx::query("SET session_replication_role = replica").execute(&mut connection).await.unwrap();
            let edit = edit.replace("$seed", &seed.to_string());
            let changed = sqlx::query(sqlx::AssertSqlSafe(edit.clone())).execute(&mut connection).await.unwrap();
            assert!(changed.rows_affected() > 0, "{edit}");
            connection.close().await.unwrap();
            let found = audit(&fleet, &name, &["verify"]);
            assert_eq!(found.status.code(), Some(1), "not found: {edit}\n{}", text(&found));
            assert!(text(&found).contains("NOT as it was written"), "{edit}\n{}", text(&found));
        }
    }

    // What hides from the database itself does not fit the anchor: the log is one of another time.
    let later = audit(&fleet, "shop", &["anchor"]);
    let both = [anchors.stdout.as_slice(), later.stdout.as_slice()].concat();
    std::fs::write(&anchor_file, &both).unwrap();
    let fits = audit(&fleet, "shop", &["verify", "--anchors", &anchor_file]);
    assert!(fits.status.success(), "{}", text(&fits));
    let found = audit(&fleet, "earlier", &["verify", "--anchors", &anchor_file]);
    assert_eq!(found.status.code(), Some(1), "{}", text(&found));
    // An anchor of what somebody has made of the log does not outdo another one.
    let forged = String::from_utf8(anchors.stdout.clone()).unwrap().replace("\"hash\":\"", "\"hash\":\"0");
    std::fs::write(&anchor_file, [forged.as_bytes(), anchors.stdout.as_slice()].concat()).unwrap();
    let found = audit(&fleet, "shop", &["verify", "--anchors", &anchor_file]);
    assert_eq!(found.status.code(), Some(1), "{}", text(&found));

    // Nothing is believed under another key ring.
    let other = folder.path().join("other-keys").display().to_string();
    fleet.run(&["keys", "generate", "--keys-file", &other]).unwrap();
    let url = fleet.postgres.url("shop");
    assert!(fleet.run(&["audit", "verify", "--keys-file", &other, "--database-url", &url]).is_err());
}

#[tokio::test]
async fn asvs_16_4_3_what_is_kept_elsewhere_tells_of_a_log_that_was_emptied() {
    let fleet = fleet();
    let mut node = fleet.node("a", &[]).unwrap();
    created(&fleet, &node).await;
    sealed(&fleet).await;
    let folder = tempfile::tempdir().unwrap();
    let anchors = folder.path().join("anchors.jsonl").display().to_string();
    std::fs::write(&anchors, audit(&fleet, "shop", &["anchor"]).stdout).unwrap();
    assert!(node.stop().unwrap().success());
    assert!(audit(&fleet, "shop", &["verify", "--anchors", &anchors]).status.success());
    let mut connection = database(&fleet, "shop").await;
    sqlx::raw_sql(
        "SET session_replication_role = replica; DELETE FROM audit_log; DELETE FROM audit_blocks; DELETE FROM audit_heads",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    assert!(audit(&fleet, "shop", &["verify"]).status.success(), "nothing tells that there was ever a log");
    let found = audit(&fleet, "shop", &["verify", "--anchors", &anchors]);
    assert_eq!(found.status.code(), Some(1), "{}", text(&found));
}

/// The log of a server on SQLite.
fn log_of(dev: &Dev) -> Vec<Value> {
    let file = dev.server.folder.path().join("data/t.db").display().to_string();
    let (url, keys) = (format!("sqlite:{file}"), format!("{file}.keys"));
    let output = throughline(&["audit", "export", "--database-url", &url, "--keys-file", &keys]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until the log of a server has a record of this code; that record.
async fn told(dev: &Dev, code: &str) -> Value {
    let find = || log_of(dev).into_iter().find(|entry| entry["code"] == code);
    until(code, SEALED, async || find().is_some()).await;
    find().unwrap()
}

fn to(dev: &Dev, method: reqwest::Method, path: &str, credential: &str) -> reqwest::RequestBuilder {
    client().request(method, format!("http://{}{path}", dev.address)).bearer_auth(credential)
}

/// A session of its own browser: its id and its token.
async fn begun(dev: &Dev) -> (String, String) {
    let request = client().post(format!("http://{}/v1/sessions", dev.address)).json(&json!({}));
    let created = request.send().await.unwrap().json::<Value>().await.unwrap();
    (created["session"]["id"].as_str().unwrap().to_owned(), created["token"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn asvs_16_2_2_times_are_told_in_utc() {
    let dev = dev(&["--log-format", "json"]);
    begun(&dev).await;
    let entries = log_of(&dev);
    assert!(!entries.is_empty());
    let is_utc = |time: &str| {
        let read = throughline_server::clock::parse_rfc3339(time);
        time.ends_with('Z') && read.is_some_and(|at_ms| at_ms > 1_700_000_000_000)
    };
    assert!(entries.iter().all(|entry| is_utc(entry["at"].as_str().unwrap())), "{entries:?}");
    let log = dev.server.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!lines.is_empty() && lines.iter().all(|line| is_utc(line["timestamp"].as_str().unwrap())), "{log}");
}

#[tokio::test]
async fn asvs_16_3_1_whoever_proves_who_they_are_and_whoever_does_not_is_told_of() {
    let dev = dev(&[]);
    let (id, token) = begun(&dev).await;
    let read = |credential: &str| to(&dev, reqwest::Method::GET, &format!("/v1/sessions/{id}"), credential);
    assert_eq!(status(read(&token)).await, 200);
    for credential in ["tls_unknown", "v4.local.nothing"] {
        assert_eq!(status(read(credential)).await, 401);
    }
    for code in ["serviceKeyUnknown", "tokenMalformed"] {
        let entry = told(&dev, code).await;
        assert_eq!((&entry["by"], &entry["outcome"], &entry["times"]), (&json!("nobody"), &json!("denied"), &json!(1)));
        assert_eq!(entry["network"], "127.0.0.0/24", "{entry}");
    }
    let command = json!({ "commands": [{ "type": "setMetadata", "metadata": { "a": 1 } }] });
    let commands = to(&dev, reqwest::Method::POST, &format!("/v1/sessions/{id}/commands"), &dev.service_key);
    assert_eq!(status(commands.json(&command)).await, 200);
    let entries = log_of(&dev);
    let by_service = entries.iter().find(|entry| entry["by"] == "service").unwrap();
    assert!(by_service["keyId"].is_string(), "with which key: {by_service}");
}

#[tokio::test]
async fn asvs_16_3_2_whoever_reaches_for_what_is_not_theirs_is_told_of() {
    let dev = dev(&[]);
    let ((id, _), (_, other)) = (begun(&dev).await, begun(&dev).await);
    assert_eq!(status(to(&dev, reqwest::Method::GET, &format!("/v1/sessions/{id}"), &other)).await, 403);
    let entry = told(&dev, "wrongSession").await;
    assert_eq!((&entry["by"], &entry["did"]), (&json!("browser"), &json!(["reachSession"])), "{entry}");
    assert_eq!(status(to(&dev, reqwest::Method::GET, "/v1/service-keys", &other)).await, 403);
    let entry = told(&dev, "notPermitted").await;
    assert_eq!((&entry["by"], &entry["outcome"]), (&json!("browser"), &json!("denied")), "{entry}");
}

#[tokio::test]
async fn asvs_16_3_3_whoever_tries_to_get_around_the_rules_is_told_of() {
    let dev = dev(&[]);
    let (id, token) = begun(&dev).await;
    let pay = json!({ "commands": [{ "type": "recordPayment", "transactionId": "t-1", "amount": 1 }] });
    let commands = to(&dev, reqwest::Method::POST, &format!("/v1/sessions/{id}/commands"), &token);
    assert_eq!(status(commands.json(&pay)).await, 200, "each command is answered by itself");
    let entry = told(&dev, "notPermitted").await;
    assert_eq!((&entry["by"], &entry["outcome"]), (&json!("browser"), &json!("refused")), "{entry}");
    assert_eq!((&entry["session"], &entry["command"]), (&json!(id), &json!("recordPayment")), "{entry}");
}

#[tokio::test]
async fn who_makes_and_revokes_service_keys_is_in_the_log_from_a_command_line_as_well() {
    let fleet = fleet();
    let node = fleet.node("a", &[]).unwrap();
    let create = ["create", "--name", "back end", "--scope", "sessions:read", "--tenant", "shop-a", "--json"];
    let made: Value = serde_json::from_str(&service_keys(&fleet, &create).unwrap()).unwrap();
    let id = made["id"].as_str().unwrap();
    for _ in 0..2 {
        service_keys(&fleet, &["revoke", id]).unwrap();
    }
    let new = json!({ "name": "other", "scopes": ["sessions:read"] });
    let other = post(&fleet, &node, "/v1/service-keys", &new).send().await.unwrap().json::<Value>().await.unwrap();
    let other = other["id"].as_str().unwrap();
    let delete = |id: &str| client().delete(format!("http://{}/v1/service-keys/{id}", node.address));
    for (id, answer) in [(other, 204), (other, 204), ("0123456789abcdef", 404), (id, 404)] {
        assert_eq!(status(delete(id).bearer_auth(&fleet.service_key)).await, answer);
    }
    let told = exported(&fleet, &[]);
    let about = |id: &str| -> Vec<(Value, Value, Value)> {
        let entries = told.iter().filter(|entry| entry["subject"] == id);
        entries.map(|entry| (entry["tenant"].clone(), entry["by"].clone(), entry["did"][0].clone())).collect()
    };
    for (id, tenant, by) in [(id, "shop-a", "cli"), (other, "default", "operator")] {
        let acts = ["serviceKeyCreated", "serviceKeyRevoked"].map(|did| (json!(tenant), json!(by), json!(did)));
        assert_eq!(about(id), acts, "each change once: {told:?}");
    }
    assert!(told.iter().all(|entry| entry["authentic"] == true), "{told:?}");
    assert!(about("0123456789abcdef").is_empty(), "what changed nothing is not told of");
    sealed(&fleet).await;
    let verified = audit(&fleet, "shop", &["verify"]);
    assert!(verified.status.success(), "{}", text(&verified));

    // Without the servers' ring nothing that they believe can be written, so nothing is done.
    let url = fleet.postgres.url("shop");
    let create = ["service-keys", "create", "--name", "untold", "--scope", "operator", "--database-url", &url];
    let without = fleet.run(&create).unwrap_err().to_string();
    assert!(without.contains("--keys-file") && without.contains("no service key is made"), "{without}");
    let folder = tempfile::tempdir().unwrap();
    let other_ring = folder.path().join("keys").display().to_string();
    fleet.run(&["keys", "generate", "--keys-file", &other_ring]).unwrap();
    let another = fleet.run(&[&create[..], &["--keys-file", &other_ring]].concat()).unwrap_err().to_string();
    assert!(another.contains("not the one that the servers of this database have"), "{another}");
    let list = fleet.run(&["service-keys", "list", "--database-url", &url]).unwrap();
    assert!(!list.contains("untold"), "{list}");
}

#[tokio::test]
async fn records_that_are_put_in_while_servers_run_stay_marked_and_hold_nobody_up() {
    let fleet = fleet();
    let node = fleet.node("a", &[]).unwrap();
    created(&fleet, &node).await;
    sealed(&fleet).await;
    let mut connection = database(&fleet, "shop").await;
    let put_in = "INSERT INTO audit_log SELECT tenant, nextval('audit_positions'), body || ' ', mac, 'gone' FROM audit_log LIMIT 1;
        INSERT INTO audit_log VALUES ('No Tenant', nextval('audit_positions'), '{}', '', '');";
    sqlx::raw_sql(put_in).execute(&mut connection).await.unwrap();
    let id = created(&fleet, &node).await;
    until("the tenant's log is sealed all the same", SEALED, async || {
        let told = exported(&fleet, &["--session", &id]);
        let position = told.first().map_or(i64::MAX, |entry| entry["position"].as_i64().unwrap());
        let head = sqlx::query_scalar::<_, i64>("SELECT max(through_position) FROM audit_heads");
        head.fetch_one(&mut connection).await.unwrap() >= position
    })
    .await;
    assert!(node.metric("throughline_audit_foreign_records_total").await.unwrap() > 0.0);
    until("records of no tenant are told of", SEALED, async || {
        node.metric("throughline_audit_broken_chains").await.unwrap() > 0.0
    })
    .await;
    let found = text(&audit(&fleet, "shop", &["verify"]));
    assert!(found.contains("records that were put in") && found.contains("no tenant can have this name"), "{found}");
}

#[tokio::test]
async fn a_server_whose_user_may_not_change_the_log_serves_and_seals() {
    let fleet = fleet();
    let mut migrated = fleet.node("a", &[]).unwrap();
    assert!(migrated.stop().unwrap().success());
    let mut connection = database(&fleet, "shop").await;
    let rights = "CREATE ROLE serving LOGIN;
        GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public TO serving;
        GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO serving;
        REVOKE UPDATE, DELETE, TRUNCATE ON audit_log, audit_blocks FROM serving;
        REVOKE DELETE, TRUNCATE ON audit_heads FROM serving;";
    sqlx::raw_sql(rights).execute(&mut connection).await.unwrap();
    let url = fleet.postgres.url("shop").replace("postgres://postgres@", "postgres://serving@");
    assert!(url.contains("serving"), "{url}");
    let node = fleet.node_on("b", &url, Some(&fleet.redis.url()), &["--auto-migrate", "false"]).unwrap();
    let id = created(&fleet, &node).await;
    assert_eq!(strict(&fleet, &node, &id, "ada@example.com").await.0, 200);
    sealed(&fleet).await;
    assert!(audit(&fleet, "shop", &["verify"]).status.success());
    let mut serving = sqlx::PgConnection::connect(&url).await.unwrap();
    for change in [
        "ALTER TABLE audit_log DISABLE TRIGGER append_only",
        "DELETE FROM audit_log",
        "UPDATE audit_blocks SET records = 0",
    ] {
        let refused = sqlx::query(change).execute(&mut serving).await.unwrap_err().to_string();
        assert!(refused.contains("permission denied") || refused.contains("must be owner"), "{change}: {refused}");
    }
}

#[tokio::test]
async fn a_server_notices_a_chain_that_is_cut_and_does_not_go_on_with_it() {
    let fleet = fleet();
    let node = fleet.node("a", &[]).unwrap();
    created(&fleet, &node).await;
    sealed(&fleet).await;
    created(&fleet, &node).await;
    sealed(&fleet).await;
    let mut connection = database(&fleet, "shop").await;
    let cut = "SET session_replication_role = replica;
        DELETE FROM audit_blocks WHERE sequence = (SELECT max(sequence) FROM audit_blocks);
        DELETE FROM audit_heads;";
    sqlx::raw_sql(cut).execute(&mut connection).await.unwrap();
    let id = created(&fleet, &node).await;
    until("it is noticed", SEALED, async || node.log().contains("the head of the chain is gone")).await;
    assert!(node.metric("throughline_audit_broken_chains").await.unwrap() > 0.0);
    assert_eq!(strict(&fleet, &node, &id, "ada@example.com").await.0, 200, "buyers go on");
    let found = audit(&fleet, "shop", &["verify"]);
    assert_eq!(found.status.code(), Some(1), "{}", text(&found));
}
