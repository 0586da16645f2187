//! Settling what a browser's legacy storage claimed.

use super::offers::made_offer_id;
use super::{Decider, Decision, check_reference, reject};
use crate::claims::Claims;
use crate::command::ConfirmedCharge;
use crate::event::Event;
use crate::funnel::StepKind;
use crate::identifier::OfferId;
use crate::money::Money;
use crate::prelude::*;
use crate::pricing;
use crate::rejection::RejectionCode as Code;
use crate::session::{Item, PriceSource, Session, Status};

impl Decider<'_> {
    pub(super) fn confirm_claims(
        &self,
        payment: (Option<&String>, Option<Money>),
        vault_id: &Option<String>,
        customer_id: &Option<String>,
        charges: &[ConfirmedCharge],
    ) -> Decision {
        let Some(claims) = &self.session.claims else {
            return reject(Code::NothingClaimed, &["this session has no claims to confirm"]);
        };
        let mut events = vec![Event::ClaimsConfirmed {}];
        if !claims.claim_payment() || self.session.is_paid() {
            return Ok(events);
        }
        let (Some(transaction_id), Some(amount)) = (payment.0, payment.1.filter(|amount| amount.is_price())) else {
            return reject(
                Code::InvalidField,
                &["a payment is claimed: name the gateway's transactionId, and the amount that it has"],
            );
        };
        check_reference("transactionId", transaction_id)?;
        for (name, value) in [("vaultId", vault_id), ("customerId", customer_id)] {
            value.as_deref().map_or(Ok(()), |text| check_reference(name, text))?;
        }
        for charge in charges {
            check_reference("charges.transactionId", &charge.transaction_id)?;
            if self.context.funnel.offer(&charge.offer).is_none() {
                return reject(Code::OfferNotMade, &["the funnel has no offer ", charge.offer.as_str()]);
            }
        }
        events.push(Event::PaymentRecorded {
            transaction_id: Some(transaction_id.clone()),
            amount,
            vault_id: vault_id.clone(),
            customer_id: customer_id.clone(),
            payment_token: None,
        });
        events.extend(self.claimed_offers(claims, charges));
        let is_over = claims.status == Status::Completed || self.context.now >= self.session.expires_at;
        let funnel = self.context.funnel;
        let claimed = funnel.step(&claims.step).filter(|step| step.kind == StepKind::Offer);
        let after_payment = funnel.step_of_kind(StepKind::Payment).and_then(|payment| payment.next.first());
        if is_over {
            events.push(Event::Completed {});
        } else if let Some(step) = claimed.or_else(|| after_payment.and_then(|id| funnel.step(id))) {
            let offered: Vec<OfferId> = events.iter().filter_map(made_offer_id).cloned().collect();
            events.extend(
                self.enter(step)
                    .into_iter()
                    .filter(|event| made_offer_id(event).is_none_or(|offer| !offered.contains(offer))),
            );
        }
        Ok(events)
    }

    /// The offers that the gateway has charged, as charged; those that are only claimed as lapsed or declined, so that nobody
    /// makes or charges them again.
    fn claimed_offers(&self, claims: &Claims, charges: &[ConfirmedCharge]) -> Vec<Event> {
        let mut events = Vec::new();
        for step in self.context.funnel.steps.iter() {
            for offer in step.offers.iter().filter(|offer| self.session.upsell(offer).is_none()) {
                let charge = charges.iter().find(|charge| charge.offer == *offer);
                let is_accepted = claims.accepted.iter().any(|claimed| claimed.code == offer.as_str());
                let is_declined = claims.declined.iter().any(|code| code == offer.as_str());
                let offer = offer.clone();
                let settled = match charge {
                    Some(charge) => vec![
                        Event::OfferAccepted { offer: offer.clone() },
                        Event::OfferCharged {
                            offer: offer.clone(),
                            transaction_id: Some(charge.transaction_id.clone()),
                        },
                    ],
                    None if is_accepted => vec![Event::OfferLapsed { offer: offer.clone() }],
                    None if is_declined => vec![Event::OfferDeclined { offer: offer.clone() }],
                    None => continue,
                };
                events.extend(self.make_offer(&offer, step));
                events.extend(settled);
            }
        }
        events
    }

    pub(super) fn refute_claims(&self) -> Decision {
        if self.session.claims.is_none() {
            return reject(Code::NothingClaimed, &["this session has no claims to refute"]);
        }
        let mut events = vec![Event::ClaimsRefuted {}];
        let rest: Vec<Item> =
            self.session.products.iter().filter(|item| item.price_source != PriceSource::Claimed).cloned().collect();
        let Session { coupon_code, customer, .. } = self.session;
        events.extend(self.adjusted(pricing::adjust(&rest, coupon_code.as_deref(), customer, self.context.funnel)));
        Ok(events)
    }
}
