//! JSON text on its way between Rust and JavaScript.
//!
//! Whatever has a structure crosses as text in both directions: one call for a whole value, read and written by the core.
//! Objects of JavaScript that are read field by field cost a call for each, and most of the module's imports.

use alloc::string::String;

use throughline_core::json::{FromJson, Mismatch, Numbers, ToJson, Writer};
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = Number)]
    fn number_of(text: &str) -> f64;

    #[wasm_bindgen(js_name = String)]
    fn text_of(number: f64) -> String;
}

/// Numbers that are no integers are read and written by the browser.
const NUMBERS: Numbers = Numbers { read: number_of, write: text_of };

/// A writer of JSON text.
pub fn writer() -> Writer {
    Writer::new(NUMBERS)
}

/// `value` as JSON text.
pub fn to_text(value: &dyn ToJson) -> String {
    throughline_core::json::to_text(value, NUMBERS)
}

/// Reads JSON text.
///
/// # Errors
/// What is no JSON, or does not fit the type.
pub fn from_text<T: FromJson>(text: &str) -> Result<T, Mismatch> {
    T::from_json(text, NUMBERS)
}

/// Hands on the entries of an object as they are written; none where it is no object.
pub fn entries(text: &str, each: &mut dyn FnMut(&str, &str)) {
    // Only called with text that was read before.
    let _ = throughline_core::json::Reader::new(text, NUMBERS).object(&mut |reader, name| {
        each(name, reader.raw()?);
        Ok(())
    });
}

/// Hands on the items of an array as they are written; none where it is no array.
pub fn items(text: &str, each: &mut dyn FnMut(&str)) {
    let _ = throughline_core::json::Reader::new(text, NUMBERS).array(&mut |reader, _| {
        each(reader.raw()?);
        Ok(())
    });
}
