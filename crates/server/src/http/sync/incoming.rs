//! Frames from clients, as they are read.

use serde::de::Error as _;
use serde_json::Value;
use throughline_core::sync::{Hello, Request, Submission};
use throughline_core::{ClientId, Command, Rejection, RejectionCode};

use super::end::End;
use crate::http::body::customer_is_by_name;
use crate::json_depth;

/// How many commands one frame holds at most.
const MAX_COMMANDS: usize = 50;

/// The longest `traceparent`: twice what one of the present version has, so that later ones are understood.
const MAX_TRACEPARENT_BYTES: usize = 110;

/// How much of what serde says of a command is kept.
const MAX_SENTENCE_CHARS: usize = 500;

/// A frame of a client.
#[derive(Debug)]
pub enum Incoming {
    /// Who the client is and what it has.
    Hello(Hello),
    /// Commands; those that can't be read are refused in their turn.
    Submit(Vec<Request>),
    /// The client asks whether the connection lives.
    Ping,
}

/// Reads the first frame.
pub(super) fn read_hello(text: &str, depth: usize) -> Result<Hello, End> {
    match read_frame(text, depth)? {
        Incoming::Hello(hello) => Ok(hello),
        Incoming::Submit(_) | Incoming::Ping => Err(End::malformed("the first frame has to be hello")),
    }
}

/// Reads any frame, in which not more than `depth` arrays and objects may lie in each other.
pub(super) fn read_frame(text: &str, depth: usize) -> Result<Incoming, End> {
    if json_depth::exceeds(text.as_bytes(), depth) {
        return Err(End::malformed(&format!("more than {depth} arrays and objects lie in each other in the frame")));
    }
    let not_json = |error: serde_json::Error| End::malformed(&format!("the frame is not JSON: {error}"));
    let frame = serde_json::from_str(text).map_err(not_json)?;
    read_value(frame)
}

/// Reads any frame that was part of something else.
pub(super) fn read_value(mut frame: Value) -> Result<Incoming, End> {
    let name = frame.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    match name.as_str() {
        "hello" => {
            let hello = serde_json::from_value(frame);
            hello.map(Incoming::Hello).map_err(|error| End::malformed(&format!("hello can't be read: {error}")))
        }
        "submit" => {
            let Some(Value::Array(commands)) = frame.get_mut("commands").map(Value::take) else {
                return Err(End::malformed("submit has no commands"));
            };
            if !(1..=MAX_COMMANDS).contains(&commands.len()) {
                return Err(End::malformed(&format!("submit holds 1 to {MAX_COMMANDS} commands")));
            }
            let mut requests = commands.into_iter().map(read_command).collect::<Result<Vec<Request>, _>>()?;
            if let Some(Value::Array(traceparents)) = frame.get_mut("traceparents").map(Value::take) {
                for (request, traceparent) in requests.iter_mut().zip(traceparents) {
                    request.traceparent = read_traceparent(traceparent);
                }
            }
            Ok(Incoming::Submit(requests))
        }
        "ping" => Ok(Incoming::Ping),
        _ => Err(End::malformed("frames from clients have the type hello, submit or ping")),
    }
}

/// What can't be one is none: nothing that a command does depends on the trace that it is part of.
fn read_traceparent(value: Value) -> Option<String> {
    let Value::String(text) = value else { return None };
    (text.len() <= MAX_TRACEPARENT_BYTES).then_some(text)
}

/// A command that can't be read is still numbered: it is refused once, and the queue goes on.
fn read_command(value: Value) -> Result<Request, End> {
    let number = (value.get("clientId").cloned(), value.get("seq").and_then(Value::as_u64));
    // Serde would also take the number of a command's kind, which is nobody's to rely on.
    let read = if value.get("type").is_some_and(|name| !name.is_string()) {
        Err(serde_json::Error::custom("the `type` of a command is a text"))
    } else if let Some(Err(why)) = value.get("customer").map(customer_is_by_name) {
        Err(serde_json::Error::custom(why))
    } else {
        serde_json::from_value::<Submission>(value)
    };
    match read {
        Ok(submission) => Ok(submission.into()),
        Err(error) => {
            let (Some(client_id), Some(seq)) = number else {
                return Err(End::malformed("a command has no clientId and seq"));
            };
            let client_id = serde_json::from_value::<ClientId>(client_id)
                .map_err(|error| End::malformed(&format!("clientId: {error}")))?;
            let sentence = shortened(without_values(&error.to_string()));
            let message = format!("the command can't be read: {sentence}");
            let command: Result<Command, _> = Err(Rejection::new(RejectionCode::MalformedCommand, message));
            let seq = Some(seq);
            Ok(Request::new(client_id, seq, command))
        }
    }
}

/// The sentence without the values that it quotes: it is recorded with the session, and a value may be somebody's name.
fn without_values(sentence: &str) -> String {
    let parts: Vec<&str> = sentence.split('"').collect();
    if parts.len() < 3 {
        return sentence.to_owned();
    }
    // Between the first and the last quotation mark, whatever else is quoted in there.
    format!("{}…{}", parts[0], parts[parts.len() - 1])
}

