//! The second rung of the storage ladder: localStorage.

use gloo_storage::{LocalStorage, Storage};
use wasm_bindgen::prelude::*;

use crate::{from_text, to_text};

/// Before every key, so that nothing of the page's own is touched.
const PREFIX: &str = "throughline/";

/// The keys with this prefix, with their texts: `[[key, text]]`.
///
/// # Errors
/// The browser's error where localStorage is blocked.
#[wasm_bindgen(js_name = localStorageLoad)]
pub fn load(prefix: &str) -> Result<String, JsValue> {
    let storage = LocalStorage::raw();
    let wanted = [PREFIX, prefix].concat();
    let mut found: Vec<(String, String)> = Vec::new();
    for index in 0..storage.length()? {
        let Some(key) = storage.key(index)?.filter(|key| key.starts_with(&wanted)) else { continue };
        if let (Some(name), Some(text)) = (key.strip_prefix(PREFIX), storage.get_item(&key)?) {
            found.push((name.to_owned(), text));
        }
    }
    Ok(to_text(&found))
}

/// Puts `[[key, text]]` and deletes `[key]`, puts first.
///
/// # Errors
/// The browser's error where localStorage is blocked or full.
#[wasm_bindgen(js_name = localStorageWrite)]
pub fn write(put: &str, delete: &str) -> Result<(), JsValue> {
    let storage = LocalStorage::raw();
    for (key, text) in from_text::<Vec<(String, String)>>(put).unwrap_or_default() {
        storage.set_item(&[PREFIX, &key].concat(), &text)?;
    }
    for key in from_text::<Vec<String>>(delete).unwrap_or_default() {
        storage.remove_item(&[PREFIX, &key].concat())?;
    }
    Ok(())
}
