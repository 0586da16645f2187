//! Rejections of the rules, as problems.

use std::time::Duration;

use axum::http::StatusCode;
use throughline_core::{MendableBy, Rejection, RejectionCode as Code};

use crate::audit::sealing::SealingError;
use crate::principal::AuthenticationError;
use crate::problem::Problem;
use crate::sessions::SessionError;
use crate::store::ReadError;
use crate::token::TokenError;

/// The HTTP status of each rejection. Exhaustive on purpose: a new code has to be placed here.
#[must_use]
pub const fn status_of(code: Code) -> StatusCode {
    match code {
        Code::NotPermitted | Code::PriceNotAllowed | Code::ClaimMismatch => StatusCode::FORBIDDEN,
        Code::TokenRevoked => StatusCode::UNAUTHORIZED,
        Code::SessionNotFound => StatusCode::NOT_FOUND,
        Code::SessionExpired | Code::SessionErased => StatusCode::GONE,
        Code::MalformedCommand
        | Code::FieldsMissing
        | Code::InvalidField
        | Code::UnknownProduct
        | Code::InvalidQuantity
        | Code::InvalidAmount
        | Code::UnknownCoupon
        | Code::UnknownFunnel
        | Code::UnknownStep
        | Code::AmountMismatch
        | Code::MetadataTooLarge => StatusCode::UNPROCESSABLE_ENTITY,
        Code::SessionExists
        | Code::SessionHeld
        | Code::SessionCompleted
        | Code::NotDue
        | Code::StepNotAllowed
        | Code::PaymentUnderWay
        | Code::AlreadyPaid
        | Code::PaymentNotBegun
        | Code::NotPaid
        | Code::AwaitingConfirmation
        | Code::NothingClaimed
        | Code::OfferNotMade
        | Code::OfferDeclined
        | Code::OfferAccepted
        | Code::OfferLapsed
        | Code::OfferCharged
        | Code::LifetimeExceeded
        | Code::StaleVersion => StatusCode::CONFLICT,
    }
}

/// Who can mend it, as in JSON.
#[must_use]
pub const fn mendable_by(mendable: MendableBy) -> &'static str {
    match mendable {
        MendableBy::Retry => "retry",
        MendableBy::BuyerInput => "buyerInput",
        MendableBy::StaleVersion => "staleVersion",
        MendableBy::Forbidden => "forbidden",
        MendableBy::Permanent => "permanent",
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let Rejection { code, mendable_by: mendable, message } = rejection;
        if code == Code::TokenRevoked {
            return AuthenticationError::from(TokenError::Revoked).into();
        }
        Self::new(status_of(code), code.as_str(), "Refused by the rules")
            .detail(message)
            .mendable_by(mendable_by(mendable))
            .journaled()
    }
}

impl From<SealingError> for Problem {
    fn from(error: SealingError) -> Self {
        match error {
            SealingError::Read(error) => error.into(),
            SealingError::Entry(error) => Self::internal(&error),
        }
    }
}

impl From<SessionError> for Problem {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Read(error @ (ReadError::Unavailable { .. } | ReadError::Overloaded { .. })) => error.into(),
            SessionError::Unreadable(error) => Self::internal(&error),
            SessionError::Busy { retry_after } => busy(retry_after),
        }
    }
}

fn busy(retry_after: Duration) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available just now")
        .detail("the change could not be stored just now, and may or may not be; send it again with the same idempotency key or command number")
        .retry_after(retry_after)
        .mendable_by("retry")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rejection_is_a_client_error_with_its_own_code() {
        for code in Code::ALL {
            let problem = Problem::from(Rejection::new(*code, "why"));
            assert!(problem.status().is_client_error(), "{code:?}");
            assert_eq!(problem.code(), code.as_str());
        }
    }
}
