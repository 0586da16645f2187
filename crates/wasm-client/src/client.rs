//! The replica with its boundary to JavaScript.
//!
//! The snapshot that a page reads lives on the JavaScript side. What crosses is a patch: the top-level fields of the session
//! that differ from what was published last.

use js_sys::{Array, JSON, Object};
use throughline_core::sync::{
    ClientFrame, Confirmation, Link, Output, Replica, Restored, StorageChange, StoredCommand, Submission,
};
use throughline_core::{ClientId, Command, Funnel, Record, Rejection, RejectionCode, SessionId, State, Timestamp};
use wasm_bindgen::prelude::*;

use crate::boundary::{from_js, get, list_to_js, pairs_from_js, parse, set, tagged, to_js};
use crate::json_text::{fields, to_text, write_quoted};
use crate::sealed::{seal, unseal};

/// One client's replica of one session.
#[wasm_bindgen]
pub struct Client {
    replica: Replica,
    /// The session's fields as they were published last, as JSON text.
    published: Vec<(&'static str, String)>,
    /// The records of the frames that came in since the outputs were taken, as the server wrote them. They are stored and
    /// handed on like that, also what this version does not know in them.
    arrived: Vec<JsValue>,
    /// Before every key of this client in the storage: `<session>/<client>/`.
    prefix: String,
    /// The versions of the records in the storage.
    stored_records: Vec<u64>,
    /// The keys that were used under a client id that is given up.
    obsolete: Vec<String>,
    damaged: Vec<String>,
}

#[wasm_bindgen]
impl Client {
    /// The replica that `client_id` has of `session_id`, with the `[key, text]` pairs that its storage has under
    /// `<session>/<client>/` in the order of their keys, and the session's token or claim secret.
    ///
    /// # Errors
    /// A sentence where an id can't be one.
    #[wasm_bindgen(constructor)]
    pub fn new(
        session_id: String,
        client_id: String,
        stored: &Array,
        token: Option<String>,
        claim: Option<String>,
    ) -> Result<Client, JsValue> {
        let session_id = SessionId::new(session_id).map_err(sentence)?;
        let client_id = ClientId::new(client_id).map_err(sentence)?;
        let prefix = format!("{session_id}/{client_id}/");
        let mut restored = Restored { token, claim, ..Restored::default() };
        let mut damaged = Vec::new();
        for (key, text) in pairs_from_js(stored) {
            if !restore(&mut restored, key.strip_prefix(&prefix).unwrap_or_default(), &text) {
                damaged.push(key);
            }
        }
        let stored_records = restored.records.iter().map(|record| record.version).collect();
        let replica = Replica::new(session_id, client_id, restored);
        Ok(Self {
            replica,
            published: Vec::new(),
            arrived: Vec::new(),
            prefix,
            stored_records,
            obsolete: Vec::new(),
            damaged,
        })
    }

    /// The keys of the records that are damaged, for being set aside.
    #[wasm_bindgen(js_name = takeDamaged)]
    pub fn take_damaged(&mut self) -> JsValue {
        list_to_js(&std::mem::take(&mut self.damaged))
    }

    /// Takes the funnel definition, with the server's hash of it.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the definition.
    #[wasm_bindgen(js_name = setFunnel)]
    pub fn set_funnel(&mut self, funnel: JsValue, hash: String) -> Result<(), JsValue> {
        let funnel: Funnel = from_js(funnel).map_err(|error| JsValue::from_str(&error))?;
        self.replica.set_funnel(funnel, hash);
        Ok(())
    }

    /// The funnel definition, where there is one yet.
    pub fn funnel(&self) -> JsValue {
        self.replica.funnel().map_or(JsValue::UNDEFINED, to_js)
    }

