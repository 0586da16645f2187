//! Judging without a session, for the tests that compare verdicts in WebAssembly with native ones.

use throughline_core::{Command, Context, Funnel, Record, Role, SessionId, State, Timestamp, decide, evolve};
use wasm_bindgen::prelude::*;

/// Judges JSON text with `{state, command, role, now, funnel, sessionId, epoch}` and answers with JSON text:
/// `{state, events}` or `{rejection}`.
///
/// # Errors
/// A sentence that says what can't be read.
#[wasm_bindgen(js_name = judge)]
pub fn judge(input: &str) -> Result<String, JsValue> {
    let Question { state, command, role, now, funnel, session_id, epoch } =
        serde_json::from_str(input).map_err(|error| JsValue::from_str(&error.to_string()))?;
    let context = Context { now, funnel: &funnel, session_id: &session_id, epoch, claim: None };
    let answer = match decide(state.as_ref(), &command, role, &context) {
        Err(rejection) => Answer { rejection: Some(rejection), ..Answer::default() },
        Ok(events) => {
            let state = events.iter().cloned().fold(state, |state, event| {
                let version = state.as_ref().map_or(0, State::version) + 1;
                evolve(state, &Record { version, at: now, by: role, origin: None, caller: None, event })
            });
            Answer { state, events: Some(events), rejection: None }
        }
    };
    serde_json::to_string(&answer).map_err(|error| JsValue::from_str(&error.to_string()))
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Question {
    state: Option<State>,
    command: Command,
    role: Role,
    now: Timestamp,
    funnel: Funnel,
    session_id: SessionId,
    epoch: u64,
}

#[derive(serde::Serialize, Default)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Vec<throughline_core::Event>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection: Option<throughline_core::Rejection>,
}
