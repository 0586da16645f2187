//! The real binary, from outside.

mod binary;
mod process;
mod rest;
mod socket;
