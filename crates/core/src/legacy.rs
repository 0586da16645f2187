//! What the legacy systems wrote, as commands of today.
//!
//! A browser's localStorage is not to be trusted: whatever it says of prices and payments becomes a claim
//! ([`Claims`]) that a service principal has to confirm.

use core::fmt;

use crate::claims::{ClaimedItem, ClaimedUpsell, Claims};
use crate::command::Create;
use crate::customer::{Address, Customer, EmailAddress, MAX_FIELD_CHARS};
use crate::identifier::{ProductId, SessionId, StepId};
use crate::json::{self, JsonObject, JsonValue};
use crate::money::Money;
use crate::prelude::*;
use crate::session::{Source, Status};
use crate::time::Timestamp;

/// The localStorage key of the legacy `FunnelSessionManager`: one JSON object of all its sessions by id.
pub const FUNNEL_STORAGE_KEY: &str = "webseed_funnel_sessions";

/// The key under which metadata keeps what has no place in the unified session.
pub const METADATA_KEY: &str = "legacy";

/// A session of a legacy system, ready to be created under its old id.
#[derive(Clone, PartialEq, Debug)]
pub struct TakenOver {
    /// Its old id.
    pub id: SessionId,
    /// How it begins here.
    pub create: Create,
}

/// An entry of the legacy storage can't be a session.
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

