//! Takes over what the legacy `FunnelSessionManager` left in localStorage.

use gloo_storage::{LocalStorage, Storage};
use throughline_core::Command;
use throughline_core::json::{JsonObject, Writer};
use throughline_core::legacy::{FUNNEL_STORAGE_KEY, take_over};
use wasm_bindgen::prelude::*;

use crate::{from_text, to_text, writer};

/// What the legacy key holds: `{text, sessions: [{id, command}], unreadable: [{key, reason, text}]}`; nothing where
/// there is no such key.
///
/// `command` creates the session; nothing that it claims of prices or payments is believed. `text` is the whole value,
/// for [`forget_legacy_storage`].
///
/// # Errors
/// The browser's error where localStorage is blocked.
#[wasm_bindgen(js_name = readLegacyStorage)]
pub fn read_legacy_storage() -> Result<Option<String>, JsValue> {
    let Some(text) = LocalStorage::raw().get_item(FUNNEL_STORAGE_KEY)? else { return Ok(None) };
    let mut sessions = writer();
    sessions.open("[");
    let mut unreadable = writer();
    unreadable.open("[");
    match from_text::<JsonObject>(&text) {
        Err(_) => note(&mut unreadable, "", "the value is no JSON object", &text),
        Ok(entries) => {
            for (key, entry) in &entries {
                match take_over(key, entry) {
                    Ok(taken) => {
                        sessions.item();
                        sessions.open("{");
                        sessions.field("id", &taken.id);
                        sessions.field("command", &Command::Create(Box::new(taken.create)));
                        sessions.close("}");
                    }
                    Err(reason) => note(&mut unreadable, key, &reason.to_string(), &to_text(entry)),
                }
            }
        }
    }
    sessions.close("]");
    unreadable.close("]");
    let mut found = writer();
    found.open("{");
    found.field("text", &text);
    found.key("sessions");
    found.raw(&sessions.finish());
    found.key("unreadable");
    found.raw(&unreadable.finish());
    found.close("}");
    Ok(Some(found.finish()))
}

fn note(out: &mut Writer, key: &str, reason: &str, text: &str) {
    out.item();
    out.open("{");
    out.field("key", &key);
    out.field("reason", &reason);
    out.field("text", &text);
    out.close("}");
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
