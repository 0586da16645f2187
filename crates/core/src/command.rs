//! What somebody wants to happen.

use serde::{Deserialize, Serialize};

use crate::claims::Claims;
use crate::customer::Customer;
use crate::identifier::{FunnelId, OfferId, ProductId, StepId};
use crate::json::{JsonObject, JsonValue, json_struct, json_tagged};
use crate::money::Money;
use crate::prelude::*;
use crate::session::Source;
use crate::state::{Hold, LentClaim};
use crate::time::Timestamp;

/// A wish to change a session. [`decide`](crate::decide) says whether it may happen.
///
/// As JSON: `{"type": "setEmail", "email": "ada@example.com"}`. Unknown fields are refused.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub enum Command {
    /// Begins the session.
    Create(Box<Create>),
    /// Brings in what the legacy systems have of the session: begins it where it is not there, else catches up with them. What is so
    /// already stays.
    Import {
        /// What they have.
        legacy: Box<LegacyEntries>,
        /// The funnel that a new session follows; `default` where missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        funnel: Option<FunnelChoice>,
    },
    /// Sets the buyer's email address.
    SetEmail {
        /// The address; an empty text removes it.
        email: String,
    },
    /// Takes over the fields that are named; an empty text removes one.
    SetCustomer {
        /// The fields.
        customer: Box<Customer>,
    },
    /// Replaces the products.
    SetItems {
        /// The product lines, at most 100.
        items: Vec<ItemRequest>,
    },
    /// Applies a coupon of the funnel, or removes it.
    SetCoupon {
        /// The code; `null` removes it.
        #[serde(default)]
        code: Option<String>,
    },
    /// Sets discount, shipping or tax, in minor units. What is not named stays.
    SetAdjustments {
        /// Taken off the subtotal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        discount: Option<Money>,
        /// Shipping.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shipping: Option<Money>,
        /// Tax on the products.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tax: Option<Money>,
    },
    /// Moves the buyer along the funnel, or back where it allows that.
    GoToStep {
        /// Where to.
        step: StepId,
    },
    /// The buyer wants to pay: locks products and prices and enters the payment step.
    BeginProcessing {},
    /// The shop's back end was paid.
    RecordPayment {
        /// The gateway's transaction.
        transaction_id: String,
        /// What was paid, in minor units; it has to be what the session owes.
        amount: Money,
        /// The gateway's vault record.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vault_id: Option<String>,
        /// The gateway's or the shop's number for the customer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        customer_id: Option<String>,
        /// The gateway's payment token.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payment_token: Option<String>,
    },
    /// What the payment gateway has told so far, to be looked up: nothing that makes a session paid. What is not named stays.
    SetPaymentReferences {
        /// The gateway's transaction; that of a payment that was made stays.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        transaction_id: Option<String>,
        /// The gateway's vault record.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vault_id: Option<String>,
        /// The gateway's or the shop's number for the customer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        customer_id: Option<String>,
        /// The gateway's payment token.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payment_token: Option<String>,
    },
    /// The payment failed.
    FailPayment {
        /// The gateway's code.
        code: String,
        /// A sentence for the buyer.
        message: String,
    },
    /// The buyer accepts an offer. Accepting twice is one acceptance.
    AcceptUpsell {
        /// The offer.
        offer: OfferId,
    },
    /// The buyer declines an offer, for good.
    DeclineUpsell {
        /// The offer.
        offer: OfferId,
    },
    /// The shop's back end charged an accepted offer.
    RecordUpsellCharge {
        /// The offer.
        offer: OfferId,
        /// The gateway's transaction.
        transaction_id: String,
        /// What was charged, in minor units: the offer's price and its tax.
        amount: Money,
    },
    /// Charging an accepted offer failed.
    FailUpsellCharge {
        /// The offer.
        offer: OfferId,
        /// The gateway's code.
        code: String,
        /// A sentence for the buyer.
        message: String,
    },
    /// Merges into the metadata (RFC 7396: `null` removes a key).
    SetMetadata {
        /// The merge patch.
        #[cfg_attr(feature = "openapi", schema(value_type = Object))]
        #[cfg_attr(feature = "typescript", ts(as = "crate::json::TypescriptObject"))]
        metadata: JsonObject,
    },
    /// Lets the session live longer.
    Extend {
        /// How long from now, in milliseconds; the funnel's default where missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "typescript", ts(type = "number"))]
        ttl_ms: Option<u32>,
    },
    /// Ends a session whose time is over: unpaid it expires, paid it completes.
    Expire {},
    /// The shop's back end confirms what a browser's legacy storage claimed, with what the payment gateway says; nothing of
    /// a payment is taken from the claims.
    ConfirmClaims {
        /// The gateway's transaction; needed where a payment is claimed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        transaction_id: Option<String>,
        /// What was paid, in minor units; needed where a payment is claimed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        amount: Option<Money>,
        /// The gateway's vault record.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vault_id: Option<String>,
        /// The gateway's or the shop's number for the customer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        customer_id: Option<String>,
        /// The claimed offers that were charged. Those that are claimed and not named lapse: nobody charges them again.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[cfg_attr(feature = "typescript", ts(optional, as = "Option<Vec<ConfirmedCharge>>"))]
        charges: Vec<ConfirmedCharge>,
    },
    /// The shop's back end found the claims untrue; the session goes on unpaid, at the catalogue's prices.
    RefuteClaims {},
    /// The session goes on in another browser as well, which the server has let in.
    HandOff {
        /// With which it comes back when its token is over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        claim: Option<LentClaim>,
    },
    /// A browser that has nothing but a token gets a claim, with which it comes back when that is over.
    LendClaim {
        /// The claim.
        claim: LentClaim,
    },
    /// Ends every token, claim secret and handoff code of the session. Whoever is to go on with it gets a new token from the
    /// shop's back end.
    RevokeAccess {},
    /// Ends one token, with all that were and will be renewed out of it.
    RevokeToken {
        /// What they have in common.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        family: Option<String>,
        /// Digest of a claim secret that ends with them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        claim: Option<String>,
        /// When they would end otherwise.
        until: Timestamp,
    },
    /// Keeps the session from being erased and deleted, or lets go of it.
    SetHold {
        /// Why and until when; nothing to let go of it.
        hold: Option<Hold>,
    },
    /// Removes all personal data and ends the session for good.
    Erase {},
}