    /// Issues a command, `{type, …}`, at the server's time `now_ms`; its number is the answer.
    ///
    /// # Errors
    /// `{code, mendableBy, message}`; then nothing was queued.
    pub fn submit(&mut self, command: JsValue, now_ms: f64) -> Result<f64, JsValue> {
        let command: Command =
            from_js(command).map_err(|error| to_js(&Rejection::new(RejectionCode::MalformedCommand, error)))?;
        let now = Timestamp::from_millis(now_ms as i64);
        self.replica.submit(command, now).map(|seq| seq as f64).map_err(|rejection| to_js(&rejection))
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

    /// Goes on under a new client id.
    ///
    /// # Errors
    /// A sentence where the id can't be one.
    #[wasm_bindgen(js_name = renewClient)]
    pub fn renew_client(&mut self, client_id: String) -> Result<(), JsValue> {
        let client_id = ClientId::new(client_id).map_err(sentence)?;
        let records = self.stored_records.iter().map(|version| self.record_key(*version));
        let commands = self.replica.pending_commands().map(|(seq, _)| self.command_key(seq));
        self.obsolete = records.chain(commands).chain([format!("{}base", self.prefix)]).collect();
        self.stored_records.clear();
        self.prefix = format!("{}/{client_id}/", self.replica.session_id());
        self.replica.renew_client(client_id);
        Ok(())
    }

    /// Takes a frame of the server, as a plain object.
    ///
    /// # Errors
    /// A sentence where the frame can't be read.
    pub fn handle(&mut self, frame: JsValue) -> Result<(), JsValue> {
        let records = get(&frame, "records");
        self.replica.handle(from_js(frame).map_err(|error| JsValue::from_str(&error))?);
        if Array::is_array(&records) {
            self.arrived.extend(Array::from(&records).iter());
        }
        Ok(())
    }

    /// The commands that are not durable yet, as `{seq, type}`.
    #[wasm_bindgen(js_name = pendingCommands)]
    pub fn pending_commands(&self) -> Array {
        let entry = |(seq, command): (u64, &Command)| {
            let entry = tagged(command.kind().as_str());
            set(&entry, "seq", seq as f64);
            JsValue::from(entry)
        };
        self.replica.pending_commands().map(entry).collect()
    }

    /// How far it is: `{pending, version, confirmedVersion, durableVersion, live}`.
    pub fn progress(&self) -> Object {
        let progress = Object::new();
        set(&progress, "pending", self.replica.pending() as f64);
        set(&progress, "version", self.replica.session().map_or(0, |session| session.version) as f64);
        set(&progress, "confirmedVersion", self.replica.confirmed_version() as f64);
        set(&progress, "durableVersion", self.replica.durable_version() as f64);
        set(&progress, "live", self.replica.link() == Link::Live);
        progress
    }

    /// Whether the session's personal data was erased.
    #[wasm_bindgen(js_name = isErased)]
    pub fn is_erased(&self) -> bool {
        self.replica.is_erased()
    }

    /// The session's fields that differ from those of the last call; `undefined` where none does.
    #[wasm_bindgen(js_name = takePatch)]
    pub fn take_patch(&mut self) -> JsValue {
        let Some(session) = self.replica.session() else { return JsValue::UNDEFINED };
        let current = fields(session);
        let mut patch = String::from("{");
        for (index, field) in current.iter().enumerate() {
            // A struct always has the same fields in the same order.
            if self.published.get(index) != Some(field) {
                if patch.len() > 1 {
                    patch.push(',');
                }
                let (name, value) = field;
                write_quoted(&mut patch, name);
                patch.push(':');
                patch.push_str(value);
            }
        }
        self.published = current;
        if patch.len() == 1 {
            return JsValue::UNDEFINED;
        }
        patch.push('}');
        parse(&patch)
    }

    /// What is to be done, in this order: objects `{type: 'send' | 'store' | 'confirmed' | 'applied' | …}`.
    #[wasm_bindgen(js_name = takeOutputs)]
    pub fn take_outputs(&mut self) -> Array {
        let outputs = self.replica.take_outputs();
        let objects = Array::new();
        for output in outputs {
            if let Some(object) = self.output_as_js(output) {
                objects.push(&object);
            }
        }
        // What is not durable yet is stored later, as it came.
        let durable_version = self.replica.durable_version() as f64;
        self.arrived.retain(|record| get(record, "version").as_f64() > Some(durable_version));
        objects
    }
}

impl Client {
    fn output_as_js(&mut self, output: Output) -> Option<Object> {
        Some(match output {
            // The shell asks for the patch once, after all outputs.
            Output::Changed => return None,
            Output::Send(frame) => {
                let object = tagged("send");
                set(&object, "frame", frame_as_js(&frame));
                object
            }
            Output::Store(changes) => self.changes_as_js(changes),
            Output::Confirmed { seq, confirmation } => {
                let object = tagged("confirmed");
                set(&object, "seq", seq as f64);
                match confirmation {
                    Confirmation::Accepted(version) => set(&object, "accepted", version as f64),
                    Confirmation::Durable(version) => set(&object, "durable", version as f64),
                    Confirmation::Rejected { reason, command } => {
                        set(&object, "rejected", to_js(&reason));
                        set(&object, "command", to_js(&*command));
                    }
                }
                object
            }
            Output::Applied(record) => {
                let object = tagged("applied");
                set(&object, "record", self.arrived(record.version));
                object
            }
            Output::RetryAfter(delay_ms) => {
                let object = tagged("retryAfter");
                set(&object, "delayMs", delay_ms as f64);
                object
            }
            Output::ServerTime(time) => {
                let object = tagged("serverTime");
                set(&object, "time", time.as_millis() as f64);
                object
            }
            Output::Token(token) => {
                let object = tagged("token");
                set(&object, "token", token);
                object
            }
            Output::Refused { code, message, retry_after_ms } => {
                let object = tagged("refused");
                set(&object, "code", to_js(&code));
                set(&object, "message", message);
                set(&object, "passing", code.is_passing());
                set(&object, "retryAfterMs", retry_after_ms.map_or(JsValue::UNDEFINED, |ms| (ms as f64).into()));
                object
            }
            Output::NeedsNewClient => tagged("needsNewClient"),
        })
    }

