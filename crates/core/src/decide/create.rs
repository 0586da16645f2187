//! How a session begins.

use super::cart::{check_customer, check_metadata, read_coupon, read_email};
use super::{Context, Decision, reject};
use crate::claims::Claims;
use crate::command::{Create, ItemRequest};
use crate::customer::Customer;
use crate::event::Event;
use crate::identifier::ProductId;
use crate::json;
use crate::json::digits;
use crate::json::{JsonObject, JsonValue};
use crate::legacy;
use crate::money::Money;
use crate::permission::Role;
use crate::prelude::*;
use crate::pricing;
use crate::rejection::{Rejection, RejectionCode as Code};
use crate::session::{Adjustments, FunnelRef, Item, PriceSource, Source};
use crate::time::{TimeSpan, Timestamp};

pub(super) fn decide_create(create: &Create, role: Role, context: &Context<'_>) -> Decision {
    let Context { now, funnel, .. } = *context;
    let Some(first) = funnel.first_step() else {
        return reject(Code::UnknownFunnel, &["the funnel ", funnel.id.as_str(), " has no steps"]);
    };
    let is_own_id = match &create.claims {
        None => context.session_id.is_generated(),
        Some(_) => context.session_id.is_legacy(),
    };
    if role == Role::Browser && !is_own_id {
        let message = &["a browser can't choose a session's id; let one be generated"];
        return reject(Code::NotPermitted, message);
    }
    let chosen = create.funnel.as_ref();
    if chosen.is_some_and(|choice| choice.id != funnel.id || choice.version.is_some_and(|v| v != funnel.version)) {
        return reject(Code::UnknownFunnel, &["the funnel that was asked for is not known here"]);
    }

    let email = create.email.as_deref().map(read_email).transpose()?.flatten();
    let customer = create.customer.clone().unwrap_or_default();
    check_customer(&customer)?;
    let mut items = pricing::price_items(&create.products, role, funnel)?;
    if let Some(claims) = &create.claims {
        check_claims(claims)?;
        items.extend(claims.products.iter().filter_map(|claimed| {
            let id = ProductId::new(claimed.id.clone()).ok()?;
            let quantity = claimed.quantity.clamp(1, pricing::MAX_QUANTITY);
            let request = ItemRequest { id: id.clone(), quantity, name: None, price: None };
            // The catalogue's price counts where there is one; a price that only the browser knows can't be paid yet.
            let priced = pricing::price_items(&[request], Role::Browser, funnel).ok().and_then(|mut one| one.pop());
            Some(priced.unwrap_or_else(|| Item {
                id,
                name: claimed.name.chars().filter(|c| !c.is_control()).take(pricing::MAX_NAME_CHARS).collect(),
                price: claimed.price.clamp(Money::ZERO, Money::MAX),
                quantity,
                price_source: PriceSource::Claimed,
            }))
        }));
        items.truncate(pricing::MAX_ITEMS);
    }
    let mut metadata = create.metadata.clone();
    let coupon = match (create.coupon_code.as_deref(), &create.claims) {
        (None, _) => None,
        (Some(code), None) => Some(read_coupon(code, funnel)?),
        // A session that is taken over must not be lost for a coupon that the funnel does not know any more.
        (Some(code), Some(_)) => read_coupon(code, funnel).ok().or_else(|| {
            keep_unknown_coupon(&mut metadata, code);
            None
        }),
    };
    check_metadata(&metadata)?;

    let source = match (&create.claims, create.source, role) {
        (Some(_), _, _) => Source::Migration,
        (None, Some(source), Role::Service) => source,
        (None, _, Role::Browser) => Source::Client,
        (None, _, _) => Source::Api,
    };
    let lifetime = create.ttl_ms.map_or(funnel.lifetime.default, |ttl| TimeSpan::from_millis(ttl.into()));
    let expires_at = now.plus(lifetime.min(funnel.lifetime.max));
    let (began_at, expires_at) = match &create.claims {
        Some(claims) => claimed_times(claims, now, expires_at),
        None => (None, expires_at),
    };

    let mut events = vec![Event::Created {
        id: context.session_id.clone(),
        epoch: context.epoch,
        claim: context.claim.map(str::to_owned),
        funnel: FunnelRef { id: funnel.id.clone(), version: funnel.version },
        currency: funnel.currency,
        step: first.id.clone(),
        source,
        expires_at,
        began_at,
        idle: funnel.lifetime.idle,
    }];
    if email.is_some() {
        events.push(Event::EmailSet { email });
    }
    let adjustments = pricing::adjust(&items, coupon.as_deref(), &customer, funnel);
    if customer != Customer::default() {
        events.push(Event::CustomerSet { customer });
    }
    if !items.is_empty() {
        events.push(Event::ItemsSet { items });
    }
    if coupon.is_some() {
        events.push(Event::CouponSet { code: coupon });
    }
    if adjustments != Adjustments::default() {
        events.push(Event::AdjustmentsSet { adjustments });
    }
    if !metadata.is_empty() {
        events.push(Event::MetadataSet { metadata });
    }
    if let Some(claims) = &create.claims {
        events.push(Event::ClaimsMade { claims: claims.clone() });
        if expires_at <= now {
            events.push(Event::Expired {});
        }
    }
    Ok(events)
}

/// Claimed amounts are not believed, but they are kept and sent: in a JavaScript number they have to stay exact.
pub(super) fn check_claims(claims: &Claims) -> Result<(), Rejection> {
    let prices = claims.products.iter().map(|claimed| claimed.price);
    let charges = claims.accepted.iter().filter_map(|claimed| claimed.amount);
    let mut amounts = prices.chain(charges).chain([claims.amount]);
    match amounts.find(|amount| amount.minor().unsigned_abs() > Money::MAX.minor().unsigned_abs()) {
        None => Ok(()),
        Some(amount) => reject(
            Code::InvalidAmount,
            &["the claimed amount ", &digits(amount.minor()), " is larger than ", &digits(Money::MAX.minor())],
        ),
    }
}

/// When a session that is taken over began and ends. A browser can't name a time in the future, nor a longer life than
/// any other; and where a payment is claimed the session lives on until a service had time to look at it.
pub(super) fn claimed_times(claims: &Claims, now: Timestamp, latest_end: Timestamp) -> (Option<Timestamp>, Timestamp) {
    let began_at = claims.created_at.filter(|began| *began <= now);
    let ends_at = claims.expires_at.unwrap_or(latest_end).min(latest_end);
    (began_at, if claims.claim_payment() { latest_end } else { ends_at })
}

pub(super) fn keep_unknown_coupon(metadata: &mut JsonObject, code: &str) {
    let mut with_coupon = metadata.clone();
    let coupon = JsonObject::from([("couponCode".to_owned(), code.into())]);
    let kept = JsonObject::from([(legacy::METADATA_KEY.to_owned(), JsonValue::Object(coupon))]);
    if matches!(metadata.get(legacy::METADATA_KEY), None | Some(JsonValue::Object(_))) {
        json::merge_patch(&mut with_coupon, &kept);
    }
    // Where there is no room for it, everything else matters more.
    if json::check_limits(&with_coupon).is_ok() {
        *metadata = with_coupon;
    }
}
