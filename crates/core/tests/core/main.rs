//! Tests of the core as its users see it.

mod gaps;
mod generate;
mod golden;
mod greetings;
mod ledger;
mod legacy;
mod legacy_trust;
mod lifecycle;
mod outbox;
mod patches;
mod properties;
mod reading;
mod revocation;
mod rules;
mod sequences;
