//! What has happened. The journal of a session is the list of its records.

use serde::{Deserialize, Serialize};

use crate::claims::Claims;
use crate::customer::{Customer, EmailAddress};
use crate::identifier::{ClientId, OfferId, ProductId, SessionId, StepId};
use crate::json::JsonObject;
use crate::json::{json_struct, json_tagged};
use crate::money::{Currency, Money};
use crate::permission::Role;
use crate::prelude::*;
use crate::rejection::Rejection;
use crate::session::{Adjustments, FunnelRef, Item, PaymentFailure, Source};
use crate::state::{Hold, LentClaim};
use crate::time::{TimeSpan, Timestamp};

/// One entry of a session's journal: an event with who caused it and when.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(rename = "SessionRecord"))]
pub struct Record {
    /// The session's version after it; versions count events.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub version: u64,
    /// When the server decided it.
    pub at: Timestamp,
    /// In which role it was caused.
    pub by: Role,
    /// The command that caused it. Missing for what the server did by itself, and for other clients' commands
    /// as a browser sees them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Who that was, as far as the server that took the command knows. Never sent to a browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub caller: Option<Caller>,
    /// What happened.
    pub event: Event,
}

/// The command that caused an event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Origin {
    /// The client that issued it.
    pub client_id: ClientId,
    /// The client's number for it.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub seq: u64,
}

/// Who issued a command, beside its role: for the audit log, and for whoever looks into a session's history.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Caller {
    /// The public name of its service key, if it came with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub key_id: Option<String>,
    /// The network that its address is of, in CIDR form: of an address only so much is kept that nobody is known by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub network: Option<String>,
}

