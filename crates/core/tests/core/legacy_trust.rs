//! What of the legacy systems is believed, what a person hears of, and who gets to see it.

use serde_json::{Value, json};
use throughline_core::legacy::{LegacySystem, NoteKind, merge, write_row};
use throughline_core::{Event, Money, OfferState, Record, Role, Session, State, Status, Timestamp, evolve};

use crate::legacy::{Shop, cookie, paid_row, row, said, time};

const SOLD: &str =
    r#"{"step": 1, "productCode": "RC6", "amount": 199, "bottles": 6, "transactionId": "u1", "timestamp": "t"}"#;

fn then(state: &State, at: Timestamp, event: Event) -> State {
    let record = Record { version: state.version() + 1, at, by: Role::Service, origin: None, caller: None, event };
    evolve(Some(state.clone()), &record).unwrap()
}

fn sold(changes: Value) -> Value {
    let mut detail: Value = serde_json::from_str(SOLD).unwrap();
    detail.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    detail
}

fn charges(session: &Session) -> Vec<(&str, OfferState, Option<&str>)> {
    session
        .upsells
        .iter()
        .filter(|upsell| upsell.state == OfferState::Charged)
        .map(|upsell| (upsell.offer.as_str(), upsell.state, upsell.transaction_id.as_deref()))
        .collect()
}

/// A session that a browser has begun under a legacy id, with a secret of its own.
fn begun_by_a_browser(shop: &Shop, says: Value) -> State {
    let (state, _) = shop.adopt(&said(LegacySystem::Browser, says), None);
    State { claim: Some("digest".to_owned()), ..state.unwrap() }
}

#[test]
fn who_knows_an_id_alone_is_told_nothing_of_its_buyer() {
    let shop = Shop::at("2026-11-20T09:10:00Z");
    let squatter =
        json!({"id": "ws_mwor0dc0_kfk1dw9q0", "currentStep": "checkout", "updatedAt": "2026-11-20T09:09:00Z"});
    let squatted = begun_by_a_browser(&shop, squatter);
    for shops_word in [said(LegacySystem::Database, row(json!({}))), said(LegacySystem::Cookie, cookie(json!({})))] {
        let (state, adoption) = shop.adopt(&shops_word, Some(&squatted));
        let state = state.unwrap();
        assert_eq!(adoption.events[0].1, Event::AccessRevoked {}, "before anything is told");
        assert_eq!((state.claim.as_deref(), state.access_generation), (None, squatted.access_generation + 1));
        assert!(adoption.notes.iter().any(|note| note.kind == NoteKind::AccessRevoked));
        assert_eq!(
            state.session.customer.first_name.as_deref(),
            Some("Ada"),
            "although the shop's word is the older one"
        );
        let (_, again) = shop.adopt(&shops_word, Some(&state));
        assert_eq!(again.events, [], "once");
    }
}

#[test]
fn the_buyers_own_browser_stays_in() {
    let shop = Shop::at("2026-11-20T09:10:00Z");
    let own = begun_by_a_browser(
        &shop,
        json!({
            "id": "ws_mwor0dc0_kfk1dw9q0", "email": "ada@example.com", "currentStep": "checkout",
            "customerInfo": {"firstName": "Ada", "address": "1 Example Street", "state": "TX"},
        }),
    );
    let (state, adoption) = shop.adopt(&said(LegacySystem::Database, paid_row(json!({}))), Some(&own));
    assert_eq!(
        (state.unwrap().claim, adoption.events.contains(&(shop.now, Event::AccessRevoked {}))),
        (own.claim, false)
    );
}

#[test]
fn a_cookie_makes_nothing_paid_whose_amount_nobody_says() {
    let shop = Shop::at("2026-11-20T09:10:00Z");
    let (cart, _) = shop.adopt(
        &said(
            LegacySystem::Database,
            row(json!({"products": [
        {"id": "fitspresso-6-pack", "name": "Six", "price": 294, "quantity": 3}]})),
        ),
        None,
    );
    for before in [None, cart.as_ref()] {
        let (state, adoption) = shop.adopt(&said(LegacySystem::Cookie, cookie(json!({}))), before);
        let session = state.unwrap().session;
        assert_eq!((session.is_paid(), session.payment.amount), (false, None));
        assert_eq!(session.claims.unwrap().transaction_id.as_deref(), Some("t1"), "and nobody pays twice meanwhile");
        assert!(adoption.notes.iter().any(|note| note.kind == NoteKind::PaymentUnsettled));
    }
}

