//! Reading what may have been written by anybody: camelCase and snake_case, prices as number or text, missing fields. What can't
//! be read stays where it was, and ends up in the metadata.

use crate::claims::{ClaimedItem, ClaimedUpsell};
use crate::customer::{Address, Customer, MAX_FIELD_CHARS, is_clean};
use crate::identifier::ProductId;
use crate::json::{self, JsonObject, JsonValue};
use crate::money::Money;
use crate::prelude::*;
use crate::time::Timestamp;

/// The shop's list of the extras that it has sold, with what it has charged for each.
pub(super) const DETAILS: &str = "upsells";

/// Drops the largest entries until the metadata fits, and says so in it; `true` where that was needed.
pub(super) fn shrink_to_limits(metadata: &mut JsonObject) -> bool {
    let mut dropped = Vec::new();
    while json::check_limits(metadata).is_err() {
        let Some(largest) = metadata.iter().max_by_key(|(_, value)| json::weight(value)).map(|(key, _)| key.clone())
        else {
            return true;
        };
        metadata.remove(&largest);
        dropped.push(JsonValue::String(largest.chars().take(64).collect()));
        if dropped.len() <= 20 {
            metadata.insert("legacyDropped".to_owned(), JsonValue::Array(dropped.clone()));
        }
    }
    !dropped.is_empty()
}

/// The fields of an entry that have not found their place yet.
pub(super) struct Fields {
    pub(super) rest: JsonObject,
}

impl Fields {
    #[inline(never)]
    pub(super) fn take(&mut self, camel: &str, snake: &str) -> Option<JsonValue> {
        let value = self.rest.remove(camel).or_else(|| self.rest.remove(snake));
        value.filter(|value| *value != JsonValue::Null)
    }

    #[inline(never)]
    pub(super) fn keep(&mut self, name: &str, value: JsonValue) {
        self.rest.insert(name.to_owned(), value);
    }

    #[inline(never)]
    pub(super) fn text(&mut self, camel: &str, snake: &str) -> Option<String> {
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
    pub(super) fn reference(&mut self, camel: &str, snake: &str) -> Option<String> {
        let text = self.text(camel, snake)?;
        if text.chars().count() <= MAX_FIELD_CHARS && !text.chars().any(char::is_control) {
            return Some(text);
        }
        self.keep(camel, JsonValue::String(text));
        None
    }

    #[inline(never)]
    pub(super) fn time(&mut self, camel: &str, snake: &str) -> Option<Timestamp> {
        match self.take(camel, snake)? {
            JsonValue::Integer(millis) => Some(Timestamp::from_millis(millis)),
            // A column without a time zone holds UTC. PostgreSQL leaves the minutes of an offset out where there are none.
            JsonValue::String(text) => {
                let read = ["", "Z", ":00"].into_iter().find_map(|end| [text.as_str(), end].joined().parse().ok());
                if read.is_none() {
                    self.keep(camel, JsonValue::String(text));
                }
                read
            }
            other => {
                self.keep(camel, other);
                None
            }
        }
    }

    /// Dollars; what is no whole number of cents stays beside what became of it.
    pub(super) fn money(&mut self, name: &str) -> Option<Money> {
        let value = self.take(name, name)?;
        let read = read_money(&value).filter(|(money, _)| *money >= Money::ZERO);
        if read.is_none_or(|(_, is_exact)| !is_exact) {
            self.keep(name, value);
        }
        read.map(|(money, _)| money)
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
    pub(super) fn address(object: &mut JsonObject, with_names: bool) -> Option<Address> {
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

    pub(super) fn nested<T>(&mut self, camel: &str, snake: &str, read: impl FnOnce(&mut JsonObject) -> T) -> Option<T> {
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
    pub(super) fn customer(&mut self) -> Customer {
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
                let is_same = |own: &Address| shipping.as_ref().map(Address::without_names).as_ref() == Some(own);
                customer.billing = own.filter(|own| !is_same(own));
                customer.shipping = shipping;
            }
            (Some(billing), None) => {
                customer.shipping = own.filter(|own| *own != billing.without_names());
                customer.billing = Some(billing);
            }
            (Some(billing), Some(shipping)) => {
                let is_either = |own: &Address| *own == billing.without_names() || *own == shipping.without_names();
                if let Some(own) = own.filter(|own| !is_either(own)) {
                    self.keep("customerAddress", address_as_json(&own));
                }
                customer.billing = Some(billing);
                customer.shipping = Some(shipping);
            }
        }
        customer
    }

    pub(super) fn products(&mut self) -> Vec<ClaimedItem> {
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

    /// The extras that were accepted and declined, by their codes.
    pub(super) fn upsells(&mut self) -> (Vec<ClaimedUpsell>, Vec<String>) {
        let accepted = self.texts("upsellsAccepted", "upsells_accepted").into_iter();
        let accepted = accepted.map(|code| ClaimedUpsell { code, amount: None, transaction_id: None }).collect();
        (accepted, self.texts("upsellsDeclined", "upsells_declined"))
    }

    /// What was charged for them, put to `accepted`; an extra for which several charges are listed is there several times. What is left
    /// of the list (bottles, times) stays, without the transactions: browsers see the metadata.
    pub(super) fn charges(&mut self, accepted: &mut Vec<ClaimedUpsell>) {
        let Some(JsonValue::Array(details)) = self.rest.get_mut(DETAILS) else { return };
        let mut told: Vec<ClaimedUpsell> = Vec::new();
        details.retain_mut(|detail| {
            let JsonValue::Object(detail) = detail else { return true };
            let Some(JsonValue::String(code)) = detail.get("productCode").cloned() else { return true };
            let transaction = detail.remove("transactionId").or_else(|| detail.remove("transaction_id"));
            let transaction_id = match transaction {
                Some(JsonValue::String(id)) if is_clean(&id, MAX_FIELD_CHARS) && !id.is_empty() => Some(id),
                Some(JsonValue::Integer(id)) => Some(id.to_string()),
                _ => None,
            };
            let amount = detail.get("amount").and_then(read_money).map(|(amount, _)| amount);
            let amount = amount.filter(|amount| *amount >= Money::ZERO);
            told.push(ClaimedUpsell { code, amount, transaction_id: transaction_id.clone() });
            // What a charge made here is written down as says nothing more.
            let says_more = |name: &String| !["productCode", "amount", "tax", "step"].contains(&name.as_str());
            transaction_id.is_none() || detail.keys().any(says_more)
        });
        if details.is_empty() && !told.is_empty() {
            self.rest.remove(DETAILS);
        }
        for charge in told {
            match accepted.iter_mut().find(|accepted| accepted.code == charge.code) {
                Some(known) if known.transaction_id.is_none() && known.amount.is_none() => *known = charge,
                Some(known) if known.transaction_id == charge.transaction_id => {}
                _ => accepted.push(charge),
            }
        }
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
