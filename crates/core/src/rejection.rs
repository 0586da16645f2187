//! Why a command may not happen, and who can mend it.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::json::{json_enum, json_struct};
use crate::prelude::*;

/// A command was refused. It changed nothing.
///
/// `code` is stable and for programs, `message` is a sentence for people. It holds the offending value where that
/// helps, never personal data.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
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
    ($(#[doc = $meaning:literal] $name:ident = $text:literal => $mendable:ident),+ $(,)?) => {
        /// What was wrong with a command. Codes are stable; new ones may be added.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
        pub enum RejectionCode { $(#[doc = $meaning] $name),+ }

        $crate::json::read_value! {
            RejectionCode, blank Self::NotPermitted, reader =>
                $crate::json::position(reader, &[$($text),+])
                    .map(|position| Self::ALL.get(position).copied().unwrap_or(Self::NotPermitted));
        }

        $crate::json::write_value! {
            RejectionCode, this, out => out.plain(this.as_str());
        }

        impl RejectionCode {
            /// The code as text, as in JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// What it means, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning),+ }
            }

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
    NotPermitted = "notPermitted" => Forbidden,
    /// A browser named a price; prices come from the catalogue or a service.
    PriceNotAllowed = "priceNotAllowed" => Forbidden,
    /// Another client has claimed this session.
    ClaimMismatch = "claimMismatch" => Forbidden,
    /// The token, or the code, was made before the session was paid or its access revoked, or by a service key that is revoked.
    TokenRevoked = "tokenRevoked" => Forbidden,
    /// The command can't be read.
    MalformedCommand = "malformedCommand" => Permanent,
    /// There is no session with this id.
    SessionNotFound = "sessionNotFound" => Permanent,
    /// There is a session with this id already.
    SessionExists = "sessionExists" => Permanent,
    /// The session ended unpaid.
    SessionExpired = "sessionExpired" => Permanent,
    /// The session is completed.
    SessionCompleted = "sessionCompleted" => Permanent,
    /// The session was erased.
    SessionErased = "sessionErased" => Permanent,
    /// The session is held: it may not be erased.
    SessionHeld = "sessionHeld" => Permanent,
    /// The session has not reached its end yet.
    NotDue = "notDue" => Retry,
    /// There is no such funnel, or not in this version.
    UnknownFunnel = "unknownFunnel" => Permanent,
    /// The funnel has no such step.
    UnknownStep = "unknownStep" => Permanent,
    /// The funnel does not lead from the current step to this one.
    StepNotAllowed = "stepNotAllowed" => Permanent,
    /// The step asks for fields that are missing.
    FieldsMissing = "fieldsMissing" => BuyerInput,
    /// A field's value is not acceptable.
    InvalidField = "invalidField" => BuyerInput,
    /// The product is not in the catalogue.
    UnknownProduct = "unknownProduct" => BuyerInput,
    /// A quantity is not 1 to 999, or there are too many lines.
    InvalidQuantity = "invalidQuantity" => BuyerInput,
    /// A price or amount is negative or too large.
    InvalidAmount = "invalidAmount" => Permanent,
    /// The coupon is not known to the funnel.
    UnknownCoupon = "unknownCoupon" => BuyerInput,
    /// Nothing can be changed while a payment is under way.
    PaymentUnderWay = "paymentUnderWay" => Retry,
    /// The session is paid already.
    AlreadyPaid = "alreadyPaid" => Permanent,
    /// Only a session whose payment is under way can do this.
    PaymentNotBegun = "paymentNotBegun" => Permanent,
    /// The session is not paid yet.
    NotPaid = "notPaid" => Permanent,
    /// The amount is not what the session owes.
    AmountMismatch = "amountMismatch" => Permanent,
    /// What a browser's legacy storage claims has to be confirmed by the shop first.
    AwaitingConfirmation = "awaitingConfirmation" => Retry,
    /// There is nothing to confirm or refute.
    NothingClaimed = "nothingClaimed" => Permanent,
    /// The offer was not made to this session.
    OfferNotMade = "offerNotMade" => Permanent,
    /// The offer was declined; that is final.
    OfferDeclined = "offerDeclined" => Permanent,
    /// The offer was accepted already.
    OfferAccepted = "offerAccepted" => Permanent,
    /// The offer is closed.
    OfferLapsed = "offerLapsed" => Permanent,
    /// The offer was charged already, with another transaction.
    OfferCharged = "offerCharged" => Permanent,
    /// The metadata would exceed a limit.
    MetadataTooLarge = "metadataTooLarge" => BuyerInput,
    /// The session has reached its longest life.
    LifetimeExceeded = "lifetimeExceeded" => Permanent,
    /// The session has moved on from the version that the command was meant for.
    StaleVersion = "staleVersion" => StaleVersion,
}

impl Rejection {
    /// A rejection with this code and sentence; the code says who can mend it.
    pub fn new(code: RejectionCode, message: impl Into<String>) -> Self {
        Self { code, mendable_by: code.mendable_by(), message: message.into() }
    }

    /// What is said of a token that was made before the session was paid or its access revoked.
    pub fn token_revoked() -> Self {
        let message = "this token was made before the session was paid or its access revoked; come back with the claim \
                       secret, or ask the shop for a new token";
        Self::new(RejectionCode::TokenRevoked, message)
    }

    /// Takes the message in pieces and is never inlined: there are many places that refuse, and each is small so.
    #[inline(never)]
    pub(crate) fn because(code: RejectionCode, message: &[&str]) -> Self {
        Self::new(code, message.joined())
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for Rejection {}

json_struct!(Rejection, Ignored { code: "code", mendable_by: "mendableBy", message: "message" });

json_enum!(MendableBy {
    Retry: "retry",
    BuyerInput: "buyerInput",
    StaleVersion: "staleVersion",
    Forbidden: "forbidden",
    Permanent: "permanent"
});
