//! The browser side of Throughline: the core's replica, compiled to WebAssembly.
//!
//! The rule of this crate: Rust decides, TypeScript (`js/src`) touches the browser. Here are the replica with the
//! boundary to JavaScript ([`client`], [`outputs`], [`boundary`]) and the form in which things are stored ([`stored_form`]).
//! Sockets, IndexedDB, locks and timers are on the other side; what concerns localStorage is the crate
//! `throughline-wasm-local-storage`.
//!
//! Compiled for the browser it does without the standard library. A panic is a trap, without a message that nobody would
//! see; so the module needs no code that makes up messages.
#![warn(missing_docs)]
#![cfg_attr(all(target_family = "wasm", not(feature = "verdict")), no_std)]

extern crate alloc;

pub mod boundary;
pub mod client;
pub mod identifiers;
pub mod outputs;
pub mod stored_form;
#[cfg(feature = "verdict")]
mod verdict;

use alloc::borrow::ToOwned;
use alloc::string::String;

use wasm_bindgen::prelude::*;

#[cfg(all(target_family = "wasm", not(feature = "verdict")))]
mod without_std {
    #[global_allocator]
    static ALLOCATOR: rlsf::SmallGlobalTlsf = rlsf::SmallGlobalTlsf::new();

    #[panic_handler]
    fn trap(_: &core::panic::PanicInfo<'_>) -> ! {
        core::arch::wasm32::unreachable()
    }
}

/// Version of this package, as in `Cargo.toml`.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}
