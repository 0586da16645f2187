//! What the legacy systems have, page by page: however many sessions there are, a page of them is in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection as _, Row as _};
use throughline_core::json::{JsonObject, JsonValue};
use throughline_core::legacy::LegacySystem;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncSeekExt as _, BufReader};

use super::PAGE;
use crate::store::postgres::PostgresAddress;

/// How long connecting to the legacy database, and one statement there, may take. Counting a large table takes a while.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const STATEMENT_LIMIT: Duration = Duration::from_secs(120);

/// How long a line may be. A row with all its metadata has a few kilobytes.
const MAX_LINE_BYTES: u64 = 4 * 1024 * 1024;

/// How large a file may be that is read as a whole.
const MAX_FILE_BYTES: u64 = 512 * 1024 * 1024;

/// What one system has of one session.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) system: LegacySystem,
    /// The id under which it was found.
    pub(crate) key: String,
    /// Where it was found, for people.
    pub(crate) place: String,
    /// What was found, or why it is no JSON.
    pub(crate) content: Result<JsonValue, String>,
}

impl Entry {
    /// The session's id, where it can be told.
    pub(crate) fn id(&self) -> Option<&str> {
        match &self.content {
            Ok(JsonValue::Object(object)) => match object.get("id") {
                Some(JsonValue::String(id)) => Some(id),
                _ => Some(&self.key),
            },
            _ => None,
        }
    }
}

/// Some entries, and where it goes on after them.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    pub(crate) position: Position,
    /// How many bytes of the file they were; 0 for a table.
    pub(crate) bytes: u64,
}

/// How far the rows are read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Position {
    /// Up to the row with this id.
    AfterId(String),
    /// Up to this byte, which is the end of this line.
    AfterLine {
        /// Lines.
        line: u64,
        /// Bytes.
        byte: u64,
    },
}