/// Reads one entry of the legacy localStorage value.
///
/// Liberal: camelCase and snake_case, prices as number or text, missing fields. What has no place in the unified
/// session is kept under `metadata.legacy`.
///
/// # Errors
/// [`NotASession`] when the entry is no object or its id can't be one; whatever else is wrong is kept in the metadata.
pub fn take_over(key: &str, entry: &JsonValue) -> Result<TakenOver, NotASession> {
    let JsonValue::Object(entry) = entry else {
        return Err(NotASession { field: "session", reason: "is no JSON object" });
    };
    let mut fields = Fields { rest: entry.clone() };
    let id = fields.text("id", "id").unwrap_or_else(|| key.to_owned());
    let id = SessionId::new(id).ok().filter(SessionId::is_legacy);
    let id = id.ok_or(NotASession { field: "id", reason: "is no session id; those begin with ws_" })?;

    let email_text = fields.text("email", "email");
    let email = email_text.as_ref().filter(|text| EmailAddress::new(text.as_str()).is_ok()).cloned();
    if let (Some(text), None) = (email_text, &email) {
        fields.keep("email", JsonValue::String(text));
    }
    let customer = fields.customer();
    let products = fields.products();
    let coupon_code = fields.text("couponCode", "coupon_code");
    let (accepted, declined) = fields.upsells();
    let status_text = fields.text("status", "status");
    let status = status_text.as_deref().and_then(read_status);
    if let (Some(text), None) = (status_text, status) {
        fields.keep("status", JsonValue::String(text));
    }
    let step_text = fields.text("currentStep", "current_step").unwrap_or_else(|| "checkout".to_owned());
    let step = StepId::new(step_text.clone()).ok();
    if step.is_none() {
        fields.keep("currentStep", JsonValue::String(step_text));
    }

    let claims = Claims {
        status: status.unwrap_or(Status::Pending),
        step: step
            .or_else(|| StepId::new("checkout").ok())
            .ok_or(NotASession { field: "currentStep", reason: "can't be a step" })?,
        amount: fields.money("amount"),
        products,
        accepted,
        declined,
        vault_id: fields.reference("vaultId", "vault_id"),
        transaction_id: fields.reference("transactionId", "transaction_id"),
        created_at: fields.time("createdAt", "created_at"),
        updated_at: fields.time("updatedAt", "updated_at"),
        expires_at: fields.time("expiresAt", "expires_at"),
    };

    let mut metadata = match fields.rest.remove("metadata") {
        Some(JsonValue::Object(metadata)) => metadata,
        Some(JsonValue::Null) | None => JsonObject::new(),
        Some(other) => {
            fields.keep("metadata", other);
            JsonObject::new()
        }
    };
    fields.rest.retain(|_, value| *value != JsonValue::Null);
    if !fields.rest.is_empty() {
        metadata.insert(METADATA_KEY.to_owned(), JsonValue::Object(fields.rest));
    }
    shrink_to_limits(&mut metadata);

    Ok(TakenOver {
        id,
        create: Create {
            email,
            customer: (customer != Customer::default()).then_some(customer),
            coupon_code,
            metadata,
            source: Some(Source::Migration),
            claims: Some(claims),
            ..Create::default()
        },
    })
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

/// Drops the largest entries until the metadata fits; a note says which.
fn shrink_to_limits(metadata: &mut JsonObject) {
    let mut dropped = Vec::new();
    while json::check_limits(metadata).is_err() {
        let Some(largest) = metadata.iter().max_by_key(|(_, value)| json::weight(value)).map(|(key, _)| key.clone())
        else {
            return;
        };
        metadata.remove(&largest);
        dropped.push(JsonValue::String(largest.chars().take(64).collect()));
        if dropped.len() <= 20 {
            metadata.insert("legacyDropped".to_owned(), JsonValue::Array(dropped.clone()));
        }
    }
}

/// The fields of an entry that have not found their place yet.
struct Fields {
    rest: JsonObject,
}

impl Fields {
    #[inline(never)]
    fn take(&mut self, camel: &str, snake: &str) -> Option<JsonValue> {
        let value = self.rest.remove(camel).or_else(|| self.rest.remove(snake));
        value.filter(|value| *value != JsonValue::Null)
    }

    #[inline(never)]
    fn keep(&mut self, name: &str, value: JsonValue) {
        self.rest.insert(name.to_owned(), value);
    }

    #[inline(never)]
    fn text(&mut self, camel: &str, snake: &str) -> Option<String> {
        match self.take(camel, snake)? {
            JsonValue::String(text) if text.is_empty() => None,
            JsonValue::String(text) => Some(text),
            JsonValue::Integer(number) => Some(number.to_string()),
            other => {
                self.keep(camel, other);
                None
            }
        }
    }

    /// Text that can be a reference of the gateway; anything else stays where it was.
    #[inline(never)]
    fn reference(&mut self, camel: &str, snake: &str) -> Option<String> {
        let text = self.text(camel, snake)?;
        if text.chars().count() <= MAX_FIELD_CHARS && !text.chars().any(char::is_control) {
            return Some(text);
        }
        self.keep(camel, JsonValue::String(text));
        None
    }

    #[inline(never)]
    fn time(&mut self, camel: &str, snake: &str) -> Option<Timestamp> {
        match self.take(camel, snake)? {
            JsonValue::Integer(millis) => Some(Timestamp::from_millis(millis)),
            JsonValue::String(text) => match text.parse() {
                Ok(time) => Some(time),
                Err(_) => {
                    self.keep(camel, JsonValue::String(text));
                    None
                }
            },
            other => {
                self.keep(camel, other);
                None
            }
        }
    }

    fn money(&mut self, name: &str) -> Money {
        let Some(value) = self.take(name, name) else { return Money::ZERO };
        match read_money(&value) {
            Some((money, exact)) => {
                if !exact {
                    self.keep(name, value);
                }
                money
            }
            None => {
                self.keep(name, value);
                Money::ZERO
            }
        }
    }

    /// A customer's text field from a nested object; what does not fit stays in that object.
    #[inline(never)]
    fn field(object: &mut JsonObject, camel: &str, snake: &str) -> Option<String> {
        let key = if object.contains_key(camel) { camel } else { snake };
        match object.get(key) {
            Some(JsonValue::String(text))
                if text.chars().count() <= MAX_FIELD_CHARS && !text.chars().any(char::is_control) =>
            {
                let text = text.clone();
                object.remove(key);
                (!text.is_empty()).then_some(text)
            }
            _ => None,
        }
    }

    #[inline(never)]
    fn address(object: &mut JsonObject, with_names: bool) -> Option<Address> {
        let mut name = |camel: &str, snake: &str| with_names.then(|| Self::field(object, camel, snake)).flatten();
        let (first_name, last_name) = (name("firstName", "first_name"), name("lastName", "last_name"));
        let address = Address {
            first_name,
            last_name,
            address: Self::field(object, "address", "address"),
            city: Self::field(object, "city", "city"),
            state: Self::field(object, "state", "state"),
            zip_code: Self::field(object, "zipCode", "zip_code"),
            country: Self::field(object, "country", "country"),
        };
        (address != Address::default()).then_some(address)
    }

    fn nested<T>(&mut self, camel: &str, snake: &str, read: impl FnOnce(&mut JsonObject) -> T) -> Option<T> {
        match self.take(camel, snake)? {
            JsonValue::Object(mut object) => {
                let found = read(&mut object);
                if !object.is_empty() {
                    self.keep(camel, JsonValue::Object(object));
                }
                Some(found)
            }
            other => {
                self.keep(camel, other);
                None
            }
        }
    }

    /// The legacy customer is flat: its address is the billing address, unless that is given by itself.
    fn customer(&mut self) -> Customer {
        let mut customer = self
            .nested("customerInfo", "customer_info", |object| Customer {
                first_name: Self::field(object, "firstName", "first_name"),
                last_name: Self::field(object, "lastName", "last_name"),
                phone: Self::field(object, "phone", "phone"),
                billing: None,
                shipping: Self::address(object, false),
            })
            .unwrap_or_default();
        let own = customer.shipping.take();
        let billing = self.nested("billingInfo", "billing_info", |object| Self::address(object, true)).flatten();
        let shipping = self.nested("shippingInfo", "shipping_info", |object| Self::address(object, true)).flatten();
        match (billing, shipping) {
            (None, shipping) => {
                customer.billing = own;
                customer.shipping = shipping;
            }
            (billing, None) => {
                customer.billing = billing;
                customer.shipping = own;
            }
            (billing, shipping) => {
                customer.billing = billing;
                customer.shipping = shipping;
                if let Some(own) = own {
                    self.keep("customerAddress", address_as_json(&own));
                }
            }
        }
        customer
    }

    fn products(&mut self) -> Vec<ClaimedItem> {
        let products = match self.take("products", "products") {
            Some(JsonValue::Array(products)) => products,
            Some(other) => {
                self.keep("products", other);
                return Vec::new();
            }
            None => return Vec::new(),
        };
        let mut unreadable = Vec::new();
        let mut items = Vec::new();
        for product in products {
            match read_product(&product) {
                Some((item, is_exact)) => {
                    items.push(item);
                    if !is_exact {
                        unreadable.push(product);
                    }
                }
                None => unreadable.push(product),
            }
        }
        if !unreadable.is_empty() {
            self.keep("products", JsonValue::Array(unreadable));
        }
        items
    }

    fn upsells(&mut self) -> (Vec<ClaimedUpsell>, Vec<String>) {
        let details = match self.rest.get("upsells") {
            Some(JsonValue::Array(details)) => details.clone(),
            _ => Vec::new(),
        };
        let detail = |code: &str| {
            details.iter().find_map(|detail| match detail {
                JsonValue::Object(object) if object.get("productCode") == Some(&code.into()) => Some(object),
                _ => None,
            })
        };
        let mut accepted = self.texts("upsellsAccepted", "upsells_accepted");
        for object in &details {
            if let JsonValue::Object(object) = object
                && let Some(JsonValue::String(code)) = object.get("productCode")
                && !accepted.contains(code)
            {
                accepted.push(code.clone());
            }
        }
        let accepted = accepted
            .into_iter()
            .map(|code| ClaimedUpsell {
                amount: detail(&code).and_then(|d| d.get("amount")).and_then(read_money).map(|(money, _)| money),
                transaction_id: detail(&code).and_then(|d| d.get("transactionId")).and_then(|id| match id {
                    JsonValue::String(id) => Some(id.clone()),
                    _ => None,
                }),
                code,
            })
            .collect();
        // What is left of the details (bottles, times) stays in the metadata, without the payment references.
        if let Some(JsonValue::Array(kept)) = self.rest.get_mut("upsells") {
            for detail in kept {
                if let JsonValue::Object(object) = detail {
                    object.remove("transactionId");
                }
            }
        }
        (accepted, self.texts("upsellsDeclined", "upsells_declined"))
    }

    fn texts(&mut self, camel: &str, snake: &str) -> Vec<String> {
        let Some(value) = self.take(camel, snake) else { return Vec::new() };
        let JsonValue::Array(values) = value else {
            self.keep(camel, value);
            return Vec::new();
        };
        let (texts, others): (Vec<_>, Vec<_>) =
            values.into_iter().partition(|value| matches!(value, JsonValue::String(_)));
        if !others.is_empty() {
            self.keep(camel, JsonValue::Array(others));
        }
        texts
            .into_iter()
            .filter_map(|value| if let JsonValue::String(text) = value { Some(text) } else { None })
            .collect()
    }
}

fn address_as_json(address: &Address) -> JsonValue {
    let mut object = JsonObject::new();
    for (name, value) in address.fields() {
        if let Some(text) = value {
            object.insert(name.to_owned(), JsonValue::String(text.clone()));
        }
    }
    JsonValue::Object(object)
}

/// Dollars as number or text, as minor units; and whether that is exact.
fn read_money(value: &JsonValue) -> Option<(Money, bool)> {
    match value {
        JsonValue::Integer(dollars) => Money::from_major_float(*dollars as f64),
        JsonValue::Float(dollars) => Money::from_major_float(*dollars),
        JsonValue::String(text) => Money::from_major_decimal(text.trim_start_matches('$')),
        _ => None,
    }
}

/// A product line; and whether nothing of it was lost. Ids get the characters that today's may have.
fn read_product(value: &JsonValue) -> Option<(ClaimedItem, bool)> {
    let JsonValue::Object(product) = value else { return None };
    let text = |name: &str| match product.get(name) {
        Some(JsonValue::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(JsonValue::Integer(number)) => Some(number.to_string()),
        _ => None,
    };
    let name = text("name").or_else(|| text("id"))?;
    let legacy_id = text("id").unwrap_or_else(|| name.clone());
    let id: String = legacy_id
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':') { c } else { '-' })
        .take(64)
        .collect();
    ProductId::new(id.clone()).ok()?;
    let (price, is_exact) = read_money(product.get("price")?)?;
    let quantity = match product.get("quantity") {
        Some(JsonValue::Integer(quantity)) => u32::try_from(*quantity).ok().filter(|quantity| *quantity > 0),
        Some(JsonValue::String(text)) => text.parse().ok().filter(|quantity| *quantity > 0),
        None => Some(1),
        Some(_) => None,
    }?;
    let known = ["id", "name", "price", "quantity"];
    let is_complete = is_exact && id == legacy_id && product.keys().all(|key| known.contains(&key.as_str()));
    (price >= Money::ZERO).then_some((ClaimedItem { id, name, price, quantity }, is_complete))
}