/// Something that has happened to a session. Facts: nothing here is judged again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum Event {
    /// The session began, at the funnel's first step.
    Created {
        /// Its id.
        id: SessionId,
        /// Tells this history from any other under the same id.
        #[cfg_attr(feature = "typescript", ts(type = "number"))]
        epoch: u64,
        /// Digest of the claim secret of a client that created it offline. Never sent to a browser.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        claim: Option<String>,
        /// The funnel that it is pinned to.
        funnel: FunnelRef,
        /// The funnel's currency.
        currency: Currency,
        /// The funnel's first step.
        step: StepId,
        /// Where it came from.
        source: Source,
        /// When it ends if nothing more happens.
        expires_at: Timestamp,
        /// When a session that was taken over says it began.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        began_at: Option<Timestamp>,
        /// After how long it ends when nobody changes it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "typescript", ts(optional))]
        idle: Option<TimeSpan>,
    },
    /// The email address changed.
    EmailSet {
        /// The new address.
        email: Option<EmailAddress>,
    },
    /// The customer changed.
    CustomerSet {
        /// The whole customer.
        customer: Customer,
    },
    /// The products changed.
    ItemsSet {
        /// All product lines.
        items: Vec<Item>,
    },
    /// The coupon changed.
    CouponSet {
        /// The new code.
        code: Option<String>,
    },
    /// Discount, shipping or tax changed.
    AdjustmentsSet {
        /// All adjustments.
        adjustments: Adjustments,
    },
    /// A step was entered.
    StepEntered {
        /// The step.
        step: StepId,
    },
    /// The buyer began to pay.
    PaymentBegun {},
    /// The payment was recorded.
    PaymentRecorded {
        /// The gateway's transaction.
        transaction_id: Option<String>,
        /// What was paid.
        amount: Money,
        /// The gateway's vault record.
        vault_id: Option<String>,
        /// The gateway's or the shop's number for the customer.
        customer_id: Option<String>,
        /// The gateway's payment token.
        payment_token: Option<String>,
    },
    /// What the payment gateway told before it said whether the payment was made.
    PaymentReferencesSet {
        /// The gateway's transaction.
        transaction_id: Option<String>,
        /// The gateway's vault record.
        vault_id: Option<String>,
        /// The gateway's or the shop's number for the customer.
        customer_id: Option<String>,
        /// The gateway's payment token.
        payment_token: Option<String>,
    },
    /// The payment failed.
    PaymentFailed {
        /// Why.
        failure: PaymentFailure,
    },
    /// An offer was made.
    OfferMade {
        /// The offer.
        offer: OfferId,
        /// The step at which it is made.
        step: StepId,
        /// The product.
        product: ProductId,
        /// Its name.
        name: String,
        /// Its price.
        price: Money,
        /// The tax on it.
        tax: Money,
        /// Until when it can be accepted.
        closes_at: Option<Timestamp>,
    },
    /// An offer was accepted.
    OfferAccepted {
        /// The offer.
        offer: OfferId,
    },
    /// An offer was declined.
    OfferDeclined {
        /// The offer.
        offer: OfferId,
    },
    /// An accepted offer was charged.
    OfferCharged {
        /// The offer.
        offer: OfferId,
        /// The gateway's transaction.
        transaction_id: Option<String>,
    },
    /// Charging an accepted offer failed.
    OfferChargeFailed {
        /// The offer.
        offer: OfferId,
        /// Why.
        failure: PaymentFailure,
    },
    /// An open offer closed without an answer.
    OfferLapsed {
        /// The offer.
        offer: OfferId,
    },
    /// Metadata was merged.
    MetadataSet {
        /// The merge patch.
        #[cfg_attr(feature = "openapi", schema(value_type = Object))]
        #[cfg_attr(feature = "typescript", ts(as = "crate::json::TypescriptObject"))]
        metadata: JsonObject,
    },
    /// The end moved.
    Extended {
        /// When it ends now.
        expires_at: Timestamp,
    },
    /// The session was taken over from a browser's storage, with claims that nobody has confirmed.
    ClaimsMade {
        /// The claims.
        claims: Claims,
    },
    /// A service principal confirmed the claims; prices count as the service's.
    ClaimsConfirmed {},
    /// A service principal refuted the claims.
    ClaimsRefuted {},
    /// Another browser was let in with a code that one of the session's browsers had asked for.
    HandedOff {
        /// With which it comes back when its token is over. Never sent to a browser.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "typescript", ts(optional))]
        claim: Option<LentClaim>,
    },
    /// A browser that had nothing but a token got a claim, with which it comes back when that is over.
    ClaimLent {
        /// The claim. Never sent to a browser.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "typescript", ts(optional))]
        claim: Option<LentClaim>,
    },
    /// All tokens and claim secrets of the session ended.
    AccessRevoked {},
    /// One token of the session ended, with all that were renewed out of it.
    TokenRevoked {
        /// What they have in common. Never sent to a browser.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "typescript", ts(optional))]
        family: Option<String>,
        /// Digest of a claim secret that ended with them. Never sent to a browser.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "typescript", ts(optional))]
        claim: Option<String>,
        /// When they would have ended otherwise.
        until: Timestamp,
    },
    /// The session is kept from being erased and deleted from now on, or is not any more.
    HoldSet {
        /// Why and until when. Never sent to a browser.
        hold: Option<Hold>,
    },
    /// The session is paid and done.
    Completed {},
    /// The session ended unpaid.
    Expired {},
    /// The personal data was removed.
    Erased {},
    /// A command was refused; it is settled all the same.
    CommandRejected {
        /// Why.
        rejection: Rejection,
    },
    /// A command changed nothing, because what it wanted was so already.
    CommandUnneeded {},
}

