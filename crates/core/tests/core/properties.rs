//! What holds for every session, whatever is done to it.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use throughline_core::funnel::StepKind;
use throughline_core::{
    ClientId, Command, Context, Event, Funnel, Money, OfferState, PriceSource, Record, Role, Session, State, Status,
    decide, decide_for_browser, evolve,
};

use crate::generate::{CANARY, Dice, Stride, Walk, client, default_funnel, funnel, session_id};

fn some_funnel(seed: Option<u64>) -> Funnel {
    seed.map_or_else(default_funnel, |seed| funnel(&mut Dice(seed)))
}

/// Walks by these numbers, one command for each; `check` sees every stride and the walk after it.
fn walk(
    funnel_seed: Option<u64>,
    seeds: &[u64],
    mut check: impl FnMut(&Stride, &Walk) -> Result<(), TestCaseError>,
) -> Result<Walk, TestCaseError> {
    let mut walk = Walk::new(some_funnel(funnel_seed));
    for seed in seeds {
        let stride = walk.stride(&mut Dice(*seed));
        check(&stride, &walk)?;
    }
    Ok(walk)
}

fn owed(session: &Session) -> i128 {
    let minor = |money: Money| i128::from(money.minor());
    let subtotal: i128 = session.products.iter().map(|item| minor(item.price) * i128::from(item.quantity)).sum();
    let bought = session.upsells.iter().filter(|u| matches!(u.state, OfferState::Accepted | OfferState::Charged));
    let upsells: i128 = bought.map(|u| minor(u.price) + minor(u.tax)).sum();
    let adjustments = session.adjustments;
    (subtotal - minor(adjustments.discount)).max(0) + minor(adjustments.shipping) + minor(adjustments.tax) + upsells
}

