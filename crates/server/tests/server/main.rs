//! The real binary, from outside.

mod binary;
mod doctor;
mod encryption;
mod fleets;
mod full_disk;
mod handoff;
mod herd;
mod listing;
mod metrics;
mod poll;
mod postgres;
mod process;
mod rest;
mod slow_reader;
mod socket;
mod tiers;
