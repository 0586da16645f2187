//! Sessions and records as the database and the shared tier have them: JSON in opaque, encrypted blobs, beside columns
//! without personal data. All of a session that leaves this process for another tier passes through here.

use std::error::Error;
use std::sync::Arc;

use throughline_core::sync::{Commit, News, TailEntry};
use throughline_core::{LifecycleEvent, Record, Role, SessionId, State, Status, Timestamp, lifecycle_events};

use crate::audit::{self, AuditEntry, AuditRecord};
use crate::email_lookup::EmailLookup;
use crate::encryption::{NotAuthentic, Part, SessionCipher, WrappedKey};
use crate::keys::KeyRing;
use crate::store::{Append, Deleted, JournalRecord, Operational, OutboxEvent, SessionKey, Stored};

/// The store has something under a session's key that this version of the server can't read, or something can't be written.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "a session's {what} can't be read or written; it is of another version, encrypted with another key, or damaged"
)]
pub struct Unreadable {
    what: &'static str,
    #[source]
    cause: Arc<dyn Error + Send + Sync>,
}

impl Unreadable {
    /// Whether it was encrypted with another key than the one that is held for the session: it may have a new one since.
    pub(super) fn is_of_another_key(&self) -> bool {
        self.cause.is::<NotAuthentic>()
    }
}

pub(super) fn unreadable<E: Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> Unreadable {
    move |cause| Unreadable { what, cause: Arc::new(cause) }
}

/// A stored session, and the cipher that its data key makes.
pub(super) fn open_session(
    key: &SessionKey,
    stored: Stored,
    keys: &KeyRing,
) -> Result<(State, Arc<SessionCipher>), Unreadable> {
    let Stored { version, state, data_key } = stored;
    let cipher = SessionCipher::unwrap(key, keys, data_key).map_err(unreadable("data key"))?;
    let json = cipher.open(Part::State(version), &state).map_err(unreadable("state"))?;
    let state = serde_json::from_slice(&json).map_err(unreadable("state"))?;
    Ok((state, Arc::new(cipher)))
}

/// A new data key for a session: at its beginning, and when it is erased.
pub(super) fn new_cipher(key: &SessionKey, keys: &KeyRing, now_ms: i64) -> Result<Arc<SessionCipher>, Unreadable> {
    SessionCipher::generate(key, keys, now_ms).map(Arc::new).map_err(unreadable("data key"))
}

/// The cipher of a session that exists, its data key wrapped by the root key that is used for what is new.
pub(super) fn current_cipher(
    known: Option<&SessionCipher>,
    keys: &KeyRing,
    now_ms: i64,
) -> Result<Arc<SessionCipher>, Unreadable> {
    // Whoever changes a session has read it, and with it its data key.
    let cipher = known.ok_or(NotAuthentic).map_err(unreadable("data key"))?;
    cipher.renewed(keys, now_ms).map(Arc::new).map_err(unreadable("data key"))
}

/// The record in a journal entry; `None` where erasure has emptied it.
pub(super) fn read_record(record: &JournalRecord, cipher: &SessionCipher) -> Result<Option<Record>, Unreadable> {
    if record.blob.is_empty() {
        return Ok(None);
    }
    let json = cipher.open(Part::Record(record.version), &record.blob).map_err(unreadable("record"))?;
    serde_json::from_slice(&json).map(Some).map_err(unreadable("record"))
}

/// How long the parts of a snapshot are that come before its state: the root key's public name, and the data key.
const NAME: usize = 16;
const DATA_KEY: usize = 32 + crate::encryption::OVERHEAD;

