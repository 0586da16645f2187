//! The session: what the shop, the buyer and the server see.

use serde::{Deserialize, Serialize};

use crate::claims::Claims;
use crate::customer::{Customer, EmailAddress};
use crate::identifier::{FunnelId, OfferId, ProductId, SessionId, StepId};
use crate::json::JsonObject;
use crate::json::{ToJson, Writer, changes_by_field, json_enum, json_struct};
use crate::money::{Currency, Money};
use crate::prelude::*;
use crate::time::Timestamp;

/// One checkout session, from the first click to the end of the order.
///
/// It only changes through [`evolve`](crate::evolve). `amount` and `totals` are derived; nobody sets them.
#[derive(Clone, PartialEq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Session {
    /// Its id. Knowing it grants nothing.
    pub id: SessionId,
    /// How many events it has been through. Only grows; it is the `ETag` in REST.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub version: u64,
    /// The buyer's email address.
    pub email: Option<EmailAddress>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it ends if nothing more happens.
    pub expires_at: Timestamp,
    /// When somebody last issued a command.
    pub last_accessed_at: Timestamp,
    /// Where it stands in its life.
    pub status: Status,
    /// The funnel step that the buyer is at.
    pub current_step: StepId,
    /// When which step was reached.
    pub flow: Flow,
    /// Names, phone, addresses.
    pub customer: Customer,
    /// What is bought.
    pub products: Vec<Item>,
    /// The coupon that is applied.
    pub coupon_code: Option<String>,
    /// Discount, shipping and tax, before upsells.
    pub adjustments: Adjustments,
    /// The sums.
    pub totals: Totals,
    /// What is to be paid in all: `totals.total`, in minor units of `currency`.
    pub amount: Money,
    /// The currency of every amount.
    pub currency: Currency,
    /// What is known of the payment.
    pub payment: Payment,
    /// The payment gateway's vault record. Never sent to a browser.
    pub vault_id: Option<String>,
    /// The payment gateway's or the shop's number for the customer.
    pub customer_id: Option<String>,
    /// The gateway's transaction of the main payment. Never sent to a browser.
    pub transaction_id: Option<String>,
    /// The gateway's payment token. Never sent to a browser.
    pub payment_token: Option<String>,
    /// The offers that were made, in their order.
    pub upsells: Vec<Upsell>,
    /// Where it came from.
    pub source: Source,
    /// Any JSON of the shop: at most 50 top-level keys, 8 levels, 16 KiB.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    #[cfg_attr(feature = "typescript", ts(as = "crate::json::TypescriptObject"))]
    pub metadata: JsonObject,
    /// The funnel that it is pinned to.
    pub funnel: FunnelRef,
    /// What a browser's legacy storage claims and no service principal has confirmed yet.
    pub claims: Option<Claims>,
}

/// Where a session stands in its life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum Status {
    /// The buyer is filling it in. Legacy `initiated` reads as this.
    #[serde(alias = "initiated")]
    Pending,
    /// A payment is under way, or it has been paid and offers are open (see [`Payment::paid_at`]).
    Processing,
    /// Paid and done.
    Completed,
    /// The payment failed; the buyer may try again.
    Failed,
    /// It ended unpaid.
    Expired,
}

impl Status {
    /// The status as text, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }

    /// Whether the buyer's funnel is over.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Expired)
    }
}

/// When which step was reached.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Flow {
    /// When the first step was entered.
    pub started_at: Timestamp,
    /// The steps in the order they were entered; the latest [`Flow::MAX_VISITS`].
    pub steps: Vec<StepVisit>,
    /// When it ended unpaid.
    pub abandoned_at: Option<Timestamp>,
    /// When it was completed.
    pub completed_at: Option<Timestamp>,
}

impl Flow {
    /// How many visits are kept; going back and forth drops the oldest after the first.
    pub const MAX_VISITS: usize = 50;
}

/// One stay at a step.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct StepVisit {
    /// The step.
    pub step: StepId,
    /// When it was entered.
    pub entered_at: Timestamp,
    /// When it was left.
    pub left_at: Option<Timestamp>,
}

/// One product line.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Item {
    /// The product.
    pub id: ProductId,
    /// Its name, for people.
    pub name: String,
    /// The price of one, in minor units.
    pub price: Money,
    /// How many, 1 to 999.
    pub quantity: u32,
    /// Who named the price.
    pub price_source: PriceSource,
}

