//! One sentence for each rule, and for each way to be refused.

use proptest::prelude::*;
use serde_json::{Value, json};
use throughline_core::json::{JsonObject, JsonValue};
use throughline_core::legacy::take_over;
use throughline_core::sync::{
    Authority, Credential, DatabaseView, Effect, Environment, FixedFunnel, Loaded, PeerId, Request, ServerFrame,
};
use throughline_core::{
    Command, Context, Create, Funnel, LentClaim, Money, OfferState, PriceSource, Record, Rejection,
    RejectionCode as Code, Role, Session, SessionId, State, Status, TimeSpan, decide, evolve,
};

use crate::generate::{Dice, START, Walk, client, default_funnel, json as any_json, session_id};

/// A session with sentences about it.
struct Shop(Walk);

impl Shop {
    /// No session yet.
    fn closed() -> Self {
        Self(Walk::new(default_funnel()))
    }

    /// A session at the checkout.
    fn open() -> Self {
        Self::closed().browser(json!({"type": "create"}))
    }

    /// A session with everything that paying asks for: 79.00 and 7.25 % tax.
    fn filled() -> Self {
        Self::open()
            .browser(json!({"type": "setEmail", "email": "ada@example.com"}))
            .browser(json!({"type": "setItems", "items": [{"id": "fitspresso-1-pack", "quantity": 1}]}))
            .browser(json!({"type": "setCustomer", "customer":
                {"firstName": "Ada", "lastName": "Lovelace", "billing": {"state": "CA"}}}))
    }

    fn paying() -> Self {
        Self::filled().browser(json!({"type": "beginProcessing"}))
    }

    /// Paid, and at the first offers.
    fn paid() -> Self {
        Self::paying().service(pay("t1", 8473))
    }

    fn completed() -> Self {
        Self::paid()
            .browser(json!({"type": "goToStep", "step": "upsell-2"}))
            .browser(json!({"type": "goToStep", "step": "success"}))
    }

    fn expired() -> Self {
        Self::open().later(24 * 3_600_000).service(json!({"type": "expire"}))
    }

    fn erased() -> Self {
        Self::filled().service(json!({"type": "erase"}))
    }

    /// Taken over from a browser that claims this.
    fn claiming(claims: Value) -> Self {
        Self::closed().browser(json!({"type": "create", "email": "ada@example.com",
            "customer": {"firstName": "Ada", "lastName": "Lovelace"}, "claims": claims}))
    }

    fn browser(self, command: Value) -> Self {
        self.must(Role::Browser, command)
    }

    fn service(self, command: Value) -> Self {
        self.must(Role::Service, command)
    }

    fn must(mut self, role: Role, command: Value) -> Self {
        let stride = self.0.issue(role, serde_json::from_value(command.clone()).unwrap());
        assert!(stride.outcome.is_ok(), "{command}: {:?}", stride.outcome.err());
        self
    }

    fn later(mut self, millis: i64) -> Self {
        self.0.now = self.0.now.plus(TimeSpan::from_millis(millis));
        self
    }

    #[track_caller]
    fn refuses(&mut self, role: Role, command: Value, code: Code) -> Rejection {
        let before = self.0.state.clone();
        let outcome = self.0.issue(role, serde_json::from_value(command.clone()).unwrap()).outcome;
        let rejection = outcome.expect_err(&format!("{command} was not refused"));
        assert_eq!(rejection.code, code, "{command}: {}", rejection.message);
        assert_eq!(rejection.mendable_by, code.mendable_by());
        assert_eq!(self.0.state, before, "a refusal changes nothing");
        rejection
    }

    #[track_caller]
    fn changes_nothing(&mut self, role: Role, command: Value) {
        let outcome = self.0.issue(role, serde_json::from_value(command.clone()).unwrap()).outcome;
        assert_eq!(outcome, Ok(vec![]), "{command}");
    }

    fn session(&self) -> &Session {
        &self.0.state.as_ref().unwrap().session
    }
}

fn pay(transaction: &str, amount: i64) -> Value {
    json!({"type": "recordPayment", "transactionId": transaction, "amount": amount})
}

fn offer(kind: &str, offer: &str) -> Value {
    json!({"type": kind, "offer": offer})
}

fn charge(offer: &str, transaction: &str, amount: i64) -> Value {
    json!({"type": "recordUpsellCharge", "offer": offer, "transactionId": transaction, "amount": amount})
}

fn step(step: &str) -> Value {
    json!({"type": "goToStep", "step": step})
}

use Role::{Browser, Operator, Service, System};

#[test]
fn a_whole_order_goes_from_the_checkout_to_the_end() {
    let shop = Shop::paid()
        .browser(offer("acceptUpsell", "RC6"))
        .service(charge("RC6", "t2", 21343))
        .browser(step("upsell-2"))
        .browser(offer("declineUpsell", "SG6"))
        .browser(step("success"));
    let session = shop.session();
    assert_eq!(session.status, Status::Completed);
    assert_eq!(session.amount, Money::from_minor(8473 + 21343));
    let states: Vec<_> = session.upsells.iter().map(|upsell| (upsell.offer.as_str(), upsell.state)).collect();
    assert_eq!(
        states,
        [("RC6", OfferState::Charged), ("RC12", OfferState::Lapsed), ("SG6", OfferState::Declined)],
        "walking on without an answer lets an offer lapse"
    );
}

