//! What the legacy systems wrote becomes a session of today, and goes back.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use throughline_core::json::{JsonObject, JsonValue, check_limits};
use throughline_core::legacy::{
    Adoption, LegacyPayment, LegacySession, LegacySystem, NoteKind, adopt, merge, read, write_browser_entry,
    write_cookie_claims, write_row,
};
use throughline_core::{
    Address, Command, Context, Customer, Event, Funnel, Money, OfferState, PriceSource, Record, Role, Session, State,
    Status, TimeSpan, Timestamp, decide, evolve,
};

use crate::generate::{CANARY, Dice, Walk, default_funnel, funnel, json as any_json};

const ROWS: &str = include_str!("../../../../tests/fixtures/legacy/funnel_sessions.jsonl");
const BLOB: &str = include_str!("../../../../tests/fixtures/legacy/localstorage-two-hundred-buyers.json");
const SYSTEMS: [LegacySystem; 4] =
    [LegacySystem::Database, LegacySystem::Cookie, LegacySystem::Cache, LegacySystem::Browser];

pub(crate) fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn said(system: LegacySystem, entry: Value) -> LegacySession {
    read(system, "ws_key", &serde_json::from_value(entry).unwrap()).unwrap()
}

/// The shop that adopts, at one time.
pub(crate) struct Shop {
    pub(crate) funnel: Funnel,
    pub(crate) now: Timestamp,
}

impl Shop {
    pub(crate) fn at(now: &str) -> Self {
        Self { funnel: default_funnel(), now: time(now) }
    }

    pub(crate) fn adopt(&self, legacy: &LegacySession, current: Option<&State>) -> (Option<State>, Adoption) {
        let context = Context { now: self.now, funnel: &self.funnel, session_id: &legacy.id, epoch: 9, claim: None };
        let adoption = adopt(legacy, current, &context);
        let mut state = current.cloned();
        let mut latest = state.as_ref().map_or(Timestamp::from_millis(i64::MIN), |state| state.session.updated_at);
        for (at, event) in &adoption.events {
            assert!(latest <= *at && *at <= self.now, "in order, and never in the future");
            latest = *at;
            let version = state.as_ref().map_or(0, State::version) + 1;
            let (by, event) = (Role::Service, event.clone());
            state = evolve(state, &Record { version, at: *at, by, origin: None, caller: None, event });
        }
        (state, adoption)
    }

    pub(crate) fn begun(&self, legacy: &LegacySession) -> (Session, Vec<(String, NoteKind)>) {
        let (state, adoption) = self.adopt(legacy, None);
        (state.unwrap().session, adoption.notes.into_iter().map(|note| (note.field, note.kind)).collect())
    }
}

pub(crate) fn row(changes: Value) -> Value {
    let mut row = json!({
        "id": "ws_mwor0dc0_kfk1dw9q0", "email": "ada@example.com", "status": "pending", "current_step": "checkout",
        "customer_info": {"firstName": "Ada", "address": "1 Example Street", "state": "TX"},
        "products": [{"id": "fitspresso-1-pack", "name": "One", "price": 79, "quantity": 1}], "amount": 79,
        "upsells_accepted": [], "upsells_declined": [], "vault_id": null, "transaction_id": null, "payment_token": null,
        "coupon_code": null, "metadata": {"subtotal": 79, "tax": 4.94, "taxRate": 0.0625, "shipping": 0, "totalAmount": 83.94},
        "created_at": "2026-11-20T09:00:00.000Z", "updated_at": "2026-11-20T09:05:00.000Z",
        "expires_at": "2026-11-21T09:00:00.000Z",
    });
    row.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    row
}

pub(crate) fn paid_row(changes: Value) -> Value {
    let mut paid = row(json!({
        "status": "completed", "current_step": "upsell-1", "transaction_id": "t1", "vault_id": "v1", "payment_token": "tok",
    }));
    paid.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    paid
}

fn states(session: &Session) -> Vec<(&str, OfferState)> {
    session.upsells.iter().map(|upsell| (upsell.offer.as_str(), upsell.state)).collect()
}

