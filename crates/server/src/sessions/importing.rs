//! Sessions of the legacy systems, written into the database by a process that hosts none.
//!
//! Servers that run hear of it from the database, as of each other's commits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use throughline_core::legacy::{Adoption, LegacySession, Note, adopt};
use throughline_core::sync::{Commit, Funnels as _};
use throughline_core::{Context, Event, FunnelChoice, FunnelId, Record, Role, State, Timestamp, evolve};

use super::stored::{Told, Unreadable, append, current_cipher, email_digest, new_cipher, open_session, unreadable};
use crate::audit::{AuditEntry, AuditRecord};
use crate::email_lookup::EmailLookup;
use crate::funnels::FunnelLibrary;
use crate::keys::KeyRing;
use crate::store::{CommitError, ReadError, SessionKey, Store};
use crate::tenant::TenantId;

/// How often a session is tried again that somebody else changes at the same time.
const TRIES: usize = 5;

/// How long a database that does not answer is waited for: nobody waits for an import as for a page.
const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_secs(1);

/// Brings sessions into a database.
#[derive(Debug)]
pub(crate) struct SessionImporter {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: KeyRing,
    pub(crate) funnels: FunnelLibrary,
    pub(crate) tenant: TenantId,
    /// The funnel of new sessions; the newest version of `default` where missing.
    pub(crate) funnel: Option<FunnelChoice>,
    /// Whether nothing is to be written.
    pub(crate) dry_run: bool,
}

/// What became of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Imported {
    pub(crate) outcome: ImportOutcome,
    pub(crate) notes: Vec<Note>,
}

/// What happened to the session here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ImportOutcome {
    /// It began.
    Created,
    /// It was there, and took over what it did not have.
    Updated,
    /// It was so already.
    Unchanged,
}

/// Why a session was not brought in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    #[error("there is no funnel {id}{}; give the folder with its definition (--funnels), or another one (--funnel)", version.map(|version| format!(" version {version}")).unwrap_or_default())]
    NoFunnel { id: String, version: Option<u32> },
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl SessionImporter {
    /// The key under which a session with this id is stored.
    pub(crate) fn key(&self, legacy: &LegacySession) -> SessionKey {
        SessionKey { tenant: self.tenant.clone(), session_id: legacy.id.to_string() }
    }

    /// The versions of those that the database has.
    pub(crate) async fn versions(&self, keys: &[SessionKey]) -> Result<Vec<Option<u64>>, ReadError> {
        let begun = Instant::now();
        loop {
            match self.store.versions(keys).await {
                Err(ReadError::Overloaded { retry_after }) => tokio::time::sleep(retry_after).await,
                Err(ReadError::Unavailable { .. }) if begun.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
                other => return other,
            }
        }
    }

    /// Brings one session in. `is_known`: the database has one under this id.
    pub(crate) async fn import(
        &self,
        legacy: &LegacySession,
        mut is_known: bool,
        now_ms: i64,
    ) -> Result<Imported, ImportError> {
        let key = self.key(legacy);
        let mut tries = TRIES;
        let begun = Instant::now();
        loop {
            match self.try_import(&key, legacy, is_known, now_ms).await {
                Err(ImportError::Commit(CommitError::Conflict { .. })) if tries > 0 => {
                    tries -= 1;
                    is_known = true;
                }
                Err(ImportError::Commit(CommitError::Overloaded { retry_after }))
                | Err(ImportError::Read(ReadError::Overloaded { retry_after })) => {
                    tokio::time::sleep(retry_after).await
                }
                // What became of it is not known. To bring it in again changes nothing.
                Err(
                    ImportError::Commit(CommitError::Unavailable { .. })
                    | ImportError::Read(ReadError::Unavailable { .. }),
                ) if begun.elapsed() < PATIENCE => {
                    is_known = true;
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }

    async fn try_import(
        &self,
        key: &SessionKey,
        legacy: &LegacySession,
        is_known: bool,
        now_ms: i64,
    ) -> Result<Imported, ImportError> {
        let stored = if is_known { self.store.load(key).await? } else { None };
        let current = stored.map(|stored| open_session(key, stored, &self.keys)).transpose()?;
        let (state, cipher) = current.unzip();
        let pinned = state.as_ref().map(|state| (state.session.funnel.id.clone(), Some(state.session.funnel.version)));
        let chosen = self.funnel.as_ref().map(|choice| (choice.id.clone(), choice.version));
        let (id, version) = match pinned.or(chosen) {
            Some((id, version)) => (id.to_string(), version),
            None => (FunnelId::DEFAULT.to_owned(), None),
        };
        let funnel = self.funnels.find(&id, version).ok_or(ImportError::NoFunnel { id, version })?.funnel;
        let now = Timestamp::from_millis(now_ms);
        let context = Context { now, funnel, session_id: &legacy.id, epoch: fastrand::u64(1..1 << 53), claim: None };
        let Adoption { events, notes } = adopt(legacy, state.as_ref(), &context);
        let outcome = match (&state, events.is_empty()) {
            (_, true) => ImportOutcome::Unchanged,
            (None, false) => ImportOutcome::Created,
            (Some(_), false) => ImportOutcome::Updated,
        };
        if outcome != ImportOutcome::Unchanged && !self.dry_run {
            let cipher = match cipher {
                Some(cipher) => current_cipher(Some(&cipher), &self.keys, now_ms)?,
                None => new_cipher(key, &self.keys, now_ms)?,
            };
            if let Some(commit) = commit_of(state, events) {
                let digest = email_digest(key, &commit.state, &EmailLookup::new(self.keys.clone()), now_ms);
                let entry = AuditEntry {
                    session: Some(key.session_id.clone()),
                    version: Some(commit.state.version()),
                    ..AuditEntry::done(key.tenant.clone(), "imported", now_ms)
                };
                let entry = entry.by(Role::Operator.as_str(), Default::default());
                let audit = AuditRecord::new(&entry, &self.keys, now_ms).map_err(unreadable("audit record"))?;
                // Other systems are not told: what comes in has happened long ago, and not here.
                let told = Told { audit: vec![audit], events: Vec::new() };
                let change = append(key, &commit, &cipher, digest, told, outcome == ImportOutcome::Updated)?;
                self.store.commit(change).await?;
            }
        }
        Ok(Imported { outcome, notes })
    }
}

/// What is written for these events.
fn commit_of(mut state: Option<State>, events: Vec<(Timestamp, Event)>) -> Option<Commit> {
    let expected_version = state.as_ref().map_or(0, State::version);
    let before = state.clone().map(Arc::new);
    let mut records = Vec::with_capacity(events.len());
    for ((at, event), version) in events.into_iter().zip(expected_version + 1..) {
        let record = Record { version, at, by: Role::Operator, origin: None, caller: None, event };
        state = evolve(state, &record);
        records.push(record);
    }
    Some(Commit { expected_version, before, records, commands: Vec::new(), state: Arc::new(state?), told: None })
}
