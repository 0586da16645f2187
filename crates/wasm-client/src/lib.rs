//! The browser side of Throughline: the core's replica, compiled to WebAssembly.
//!
//! The rule of this crate: Rust decides, TypeScript (`js/src`) touches the browser. Here are the replica with the
//! boundary to JavaScript ([`client`], [`outputs`], [`boundary`]), the form in which things are stored ([`sealed`]), the localStorage
//! rung of the storage ([`local_storage`]) and the take-over of the legacy storage ([`take_over`]). Sockets, IndexedDB,
//! locks and timers are on the other side.
#![warn(missing_docs)]

pub mod boundary;
pub mod client;
pub mod identifiers;
pub mod outputs;
pub mod sealed;
#[cfg(feature = "verdict")]
mod verdict;

use wasm_bindgen::prelude::*;

/// Version of this package, as in `Cargo.toml`.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}