/// Who named a price or an adjustment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum PriceSource {
    /// The funnel's catalogue or rule.
    #[default]
    Funnel,
    /// A service principal.
    Service,
    /// A browser's legacy storage: can't be paid until a service principal confirms it.
    Claimed,
}

/// Discount, shipping and tax of the products, in minor units. They come from a funnel rule or a service principal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Adjustments {
    /// Taken off the subtotal, at most all of it.
    pub discount: Money,
    /// Shipping.
    pub shipping: Money,
    /// Tax on the products.
    pub tax: Money,
    /// Who set them. What a service has set, only a service changes.
    pub set_by: PriceSource,
}

/// The sums of a session, in minor units.
/// `total = max(0, subtotal - discount) + shipping + tax + upsells`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Totals {
    /// Price times quantity of every product.
    pub subtotal: Money,
    /// Discount.
    pub discount: Money,
    /// Shipping.
    pub shipping: Money,
    /// Tax on the products and on accepted offers.
    pub tax: Money,
    /// Prices of the accepted and charged offers.
    pub upsells: Money,
    /// The sum.
    pub total: Money,
}

/// What is known of the main payment.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Payment {
    /// When it was recorded as paid. A session with this never expires.
    pub paid_at: Option<Timestamp>,
    /// What was paid, before upsells, in minor units.
    pub amount: Option<Money>,
    /// How often paying was begun.
    pub attempts: u32,
    /// Why the last attempt failed.
    pub failure: Option<PaymentFailure>,
}

/// Why a payment or a charge failed.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct PaymentFailure {
    /// The gateway's code, such as `card_declined`.
    pub code: String,
    /// A sentence for the buyer.
    pub message: String,
}

/// One offer that was made to the buyer.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Upsell {
    /// The offer.
    pub offer: OfferId,
    /// The step at which it was made.
    pub step: StepId,
    /// The product offered.
    pub product: ProductId,
    /// Its name, for people.
    pub name: String,
    /// Its price, in minor units.
    pub price: Money,
    /// The tax on it.
    pub tax: Money,
    /// What became of it.
    pub state: OfferState,
    /// When it was made.
    pub offered_at: Timestamp,
    /// Until when it can be accepted.
    pub closes_at: Option<Timestamp>,
    /// When the buyer answered.
    pub answered_at: Option<Timestamp>,
    /// The gateway's transaction of the charge. Never sent to a browser.
    pub transaction_id: Option<String>,
    /// Why the last charge failed.
    pub failure: Option<PaymentFailure>,
}

/// What became of an offer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum OfferState {
    /// Open: the buyer has not answered.
    Offered,
    /// Accepted, not charged yet.
    Accepted,
    /// Declined, for good.
    Declined,
    /// Accepted and paid.
    Charged,
    /// Accepted, but the charge failed; a service may try again.
    ChargeFailed,
    /// Closed without an answer.
    Lapsed,
}

impl OfferState {
    /// Whether the offer counts to the session's amount.
    pub const fn is_bought(self) -> bool {
        matches!(self, Self::Accepted | Self::Charged)
    }
}

/// Where a session came from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum Source {
    /// A back end, over REST.
    Api,
    /// A browser.
    #[default]
    Client,
    /// One of the legacy systems.
    Migration,
    /// Another system's notification.
    Webhook,
}

/// The funnel that a session is pinned to.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct FunnelRef {
    /// Its id.
    pub id: FunnelId,
    /// Its version.
    pub version: u32,
}

impl Session {
    /// Whether the main payment was recorded.
    pub fn is_paid(&self) -> bool {
        self.payment.paid_at.is_some()
    }

    /// Whether products, prices and the customer may still change: before a payment is under way, and after it failed.
    pub fn is_editable(&self) -> bool {
        matches!(self.status, Status::Pending | Status::Failed) && !self.is_paid()
    }

    /// The offer with this id, where it was made.
    pub fn upsell(&self, offer: &OfferId) -> Option<&Upsell> {
        self.upsells.iter().find(|upsell| upsell.offer == *offer)
    }

