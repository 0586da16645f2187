//! What the replica wants done, written for JavaScript, with the texts that are handed on as they came.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use throughline_core::json::{ToJson, Writer};
use throughline_core::sync::{ClientFrame, Confirmation, Hello, Output, StorageChange, StoredCommand, Submission};
use throughline_core::{Joined, SessionId};

use crate::boundary::{entries, writer};
use crate::stored_form::wrap;

/// Stands before each text after the list of outputs.
const SEPARATOR: &str = "\u{1}";

/// A command as it was issued.
struct IssuedText {
    client_id: String,
    seq: u64,
    text: String,
}

/// Where the session's things lie in the storage, and the texts that are stored, sent and handed on.
#[derive(Default)]
pub struct Outputs {
    /// Before every key of the session in the storage: `<session>/`.
    prefix: String,
    /// The commands that are not durable yet, as they were issued.
    commands: Vec<IssuedText>,
    /// The records of the frames that came in and are not stored yet, as the server wrote them, by their versions.
    records: Vec<(u64, String)>,
    /// What the last welcome said of the funnel, until it is told.
    welcome: Option<String>,
    /// The versions of the records in the storage.
    stored_records: Vec<u64>,
    /// The texts that the list of outputs names by their numbers.
    texts: Vec<String>,
}

impl Outputs {
    /// Nothing yet, for this session.
    pub fn new(session_id: &SessionId) -> Self {
        Self { prefix: [session_id.as_str(), "/"].joined(), ..Self::default() }
    }

