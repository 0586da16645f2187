//! Frames from browsers, as the sync socket reads them; and what the core's own form of them says.

use serde_json::Value;
use throughline_core::sync::{ClientFrame, ServerFrame};
use throughline_server::http::sync::{Incoming, read_frame};

use super::LONGEST_SENTENCE;
use crate::Outcome;

pub(super) fn run(input: &[u8]) -> Outcome {
    let Ok(text) = str::from_utf8(input) else { return Outcome::Refused };
    let frame = read_frame(text, 32);
    // Whoever follows the written protocol is understood.
    if let Ok(written) = serde_json::from_str::<ClientFrame>(text)
        && serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object())
    {
        match (&written, &frame) {
            (ClientFrame::Hello(written), Ok(Incoming::Hello(read))) => assert_eq!(written, read),
            (ClientFrame::Submit { commands, .. }, Ok(Incoming::Submit(requests))) => {
                assert_eq!(commands.len(), requests.len());
                for (written, read) in commands.iter().zip(requests) {
                    assert_eq!((&written.client_id, Some(written.seq)), (&read.client_id, read.seq));
                    assert_eq!(read.command.as_ref(), Ok(&written.command));
                }
            }
            (ClientFrame::Submit { commands, .. }, Err(_)) => assert!(!(1..=50).contains(&commands.len()), "{text}"),
            (ClientFrame::Ping {}, Ok(Incoming::Ping)) => {}
            (_, _) => panic!("read as something else: {text}"),
        }
    }
    match frame {
        Ok(Incoming::Submit(requests)) => {
            for refused in requests.iter().filter_map(|request| request.command.as_ref().err()) {
                assert!(refused.message.len() <= LONGEST_SENTENCE, "{} bytes are recorded", refused.message.len());
            }
            Outcome::Taken
        }
        Ok(Incoming::Hello(_) | Incoming::Ping) => Outcome::Taken,
        Err(ServerFrame::Error { message, .. }) => {
            assert!(message.len() <= LONGEST_SENTENCE, "{} bytes are answered", message.len());
            Outcome::Refused
        }
        Err(other) => panic!("refused by {other:?}"),
    }
}
