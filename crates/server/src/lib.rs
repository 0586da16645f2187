//! The edge server of Throughline: one checkout session, reached over REST and WebSocket.
//!
//! Each module is one noun. [`config`] reads what the operator asked for, [`wiring`] builds
//! the parts from it, [`serve`] runs them until told to stop. [`http`] is what the outside
//! sees, [`store`] is where sessions are kept. [`token`], [`service_key`] and [`principal`]
//! say who is asking; everything that nobody vouched for is refused.
//!
//! What is deliberately absent: no rule about sessions or funnels lives in this crate, and no
//! module here reads the clock except [`clock`]; time is an argument everywhere else.
#![warn(missing_docs)]

pub mod audit;
pub mod audit_command;
mod bench_command;
pub mod breaker;
mod claim_secret;
pub mod cli;
mod cli_documents;
pub mod client_address;
pub mod clock;
pub mod config;
pub mod connection_limit;
mod connection_time;
pub mod doctor;
pub mod doctor_command;
pub mod email_lookup;
pub mod encryption;
pub mod event_feed;
mod export;
mod export_command;
pub mod funnel_command;
pub mod funnel_graph;
pub mod funnels;
pub mod health_command;
pub mod http;
pub mod idempotency;
mod import;
mod import_command;
mod json_depth;
pub mod keys;
pub mod keys_command;
pub mod legacy_cookie;
pub mod migrate_command;
pub mod mode;
pub mod network;
pub mod principal;
pub mod privacy_command;
pub mod problem;
mod progress;
pub mod rate_limit;
pub mod rest_client;
pub mod routes_command;
pub mod scope;
pub mod serve;
pub mod server_argument;
pub mod service_key;
pub mod service_keys;
pub mod service_keys_command;
pub mod sessions;
mod sessions_command;
pub mod shared_cache;
pub mod store;
pub mod telemetry;
pub mod tenant;
pub mod tls;
pub mod token;
pub mod webhooks;
mod webhooks_command;
pub mod wiring;