#[test]
fn a_browser_may_not_record_payments() {
    let rejection = Shop::paying().refuses(Browser, pay("t1", 8473), Code::NotPermitted);
    assert_eq!(rejection.message, "a browser may not issue recordPayment");
}

#[test]
fn a_browser_may_not_name_a_price_and_a_service_may() {
    let items = json!({"type": "setItems", "items": [{"id": "fitspresso-1-pack", "quantity": 1, "price": 1}]});
    let mut shop = Shop::open();
    shop.refuses(Browser, items.clone(), Code::PriceNotAllowed);
    assert_eq!(shop.service(items).session().products[0].price_source, PriceSource::Service);
}

#[test]
fn what_is_not_there_can_not_be_changed() {
    Shop::closed().refuses(Browser, json!({"type": "setEmail", "email": "a@b.co"}), Code::SessionNotFound);
}

#[test]
fn a_session_is_created_once() {
    Shop::open().refuses(Browser, json!({"type": "create"}), Code::SessionExists);
}

#[test]
fn an_expired_session_takes_no_commands() {
    let mut shop = Shop::expired();
    assert_eq!(shop.session().status, Status::Expired);
    shop.refuses(Browser, json!({"type": "setEmail", "email": "a@b.co"}), Code::SessionExpired);
}

#[test]
fn a_session_past_its_end_is_over_before_anybody_says_so() {
    let mut shop = Shop::open().later(24 * 3_600_000);
    shop.refuses(Browser, json!({"type": "setEmail", "email": "a@b.co"}), Code::SessionExpired);
}

#[test]
fn a_paid_session_completes_at_its_end_and_open_offers_lapse() {
    let mut shop = Shop::paid().later(24 * 3_600_000);
    shop.refuses(Browser, step("upsell-2"), Code::SessionCompleted);
    let shop = shop.must(System, json!({"type": "expire"}));
    assert_eq!(shop.session().status, Status::Completed);
    assert!(shop.session().upsells.iter().all(|upsell| upsell.state == OfferState::Lapsed));
}

#[test]
fn a_completed_order_takes_no_commands() {
    Shop::completed().refuses(Browser, json!({"type": "setCoupon", "code": "SAVE10"}), Code::SessionCompleted);
}

#[test]
fn an_erased_session_stays_erased() {
    let mut shop = Shop::erased();
    shop.refuses(Service, json!({"type": "setEmail", "email": "a@b.co"}), Code::SessionErased);
    shop.changes_nothing(Operator, json!({"type": "erase"}));
    assert_eq!(shop.session().email, None);
}

#[test]
fn a_session_does_not_expire_before_its_time() {
    Shop::open().refuses(Service, json!({"type": "expire"}), Code::NotDue);
}

#[test]
fn an_unknown_funnel_is_refused() {
    for funnel in [json!({"id": "elsewhere"}), json!({"id": "default", "version": 2})] {
        Shop::closed().refuses(Browser, json!({"type": "create", "funnel": funnel}), Code::UnknownFunnel);
    }
}

#[test]
fn an_unknown_step_is_refused() {
    Shop::open().refuses(Browser, step("nowhere"), Code::UnknownStep);
}

#[test]
fn asvs_2_3_1_steps_are_not_skipped_and_the_payment_is_entered_by_paying() {
    let mut shop = Shop::filled();
    shop.refuses(Browser, step("success"), Code::StepNotAllowed);
    shop.refuses(Browser, step("processing"), Code::StepNotAllowed);
    shop.changes_nothing(Browser, step("checkout"));
}

#[test]
fn paying_asks_for_the_fields_that_are_missing() {
    let rejection = Shop::open().refuses(Browser, json!({"type": "beginProcessing"}), Code::FieldsMissing);
    assert_eq!(
        rejection.message,
        "before processing these are needed: email, products, customer.firstName, customer.lastName"
    );
}

#[test]
fn fields_that_can_not_be_are_refused() {
    let mut shop = Shop::open();
    shop.refuses(Browser, json!({"type": "setEmail", "email": "nonsense"}), Code::InvalidField);
    let phone = "5".repeat(201);
    shop.refuses(Browser, json!({"type": "setCustomer", "customer": {"phone": phone}}), Code::InvalidField);
    let items = json!({"type": "setItems", "items": [{"id": "x", "quantity": 1, "price": 1, "name": "a\u{0}"}]});
    shop.refuses(Service, items, Code::InvalidField);
    Shop::paying().refuses(Service, pay("", 8473), Code::InvalidField);
}

#[test]
fn what_the_catalogue_has_not_is_refused() {
    let items = json!({"type": "setItems", "items": [{"id": "unheard-of", "quantity": 1}]});
    Shop::open().refuses(Browser, items, Code::UnknownProduct);
}

