//! What one legacy system says of a session.

use core::fmt;

use super::METADATA_KEY;
use super::fields::{Fields, shrink_to_limits};
use super::note::{Note, NoteKind};
use crate::claims::{ClaimedItem, ClaimedUpsell, Claims};
use crate::customer::{Address, Customer, EmailAddress, MAX_FIELD_CHARS, is_clean};
use crate::identifier::{SessionId, StepId};
use crate::json::{JsonObject, JsonValue};
use crate::money::Money;
use crate::prelude::*;
use crate::session::{PaymentFailure, Status};
use crate::time::Timestamp;

/// One of the four places in which a session was kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LegacySystem {
    /// `FunnelSessionManager`: localStorage. Anybody can write anything there.
    Browser,
    /// `sessionCache`: the memory of one process.
    Cache,
    /// `cookie-session`: a signed cookie.
    Cookie,
    /// `DatabaseSessionManager`: a row of `funnel_sessions`.
    Database,
}

impl LegacySystem {
    /// Its name, for reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Browser => "browser",
            Self::Cache => "cache",
            Self::Cookie => "cookie",
            Self::Database => "database",
        }
    }
}

/// What is known of a session's payment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum LegacyPayment {
    /// None was begun, or it failed.
    #[default]
    None,
    /// One was begun, and nothing says how it ended: the process may have died between the gateway's answer and writing it down.
    Unsettled,
    /// It was made.
    Made,
}

/// What a legacy system, or several put together, says of a session.
///
/// What could not be read is in `metadata.legacy`, with a note.
#[derive(Clone, PartialEq, Debug)]
pub struct LegacySession {
    /// Its id.
    pub id: SessionId,
    /// Who says it; the newest first where it is put together of several.
    pub systems: Vec<LegacySystem>,
    /// The buyer's email address.
    pub email: Option<EmailAddress>,
    /// The buyer.
    pub customer: Customer,
    /// What is bought, with the prices of then.
    pub products: Vec<ClaimedItem>,
    /// The coupon.
    pub coupon_code: Option<String>,
    /// The products' prices, as the legacy systems added them up.
    pub amount: Option<Money>,
    /// What was taken off.
    pub discount: Option<Money>,
    /// Shipping.
    pub shipping: Option<Money>,
    /// Tax on the products.
    pub tax: Option<Money>,
    /// What was to be paid for the products in all.
    pub total: Option<Money>,
    /// The status, with `initiated` as pending.
    pub status: Option<Status>,
    /// The step, in the legacy systems' words: also `payment_processing`, `completed` and `failed`.
    pub step: Option<StepId>,
    /// The offers that were accepted; the legacy systems charged them at once.
    pub accepted: Vec<ClaimedUpsell>,
    /// The offers that were declined.
    pub declined: Vec<String>,
    /// What is known of the payment.
    pub payment: LegacyPayment,
    /// The gateway's transaction.
    pub transaction_id: Option<String>,
    /// The gateway's vault record.
    pub vault_id: Option<String>,
    /// The gateway's or the shop's number for the customer.
    pub customer_id: Option<String>,
    /// The gateway's payment token.
    pub payment_token: Option<String>,
    /// Why the payment failed.
    pub failure: Option<PaymentFailure>,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// When it changed last.
    pub updated_at: Option<Timestamp>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// The shop's own metadata, within today's limits.
    pub metadata: JsonObject,
    /// What a browser says of a payment, beyond what the shop's systems say.
    pub claims: Option<Claims>,
    /// What had to be decided.
    pub notes: Vec<Note>,
}

/// An entry of a legacy system can't be a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotASession {
    /// The field that is to blame.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl fmt::Display for NotASession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

impl core::error::Error for NotASession {}

/// The steps at which a payment was made, in the legacy systems' words.
const AFTER_PAYMENT: [&str; 4] = ["upsell-1", "upsell-2", "success", "completed"];

