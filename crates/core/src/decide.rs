//! Whether a command may happen, and what it causes.

use std::fmt;

use crate::claims::Claims;
use crate::command::{Command, Create, ItemRequest};
use crate::customer::{Customer, EmailAddress, MAX_FIELD_CHARS};
use crate::event::Event;
use crate::funnel::{Funnel, Step, StepKind};
use crate::identifier::{OfferId, ProductId, SessionId, StepId};
use crate::json::{self, JsonObject, JsonValue};
use crate::legacy;
use crate::money::Money;
use crate::permission::{Role, may_issue};
use crate::pricing;
use crate::rejection::{Rejection, RejectionCode as Code};
use crate::session::{
    Adjustments, FunnelRef, Item, OfferState, PaymentFailure, PriceSource, Session, Source, Status, Upsell,
};
use crate::state::State;
use crate::time::{TimeSpan, Timestamp};

/// What a decision depends on beside the state and the command.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The time at which it is decided.
    pub now: Timestamp,
    /// The funnel that the session is pinned to, or is to be created with.
    pub funnel: &'a Funnel,
    /// The session's id; used when it is created.
    pub session_id: &'a SessionId,
    /// A random number that tells the new history from any other; used when the session is created.
    pub epoch: u64,
    /// Digest of the claim secret of the client that creates the session.
    pub claim: Option<&'a str>,
}

type Decision = Result<Vec<Event>, Rejection>;

/// Whether `role` may do `command` to the session now, and which events it causes.
///
/// Pure: the same input gives the same answer, in the browser and in the server. No event means that what the
/// command wants is so already.
///
/// # Errors
/// A [`Rejection`] that says what was wrong and who can mend it; then nothing has happened.
pub fn decide(state: Option<&State>, command: &Command, role: Role, context: &Context<'_>) -> Decision {
    let kind = command.kind();
    if !may_issue(role, kind) {
        let who = match role {
            Role::Browser => "a browser",
            Role::Service => "a service",
            Role::Operator => "an operator",
            Role::System => "the server by itself",
        };
        return reject(Code::NotPermitted, format_args!("{who} may not issue {}", kind.as_str()));
    }
    match (state, command) {
        (None, Command::Create(create)) => decide_create(create, role, context),
        (Some(_), Command::Create(_)) => {
            reject(Code::SessionExists, format_args!("there is a session with this id already"))
        }
        (None, _) => reject(Code::SessionNotFound, format_args!("there is no session with this id")),
        (Some(state), Command::Erase {}) => Ok(if state.erased_at.is_some() { vec![] } else { vec![Event::Erased {}] }),
        (Some(state), _) if state.erased_at.is_some() => reject(
            Code::SessionErased,
            format_args!("the personal data of this session was erased; start a new session"),
        ),
        (Some(state), command) => Decider { session: &state.session, role, context }.decide(command),
    }
}

fn reject<T>(code: Code, message: fmt::Arguments<'_>) -> Result<T, Rejection> {
    Err(rejection(code, message))
}

/// Takes the message unformatted and is never inlined: there are many places that refuse, and each is small so.
#[inline(never)]
fn rejection(code: Code, message: fmt::Arguments<'_>) -> Rejection {
    Rejection::new(code, message.to_string())
}

