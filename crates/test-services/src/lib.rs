//! What the fault tests are made of: real services and servers, buyers who use them, and the check of what was promised.
//!
//! Everything is a private process on a free port in a temporary folder, and ends with its owner.

pub mod buyer;
pub mod chaos;
pub mod fleet;
pub mod haproxy;
pub mod otlp_receiver;
pub mod postgres;
pub mod promises;
pub mod redis;
pub mod small_disk;
pub mod tcp_proxy;
