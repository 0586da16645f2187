//! States and records, one to a line, as the database and the shared tier have them: what another version wrote, or a disk
//! spoiled. What can be read can be shown, told apart, decided on and carried on.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::LazyLock;
use throughline_core::json::{FromJson, ToJson, to_text};
use throughline_core::sync::{News, TailEntry};
use throughline_core::{Command, Context, Record, Role, SessionId, State, decide, ended, evolve};
use throughline_server::encryption::{Part, SessionCipher};
use throughline_server::keys::KeyRing;
use throughline_server::store::SessionKey;
use throughline_server::tenant::TenantId;

use super::{NOW, NUMBERS, built_in_funnel};
use crate::Outcome;

/// A key that nothing was ever sealed with.
static CIPHER: LazyLock<SessionCipher> = LazyLock::new(|| {
    let keys = KeyRing::generate().expect("the operating system has random numbers");
    let session = SessionKey { tenant: TenantId::single(), session_id: "ws_1_a".to_owned() };
    SessionCipher::generate(&session, &keys, NOW.as_millis()).expect("the operating system has random numbers")
});

pub(super) fn run(input: &[u8]) -> Outcome {
    let mut state: Option<State> = None;
    let mut is_taken = false;
    for line in input.split(|byte| *byte == b'\n').take(60) {
        if let Some(read) = both::<State>(line) {
            use_state(&read);
            state = Some(read);
            is_taken = true;
        }
        assert!(CIPHER.open(Part::Record(1), line).is_err(), "something was opened that was never sealed");
        if let Some(record) = both::<Record>(line) {
            state = evolve(state, &record);
            let _ = record.project(Role::Browser, &[]);
            if let Some(state) = &state {
                use_state(state);
            }
            is_taken = true;
        }
        // What the shared tier tells: taken or refused.
        let _ = serde_json::from_slice::<Vec<TailEntry>>(line);
        let _ = serde_json::from_slice::<News>(line);
    }
    Outcome::taken_if(is_taken)
}

/// What serde reads, which the browser build reads as well, where it reads it.
fn both<T>(bytes: &[u8]) -> Option<T>
where
    T: FromJson + ToJson + Serialize + DeserializeOwned + PartialEq + Debug,
{
    let by_serde = serde_json::from_slice::<T>(bytes).ok();
    if let Some(by_fields) = str::from_utf8(bytes).ok().and_then(|text| T::from_json(text, NUMBERS).ok()) {
        assert_eq!(by_serde.as_ref(), Some(&by_fields), "read differently");
    }
    if let Some(value) = &by_serde {
        let written = serde_json::to_string(value).expect("what was read can be written");
        assert_eq!(to_text(value, NUMBERS), written, "written differently");
        assert_eq!(serde_json::from_str::<T>(&written).ok().as_ref(), Some(value), "not read back: {written}");
    }
    by_serde
}

fn use_state(state: &State) {
    let _ = (state.mark(), state.deadline());
    let seen = state.clone().project(Role::Browser, &[]);
    assert_eq!(seen.version(), state.version());
    let session_id = SessionId::generate(NOW, [7; 16]);
    let context = Context { now: NOW, funnel: built_in_funnel(), session_id: &session_id, epoch: 9, claim: None };
    let _ = ended(state, NOW);
    for text in COMMANDS {
        let command: Command = serde_json::from_str(text).expect("the commands of this target can be read");
        for role in [Role::Browser, Role::Service] {
            let Ok(events) = decide(Some(state), &command, role, &context) else { continue };
            let mut after = Some(state.clone());
            for event in events {
                let version = state.version().saturating_add(1);
                after = evolve(after, &Record { version, at: NOW, by: role, origin: None, caller: None, event });
            }
            assert!(after.is_some(), "a session went away");
        }
    }
}

/// One of each kind that does arithmetic on what is there.
const COMMANDS: &[&str] = &[
    r#"{"type":"setItems","items":[{"id":"fitspresso-3-pack","quantity":2}]}"#,
    r#"{"type":"setCoupon","code":"SAVE10"}"#,
    r#"{"type":"setMetadata","metadata":{"a":1}}"#,
    r#"{"type":"setEmail","email":"ada@example.com"}"#,
    r#"{"type":"goToStep","step":"checkout"}"#,
    r#"{"type":"acceptUpsell","offer":"RC6"}"#,
    r#"{"type":"beginProcessing"}"#,
    r#"{"type":"recordPayment","transactionId":"t1","amount":7900}"#,
    r#"{"type":"recordUpsellCharge","offer":"RC6","transactionId":"t2","amount":1}"#,
    r#"{"type":"setAdjustments","discount":1,"shipping":500}"#,
    r#"{"type":"extend"}"#,
    r#"{"type":"expire"}"#,
    r#"{"type":"erase"}"#,
];