/// What no browser may see.
const PAYMENT_REFERENCES: [(&str, &str); 4] = [
    ("vaultId", "vault_id"),
    ("transactionId", "transaction_id"),
    ("paymentToken", "payment_token"),
    ("customerId", "customer_id"),
];

/// The fields of the legacy shapes. One of these that is left over could not be read.
const KNOWN: [&str; 14] = [
    "amount",
    "billingInfo",
    "couponCode",
    "createdAt",
    "currentStep",
    "customerInfo",
    "email",
    "expiresAt",
    "metadata",
    "products",
    "shippingInfo",
    "status",
    "updatedAt",
    "upsellsAccepted",
];

/// Reads what `system` has written under `key`.
///
/// Liberal: camelCase and snake_case, prices as number or text, missing fields. What has no place in the unified
/// session is kept under `metadata.legacy`; but not what no browser may see, nor a row's columns that the legacy table had not.
///
/// # Errors
/// [`NotASession`] when the entry is no object or its id can't be one; whatever else is wrong is kept in the metadata.
pub fn read(system: LegacySystem, key: &str, entry: &JsonValue) -> Result<LegacySession, NotASession> {
    let JsonValue::Object(entry) = entry else {
        return Err(NotASession { field: "session", reason: "is no JSON object" });
    };
    let mut fields = Fields { rest: entry.clone() };
    let id = fields.text("id", "id").unwrap_or_else(|| key.to_owned());
    let id = SessionId::new(id).ok().filter(SessionId::is_legacy);
    let id = id.ok_or(NotASession { field: "id", reason: "is no session id; those begin with ws_" })?;

    let email_text = fields.text("email", "email");
    let email = email_text.as_deref().and_then(|text| EmailAddress::new(text).ok());
    if let (Some(text), None) = (email_text, &email) {
        fields.keep("email", JsonValue::String(text));
    }
    let customer = if matches!(system, LegacySystem::Cookie | LegacySystem::Cache) {
        flat_customer(&mut fields)
    } else {
        fields.customer()
    };
    let products = fields.products();
    let coupon_code = fields.text("couponCode", "coupon_code");
    let (mut accepted, declined) = fields.upsells();
    if system == LegacySystem::Browser {
        fields.charges(&mut accepted);
    }
    let status_text = fields.text("status", "status");
    let status = status_text.as_deref().and_then(read_status);
    if let (Some(text), None) = (status_text, status) {
        fields.keep("status", JsonValue::String(text));
    }
    let step_text = fields.text("currentStep", "current_step");
    let step = step_text.as_ref().and_then(|text| StepId::new(text.clone()).ok());
    if let (Some(text), None) = (step_text, &step) {
        fields.keep("currentStep", JsonValue::String(text));
    }
    let amount = fields.money("amount");
    let vault_id = fields.reference("vaultId", "vault_id");
    let transaction_id = fields.reference("transactionId", "transaction_id");
    let created_at = fields.time("createdAt", "created_at");
    let updated_at = fields.time("updatedAt", "updated_at");
    let expires_at = fields.time("expiresAt", "expires_at");
    let mut session = LegacySession {
        id,
        systems: vec![system],
        email,
        customer,
        products,
        coupon_code,
        amount,
        discount: None,
        shipping: None,
        tax: None,
        total: None,
        status,
        step,
        accepted,
        declined,
        payment: LegacyPayment::None,
        transaction_id,
        vault_id,
        customer_id: None,
        payment_token: None,
        failure: None,
        created_at,
        updated_at,
        expires_at,
        metadata: JsonObject::new(),
        claims: None,
        notes: Vec::new(),
    };
    if system != LegacySystem::Browser {
        session.customer_id = fields.reference("customerId", "customer_id");
        session.payment_token = fields.reference("paymentToken", "payment_token");
    }
    if session.updated_at.is_none() && system != LegacySystem::Browser {
        session.updated_at = fields.time("lastVaultUpdate", "last_vault_update").or(created_at);
    }
    let mut metadata = match fields.rest.remove("metadata") {
        Some(JsonValue::Object(metadata)) => metadata,
        Some(JsonValue::Null) | None => JsonObject::new(),
        Some(other) => {
            fields.keep("metadata", other);
            JsonObject::new()
        }
    };
    if system == LegacySystem::Database {
        session.read_metadata(&mut metadata);
    }
    session.payment = session.payment_of(system);
    if system == LegacySystem::Browser {
        session.claims = session.as_claims().filter(Claims::claim_payment);
    }
    fields.rest.retain(|_, value| *value != JsonValue::Null);
    // Browsers see the metadata.
    for (camel, snake) in PAYMENT_REFERENCES {
        let left = [&mut fields.rest, &mut metadata].map(|object| remove_everywhere(object, &[camel, snake]));
        if left.contains(&true) {
            session.note(camel, NoteKind::Unreadable);
        }
    }
    session.note_unreadable(&fields.rest);
    if system == LegacySystem::Database {
        let columns: Vec<String> = fields.rest.keys().filter(|name| !is_known(name)).cloned().collect();
        for column in columns {
            fields.rest.remove(&column);
            session.note(&column, NoteKind::ColumnLeftOut);
        }
    }
    if !fields.rest.is_empty() {
        metadata.insert(METADATA_KEY.to_owned(), JsonValue::Object(fields.rest));
    }
    if shrink_to_limits(&mut metadata) {
        session.note("metadata", NoteKind::MetadataDropped);
    }
    session.metadata = metadata;
    Ok(session)
}