#[test]
fn quantities_and_lines_have_limits() {
    let item = |quantity: u32| json!({"id": "fitspresso-1-pack", "quantity": quantity});
    let mut shop = Shop::open();
    for items in [vec![item(0)], vec![item(1000)], vec![item(1); 101]] {
        shop.refuses(Browser, json!({"type": "setItems", "items": items}), Code::InvalidQuantity);
    }
    shop.browser(json!({"type": "setItems", "items": vec![item(999); 100]}));
}

#[test]
fn amounts_have_limits() {
    let mut shop = Shop::open();
    for discount in [-1_i64, 10_000_000_001] {
        shop.refuses(Service, json!({"type": "setAdjustments", "discount": discount}), Code::InvalidAmount);
    }
    let items = json!({"type": "setItems", "items": [{"id": "x", "quantity": 1, "price": -1}]});
    shop.refuses(Service, items, Code::InvalidAmount);
    let claims = json!({"status": "pending", "step": "checkout", "amount": 9_007_199_254_740_991_i64});
    Shop::closed().refuses(Browser, json!({"type": "create", "claims": claims}), Code::InvalidAmount);
}

#[test]
fn an_unknown_coupon_is_refused_and_a_known_one_counts_whatever_its_capitals() {
    let mut shop = Shop::filled();
    shop.refuses(Browser, json!({"type": "setCoupon", "code": "NOPE"}), Code::UnknownCoupon);
    let shop = shop.browser(json!({"type": "setCoupon", "code": " save10 "}));
    assert_eq!(shop.session().totals.discount, Money::from_minor(790));
    assert_eq!(shop.session().coupon_code.as_deref(), Some("SAVE10"));
    // 7.25 % of 71.10, rounded half up.
    assert_eq!(shop.session().amount, Money::from_minor(7110 + 515));
    assert_eq!(shop.browser(json!({"type": "setCoupon"})).session().amount, Money::from_minor(8473));
}

#[test]
fn what_a_service_has_priced_a_browser_can_not_price_again() {
    let mut shop = Shop::filled().service(json!({"type": "setAdjustments", "tax": 1}));
    let items = json!({"type": "setItems", "items": [{"id": "fitspresso-3-pack", "quantity": 1}]});
    shop.refuses(Browser, items.clone(), Code::PriceNotAllowed);
    shop.refuses(Browser, json!({"type": "setCoupon", "code": "SAVE10"}), Code::PriceNotAllowed);
    let shop = shop.browser(json!({"type": "setCustomer", "customer": {"billing": {"state": "NY"}}}));
    assert_eq!(shop.session().totals.tax, Money::from_minor(1));
    let shop = shop.service(items);
    assert_eq!(shop.session().totals.tax, Money::from_minor(1416));

    let line = json!({"id": "install", "name": "Installation", "price": 5000, "quantity": 1});
    let mut shop = Shop::filled().service(json!({"type": "setItems", "items": [line]}));
    shop.refuses(Browser, json!({"type": "setItems", "items": []}), Code::PriceNotAllowed);
}

#[test]
fn a_browser_can_not_choose_the_id_of_a_session() {
    let funnel = default_funnel();
    let create = Command::Create(Box::default());
    for (id, role, is_allowed) in [
        ("order-7", Browser, false),
        ("ws_1_a", Browser, false),
        ("ws_mwor0dc0_0ez6uz7hcaq7bct63a1rip2iv", Browser, true),
        ("order-7", Service, true),
    ] {
        let id = SessionId::new(id).unwrap();
        let context = Context { now: START, funnel: &funnel, session_id: &id, epoch: 9, claim: None };
        assert_eq!(decide(None, &create, role, &context).is_ok(), is_allowed, "{id} {role:?}");
    }
}

#[test]
fn nothing_changes_while_a_payment_is_under_way() {
    let mut shop = Shop::paying();
    shop.refuses(Browser, json!({"type": "setCoupon", "code": "SAVE10"}), Code::PaymentUnderWay);
    shop.refuses(Browser, step("checkout"), Code::PaymentUnderWay);
    shop.changes_nothing(Browser, json!({"type": "beginProcessing"}));
}

#[test]
fn a_failed_payment_leads_back_and_may_be_tried_again() {
    let fail = json!({"type": "failPayment", "code": "declined", "message": "Declined."});
    let shop = Shop::paying().service(fail);
    assert_eq!((shop.session().status, shop.session().current_step.as_str()), (Status::Failed, "checkout"));
    let shop = shop.browser(json!({"type": "beginProcessing"})).service(pay("t1", 8473));
    assert_eq!(shop.session().payment.attempts, 2);
}

#[test]
fn a_session_is_paid_once() {
    let mut shop = Shop::paid();
    shop.changes_nothing(Service, pay("t1", 8473));
    shop.refuses(Service, pay("t2", 8473), Code::AlreadyPaid);
    shop.refuses(Browser, json!({"type": "beginProcessing"}), Code::AlreadyPaid);
    let fail = json!({"type": "failPayment", "code": "declined", "message": "Declined."});
    shop.refuses(Service, fail, Code::AlreadyPaid);
    shop.refuses(Browser, json!({"type": "setCoupon", "code": "SAVE10"}), Code::AlreadyPaid);
}