/// The sentence, cut where it is longer than any that names our own fields: it may hold a client's field name of any length,
/// and would be kept with the session for each of its refused commands.
fn shortened(mut sentence: String) -> String {
    if let Some((end, _)) = sentence.char_indices().nth(MAX_SENTENCE_CHARS) {
        sentence.truncate(end);
        sentence.push('…');
    }
    sentence
}

#[cfg(test)]
mod tests {
    use throughline_core::sync::ErrorCode;

    use super::*;

    #[test]
    fn a_command_that_cannot_be_read_keeps_its_number() {
        let text =
            r#"{"type":"submit","commands":[{"clientId":"a","seq":3,"type":"setEmail","email":"x","paid":true}]}"#;
        let Ok(Incoming::Submit(requests)) = read_frame(text, 32) else { panic!("not a submit") };
        assert_eq!(requests[0].seq, Some(3));
        let rejection = requests[0].command.clone().unwrap_err();
        assert_eq!(rejection.code, RejectionCode::MalformedCommand);
        assert!(rejection.message.contains("paid"), "{}", rejection.message);
    }

    #[test]
    fn what_serde_would_read_by_its_place_has_to_be_there_by_name() {
        for kind in
            ["0", "3", "null", "[]", r#""setCustomer","customer":[]"#, r#""setCustomer","customer":{"billing":[]}"#]
        {
            let text = format!(r#"{{"type":"submit","commands":[{{"clientId":"a","seq":1,"type":{kind}}}]}}"#);
            let Ok(Incoming::Submit(requests)) = read_frame(&text, 32) else { panic!("not a submit") };
            let rejection = requests[0].command.clone().unwrap_err();
            assert_eq!(rejection.code, RejectionCode::MalformedCommand);
        }
    }

    #[test]
    fn what_a_command_says_of_a_person_is_not_repeated() {
        let text =
            r#"{"type":"submit","commands":[{"clientId":"a","seq":1,"type":"setItems","items":"Ada \" Lovelace"}]}"#;
        let Ok(Incoming::Submit(requests)) = read_frame(text, 32) else { panic!("not a submit") };
        let message = requests[0].command.clone().unwrap_err().message;
        assert!(!message.contains("Ada") && !message.contains("Lovelace"), "{message}");
        assert!(message.contains("invalid type: string …, expected a sequence"), "{message}");
    }

    #[test]
    fn a_field_name_of_any_length_is_not_kept_whole() {
        let name = "ü".repeat(10_000);
        let text =
            format!(r#"{{"type":"submit","commands":[{{"clientId":"a","seq":1,"type":"handOff","{name}":1}}]}}"#);
        let Ok(Incoming::Submit(requests)) = read_frame(&text, 32) else { panic!("not a submit") };
        let message = requests[0].command.clone().unwrap_err().message;
        assert!(message.starts_with("the command can't be read: unknown field `ü"), "{message}");
        assert!(message.ends_with("ü…") && message.chars().count() < 600, "{} bytes", message.len());
    }

    #[test]
    fn commands_are_parts_of_the_traces_that_stand_in_their_places() {
        let long = "0".repeat(MAX_TRACEPARENT_BYTES + 1);
        for (traceparents, expected) in [
            (r#","traceparents":[null,"00-a"]"#, [None, Some("00-a")]),
            (r#","traceparents":["00-a"]"#, [Some("00-a"), None]),
            (r#","traceparents":[7,{"a":1},"00-a"]"#, [None, None]),
            (&format!(r#","traceparents":["{long}"]"#), [None, None]),
            (r#","traceparents":"00-a""#, [None, None]),
            ("", [None, None]),
        ] {
            let command = r#"{"clientId":"a","seq":1,"type":"handOff"}"#;
            let text = format!(r#"{{"type":"submit","commands":[{command},{command}]{traceparents}}}"#);
            let Ok(Incoming::Submit(requests)) = read_frame(&text, 32) else { panic!("not a submit: {text}") };
            let read: Vec<Option<&str>> = requests.iter().map(|request| request.traceparent.as_deref()).collect();
            assert_eq!(read, expected, "{text}");
            assert!(requests.iter().all(|request| request.command.is_ok()), "{text}");
        }
    }

    #[test]
    fn frames_that_are_none_end_the_conversation() {
        for text in
            ["", "[]", "{}", r#"{"type":"welcome"}"#, r#"{"type":"submit"}"#, r#"{"type":"submit","commands":[]}"#]
        {
            assert!(read_frame(text, 32).is_err_and(|end| end.code == ErrorCode::MalformedFrame), "{text}");
        }
        assert!(read_frame(r#"{"type":"submit","commands":[{"type":"setEmail","email":"x"}]}"#, 32).is_err());
    }
}