/// Why the legacy data can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowsError {
    #[error("{file} can't be read")]
    File {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{file} is no JSON, neither one object with the sessions by their ids nor one session in each line: {why}")]
    NotJson { file: PathBuf, why: String },
    #[error(
        "the legacy database can't be read; its table is given with --table, and needs a column id. Everything before is brought in: run the same command again"
    )]
    Database(#[source] sqlx::Error),
    #[error("the legacy database can't be reached, or does not let this user in; look at --from")]
    Connect(#[source] sqlx::Error),
    #[error("the legacy database does not answer")]
    Silent,
    #[error("what was reached before is of something else than what is to be read; begin again with --restart")]
    Position,
}

/// The rows of `funnel_sessions`.
#[derive(Debug)]
pub(crate) enum Rows {
    /// None: only what other systems have is brought in.
    None,
    /// In a table.
    Table(Box<Table>),
    /// One in each line of a file.
    Lines(Box<Lines>),
}

impl Rows {
    pub(crate) async fn next_page(&mut self) -> Result<Option<Page>, RowsError> {
        match self {
            Self::None => Ok(None),
            Self::Table(table) => table.next_page().await,
            Self::Lines(lines) => lines.next_page().await,
        }
    }
}

/// A table of another PostgreSQL database. It is only read.
#[derive(Debug)]
pub(crate) struct Table {
    connection: PgConnection,
    name: String,
    after: Option<String>,
    /// Whether all rows with an id are read.
    is_read: bool,
}

impl Table {
    pub(crate) async fn open(
        address: &PostgresAddress,
        table: &str,
        after: Option<Position>,
    ) -> Result<Self, RowsError> {
        let after = match after {
            None => None,
            Some(Position::AfterId(id)) => Some(id),
            Some(Position::AfterLine { .. }) => return Err(RowsError::Position),
        };
        let options = address.for_reading("throughline import", STATEMENT_LIMIT);
        let connect = tokio::time::timeout(CONNECT_LIMIT, PgConnection::connect_with(&options));
        let connection = connect.await.map_err(|_| RowsError::Silent)?.map_err(RowsError::Connect)?;
        Ok(Self { connection, name: quoted(table), after, is_read: false })
    }

    /// How many rows there are.
    pub(crate) async fn count(&mut self) -> Result<u64, RowsError> {
        let name = &self.name;
        let asked = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {name}")));
        let row = asked.fetch_one(&mut self.connection).await.map_err(RowsError::Database)?;
        let count: i64 = row.try_get(0).map_err(RowsError::Database)?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    async fn next_page(&mut self) -> Result<Option<Page>, RowsError> {
        if self.is_read {
            return Ok(None);
        }
        let name = &self.name;
        let condition = if self.after.is_some() { "WHERE id > $2" } else { "WHERE id IS NOT NULL" };
        let text = format!("SELECT id::text, to_jsonb(t)::text FROM {name} AS t {condition} ORDER BY id LIMIT $1");
        let mut query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(PAGE as i64);
        if let Some(after) = &self.after {
            query = query.bind(after);
        }
        let mut rows = query.fetch(&mut self.connection);
        let mut entries = Vec::new();
        while let Some(row) = rows.try_next().await.map_err(RowsError::Database)? {
            entries.push(entry_of(&row).map_err(RowsError::Database)?);
        }
        drop(rows);
        let Some(last) = entries.last().map(|entry| entry.key.clone()) else { return self.without_an_id().await };
        self.after = Some(last.clone());
        Ok(Some(Page { entries, position: Position::AfterId(last), bytes: 0 }))
    }

    /// Rows that nobody can name: no session, but somebody has to hear of them.
    async fn without_an_id(&mut self) -> Result<Option<Page>, RowsError> {
        self.is_read = true;
        let text = format!("SELECT count(*) FROM {} WHERE id IS NULL", self.name);
        let asked = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(text)).fetch_one(&mut self.connection);
        let count = asked.await.map_err(RowsError::Database)?;
        let entry = |_| Entry {
            system: LegacySystem::Database,
            key: String::new(),
            place: "a row without an id".to_owned(),
            content: Err("its id is NULL".to_owned()),
        };
        let entries: Vec<Entry> = (0..count).map(entry).collect();
        let position = Position::AfterId(self.after.clone().unwrap_or_default());
        Ok((count > 0).then_some(Page { entries, position, bytes: 0 }))
    }
}

fn entry_of(row: &PgRow) -> Result<Entry, sqlx::Error> {
    let (id, text): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let place = format!("row {id}");
    Ok(Entry { system: LegacySystem::Database, content: parsed(&text).map(with_nested), key: id, place })
}

/// `schema.table` as SQL, whatever characters are in it.
pub(crate) fn quoted(table: &str) -> String {
    let parts: Vec<String> = table.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
    parts.join(".")
}

/// JSON columns may be text.
fn with_nested(row: JsonValue) -> JsonValue {
    let JsonValue::Object(mut row) = row else { return row };
    for value in row.values_mut() {
        if let JsonValue::String(text) = value
            && text.starts_with(['{', '['])
            && let Ok(nested) = parsed(text)
        {
            *value = nested;
        }
    }
    JsonValue::Object(row)
}

fn parsed(text: &str) -> Result<JsonValue, String> {
    serde_json::from_str(text).map_err(|error| format!("it is no JSON ({error})"))
}

/// A file with one row in each line.
#[derive(Debug)]
pub(crate) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    line: u64,
    byte: u64,
}

impl Lines {
    pub(crate) async fn open(path: &Path, after: Option<Position>) -> Result<Self, RowsError> {
        let (line, byte) = match after {
            None => (0, 0),
            Some(Position::AfterLine { line, byte }) => (line, byte),
            Some(Position::AfterId(_)) => return Err(RowsError::Position),
        };
        let unreadable = |source| RowsError::File { file: path.to_owned(), source };
        let mut file = File::open(path).await.map_err(unreadable)?;
        file.seek(std::io::SeekFrom::Start(byte)).await.map_err(unreadable)?;
        Ok(Self { path: path.to_owned(), reader: BufReader::with_capacity(256 * 1024, file), line, byte })
    }

    /// How many bytes there are in all.
    pub(crate) async fn size(&self) -> Result<u64, RowsError> {
        let metadata = self.reader.get_ref().metadata().await;
        metadata.map(|metadata| metadata.len()).map_err(|source| RowsError::File { file: self.path.clone(), source })
    }

