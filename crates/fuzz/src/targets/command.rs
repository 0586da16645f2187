//! Commands on one session, one to a line: who issues it (`b`rowser, `s`ervice, `o`perator, s`y`stem), how many minutes after
//! the one before it, and the command as JSON.

use throughline_core::json::{FromJson, check_limits, to_text};
use throughline_core::{
    ClientId, Command, Context, Money, OfferState, Origin, Record, Role, Session, SessionId, State, Status, Timestamp,
    decide, decide_for_browser, evolve,
};

use super::{LONGEST_SENTENCE, NOW, NUMBERS, built_in_funnel};
use crate::Outcome;

pub(super) fn run(input: &[u8]) -> Outcome {
    let Ok(text) = str::from_utf8(input) else { return Outcome::Refused };
    let mut state: Option<State> = None;
    let mut records: Vec<Record> = Vec::new();
    let mut now = NOW;
    for line in text.lines().take(60) {
        let mut parts = line.splitn(3, ' ');
        let role = match parts.next() {
            Some("b") => Role::Browser,
            Some("s") => Role::Service,
            Some("o") => Role::Operator,
            Some("y") => Role::System,
            _ => continue,
        };
        let minutes: u32 = parts.next().and_then(|minutes| minutes.parse().ok()).unwrap_or_default();
        now = Timestamp::from_millis(now.as_millis() + i64::from(minutes) * 60_000);
        let Some(command) = read(parts.next().unwrap_or_default()) else { continue };
        issue(&mut state, &mut records, &command, role, now);
    }
    let replayed = records.iter().fold(None, evolve);
    assert_eq!(replayed, state, "a replay gives another session");
    Outcome::taken_if(!records.is_empty())
}

/// The command; both ways of reading it come to the same.
fn read(text: &str) -> Option<Command> {
    let by_serde = serde_json::from_str::<Command>(text).ok();
    if let Ok(by_fields) = Command::from_json(text, NUMBERS) {
        assert_eq!(Some(&by_fields), by_serde.as_ref(), "read differently: {text}");
    }
    if let Some(command) = &by_serde {
        let written = serde_json::to_string(command).expect("a command can be written");
        assert_eq!(to_text(command, NUMBERS), written, "written differently");
        let again = Command::from_json(&written, NUMBERS);
        assert_eq!(again.as_ref(), Ok(command), "not read back: {written}");
    }
    by_serde
}

fn issue(state: &mut Option<State>, records: &mut Vec<Record>, command: &Command, role: Role, now: Timestamp) {
    let session_id = SessionId::generate(NOW, [7; 16]);
    let context = Context { now, funnel: built_in_funnel(), session_id: &session_id, epoch: 9, claim: None };
    let decision = decide(state.as_ref(), command, role, &context);
    if role == Role::Browser {
        assert_eq!(decide_for_browser(state.as_ref(), command, &context), decision, "the browser judges differently");
    }
    let events = match decision {
        Ok(events) => events,
        Err(rejection) => {
            assert!(rejection.message.len() <= LONGEST_SENTENCE, "{} bytes are recorded", rejection.message.len());
            return;
        }
    };
    let before = state.clone();
    let client_id = ClientId::new("client").expect("a client id");
    for event in events {
        let version = state.as_ref().map_or(0, State::version) + 1;
        let origin = Some(Origin { client_id: client_id.clone(), seq: version });
        let record = Record { version, at: now, by: role, origin, caller: None, event };
        *state = evolve(state.take(), &record);
        records.push(record);
    }
    if let Some(after) = state {
        obeys(before.as_ref(), after, role);
        assert_eq!(after.version(), records.len() as u64);
    }
}

/// What holds of every session, whatever is done to it.
fn obeys(before: Option<&State>, after: &State, role: Role) {
    let session = &after.session;
    assert_eq!(session.amount, session.totals.total);
    assert_eq!(i128::from(session.amount.minor()), owed(session));
    assert_eq!(check_limits(&session.metadata), Ok(()));
    let was_paid = before.is_some_and(|state| state.session.is_paid());
    assert!(session.is_paid() || !was_paid, "a paid session is not paid any more");
    assert!(!(session.is_paid() && session.status == Status::Expired), "a paid session expired");
    if role == Role::Browser {
        assert_eq!(session.is_paid(), was_paid, "a browser paid");
    }
    let text = serde_json::to_string(after).expect("a state can be written");
    assert_eq!(serde_json::from_str::<State>(&text).ok().as_ref(), Some(after), "not read back: {text}");
}

fn owed(session: &Session) -> i128 {
    let minor = |money: Money| i128::from(money.minor());
    let subtotal: i128 = session.products.iter().map(|item| minor(item.price) * i128::from(item.quantity)).sum();
    let bought = session.upsells.iter().filter(|u| matches!(u.state, OfferState::Accepted | OfferState::Charged));
    let upsells: i128 = bought.map(|u| minor(u.price) + minor(u.tax)).sum();
    let adjustments = session.adjustments;
    (subtotal - minor(adjustments.discount)).max(0) + minor(adjustments.shipping) + minor(adjustments.tax) + upsells
}
