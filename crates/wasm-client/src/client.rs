//! The replica with its boundary to JavaScript.
//!
//! Whatever has a structure crosses as JSON text. What the page or the server wrote is kept as it was written, and stored
//! and sent like that: commands as the page gave them, records and funnels as the server sent them, also with what this
//! version does not know in them. The snapshot that a page reads lives on the JavaScript side; what crosses is a patch: the
//! top-level fields of the session that differ from what was published last.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use throughline_core::sync::{Link, Replica, Restored, ServerFrame, StoredCommand};
use throughline_core::{
    ClientId, Command, Funnel, Record, Rejection, RejectionCode, Session, SessionId, State, Timestamp,
};
use wasm_bindgen::prelude::*;

use crate::boundary::{entries, from_text, items, to_text, writer};
use crate::outputs::Outputs;
use crate::sealed::unseal;

/// One client's replica of one session.
#[wasm_bindgen]
pub struct Client {
    replica: Replica,
    /// The session as it was published last.
    published: Option<Session>,
    outputs: Outputs,
    damaged: Vec<String>,
}

#[wasm_bindgen]
impl Client {
    /// The replica that `client_id` has of `session_id`, with what its storage has under `<session>/<client>/`,
    /// `[[key, text]]` in the order of the keys, and the session's token or claim secret. Nothing where an id can't be one.
    pub fn open(
        session_id: String,
        client_id: String,
        stored: &str,
        token: Option<String>,
        claim: Option<String>,
    ) -> Option<Client> {
        let session_id = SessionId::new(session_id).ok()?;
        let client_id = ClientId::new(client_id).ok()?;
        let mut outputs = Outputs::new(&session_id, &client_id);
        let mut restored = Restored { token, claim, ..Restored::default() };
        let mut damaged = Vec::new();
        for (key, text) in from_text::<Vec<(String, String)>>(stored).unwrap_or_default() {
            if !restore(&mut restored, &mut outputs, &key, &text) {
                damaged.push(key);
            }
        }
        let replica = Replica::new(session_id, client_id, restored);
        Some(Self { replica, published: None, outputs, damaged })
    }

    /// The keys of the records that are damaged, for being set aside: `[key]`.
    #[wasm_bindgen(js_name = takeDamaged)]
    pub fn take_damaged(&mut self) -> String {
        to_text(&core::mem::take(&mut self.damaged))
    }

    /// Takes the funnel definition, with the server's hash of it. The answer is what is wrong with the definition.
    #[wasm_bindgen(js_name = setFunnel)]
    pub fn set_funnel(&mut self, funnel: &str, hash: String) -> Option<String> {
        match from_text::<Funnel>(funnel) {
            Ok(funnel) => {
                self.replica.set_funnel(funnel, hash);
                None
            }
            Err(mismatch) => Some(mismatch.sentence()),
        }
    }

    /// Issues a command, `{type, …}`, at the server's time `now_ms`. The answer is its number; or
    /// `{code, mendableBy, message}`, and then nothing was queued.
    pub fn submit(&mut self, command: String, now_ms: f64) -> String {
        let read = from_text::<Command>(&command)
            .map_err(|mismatch| Rejection::new(RejectionCode::MalformedCommand, mismatch.sentence()));
        match read.and_then(|read| self.replica.submit(read, Timestamp::from_millis(now_ms as i64))) {
            Ok(seq) => {
                self.outputs.issued(seq, command);
                to_text(&seq)
            }
            Err(rejection) => to_text(&rejection),
        }
    }

    /// The commands up to this number are stored.
    #[wasm_bindgen(js_name = commandsStored)]
    pub fn commands_stored(&mut self, seq: f64) {
        self.replica.commands_stored(seq as u64);
    }

    /// A connection is open.
    pub fn connected(&mut self) {
        self.replica.connected();
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        self.replica.disconnected();
    }

    /// The time to send again has come.
    pub fn retry(&mut self) {
        self.replica.retry();
    }

    /// Uses this token, or none, from the next greeting on.
    #[wasm_bindgen(js_name = setToken)]
    pub fn set_token(&mut self, token: Option<String>) {
        self.replica.set_token(token);
    }

