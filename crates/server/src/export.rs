//! Where `throughline export` writes sessions in the shape of the legacy table.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use throughline_core::json::{JsonObject, JsonValue};

use crate::import::entries::quoted;
use crate::store::postgres::PostgresAddress;

/// How long connecting to the legacy database, and one statement there, may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const STATEMENT_LIMIT: Duration = Duration::from_secs(60);

/// Why rows can't be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowsOutError {
    #[error("{file} can't be written; it has to be a new file, because what is there may be the only copy")]
    File {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("standard output cannot be written to")]
    Output(#[source] io::Error),
    #[error("a row cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error(
        "the rows can't be written; the table is given with --table, and needs a column id that is its key, and a column updated_at. What was written stays: run the same command again"
    )]
    Database(#[source] sqlx::Error),
    #[error("the legacy database can't be reached, or does not let this user in; look at --to")]
    Connect(#[source] sqlx::Error),
    #[error("the legacy database does not answer")]
    Silent,
    #[error("the table {0} has none of the columns of funnel_sessions; give another one with --table")]
    OtherTable(String),
}

/// What became of rows.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// How many were written.
    pub(crate) rows: u64,
    /// The ids of those that say of a payment what the session does not: they are left alone.
    pub(crate) paid_there: Vec<String>,
}

/// Where rows go.
pub(crate) enum RowsOut {
    /// One in each line.
    Lines { file: Option<PathBuf>, out: Box<dyn Write> },
    /// Into a table.
    Table(Box<TableOut>),
}

impl RowsOut {
    /// Into a new file that nobody else may read: it holds names, addresses and the gateway's references. `-` is standard output.
    pub(crate) fn lines(file: &Path) -> Result<Self, RowsOutError> {
        if file.as_os_str() == "-" {
            return Ok(Self::Lines { file: None, out: Box::new(BufWriter::new(io::stdout())) });
        }
        let out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
        let out = out.map_err(|source| RowsOutError::File { file: file.to_owned(), source })?;
        Ok(Self::Lines { file: Some(file.to_owned()), out: Box::new(BufWriter::new(out)) })
    }

    /// Writes rows, unless the table has them as they are or from later.
    pub(crate) async fn write(&mut self, rows: Vec<JsonObject>) -> Result<Written, RowsOutError> {
        match self {
            Self::Lines { file, out } => {
                let mut text = Vec::new();
                for row in &rows {
                    serde_json::to_writer(&mut text, row)?;
                    text.push(b'\n');
                }
                out.write_all(&text).map_err(|source| not_written(file.as_ref(), source))?;
                Ok(Written { rows: rows.len() as u64, paid_there: Vec::new() })
            }
            Self::Table(table) => table.write(rows).await,
        }
    }

    /// Makes sure that everything is written.
    pub(crate) fn finish(&mut self) -> Result<(), RowsOutError> {
        match self {
            Self::Lines { file, out } => out.flush().map_err(|source| not_written(file.as_ref(), source)),
            Self::Table(_) => Ok(()),
        }
    }
}

fn not_written(file: Option<&PathBuf>, source: io::Error) -> RowsOutError {
    match file {
        Some(file) => RowsOutError::File { file: file.clone(), source },
        None => RowsOutError::Output(source),
    }
}

/// A table of another PostgreSQL database.
#[derive(Debug)]
pub(crate) struct TableOut {
    connection: PgConnection,
    statement: String,
    is_dry_run: bool,
}

/// A column, and its type as PostgreSQL spells it.
type Column = (String, String);

impl TableOut {
    pub(crate) async fn open(address: &PostgresAddress, table: &str, is_dry_run: bool) -> Result<Self, RowsOutError> {
        let options = address.for_writing("throughline export", STATEMENT_LIMIT);
        let connect = tokio::time::timeout(CONNECT_LIMIT, PgConnection::connect_with(&options));
        let mut connection = connect.await.map_err(|_| RowsOutError::Silent)?.map_err(RowsOutError::Connect)?;
        let name = quoted(table);
        // Those that the database fills in by itself are left to it.
        let columns: Vec<Column> = sqlx::query_as(
            "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute
             WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
        )
        .bind(&name)
        .fetch_all(&mut connection)
        .await
        .map_err(RowsOutError::Database)?;
        let known: Vec<Column> =
            COLUMNS.into_iter().filter_map(|known| columns.iter().find(|(name, _)| name == known).cloned()).collect();
        for needed in ["id", "status", "updated_at"] {
            if known.iter().all(|(name, _)| name != needed) {
                return Err(RowsOutError::OtherTable(table.to_owned()));
            }
        }
        let statement = statement(&name, &known);
        Ok(Self { connection, statement, is_dry_run })
    }

    async fn write(&mut self, rows: Vec<JsonObject>) -> Result<Written, RowsOutError> {
        let rows = JsonValue::Array(rows.into_iter().map(JsonValue::Object).collect());
        let statement = sqlx::query_as(sqlx::AssertSqlSafe(self.statement.clone())).bind(serde_json::to_string(&rows)?);
        let mut transaction = self.connection.begin().await.map_err(RowsOutError::Database)?;
        let done: (i64, Vec<String>) = statement.fetch_one(&mut *transaction).await.map_err(RowsOutError::Database)?;
        let ended = if self.is_dry_run { transaction.rollback().await } else { transaction.commit().await };
        ended.map_err(RowsOutError::Database)?;
        Ok(Written { rows: u64::try_from(done.0).unwrap_or_default(), paid_there: done.1 })
    }
}

