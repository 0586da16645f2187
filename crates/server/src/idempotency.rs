//! The first answer to a request, replayed when the same request comes again.

use std::time::Duration;

use async_trait::async_trait;

use crate::store::StoreFault;
use crate::tenant::TenantId;

/// How long an answer is kept.
pub const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// After this time a request that has not answered counts as lost, and its key is free again: twice as long as one may take
/// by default. Should the first go on all the same, the numbers of its commands keep both from taking effect.
pub const ABANDONED: Duration = Duration::from_secs(20);

/// The longest key a client may choose, in bytes.
pub const MAX_KEY_BYTES: usize = 255;

/// Names one idempotent request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    /// Whose request it is.
    pub tenant: TenantId,
    /// Who sent it and to which route; the same key from someone else is another request.
    pub scope: String,
    /// What the client chose.
    pub key: String,
}

/// A claim to answer a request. Whoever holds it is the one who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Which request.
    pub key: IdempotencyKey,
    /// Which attempt at it.
    pub attempt: [u8; 16],
}

/// An answer, as it is kept and replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers that belong to it, such as `etag` and `location`.
    pub headers: Vec<(String, String)>,
    /// The body, opaque to the store.
    pub body: Vec<u8>,
    /// Of which session it tells. It is dropped with the session's erasure, and not kept after that.
    pub session_id: Option<String>,
}

/// What is known about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// It is new. Answer it, and hand the ticket in with the answer.
    Started(Ticket),
    /// It was answered before.
    Replay(Answer),
    /// It is being answered right now.
    InProgress,
    /// The key was used for a request with another body.
    Mismatch,
}

/// Why the table of answers could not be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IdempotencyError {
    /// The database did not answer.
    #[error("the database is not available; try again when it is")]
    Unavailable {
        /// What went wrong, for the log.
        #[source]
        fault: StoreFault,
    },
    /// Too many writes are waiting. This one was not even begun.
    #[error("too many changes are waiting to be written; try again in {} ms", retry_after.as_millis())]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
}

/// A place that keeps answers.
#[async_trait]
pub trait IdempotencyStore: Send + Sync + std::fmt::Debug {
    /// Claims the request `key`, or says what is known about it.
    ///
    /// # Errors
    /// See [`IdempotencyError`].
    async fn begin(&self, key: IdempotencyKey, body_sha256: [u8; 32], now_ms: i64) -> Result<Begin, IdempotencyError>;

    /// Keeps the answer. A ticket that was abandoned meanwhile changes nothing.
    ///
    /// # Errors
    /// See [`IdempotencyError`].
    async fn finish(&self, ticket: Ticket, answer: Answer) -> Result<(), IdempotencyError>;

    /// Gives the key back: the request failed in a way that a retry may mend.
    ///
    /// # Errors
    /// See [`IdempotencyError`].
    async fn abandon(&self, ticket: Ticket) -> Result<(), IdempotencyError>;

    /// Drops answers older than [`KEPT`]. Returns how many.
    ///
    /// # Errors
    /// See [`IdempotencyError`].
    async fn sweep(&self, now_ms: i64) -> Result<u64, IdempotencyError>;
}

/// What one stored entry amounts to, the same for every store.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) body_sha256: Vec<u8>,
    pub(crate) started_at_ms: i64,
    pub(crate) answer: Option<Answer>,
}

impl Entry {
    /// What to say about this entry, or `None` when it is as good as absent.
    pub(crate) fn judge(self, body_sha256: &[u8; 32], now_ms: i64) -> Option<Begin> {
        let limit = if self.answer.is_some() { KEPT } else { ABANDONED };
        if now_ms.saturating_sub(self.started_at_ms) >= crate::clock::millis(limit) {
            return None;
        }
        if self.body_sha256 != body_sha256 {
            return Some(Begin::Mismatch);
        }
        Some(self.answer.map_or(Begin::InProgress, Begin::Replay))
    }
}