    /// Writes what differs from `published` as one object, and takes it over there; `false` where nothing does. The object is
    /// a patch: an entry `>name` holds a patch of the value under that name, whose entries are named by fields or positions;
    /// any other entry is the whole new value.
    pub fn write_patch(&self, published: &mut Option<Self>, out: &mut Writer) -> bool {
        match published {
            None => {
                self.write(out);
                *published = Some(self.clone());
                true
            }
            Some(published) => {
                out.open("{");
                let before = out.len();
                self.write_changed_fields(published, out);
                let is_changed = out.len() > before;
                out.close("}");
                is_changed
            }
        }
    }

    /// Derives the sums from products, adjustments and offers.
    pub(crate) fn recompute_totals(&mut self) {
        let sum = |amounts: &mut dyn Iterator<Item = Money>| amounts.fold(Money::ZERO, Money::plus);
        let subtotal = sum(&mut self.products.iter().map(|item| item.price.times(item.quantity)));
        let bought = || self.upsells.iter().filter(|upsell| upsell.state.is_bought());
        let upsells = sum(&mut bought().map(|upsell| upsell.price));
        let tax = sum(&mut bought().map(|upsell| upsell.tax)).plus(self.adjustments.tax);
        let Adjustments { discount, shipping, .. } = self.adjustments;
        let total = subtotal.minus_at_most_all(discount).plus(shipping).plus(tax).plus(upsells);
        self.totals = Totals { subtotal, discount, shipping, tax, upsells, total };
        self.amount = total;
    }
}

json_struct!(
    Session,
    Ignored {
        id: "id",
        version: "version",
        email: "email",
        created_at: "createdAt",
        updated_at: "updatedAt",
        expires_at: "expiresAt",
        last_accessed_at: "lastAccessedAt",
        status: "status",
        current_step: "currentStep",
        flow: "flow" in parts,
        customer: "customer",
        products: "products",
        coupon_code: "couponCode",
        adjustments: "adjustments",
        totals: "totals" in parts,
        amount: "amount",
        currency: "currency",
        payment: "payment",
        vault_id: "vaultId",
        customer_id: "customerId",
        transaction_id: "transactionId",
        payment_token: "paymentToken",
        upsells: "upsells" in parts,
        source: "source",
        metadata: "metadata",
        funnel: "funnel",
        claims: "claims"
    }
);

changes_by_field!(Flow, StepVisit, Totals, Upsell);

json_enum!(Status {
    Pending: "pending" | "initiated",
    Processing: "processing",
    Completed: "completed",
    Failed: "failed",
    Expired: "expired"
});

json_struct!(
    Flow,
    Ignored { started_at: "startedAt", steps: "steps" in parts, abandoned_at: "abandonedAt", completed_at: "completedAt" }
);

json_struct!(StepVisit, Ignored { step: "step", entered_at: "enteredAt", left_at: "leftAt" });

json_struct!(
    Item,
    Ignored { id: "id", name: "name", price: "price", quantity: "quantity", price_source: "priceSource" }
);

json_enum!(PriceSource { Funnel: "funnel", Service: "service", Claimed: "claimed" });

json_struct!(Adjustments, Ignored { discount: "discount", shipping: "shipping", tax: "tax", set_by: "setBy" });

json_struct!(
    Totals,
    Ignored {
        subtotal: "subtotal",
        discount: "discount",
        shipping: "shipping",
        tax: "tax",
        upsells: "upsells",
        total: "total"
    }
);

json_struct!(Payment, Ignored { paid_at: "paidAt", amount: "amount", attempts: "attempts", failure: "failure" });

json_struct!(PaymentFailure, Ignored { code: "code", message: "message" });

json_struct!(
    Upsell,
    Ignored {
        offer: "offer",
        step: "step",
        product: "product",
        name: "name",
        price: "price",
        tax: "tax",
        state: "state",
        offered_at: "offeredAt",
        closes_at: "closesAt",
        answered_at: "answeredAt",
        transaction_id: "transactionId",
        failure: "failure"
    }
);

json_enum!(OfferState {
    Offered: "offered",
    Accepted: "accepted",
    Declined: "declined",
    Charged: "charged",
    ChargeFailed: "chargeFailed",
    Lapsed: "lapsed"
});

json_enum!(Source { Api: "api", Client: "client", Migration: "migration", Webhook: "webhook" });

json_struct!(FunnelRef, Ignored { id: "id", version: "version" });
