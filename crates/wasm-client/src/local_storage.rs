//! The second rung of the storage ladder: localStorage.

use gloo_storage::{LocalStorage, Storage};
use js_sys::{Array, JsString};
use wasm_bindgen::prelude::*;

use crate::boundary::pairs_from_js;

/// Before every key, so that nothing of the page's own is touched.
const PREFIX: &str = "throughline/";

/// The keys with this prefix, with their texts, as `[key, text]` pairs.
///
/// # Errors
/// The browser's error where localStorage is blocked.
#[wasm_bindgen(js_name = localStorageLoad)]
pub fn load(prefix: &str) -> Result<Array, JsValue> {
    let storage = LocalStorage::raw();
    let wanted = [PREFIX, prefix].concat();
    let found = Array::new();
    for index in 0..storage.length()? {
        let Some(key) = storage.key(index)?.filter(|key| key.starts_with(&wanted)) else { continue };
        if let (Some(name), Some(text)) = (key.strip_prefix(PREFIX), storage.get_item(&key)?) {
            found.push(&Array::of2(&JsString::from(name), &JsString::from(text)));
        }
    }
    Ok(found)
}

/// Puts `[key, text]` pairs and deletes keys, puts first.
///
/// # Errors
/// The browser's error where localStorage is blocked or full.
#[wasm_bindgen(js_name = localStorageWrite)]
pub fn write(put: &Array, delete: &Array) -> Result<(), JsValue> {
    let storage = LocalStorage::raw();
    for (key, text) in pairs_from_js(put) {
        storage.set_item(&[PREFIX, &key].concat(), &text)?;
    }
    for key in delete.iter().filter_map(|key| key.as_string()) {
        storage.remove_item(&[PREFIX, &key].concat())?;
    }
    Ok(())
}
