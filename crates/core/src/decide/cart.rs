//! What is bought, by whom, at which prices: everything that may change before a payment is under way.

use super::{Decider, Decision, reject};
use crate::command::ItemRequest;
use crate::customer::{Customer, EmailAddress, InvalidEmailAddress, MAX_FIELD_CHARS};
use crate::event::Event;
use crate::funnel::Funnel;
use crate::json;
use crate::json::JsonObject;
use crate::json::digits;
use crate::money::Money;
use crate::permission::Role;
use crate::prelude::*;
use crate::pricing;
use crate::rejection::{Rejection, RejectionCode as Code};
use crate::session::{Adjustments, PriceSource, Session};

impl Decider<'_> {
    pub(super) fn set_email(&self, text: &str) -> Decision {
        self.check_editable()?;
        let email = read_email(text)?;
        Ok(if email == self.session.email { vec![] } else { vec![Event::EmailSet { email }] })
    }

    pub(super) fn set_customer(&self, patch: &Customer) -> Decision {
        self.check_editable()?;
        check_customer(patch)?;
        let mut customer = self.session.customer.clone();
        customer.merge(patch);
        if customer == self.session.customer {
            return Ok(vec![]);
        }
        let mut events = vec![Event::CustomerSet { customer: customer.clone() }];
        if self.session.adjustments.set_by != PriceSource::Service {
            let coupon = self.session.coupon_code.as_deref();
            let adjustments = pricing::adjust(&self.session.products, coupon, &customer, self.context.funnel);
            events.extend(self.adjusted(adjustments));
        }
        Ok(events)
    }

    pub(super) fn set_items(&self, requests: &[ItemRequest]) -> Decision {
        self.check_editable()?;
        self.check_confirmed()?;
        self.check_own_prices()?;
        let items = pricing::price_items(requests, self.role, self.context.funnel)?;
        if items == self.session.products {
            return Ok(vec![]);
        }
        let coupon = self.session.coupon_code.as_deref();
        let adjustments = pricing::adjust(&items, coupon, &self.session.customer, self.context.funnel);
        let mut events = vec![Event::ItemsSet { items }];
        events.extend(self.adjusted(adjustments));
        Ok(events)
    }

    pub(super) fn set_coupon(&self, code: Option<&str>) -> Decision {
        self.check_editable()?;
        self.check_own_prices()?;
        let code = match code.map(str::trim) {
            None | Some("") => None,
            Some(code) => Some(read_coupon(code, self.context.funnel)?),
        };
        if code == self.session.coupon_code {
            return Ok(vec![]);
        }
        let Session { products, customer, .. } = self.session;
        let adjustments = pricing::adjust(products, code.as_deref(), customer, self.context.funnel);
        let mut events = vec![Event::CouponSet { code }];
        events.extend(self.adjusted(adjustments));
        Ok(events)
    }

    /// What the shop itself has priced, a browser can't price again by the catalogue.
    fn check_own_prices(&self) -> Result<(), Rejection> {
        let Session { adjustments, products, .. } = self.session;
        let by_service = adjustments.set_by == PriceSource::Service
            || products.iter().any(|item| item.price_source == PriceSource::Service);
        if by_service && self.role == Role::Browser {
            return reject(
                Code::PriceNotAllowed,
                &["the shop has priced this order; only the shop can change what is in it"],
            );
        }
        Ok(())
    }

    pub(super) fn set_adjustments(
        &self,
        discount: Option<Money>,
        shipping: Option<Money>,
        tax: Option<Money>,
    ) -> Decision {
        self.check_editable()?;
        for (name, amount) in [("discount", discount), ("shipping", shipping), ("tax", tax)] {
            if let Some(amount) = amount.filter(|amount| !amount.is_price()) {
                let message =
                    &[name, " is ", &digits(amount.minor()), "; 0 to ", &digits(Money::MAX.minor()), " are possible"];
                return reject(Code::InvalidAmount, message);
            }
        }
        let current = self.session.adjustments;
        let adjustments = Adjustments {
            discount: discount.unwrap_or(current.discount),
            shipping: shipping.unwrap_or(current.shipping),
            tax: tax.unwrap_or(current.tax),
            set_by: PriceSource::Service,
        };
        Ok(self.adjusted(adjustments).into_iter().collect())
    }

    pub(super) fn adjusted(&self, adjustments: Adjustments) -> Option<Event> {
        (adjustments != self.session.adjustments).then_some(Event::AdjustmentsSet { adjustments })
    }

    pub(super) fn set_metadata(&self, patch: &JsonObject) -> Decision {
        if self.role == Role::Browser {
            self.check_alive()?;
        }
        let mut metadata = self.session.metadata.clone();
        json::merge_patch(&mut metadata, patch);
        check_metadata(&metadata)?;
        // Nulls in a patch count as well: the event is as large as the patch.
        check_metadata(patch)?;
        Ok(if metadata == self.session.metadata {
            vec![]
        } else {
            vec![Event::MetadataSet { metadata: patch.clone() }]
        })
    }
}

pub(super) fn read_email(text: &str) -> Result<Option<EmailAddress>, Rejection> {
    if text.is_empty() {
        return Ok(None);
    }
    match EmailAddress::new(text) {
        Ok(email) => Ok(Some(email)),
        Err(InvalidEmailAddress) => reject(Code::InvalidField, &["email: ", InvalidEmailAddress::SENTENCE]),
    }
}

pub(super) fn check_customer(customer: &Customer) -> Result<(), Rejection> {
    match customer.first_invalid_field() {
        None => Ok(()),
        Some(field) => reject(
            Code::InvalidField,
            &[
                "customer.",
                &field,
                " is longer than ",
                &digits(MAX_FIELD_CHARS as i64),
                " characters or holds control characters",
            ],
        ),
    }
}

pub(super) fn check_metadata(metadata: &JsonObject) -> Result<(), Rejection> {
    match json::check_limits(metadata) {
        Ok(()) => Ok(()),
        Err(limit) => reject(Code::MetadataTooLarge, &["the metadata has ", &limit.sentence()]),
    }
}

pub(super) fn read_coupon(code: &str, funnel: &Funnel) -> Result<String, Rejection> {
    match funnel.coupon(code.trim()) {
        Some(coupon) => Ok(coupon.code.clone()),
        None => reject(Code::UnknownCoupon, &["this coupon is not known; check its spelling"]),
    }
}
