//! What a request that failed is answered with: RFC 9457 problem details.
//!
//! `code` is stable and for programs, `detail` is for people, `mendableBy` says who can do
//! something about it. Nothing internal is ever in it: an unexpected error is logged under
//! the request's id, and the outside learns only that id.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use crate::audit::Denial;
use crate::http::request_id::RequestId;

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// One problem, to be answered with.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem(Box<Members>);

#[derive(Debug, Clone, PartialEq)]
struct Members {
    status: StatusCode,
    code: Cow<'static, str>,
    title: &'static str,
    detail: Option<String>,
    mendable_by: Option<&'static str>,
    retry_after: Option<Duration>,
    extra: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
    denial: Option<Denial>,
    is_journaled: bool,
}

/// An answer that denies somebody something, so that the audit log hears of it.
#[derive(Debug, Clone)]
pub struct Denied(pub Denial);

impl Problem {
    /// A problem with a stable `code` and a `title` that is the same for each of its kind.
    #[must_use]
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, title: &'static str) -> Self {
        Self(Box::new(Members {
            status,
            code: code.into(),
            title,
            detail: None,
            mendable_by: None,
            retry_after: None,
            extra: Map::new(),
            headers: Vec::new(),
            denial: None,
            is_journaled: false,
        }))
    }

    /// A problem of ours. `error` goes to the log, never to the client.
    #[must_use]
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(error), "a request failed inside");
        Self::unexplained()
    }

    /// The answer to whatever must not be explained.
    #[must_use]
    pub fn unexplained() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error")
            .detail("something went wrong in the server; it has been logged under this request's id")
            .mendable_by("retry")
    }

    /// The problem that a bare status amounts to.
    #[must_use]
    pub fn of_status(status: StatusCode) -> Self {
        let (code, title, detail) = match status {
            StatusCode::NOT_FOUND => ("notFound", "Not found", "there is nothing at this path; see the API reference"),
            StatusCode::METHOD_NOT_ALLOWED => (
                "methodNotAllowed",
                "Method not allowed",
                "this path does not know the method; the `allow` header lists those it knows",
            ),
            StatusCode::PAYLOAD_TOO_LARGE => {
                ("bodyTooLarge", "Body too large", "the request's body is larger than this server takes")
            }
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                ("unsupportedMediaType", "Unsupported media type", "send `content-type: application/json`")
            }
            StatusCode::UNAUTHORIZED => {
                ("credentialMissing", "Not authenticated", "send a session token or a service key")
            }
            StatusCode::FORBIDDEN => ("forbidden", "Forbidden", "this principal may not do that"),
            status if status.is_server_error() => return Self::unexplained(),
            _ => ("badRequest", "Bad request", "the request is not one that this path understands"),
        };
        Self::new(status, code, title).detail(detail).mendable_by("permanent")
    }

    /// Says what was wrong this time and how to mend it.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Says who can mend it: `retry`, `buyerInput`, `staleVersion`, `forbidden`, `permanent`.
    #[must_use]
    pub fn mendable_by(mut self, who: &'static str) -> Self {
        self.0.mendable_by = Some(who);
        self
    }

    /// Says after which time a retry makes sense; also as the header `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Adds a member. The standard members cannot be overwritten by it.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.0.extra.insert(member.to_owned(), value.into());
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Says what the audit log is to say of it, beside where the request came from. Without, it says that somebody was denied
    /// an answer (401, 403) with this code.
    #[must_use]
    pub fn denial(mut self, denial: Denial) -> Self {
        self.0.denial = Some(denial);
        self
    }

    /// Says that the session's journal tells of it, and with that the audit log.
    #[must_use]
    pub fn journaled(mut self) -> Self {
        self.0.is_journaled = true;
        self
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The document, as the body of an answer.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        self.document().to_string().into_bytes()
    }

    /// The members, for a problem that is a part of an answer.
    pub(crate) fn document(&self) -> Value {
        let members = &self.0;
        let mut document = members.extra.clone();
        let mut set = |name: &str, value: Value| {
            document.insert(name.to_owned(), value);
        };
        set("type", format!("/docs/problems#{}", members.code).into());
        set("title", members.title.into());
        set("status", members.status.as_u16().into());
        set("code", members.code.as_ref().into());
        if let Some(detail) = &members.detail {
            set("detail", detail.as_str().into());
        }
        if let Some(who) = members.mendable_by {
            set("mendableBy", who.into());
        }
        if let Some(after) = members.retry_after {
            set("retryAfterSeconds", whole_seconds(after).into());
        }
        if let Some(id) = RequestId::current() {
            set("requestId", id.to_string().into());
        }
        Value::Object(document)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.document().to_string()));
        *response.status_mut() = self.0.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(after) = self.0.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
        }
        let members = *self.0;
        for (name, value) in members.headers {
            headers.insert(name, value);
        }
        let is_denial =
            matches!(members.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) && !members.is_journaled;
        let of_nobody = is_denial.then(|| Denial::of_nobody("request", members.code));
        if let Some(denial) = members.denial.or(of_nobody) {
            response.extensions_mut().insert(Denied(denial));
        }
        response
    }
}

/// Rounded up, and never 0: "retry after 0 s" would be an invitation to hammer.
fn whole_seconds(duration: Duration) -> u64 {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() > 0 { seconds + 1 } else { seconds.max(1) }
}

/// An error and what caused it, on one line. A cause that the text ends with already is not told twice: some libraries'
/// errors have their cause in their own text.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.ends_with(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_was_wrong_and_who_can_mend_it() {
        let problem = Problem::new(StatusCode::CONFLICT, "versionConflict", "Version conflict")
            .detail("the session is at version 7")
            .mendable_by("staleVersion")
            .with("currentVersion", 7);
        assert_eq!(
            problem.document(),
            serde_json::json!({
                "type": "/docs/problems#versionConflict",
                "title": "Version conflict",
                "status": 409,
                "code": "versionConflict",
                "detail": "the session is at version 7",
                "mendableBy": "staleVersion",
                "currentVersion": 7,
            })
        );
    }

    #[test]
    fn an_extra_member_cannot_overwrite_a_standard_one() {
        let problem = Problem::of_status(StatusCode::NOT_FOUND).with("status", 200);
        assert_eq!(problem.document()["status"], 404);
    }

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        for (after_ms, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2")] {
            let response = Problem::unexplained().retry_after(Duration::from_millis(after_ms)).into_response();
            assert_eq!(response.headers()[RETRY_AFTER], seconds);
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Caused {
        text: &'static str,
        #[source]
        cause: Option<Box<Caused>>,
    }

    fn chain_of(texts: &[&'static str]) -> String {
        let error = texts.iter().rev().fold(None, |cause, text| Some(Box::new(Caused { text, cause })));
        chain(&*error.expect("there is a text"))
    }

    #[test]
    fn a_chain_tells_each_cause_once() {
        assert_eq!(chain_of(&["connecting failed", "refused"]), "connecting failed: refused");
        assert_eq!(chain_of(&["connecting failed: refused", "refused"]), "connecting failed: refused");
        assert_eq!(
            chain_of(&["asking failed", "connecting: refused", "refused", "by a firewall"]),
            "asking failed: connecting: refused: by a firewall"
        );
        assert_eq!(chain_of(&["refused connections", "refused"]), "refused connections: refused", "not at the end");
    }

    #[test]
    fn asvs_16_5_1_an_internal_error_tells_the_outside_nothing() {
        let error = std::io::Error::other("password=hunter2");
        let document = Problem::internal(&error).document().to_string();
        assert!(!document.contains("hunter2"));
        assert!(document.contains("internal"));
    }
}
