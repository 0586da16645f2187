//! `throughline sessions`: the story of a session, and what happens to sessions just now, by a server that runs.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use clap::{Args, Subcommand};
use form_urlencoded::byte_serialize;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use throughline_core::{Session, SessionId, Timestamp};

use crate::privacy_command::session_id;
use crate::rest_client::{RestClient, RestError};
use crate::server_argument::{ServerArgument, ServerCommandError};

const SHOW_EXAMPLES: &str = "\
What the buyer has typed is not shown; --json prints all that the service key may see. It needs the scope sessions:read.

Examples:
  throughline sessions show ws_m3k2x_9f2c --server https://checkout.example --service-key-file key
  throughline sessions show ws_m3k2x_9f2c --server https://checkout.example --json | jq '.records[].event.type'";

const TAIL_EXAMPLES: &str = "\
With an id, the latest events of that session; without, the sessions that were begun last. With --follow it goes on with what
happens, until it is interrupted; a server that is away is asked again. With --json, one object in each line.

Examples:
  throughline sessions tail --server https://checkout.example --service-key-file key --follow
  throughline sessions tail ws_m3k2x_9f2c --server https://checkout.example --follow
  throughline sessions tail --follow --json --server https://checkout.example | jq 'select(.status == \"failed\") | .id'";

/// How many records of the journal, or sessions, one request is for.
const RECORDS: u32 = 500;
const SESSIONS: u32 = 200;

/// How often it is looked whether something has happened.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Sessions, for whoever helps a buyer or watches a shop.
#[derive(Debug, Subcommand)]
pub enum SessionsCommand {
    /// Tell the story of one session
    #[command(after_help = SHOW_EXAMPLES)]
    Show(Show),
    /// Say what happened last, and go on
    #[command(after_help = TAIL_EXAMPLES)]
    Tail(Tail),
}

/// Which session.
#[derive(Debug, Args)]
pub struct Show {
    /// The session
    #[arg(value_name = "ID", value_parser = session_id)]
    id: SessionId,
    /// Print the session and its records as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgument,
}

/// Which sessions, and for how long.
#[derive(Debug, Args)]
pub struct Tail {
    /// The session; all of them where it is missing
    #[arg(value_name = "ID", value_parser = session_id)]
    id: Option<SessionId>,
    /// Go on with what happens
    #[arg(long, short)]
    follow: bool,
    /// How many lines to begin with: 0 to 200
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=200))]
    lines: u32,
    /// Print JSON, one object in each line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgument,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Journal {
    records: Vec<Value>,
    version: u64,
    next_after: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    sessions: Vec<Value>,
    next_cursor: Option<String>,
}

impl SessionsCommand {
    /// Does it, and prints what it found.
    ///
    /// # Errors
    /// See [`ServerCommandError`].
    pub fn run(&self, out: &mut impl Write) -> Result<ExitCode, ServerCommandError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServerCommandError::System)?;
        let done = runtime.block_on(async {
            match self {
                Self::Show(show) => show.run(out).await,
                Self::Tail(tail) => tail.run(out).await,
            }
        });
        match done {
            // Whoever reads it has had enough.
            Err(ServerCommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                Ok(ExitCode::SUCCESS)
            }
            done => done.map(|()| ExitCode::SUCCESS),
        }
    }
}

impl Show {
    async fn run(&self, out: &mut impl Write) -> Result<(), ServerCommandError> {
        let client = self.server.client("support", "sessions:read", "")?;
        let session: Value = get(&client, &path_of(&self.id)).await?;
        let mut records = Vec::new();
        let mut after = Some(0);
        while let Some(from) = after {
            let part = journal(&client, &self.id, from, RECORDS).await?;
            records.extend(part.records);
            after = part.next_after;
        }
        if self.json {
            let both = json!({ "session": session, "records": records });
            writeln!(out, "{both:#}")?;
            return Ok(());
        }
        let read: Session = serde_json::from_value(session).map_err(|_| client.stranger(StatusCode::OK))?;
        out.write_all(summary(&read).as_bytes())?;
        writeln!(out)?;
        let mut before = None;
        for record in &records {
            writeln!(out, "{}", line(record, &mut before))?;
        }
        Ok(())
    }
}