#[test]
fn of_a_payment_whose_end_the_row_does_not_know_the_cookie_tells_the_transaction() {
    let shop = Shop::at("2026-11-20T09:10:00Z");
    let stuck = row(json!({"status": "processing", "current_step": "payment_processing"}));
    let (state, _) = shop.adopt(&said(LegacySystem::Database, stuck), None);
    assert_eq!(state.as_ref().unwrap().session.claims.as_ref().unwrap().transaction_id, None);
    let (state, _) = shop.adopt(&said(LegacySystem::Cookie, cookie(json!({}))), state.as_ref());
    let claims = state.as_ref().unwrap().session.claims.clone().unwrap();
    assert_eq!((claims.transaction_id.as_deref(), claims.vault_id.as_deref()), (Some("t1"), Some("v1")));
    assert_eq!(claims.products.len(), 1, "with what the row says");
    let (_, again) = shop.adopt(&said(LegacySystem::Cookie, cookie(json!({}))), state.as_ref());
    assert_eq!(again.events, []);
}

#[test]
fn what_began_by_a_cookie_gets_its_products_and_its_payment_from_an_older_row() {
    let shop = Shop::at("2026-11-20T09:10:00Z");
    let (begun, _) = shop.adopt(&said(LegacySystem::Cookie, cookie(json!({}))), None);
    let begun = begun.unwrap();
    assert!(begun.session.updated_at > time("2026-11-20T09:05:00Z"), "the row is the older one");
    let (state, _) = shop.adopt(&said(LegacySystem::Database, paid_row(json!({}))), Some(&begun));
    let session = state.as_ref().unwrap().session.clone();
    assert_eq!((session.products.len(), session.payment.amount), (1, Some(Money::from_minor(8394))));
    assert_eq!((session.claims, session.customer.billing.unwrap().city), (None, None));
    assert_eq!(session.transaction_id.as_deref(), Some("t1"));
    let (_, again) = shop.adopt(&said(LegacySystem::Database, paid_row(json!({}))), state.as_ref());
    assert_eq!(again.events, []);
}

#[test]
fn what_was_paid_is_what_the_row_says_also_without_a_total() {
    let shop = Shop::at("2026-11-20T09:10:00Z");
    for (changes, paid, disagree) in [
        (json!({"amount": 294, "products": [], "metadata": null}), 29400, true),
        (json!({"amount": 294, "products": null, "metadata": {"subtotal": 294, "tax": 10}}), 30400, true),
        (json!({"amount": 294, "metadata": null}), 29400, true),
        (json!({"amount": 79, "metadata": {"tax": 4.94, "discount": 9}}), 7494, false),
        (json!({"metadata": {"tax": -5, "discount": -1000}}), 7900, false),
    ] {
        let (session, notes) = shop.begun(&said(LegacySystem::Database, paid_row(changes.clone())));
        assert_eq!(session.payment.amount, Some(Money::from_minor(paid)), "{changes}");
        assert_eq!(notes.contains(&("amount".to_owned(), NoteKind::AmountsDisagree)), disagree, "{changes}");
        let is_negative = changes["metadata"]["tax"] == -5;
        assert_eq!(notes.contains(&("tax".to_owned(), NoteKind::Unreadable)), is_negative, "{changes}");
    }
}

#[test]
fn products_that_have_no_room_are_told() {
    let products: Vec<Value> =
        (0..500).map(|number| json!({"id": format!("p{number}"), "name": "P", "price": 1, "quantity": 1})).collect();
    let row = paid_row(json!({"products": products, "amount": 500, "metadata": null}));
    let (session, notes) = Shop::at("2026-11-20T09:10:00Z").begun(&said(LegacySystem::Database, row));
    assert_eq!((session.products.len(), session.payment.amount), (100, Some(Money::from_minor(50000))));
    assert!(notes.contains(&("products".to_owned(), NoteKind::ProductsDropped)));
}

#[test]
fn what_a_service_has_refuted_is_not_claimed_again_before_there_are_news() {
    let shop = Shop::at("2026-11-20T09:10:00Z");
    let unsettled = row(json!({"status": "processing", "current_step": "payment_processing"}));
    let (state, first) = shop.adopt(&said(LegacySystem::Database, unsettled.clone()), None);
    assert!(first.notes.iter().any(|note| note.kind == NoteKind::PaymentUnsettled));
    let state = state.unwrap();
    let (_, second) = shop.adopt(&said(LegacySystem::Database, unsettled.clone()), Some(&state));
    assert_eq!(second.events, [], "it is claimed already");
    assert!(second.notes.iter().any(|note| note.kind.needs_a_person()), "and still waits for somebody");

    let settled = then(&state, shop.now, Event::ClaimsRefuted {});
    let (_, third) = shop.adopt(&said(LegacySystem::Database, unsettled.clone()), Some(&settled));
    assert_eq!((third.events, third.notes), (Vec::new(), Vec::new()));

    let later = Shop::at("2026-11-20T09:30:00Z");
    let mut begun_again = unsettled;
    begun_again["updated_at"] = json!("2026-11-20T09:20:00Z");
    let (state, _) = later.adopt(&said(LegacySystem::Database, begun_again), Some(&settled));
    assert!(state.unwrap().session.claims.is_some(), "a payment that was begun afterwards");
}

