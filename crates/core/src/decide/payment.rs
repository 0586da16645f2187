//! The main payment.

use super::{Decider, Decision, check_reference, check_references, reject};
use crate::claims::Claims;
use crate::event::Event;
use crate::funnel::StepKind;
use crate::json::digits;
use crate::money::Money;
use crate::prelude::*;
use crate::rejection::{Rejection, RejectionCode as Code};
use crate::session::{PaymentFailure, PriceSource, Session, Status};

impl Decider<'_> {
    pub(super) fn check_confirmed(&self) -> Result<(), Rejection> {
        if self.session.claims.as_ref().is_some_and(Claims::claim_payment) {
            return reject(
                Code::AwaitingConfirmation,
                &["this session may have been paid before it moved here; the shop has to confirm that first"],
            );
        }
        Ok(())
    }

    pub(super) fn begin_processing(&self) -> Decision {
        self.check_alive()?;
        if self.session.is_paid() {
            return reject(Code::AlreadyPaid, &["this session is paid already"]);
        }
        if self.session.status == Status::Processing {
            return Ok(vec![]);
        }
        self.check_confirmed()?;
        if self.session.products.iter().any(|item| item.price_source == PriceSource::Claimed) {
            return reject(
                Code::AwaitingConfirmation,
                &["the price of a product is not in the catalogue; the shop has to confirm it first"],
            );
        }
        let current = self.current_step()?;
        let leads_to = current.next.iter().filter_map(|id| self.context.funnel.step(id));
        let Some(payment) = leads_to.into_iter().find(|step| step.kind == StepKind::Payment) else {
            return reject(Code::StepNotAllowed, &[current.id.as_str(), " does not lead to the payment"]);
        };
        self.check_requirements(payment)?;
        Ok(vec![Event::PaymentBegun {}, Event::StepEntered { step: payment.id.clone() }])
    }

    /// Money that was taken has to be written down, also when the session was given up in the meantime.
    pub(super) fn record_payment(&self, transaction_id: &str, amount: Money, recorded: Event) -> Decision {
        let Session { amount: owed, .. } = *self.session;
        if self.session.is_paid() {
            if self.session.transaction_id.as_deref() == Some(transaction_id) {
                return Ok(vec![]);
            }
            return reject(
                Code::AlreadyPaid,
                &["this session is paid already, by another transaction; refund this one"],
            );
        }
        if amount != owed {
            let message =
                &["the payment is ", &digits(amount.minor()), " but the session owes ", &digits(owed.minor())];
            return reject(Code::AmountMismatch, message);
        }
        let mut events = vec![recorded];
        if self.session.claims.is_some() {
            events.push(Event::ClaimsConfirmed {});
        }
        let funnel = self.context.funnel;
        let after_payment = funnel.step_of_kind(StepKind::Payment).and_then(|payment| payment.next.first());
        if self.context.now >= self.session.expires_at {
            events.push(Event::Completed {});
        } else if let Some(next) = after_payment.and_then(|id| funnel.step(id)) {
            events.extend(self.enter(next));
        }
        Ok(events)
    }

    pub(super) fn set_payment_references(
        &self,
        transaction_id: &Option<String>,
        vault_id: &Option<String>,
        customer_id: &Option<String>,
        payment_token: &Option<String>,
    ) -> Decision {
        let named = [
            ("transactionId", transaction_id, &self.session.transaction_id),
            ("vaultId", vault_id, &self.session.vault_id),
            ("customerId", customer_id, &self.session.customer_id),
            ("paymentToken", payment_token, &self.session.payment_token),
        ];
        check_references(named.map(|(name, value, _)| (name, value)))?;
        let is_other = |value: &Option<String>, now: &Option<String>| value.is_some() && value != now;
        if self.session.is_paid() && is_other(transaction_id, &self.session.transaction_id) {
            return reject(
                Code::AlreadyPaid,
                &["this session is paid already, by another transaction; refund this one"],
            );
        }
        if !named.iter().any(|(_, value, now)| is_other(value, now)) {
            return Ok(vec![]);
        }
        Ok(vec![Event::PaymentReferencesSet {
            transaction_id: transaction_id.clone(),
            vault_id: vault_id.clone(),
            customer_id: customer_id.clone(),
            payment_token: payment_token.clone(),
        }])
    }

    pub(super) fn fail_payment(&self, code: &str, message: &str) -> Decision {
        check_reference("code", code)?;
        check_reference("message", message)?;
        if self.session.is_paid() {
            return reject(Code::AlreadyPaid, &["this session is paid already"]);
        }
        if self.session.status != Status::Processing {
            return reject(Code::PaymentNotBegun, &["no payment is under way"]);
        }
        let failure = PaymentFailure { code: code.to_owned(), message: message.to_owned() };
        let mut events = vec![Event::PaymentFailed { failure }];
        if let Some(back) = self.current_step()?.back.first() {
            events.push(Event::StepEntered { step: back.clone() });
        }
        Ok(events)
    }
}