#[test]
fn of_every_recorded_row_what_was_paid_is_paid_and_nothing_else() {
    let shop = Shop::at("2026-11-28T12:00:00Z");
    let mut late_reads = 0;
    for line in ROWS.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let (session, notes) = shop.begun(&said(LegacySystem::Database, row.clone()));
        let after_payment = ["upsell-1", "upsell-2", "success", "completed"];
        let was_paid =
            row["transaction_id"].is_string() && after_payment.contains(&row["current_step"].as_str().unwrap());
        assert_eq!(session.is_paid(), was_paid, "{row}");
        let expected = if was_paid { Status::Completed } else { Status::Expired };
        assert_eq!(session.status, expected, "all of them are over: {row}");
        if was_paid {
            assert_eq!(session.transaction_id.as_deref(), row["transaction_id"].as_str());
            assert_eq!(session.vault_id.as_deref(), row["vault_id"].as_str());
            assert_eq!(session.payment_token.as_deref(), row["payment_token"].as_str());
            let total = row["metadata"]["totalAmount"].as_f64().unwrap();
            let minor = Money::from_major_float(total).unwrap().0;
            assert_eq!((session.payment.amount, session.totals.total.minor() >= minor.minor()), (Some(minor), true));
            let accepted: Vec<_> =
                row["upsells_accepted"].as_array().unwrap().iter().map(|code| code.as_str().unwrap()).collect();
            let charged: Vec<_> =
                states(&session).into_iter().filter(|(_, state)| *state == OfferState::Charged).collect();
            assert_eq!(charged.into_iter().map(|(offer, _)| offer).collect::<Vec<_>>(), accepted);
            let late = row["status"] == "expired";
            late_reads += usize::from(late);
            assert_eq!(notes.contains(&("status".to_owned(), NoteKind::PaidThoughExpired)), late);
        } else {
            let unsettled =
                row["status"] == "processing" || row["status"] == "expired" && row["payment_token"].is_string();
            let failed = row["current_step"] == "failed";
            assert_eq!(session.claims.is_some(), unsettled && !failed, "{row}");
            assert_eq!(session.payment.failure.is_some(), failed, "{row}");
        }
        assert_eq!(session.created_at, time(row["created_at"].as_str().unwrap()));
        let cents = |price: &Value| Money::from_major_float(price.as_f64().unwrap()).unwrap().0;
        for (item, product) in session.products.iter().zip(row["products"].as_array().unwrap()) {
            assert_eq!((item.id.as_str(), item.price), (product["id"].as_str().unwrap(), cents(&product["price"])));
        }
    }
    assert_eq!(late_reads, 2, "the recorded rows have some");
}

#[test]
fn a_buyer_at_an_offer_is_there_again_and_can_answer() {
    let shop = Shop::at("2026-11-20T09:06:00Z");
    for (step, expected) in [("upsell-1", "upsell-1"), ("completed", "upsell-1"), ("upsell-2", "upsell-2")] {
        let (session, _) = shop.begun(&said(LegacySystem::Database, paid_row(json!({"current_step": step}))));
        assert_eq!((session.status, session.current_step.as_str()), (Status::Processing, expected));
        assert!(session.upsells.iter().any(|upsell| upsell.state == OfferState::Offered), "{step}");
        assert_eq!(session.updated_at, time("2026-11-20T09:05:00Z"));
    }
    let (session, _) = shop.begun(&said(LegacySystem::Database, paid_row(json!({"current_step": "success"}))));
    assert_eq!(session.status, Status::Completed);
}

#[test]
fn a_payment_that_nobody_knows_the_end_of_waits_for_a_service() {
    let unsettled = row(json!({"status": "processing", "current_step": "payment_processing", "transaction_id": "t1"}));
    let shop = Shop::at("2026-11-20T09:06:00Z");
    let legacy = said(LegacySystem::Database, unsettled);
    let (state, adoption) = shop.adopt(&legacy, None);
    assert!(adoption.notes.iter().any(|note| note.kind == NoteKind::PaymentUnsettled && note.kind.needs_a_person()));
    let context = Context { now: shop.now, funnel: &shop.funnel, session_id: &legacy.id, epoch: 9, claim: None };
    let refused = decide(state.as_ref(), &Command::BeginProcessing {}, Role::Browser, &context).unwrap_err();
    assert_eq!(refused.code.as_str(), "awaitingConfirmation");
    let confirm: Command =
        serde_json::from_value(json!({"type": "confirmClaims", "transactionId": "t1", "amount": 8394})).unwrap();
    let events = decide(state.as_ref(), &confirm, Role::Service, &context).unwrap();
    assert!(events.iter().any(|event| matches!(event, Event::PaymentRecorded { .. })));
}

