//! How many bytes a session takes in the database, with its journal and what the audit log says of it.

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use throughline_test_services::fleet::{Fleet, Node};

use super::{ask, buyers_session};

/// Who buys at a time.
const AT_A_TIME: usize = 16;

/// What a session takes, in bytes.
#[derive(Debug)]
pub struct Stored {
    /// The events of one session.
    pub events: f64,
    /// Each table of PostgreSQL with its indexes, the largest first.
    pub tables: Vec<(String, f64)>,
    /// All of PostgreSQL's database.
    pub postgres: f64,
    /// What PostgreSQL's write-ahead log grew by: what goes to replicas and archives.
    pub log: f64,
    /// SQLite's file.
    pub sqlite: f64,
}

/// Has so many buyers buy, in both databases.
pub async fn measure(fleet: &Fleet, sessions: usize) -> Result<Stored> {
    fleet.postgres.create_database("storage")?;
    let url = fleet.postgres.url("storage");
    let node = fleet.node_on("storage", &url, None, &[])?;
    let mut connection = PgConnection::connect(&url).await?;
    let (empty, _) = sizes(&mut connection).await?;
    let from: String = sqlx::query_scalar("SELECT pg_current_wal_lsn()::text").fetch_one(&mut connection).await?;
    let events = buy(fleet, &node, sessions).await?;
    drop(node);
    // What was updated leaves old rows behind, which are room for the next ones; this is what a database comes to that lives on.
    sqlx::query("VACUUM").execute(&mut connection).await?;
    let grown = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), $1::pg_lsn)::float8";
    let log: f64 = sqlx::query_scalar(grown).bind(from).fetch_one(&mut connection).await?;
    let (full, tables) = sizes(&mut connection).await?;
    let each = |bytes: f64| bytes / sessions as f64;
    let tables =
        tables.into_iter().map(|(name, bytes)| (name, each(bytes))).filter(|(_, bytes)| *bytes >= 1.0).collect();

    let folder = tempfile::tempdir()?;
    let file = folder.path().join("storage.db");
    let size = || std::fs::metadata(&file).map(|file| file.len() as f64).context("the SQLite file is not there");
    let mut node = fleet.node_on("storage-sqlite", &format!("sqlite:{}", file.display()), None, &[])?;
    buy(fleet, &node, sessions).await?;
    node.stop()?;
    let sqlite = each(size()?);
    Ok(Stored { events, tables, postgres: each(full - empty), log: each(log), sqlite })
}

/// All of the database, and each table.
async fn sizes(connection: &mut PgConnection) -> Result<(f64, Vec<(String, f64)>)> {
    let all = "SELECT pg_database_size(current_database())::float8";
    let all: f64 = sqlx::query_scalar(all).fetch_one(&mut *connection).await?;
    let tables = "SELECT relname::text, pg_total_relation_size(oid)::float8 FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 2 DESC";
    Ok((all, sqlx::query_as(AssertSqlSafe(tables)).fetch_all(&mut *connection).await?))
}

/// Buyers who give their data, pay, and accept an offer; the events of each.
async fn buy(fleet: &Fleet, node: &Node, sessions: usize) -> Result<f64> {
    let versions: Vec<f64> = stream::iter(0..sessions)
        .map(|number| async move {
            let (id, _) = buyers_session(fleet, node).await?;
            let path = format!("/v1/sessions/{id}/commands");
            let mut amount = json!(0);
            for step in 0..4 {
                let told = json!({ "commands": [{ "type": "setMetadata", "metadata": { "seen": step } }] });
                amount = ask(fleet, node, &path, &told).await?["session"]["amount"].clone();
            }
            let paid = json!({ "commands": [{ "type": "beginProcessing" },
                { "type": "recordPayment", "amount": amount, "transactionId": format!("transaction-{number}") }] });
            let paid = ask(fleet, node, &path, &paid).await?;
            paid["session"]["version"].as_f64().with_context(|| format!("no version in {paid}"))
        })
        .buffer_unordered(AT_A_TIME)
        .try_collect()
        .await?;
    Ok(versions.iter().sum::<f64>() / sessions as f64)
}
