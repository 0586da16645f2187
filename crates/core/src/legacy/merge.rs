//! One session out of what several systems say of it.

use core::cmp::Reverse;

use super::fields::shrink_to_limits;
use super::note::{Note, NoteKind};
use super::read::{LegacyPayment, LegacySession, LegacySystem};
use crate::claims::{ClaimedUpsell, Claims};
use crate::customer::Customer;
use crate::json::{JsonObject, merge_patch};
use crate::prelude::*;
use crate::session::Status;

/// Puts together what the systems say of one session; nothing where nobody says anything.
///
/// - Of a field that several have, the newest writer's counts; of two that are equally new, the database's, then the cookie's.
///   What was overruled is noted.
/// - No fact of a payment is lost: it is made if one of the shop's systems says so, and all accepted offers are kept. Of two
///   transactions the newer one counts, and the other becomes a claim that somebody has to look at.
/// - A browser is heard about what a buyer may change: email, name, addresses, products, coupon, metadata. Beyond that it only
///   claims. Where the shop's systems are newer, what it says of the status is not even that.
///
/// Their ids have to be the same; that of the first counts.
#[must_use]
pub fn merge(mut sessions: Vec<LegacySession>) -> Option<LegacySession> {
    if sessions.len() < 2 {
        return sessions.pop();
    }
    sessions.sort_by_key(|session| Reverse((session.updated_at, session.system())));
    let mut merged = LegacySession { claims: None, ..sessions.first()?.clone() };
    merged.systems = sessions.iter().map(LegacySession::system).collect();

    let all: Vec<&LegacySession> = sessions.iter().collect();
    let shop: Vec<&LegacySession> =
        all.iter().copied().filter(|session| session.system() != LegacySystem::Browser).collect();
    let believed = if shop.is_empty() { &all } else { &shop };
    let mut notes = sessions.iter().flat_map(|session| session.notes.clone()).collect();
    let mut choose = Choose { notes: &mut notes };
    merged.email = choose.newest(&all, "email", |session| session.email.as_ref());
    merged.customer = choose.customer(&all);
    merged.coupon_code = choose.newest(&all, "couponCode", |session| session.coupon_code.as_ref());
    merged.status = choose.newest(believed, "status", |session| session.status.as_ref());
    merged.step = choose.newest(believed, "currentStep", |session| session.step.as_ref());
    merged.amount = choose.newest(believed, "amount", |session| session.amount.as_ref());
    merged.discount = choose.newest(believed, "discount", |session| session.discount.as_ref());
    merged.shipping = choose.newest(believed, "shipping", |session| session.shipping.as_ref());
    merged.tax = choose.newest(believed, "tax", |session| session.tax.as_ref());
    merged.total = choose.newest(believed, "total", |session| session.total.as_ref());
    merged.vault_id = choose.newest(believed, "vaultId", |session| session.vault_id.as_ref());
    merged.customer_id = choose.newest(believed, "customerId", |session| session.customer_id.as_ref());
    merged.payment_token = choose.newest(believed, "paymentToken", |session| session.payment_token.as_ref());
    merged.failure = choose.newest(believed, "failure", |session| session.failure.as_ref());
    merged.notes = notes;
    merged.payment = believed.iter().map(|session| session.payment).max().unwrap_or_default();
    if merged.payment == LegacyPayment::Made {
        for session in believed.iter().filter(|session| session.payment == LegacyPayment::Unsettled) {
            merged.note("payment", NoteKind::Overruled(session.system()));
        }
    }
    merged.choose_products(if merged.payment == LegacyPayment::None { &all } else { believed });
    merged.unite_offers(believed);
    merged.choose_transaction(believed);
    if let (Some(browser), false) =
        (all.iter().find(|session| session.system() == LegacySystem::Browser), shop.is_empty())
    {
        let is_newer = shop.iter().all(|session| session.updated_at < browser.updated_at);
        merged.hear_claims(browser, is_newer);
    }
    merged.created_at = all.iter().filter_map(|session| session.created_at).min();
    merged.updated_at = all.iter().filter_map(|session| session.updated_at).max();
    merged.expires_at = all.iter().filter_map(|session| session.expires_at).max();
    merged.metadata = JsonObject::new();
    for session in all.iter().rev() {
        merge_patch(&mut merged.metadata, &session.metadata);
    }
    if shrink_to_limits(&mut merged.metadata) {
        merged.note("metadata", NoteKind::MetadataDropped);
    }
    merged.notes.sort();
    merged.notes.dedup();
    Some(merged)
}

struct Choose<'a> {
    notes: &'a mut Vec<Note>,
}

