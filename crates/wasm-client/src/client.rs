//! The replica with its boundary to JavaScript.
//!
//! The snapshot that a page reads lives on the JavaScript side. What crosses is a patch: the top-level fields of the session
//! that differ from what was published last.

use js_sys::{Array, Object};
use serde::Serialize;
use throughline_core::sync::{Confirmation, Link, Output, Replica, Restored, StorageChange, StoredCommand};
use throughline_core::{
    ClientId, Command, Funnel, Record, Rejection, RejectionCode, Session, SessionId, State, Timestamp,
};
use wasm_bindgen::prelude::*;

use crate::boundary::{from_js, set, tagged, to_js};
use crate::sealed::{seal, unseal};

/// One client's replica of one session.
#[wasm_bindgen]
pub struct Client {
    replica: Replica,
    published: Option<Session>,
    /// Before every key of this client in the storage: `<session>/<client>/`.
    prefix: String,
    /// The versions of the records in the storage.
    stored_records: Vec<u64>,
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
        stored: Vec<Array>,
        token: Option<String>,
        claim: Option<String>,
    ) -> Result<Client, JsValue> {
        let session_id = SessionId::new(session_id).map_err(sentence)?;
        let client_id = ClientId::new(client_id).map_err(sentence)?;
        let prefix = format!("{session_id}/{client_id}/");
        let mut restored = Restored { token, claim, ..Restored::default() };
        let mut damaged = Vec::new();
        for pair in stored {
            let (Some(key), Some(text)) = (pair.get(0).as_string(), pair.get(1).as_string()) else { continue };
            if !restore(&mut restored, key.strip_prefix(&prefix).unwrap_or_default(), &text) {
                damaged.push(key);
            }
        }
        let stored_records = restored.records.iter().map(|record| record.version).collect();
        let replica = Replica::new(session_id, client_id, restored);
        Ok(Self { replica, published: None, prefix, stored_records, damaged })
    }

    /// The keys of the records that are damaged, for being set aside.
    #[wasm_bindgen(js_name = takeDamaged)]
    pub fn take_damaged(&mut self) -> Vec<String> {
        std::mem::take(&mut self.damaged)
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
        self.replica.renew_client(ClientId::new(client_id).map_err(sentence)?);
        Ok(())
    }

    /// Takes a frame of the server, as a plain object.
    ///
    /// # Errors
    /// A sentence where the frame can't be read.
    pub fn handle(&mut self, frame: JsValue) -> Result<(), JsValue> {
        self.replica.handle(from_js(frame).map_err(|error| JsValue::from_str(&error))?);
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
        let Some(current) = self.replica.session() else { return JsValue::UNDEFINED };
        let patch = Object::new();
        let changed = write_patch(&patch, self.published.as_ref(), current);
        if !changed {
            return JsValue::UNDEFINED;
        }
        self.published = Some(current.clone());
        patch.into()
    }

    /// What is to be done, in this order: objects `{type: 'send' | 'store' | 'confirmed' | 'applied' | …}`.
    #[wasm_bindgen(js_name = takeOutputs)]
    pub fn take_outputs(&mut self) -> Array {
        let outputs = self.replica.take_outputs();
        outputs.into_iter().filter_map(|output| self.output_as_js(output)).map(JsValue::from).collect()
    }
}

impl Client {
    fn output_as_js(&mut self, output: Output) -> Option<Object> {
        Some(match output {
            // The shell asks for the patch once, after all outputs.
            Output::Changed => return None,
            Output::Send(frame) => {
                let object = tagged("send");
                set(&object, "frame", to_js(&frame));
                object
            }
            Output::Store(changes) => self.changes_as_js(changes),
            Output::Confirmed { seq, confirmation } => {
                let object = tagged("confirmed");
                set(&object, "seq", seq as f64);
                match confirmation {
                    Confirmation::Accepted(version) => set(&object, "accepted", version as f64),
                    Confirmation::Durable(version) => set(&object, "durable", version as f64),
                    Confirmation::Rejected(rejection) => set(&object, "rejected", to_js(&rejection)),
                }
                object
            }
            Output::Applied(record) => {
                let object = tagged("applied");
                set(&object, "record", to_js(&*record));
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
        let put = Array::new();
        let delete = Array::new();
        let mut highest = None;
        for change in changes {
            match change {
                StorageChange::PutCommand(command) => {
                    put.push(&pair(&self.command_key(command.seq), &command));
                    highest = highest.max(Some(command.seq));
                }
                StorageChange::DeleteCommand(seq) => {
                    delete.push(&self.command_key(seq).into());
                }
                StorageChange::PutRecord(record) => {
                    put.push(&pair(&self.record_key(record.version), &*record));
                    self.stored_records.push(record.version);
                }
                StorageChange::PutBase(state) => {
                    put.push(&pair(&format!("{}base", self.prefix), &*state));
                    for version in std::mem::take(&mut self.stored_records) {
                        delete.push(&self.record_key(version).into());
                    }
                }
            }
        }
        let object = tagged("store");
        set(&object, "put", put);
        set(&object, "delete", delete);
        set(&object, "seq", highest.map_or(JsValue::UNDEFINED, |seq| (seq as f64).into()));
        object
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

fn pair<T: Serialize>(key: &str, value: &T) -> Array {
    Array::of2(&JsValue::from_str(key), &JsValue::from_str(&seal(value)))
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

macro_rules! patch_fields {
    ($patch:ident, $before:ident, $now:ident; $($field:ident => $name:literal),+ $(,)?) => {{
        let mut changed = false;
        $(
            if $before.is_none_or(|before| before.$field != $now.$field) {
                set($patch, $name, to_js(&$now.$field));
                changed = true;
            }
        )+
        changed
    }};
}

fn write_patch(patch: &Object, before: Option<&Session>, now: &Session) -> bool {
    // Exhaustive on purpose: a new field of the session does not compile until it is listed below.
    let Session {
        id: _,
        version: _,
        email: _,
        created_at: _,
        updated_at: _,
        expires_at: _,
        last_accessed_at: _,
        status: _,
        current_step: _,
        flow: _,
        customer: _,
        products: _,
        coupon_code: _,
        adjustments: _,
        totals: _,
        amount: _,
        currency: _,
        payment: _,
        vault_id: _,
        customer_id: _,
        transaction_id: _,
        payment_token: _,
        upsells: _,
        source: _,
        metadata: _,
        funnel: _,
        claims: _,
    } = now;
    patch_fields!(patch, before, now;
        id => "id", version => "version", email => "email", created_at => "createdAt", updated_at => "updatedAt",
        expires_at => "expiresAt", last_accessed_at => "lastAccessedAt", status => "status",
        current_step => "currentStep", flow => "flow", customer => "customer", products => "products",
        coupon_code => "couponCode", adjustments => "adjustments", totals => "totals", amount => "amount",
        currency => "currency", payment => "payment", vault_id => "vaultId", customer_id => "customerId",
        transaction_id => "transactionId", payment_token => "paymentToken", upsells => "upsells", source => "source",
        metadata => "metadata", funnel => "funnel", claims => "claims",
    )
}