/// The cookie has the buyer's name and state beside everything else.
fn flat_customer(fields: &mut Fields) -> Customer {
    let mut field = |camel: &str, snake: &str| {
        let text = fields.text(camel, snake)?;
        if is_clean(&text, MAX_FIELD_CHARS) {
            return Some(text);
        }
        fields.keep(camel, JsonValue::String(text));
        None
    };
    let (first_name, last_name) = (field("firstName", "first_name"), field("lastName", "last_name"));
    let state = field("state", "state");
    let billing = state.map(|state| Address { state: Some(state), ..Address::default() });
    Customer { first_name, last_name, billing, ..Customer::default() }
}

/// Whether the legacy table has such a column.
fn is_known(column: &str) -> bool {
    const REST: [&str; 13] = [
        "customerAddress",
        "billing_info",
        "coupon_code",
        "created_at",
        "current_step",
        "customer_info",
        "expires_at",
        "shipping_info",
        "updated_at",
        "upsells",
        "upsells_accepted",
        "upsells_declined",
        "upsellsDeclined",
    ];
    KNOWN.contains(&column) || REST.contains(&column)
}

/// Takes these names out, however deep they are; `true` where one was there.
fn remove_everywhere(object: &mut JsonObject, names: &[&str; 2]) -> bool {
    let mut was_there = false;
    for name in names {
        was_there |= object.remove(*name).is_some();
    }
    for value in object.values_mut() {
        was_there |= remove_within(value, names);
    }
    was_there
}

fn remove_within(value: &mut JsonValue, names: &[&str; 2]) -> bool {
    match value {
        JsonValue::Object(object) => remove_everywhere(object, names),
        JsonValue::Array(values) => {
            let removed: Vec<bool> = values.iter_mut().map(|value| remove_within(value, names)).collect();
            removed.contains(&true)
        }
        _ => false,
    }
}

fn read_status(text: &str) -> Option<Status> {
    Some(match text {
        "initiated" | "pending" => Status::Pending,
        "processing" => Status::Processing,
        "completed" => Status::Completed,
        "failed" => Status::Failed,
        "expired" => Status::Expired,
        _ => return None,
    })
}

impl LegacySession {
    pub(super) fn note(&mut self, field: &str, kind: NoteKind) {
        self.notes.push(Note { field: field.to_owned(), kind });
    }

    fn note_unreadable(&mut self, rest: &JsonObject) {
        for field in KNOWN.into_iter().filter(|field| rest.contains_key(*field)) {
            let kind =
                if field == "amount" && self.amount.is_some() { NoteKind::Rounded } else { NoteKind::Unreadable };
            self.note(field, kind);
        }
    }

