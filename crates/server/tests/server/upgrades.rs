//! Databases of earlier versions, with data in them, and of later ones: `docs/operations/upgrades.md`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqlSafeStr as _, SqliteConnection};
use throughline_test_services::buyer::{Buyer, Identity};
use throughline_test_services::fleet::{Fleet, Node};
use throughline_test_services::promises;

use super::binary;
use super::fleets::*;

/// Sessions are encrypted from these migrations on; what was written before can't be read, and is refused by name.
const ENCRYPTED_ON_POSTGRES: usize = 7;
const ENCRYPTED_ON_SQLITE: usize = 8;

/// The first so many migrations, as the version that had no more of them had them. All of them where none is given.
fn migrations(database: &str, first: Option<usize>) -> Migrator {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(database);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.truncate(first.unwrap_or(files.len()));
    let migration = |(index, file): (usize, &std::path::PathBuf)| {
        let sql = AssertSqlSafe(std::fs::read_to_string(file).unwrap()).into_sql_str();
        Migration::new(index as i64 + 1, "earlier".into(), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(files.iter().enumerate().map(migration).collect())
}

/// A database as an earlier version has left it, with what it had of the current one's rows.
async fn earlier_postgres(fleet: &Fleet, name: &str, first: usize) {
    fleet.postgres.create_database(name).unwrap();
    let mut earlier = PgConnection::connect(&fleet.postgres.url(name)).await.unwrap();
    migrations("postgres", Some(first)).run(&mut earlier).await.unwrap();
    let mut current = PgConnection::connect(&fleet.postgres.url("shop")).await.unwrap();
    // What refuses changes of the audit log would refuse this one.
    sqlx::query("SET session_replication_role = replica").execute(&mut earlier).await.unwrap();
    let tables =
        "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' AND tablename <> '_sqlx_migrations'";
    for table in sqlx::query_scalar::<_, String>(tables).fetch_all(&mut earlier).await.unwrap() {
        let select = format!("SELECT row_to_json(kept)::text FROM {table} kept");
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(select)).fetch_all(&mut current).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("DELETE FROM {table}"))).execute(&mut earlier).await.unwrap();
        for row in rows {
            let insert = format!("INSERT INTO {table} SELECT * FROM json_populate_record(NULL::{table}, $1::json)");
            sqlx::query(AssertSqlSafe(insert)).bind(row).execute(&mut earlier).await.unwrap();
        }
    }
    let sequences = "SELECT sequencename::text FROM pg_sequences WHERE schemaname = 'public'";
    for sequence in sqlx::query_scalar::<_, String>(sequences).fetch_all(&mut earlier).await.unwrap() {
        let last = format!("SELECT last_value FROM {sequence}");
        let last: i64 = sqlx::query_scalar(AssertSqlSafe(last)).fetch_one(&mut current).await.unwrap();
        sqlx::query("SELECT setval($1::regclass, $2)").bind(&sequence).bind(last).execute(&mut earlier).await.unwrap();
    }
}

async fn earlier_sqlite(file: &Path, current: &Path, first: usize) {
    let mut earlier = SqliteConnection::connect(&format!("sqlite:{}?mode=rwc", file.display())).await.unwrap();
    migrations("sqlite", Some(first)).run(&mut earlier).await.unwrap();
    let attach = "ATTACH DATABASE $1 AS current";
    sqlx::query(attach).bind(current.display().to_string()).execute(&mut earlier).await.unwrap();
    let triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'";
    let refuses: Vec<String> = sqlx::query_scalar(triggers).fetch_all(&mut earlier).await.unwrap();
    let tables = "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name <> '_sqlx_migrations'";
    for table in sqlx::query_scalar::<_, String>(tables).fetch_all(&mut earlier).await.unwrap() {
        let columns = "SELECT name FROM pragma_table_info($1, 'main')";
        let columns: Vec<String> = sqlx::query_scalar(columns).bind(&table).fetch_all(&mut earlier).await.unwrap();
        let columns = columns.join(", ");
        if !refuses.iter().any(|trigger| trigger.contains(&table)) {
            sqlx::query(AssertSqlSafe(format!("DELETE FROM main.{table}"))).execute(&mut earlier).await.unwrap();
        }
        let copy = format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM current.{table}");
        sqlx::query(AssertSqlSafe(copy)).execute(&mut earlier).await.unwrap();
    }
    earlier.close().await.unwrap();
}

