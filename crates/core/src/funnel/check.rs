//! Whether a funnel definition makes sense.

use std::collections::BTreeSet;
use std::fmt;

use super::definition::{Discount, Funnel, Lifetime, Requirement, Step, StepKind};
use crate::identifier::StepId;
use crate::money::Rate;

/// What is wrong with a funnel definition, and at which step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FunnelProblem {
    /// The step, where it is the problem of one.
    pub step: Option<StepId>,
    /// What is wrong, and how to mend it.
    pub reason: String,
}

impl fmt::Display for FunnelProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.step {
            Some(step) => write!(f, "step {step}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl Funnel {
    /// Everything that is wrong with the definition; empty when it can be used.
    ///
    /// Every step has to be reachable from the first, a terminal step from each, and whatever is named has to exist.
    pub fn problems(&self) -> Vec<FunnelProblem> {
        let mut problems = Vec::new();
        self.check_amounts(&mut problems);
        self.check_names(&mut problems);
        for step in &self.steps {
            self.check_step(step, &mut problems);
        }
        self.check_paths(&mut problems);
        problems
    }

    fn check_amounts(&self, problems: &mut Vec<FunnelProblem>) {
        let mut problem = |reason: String| problems.push(FunnelProblem { step: None, reason });
        let Lifetime { default, max, warning, idle } = self.lifetime;
        if default.as_millis() == 0 || default > max || max > Lifetime::LONGEST || warning > default {
            problem(format!(
                "lifetime: needs 0 < default ({default}) <= max ({max}) <= {} and warning ({warning}) <= default",
                Lifetime::LONGEST
            ));
        }
        if let Some(idle) = idle.filter(|idle| idle.as_millis() <= 0 || *idle > max || warning > *idle) {
            problem(format!("lifetime: needs 0 < idle ({idle}) <= max ({max}) and warning ({warning}) <= idle"));
        }
        for product in self.catalogue.iter().filter(|product| !product.price.is_price()) {
            problem(format!("catalogue: the price of {} is negative or too large", product.id));
        }
        for offer in self.offers.iter().filter(|offer| !offer.price.is_price()) {
            problem(format!("offers: the price of {} is negative or too large", offer.id));
        }
        if !self.shipping.flat.is_price() {
            problem("shipping: the flat price is negative or too large".to_owned());
        }
        for (state, _) in self.tax.rates.iter().filter(|(_, rate)| **rate > Rate::WHOLE) {
            problem(format!("tax: the rate of {state} is over 10000 (100 %)"));
        }
        for coupon in &self.coupons {
            let is_sound = match coupon.discount {
                Discount::Percent(rate) => rate <= Rate::WHOLE,
                Discount::Amount(amount) => amount.is_price(),
            };
            if !is_sound {
                problem(format!("coupons: the discount of {} is negative or over 100 %", coupon.code));
            }
        }
    }

    fn check_names(&self, problems: &mut Vec<FunnelProblem>) {
        let mut problem = |reason: String| problems.push(FunnelProblem { step: None, reason });
        let coupons = self.coupons.iter().map(|coupon| coupon.code.to_ascii_uppercase());
        let lists: [(&str, Vec<String>); 4] = [
            ("steps", self.steps.iter().map(|step| step.id.to_string()).collect()),
            ("catalogue", self.catalogue.iter().map(|product| product.id.to_string()).collect()),
            ("offers", self.offers.iter().map(|offer| offer.id.to_string()).collect()),
            ("coupons", coupons.collect()),
        ];
        for (list, names) in lists {
            let mut seen = BTreeSet::new();
            for name in names {
                if !seen.insert(name.clone()) {
                    problem(format!("{list}: {name} is there twice; ids are unique"));
                }
            }
        }
        for offer in self.offers.iter().filter(|offer| self.product(&offer.product).is_none()) {
            problem(format!("offers: {} names the product {}, which the catalogue has not", offer.id, offer.product));
        }
        for offer in &self.offers {
            match self.steps.iter().filter(|step| step.offers.contains(&offer.id)).count() {
                1 => {}
                0 => problem(format!("offers: no step makes the offer {}", offer.id)),
                _ => problem(format!("offers: {} is made at more than one step", offer.id)),
            }
        }
        match self.steps.iter().filter(|step| step.kind == StepKind::Payment).count() {
            1 => {}
            count => problem(format!("steps: {count} steps have the kind payment; there has to be exactly one")),
        }
        if self.first_step().is_some_and(|step| step.kind != StepKind::Form) {
            problem("steps: the first step has to have the kind form".to_owned());
        }
    }

    fn check_step(&self, step: &Step, problems: &mut Vec<FunnelProblem>) {
        let mut problem = |reason: String| problems.push(FunnelProblem { step: Some(step.id.clone()), reason });
        for target in step.next.iter().chain(&step.back) {
            if self.step(target).is_none() {
                problem(format!("leads to {target}, which is no step of this funnel"));
            }
        }
        for offer in step.offers.iter().filter(|offer| self.offer(offer).is_none()) {
            problem(format!("makes the offer {offer}, which is not defined under offers"));
        }
        let leads_on = !step.next.is_empty();
        match step.kind {
            StepKind::Terminal if leads_on || !step.back.is_empty() => {
                problem("is terminal, but leads on; remove next and back".to_owned());
            }
            StepKind::Form | StepKind::Payment | StepKind::Offer if !leads_on => {
                problem("leads nowhere; give it next, or the kind terminal".to_owned());
            }
            StepKind::Payment if step.back.is_empty() => {
                problem("is the payment, but has no step to go back to when it fails; give it back".to_owned());
            }
            _ => {}
        }
        if step.kind != StepKind::Offer && !step.offers.is_empty() {
            problem("makes offers, but has not the kind offer".to_owned());
        }
        let early = step.next.iter().filter_map(|id| self.step(id));
        for target in early.filter(|target| matches!(target.kind, StepKind::Offer | StepKind::Terminal)) {
            if step.kind == StepKind::Form {
                problem(format!("leads to {} past the payment", target.id));
            }
        }
        if matches!(step.kind, StepKind::Offer | StepKind::Terminal) {
            // After the payment nothing of the order can be changed, so what is missing then stays missing.
            let payment = self.step_of_kind(StepKind::Payment);
            let known = payment.map_or(&[][..], |payment| &payment.requires);
            let late = step.requires.iter().filter(|requirement| {
                !matches!(requirement, Requirement::Payment | Requirement::OffersAnswered)
                    && !known.contains(requirement)
            });
            for requirement in late {
                problem(format!(
                    "requires {requirement}, which can't be entered after the payment; let the payment step require it"
                ));
            }
        }
        if matches!(step.kind, StepKind::Offer | StepKind::Payment) {
            let backwards = step.next.iter().filter_map(|id| self.step(id));
            for target in backwards.filter(|target| matches!(target.kind, StepKind::Form | StepKind::Payment)) {
                problem(format!("comes after the payment, but leads on to {}, which comes before it", target.id));
            }
        }
    }

    fn check_paths(&self, problems: &mut Vec<FunnelProblem>) {
        let Some(first) = self.first_step() else {
            problems.push(FunnelProblem { step: None, reason: "steps: there is none".to_owned() });
            return;
        };
        let reachable = self.reachable_from(first);
        for step in &self.steps {
            let mut problem = |reason: &str| {
                problems.push(FunnelProblem { step: Some(step.id.clone()), reason: reason.to_owned() });
            };
            if !reachable.contains(&step.id) {
                problem("can't be reached from the first step");
            }
            let ends = |id: &StepId| self.step(id).is_some_and(|step| step.kind == StepKind::Terminal);
            if !self.reachable_from(step).iter().any(ends) {
                problem("has no way to a terminal step");
            }
        }
    }

    fn reachable_from(&self, start: &Step) -> BTreeSet<StepId> {
        let mut reached = BTreeSet::from([start.id.clone()]);
        let mut open = vec![start];
        while let Some(step) = open.pop() {
            for next in step.next.iter().filter_map(|id| self.step(id)) {
                if reached.insert(next.id.clone()) {
                    open.push(next);
                }
            }
        }
        reached
    }
}
