//! Bringing in what the legacy systems have.

use super::{Context, Decision, reject};
use crate::command::LegacyEntries;
use crate::json::JsonValue;
use crate::legacy::{self, LegacySystem};
use crate::prelude::*;
use crate::rejection::{Rejection, RejectionCode as Code};
use crate::state::State;

pub(super) fn decide_import(state: Option<&State>, entries: &LegacyEntries, context: &Context<'_>) -> Decision {
    if state.is_some_and(|state| state.erased_at.is_some()) {
        return reject(Code::SessionErased, &["the personal data of this session was erased; nothing brings it back"]);
    }
    let legacy = read(entries, context)?;
    let adoption = legacy::adopt(&legacy, state, context);
    Ok(adoption.events.into_iter().map(|(_, event)| event).collect())
}

/// What the systems say together.
fn read(entries: &LegacyEntries, context: &Context<'_>) -> Result<legacy::LegacySession, Rejection> {
    let parts = [
        (LegacySystem::Database, &entries.database),
        (LegacySystem::Cookie, &entries.cookie),
        (LegacySystem::Cache, &entries.cache),
        (LegacySystem::Browser, &entries.browser),
    ];
    let mut said = Vec::new();
    for (system, entry) in parts {
        let Some(entry) = entry else { continue };
        let id = context.session_id.as_str();
        let session = legacy::read(system, id, &JsonValue::Object(entry.clone())).map_err(|error| {
            Rejection::because(Code::InvalidField, &[system.as_str(), ".", error.field, " ", error.reason])
        })?;
        if session.id != *context.session_id {
            let message = &[system.as_str(), ".id is of another session: ", session.id.as_str()];
            return reject(Code::InvalidField, message);
        }
        said.push(session);
    }
    let nothing = || {
        let message = "nothing to import: give what at least one of database, cookie, cache and browser has";
        Rejection::because(Code::InvalidField, &[message])
    };
    legacy::merge(said).ok_or_else(nothing)
}