/// A state as the shared tier has it: with its data key, which is wrapped as in the database.
pub(super) fn write_snapshot(state: &State, cipher: &SessionCipher) -> Result<Vec<u8>, Unreadable> {
    let json = serde_json::to_vec(state).map_err(unreadable("state"))?;
    let sealed = cipher.seal(Part::State(state.version()), &json).map_err(unreadable("state"))?;
    let WrappedKey { root_key_id, sealed: data_key } = cipher.wrapped();
    if (root_key_id.len(), data_key.len()) != (NAME, DATA_KEY) {
        return Err(unreadable("data key")(NotAuthentic));
    }
    Ok([root_key_id.as_bytes(), data_key, &sealed].concat())
}

/// The state in the shared tier, and the cipher that its data key makes.
pub(super) fn read_snapshot(
    key: &SessionKey,
    version: u64,
    snapshot: &[u8],
    keys: &KeyRing,
) -> Result<(State, Arc<SessionCipher>), Unreadable> {
    let parts = snapshot.split_at_checked(NAME).and_then(|(name, rest)| {
        let (data_key, state) = rest.split_at_checked(DATA_KEY)?;
        Some((std::str::from_utf8(name).ok()?, data_key, state))
    });
    let (name, data_key, state) = parts.ok_or(NotAuthentic).map_err(unreadable("state"))?;
    let data_key = WrappedKey { root_key_id: name.to_owned(), sealed: data_key.to_vec() };
    open_session(key, Stored { version, state: state.to_vec(), data_key }, keys)
}

/// A session as `role` may see it.
pub(super) fn write_session(state: &State, role: Role) -> Result<Vec<u8>, Unreadable> {
    let visible = state.session.clone().project(role);
    serde_json::to_vec(&visible).map_err(unreadable("session"))
}

/// Accepted commands that lead to `version`, as the shared tier has them.
pub(super) fn write_entries(
    entries: &[TailEntry],
    version: u64,
    cipher: &SessionCipher,
) -> Result<Vec<u8>, Unreadable> {
    let json = serde_json::to_vec(entries).map_err(unreadable("tail"))?;
    cipher.seal(Part::Tail(version), &json).map_err(unreadable("tail"))
}

/// The accepted commands in the shared tier that lead to `version`.
pub(super) fn read_entries(entries: &[u8], version: u64, cipher: &SessionCipher) -> Result<Vec<TailEntry>, Unreadable> {
    let json = cipher.open(Part::Tail(version), entries).map_err(unreadable("tail"))?;
    serde_json::from_slice(&json).map_err(unreadable("tail"))
}

/// What other servers are told.
pub(super) fn write_news(news: &News, cipher: &SessionCipher) -> Result<Vec<u8>, Unreadable> {
    let json = serde_json::to_vec(news).map_err(unreadable("news"))?;
    cipher.seal(Part::News, &json).map_err(unreadable("news"))
}

/// What another server has told.
pub(super) fn read_news(news: &[u8], cipher: &SessionCipher) -> Result<News, Unreadable> {
    let json = cipher.open(Part::News, news).map_err(unreadable("news"))?;
    serde_json::from_slice(&json).map_err(unreadable("news"))
}

/// The hash under which a session is found by its email address.
pub(super) fn email_digest(
    key: &SessionKey,
    state: &State,
    email_lookup: &EmailLookup,
    now_ms: i64,
) -> Option<Vec<u8>> {
    let email = state.session.email.as_ref()?;
    Some(email_lookup.digest(&key.tenant, email.as_str(), now_ms))
}

/// What is told of a commit beside what it changes.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// By the audit log.
    pub(super) audit: Vec<AuditRecord>,
    /// To other systems.
    pub(super) events: Vec<OutboxEvent>,
}

/// What the audit log says of a commit.
pub(super) fn audit_records(
    key: &SessionKey,
    commit: &Commit,
    keys: &KeyRing,
    now_ms: i64,
) -> Result<Vec<AuditRecord>, Unreadable> {
    let entries = audit::entries_of(key, commit).into_iter();
    entries.map(|entry| AuditRecord::new(&entry, keys, now_ms).map_err(unreadable("audit record"))).collect()
}

