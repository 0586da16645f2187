//! What an event changes. Total: it never fails, and never asks who did it.

use crate::event::{Event, Record};
use crate::identifier::{ClientId, OfferId};
use crate::json::{JsonObject, merge_patch};
use crate::permission::Role;
use crate::prelude::*;
use crate::session::{
    Adjustments, Flow, OfferState, Payment, PaymentFailure, PriceSource, Session, Status, StepVisit, Totals, Upsell,
};
use crate::state::{ClientLedger, IdleLimit, State};
use crate::time::Timestamp;

/// The state after `record`. An event that does not fit (another than `created` where there is no session) changes
/// nothing but the version.
#[must_use]
pub fn evolve(state: Option<State>, record: &Record) -> Option<State> {
    let mut state = match state {
        Some(state) => state,
        None => begin(record)?,
    };
    state.session.version = record.version;
    if record.event.changes_session() {
        state.session.updated_at = record.at;
        apply(&mut state, &record.event, record.at);
        state.session.recompute_totals();
    }
    // Asked of the role, not of the origin: a browser is not told the origin of other clients' records.
    if record.by != Role::System {
        state.session.last_accessed_at = record.at;
        move_end(&mut state, record);
    }
    note_origin(&mut state, record);
    Some(state)
}

/// Whoever changes a session that must not be left alone keeps it for a while longer.
fn move_end(state: &mut State, record: &Record) {
    let Some(idle) = &mut state.idle else { return };
    if let Event::Extended { expires_at } = &record.event {
        idle.latest_end = *expires_at;
    }
    if !state.session.status.is_terminal() {
        state.session.expires_at = record.at.plus(idle.span).min(idle.latest_end);
    }
}

fn begin(record: &Record) -> Option<State> {
    let Event::Created { id, epoch, claim, funnel, currency, step, source, expires_at, began_at, idle } = &record.event
    else {
        return None;
    };
    let began_at = began_at.unwrap_or(record.at);
    let session = Session {
        id: id.clone(),
        version: record.version,
        email: None,
        created_at: began_at,
        updated_at: record.at,
        expires_at: *expires_at,
        last_accessed_at: record.at,
        status: Status::Pending,
        current_step: step.clone(),
        flow: Flow {
            started_at: began_at,
            steps: vec![StepVisit { step: step.clone(), entered_at: began_at, left_at: None }],
            abandoned_at: None,
            completed_at: None,
        },
        customer: Default::default(),
        products: Vec::new(),
        coupon_code: None,
        adjustments: Adjustments::default(),
        totals: Totals::default(),
        amount: Default::default(),
        currency: *currency,
        payment: Payment::default(),
        vault_id: None,
        customer_id: None,
        transaction_id: None,
        payment_token: None,
        upsells: Vec::new(),
        source: *source,
        metadata: JsonObject::new(),
        funnel: funnel.clone(),
        claims: None,
    };
    let idle = idle.map(|span| IdleLimit { span, latest_end: *expires_at });
    let clients = Default::default();
    Some(State {
        session,
        epoch: *epoch,
        claim: claim.clone(),
        lent: Vec::new(),
        access_generation: 0,
        revoked_generation: 0,
        revoked_tokens: Vec::new(),
        clients,
        idle,
        hold: None,
        erased_at: None,
        claims_settled_at: None,
    })
}