async fn furnished(fleet: &Fleet, node: &Node) -> BTreeMap<String, Value> {
    let mut sessions = BTreeMap::new();
    for number in 0..4 {
        let id = created(fleet, node).await;
        assert_eq!(strict(fleet, node, &id, &format!("buyer-{number}@example.com")).await.0, 200);
        sessions.insert(id.clone(), promises::session(fleet, node, &id).await.unwrap());
    }
    sessions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_database_of_each_earlier_version_is_brought_up_to_date_with_all_that_is_in_it() {
    let fleet = fleet();
    let mut node = fleet.node("current", &[]).unwrap();
    let sessions = furnished(&fleet, &node).await;
    let keys = fleet.keys_file().display().to_string();
    assert!(node.stop().unwrap().success());
    let latest = migrations("postgres", None).iter().count();
    for first in ENCRYPTED_ON_POSTGRES..latest {
        let name = format!("earlier_{first}");
        earlier_postgres(&fleet, &name, first).await;
        let url = fleet.postgres.url(&name);
        fleet.redis.command(&["FLUSHALL"]).unwrap();
        let refused = fleet.node_on("too-early", &url, None, &["--auto-migrate", "false"]).unwrap_err().to_string();
        assert!(refused.contains("are older than this version needs; run `throughline migrate`"), "{refused}");
        let said = fleet.run(&["migrate", "--json", "--database-url", &url]).unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["applied"].as_array().unwrap().len(), latest - first, "{said}");
        let node = fleet.node_on(&name, &url, None, &["--auto-migrate", "false"]).unwrap();
        for (id, before) in &sessions {
            assert_eq!(promises::session(&fleet, &node, id).await.as_ref(), Ok(before), "of version {first}");
            assert_eq!(
                promises::journal(&fleet, &node, id).await.unwrap().len() as u64,
                before["version"].as_u64().unwrap()
            );
            assert_eq!(strict(&fleet, &node, id, "later@example.com").await.0, 200, "{}", node.log());
        }
        let verified = fleet.run(&["audit", "verify", "--keys-file", &keys, "--database-url", &url]).unwrap();
        assert!(verified.contains("the audit log is as it was written"), "of version {first}: {verified}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_file_of_each_earlier_version_is_brought_up_to_date_with_all_that_is_in_it() {
    let kept = tempfile::tempdir().unwrap();
    let made = binary::throughline(&["keys", "generate"]).output().unwrap();
    let made = String::from_utf8(made.stdout).unwrap();
    let value = |name: &str| made.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let keys = binary::write(&kept, "keys", &value("THROUGHLINE_KEYS="));
    let hashes = binary::write(&kept, "hashes", &value("THROUGHLINE_SERVICE_KEY_HASHES="));
    let service_key = value("# service key, give it to the shop's back end: ");
    let client = reqwest::Client::builder().timeout(LONG).build().unwrap();
    let options = ["--keys-file", &keys, "--service-key-hashes-file", &hashes];
    let mut server = binary::start(tempfile::tempdir().unwrap(), &options);
    let address = binary::address(&server.line()).to_owned();
    let mut sessions = BTreeMap::new();
    for number in 0..4 {
        let new = json!({ "email": format!("buyer-{number}@example.com") });
        let asked = client.post(format!("http://{address}/v1/sessions")).bearer_auth(&service_key).json(&new).send();
        let session = asked.await.unwrap().json::<Value>().await.unwrap()["session"].clone();
        sessions.insert(session["id"].as_str().unwrap().to_owned(), session);
    }
    assert!(server.stop().0.success());
    let current = server.folder.path().join("data/t.db");
    let latest = migrations("sqlite", None).iter().count();
    for first in ENCRYPTED_ON_SQLITE..latest {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let file = folder.path().join("data/t.db");
        earlier_sqlite(&file, &current, first).await;
        let url = format!("sqlite:{}", file.display());
        let migrated = binary::throughline(&["migrate", "--json", "--database-url", &url]).output().unwrap();
        let said: Value = serde_json::from_slice(&migrated.stdout).unwrap();
        assert_eq!(said["applied"].as_array().unwrap().len(), latest - first, "{said}");
        let mut server = binary::start(folder, &[&options[..], &["--auto-migrate", "false"]].concat());
        let address = binary::address(&server.line()).to_owned();
        for (id, before) in &sessions {
            let asked = client.get(format!("http://{address}/v1/sessions/{id}")).bearer_auth(&service_key).send();
            assert_eq!(asked.await.unwrap().json::<Value>().await.unwrap(), *before, "of version {first}");
        }
        let verify = ["audit", "verify", "--keys-file", &keys, "--database-url", &url];
        let verified = binary::throughline(&verify).output().unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    }
}

/// What a later version may do to the tables while servers of this one go on: only add.
const LATER: &str = "ALTER TABLE sessions ADD COLUMN later TEXT; ALTER TABLE journal ADD COLUMN later BIGINT NOT NULL DEFAULT 0;
    CREATE TABLE later (id BIGINT PRIMARY KEY); CREATE INDEX sessions_later ON sessions (later);
    INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'later', true, '\\x00', 0)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_go_on_while_a_later_version_adds_to_their_tables_and_are_not_started_again() {
    let fleet = fleet();
    let mut nodes = [fleet.node("a", &[]).unwrap(), fleet.node("b", &[]).unwrap()];
    let servers: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
    let mut buyers = Vec::new();
    for _ in 0..3 {
        let identity = Identity::new();
        let buyer = Buyer::start(&identity, &servers, OFTEN);
        buyers.push((identity, buyer));
    }
    all_accepted(&buyers, 20).await;
    fleet.postgres.execute("shop", LATER).unwrap();
    all_accepted(&buyers, 50).await;
    let id = created(&fleet, &nodes[0]).await;
    assert_eq!(strict(&fleet, &nodes[1], &id, "ada@example.com").await.0, 200);
    let found = reqwest::Client::new().get(format!("http://{}/v1/sessions?email=ada@example.com", nodes[1].address));
    let found = found.bearer_auth(&fleet.service_key).timeout(Duration::from_secs(10)).send().await.unwrap();
    assert_eq!(found.json::<Value>().await.unwrap()["sessions"].as_array().unwrap().len(), 1);
    for buyer in buyers {
        let (outcome, _) = settled(&fleet, &[&nodes[0], &nodes[1]], vec![buyer]).await;
        assert!(outcome.acknowledged > 70, "{outcome}");
    }

    assert!(nodes[0].stop().unwrap().success());
    let refused = nodes[0].start_again().unwrap_err().to_string();
    assert!(refused.contains("brought up to date by a newer version of throughline"), "{refused}");
    assert!(refused.contains("run that version"), "{refused}");
}
