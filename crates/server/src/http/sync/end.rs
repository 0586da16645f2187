//! Why a conversation ends.

use std::time::Duration;

use throughline_core::sync::{ErrorCode, ServerFrame};

use crate::problem::chain;
use crate::rate_limit::TooManyRequests;
use crate::sessions::SessionError;

/// Why a conversation ends.
pub(super) struct End {
    pub(super) code: ErrorCode,
    pub(super) message: String,
    pub(super) retry_after_ms: Option<u64>,
}

impl End {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None }
    }

    pub(super) fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after_ms = u64::try_from(delay.as_millis()).ok();
        self
    }

    pub(super) fn malformed(what: &str) -> Self {
        Self::new(ErrorCode::MalformedFrame, format!("{what}; see the protocol's description"))
    }
}

impl From<SessionError> for End {
    fn from(error: SessionError) -> Self {
        tracing::warn!(error = %chain(&error), "a session can't be served");
        Self::new(ErrorCode::Unavailable, "the session can't be read just now").retry_after(Duration::from_secs(1))
    }
}

impl From<TooManyRequests> for End {
    fn from(refusal: TooManyRequests) -> Self {
        Self::new(ErrorCode::RateLimited, refusal.to_string()).retry_after(refusal.retry_after)
    }
}

impl From<End> for ServerFrame {
    fn from(End { code, message, retry_after_ms }: End) -> Self {
        Self::Error { code, message, retry_after_ms }
    }
}

/// What was handed in may still come about: the numbers see to it that it does so once.
pub(super) fn not_in_time() -> End {
    End::new(ErrorCode::Unavailable, "the session did not answer in time; send what was not answered again")
        .retry_after(Duration::from_secs(1))
}

pub(super) fn restarting() -> End {
    End::new(ErrorCode::Restarting, "the server is restarting; come back")
}

/// A message that is too large is told so; a connection that broke has nobody left to tell.
pub(super) fn transport_end(error: &axum::Error, limit: usize) -> Option<End> {
    let text = chain(error);
    let is_too_long = text.contains("too long") || text.contains("too large") || text.contains("Space limit exceeded");
    is_too_long.then(|| End::malformed(&format!("messages have at most {limit} bytes")))
}