/// An offer that the gateway has charged.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct ConfirmedCharge {
    /// The offer.
    pub offer: OfferId,
    /// The gateway's transaction.
    pub transaction_id: String,
}

/// How a session begins.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Create {
    /// The buyer's email address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The buyer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<Customer>,
    /// The product lines, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<Vec<ItemRequest>>"))]
    pub products: Vec<ItemRequest>,
    /// A coupon of the funnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coupon_code: Option<String>,
    /// Any JSON of the shop.
    #[serde(default, skip_serializing_if = "JsonObject::is_empty")]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<crate::json::TypescriptObject>"))]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub metadata: JsonObject,
    /// The funnel; `default` where missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub funnel: Option<FunnelChoice>,
    /// Where it comes from; what fits the principal where missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// How long it lives, in milliseconds; the funnel's default where missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u32>,
    /// What the browser's legacy storage claims, when the session is taken over from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<Claims>,
}

/// What the legacy systems have of one session: of each what it wrote, in its own words. At least one has something.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, try_from = "JsonObject")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct LegacyEntries {
    /// The row of `funnel_sessions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<crate::json::TypescriptObject>"))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub database: Option<JsonObject>,
    /// The claims of the cookie `upsell_session`, after its signature was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<crate::json::TypescriptObject>"))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub cookie: Option<JsonObject>,
    /// The entry of `sessionCache`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<crate::json::TypescriptObject>"))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub cache: Option<JsonObject>,
    /// The entry of the browser's `webseed_funnel_sessions`. What it says of a payment is not believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<crate::json::TypescriptObject>"))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub browser: Option<JsonObject>,
}

