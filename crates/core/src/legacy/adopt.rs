//! Which events bring a session to what the legacy systems say of it.

use super::METADATA_KEY;
use super::fields::shrink_to_limits;
use super::note::{Note, NoteKind};
use super::read::{LegacyPayment, LegacySession, LegacySystem};
use crate::claims::{ClaimedItem, ClaimedUpsell, Claims};
use crate::customer::{Customer, EmailAddress};
use crate::decide::Context;
use crate::event::{Event, Record};
use crate::evolve::evolve;
use crate::funnel::{Funnel, Step, StepKind};
use crate::identifier::{OfferId, ProductId};
use crate::json::{JsonObject, JsonValue, merge_patch};
use crate::money::Money;
use crate::permission::Role;
use crate::prelude::*;
use crate::pricing;
use crate::session::{Adjustments, FunnelRef, Item, OfferState, PaymentFailure, PriceSource, Session, Source, Status};
use crate::state::State;
use crate::time::Timestamp;

/// What is to happen to a session, and what had to be decided about it.
#[derive(Clone, PartialEq, Debug)]
pub struct Adoption {
    /// The events, each with the time at which it was so in the legacy systems, as far as they know. In order, never later than now.
    /// None where the session is so already.
    pub events: Vec<(Timestamp, Event)>,
    /// What had to be decided.
    pub notes: Vec<Note>,
}

/// The events that bring a session to what the legacy systems say.
///
/// A session that is not there begins with them, in its own past. One that is there takes over what it does not have: facts of a
/// payment always, everything else only if the legacy systems have it from later than its last change, or if nothing is in it yet.
/// What it would do twice it does once, so that the same may be adopted again; and what a service principal has settled stays
/// settled until the legacy systems say something newer.
///
/// A browser may begin a session under any legacy id. Where the shop's own systems then say more of the buyer than that browser
/// knows, it may be anybody's: its access ends before anything is told.
///
/// Of an unpaid session the prices are the catalogue's; of one that was paid, those of then. A payment of which nobody says the amount,
/// as the cookie does not, is not made but claimed: the cart here may be another than the one that was paid for.
#[must_use]
pub fn adopt(legacy: &LegacySession, current: Option<&State>, context: &Context<'_>) -> Adoption {
    let mut adopter = Adopter {
        legacy,
        funnel: context.funnel,
        now: context.now,
        at: context.now,
        state: current.cloned(),
        events: Vec::new(),
        notes: legacy.notes.clone(),
    };
    match current {
        None => adopter.begin(context),
        Some(state) if state.erased_at.is_some() => adopter.note("session", NoteKind::Erased),
        Some(state) => adopter.catch_up(state),
    }
    adopter.notes.sort();
    adopter.notes.dedup();
    Adoption { events: adopter.events, notes: adopter.notes }
}

struct Adopter<'a> {
    legacy: &'a LegacySession,
    funnel: &'a Funnel,
    now: Timestamp,
    /// When what comes next was so.
    at: Timestamp,
    state: Option<State>,
    events: Vec<(Timestamp, Event)>,
    notes: Vec<Note>,
}

