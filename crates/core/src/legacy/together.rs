//! What all legacy systems have of one session, as one.

use super::merge::merge;
use super::read::{LegacySession, LegacySystem, read};
use crate::command::LegacyEntries;
use crate::identifier::SessionId;
use crate::json::JsonValue;
use crate::prelude::*;
use crate::rejection::{Rejection, RejectionCode as Code};

/// Reads what the systems have, and puts it together.
///
/// # Errors
/// `invalidField` where an entry can't be a session or is another one's, and where there is none.
pub fn together(entries: &LegacyEntries, id: &SessionId) -> Result<LegacySession, Rejection> {
    let parts = [
        (LegacySystem::Database, &entries.database),
        (LegacySystem::Cookie, &entries.cookie),
        (LegacySystem::Cache, &entries.cache),
        (LegacySystem::Browser, &entries.browser),
    ];
    let mut said = Vec::new();
    for (system, entry) in parts {
        let Some(entry) = entry else { continue };
        let session = read(system, id.as_str(), &JsonValue::Object(entry.clone())).map_err(|error| {
            Rejection::because(Code::InvalidField, &[system.as_str(), ".", error.field, " ", error.reason])
        })?;
        if session.id != *id {
            let message = &[system.as_str(), ".id is that of another session, ", session.id.as_str()];
            return Err(Rejection::because(Code::InvalidField, message));
        }
        said.push(session);
    }
    merge(said).ok_or_else(|| {
        let message = "there is nothing to import: give what at least one of database, cookie, cache and browser has";
        Rejection::because(Code::InvalidField, &[message])
    })
}