#[test]
fn an_unpaid_price_is_the_catalogues_and_a_paid_one_stays() {
    let shop = Shop::at("2026-11-20T09:06:00Z");
    let cheap = json!({"products": [{"id": "fitspresso-1-pack", "name": "One", "price": 0.79, "quantity": 1},
        {"id": "own-brand", "name": "Own brand", "price": "12.50", "quantity": "2"}]});
    let (session, notes) = shop.begun(&said(LegacySystem::Database, row(cheap.clone())));
    let prices: Vec<_> = session.products.iter().map(|item| (item.price.minor(), item.price_source)).collect();
    assert_eq!(prices, [(7900, PriceSource::Funnel), (1250, PriceSource::Claimed)]);
    for kind in [NoteKind::Repriced, NoteKind::PriceUnconfirmed] {
        assert!(notes.contains(&("products.price".to_owned(), kind)), "{notes:?}");
    }
    let (session, notes) = shop.begun(&said(LegacySystem::Database, paid_row(cheap)));
    let prices: Vec<_> = session.products.iter().map(|item| (item.price.minor(), item.price_source)).collect();
    assert_eq!(prices, [(79, PriceSource::Service), (1250, PriceSource::Service)]);
    assert!(notes.contains(&("amount".to_owned(), NoteKind::AmountsDisagree)), "{notes:?}");
    assert_eq!(session.payment.amount, Some(Money::from_minor(8394)), "what was paid");
}

#[test]
fn offers_come_in_charged_declined_and_under_their_code() {
    let shop = Shop::at("2026-11-20T09:06:00Z");
    let answered =
        json!({"current_step": "upsell-2", "upsells_accepted": ["RC6", "XX9"], "upsells_declined": ["RC12"]});
    let (session, notes) = shop.begun(&said(LegacySystem::Database, paid_row(answered)));
    let states = states(&session);
    for expected in [("RC6", OfferState::Charged), ("XX9", OfferState::Charged), ("RC12", OfferState::Declined)] {
        assert!(states.contains(&expected), "{states:?}");
    }
    assert!(notes.contains(&("upsells".to_owned(), NoteKind::OfferUnknown)));
}

#[test]
fn adopting_again_changes_nothing_and_later_news_are_caught_up_with() {
    let shop = Shop::at("2026-11-20T09:06:00Z");
    let legacy = said(LegacySystem::Database, row(json!({})));
    let (first, _) = shop.adopt(&legacy, None);
    let (again, adoption) = shop.adopt(&legacy, first.as_ref());
    assert_eq!((adoption.events, &again), (vec![], &first));

    // The old shop went on.
    let shop = Shop::at("2026-11-20T09:30:00Z");
    let moved = json!({"email": "new@example.com", "updated_at": "2026-11-20T09:20:00Z"});
    let (state, _) = shop.adopt(&said(LegacySystem::Database, row(moved.clone())), first.as_ref());
    assert_eq!(state.as_ref().unwrap().session.email.as_ref().unwrap().as_str(), "new@example.com");
    let paid = said(LegacySystem::Database, paid_row(json!({"updated_at": "2026-11-20T09:25:00Z"})));
    let (state, _) = shop.adopt(&paid, state.as_ref());
    let session = &state.as_ref().unwrap().session;
    assert_eq!((session.is_paid(), session.current_step.as_str()), (true, "upsell-1"));
    assert_eq!(session.email.as_ref().unwrap().as_str(), "ada@example.com", "the newest writer's");
    let (_, adoption) = shop.adopt(&paid, state.as_ref());
    assert_eq!(adoption.events, []);

    // What happened here later stays, but what was paid there is told.
    let shop = Shop::at("2026-11-20T10:00:00Z");
    let mut here = first.unwrap();
    here.session.updated_at = time("2026-11-20T09:59:00Z");
    here.session.email = None;
    let (state, _) = shop.adopt(&said(LegacySystem::Database, row(moved)), Some(&here));
    assert_eq!(state.unwrap().session.email, None);
    let (state, _) = shop.adopt(&paid, Some(&here));
    assert!(state.unwrap().session.is_paid());
}

