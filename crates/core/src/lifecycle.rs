//! What other systems are told of a session's life: that it began, went on, was paid, ended.
//!
//! A record says exactly what changed, and may hold what a person typed. A lifecycle event says only that something happened, and
//! holds nothing personal: no address, name, gateway reference or metadata. Who may know more asks for the session by its id.
//!
//! Events are made of the records of a commit, so one is told exactly if its change is kept.

use serde::{Deserialize, Serialize};

use crate::event::{Event, Record};
use crate::evolve::evolve;
use crate::identifier::{OfferId, ProductId, SessionId, StepId};
use crate::money::{Currency, Money};
use crate::permission::Role;
use crate::prelude::*;
use crate::session::{FunnelRef, Session, Source, Status, Upsell};
use crate::state::State;
use crate::time::Timestamp;

/// One thing that happened in a session's life, as webhooks and the stream of events tell it.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct LifecycleEvent {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: LifecycleKind,
    /// When the server decided it.
    pub timestamp: Timestamp,
    /// To which session, and what there is to say of it.
    pub data: LifecycleData,
}

/// What happened to a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum LifecycleKind {
    /// It began.
    #[serde(rename = "session.created")]
    Created,
    /// Something of it changed that no other kind tells: see `changed`. Changes that are committed together are told together.
    #[serde(rename = "session.updated")]
    Updated,
    /// The buyer is at another step: see `previousStep` and `stayedMs`.
    #[serde(rename = "session.stepChanged")]
    StepChanged,
    /// Its status is another one: see `previousStatus`.
    #[serde(rename = "session.statusChanged")]
    StatusChanged,
    /// The payment was recorded: see `paid`.
    #[serde(rename = "session.paid")]
    Paid,
    /// The buyer accepted an offer: see `offer`.
    #[serde(rename = "session.offerAccepted")]
    OfferAccepted,
    /// The buyer declined an offer.
    #[serde(rename = "session.offerDeclined")]
    OfferDeclined,
    /// An accepted offer was charged.
    #[serde(rename = "session.offerCharged")]
    OfferCharged,
    /// An accepted offer could not be charged.
    #[serde(rename = "session.offerChargeFailed")]
    OfferChargeFailed,
    /// An open offer closed without an answer.
    #[serde(rename = "session.offerLapsed")]
    OfferLapsed,
    /// It is paid and done.
    #[serde(rename = "session.completed")]
    Completed,
    /// It ended unpaid.
    #[serde(rename = "session.expired")]
    Expired,
    /// Its personal data was removed.
    #[serde(rename = "session.erased")]
    Erased,
    /// It was kept for as long as it has to be, and is gone.
    #[serde(rename = "session.deleted")]
    Deleted,
}

impl LifecycleKind {
    /// Each of them.
    pub const ALL: [Self; 14] = [
        Self::Created,
        Self::Updated,
        Self::StepChanged,
        Self::StatusChanged,
        Self::Paid,
        Self::OfferAccepted,
        Self::OfferDeclined,
        Self::OfferCharged,
        Self::OfferChargeFailed,
        Self::OfferLapsed,
        Self::Completed,
        Self::Expired,
        Self::Erased,
        Self::Deleted,
    ];

    /// Its name, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "session.created",
            Self::Updated => "session.updated",
            Self::StepChanged => "session.stepChanged",
            Self::StatusChanged => "session.statusChanged",
            Self::Paid => "session.paid",
            Self::OfferAccepted => "session.offerAccepted",
            Self::OfferDeclined => "session.offerDeclined",
            Self::OfferCharged => "session.offerCharged",
            Self::OfferChargeFailed => "session.offerChargeFailed",
            Self::OfferLapsed => "session.offerLapsed",
            Self::Completed => "session.completed",
            Self::Expired => "session.expired",
            Self::Erased => "session.erased",
            Self::Deleted => "session.deleted",
        }
    }

    /// The kind with this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// What a lifecycle event says.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct LifecycleData {
    /// The session.
    pub session_id: SessionId,
    /// Its version.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub version: u64,
    /// In which role it was caused; `system` for what the server does by itself.
    pub by: Role,
    /// The session right after it. Missing where it is gone: `session.deleted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub session: Option<LifecycleSession>,
    /// `session.created`: where it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub source: Option<Source>,
    /// `session.updated`: what changed, each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<Vec<ChangedPart>>"))]
    pub changed: Vec<ChangedPart>,
    /// `session.stepChanged`: the step that was left.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub previous_step: Option<StepId>,
    /// `session.stepChanged`: for how long the buyer was there, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<i64>))]
    #[cfg_attr(feature = "typescript", ts(optional, type = "number"))]
    pub stayed_ms: Option<i64>,
    /// `session.statusChanged`: the status before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub previous_status: Option<Status>,
    /// `session.paid`: what was paid, in minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub paid: Option<Money>,
    /// The events of offers: which one it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub offer: Option<LifecycleOffer>,
}

