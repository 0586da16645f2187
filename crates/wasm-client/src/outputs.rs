//! What the replica wants done, written for JavaScript, with the texts that are handed on as they came.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use throughline_core::json::{ToJson, Writer};
use throughline_core::sync::{ClientFrame, Confirmation, Output, StorageChange, Submission};
use throughline_core::{ClientId, Joined, SessionId};

use crate::boundary::{entries, writer};
use crate::sealed::seal;

/// Stands before each text after the list of outputs.
const SEPARATOR: &str = "\u{1}";

/// Texts as they came, under their numbers.
type Texts = Vec<(u64, String)>;

/// Where one client's things lie in the storage, and the texts that are stored and sent.
pub struct Outputs {
    /// Before every key of this client in the storage: `<session>/<client>/`.
    prefix: String,
    /// The commands that are not durable yet, as they were issued.
    commands: Texts,
    /// The records of the frames that came in and are not stored yet, as the server wrote them.
    records: Texts,
    /// What the last welcome said of the funnel, until it is told.
    welcome: Option<String>,
    /// The versions of the records in the storage.
    stored_records: Vec<u64>,
    /// The keys that were used under a client id that is given up.
    obsolete: Vec<String>,
    /// The texts that the list of outputs names by their numbers.
    texts: Vec<String>,
}

impl Outputs {
    /// Nothing yet, for this client.
    pub fn new(session_id: &SessionId, client_id: &ClientId) -> Self {
        Self {
            prefix: prefix(session_id, client_id),
            commands: Vec::new(),
            records: Vec::new(),
            welcome: None,
            stored_records: Vec::new(),
            obsolete: Vec::new(),
            texts: Vec::new(),
        }
    }

