//! The real binary, from outside.

mod binary;
mod postgres;
mod process;
mod rest;
mod socket;
mod tiers;