#[test]
fn a_payment_that_was_not_begun_can_not_fail() {
    let fail = json!({"type": "failPayment", "code": "declined", "message": "Declined."});
    Shop::filled().refuses(Service, fail, Code::PaymentNotBegun);
}

#[test]
fn what_comes_after_the_payment_is_closed_before_it() {
    // No funnel that passed its check leads there; the rule holds all the same.
    let mut shop = Shop::open();
    shop.0.funnel.steps[0].next.push("upsell-1".to_owned().try_into().unwrap());
    assert!(!shop.0.funnel.problems().is_empty());
    shop.refuses(Browser, step("upsell-1"), Code::NotPaid);
}

#[test]
fn a_payment_is_for_what_is_owed() {
    let mut shop = Shop::paying();
    shop.refuses(Service, pay("t1", 8472), Code::AmountMismatch);
    let mut shop = Shop::paid().browser(offer("acceptUpsell", "RC6"));
    shop.refuses(Service, charge("RC6", "t2", 19900), Code::AmountMismatch);
}

#[test]
fn money_that_was_taken_is_written_down_after_the_end_too() {
    let shop = Shop::paying().later(48 * 3_600_000).must(System, json!({"type": "expire"})).service(pay("t1", 8473));
    assert_eq!(shop.session().status, Status::Completed);
    assert!(shop.session().is_paid());
}

#[test]
fn what_the_gateway_told_is_kept_and_makes_nothing_paid() {
    let told = |fields: Value| {
        let mut command = json!({"type": "setPaymentReferences"});
        command.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        command
    };
    let mut shop =
        Shop::paying().service(told(json!({"paymentToken": "tok"}))).service(told(json!({"transactionId": "t1"})));
    assert_eq!(shop.session().payment_token.as_deref(), Some("tok"));
    assert_eq!(shop.session().transaction_id.as_deref(), Some("t1"));
    assert!(!shop.session().is_paid());
    shop.changes_nothing(Service, told(json!({"paymentToken": "tok", "transactionId": "t1"})));
    shop.refuses(Service, told(json!({"vaultId": ""})), Code::InvalidField);
    shop.refuses(Browser, told(json!({"vaultId": "v"})), Code::NotPermitted);

    let mut shop = shop.service(pay("t2", 8473));
    assert_eq!(shop.session().transaction_id.as_deref(), Some("t2"));
    assert_eq!(shop.session().payment_token.as_deref(), Some("tok"));
    shop.refuses(Service, told(json!({"transactionId": "t1"})), Code::AlreadyPaid);
    let shop = shop.service(told(json!({"vaultId": "v2"})));
    assert_eq!(shop.session().vault_id.as_deref(), Some("v2"));
}

#[test]
fn without_claims_there_is_nothing_to_confirm_or_refute() {
    let mut shop = Shop::open();
    shop.refuses(Service, json!({"type": "confirmClaims"}), Code::NothingClaimed);
    shop.refuses(Service, json!({"type": "refuteClaims"}), Code::NothingClaimed);
}

#[test]
fn only_offers_that_were_made_are_answered() {
    let mut shop = Shop::paid();
    shop.refuses(Browser, offer("acceptUpsell", "SG6"), Code::OfferNotMade);
    shop.refuses(Service, charge("RC6", "t2", 21343), Code::OfferNotMade);
}

#[test]
fn a_declined_offer_is_declined_for_good() {
    let mut shop = Shop::paid().browser(offer("declineUpsell", "RC6"));
    shop.changes_nothing(Browser, offer("declineUpsell", "RC6"));
    shop.refuses(Browser, offer("acceptUpsell", "RC6"), Code::OfferDeclined);
    shop.refuses(Service, charge("RC6", "t2", 21343), Code::OfferDeclined);
}

#[test]
fn an_accepted_offer_can_not_be_declined_and_accepting_twice_is_once() {
    let mut shop = Shop::paid().browser(offer("acceptUpsell", "RC6"));
    shop.changes_nothing(Browser, offer("acceptUpsell", "RC6"));
    shop.refuses(Browser, offer("declineUpsell", "RC6"), Code::OfferAccepted);
}

#[test]
fn a_lapsed_offer_is_closed() {
    let mut shop = Shop::paid().browser(step("upsell-2"));
    shop.refuses(Browser, offer("acceptUpsell", "RC6"), Code::OfferLapsed);
    shop.changes_nothing(Browser, offer("declineUpsell", "RC6"));
    shop.refuses(Service, charge("RC6", "t2", 21343), Code::OfferLapsed);
}

#[test]
fn an_offer_with_a_time_limit_closes_in_time() {
    let mut shop = Shop::paying();
    shop.0.funnel.steps[2].time_limit = Some(TimeSpan::from_millis(600_000));
    let mut shop = shop.service(pay("t1", 8473)).later(600_000);
    shop.refuses(Browser, offer("acceptUpsell", "RC6"), Code::OfferLapsed);
}

#[test]
fn an_offer_is_charged_once() {
    let mut shop = Shop::paid().browser(offer("acceptUpsell", "RC6")).service(charge("RC6", "t2", 21343));
    shop.changes_nothing(Service, charge("RC6", "t2", 21343));
    shop.refuses(Service, charge("RC6", "t3", 21343), Code::OfferCharged);
    let fail = json!({"type": "failUpsellCharge", "offer": "RC6", "code": "declined", "message": "Declined."});
    shop.refuses(Service, fail, Code::OfferCharged);
}

