//! Takes over what the legacy `FunnelSessionManager` left in localStorage.

use gloo_storage::{LocalStorage, Storage};
use js_sys::{Array, JSON, JsString, Object};
use throughline_core::Command;
use throughline_core::json::JsonObject;
use throughline_core::legacy::{FUNNEL_STORAGE_KEY, take_over};
use wasm_bindgen::prelude::*;

use crate::boundary::{from_js, set, to_js};
use crate::json_text::to_text;

/// What the legacy key holds: `{text, sessions: [{id, command}], unreadable: [{key, reason, text}]}`; `undefined` where
/// there is no such key.
///
/// `command` creates the session; nothing that it claims of prices or payments is believed. `text` is the whole value,
/// for [`forget_legacy_storage`].
///
/// # Errors
/// The browser's error where localStorage is blocked.
#[wasm_bindgen(js_name = readLegacyStorage)]
pub fn read_legacy_storage() -> Result<JsValue, JsValue> {
    let Some(text) = LocalStorage::raw().get_item(FUNNEL_STORAGE_KEY)? else { return Ok(JsValue::UNDEFINED) };
    let sessions = Array::new();
    let unreadable = Array::new();
    let note = |key: &str, reason: &str, text: &str| {
        let entry = Object::new();
        set(&entry, "key", key);
        set(&entry, "reason", reason);
        set(&entry, "text", text);
        unreadable.push(&entry);
    };

    let parsed = JSON::parse(&text).map_err(|_| "not JSON".to_owned()).and_then(from_js::<JsonObject>);
    match parsed {
        Err(_) => note("", "the value is no JSON object", &text),
        Ok(entries) => {
            for (key, entry) in &entries {
                match take_over(key, entry) {
                    Ok(taken) => {
                        let session = Object::new();
                        set(&session, "id", taken.id.as_str());
                        set(&session, "command", to_js(&Command::Create(Box::new(taken.create))));
                        sessions.push(&session);
                    }
                    Err(reason) => note(key, &reason.to_string(), &to_text(entry)),
                }
            }
        }
    }
    let found = Object::new();
    set(&found, "text", JsString::from(text));
    set(&found, "sessions", sessions);
    set(&found, "unreadable", unreadable);
    Ok(found.into())
}

/// Removes the legacy key, if it still holds `text`. A page of the old shop may have written to it in the meantime; then it
/// stays, and `false` is the answer.
///
/// # Errors
/// The browser's error where localStorage is blocked.
#[wasm_bindgen(js_name = forgetLegacyStorage)]
pub fn forget_legacy_storage(text: &str) -> Result<bool, JsValue> {
    let storage = LocalStorage::raw();
    let unchanged = storage.get_item(FUNNEL_STORAGE_KEY)?.as_deref() == Some(text);
    if unchanged {
        storage.remove_item(FUNNEL_STORAGE_KEY)?;
    }
    Ok(unchanged)
}
