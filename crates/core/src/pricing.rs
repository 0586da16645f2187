//! Prices, discounts, shipping and tax by the funnel's rules.

use crate::command::ItemRequest;
use crate::customer::{Customer, is_clean};
use crate::funnel::{Discount, Funnel};
use crate::json::digits;
use crate::money::{Money, Rate};
use crate::permission::Role;
use crate::prelude::*;
use crate::rejection::{Rejection, RejectionCode};
use crate::session::{Adjustments, Item, PriceSource};

/// How many product lines a session has at most.
pub const MAX_ITEMS: usize = 100;
/// How many of one product a line has at most.
pub const MAX_QUANTITY: u32 = 999;
/// How long a product's name is at most, in characters.
pub const MAX_NAME_CHARS: usize = 200;

/// Turns wished product lines into priced ones. Only a service may name prices.
pub fn price_items(requests: &[ItemRequest], role: Role, funnel: &Funnel) -> Result<Vec<Item>, Rejection> {
    if requests.len() > MAX_ITEMS {
        let message = &[
            &digits(requests.len() as i64),
            " product lines are too many; at most ",
            &digits(MAX_ITEMS as i64),
            " are allowed",
        ];
        return Err(Rejection::because(RejectionCode::InvalidQuantity, message));
    }
    requests.iter().map(|request| price_item(request, role, funnel)).collect()
}

fn price_item(request: &ItemRequest, role: Role, funnel: &Funnel) -> Result<Item, Rejection> {
    let id = &request.id;
    if !(1..=MAX_QUANTITY).contains(&request.quantity) {
        let message = &[
            "the quantity of ",
            id.as_str(),
            " is ",
            &digits(request.quantity.into()),
            "; 1 to ",
            &digits(MAX_QUANTITY.into()),
            " are possible",
        ];
        return Err(Rejection::because(RejectionCode::InvalidQuantity, message));
    }
    if role == Role::Browser && (request.price.is_some() || request.name.is_some()) {
        let message =
            &["a browser can't name the price or name of ", id.as_str(), "; it comes from the shop's catalogue"];
        return Err(Rejection::because(RejectionCode::PriceNotAllowed, message));
    }
    let product = funnel.product(id);
    let (price, price_source) = match (request.price, product) {
        (Some(price), _) if price.is_price() => (price, PriceSource::Service),
        (Some(price), _) => {
            let message = &[
                "the price ",
                &digits(price.minor()),
                " of ",
                id.as_str(),
                " is not between 0 and ",
                &digits(Money::MAX.minor()),
            ];
            return Err(Rejection::because(RejectionCode::InvalidAmount, message));
        }
        (None, Some(product)) => (product.price, PriceSource::Funnel),
        (None, None) => {
            let message = &["the product ", id.as_str(), " is not in the catalogue of the funnel ", funnel.id.as_str()];
            return Err(Rejection::because(RejectionCode::UnknownProduct, message));
        }
    };
    let name = match (&request.name, product) {
        (Some(name), _) => name.clone(),
        (None, Some(product)) => product.name.clone(),
        (None, None) => id.as_str().to_owned(),
    };
    if !is_clean(&name, MAX_NAME_CHARS) {
        let message = &[
            "the name of ",
            id.as_str(),
            " is longer than ",
            &digits(MAX_NAME_CHARS as i64),
            " characters or holds control characters",
        ];
        return Err(Rejection::because(RejectionCode::InvalidField, message));
    }
    Ok(Item { id: id.clone(), name, price, quantity: request.quantity, price_source })
}

/// Discount, shipping and tax of these products by the funnel's rules.
pub fn adjust(items: &[Item], coupon: Option<&str>, customer: &Customer, funnel: &Funnel) -> Adjustments {
    let subtotal = items.iter().fold(Money::ZERO, |sum, item| sum.plus(item.price.times(item.quantity)));
    let discount = match coupon.and_then(|code| funnel.coupon(code)).map(|coupon| coupon.discount) {
        Some(Discount::Percent(rate)) => rate.of(subtotal),
        Some(Discount::Amount(amount)) => amount.min(subtotal),
        None => Money::ZERO,
    };
    let rule = &funnel.shipping;
    let is_free = items.is_empty() || rule.free_from.is_some_and(|threshold| subtotal >= threshold);
    let shipping = if is_free { Money::ZERO } else { rule.flat };
    let tax = tax_rate(customer, funnel).of(subtotal.minus_at_most_all(discount));
    Adjustments { discount, shipping, tax, set_by: PriceSource::Funnel }
}

/// The tax rate of the state that the goods go to.
pub fn tax_rate(customer: &Customer, funnel: &Funnel) -> Rate {
    let state = customer.ships_to().and_then(|address| address.state.as_deref()).unwrap_or_default();
    let listed = funnel.tax.rates.iter().find(|(name, _)| name.eq_ignore_ascii_case(state));
    listed.map_or(Rate::default(), |(_, rate)| *rate)
}