#[test]
fn what_ended_unpaid_here_and_was_paid_there_is_complete() {
    let shop = Shop::at("2026-11-22T09:06:00Z");
    let (state, _) = shop.adopt(&said(LegacySystem::Database, row(json!({}))), None);
    assert_eq!(state.as_ref().unwrap().session.status, Status::Expired);
    let (state, _) = shop.adopt(&said(LegacySystem::Database, paid_row(json!({}))), state.as_ref());
    let session = state.unwrap().session;
    assert_eq!((session.status, session.transaction_id.as_deref()), (Status::Completed, Some("t1")));
}

#[test]
fn nothing_brings_an_erased_session_back() {
    let shop = Shop::at("2026-11-20T09:06:00Z");
    let legacy = said(LegacySystem::Database, paid_row(json!({})));
    let (state, _) = shop.adopt(&legacy, None);
    let mut state = state.unwrap();
    state.erased_at = Some(shop.now);
    let (_, adoption) = shop.adopt(&legacy, Some(&state));
    assert_eq!(adoption.events, []);
    assert!(adoption.notes.iter().any(|note| note.kind == NoteKind::Erased));
}

pub(crate) fn cookie(changes: Value) -> Value {
    let mut claims = json!({"id": "ws_mwor0dc0_kfk1dw9q0", "vaultId": "v1", "customerId": "CUST-1", "email": "ada@example.com",
        "firstName": "Ada", "lastName": "Lovelace", "transactionId": "t1", "state": "CA",
        "createdAt": 1_795_165_600_000_i64, "expiresAt": 1_795_167_400_000_i64});
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    claims
}

#[test]
fn a_payment_that_only_the_cookie_knows_of_is_not_lost() {
    let stuck = row(json!({"status": "processing", "current_step": "processing", "payment_token": "tok"}));
    let merged =
        merge(vec![said(LegacySystem::Database, stuck), said(LegacySystem::Cookie, cookie(json!({})))]).unwrap();
    assert_eq!(merged.payment, LegacyPayment::Made);
    let (session, _) = Shop::at("2026-11-20T09:10:00Z").begun(&merged);
    assert_eq!((session.is_paid(), session.transaction_id.as_deref()), (true, Some("t1")));
    let told = NoteKind::Overruled(LegacySystem::Database);
    assert!(merged.notes.iter().any(|note| note.field == "payment" && note.kind == told), "the row did not know");
    assert_eq!((session.customer_id.as_deref(), session.payment_token.as_deref()), (Some("CUST-1"), Some("tok")));
    let billing = session.customer.billing.unwrap();
    assert_eq!(billing.address.as_deref(), Some("1 Example Street"), "a state alone is no address");
}

#[test]
fn of_a_field_the_newest_counts_and_the_other_is_noted() {
    let older = row(json!({"updated_at": "2026-11-20T09:00:00Z", "email": "old@example.com"}));
    let newer = json!({"id": "ws_mwor0dc0_kfk1dw9q0", "email": "new@example.com", "status": "completed", "transactionId": "forged",
        "updatedAt": "2026-11-20T09:03:00Z", "upsellsAccepted": ["RC6"], "currentStep": "success",
        "products": [{"id": "fitspresso-6-pack", "name": "Six", "price": 1, "quantity": 1}]});
    let merged = merge(vec![said(LegacySystem::Database, older), said(LegacySystem::Browser, newer)]).unwrap();
    assert_eq!(merged.email.as_ref().unwrap().as_str(), "new@example.com");
    let overruled = NoteKind::Overruled(LegacySystem::Database);
    assert!(merged.notes.iter().any(|note| note.field == "email" && note.kind == overruled), "{:?}", merged.notes);
    assert_eq!(
        (merged.payment, merged.status),
        (LegacyPayment::None, Some(Status::Pending)),
        "a browser makes nothing paid"
    );
    let (session, _) = Shop::at("2026-11-20T09:10:00Z").begun(&merged);
    assert_eq!((session.is_paid(), session.products[0].price.minor()), (false, 29400));
    assert_eq!(session.claims.unwrap().transaction_id.as_deref(), Some("forged"), "somebody has to look at it");
}