#[test]
fn a_failed_charge_takes_the_offer_off_the_amount_until_it_succeeds() {
    let fail = json!({"type": "failUpsellCharge", "offer": "RC6", "code": "declined", "message": "Declined."});
    let shop = Shop::paid().browser(offer("acceptUpsell", "RC6")).service(fail);
    assert_eq!(shop.session().amount, Money::from_minor(8473));
    let shop = shop.service(charge("RC6", "t2", 21343));
    assert_eq!(shop.session().amount, Money::from_minor(8473 + 21343));
}

#[test]
fn metadata_has_limits_and_null_removes() {
    let mut shop = Shop::open().browser(json!({"type": "setMetadata", "metadata": {"a": 1, "b": {"c": 2}}}));
    let many: serde_json::Map<String, Value> = (0..50).map(|n| (format!("k{n}"), Value::from(n))).collect();
    shop.refuses(Browser, json!({"type": "setMetadata", "metadata": many}), Code::MetadataTooLarge);
    let shop = shop.browser(json!({"type": "setMetadata", "metadata": {"a": null, "b": {"d": 3}}}));
    let text = serde_json::to_string(&shop.session().metadata).unwrap();
    assert_eq!(text, r#"{"b":{"c":2,"d":3}}"#);
}

#[test]
fn a_session_is_extended_up_to_the_funnels_longest_life() {
    let shop = Shop::open().browser(json!({"type": "extend", "ttlMs": 4_000_000_000_u32}));
    assert_eq!(shop.session().expires_at, shop.session().created_at.plus(TimeSpan::from_hours(7 * 24)));
    let mut shop = shop;
    shop.refuses(Browser, json!({"type": "extend"}), Code::LifetimeExceeded);
}

#[test]
fn a_session_that_nobody_changes_ends_and_each_change_keeps_it_until_its_latest_end() {
    let minutes = |count: i64| count * 60_000;
    let mut funnel = default_funnel();
    funnel.lifetime.idle = Some(TimeSpan::from_millis(minutes(40)));
    let open = || Shop(Walk::new(funnel.clone())).browser(json!({"type": "create", "ttlMs": minutes(100)}));
    let email = |name: &str| json!({"type": "setEmail", "email": format!("{name}@example.com")});
    let begun = open().session().created_at;
    let after = |count: i64| begun.plus(TimeSpan::from_millis(minutes(count)));
    assert_eq!(open().session().expires_at, after(40));

    let mut left_alone = open().later(minutes(40));
    left_alone.refuses(Browser, email("late"), Code::SessionExpired);
    assert_eq!(left_alone.service(json!({"type": "expire"})).session().status, Status::Expired);

    let used = open().later(minutes(39)).browser(email("ada"));
    assert_eq!(used.session().expires_at, after(79));
    // However often it is changed, it ends when it was to end at the latest; a change of its end moves that.
    let mut used = used.later(minutes(39)).browser(email("grace"));
    assert_eq!(used.session().expires_at, after(100));
    used.refuses(Browser, email("grace-hopper-who-is-not-an-address@"), Code::InvalidField);
    let extended = used.browser(json!({"type": "extend", "ttlMs": minutes(200)}));
    assert_eq!(extended.session().expires_at, after(78 + 40), "left alone from now on");

    let paid = Shop(Walk::new(funnel.clone()))
        .browser(json!({"type": "create", "email": "ada@example.com", "products": [{"id": "fitspresso-1-pack", "quantity": 1}],
            "customer": {"firstName": "Ada", "lastName": "Lovelace", "billing": {"state": "CA"}}}))
        .browser(json!({"type": "beginProcessing"}))
        .service(pay("t1", 8473))
        .later(minutes(40))
        .service(json!({"type": "expire"}));
    assert_eq!(paid.session().status, Status::Completed, "what is paid does not expire");
}

/// What is read where only the database has the session, with a journal that nobody needs.
fn database(state: Option<State>) -> Loaded {
    Loaded { database: Some(DatabaseView { state, journal: Vec::new() }), shared: None }
}

/// What the server's end answers to requests of one peer, after another session was created with a claim.
fn answers(credential: Credential, requests: Vec<Request>) -> Vec<ServerFrame> {
    let funnels = FixedFunnel::new(default_funnel(), "hash");
    let environment = Environment { now: START, funnels: &funnels, epoch: 9, relaxed: false };
    let mut walk = Walk::new(default_funnel());
    walk.issue(Browser, Command::Create(Box::default()));
    let mut authority = Authority::new(session_id(), walk.state);
    let mut effects = authority.submit_once(PeerId(1), Browser, credential, requests, &environment);
    let mut frames = Vec::new();
    while let Some(effect) = (!effects.is_empty()).then(|| effects.remove(0)) {
        match effect {
            Effect::Send { frame, .. } => frames.push(frame),
            Effect::Commit(_) => effects.extend(authority.committed(&environment)),
            Effect::Reload => {
                let state = authority.state().map(|state| State::clone(state));
                effects.extend(authority.reloaded(database(state), &environment));
            }
            other => panic!("{other:?}"),
        }
    }
    frames
}

fn request(command: Result<Command, Rejection>, expected_version: Option<u64>) -> Request {
    Request { expected_version, ..Request::new(client("tab"), Some(1), command) }
}

fn refused_code(frames: &[ServerFrame]) -> Option<Code> {
    frames.iter().find_map(|frame| match frame {
        ServerFrame::Rejected { reason, .. } => Some(reason.code),
        _ => None,
    })
}

#[test]
fn a_claim_changes_only_the_session_that_was_created_with_it() {
    let frames =
        answers(Credential::Claim("other".to_owned()), vec![request(Ok(Command::Create(Box::default())), None)]);
    assert_eq!(refused_code(&frames), Some(Code::ClaimMismatch));
}

#[test]
fn a_command_that_can_not_be_read_is_refused_and_settled() {
    let malformed = Rejection::new(Code::MalformedCommand, "type: 'pay' is not known here");
    let frames = answers(Credential::Verified, vec![request(Err(malformed), None)]);
    assert_eq!(refused_code(&frames), Some(Code::MalformedCommand));
}

#[test]
fn a_command_for_another_version_is_refused() {
    let email = Command::SetEmail { email: "a@b.co".to_owned() };
    let frames = answers(Credential::Verified, vec![request(Ok(email.clone()), Some(7))]);
    assert_eq!(refused_code(&frames), Some(Code::StaleVersion));
    let frames = answers(Credential::Verified, vec![request(Ok(email), Some(1))]);
    assert_eq!(refused_code(&frames), None);
}

#[test]
fn a_refusal_that_is_not_written_comes_from_a_fresh_state() {
    let funnels = FixedFunnel::new(default_funnel(), "hash");
    let environment = Environment { now: START, funnels: &funnels, epoch: 9, relaxed: false };
    let mut walk = Walk::new(default_funnel());
    walk.issue(Browser, Command::Create(Box::default()));
    let old = walk.state.clone();
    walk.issue(Browser, Command::SetEmail { email: "ada@example.com".to_owned() });
    let mut authority = Authority::new(session_id(), old);
    authority.tick(&environment);
    let coupon = Command::SetCoupon { code: Some("SAVE10".to_owned()) };
    let third = Request::new(client("browser"), Some(3), Ok(coupon));
    let effects = authority.submit_once(PeerId(1), Browser, Credential::Verified, [third], &environment);
    assert_eq!(effects, [Effect::Reload], "its own memory would have answered: a gap");
    let effects = authority.reloaded(database(walk.state), &environment);
    assert!(matches!(effects.as_slice(), [Effect::Commit(_)]), "{effects:?}");
}

// The legacy storage.

const FIXTURES: [(&str, &str); 3] = [
    ("one", include_str!("../../../../tests/fixtures/legacy/localstorage-one-buyer-at-upsell-1.json")),
    ("twelve", include_str!("../../../../tests/fixtures/legacy/localstorage-twelve-buyers.json")),
    ("two hundred", include_str!("../../../../tests/fixtures/legacy/localstorage-two-hundred-buyers.json")),
];

fn create(id: &SessionId, create: Create) -> Walk {
    let mut walk = Walk::new(default_funnel());
    let context = Context { now: START, funnel: &walk.funnel, session_id: id, epoch: 9, claim: None };
    let events = decide(None, &Command::Create(Box::new(create)), Browser, &context).unwrap();
    for event in events {
        let version = walk.records.len() as u64 + 1;
        let record = Record { version, at: START, by: Browser, origin: None, caller: None, event };
        walk.state = evolve(walk.state.take(), &record);
        walk.records.push(record);
    }
    walk
}

fn cents(value: &Value) -> i64 {
    (value.as_f64().unwrap() * 100.0).round() as i64
}

#[test]
fn every_legacy_session_is_taken_over_with_every_price_exact() {
    for (name, text) in FIXTURES {
        let entries: serde_json::Map<String, Value> = serde_json::from_str(text).unwrap();
        let read: JsonObject = serde_json::from_str(text).unwrap();
        assert_eq!(read.len(), entries.len());
        assert!(!read.is_empty());
        for (key, entry) in &read {
            let legacy = &entries[key];
            let taken = take_over(key, entry).unwrap_or_else(|error| panic!("{name}, {key}: {error}"));
            assert_eq!(taken.id.as_str(), key);
            let claims = taken.create.claims.clone().unwrap();
            assert_eq!(claims.amount.minor(), cents(&legacy["amount"]), "{name}, {key}");
            let products = legacy["products"].as_array().unwrap();
            assert_eq!(claims.products.len(), products.len(), "{name}, {key}");
            for (claimed, product) in claims.products.iter().zip(products) {
                assert_eq!(claimed.price.minor(), cents(&product["price"]), "{name}, {key}");
                assert_eq!(u64::from(claimed.quantity), product["quantity"].as_u64().unwrap());
            }
            assert_eq!(taken.create.email.as_deref(), legacy["email"].as_str(), "{name}, {key}");

            let walk = create(&taken.id, taken.create);
            let session = &walk.state.as_ref().unwrap().session;
            assert!(!session.is_paid(), "nothing that a browser says makes it paid");
            assert_eq!(session.products.len(), products.len());
            for item in &session.products {
                if let Some(product) = walk.funnel.product(&item.id) {
                    assert_eq!(item.price, product.price, "{name}, {key}: the catalogue's price counts");
                }
            }
        }
    }
}

#[test]
fn what_has_no_place_is_kept_in_the_metadata() {
    let entry = json!({"id": "ws_1", "amount": 79, "status": "strange", "favourite": {"colour": "green"},
        "metadata": {"utm": "ad"}, "customerInfo": {"firstName": "Ada", "shoeSize": 38}});
    let taken = take_over("ws_1", &serde_json::from_value(entry).unwrap()).unwrap();
    let metadata = serde_json::to_value(&taken.create.metadata).unwrap();
    assert_eq!(
        metadata,
        json!({"utm": "ad", "legacy": {"status": "strange", "favourite": {"colour": "green"},
            "customerInfo": {"shoeSize": 38}}})
    );
}

#[test]
fn a_coupon_that_is_gone_does_not_lose_a_legacy_session() {
    let entry = json!({"id": "ws_1", "amount": 79, "couponCode": "SUMMER19"});
    let taken = take_over("ws_1", &serde_json::from_value(entry).unwrap()).unwrap();
    let walk = create(&taken.id, taken.create);
    let session = walk.state.unwrap().session;
    assert_eq!(session.coupon_code, None);
    assert_eq!(serde_json::to_value(session.metadata).unwrap(), json!({"legacy": {"couponCode": "SUMMER19"}}));
}

#[test]
fn a_forged_price_can_not_be_paid() {
    let forged = json!({"status": "pending", "step": "checkout", "amount": 1,
        "products": [{"id": "own-brand", "name": "Own brand", "price": 1, "quantity": 1}]});
    let mut shop = Shop::claiming(forged);
    assert_eq!(shop.session().products[0].price_source, PriceSource::Claimed);
    shop.refuses(Browser, json!({"type": "beginProcessing"}), Code::AwaitingConfirmation);
    let shop = shop.service(json!({"type": "refuteClaims"}));
    assert_eq!(shop.session().products, []);

    let cheap = json!({"status": "pending", "step": "checkout", "amount": 1,
        "products": [{"id": "fitspresso-6-pack", "name": "Six", "price": 1, "quantity": 1}]});
    let shop = Shop::claiming(cheap).browser(json!({"type": "beginProcessing"}));
    assert_eq!(shop.session().amount, Money::from_minor(29400), "the catalogue's price counts");
}

fn claims_paid() -> Value {
    json!({"status": "processing", "step": "upsell-1", "amount": 7900, "transactionId": "t9", "vaultId": "v9",
        "products": [{"id": "fitspresso-1-pack", "name": "One", "price": 7900, "quantity": 1}],
        "accepted": [{"code": "RC6", "transactionId": "t10"}], "declined": ["RC12"]})
}

#[test]
fn a_claimed_payment_waits_for_a_service_to_confirm_it() {
    let mut shop = Shop::claiming(claims_paid());
    assert!(!shop.session().is_paid());
    shop.refuses(Browser, json!({"type": "beginProcessing"}), Code::AwaitingConfirmation);
    shop.refuses(Browser, json!({"type": "setItems", "items": []}), Code::AwaitingConfirmation);
    shop.refuses(Browser, json!({"type": "confirmClaims"}), Code::NotPermitted);
    shop.refuses(Service, json!({"type": "confirmClaims"}), Code::InvalidField);
    shop.refuses(Service, json!({"type": "confirmClaims", "transactionId": "t8"}), Code::InvalidField);
    let charges = json!([{"offer": "RC6", "transactionId": "t7"}]);
    let confirmation = json!({"type": "confirmClaims", "transactionId": "t8", "amount": 8099, "charges": charges});
    let shop = shop.service(confirmation);
    let session = shop.session();
    assert_eq!(session.payment.amount, Some(Money::from_minor(8099)));
    assert_eq!((session.current_step.as_str(), session.transaction_id.as_deref()), ("upsell-1", Some("t8")));
    assert_eq!(session.vault_id, None, "nothing is taken from the claims");
    let states: Vec<_> = session.upsells.iter().map(|upsell| (upsell.offer.as_str(), upsell.state)).collect();
    assert_eq!(states, [("RC6", OfferState::Charged), ("RC12", OfferState::Declined)]);
    assert_eq!(session.claims, None);
}

#[test]
fn a_claimed_offer_that_was_not_charged_lapses() {
    let shop = Shop::claiming(claims_paid());
    let shop = shop.service(json!({"type": "confirmClaims", "transactionId": "t8", "amount": 7900}));
    let states: Vec<_> = shop.session().upsells.iter().map(|upsell| (upsell.offer.as_str(), upsell.state)).collect();
    assert_eq!(states, [("RC6", OfferState::Lapsed), ("RC12", OfferState::Declined)]);
}

#[test]
fn a_refuted_payment_leaves_a_session_that_can_be_paid() {
    let shop = Shop::claiming(claims_paid()).service(json!({"type": "refuteClaims"}));
    let shop = shop.browser(json!({"type": "beginProcessing"}));
    assert_eq!(shop.session().status, Status::Processing);
    assert!(!shop.session().is_paid());
}

#[test]
fn a_claimed_payment_without_a_transaction_has_to_name_one() {
    let claims = json!({"status": "completed", "step": "success", "amount": 7900});
    let mut shop = Shop::claiming(claims);
    shop.refuses(Service, json!({"type": "confirmClaims"}), Code::InvalidField);
    let shop = shop.service(json!({"type": "confirmClaims", "transactionId": "t9", "amount": 7900}));
    assert_eq!(shop.session().status, Status::Completed);
}

proptest! {
    #[test]
    fn the_legacy_storage_may_hold_anything(seed in any::<u64>(), key in "\\PC{0,20}") {
        let mut dice = Dice(seed);
        let names = ["id", "email", "products", "status", "amount", "customerInfo", "billing_info", "upsells",
            "upsellsAccepted", "createdAt", "metadata", "currentStep", "vaultId", "couponCode", "other"];
        let mut entry: JsonObject =
            (0..dice.below(12)).map(|_| (dice.pick(&names).to_owned(), any_json(&mut dice, 4))).collect();
        if dice.percent(50) {
            let product = JsonValue::Object(
                ["id", "name", "price", "quantity"].map(|name| (name.to_owned(), any_json(&mut dice, 1))).into(),
            );
            entry.insert("products".to_owned(), JsonValue::Array(vec![product]));
        }
        for value in [JsonValue::Object(entry), any_json(&mut dice, 4)] {
            let Ok(taken) = take_over(&key, &value) else { continue };
            let funnel: Funnel = default_funnel();
            let context = Context { now: START, funnel: &funnel, session_id: &taken.id, epoch: 9, claim: None };
            let create = Command::Create(Box::new(taken.create));
            let events = decide(None, &create, Browser, &context);
            prop_assert!(events.is_ok(), "no session is lost: {:?}", events);
        }
    }
}

#[test]
fn the_latest_eight_browsers_that_a_session_was_handed_to_may_come_back_until_their_time_is_over() {
    let mut walk = Walk::new(default_funnel());
    walk.issue(Role::Browser, Command::Create(Box::default())).outcome.unwrap();
    let until = START.plus(TimeSpan::from_hours(1));
    for number in 0..10 {
        let (digest, family) = (format!("digest-{number}"), format!("family-{number}"));
        let claim = LentClaim { digest, until, family, issued_by: None };
        let command =
            if number % 2 == 0 { Command::HandOff { claim: Some(claim) } } else { Command::LendClaim { claim } };
        walk.issue(Role::System, command).outcome.unwrap();
    }
    let early = START.plus(TimeSpan::from_millis(3_599_999));
    let state = walk.state.clone().unwrap();
    let admitted: Vec<u32> = (0..10).filter(|number| state.admits(&format!("digest-{number}"), early)).collect();
    assert_eq!(admitted, [2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(!state.admits("digest-9", until));
    assert!(state.admits("digest-canary", until), "who created it may always");
    assert!(state.clone().project(Role::Browser, &[]).lent.is_empty(), "browsers don't hear of each other's secrets");

    // Who comes back has to hear that it was erased.
    walk.issue(Role::Service, Command::Erase {}).outcome.unwrap();
    assert!(walk.state.as_ref().unwrap().admits("digest-9", early));
}

#[test]
fn a_session_that_is_held_is_not_erased_until_it_is_let_go_of_or_the_time_is_over() {
    let hold = |until: Option<&str>| json!({"type": "setHold", "hold": {"reason": "invoices are kept for 8 years", "until": until}});
    for refused in [
        json!({"type": "setHold", "hold": {"reason": " "}}),
        json!({"type": "setHold", "hold": {"reason": "x".repeat(201)}}),
        json!({"type": "setHold", "hold": {"reason": "over", "until": "2020-01-01T00:00:00.000Z"}}),
    ] {
        Shop::filled().refuses(Role::Service, refused, Code::InvalidField);
    }
    let mut held = Shop::filled().service(hold(None));
    held.refuses(Role::Service, json!({"type": "erase"}), Code::SessionHeld);
    held.refuses(Role::Operator, json!({"type": "erase"}), Code::SessionHeld);
    held.refuses(Role::Browser, json!({"type": "setHold", "hold": null}), Code::NotPermitted);
    assert_eq!(held.0.state.as_ref().unwrap().clone().project(Role::Browser, &[]).hold, None);
    let mut in_a_year = Shop::filled().service(hold(Some("2027-11-20T00:00:00.000Z")));
    in_a_year.refuses(Service, json!({"type": "erase"}), Code::SessionHeld);
    in_a_year.later(366 * 24 * 3_600_000).service(json!({"type": "erase"}));
    let let_go = held.service(json!({"type": "setHold", "hold": null})).service(json!({"type": "erase"}));
    assert!(let_go.0.state.as_ref().unwrap().erased_at.is_some());
}
