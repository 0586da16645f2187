//! Upsell offers: made, answered, charged.

use super::{Decider, Decision, check_reference, reject};
use crate::event::Event;
use crate::funnel::Step;
use crate::identifier::OfferId;
use crate::json::digits;
use crate::money::Money;
use crate::prelude::*;
use crate::pricing;
use crate::rejection::{Rejection, RejectionCode as Code};
use crate::session::{OfferState, PaymentFailure, Session, Upsell};

impl Decider<'_> {
    pub(super) fn make_offer(&self, offer: &OfferId, step: &Step) -> Option<Event> {
        let funnel = self.context.funnel;
        let offer = funnel.offer(offer)?;
        Some(Event::OfferMade {
            offer: offer.id.clone(),
            step: step.id.clone(),
            product: offer.product.clone(),
            name: offer.name.clone(),
            price: offer.price,
            tax: pricing::tax_rate(&self.session.customer, funnel).of(offer.price),
            closes_at: step.time_limit.map(|limit| self.context.now.plus(limit)),
        })
    }

    pub(super) fn made_offer(&self, offer: &OfferId) -> Result<&Upsell, Rejection> {
        self.session.upsell(offer).ok_or_else(|| {
            Rejection::because(Code::OfferNotMade, &["the offer ", offer.as_str(), " was not made to this session"])
        })
    }

    pub(super) fn check_open(&self, upsell: &Upsell) -> Result<(), Rejection> {
        self.check_alive()?;
        if self.is_overdue(upsell) {
            return reject(Code::OfferLapsed, &["the time to answer the offer ", upsell.offer.as_str(), " is over"]);
        }
        Ok(())
    }

    pub(super) fn accept_upsell(&self, offer: &OfferId) -> Decision {
        let upsell = self.made_offer(offer)?;
        match upsell.state {
            OfferState::Accepted | OfferState::Charged | OfferState::ChargeFailed => Ok(vec![]),
            OfferState::Declined => {
                reject(Code::OfferDeclined, &["the offer ", offer.as_str(), " was declined; that is final"])
            }
            OfferState::Lapsed => reject(Code::OfferLapsed, &["the offer ", offer.as_str(), " is closed"]),
            OfferState::Offered => {
                self.check_open(upsell)?;
                Ok(vec![Event::OfferAccepted { offer: offer.clone() }])
            }
        }
    }

    pub(super) fn decline_upsell(&self, offer: &OfferId) -> Decision {
        let upsell = self.made_offer(offer)?;
        match upsell.state {
            OfferState::Declined | OfferState::Lapsed => Ok(vec![]),
            OfferState::Accepted | OfferState::Charged | OfferState::ChargeFailed => reject(
                Code::OfferAccepted,
                &["the offer ", offer.as_str(), " was accepted; it can't be declined any more"],
            ),
            OfferState::Offered => {
                self.check_open(upsell)?;
                Ok(vec![Event::OfferDeclined { offer: offer.clone() }])
            }
        }
    }

    pub(super) fn record_upsell_charge(&self, offer: &OfferId, transaction_id: &str, amount: Money) -> Decision {
        check_reference("transactionId", transaction_id)?;
        let upsell = self.made_offer(offer)?;
        match upsell.state {
            OfferState::Charged if upsell.transaction_id.as_deref() == Some(transaction_id) => Ok(vec![]),
            OfferState::Charged => reject(
                Code::OfferCharged,
                &["the offer ", offer.as_str(), " was charged already, by another transaction; refund this one"],
            ),
            OfferState::Accepted | OfferState::ChargeFailed => {
                let owed = upsell.price.plus(upsell.tax);
                if amount != owed {
                    let message =
                        &["the charge is ", &digits(amount.minor()), " but the offer costs ", &digits(owed.minor())];
                    return reject(Code::AmountMismatch, message);
                }
                let transaction_id = Some(transaction_id.to_owned());
                Ok(vec![Event::OfferCharged { offer: offer.clone(), transaction_id }])
            }
            state => self.reject_unaccepted(offer, state),
        }
    }

    pub(super) fn fail_upsell_charge(&self, offer: &OfferId, code: &str, message: &str) -> Decision {
        check_reference("code", code)?;
        check_reference("message", message)?;
        match self.made_offer(offer)?.state {
            OfferState::Accepted | OfferState::ChargeFailed => {
                let failure = PaymentFailure { code: code.to_owned(), message: message.to_owned() };
                Ok(vec![Event::OfferChargeFailed { offer: offer.clone(), failure }])
            }
            OfferState::Charged => reject(Code::OfferCharged, &["the offer ", offer.as_str(), " was charged already"]),
            state => self.reject_unaccepted(offer, state),
        }
    }

    pub(super) fn reject_unaccepted(&self, offer: &OfferId, state: OfferState) -> Decision {
        match state {
            OfferState::Declined => {
                reject(Code::OfferDeclined, &["the offer ", offer.as_str(), " was declined; don't charge it"])
            }
            OfferState::Lapsed => {
                reject(Code::OfferLapsed, &["the offer ", offer.as_str(), " is closed; don't charge it"])
            }
            _ => reject(Code::OfferNotMade, &["the offer ", offer.as_str(), " was not accepted; don't charge it"]),
        }
    }
}

pub(super) fn lapse(session: &Session, which: impl Fn(&Upsell) -> bool) -> Vec<Event> {
    let open = session.upsells.iter().filter(|upsell| upsell.state == OfferState::Offered);
    open.filter(|upsell| which(upsell)).map(|upsell| Event::OfferLapsed { offer: upsell.offer.clone() }).collect()
}

pub(super) fn made_offer_id(event: &Event) -> Option<&OfferId> {
    match event {
        Event::OfferMade { offer, .. } => Some(offer),
        _ => None,
    }
}