/// The rows are given as JSON; the table itself says what each column is: an array, JSON or text.
fn statement(table: &str, columns: &[Column]) -> String {
    let list = columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let set: Vec<String> = columns
        .iter()
        .filter(|(name, _)| !["id", "created_at"].contains(&name.as_str()))
        .map(|column| format!("{} = {}", column.0, changed(column, columns)))
        .collect();
    let set = set.join(", ");
    let paid_there = paid_there(columns);
    format!(
        "WITH given AS (SELECT {list} FROM jsonb_populate_recordset(NULL::{table}, $1::jsonb)),
         written AS (
             INSERT INTO {table} AS kept ({list}) SELECT {list} FROM given
             ON CONFLICT (id) DO UPDATE SET {set} WHERE kept.updated_at < excluded.updated_at AND NOT {paid_there}
             RETURNING 1)
         SELECT (SELECT count(*) FROM written),
                ARRAY(SELECT kept.id::text FROM {table} AS kept JOIN given AS excluded ON kept.id = excluded.id WHERE {paid_there})"
    )
}

/// Whether the row knows of a payment that the session does not know of.
fn paid_there(columns: &[Column]) -> String {
    let mut paid = "excluded.status::text <> 'completed'".to_owned();
    if columns.iter().any(|(name, _)| name == "transaction_id") {
        paid.push_str(" OR kept.transaction_id <> excluded.transaction_id");
    }
    format!("(kept.status::text = 'completed' AND COALESCE({paid}, false))")
}

/// What a column is changed to. What the old shop has written and a session has no place for stays, and so does every payment.
fn changed((name, kind): &Column, columns: &[Column]) -> String {
    let is_json = |kind: &str| ["json", "jsonb"].contains(&kind);
    let has_json = |named: &str| columns.iter().any(|(name, kind)| name == named && is_json(kind));
    let new = format!("excluded.{name}");
    let object = |of: &str| format!("CASE jsonb_typeof({of}::jsonb) WHEN 'object' THEN {of}::jsonb ELSE '{{}}' END");
    let length = |of: &str| format!("CASE jsonb_typeof({of}) WHEN 'array' THEN jsonb_array_length({of}) ELSE 0 END");
    match name.as_str() {
        "transaction_id" | "vault_id" | "payment_token" => format!("COALESCE({new}, kept.{name})"),
        "email" => format!("COALESCE(NULLIF({new}, ''), kept.{name})"),
        // An end that was late to be noticed says less than how it had ended.
        "status" | "current_step" => format!(
            "CASE WHEN kept.status::text IN ('failed', 'processing') AND excluded.status::text IN ('expired', kept.status::text) THEN kept.{name} ELSE {new} END"
        ),
        "customer_info" if is_json(kind) => {
            format!("(({}) || ({}))::{kind}", object("kept.customer_info"), object(&new))
        }
        "metadata" if is_json(kind) => {
            let (old, new) = (object("kept.metadata"), object(&new));
            let more = format!(
                "{} > {}",
                length("(kept.metadata::jsonb -> 'upsells')"),
                length("(excluded.metadata::jsonb -> 'upsells')")
            );
            // A list of extras that is longer there has charges that are not known here.
            format!(
                "(({old}) || ({new}) || CASE WHEN {more} THEN jsonb_build_object('upsells', kept.metadata::jsonb -> 'upsells') ELSE '{{}}' END)::{kind}"
            )
        }
        "products" if is_json(kind) => {
            let (old, new) = (length("kept.products::jsonb"), length("excluded.products::jsonb"));
            format!(
                "CASE WHEN ({new}) = 0 OR (({old}) = ({new}) AND kept.products::jsonb @> excluded.products::jsonb) THEN kept.products ELSE excluded.products END"
            )
        }
        "amount" if has_json("products") => {
            format!("CASE WHEN ({}) = 0 THEN kept.amount ELSE excluded.amount END", length("excluded.products::jsonb"))
        }
        "upsells_accepted" | "upsells_declined" if is_json(kind) => format!(
            "(COALESCE(kept.{name}::jsonb, '[]') || (SELECT COALESCE(jsonb_agg(code), '[]') FROM jsonb_array_elements({new}::jsonb) AS code
              WHERE NOT COALESCE(kept.{name}::jsonb, '[]') @> code))::{kind}"
        ),
        "upsells_accepted" | "upsells_declined" if kind.ends_with("[]") => format!(
            "COALESCE(kept.{name}, '{{}}') || ARRAY(SELECT code FROM unnest({new}) AS code WHERE code <> ALL (COALESCE(kept.{name}, '{{}}')))"
        ),
        _ => new,
    }
}

/// The columns of `funnel_sessions`.
const COLUMNS: [&str; 17] = [
    "id",
    "email",
    "customer_info",
    "products",
    "status",
    "amount",
    "current_step",
    "upsells_accepted",
    "upsells_declined",
    "vault_id",
    "transaction_id",
    "payment_token",
    "coupon_code",
    "metadata",
    "created_at",
    "updated_at",
    "expires_at",
];
