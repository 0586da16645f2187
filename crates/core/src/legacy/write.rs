//! A session of today in the shapes of the legacy systems, for code that has not moved yet and for going back.
//!
//! Strict: every field that a legacy reader looks at is there, in its own words. What those have no word for is left out: an offer that
//! is open or lapsed, who set a price, when a step was entered.

use super::fields::DETAILS;
use crate::claims::Claims;
use crate::customer::{Address, Customer};
use crate::json::{JsonObject, JsonValue};
use crate::money::Money;
use crate::prelude::*;
use crate::session::{OfferState, Session, Status, Upsell};
use crate::time::{TimeSpan, Timestamp};

/// How long the legacy cookie was good: 30 minutes.
const COOKIE_LIFETIME: TimeSpan = TimeSpan::from_millis(30 * 60_000);

/// The row of `funnel_sessions`. For the shop's back end: it holds what no browser may see.
#[must_use]
pub fn write_row(session: &Session) -> JsonObject {
    let claims = session.claims.as_ref();
    let claimed = |of: fn(&Claims) -> &Option<String>| claims.and_then(|claims| of(claims).clone());
    let vault_id = session.vault_id.clone().or_else(|| claimed(|claims| &claims.vault_id));
    let transaction_id = session.transaction_id.clone().or_else(|| claimed(|claims| &claims.transaction_id));
    JsonObject::from([
        ("id".to_owned(), session.id.as_str().into()),
        ("email".to_owned(), email(session)),
        ("customer_info".to_owned(), JsonValue::Object(customer_info(session))),
        ("products".to_owned(), products(session)),
        ("status".to_owned(), status(session, "pending").into()),
        ("amount".to_owned(), dollars(session.totals.subtotal)),
        ("current_step".to_owned(), row_step(session).into()),
        // Who reads a row takes what was accepted for charged.
        ("upsells_accepted".to_owned(), offers(session, |state| state == OfferState::Charged)),
        ("upsells_declined".to_owned(), offers(session, |state| state == OfferState::Declined)),
        ("vault_id".to_owned(), text(&vault_id)),
        ("transaction_id".to_owned(), text(&transaction_id)),
        ("payment_token".to_owned(), text(&session.payment_token)),
        ("coupon_code".to_owned(), text(&session.coupon_code)),
        ("metadata".to_owned(), JsonValue::Object(row_metadata(session))),
        ("created_at".to_owned(), time(session.created_at)),
        ("updated_at".to_owned(), time(session.updated_at)),
        ("expires_at".to_owned(), time(session.expires_at)),
    ])
}

/// The claims of the cookie `upsell_session`, as made at `now`; nothing before the session is paid, as then. For the shop's back end: it
/// holds what no browser may see.
#[must_use]
pub fn write_cookie_claims(session: &Session, now: Timestamp) -> Option<JsonObject> {
    let word = |value: &Option<String>| value.as_deref().unwrap_or_default().into();
    let state = flat_address(&session.customer).and_then(|address| address.state.clone());
    let mut claims = JsonObject::from([
        ("id".to_owned(), session.id.as_str().into()),
        ("vaultId".to_owned(), word(&session.vault_id)),
        ("customerId".to_owned(), word(&session.customer_id)),
        ("email".to_owned(), session.email.as_ref().map_or("", |email| email.as_str()).into()),
        ("firstName".to_owned(), word(&session.customer.first_name)),
        ("lastName".to_owned(), word(&session.customer.last_name)),
        ("transactionId".to_owned(), word(&session.transaction_id)),
        ("createdAt".to_owned(), JsonValue::Integer(now.as_millis())),
        ("expiresAt".to_owned(), JsonValue::Integer(now.plus(COOKIE_LIFETIME).as_millis())),
    ]);
    if let Some(state) = state {
        claims.insert("state".to_owned(), JsonValue::String(state));
    }
    session.is_paid().then_some(claims)
}