#[test]
fn extras_have_their_transactions_where_no_browser_looks() {
    let shop = Shop::at("2026-11-20T09:10:00Z");
    let row = paid_row(
        json!({"upsells_accepted": ["RC6"], "metadata": {"totalAmount": 83.94, "tax": 4.94, "upsells": [sold(json!({}))]}}),
    );
    let (session, notes) = shop.begun(&said(LegacySystem::Database, row.clone()));
    assert_eq!(charges(&session), [("RC6", OfferState::Charged, Some("u1"))]);
    let metadata = serde_json::to_value(&session.metadata).unwrap();
    assert_eq!(
        metadata["upsells"],
        json!([{"step": 1, "productCode": "RC6", "amount": 199, "bottles": 6, "timestamp": "t"}])
    );
    assert_eq!(notes, []);
    let written = serde_json::to_value(write_row(&session)).unwrap();
    assert_eq!(written["metadata"]["upsells"], row["metadata"]["upsells"], "and the row gets them back");
}

#[test]
fn a_charge_that_was_made_here_is_in_the_row_and_nowhere_twice() {
    let shop = Shop::at("2026-11-20T09:10:00Z");
    let (state, _) = shop.adopt(&said(LegacySystem::Database, paid_row(json!({}))), None);
    let offer = state.as_ref().unwrap().session.upsells[0].offer.clone();
    let accepted = then(&state.unwrap(), shop.now, Event::OfferAccepted { offer: offer.clone() });
    let charged = then(&accepted, shop.now, Event::OfferCharged { offer, transaction_id: Some("u7".to_owned()) });
    let written = serde_json::to_value(write_row(&charged.session)).unwrap();
    let expected = json!([{"step": 1, "productCode": "RC6", "amount": 199, "tax": 12.44, "transactionId": "u7"}]);
    assert_eq!(written["metadata"]["upsells"], expected);
    let (back, _) = shop.begun(&said(LegacySystem::Database, written));
    assert_eq!(charges(&back), [("RC6", OfferState::Charged, Some("u7"))]);
    assert_eq!(back.metadata.get("upsells"), None, "the session says it all");
}

#[test]
fn an_extra_that_the_old_shop_sells_later_comes_with_its_transaction() {
    let shop = Shop::at("2026-11-20T09:10:00Z");
    let (state, _) = shop.adopt(&said(LegacySystem::Database, paid_row(json!({}))), None);
    let news = paid_row(json!({
        "upsells_accepted": ["RC6"], "updated_at": "2026-11-20T09:08:00Z",
        "metadata": {"totalAmount": 83.94, "tax": 4.94, "upsells": [sold(json!({}))]},
    }));
    let (state, _) = shop.adopt(&said(LegacySystem::Database, news.clone()), state.as_ref());
    let session = &state.as_ref().unwrap().session;
    assert_eq!(charges(session), [("RC6", OfferState::Charged, Some("u1"))]);
    assert!(session.metadata.contains_key("upsells"), "with what the shop has noted of it");
    let (_, again) = shop.adopt(&said(LegacySystem::Database, news), state.as_ref());
    assert_eq!(again.events, []);
}

#[test]
fn an_extra_that_was_charged_twice_or_for_another_price_needs_a_person() {
    let shop = Shop::at("2026-11-20T09:10:00Z");
    let with = |details: Value| {
        let metadata = json!({"totalAmount": 83.94, "tax": 4.94, "upsells": details});
        shop.begun(&said(
            LegacySystem::Database,
            paid_row(json!({"upsells_accepted": ["RC6", "RC6"], "metadata": metadata})),
        ))
    };
    let (session, notes) = with(json!([sold(json!({})), sold(json!({"transactionId": "u2"}))]));
    assert_eq!(charges(&session), [("RC6", OfferState::Charged, Some("u1"))]);
    assert!(notes.contains(&("upsells".to_owned(), NoteKind::PaidTwice)));
    let claimed = session.claims.unwrap().accepted;
    assert_eq!(claimed[0].transaction_id.as_deref(), Some("u2"), "it is not lost");

    let (session, notes) = with(json!([sold(json!({"amount": 1}))]));
    assert_eq!(session.upsells[0].price, Money::from_minor(100), "what was charged");
    assert!(notes.contains(&("upsells".to_owned(), NoteKind::AmountsDisagree)));
}

