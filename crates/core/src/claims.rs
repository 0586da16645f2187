//! What a browser's legacy storage claims, until a service principal confirms or refutes it.

use serde::{Deserialize, Serialize};

use crate::identifier::StepId;
use crate::json::json_struct;
use crate::money::Money;
use crate::prelude::*;
use crate::session::Status;
use crate::time::Timestamp;

/// The unverified part of a session that was taken over from a browser's storage.
///
/// A browser can write anything there, so nothing in it is believed: it makes no session paid and no
/// product cheap. But a buyer who did pay must not be asked to pay again, so as long as a
/// claim of payment is open, paying is refused with a request to wait.
#[derive(Clone, PartialEq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Claims {
    /// The status it claims.
    pub status: Status,
    /// The step it claims to be at.
    pub step: StepId,
    /// The amount it claims, in minor units.
    pub amount: Money,
    /// The products with the prices that it claims.
    #[serde(default)]
    pub products: Vec<ClaimedItem>,
    /// The offers that it claims were accepted.
    #[serde(default)]
    pub accepted: Vec<ClaimedUpsell>,
    /// The offers that it claims were declined.
    #[serde(default)]
    pub declined: Vec<String>,
    /// The vault record that it claims. Never sent to a browser.
    #[serde(default)]
    pub vault_id: Option<String>,
    /// The transaction that it claims. Never sent to a browser.
    #[serde(default)]
    pub transaction_id: Option<String>,
    /// When it claims to have been created.
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    /// When it claims to have changed last.
    #[serde(default)]
    pub updated_at: Option<Timestamp>,
    /// When it claims to end.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

/// A product with the price that a browser claims.
#[derive(Clone, PartialEq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct ClaimedItem {
    /// The product, as the legacy storage named it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The claimed price of one, in minor units.
    pub price: Money,
    /// How many.
    pub quantity: u32,
}

/// An accepted offer that a browser claims.
#[derive(Clone, PartialEq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct ClaimedUpsell {
    /// The offer's or product's code, as the legacy storage named it.
    pub code: String,
    /// The claimed amount in minor units, where one was written down.
    #[serde(default)]
    pub amount: Option<Money>,
    /// The claimed transaction. Never sent to a browser.
    #[serde(default)]
    pub transaction_id: Option<String>,
}

impl Claims {
    /// Whether they say that a payment was made or begun: then the buyer must not pay again before it is settled.
    pub fn claim_payment(&self) -> bool {
        let late_status = matches!(self.status, Status::Completed | Status::Processing);
        late_status || self.transaction_id.is_some() || self.vault_id.is_some() || !self.accepted.is_empty()
    }
}

json_struct!(Claims, Refused { status: "status", step: "step", amount: "amount", products: "products" or default, accepted: "accepted" or default, declined: "declined" or default, vault_id: "vaultId", transaction_id: "transactionId", created_at: "createdAt", updated_at: "updatedAt", expires_at: "expiresAt" });

json_struct!(ClaimedItem, Refused { id: "id", name: "name", price: "price", quantity: "quantity" });

json_struct!(ClaimedUpsell, Refused { code: "code", amount: "amount", transaction_id: "transactionId" });
