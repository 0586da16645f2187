//! Bringing in what the legacy systems have.

use super::{Context, Decision, reject};
use crate::command::LegacyEntries;
use crate::legacy;
use crate::rejection::RejectionCode as Code;
use crate::state::State;

pub(super) fn decide_import(state: Option<&State>, entries: &LegacyEntries, context: &Context<'_>) -> Decision {
    if state.is_some_and(|state| state.erased_at.is_some()) {
        return reject(Code::SessionErased, &["the personal data of this session was erased; nothing brings it back"]);
    }
    let legacy = legacy::together(entries, context.session_id)?;
    let adoption = legacy::adopt(&legacy, state, context);
    Ok(adoption.events.into_iter().map(|(_, event)| event).collect())
}