#[test]
fn two_transactions_are_both_kept() {
    let merged = merge(vec![
        said(LegacySystem::Database, paid_row(json!({"transaction_id": "t2", "updated_at": "2026-11-20T09:30:00Z"}))),
        said(LegacySystem::Cache, cookie(json!({}))),
    ])
    .unwrap();
    let (session, notes) = Shop::at("2026-11-20T09:40:00Z").begun(&merged);
    assert_eq!(session.transaction_id.as_deref(), Some("t2"));
    assert_eq!(session.claims.unwrap().transaction_id.as_deref(), Some("t1"));
    assert!(notes.contains(&("transactionId".to_owned(), NoteKind::PaidTwice)));
}

#[test]
fn nothing_of_a_payment_is_written_for_a_browser() {
    let (session, _) = Shop::at("2026-11-20T09:06:00Z").begun(&said(LegacySystem::Database, paid_row(json!({}))));
    let entry = serde_json::to_value(write_browser_entry(&session)).unwrap();
    for hidden in ["t1", "v1", "tok"] {
        assert!(!entry.to_string().contains(&format!("\"{hidden}\"")), "{entry}");
    }
    assert_eq!(entry["status"], "completed");
    let now = time("2026-11-20T09:06:00Z");
    let claims = serde_json::to_value(write_cookie_claims(&session, now).unwrap()).unwrap();
    assert_eq!((&claims["vaultId"], &claims["transactionId"]), (&json!("v1"), &json!("t1")));
    assert_eq!(claims["expiresAt"], json!(now.as_millis() + 30 * 60_000));
}

#[test]
fn recorded_rows_come_back_as_they_were() {
    // While they are alive: what is over has its own words for that.
    for line in ROWS.lines() {
        let mut row: Value = serde_json::from_str(line).unwrap();
        if row["status"] == "expired" {
            continue;
        }
        row["coupon_code"] = Value::Null;
        let now = time(row["updated_at"].as_str().unwrap()).plus(TimeSpan::from_millis(1));
        let shop = Shop { funnel: default_funnel(), now };
        let (session, _) = shop.begun(&said(LegacySystem::Database, row.clone()));
        let mut written = serde_json::to_value(write_row(&session)).unwrap();
        let was_paid = row["status"] == "completed";
        for object in [&mut row, &mut written] {
            let object = object.as_object_mut().unwrap();
            // Kept only where something was paid; and the step of a payment has several names.
            if !was_paid {
                object.remove("payment_token");
            }
            for word in ["payment_processing", "processing", "completed"] {
                if object["current_step"] == word {
                    object.insert("current_step".to_owned(), json!(if was_paid { "upsell-1" } else { "processing" }));
                }
            }
            // By the funnel's rules, to the cent, where nothing was paid.
            let metadata = object["metadata"].as_object_mut().unwrap();
            for derived in
                ["tax", "totalAmount", "discount", "subtotal", "shipping"].iter().skip(if was_paid { 2 } else { 0 })
            {
                metadata.remove(*derived);
            }
        }
        assert_eq!(written, row);
    }
}