fn note_origin(state: &mut State, record: &Record) {
    let Some(origin) = &record.origin else { return };
    if state.clients.get(&origin.client_id).is_none() {
        if state.clients.len() >= State::MAX_CLIENTS {
            // A browser's goes before any of the back ends': whoever has a token could have them forgotten what they have sent. Names
            // that stand for one request go before those of somebody who may still send something; a code that was used goes last,
            // or it could be used again.
            let by_browser = record.by == Role::Browser;
            let stays =
                |id: &ClientId| (id.is_for_handoff(), by_browser && !id.is_of_browser(), !id.is_for_one_request());
            let longest_silent = state.clients.iter().min_by_key(|(id, ledger)| (stays(id), ledger.heard_at_version));
            if let Some(silent) = longest_silent.map(|(id, _)| id.clone()) {
                state.clients.retain(|id, _| *id != silent);
            }
        }
        state.clients.insert(origin.client_id.clone(), ClientLedger::default());
    }
    let Some(ledger) = state.clients.get_mut(&origin.client_id) else { return };
    ledger.last_seq = ledger.last_seq.max(origin.seq);
    ledger.heard_at_version = record.version;
    if let Event::CommandRejected { rejection } = &record.event {
        ledger.rejected.push((origin.seq, rejection.clone()));
        let surplus = ledger.rejected.len().saturating_sub(ClientLedger::MAX_REJECTED);
        ledger.rejected.drain(..surplus);
    }
}

fn apply(state: &mut State, event: &Event, at: Timestamp) {
    let session = &mut state.session;
    match event {
        Event::Created { .. } | Event::CommandRejected { .. } | Event::CommandUnneeded {} => {}
        Event::HandedOff { claim } | Event::ClaimLent { claim } => {
            // A browser has one.
            state
                .lent
                .retain(|other| at < other.until && claim.as_ref().is_none_or(|claim| claim.family != other.family));
            state.lent.extend(claim.clone());
            let surplus = state.lent.len().saturating_sub(State::MAX_LENT);
            state.lent.drain(..surplus);
        }
        Event::EmailSet { email } => session.email = email.clone(),
        Event::CustomerSet { customer } => session.customer = customer.clone(),
        Event::ItemsSet { items } => session.products = items.clone(),
        Event::CouponSet { code } => session.coupon_code = code.clone(),
        Event::AdjustmentsSet { adjustments } => session.adjustments = *adjustments,
        Event::StepEntered { step } => {
            if let Some(visit) = session.flow.steps.last_mut() {
                visit.left_at = Some(at);
            }
            if session.flow.steps.len() >= Flow::MAX_VISITS {
                session.flow.steps.remove(1);
            }
            session.flow.steps.push(StepVisit { step: step.clone(), entered_at: at, left_at: None });
            session.current_step = step.clone();
        }
        Event::PaymentBegun {} => {
            session.status = Status::Processing;
            session.payment.attempts = session.payment.attempts.saturating_add(1);
            session.payment.failure = None;
        }
        Event::PaymentRecorded { transaction_id, amount, vault_id, customer_id, payment_token } => {
            session.status = Status::Processing;
            session.payment.paid_at = Some(at);
            // A session that is paid is worth more than one that is not: what may have leaked before opens it no longer.
            state.access_generation = state.access_generation.saturating_add(1);
            session.payment.amount = Some(*amount);
            session.payment.failure = None;
            session.flow.abandoned_at = None;
            session.transaction_id = transaction_id.clone();
            replace_where_named(&mut session.vault_id, vault_id);
            replace_where_named(&mut session.customer_id, customer_id);
            replace_where_named(&mut session.payment_token, payment_token);
        }
        Event::PaymentReferencesSet { transaction_id, vault_id, customer_id, payment_token } => {
            replace_where_named(&mut session.transaction_id, transaction_id);
            replace_where_named(&mut session.vault_id, vault_id);
            replace_where_named(&mut session.customer_id, customer_id);
            replace_where_named(&mut session.payment_token, payment_token);
        }
        Event::PaymentFailed { failure } => {
            session.status = Status::Failed;
            session.payment.failure = Some(failure.clone());
        }
        Event::OfferMade { offer, step, product, name, price, tax, closes_at } => session.upsells.push(Upsell {
            offer: offer.clone(),
            step: step.clone(),
            product: product.clone(),
            name: name.clone(),
            price: *price,
            tax: *tax,
            state: OfferState::Offered,
            offered_at: at,
            closes_at: *closes_at,
            answered_at: None,
            transaction_id: None,
            failure: None,
        }),
        Event::OfferAccepted { offer } => answer(session, offer, OfferState::Accepted, Some(at)),
        Event::OfferDeclined { offer } => answer(session, offer, OfferState::Declined, Some(at)),
        Event::OfferLapsed { offer } => answer(session, offer, OfferState::Lapsed, None),
        Event::OfferCharged { offer, transaction_id } => settle(session, offer, OfferState::Charged, |upsell| {
            upsell.transaction_id = transaction_id.clone();
            upsell.failure = None;
        }),
        Event::OfferChargeFailed { offer, failure } => {
            settle(session, offer, OfferState::ChargeFailed, |upsell: &mut Upsell| {
                upsell.failure = Some(PaymentFailure::clone(failure));
            });
        }
        Event::MetadataSet { metadata } => merge_patch(&mut session.metadata, metadata),
        Event::Extended { expires_at } => session.expires_at = *expires_at,
        Event::ClaimsMade { claims } => session.claims = Some(claims.clone()),
        Event::ClaimsConfirmed {} => {
            session.claims = None;
            state.claims_settled_at = Some(at);
            for item in session.products.iter_mut().filter(|item| item.price_source == PriceSource::Claimed) {
                item.price_source = PriceSource::Service;
            }
        }
        Event::ClaimsRefuted {} => {
            session.claims = None;
            state.claims_settled_at = Some(at);
            session.products.retain(|item| item.price_source != PriceSource::Claimed);
        }
        Event::AccessRevoked {} => {
            state.claim = None;
            state.lent.clear();
            state.access_generation = state.access_generation.saturating_add(1);
            state.revoked_generation = state.access_generation;
            state.revoked_tokens.clear();
        }
        Event::TokenRevoked { family, claim, until } => {
            if claim.is_some() && state.claim == *claim {
                state.claim = None;
            }
            state.lent.retain(|lent| Some(&lent.digest) != claim.as_ref() && Some(&lent.family) != family.as_ref());
            state.revoked_tokens.retain(|(_, over)| at < *over);
            state.revoked_tokens.extend(family.clone().map(|family| (family, *until)));
        }
        Event::HoldSet { hold } => state.hold.clone_from(hold),
        Event::Completed {} => {
            session.status = Status::Completed;
            session.flow.completed_at = Some(at);
        }
        Event::Expired {} => {
            session.status = Status::Expired;
            session.flow.abandoned_at = Some(at);
        }
        Event::Erased {} => erase(state, at),
    }
}

