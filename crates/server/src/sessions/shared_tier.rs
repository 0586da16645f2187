//! What the sessions in memory and the shared tier tell each other.

use std::sync::Arc;

use bytes::Bytes;
use throughline_core::State;
use throughline_core::sync::{Commit, News, Share, SharedView};
use tracing::Instrument as _;

use super::stored::{Unreadable, read_entries, read_snapshot, write_entries, write_news, write_snapshot};
use crate::encryption::SessionCipher;
use crate::keys::KeyRing;
use crate::problem::chain;
use crate::shared_cache::{self, CacheFault, Loaded, Settle, SharedCache, Vacancy};
use crate::store::SessionKey;
use crate::telemetry::spans;

/// The shared tier, where there is one.
#[derive(Debug)]
pub(super) struct SharedTier {
    cache: Option<Arc<SharedCache>>,
    keys: KeyRing,
}

/// What the shared tier has of a session.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing, or nobody to ask.
    Nothing(Option<Vacancy>),
    /// Something that can't be read: of another release, perhaps, or under a key that is gone.
    Unreadable,
    /// The session.
    Session {
        /// What it has.
        view: Box<SharedView>,
        /// With what it is encrypted.
        cipher: Arc<SessionCipher>,
        /// Whether it was written while this server heard of every change, so that the database need not be asked.
        is_verified: bool,
    },
}

/// What the shared tier says to a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It holds it.
    Taken,
    /// It has another history.
    Conflict,
    /// It lacks what the change builds on, or did not answer.
    Failed,
}

impl SharedTier {
    pub(super) fn new(cache: Option<Arc<SharedCache>>, keys: KeyRing) -> Self {
        Self { cache, keys }
    }

