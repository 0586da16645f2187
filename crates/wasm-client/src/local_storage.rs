//! The second rung of the storage ladder: localStorage.

use gloo_storage::{LocalStorage, Storage};
use js_sys::{Array, JsString};
use wasm_bindgen::prelude::*;

/// Before every key, so that nothing of the page's own is touched.
const PREFIX: &str = "throughline/";

/// The keys with this prefix, with their texts, as `[key, text]` pairs.
///
/// # Errors
/// The browser's error where localStorage is blocked.
#[wasm_bindgen(js_name = localStorageLoad)]
pub fn load(prefix: &str) -> Result<Array, JsValue> {
    let storage = LocalStorage::raw();
    let wanted = format!("{PREFIX}{prefix}");
    let found = Array::new();
    for index in 0..storage.length()? {
        let Some(key) = storage.key(index)?.filter(|key| key.starts_with(&wanted)) else { continue };
        if let Some(text) = storage.get_item(&key)? {
            found.push(&Array::of2(&JsString::from(&key[PREFIX.len()..]), &JsString::from(text)));
        }
    }
    Ok(found)
}

/// Puts `[key, text]` pairs and deletes keys, puts first.
///
/// # Errors
/// The browser's error where localStorage is blocked or full.
#[wasm_bindgen(js_name = localStorageWrite)]
pub fn write(put: Vec<Array>, delete: Vec<String>) -> Result<(), JsValue> {
    let storage = LocalStorage::raw();
    for pair in put {
        if let (Some(key), Some(text)) = (pair.get(0).as_string(), pair.get(1).as_string()) {
            storage.set_item(&format!("{PREFIX}{key}"), &text)?;
        }
    }
    for key in delete {
        storage.remove_item(&format!("{PREFIX}{key}"))?;
    }
    Ok(())
}
