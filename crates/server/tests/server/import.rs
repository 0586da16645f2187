//! Sessions of the legacy systems, brought in by `throughline import`.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use throughline_test_services::fleet::{Fleet, Node};

use super::binary::*;
use super::fleets::{LONG, fleet, until};

const ROWS: &str = include_str!("../../../../tests/fixtures/legacy/funnel_sessions.jsonl");

/// The table as the old shop had made it.
const TABLE: &str = "CREATE TABLE funnel_sessions (
    id text PRIMARY KEY, email text NOT NULL, customer_info jsonb, products jsonb NOT NULL, status text NOT NULL, amount numeric NOT NULL,
    current_step text NOT NULL, upsells_accepted text[] NOT NULL DEFAULT '{}', upsells_declined text[] NOT NULL DEFAULT '{}',
    vault_id text, transaction_id text, payment_token text, coupon_code text, metadata jsonb,
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, expires_at timestamptz NOT NULL)";

fn insert(fleet: &Fleet, rows: &str) {
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let text = Value::Array(rows).to_string().replace('\'', "''");
    let statement =
        format!("INSERT INTO funnel_sessions SELECT * FROM jsonb_populate_recordset(NULL::funnel_sessions, '{text}')");
    fleet.postgres.execute("legacy", &statement).unwrap();
}

/// A legacy database, with these rows.
pub fn legacy(rows: &str) -> Fleet {
    let fleet = fleet();
    fleet.postgres.create_database("legacy").unwrap();
    fleet.postgres.execute("legacy", TABLE).unwrap();
    insert(&fleet, rows);
    fleet
}

fn import(fleet: &Fleet, folder: &Path, more: &[&str]) -> Command {
    let report = folder.join("report.jsonl").display().to_string();
    let (from, to) = (fleet.postgres.url("legacy"), fleet.postgres.url("shop"));
    let keys = fleet.keys_file().display().to_string();
    let arguments = ["import", "--from", &from, "--database-url", &to, "--keys-file", &keys, "--report", &report];
    throughline(&[&arguments, more].concat())
}

