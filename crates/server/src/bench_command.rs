//! `throughline bench`: how fast a server that runs is, from here.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::progress::Progress;
use crate::rest_client::{KeptConnection, RestClient, RestError};
use crate::server_argument::{ServerArgument, ServerArgumentError};

pub(crate) const EXAMPLES: &str = "\
Each client begins a session, changes it and reads it, as a shop's back end does, and begins again. The sessions stay; they end as any
others do. A service key with the scopes sessions:read and sessions:write is needed, and limits of its rate count. It ends with 0 if
every request was answered as it should be, and with 3 if not.

Only a server on this machine is asked, unless --i-own-this-server says that the other one is yours to load.

Examples:
  throughline bench --server http://127.0.0.1:8787 --service-key-file key
  throughline bench --server http://127.0.0.1:8787 --clients 64 --seconds 30 --json | jq '.operations[] | {name, p99Ms}'";

/// With what it ends where a request was not answered as it should be.
const FAILED: u8 = 3;

/// Changes and reads of one session.
const ROUNDS: usize = 4;

/// How often the bar moves.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What each client does in its turn.
const OPERATIONS: [&str; 3] = ["create", "change", "read"];

/// How much, and for how long.
#[derive(Debug, Args)]
pub struct BenchCommand {
    #[command(flatten)]
    server: ServerArgument,
    /// How many clients ask at a time, each over a connection of its own: 1 to 256
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    clients: u16,
    /// For how many seconds: 1 to 300
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=300))]
    seconds: u16,
    /// How many requests at most: 1 to 5000000
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=5_000_000))]
    requests: u64,
    /// The server is not on this machine, and I may load it
    #[arg(long)]
    i_own_this_server: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// It is somebody else's, perhaps.
    #[error("{server} is not on this machine; with --i-own-this-server it is loaded all the same")]
    NotHere {
        /// Which server.
        server: String,
    },
    /// No server can be asked.
    #[error(transparent)]
    Server(#[from] ServerArgumentError),
    /// The server does not answer, or not as one that can be measured.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// The outcome can't be printed.
    #[error("the outcome cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// Nothing can be printed.
    #[error("standard output cannot be written to")]
    Output(#[from] io::Error),
    /// The operating system.
    #[error("the operating system did not let the command run")]
    System(#[source] io::Error),
}

/// What one client saw.
#[derive(Debug, Default)]
struct Seen {
    /// For each operation, how long each request took, in microseconds.
    took: [Vec<u32>; OPERATIONS.len()],
    failed: [u64; OPERATIONS.len()],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    seconds: f64,
    clients: u16,
    requests: u64,
    failed: u64,
    requests_per_second: f64,
    operations: Vec<Operation>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    name: &'static str,
    requests: usize,
    failed: u64,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    longest_ms: f64,
}

impl BenchCommand {
    /// Does it, and prints what it measured.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn run(&self, out: &mut impl Write) -> Result<ExitCode, BenchError> {
        let client = self.server.client("bench", "sessions:write", "")?;
        if !client.server().is_loopback() && !self.i_own_this_server {
            return Err(BenchError::NotHere { server: client.server().to_string() });
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(BenchError::System)?;
        let outcome = runtime.block_on(self.measure(client))?;
        let text = if self.json { serde_json::to_string_pretty(&outcome)? + "\n" } else { outcome.text() };
        out.write_all(text.as_bytes())?;
        Ok(if outcome.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
    }

    async fn measure(&self, client: RestClient) -> Result<Outcome, BenchError> {
        // What is wrong with the server, or the key, is told as other commands tell it.
        client.post("/v1/sessions", &new_session(), "application/json").await?;
        let (client, left) = (Arc::new(client), Arc::new(AtomicU64::new(self.requests)));
        let (begun, limit) = (Instant::now(), Duration::from_secs(self.seconds.into()));
        let mut clients = JoinSet::new();
        for _ in 0..self.clients {
            let (client, left) = (Arc::clone(&client), Arc::clone(&left));
            clients.spawn(async move { ask_on(&client, begun + limit, &left).await });
        }
        let mut progress = Progress::of(self.seconds.into(), begun);
        let mut seen = Vec::new();
        loop {
            match tokio::time::timeout(LOOK_EVERY, clients.join_next()).await {
                // One that panicked has nothing to tell.
                Ok(Some(joined)) => seen.extend(joined.ok()),
                Ok(None) => break,
                Err(_) => progress.reach(begun.elapsed().as_secs().min(self.seconds.into()), 0),
            }
        }
        progress.end();
        Ok(Outcome::of(seen, self.clients, begun.elapsed()))
    }
}

/// Asks until the time is over or no request is left.
async fn ask_on(client: &RestClient, until: Instant, left: &AtomicU64) -> Seen {
    let mut seen = Seen::default();
    let mut connection = None;
    let mut session: Option<String> = None;
    let mut turn = 0;
    let is_left = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    while Instant::now() < until && is_left() {
        let id = session.clone();
        let (operation, method, path, body) = match (id, turn % (2 * ROUNDS + 1)) {
            (Some(id), turn @ 1..) if turn % 2 == 1 => {
                let commands = json!({ "commands": [{ "type": "setMetadata", "metadata": { "bench": turn } }] });
                (1, Method::POST, format!("/v1/sessions/{id}/commands"), Some(commands))
            }
            (Some(id), 1..) => (2, Method::GET, format!("/v1/sessions/{id}"), None),
            _ => (0, Method::POST, "/v1/sessions".to_owned(), Some(new_session())),
        };
        let begun = Instant::now();
        let answer = ask(client, &mut connection, until, (method, &path, body.as_ref())).await;
        let micros = u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
        match answer {
            Some((status, body)) if status.is_success() => {
                seen.took[operation].push(micros);
                if operation == 0 {
                    session = body["session"]["id"].as_str().map(str::to_owned);
                    turn = 0;
                }
                turn += 1;
            }
            _ => {
                seen.failed[operation] += 1;
                session = None;
            }
        }
    }
    seen
}

/// The answer; nothing where there is none before the time is over, and then the connection is not used again.
async fn ask(
    client: &RestClient,
    kept: &mut Option<KeptConnection>,
    until: Instant,
    (method, path, body): (Method, &str, Option<&Value>),
) -> Option<(StatusCode, Value)> {
    // One that began in time is waited for a little longer.
    let limit = (until + Duration::from_secs(10)).into();
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => tokio::time::timeout_at(limit, client.keep()).await.ok()?.ok()?,
    };
    let answer = tokio::time::timeout_at(limit, client.ask_on(&mut connection, method, path, body)).await.ok()?.ok()?;
    *kept = Some(connection);
    Some((answer.0, serde_json::from_slice(&answer.1).unwrap_or_default()))
}

fn new_session() -> Value {
    json!({ "metadata": { "bench": 0 } })
}

impl Outcome {
    fn of(seen: Vec<Seen>, clients: u16, took: Duration) -> Self {
        let mut operations = Vec::new();
        for (place, name) in OPERATIONS.into_iter().enumerate() {
            let mut all: Vec<u32> = seen.iter().flat_map(|seen| seen.took[place].iter().copied()).collect();
            all.sort_unstable();
            let failed = seen.iter().map(|seen| seen.failed[place]).sum();
            operations.push(Operation {
                name,
                requests: all.len(),
                failed,
                p50_ms: percentile(&all, 50),
                p95_ms: percentile(&all, 95),
                p99_ms: percentile(&all, 99),
                longest_ms: percentile(&all, 100),
            });
        }
        let requests = operations.iter().map(|operation| operation.requests as u64).sum();
        let failed = operations.iter().map(|operation| operation.failed).sum();
        let seconds = took.as_secs_f64();
        let requests_per_second = (requests as f64 / seconds.max(0.001) * 10.0).round() / 10.0;
        Self { seconds, clients, requests, failed, requests_per_second, operations }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{} requests by {} clients in {:.1} s: {} a second, {} failed\n\n{:<8}{:>10}{:>8}{:>10}{:>10}{:>10}{:>12}\n",
            self.requests,
            self.clients,
            self.seconds,
            self.requests_per_second,
            self.failed,
            "",
            "requests",
            "failed",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "longest ms",
        );
        for Operation { name, requests, failed, p50_ms, p95_ms, p99_ms, longest_ms } in &self.operations {
            // Writing to a `String` cannot fail.
            let _ = writeln!(
                text,
                "{name:<8}{requests:>10}{failed:>8}{p50_ms:>10.2}{p95_ms:>10.2}{p99_ms:>10.2}{longest_ms:>12.2}"
            );
        }
        text
    }
}

/// The time within which so many of a hundred were answered, in milliseconds; 0 where there was none.
fn percentile(sorted: &[u32], hundredths: usize) -> f64 {
    let rank = (sorted.len() * hundredths).div_ceil(100).saturating_sub(1);
    sorted.get(rank).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let sorted: Vec<u32> = (1..=200).map(|number| number * 1000).collect();
        assert_eq!([50, 95, 99, 100].map(|part| percentile(&sorted, part)), [100.0, 190.0, 198.0, 200.0]);
        assert_eq!((percentile(&[7000], 50), percentile(&[], 99)), (7.0, 0.0));
    }
}