#[test]
fn a_row_from_the_future_overwrites_nothing_here() {
    let shop = Shop::at("2026-11-20T09:10:00Z");
    let ahead = row(json!({"updated_at": "2026-11-20T10:05:00Z"}));
    let (state, _) = shop.adopt(&said(LegacySystem::Database, ahead.clone()), None);
    let changed = Event::EmailSet { email: throughline_core::EmailAddress::new("new@example.com").ok() };
    let changed = then(&state.unwrap(), time("2026-11-20T09:11:00Z"), changed);
    let later = Shop::at("2026-11-20T09:12:00Z");
    let (_, adoption) = later.adopt(&said(LegacySystem::Database, ahead), Some(&changed));
    assert_eq!(adoption.events, []);
    assert!(adoption.notes.iter().any(|note| note.kind == NoteKind::ClockAhead));
}

#[test]
fn what_no_browser_may_see_is_in_no_metadata() {
    let session = said(
        LegacySystem::Database,
        row(json!({
            "metadata": {"vaultId": "s1", "log": [{"transaction_id": "s2", "at": 1}], "note": "stays"},
            "gateway_response": {"customer": "s3"}, "fraud_score": 7,
        })),
    );
    let metadata = serde_json::to_value(&session.metadata).unwrap();
    assert_eq!(metadata["log"], json!([{"at": 1}]));
    assert_eq!((&metadata["note"], metadata.get("vaultId"), metadata.get("legacy")), (&json!("stays"), None, None));
    let notes: Vec<_> = session.notes.iter().map(|note| (note.field.as_str(), note.kind)).collect();
    for expected in [
        ("gateway_response", NoteKind::ColumnLeftOut),
        ("fraud_score", NoteKind::ColumnLeftOut),
        ("vaultId", NoteKind::Unreadable),
        ("transactionId", NoteKind::Unreadable),
    ] {
        assert!(notes.contains(&expected), "{expected:?} {notes:?}");
    }
}

#[test]
fn times_are_read_as_postgresql_writes_them() {
    for text in
        ["2026-11-20 10:05:00+01", "2026-11-20 09:05:00+00", "2026-11-20 09:05:00", "2026-11-20T10:05:00.000+01:00"]
    {
        let session = said(LegacySystem::Database, row(json!({"updated_at": text})));
        assert_eq!(session.updated_at, Some(time("2026-11-20T09:05:00Z")), "{text}");
    }
}

#[test]
fn a_third_transaction_is_told_with_who_has_it() {
    let of = |system, transaction: &str, minute: &str| {
        let changes = json!({"transactionId": transaction, "createdAt": format!("2026-11-20T09:{minute}:00Z")});
        said(system, cookie(changes))
    };
    let merged = merge(vec![
        said(LegacySystem::Database, paid_row(json!({"transaction_id": "t3", "updated_at": "2026-11-20T09:00:30Z"}))),
        of(LegacySystem::Cookie, "t2", "01"),
        of(LegacySystem::Cache, "t1", "02"),
    ])
    .unwrap();
    assert_eq!(merged.transaction_id.as_deref(), Some("t1"));
    assert_eq!(merged.claims.unwrap().transaction_id.as_deref(), Some("t2"));
    let third = ("transactionId", NoteKind::Overruled(LegacySystem::Database));
    assert!(merged.notes.iter().any(|note| (note.field.as_str(), note.kind) == third));
}

#[test]
fn a_payment_whose_end_nobody_knows_stays_one_in_the_row() {
    let shop = Shop::at("2026-11-28T12:00:00Z");
    let unsettled = row(json!({"status": "processing", "current_step": "payment_processing"}));
    let (session, _) = shop.begun(&said(LegacySystem::Database, unsettled));
    let written = serde_json::to_value(write_row(&session)).unwrap();
    assert_eq!(session.status, Status::Expired, "its time is over");
    assert_eq!((&written["status"], &written["current_step"]), (&json!("processing"), &json!("payment_processing")));

    let failed = row(json!({"status": "expired", "current_step": "failed", "metadata": {"error": "Do Not Honor"}}));
    let (session, _) = shop.begun(&said(LegacySystem::Database, failed));
    let written = serde_json::to_value(write_row(&session)).unwrap();
    assert_eq!((&written["current_step"], &written["metadata"]["error"]), (&json!("failed"), &json!("Do Not Honor")));
}