/// What of a session has a place in the row.
fn facts(session: &Session) -> Value {
    let address = |address: &Option<Address>| {
        let fields = address.as_ref().map(Address::fields).into_iter().flatten();
        fields
            .filter(|(_, value)| value.as_ref().is_some_and(|value| !value.is_empty()))
            .map(|(name, value)| json!([name, value]))
            .collect::<Vec<_>>()
    };
    let Customer { first_name, last_name, phone, billing, shipping } = session.customer.clone();
    let text = |text: Option<String>| text.filter(|text| !text.is_empty());
    let products: Vec<_> = session
        .products
        .iter()
        .map(|item| {
            json!([
                item.id,
                if item.name.is_empty() { item.id.as_str() } else { &item.name },
                item.price.minor(),
                item.quantity
            ])
        })
        .collect();
    let offers = |fits: fn(OfferState) -> bool| -> BTreeSet<&str> {
        session.upsells.iter().filter(|upsell| fits(upsell.state)).map(|upsell| upsell.offer.as_str()).collect()
    };
    json!({
        "email": session.email, "names": [text(first_name), text(last_name), text(phone)],
        "billing": address(&billing), "shipping": address(&shipping), "paid": session.is_paid(),
        "products": if session.is_paid() { products } else { Vec::new() },
        "amount": session.payment.amount, "over": session.status.is_terminal(), "failed": session.status == Status::Failed,
        "references": session.is_paid().then(|| json!([session.transaction_id, session.vault_id, session.payment_token])),
        "bought": offers(|state| state == OfferState::Charged), "declined": offers(|state| state == OfferState::Declined),
        "metadata": session.metadata, "created": session.created_at, "updated": session.updated_at,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_session_that_goes_to_a_row_and_comes_back_has_the_same_facts(
        funnel_seed in any::<Option<u64>>(), seeds in vec(any::<u64>(), 1..60),
    ) {
        let mut walk = Walk::new(funnel_seed.map_or_else(default_funnel, |seed| funnel(&mut Dice(seed))));
        for seed in &seeds {
            walk.stride(&mut Dice(*seed));
        }
        let Some(state) = walk.state.filter(|state| state.erased_at.is_none() && state.session.claims.is_none()) else {
            return Ok(());
        };
        // More than any one price may be is read as no amount.
        if state.session.totals.total > Money::MAX || state.session.totals.subtotal > Money::MAX {
            return Ok(());
        }
        let written = write_row(&state.session);
        let legacy = read(LegacySystem::Database, "", &JsonValue::Object(written)).unwrap();
        let shop = Shop { funnel: walk.funnel, now: walk.now };
        let (back, adoption) = shop.adopt(&legacy, None);
        let back = back.unwrap().session;
        let mut before = facts(&state.session);
        let mut after = facts(&back);
        if state.session.status == Status::Processing && !state.session.is_paid() {
            prop_assert!(back.claims.is_some(), "nothing says how the payment ended");
        }
        for facts in [&mut before, &mut after] {
            if !state.session.is_paid() {
                // The end that nobody has written down yet is, then.
                facts["updated"] = Value::Null;
                facts["over"] = Value::Null;
                facts["failed"] = Value::Null;
            }
        }
        if shop.now >= state.session.expires_at {
            for facts in [&mut before, &mut after] {
                facts["over"] = Value::Null;
                facts["updated"] = Value::Null;
            }
        }
        prop_assert_eq!(before, after, "{:?}", adoption);

        if back.totals.total > Money::MAX || back.totals.subtotal > Money::MAX {
            return Ok(());
        }
        let again = read(LegacySystem::Database, "", &JsonValue::Object(write_row(&back))).unwrap();
        let (twice, _) = shop.adopt(&again, None);
        prop_assert_eq!(write_row(&twice.unwrap().session), write_row(&back));
    }

    #[test]
    fn whatever_the_systems_wrote_is_a_session_or_an_error_that_names_the_field(seed in any::<u64>()) {
        let mut dice = Dice(seed);
        let entries: Vec<_> = SYSTEMS.into_iter().map(|system| (system, any_entry(&mut dice))).collect();
        let mut sessions = Vec::new();
        for (system, entry) in entries {
            match read(system, "ws_key", &entry) {
                Ok(session) => sessions.push(session),
                Err(error) => prop_assert!(["session", "id"].contains(&error.field)),
            }
        }
        let count = sessions.len();
        let shop = Shop::at("2026-11-20T09:06:00Z");
        for session in sessions.iter().cloned().chain(merge(sessions.clone())) {
            prop_assert!(check_limits(&session.metadata).is_ok());
            let (state, _) = shop.adopt(&session, None);
            let (state, again) = { let (state, _) = (state, ()); let (same, again) = shop.adopt(&session, state.as_ref()); prop_assert_eq!(&same, &state); (state.unwrap(), again) };
            prop_assert_eq!(again.events, vec![]);
            let text = serde_json::to_string(&write_browser_entry(&state.session)).unwrap();
            prop_assert!(!text.contains(CANARY));
        }
        let mut turned = sessions.clone();
        turned.reverse();
        let distinct: BTreeSet<_> = sessions.iter().map(|session| session.updated_at).collect();
        if distinct.len() == count && count > 0 {
            prop_assert_eq!(merge(sessions.clone()), merge(turned), "in whatever order they are read");
        }
        if let Some(merged) = merge(sessions.clone()) {
            let shop_says = |session: &&LegacySession| !session.systems.contains(&LegacySystem::Browser);
            if sessions.iter().filter(shop_says).any(|session| session.payment == LegacyPayment::Made) {
                prop_assert_eq!(merged.payment, LegacyPayment::Made, "no payment is lost");
                for session in sessions.iter().filter(shop_says) {
                    for offer in &session.accepted {
                        prop_assert!(merged.accepted.iter().any(|kept| kept.code == offer.code));
                    }
                }
            }
        }
    }
}

fn any_entry(dice: &mut Dice) -> JsonValue {
    let names = [
        "id",
        "email",
        "products",
        "status",
        "amount",
        "customerInfo",
        "customer_info",
        "billing_info",
        "upsells",
        "upsellsAccepted",
        "upsells_declined",
        "createdAt",
        "updated_at",
        "expiresAt",
        "metadata",
        "currentStep",
        "vaultId",
        "transaction_id",
        "payment_token",
        "couponCode",
        "firstName",
        "state",
        "lastVaultUpdate",
        "other",
    ];
    let likely = [
        ("status", json!("completed")),
        ("status", json!("processing")),
        ("status", json!("expired")),
        ("current_step", json!("upsell-2")),
        ("transaction_id", json!(CANARY)),
        ("transactionId", json!("t7")),
        ("upsells_accepted", json!(["RC6", "RC12", 7])),
        ("upsellsAccepted", json!(["RC6"])),
        ("vault_id", json!(CANARY)),
        ("products", json!([{"id": "fitspresso-1-pack", "name": "One", "price": "79.00", "quantity": 2}])),
        ("created_at", json!("2026-11-20T09:00:00Z")),
        ("updatedAt", json!("2026-11-20T09:01:00Z")),
        ("metadata", json!({"tax": 4.944, "totalAmount": "83.94", "billingInfo": {"city": "Austin"}, "error": "no"})),
        ("expires_at", json!(1_795_167_400_000_i64)),
        ("coupon_code", json!("SAVE10")),
    ];
    let mut entry: JsonObject = (0..dice.below(8)).map(|_| (dice.pick(&names).to_owned(), any_json(dice, 4))).collect();
    for _ in 0..dice.below(10) {
        let (name, value) = dice.pick(&likely);
        entry.insert(name.to_owned(), serde_json::from_value(value).unwrap());
    }
    if dice.percent(95) { JsonValue::Object(entry) } else { any_json(dice, 3) }
}

#[test]
fn the_recorded_blob_is_read_by_every_system() {
    let entries: JsonObject = serde_json::from_str(BLOB).unwrap();
    let shop = Shop::at("2026-11-20T09:20:00Z");
    for (key, entry) in &entries {
        let legacy = read(LegacySystem::Browser, key, entry).unwrap();
        let (session, _) = shop.begun(&legacy);
        assert!(!session.is_paid());
        let written = write_browser_entry(&session);
        for field in ["id", "email", "createdAt", "expiresAt"] {
            let JsonValue::Object(entry) = entry else { panic!("{key}") };
            assert_eq!(written.get(field), entry.get(field), "{key}");
        }
    }
}
