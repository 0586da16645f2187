//! Settling what a browser's legacy storage claimed.

use super::offers::made_offer_id;
use super::{Decider, Decision, check_reference, reject};
use crate::claims::Claims;
use crate::event::Event;
use crate::funnel::StepKind;
use crate::identifier::OfferId;
use crate::pricing;
use crate::rejection::RejectionCode as Code;
use crate::session::{Item, PriceSource, Session, Status};

impl Decider<'_> {
    pub(super) fn confirm_claims(
        &self,
        transaction_id: Option<&str>,
        vault_id: Option<&str>,
        customer_id: Option<&str>,
    ) -> Decision {
        let Some(claims) = &self.session.claims else {
            return reject(Code::NothingClaimed, format_args!("this session has no claims to confirm"));
        };
        let mut events = vec![Event::ClaimsConfirmed {}];
        if !claims.claim_payment() || self.session.is_paid() {
            return Ok(events);
        }
        let Some(transaction_id) = transaction_id.or(claims.transaction_id.as_deref()) else {
            return reject(
                Code::InvalidField,
                format_args!("transactionId: a payment is claimed, so name the gateway's transaction"),
            );
        };
        check_reference("transactionId", transaction_id)?;
        events.push(Event::PaymentRecorded {
            transaction_id: Some(transaction_id.to_owned()),
            amount: self.session.amount,
            vault_id: vault_id.map(str::to_owned).or_else(|| claims.vault_id.clone()),
            customer_id: customer_id.map(str::to_owned),
            payment_token: None,
        });
        events.extend(self.claimed_offers(claims));
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

    /// The offers of the funnel that the claims say were answered, as made and answered.
    pub(super) fn claimed_offers(&self, claims: &Claims) -> Vec<Event> {
        let mut events = Vec::new();
        for step in self.context.funnel.steps.iter() {
            for offer in step.offers.iter().filter(|offer| self.session.upsell(offer).is_none()) {
                let accepted = claims.accepted.iter().find(|claimed| claimed.code == offer.as_str());
                let declined = claims.declined.iter().any(|code| code == offer.as_str());
                if accepted.is_none() && !declined {
                    continue;
                }
                events.extend(self.make_offer(offer, step));
                match accepted {
                    None => events.push(Event::OfferDeclined { offer: offer.clone() }),
                    Some(claimed) => {
                        events.push(Event::OfferAccepted { offer: offer.clone() });
                        if claimed.transaction_id.is_some() {
                            let transaction_id = claimed.transaction_id.clone();
                            events.push(Event::OfferCharged { offer: offer.clone(), transaction_id });
                        }
                    }
                }
            }
        }
        events
    }

    pub(super) fn refute_claims(&self) -> Decision {
        if self.session.claims.is_none() {
            return reject(Code::NothingClaimed, format_args!("this session has no claims to refute"));
        }
        let mut events = vec![Event::ClaimsRefuted {}];
        let rest: Vec<Item> =
            self.session.products.iter().filter(|item| item.price_source != PriceSource::Claimed).cloned().collect();
        let Session { coupon_code, customer, .. } = self.session;
        events.extend(self.adjusted(pricing::adjust(&rest, coupon_code.as_deref(), customer, self.context.funnel)));
        Ok(events)
    }
}