impl Tail {
    async fn run(&self, out: &mut impl Write) -> Result<(), ServerCommandError> {
        let client = self.server.client("support", "sessions:read", "")?;
        match &self.id {
            Some(id) => self.one(&client, id, out).await,
            None => self.all(&client, out).await,
        }
    }

    async fn one(&self, client: &RestClient, id: &SessionId, out: &mut impl Write) -> Result<(), ServerCommandError> {
        let version = journal(client, id, 0, 1).await?.version;
        let mut after = version.saturating_sub(u64::from(self.lines));
        let mut before = None;
        let mut is_away = false;
        loop {
            match journal(client, id, after, RECORDS).await {
                Ok(part) => {
                    is_away = false;
                    for record in &part.records {
                        after = after.max(record["version"].as_u64().unwrap_or(after));
                        let text = if self.json { record.to_string() } else { line(record, &mut before) };
                        writeln!(out, "{text}")?;
                    }
                    // Holes that an erasure has left are passed.
                    after = part.next_after.unwrap_or(after).max(after);
                    if part.next_after.is_some() && !part.records.is_empty() {
                        continue;
                    }
                }
                Err(error) => self.bear(error, &mut is_away)?,
            }
            if !self.follow {
                return Ok(());
            }
            out.flush()?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn all(&self, client: &RestClient, out: &mut impl Write) -> Result<(), ServerCommandError> {
        let first: List = get(client, &format!("/v1/sessions?limit={}", self.lines.max(1))).await?;
        let mut shown = HashMap::new();
        let mut since = String::new();
        self.print_new(first.sessions, self.lines as usize, &mut shown, &mut since, out)?;
        if !self.follow {
            return Ok(());
        }
        let mut is_away = false;
        loop {
            out.flush()?;
            tokio::time::sleep(LOOK_EVERY).await;
            match changed_since(client, &since).await {
                Ok(sessions) => {
                    is_away = false;
                    self.print_new(sessions, usize::MAX, &mut shown, &mut since, out)?;
                }
                Err(error) => self.bear(error, &mut is_away)?,
            }
        }
    }

    /// Prints those whose version was not printed yet, in the order of their latest changes.
    fn print_new(
        &self,
        mut sessions: Vec<Value>,
        most: usize,
        shown: &mut HashMap<String, u64>,
        since: &mut String,
        out: &mut impl Write,
    ) -> io::Result<()> {
        sessions.sort_by(|one, other| one["updatedAt"].as_str().cmp(&other["updatedAt"].as_str()));
        let mut latest = HashMap::new();
        for session in &sessions {
            let (id, version) = (session["id"].as_str().unwrap_or_default(), session["version"].as_u64().unwrap_or(0));
            if let Some(changed) = session["updatedAt"].as_str().filter(|changed| *changed >= since.as_str()) {
                if *changed > *since.as_str() {
                    changed.clone_into(since);
                }
                latest.insert(id.to_owned(), version);
            }
            if most > 0 && shown.get(id) != Some(&version) {
                writeln!(out, "{}", if self.json { session.to_string() } else { overview(session) })?;
            }
        }
        // Only what changed in the latest moment can come again.
        shown.extend(latest);
        if shown.len() > 4 * SESSIONS as usize {
            shown.clear();
        }
        Ok(())
    }

    /// A server that is away is asked again by whoever follows; that is told once.
    fn bear(&self, error: RestError, is_away: &mut bool) -> Result<(), RestError> {
        let is_passing = match &error {
            RestError::Unreachable { .. } | RestError::Ended { .. } | RestError::Silent { .. } => true,
            RestError::Refused(problem) => problem.mendable_by.as_deref() == Some("retry"),
            _ => false,
        };
        if !self.follow || !is_passing {
            return Err(error);
        }
        if !std::mem::replace(is_away, true) {
            eprintln!("warning: {error}; asking again");
        }
        Ok(())
    }
}

/// The sessions that were changed at this time or later.
async fn changed_since(client: &RestClient, since: &str) -> Result<Vec<Value>, RestError> {
    let since: String = byte_serialize(since.as_bytes()).collect();
    let filter = if since.is_empty() { String::new() } else { format!("&updatedAfter={since}") };
    let mut sessions = Vec::new();
    let mut cursor = String::new();
    loop {
        let part: List = get(client, &format!("/v1/sessions?limit={SESSIONS}{filter}{cursor}")).await?;
        sessions.extend(part.sessions);
        match part.next_cursor.filter(|_| !filter.is_empty()) {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(sessions),
        }
    }
}

fn path_of(id: &SessionId) -> String {
    let id: String = byte_serialize(id.as_str().as_bytes()).collect();
    format!("/v1/sessions/{id}")
}

async fn journal(client: &RestClient, id: &SessionId, after: u64, limit: u32) -> Result<Journal, RestError> {
    get(client, &format!("{}/events?after={after}&limit={limit}", path_of(id))).await
}

async fn get<T: DeserializeOwned>(client: &RestClient, path: &str) -> Result<T, RestError> {
    let answer = client.ask(Method::GET, path, None, "application/json").await?;
    serde_json::from_slice(&answer).map_err(|_| client.stranger(StatusCode::OK))
}

/// Where a session stands, without what its buyer has typed.
fn summary(session: &Session) -> String {
    let mut text = format!("{}\n", session.id);
    let mut row = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "  {name:<10}{value}");
    };
    row("status", &session.status.as_str());
    row("step", &session.current_step);
    row("version", &session.version);
    row("amount", &format!("{} {}, in minor units", session.amount, session.currency));
    row("products", &session.products.len());
    row("offers", &session.upsells.len());
    row("funnel", &format!("{}, version {}", session.funnel.id, session.funnel.version));
    row("created", &session.created_at);
    row("changed", &session.updated_at);
    row("ends", &session.expires_at);
    text
}