    /// Goes on under a new client id; `false` where it can't be one.
    #[wasm_bindgen(js_name = renewClient)]
    pub fn renew_client(&mut self, client_id: String) -> bool {
        let Ok(client_id) = ClientId::new(client_id) else { return false };
        let before: Vec<u64> = self.replica.pending_commands().map(|(seq, _)| seq).collect();
        self.outputs.give_up_client(&before, self.replica.session_id(), &client_id);
        self.replica.renew_client(client_id);
        true
    }

    /// Takes a frame of the server as it came; `false` where it can't be read.
    pub fn handle(&mut self, frame: &str) -> bool {
        let Ok(read) = from_text::<ServerFrame>(frame) else { return false };
        match &read {
            ServerFrame::Events { records, .. } => {
                let mut versions = records.iter().map(|record| record.version);
                entries(frame, &mut |name, list| {
                    if name == "records" {
                        items(list, &mut |text| self.outputs.arrived(versions.next().unwrap_or(0), text));
                    }
                });
            }
            ServerFrame::Welcome { .. } => self.outputs.welcomed(frame),
            _ => {}
        }
        self.replica.handle(read);
        true
    }

    /// The commands that are not durable yet: `[{seq, type}]`.
    #[wasm_bindgen(js_name = pendingCommands)]
    pub fn pending_commands(&self) -> String {
        let mut out = writer();
        out.open("[");
        for (seq, command) in self.replica.pending_commands() {
            out.item();
            out.open("{");
            out.field("seq", &seq);
            out.field("type", &command.kind().as_str());
            out.close("}");
        }
        out.close("]");
        out.finish()
    }

    /// How many commands are not durable yet.
    pub fn pending(&self) -> usize {
        self.replica.pending()
    }

    /// The version that is shown.
    pub fn version(&self) -> f64 {
        self.replica.session().map_or(0, |session| session.version) as f64
    }

    /// The version that the server has confirmed.
    #[wasm_bindgen(js_name = confirmedVersion)]
    pub fn confirmed_version(&self) -> f64 {
        self.replica.confirmed_version() as f64
    }

    /// The version that the database has, as far as it is known here.
    #[wasm_bindgen(js_name = durableVersion)]
    pub fn durable_version(&self) -> f64 {
        self.replica.durable_version() as f64
    }

    /// Whether commands are sent as they come.
    #[wasm_bindgen(js_name = isLive)]
    pub fn is_live(&self) -> bool {
        self.replica.link() == Link::Live
    }

    /// Whether the session's personal data was erased.
    #[wasm_bindgen(js_name = isErased)]
    pub fn is_erased(&self) -> bool {
        self.replica.is_erased()
    }

    /// The session's fields that differ from those of the last call: `{name: value}`; nothing where none does.
    #[wasm_bindgen(js_name = takePatch)]
    pub fn take_patch(&mut self) -> Option<String> {
        let mut out = writer();
        let is_changed = self.replica.session()?.write_patch(&mut self.published, &mut out);
        is_changed.then(|| out.finish())
    }

    /// What is to be done, in this order: `[{type: 'send' | 'store' | 'confirmed' | 'applied' | …}]`, and the texts that it
    /// names by number, each after U+0001; nothing where there is nothing to do.
    #[wasm_bindgen(js_name = takeOutputs)]
    pub fn take_outputs(&mut self) -> Option<String> {
        let outputs = self.replica.take_outputs();
        self.outputs.write(outputs, self.replica.durable_version())
    }
}

/// Takes one record of the storage; `false` where it is damaged.
fn restore(restored: &mut Restored, outputs: &mut Outputs, key: &str, text: &str) -> bool {
    let name = outputs.name_of(key);
    let is_known = name == "base" || name.starts_with("record/") || name.starts_with("command/");
    if !is_known {
        return true;
    }
    let Some(json) = unseal(text) else { return false };
    if name == "base" {
        let Ok(state) = from_text::<State>(json) else { return false };
        restored.base = Some(state);
    } else if name.starts_with("record/") {
        let Ok(record) = from_text::<Record>(json) else { return false };
        outputs.has_stored(record.version);
        restored.records.push(record);
    } else {
        let Ok(stored) = from_text::<StoredCommand>(json) else { return false };
        entries(json, &mut |name, command| {
            if name == "command" {
                outputs.issued(stored.seq, command.to_owned());
            }
        });
        restored.commands.push(stored);
    }
    true
}
