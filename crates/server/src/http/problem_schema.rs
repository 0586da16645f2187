//! The form of a problem, and those that many routes share, for the API's description.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

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

/// What any request about one session may be answered with. A route that means something more by one of these statuses
/// lists it after this.
pub(crate) struct SessionProblems;

impl IntoResponses for SessionProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems([
            (401, "No credential, or one that proves nothing, or one that was revoked"),
            (403, "The token is for another session, or the service key lacks the scope"),
            (404, "There is no such session"),
            (503, "It can't be read or stored just now"),
        ])
    }
}

/// What any request with a body may be answered with. A route that means something more by one of these statuses
/// lists it after this.
pub(crate) struct BodyProblems;

impl IntoResponses for BodyProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems([
            (400, "The body is not JSON"),
            (413, "The body is too large"),
            (415, "The body is not announced as JSON"),
            (422, "A field is wrong"),
        ])
    }
}

/// What any request that is not for browsers may be answered with.
pub(crate) struct StaffProblems;

impl IntoResponses for StaffProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems([
            (401, "No credential, or one that proves nothing"),
            (403, "This is for service keys with the scope, not for browsers"),
            (503, "The database can't be asked just now"),
        ])
    }
}

fn problems<const N: usize>(meanings: [(u16, &str); N]) -> BTreeMap<String, RefOr<Response>> {
    let described = meanings.into_iter().map(|(status, description)| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemDetails"))).build();
        let response = ResponseBuilder::new().description(description).content("application/json", content).build();
        (status.to_string(), response.into())
    });
    described.collect()
}