/// One session in one line.
fn overview(session: &Value) -> String {
    let text = |name: &str| session[name].as_str().unwrap_or("-");
    let (changed, id, status, step) = (text("updatedAt"), text("id"), text("status"), text("currentStep"));
    format!("{changed}  {status:<10}  {step:<16}  {:>5}  {id}", session["version"].as_u64().unwrap_or(0))
}

/// What of an event is shown: names of the shop and numbers, nothing that a buyer has typed.
const SHOWN: [&str; 9] = ["step", "offer", "product", "amount", "price", "currency", "source", "expiresAt", "closesAt"];

/// One record in one line, with the time since the one before.
fn line(record: &Value, before: &mut Option<Timestamp>) -> String {
    let event = &record["event"];
    let at: Option<Timestamp> = serde_json::from_value(record["at"].clone()).ok();
    let since = at.zip(*before).map(|(at, before)| {
        humantime::format_duration(Duration::from_millis(u64::try_from(at.since(before).as_millis()).unwrap_or(0)))
    });
    *before = at.or(*before);
    let mut details = Vec::new();
    let rejection = &event["rejection"];
    for (name, value) in SHOWN.iter().map(|name| (*name, &event[*name])).chain([("rejected", &rejection["code"])]) {
        match value {
            Value::String(text) => details.push(format!("{name}={text}")),
            Value::Number(number) => details.push(format!("{name}={number}")),
            _ => {}
        }
    }
    let since = since.map_or_else(String::new, |since| format!("+{since}"));
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    format!(
        "{:>5}  {}  {since:>14}  {:<8}  {:<22}  {}",
        record["version"].as_u64().unwrap_or(0),
        text(&record["at"]),
        text(&record["by"]),
        text(&event["type"]),
        details.join(" ")
    )
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_without_what_the_buyer_has_typed() {
        let mut before = None;
        let email = json!({ "version": 2, "at": "2026-11-20T09:00:00.006Z", "by": "browser",
            "event": { "type": "emailSet", "email": "ada@example.com" } });
        let line_of = line(&email, &mut before);
        assert!(line_of.contains("emailSet") && !line_of.contains("ada"), "{line_of}");
        let step = json!({ "version": 3, "at": "2026-11-20T09:00:01.506Z", "by": "browser",
            "event": { "type": "stepEntered", "step": "payment" } });
        let line_of = line(&step, &mut before);
        assert!(line_of.ends_with("step=payment") && line_of.contains("+1s 500ms"), "{line_of}");
        let refused = json!({ "version": 4, "at": "2026-11-20T09:00:01.506Z", "by": "browser",
            "event": { "type": "commandRejected", "rejection": { "code": "fieldsMissing", "message": "ada" } } });
        assert!(line(&refused, &mut before).ends_with("rejected=fieldsMissing"));
    }
}