/// By their names: serde takes a list for the members in their order, and here all of them may be missing.
impl TryFrom<JsonObject> for LegacyEntries {
    type Error = String;

    fn try_from(mut given: JsonObject) -> Result<Self, String> {
        let mut entry = |name: &str| match given.remove(name) {
            None | Some(JsonValue::Null) => Ok(None),
            Some(JsonValue::Object(entry)) => Ok(Some(entry)),
            Some(_) => Err([name, " is no object"].joined()),
        };
        let entries = Self {
            database: entry("database")?,
            cookie: entry("cookie")?,
            cache: entry("cache")?,
            browser: entry("browser")?,
        };
        match given.keys().next() {
            Some(other) => Err(["unknown field `", other, "`"].joined()),
            None => Ok(entries),
        }
    }
}

/// Which funnel a new session follows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct FunnelChoice {
    /// Its id.
    pub id: FunnelId,
    /// Its version; the newest where missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// A wished product line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct ItemRequest {
    /// The product.
    pub id: ProductId,
    /// How many, 1 to 999.
    pub quantity: u32,
    /// Its name; the catalogue's where missing. Only a service principal names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The price of one, in minor units; the catalogue's where missing. Only a service principal names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Money>,
}

/// When a command counts as acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// After the database committed it.
    Strict,
    /// Once two independent memories hold it; the database follows within a second.
    Relaxed,
}

macro_rules! command_kinds {
    ($($kind:ident: $name:literal, $durability:ident;)+) => {
        /// The kinds of command, for the table of permissions.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum CommandKind {
            $(#[doc = concat!("`", $name, "`")] $kind),+
        }

        impl CommandKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            /// The kind as text: the `type` in JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name),+ }
            }

            /// When a command of this kind counts as acknowledged.
            pub const fn durability(self) -> Durability {
                match self { $(Self::$kind => Durability::$durability),+ }
            }
        }

        impl Command {
            /// Its kind.
            pub const fn kind(&self) -> CommandKind {
                match self { $(Self::$kind { .. } => CommandKind::$kind),+ }
            }
        }
    };
}

command_kinds! {
    Create: "create", Strict;
    Import: "import", Strict;
    SetEmail: "setEmail", Relaxed;
    SetCustomer: "setCustomer", Relaxed;
    SetItems: "setItems", Relaxed;
    SetCoupon: "setCoupon", Relaxed;
    SetAdjustments: "setAdjustments", Strict;
    GoToStep: "goToStep", Relaxed;
    BeginProcessing: "beginProcessing", Strict;
    RecordPayment: "recordPayment", Strict;
    SetPaymentReferences: "setPaymentReferences", Strict;
    FailPayment: "failPayment", Strict;
    AcceptUpsell: "acceptUpsell", Strict;
    DeclineUpsell: "declineUpsell", Relaxed;
    RecordUpsellCharge: "recordUpsellCharge", Strict;
    FailUpsellCharge: "failUpsellCharge", Strict;
    SetMetadata: "setMetadata", Relaxed;
    Extend: "extend", Relaxed;
    Expire: "expire", Strict;
    ConfirmClaims: "confirmClaims", Strict;
    RefuteClaims: "refuteClaims", Strict;
    HandOff: "handOff", Strict;
    LendClaim: "lendClaim", Strict;
    RevokeAccess: "revokeAccess", Strict;
    RevokeToken: "revokeToken", Strict;
    SetHold: "setHold", Strict;
    Erase: "erase", Strict;
}

