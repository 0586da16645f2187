//! Frames from servers, one to a line, as a browser reads them and works with them: a server of another version, or whatever a
//! proxy made of its answer.

use throughline_core::json::{FromJson, to_text};
use throughline_core::sync::{Replica, Restored, ServerFrame};
use throughline_core::{ClientId, Command, SessionId};

use super::{NOW, NUMBERS, built_in_funnel};
use crate::Outcome;

pub(super) fn run(input: &[u8]) -> Outcome {
    let Ok(text) = str::from_utf8(input) else { return Outcome::Refused };
    let session_id = SessionId::new("ws_mwor0dc0_0ez6uz7hcaq7bct63a1rip2iv").expect("the id of the kept inputs");
    let client_id = ClientId::new("browser").expect("a client id");
    let mut replica = Replica::new(session_id, client_id, Restored::default());
    replica.set_funnel(built_in_funnel().clone(), "hash".to_owned());
    replica.connected();
    let mut is_taken = false;
    for line in text.lines().take(60) {
        if line == "disconnected" {
            replica.disconnected();
            replica.connected();
            continue;
        }
        if let Ok(command) = Command::from_json(line, NUMBERS) {
            let _ = replica.submit(command, NOW);
            continue;
        }
        let Ok(frame) = ServerFrame::from_json(line, NUMBERS) else { continue };
        assert_eq!(serde_json::from_str::<ServerFrame>(line).ok().as_ref(), Some(&frame), "read differently");
        let written = serde_json::to_string(&frame).expect("a frame can be written");
        assert_eq!(to_text(&frame, NUMBERS), written, "written differently");
        assert_eq!(ServerFrame::from_json(&written, NUMBERS).as_ref(), Ok(&frame), "not read back");
        replica.handle(frame);
        let _ = (replica.take_outputs(), replica.hello(), replica.session());
        is_taken = true;
    }
    Outcome::taken_if(is_taken)
}