fn summary(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub fn lines(file: &Path) -> Vec<Value> {
    std::fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn read(fleet: &Fleet, node: &Node, id: &str) -> Value {
    let request =
        Client::builder().timeout(LONG).build().unwrap().get(format!("http://{}/v1/sessions/{id}", node.address));
    let answer = request.bearer_auth(&fleet.service_key).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{id}");
    answer.json().await.unwrap()
}

fn counts(summary: &Value) -> [u64; 4] {
    ["created", "updated", "unchanged", "unreadable"].map(|name| summary[name].as_u64().unwrap())
}

#[tokio::test]
async fn a_table_comes_in_once_and_what_it_says_later_is_caught_up_with() {
    let fleet = legacy(ROWS);
    let folder = tempfile::tempdir().unwrap();
    let node = fleet.node("first", &[]).unwrap();
    let count = ROWS.lines().count() as u64;

    let tried = summary(&import(&fleet, folder.path(), &["--json", "--dry-run"]).output().unwrap());
    assert_eq!(counts(&tried), [count, 0, 0, 0]);
    let first: Value = serde_json::from_str(ROWS.lines().next().unwrap()).unwrap();
    let id = first["id"].as_str().unwrap();
    let absent = Client::new().get(format!("http://{}/v1/sessions/{id}", node.address)).bearer_auth(&fleet.service_key);
    assert_eq!(absent.send().await.unwrap().status(), StatusCode::NOT_FOUND, "a dry run writes nothing");

    let done = summary(&import(&fleet, folder.path(), &["--json"]).output().unwrap());
    assert_eq!(counts(&done), [count, 0, 0, 0]);
    assert_eq!(done["decisions"]["paidThoughExpired"], 2);
    let report = lines(&folder.path().join("report.jsonl"));
    assert!(report.iter().any(|line| line["decisions"][0]["code"] == "paymentUnsettled"), "{report:?}");
    assert!(!std::fs::read_to_string(folder.path().join("report.jsonl")).unwrap().contains("@example.com"));
    assert!(!folder.path().join("report.jsonl.checkpoint").exists());

    // As a server that runs since before shows them.
    for line in ROWS.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let id = row["id"].as_str().unwrap();
        until("the session is known", LONG, async || {
            let request = Client::new().get(format!("http://{}/v1/sessions/{id}", node.address));
            request.bearer_auth(&fleet.service_key).send().await.unwrap().status() == StatusCode::OK
        })
        .await;
        let session = read(&fleet, &node, id).await;
        let steps = ["upsell-1", "upsell-2", "success", "completed"];
        let was_paid = row["transaction_id"].is_string() && steps.contains(&row["current_step"].as_str().unwrap());
        assert_eq!(session["payment"]["paidAt"].is_string(), was_paid, "{row}");
        assert_eq!((&session["email"], &session["source"]), (&row["email"], &json!("migration")));
        if was_paid {
            assert_eq!(session["transactionId"], row["transaction_id"]);
            assert_eq!(session["vaultId"], row["vault_id"]);
        }
    }

    let again = summary(&import(&fleet, folder.path(), &["--json"]).output().unwrap());
    assert_eq!(counts(&again), [0, 0, count, 0], "running twice changes nothing");

    // The old shop goes on, and the session is in the memories of a server and of Redis.
    let now = "now() + interval '1 second'";
    let paid = format!(
        "UPDATE funnel_sessions SET status = 'completed', current_step = 'completed', transaction_id = 'late-t', updated_at = {now} WHERE id = '{id}'"
    );
    fleet.postgres.execute("legacy", &paid).unwrap();
    let caught_up = summary(&import(&fleet, folder.path(), &["--json"]).output().unwrap());
    assert_eq!(counts(&caught_up), [0, 1, count - 1, 0]);
    until("the server shows it", Duration::from_secs(3), async || {
        read(&fleet, &node, id).await["transactionId"] == "late-t"
    })
    .await;

    let verified = fleet.run(&[
        "audit",
        "verify",
        "--database-url",
        &fleet.postgres.url("shop"),
        "--keys-file",
        &fleet.keys_file().display().to_string(),
    ]);
    verified.unwrap();
    let exported = fleet
        .run(&[
            "audit",
            "export",
            "--database-url",
            &fleet.postgres.url("shop"),
            "--keys-file",
            &fleet.keys_file().display().to_string(),
        ])
        .unwrap();
    let imported = exported.lines().filter(|line| line.contains("\"imported\"")).count() as u64;
    assert_eq!(imported, count + 1, "each change is in the audit log");
}

/// Rows of buyers who have paid, `count` of them.
fn many(count: usize) -> String {
    let row = |number: usize| {
        json!({
            "id": format!("ws_mwor0dc0_{number:09}"), "email": format!("buyer{number}@example.com"), "customer_info": {"firstName": "Ada"},
            "products": [{"id": "fitspresso-1-pack", "name": "One", "price": 79, "quantity": 1}], "status": "completed", "amount": 79,
            "current_step": "completed", "upsells_accepted": [], "upsells_declined": [], "transaction_id": format!("t{number}"),
            "metadata": {"subtotal": 79, "tax": 0, "shipping": 0, "totalAmount": 79}, "created_at": "2026-11-20T09:00:00Z",
            "updated_at": "2026-11-20T09:05:00Z", "expires_at": "2026-11-21T09:00:00Z",
        })
        .to_string()
    };
    (0..count).map(row).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn an_import_that_is_killed_goes_on_where_it_was() {
    const COUNT: u64 = 6_000;
    let fleet = legacy(&many(COUNT as usize));
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("report.jsonl.checkpoint");
    fleet.run(&["migrate", "--database-url", &fleet.postgres.url("shop")]).unwrap();

    let mut killed = import(&fleet, folder.path(), &["--json"]).stdout(Stdio::null()).spawn().unwrap();
    until("a page is done", LONG, async || checkpoint.exists()).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    let reached: Value = serde_json::from_slice(&std::fs::read(&checkpoint).unwrap()).unwrap();
    let before = reached["totals"]["created"].as_u64().unwrap();
    assert!((1..COUNT).contains(&before), "{reached}");

    let other = import(&fleet, folder.path(), &["--json", "--tenant", "another"]).output().unwrap();
    assert_eq!(other.status.code(), Some(1));
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(said.contains("--restart") && !said.contains("password"), "{said}");

    let done = summary(&import(&fleet, folder.path(), &["--json"]).output().unwrap());
    let [created, updated, unchanged, unreadable] = counts(&done);
    assert_eq!(
        (created + unchanged, updated, unreadable),
        (COUNT, 0, 0),
        "what was written after the last page is known again"
    );
    let again = summary(&import(&fleet, folder.path(), &["--json"]).output().unwrap());
    assert_eq!(counts(&again), [0, 0, COUNT, 0]);
}

#[tokio::test]
async fn a_database_that_does_not_answer_for_a_while_is_waited_for() {
    const COUNT: u64 = 6_000;
    let mut fleet = legacy(&many(COUNT as usize));
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("report.jsonl.checkpoint");
    fleet.run(&["migrate", "--database-url", &fleet.postgres.url("shop")]).unwrap();
    // The old shop's rows are in a file: it is the new database alone that is away.
    let rows = folder.path().join("rows.jsonl");
    std::fs::write(&rows, many(COUNT as usize)).unwrap();
    let (to, keys) = (fleet.postgres.url("shop"), fleet.keys_file().display().to_string());
    let report = folder.path().join("report.jsonl").display().to_string();
    let rows = rows.display().to_string();
    let arguments =
        ["import", "--from-jsonl", &rows, "--database-url", &to, "--keys-file", &keys, "--report", &report, "--json"];
    let importing = throughline(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("a page is done", LONG, async || checkpoint.exists()).await;
    fleet.postgres.kill().unwrap();
    let reached = std::fs::read(&checkpoint).unwrap();
    fleet.postgres.start_again().unwrap();
    let output = importing.wait_with_output().unwrap();
    assert_eq!(counts(&summary(&output))[0], COUNT, "{}", String::from_utf8_lossy(&reached));
    let again = summary(&throughline(&arguments).output().unwrap());
    assert_eq!(counts(&again), [0, 0, COUNT, 0]);
}

#[test]
fn a_file_that_was_written_anew_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.jsonl");
    let name = rows.display().to_string();
    let report = folder.path().join("report.jsonl.checkpoint");
    std::fs::write(&rows, many(3_000)).unwrap();
    let import = || sqlite(folder.path(), &["--from-jsonl", &name]);
    let mut killed = import().stdout(Stdio::null()).spawn().unwrap();
    let begun = std::time::Instant::now();
    while !report.exists() && begun.elapsed() < LONG {
        std::thread::sleep(Duration::from_millis(5));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(report.exists(), "a page is done, and not all of them");
    let backwards: Vec<String> = many(3_000).lines().rev().map(str::to_owned).collect();
    std::fs::write(&rows, backwards.join("\n")).unwrap();
    let output = import().output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("--restart"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let done = summary(&sqlite(folder.path(), &["--from-jsonl", &name, "--restart"]).output().unwrap());
    assert_eq!(counts(&done)[0] + counts(&done)[2], 3_000);
}

#[test]
fn a_row_without_an_id_is_told_and_holds_up_nobody() {
    let fleet = legacy(&many(3));
    let folder = tempfile::tempdir().unwrap();
    fleet.run(&["migrate", "--database-url", &fleet.postgres.url("shop")]).unwrap();
    let nameless = "ALTER TABLE funnel_sessions DROP CONSTRAINT funnel_sessions_pkey, ALTER id DROP NOT NULL;
        INSERT INTO funnel_sessions SELECT (f).* FROM (SELECT jsonb_populate_record(f, '{\"id\": null}') AS f FROM funnel_sessions f LIMIT 1) AS rows";
    fleet.postgres.execute("legacy", nameless).unwrap();
    let output = import(&fleet, folder.path(), &["--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(counts(&serde_json::from_slice(&output.stdout).unwrap()), [3, 0, 0, 1]);
    let report = lines(&folder.path().join("report.jsonl"));
    assert_eq!(report.last().unwrap()["unreadable"], "a row without an id", "{report:?}");
}

#[test]
fn what_waits_for_a_person_is_in_every_report_until_it_is_settled() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.jsonl").display().to_string();
    std::fs::write(&rows, ROWS).unwrap();
    let open = |summary: &Value| summary["forPeople"].as_u64().unwrap();
    let tried = summary(&sqlite(folder.path(), &["--from-jsonl", &rows, "--dry-run"]).output().unwrap());
    let first = summary(&sqlite(folder.path(), &["--from-jsonl", &rows]).output().unwrap());
    let second = summary(&sqlite(folder.path(), &["--from-jsonl", &rows]).output().unwrap());
    assert!(open(&first) > 0, "{first}");
    assert_eq!((open(&tried), open(&second)), (open(&first), open(&first)), "{second}");
    let report = lines(&folder.path().join("report.jsonl"));
    let waiting = report.iter().filter(|line| line.to_string().contains("needsAPerson")).count() as u64;
    assert_eq!(waiting, open(&first));
}

fn sqlite(folder: &Path, more: &[&str]) -> Command {
    let at = |name: &str| folder.join(name).display().to_string();
    let url = format!("sqlite:{}", at("t.db"));
    let (keys, report) = (at("keys"), at("report.jsonl"));
    if !folder.join("keys").exists() {
        assert!(throughline(&["keys", "generate", "--keys-file", &keys]).output().unwrap().status.success());
        assert!(throughline(&["migrate", "--database-url", &url]).output().unwrap().status.success());
    }
    throughline(
        &[&["import", "--database-url", &url, "--keys-file", &keys, "--report", &report, "--json"], more].concat(),
    )
}

#[test]
fn a_file_comes_in_with_what_other_systems_have_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let stuck = json!({"id": "ws_1_stuck", "email": "stuck@example.com", "status": "processing", "current_step": "processing",
        "products": [{"id": "fitspresso-1-pack", "price": 79}], "updated_at": "2026-11-20T09:00:00Z", "expires_at": "2026-11-21T09:00:00Z"});
    let lines = [
        stuck.to_string(),
        String::new(),
        "{no json".to_owned(),
        json!({"id": "no-session"}).to_string(),
        "7".to_owned(),
    ];
    std::fs::write(at("rows.jsonl"), lines.join("\n")).unwrap();
    let claims =
        |id: &str| json!({"id": id, "transactionId": "t1", "vaultId": "v1", "createdAt": 1_795_165_260_000_i64});
    std::fs::write(
        at("cache.json"),
        json!({"ws_1_stuck": claims("ws_1_stuck"), "ws_2_orphan": claims("ws_2_orphan")}).to_string(),
    )
    .unwrap();
    let blob = json!({"ws_3_browser": {"id": "ws_3_browser", "email": "b@example.com", "status": "completed", "transactionId": "forged"}});
    std::fs::write(at("browsers.json"), blob.to_string()).unwrap();

    let output = sqlite(
        folder.path(),
        &["--from-jsonl", &at("rows.jsonl"), "--cache", &at("cache.json"), "--browsers", &at("browsers.json")],
    )
    .output()
    .unwrap();
    assert_eq!(
        output.status.code(),
        Some(3),
        "some entries can't be sessions: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(counts(&summary), [3, 0, 0, 3], "{summary}");
    let report = self::lines(&folder.path().join("report.jsonl"));
    let places: Vec<_> = report.iter().filter_map(|line| line["unreadable"].as_str()).collect();
    assert_eq!(places, ["line 3", "line 4", "line 5"]);
    let of_browser = report.iter().find(|line| line["session"] == "ws_3_browser").unwrap();
    assert_eq!(of_browser["decisions"][0]["code"], "paymentUnsettled");
    assert_eq!(
        summary["forPeople"], 3,
        "nobody says what was paid: not the browser, nor the cache, nor a row without an amount: {report:?}"
    );

    let again = sqlite(
        folder.path(),
        &["--from-jsonl", &at("rows.jsonl"), "--cache", &at("cache.json"), "--browsers", &at("browsers.json")],
    )
    .output()
    .unwrap();
    assert_eq!(counts(&serde_json::from_slice(&again.stdout).unwrap()), [0, 0, 3, 3]);
}

#[test]
fn the_variable_names_the_legacy_database_where_no_file_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.jsonl").display().to_string();
    std::fs::write(&rows, ROWS).unwrap();
    let with_variable = |arguments: &[&str]| {
        sqlite(folder.path(), arguments).env("THROUGHLINE_IMPORT_FROM", "sqlite:old.db").output().unwrap()
    };
    let refused = with_variable(&[]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the legacy database is a PostgreSQL one"));
    summary(&with_variable(&["--from-jsonl", &rows]));
    let both = with_variable(&["--from-jsonl", &rows, "--from", "postgres://reader@127.0.0.1:1/shop"]);
    assert!(String::from_utf8_lossy(&both.stderr).contains("cannot be used with"), "{both:?}");
}

#[test]
fn what_is_wrong_with_an_import_is_said_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str]| {
        let output = sqlite(folder.path(), arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&[]).contains("--from-jsonl"));
    assert!(refused(&["--from-jsonl", "nowhere.jsonl"]).contains("nowhere.jsonl"));
    assert!(refused(&["--from", "sqlite:old.db"]).contains("postgres://"));
    let away = refused(&["--from", "postgres://reader@127.0.0.1:1/shop"]);
    assert!(away.contains("look at --from") && !away.contains("--table"), "{away}");
    let said = refused(&["--from", "mysql://root:secret-word@localhost/shop"]);
    assert!(said.contains("postgres://") && !said.contains("secret-word"), "{said}");
    let said = refused(&["--from", "postgres://reader:secret-word@127.0.0.1:1/shop"]);
    assert!(!said.contains("secret-word"), "{said}");
    std::fs::write(folder.path().join("rows.jsonl"), ROWS).unwrap();
    let rows = folder.path().join("rows.jsonl").display().to_string();
    assert!(refused(&["--from-jsonl", &rows, "--funnel", "gone@7"]).contains("gone version 7"));
    let other = tempfile::tempdir().unwrap();
    let keys = other.path().join("keys").display().to_string();
    assert!(sqlite(folder.path(), &["--from-jsonl", &rows]).output().unwrap().status.success());
    assert!(throughline(&["keys", "generate", "--keys-file", &keys]).output().unwrap().status.success());
    let url = format!("sqlite:{}", folder.path().join("t.db").display());
    let output =
        throughline(&["import", "--from-jsonl", &rows, "--database-url", &url, "--keys-file", &keys]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("not the one that the servers of this database have"));
}
