//! Moving along the funnel.

use super::offers::lapse;
use super::{Decider, Decision, reject};
use crate::event::Event;
use crate::funnel::{Requirement, Step, StepKind};
use crate::identifier::StepId;
use crate::prelude::*;
use crate::rejection::{Rejection, RejectionCode as Code};
use crate::session::{OfferState, Status, Upsell};

impl Decider<'_> {
    pub(super) fn current_step(&self) -> Result<&Step, Rejection> {
        let current = &self.session.current_step;
        self.context.funnel.step(current).ok_or_else(|| {
            Rejection::because(
                Code::UnknownStep,
                &["the funnel ", self.context.funnel.id.as_str(), " has no step ", current.as_str()],
            )
        })
    }

    pub(super) fn go_to_step(&self, target: &StepId) -> Decision {
        self.check_alive()?;
        let funnel = self.context.funnel;
        let current = self.current_step()?;
        if current.id == *target {
            return Ok(vec![]);
        }
        let Some(step) = funnel.step(target) else {
            return reject(Code::UnknownStep, &["the funnel ", funnel.id.as_str(), " has no step ", target.as_str()]);
        };
        let forward = current.next.contains(target);
        if !forward && !current.back.contains(target) {
            let choices: Vec<&str> = current.next.iter().chain(&current.back).map(StepId::as_str).collect();
            let message = &[
                target.as_str(),
                " can't be reached from ",
                current.id.as_str(),
                "; from there it goes to ",
                &listed(&choices),
            ];
            return reject(Code::StepNotAllowed, message);
        }
        let is_paid = self.session.is_paid();
        match (current.kind, step.kind) {
            (StepKind::Payment, _) if !is_paid && self.session.status == Status::Processing => {
                return reject(Code::PaymentUnderWay, &["a payment is under way; wait for its outcome"]);
            }
            (_, StepKind::Payment) if is_paid => {
                return reject(Code::AlreadyPaid, &["this session is paid already"]);
            }
            (_, StepKind::Payment) => {
                return reject(Code::StepNotAllowed, &[target.as_str(), " is entered by paying (beginProcessing)"]);
            }
            (_, StepKind::Form) if is_paid => {
                return reject(Code::StepNotAllowed, &[target.as_str(), " comes before the payment, which is done"]);
            }
            (_, StepKind::Offer | StepKind::Terminal) if !is_paid => {
                return reject(Code::NotPaid, &[target.as_str(), " comes after the payment, which is not done"]);
            }
            _ => {}
        }

        let mut events = Vec::new();
        if forward {
            // Whoever walks on without an answer has answered. A step that asks for answers (a guard) refuses instead.
            self.check_requirements(step)?;
            events.extend(lapse(self.session, |upsell| upsell.step == current.id || self.is_overdue(upsell)));
        }
        events.extend(self.enter(step));
        Ok(events)
    }

    pub(super) fn check_requirements(&self, step: &Step) -> Result<(), Rejection> {
        let missing: Vec<String> =
            step.requires.iter().filter(|requirement| !self.is_met(requirement)).map(Requirement::text).collect();
        let missing: Vec<&str> = missing.iter().map(String::as_str).collect();
        if missing.is_empty() {
            return Ok(());
        }
        reject(Code::FieldsMissing, &["before ", step.id.as_str(), " these are needed: ", &listed(&missing)])
    }

    fn is_met(&self, requirement: &Requirement) -> bool {
        match requirement {
            // An offer whose time is over can't be answered any more; it lapses on the way.
            Requirement::OffersAnswered => {
                let mut open = self.session.upsells.iter().filter(|upsell| upsell.state == OfferState::Offered);
                open.all(|upsell| self.is_overdue(upsell))
            }
            other => other.is_met(self.session),
        }
    }

    pub(super) fn is_overdue(&self, upsell: &Upsell) -> bool {
        upsell.closes_at.is_some_and(|closes_at| self.context.now >= closes_at)
    }

    /// What entering a step causes: its offers are made, and the terminal one completes the session.
    pub(super) fn enter(&self, step: &Step) -> Vec<Event> {
        let mut events = vec![Event::StepEntered { step: step.id.clone() }];
        let not_made = step.offers.iter().filter(|offer| self.session.upsell(offer).is_none());
        events.extend(not_made.filter_map(|offer| self.make_offer(offer, step)));
        if step.kind == StepKind::Terminal {
            // Offers that were left open on the way, by going back and forth, end here.
            events.extend(lapse(self.session, |upsell| {
                upsell.step != self.session.current_step && !self.is_overdue(upsell)
            }));
            events.push(Event::Completed {});
        }
        events
    }
}

/// Names with commas between them.
fn listed(names: &[&str]) -> String {
    let mut list = String::new();
    for name in names {
        list = [list.as_str(), if list.is_empty() { "" } else { ", " }, name].joined();
    }
    list
}