fn replace_where_named(mine: &mut Option<String>, theirs: &Option<String>) {
    if theirs.is_some() {
        mine.clone_from(theirs);
    }
}

fn settle(session: &mut Session, offer: &OfferId, to: OfferState, change: impl FnOnce(&mut Upsell)) {
    if let Some(upsell) = session.upsells.iter_mut().find(|upsell| upsell.offer == *offer) {
        upsell.state = to;
        change(upsell);
    }
}

fn answer(session: &mut Session, offer: &OfferId, to: OfferState, at: Option<Timestamp>) {
    settle(session, offer, to, |upsell| upsell.answered_at = at);
}

/// Removes whatever tells of a person; what is left (times, steps, amounts) is the tombstone.
fn erase(state: &mut State, at: Timestamp) {
    let session = &mut state.session;
    if !session.status.is_terminal() && session.is_paid() {
        session.status = Status::Completed;
        session.flow.completed_at = Some(at);
    } else if !session.status.is_terminal() {
        session.status = Status::Expired;
        session.flow.abandoned_at = Some(at);
    }
    session.email = None;
    session.customer = Default::default();
    session.vault_id = None;
    session.customer_id = None;
    session.transaction_id = None;
    session.payment_token = None;
    session.metadata = JsonObject::new();
    session.claims = None;
    session.payment.failure = None;
    for upsell in &mut session.upsells {
        upsell.transaction_id = None;
        upsell.failure = None;
    }
    for ledger in state.clients.values_mut() {
        ledger.rejected.clear();
    }
    state.hold = None;
    state.erased_at = Some(at);
}
