//! Sessions and records as the database and the shared tier have them: JSON in opaque blobs, beside columns without
//! personal data. All of a session that leaves this process for another tier passes through here.

use throughline_core::sync::{Commit, News, TailEntry};
use throughline_core::{Record, Role, State, Status};

use crate::email_lookup::EmailLookup;
use crate::store::{Append, JournalRecord, Operational, SessionKey, Stored};

/// The store has something under a session's key that this version of the server can't read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("a session's stored {what} can't be read; it was written by another version or is damaged")]
pub struct Unreadable {
    what: &'static str,
    #[source]
    cause: std::sync::Arc<serde_json::Error>,
}

fn unreadable(what: &'static str, cause: serde_json::Error) -> Unreadable {
    Unreadable { what, cause: std::sync::Arc::new(cause) }
}

/// The state in a stored session.
pub(super) fn read_state(stored: &Stored) -> Result<State, Unreadable> {
    serde_json::from_slice(&stored.state).map_err(|error| unreadable("state", error))
}

/// The record in a journal entry; `None` where erasure has emptied it.
///
/// # Errors
/// Where it can't be read.
pub fn read_record(record: &JournalRecord) -> Result<Option<Record>, Unreadable> {
    if record.blob.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&record.blob).map(Some).map_err(|error| unreadable("record", error))
}

/// A state as the shared tier has it.
pub(super) fn write_snapshot(state: &State) -> Result<Vec<u8>, Unreadable> {
    serde_json::to_vec(state).map_err(|error| unreadable("state", error))
}

/// The state in the shared tier.
pub(super) fn read_snapshot(snapshot: &[u8]) -> Result<State, Unreadable> {
    serde_json::from_slice(snapshot).map_err(|error| unreadable("state", error))
}

/// A session as `role` may see it.
pub(super) fn write_session(state: &State, role: Role) -> Result<Vec<u8>, Unreadable> {
    let visible = state.session.clone().project(role);
    serde_json::to_vec(&visible).map_err(|error| unreadable("session", error))
}

/// Accepted commands as the shared tier has them.
pub(super) fn write_entries(entries: &[TailEntry]) -> Result<Vec<u8>, Unreadable> {
    serde_json::to_vec(entries).map_err(|error| unreadable("tail", error))
}

/// The accepted commands in the shared tier.
pub(super) fn read_entries(entries: &[u8]) -> Result<Vec<TailEntry>, Unreadable> {
    serde_json::from_slice(entries).map_err(|error| unreadable("tail", error))
}

/// What other servers are told.
pub(super) fn write_news(news: &News) -> Result<Vec<u8>, Unreadable> {
    serde_json::to_vec(news).map_err(|error| unreadable("news", error))
}

/// What another server has told.
pub(super) fn read_news(news: &[u8]) -> Result<News, Unreadable> {
    serde_json::from_slice(news).map_err(|error| unreadable("news", error))
}

/// What is written for a commit. `announce`: the shared tier can't tell the other servers, so the database has to.
pub(super) fn append(
    key: &SessionKey,
    commit: &Commit,
    email_lookup: Option<&EmailLookup>,
    announce: bool,
) -> Result<Append, Unreadable> {
    let state = &*commit.state;
    let session = &state.session;
    // A failed payment may be tried again; until then nothing happens to the session.
    let is_over = matches!(session.status, Status::Completed | Status::Failed | Status::Expired);
    let erased_at = commit.erased_at_version();
    let records = commit.records.iter().map(|record| {
        // What was decided together with an erasure and before it is erased as well.
        let is_erased = erased_at.is_some_and(|erased_at| record.version < erased_at);
        let blob = if is_erased { Ok(Vec::new()) } else { serde_json::to_vec(record) };
        let blob = blob.map_err(|error| unreadable("record", error))?;
        Ok(JournalRecord { version: record.version, blob })
    });
    Ok(Append {
        key: key.clone(),
        expected_version: commit.expected_version,
        records: records.collect::<Result<_, Unreadable>>()?,
        state: serde_json::to_vec(state).map_err(|error| unreadable("state", error))?,
        columns: Operational {
            status: session.status.as_str().to_owned(),
            step: session.current_step.to_string(),
            funnel_id: session.funnel.id.to_string(),
            funnel_version: session.funnel.version.to_string(),
            created_at_ms: session.created_at.as_millis(),
            updated_at_ms: session.updated_at.as_millis(),
            expires_at_ms: session.expires_at.as_millis(),
            completed_at_ms: session.flow.completed_at.map(|at| at.as_millis()),
            ended_at_ms: is_over.then_some(session.updated_at.as_millis()),
            deadline_at_ms: state.deadline().map(|deadline| deadline.as_millis()),
            erased: state.erased_at.is_some(),
            currency: session.currency.to_string(),
            amount_minor: session.amount.minor(),
            email_digest: email_lookup
                .zip(session.email.as_ref())
                .map(|(lookup, email)| lookup.digest(&key.tenant, email.as_str())),
        },
        purge_history: erased_at.is_some(),
        announce,
    })
}