/// A session as a lifecycle event shows it: where it is in its funnel, and nothing of the buyer.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct LifecycleSession {
    /// Its status.
    pub status: Status,
    /// The step that the buyer is at.
    pub step: StepId,
    /// The funnel that it is pinned to.
    pub funnel: FunnelRef,
    /// What it costs, in minor units of its currency.
    pub amount: Money,
    /// Its currency.
    pub currency: Currency,
}

impl From<&Session> for LifecycleSession {
    fn from(session: &Session) -> Self {
        Self {
            status: session.status,
            step: session.current_step.clone(),
            funnel: session.funnel.clone(),
            amount: session.amount,
            currency: session.currency,
        }
    }
}

/// A part of a session that a lifecycle event says to have changed, without saying how.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum ChangedPart {
    /// The email address.
    Email,
    /// Names, phone, addresses.
    Customer,
    /// The products.
    Items,
    /// The coupon.
    Coupon,
    /// Discount, shipping or tax.
    Adjustments,
    /// What the payment gateway calls it.
    PaymentReferences,
    /// What was brought along from a legacy system: claimed, confirmed or refuted.
    Claims,
    /// The metadata.
    Metadata,
    /// When it ends.
    ExpiresAt,
    /// Whether it is held against erasure.
    Hold,
}

/// The offer that a lifecycle event is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct LifecycleOffer {
    /// The offer.
    pub id: OfferId,
    /// The product.
    pub product: ProductId,
    /// The step at which it was made.
    pub step: StepId,
    /// Its price, in minor units.
    pub price: Money,
}

impl From<&Upsell> for LifecycleOffer {
    fn from(upsell: &Upsell) -> Self {
        Self {
            id: upsell.offer.clone(),
            product: upsell.product.clone(),
            step: upsell.step.clone(),
            price: upsell.price,
        }
    }
}

/// What a commit tells other systems: `before` is the state that `records` follow on, in their order.
#[must_use]
pub fn lifecycle_events(before: Option<&State>, records: &[Record]) -> Vec<LifecycleEvent> {
    let mut told = Told::default();
    let mut state = before.cloned();
    for record in records {
        let previous = state.as_ref().map(|state| Previous::of(&state.session));
        state = evolve(state, record);
        let Some(state) = &state else { continue };
        told.add(record, previous.as_ref(), &state.session);
    }
    told.flush();
    told.events
}

impl LifecycleEvent {
    /// That a session is gone, which at the end was at this version. Nobody but the server deletes one.
    #[must_use]
    pub fn deleted(session_id: SessionId, version: u64, at: Timestamp) -> Self {
        let data = LifecycleData::new(session_id, version, Role::System);
        Self { kind: LifecycleKind::Deleted, timestamp: at, data }
    }
}

/// What has to be known of the session as it was before a record.
struct Previous {
    status: Status,
    step: StepId,
    entered_at: Timestamp,
}

impl Previous {
    fn of(session: &Session) -> Self {
        let entered_at = session.flow.steps.last().map_or(session.created_at, |visit| visit.entered_at);
        Self { status: session.status, step: session.current_step.clone(), entered_at }
    }
}

/// The events so far, and what the next `updated` is going to say.
#[derive(Default)]
struct Told {
    events: Vec<LifecycleEvent>,
    update: Option<LifecycleEvent>,
}

impl Told {
    fn add(&mut self, record: &Record, previous: Option<&Previous>, session: &Session) {
        let data = LifecycleData::new(session.id.clone(), record.version, record.by);
        let data = LifecycleData { session: Some(session.into()), ..data };
        match telling(&record.event) {
            Telling::Nothing => {}
            Telling::Change(part) => self.note_change(part, record.at, data.clone()),
            Telling::Kind(kind, offer) => {
                let mut data = data.clone();
                let offered = session.upsells.iter().find(|upsell| Some(&upsell.offer) == offer);
                data.offer = offered.map(LifecycleOffer::from);
                match &record.event {
                    Event::Created { source, .. } => data.source = Some(*source),
                    Event::PaymentRecorded { amount, .. } => data.paid = Some(*amount),
                    _ => {}
                }
                if let (LifecycleKind::StepChanged, Some(previous)) = (kind, previous) {
                    data.previous_step = Some(previous.step.clone());
                    data.stayed_ms = Some(record.at.since(previous.entered_at).as_millis());
                }
                self.tell(LifecycleEvent { kind, timestamp: record.at, data });
            }
        }
        if let Some(previous) = previous.filter(|previous| previous.status != session.status) {
            let data = LifecycleData { previous_status: Some(previous.status), ..data };
            self.tell(LifecycleEvent { kind: LifecycleKind::StatusChanged, timestamp: record.at, data });
        }
    }

