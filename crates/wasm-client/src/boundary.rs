//! Values on their way between Rust and JavaScript.

use js_sys::{Array, JSON, Object, Reflect};
use serde::Serialize;
use serde_wasm_bindgen::Serializer;
use throughline_core::json::{FromJson, JsonObject, JsonValue};
use wasm_bindgen::prelude::*;

use crate::json_text::to_text;

/// `value` as plain JavaScript: objects for maps, `null` for what is missing, numbers for every integer.
pub fn to_js<T: Serialize + ?Sized>(value: &T) -> JsValue {
    parse(&to_text(value))
}

/// A list or pair of text as plain JavaScript, made without text in between. Everything with fields
/// goes through [`to_js`]: for each type of field, this way of writing makes the module larger.
pub fn list_to_js<T: Serialize + ?Sized>(value: &T) -> JsValue {
    value.serialize(&Serializer::json_compatible()).unwrap_or(JsValue::NULL)
}

/// Reads a list of `[key, text]` pairs; what is no such pair is left out.
pub fn pairs_from_js(list: &Array) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for item in list.iter() {
        if let (Some(key), Some(text)) = (get(&item, "0").as_string(), get(&item, "1").as_string()) {
            pairs.push((key, text));
        }
    }
    pairs
}

/// JSON text that was written here, as plain JavaScript.
#[inline(never)]
pub fn parse(text: &str) -> JsValue {
    JSON::parse(text).unwrap_or(JsValue::NULL)
}

/// Reads a plain JavaScript value; the error is a sentence that names the field.
///
/// # Errors
/// What does not fit the type.
pub fn from_js<T: FromJson>(value: JsValue) -> Result<T, String> {
    T::from_json(as_json(&value, 0)).map_err(|mismatch| mismatch.to_string())
}

/// How deep a value is followed; deeper is `null`. Beyond every limit of the protocol, and cycles end here too.
const MAX_DEPTH: usize = 64;

/// The value as JSON would have it: without `undefined` properties and functions.
fn as_json(value: &JsValue, depth: usize) -> JsonValue {
    if let Some(text) = value.as_string() {
        JsonValue::String(text)
    } else if let Some(number) = value.as_f64() {
        JsonValue::from(number)
    } else if let Some(flag) = value.as_bool() {
        JsonValue::Bool(flag)
    } else if depth >= MAX_DEPTH {
        JsonValue::Null
    } else if Array::is_array(value) {
        JsonValue::Array(Array::from(value).iter().map(|item| as_json(&item, depth + 1)).collect())
    } else if let Some(object) = value.dyn_ref::<Object>().filter(|_| !value.is_function()) {
        let mut entries = JsonObject::new();
        for entry in Object::entries(object).iter().map(|pair| Array::from(&pair)) {
            let inner = entry.get(1);
            if let (Some(key), false) = (entry.get(0).as_string(), inner.is_undefined() || inner.is_function()) {
                entries.insert(key, as_json(&inner, depth + 1));
            }
        }
        JsonValue::Object(entries)
    } else {
        JsonValue::Null
    }
}

/// Reads JSON text. The browser's own parser is used, so that none has to be shipped.
///
/// # Errors
/// What is no JSON, or does not fit the type.
pub fn from_json<T: FromJson>(text: &str) -> Result<T, String> {
    from_js(JSON::parse(text).map_err(|_| "not JSON".to_owned())?)
}

/// Sets a property of a plain object.
pub fn set(object: &Object, name: &str, value: impl Into<JsValue>) {
    set_value(object, name, value.into());
}

#[inline(never)]
fn set_value(object: &Object, name: &str, value: JsValue) {
    // Can only fail for frozen objects and proxies; this one was just made here.
    let _ = Reflect::set(object, &JsValue::from_str(name), &value);
}

/// A property of a plain object; `undefined` where it has none, or is no object.
#[inline(never)]
pub fn get(object: &JsValue, name: &str) -> JsValue {
    Reflect::get(object, &JsValue::from_str(name)).unwrap_or(JsValue::UNDEFINED)
}

/// A plain object with a `type`.
#[inline(never)]
pub fn tagged(name: &str) -> Object {
    let object = Object::new();
    set(&object, "type", name);
    object
}
