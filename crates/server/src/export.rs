//! Where `throughline export` writes sessions in the shape of the legacy table.

use std::fs::File;
use std::io::{self, BufWriter, Write};
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
    #[error("{file} can't be written")]
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
        "the legacy database can't be written to; its table is given with --table, and needs a column id that is its key, and a column updated_at. What was written stays: run the same command again"
    )]
    Database(#[source] sqlx::Error),
    #[error("the legacy database does not answer")]
    Silent,
    #[error("the table {0} has none of the columns of funnel_sessions; give another one with --table")]
    OtherTable(String),
}

/// Where rows go.
pub(crate) enum RowsOut {
    /// One in each line.
    Lines { file: Option<PathBuf>, out: Box<dyn Write> },
    /// Into a table.
    Table(Box<TableOut>),
}

impl RowsOut {
    /// Into a file; `-` is standard output.
    pub(crate) fn lines(file: &Path) -> Result<Self, RowsOutError> {
        if file.as_os_str() == "-" {
            return Ok(Self::Lines { file: None, out: Box::new(BufWriter::new(io::stdout())) });
        }
        let out = File::create(file).map_err(|source| RowsOutError::File { file: file.to_owned(), source })?;
        Ok(Self::Lines { file: Some(file.to_owned()), out: Box::new(BufWriter::new(out)) })
    }

    /// Writes rows; how many of them were. Those that the legacy shop has changed later are left as they are there.
    pub(crate) async fn write(&mut self, rows: Vec<JsonObject>) -> Result<u64, RowsOutError> {
        match self {
            Self::Lines { file, out } => {
                let mut text = Vec::new();
                for row in &rows {
                    serde_json::to_writer(&mut text, row)?;
                    text.push(b'\n');
                }
                out.write_all(&text).map_err(|source| not_written(file.as_ref(), source))?;
                Ok(rows.len() as u64)
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
}

impl TableOut {
    pub(crate) async fn open(address: &PostgresAddress, table: &str) -> Result<Self, RowsOutError> {
        let options = address.for_writing("throughline export", STATEMENT_LIMIT);
        let connect = tokio::time::timeout(CONNECT_LIMIT, PgConnection::connect_with(&options));
        let mut connection = connect.await.map_err(|_| RowsOutError::Silent)?.map_err(RowsOutError::Database)?;
        let name = quoted(table);
        // Those that the database fills in by itself are left to it.
        let columns: Vec<String> = sqlx::query_scalar(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
        )
        .bind(&name)
        .fetch_all(&mut connection)
        .await
        .map_err(RowsOutError::Database)?;
        let known: Vec<&str> =
            COLUMNS.into_iter().filter(|known| columns.iter().any(|column| column == known)).collect();
        if !known.contains(&"id") || !known.contains(&"updated_at") {
            return Err(RowsOutError::OtherTable(table.to_owned()));
        }
        let list = known.join(", ");
        let set: Vec<String> = known.iter().map(|column| format!("{column} = excluded.{column}")).collect();
        let set = set.join(", ");
        // The table itself says what each column is: an array, JSON or text.
        let statement = format!(
            "INSERT INTO {name} AS kept ({list}) SELECT {list} FROM jsonb_populate_recordset(NULL::{name}, $1::jsonb) \
             ON CONFLICT (id) DO UPDATE SET {set} WHERE kept.updated_at <= excluded.updated_at"
        );
        Ok(Self { connection, statement })
    }

    async fn write(&mut self, rows: Vec<JsonObject>) -> Result<u64, RowsOutError> {
        let rows = JsonValue::Array(rows.into_iter().map(JsonValue::Object).collect());
        let statement = sqlx::query(sqlx::AssertSqlSafe(self.statement.clone())).bind(serde_json::to_string(&rows)?);
        let done = statement.execute(&mut self.connection).await.map_err(RowsOutError::Database)?;
        Ok(done.rows_affected())
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