fn decide_create(create: &Create, role: Role, context: &Context<'_>) -> Decision {
    let Context { now, funnel, .. } = *context;
    let Some(first) = funnel.first_step() else {
        return reject(Code::UnknownFunnel, format_args!("the funnel {} has no steps", funnel.id));
    };
    let chosen = create.funnel.as_ref();
    if chosen.is_some_and(|choice| choice.id != funnel.id || choice.version.is_some_and(|v| v != funnel.version)) {
        return reject(Code::UnknownFunnel, format_args!("the funnel that was asked for is not known here"));
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
fn check_claims(claims: &Claims) -> Result<(), Rejection> {
    let prices = claims.products.iter().map(|claimed| claimed.price);
    let charges = claims.accepted.iter().filter_map(|claimed| claimed.amount);
    let mut amounts = prices.chain(charges).chain([claims.amount]);
    match amounts.find(|amount| amount.minor().unsigned_abs() > Money::MAX.minor().unsigned_abs()) {
        None => Ok(()),
        Some(amount) => reject(
            Code::InvalidAmount,
            format_args!("the claimed amount {} is larger than {}", amount.minor(), Money::MAX.minor()),
        ),
    }
}

/// When a session that is taken over began and ends. A browser can't name a time in the future, nor a longer life than
/// any other; and where a payment is claimed the session lives on until a service had time to look at it.
fn claimed_times(claims: &Claims, now: Timestamp, latest_end: Timestamp) -> (Option<Timestamp>, Timestamp) {
    let began_at = claims.created_at.filter(|began| *began <= now);
    let ends_at = claims.expires_at.unwrap_or(latest_end).min(latest_end);
    (began_at, if claims.claim_payment() { latest_end } else { ends_at })
}

fn read_email(text: &str) -> Result<Option<EmailAddress>, Rejection> {
    if text.is_empty() {
        return Ok(None);
    }
    match EmailAddress::new(text) {
        Ok(email) => Ok(Some(email)),
        Err(error) => reject(Code::InvalidField, format_args!("email: {error}")),
    }
}

fn check_customer(customer: &Customer) -> Result<(), Rejection> {
    match customer.first_invalid_field() {
        None => Ok(()),
        Some(field) => reject(
            Code::InvalidField,
            format_args!("customer.{field} is longer than {MAX_FIELD_CHARS} characters or holds control characters"),
        ),
    }
}

fn check_metadata(metadata: &JsonObject) -> Result<(), Rejection> {
    match json::check_limits(metadata) {
        Ok(()) => Ok(()),
        Err(limit) => reject(Code::MetadataTooLarge, format_args!("the metadata has {limit}")),
    }
}

fn read_coupon(code: &str, funnel: &Funnel) -> Result<String, Rejection> {
    match funnel.coupon(code.trim()) {
        Some(coupon) => Ok(coupon.code.clone()),
        None => reject(Code::UnknownCoupon, format_args!("this coupon is not known; check its spelling")),
    }
}

fn keep_unknown_coupon(metadata: &mut JsonObject, code: &str) {
    let mut with_coupon = metadata.clone();
    let legacy =
        with_coupon.entry(legacy::METADATA_KEY.to_owned()).or_insert_with(|| JsonValue::Object(JsonObject::new()));
    if let JsonValue::Object(legacy) = legacy {
        legacy.insert("couponCode".to_owned(), code.into());
    }
    // Where there is no room for it, everything else matters more.
    if json::check_limits(&with_coupon).is_ok() {
        *metadata = with_coupon;
    }
}

fn check_reference(name: &str, text: &str) -> Result<(), Rejection> {
    if text.is_empty() || text.chars().count() > MAX_FIELD_CHARS || text.chars().any(char::is_control) {
        let message = format_args!("{name} has to be 1 to {MAX_FIELD_CHARS} characters without control characters");
        return reject(Code::InvalidField, message);
    }
    Ok(())
}

struct Decider<'a> {
    session: &'a Session,
    role: Role,
    context: &'a Context<'a>,
}

impl Decider<'_> {
    fn decide(&self, command: &Command) -> Decision {
        match command {
            Command::SetEmail { email } => self.set_email(email),
            Command::SetCustomer { customer } => self.set_customer(customer),
            Command::SetItems { items } => self.set_items(items),
            Command::SetCoupon { code } => self.set_coupon(code.as_deref()),
            Command::SetAdjustments { discount, shipping, tax } => self.set_adjustments(*discount, *shipping, *tax),
            Command::GoToStep { step } => self.go_to_step(step),
            Command::BeginProcessing {} => self.begin_processing(),
            Command::RecordPayment { transaction_id, amount, vault_id, customer_id, payment_token } => {
                check_reference("transactionId", transaction_id)?;
                for (name, value) in
                    [("vaultId", vault_id), ("customerId", customer_id), ("paymentToken", payment_token)]
                {
                    value.as_deref().map_or(Ok(()), |text| check_reference(name, text))?;
                }
                self.record_payment(
                    transaction_id,
                    *amount,
                    Event::PaymentRecorded {
                        transaction_id: Some(transaction_id.clone()),
                        amount: *amount,
                        vault_id: vault_id.clone(),
                        customer_id: customer_id.clone(),
                        payment_token: payment_token.clone(),
                    },
                )
            }
            Command::FailPayment { code, message } => self.fail_payment(code, message),
            Command::AcceptUpsell { offer } => self.accept_upsell(offer),
            Command::DeclineUpsell { offer } => self.decline_upsell(offer),
            Command::RecordUpsellCharge { offer, transaction_id, amount } => {
                self.record_upsell_charge(offer, transaction_id, *amount)
            }
            Command::FailUpsellCharge { offer, code, message } => self.fail_upsell_charge(offer, code, message),
            Command::SetMetadata { metadata } => self.set_metadata(metadata),
            Command::Extend { ttl_ms } => self.extend(*ttl_ms),
            Command::Expire {} => expire(self.session, self.context.now),
            Command::ConfirmClaims { transaction_id, vault_id, customer_id } => {
                self.confirm_claims(transaction_id.as_deref(), vault_id.as_deref(), customer_id.as_deref())
            }
            Command::RefuteClaims {} => self.refute_claims(),
            Command::Create(_) | Command::Erase {} => Ok(vec![]),
        }
    }

    /// The session has to be alive: neither over, nor past its end.
    fn check_alive(&self) -> Result<(), Rejection> {
        let is_over = self.context.now >= self.session.expires_at;
        match self.session.status {
            Status::Completed => {
                reject(Code::SessionCompleted, format_args!("this order is complete; start a new session"))
            }
            Status::Expired => {
                reject(Code::SessionExpired, format_args!("this session has expired; start a new session"))
            }
            _ if is_over && self.session.is_paid() => reject(
                Code::SessionCompleted,
                format_args!("the time of this session is over; the order is complete as it is"),
            ),
            _ if is_over => reject(Code::SessionExpired, format_args!("this session has expired; start a new session")),
            Status::Pending | Status::Processing | Status::Failed => Ok(()),
        }
    }

    /// What is bought and who buys may only change before a payment is under way.
    fn check_editable(&self) -> Result<(), Rejection> {
        self.check_alive()?;
        if self.session.is_paid() {
            return reject(
                Code::AlreadyPaid,
                format_args!("this session is paid; what was bought can't be changed any more"),
            );
        }
        if !self.session.is_editable() {
            return reject(Code::PaymentUnderWay, format_args!("a payment is under way; wait for its outcome"));
        }
        Ok(())
    }

    fn set_email(&self, text: &str) -> Decision {
        self.check_editable()?;
        let email = read_email(text)?;
        Ok(if email == self.session.email { vec![] } else { vec![Event::EmailSet { email }] })
    }

    fn set_customer(&self, patch: &Customer) -> Decision {
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

    fn set_items(&self, requests: &[ItemRequest]) -> Decision {
        self.check_editable()?;
        self.check_confirmed()?;
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

    fn set_coupon(&self, code: Option<&str>) -> Decision {
        self.check_editable()?;
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

    fn set_adjustments(&self, discount: Option<Money>, shipping: Option<Money>, tax: Option<Money>) -> Decision {
        self.check_editable()?;
        for (name, amount) in [("discount", discount), ("shipping", shipping), ("tax", tax)] {
            if let Some(amount) = amount.filter(|amount| !amount.is_price()) {
                let message = format_args!("{name} is {}; 0 to {} are possible", amount.minor(), Money::MAX.minor());
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

    fn adjusted(&self, adjustments: Adjustments) -> Option<Event> {
        (adjustments != self.session.adjustments).then_some(Event::AdjustmentsSet { adjustments })
    }

    fn current_step(&self) -> Result<&Step, Rejection> {
        let current = &self.session.current_step;
        self.context.funnel.step(current).ok_or_else(|| {
            rejection(Code::UnknownStep, format_args!("the funnel {} has no step {current}", self.context.funnel.id))
        })
    }

    fn go_to_step(&self, target: &StepId) -> Decision {
        self.check_alive()?;
        let funnel = self.context.funnel;
        let current = self.current_step()?;
        if current.id == *target {
            return Ok(vec![]);
        }
        let Some(step) = funnel.step(target) else {
            return reject(Code::UnknownStep, format_args!("the funnel {} has no step {target}", funnel.id));
        };
        let forward = current.next.contains(target);
        if !forward && !current.back.contains(target) {
            let choices: Vec<&str> = current.next.iter().chain(&current.back).map(StepId::as_str).collect();
            let message = format_args!(
                "{target} can't be reached from {}; from there it goes to {}",
                current.id,
                choices.join(", ")
            );
            return reject(Code::StepNotAllowed, message);
        }
        let is_paid = self.session.is_paid();
        match (current.kind, step.kind) {
            (StepKind::Payment, _) if !is_paid && self.session.status == Status::Processing => {
                return reject(Code::PaymentUnderWay, format_args!("a payment is under way; wait for its outcome"));
            }
            (_, StepKind::Payment) if is_paid => {
                return reject(Code::AlreadyPaid, format_args!("this session is paid already"));
            }
            (_, StepKind::Payment) => {
                return reject(Code::StepNotAllowed, format_args!("{target} is entered by paying (beginProcessing)"));
            }
            (_, StepKind::Form) if is_paid => {
                return reject(Code::StepNotAllowed, format_args!("{target} comes before the payment, which is done"));
            }
            (_, StepKind::Offer | StepKind::Terminal) if !is_paid => {
                return reject(Code::NotPaid, format_args!("{target} comes after the payment, which is not done"));
            }
            _ => {}
        }

        let mut events = Vec::new();
        if forward {
            // Whoever walks on without an answer has answered. A step that asks for answers (a guard) refuses instead.
            self.check_requirements(step)?;
            events.extend(lapse(self.session, |upsell| upsell.step == current.id));
        }
        events.extend(self.enter(step));
        Ok(events)
    }

    fn check_requirements(&self, step: &Step) -> Result<(), Rejection> {
        let missing: Vec<String> = step
            .requires
            .iter()
            .filter(|requirement| !requirement.is_met(self.session))
            .map(ToString::to_string)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        reject(Code::FieldsMissing, format_args!("before {} these are needed: {}", step.id, missing.join(", ")))
    }

    /// What entering a step causes: its offers are made, and the terminal one completes the session.
    fn enter(&self, step: &Step) -> Vec<Event> {
        let mut events = vec![Event::StepEntered { step: step.id.clone() }];
        let not_made = step.offers.iter().filter(|offer| self.session.upsell(offer).is_none());
        events.extend(not_made.filter_map(|offer| self.make_offer(offer, step)));
        if step.kind == StepKind::Terminal {
            // Offers that were left open on the way, by going back and forth, end here.
            events.extend(lapse(self.session, |upsell| upsell.step != self.session.current_step));
            events.push(Event::Completed {});
        }
        events
    }

    fn make_offer(&self, offer: &OfferId, step: &Step) -> Option<Event> {
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

    fn check_confirmed(&self) -> Result<(), Rejection> {
        if self.session.claims.as_ref().is_some_and(Claims::claim_payment) {
            return reject(
                Code::AwaitingConfirmation,
                format_args!(
                    "this session may have been paid before it moved here; the shop has to confirm that first"
                ),
            );
        }
        Ok(())
    }

    fn begin_processing(&self) -> Decision {
        self.check_alive()?;
        if self.session.is_paid() {
            return reject(Code::AlreadyPaid, format_args!("this session is paid already"));
        }
        if self.session.status == Status::Processing {
            return Ok(vec![]);
        }
        self.check_confirmed()?;
        if self.session.products.iter().any(|item| item.price_source == PriceSource::Claimed) {
            return reject(
                Code::AwaitingConfirmation,
                format_args!("the price of a product is not in the catalogue; the shop has to confirm it first"),
            );
        }
        let current = self.current_step()?;
        let leads_to = current.next.iter().filter_map(|id| self.context.funnel.step(id));
        let Some(payment) = leads_to.into_iter().find(|step| step.kind == StepKind::Payment) else {
            return reject(Code::StepNotAllowed, format_args!("{} does not lead to the payment", current.id));
        };
        self.check_requirements(payment)?;
        Ok(vec![Event::PaymentBegun {}, Event::StepEntered { step: payment.id.clone() }])
    }

    /// Money that was taken has to be written down, also when the session was given up in the meantime.
    fn record_payment(&self, transaction_id: &str, amount: Money, recorded: Event) -> Decision {
        let Session { amount: owed, .. } = *self.session;
        if self.session.is_paid() {
            if self.session.transaction_id.as_deref() == Some(transaction_id) {
                return Ok(vec![]);
            }
            return reject(
                Code::AlreadyPaid,
                format_args!("this session is paid already, by another transaction; refund this one"),
            );
        }
        if amount != owed {
            let message = format_args!("the payment is {} but the session owes {}", amount.minor(), owed.minor());
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

    fn fail_payment(&self, code: &str, message: &str) -> Decision {
        check_reference("code", code)?;
        check_reference("message", message)?;
        if self.session.is_paid() {
            return reject(Code::AlreadyPaid, format_args!("this session is paid already"));
        }
        if self.session.status != Status::Processing {
            return reject(Code::PaymentNotBegun, format_args!("no payment is under way"));
        }
        let failure = PaymentFailure { code: code.to_owned(), message: message.to_owned() };
        let mut events = vec![Event::PaymentFailed { failure }];
        if let Some(back) = self.current_step()?.back.first() {
            events.push(Event::StepEntered { step: back.clone() });
        }
        Ok(events)
    }

    fn made_offer(&self, offer: &OfferId) -> Result<&Upsell, Rejection> {
        self.session.upsell(offer).ok_or_else(|| {
            rejection(Code::OfferNotMade, format_args!("the offer {offer} was not made to this session"))
        })
    }

    fn check_open(&self, upsell: &Upsell) -> Result<(), Rejection> {
        self.check_alive()?;
        if upsell.closes_at.is_some_and(|closes_at| self.context.now >= closes_at) {
            return reject(Code::OfferLapsed, format_args!("the time to answer the offer {} is over", upsell.offer));
        }
        Ok(())
    }

    fn accept_upsell(&self, offer: &OfferId) -> Decision {
        let upsell = self.made_offer(offer)?;
        match upsell.state {
            OfferState::Accepted | OfferState::Charged | OfferState::ChargeFailed => Ok(vec![]),
            OfferState::Declined => {
                reject(Code::OfferDeclined, format_args!("the offer {offer} was declined; that is final"))
            }
            OfferState::Lapsed => reject(Code::OfferLapsed, format_args!("the offer {offer} is closed")),
            OfferState::Offered => {
                self.check_open(upsell)?;
                Ok(vec![Event::OfferAccepted { offer: offer.clone() }])
            }
        }
    }

    fn decline_upsell(&self, offer: &OfferId) -> Decision {
        let upsell = self.made_offer(offer)?;
        match upsell.state {
            OfferState::Declined | OfferState::Lapsed => Ok(vec![]),
            OfferState::Accepted | OfferState::Charged | OfferState::ChargeFailed => reject(
                Code::OfferAccepted,
                format_args!("the offer {offer} was accepted; it can't be declined any more"),
            ),
            OfferState::Offered => {
                self.check_open(upsell)?;
                Ok(vec![Event::OfferDeclined { offer: offer.clone() }])
            }
        }
    }

    fn record_upsell_charge(&self, offer: &OfferId, transaction_id: &str, amount: Money) -> Decision {
        check_reference("transactionId", transaction_id)?;
        let upsell = self.made_offer(offer)?;
        match upsell.state {
            OfferState::Charged if upsell.transaction_id.as_deref() == Some(transaction_id) => Ok(vec![]),
            OfferState::Charged => reject(
                Code::OfferCharged,
                format_args!("the offer {offer} was charged already, by another transaction; refund this one"),
            ),
            OfferState::Accepted | OfferState::ChargeFailed => {
                let owed = upsell.price.plus(upsell.tax);
                if amount != owed {
                    let message = format_args!("the charge is {} but the offer costs {}", amount.minor(), owed.minor());
                    return reject(Code::AmountMismatch, message);
                }
                let transaction_id = Some(transaction_id.to_owned());
                Ok(vec![Event::OfferCharged { offer: offer.clone(), transaction_id }])
            }
            state => self.reject_unaccepted(offer, state),
        }
    }

    fn fail_upsell_charge(&self, offer: &OfferId, code: &str, message: &str) -> Decision {
        check_reference("code", code)?;
        check_reference("message", message)?;
        match self.made_offer(offer)?.state {
            OfferState::Accepted | OfferState::ChargeFailed => {
                let failure = PaymentFailure { code: code.to_owned(), message: message.to_owned() };
                Ok(vec![Event::OfferChargeFailed { offer: offer.clone(), failure }])
            }
            OfferState::Charged => reject(Code::OfferCharged, format_args!("the offer {offer} was charged already")),
            state => self.reject_unaccepted(offer, state),
        }
    }

    fn reject_unaccepted(&self, offer: &OfferId, state: OfferState) -> Decision {
        match state {
            OfferState::Declined => {
                reject(Code::OfferDeclined, format_args!("the offer {offer} was declined; don't charge it"))
            }
            OfferState::Lapsed => {
                reject(Code::OfferLapsed, format_args!("the offer {offer} is closed; don't charge it"))
            }
            _ => reject(Code::OfferNotMade, format_args!("the offer {offer} was not accepted; don't charge it")),
        }
    }

    fn set_metadata(&self, patch: &JsonObject) -> Decision {
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

    fn extend(&self, ttl_ms: Option<u32>) -> Decision {
        self.check_alive()?;
        let lifetime = self.context.funnel.lifetime;
        let latest = self.session.created_at.plus(lifetime.max);
        if self.session.expires_at >= latest {
            let message = format_args!("a session of this funnel lives {} at most", lifetime.max);
            return reject(Code::LifetimeExceeded, message);
        }
        let ttl = ttl_ms.map_or(lifetime.default, |ttl| TimeSpan::from_millis(ttl.into()));
        let expires_at = self.context.now.plus(ttl).min(latest);
        Ok(if expires_at <= self.session.expires_at { vec![] } else { vec![Event::Extended { expires_at }] })
    }

    fn confirm_claims(
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
    fn claimed_offers(&self, claims: &Claims) -> Vec<Event> {
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

    fn refute_claims(&self) -> Decision {
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

/// Ends a session whose time is over. Needs no funnel, so that it works also where the session's funnel is gone.
pub(crate) fn expire(session: &Session, now: Timestamp) -> Decision {
    if session.status.is_terminal() {
        return Ok(vec![]);
    }
    if now < session.expires_at {
        return reject(Code::NotDue, format_args!("the session lives until {}", session.expires_at));
    }
    if !session.is_paid() {
        return Ok(vec![Event::Expired {}]);
    }
    let mut events = lapse(session, |_| true);
    events.push(Event::Completed {});
    Ok(events)
}

fn lapse(session: &Session, which: impl Fn(&Upsell) -> bool) -> Vec<Event> {
    let open = session.upsells.iter().filter(|upsell| upsell.state == OfferState::Offered);
    open.filter(|upsell| which(upsell)).map(|upsell| Event::OfferLapsed { offer: upsell.offer.clone() }).collect()
}

fn made_offer_id(event: &Event) -> Option<&OfferId> {
    match event {
        Event::OfferMade { offer, .. } => Some(offer),
        _ => None,
    }
}