    /// A key of this client without what all of its keys begin with; empty for another's.
    pub fn name_of<'a>(&self, key: &'a str) -> &'a str {
        key.strip_prefix(self.prefix.as_str()).unwrap_or_default()
    }

    /// A command was issued, in these words.
    pub fn issued(&mut self, seq: u64, command: String) {
        self.commands.push((seq, command));
    }

    /// The record of this version is in the storage.
    pub fn has_stored(&mut self, version: u64) {
        self.stored_records.push(version);
    }

    /// A record came in, in these words.
    pub fn arrived(&mut self, version: u64, record: &str) {
        self.records.push((version, record.to_owned()));
    }

    /// The server has said welcome, in these words.
    pub fn welcomed(&mut self, frame: &str) {
        let mut out = writer();
        begin(&mut out, "welcome");
        entries(frame, &mut |name, value| {
            if matches!(name, "funnel" | "funnelHash") {
                out.key(name);
                out.raw(value);
            }
        });
        out.close("}");
        self.welcome = Some(out.finish());
    }

    /// The pending commands, which have these numbers now, get the numbers 1, 2, 3 and so on, under another client id.
    pub fn give_up_client(&mut self, pending: &[u64], session_id: &SessionId, client_id: &ClientId) {
        let records = self.stored_records.iter().map(|version| self.key("record/", *version));
        let commands = pending.iter().map(|seq| self.key("command/", *seq));
        self.obsolete = records.chain(commands).chain([[&self.prefix, "base"].joined()]).collect();
        self.stored_records.clear();
        self.prefix = prefix(session_id, client_id);
        self.commands.retain(|(seq, _)| pending.contains(seq));
        for (seq, (number, _)) in (1..).zip(&mut self.commands) {
            *number = seq;
        }
    }

    /// What is to be done, as a list of objects; nothing where there is nothing to do. JSON within JSON would be escaped and
    /// unescaped, so the texts that are sent and stored follow the list, each after a character that no JSON has, and the
    /// list has their numbers.
    pub fn write(&mut self, outputs: Vec<Output>, durable_version: u64) -> Option<String> {
        let mut out = writer();
        out.open("[");
        for output in outputs {
            self.write_output(&mut out, output);
        }
        if let Some(welcome) = self.welcome.take() {
            out.item();
            out.raw(&welcome);
        }
        out.close("]");
        // What is not durable yet is stored later, as it came.
        self.records.retain(|(version, _)| *version > durable_version);
        if out.len() == 2 {
            return None;
        }
        for text in self.texts.drain(..) {
            out.raw(SEPARATOR);
            out.raw(&text);
        }
        Some(out.finish())
    }

    fn write_output(&mut self, out: &mut Writer, output: Output) {
        match output {
            // The shell asks for the patch once, after all outputs.
            Output::Changed => return,
            Output::Send(frame) => {
                begin(out, "send");
                out.field("frame", &(self.texts.len() as u64));
                self.texts.push(self.frame(&frame));
            }
            Output::Store(changes) => self.write_changes(out, changes),
            Output::Confirmed { seq, confirmation } => {
                begin(out, "confirmed");
                out.field("seq", &seq);
                self.write_confirmation(out, seq, confirmation);
            }
            Output::Applied(record) => {
                begin(out, "applied");
                out.key("record");
                out.raw(text_of(&self.records, record.version));
            }
            Output::RetryAfter(delay_ms) => {
                begin(out, "retryAfter");
                out.field("delayMs", &delay_ms);
            }
            Output::ServerTime(time) => {
                begin(out, "serverTime");
                out.field("time", &time.as_millis());
            }
            Output::Token(token) => {
                begin(out, "token");
                out.field("token", &token);
            }
            Output::Refused { code, message, retry_after_ms } => {
                begin(out, "refused");
                out.field("code", &code);
                out.field("message", &message);
                out.field("passing", &code.is_passing());
                if let Some(delay_ms) = retry_after_ms {
                    out.field("retryAfterMs", &delay_ms);
                }
            }
            Output::NeedsNewClient => begin(out, "needsNewClient"),
        }
        out.close("}");
    }

    fn write_confirmation(&mut self, out: &mut Writer, seq: u64, confirmation: Confirmation) {
        match confirmation {
            Confirmation::Accepted(version) => return out.field("accepted", &version),
            Confirmation::Durable(version) => out.field("durable", &version),
            Confirmation::Rejected { reason, .. } => {
                out.field("rejected", &reason);
                out.key("command");
                out.raw(text_of(&self.commands, seq));
            }
        }
        self.commands.retain(|(issued, _)| *issued != seq);
    }

    /// `{type: 'store', put: [[key, number of the text]], delete: [key], seq?}`; `seq` is the highest number among the stored commands.
    fn write_changes(&mut self, out: &mut Writer, changes: Vec<StorageChange>) {
        let mut put: Vec<(String, u64)> = Vec::new();
        let mut delete: Vec<String> = Vec::new();
        let mut highest = None;
        for change in changes {
            match change {
                StorageChange::PutCommand(command) => {
                    let mut text = writer();
                    text.open("{");
                    text.field("seq", &command.seq);
                    text.field("at", &command.at);
                    text.key("command");
                    text.raw(text_of(&self.commands, command.seq));
                    text.close("}");
                    put.push((self.key("command/", command.seq), self.note(seal(&text.finish()))));
                    highest = highest.max(Some(command.seq));
                }
                StorageChange::DeleteCommand(seq) => delete.push(self.key("command/", seq)),
                StorageChange::PutRecord(record) => {
                    let text = seal(text_of(&self.records, record.version));
                    put.push((self.key("record/", record.version), self.note(text)));
                    self.stored_records.push(record.version);
                }
                StorageChange::Forget => delete.append(&mut self.obsolete),
                StorageChange::PutBase(state) => {
                    let text = seal(&crate::boundary::to_text(&*state));
                    put.push(([&self.prefix, "base"].joined(), self.note(text)));
                    for version in core::mem::take(&mut self.stored_records) {
                        delete.push(self.key("record/", version));
                    }
                }
            }
        }
        begin(out, "store");
        out.field("put", &put);
        out.field("delete", &delete);
        if let Some(seq) = highest {
            out.field("seq", &seq);
        }
    }

    /// Keeps a text until the outputs are written; its number.
    fn note(&mut self, text: String) -> u64 {
        self.texts.push(text);
        self.texts.len() as u64 - 1
    }

    /// A frame as it goes over the wire.
    fn frame(&self, frame: &ClientFrame) -> String {
        let mut out = writer();
        match frame {
            ClientFrame::Hello(hello) => {
                out.tag("hello");
                hello.write(&mut out);
            }
            ClientFrame::Submit { commands } => {
                begin(&mut out, "submit");
                out.key("commands");
                out.open("[");
                for Submission { client_id, seq, .. } in commands {
                    out.item();
                    out.open("{");
                    out.field("clientId", client_id);
                    out.field("seq", seq);
                    // Its own fields stand beside the number: it was read as an object that has a `type`.
                    out.item();
                    out.raw(text_of(&self.commands, *seq).trim_start().strip_prefix('{').unwrap_or("}"));
                }
                out.close("]");
                out.close("}");
            }
            ClientFrame::Ping {} => {
                begin(&mut out, "ping");
                out.close("}");
            }
        }
        out.finish()
    }

    /// A key with a number, filled up with zeros: in the order of the keys, the numbers ascend.
    fn key(&self, kind: &str, number: u64) -> String {
        const DIGITS: usize = 12;
        let number = crate::boundary::to_text(&number);
        let zeros = "000000000000".get(number.len().min(DIGITS)..).unwrap_or_default();
        [&self.prefix, kind, zeros, &number].joined()
    }
}

fn prefix(session_id: &SessionId, client_id: &ClientId) -> String {
    [session_id.as_str(), "/", client_id.as_str(), "/"].joined()
}

/// Begins an object with a `type`, as the next item.
fn begin(out: &mut Writer, name: &str) {
    out.item();
    out.open("{");
    out.field("type", &name);
}

/// The text with this number; the newest where it came several times.
fn text_of(texts: &Texts, number: u64) -> &str {
    texts.iter().rev().find(|(known, _)| *known == number).map_or("null", |(_, text)| text)
}