json_tagged!(Command, Refused, blank Self::Erase {}, {
    Create: "create" inner,
    Import: "import" { legacy: "legacy", funnel: "funnel" unless empty },
    SetEmail: "setEmail" { email: "email" },
    SetCustomer: "setCustomer" { customer: "customer" },
    SetItems: "setItems" { items: "items" },
    SetCoupon: "setCoupon" { code: "code" },
    SetAdjustments: "setAdjustments" { discount: "discount" unless empty, shipping: "shipping" unless empty, tax: "tax" unless empty },
    GoToStep: "goToStep" { step: "step" },
    BeginProcessing: "beginProcessing" {},
    RecordPayment: "recordPayment" { transaction_id: "transactionId", amount: "amount", vault_id: "vaultId" unless empty, customer_id: "customerId" unless empty, payment_token: "paymentToken" unless empty },
    SetPaymentReferences: "setPaymentReferences" { transaction_id: "transactionId" unless empty, vault_id: "vaultId" unless empty, customer_id: "customerId" unless empty, payment_token: "paymentToken" unless empty },
    FailPayment: "failPayment" { code: "code", message: "message" },
    AcceptUpsell: "acceptUpsell" { offer: "offer" },
    DeclineUpsell: "declineUpsell" { offer: "offer" },
    RecordUpsellCharge: "recordUpsellCharge" { offer: "offer", transaction_id: "transactionId", amount: "amount" },
    FailUpsellCharge: "failUpsellCharge" { offer: "offer", code: "code", message: "message" },
    SetMetadata: "setMetadata" { metadata: "metadata" },
    Extend: "extend" { ttl_ms: "ttlMs" unless empty },
    Expire: "expire" {},
    ConfirmClaims: "confirmClaims" { transaction_id: "transactionId" unless empty, amount: "amount" unless empty, vault_id: "vaultId" unless empty, customer_id: "customerId" unless empty, charges: "charges" or default unless empty },
    RefuteClaims: "refuteClaims" {},
    HandOff: "handOff" { claim: "claim" unless empty },
    LendClaim: "lendClaim" { claim: "claim" },
    RevokeAccess: "revokeAccess" {},
    RevokeToken: "revokeToken" { family: "family" unless empty, claim: "claim" unless empty, until: "until" },
    SetHold: "setHold" { hold: "hold" },
    Erase: "erase" {},
});

json_struct!(Create, Refused { email: "email" unless empty, customer: "customer" unless empty, products: "products" or default unless empty, coupon_code: "couponCode" unless empty, metadata: "metadata" or default unless empty, funnel: "funnel" unless empty, source: "source" unless empty, ttl_ms: "ttlMs" unless empty, claims: "claims" unless empty });

json_struct!(LegacyEntries, Refused { database: "database" unless empty, cookie: "cookie" unless empty, cache: "cache" unless empty, browser: "browser" unless empty });

json_struct!(ConfirmedCharge, Refused { offer: "offer", transaction_id: "transactionId" });

json_struct!(FunnelChoice, Refused { id: "id", version: "version" unless empty });

json_struct!(ItemRequest, Refused { id: "id", quantity: "quantity", name: "name" unless empty, price: "price" unless empty });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_refused_by_name() {
        let error = serde_json::from_str::<Command>(r#"{"type":"setEmail","email":"a@b.co","amount":1}"#).unwrap_err();
        assert!(error.to_string().contains("amount"), "{error}");
        let error = serde_json::from_str::<Command>(r#"{"type":"beginProcessing","paid":true}"#).unwrap_err();
        assert!(error.to_string().contains("paid"), "{error}");
        let error = serde_json::from_str::<Command>(r#"{"type":"create","amount":1}"#).unwrap_err();
        assert!(error.to_string().contains("amount"), "{error}");
    }

    #[test]
    fn every_kind_has_its_type_as_name() {
        let command = Command::BeginProcessing {};
        assert_eq!(serde_json::to_string(&command).unwrap(), r#"{"type":"beginProcessing"}"#);
        assert_eq!(command.kind().as_str(), "beginProcessing");
    }
}
