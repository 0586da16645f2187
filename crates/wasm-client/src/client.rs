//! The replica with its boundary to JavaScript.
//!
//! Whatever has a structure crosses as JSON text. What the page or the server wrote is kept as it was written, and stored
//! and sent like that: commands as the page gave them, records and funnels as the server sent them, also with what this
//! version does not know in them. The snapshot that a page reads lives on the JavaScript side; what crosses is a patch: the
//! parts of the session that differ from what was published last.

use alloc::string::String;
use alloc::vec::Vec;

use throughline_core::json::Writer;
use throughline_core::sync::{Hello, Link, Replica, Restored, ServerFrame, StoredCommand};
use throughline_core::{
    ClientId, Command, Funnel, Record, Rejection, RejectionCode, Session, SessionId, State, Timestamp,
};
use wasm_bindgen::prelude::*;

use crate::boundary::{entries, from_text, items, to_text, writer};
use crate::outputs::Outputs;
use crate::stored_form::{Stored, unwrap};

/// One client's replica of one session.
#[wasm_bindgen]
pub struct Client {
    replica: Replica,
    /// The session as it was published last.
    published: Option<Session>,
    outputs: Outputs,
    damaged: Vec<String>,
    is_newer: bool,
}

#[wasm_bindgen]
impl Client {
    /// The replica that `client_id` has of `session_id`, with what the storage has under `<session>/`, `[[key, text]]` in
    /// the order of the keys, and the session's token or claim secret. Nothing where an id can't be one.
    pub fn open(
        session_id: String,
        client_id: String,
        stored: &str,
        token: Option<String>,
        claim: Option<String>,
    ) -> Option<Client> {
        let session_id = SessionId::new(session_id).ok()?;
        let client_id = ClientId::new(client_id).ok()?;
        let mut read = Reading { outputs: Outputs::new(&session_id), damaged: Vec::new(), is_newer: false };
        let restored = Restored { token, claim, ..read.all(stored) };
        let Reading { outputs, damaged, is_newer } = read;
        let replica = Replica::new(session_id, client_id, restored);
        Some(Self { replica, published: None, outputs, damaged, is_newer })
    }

    /// Whether the storage has records of a newer version of this package: they were not read, and have to be left alone.
    #[wasm_bindgen(js_name = isStorageNewer)]
    pub fn is_storage_newer(&self) -> bool {
        self.is_newer
    }

    /// Follows another tab from now on.
    pub fn follow(&mut self) {
        self.replica.follow();
    }

    /// Speaks for all tabs from now on, with what the storage has under `<session>/`. What lets it in is set apart from that.
    pub fn lead(&mut self, stored: &str) {
        let restored = self.read(stored);
        self.replica.lead(restored);
    }

    /// Whether it speaks for all tabs.
    #[wasm_bindgen(js_name = isLeading)]
    pub fn is_leading(&self) -> bool {
        self.replica.is_leading()
    }

    /// The storage has lost what it had: it is stored again.
    #[wasm_bindgen(js_name = storeAgain)]
    pub fn store_again(&mut self) {
        self.replica.store_again();
    }

    /// Another tab has announced commands of this client, `[{seq, at, command, traceparent?}]`; `is_all` where it has no other ones pending.
    /// `false` where they can't be read.
    pub fn observe(&mut self, client_id: &str, commands: &str, is_all: bool) -> bool {
        let (Ok(client), Ok(read)) = (ClientId::new(client_id), from_text::<Vec<StoredCommand>>(commands)) else {
            return false;
        };
        let mut numbers = read.iter().map(|command| command.seq);
        items(commands, &mut |text| self.outputs.stored(client_id, numbers.next().unwrap_or(0), text));
        self.replica.observe(&client, read, is_all);
        true
    }

    /// Another tab says hello, in this frame; `false` where it can't be read.
    pub fn greeted(&mut self, hello: &str) -> bool {
        from_text::<Hello>(hello).map(|hello| self.replica.greeted(hello)).is_ok()
    }

    /// Whether what the leading tab answers to this hello answers what this tab has said last.
    #[wasm_bindgen(js_name = isAnswer)]
    pub fn is_answer(&self, hello: &str) -> bool {
        from_text::<Hello>(hello).is_ok_and(|hello| self.replica.is_answer(&hello))
    }

    /// A tab is gone: its commands are among what the storage has under `<session>/`.
    pub fn recover(&mut self, stored: &str) {
        let restored = self.read(stored);
        self.replica.recover(restored.outbox);
    }