impl Adopter<'_> {
    fn note(&mut self, field: &str, kind: NoteKind) {
        self.notes.push(Note { field: field.to_owned(), kind });
    }

    fn push(&mut self, event: Event) {
        let version = self.state.as_ref().map_or(0, State::version) + 1;
        let record = Record { version, at: self.at, by: Role::Service, origin: None, caller: None, event };
        self.state = evolve(self.state.take(), &record);
        self.events.push((self.at, record.event));
    }

    fn session(&self) -> Option<&Session> {
        self.state.as_ref().map(|state| &state.session)
    }

    /// Whether the session, as it is now, fits.
    fn is(&self, fits: impl FnOnce(&Session) -> bool) -> bool {
        self.session().is_some_and(fits)
    }

    fn begin(&mut self, context: &Context<'_>) {
        let Some(first) = self.funnel.first_step() else { return };
        let (legacy, lifetime) = (self.legacy, self.funnel.lifetime);
        let created_at = legacy.created_at.or(legacy.updated_at).unwrap_or(self.now).min(self.now);
        let updated_at = legacy.updated_at.unwrap_or(created_at).clamp(created_at, self.now);
        // Of a session that goes on nobody says how long it may.
        let latest_end = self.now.plus(lifetime.max);
        let expires_at = legacy.expires_at.unwrap_or(created_at.plus(lifetime.default)).clamp(created_at, latest_end);
        self.at = created_at;
        self.push(Event::Created {
            id: context.session_id.clone(),
            epoch: context.epoch,
            claim: context.claim.map(str::to_owned),
            funnel: FunnelRef { id: self.funnel.id.clone(), version: self.funnel.version },
            currency: self.funnel.currency,
            step: first.id.clone(),
            source: Source::Migration,
            expires_at,
            began_at: Some(created_at),
            idle: lifetime.idle,
        });
        self.at = updated_at;
        self.describe(legacy.customer.clone());
        self.settle_payment();
        self.settle_offers();
        let is_over = legacy.status == Some(Status::Expired) || self.is(|session| session.expires_at <= self.now);
        self.walk(is_over);
        if legacy.status == Some(Status::Expired) && legacy.payment == LegacyPayment::Made {
            self.note("status", NoteKind::PaidThoughExpired);
        }
        if is_over {
            self.at = self.at.max(expires_at).min(self.now);
            self.end();
        }
    }

    fn catch_up(&mut self, state: &State) {
        let (then, here) = (self.legacy.updated_at.unwrap_or(state.session.updated_at), state.session.updated_at);
        // What is from later than now says nothing of what was first: it would be newer at every attempt.
        let is_newer = then > here && then <= self.now;
        if then > self.now {
            self.note("updatedAt", NoteKind::ClockAhead);
        }
        self.at = then.min(self.now).max(here.min(self.now));
        let is_strange = self.is_a_strangers(state);
        if is_strange {
            self.push(Event::AccessRevoked {});
            self.note("session", NoteKind::AccessRevoked);
        }
        if (is_newer || is_strange) && state.session.is_editable() {
            self.describe(self.legacy.customer.clone());
        } else if state.session.products.is_empty() {
            // Begun by a cookie, which says who somebody is and not what they buy.
            let mut customer = self.legacy.customer.clone();
            customer.merge(&state.session.customer);
            self.describe(customer);
        } else if is_newer && !state.session.status.is_terminal() {
            self.add_metadata(self.legacy.metadata.clone());
        }
        self.settle_payment();
        self.settle_offers();
        let is_over = self.is(|session| session.expires_at <= self.now);
        let is_news = is_newer || self.is(Session::is_paid) != state.session.is_paid();
        if is_news && self.is(|session| !session.status.is_terminal()) {
            self.walk(is_over);
        }
        if is_over {
            self.end();
        }
    }

    /// Whether a browser has begun it that does not know what the shop knows of the buyer.
    fn is_a_strangers(&self, state: &State) -> bool {
        // Without that claim whoever is in has been let in by the shop, or by a cookie that it has signed. And an id that a browser
        // may choose without claiming a legacy session is random: nobody else has it before.
        let is_taken_over = state.claim.is_some() && state.session.source == Source::Migration;
        if !is_taken_over || self.legacy.systems == [LegacySystem::Browser] {
            return false;
        }
        let texts = |email: &Option<EmailAddress>, customer: &Customer| {
            let addresses = [&customer.billing, &customer.shipping].into_iter().flatten();
            let of_addresses = addresses.flat_map(|address| address.fields().map(|(_, text)| text.clone()));
            let names = [customer.first_name.clone(), customer.last_name.clone(), customer.phone.clone()];
            let email = email.as_ref().map(|email| email.as_str().to_owned());
            let all = of_addresses.chain(names).chain([email]).flatten();
            all.filter(|text| !text.is_empty()).collect::<Vec<_>>()
        };
        let known = texts(&state.session.email, &state.session.customer);
        texts(&self.legacy.email, &self.legacy.customer).iter().any(|text| !known.contains(text))
    }

    /// What is bought, and by whom.
    fn describe(&mut self, customer: Customer) {
        let legacy = self.legacy;
        if let Some(email) = &legacy.email
            && self.is(|session| session.email.as_ref() != Some(email))
        {
            self.push(Event::EmailSet { email: Some(email.clone()) });
        }
        if customer != Customer::default() && self.is(|session| session.customer != customer) {
            self.push(Event::CustomerSet { customer });
        }
        let items = self.items();
        if !items.is_empty() && self.is(|session| session.products != items) {
            self.push(Event::ItemsSet { items });
        }
        let mut metadata = legacy.metadata.clone();
        if let Some(code) = &legacy.coupon_code {
            let known = self.funnel.coupon(code).map(|coupon| coupon.code.clone());
            let is_paid = legacy.payment == LegacyPayment::Made;
            match known.or_else(|| is_paid.then(|| code.clone())) {
                Some(code) if self.is(|session| session.coupon_code.as_ref() != Some(&code)) => {
                    self.push(Event::CouponSet { code: Some(code) });
                }
                Some(_) => {}
                None => {
                    keep(&mut metadata, "couponCode", JsonValue::String(code.clone()));
                    self.note("couponCode", NoteKind::CouponUnknown);
                }
            }
        }
        self.adjust();
        self.keep_references();
        self.add_metadata(metadata);
    }

    fn add_metadata(&mut self, mut metadata: JsonObject) {
        if shrink_to_limits(&mut metadata) {
            self.note("metadata", NoteKind::MetadataDropped);
        }
        let changes = |session: &Session| {
            let mut merged = session.metadata.clone();
            merge_patch(&mut merged, &metadata);
            merged != session.metadata
        };
        if self.is(changes) {
            self.push(Event::MetadataSet { metadata });
        }
    }

    fn items(&mut self) -> Vec<Item> {
        let legacy = self.legacy;
        let mut items: Vec<Item> = legacy.products.iter().filter_map(|product| self.item(product)).collect();
        if items.len() > pricing::MAX_ITEMS {
            self.note("products", NoteKind::ProductsDropped);
            items.truncate(pricing::MAX_ITEMS);
        }
        items
    }

    fn item(&mut self, product: &ClaimedItem) -> Option<Item> {
        let ClaimedItem { id, name, price, quantity } = product;
        let id = ProductId::new(id.clone()).ok()?;
        let quantity = (*quantity).clamp(1, pricing::MAX_QUANTITY);
        let price = (*price).clamp(Money::ZERO, Money::MAX);
        let own_name = || name.chars().filter(|c| !c.is_control()).take(pricing::MAX_NAME_CHARS).collect();
        let listed = self.funnel.product(&id);
        let (name, price, price_source) = match (listed, self.legacy.payment) {
            (Some(listed), LegacyPayment::None | LegacyPayment::Unsettled) if listed.price == price => {
                (listed.name.clone(), price, PriceSource::Funnel)
            }
            (_, LegacyPayment::Made) => (own_name(), price, PriceSource::Service),
            (Some(listed), LegacyPayment::None) => {
                self.note("products.price", NoteKind::Repriced);
                (listed.name.clone(), listed.price, PriceSource::Funnel)
            }
            (None, LegacyPayment::None) => {
                self.note("products.price", NoteKind::PriceUnconfirmed);
                (own_name(), price, PriceSource::Claimed)
            }
            // What was begun to be paid; whether that is right is asked together with the payment.
            (_, LegacyPayment::Unsettled) => (own_name(), price, PriceSource::Claimed),
        };
        Some(Item { id, name, price, quantity, price_source })
    }

    /// What the gateway had told before a payment was made. Of an unsettled one the transaction and the vault record are claims.
    fn keep_references(&mut self) {
        let legacy = self.legacy;
        let is_claimed = match legacy.payment {
            LegacyPayment::Made => return,
            LegacyPayment::Unsettled => true,
            LegacyPayment::None => false,
        };
        let unclaimed = |reference: &Option<String>| reference.clone().filter(|_| !is_claimed);
        let (transaction_id, vault_id) = (unclaimed(&legacy.transaction_id), unclaimed(&legacy.vault_id));
        let (customer_id, payment_token) = (legacy.customer_id.clone(), legacy.payment_token.clone());
        let is_news = |session: &Session| {
            let is_other = |there: &Option<String>, here: &Option<String>| there.is_some() && there != here;
            is_other(&transaction_id, &session.transaction_id)
                || is_other(&vault_id, &session.vault_id)
                || is_other(&customer_id, &session.customer_id)
                || is_other(&payment_token, &session.payment_token)
        };
        // What a browser says of it are claims as well.
        if legacy.systems != [LegacySystem::Browser] && self.is(is_news) {
            self.push(Event::PaymentReferencesSet { transaction_id, vault_id, customer_id, payment_token });
        }
    }

    /// Discount, shipping and tax: as they were where it was paid, else by the funnel's rules.
    fn adjust(&mut self) {
        let (legacy, funnel) = (self.legacy, self.funnel);
        let Some(session) = self.session() else { return };
        let by_rule = pricing::adjust(&session.products, session.coupon_code.as_deref(), &session.customer, funnel);
        let then = Adjustments {
            discount: legacy.discount.unwrap_or(Money::ZERO),
            shipping: legacy.shipping.unwrap_or(Money::ZERO),
            tax: legacy.tax.unwrap_or(Money::ZERO),
            set_by: PriceSource::Service,
        };
        let is_known = legacy.amount.or(legacy.total).is_some();
        let adjustments = if legacy.payment == LegacyPayment::None || !is_known { by_rule } else { then };
        let is_other = session.adjustments != adjustments;
        if is_other {
            self.push(Event::AdjustmentsSet { adjustments });
        }
        if legacy.payment == LegacyPayment::None
            && legacy.total.is_some_and(|total| self.is(|session| session.amount != total))
        {
            self.note("amount", NoteKind::Repriced);
        }
    }

    /// What was paid, where somebody says so.
    fn paid_amount(&self) -> Option<Money> {
        let LegacySession { total, amount, tax, shipping, discount, .. } = self.legacy;
        let added_up = || {
            let sum = [tax, shipping].into_iter().flatten().fold((*amount)?, |sum, part| sum.plus(*part));
            Some(sum.minus_at_most_all(discount.unwrap_or(Money::ZERO)))
        };
        total.or_else(added_up).filter(|amount| amount.is_price())
    }

    fn settle_payment(&mut self) {
        let legacy = self.legacy;
        match (legacy.payment, self.paid_amount()) {
            (LegacyPayment::Made, Some(amount)) if !self.is(Session::is_paid) => {
                if self.is(|session| session.status != Status::Processing) {
                    self.push(Event::PaymentBegun {});
                    if let Some(payment) = self.funnel.step_of_kind(StepKind::Payment) {
                        self.push(Event::StepEntered { step: payment.id.clone() });
                    }
                }
                let owed = self.session().map_or(Money::ZERO, |session| session.amount);
                if amount != owed {
                    self.note("amount", NoteKind::AmountsDisagree);
                }
                self.push(Event::PaymentRecorded {
                    transaction_id: legacy.transaction_id.clone(),
                    amount,
                    vault_id: legacy.vault_id.clone(),
                    customer_id: legacy.customer_id.clone(),
                    payment_token: legacy.payment_token.clone(),
                });
                if self.is(|session| session.claims.is_some()) {
                    self.push(Event::ClaimsConfirmed {});
                }
                if let Some(claims) = &legacy.claims {
                    self.claim(claims.clone(), "transactionId", NoteKind::PaidTwice);
                }
            }
            (LegacyPayment::Made, _) if self.is(Session::is_paid) => {
                let is_other = |session: &Session| session.transaction_id != legacy.transaction_id;
                if legacy.transaction_id.is_some()
                    && self.is(is_other)
                    && let Some(claims) = legacy.as_claims()
                {
                    let claims = Claims { accepted: Vec::new(), declined: Vec::new(), ..claims };
                    self.claim(claims, "transactionId", NoteKind::PaidTwice);
                }
            }
            (LegacyPayment::Made | LegacyPayment::Unsettled, _)
                if self.is(|session| session.is_editable() || session.claims.is_some()) =>
            {
                if let Some(claims) = legacy.as_claims() {
                    let claims = Claims { status: Status::Processing, ..claims };
                    self.claim(claims, "payment", NoteKind::PaymentUnsettled);
                }
            }
            (LegacyPayment::None, _) if self.is(Session::is_editable) => {
                if let Some(failure) = &legacy.failure
                    && self.is(|session| session.payment.failure.is_none())
                {
                    self.push(Event::PaymentBegun {});
                    self.push(Event::PaymentFailed { failure: PaymentFailure::clone(failure) });
                }
                if let Some(claims) = &legacy.claims {
                    self.claim(claims.clone(), "payment", NoteKind::PaymentUnsettled);
                }
            }
            _ => {}
        }
    }

    /// Leaves it to a service principal, who hears of it until it is settled; then no more, unless the legacy systems have changed.
    fn claim(&mut self, claims: Claims, field: &str, kind: NoteKind) {
        let settled_at = self.state.as_ref().and_then(|state| state.claims_settled_at);
        if settled_at.is_some_and(|settled_at| self.legacy.updated_at.is_none_or(|then| then <= settled_at)) {
            return;
        }
        self.note(field, kind);
        let Some(open) = self.session().and_then(|session| session.claims.clone()) else {
            return self.push(Event::ClaimsMade { claims });
        };
        // Of what is claimed already somebody else may know the gateway's references.
        let known = Claims {
            transaction_id: open.transaction_id.clone().or(claims.transaction_id),
            vault_id: open.vault_id.clone().or(claims.vault_id),
            ..open.clone()
        };
        if known != open {
            self.push(Event::ClaimsMade { claims: known });
        }
    }

    fn settle_offers(&mut self) {
        if self.legacy.payment != LegacyPayment::Made || !self.is(Session::is_paid) {
            return;
        }
        for accepted in &self.legacy.accepted {
            self.charge(accepted);
        }
        for code in &self.legacy.declined {
            let Some(offer) = self.offer_named(code) else { continue };
            let state = self.session().and_then(|session| session.upsell(&offer)).map(|upsell| upsell.state);
            match state {
                None => self.make(&offer, None, None),
                Some(OfferState::Offered) => {}
                Some(_) => continue,
            }
            self.push(Event::OfferDeclined { offer });
        }
    }

    fn charge(&mut self, accepted: &ClaimedUpsell) {
        let Some(offer) = self.offer_named(&accepted.code) else {
            self.note("upsells", NoteKind::Unreadable);
            return;
        };
        let made = self.session().and_then(|session| session.upsell(&offer));
        let (state, charged_by) = made.map(|upsell| (upsell.state, upsell.transaction_id.clone())).unzip();
        match state {
            Some(OfferState::Charged) => {
                match (charged_by.flatten(), &accepted.transaction_id) {
                    (None, Some(_)) => {
                        self.push(Event::OfferCharged { offer, transaction_id: accepted.transaction_id.clone() });
                    }
                    (Some(one), Some(other)) if one != *other => self.charged_twice(accepted),
                    _ => {}
                }
                return;
            }
            Some(OfferState::Declined | OfferState::Lapsed) => self.note("upsells", NoteKind::OfferCharged),
            Some(OfferState::Offered | OfferState::Accepted | OfferState::ChargeFailed) => {}
            None => {
                let listed = self.funnel.offer(&offer).map(|listed| listed.price);
                if accepted.amount.is_some_and(|amount| listed.is_some_and(|price| price != amount)) {
                    self.note("upsells", NoteKind::AmountsDisagree);
                }
                self.make(&offer, accepted.amount, None);
            }
        }
        self.push(Event::OfferAccepted { offer: offer.clone() });
        self.push(Event::OfferCharged { offer, transaction_id: accepted.transaction_id.clone() });
    }

    /// An extra that two transactions were made for.
    fn charged_twice(&mut self, accepted: &ClaimedUpsell) {
        let Some(claims) = self.legacy.as_claims() else { return };
        let claims = Claims { accepted: vec![accepted.clone()], declined: Vec::new(), transaction_id: None, ..claims };
        self.claim(claims, "upsells", NoteKind::PaidTwice);
    }

    /// The funnel's offer with this code or of this product, else one of that name.
    fn offer_named(&self, code: &str) -> Option<OfferId> {
        let named = OfferId::new(code).ok()?;
        let of_product = || self.funnel.offers.iter().find(|offer| offer.product.as_str() == code);
        let offer = self.funnel.offer(&named).or_else(of_product);
        Some(offer.map_or(named, |offer| offer.id.clone()))
    }

    fn make(&mut self, id: &OfferId, amount: Option<Money>, closes_at: Option<Timestamp>) {
        let is_at = |step: &&Step| step.offers.contains(id);
        let steps = &self.funnel.steps;
        let any_offer_step = || steps.iter().find(|step| step.kind == StepKind::Offer);
        let Some(step) = steps.iter().find(is_at).or_else(any_offer_step).or_else(|| self.funnel.first_step()) else {
            return;
        };
        let offered = match self.funnel.offer(id) {
            Some(offer) => Some((offer.product.clone(), offer.name.clone(), amount.unwrap_or(offer.price))),
            None => {
                let product = ProductId::new(id.as_str()).ok();
                product.map(|product| (product, id.as_str().to_owned(), amount.unwrap_or(Money::ZERO)))
            }
        };
        let Some((product, name, price)) = offered else { return };
        let price = price.clamp(Money::ZERO, Money::MAX);
        let rate = self.session().map(|session| pricing::tax_rate(&session.customer, self.funnel)).unwrap_or_default();
        let tax = if self.funnel.offer(id).is_some() { rate.of(price) } else { Money::ZERO };
        if self.funnel.offer(id).is_none() {
            self.note("upsells", NoteKind::OfferUnknown);
        }
        let step = step.id.clone();
        self.push(Event::OfferMade { offer: id.clone(), step, product, name, price, tax, closes_at });
    }

    /// Brings the buyer to their step; what is over makes no offers there.
    fn walk(&mut self, is_over: bool) {
        let Some(named) = &self.legacy.step else { return };
        let is_paid = self.is(Session::is_paid);
        let payment = self.funnel.step_of_kind(StepKind::Payment);
        let target = match (named.as_str(), self.funnel.step(named)) {
            (_, Some(step)) if is_paid && matches!(step.kind, StepKind::Offer | StepKind::Terminal) => Some(step),
            (_, Some(step)) if !is_paid && step.kind == StepKind::Form => Some(step),
            ("success", _) if is_paid => self.funnel.step_of_kind(StepKind::Terminal),
            _ if is_paid => payment.and_then(|payment| payment.next.first()).and_then(|next| self.funnel.step(next)),
            _ => None,
        };
        let legacy_word = ["payment_processing", "completed", "failed", "success"].contains(&named.as_str());
        if !legacy_word && self.funnel.step(named).is_none() {
            self.note("currentStep", NoteKind::StepUnknown);
        }
        let Some(target) = target.filter(|step| self.is(|session| session.current_step != step.id)) else { return };
        // What is behind a buyer stays there: they may have gone on here since.
        if self.is(|session| session.flow.steps.iter().any(|visit| visit.step == target.id)) {
            return;
        }
        self.push(Event::StepEntered { step: target.id.clone() });
        for offer in &target.offers {
            if !is_over && self.is(|session| session.upsell(offer).is_none()) {
                self.make(offer, None, target.time_limit.map(|limit| self.now.plus(limit)));
            }
        }
        if target.kind == StepKind::Terminal {
            self.end();
        }
    }

    fn end(&mut self) {
        let Some(session) = self.session().filter(|session| !session.status.is_terminal()) else { return };
        if !session.is_paid() {
            self.push(Event::Expired {});
            return;
        }
        let open = session.upsells.iter().filter(|upsell| upsell.state == OfferState::Offered);
        let lapsed: Vec<Event> = open.map(|upsell| Event::OfferLapsed { offer: upsell.offer.clone() }).collect();
        for event in lapsed {
            self.push(event);
        }
        self.push(Event::Completed {});
    }
}

fn keep(metadata: &mut JsonObject, name: &str, value: JsonValue) {
    let mut kept = match metadata.remove(METADATA_KEY) {
        Some(JsonValue::Object(kept)) => kept,
        _ => JsonObject::new(),
    };
    kept.insert(name.to_owned(), value);
    metadata.insert(METADATA_KEY.to_owned(), JsonValue::Object(kept));
}