    pub(super) fn is_available_for(&self, key: &SessionKey) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.is_available() && cache.is_available_for(key))
    }

    fn cache_for(&self, key: &SessionKey) -> Option<&SharedCache> {
        self.cache.as_deref().filter(|_| self.is_available_for(key))
    }

    pub(super) async fn load(&self, key: &SessionKey) -> Found {
        let Some(cache) = self.cache_for(key) else { return Found::Nothing(None) };
        let session = match cache.load(key).instrument(spans::redis("load")).await {
            Ok(Loaded::Session(session)) => session,
            Ok(Loaded::Nothing(vacancy) | Loaded::Floor { vacancy, .. }) => return Found::Nothing(Some(vacancy)),
            Err(fault) => {
                note(&fault, "reading a session");
                return Found::Nothing(None);
            }
        };
        let is_verified = session.written_after_link_up;
        let snapshot = read_snapshot(key, session.durable_version, &session.snapshot, &self.keys);
        let view = snapshot.and_then(|(state, cipher)| {
            let mut tail = Vec::new();
            for piece in &session.tail {
                tail.extend(read_entries(&piece.blob, piece.version, &cipher)?);
            }
            Ok((Box::new(SharedView { state, tail }), cipher))
        });
        match view {
            Ok((view, cipher)) => Found::Session { view, cipher, is_verified },
            Err(error) => {
                tracing::warn!(error = %chain(&error), "a session in the shared tier can't be read; what the database has is written over it");
                Found::Unreadable
            }
        }
    }

    pub(super) async fn share(&self, key: &SessionKey, share: &Share, cipher: &SessionCipher) -> Answer {
        let Some(cache) = self.cache_for(key) else { return Answer::Failed };
        let written = || {
            let entry = write_entries(&share.entries, share.state.version(), cipher)?;
            Ok::<_, Unreadable>((Bytes::from(entry), Bytes::from(write_news(&share.news(), cipher)?)))
        };
        let (entry, message) = match written() {
            Ok(written) => written,
            Err(error) => {
                tracing::error!(error = %chain(&error), "a change can't be written down for the shared tier");
                return Answer::Failed;
            }
        };
        let share = shared_cache::Share {
            key: key.clone(),
            epoch: share.state.epoch,
            expected: cipher.conceal(share.previous.mark()),
            reached: cipher.conceal(share.state.mark()),
            entry,
            message,
        };
        match cache.share(share).instrument(spans::redis("share")).await {
            Ok(shared_cache::Shared::Taken) => Answer::Taken,
            Ok(shared_cache::Shared::Conflict { .. }) => Answer::Conflict,
            Ok(shared_cache::Shared::Missing) => Answer::Failed,
            Err(fault) => {
                note(&fault, "sharing a change");
                Answer::Failed
            }
        }
    }

    /// Tells everybody what the database has; whether they will hear it.
    pub(super) async fn settle(&self, key: &SessionKey, commit: &Commit, cipher: &SessionCipher) -> bool {
        let Some(cache) = self.cache_for(key) else { return false };
        let outcome = if commit.erased_at_version().is_some() {
            let message = write_news(&commit.news(), cipher);
            let removed = cache.remove(key, commit.state.version()).instrument(spans::redis("remove")).await;
            match (removed, message) {
                (Ok(()), Ok(message)) => cache.publish(key, &message).instrument(spans::redis("publish")).await,
                (Err(fault), _) => Err(fault),
                (_, Err(error)) => {
                    tracing::error!(error = %chain(&error), "an erasure can't be told");
                    return false;
                }
            }
        } else {
            self.put(cache, key, (&commit.state, cipher), &commit.news()).await
        };
        outcome.inspect_err(|fault| note(fault, "telling of a commit")).is_ok()
    }

    /// Replaces what the shared tier has by what the database has, if that is newer.
    pub(super) async fn correct(&self, key: &SessionKey, state: &State, cipher: &SessionCipher) {
        let Some(cache) = self.cache_for(key) else { return };
        let outcome = if state.erased_at.is_some() {
            cache.remove(key, state.version()).await
        } else {
            let news = News { epoch: state.epoch, previous: None, entries: Vec::new(), durable: Some(state.mark()) };
            self.put(cache, key, (state, cipher), &news).await
        };
        if let Err(fault) = outcome {
            note(&fault, "correcting a session");
        }
    }

    async fn put(
        &self,
        cache: &SharedCache,
        key: &SessionKey,
        (state, cipher): (&State, &SessionCipher),
        news: &News,
    ) -> Result<(), CacheFault> {
        let written = || Ok::<_, Unreadable>((write_snapshot(state, cipher)?, write_news(news, cipher)?));
        let Ok((snapshot, message)) = written().inspect_err(|error| {
            tracing::error!(error = %chain(error), "a session can't be written down for the shared tier");
        }) else {
            return Err(CacheFault::Malformed { detail: "it can't be written as JSON" });
        };
        let (epoch, reached) = (state.epoch, cipher.conceal(state.mark()));
        let settle = Settle { key: key.clone(), epoch, reached, snapshot: snapshot.into(), message: message.into() };
        cache.settle(settle).instrument(spans::redis("settle")).await.map(drop)
    }

    /// Puts what the database had, unless something newer came meanwhile.
    pub(super) async fn fill(&self, key: &SessionKey, vacancy: &Vacancy, state: &State, cipher: &SessionCipher) {
        let Some(cache) = self.cache_for(key).filter(|_| state.erased_at.is_none()) else { return };
        let Ok(snapshot) = write_snapshot(state, cipher) else { return };
        let mark = cipher.conceal(state.mark());
        if let Err(fault) = cache.fill(vacancy, state.epoch, mark, &snapshot).instrument(spans::redis("fill")).await {
            note(&fault, "filling in a session");
        }
    }
}

/// One line for each fault would be many while Redis is away; its breaker tells of that once.
fn note(fault: &CacheFault, during: &'static str) {
    match fault {
        CacheFault::Away | CacheFault::Closed => {}
        fault => tracing::debug!(error = %chain(fault), during, "the shared tier did not do it"),
    }
}
