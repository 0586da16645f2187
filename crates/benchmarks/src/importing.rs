//! `throughline import` of many rows, beside a script that copies them.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection, Row as _};
use throughline_test_services::fleet::Fleet;
use tokio::process::Command;

use crate::sockets::resident;

/// The table as the old shop had it, and a row of each kind that it held.
const TABLE: &str = "CREATE TABLE funnel_sessions (
    id text PRIMARY KEY, email text NOT NULL, customer_info jsonb, products jsonb NOT NULL, status text NOT NULL, amount numeric NOT NULL,
    current_step text NOT NULL, upsells_accepted text[] NOT NULL DEFAULT '{}', upsells_declined text[] NOT NULL DEFAULT '{}',
    vault_id text, transaction_id text, payment_token text, coupon_code text, metadata jsonb,
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, expires_at timestamptz NOT NULL)";
const KINDS: &str = include_str!("../../../tests/fixtures/legacy/funnel_sessions.jsonl");

/// How many rows the script copies in one transaction.
const PAGE: i64 = 1000;

/// What came of an import.
#[derive(Debug)]
pub struct Imported {
    pub per_second: f64,
    /// Memory of the process after a fifth of the time, and at most after that, in bytes.
    pub memory_early: f64,
    pub memory_most: f64,
}

/// Makes a legacy database with so many rows: the recorded ones again and again, each with an id and an address of its own.
pub async fn legacy_database(fleet: &Fleet, name: &str, rows: u64) -> Result<()> {
    fleet.postgres.create_database(name)?;
    let mut connection = PgConnection::connect(&fleet.postgres.url(name)).await?;
    sqlx::query(TABLE).execute(&mut connection).await?;
    let kinds: Vec<Value> = KINDS.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let fill = "INSERT INTO funnel_sessions
        SELECT kind.* FROM generate_series(0, $2::bigint - 1) AS number
        CROSS JOIN LATERAL jsonb_populate_record(NULL::funnel_sessions, ($1::jsonb -> (number % $3)::int) || jsonb_build_object(
            'id', 'ws_' || lpad(to_hex(number), 12, '0') || '_benchmark', 'email', 'buyer' || number || '@example.com')) AS kind";
    sqlx::query(fill)
        .bind(Value::Array(kinds.clone()).to_string())
        .bind(i64::try_from(rows)?)
        .bind(i64::try_from(kinds.len())?)
        .execute(&mut connection)
        .await?;
    // What PostgreSQL does with so many new rows is not what is measured.
    for statement in ["VACUUM ANALYZE funnel_sessions", "CHECKPOINT"] {
        sqlx::query(statement).execute(&mut connection).await?;
    }
    Ok(())
}

/// Runs the command, and looks at its memory meanwhile.
pub async fn import(fleet: &Fleet, binary: &Path, from: &str, to: &str, rows: u64) -> Result<Imported> {
    let (from, to) = (fleet.postgres.url(from), fleet.postgres.url(to));
    let keys = fleet.keys_file().display().to_string();
    fleet.run(&["migrate", "--database-url", &to])?;
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("report").display().to_string();
    let arguments =
        ["import", "--from", &from, "--database-url", &to, "--keys-file", &keys, "--report", &report, "--json"];
    let child = Command::new(binary).args(arguments).stdout(Stdio::piped()).spawn()?;
    let id = child.id().context("it has ended already")?;
    let mut output = std::pin::pin!(child.wait_with_output());
    let mut memory = Vec::new();
    let output = loop {
        tokio::select! {
            output = &mut output => break output?,
            () = tokio::time::sleep(Duration::from_millis(50)) => memory.extend(resident(id)),
        }
    };
    let summary: Value = serde_json::from_slice(&output.stdout).context("what it has done")?;
    if !output.status.success() || summary["created"].as_u64() != Some(rows) {
        bail!("{summary}");
    }
    let seconds = summary["seconds"].as_f64().context("how long it took")?;
    let (early, late) = memory.split_at(memory.len() / 5);
    let most = |memory: &[f64]| memory.iter().copied().fold(0.0, f64::max);
    Ok(Imported { per_second: rows as f64 / seconds, memory_early: most(early), memory_most: most(late) })
}

/// The usual script instead: it reads pages of rows, and writes for each row a state and a journal entry of about the size of ours, a page in
/// a transaction. Rows each second.
pub async fn copy(fleet: &Fleet, from: &str, to: &str, limit: Duration) -> Result<f64> {
    let mut source = PgConnection::connect(&fleet.postgres.url(from)).await?;
    let mut target = PgConnection::connect(&fleet.postgres.url(to)).await?;
    for statement in [
        "CREATE TABLE copied_sessions (id TEXT PRIMARY KEY, email TEXT, status TEXT, state BYTEA NOT NULL)",
        "CREATE TABLE copied_journal (id TEXT, version BIGINT, record BYTEA NOT NULL, PRIMARY KEY (id, version))",
    ] {
        sqlx::query(statement).execute(&mut target).await?;
    }
    let started = Instant::now();
    let (mut after, mut done) = (String::new(), 0_u64);
    while started.elapsed() < limit {
        let page = "SELECT id, to_jsonb(f)::text AS row FROM funnel_sessions f WHERE id > $1 ORDER BY id LIMIT $2";
        let rows = sqlx::query(page).bind(&after).bind(PAGE).fetch_all(&mut source).await?;
        let Some(last) = rows.last() else { break };
        after = last.try_get("id")?;
        let mut transaction = target.begin().await?;
        for row in &rows {
            let id: String = row.try_get("id")?;
            let text: String = row.try_get("row")?;
            let fields: Value = serde_json::from_str(&text)?;
            sqlx::query("INSERT INTO copied_sessions VALUES ($1, $2, $3, $4)")
                .bind(&id)
                .bind(fields["email"].as_str())
                .bind(fields["status"].as_str())
                .bind(text.as_bytes())
                .execute(&mut *transaction)
                .await?;
            sqlx::query("INSERT INTO copied_journal VALUES ($1, 1, $2)")
                .bind(&id)
                .bind(text.as_bytes())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        done += rows.len() as u64;
    }
    let per_second = done as f64 / started.elapsed().as_secs_f64();
    sqlx::query("CHECKPOINT").execute(&mut target).await?;
    Ok(per_second)
}
