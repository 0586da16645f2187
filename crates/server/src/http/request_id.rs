//! The id that ties a request to its log lines and to the problem it may end in.

use std::fmt;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries it, in and out.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

const MAX_BYTES: usize = 64;

tokio::task_local! {
    static CURRENT: RequestId;
}

/// The id of a request: the caller's own where it sends a harmless one, or a random one.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id of a request with these headers.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get(HEADER).filter(|value| value.to_str().is_ok_and(acceptable));
        Self(sent.map_or_else(fresh, HeaderValue::clone))
    }

    /// The id of the request that this task is answering.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// Tells the id to everything that `answering` calls.
    pub async fn scope<T>(&self, answering: impl Future<Output = T>) -> T {
        CURRENT.scope(self.clone(), answering).await
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<RequestId> for HeaderValue {
    fn from(id: RequestId) -> Self {
        id.0
    }
}

/// Whether a caller's id may go into logs and headers: short, and without characters that
/// could end a line or a field.
fn acceptable(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= MAX_BYTES
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// An id grants nothing: it only has to differ from the others.
fn fresh() -> HeaderValue {
    let digits = format!("{:032x}", fastrand::u128(..));
    HeaderValue::try_from(digits).unwrap_or(HeaderValue::from_static("none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_id_is_taken_only_if_it_is_short_and_harmless() {
        assert!(acceptable("3f2a-trace_1.2"));
        for bad in ["", "a b", "a\nb", "ä", "{x}", &"a".repeat(65)] {
            assert!(!acceptable(bad), "{bad:?}");
        }
    }

    #[test]
    fn fresh_ids_are_acceptable_and_differ() {
        let (first, second) = (fresh(), fresh());
        assert!(first.to_str().is_ok_and(acceptable), "{first:?}");
        assert_ne!(first, second);
    }
}
