//! The browser side of Throughline: the replica compiled to WebAssembly.
#![warn(missing_docs)]

use wasm_bindgen::prelude::*;

/// Version of this package, as in `Cargo.toml`.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}
