//! Whom a session remembers who sent it commands, when there are more than it can.

use throughline_core::{ClientId, Event, Origin, Record, Role, State, evolve};

use crate::generate::{Walk, client, default_funnel};

fn began() -> State {
    let mut walk = Walk::new(default_funnel());
    walk.issue(Role::Browser, throughline_core::Command::Create(Box::default())).outcome.unwrap();
    walk.state.unwrap()
}

/// The session after somebody has sent something under each of these names.
fn heard(state: State, by: Role, names: impl IntoIterator<Item = String>) -> State {
    names.into_iter().fold(state, |state, name| {
        let record = Record {
            version: state.version() + 1,
            at: state.session.updated_at,
            by,
            origin: Some(Origin { client_id: client(&name).in_ledger(by), seq: 1 }),
            caller: None,
            event: Event::CommandUnneeded {},
        };
        evolve(Some(state), &record).unwrap()
    })
}

fn knows(state: &State, name: &str, by: Role) -> bool {
    let name: ClientId = client(name).in_ledger(by);
    state.last_seq(&name) == 1
}

#[test]
fn a_browser_has_no_back_end_forgotten() {
    let back_ends = ["once-charge", "payment-7"];
    let state = heard(began(), Role::Service, back_ends.map(str::to_owned));
    // Under names of every kind, more than there is room for.
    for prefix in ["", "once-"] {
        let names = (0..2 * State::MAX_CLIENTS).map(|number| format!("{prefix}tab-{number}"));
        let flooded = heard(state.clone(), Role::Browser, names);
        assert_eq!(flooded.clients.len(), State::MAX_CLIENTS);
        for name in back_ends {
            assert!(knows(&flooded, name, Role::Service), "{name} after {prefix}");
        }
    }
}

#[test]
fn names_for_one_request_are_forgotten_first_and_the_longest_silent_of_them() {
    let state = heard(began(), Role::Browser, ["tab".to_owned()]);
    let state = heard(state, Role::Service, ["payment-7".to_owned()]);
    let names = |count| (0..count).map(|number| format!("once-{number}"));
    let state = heard(state, Role::Service, names(State::MAX_CLIENTS + 3));
    assert_eq!(state.clients.len(), State::MAX_CLIENTS);
    assert!(knows(&state, "tab", Role::Browser) && knows(&state, "payment-7", Role::Service));
    let last = State::MAX_CLIENTS + 2;
    assert!(knows(&state, &format!("once-{last}"), Role::Service) && !knows(&state, "once-0", Role::Service));
}
