//! The checkout session, the funnel rules and the sync protocol of Throughline.
//!
//! The same code runs in the browser (as WebAssembly) and in the server, so a change that
//! was made offline is judged by exactly the rule that the server applies later.
//!
//! - [`decide`] says whether a [`Command`] may happen and which [`Event`]s it causes.
//! - [`evolve`] says what a recorded event changes. It is total: it never fails and never asks who did it.
//! - [`sync`] holds the two ends of the protocol, [`sync::Replica`] and [`sync::Authority`], as
//!   state machines without I/O: frames go in, frames and effects come out.
//!
//! Nothing here reads a clock, draws a random number or touches a socket: time, ids and the
//! funnel definition arrive as arguments.
//!
//! Start with [`Session`] (what there is), then `decide` (what may happen), then `sync/mod.rs`.
#![warn(missing_docs)]
// In the browser without the standard library: its handling of panics alone is a twentieth of the module.
#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

mod claims;
mod command;
mod customer;
mod decide;
mod event;
mod evolve;
pub mod funnel;
mod identifier;
pub mod json;
pub mod legacy;
mod lifecycle;
mod money;
mod ordered;
mod permission;
mod prelude;
mod pricing;
mod projection;
mod rejection;
mod session;
mod state;
pub mod sync;
mod time;
#[cfg(feature = "typescript")]
pub mod typescript;

pub use claims::{ClaimedItem, ClaimedUpsell, Claims};
pub use command::{
    Command, CommandKind, ConfirmedCharge, Create, Durability, FunnelChoice, ItemRequest, LegacyEntries,
};
pub use customer::{Address, Customer, EmailAddress, InvalidEmailAddress};
pub use decide::{Context, decide, decide_for_browser, ended};
pub use event::{Caller, Event, Origin, Record};
pub use evolve::evolve;
pub use funnel::Funnel;
pub use identifier::{ClientId, FunnelId, InvalidIdentifier, OfferId, ProductId, SessionId, StepId};
pub use lifecycle::{
    ChangedPart, LifecycleData, LifecycleEvent, LifecycleKind, LifecycleOffer, LifecycleSession, lifecycle_events,
};
pub use money::{Currency, Money, Rate};
pub use ordered::OrderedMap;
pub use permission::{PERMISSIONS, Role, may_issue};
pub use prelude::Joined;
pub use rejection::{MendableBy, Rejection, RejectionCode};
pub use session::{
    Adjustments, Flow, FunnelRef, Item, OfferState, Payment, PaymentFailure, PriceSource, Session, Source, Status,
    StepVisit, Totals, Upsell,
};
pub use state::{ClientLedger, Hold, IdleLimit, LentClaim, State, StateMark};
pub use time::{InvalidTimeSpan, InvalidTimestamp, TimeSpan, Timestamp};
