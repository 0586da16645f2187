//! Whether a fleet has kept what it promised, once everything works again.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::buyer::{Identity, Told};
use crate::fleet::{Fleet, Node};

/// How long tiers and servers may take to agree after everything works again.
const CONVERGENCE: Duration = Duration::from_secs(5);

/// What became of all changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Changes that some server accepted.
    pub acknowledged: u64,
    /// Those of them that are not in the journal, nor were refused later.
    pub lost: u64,
    /// Changes that took effect more than once.
    pub doubled: u64,
    /// Sessions of which two servers have different states, or whose versions are not 1, 2, 3… up to that of the state.
    pub diverged: u64,
    /// Times that a client was told of less than what it had been told to be durable.
    pub went_back: u64,
}

impl Outcome {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        let Self { acknowledged: _, lost, doubled, diverged, went_back } = *self;
        lost == 0 && doubled == 0 && diverged == 0 && went_back == 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, lost, doubled, diverged, went_back } = self;
        write!(
            f,
            "acknowledged {acknowledged}, lost {lost}, doubled {doubled}, diverged {diverged}, went back {went_back}"
        )
    }
}

impl std::ops::AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.diverged += other.diverged;
        self.went_back += other.went_back;
    }
}

async fn get(fleet: &Fleet, node: &Node, path: &str) -> Result<Value, String> {
    let request = reqwest::Client::new().get(format!("http://{}{path}", node.address)).bearer_auth(&fleet.service_key);
    let answer = request.send().await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = answer.json::<Value>().await.map_err(|error| error.to_string())?;
    if status.is_success() { Ok(body) } else { Err(format!("{status}: {body}")) }
}

/// The session as a server has it.
///
/// # Errors
/// When it does not answer, or has none.
pub async fn session(fleet: &Fleet, node: &Node, id: &str) -> Result<Value, String> {
    get(fleet, node, &format!("/v1/sessions/{id}")).await
}

/// All records of a session.
///
/// # Errors
/// When the server does not answer.
pub async fn journal(fleet: &Fleet, node: &Node, id: &str) -> Result<Vec<Value>, String> {
    let mut records = Vec::new();
    let mut after = 0;
    loop {
        let page = get(fleet, node, &format!("/v1/sessions/{id}/events?after={after}&limit=500")).await?;
        records.extend(page["records"].as_array().cloned().unwrap_or_default());
        match page["nextAfter"].as_u64() {
            Some(next) => after = next,
            None => return Ok(records),
        }
    }
}

/// Compares what the clients of one session were told with what the database and all servers have.
///
/// # Errors
/// When the servers can't be asked.
pub async fn check(fleet: &Fleet, nodes: &[&Node], clients: &[(Identity, Told)]) -> Result<Outcome, String> {
    let id = clients.first().map(|(identity, _)| identity.session_id.clone()).ok_or("nobody was there")?;
    let (is_agreed, records) = agree(fleet, nodes, &id).await?;
    let mut outcome = Outcome { diverged: u64::from(!is_agreed), ..Outcome::default() };
    let mut times: BTreeMap<String, u64> = BTreeMap::new();
    for (index, record) in records.iter().enumerate() {
        if record["version"].as_u64() != Some(index as u64 + 1) {
            outcome.diverged = 1;
        }
        if let Some(change) = record["event"]["metadata"]["change"].as_str() {
            *times.entry(change.to_owned()).or_default() += 1;
        }
    }
    for (identity, told) in clients {
        outcome.acknowledged += told.accepted.len() as u64;
        outcome.went_back += told.went_back;
        for change in told.accepted.union(&told.durable) {
            let count = times.get(&format!("{}-{change}", identity.client_id)).copied().unwrap_or(0);
            // A command that lost against another history may be refused on it, and its client is told so.
            outcome.lost += u64::from(count == 0 && !told.rejected.contains(change));
        }
    }
    outcome.doubled = times.values().filter(|times| **times > 1).count() as u64;
    Ok(outcome)
}

/// Whether all servers come to have the same, which is what the database's journal leads to; and that journal.
async fn agree(fleet: &Fleet, nodes: &[&Node], id: &str) -> Result<(bool, Vec<Value>), String> {
    let first = *nodes.first().ok_or("there is no server")?;
    let deadline = Instant::now() + CONVERGENCE;
    loop {
        let mut states = Vec::new();
        for node in nodes {
            states.push(session(fleet, node, id).await?);
        }
        let is_over = Instant::now() >= deadline;
        let is_same = states.windows(2).all(|pair| pair[0] == pair[1]);
        if is_same || is_over {
            let records = journal(fleet, first, id).await?;
            // What was accepted a moment ago may still be on its way to the database.
            let is_agreed = is_same && states[0]["version"].as_u64() == Some(records.len() as u64);
            if is_agreed || is_over {
                return Ok((is_agreed, records));
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