    /// The tab with this client is gone, and so are the commands of it that the server waits for.
    pub fn skip(&mut self, client_id: &str) {
        if let Ok(client_id) = ClientId::new(client_id) {
            self.replica.skip(&client_id);
        }
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

    /// Issues a command, `{type, …}`, at the server's time `now_ms`. The answer is nothing, and its number is
    /// [`Client::last_seq`]; or it is `{code, mendableBy, message}`, and then nothing was queued. It is sent with this
    /// `traceparent`, also by another tab, or once the page was loaded again.
    pub fn submit(&mut self, command: String, now_ms: f64, traceparent: Option<String>) -> Option<String> {
        let read = from_text::<Command>(&command)
            .map_err(|mismatch| Rejection::new(RejectionCode::MalformedCommand, mismatch.sentence()));
        match read.and_then(|read| self.replica.submit(read, Timestamp::from_millis(now_ms as i64))) {
            Ok(seq) => {
                self.outputs.issued(self.replica.client_id().as_str(), seq, command, traceparent);
                None
            }
            Err(rejection) => Some(to_text(&rejection)),
        }
    }

    /// The number of the command that was issued last.
    #[wasm_bindgen(js_name = lastSeq)]
    pub fn last_seq(&self) -> f64 {
        self.replica.last_seq() as f64
    }

    /// This client's commands up to this number are stored.
    #[wasm_bindgen(js_name = commandsStored)]
    pub fn commands_stored(&mut self, seq: f64) {
        let client_id = self.replica.client_id().clone();
        self.replica.commands_stored(&client_id, seq as u64);
    }

    /// What it would say hello with now, as a frame.
    pub fn hello(&self) -> String {
        crate::outputs::hello_frame(&self.replica.hello())
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

    /// Proves itself with these, or none, from the next greeting on.
    #[wasm_bindgen(js_name = setCredentials)]
    pub fn set_credentials(&mut self, token: Option<String>, claim: Option<String>) {
        self.replica.set_credentials(token, claim);
    }

    /// Takes a frame of the server, or of the leading tab, as it came. The answer is how the other tabs are to hear of it: see
    /// [`heard`]; nothing where it can't be read.
    pub fn handle(&mut self, frame: &str) -> Option<u32> {
        let read = from_text::<ServerFrame>(frame).ok()?;
        let heard = match &read {
            ServerFrame::Welcome { .. } if self.replica.link() == Link::Greeting => heard::AGAIN,
            other if other.is_for_all_tabs() => heard::AS_IT_IS,
            _ => heard::NOT,
        };
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
        Some(heard)
    }

    /// How long before the session's end its funnel has the buyer warned, in milliseconds.
    #[wasm_bindgen(js_name = warningMs)]
    pub fn warning_ms(&self) -> f64 {
        self.replica.funnel().map_or(0, |funnel| funnel.lifetime.warning.as_millis()) as f64
    }

    /// The commands that are not durable yet, and how far they are: `[{clientId, seq, type, stage}]`.
    #[wasm_bindgen(js_name = pendingCommands)]
    pub fn pending_commands(&self) -> String {
        let mut out = writer();
        out.open("[");
        for ((client_id, seq, command), stage) in self.replica.pending_commands().zip(self.replica.pending_stages()) {
            out.item();
            out.open("{");
            out.field("clientId", client_id);
            out.field("seq", &seq);
            out.field("type", &command.kind().as_str());
            out.field("stage", &stage);
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

    /// What is to be done, in this order: `[{type: 'send' | 'confirmed' | 'applied' | …}]`, and last how the session
    /// differs from what was shown before, `{type: 'changed', patch}`; nothing where there is nothing to do.
    #[wasm_bindgen(js_name = takeOutputs)]
    pub fn take_outputs(&mut self) -> Option<String> {
        let outputs = self.replica.take_outputs();
        let published = &mut self.published;
        let write_patch =
            |out: &mut Writer| self.replica.session().is_some_and(|session| session.write_patch(published, out));
        self.outputs.write(outputs, self.replica.durable_version(), write_patch)
    }

    /// Whether there is something to be stored.
    #[wasm_bindgen(js_name = hasWrites)]
    pub fn has_writes(&self) -> bool {
        self.outputs.has_writes()
    }

    /// What is to be stored, one after the other: `[{asLeader, changes: [[key, text] | [key]], stored?}]`, where a key without
    /// text is to be deleted, and `stored` is what [`Client::commands_stored`] is to be called with; nothing where there is
    /// nothing to be stored.
    #[wasm_bindgen(js_name = takeWrites)]
    pub fn take_writes(&mut self) -> Option<String> {
        self.outputs.write_writes(self.replica.client_id().as_str(), self.replica.durable_version())
    }
}

impl Client {
    fn read(&mut self, stored: &str) -> Restored {
        let outputs = core::mem::take(&mut self.outputs);
        let mut reading = Reading { outputs, damaged: Vec::new(), is_newer: false };
        let restored = reading.all(stored);
        self.outputs = reading.outputs;
        self.damaged.append(&mut reading.damaged);
        restored
    }
}

/// How the other tabs are to hear of a frame of the server.
pub mod heard {
    /// Not at all.
    pub const NOT: u32 = 0;
    /// It is handed on.
    pub const AS_IT_IS: u32 = 1;
    /// They say hello again.
    pub const AGAIN: u32 = 2;
}

/// What is found in the storage.
struct Reading {
    outputs: Outputs,
    damaged: Vec<String>,
    is_newer: bool,
}

impl Reading {
    fn all(&mut self, stored: &str) -> Restored {
        let mut restored = Restored::default();
        self.outputs.forget_stored_records();
        for (key, text) in from_text::<Vec<(String, String)>>(stored).unwrap_or_default() {
            let name = self.outputs.name_of(&key);
            if !matches!(name.split('/').next(), Some("base" | "record" | "command")) {
                continue;
            }
            let is_read = match unwrap(&text) {
                Stored::Known(json) => self.one(&mut restored, name, json).is_some(),
                Stored::Newer => {
                    self.is_newer = true;
                    true
                }
                Stored::Damaged => false,
            };
            if !is_read {
                self.damaged.push(key);
            }
        }
        restored
    }

    fn one(&mut self, restored: &mut Restored, name: &str, json: &str) -> Option<()> {
        let mut parts = name.split('/');
        match (parts.next(), parts.next()) {
            (Some("base"), _) => restored.base = Some(from_text::<State>(json).ok()?),
            (Some("record"), _) => {
                let record = from_text::<Record>(json).ok()?;
                self.outputs.has_stored(record.version);
                restored.records.push(record);
            }
            (_, Some(client_id)) => {
                let client = ClientId::new(client_id).ok()?;
                let command = from_text::<StoredCommand>(json).ok()?;
                self.outputs.stored(client_id, command.seq, json);
                restored.outbox.push((client, command));
            }
            _ => return None,
        }
        Some(())
    }
}