    /// A key of this session without what all of its keys begin with; empty for another's.
    pub fn name_of<'a>(&self, key: &'a str) -> &'a str {
        key.strip_prefix(self.prefix.as_str()).unwrap_or_default()
    }

    /// A command was issued, in these words.
    pub fn issued(&mut self, client_id: &str, seq: u64, text: String) {
        self.commands.push(IssuedText { client_id: client_id.to_owned(), seq, text });
    }

    /// A command is stored, in these words: `{seq, at, command}`.
    pub fn stored(&mut self, client_id: &str, seq: u64, stored: &str) {
        entries(stored, &mut |name, command| {
            if name == "command" && self.find(client_id, seq).is_none() {
                self.issued(client_id, seq, command.to_owned());
            }
        });
    }

    fn find(&self, client_id: &str, seq: u64) -> Option<&IssuedText> {
        self.commands.iter().rev().find(|issued| issued.seq == seq && issued.client_id == client_id)
    }

    fn command(&self, client_id: &str, seq: u64) -> &str {
        self.find(client_id, seq).map_or("null", |issued| &issued.text)
    }

    /// The storage is read anew.
    pub fn forget_stored_records(&mut self) {
        self.stored_records.clear();
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
        if out.len() <= 2 {
            return None;
        }
        for text in self.texts.drain(..) {
            out.raw(SEPARATOR);
            out.raw(&text);
        }
        Some(out.finish())
    }

    /// The number by which the list of outputs names this text.
    fn name(&mut self, text: String) -> u64 {
        self.texts.push(text);
        self.texts.len() as u64 - 1
    }

    fn write_output(&mut self, out: &mut Writer, output: Output) {
        match output {
            // The shell asks for the patch once, after all outputs.
            Output::Changed => return,
            Output::Send(frame) => {
                begin(out, "send");
                let frame = self.frame(&frame);
                out.field("frame", &self.name(frame));
            }
            Output::Store { changes, as_leader } => {
                self.write_changes(out, changes);
                out.field("asLeader", &as_leader);
            }
            Output::Announce { client_id, commands, is_all } => {
                begin(out, "announce");
                out.field("clientId", &client_id);
                let mut list = writer();
                list.open("[");
                for command in &commands {
                    list.item();
                    self.write_stored(&mut list, client_id.as_str(), command);
                }
                list.close("]");
                out.field("commands", &self.name(list.finish()));
                out.field("isAll", &is_all);
            }
            Output::Relay { answers, frames } => {
                begin(out, "relay");
                if let Some(hello) = answers {
                    out.field("answers", &self.name(crate::boundary::to_text(&hello)));
                }
                let frames: Vec<u64> = frames.iter().map(|frame| self.name(crate::boundary::to_text(frame))).collect();
                out.field("frames", &frames);
            }
            Output::Confirmed { client_id, seq, confirmation } => {
                begin(out, "confirmed");
                out.field("clientId", &client_id);
                out.field("seq", &seq);
                self.write_confirmation(out, client_id.as_str(), seq, confirmation);
            }
            Output::Applied(record) => {
                begin(out, "applied");
                out.key("record");
                out.raw(self.record(record.version));
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
            Output::Missing(client_id) => {
                begin(out, "missing");
                out.field("clientId", &client_id);
            }
        }
        out.close("}");
    }

    fn write_confirmation(&mut self, out: &mut Writer, client_id: &str, seq: u64, confirmation: Confirmation) {
        match confirmation {
            Confirmation::Accepted(version) => return out.field("accepted", &version),
            Confirmation::Durable(version) => out.field("durable", &version),
            Confirmation::Rejected { reason, .. } => {
                out.field("rejected", &reason);
                out.key("command");
                out.raw(self.command(client_id, seq));
            }
        }
        self.commands.retain(|issued| issued.seq != seq || issued.client_id != client_id);
    }

    fn write_stored(&self, out: &mut Writer, client_id: &str, command: &StoredCommand) {
        out.open("{");
        out.field("seq", &command.seq);
        out.field("at", &command.at);
        out.key("command");
        out.raw(self.command(client_id, command.seq));
        out.close("}");
    }

    fn record(&self, version: u64) -> &str {
        self.records.iter().rev().find(|(known, _)| *known == version).map_or("null", |(_, text)| text)
    }

    /// `{type: 'store', put: [[key, text]], delete: [key], clientId?, seq?}`; `seq` is the highest number among the stored
    /// commands, which are those of one client.
    fn write_changes(&mut self, out: &mut Writer, changes: Vec<StorageChange>) {
        let mut put: Vec<(String, u64)> = Vec::new();
        let mut delete: Vec<String> = Vec::new();
        let mut highest = None;
        for change in changes {
            match change {
                StorageChange::PutCommand(client_id, command) => {
                    let mut text = writer();
                    self.write_stored(&mut text, client_id.as_str(), &command);
                    put.push((self.command_key(client_id.as_str(), command.seq), self.name(wrap(&text.finish()))));
                    highest = Some((client_id, command.seq));
                }
                StorageChange::DeleteCommand(client_id, seq) => delete.push(self.command_key(client_id.as_str(), seq)),
                StorageChange::PutRecord(record) => {
                    let text = wrap(self.record(record.version));
                    put.push((self.key("record/", record.version), self.name(text)));
                    self.stored_records.push(record.version);
                }
                StorageChange::PutBase(state) => {
                    let text = wrap(&crate::boundary::to_text(&*state));
                    put.push(([&self.prefix, "base"].joined(), self.name(text)));
                    for version in core::mem::take(&mut self.stored_records) {
                        delete.push(self.key("record/", version));
                    }
                }
            }
        }
        begin(out, "store");
        out.field("put", &put);
        out.field("delete", &delete);
        if let Some((client_id, seq)) = highest {
            out.field("clientId", &client_id);
            out.field("seq", &seq);
        }
    }

    /// A frame as it goes over the wire.
    fn frame(&self, frame: &ClientFrame) -> String {
        let mut out = writer();
        match frame {
            ClientFrame::Hello(hello) => return hello_frame(hello),
            ClientFrame::Submit { commands } => {
                begin(&mut out, "submit");
                out.key("commands");
                out.open("[");
                for Submission { client_id, seq, first, .. } in commands {
                    out.item();
                    out.open("{");
                    out.field("clientId", client_id);
                    out.field("seq", seq);
                    if *first {
                        out.field("first", first);
                    }
                    // Its own fields stand beside the number: it was read as an object that has a `type`.
                    out.item();
                    out.raw(self.command(client_id.as_str(), *seq).trim_start().strip_prefix('{').unwrap_or("}"));
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

    fn command_key(&self, client_id: &str, seq: u64) -> String {
        self.key(&["command/", client_id, "/"].joined(), seq)
    }

    /// A key with a number, filled up with zeros: in the order of the keys, the numbers ascend.
    fn key(&self, kind: &str, number: u64) -> String {
        const DIGITS: usize = 12;
        let number = crate::boundary::to_text(&number);
        let zeros = "000000000000".get(number.len().min(DIGITS)..).unwrap_or_default();
        [&self.prefix, kind, zeros, &number].joined()
    }
}

/// A hello as it goes over the wire.
pub fn hello_frame(hello: &Hello) -> String {
    let mut out = writer();
    out.tag("hello");
    hello.write(&mut out);
    out.finish()
}

/// Begins an object with a `type`, as the next item.
fn begin(out: &mut Writer, name: &str) {
    out.item();
    out.open("{");
    out.field("type", &name);
}
