//! Sequences of a browser's commands, and what a replica makes of them.
//!
//! The module that browsers load is asked the same: with `THROUGHLINE_SEQUENCES=<file>`, this writes the sequences and the
//! answers there, for `crates/wasm-client/js/test/sequences.test.ts`.

use std::fs::File;
use std::io::{BufWriter, Write as _};

use serde_json::{Value, json};
use throughline_core::json::{FromJson, Numbers};
use throughline_core::sync::{Replica, Restored, ServerFrame};
use throughline_core::{Command, Funnel, Rejection, RejectionCode, Role, State, TimeSpan, Timestamp};

use crate::generate::{Dice, Walk, any_command, client, default_funnel, funnel, likely_command, session_id};

/// Where a session stands when the browser begins.
const STARTS: u64 = 500;
/// How many sequences begin there.
const SEQUENCES: u64 = 20;
const COMMANDS: u64 = 10;

/// A session that has been through a few commands of all roles, as a browser has it.
fn start(funnel: &Funnel, seed: u64) -> (Option<State>, Timestamp) {
    let mut walk = Walk::new(funnel.clone());
    let mut dice = Dice(seed);
    for _ in 0..dice.below(30) {
        walk.stride(&mut dice);
    }
    (walk.state.map(|state| state.project(Role::Browser, &[client("browser")])), walk.now)
}

fn replica(funnel: &Funnel, state: Option<&State>) -> Replica {
    let mut replica = Replica::new(session_id(), client("browser"), Restored::default());
    replica.set_funnel(funnel.clone(), "hash".to_owned());
    replica.connected();
    replica.handle(welcome(state));
    if let Some(state) = state {
        replica.handle(ServerFrame::Snapshot { state: Box::new(state.clone()) });
    }
    replica
}

fn welcome(state: Option<&State>) -> ServerFrame {
    ServerFrame::Welcome {
        protocol: 1,
        session_id: session_id(),
        epoch: state.map_or(0, |state| state.epoch),
        version: state.map_or(0, State::version),
        durable_version: state.map_or(0, State::version),
        last_seq: state.map_or(0, |state| state.last_seq(&client("browser"))),
        server_time: crate::generate::START,
        funnel_hash: Some("hash".to_owned()),
        funnel: None,
    }
}

/// A command of a browser, as text; a few are none.
fn command(dice: &mut Dice, state: Option<&State>, funnel: &Funnel) -> String {
    let command = match dice.below(4) {
        0 => any_command(dice, state, funnel),
        _ => likely_command(dice, state, funnel).1,
    };
    let mut value = serde_json::to_value(&command).unwrap();
    match dice.below(40) {
        0 => value["unheardOf"] = json!(1),
        1 => value["type"] = json!("setEmial"),
        2 => drop(value.as_object_mut().unwrap().pop_last()),
        _ => {}
    }
    value.to_string()
}

trait PopLast {
    fn pop_last(&mut self) -> Option<Value>;
}

impl PopLast for serde_json::Map<String, Value> {
    fn pop_last(&mut self) -> Option<Value> {
        let last = self.keys().next_back()?.clone();
        self.remove(&last)
    }
}

/// The answer to a command that is read as the browser module reads it.
fn submit(replica: &mut Replica, text: &str, now: Timestamp) -> Result<u64, Rejection> {
    let read = Command::from_json(text, Numbers::NATIVE)
        .map_err(|mismatch| Rejection::new(RejectionCode::MalformedCommand, mismatch.sentence()));
    read.and_then(|command| replica.submit(command, now))
}

#[test]
fn sequences_have_answers_of_every_kind() {
    let path = std::env::var_os("THROUGHLINE_SEQUENCES");
    let mut file = path.map(|path| BufWriter::new(File::create(path).unwrap()));
    let (mut applied, mut refused) = (0, std::collections::BTreeMap::<&str, u64>::new());
    // The browser's module is asked all of them; natively there is less to compare with.
    let starts = if file.is_some() { STARTS } else { STARTS / 10 };
    for seed in 0..starts {
        let mut dice = Dice(seed * 7919 + 1);
        let funnel = if seed % 5 == 0 { funnel(&mut dice) } else { default_funnel() };
        let (state, began) = start(&funnel, seed);
        let mut sequences = Vec::new();
        for _ in 0..SEQUENCES {
            let mut replica = replica(&funnel, state.as_ref());
            let mut now = began;
            let mut commands = Vec::new();
            for _ in 0..COMMANDS {
                now = now.plus(TimeSpan::from_millis(dice.below(60_000) as i64));
                let text = command(&mut dice, replica.confirmed(), &funnel);
                let answer = submit(&mut replica, &text, now);
                match &answer {
                    Ok(_) => applied += 1,
                    Err(rejection) => *refused.entry(rejection.code.as_str()).or_default() += 1,
                }
                commands.push(json!({ "text": text, "now": now.as_millis(), "refusal": answer.err() }));
            }
            sequences.push(json!({ "commands": commands, "session": replica.session() }));
        }
        if let Some(file) = &mut file {
            let frames: Vec<_> =
                [Some(welcome(state.as_ref())), state.map(|state| ServerFrame::Snapshot { state: Box::new(state) })]
                    .into_iter()
                    .flatten()
                    .collect();
            let line = json!({ "funnel": funnel, "frames": frames, "sequences": sequences });
            writeln!(file, "{line}").unwrap();
        }
    }
    assert!(applied > starts * 20, "only {applied} commands were applied");
    assert!(refused.len() >= 12, "{refused:?}");
}
