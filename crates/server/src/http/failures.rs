//! What each failure of the store means to a client: one exhaustive mapping per error.

use std::time::Duration;

use axum::http::StatusCode;

use crate::idempotency::IdempotencyError;
use crate::problem::{Problem, chain};
use crate::store::{CommitError, ReadError, SurveyError};

/// When to come back after the database could not be reached.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(2);

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        match &error {
            CommitError::Conflict { current_version } => {
                Self::new(StatusCode::CONFLICT, "versionConflict", "Version conflict")
                    .detail("the session was changed by someone else; load it and try again")
                    .with("currentVersion", *current_version)
                    .mendable_by("staleVersion")
            }
            CommitError::Overloaded { retry_after } => overloaded(*retry_after),
            CommitError::Unavailable { .. } => unavailable(&error),
            // Nobody outside can have caused this.
            CommitError::Malformed { .. } => Self::internal(&error),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Overloaded { retry_after } => overloaded(*retry_after),
            ReadError::Unavailable { .. } => unavailable(&error),
        }
    }
}

impl From<SurveyError> for Problem {
    fn from(error: SurveyError) -> Self {
        match error {
            SurveyError::Read(error) => error.into(),
            error @ SurveyError::TooSlow => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "tooMuch", "Too much at once")
                .detail(error.to_string())
                .mendable_by("permanent"),
        }
    }
}

impl From<IdempotencyError> for Problem {
    fn from(error: IdempotencyError) -> Self {
        match &error {
            IdempotencyError::Overloaded { retry_after } => overloaded(*retry_after),
            IdempotencyError::Unavailable { .. } => unavailable(&error),
        }
    }
}

fn overloaded(retry_after: Duration) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Overloaded")
        .detail("the server has more to write than it can; nothing was changed, try again")
        .retry_after(retry_after)
        .mendable_by("retry")
}

fn unavailable(error: &(dyn std::error::Error + 'static)) -> Problem {
    // Told once by whoever finds out that it is away, and counted for each request: this is for one that is looked at.
    tracing::debug!(error = %chain(error), "the store is not available");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "storeUnavailable", "Store unavailable")
        .detail("the server cannot reach its database; a retry with the same idempotency key or command number is safe")
        .retry_after(UNAVAILABLE_RETRY)
        .mendable_by("retry")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreFault;

    #[test]
    fn each_failure_has_its_status_and_code() {
        let fault = || StoreFault::new("test", std::io::Error::other("disk at /secret/path"));
        let after = Duration::from_secs(1);
        let cases: [(Problem, u16, &str); 9] = [
            (CommitError::Conflict { current_version: 3 }.into(), 409, "versionConflict"),
            (CommitError::Overloaded { retry_after: after }.into(), 503, "overloaded"),
            (CommitError::Unavailable { fault: fault() }.into(), 503, "storeUnavailable"),
            (CommitError::Malformed { detail: "x" }.into(), 500, "internal"),
            (ReadError::Overloaded { retry_after: after }.into(), 503, "overloaded"),
            (ReadError::Unavailable { fault: fault() }.into(), 503, "storeUnavailable"),
            (SurveyError::TooSlow.into(), 422, "tooMuch"),
            (IdempotencyError::Overloaded { retry_after: after }.into(), 503, "overloaded"),
            (IdempotencyError::Unavailable { fault: fault() }.into(), 503, "storeUnavailable"),
        ];
        for (problem, status, code) in cases {
            assert_eq!((problem.status().as_u16(), problem.code()), (status, code));
            assert!(!format!("{problem:?}").contains("/secret/path"));
        }
    }
}
