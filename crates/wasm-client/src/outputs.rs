//! What the replica wants done, written for JavaScript, with the texts that are handed on as they came.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use throughline_core::json::{ToJson, Writer};
use throughline_core::sync::{ClientFrame, Confirmation, Hello, Output, StorageChange, StoredCommand, Submission};
use throughline_core::{Joined, SessionId};

use crate::boundary::{entries, from_text, writer};
use crate::stored_form::wrap;

/// Stands before each text after the list of outputs.
const SEPARATOR: &str = "\u{1}";

/// A frame that has this many bytes gets no further command: with the longest that there is, it is still one that a server
/// takes.
const FRAME_BYTES: usize = 16 * 1024;

/// A command as it was issued.
struct IssuedText {
    client_id: String,
    seq: u64,
    text: String,
    traceparent: Option<String>,
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
    /// What is to be stored, and whether it counts only as long as this tab leads.
    writes: Vec<(bool, Vec<StorageChange>)>,
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

    /// A command was issued, in these words, as part of this trace.
    pub fn issued(&mut self, client_id: &str, seq: u64, text: String, traceparent: Option<String>) {
        self.commands.push(IssuedText { client_id: client_id.to_owned(), seq, text, traceparent });
    }

    /// A command is stored, in these words: `{seq, at, command, traceparent?}`.
    pub fn stored(&mut self, client_id: &str, seq: u64, stored: &str) {
        let (mut text, mut traceparent) = (None, None);
        entries(stored, &mut |name, value| match name {
            "command" => text = Some(value.to_owned()),
            "traceparent" => traceparent = from_text(value).ok(),
            _ => {}
        });
        if let Some(text) = text.filter(|_| self.find(client_id, seq).is_none()) {
            self.issued(client_id, seq, text, traceparent);
        }
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
    pub fn write(
        &mut self,
        outputs: Vec<Output>,
        durable_version: u64,
        write_patch: impl FnOnce(&mut Writer) -> bool,
    ) -> Option<String> {
        let mut out = writer();
        out.open("[");
        for output in outputs {
            self.write_output(&mut out, output);
        }
        if let Some(welcome) = self.welcome.take() {
            out.item();
            out.raw(&welcome);
        }
        let unchanged = out.len();
        begin(&mut out, "changed");
        out.key("patch");
        out.set_numeric_times(true);
        if write_patch(&mut out) {
            out.close("}");
        } else {
            out.truncate(unchanged);
        }
        out.set_numeric_times(false);
        out.close("]");
        self.forget_records(durable_version);
        self.with_texts(out)
    }

    /// Whether something is to be stored.
    pub fn has_writes(&self) -> bool {
        !self.writes.is_empty()
    }

    /// What is to be stored, as a list of objects with the texts after it; nothing where there is nothing to be stored.
    pub fn write_writes(&mut self, client_id: &str, durable_version: u64) -> Option<String> {
        let mut out = writer();
        out.open("[");
        for (as_leader, changes) in core::mem::take(&mut self.writes) {
            out.item();
            out.open("{");
            out.field("asLeader", &as_leader);
            self.write_changes(&mut out, client_id, changes);
            out.close("}");
        }
        out.close("]");
        self.forget_records(durable_version);
        self.with_texts(out)
    }

    /// What is not durable yet is stored later, as it came.
    fn forget_records(&mut self, durable_version: u64) {
        if self.writes.is_empty() {
            self.records.retain(|(version, _)| *version > durable_version);
        }
    }

    /// A list with the texts that it names; nothing where it is empty.
    fn with_texts(&mut self, mut list: Writer) -> Option<String> {
        for text in self.texts.drain(..) {
            list.raw(SEPARATOR);
            list.raw(&text);
        }
        (list.len() > 2).then(|| list.finish())
    }

    /// The number by which the list of outputs names this text.
    fn name(&mut self, text: String) -> u64 {
        self.texts.push(text);
        self.texts.len() as u64 - 1
    }

    fn write_output(&mut self, out: &mut Writer, output: Output) {
        match output {
            // The patch comes once, after all outputs.
            Output::Changed => return,
            Output::Send(ClientFrame::Submit { commands, .. }) => return self.write_submit(out, &commands),
            Output::Send(ClientFrame::Hello(hello)) => {
                begin(out, "send");
                out.field("frame", &self.name(hello_frame(&hello)));
            }
            // The connection asks by itself whether it is still there.
            Output::Send(ClientFrame::Ping {}) => return,
            // They come together, when nothing else is done any more.
            Output::Store { changes, as_leader } => {
                match self.writes.last_mut() {
                    Some((last, before)) if *last == as_leader => before.extend(changes),
                    _ => self.writes.push((as_leader, changes)),
                }
                return;
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
            Output::CookieDue => begin(out, "cookieDue"),
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
        if let Some(traceparent) = self.find(client_id, command.seq).and_then(|issued| issued.traceparent.as_ref()) {
            out.field("traceparent", traceparent);
        }
        out.close("}");
    }

    fn record(&self, version: u64) -> &str {
        self.records.iter().rev().find(|(known, _)| *known == version).map_or("null", |(_, text)| text)
    }

    /// `changes: [[key, text] | [key]]` and `stored`, the highest number among this client's commands.
    fn write_changes(&mut self, out: &mut Writer, client_id: &str, changes: Vec<StorageChange>) {
        let mut stored = None;
        out.key("changes");
        out.open("[");
        for change in changes {
            match change {
                StorageChange::PutCommand(owner, command) => {
                    // One that was settled meanwhile need not be stored any more.
                    if self.find(owner.as_str(), command.seq).is_none() {
                        continue;
                    }
                    let mut text = writer();
                    self.write_stored(&mut text, owner.as_str(), &command);
                    let key = self.command_key(owner.as_str(), command.seq);
                    self.put(out, &key, &text.finish());
                    if owner.as_str() == client_id {
                        stored = Some(command.seq);
                    }
                }
                StorageChange::DeleteCommand(owner, seq) => delete(out, &self.command_key(owner.as_str(), seq)),
                StorageChange::PutRecord(record) => {
                    let (key, text) = (self.key("record/", record.version), self.record(record.version).to_owned());
                    self.put(out, &key, &text);
                    self.stored_records.push(record.version);
                }
                StorageChange::PutBase(state) => {
                    let key = [&self.prefix, "base"].joined();
                    self.put(out, &key, &crate::boundary::to_text(&*state));
                    for version in core::mem::take(&mut self.stored_records) {
                        delete(out, &self.key("record/", version));
                    }
                }
            }
        }
        out.close("]");
        if let Some(seq) = stored {
            out.field("stored", &seq);
        }
    }

    fn put(&mut self, out: &mut Writer, key: &str, json: &str) {
        out.item();
        (key, self.name(wrap(json))).write(out);
    }

    /// Frames with these commands: several where they are too many bytes for one.
    fn write_submit(&mut self, list: &mut Writer, commands: &[Submission]) {
        let mut frame = writer();
        let mut traceparents = Vec::new();
        for (place, command) in commands.iter().enumerate() {
            if frame.len() == 0 {
                frame.raw("{\"type\":\"submit\",\"commands\":[");
            }
            self.write_submission(&mut frame, command);
            traceparents
                .push(self.find(command.client_id.as_str(), command.seq).and_then(|issued| issued.traceparent.clone()));
            if frame.len() >= FRAME_BYTES || place + 1 == commands.len() {
                frame.close("]");
                let traceparents = core::mem::take(&mut traceparents);
                if traceparents.iter().any(Option::is_some) {
                    frame.field("traceparents", &traceparents);
                }
                frame.close("}");
                begin(list, "send");
                let text = core::mem::replace(&mut frame, writer()).finish();
                list.field("frame", &self.name(text));
                list.close("}");
            }
        }
    }

    fn write_submission(&self, out: &mut Writer, Submission { client_id, seq, first, .. }: &Submission) {
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

fn delete(out: &mut Writer, key: &str) {
    out.item();
    out.open("[");
    key.write(out);
    out.close("]");
}

/// Begins an object with a `type`, as the next item.
fn begin(out: &mut Writer, name: &str) {
    out.item();
    out.open("{");
    out.field("type", &name);
}
