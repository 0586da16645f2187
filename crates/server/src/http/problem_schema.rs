//! The form of a problem, for the API's description.

use serde::Serialize;
use utoipa::ToSchema;

/// Why a request failed (RFC 9457). Further members give the facts of a kind of problem.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemDetails {
    /// Where the kind of problem is described.
    pub r#type: String,
    /// A short name of the kind, for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The kind of problem, for programs: stable.
    pub code: String,
    /// What was wrong this time, and how to mend it.
    pub detail: Option<String>,
    /// Who can mend it: `retry`, `buyerInput`, `staleVersion`, `forbidden` or `permanent`.
    pub mendable_by: Option<String>,
    /// After how many seconds a retry makes sense.
    pub retry_after_seconds: Option<u64>,
    /// Under which id the server's log has it.
    pub request_id: Option<String>,
}
