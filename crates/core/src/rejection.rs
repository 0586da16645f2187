//! Why a command may not happen, and who can mend it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A command was refused. It changed nothing.
///
/// `code` is stable and for programs, `message` is a sentence for people. It holds the offending value where that
/// helps, never personal data.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(rename = "RejectionReason"))]
pub struct Rejection {
    /// What was wrong.
    pub code: RejectionCode,
    /// Who can mend it.
    pub mendable_by: MendableBy,
    /// A sentence for a person.
    pub message: String,
}

/// Who can mend a rejection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum MendableBy {
    /// Time: the same command may be accepted later.
    Retry,
    /// The buyer, by entering something else.
    BuyerInput,
    /// The caller, by reading the session again.
    StaleVersion,
    /// Nobody with these rights.
    Forbidden,
    /// Nobody: the answer will not change.
    Permanent,
}

macro_rules! rejection_codes {
    ($($(#[$docs:meta])* $name:ident => $mendable:ident),+ $(,)?) => {
        /// What was wrong with a command. Codes are stable; new ones may be added.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
        pub enum RejectionCode { $($(#[$docs])* $name),+ }

        impl RejectionCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Who can mend it.
            pub const fn mendable_by(self) -> MendableBy {
                match self { $(Self::$name => MendableBy::$mendable),+ }
            }
        }
    };
}

rejection_codes! {
    /// The principal may not issue this command.
    NotPermitted => Forbidden,
    /// A browser named a price; prices come from the catalogue or a service.
    PriceNotAllowed => Forbidden,
    /// Another client has claimed this session.
    ClaimMismatch => Forbidden,
    /// The command can't be read.
    MalformedCommand => Permanent,
    /// There is no session with this id.
    SessionNotFound => Permanent,
    /// There is a session with this id already.
    SessionExists => Permanent,
    /// The session ended unpaid.
    SessionExpired => Permanent,
    /// The session is completed.
    SessionCompleted => Permanent,
    /// The session was erased.
    SessionErased => Permanent,
    /// The session has not reached its end yet.
    NotDue => Retry,
    /// There is no such funnel, or not in this version.
    UnknownFunnel => Permanent,
    /// The funnel has no such step.
    UnknownStep => Permanent,
    /// The funnel does not lead from the current step to this one.
    StepNotAllowed => Permanent,
    /// The step asks for fields that are missing.
    FieldsMissing => BuyerInput,
    /// A field's value is not acceptable.
    InvalidField => BuyerInput,
    /// The product is not in the catalogue.
    UnknownProduct => BuyerInput,
    /// A quantity is not 1 to 999, or there are too many lines.
    InvalidQuantity => BuyerInput,
    /// A price or amount is negative or too large.
    InvalidAmount => Permanent,
    /// The coupon is not known to the funnel.
    UnknownCoupon => BuyerInput,
    /// Nothing can be changed while a payment is under way.
    PaymentUnderWay => Retry,
    /// The session is paid already.
    AlreadyPaid => Permanent,
    /// Only a session whose payment is under way can do this.
    PaymentNotBegun => Permanent,
    /// The session is not paid yet.
    NotPaid => Permanent,
    /// The amount is not what the session owes.
    AmountMismatch => Permanent,
    /// What a browser's legacy storage claims has to be confirmed by the shop first.
    AwaitingConfirmation => Retry,
    /// There is nothing to confirm or refute.
    NothingClaimed => Permanent,
    /// The offer was not made to this session.
    OfferNotMade => Permanent,
    /// The offer was declined; that is final.
    OfferDeclined => Permanent,
    /// The offer was accepted already.
    OfferAccepted => Permanent,
    /// The offer is closed.
    OfferLapsed => Permanent,
    /// The offer was charged already, with another transaction.
    OfferCharged => Permanent,
    /// The metadata would exceed a limit.
    MetadataTooLarge => BuyerInput,
    /// The session has reached its longest life.
    LifetimeExceeded => Permanent,
    /// The session has moved on from the version that the command was meant for.
    StaleVersion => StaleVersion,
}

impl Rejection {
    /// A rejection with this code and sentence; the code says who can mend it.
    pub fn new(code: RejectionCode, message: impl Into<String>) -> Self {
        Self { code, mendable_by: code.mendable_by(), message: message.into() }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Rejection {}