fn charged(session: &Session) -> BTreeSet<&str> {
    session.upsells.iter().filter(|u| u.state == OfferState::Charged).map(|u| u.offer.as_str()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_compiled_for_the_browser_judges_like_the_whole(funnel in any::<Option<u64>>(), seeds in vec(any::<u64>(), 1..60)) {
        walk(funnel, &seeds, |stride, walk| {
            let session_id = session_id();
            let context =
                Context { now: walk.now, funnel: &walk.funnel, session_id: &session_id, epoch: 0, claim: None };
            for state in [stride.before.as_ref(), walk.state.as_ref(), None] {
                let whole = decide(state, &stride.command, Role::Browser, &context);
                prop_assert_eq!(decide_for_browser(state, &stride.command, &context), whole);
            }
            Ok(())
        })?;
    }

    #[test]
    fn the_amount_is_always_the_sum_of_what_is_bought(funnel in any::<Option<u64>>(), seeds in vec(any::<u64>(), 1..60)) {
        walk(funnel, &seeds, |_, walk| {
            if let Some(State { session, .. }) = &walk.state {
                prop_assert_eq!(session.amount, session.totals.total);
                prop_assert_eq!(i128::from(session.amount.minor()), owed(session));
            }
            Ok(())
        })?;
    }

    #[test]
    fn versions_count_the_events_and_a_replay_gives_the_same_session(
        funnel in any::<Option<u64>>(), seeds in vec(any::<u64>(), 1..60),
    ) {
        let walk = walk(funnel, &seeds, |_, walk| {
            prop_assert_eq!(walk.state.as_ref().map_or(0, State::version), walk.records.len() as u64);
            Ok(())
        })?;
        let replayed = walk.records.iter().fold(None, evolve);
        prop_assert_eq!(replayed, walk.state);
    }

    #[test]
    fn the_same_question_gets_the_same_answer(funnel in any::<Option<u64>>(), seeds in vec(any::<u64>(), 1..40)) {
        walk(funnel, &seeds, |stride, walk| {
            let id = session_id();
            let context = Context { now: walk.now, funnel: &walk.funnel, session_id: &id, epoch: 9, claim: Some("digest-canary") };
            let again = decide(stride.before.as_ref(), &stride.command, stride.role, &context);
            let first = stride.outcome.as_ref().map(|records| records.iter().map(|r| r.event.clone()).collect::<Vec<_>>());
            prop_assert_eq!(again.as_ref(), first.as_ref().map_err(|rejection| *rejection));
            Ok(())
        })?;
    }

    #[test]
    fn a_browser_never_pays_charges_or_completes_an_unpaid_session(
        funnel in any::<Option<u64>>(), seeds in vec(any::<u64>(), 1..80),
    ) {
        walk(funnel, &seeds, |stride, walk| {
            let (Role::Browser, Some(after)) = (stride.role, &walk.state) else { return Ok(()) };
            let before = stride.before.as_ref();
            let was_paid = before.is_some_and(|state| state.session.is_paid());
            prop_assert_eq!(after.session.is_paid(), was_paid);
            if after.session.status == Status::Completed {
                prop_assert!(was_paid);
            }
            let charged_before = before.map(|state| charged(&state.session)).unwrap_or_default();
            prop_assert_eq!(charged(&after.session), charged_before);
            Ok(())
        })?;
    }

    #[test]
    fn a_browser_alone_buys_at_the_catalogues_prices(funnel in any::<Option<u64>>(), seeds in vec(any::<u64>(), 1..60)) {
        let mut walk = Walk::new(some_funnel(funnel));
        for seed in seeds {
            let mut dice = Dice(seed);
            let command = crate::generate::any_command(&mut dice, walk.state.as_ref(), &walk.funnel);
            walk.issue(Role::Browser, command);
            let Some(State { session, .. }) = &walk.state else { continue };
            for item in &session.products {
                match item.price_source {
                    PriceSource::Funnel => {
                        prop_assert_eq!(walk.funnel.product(&item.id).map(|product| product.price), Some(item.price));
                    }
                    // It can't be paid, so its price means nothing yet.
                    PriceSource::Claimed => prop_assert_ne!(session.status, Status::Processing),
                    PriceSource::Service => prop_assert!(false, "a browser set a price"),
                }
            }
            prop_assert!(!session.is_paid());
            prop_assert!(matches!(session.status, Status::Pending | Status::Processing | Status::Expired));
        }
    }

    #[test]
    fn a_paid_session_never_expires_and_stays_paid(funnel in any::<Option<u64>>(), seeds in vec(any::<u64>(), 1..80)) {
        walk(funnel, &seeds, |stride, walk| {
            let Some(State { session, .. }) = &walk.state else { return Ok(()) };
            if session.is_paid() {
                prop_assert_ne!(session.status, Status::Expired);
            }
            if stride.before.as_ref().is_some_and(|state| state.session.is_paid()) {
                prop_assert!(session.is_paid());
            }
            Ok(())
        })?;
    }

    #[test]
    fn an_answered_offer_stays_answered(funnel in any::<Option<u64>>(), seeds in vec(any::<u64>(), 1..80)) {
        walk(funnel, &seeds, |stride, walk| {
            let (Some(before), Some(after)) = (&stride.before, &walk.state) else { return Ok(()) };
            for was in &before.session.upsells {
                let now = after.session.upsell(&was.offer).map(|upsell| upsell.state);
                let may_become: &[OfferState] = match was.state {
                    OfferState::Offered => &[OfferState::Offered, OfferState::Accepted, OfferState::Declined, OfferState::Lapsed],
                    OfferState::Accepted | OfferState::ChargeFailed => {
                        &[OfferState::Accepted, OfferState::Charged, OfferState::ChargeFailed]
                    }
                    OfferState::Declined => &[OfferState::Declined],
                    OfferState::Lapsed => &[OfferState::Lapsed],
                    OfferState::Charged => &[OfferState::Charged],
                };
                // Money that the old shop took was taken, whatever was answered here.
                let was_charged_there =
                    matches!(stride.command, Command::Import { .. }) && now == Some(OfferState::Charged);
                let is_possible = was_charged_there || now.is_some_and(|now| may_become.contains(&now));
                prop_assert!(is_possible, "{:?} became {:?}", was.state, now);
            }
            Ok(())
        })?;
    }

    #[test]
    fn doing_it_twice_changes_nothing(funnel in any::<Option<u64>>(), seeds in vec(any::<u64>(), 1..60)) {
        let mut walk = Walk::new(some_funnel(funnel));
        for seed in seeds {
            let stride = walk.stride(&mut Dice(seed));
            let once = walk.state.clone();
            let is_repeatable = !matches!(
                stride.command,
                Command::Create(_) | Command::ConfirmClaims { .. } | Command::RefuteClaims {} | Command::FailPayment { .. }
                    | Command::FailUpsellCharge { .. } | Command::SetMetadata { .. } | Command::HandOff { .. }
                    | Command::RevokeAccess {}
                    | Command::RevokeToken { .. }
                    | Command::LendClaim { .. }
            );
            if stride.outcome.is_ok() && is_repeatable {
                let again = walk.issue(stride.role, stride.command);
                if let Ok(records) = again.outcome {
                    prop_assert_eq!(records, vec![]);
                }
                prop_assert_eq!(&walk.state, &once);
            }
        }
    }

    #[test]
    fn steps_change_only_along_the_funnel(funnel in any::<Option<u64>>(), seeds in vec(any::<u64>(), 1..80)) {
        walk(funnel, &seeds, |stride, walk| {
            let (Some(before), Some(after)) = (&stride.before, &walk.state) else { return Ok(()) };
            let (from, to) = (&before.session.current_step, &after.session.current_step);
            let from_step = walk.funnel.step(from).unwrap();
            let is_led = from_step.next.contains(to) || from_step.back.contains(to);
            // A recorded payment leads past the payment step, from wherever the buyer was.
            let is_payment = !before.session.is_paid() && after.session.is_paid();
            let comes_after = matches!(walk.funnel.step(to).unwrap().kind, StepKind::Offer | StepKind::Terminal);
            prop_assert!(from == to || is_led || (is_payment && comes_after), "{} to {}", from, to);
            Ok(())
        })?;
    }

    #[test]
    fn projecting_before_or_after_gives_the_same(funnel in any::<Option<u64>>(), seeds in vec(any::<u64>(), 1..50)) {
        let browser = client("browser");
        let stranger = client("stranger");
        let walk = walk(funnel, &seeds, |_, _| Ok(()))?;
        for viewers in [vec![], vec![browser.clone()], vec![browser, stranger]] {
            let mut whole: Option<State> = None;
            let mut seen: Option<State> = None;
            for record in &walk.records {
                whole = evolve(whole, record);
                seen = evolve(seen, &record.clone().project(Role::Browser, &viewers));
                let expected = whole.clone().map(|state| state.project(Role::Browser, &viewers));
                prop_assert_eq!(&seen, &expected);
            }
        }
    }

    #[test]
    fn no_payment_reference_reaches_a_browser(funnel in any::<Option<u64>>(), seeds in vec(any::<u64>(), 1..80)) {
        let viewer: ClientId = client("browser");
        let walk = walk(funnel, &seeds, |_, walk| {
            if let Some(state) = walk.state.clone() {
                let text = serde_json::to_string(&state.project(Role::Browser, std::slice::from_ref(&viewer))).unwrap();
                prop_assert!(!text.contains(CANARY), "{}", text);
            }
            Ok(())
        })?;
        for record in walk.records {
            let text = serde_json::to_string(&record.project(Role::Browser, std::slice::from_ref(&viewer))).unwrap();
            prop_assert!(!text.contains(CANARY), "{}", text);
        }
    }

    #[test]
    fn evolve_takes_any_record_on_any_session(
        one in any::<Option<u64>>(), seeds in vec(any::<u64>(), 1..30), others in vec(any::<u64>(), 1..30), seed in any::<u64>(),
    ) {
        let mut dice = Dice(seed);
        let mut state = walk(one, &seeds, |_, _| Ok(()))?.state;
        for record in walk(None, &others, |_, _| Ok(()))?.records {
            let version = dice.next();
            state = evolve(state, &Record { version, ..record.clone() });
            if state.is_none() {
                let begins = matches!(record.event, Event::Created { .. });
                prop_assert!(!begins);
            }
        }
    }

    #[test]
    fn an_erased_session_keeps_nothing_of_a_person(funnel in any::<Option<u64>>(), seeds in vec(any::<u64>(), 1..60)) {
        let mut walk = walk(funnel, &seeds, |_, _| Ok(()))?;
        if walk.state.is_some() {
            if walk.state.as_ref().is_some_and(|state| state.hold.is_some()) {
                walk.issue(Role::Service, Command::SetHold { hold: None });
            }
            let outcome = walk.issue(Role::Service, Command::Erase {}).outcome;
            prop_assert!(outcome.is_ok());
            let text = serde_json::to_string(&walk.state).unwrap().replace("digest-canary", "");
            for personal in [CANARY, "ada@example.com", "Ada", "Łukasz", "555-0100"] {
                prop_assert!(!text.contains(personal), "{} in {}", personal, text);
            }
        }
    }
}