    /// The row keeps in its metadata what has a place of its own today.
    fn read_metadata(&mut self, metadata: &mut JsonObject) {
        let mut within = Fields { rest: core::mem::take(metadata) };
        let billing = within.nested("billingInfo", "billing_info", |object| Fields::address(object, true)).flatten();
        let shipping = within.nested("shippingInfo", "shipping_info", |object| Fields::address(object, true)).flatten();
        let is_flat = |flat: &Address, other: &Option<Address>| {
            other.as_ref().is_some_and(|other| other.without_names() == *flat)
        };
        let is_given = billing.is_some();
        if is_given {
            // What the row has beside it is where the goods go.
            let other = self.customer.billing.take().or_else(|| self.customer.shipping.take());
            self.customer.shipping = other.filter(|other| !is_flat(other, &billing));
            self.customer.billing = billing;
        }
        if shipping.is_some() {
            self.customer.billing.take_if(|flat| !is_given && is_flat(flat, &shipping));
            self.customer.shipping = shipping;
        }
        within.charges(&mut self.accepted);
        self.discount = within.money("discount");
        self.shipping = within.money("shipping");
        self.tax = within.money("tax");
        self.total = within.money("totalAmount");
        for sum in ["discount", "shipping", "tax", "totalAmount"] {
            if within.rest.contains_key(sum) {
                self.note(sum, NoteKind::Unreadable);
            }
        }
        // Derived, and so left out.
        if let Some(subtotal) = within.money("subtotal")
            && self.amount.is_none()
        {
            self.amount = Some(subtotal);
        }
        if self.status == Some(Status::Failed) || self.step.as_ref().is_some_and(|step| step.as_str() == "failed") {
            let message = within.text("error", "error").unwrap_or_else(|| "the payment failed".to_owned());
            let message = message.chars().filter(|c| !c.is_control()).take(MAX_FIELD_CHARS).collect();
            self.failure = Some(PaymentFailure { code: "declined".to_owned(), message });
            within.rest.remove("failed_at");
        }
        *metadata = within.rest;
    }

    /// What `system` knows of the payment.
    fn payment_of(&self, system: LegacySystem) -> LegacyPayment {
        let is_after = self.step.as_ref().is_some_and(|step| AFTER_PAYMENT.contains(&step.as_str()));
        match system {
            LegacySystem::Browser => LegacyPayment::None,
            // Written after the gateway had answered.
            LegacySystem::Cookie | LegacySystem::Cache => match self.transaction_id {
                Some(_) => LegacyPayment::Made,
                None => LegacyPayment::None,
            },
            LegacySystem::Database => match self.status {
                Some(Status::Completed) => LegacyPayment::Made,
                // A late read turned everything to expired; the step says how far it had come.
                _ if is_after && self.transaction_id.is_some() => LegacyPayment::Made,
                _ if self.failure.is_some() => LegacyPayment::None,
                Some(Status::Processing) => LegacyPayment::Unsettled,
                _ if self.transaction_id.is_some() || self.vault_id.is_some() || self.payment_token.is_some() => {
                    LegacyPayment::Unsettled
                }
                _ if is_after || !self.accepted.is_empty() => LegacyPayment::Unsettled,
                _ => LegacyPayment::None,
            },
        }
    }

    /// What it says, as claims that a service principal has to confirm.
    pub(super) fn as_claims(&self) -> Option<Claims> {
        Some(Claims {
            status: self.status.unwrap_or(Status::Pending),
            step: self.step.clone().or_else(|| StepId::new("checkout").ok())?,
            amount: self.amount.unwrap_or(Money::ZERO),
            products: self.products.clone(),
            accepted: self.accepted.clone(),
            declined: self.declined.clone(),
            vault_id: self.vault_id.clone(),
            transaction_id: self.transaction_id.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            expires_at: self.expires_at,
        })
    }
}
