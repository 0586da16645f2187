//! What the four legacy systems have of one session, as the command `import` brings it in: a browser's word pays nothing, and what was
//! brought in once is so already.

use throughline_core::json::{JsonValue, check_limits};
use throughline_core::legacy::{LegacySystem, adopt, read, together, write_row};
use throughline_core::{Context, LegacyEntries, Record, Role, SessionId, State, evolve};

use super::{LONGEST_SENTENCE, NOW, built_in_funnel};
use crate::Outcome;

pub(super) fn run(input: &[u8]) -> Outcome {
    let Ok(entries) = serde_json::from_slice::<LegacyEntries>(input) else { return Outcome::Refused };
    let id = named(&entries).unwrap_or_else(|| SessionId::new("ws_key").expect("an id"));
    let legacy = match together(&entries, &id) {
        Ok(legacy) => legacy,
        Err(rejection) => {
            assert!(rejection.message.len() < LONGEST_SENTENCE, "{}", rejection.message);
            return Outcome::Refused;
        }
    };
    let context = Context { now: NOW, funnel: built_in_funnel(), session_id: &id, epoch: 9, claim: None };
    let adoption = adopt(&legacy, None, &context);
    let mut state: Option<State> = None;
    for (index, (at, event)) in adoption.events.into_iter().enumerate() {
        assert!(at <= NOW, "it happened in the future");
        let record = Record { version: index as u64 + 1, at, by: Role::Service, origin: None, caller: None, event };
        state = evolve(state, &record);
    }
    let state = state.expect("a session begins");
    let session = &state.session;
    assert_eq!(check_limits(&session.metadata), Ok(()), "its metadata can't be stored");
    let is_back_end = entries.database.is_some() || entries.cookie.is_some() || entries.cache.is_some();
    assert!(is_back_end || !session.is_paid(), "a browser's word was taken for a payment");
    let again = adopt(&legacy, Some(&state), &context);
    assert!(again.events.is_empty(), "brought in twice, it changes: {:?}", again.events);

    let row = read(LegacySystem::Database, "", &JsonValue::Object(write_row(session)));
    let row = row.expect("a row that was written is one");
    assert_eq!((&row.id, &row.email), (&session.id, &session.email));
    Outcome::Taken
}

/// The id that any of them names.
fn named(entries: &LegacyEntries) -> Option<SessionId> {
    let all = [&entries.database, &entries.cookie, &entries.cache, &entries.browser];
    all.into_iter().flatten().find_map(|entry| match entry.get("id") {
        Some(JsonValue::String(id)) => SessionId::new(id.as_str()).ok(),
        _ => None,
    })
}