/// The entry of the localStorage key `webseed_funnel_sessions`, with nothing that a browser may not see.
#[must_use]
pub fn write_browser_entry(session: &Session) -> JsonObject {
    let mut entry = JsonObject::from([
        ("id".to_owned(), session.id.as_str().into()),
        ("email".to_owned(), email(session)),
        ("customerInfo".to_owned(), JsonValue::Object(customer_info(session))),
        ("products".to_owned(), products(session)),
        ("status".to_owned(), status(session, "initiated").into()),
        ("amount".to_owned(), dollars(session.totals.subtotal)),
        ("currentStep".to_owned(), session.current_step.as_str().into()),
        ("upsellsAccepted".to_owned(), offers(session, OfferState::is_bought)),
        ("upsellsDeclined".to_owned(), offers(session, |state| state == OfferState::Declined)),
        ("createdAt".to_owned(), time(session.created_at)),
        ("updatedAt".to_owned(), time(session.updated_at)),
        ("expiresAt".to_owned(), time(session.expires_at)),
        ("metadata".to_owned(), JsonValue::Object(session.metadata.clone())),
    ]);
    let customer = &session.customer;
    let parts = [("billingInfo", &customer.billing), ("shippingInfo", &customer.shipping)];
    for (name, part) in parts {
        if let Some(part) = part {
            entry.insert(name.to_owned(), JsonValue::Object(address(part)));
        }
    }
    if let Some(code) = &session.coupon_code {
        entry.insert("couponCode".to_owned(), JsonValue::String(code.clone()));
    }
    entry
}

/// In the legacy systems' words. They had none for "paid, and offers are open".
fn status(session: &Session, pending: &'static str) -> &'static str {
    let is_unsettled = session.claims.as_ref().is_some_and(Claims::claim_payment);
    match session.status {
        _ if session.is_paid() => "completed",
        Status::Pending | Status::Expired if is_unsettled => "processing",
        Status::Pending => pending,
        other => other.as_str(),
    }
}

fn row_step(session: &Session) -> &str {
    let is_unsettled = session.claims.as_ref().is_some_and(Claims::claim_payment);
    match session.status {
        Status::Failed => "failed",
        // A late read turned the status to expired; the step went on saying why.
        Status::Expired if session.payment.failure.is_some() => "failed",
        Status::Pending | Status::Expired if is_unsettled => "payment_processing",
        Status::Completed => "success",
        _ => session.current_step.as_str(),
    }
}

fn email(session: &Session) -> JsonValue {
    session.email.as_ref().map_or("", |email| email.as_str()).into()
}

fn text(value: &Option<String>) -> JsonValue {
    value.as_deref().map_or(JsonValue::Null, JsonValue::from)
}

fn time(time: Timestamp) -> JsonValue {
    JsonValue::String(time.to_string())
}

/// An amount as the legacy systems kept it: dollars in floating point.
fn dollars(amount: Money) -> JsonValue {
    // Two decimal places are the nearest that there is, which is what every reader rounds to.
    (amount.minor() as f64 / 100.0).into()
}

fn products(session: &Session) -> JsonValue {
    let product = |item: &crate::Item| {
        JsonValue::Object(JsonObject::from([
            ("id".to_owned(), item.id.as_str().into()),
            ("name".to_owned(), item.name.as_str().into()),
            ("price".to_owned(), dollars(item.price)),
            ("quantity".to_owned(), JsonValue::Integer(item.quantity.into())),
        ]))
    };
    JsonValue::Array(session.products.iter().map(product).collect())
}

fn offers(session: &Session, fits: impl Fn(OfferState) -> bool) -> JsonValue {
    let fitting = session.upsells.iter().filter(|upsell| fits(upsell.state));
    JsonValue::Array(fitting.map(|upsell| upsell.offer.as_str().into()).collect())
}

fn address(address: &Address) -> JsonObject {
    let named =
        address.fields().into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.as_deref()?.into())));
    named.collect()
}

/// The one address that legacy readers look at, as for the tax.
fn flat_address(customer: &Customer) -> Option<&Address> {
    customer.ships_to().or(customer.shipping.as_ref())
}

/// Flat: the address beside the name is the one that the goods go to.
fn customer_info(session: &Session) -> JsonObject {
    let customer = &session.customer;
    let flat = flat_address(customer).map(Address::without_names);
    let mut info = flat.as_ref().map(address).unwrap_or_default();
    for (name, value) in
        [("firstName", &customer.first_name), ("lastName", &customer.last_name), ("phone", &customer.phone)]
    {
        if let Some(value) = value {
            info.insert(name.to_owned(), value.as_str().into());
        }
    }
    info
}