impl Event {
    /// What kind of event it is, as in JSON.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Created { .. } => "created",
            Self::EmailSet { .. } => "emailSet",
            Self::CustomerSet { .. } => "customerSet",
            Self::ItemsSet { .. } => "itemsSet",
            Self::CouponSet { .. } => "couponSet",
            Self::AdjustmentsSet { .. } => "adjustmentsSet",
            Self::StepEntered { .. } => "stepEntered",
            Self::PaymentBegun {} => "paymentBegun",
            Self::PaymentRecorded { .. } => "paymentRecorded",
            Self::PaymentReferencesSet { .. } => "paymentReferencesSet",
            Self::PaymentFailed { .. } => "paymentFailed",
            Self::OfferMade { .. } => "offerMade",
            Self::OfferAccepted { .. } => "offerAccepted",
            Self::OfferDeclined { .. } => "offerDeclined",
            Self::OfferCharged { .. } => "offerCharged",
            Self::OfferChargeFailed { .. } => "offerChargeFailed",
            Self::OfferLapsed { .. } => "offerLapsed",
            Self::MetadataSet { .. } => "metadataSet",
            Self::Extended { .. } => "extended",
            Self::ClaimsMade { .. } => "claimsMade",
            Self::ClaimsConfirmed {} => "claimsConfirmed",
            Self::ClaimsRefuted {} => "claimsRefuted",
            Self::HandedOff { .. } => "handedOff",
            Self::ClaimLent { .. } => "claimLent",
            Self::AccessRevoked {} => "accessRevoked",
            Self::TokenRevoked { .. } => "tokenRevoked",
            Self::HoldSet { .. } => "holdSet",
            Self::Completed {} => "completed",
            Self::Expired {} => "expired",
            Self::Erased {} => "erased",
            Self::CommandRejected { .. } => "commandRejected",
            Self::CommandUnneeded {} => "commandUnneeded",
        }
    }

    /// Whether it changes the session itself, not just the bookkeeping beside it.
    pub const fn changes_session(&self) -> bool {
        !matches!(self, Self::CommandRejected { .. } | Self::CommandUnneeded {})
    }
}

json_struct!(Record, Ignored { version: "version", at: "at", by: "by", origin: "origin" unless empty, caller: "caller" unless empty, event: "event" });

json_struct!(Caller, Ignored { key_id: "keyId" unless empty, network: "network" unless empty });

json_struct!(Origin, Ignored { client_id: "clientId", seq: "seq" });

json_tagged!(Event, Ignored, blank Self::Erased {}, {
    Created: "created" { id: "id", epoch: "epoch", claim: "claim" unless empty, funnel: "funnel", currency: "currency", step: "step", source: "source", expires_at: "expiresAt", began_at: "beganAt" unless empty, idle: "idle" unless empty },
    EmailSet: "emailSet" { email: "email" },
    CustomerSet: "customerSet" { customer: "customer" },
    ItemsSet: "itemsSet" { items: "items" },
    CouponSet: "couponSet" { code: "code" },
    AdjustmentsSet: "adjustmentsSet" { adjustments: "adjustments" },
    StepEntered: "stepEntered" { step: "step" },
    PaymentBegun: "paymentBegun" {},
    PaymentRecorded: "paymentRecorded" { transaction_id: "transactionId", amount: "amount", vault_id: "vaultId", customer_id: "customerId", payment_token: "paymentToken" },
    PaymentReferencesSet: "paymentReferencesSet" { transaction_id: "transactionId", vault_id: "vaultId", customer_id: "customerId", payment_token: "paymentToken" },
    PaymentFailed: "paymentFailed" { failure: "failure" },
    OfferMade: "offerMade" { offer: "offer", step: "step", product: "product", name: "name", price: "price", tax: "tax", closes_at: "closesAt" },
    OfferAccepted: "offerAccepted" { offer: "offer" },
    OfferDeclined: "offerDeclined" { offer: "offer" },
    OfferCharged: "offerCharged" { offer: "offer", transaction_id: "transactionId" },
    OfferChargeFailed: "offerChargeFailed" { offer: "offer", failure: "failure" },
    OfferLapsed: "offerLapsed" { offer: "offer" },
    MetadataSet: "metadataSet" { metadata: "metadata" },
    Extended: "extended" { expires_at: "expiresAt" },
    ClaimsMade: "claimsMade" { claims: "claims" },
    ClaimsConfirmed: "claimsConfirmed" {},
    ClaimsRefuted: "claimsRefuted" {},
    HandedOff: "handedOff" { claim: "claim" unless empty },
    ClaimLent: "claimLent" { claim: "claim" unless empty },
    AccessRevoked: "accessRevoked" {},
    TokenRevoked: "tokenRevoked" { family: "family" unless empty, claim: "claim" unless empty, until: "until" },
    HoldSet: "holdSet" { hold: "hold" },
    Completed: "completed" {},
    Expired: "expired" {},
    Erased: "erased" {},
    CommandRejected: "commandRejected" { rejection: "rejection" },
    CommandUnneeded: "commandUnneeded" {},
});
