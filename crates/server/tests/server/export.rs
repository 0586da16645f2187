//! Sessions as rows of the legacy table, written by `throughline export`.

use std::path::Path;
use std::process::{Command, Output};

use reqwest::Client;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use throughline_test_services::fleet::{Fleet, Node};

use super::binary::*;
use super::import::{legacy, lines};

const ROWS: &str = include_str!("../../../../tests/fixtures/legacy/funnel_sessions.jsonl");

fn run(fleet: &Fleet, arguments: &[&str]) -> Output {
    let (database, keys) = (fleet.postgres.url("shop"), fleet.keys_file().display().to_string());
    let ring = ["--database-url", &database, "--keys-file", &keys];
    throughline(&[arguments, &ring].concat()).output().unwrap()
}

fn summary(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The shop's sessions, brought in.
fn imported(rows: &str) -> Fleet {
    let fleet = legacy(rows);
    fleet.run(&["migrate", "--database-url", &fleet.postgres.url("shop")]).unwrap();
    let from = fleet.postgres.url("legacy");
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report").display().to_string();
    summary(&run(&fleet, &["import", "--from", &from, "--report", &report, "--json"]));
    fleet
}

async fn ask(fleet: &Fleet, node: &Node, request: reqwest::RequestBuilder) -> Value {
    let answer = request.bearer_auth(&fleet.service_key).send().await.unwrap();
    assert!(answer.status().is_success(), "{} at {}", answer.status(), node.address);
    answer.json().await.unwrap_or_default()
}

async fn row(legacy: &mut PgConnection, id: &str) -> Value {
    let asked =
        sqlx::query_scalar::<_, String>("SELECT to_jsonb(funnel_sessions)::text FROM funnel_sessions WHERE id = $1");
    serde_json::from_str(&asked.bind(id).fetch_one(legacy).await.unwrap()).unwrap()
}

fn export(fleet: &Fleet, more: &[&str]) -> Value {
    let to = fleet.postgres.url("legacy");
    summary(&run(fleet, &[&["export", "--to", &to, "--json"], more].concat()))
}

#[tokio::test]
async fn a_shop_that_goes_back_finds_what_happened_here_in_its_own_table() {
    let fleet = imported(ROWS);
    let node = fleet.node("a", &[]).unwrap();
    let client = Client::new();
    let mut legacy = PgConnection::connect(&fleet.postgres.url("legacy")).await.unwrap();
    let now = "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')";
    let since: String = sqlx::query_scalar(now).fetch_one(&mut legacy).await.unwrap();

    // A new order, paid here, and one that the old shop knows and that changes here.
    let products = json!([{"id": "fitspresso-3-pack", "quantity": 1}]);
    let customer = json!({"firstName": "Ada", "lastName": "O'Brien", "billing": {"address": "1 \"Main\" St", "city": "Austin", "state": "TX", "zipCode": "78701"}});
    let body = json!({"email": "ada@example.com", "products": products, "customer": customer, "metadata": {"campaign": "spring"}});
    let created = ask(&fleet, &node, client.post(format!("http://{}/v1/sessions", node.address)).json(&body)).await;
    let id = created["session"]["id"].as_str().unwrap().to_owned();
    let owed = created["session"]["amount"].clone();
    let commands = json!({"commands": [
        {"type": "beginProcessing"},
        {"type": "recordPayment", "transactionId": "txn-new", "vaultId": "vault-new", "amount": owed},
        {"type": "acceptUpsell", "offer": "RC6"},
        {"type": "recordUpsellCharge", "offer": "RC6", "transactionId": "txn-extra", "amount": 21144},
        {"type": "declineUpsell", "offer": "RC12"},
    ]});
    let paid =
        ask(&fleet, &node, client.post(format!("http://{}/v1/sessions/{id}/commands", node.address)).json(&commands))
            .await;
    assert!(paid["results"].as_array().unwrap().iter().all(|result| result["outcome"] == "accepted"), "{paid}");
    let known: Value = serde_json::from_str(ROWS.lines().next().unwrap()).unwrap();
    let known = known["id"].as_str().unwrap();
    let noted = json!({"commands": [{"type": "setMetadata", "metadata": {"noted": "here"}}]});
    ask(&fleet, &node, client.post(format!("http://{}/v1/sessions/{known}/commands", node.address)).json(&noted)).await;
    // One whose data is gone, and one that the old shop has changed later.
    let gone: Value = serde_json::from_str(ROWS.lines().nth(1).unwrap()).unwrap();
    let gone = gone["id"].as_str().unwrap();
    ask(&fleet, &node, client.delete(format!("http://{}/v1/sessions/{gone}", node.address))).await;

    let done = export(&fleet, &["--changed-since", &since]);
    assert_eq!(
        (&done["written"], &done["leftAsTheyAre"], &done["erased"]),
        (&json!(2), &json!(0), &json!([gone])),
        "{done}"
    );
    let written = row(&mut legacy, &id).await;
    assert_eq!(written["status"], "completed");
    assert_eq!((&written["transaction_id"], &written["vault_id"]), (&json!("txn-new"), &json!("vault-new")));
    assert_eq!((&written["upsells_accepted"], &written["upsells_declined"]), (&json!(["RC6"]), &json!(["RC12"])));
    assert_eq!(written["customer_info"]["lastName"], "O'Brien");
    assert_eq!(written["customer_info"]["address"], "1 \"Main\" St");
    assert_eq!(written["metadata"]["campaign"], "spring");
    assert_eq!(written["amount"].as_f64(), Some(177.0));
    assert_eq!(row(&mut legacy, known).await["metadata"]["noted"], "here");

    // Everything, once more: what is there already stays as it is, and the old shop's own changes stay.
    let late = "now() + interval '1 minute'";
    fleet
        .postgres
        .execute(
            "legacy",
            &format!("UPDATE funnel_sessions SET email = 'later@example.com', updated_at = {late} WHERE id = '{id}'"),
        )
        .unwrap();
    let all = export(&fleet, &[]);
    assert_eq!(row(&mut legacy, &id).await["email"], "later@example.com");
    let again = export(&fleet, &[]);
    assert_eq!(
        (&all["written"].as_u64().is_some_and(|rows| rows > 0), &again["written"]),
        (&true, &json!(0)),
        "ends had come: {all}"
    );

    let audit = String::from_utf8(run(&fleet, &["audit", "export"]).stdout).unwrap();
    let exports = audit
        .lines()
        .filter(|line| line.contains("\"did\":[\"exported\"]") && line.contains("\"by\":\"operator\""))
        .count();
    assert_eq!(exports, 3, "{audit}");
}

#[tokio::test]
async fn what_was_exported_comes_in_again_as_it_was() {
    let fleet = imported(ROWS);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.jsonl").display().to_string();
    let done = summary(&run(&fleet, &["export", "--to-jsonl", &file, "--json"]));
    assert_eq!(done["written"].as_u64(), Some(ROWS.lines().count() as u64));
    let rows = lines(Path::new(&file));
    assert!(rows.iter().all(|row| row["id"].as_str().is_some_and(|id| id.starts_with("ws_"))), "{rows:?}");
    let report = folder.path().join("report").display().to_string();
    let again = summary(&run(&fleet, &["import", "--from-jsonl", &file, "--report", &report, "--json"]));
    assert_eq!((&again["created"], &again["updated"]), (&json!(0), &json!(0)), "{again}");

    let piped = run(&fleet, &["export", "--to-jsonl", "-"]);
    assert_eq!(String::from_utf8(piped.stdout).unwrap().lines().count(), rows.len());
    assert!(String::from_utf8(piped.stderr).unwrap().contains("rows written"));
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_written() {
    let fleet = imported(ROWS);
    let refused = |arguments: &[&str]| {
        let output = run(&fleet, arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let to = fleet.postgres.url("legacy");
    assert!(refused(&["export"]).contains("--to-jsonl"), "where to has to be said");
    assert!(refused(&["export", "--to", "sqlite:rows.db"]).contains("--to-jsonl"));
    assert!(refused(&["export", "--to", &to, "--table", "nowhere"]).contains("--table"));
    fleet.postgres.execute("legacy", "CREATE TABLE others (name text)").unwrap();
    assert!(refused(&["export", "--to", &to, "--table", "others"]).contains("none of the columns"));
    assert!(refused(&["export", "--to-jsonl", "/nowhere/rows.jsonl"]).contains("/nowhere/rows.jsonl"));
    assert!(refused(&["export", "--to-jsonl", "-", "--changed-since", "yesterday"]).contains("--changed-since"));
    let other = tempfile::tempdir().unwrap();
    let keys = other.path().join("keys").display().to_string();
    assert!(throughline(&["keys", "generate", "--keys-file", &keys]).status().unwrap().success());
    let database = fleet.postgres.url("shop");
    let mut wrong: Command =
        throughline(&["export", "--to-jsonl", "-", "--database-url", &database, "--keys-file", &keys]);
    let output = wrong.output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("nothing was exported"));
    assert!(output.stdout.is_empty());
}

/// How a row is before and after, without its times.
async fn rows_of(legacy: &mut PgConnection) -> Vec<Value> {
    let asked = "SELECT to_jsonb(funnel_sessions)::text FROM funnel_sessions ORDER BY id";
    let rows: Vec<String> = sqlx::query_scalar(asked).fetch_all(legacy).await.unwrap();
    rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect()
}

#[tokio::test]
async fn what_an_export_has_no_word_for_stays_in_the_old_table() {
    let fleet = imported(ROWS);
    let mut legacy = PgConnection::connect(&fleet.postgres.url("legacy")).await.unwrap();
    let before = rows_of(&mut legacy).await;
    let tried = export(&fleet, &["--dry-run"]);
    assert_eq!(rows_of(&mut legacy).await, before, "a dry run writes nothing");
    let done = export(&fleet, &[]);
    assert_eq!((&tried["written"], &tried["dryRun"]), (&done["written"], &json!(true)));
    for (before, after) in before.iter().zip(rows_of(&mut legacy).await) {
        let mut expected = before.clone();
        if before["status"] == "pending" {
            // Its end had come, and nobody had looked.
            assert_eq!(after["status"], "expired", "{before}");
            for name in ["status", "updated_at", "current_step", "coupon_code", "metadata", "products", "amount"] {
                expected[name] = after[name].clone();
            }
            let kept = before["metadata"].as_object().unwrap().keys().all(|key| after["metadata"].get(key).is_some());
            assert!(kept, "{before} {after}");
        }
        for name in ["updated_at", "status", "current_step"] {
            if before["status"] != "pending" && ["failed", "processing"].contains(&before["status"].as_str().unwrap()) {
                assert!(name == "updated_at" || after[name] == before[name], "{name} {before} {after}");
            }
        }
        for name in ["customer_info", "transaction_id", "vault_id", "payment_token", "upsells_accepted", "email"] {
            assert_eq!(after[name], before[name], "{name} of {before}");
        }
        for name in ["billingInfo", "error", "failed_at", "upsells"] {
            assert_eq!(after["metadata"].get(name), before["metadata"].get(name), "{name} of {before}");
        }
    }
}

#[tokio::test]
async fn a_payment_in_the_old_table_is_never_taken_out_of_it() {
    let fleet = imported(ROWS);
    let node = fleet.node("a", &[]).unwrap();
    let mut legacy = PgConnection::connect(&fleet.postgres.url("legacy")).await.unwrap();
    let body = json!({"id": "ws_1_there", "email": "ada@example.com", "products": [{"id": "fitspresso-3-pack", "quantity": 1}]});
    ask(&fleet, &node, Client::new().post(format!("http://{}/v1/sessions", node.address)).json(&body)).await;
    assert_eq!(export(&fleet, &[])["paidThere"], json!([]));
    let sold = "UPDATE funnel_sessions SET status = 'completed', current_step = 'upsell-1', transaction_id = 'TX-OLD', vault_id = 'V-OLD',
        upsells_accepted = '{RC6}', metadata = '{\"upsells\": [{\"productCode\": \"RC6\", \"transactionId\": \"UX-OLD\"}], \"own\": 1}'
        WHERE id = 'ws_1_there'";
    fleet.postgres.execute("legacy", sold).unwrap();
    let noted = json!({"commands": [{"type": "setCustomer", "customer": {"phone": "555"}}]});
    let commands = format!("http://{}/v1/sessions/ws_1_there/commands", node.address);
    ask(&fleet, &node, Client::new().post(&commands).json(&noted)).await;

    let done = export(&fleet, &[]);
    assert_eq!(done["paidThere"], json!(["ws_1_there"]), "somebody hears of it: {done}");
    let there = row(&mut legacy, "ws_1_there").await;
    assert_eq!((&there["status"], &there["transaction_id"]), (&json!("completed"), &json!("TX-OLD")));

    // Paid here as well, by the same transaction; what the old shop has sold since then stays.
    let paid = json!({"commands": [{"type": "beginProcessing"}, {"type": "recordPayment", "transactionId": "TX-OLD", "amount": 17700}]});
    ask(&fleet, &node, Client::new().post(&commands).json(&paid)).await;
    let done = export(&fleet, &[]);
    assert_eq!((&done["paidThere"], &done["written"]), (&json!([]), &json!(1)), "{done}");
    let there = row(&mut legacy, "ws_1_there").await;
    assert_eq!((&there["vault_id"], &there["upsells_accepted"]), (&json!("V-OLD"), &json!(["RC6"])));
    assert_eq!(there["metadata"]["upsells"][0]["transactionId"], "UX-OLD");
    assert_eq!((&there["metadata"]["own"], &there["customer_info"]["phone"]), (&json!(1), &json!("555")));
}

#[test]
fn a_file_of_rows_is_for_its_owner_and_replaces_none() {
    use std::os::unix::fs::PermissionsExt as _;
    let fleet = imported(ROWS);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.jsonl");
    let name = file.display().to_string();
    // Also where the variable names a database.
    let (database, keys) = (fleet.postgres.url("shop"), fleet.keys_file().display().to_string());
    let arguments = ["export", "--to-jsonl", &name, "--json", "--database-url", &database, "--keys-file", &keys];
    summary(&throughline(&arguments).env("THROUGHLINE_EXPORT_TO", "sqlite:old.db").output().unwrap());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&file).unwrap();
    let again = run(&fleet, &["export", "--to-jsonl", &name]);
    assert!(String::from_utf8(again.stderr).unwrap().contains("new file"));
    assert_eq!(std::fs::read(&file).unwrap(), before);
}