    async fn next_page(&mut self) -> Result<Option<Page>, RowsError> {
        let Self { path, reader, line, byte } = self;
        let unreadable = |source| RowsError::File { file: path.clone(), source };
        let (mut entries, mut bytes, mut read) = (Vec::new(), 0, Vec::new());
        while entries.len() < PAGE {
            let (length, is_whole) = read_line(reader, &mut read).await.map_err(unreadable)?;
            if length == 0 {
                break;
            }
            *line += 1;
            bytes += length;
            let text = std::str::from_utf8(&read).map_err(|error| format!("it is no UTF-8 ({error})"));
            let content = match text.map(str::trim) {
                _ if !is_whole => Err(format!("the line is longer than {MAX_LINE_BYTES} bytes")),
                Ok("") => continue,
                text => text.and_then(parsed),
            };
            let (content, place) = (content.map(with_nested), format!("line {line}"));
            entries.push(Entry { system: LegacySystem::Database, key: String::new(), place, content });
        }
        *byte += bytes;
        let position = Position::AfterLine { line: *line, byte: *byte };
        Ok((bytes > 0).then_some(Page { entries, position, bytes }))
    }
}

/// Reads one line into `line`; how many bytes it has, and whether all of them are there: of one that is too long the rest is
/// passed over.
async fn read_line(reader: &mut BufReader<File>, line: &mut Vec<u8>) -> std::io::Result<(u64, bool)> {
    let (mut length, mut is_whole) = (0, true);
    loop {
        line.clear();
        let read = (&mut *reader).take(MAX_LINE_BYTES).read_until(b'\n', line).await? as u64;
        length += read;
        if read < MAX_LINE_BYTES || line.ends_with(b"\n") {
            return Ok((length, is_whole));
        }
        is_whole = false;
    }
}

/// What other systems than the database have, by the id of the session. All of it is in memory.
#[derive(Debug, Default)]
pub(crate) struct BesideRows {
    entries: BTreeMap<String, Vec<Entry>>,
}

impl BesideRows {
    /// Adds what a file has of `system`: one JSON object with the sessions by their ids, or one session in each line.
    pub(crate) async fn add(&mut self, system: LegacySystem, path: &Path) -> Result<(), RowsError> {
        let unreadable = |source| RowsError::File { file: path.to_owned(), source };
        let file = File::open(path).await.map_err(unreadable)?;
        let mut text = String::new();
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).await.map_err(unreadable)?;
        let name = path.display();
        match serde_json::from_str::<JsonObject>(&text) {
            Ok(sessions) if !sessions.contains_key("id") => {
                for (number, (key, content)) in (1..).zip(&sessions) {
                    // By its place: the key may be anything, also somebody's address.
                    let (place, content) = (format!("entry {number} of {name}"), Ok(content.clone()));
                    self.insert(Entry { system, key: key.clone(), place, content });
                }
            }
            one_or_many => {
                let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
                let is_one = one_or_many.is_ok();
                let lines: Vec<_> = if is_one { vec![(0, text.as_str())] } else { lines.collect() };
                for (number, line) in lines {
                    let content = serde_json::from_str::<JsonObject>(line).map_err(|error| RowsError::NotJson {
                        file: path.to_owned(),
                        why: format!("line {}: {error}", number + 1),
                    })?;
                    let place = format!("line {} of {name}", number + 1);
                    let content = Ok(JsonValue::Object(content));
                    self.insert(Entry { system, key: String::new(), place, content });
                }
            }
        }
        Ok(())
    }

    fn insert(&mut self, entry: Entry) {
        let id = entry.id().unwrap_or_default().to_owned();
        self.entries.entry(id).or_default().push(entry);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What there is of a session, once.
    pub(crate) fn take(&mut self, id: &str) -> Vec<Entry> {
        self.entries.remove(id).unwrap_or_default()
    }

    /// Some of those that nobody has taken.
    pub(crate) fn next_page(&mut self) -> Option<Vec<Vec<Entry>>> {
        let mut page = Vec::new();
        while page.len() < PAGE
            && let Some((_, entries)) = self.entries.pop_first()
        {
            page.push(entries);
        }
        (!page.is_empty()).then_some(page)
    }
}