    /// `{type: 'store', put: [[key, text]], delete: [key], seq?}`; `seq` is the highest number among the stored commands.
    fn changes_as_js(&mut self, changes: Vec<StorageChange>) -> Object {
        let mut put: Vec<(String, String)> = Vec::new();
        let mut delete: Vec<String> = Vec::new();
        let mut highest = None;
        for change in changes {
            match change {
                StorageChange::PutCommand(command) => {
                    put.push((self.command_key(command.seq), seal(&to_text(&command))));
                    highest = highest.max(Some(command.seq));
                }
                StorageChange::DeleteCommand(seq) => {
                    delete.push(self.command_key(seq));
                }
                StorageChange::PutRecord(record) => {
                    let text = JSON::stringify(&self.arrived(record.version)).map(String::from).unwrap_or_default();
                    put.push((self.record_key(record.version), seal(&text)));
                    self.stored_records.push(record.version);
                }
                StorageChange::Forget => delete.append(&mut self.obsolete),
                StorageChange::PutBase(state) => {
                    put.push((format!("{}base", self.prefix), seal(&to_text(&*state))));
                    for version in std::mem::take(&mut self.stored_records) {
                        delete.push(self.record_key(version));
                    }
                }
            }
        }
        let object = tagged("store");
        set(&object, "put", list_to_js(&put));
        set(&object, "delete", list_to_js(&delete));
        set(&object, "seq", highest.map_or(JsValue::UNDEFINED, |seq| (seq as f64).into()));
        object
    }

    /// The record of this version, as it came in.
    fn arrived(&self, version: u64) -> JsValue {
        let is_wanted = |record: &&JsValue| get(record, "version").as_f64() == Some(version as f64);
        self.arrived.iter().rev().find(is_wanted).cloned().unwrap_or(JsValue::UNDEFINED)
    }

    fn command_key(&self, seq: u64) -> String {
        format!("{}command/{seq:012}", self.prefix)
    }

    fn record_key(&self, version: u64) -> String {
        format!("{}record/{version:012}", self.prefix)
    }
}

fn sentence(error: impl std::fmt::Display) -> JsValue {
    JsValue::from_str(&error.to_string())
}

/// The frame as a plain object. Put together from its parts: serde's code for a tag beside the fields of another type would
/// bring a second copy of the code that writes a command.
fn frame_as_js(frame: &ClientFrame) -> JsValue {
    match frame {
        ClientFrame::Hello(hello) => {
            let object = Object::from(to_js(hello));
            set(&object, "type", "hello");
            object.into()
        }
        ClientFrame::Submit { commands } => {
            let submissions = Array::new();
            for Submission { client_id, seq, command } in commands {
                let object = Object::from(to_js(command));
                set(&object, "clientId", client_id.as_str());
                set(&object, "seq", *seq as f64);
                submissions.push(&object);
            }
            let object = tagged("submit");
            set(&object, "commands", submissions);
            object.into()
        }
        ClientFrame::Ping {} => tagged("ping").into(),
    }
}

/// Takes one record of the storage; `false` where it is damaged.
fn restore(restored: &mut Restored, key: &str, text: &str) -> bool {
    match key.split_once('/') {
        None if key == "base" => match unseal::<State>(text) {
            Some(state) => restored.base = Some(state),
            None => return false,
        },
        Some(("record", _)) => match unseal::<Record>(text) {
            Some(record) => restored.records.push(record),
            None => return false,
        },
        Some(("command", _)) => match unseal::<StoredCommand>(text) {
            Some(command) => restored.commands.push(command),
            None => return false,
        },
        _ => {}
    }
    true
}
