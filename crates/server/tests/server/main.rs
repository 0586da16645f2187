//! The real binary, from outside.

mod audit;
mod binary;
mod doctor;
mod encryption;
mod fleets;
mod full_disk;
mod handoff;
mod herd;
mod limits;
mod listing;
mod metrics;
mod origins;
mod poll;
mod postgres;
mod privacy;
mod privacy_command;
mod process;
mod rest;
mod revocation;
mod security_headers;
mod service_keys;
mod slow_reader;
mod socket;
mod tiers;
mod tls;
mod wrong_principals;
