//! Whatever of Throughline concerns localStorage, compiled to WebAssembly: the second rung of the storage ladder ([`rung`])
//! and the take-over of the legacy storage ([`take_over`]).
//!
//! A module of its own beside the client's: few pages need it, and those load it when they do. Text crosses the boundary,
//! as in the client's module.
#![warn(missing_docs)]

pub mod rung;
pub mod take_over;

use throughline_core::json::{FromJson, Mismatch, Numbers, ToJson, Writer};

fn writer() -> Writer {
    Writer::new(Numbers::NATIVE)
}

fn to_text(value: &dyn ToJson) -> String {
    throughline_core::json::to_text(value, Numbers::NATIVE)
}

fn from_text<T: FromJson>(text: &str) -> Result<T, Mismatch> {
    T::from_json(text, Numbers::NATIVE)
}