/// What the audit log says of a session that was kept for long enough.
pub(super) fn deletion_record(session: &Deleted, keys: &KeyRing, now_ms: i64) -> Result<AuditRecord, Unreadable> {
    let SessionKey { tenant, session_id } = session.key.clone();
    let entry = AuditEntry {
        session: Some(session_id),
        version: Some(session.version),
        ..AuditEntry::done(tenant, "deleted", now_ms)
    };
    AuditRecord::new(&entry, keys, now_ms).map_err(unreadable("audit record"))
}

/// What other systems are told of a commit.
pub(super) fn outbox_events(commit: &Commit) -> Result<Vec<OutboxEvent>, Unreadable> {
    lifecycle_events(commit.before.as_deref(), &commit.records).into_iter().map(outbox_event).collect()
}

/// What other systems are told of a session that was kept for long enough.
pub(super) fn deletion_event(session: &Deleted, now_ms: i64) -> Result<OutboxEvent, Unreadable> {
    let id = SessionId::new(session.key.session_id.as_str()).map_err(unreadable("id"))?;
    outbox_event(LifecycleEvent::deleted(id, session.version, Timestamp::from_millis(now_ms)))
}

fn outbox_event(event: LifecycleEvent) -> Result<OutboxEvent, Unreadable> {
    // It has to be no other event's, also where the database is put back to an earlier moment; nobody gains by guessing it.
    let id = format!("evt_{:032x}", fastrand::u128(..));
    let (kind, version, at_ms) = (event.kind, event.data.version, event.timestamp.as_millis());
    let body = serde_json::to_string(&ToldEvent { id: &id, event }).map_err(unreadable("event"))?;
    Ok(OutboxEvent { id, kind, version, at_ms, body })
}

/// What is told, by name.
#[derive(serde::Serialize)]
struct ToldEvent<'a> {
    id: &'a str,
    #[serde(flatten)]
    event: LifecycleEvent,
}

/// What is written for a commit, encrypted by `cipher`, and what is told of it. `announce`: the shared tier can't tell the other servers, so the
/// database has to.
pub(super) fn append(
    key: &SessionKey,
    commit: &Commit,
    cipher: &SessionCipher,
    email_digest: Option<Vec<u8>>,
    told: Told,
    announce: bool,
) -> Result<Append, Unreadable> {
    let state = &*commit.state;
    let session = &state.session;
    // A failed payment may be tried again; until then nothing happens to the session.
    let is_over = matches!(session.status, Status::Completed | Status::Failed | Status::Expired);
    let erased_at = commit.erased_at_version();
    let records = commit.records.iter().map(|record| {
        // What was decided together with an erasure and before it is erased as well.
        if erased_at.is_some_and(|erased_at| record.version < erased_at) {
            return Ok(JournalRecord { version: record.version, blob: Vec::new() });
        }
        let json = serde_json::to_vec(record).map_err(unreadable("record"))?;
        let blob = cipher.seal(Part::Record(record.version), &json).map_err(unreadable("record"))?;
        Ok(JournalRecord { version: record.version, blob })
    });
    let json = serde_json::to_vec(state).map_err(unreadable("state"))?;
    Ok(Append {
        key: key.clone(),
        expected_version: commit.expected_version,
        records: records.collect::<Result<_, Unreadable>>()?,
        state: cipher.seal(Part::State(state.version()), &json).map_err(unreadable("state"))?,
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
            held_until_ms: state.hold.as_ref().map(|hold| hold.until.map_or(i64::MAX, |until| until.as_millis())),
            deadline_at_ms: state.deadline().map(|deadline| deadline.as_millis()),
            erased: state.erased_at.is_some(),
            currency: session.currency.to_string(),
            amount_minor: session.amount.minor(),
            email_digest,
        },
        purge_history: erased_at.is_some(),
        data_key: Box::new(cipher.wrapped().clone()),
        audit: told.audit,
        events: told.events,
        announce,
    })
}