/// The addresses of which the flat one does not say everything: that of the bill, and that of the goods.
fn beside_the_flat_one(customer: &Customer) -> (Option<&Address>, Option<&Address>) {
    let is_all =
        |address: &Address| Some(address.without_names()) == flat_address(customer).map(Address::without_names);
    let is_named = |address: &Address| address.first_name.is_some() || address.last_name.is_some();
    let says_more = |address: &&Address| is_named(address) || !is_all(address);
    let says_something = |address: &&Address| is_named(address) || address.without_names() != Address::default();
    match (customer.billing.as_ref().filter(says_something), customer.shipping.as_ref().filter(says_something)) {
        (billing, None) => (billing.filter(says_more), None),
        // Without it the flat one would be taken for that of the bill.
        (None, shipping) => (None, shipping),
        // With a bill beside it the flat one is that of the goods, unless both are the same.
        (Some(billing), Some(shipping)) => {
            let is_same = billing.without_names() == shipping.without_names();
            (Some(billing), Some(shipping).filter(|shipping| is_same || says_more(shipping)))
        }
    }
}

/// Says of each extra that was charged by which transaction, where the shop has written down what it has sold.
fn write_charges(session: &Session, metadata: &mut JsonObject) {
    let mut details = match metadata.remove(DETAILS) {
        None => Vec::new(),
        Some(JsonValue::Array(details)) => details,
        Some(other) => {
            metadata.insert(DETAILS.to_owned(), other);
            return;
        }
    };
    for upsell in &session.upsells {
        let Some(transaction) = upsell.transaction_id.as_deref().filter(|_| upsell.state == OfferState::Charged) else {
            continue;
        };
        let told = details.iter_mut().find_map(|detail| match detail {
            JsonValue::Object(detail) if detail.get("productCode") == Some(&upsell.offer.as_str().into()) => {
                Some(detail)
            }
            _ => None,
        });
        match told {
            Some(detail) => {
                detail.insert("transactionId".to_owned(), transaction.into());
            }
            None => details.push(JsonValue::Object(charge(upsell, transaction))),
        }
    }
    if !details.is_empty() {
        metadata.insert(DETAILS.to_owned(), JsonValue::Array(details));
    }
}

fn charge(upsell: &Upsell, transaction: &str) -> JsonObject {
    let mut detail = JsonObject::from([
        ("productCode".to_owned(), upsell.offer.as_str().into()),
        ("amount".to_owned(), dollars(upsell.price)),
        ("tax".to_owned(), dollars(upsell.tax)),
        ("transactionId".to_owned(), transaction.into()),
    ]);
    if let Some(number) = upsell.step.as_str().strip_prefix("upsell-").and_then(|number| number.parse().ok()) {
        detail.insert("step".to_owned(), JsonValue::Integer(number));
    }
    detail
}

/// The row has no other place for the sums, for a second address and for the charges of extras.
fn row_metadata(session: &Session) -> JsonObject {
    let mut metadata = session.metadata.clone();
    if let (Status::Failed | Status::Expired, Some(failure)) = (session.status, &session.payment.failure) {
        metadata.insert("error".to_owned(), failure.message.as_str().into());
        if session.status == Status::Failed {
            metadata.insert("failed_at".to_owned(), time(session.updated_at));
        }
    }
    let (second, third) = beside_the_flat_one(&session.customer);
    for (name, beside) in [("billingInfo", second), ("shippingInfo", third)] {
        if let Some(beside) = beside {
            metadata.insert(name.to_owned(), JsonValue::Object(address(beside)));
        }
    }
    write_charges(session, &mut metadata);
    // `totalAmount` was worked out before the first offer.
    let before_offers = session.upsells.iter().filter(|upsell| upsell.state.is_bought());
    let offers = before_offers.fold(Money::ZERO, |sum, upsell| sum.plus(upsell.price).plus(upsell.tax));
    let total = session.payment.amount.unwrap_or_else(|| session.totals.total.minus_at_most_all(offers));
    let sums = [
        ("subtotal", session.totals.subtotal),
        ("discount", session.adjustments.discount),
        ("shipping", session.adjustments.shipping),
        ("tax", session.adjustments.tax),
        ("totalAmount", total),
    ];
    for (name, amount) in sums {
        metadata.insert(name.to_owned(), dollars(amount));
    }
    metadata
}