    /// Whatever happens between two changes ends what is told of them together: versions follow each other.
    fn tell(&mut self, event: LifecycleEvent) {
        self.flush();
        self.events.push(event);
    }

    fn note_change(&mut self, part: ChangedPart, at: Timestamp, mut data: LifecycleData) {
        if let Some(update) = self.update.take() {
            data.changed = update.data.changed;
        }
        if !data.changed.contains(&part) {
            data.changed.push(part);
        }
        self.update = Some(LifecycleEvent { kind: LifecycleKind::Updated, timestamp: at, data });
    }

    fn flush(&mut self) {
        self.events.extend(self.update.take());
    }
}

impl LifecycleData {
    fn new(session_id: SessionId, version: u64, by: Role) -> Self {
        Self {
            session_id,
            version,
            by,
            session: None,
            source: None,
            changed: Vec::new(),
            previous_step: None,
            stayed_ms: None,
            previous_status: None,
            paid: None,
            offer: None,
        }
    }
}

/// As what a record's event is told, beside a change of the status.
enum Telling<'a> {
    /// It is nobody's business but the session's own, or the status tells it.
    Nothing,
    /// This part of the session changed.
    Change(ChangedPart),
    /// By a kind of its own, and of this offer where it is about one.
    Kind(LifecycleKind, Option<&'a OfferId>),
}

/// Exhaustive on purpose: a new event has to be placed here.
fn telling(event: &Event) -> Telling<'_> {
    match event {
        Event::Created { .. } => Telling::Kind(LifecycleKind::Created, None),
        Event::EmailSet { .. } => Telling::Change(ChangedPart::Email),
        Event::CustomerSet { .. } => Telling::Change(ChangedPart::Customer),
        Event::ItemsSet { .. } => Telling::Change(ChangedPart::Items),
        Event::CouponSet { .. } => Telling::Change(ChangedPart::Coupon),
        Event::AdjustmentsSet { .. } => Telling::Change(ChangedPart::Adjustments),
        Event::StepEntered { .. } => Telling::Kind(LifecycleKind::StepChanged, None),
        Event::PaymentRecorded { .. } => Telling::Kind(LifecycleKind::Paid, None),
        Event::PaymentReferencesSet { .. } => Telling::Change(ChangedPart::PaymentReferences),
        Event::OfferAccepted { offer } => Telling::Kind(LifecycleKind::OfferAccepted, Some(offer)),
        Event::OfferDeclined { offer } => Telling::Kind(LifecycleKind::OfferDeclined, Some(offer)),
        Event::OfferCharged { offer, .. } => Telling::Kind(LifecycleKind::OfferCharged, Some(offer)),
        Event::OfferChargeFailed { offer, .. } => Telling::Kind(LifecycleKind::OfferChargeFailed, Some(offer)),
        Event::OfferLapsed { offer } => Telling::Kind(LifecycleKind::OfferLapsed, Some(offer)),
        Event::MetadataSet { .. } => Telling::Change(ChangedPart::Metadata),
        Event::Extended { .. } => Telling::Change(ChangedPart::ExpiresAt),
        Event::ClaimsMade { .. } | Event::ClaimsConfirmed {} | Event::ClaimsRefuted {} => {
            Telling::Change(ChangedPart::Claims)
        }
        Event::HoldSet { .. } => Telling::Change(ChangedPart::Hold),
        Event::Completed {} => Telling::Kind(LifecycleKind::Completed, None),
        Event::Expired {} => Telling::Kind(LifecycleKind::Expired, None),
        Event::Erased {} => Telling::Kind(LifecycleKind::Erased, None),
        Event::PaymentBegun {}
        | Event::PaymentFailed { .. }
        | Event::OfferMade { .. }
        | Event::HandedOff { .. }
        | Event::ClaimLent { .. }
        | Event::AccessRevoked {}
        | Event::TokenRevoked { .. }
        | Event::CommandRejected { .. }
        | Event::CommandUnneeded {} => Telling::Nothing,
    }
}
