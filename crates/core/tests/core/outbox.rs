//! How far a replica says that its commands are.

use throughline_core::Command;
use throughline_core::sync::{PROTOCOL_VERSION, Replica, Restored, ServerFrame};

use crate::generate::{START, client, default_funnel, session_id};

fn stages(replica: &Replica) -> Vec<&'static str> {
    replica.pending_stages().collect()
}

#[test]
fn a_pending_command_is_issued_then_stored_then_sent_then_accepted() {
    let browser = client("browser");
    let mut replica = Replica::new(session_id(), browser.clone(), Restored::default());
    replica.set_funnel(default_funnel(), "hash".to_owned());
    replica.submit(Command::Create(Box::default()), START).unwrap();
    replica.submit(Command::SetEmail { email: "ada@example.com".to_owned() }, START).unwrap();
    assert_eq!(stages(&replica), ["issued", "issued"]);
    replica.commands_stored(&browser, 1);
    assert_eq!(stages(&replica), ["stored", "issued"]);
    replica.connected();
    replica.handle(ServerFrame::Welcome {
        protocol: PROTOCOL_VERSION,
        session_id: session_id(),
        epoch: 0,
        version: 0,
        durable_version: 0,
        last_seq: 0,
        server_time: START,
        funnel_hash: None,
        funnel: None,
    });
    assert_eq!(stages(&replica), ["sent", "issued"]);
    replica.handle(ServerFrame::Accepted { client_id: browser.clone(), seq: 1, version: 1, repeated: false });
    replica.commands_stored(&browser, 2);
    assert_eq!(stages(&replica), ["accepted", "sent"]);
    replica.handle(ServerFrame::Durable { version: 1 });
    assert_eq!(stages(&replica), ["sent"]);
    // What was sent over a connection that is gone is sent again.
    replica.disconnected();
    assert_eq!(stages(&replica), ["stored"]);
}