impl Choose<'_> {
    /// The first that there is, of sessions of which the newest is the first.
    fn newest<T: Clone + PartialEq>(
        &mut self,
        sessions: &[&LegacySession],
        field: &str,
        of: impl Fn(&LegacySession) -> Option<&T>,
    ) -> Option<T> {
        let mut said = sessions.iter().filter_map(|session| Some((session.system(), of(session)?)));
        let (_, chosen) = said.next()?;
        for (system, _) in said.filter(|(_, other)| *other != chosen) {
            self.notes.push(Note { field: field.to_owned(), kind: NoteKind::Overruled(system) });
        }
        Some(chosen.clone())
    }

    fn customer(&mut self, sessions: &[&LegacySession]) -> Customer {
        // The cookie has the state alone; a whole address says more, whoever wrote it.
        let is_whole = |session: &&&LegacySession| {
            session.customer.billing.as_ref().is_some_and(|address| address.address.is_some())
        };
        let whole: Vec<&LegacySession> = sessions.iter().filter(is_whole).copied().collect();
        let billing = if whole.is_empty() { sessions } else { &whole };
        Customer {
            first_name: self.newest(sessions, "customer.firstName", |session| session.customer.first_name.as_ref()),
            last_name: self.newest(sessions, "customer.lastName", |session| session.customer.last_name.as_ref()),
            phone: self.newest(sessions, "customer.phone", |session| session.customer.phone.as_ref()),
            billing: self.newest(billing, "customer.billing", |session| session.customer.billing.as_ref()),
            shipping: self.newest(sessions, "customer.shipping", |session| session.customer.shipping.as_ref()),
        }
    }
}

impl LegacySession {
    /// The system that says it; of several, the one with the newest word.
    pub(super) fn system(&self) -> LegacySystem {
        self.systems.first().copied().unwrap_or(LegacySystem::Browser)
    }

    fn choose_products(&mut self, sessions: &[&Self]) {
        let mut with_products = sessions.iter().filter(|session| !session.products.is_empty());
        let chosen = with_products.next().map(|session| session.products.clone()).unwrap_or_default();
        for session in with_products.filter(|session| session.products != chosen) {
            self.note("products", NoteKind::Overruled(session.system()));
        }
        self.products = chosen;
    }

    fn unite_offers(&mut self, sessions: &[&Self]) {
        let (mut accepted, mut declined) = (Vec::new(), Vec::new());
        for session in sessions {
            for offer in &session.accepted {
                let is_there = accepted.contains(offer);
                let known = accepted.iter().position(|known: &ClaimedUpsell| known.code == offer.code);
                match known.and_then(|place| accepted.get_mut(place)) {
                    // Of the same charge another one may know more.
                    Some(known) if known.transaction_id.is_none() && offer.transaction_id.is_some() => {
                        *known = offer.clone();
                    }
                    Some(_) if offer.transaction_id.is_none() || is_there => {}
                    _ => accepted.push(offer.clone()),
                }
            }
        }
        for session in sessions {
            for code in &session.declined {
                if accepted.iter().any(|offer| offer.code == *code) {
                    self.note("upsells", NoteKind::Overruled(session.system()));
                } else if !declined.contains(code) {
                    declined.push(code.clone());
                }
            }
        }
        (self.accepted, self.declined) = (accepted, declined);
    }

    /// That of the system which says that it was paid, else the newest.
    fn choose_transaction(&mut self, sessions: &[&Self]) {
        let of_payment = |payment: LegacyPayment| {
            let those = sessions.iter().filter(move |session| session.payment == payment);
            those.filter_map(|session| session.transaction_id.clone())
        };
        let mut known = Vec::new();
        for payment in [LegacyPayment::Made, LegacyPayment::Unsettled, LegacyPayment::None] {
            for transaction in of_payment(payment) {
                if !known.contains(&transaction) {
                    known.push(transaction);
                }
            }
        }
        let mut known = known.into_iter();
        self.transaction_id = known.next();
        if let Some(other) = known.next() {
            self.note("transactionId", NoteKind::PaidTwice);
            // One of them can be claimed; the others are where they were.
            for transaction in known {
                let said = |session: &&&Self| session.transaction_id.as_ref() == Some(&transaction);
                if let Some(session) = sessions.iter().find(said) {
                    self.note("transactionId", NoteKind::Overruled(session.system()));
                }
            }
            self.claims = self.as_claims().map(|claims| Claims {
                status: Status::Processing,
                accepted: Vec::new(),
                declined: Vec::new(),
                transaction_id: Some(other),
                ..claims
            });
        }
    }

    /// What a browser says of a payment that none of the shop's systems knows of.
    fn hear_claims(&mut self, browser: &Self, is_newer: bool) {
        let Some(mut claims) = browser.as_claims() else { return };
        claims.accepted.retain(|claimed| self.accepted.iter().all(|known| known.code != claimed.code));
        claims.declined.clear();
        if claims.transaction_id == self.transaction_id {
            claims.transaction_id = None;
        }
        claims.vault_id = claims.vault_id.filter(|vault| self.vault_id.is_none() && !vault.is_empty());
        if !is_newer || self.payment == LegacyPayment::Made {
            claims.status = Status::Pending;
            claims.vault_id = None;
        }
        if !claims.claim_payment() {
            return;
        }
        match &mut self.claims {
            Some(own) => own.accepted.extend(claims.accepted),
            None => self.claims = Some(claims),
        }
    }
}
